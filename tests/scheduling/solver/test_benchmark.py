"""The public benchmark's files: read as they are meant, counted as their own validator counts, refused when wrong."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.scheduling.solver import cbctt
from services.scheduling.solver.__main__ import app
from services.scheduling.solver.check import check, costs
from services.scheduling.solver.problem import Placement, Plan, Problem
from stack import PROJECT

FOLDER = PROJECT / "benchmarks" / "cbctt"
INSTANCES = sorted((FOLDER / "itc2007").glob("*.ectt"))
FAMILIES = [file for family in ("dds", "udine", "easyacademy") for file in sorted((FOLDER / family).glob("*.ectt"))]


def solution(problem: Problem, file: Path) -> Plan:
    """The plan that a solution's file is."""
    left = defaultdict(list)
    for event in problem.events:
        left[event.cls].append(event)
    plan = {}
    for line in file.read_text().splitlines():
        course, room, day, period = line.split()
        event = left[course].pop()
        plan[event.id] = Placement(int(day) * problem.slots_per_day + int(period), event.trainers[0], room)
    return plan


def validated(instance: Path, text: str, folder: Path) -> tuple[int, int]:
    """Violations and penalty as the folder's validator counts them; it shares nothing with us."""
    file = folder / "solution.sol"
    file.write_text(text)
    command = [sys.executable, str(FOLDER / "validate.py"), str(instance), str(file)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    told = re.search(r"violations (\d+)\s+penalty (\d+)", said)
    assert told is not None, said
    return int(told[1]), int(told[2])


@pytest.mark.parametrize("file", INSTANCES, ids=lambda file: file.stem)
def test_the_best_known_timetable_costs_what_the_table_says(file: Path, tmp_path: Path) -> None:
    instance = cbctt.read(file)
    plan = solution(instance.problem, FOLDER / "best-known" / f"{file.stem}.sol")
    table = dict(re.findall(r"^\| (\w+) \| (\d+) \|", (FOLDER / "README.md").read_text(), re.MULTILINE))
    assert check(instance.problem, plan) == []
    assert sum(costs(instance.problem, plan).values()) == int(table[file.stem])
    assert validated(file, instance.solution(plan), tmp_path) == (0, int(table[file.stem]))


@pytest.mark.parametrize("file", INSTANCES[:6], ids=lambda file: file.stem)
def test_a_timetable_spoilt_at_random_is_counted_as_its_validator_counts(file: Path, tmp_path: Path) -> None:
    instance, dice = cbctt.read(file), random.Random(file.stem)
    problem = instance.problem
    best = solution(problem, FOLDER / "best-known" / f"{file.stem}.sol")
    for spoilt in range(6):
        plan = dict(best)
        for event in dice.sample(problem.events, spoilt + 1):
            room = dice.choice(event.rooms)
            start = dice.randrange(problem.days * problem.slots_per_day)
            plan[event.id] = Placement(start, event.trainers[0], room)
        violations, penalty = validated(file, instance.solution(plan), tmp_path)
        assert bool(violations) == bool(check(problem, plan))
        # Lectures that clash count as isolated one by one there, by their period here: valid plans are compared.
        assert violations or penalty == sum(costs(problem, plan).values())


def test_both_forms_of_a_file_are_the_same_problem() -> None:
    for name in ("comp01", "comp02", "comp03"):
        long, short = (
            cbctt.read(FOLDER / "itc2007" / f"{name}.ectt"),
            cbctt.read(FOLDER / "itc2007-ctt" / f"{name}.ctt"),
        )
        one, other = ({r.removeprefix("r"): n for r, n in i.problem.seats.items()} for i in (long, short))
        assert one == other
        assert [(e.cls, e.starts, e.trainers, e.groups, e.size) for e in long.problem.events] == [
            (e.cls, e.starts, e.trainers, e.groups, e.size) for e in short.problem.events
        ]


@pytest.mark.parametrize("file", FAMILIES, ids=lambda file: file.stem)
def test_files_of_other_families_are_read(file: Path) -> None:
    problem = cbctt.read(file).problem
    assert problem.events and all(event.starts and event.rooms for event in problem.events)


GOOD = """Name: small
Courses: 2
Rooms: 1
Days: 2
Periods_per_day: 2
Curricula: 1
Constraints: 1

COURSES:
a t1 2 1 10
b t2 1 1 10

ROOMS:
R 20

CURRICULA:
q 2 a b

UNAVAILABILITY_CONSTRAINTS:
a 0 0

END.
"""
WRONG = {
    "a course of a curriculum that is not there": ("q 2 a b", "q 2 a x", 17, "unknown course x"),
    "fewer courses than it says": ("q 2 a b", "q 3 a b", 17, "says 3 courses and names 2"),
    "a course twice": ("b t2 1 1 10", "a t2 1 1 10", 11, "is there twice"),
    "a negative size": ("R 20", "R -20", 14, "'-20'"),
    "a number that is none": ("b t2 1 1 10", "b t2 one 1 10", 11, "'one'"),
    "a lecture too few fields": ("b t2 1 1 10", "b t2", 11, "2 fields"),
    "a period beyond the day": ("a 0 0\n", "a 0 7\n", 20, "from 0 to 1"),
    "an unavailability of nobody": ("a 0 0\n", "z 0 0\n", 20, "unknown course z"),
    "a section missing": ("ROOMS:\n", "", 13, "ROOMS: is expected"),
    "a hundred thousand lectures": ("a t1 2 1 10", "a t1 100000 1 10", 10, "from 1 to 10000"),
    "cut off": ("q 2 a b", "", 19, "a curriculum"),
    "without end": ("END.\n", "", 20, "ends here"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_one_clear_error_with_its_line(name: str, tmp_path: Path) -> None:
    old, new, line, words = WRONG[name]
    file = tmp_path / "wrong.ctt"
    file.write_text(GOOD.replace(old, new, 1))
    told = CliRunner().invoke(app, ["solve", str(file)])
    assert told.exit_code == 2 and len(told.stderr.strip().splitlines()) == 1
    assert told.stderr.startswith(f"{file}:{line}: ") and words in told.stderr, told.stderr


def test_a_lecture_without_a_period_is_said_at_once(tmp_path: Path) -> None:
    file = tmp_path / "wrong.ctt"
    file.write_text(GOOD.replace("a 0 0\n", "a 0 0\na 0 1\na 1 0\n"))
    told = CliRunner().invoke(app, ["solve", str(file)])
    assert told.exit_code == 2 and "course a has 2 lectures and 1 periods" in told.stderr


def test_a_file_that_is_not_there_or_no_text_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "bytes.ctt").write_bytes(bytes(range(256)))
    for file in ("none.ctt", "bytes.ctt"):
        told = CliRunner().invoke(app, ["solve", str(tmp_path / file)])
        assert told.exit_code == 2 and file in told.stderr and "Traceback" not in told.stderr


def test_the_commands_tell_what_was_asked(tmp_path: Path) -> None:
    file, out, grid = tmp_path / "small.ctt", tmp_path / "small.sol", tmp_path / "small.svg"
    file.write_text(GOOD)
    asked = ["solve", str(file), "--steps", "20000", "--seeds", "1", "--out", str(out), "--plot", str(grid), "--json"]
    told = CliRunner().invoke(app, asked)
    assert told.exit_code == 0 and '"violations": 0' in told.stdout
    assert len(out.read_text().splitlines()) == 3 and grid.read_text().startswith("<svg")
    (tmp_path / "validate.py").write_text((FOLDER / "validate.py").read_text())
    (tmp_path / "README.md").write_text("| small | 1 | yes |\n")
    told = CliRunner().invoke(app, ["bench", str(tmp_path), "--seconds", "0.3", "--seeds", "2"])
    assert told.exit_code == 0 and "gap, mean" in told.stdout and "yes" in told.stdout, told.stdout
