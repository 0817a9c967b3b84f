"""Repairs a published plan after a disruption so that as few sessions change as can be (timetabling as minimal change).

First exactly, by OR-Tools CP-SAT, with only the broken events free, then with more around them; where that takes too
long, by a short annealing from the published plan, whose changes CP-SAT then takes back as far as it can.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ortools.sat.python import cp_model

from services.scheduling.solver.anneal import Moves
from services.scheduling.solver.check import check
from services.scheduling.solver.problem import Event, Pin, Placement, Plan, Problem
from services.scheduling.solver.search import Schedule, solve

WARM = Schedule("1", "0.2", 400, Moves(kempe=0, series=30, swap=120, trainer=400, keep=600))
CHANGED = (9, 6, 3)
"""What a change of an event's time, trainer, room costs where the problem does not say."""
_GROWN_BY = 40


@dataclass(frozen=True)
class Repaired:
    """A plan that may be used, what in it is not as published, and whether fewer changes were shown impossible."""

    plan: Plan
    broken: tuple[str, ...]
    changed: tuple[str, ...]
    minimal: bool
    how: str
    seconds: float
    clash_free_after: float


class NotRepaired(Exception):
    """No plan without a violation was found in the time; `violations` says what is left of the best."""

    def __init__(self, violations: int) -> None:
        super().__init__(f"{violations} violations are left")
        self.violations = violations


def broken(problem: Problem, published: Plan) -> list[str]:
    """The events by which the published plan breaks a rule of the problem as it is now."""
    found: dict[str, None] = {}
    known = {event.id: event for event in problem.events}
    by_class: dict[str, list[str]] = defaultdict(list)
    for event in problem.events:
        by_class[event.cls].append(event.id)
    for violation in check(problem, published):
        if violation.event in known:
            found[violation.event] = None
        elif violation.rule == "H7":
            found |= dict.fromkeys(by_class[violation.event])
        else:  # a trainer's or a group's day with too much on it
            day = int(violation.other)
            for event in problem.events:
                where = published[event.id]
                names = (*event.groups, where.trainer)
                if violation.event in names and where.start // problem.slots_per_day == day:
                    found[event.id] = None
    return list(found)


def frozen(problem: Problem, published: Plan, before_day: int) -> Problem:
    """The problem with everything pinned that is published for a day before this one: it was held, or is too near."""
    past = {
        id: Pin(where.start, where.trainer, where.room)
        for id, where in published.items()
        if where.start // problem.slots_per_day < before_day
    }
    return replace(problem, pins={**problem.pins, **past})


def repair(problem: Problem, published: Plan, *, seconds: float = 15.0) -> Repaired:
    """A plan without violations near the published one. Raises `NotRepaired`."""
    began = time.monotonic()
    hurt = broken(problem, published)
    if not hurt:
        return Repaired(published, (), (), True, "nothing is broken", 0.0, 0.0)

    def done(plan: Plan, how: str, minimal: bool, clash_free_after: float) -> Repaired:
        if violations := check(problem, plan):
            raise NotRepaired(len(violations))
        changed = tuple(id for id, where in plan.items() if where != published[id])
        now = time.monotonic() - began
        return Repaired(plan, tuple(hurt), changed, minimal, how, now, clash_free_after or now)

    found = _exactly(problem, published, set(hurt), published, seconds=min(2.0, seconds / 3))
    if found is not None:
        # Each broken event must change; when no other has, there is no smaller change.
        plan, _ = found
        return done(plan, "exact, broken events only", True, 0.0)
    costs = {event.id: problem.change_costs.get(event.id, CHANGED) for event in problem.events}
    warm = replace(problem, before=published, change_costs=costs)
    annealed = solve(
        warm,
        seconds=min(3.0, seconds / 3),
        seeds=(0, 1),
        begin=published,
        schedule=WARM,
        focus=_around(problem, published, hurt),
    )
    if annealed.violations:
        raise NotRepaired(len(annealed.violations))
    first = time.monotonic() - began - annealed.seconds + (annealed.clash_free_after or annealed.seconds)
    free = {id for id, where in annealed.plan.items() if where != published[id]} | set(hurt)
    left = max(1.0, seconds - (time.monotonic() - began))
    polished = _exactly(problem, published, free, annealed.plan, seconds=left)
    if polished is None:
        return done(annealed.plan, "annealed", False, first)
    plan, proven = polished
    return done(plan, "annealed, then exact within its changes", proven and len(free) == len(hurt), first)


def _around(problem: Problem, published: Plan, hurt: Iterable[str]) -> list[str]:
    """The broken events, and those of their classes: what a repair begins with."""
    known = {event.id: event for event in problem.events}
    series = {(known[id].cls, known[id].groups) for id in hurt}
    return [event.id for event in problem.events if (event.cls, event.groups) in series and event.id in published]


def _exactly(
    problem: Problem, published: Plan, free: set[str], hint: Plan, *, seconds: float
) -> tuple[dict[str, Placement], bool] | None:
    """The plan with fewest changes where only these events may change, and whether that was proven; None for none."""
    model = cp_model.CpModel()
    taken = _Taken(problem, {id: where for id, where in published.items() if id not in free})
    events = [event for event in problem.events if event.id in free]
    chosen: dict[str, _Chosen] = {}
    for event in events:
        one = _Chosen.of(model, problem, event, published[event.id], taken)
        if one is None:
            return None
        chosen[event.id] = one
        one.hint(model, hint[event.id])
    _apart(model, problem, events, chosen, taken)
    _in_order(model, problem, events, chosen, published)
    changed = []
    for event in events:
        one, same = chosen[event.id], model.new_bool_var("")
        where = published[event.id]
        kept = [one.starts.get(where.start), one.trainers.get(where.trainer), one.rooms.get(where.room)]
        if any(literal is None for literal in kept):
            model.add(same == 0)
        else:
            model.add_bool_and([literal for literal in kept if literal is not None]).only_enforce_if(same)
        moved = one.starts.get(where.start)
        changed.append(1000 * (1 - same) + (5 * (1 - moved) if moved is not None else 5))
    model.minimize(sum(changed))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = 2
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    plan = dict(published)
    for event in events:
        plan[event.id] = chosen[event.id].placement(solver)
    return plan, status == cp_model.OPTIMAL


class _Taken:
    """What the events that stay take away from the others."""

    def __init__(self, problem: Problem, staying: Mapping[str, Placement]) -> None:
        self.slots: dict[tuple[str, str], set[int]] = defaultdict(set)
        self.load: dict[tuple[str, str, int], int] = defaultdict(int)
        self._problem = problem
        for kind, busy in (("g", problem.group_busy), ("t", problem.trainer_busy), ("r", problem.room_busy)):
            for name, closed in busy.items():
                self.slots[kind, name] |= closed
        for event in problem.events:
            if (where := staying.get(event.id)) is None:
                continue
            own = range(where.start, where.start + event.duration)
            day = where.start // problem.slots_per_day
            holders = [("g", group) for group in event.groups]
            holders += [(kind, name) for kind, name in (("t", where.trainer), ("r", where.room)) if name is not None]
            for holder in holders:
                self.slots[holder] |= set(own)
                self.load[*holder, day] += event.duration

    def free(self, kind: str, name: str, start: int, duration: int) -> bool:
        return self.slots[kind, name].isdisjoint(range(start, start + duration))


@dataclass
class _Chosen:
    """What may be chosen for one event: a literal for each start, trainer and room."""

    event: Event
    starts: dict[int, cp_model.IntVar]
    trainers: dict[str | None, cp_model.IntVar]
    rooms: dict[str | None, cp_model.IntVar]
    at: cp_model.IntVar

    @classmethod
    def of(
        cls, model: cp_model.CpModel, problem: Problem, event: Event, published: Placement, taken: _Taken
    ) -> _Chosen | None:
        pin = problem.pins.get(event.id) or Pin()
        starts = [
            start
            for start in event.starts
            if pin.start in (None, start) and all(taken.free("g", g, start, event.duration) for g in event.groups)
        ]
        trainers: list[str | None] = [t for t in event.trainers if pin.trainer in (None, t)] or [None]
        seats = problem.seats
        fits = [r for r in event.rooms if problem.weights.seat or seats.get(r, event.size) >= event.size]
        rooms: list[str | None] = [r for r in fits if pin.room in (None, r)] or [None]
        if not starts or (event.trainers and trainers == [None]) or (event.rooms and rooms == [None]):
            return None
        one = cls(
            event,
            {start: model.new_bool_var("") for start in starts},
            {trainer: model.new_bool_var("") for trainer in trainers},
            {room: model.new_bool_var("") for room in rooms},
            model.new_int_var_from_domain(cp_model.Domain.from_values(starts), ""),
        )
        for literals in (one.starts, one.trainers, one.rooms):
            model.add_exactly_one(literals.values())
        model.add(one.at == sum(start * literal for start, literal in one.starts.items()))
        for start, literal in one.starts.items():
            for kind, named in (("t", one.trainers), ("r", one.rooms)):
                for name, other in named.items():
                    if name is not None and not taken.free(kind, name, start, event.duration):
                        model.add_bool_or([literal.negated(), other.negated()])
        return one

    def hint(self, model: cp_model.CpModel, where: Placement) -> None:
        for literals, value in ((self.starts, where.start), (self.trainers, where.trainer), (self.rooms, where.room)):
            for name, literal in literals.items():
                model.add_hint(literal, int(name == value))

    def placement(self, solver: cp_model.CpSolver) -> Placement:
        def one(literals: Mapping[object, cp_model.IntVar]) -> object:
            return next(name for name, literal in literals.items() if solver.boolean_value(literal))

        start, trainer, room = one(self.starts), one(self.trainers), one(self.rooms)  # type: ignore[arg-type]
        return Placement(start, trainer, room)  # type: ignore[arg-type]


def _apart(
    model: cp_model.CpModel, problem: Problem, events: Iterable[Event], chosen: Mapping[str, _Chosen], taken: _Taken
) -> None:
    """No two at once in a group, by a trainer, in a room; nobody over the cap of a day."""
    lanes: dict[tuple[str, str], list[cp_model.IntervalVar]] = defaultdict(list)
    loads: dict[tuple[str, str, int], list[cp_model.LinearExprT]] = defaultdict(list)
    per_day = problem.slots_per_day
    for event in events:
        one = chosen[event.id]
        whole = model.new_fixed_size_interval_var(one.at, event.duration, "")
        days: dict[int, list[cp_model.IntVar]] = defaultdict(list)
        for start, literal in one.starts.items():
            days[start // per_day].append(literal)
        for group in event.groups:
            lanes["g", group].append(whole)
            for day, literals in days.items():
                loads["g", group, day].append(event.duration * sum(literals))
        for kind, named in (("t", one.trainers), ("r", one.rooms)):
            for name, literal in named.items():
                if name is None:
                    continue
                lanes[kind, name].append(
                    model.new_optional_fixed_size_interval_var(one.at, event.duration, literal, "")
                )
                if kind == "t" and problem.trainer_day_cap < per_day:
                    for day, literals in days.items():
                        both = model.new_bool_var("")
                        model.add(sum(literals) + literal <= 1 + both)
                        loads["t", name, day].append(event.duration * both)
    for intervals in lanes.values():
        if len(intervals) > 1:
            model.add_no_overlap(intervals)
    for (kind, name, day), terms in loads.items():
        cap = problem.trainer_day_cap if kind == "t" else problem.group_day_caps.get(day, per_day)
        model.add(sum(terms) + taken.load[kind, name, day] <= cap)


def _in_order(
    model: cp_model.CpModel, problem: Problem, events: Iterable[Event], chosen: Mapping[str, _Chosen], published: Plan
) -> None:
    """Every session of a class ends before any of a later class begins."""
    of_class: dict[str, list[Event]] = defaultdict(list)
    for event in problem.events:
        of_class[event.cls].append(event)
    touched = {event.cls for event in events}
    for before, after in problem.arcs:
        if before not in touched and after not in touched:
            continue
        for one in of_class[before]:
            for other in of_class[after]:
                if one.id in chosen or other.id in chosen:
                    first = chosen[one.id].at if one.id in chosen else published[one.id].start
                    second = chosen[other.id].at if other.id in chosen else published[other.id].start
                    model.add(first + one.duration <= second)
