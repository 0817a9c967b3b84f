"""The independent checker: it shares no code with whatever made a plan, and no plan is used unchecked."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from services.scheduling.solver.problem import Placement, Plan, Problem


@dataclass(frozen=True, slots=True)
class Violation:
    """A hard rule that a plan breaks, and where."""

    rule: str
    event: str
    other: str = ""


def check(problem: Problem, plan: Plan) -> list[Violation]:
    """Every hard rule that the plan breaks; empty for a plan that may be used.

    H1 placed once at a candidate start; H2 no clash in a group; H3 none of a trainer; H4 none of a room; H5 the
    trainer may lead it, is available and within the caps of a day and a week; H6 the room may hold it, is available
    and has the seats; H7 precedence between classes; H8 the group's cap of a day; H9 pins.
    """
    found: list[Violation] = []
    known = {event.id: event for event in problem.events}
    found += [Violation("H1", id) for id in plan if id not in known]
    found += [Violation("H1", event.id) for event in problem.events if event.id not in plan]
    placed = [(event, plan[event.id]) for event in problem.events if event.id in plan]

    taken: dict[tuple[str, str, int], str] = {}
    load: dict[tuple[str, str, int], int] = defaultdict(int)
    week_load: dict[tuple[str, int], int] = defaultdict(int)
    for event, where in placed:
        if where.start not in event.starts:
            found.append(Violation("H1", event.id))
        slots = range(where.start, where.start + event.duration)
        holders = [("H2", "group", name, problem.group_busy) for name in event.groups]
        if event.trainers or where.trainer is not None:
            if where.trainer not in event.trainers:
                found.append(Violation("H5", event.id, where.trainer or ""))
            holders.append(("H3", "trainer", where.trainer or "", problem.trainer_busy))
        if event.rooms or where.room is not None:
            too_small = not problem.weights.seat and problem.seats.get(where.room or "", event.size) < event.size
            if where.room not in event.rooms or too_small:
                found.append(Violation("H6", event.id, where.room or ""))
            holders.append(("H4", "room", where.room or "", problem.room_busy))
        for rule, kind, name, busy in holders:
            unavailable = busy.get(name, frozenset())
            for slot in slots:
                if slot in unavailable:
                    found.append(Violation({"H3": "H5", "H4": "H6"}.get(rule, rule), event.id, name))
                if (other := taken.get((kind, name, slot))) is not None:
                    found.append(Violation(rule, event.id, other))
                taken[kind, name, slot] = event.id
                load[kind, name, slot // problem.slots_per_day] += 1
                if kind == "trainer":
                    week_load[name, slot // problem.slots_per_day // problem.days_per_week] += 1
        pin = problem.pins.get(event.id)
        if pin is not None:
            for fixed, actual in ((pin.start, where.start), (pin.trainer, where.trainer), (pin.room, where.room)):
                if fixed is not None and fixed != actual:
                    found.append(Violation("H9", event.id))

    for (kind, name, day), slots_used in load.items():
        if kind == "trainer" and slots_used > problem.trainer_day_cap:
            found.append(Violation("H5", name, str(day)))
        if kind == "group" and slots_used > problem.group_day_caps.get(day, problem.slots_per_day):
            found.append(Violation("H8", name, str(day)))
    for (name, week), slots_used in week_load.items():
        if problem.trainer_week_cap is not None and slots_used > problem.trainer_week_cap:
            found.append(Violation("H5", name, f"week {week}"))

    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for event, where in placed:
        first[event.cls] = min(first.get(event.cls, where.start), where.start)
        last[event.cls] = max(last.get(event.cls, 0), where.start + event.duration)
    for before, after in problem.arcs:
        if before in last and after in first and last[before] > first[after]:
            found.append(Violation("H7", before, after))
    return list(dict.fromkeys(found))


LONG_DAY = 6
FROM_TARGET = 2
"""By how many slots a group's week may be off its target at no cost."""


def costs(problem: Problem, plan: Plan) -> dict[str, int]:
    """What a complete plan costs by each soft rule that has a weight, and `change` where there was a plan before.

    The rules and their units are those of `Weights`; 0 is best, but for S6, which is least where all carry the same.
    """
    weights = problem.weights
    used: dict[tuple[str, int], set[int]] = defaultdict(set)
    led: dict[tuple[str, tuple[str, ...]], set[str]] = defaultdict(set)
    housed: dict[tuple[str, tuple[str, ...]], set[str]] = defaultdict(set)
    held: dict[str, set[int]] = defaultdict(set)
    carried: dict[str, int] = defaultdict(int)
    weekly: dict[tuple[str, int], int] = defaultdict(int)
    standing = 0
    for event in problem.events:
        where = plan[event.id]
        day, first = divmod(where.start, problem.slots_per_day)
        held[event.cls].add(day)
        for group in event.groups:
            used[group, day].update(range(first, first + event.duration))
            weekly[group, day // problem.days_per_week] += event.duration
        if where.trainer is not None:
            led[event.cls, event.groups].add(where.trainer)
            carried[where.trainer] += event.duration
        if where.room is not None:
            housed[event.cls, event.groups].add(where.room)
            standing += max(0, event.size - problem.seats.get(where.room, event.size))
    found = {
        "S1": weights.idle * sum(max(slots) + 1 - min(slots) - len(slots) for slots in used.values()),
        "S2": weights.spread
        * sum(
            max(0, abs(weekly[group, week] - target) - FROM_TARGET)
            for group, targets in problem.week_targets.items()
            for week, target in targets.items()
        ),
        "S3": weights.long_day * sum(max(0, len(slots) - LONG_DAY) ** 2 for slots in used.values()),
        "S4": weights.trainer * sum(len(names) - 1 for names in led.values()),
        "S5": weights.room * sum(len(names) - 1 for names in housed.values()),
        "S6": weights.balance * sum(load**2 for load in carried.values()) // 100,
        "S7": weights.seat * standing,
        "S8": weights.days * sum(max(0, least - len(held[cls])) for cls, least in problem.class_days.items()),
        "S9": weights.isolated * sum(len({s for s in slots if not {s - 1, s + 1} & slots}) for slots in used.values()),
    }
    w = weights
    spread = w.spread if problem.week_targets else 0
    counted = [w.idle, spread, w.long_day, w.trainer, w.room, w.balance, w.seat, w.days, w.isolated]
    told = {rule: cost for (rule, cost), weight in zip(found.items(), counted, strict=True) if weight}
    if problem.before:
        told["change"] = sum(_change(problem, event.id, plan[event.id]) for event in problem.events)
    return told


def _change(problem: Problem, id: str, now: Placement) -> int:
    if (then := problem.before.get(id)) is None:
        return 0
    time, trainer, room = problem.change_costs.get(id, (0, 0, 0))
    changed = now.start != then.start, now.trainer != then.trainer, now.room != then.room
    return time * changed[0] + trainer * changed[1] + room * changed[2]
