"""Cohort problems made up by a seed: what a national institution's year is like, in numbers; nobody in it exists."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

from services.scheduling.solver.problem import Event, Plan, Problem

WEEKS, WEEKDAYS, SLOTS = 17, 5, 8
"""A cohort's weeks; training days a week; JP of 45 minutes a day, with a break after the fourth."""
BREAK = 4
_STAGES = {"A": (0, 1), "B": (2, 6), "C": (7, 12), "D": (13, 15), "E": (16, 16)}
"""Weeks of opening, distance, workplace, classical, closing."""
_MODULES: tuple[tuple[str, str, int, int], ...] = (
    *(("A", f"A{n}", 2, 3) for n in (1, 2)),
    *(("B", f"B{n}", 4, 3) for n in (1, 2, 3, 4)),
    *(("B", f"B{n}", 3, 3) for n in (5, 6, 7, 8)),
    ("C", "C1", 6, 2),
    ("C", "C2", 2, 4),
    *(("D", f"D{n}", 3, 3) for n in (1, 2, 3, 4, 5, 6)),
    ("E", "E1", 2, 4),
)
"""Stage, module, sessions, JP of each: 53 sessions and the six of coaching, 178 JP in all with the closing two."""
_ARCS = (
    ("A1", "A2"), ("B1", "B2"), ("B2", "B3"), ("B4", "B5"), ("B6", "B7"), ("C1", "C2"), ("D1", "D2"), ("D2", "D5"),
    ("D3", "D4"),
)  # fmt: skip
_PHYSICAL = {"D", "E"}


@dataclass(frozen=True)
class Size:
    """What is to be made up."""

    cohorts: int = 40
    trainers: int = 50
    virtual_rooms: int = 10
    physical_rooms: int = 10
    starts_over_weeks: int = 16
    """The cohorts begin two weeks apart, within so many weeks."""
    qualified: int = 5
    """Modules that a trainer may lead, at least."""
    led: int = 8
    """Trainers who may lead a module, at least."""


def cohorts(size: Size, seed: int) -> Problem:
    """A problem of this size: sessions, trainers who are away by turns, rooms, holidays."""
    dice = random.Random(f"{size}/{seed}")
    weeks = WEEKS + max(0, size.starts_over_weeks - 2)
    days = weeks * WEEKDAYS
    holidays = set(dice.sample(range(days), max(1, days * 7 // 155)))
    modules = [module for _, module, _, _ in _MODULES]
    trainers = [f"trainer-{n:03d}" for n in range(1, size.trainers + 1)]
    leads = {trainer: set(dice.sample(modules, min(size.qualified, len(modules)))) for trainer in trainers}
    for module in modules:
        missing = size.led - sum(module in one for one in leads.values())
        others = [trainer for trainer in trainers if module not in leads[trainer]]
        for trainer in dice.sample(others, max(0, min(missing, len(others)))):
            leads[trainer].add(module)
    qualified = {module: tuple(t for t in trainers if module in leads[t]) for module in modules}

    seats = {f"virtual-{n:02d}": dice.choice((40, 100)) for n in range(1, size.virtual_rooms + 1)}
    seats |= {f"room-{n:02d}": dice.randint(30, 45) for n in range(1, size.physical_rooms + 1)}
    for prefix in ("virtual", "room"):
        widest = next(name for name in seats if name.startswith(prefix))
        seats[widest] = max(seats[widest], 40)
    events: list[Event] = []
    targets: dict[str, dict[int, int]] = {}
    arcs: list[tuple[str, str]] = []
    begins = list(range(0, max(2, size.starts_over_weeks), 2))
    for number in range(size.cohorts):
        cohort, week = f"cohort-{number + 1:03d}", begins[number * len(begins) // size.cohorts]
        people = dice.randint(20, 40)
        targets[cohort] = _targets(week, holidays)
        for stage, module, sessions, duration in _MODULES:
            first, last = _STAGES[stage]
            open_days = [
                day for day in range((week + first) * WEEKDAYS, (week + last + 1) * WEEKDAYS) if day not in holidays
            ]
            starts = tuple(day * SLOTS + slot for day in open_days for slot in _starts(duration))
            kind = "room" if stage in _PHYSICAL else "virtual"
            rooms = tuple(name for name, least in seats.items() if name.startswith(kind) and least >= people)
            events += [
                Event(
                    f"{cohort}/{module}/{n}", f"{cohort}/{module}", duration, starts, qualified[module], rooms,
                    (cohort,), people,
                )
                for n in range(sessions)
            ]  # fmt: skip
        arcs += [(f"{cohort}/{before}", f"{cohort}/{after}") for before, after in _ARCS]
    away: dict[str, frozenset[int]] = {}
    for trainer in trainers:
        absent: set[int] = set()
        while len(absent) < days // 10:
            start = dice.randrange(days)
            absent |= set(range(start, min(days, start + dice.randint(1, 5))))
        away[trainer] = frozenset(day * SLOTS + slot for day in absent for slot in range(SLOTS))
    return Problem(
        days, SLOTS, tuple(events), seats, trainer_busy=away, arcs=tuple(arcs), trainer_day_cap=6, week_targets=targets
    )


def _targets(first_week: int, holidays: set[int]) -> dict[int, int]:
    """The JP of each stage shared among its weeks by their open days."""
    found: dict[int, int] = {}
    for stage, (first, last) in _STAGES.items():
        total = sum(sessions * duration for of, _, sessions, duration in _MODULES if of == stage)
        weeks = range(first_week + first, first_week + last + 1)
        open_days = {w: sum(w * WEEKDAYS + n not in holidays for n in range(WEEKDAYS)) for w in weeks}
        for week, days in open_days.items():
            found[week] = round(total * days / sum(open_days.values()))
    return found


def _starts(duration: int) -> list[int]:
    """Slots of a day at which a session of this length may begin without going over the break."""
    return [slot for slot in range(SLOTS - duration + 1) if not slot < BREAK < slot + duration]


Disruption = Literal["trainer", "room", "holiday"]


def disrupted(problem: Problem, plan: Plan, kind: Disruption) -> Problem:
    """The problem as it is after the busiest trainer falls ill for two weeks, the busiest room is closed for one, or

    the busiest day becomes a holiday.
    """
    per_week = WEEKDAYS * problem.slots_per_day
    if kind == "holiday":
        day, _ = Counter(where.start // problem.slots_per_day for where in plan.values()).most_common(1)[0]
        left = [tuple(s for s in event.starts if s // problem.slots_per_day != day) for event in problem.events]
        events = tuple(replace(event, starts=starts) for event, starts in zip(problem.events, left, strict=True))
        return replace(problem, events=events)
    whose = [where.trainer if kind == "trainer" else where.room for where in plan.values()]
    name, _ = Counter(one for one in whose if one is not None).most_common(1)[0]
    own = [w.start // per_week for w in plan.values() if name in (w.trainer, w.room)]
    week, _ = Counter(own).most_common(1)[0]
    closed = frozenset(range(week * per_week, (week + (2 if kind == "trainer" else 1)) * per_week))
    busy = problem.trainer_busy if kind == "trainer" else problem.room_busy
    changed = {**busy, name: busy.get(name, frozenset()) | closed}
    return replace(problem, trainer_busy=changed) if kind == "trainer" else replace(problem, room_busy=changed)
