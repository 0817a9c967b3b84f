"""From a curriculum to dated sessions: stages on the calendar, the problem to be placed, and the plan read back.

Pure: holidays, trainers and rooms are given. Source of the stages and their lengths: the curriculum file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from services.scheduling.solver import prechecks
from services.scheduling.solver.placement import place
from services.scheduling.solver.problem import Event, Placement, Plan, Problem, Season, Weights
from shared.reference import Curriculum, Module, Stage

_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
SLOTS_PER_DAY = 8


class NoRoomInCalendar(Exception):
    """The stages do not fit between the first and the last day: which cannot end in time, and by how many days.

    `closed` are the working days that were lost to training on the way.
    """

    def __init__(self, stage: str, short_by_days: int, last_day: date, closed: Sequence[date]) -> None:
        super().__init__(f"{stage}: {short_by_days} days too many")
        self.stage = stage
        self.short_by_days = short_by_days
        self.last_day = last_day
        self.closed = closed


@dataclass(frozen=True, slots=True)
class StageDays:
    """A stage on the calendar. `days` are its training days; a workplace stage has none."""

    stage: Stage
    first: date
    last: date
    days: tuple[date, ...]


@dataclass(frozen=True, slots=True)
class Trainer:
    """Who may lead which modules, and when not."""

    id: str
    modules: frozenset[str]
    unavailable: tuple[tuple[datetime, datetime], ...] = ()


@dataclass(frozen=True, slots=True)
class Room:
    id: str
    virtual: bool
    seats: int
    unavailable: tuple[tuple[datetime, datetime], ...] = ()


@dataclass(frozen=True, slots=True)
class Dated:
    """A placed session with its instants."""

    event: str
    module: str
    day: date
    part: int
    groups: tuple[int, ...]
    jp: int
    mode: str
    starts_at: datetime
    ends_at: datetime
    trainer: str
    room: str


def stages(curriculum: Curriculum, starts_on: date, ends_on: date, holidays: Iterable[date]) -> list[StageDays]:
    """Put the stages back to back, each as early as it can be. Raises `NoRoomInCalendar`.

    Each stage only ever ends later when an earlier one does, so if this does not fit, nothing does.
    """
    closed = frozenset(holidays)
    working = frozenset(curriculum.working_days.value)
    last_day = min(ends_on, starts_on + timedelta(weeks=curriculum.weeks.value) - timedelta(days=1))
    placed: list[StageDays] = []
    cursor = starts_on
    lost: list[date] = []

    def is_open(day: date) -> bool:
        return _WEEKDAYS[day.weekday()] in working and day not in closed

    for stage in curriculum.stages:
        count = stage.days.value
        if stage.kind == "calendar-days":
            found = StageDays(stage, cursor, cursor + timedelta(days=count - 1), ())
        else:
            days: list[date] = []
            day = cursor
            while len(days) < count:
                if day > last_day + timedelta(days=366):
                    raise NoRoomInCalendar(stage.code, (day - last_day).days, last_day, lost)
                if stage.one_week and day.weekday() == 0:
                    days.clear()
                if is_open(day):
                    days.append(day)
                elif _WEEKDAYS[day.weekday()] in working:
                    lost.append(day)
                    if stage.one_week:
                        days.clear()
                day += timedelta(days=1)
            found = StageDays(stage, days[0], days[-1], tuple(days))
        placed.append(found)
        cursor = found.last + timedelta(days=1)
    if placed[-1].last > last_day:
        late = next(found for found in placed if found.last > last_day)
        raise NoRoomInCalendar(late.stage.code, (placed[-1].last - last_day).days, last_day, lost)
    return placed


def calendar(curriculum: Curriculum, starts_on: date, ends_on: date, holidays: Iterable[date]) -> Season:
    """The stages as a problem of days, to ask why they do not fit: a slot is a day, a day of the problem a week.

    A training day is an event of its stage on one working day; days at the workplace are events on any day; a stage
    that lies in one week is one event. A holiday is an absence of the cohort, so that it can be named as a reason.
    """
    monday = starts_on - timedelta(days=starts_on.weekday())
    last_day = min(ends_on, starts_on + timedelta(weeks=curriculum.weeks.value) - timedelta(days=1))
    every = [monday + timedelta(days=n) for n in range(-(-((last_day - monday).days + 1) // 7) * 7)]
    within = [n for n, day in enumerate(every) if starts_on <= day <= last_day]
    working = [n for n in within if _WEEKDAYS[every[n].weekday()] in curriculum.working_days.value]
    events: list[Event] = []
    for stage in curriculum.stages:
        name, count = stage.code, stage.days.value
        if stage.one_week:
            starts = tuple(n for n in working if set(range(n, n + count)) <= set(working) and n % 7 + count <= 7)
            events.append(Event(f"{name}/1", name, count, starts, groups=("cohort",)))
        else:
            own = tuple(working if stage.kind == "training-days" else within)
            events += [Event(f"{name}/{n + 1}", name, 1, own, groups=("cohort",)) for n in range(count)]
    closed = frozenset(n for n in working if every[n] in frozenset(holidays))
    for stage in curriculum.stages:
        if stage.kind != "training-days":  # one is at the workplace on holidays, too
            events = [replace(e, groups=("workplace",)) if e.cls == stage.code else e for e in events]
    problem = Problem(
        days=len(every) // 7,
        slots_per_day=7,
        days_per_week=1,
        events=tuple(events),
        group_busy={"cohort": closed},
        arcs=tuple((one.code, other.code) for one, other in pairwise(curriculum.stages)),
        weights=Weights(idle=0, long_day=0),
    )
    return Season(problem, tuple(day.isoformat() for day in every))


@dataclass(frozen=True, slots=True)
class Grid:
    """The training days of a cohort as the slots of a problem, and back."""

    curriculum: Curriculum
    zone: str
    days: tuple[tuple[date, StageDays], ...]

    @staticmethod
    def of(curriculum: Curriculum, zone: str, placed: Sequence[StageDays]) -> Grid:
        return Grid(curriculum, zone, tuple((day, stage) for stage in placed for day in stage.days))

    def blocks(self, mode: str) -> list[tuple[int, time, int]]:
        """The teaching blocks of a day: first slot, clock time, JP."""
        found, slot = [], 0
        for clock, jp in self.curriculum.day_templates[mode].value:
            found.append((slot, time.fromisoformat(clock), jp))
            slot += jp
        return found

    def starts(self, stage: str, jp: int) -> tuple[int, ...]:
        """Where a session of so many JP may begin in a stage without crossing a break."""
        found = []
        for number, (_, placed) in enumerate(self.days):
            if placed.stage.code == stage and placed.stage.mode is not None:
                for slot, _, length in self.blocks(placed.stage.mode):
                    first = number * SLOTS_PER_DAY + slot
                    found += [first + offset for offset in range(0, length - jp + 1, jp)]
        return tuple(found)

    def instant(self, slot: int) -> datetime:
        """When a slot begins."""
        day, placed = self.days[slot // SLOTS_PER_DAY]
        within = slot % SLOTS_PER_DAY
        for first, clock, length in self.blocks(placed.stage.mode or ""):
            if first <= within < first + length:
                begins = datetime.combine(day, clock, ZoneInfo(self.zone))
                return (begins + timedelta(minutes=self.minutes * (within - first))).astimezone(UTC)
        raise ValueError("not a teaching slot")

    @property
    def minutes(self) -> int:
        return self.curriculum.jp_minutes.value

    def slot_at(self, instant: datetime) -> int | None:
        """The slot that begins at an instant, if one does."""
        local = instant.astimezone(ZoneInfo(self.zone))
        for number, (day, placed) in enumerate(self.days):
            if day == local.date():
                for first, _, length in self.blocks(placed.stage.mode or ""):
                    for within in range(first, first + length):
                        slot = number * SLOTS_PER_DAY + within
                        if self.instant(slot) == instant:
                            return slot
        return None

    def busy(self, spans: Iterable[tuple[datetime, datetime]]) -> frozenset[int]:
        """The slots that overlap any of the spans."""
        given = list(spans)
        found = set()
        if given:
            for number, (_, placed) in enumerate(self.days):
                for first, _, length in self.blocks(placed.stage.mode or ""):
                    for within in range(first, first + length):
                        begins = self.instant(number * SLOTS_PER_DAY + within)
                        ends = begins + timedelta(minutes=self.minutes)
                        if any(a < ends and begins < b for a, b in given):
                            found.add(number * SLOTS_PER_DAY + within)
        return frozenset(found)


def problem(
    grid: Grid,
    *,
    size: int,
    trainers: Sequence[Trainer],
    rooms: Sequence[Room],
    taken: Mapping[str, Sequence[tuple[datetime, datetime]]],
) -> Problem:
    """The cohort's problem: one event per session and, where learning groups meet apart, per group.

    `taken` tells when trainers and rooms are reserved for others, by their id.
    """
    groups = tuple(str(n) for n in range(1, grid.curriculum.learning_groups.value + 1))
    events: list[Event] = []
    for stage in {placed.stage.code: placed.stage for _, placed in grid.days}.values():
        modules = [m for m in grid.curriculum.modules if m.stage == stage.code and m.placed_jp]
        units = [(module, part) for module in modules for part in range(module.placed_jp // module.session_jp)]
        numbers = [n for n, (_, placed) in enumerate(grid.days) if placed.stage.code == stage.code]
        for position, (module, part) in enumerate(units):
            hint = numbers[position * len(numbers) // len(units)] * SLOTS_PER_DAY
            for members in (groups,) if module.grouping == "cohort" else tuple((g,) for g in groups):
                events.append(_event(grid, stage, module, part, members, hint, size, len(groups), trainers, rooms))
    agendas = [[m.code for m in agenda.modules if m.placed_jp] for agenda in grid.curriculum.agendas]
    stage_of = {m.code: m.stage for m in grid.curriculum.modules}
    arcs = tuple(
        (a, b) for before, after in pairwise(agendas) for a in before for b in after if stage_of[a] == stage_of[b]
    )
    caps = {
        n: placed.stage.jp_per_day.value if placed.stage.jp_per_day else SLOTS_PER_DAY
        for n, (_, placed) in enumerate(grid.days)
    }
    return Problem(
        days=len(grid.days),
        slots_per_day=SLOTS_PER_DAY,
        events=tuple(events),
        seats={room.id: room.seats for room in rooms},
        trainer_busy={t.id: grid.busy([*t.unavailable, *taken.get(t.id, ())]) for t in trainers},
        room_busy={r.id: grid.busy([*r.unavailable, *taken.get(r.id, ())]) for r in rooms},
        arcs=arcs,
        group_day_caps=caps,
    )


def _event(
    grid: Grid,
    stage: Stage,
    module: Module,
    part: int,
    members: tuple[str, ...],
    hint: int,
    size: int,
    group_count: int,
    trainers: Sequence[Trainer],
    rooms: Sequence[Room],
) -> Event:
    whole = len(members) == group_count
    virtual = stage.mode == "distance"
    return Event(
        id=f"{module.code}/{part + 1}" + ("" if whole else f"/{members[0]}"),
        cls=module.code,
        duration=module.session_jp,
        starts=grid.starts(stage.code, module.session_jp),
        trainers=tuple(sorted(t.id for t in trainers if module.code in t.modules)) or ("nobody-qualified",),
        rooms=tuple(sorted(r.id for r in rooms if r.virtual == virtual)) or ("no-such-room",),
        groups=members,
        size=size if whole else -(-size // group_count),
        hint=hint,
    )


def unstaffed(given: Problem) -> list[str]:
    """Modules for which no trainer is qualified, seen without any search."""
    return sorted({e.cls for e in given.events if e.trainers == ("nobody-qualified",)})


def unhoused(given: Problem) -> list[str]:
    """Modules for which no room of the right kind has the seats, seen without any search."""
    return sorted({e.cls for e in given.events if all(given.seats.get(r, 0) < e.size for r in e.rooms)})


def shortages(given: Problem) -> list[prechecks.Shortage]:
    """What makes a timetable impossible, seen without any search: named rule, module or group, and the missing JP."""
    return prechecks.shortages(given)


def solve(given: Problem) -> Plan:
    """A checked plan. Raises `NoPlacement`."""
    return place(given)


def dated(grid: Grid, given: Problem, plan: Plan) -> list[Dated]:
    """The plan's sessions with their instants, in the order of time."""
    found = []
    for event in given.events:
        where = plan[event.id]
        starts_at = grid.instant(where.start)
        placed_day, placed = grid.days[where.start // SLOTS_PER_DAY]
        found.append(
            Dated(
                event=event.id,
                module=event.cls,
                day=placed_day,
                part=int(event.id.split("/")[1]),
                groups=tuple(int(g) for g in event.groups),
                jp=event.duration,
                mode=placed.stage.mode or "",
                starts_at=starts_at,
                ends_at=starts_at + timedelta(minutes=grid.minutes * event.duration),
                trainer=where.trainer or "",
                room=where.room or "",
            )
        )
    return sorted(found, key=lambda session: (session.starts_at, session.event))


def placement_of(grid: Grid, starts_at: datetime, trainer: str, room: str) -> Placement | None:
    """A session as it stands, as a placement; None where it does not begin on a teaching slot."""
    slot = grid.slot_at(starts_at)
    return None if slot is None else Placement(slot, trainer, room)


def asynchronous_windows(
    curriculum: Curriculum, placed: Sequence[StageDays], sessions: Sequence[Dated]
) -> dict[str, tuple[date, date]]:
    """Self-study windows per module with asynchronous JP: from its first session to the day before the next module's.

    Together with the sessions they leave no training day of a stage with self-study empty: where one would be, the
    window that ended last before it goes on until then.
    """
    zone_days: dict[str, list[date]] = {}
    for session in sessions:
        zone_days.setdefault(session.module, []).append(session.day)
    held = {session.day for session in sessions}
    windows: dict[str, tuple[date, date]] = {}
    for stage in placed:
        modules = [m for m in curriculum.modules if m.stage == stage.stage.code]
        for position, module in enumerate(modules):
            if not module.jp.value.asynchronous:
                continue
            first = min(zone_days.get(module.code, [stage.first]))
            last = max(zone_days.get(module.code, [stage.last]))
            following = [min(zone_days[m.code]) for m in modules[position + 1 :] if m.code in zone_days]
            until = min(following) - timedelta(days=1) if following else stage.last
            windows[module.code] = (first, max(last, until))
        own = [m.code for m in modules if m.code in windows]
        for day in stage.days if own else ():
            if day not in held and not any(windows[code][0] <= day <= windows[code][1] for code in own):
                before = [code for code in own if windows[code][1] < day]
                if before:
                    code = max(before, key=lambda c: windows[c][1])
                    windows[code] = (windows[code][0], day)
                else:
                    code = min(own, key=lambda c: windows[c][0])
                    windows[code] = (day, windows[code][1])
    return windows
