"""The independent checker: it shares no code with whatever made a plan, and no plan is used unchecked."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from services.scheduling.solver.problem import Plan, Problem


@dataclass(frozen=True, slots=True)
class Violation:
    """A hard rule that a plan breaks, and where."""

    rule: str
    event: str
    other: str = ""


def check(problem: Problem, plan: Plan) -> list[Violation]:
    """Every hard rule that the plan breaks; empty for a plan that may be used.

    H1 placed once at a candidate start; H2 no clash in a group; H3 none of a trainer; H4 none of a room; H5 the
    trainer may lead it, is available and within the cap of a day; H6 the room may hold it, is available and has the
    seats; H7 precedence between classes; H8 the group's cap of a day; H9 pins.
    """
    found: list[Violation] = []
    known = {event.id: event for event in problem.events}
    found += [Violation("H1", id) for id in plan if id not in known]
    found += [Violation("H1", event.id) for event in problem.events if event.id not in plan]
    placed = [(event, plan[event.id]) for event in problem.events if event.id in plan]

    taken: dict[tuple[str, str, int], str] = {}
    load: dict[tuple[str, str, int], int] = defaultdict(int)
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
            if where.room not in event.rooms or problem.seats.get(where.room or "", event.size) < event.size:
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


def costs(problem: Problem, plan: Plan) -> dict[str, int]:
    """What a plan costs by each soft rule; 0 is best.

    S1 two for each idle slot inside a group's day; S3 twice the square of a group's slots above six on a day; S4 five
    for each trainer after the first of a class and group; S5 one for each further room; S6 the trainers' loads,
    squared and summed, by 100 (the least where all carry the same).
    """
    used: dict[tuple[str, int], set[int]] = defaultdict(set)
    led: dict[tuple[str, str], set[str]] = defaultdict(set)
    housed: dict[tuple[str, str], set[str]] = defaultdict(set)
    carried: dict[str, int] = defaultdict(int)
    for event in problem.events:
        where = plan[event.id]
        day, first = divmod(where.start, problem.slots_per_day)
        for group in event.groups:
            used[group, day].update(range(first, first + event.duration))
            if where.trainer is not None:
                led[event.cls, group].add(where.trainer)
            if where.room is not None:
                housed[event.cls, group].add(where.room)
        if where.trainer is not None:
            carried[where.trainer] += event.duration
    return {
        "S1": sum(2 * (max(slots) + 1 - min(slots) - len(slots)) for slots in used.values()),
        "S3": sum(2 * max(0, len(slots) - LONG_DAY) ** 2 for slots in used.values()),
        "S4": sum(5 * (len(names) - 1) for names in led.values()),
        "S5": sum(len(names) - 1 for names in housed.values()),
        "S6": sum(load**2 for load in carried.values()) // 100,
    }
