"""What makes a plan impossible, seen without any search, and by how much it falls short.

Each shortage is a proof: what must lie within a window of days, against the most that the window can hold. That none
is found promises nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from services.scheduling.solver.problem import Event, Problem

Window = tuple[int, int]
_WORDS = {
    "H1": "{0} has no day on which it may be held",
    "H2": "{0} has more to attend than its days hold",
    "H5": "the trainers of {0} are not free for so much",
    "H6": "the rooms of {0} are not free for so much",
    "H7": "{0}: what comes before leaves too little time",
}


@dataclass(frozen=True, slots=True)
class Shortage:
    """The rule that cannot be kept, the class (or classes, or group) that it hits, and what is needed and there.

    Both are counted in slots (JP of a cohort), between the first and the last day of a window, inclusive.
    """

    rule: str
    name: str
    needed: int
    there: int
    first_day: int
    last_day: int

    @property
    def slots(self) -> int:
        """By how much it is short."""
        return self.needed - self.there

    def __str__(self) -> str:
        return (
            f"{_WORDS[self.rule].format(self.name)}: {self.needed} slots are needed from day {self.first_day} to "
            f"{self.last_day}, and there are {self.there}, {self.slots} too few"
        )


def shortages(problem: Problem) -> list[Shortage]:
    """Shortages of days (H1), of a group's time (H2), of trainers (H5), of rooms (H6), and along a chain (H7)."""
    found = [*_unstarted(problem), *_groups(problem), *_starved(problem)]
    found += [*_pools(problem, "H5"), *_pools(problem, "H6"), *_chains(problem)]
    return list(dict.fromkeys(found))


def _unstarted(problem: Problem) -> Iterator[Shortage]:
    waiting: dict[str, int] = defaultdict(int)
    for event in problem.events:
        if not event.starts:
            waiting[event.cls] += event.duration
    for cls, needed in waiting.items():
        yield Shortage("H1", cls, needed, 0, 0, problem.days - 1)


def _groups(problem: Problem) -> Iterator[Shortage]:
    """Groups that have more to attend within a window than its days hold."""
    demand: dict[str, dict[Window, int]] = defaultdict(lambda: defaultdict(int))
    offered: dict[str, dict[Window, set[int]]] = defaultdict(lambda: defaultdict(set))
    done: set[tuple[str, tuple[int, ...], int]] = set()
    for event in problem.events:
        for group in event.groups if event.starts else ():
            window = _window(problem, event.starts)
            demand[group][window] += event.duration
            if (group, event.starts, event.duration) not in done:
                done.add((group, event.starts, event.duration))
                offered[group][window] |= _covered(event)
    for group, windows in sorted(demand.items()):
        for first, last in sorted(windows):
            inside = [window for window in windows if first <= window[0] and window[1] <= last]
            slots = set().union(*(offered[group][window] for window in inside))
            there = _group_holds(problem, group, slots)
            if (needed := sum(windows[window] for window in inside)) > there:
                yield Shortage("H2", group, needed, there, first, last)


def _starved(problem: Problem) -> Iterator[Shortage]:
    """Classes with fewer starts at which somebody (some room) is free than a group has sessions of them."""
    classes: dict[str, list[Event]] = defaultdict(list)
    for event in problem.events:
        classes[event.cls].append(event)
    for cls, events in classes.items():
        starts = sorted({start for event in events for start in event.starts})
        if not starts:
            continue
        for rule, busy in (("H5", problem.trainer_busy), ("H6", problem.room_busy)):
            possible: set[int] = set()
            for key in dict.fromkeys(
                (e.starts, e.duration, _holders(problem, e, rule), _asks(e, rule)) for e in events
            ):
                offered, duration, names, asks = key
                taken = [busy.get(name, frozenset()) for name in names]
                for start in offered:
                    slots = range(start, start + duration)
                    if not asks or any(one.isdisjoint(slots) for one in taken):
                        possible.add(start)
            of_group: dict[str, int] = defaultdict(int)
            for event in events:
                for group in event.groups:
                    of_group[group] += 1
            shortest = min(event.duration for event in events)
            sessions = max(of_group.values(), default=0)
            if sessions > len(possible):
                yield Shortage(
                    rule, cls, sessions * shortest, len(possible) * shortest, *_window(problem, tuple(starts))
                )


def _pools(problem: Problem, rule: str) -> Iterator[Shortage]:
    """Classes that together ask more of the few who may lead (H5) or hold (H6) them than those have free."""
    busy, cap = (
        (problem.trainer_busy, problem.trainer_day_cap) if rule == "H5" else (problem.room_busy, problem.slots_per_day)
    )
    demand: dict[tuple[frozenset[str], Window], int] = defaultdict(int)
    named: dict[tuple[frozenset[str], Window], set[str]] = defaultdict(set)
    offered: dict[Window, set[int]] = defaultdict(set)
    done: set[tuple[tuple[int, ...], int]] = set()
    for event in problem.events:
        names = _holders(problem, event, rule)
        if not event.starts or not names:
            continue
        window = _window(problem, event.starts)
        demand[names, window] += event.duration
        named[names, window].add(event.cls)
        if (event.starts, event.duration) not in done:
            done.add((event.starts, event.duration))
            offered[window] |= _covered(event)
    inside = {
        window: set().union(*(slots for (a, b), slots in offered.items() if window[0] <= a and b <= window[1]))
        for window in offered
    }
    free: dict[tuple[str, Window], int] = {}
    for names, window in demand:
        needed, classes = 0, set[str]()
        for (others, when), more in demand.items():
            if window[0] <= when[0] and when[1] <= window[1] and others <= names:
                needed += more
                classes |= named[others, when]
        there = 0
        for name in names:
            if (name, window) not in free:
                slots = inside[window] - busy.get(name, frozenset())
                free[name, window] = sum(min(cap, n) for n in _of_days(problem, slots).values())
            there += free[name, window]
        if needed > there:
            yield Shortage(rule, "+".join(sorted(classes)), needed, there, *window)


def _chains(problem: Problem) -> Iterator[Shortage]:
    """Classes that cannot end within their window although all before them have ended as early as they can."""
    classes: dict[str, list[Event]] = defaultdict(list)
    for event in problem.events:
        if event.starts:
            classes[event.cls].append(event)
    before: dict[str, list[str]] = {cls: [] for cls in classes}
    for first, second in dict.fromkeys(problem.arcs):
        if first in classes and second in classes:
            before[second].append(first)
    ends: dict[str, int] = {}
    waiting = dict.fromkeys(classes)
    while waiting:
        ready = [cls for cls in waiting if all(other in ends for other in before[cls])]
        if not ready:
            ring = "+".join(sorted(waiting))
            needed = sum(event.duration for cls in waiting for event in classes[cls])
            yield Shortage("H7", ring, needed, 0, 0, problem.days - 1)
            return
        for cls in ready:
            del waiting[cls]
            begin = max((ends[other] for other in before[cls]), default=0)
            ends[cls], needed, there = _earliest_end(problem, classes[cls], begin)
            if there < needed and before[cls]:
                last = max(max(event.starts) for event in classes[cls]) // problem.slots_per_day
                yield Shortage("H7", cls, needed, there, begin // problem.slots_per_day, last)


def _earliest_end(problem: Problem, events: list[Event], begin: int) -> tuple[int, int, int]:
    """A slot before which a class cannot have ended that begins at `begin`, and the largest demand and what holds it.

    A group's sessions of it lie one after another; that they are whole is left out of account, so it is a bound.
    """
    end = max(begin, max(min((s for s in e.starts if s >= begin), default=begin) + e.duration for e in events))
    worst = (0, 0)
    groups: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        for group in event.groups:
            groups[group].append(event)
    for group, own in groups.items():
        slots = {slot for event in own for slot in _covered(event, begin)}
        needed = sum(event.duration for event in own)
        per_day = _of_days(problem, slots - problem.group_busy.get(group, frozenset()))
        there = 0
        for day in sorted(per_day):
            of_day = min(per_day[day], problem.group_day_caps.get(day, problem.slots_per_day))
            if there < needed <= there + of_day:
                end = max(end, day * problem.slots_per_day + needed - there)
            there += of_day
        if needed - there > worst[0] - worst[1]:
            worst = (needed, there)
    return end, *worst


def _covered(event: Event, begin: int = 0) -> set[int]:
    return {start + n for start in event.starts if start >= begin for n in range(event.duration)}


def _window(problem: Problem, starts: tuple[int, ...]) -> Window:
    return min(starts) // problem.slots_per_day, max(starts) // problem.slots_per_day


def _of_days(problem: Problem, slots: Iterable[int]) -> Mapping[int, int]:
    found: dict[int, int] = defaultdict(int)
    for slot in slots:
        found[slot // problem.slots_per_day] += 1
    return found


def _group_holds(problem: Problem, group: str, slots: set[int]) -> int:
    free = _of_days(problem, slots - problem.group_busy.get(group, frozenset()))
    return sum(min(n, problem.group_day_caps.get(day, problem.slots_per_day)) for day, n in free.items())


def _asks(event: Event, rule: str) -> bool:
    return bool(event.trainers if rule == "H5" else event.rooms)


def _holders(problem: Problem, event: Event, rule: str) -> frozenset[str]:
    """Who may lead an event (H5), or the rooms that are large enough for it (H6)."""
    if rule == "H5":
        return frozenset(event.trainers)
    if problem.weights.seat:
        return frozenset(event.rooms)
    return frozenset(name for name in event.rooms if problem.seats.get(name, event.size) >= event.size)
