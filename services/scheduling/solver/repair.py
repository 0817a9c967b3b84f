"""Repairs a published plan after a disruption so that as few sessions change as can be (timetabling as minimal change).

First exactly, by OR-Tools CP-SAT, with only the broken events free. Where that is not enough, by a short annealing from
the published plan, whose changes CP-SAT then takes back as far as it can, with more and more around them free.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from ortools.sat.python import cp_model

from services.scheduling.solver.anneal import Impossible, Moves
from services.scheduling.solver.check import check, costs
from services.scheduling.solver.problem import Event, Pin, Placement, Plan, Problem
from services.scheduling.solver.search import Schedule, solve

WARM = Schedule(
    (("1", "1", "0.2"),),
    400,
    Moves(start=200, start_room=150, room=100, trainer=140, free=300, kempe=60, all_trainer=30, all_room=44),
)
CHANGED = (3, 2, 1)
"""What a change of an event's time, trainer, room costs where the problem does not say, before it is weighed."""
WEIGHTS = (1, 3, 10)
"""How much changes count against quality, in the plans that a planner is offered."""
_MOST_FREE = 400


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
    by_rule: Mapping[str, int]
    """What the plan costs by each soft rule, changes apart."""

    @property
    def cost(self) -> int:
        return sum(self.by_rule.values())


class NotRepaired(Exception):
    """No plan without a violation was found in the time; `violations` says what is left of the best."""

    def __init__(self, violations: int, told: str = "") -> None:
        super().__init__(told or f"{violations} violations are left")
        self.violations = violations


@dataclass(frozen=True, slots=True)
class Change:
    """An event that is not as it was published."""

    event: Event
    before: Placement
    after: Placement


def difference(problem: Problem, before: Plan, after: Plan) -> list[Change]:
    """What changed, in the order of the time that it has now."""
    found = [Change(e, before[e.id], after[e.id]) for e in problem.events if before[e.id] != after[e.id]]
    return sorted(found, key=lambda change: (change.after.start, change.event.id))


def touched(problem: Problem, changes: Iterable[Change]) -> dict[str, Counter[str]]:
    """How many changes each group, each trainer and each day sees: `groups`, `trainers`, `days`."""
    seen: dict[str, Counter[str]] = {"groups": Counter(), "trainers": Counter(), "days": Counter()}
    for change in changes:
        both = change.before, change.after
        seen["groups"].update(change.event.groups)
        seen["trainers"].update({where.trainer for where in both if where.trainer is not None})
        seen["days"].update({str(where.start // problem.slots_per_day) for where in both})
    return seen


def broken(problem: Problem, published: Plan) -> list[str]:
    """The events by which the published plan breaks a rule of the problem as it is now."""
    return list(_broken(problem, published)[0])


def _broken(problem: Problem, published: Plan) -> tuple[dict[str, None], set[str]]:
    """Events that take part in a violation, and those of them that cannot stay as they are whatever the others do."""
    found: dict[str, None] = {}
    must: set[str] = set()
    known = {event.id: event for event in problem.events}
    by_class: dict[str, list[str]] = defaultdict(list)
    for event in problem.events:
        by_class[event.cls].append(event.id)
    for violation in check(problem, published):
        if violation.event in known:
            found[violation.event] = None
            if violation.other in known:
                found[violation.other] = None
            else:  # its own start, its trainer's or its room's absence: nobody else's doing
                must.add(violation.event)
        elif violation.rule == "H7":
            found |= dict.fromkeys([*by_class[violation.event], *by_class[violation.other]])
        else:  # a trainer's or a group's day or week with too much on it
            per = problem.slots_per_day * (problem.days_per_week if violation.other.startswith("week") else 1)
            number = int(violation.other.removeprefix("week "))
            for event in problem.events:
                where = published[event.id]
                if violation.event in (*event.groups, where.trainer) and where.start // per == number:
                    found[event.id] = None
    return found, must


def frozen(problem: Problem, published: Plan, before_day: int) -> Problem:
    """The problem in which all that is published for a day before this one is a fact: it was held, or is too near.

    What was held was held: absences of those days no longer count.
    """
    first = before_day * problem.slots_per_day
    past = {id: Pin(w.start, w.trainer, w.room) for id, w in published.items() if w.start < first}
    events = []
    for event in problem.events:
        if event.id in past:
            held = published[event.id]
            event = replace(
                event,
                starts=(held.start,),
                trainers=(held.trainer,) if held.trainer is not None else (),
                rooms=(held.room,) if held.room is not None else (),
            )
        events.append(event)

    def later(busy: Mapping[str, frozenset[int]]) -> dict[str, frozenset[int]]:
        return {name: frozenset(slot for slot in slots if slot >= first) for name, slots in busy.items()}

    return replace(
        problem,
        events=tuple(events),
        pins={**problem.pins, **past},
        trainer_busy=later(problem.trainer_busy),
        room_busy=later(problem.room_busy),
        group_busy=later(problem.group_busy),
    )


def repair(problem: Problem, published: Plan, *, seconds: float = 15.0) -> Repaired:
    """A plan without violations near the published one, with as few changes as are found. Raises `NotRepaired`."""
    began = time.monotonic()
    hurt, must = _broken(problem, published)
    if not hurt:
        return Repaired(published, (), (), True, "nothing is broken", 0.0, 0.0, costs(problem, published))

    def left() -> float:
        return seconds - (time.monotonic() - began)

    def done(plan: Plan, how: str, first: float) -> Repaired:
        if violations := check(problem, plan):
            raise NotRepaired(len(violations))
        changed = tuple(id for id, where in plan.items() if where != published[id])
        minimal = set(changed) <= must
        quality = costs(replace(problem, before={}), plan)
        return Repaired(
            plan,
            tuple(hurt),
            changed,
            minimal,
            how,
            time.monotonic() - began,
            first or time.monotonic() - began,
            quality,
        )

    found = _exactly(problem, published, set(hurt), published, seconds=min(1.5, seconds / 4))
    if found is not None and _changes(found[0], published) <= must:
        # Each of these must change; when no other has, there is no smaller change.
        return done(found[0], "exact, broken events only", 0.0)
    best: Plan
    if found is not None:
        best, how, first = found[0], "exact, around the broken events", time.monotonic() - began
    else:
        before = time.monotonic() - began
        best, first = _annealed(problem, published, hurt, WEIGHTS[-1], min(3.0, max(1.0, seconds / 4)))
        how, first = "annealed, then exact around its changes", before + first
    for free in _growing(problem, published, {*hurt, *_changes(best, published)}):
        if left() < 0.5:
            break
        found = _exactly(problem, published, free, best, seconds=left())
        if found is None:
            break
        if len(_changes(found[0], published)) < len(_changes(best, published)):
            best = found[0]
        if not found[1] or _changes(best, published) <= must:
            break
    return done(best, how, first)


def alternatives(problem: Problem, published: Plan, *, seconds: float = 15.0) -> list[Repaired]:
    """Up to four plans to choose from, fewest changes first, each better than the one before it in quality.

    The repair with fewest changes, and annealing that counts changes less and less (`WEIGHTS`). Raises `NotRepaired`.
    """
    share = seconds / (len(WEIGHTS) + 1)
    offers = [repair(problem, published, seconds=share)]
    hurt, _ = _broken(problem, published)
    for weight in WEIGHTS:
        began = time.monotonic()
        try:
            plan, first = _annealed(problem, published, hurt, weight, share)
        except NotRepaired:
            continue
        quality = costs(replace(problem, before={}), plan)
        changed = tuple(sorted(_changes(plan, published)))
        how = f"annealed, changes weigh {weight}"
        offers.append(Repaired(plan, tuple(hurt), changed, False, how, time.monotonic() - began, first, quality))
    chosen: list[Repaired] = []
    for offer in sorted(offers, key=lambda offer: (len(offer.changed), offer.cost)):
        if not chosen or offer.cost < chosen[-1].cost:
            chosen.append(offer)
    return chosen


def _changes(plan: Plan, published: Plan) -> set[str]:
    return {id for id, where in plan.items() if where != published[id]}


def _annealed(
    problem: Problem, published: Plan, hurt: Iterable[str], weight: int, seconds: float
) -> tuple[Plan, float]:
    """A plan near the published one, and the seconds until the first without a clash. Raises `NotRepaired`."""
    prices = {e.id: problem.change_costs.get(e.id, CHANGED) for e in problem.events}
    weighed = {id: (weight * time_, weight * trainer, weight * room) for id, (time_, trainer, room) in prices.items()}
    warm = replace(problem, before=published, change_costs=weighed)
    focus = _around(problem, hurt)
    try:
        annealed = solve(warm, seconds=seconds, seeds=(0, 1), begin=published, schedule=WARM, focus=focus)
    except Impossible as error:
        raise NotRepaired(len(list(hurt)), str(error)) from None
    if annealed.violations:
        raise NotRepaired(len(annealed.violations))
    return annealed.plan, annealed.clash_free_after or annealed.seconds


def _around(problem: Problem, hurt: Iterable[str]) -> list[str]:
    """The broken events, and those of their classes: what a repair begins with."""
    known = {event.id: event for event in problem.events}
    series = {(known[id].cls, known[id].groups) for id in hurt}
    return [event.id for event in problem.events if (event.cls, event.groups) in series]


def _growing(problem: Problem, published: Plan, free: set[str]) -> Iterator[set[str]]:
    """The events, then with what was published for their groups on their days, then for their groups in their weeks."""
    known = {event.id: event for event in problem.events}
    yield free
    for days in (1, problem.days_per_week):
        per = days * problem.slots_per_day
        near = {(group, published[id].start // per) for id in free for group in known[id].groups}
        more = free | {
            event.id for event in problem.events for group in event.groups
            if (group, published[event.id].start // per) in near
        }  # fmt: skip
        if len(more) > _MOST_FREE or more == free:
            return
        yield more


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
            if where.trainer is not None:
                self.load["week", where.trainer, day // problem.days_per_week] += event.duration

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
                if kind == "t" and (problem.trainer_day_cap < per_day or problem.trainer_week_cap is not None):
                    for day, literals in days.items():
                        both = model.new_bool_var("")
                        model.add(sum(literals) + literal <= 1 + both)
                        loads["t", name, day].append(event.duration * both)
                        loads["week", name, day // problem.days_per_week].append(event.duration * both)
    for intervals in lanes.values():
        if len(intervals) > 1:
            model.add_no_overlap(intervals)
    for (kind, name, day), terms in loads.items():
        if kind == "week":
            cap = per_day * problem.days_per_week if problem.trainer_week_cap is None else problem.trainer_week_cap
        else:
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
