"""A simple, deterministic placement: events in their order, each at the first start that breaks no hard rule.

First evenly spread by the events' hints, then, if that does not fit, as early as possible. It finds a plan where the
work is a sequence (a cohort's curriculum); scarce trainers over many cohorts are the engine's work.
"""

from __future__ import annotations

from collections import defaultdict

from services.scheduling.solver.check import check
from services.scheduling.solver.problem import Event, Pin, Placement, Plan, Problem


class NoPlacement(Exception):
    """No place for an event: the rule that stands in the way at most of its candidate starts."""

    def __init__(self, event: str, cls: str, rule: str, candidates: int) -> None:
        super().__init__(f"{cls}: {rule}")
        self.event = event
        self.cls = cls
        self.rule = rule
        self.candidates = candidates


def place(problem: Problem) -> Plan:
    """A plan that the checker passes. Raises `NoPlacement`."""
    try:
        plan = _Attempt(problem, spread=True).run()
    except NoPlacement:
        plan = _Attempt(problem, spread=False).run()
    if broken := check(problem, plan):
        raise NoPlacement(broken[0].event, broken[0].event, broken[0].rule, 0)
    return plan


class _Attempt:
    def __init__(self, problem: Problem, *, spread: bool) -> None:
        self._problem = problem
        self._spread = spread
        self._busy: dict[tuple[str, str], set[int]] = defaultdict(set)
        for kind, given in (
            ("trainer", problem.trainer_busy),
            ("room", problem.room_busy),
            ("group", problem.group_busy),
        ):
            for name, slots in given.items():
                self._busy[kind, name] |= slots
        self._day_load: dict[tuple[str, str, int], int] = defaultdict(int)
        self._total: dict[str, int] = defaultdict(int)
        self._preferred: dict[tuple[str, tuple[str, ...]], tuple[str | None, str | None]] = {}
        self._ends: dict[str, int] = {}
        self._before: dict[str, list[str]] = defaultdict(list)
        for first, second in problem.arcs:
            self._before[second].append(first)

    def run(self) -> dict[str, Placement]:
        plan: dict[str, Placement] = {}
        for event in self._problem.events:
            plan[event.id] = where = self._find(event)
            self._take(event, where)
        return plan

    def _find(self, event: Event) -> Placement:
        pin = self._problem.pins.get(event.id, Pin())
        earliest = max((self._ends.get(cls, 0) for cls in self._before[event.cls]), default=0)
        starts = [s for s in event.starts if s >= earliest and pin.start in (None, s)]
        hint = event.hint if self._spread else 0
        reasons: dict[str, int] = defaultdict(int)
        for start in sorted(starts, key=lambda s: (s < hint, s)):
            found = self._at(event, start, pin)
            if isinstance(found, Placement):
                return found
            reasons[found] += 1
        rule = max(reasons, key=lambda r: (reasons[r], r)) if reasons else "H7" if event.starts else "H1"
        raise NoPlacement(event.id, event.cls, rule, len(event.starts))

    def _at(self, event: Event, start: int, pin: Pin) -> Placement | str:
        """The placement at this start, or the rule that forbids it."""
        slots = set(range(start, start + event.duration))
        day = start // self._problem.slots_per_day
        cap = self._problem.group_day_caps.get(day, self._problem.slots_per_day)
        for group in event.groups:
            if slots & self._busy["group", group]:
                return "H2"
            if self._day_load["group", group, day] + event.duration > cap:
                return "H8"
        trainer, room = self._preferred.get((event.cls, event.groups), (None, None))
        trainers = sorted(event.trainers, key=lambda name: (name != trainer, self._total[name], name))
        rooms = sorted(event.rooms, key=lambda name: (name != room, self._problem.seats.get(name, 0), name))
        chosen_trainer = next(
            (
                name
                for name in trainers
                if pin.trainer in (None, name)
                and not slots & self._busy["trainer", name]
                and self._day_load["trainer", name, day] + event.duration <= self._problem.trainer_day_cap
            ),
            None,
        )
        if chosen_trainer is None and event.trainers:
            return "H5"
        chosen_room = next(
            (
                name
                for name in rooms
                if pin.room in (None, name)
                and self._problem.seats.get(name, event.size) >= event.size
                and not slots & self._busy["room", name]
            ),
            None,
        )
        if chosen_room is None and event.rooms:
            return "H6"
        return Placement(start, chosen_trainer, chosen_room)

    def _take(self, event: Event, where: Placement) -> None:
        slots = range(where.start, where.start + event.duration)
        day = where.start // self._problem.slots_per_day
        holders = [("group", name) for name in event.groups]
        if where.trainer is not None:
            holders.append(("trainer", where.trainer))
            self._total[where.trainer] += event.duration
        if where.room is not None:
            holders.append(("room", where.room))
        for holder in holders:
            self._busy[holder].update(slots)
            self._day_load[(*holder, day)] += event.duration
        self._preferred[event.cls, event.groups] = (where.trainer, where.room)
        self._ends[event.cls] = max(self._ends.get(event.cls, 0), slots.stop)
