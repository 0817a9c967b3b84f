"""A simple, deterministic placement: events in their order, each at the first start that breaks no hard rule.

First evenly spread by the events' hints; if that does not fit, as early as possible; if that does not fit either,
layer by layer along the arcs, moving what was placed before out of the way of what has fewer places. That suffices
where the work is a sequence (a cohort's curriculum); scarce trainers over many cohorts are the engine's work.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

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
    for run in (_Attempt(problem, spread=True).run, _Attempt(problem, spread=False).run, _Layers(problem).run):
        try:
            plan = run()
        except NoPlacement as error:
            last = error
        else:
            if not (broken := check(problem, plan)):
                return plan
            cls = {event.id: event.cls for event in problem.events}.get(broken[0].event, broken[0].event)
            last = NoPlacement(broken[0].event, cls, broken[0].rule, 0)
    raise last


def _large_enough(problem: Problem, event: Event) -> list[str]:
    return [name for name in event.rooms if problem.seats.get(name, event.size) >= event.size]


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


class _Layers:
    """Layer by layer along the arcs, each layer done as early as it can be.

    An event without a free place takes one whose holders can all be placed elsewhere (augmenting paths): where every
    session has one trainer of its own and the same length, that misses no plan.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._events = {event.id: event for event in problem.events}
        self._at: dict[str, Placement] = {}
        self._held: dict[tuple[str, str, int], str] = {}
        self._load: dict[tuple[str, str, int], int] = defaultdict(int)
        self._low: dict[str, int] = {}
        self._high: dict[str, int] = {}
        self._log: list[tuple[str, Placement, bool]] = []
        self._busy = {"trainer": problem.trainer_busy, "room": problem.room_busy, "group": problem.group_busy}

    def run(self) -> dict[str, Placement]:
        end = self._problem.days * self._problem.slots_per_day
        follows: dict[str, set[str]] = defaultdict(set)
        leads: dict[str, set[str]] = defaultdict(set)
        for before, after in self._problem.arcs:
            follows[after].add(before)
            leads[before].add(after)
        waiting = dict.fromkeys(event.cls for event in self._problem.events)
        done: dict[str, int] = {}
        while waiting:
            ready = [cls for cls in waiting if not follows[cls] & waiting.keys()]
            if not ready:
                first = self._events[next(e.id for e in self._problem.events if e.cls in waiting)]
                raise NoPlacement(first.id, first.cls, "H7", len(first.starts))
            for cls in ready:
                del waiting[cls]
                self._low[cls] = max((done[before] for before in follows[cls] if before in done), default=0)
            free, bound = [c for c in ready if not leads[c]], [c for c in ready if leads[c]]
            self._place(bound, self._horizons(bound))
            self._place(free, [end])
            for cls in bound:
                ends = [
                    w.start + self._events[id].duration for id, w in self._at.items() if self._events[id].cls == cls
                ]
                done[cls] = self._high[cls] = max(ends, default=0)
        return {event.id: self._at[event.id] for event in self._problem.events}

    def _horizons(self, classes: Iterable[str]) -> list[int]:
        chosen = set(classes)
        return sorted({s + e.duration for e in self._problem.events if e.cls in chosen for s in e.starts})

    def _place(self, classes: list[str], horizons: list[int]) -> None:
        """Place all events of these classes before the earliest horizon at which that works."""
        waiting = [event for event in self._problem.events if event.cls in set(classes)]
        waiting.sort(key=lambda e: (-len(e.groups), len(e.trainers) * len(e.starts)))
        for horizon in horizons:
            for cls in classes:
                self._high[cls] = horizon
            while waiting and self._put(waiting[0], set()):
                waiting.pop(0)
            if not waiting:
                return
        if waiting:
            event = waiting[0]
            raise NoPlacement(event.id, event.cls, self._reason(event), len(event.starts))

    def _window(self, event: Event) -> list[int]:
        pin = self._problem.pins.get(event.id, Pin())
        low, high = self._low[event.cls], self._high[event.cls]
        return [s for s in event.starts if low <= s and s + event.duration <= high and pin.start in (None, s)]

    def _put(self, event: Event, visited: set[tuple[int, tuple[str, ...]]]) -> bool:
        """Place the event, moving others where it must; or change nothing."""
        options = []
        for start in self._window(event):
            if (found := self._option(event, start)) is not None:
                where, blockers = found
                if not blockers:
                    self._insert(event, where)
                    return True
                options.append((start, where, blockers))
        for start, _, _ in options:
            if (start, event.groups) in visited:
                continue
            visited.add((start, event.groups))
            if (found := self._option(event, start)) is None:
                continue
            where, blockers = found
            mark = len(self._log)
            for id in blockers:
                self._remove(self._events[id])
            self._insert(event, where)
            if all(id in self._at or self._put(self._events[id], visited) for id in blockers):
                return True
            while len(self._log) > mark:
                id, was, inserted = self._log.pop()
                self._write(self._events[id], was, inserted=not inserted)
        return False

    def _option(self, event: Event, start: int) -> tuple[Placement, list[str]] | None:
        """The trainer and room at this start that displace the fewest others, and whom; None where nothing helps."""
        slots = range(start, start + event.duration)
        pin = self._problem.pins.get(event.id, Pin())
        cap = self._problem.group_day_caps.get(start // self._problem.slots_per_day, self._problem.slots_per_day)
        blockers: set[str] = set()
        for group in event.groups:
            if (found := self._blockers("group", group, slots, cap)) is None:
                return None
            blockers |= found
        chosen: dict[str, str | None] = {"trainer": None, "room": None}
        for kind, names, pinned, most in (
            ("trainer", event.trainers, pin.trainer, self._problem.trainer_day_cap),
            ("room", _large_enough(self._problem, event), pin.room, len(slots) + self._problem.slots_per_day),
        ):
            best: tuple[int, str, set[str]] | None = None
            for name in names:
                if pinned in (None, name) and (found := self._blockers(kind, name, slots, most)) is not None:
                    rank = (len(found | blockers), name, found)
                    best = rank if best is None or rank[:2] < best[:2] else best
                    if found <= blockers:
                        break
            if best is not None:
                chosen[kind] = best[1]
                blockers |= best[2]
            elif event.trainers if kind == "trainer" else event.rooms:
                return None
        return Placement(start, chosen["trainer"], chosen["room"]), sorted(blockers)

    def _blockers(self, kind: str, name: str, slots: range, cap: int) -> set[str] | None:
        """Who holds these slots of it; None where it is not to be had, or its day would be too long."""
        busy = self._busy[kind].get(name, frozenset())
        if any(slot in busy for slot in slots):
            return None
        found = {self._held[kind, name, slot] for slot in slots if (kind, name, slot) in self._held}
        if any(id in self._problem.pins for id in found):
            return None
        freed = sum(self._events[id].duration for id in found)
        day = slots.start // self._problem.slots_per_day
        return found if self._load[kind, name, day] - freed + len(slots) <= cap else None

    def _insert(self, event: Event, where: Placement) -> None:
        self._write(event, where, inserted=True)
        self._log.append((event.id, where, True))

    def _remove(self, event: Event) -> None:
        where = self._at[event.id]
        self._write(event, where, inserted=False)
        self._log.append((event.id, where, False))

    def _write(self, event: Event, where: Placement, *, inserted: bool) -> None:
        holders = [("group", name) for name in event.groups]
        holders += [(k, n) for k, n in (("trainer", where.trainer), ("room", where.room)) if n is not None]
        day = where.start // self._problem.slots_per_day
        for kind, name in holders:
            self._load[kind, name, day] += event.duration if inserted else -event.duration
            for slot in range(where.start, where.start + event.duration):
                if inserted:
                    self._held[kind, name, slot] = event.id
                else:
                    del self._held[kind, name, slot]
        if inserted:
            self._at[event.id] = where
        else:
            del self._at[event.id]

    def _reason(self, event: Event) -> str:
        """The rule that stands in the way of an event at most of its starts."""
        window = self._window(event)
        if not window:
            return "H7" if event.starts else "H1"
        names = {"H5": (event.trainers, self._problem.trainer_busy), "H6": (event.rooms, self._problem.room_busy)}
        for rule, (candidates, busy) in names.items():
            without = [
                s
                for s in window
                if candidates
                and all(any(n in busy.get(c, ()) for n in range(s, s + event.duration)) for c in candidates)
            ]
            if 2 * len(without) > len(window):
                return rule
        return "H2"
