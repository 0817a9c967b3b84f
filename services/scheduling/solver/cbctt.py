"""Curriculum-based course timetabling (ITC-2007, track 3, formulation UD2): the public benchmark as our problems.

A lecture is an event of one slot, a course its class, a curriculum a group, the teacher its one trainer. Every room is
a candidate and too small a room costs; so do isolated lectures of a curriculum, few days of a course, many rooms of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.scheduling.solver.problem import Event, Plan, Problem, Weights

WEIGHTS = Weights(idle=0, long_day=0, trainer=0, room=1, balance=0, seat=1, days=5, isolated=2)
MOST_EVENTS = 20_000
_HEADER = ("Name", "Courses", "Rooms", "Days", "Periods_per_day", "Curricula")
_LARGEST = 10_000


class Malformed(ValueError):
    """A file that is no problem; the message names file, line and what is wrong there."""


@dataclass(frozen=True)
class Instance:
    """A benchmark's problem with its names."""

    name: str
    problem: Problem

    def solution(self, plan: Plan) -> str:
        """One line for each lecture: course, room, day, period of the day."""
        lines = []
        for event in self.problem.events:
            where = plan[event.id]
            day, period = divmod(where.start, self.problem.slots_per_day)
            lines.append(f"{event.cls} {where.room} {day} {period}\n")
        return "".join(lines)


class _Lines:
    """The lines of a file that are not empty, with their numbers."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise Malformed(f"{path}: {error.strerror if isinstance(error, OSError) else 'no text'}") from None
        self._lines = [(n, line) for n, line in enumerate(text.splitlines(), start=1) if line.strip()]
        self.number = 0

    def next(self) -> str:
        if not self._lines:
            raise self.wrong("the file ends here, before its END")
        self.number, line = self._lines.pop(0)
        return line.strip()

    def peek(self) -> str:
        return self._lines[0][1].strip() if self._lines else ""

    def wrong(self, told: str) -> Malformed:
        return Malformed(f"{self._path}:{self.number}: {told}")

    def fields(self, least: int, what: str) -> list[str]:
        found = self.next().split()
        if len(found) < least:
            raise self.wrong(f"{what} has {len(found)} fields, and {least} are needed")
        return found

    def count(self, text: str, what: str, *, least: int = 0, most: int = _LARGEST) -> int:
        if not re.fullmatch(r"-?\d{1,9}", text) or not least <= int(text) <= most:
            raise self.wrong(f"{what} is {text!r}, and must be a whole number from {least} to {most}")
        return int(text)


def read(path: Path) -> Instance:
    """The problem in a `.ctt` or `.ectt` file. Raises `Malformed`."""
    lines = _Lines(path)
    header = dict(_header(lines))
    days = lines.count(header["Days"], "Days", least=1, most=31)
    periods = lines.count(header["Periods_per_day"], "Periods_per_day", least=1, most=16)
    numbers = {name: lines.count(header[name], name) for name in ("Courses", "Rooms", "Curricula")}

    courses: dict[str, tuple[str, int, int, int]] = {}
    lectures = 0
    for _ in _section(lines, "COURSES:", numbers["Courses"]):
        name, teacher, number, least, students = lines.fields(5, "a course")[:5]
        if name in courses:
            raise lines.wrong(f"course {name} is there twice")
        told = lines.count(number, "lectures", least=1), lines.count(least, "minimum of days")
        lectures += told[0]
        if lectures > MOST_EVENTS:
            raise lines.wrong(f"more than {MOST_EVENTS} lectures")
        courses[name] = (teacher, *told, lines.count(students, "students", most=1_000_000))
    seats: dict[str, int] = {}
    for _ in _section(lines, "ROOMS:", numbers["Rooms"]):
        room, size = lines.fields(2, "a room")[:2]
        if room in seats:
            raise lines.wrong(f"room {room} is there twice")
        seats[room] = lines.count(size, "seats", most=1_000_000)
    if courses and not seats:
        raise lines.wrong("there are lectures, and no room")
    member: dict[str, list[str]] = {name: [] for name in courses}
    for _ in _section(lines, "CURRICULA:", numbers["Curricula"]):
        curriculum, number, *named = lines.fields(2, "a curriculum")
        if lines.count(number, "courses of a curriculum") != len(named):
            raise lines.wrong(f"curriculum {curriculum} says {number} courses and names {len(named)}")
        for name in named:
            if name not in member:
                raise lines.wrong(f"curriculum {curriculum} names the unknown course {name}")
            member[name].append(curriculum)
    closed: dict[str, set[int]] = {name: set() for name in courses}
    if not lines.next().startswith("UNAVAILABILITY_CONSTRAINTS:"):
        raise lines.wrong("UNAVAILABILITY_CONSTRAINTS: is expected here")
    while lines.peek() and not lines.peek().endswith(":") and not lines.peek().startswith("END"):
        name, day, period = lines.fields(3, "an unavailability")[:3]
        if name not in closed:
            raise lines.wrong(f"unknown course {name}")
        at = lines.count(day, "day", most=days - 1), lines.count(period, "period", most=periods - 1)
        closed[name].add(at[0] * periods + at[1])
    _rest(lines, courses, seats)

    events = []
    for name, (teacher, number_of, _, students_of) in courses.items():
        starts = tuple(slot for slot in range(days * periods) if slot not in closed[name])
        if len(starts) < number_of:
            raise Malformed(f"{path}: course {name} has {number_of} lectures and {len(starts)} periods open to it")
        for n in range(number_of):
            events.append(
                Event(f"{name}/{n}", name, 1, starts, (teacher,), tuple(seats), tuple(member[name]), size=students_of)
            )
    least_days = {name: least for name, (_, _, least, _) in courses.items() if least > 1}
    problem = Problem(
        days, periods, tuple(events), seats, trainer_day_cap=periods, class_days=least_days, weights=WEIGHTS
    )
    return Instance(header["Name"], problem)


def _header(lines: _Lines) -> Iterator[tuple[str, str]]:
    wanted = set(_HEADER)
    while wanted:
        line = lines.next()
        name, colon, value = line.partition(":")
        if not colon or not value.strip():
            raise lines.wrong(f"{', '.join(sorted(wanted))}: still to come, and this is no header")
        wanted.discard(name)
        yield name, value.strip()


def _section(lines: _Lines, title: str, number: int) -> Iterator[int]:
    line = lines.next()
    while ":" in line and not line.endswith(":"):  # headers of the extended form that are not needed
        line = lines.next()
    if line != title:
        raise lines.wrong(f"{title} is expected here")
    yield from range(number)


def _rest(lines: _Lines, courses: object, seats: object) -> None:
    """What the extended form adds is read over; it does not belong to this formulation."""
    while not (line := lines.next()).startswith("END"):
        if line.endswith(":") and line != "ROOM_CONSTRAINTS:":
            raise lines.wrong(f"{line} is not known")
