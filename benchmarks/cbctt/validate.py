#!/usr/bin/env python3
"""Independent validator for curriculum-based course timetabling (CB-CTT, ITC-2007 track 3).

    python3 validate.py INSTANCE SOLUTION [--json]

INSTANCE is a .ctt or .ectt file; SOLUTION has one line per lecture:

    <course> <room> <day> <period-of-day>        (days and periods count from 0)

Formulation checked: the competition's own (the one the literature calls UD2).

Hard (each counted; a timetable is feasible when all are 0):
  Lectures      lectures missing from, or beyond, a course's demand, plus lectures of one course
                that share a period
  Conflicts     pairs of lectures in one period whose courses share a curriculum or a teacher
  Availability  lectures in a period that is unavailable for their course
  RoomOccupancy lectures beyond the first in one room and period
  Format        lines that name an unknown course/room, or a period outside the grid

Soft (weights 1, 5, 2, 1):
  RoomCapacity          1 for each student above the room's seats, for each lecture
  MinimumWorkingDays    5 for each day below the course's minimum
  CurriculumCompactness 2 for each lecture of a curriculum that has no lecture of the same
                        curriculum in an adjacent period of the same day
  RoomStability         1 for each distinct room of a course beyond the first

Exit status: 0 feasible, 1 infeasible, 2 unreadable input. Standard library only.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import combinations

SECTIONS = {"COURSES", "ROOMS", "CURRICULA", "UNAVAILABILITY_CONSTRAINTS", "ROOM_CONSTRAINTS"}


@dataclass(frozen=True)
class Course:
    teacher: str
    lectures: int
    min_days: int
    students: int


@dataclass
class Instance:
    name: str = ""
    days: int = 0
    periods_per_day: int = 0
    courses: dict[str, Course] = field(default_factory=dict)
    rooms: dict[str, int] = field(default_factory=dict)
    curricula: dict[str, list[str]] = field(default_factory=dict)
    unavailable: set[tuple[str, int, int]] = field(default_factory=set)


class FormatError(ValueError):
    pass


def parse_instance(text: str) -> Instance:
    inst = Instance()
    declared: dict[str, int] = {}
    section = None
    seen = Counter()
    for number, raw in enumerate(text.replace("\r", "").split("\n"), 1):
        tok = raw.split()
        if not tok:
            continue
        head = tok[0].rstrip(":").upper()
        if tok[0].upper() == "END.":
            break
        if head in SECTIONS and len(tok) == 1:
            section = head
            continue
        try:
            if section is None:
                key = tok[0].rstrip(":")
                if key == "Name":
                    inst.name = " ".join(tok[1:])
                elif key == "Days":
                    inst.days = int(tok[1])
                elif key == "Periods_per_day":
                    inst.periods_per_day = int(tok[1])
                else:
                    declared[key] = int(tok[1])
            elif section == "COURSES":
                if tok[0] in inst.courses:
                    raise FormatError(f"course {tok[0]} twice")
                inst.courses[tok[0]] = Course(tok[1], int(tok[2]), int(tok[3]), int(tok[4]))
            elif section == "ROOMS":
                if tok[0] in inst.rooms:
                    raise FormatError(f"room {tok[0]} twice")
                inst.rooms[tok[0]] = int(tok[1])
            elif section == "CURRICULA":
                members = tok[2:]
                if len(members) != int(tok[1]):
                    raise FormatError(f"curriculum {tok[0]} says {tok[1]} members, has {len(members)}")
                unknown = [m for m in members if m not in inst.courses]
                if unknown:
                    raise FormatError(f"curriculum {tok[0]} names unknown {unknown}")
                inst.curricula[tok[0]] = members
            elif section == "UNAVAILABILITY_CONSTRAINTS":
                if tok[0] not in inst.courses:
                    raise FormatError(f"unavailability of unknown course {tok[0]}")
                inst.unavailable.add((tok[0], int(tok[1]), int(tok[2])))
                seen["UnavailabilityConstraints"] += 1
            # ROOM_CONSTRAINTS belong to the formulations UD4/UD5, not to UD2: read past them
        except (IndexError, ValueError) as exc:
            raise FormatError(f"line {number}: {raw.strip()!r}: {exc}") from exc
    for key, size in (("Courses", len(inst.courses)), ("Rooms", len(inst.rooms)), ("Curricula", len(inst.curricula))):
        if key in declared and declared[key] != size:
            raise FormatError(f"header says {declared[key]} {key}, file has {size}")
    for key in ("Constraints", "UnavailabilityConstraints"):
        if key in declared and declared[key] != seen["UnavailabilityConstraints"]:
            raise FormatError(f"header says {declared[key]} {key}, file has {seen['UnavailabilityConstraints']}")
    if not (inst.days and inst.periods_per_day and inst.courses and inst.rooms):
        raise FormatError("no days, periods, courses or rooms")
    return inst


def parse_solution(text: str) -> list[tuple[str, str, int, int]]:
    out = []
    for number, raw in enumerate(text.replace("\r", "").split("\n"), 1):
        tok = raw.split()
        if not tok or tok[0].startswith("#"):
            continue
        if len(tok) != 4:
            raise FormatError(f"solution line {number}: {raw.strip()!r}")
        try:
            out.append((tok[0], tok[1], int(tok[2]), int(tok[3])))
        except ValueError as exc:
            raise FormatError(f"solution line {number}: {raw.strip()!r}: {exc}") from exc
    return out


def validate(inst: Instance, lines: list[tuple[str, str, int, int]]) -> dict:
    hard = dict.fromkeys(("Lectures", "Conflicts", "Availability", "RoomOccupancy", "Format"), 0)
    soft = dict.fromkeys(("RoomCapacity", "MinimumWorkingDays", "CurriculumCompactness", "RoomStability"), 0)
    placed: dict[str, list[tuple[str, int, int]]] = defaultdict(list)
    at: dict[tuple[int, int], list[str]] = defaultdict(list)
    in_room: Counter = Counter()
    for course, room, day, period in lines:
        if (
            course not in inst.courses
            or room not in inst.rooms
            or not 0 <= day < inst.days
            or not 0 <= period < inst.periods_per_day
        ):
            hard["Format"] += 1
            continue
        placed[course].append((room, day, period))
        at[day, period].append(course)
        in_room[room, day, period] += 1
        if (course, day, period) in inst.unavailable:
            hard["Availability"] += 1
        over = inst.courses[course].students - inst.rooms[room]
        if over > 0:
            soft["RoomCapacity"] += over

    for name, course in inst.courses.items():
        rows = placed.get(name, [])
        hard["Lectures"] += abs(course.lectures - len(rows))
        hard["Lectures"] += len(rows) - len({(d, p) for _, d, p in rows})
        soft["MinimumWorkingDays"] += 5 * max(0, course.min_days - len({d for _, d, _ in rows}))
        soft["RoomStability"] += max(0, len({r for r, _, _ in rows}) - 1)

    member_of: dict[str, set[str]] = defaultdict(set)
    for curriculum, members in inst.curricula.items():
        for m in members:
            member_of[m].add(curriculum)
    for names in at.values():
        for a, b in combinations(names, 2):
            if a != b and (inst.courses[a].teacher == inst.courses[b].teacher or member_of[a] & member_of[b]):
                hard["Conflicts"] += 1
    hard["RoomOccupancy"] = sum(n - 1 for n in in_room.values())

    for members in inst.curricula.values():
        busy = Counter((d, p) for m in set(members) for _, d, p in placed.get(m, []))
        for (d, p), n in busy.items():
            if (d, p - 1) not in busy and (d, p + 1) not in busy:
                soft["CurriculumCompactness"] += 2 * n

    return {
        "hard": hard,
        "soft": soft,
        "violations": sum(hard.values()),
        "penalty": sum(soft.values()),
        "feasible": not any(hard.values()),
    }


def main(argv: list[str]) -> int:
    args = [a for a in argv if a != "--json"]
    if len(args) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        with open(args[0], encoding="latin-1") as f:
            inst = parse_instance(f.read())
        with open(args[1], encoding="latin-1") as f:
            report = validate(inst, parse_solution(f.read()))
    except (OSError, FormatError) as exc:
        print(f"cannot read: {exc}", file=sys.stderr)
        return 2
    if "--json" in argv:
        print(json.dumps({"instance": inst.name, **report}, indent=1))
    else:
        for kind in ("hard", "soft"):
            for k, v in report[kind].items():
                print(f"{kind} {k:22s} {v}")
        print(f"violations {report['violations']}  penalty {report['penalty']}")
    return 0 if report["feasible"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
