"""The one problem form: events with candidate starts, trainers and rooms, in groups and classes, bound by arcs.

Time is a grid of slots: slot = day × slots_per_day + slot of the day. A cohort's slot is one JP; a lecture's is one
period. Two worlds become it: cohorts of a training institution, and curriculum-based course timetabling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Event:
    """Something to be placed once: `duration` slots from one of `starts`, with one trainer and one room if it has any.

    `hint` is the earliest start that spreads the work evenly; it is a wish, not a rule.
    """

    id: str
    cls: str
    duration: int
    starts: tuple[int, ...]
    trainers: tuple[str, ...] = ()
    rooms: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    size: int = 0
    hint: int = 0


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an event is: its first slot, who leads it, where it is held."""

    start: int
    trainer: str | None = None
    room: str | None = None


@dataclass(frozen=True, slots=True)
class Pin:
    """Parts of an event's placement that may not be changed; None is free."""

    start: int | None = None
    trainer: str | None = None
    room: str | None = None


@dataclass(frozen=True, slots=True)
class Weights:
    """What each soft rule costs; a rule of weight 0 does not count. Data: an institution sets its own."""

    idle: int = 2
    """S1, for each idle slot inside a group's day."""
    long_day: int = 2
    """S3, times the square of a group's slots above six on a day."""
    trainer: int = 5
    """S4, for each trainer of a class after the first."""
    room: int = 1
    """S5, for each room of a class after the first."""
    balance: int = 1
    """S6, times the trainers' loads, squared and summed, by 100."""
    seat: int = 0
    """S7, for each participant without a seat; 0 makes seats a hard rule."""
    days: int = 0
    """S8, for each day by which a class is spread over fewer than it should."""
    isolated: int = 0
    """S9, for each slot of a group with none of its own before or after it on the day."""
    spread: int = 1
    """S2, for each slot by which a group's week is more than two off its target."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is to be placed, and what may not be."""

    days: int
    slots_per_day: int
    events: tuple[Event, ...]
    seats: Mapping[str, int] = field(default_factory=dict)
    trainer_busy: Mapping[str, frozenset[int]] = field(default_factory=dict)
    room_busy: Mapping[str, frozenset[int]] = field(default_factory=dict)
    group_busy: Mapping[str, frozenset[int]] = field(default_factory=dict)
    arcs: tuple[tuple[str, str], ...] = ()
    """Pairs of classes: every event of the first ends before any of the second starts."""
    group_day_caps: Mapping[int, int] = field(default_factory=dict)
    """Day → most slots that a group may have on it."""
    trainer_day_cap: int = 8
    pins: Mapping[str, Pin] = field(default_factory=dict)
    change_costs: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    """Event → cost of changing its time, trainer or room against the plan before."""
    before: Mapping[str, Placement] = field(default_factory=dict)
    """The plan before, where there is one."""
    class_days: Mapping[str, int] = field(default_factory=dict)
    """Class → on how many days it should be held at least."""
    days_per_week: int = 5
    """Day // this is a week."""
    week_targets: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    """Group → week → slots that it should have; what is not said is not wanted otherwise."""
    trainer_week_cap: int | None = None
    weights: Weights = Weights()


Plan = Mapping[str, Placement]
"""Event id → where it is."""


@dataclass(frozen=True, slots=True)
class Season:
    """A problem, and what its slots are called (a date, "Monday 3rd JP"); without names they are numbered by day."""

    problem: Problem
    slot_names: tuple[str, ...] = ()

    def named(self, slot: int) -> str:
        if 0 <= slot < len(self.slot_names):
            return self.slot_names[slot]
        day, of_day = divmod(slot, self.problem.slots_per_day)
        return f"day {day}, slot {of_day}"
