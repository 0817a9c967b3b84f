"""The engine from the command line: made-up cohorts kept as files, re-planned, explained; wrong files told at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from services.scheduling.solver import files, generator
from services.scheduling.solver.__main__ import app
from services.scheduling.solver.check import check
from services.scheduling.solver.files import Malformed
from services.scheduling.solver.generator import disrupted
from services.scheduling.solver.problem import Event, Pin, Placement, Problem, Season
from services.scheduling.solver.repair import frozen
from stack import PROJECT

RUN = CliRunner()
SMALL = ["cohorts", "--cohorts", "4", "--trainers", "14", "--virtual-rooms", "3", "--physical-rooms", "3"]


@pytest.fixture(scope="module")
def season(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A problem and its plan, as files."""
    folder = tmp_path_factory.mktemp("season")
    problem, plan = folder / "problem.json", folder / "plan.json"
    done = RUN.invoke(app, [*SMALL, "--seconds", "1", "--save", str(problem), "--out", str(plan), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["violations"] == 0
    return problem, plan


def test_a_problem_and_a_plan_are_the_same_after_they_were_written(season: tuple[Path, Path]) -> None:
    problem = files.read(season[0]).problem
    assert problem == generator.cohorts(generator.Size(4, 14, 3, 3, 16), 1)
    assert check(problem, files.read_plan(season[1], problem)) == []


def test_a_disrupted_plan_is_offered_again_with_fewest_changes_first(season: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "repaired.json"
    asked = ["replan", *map(str, season), "--disruption", "holiday", "--frozen-before", "3", "--seconds", "3"]
    done = RUN.invoke(app, [*asked, "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    offers = json.loads(done.stdout)
    assert 1 <= len(offers) <= 4
    changed, costs = [offer["changed"] for offer in offers], [offer["cost"] for offer in offers]
    assert changed == sorted(changed) and costs == sorted(costs, reverse=True) and len(set(costs)) == len(costs)
    assert offers[0]["broken"] <= offers[0]["changed"] <= 2 * offers[0]["broken"]
    assert len(offers[0]["changes"]) == offers[0]["changed"]
    assert set(offers[0]["groups touched"]) <= {f"cohort-{n:03d}" for n in range(1, 5)}
    before = files.read(season[0]).problem
    published = files.read_plan(season[1], before)
    now = frozen(disrupted(before, published, "holiday"), published, 3)
    assert check(now, files.read_plan(out, now)) == []
    told = RUN.invoke(app, asked)
    assert "plan 1: broken" in told.stdout and " -> " in told.stdout


def test_the_weeks_of_a_cohort_or_a_trainer_are_drawn(season: tuple[Path, Path], tmp_path: Path) -> None:
    picture, asked = tmp_path / "weeks.svg", ["solve", str(season[0]), "--seconds", "0.5"]
    assert RUN.invoke(app, [*asked, "--plot", str(picture), "--of", "cohort-002"]).exit_code == 0
    drawn = ElementTree.fromstring(picture.read_text())
    words = [text.text or "" for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert words[0] == "cohort-002" and words.count("B1") == 4 and any(w.startswith("trainer-") for w in words)
    assert RUN.invoke(app, [*asked, "--plot", str(picture), "--of", "trainer-001"]).exit_code == 0
    nobody = RUN.invoke(app, [*asked, "--plot", str(picture), "--of", "nobody"])
    assert nobody.exit_code == 2 and "nobody: no group, trainer or room" in nobody.stderr


def test_why_there_is_no_plan_is_said_in_words(season: tuple[Path, Path], tmp_path: Path) -> None:
    known = files.read(season[0]).problem
    assert "there is a plan" in RUN.invoke(app, ["explain", str(season[0]), "--seconds", "3"]).stdout
    broken = tmp_path / "broken.json"
    files.write(broken, Season(replace(known, arcs=(*known.arcs, ("cohort-002/A2", "cohort-002/A1")))))
    done = RUN.invoke(app, ["explain", str(broken), "--json"])
    told = json.loads(done.stdout)
    assert done.exit_code == 1 and told["short"]
    assert any("cohort-002/A2" in line for line in told["clash"])
    refused = RUN.invoke(app, ["solve", str(broken), "--seconds", "60"])
    assert refused.exit_code == 2 and "too little time" in refused.stderr


def test_a_new_holiday_may_be_tried_before_it_is_decreed(season: tuple[Path, Path]) -> None:
    problem = files.read(season[0]).problem
    week = [str(slot) for slot in range(problem.days * problem.slots_per_day)]
    done = RUN.invoke(app, ["explain", str(season[0]), *(f"--closed={slot}" for slot in week[: 5 * 8 * 2])])
    assert done.exit_code == 1 and "short:" in done.stdout


EVENT = Event("a/0", "a", 1, (0,), (), ("hall",), ("g",))


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (Problem(1, 4, (EVENT, EVENT), {"hall": 9}), "event a/0 is there twice"),
        (Problem(1, 4, (replace(EVENT, duration=0),), {"hall": 9}), "duration must be at least 1"),
        (Problem(1, 4, (replace(EVENT, starts=(4,)),), {"hall": 9}), "at slot 4 it would not lie within a day"),
        (Problem(1, 4, (EVENT,), {"cellar": 9}), "room hall is unknown"),
        (Problem(1, 4, (EVENT,), {"hall": 9}, arcs=(("a", "b"),)), "arc a -> b: class b is unknown"),
        (Problem(1, 4, (EVENT,), {"hall": 9}, pins={"x": Pin(start=0)}), "pins: x is no event"),
        (Problem(1, 99, (EVENT,), {"hall": 9}), "slots_per_day is 99, and must be from 1 to 16"),
        (Problem(0, 4, (EVENT,), {"hall": 9}), "days and days_per_week must be at least 1"),
        (
            Problem(1, 4, tuple(replace(EVENT, id=str(n)) for n in range(files.MOST_EVENTS + 1)), {"hall": 9}),
            "50001 events, and 50000 is the most",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_problem_that_makes_no_sense_is_one_line(problem: Problem, told: str, tmp_path: Path) -> None:
    file = tmp_path / "problem.json"
    files.write(file, Season(problem))
    done = RUN.invoke(app, ["solve", str(file), "--seconds", "60"])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert str(file) in done.stderr and told in done.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{\n"problem": {"days": 1,\n', ":3: Invalid JSON"),
        ('{"problem": {"days": "many", "slots_per_day": 4, "events": []}}', "problem.days: "),
        ("\xff", "Invalid JSON"),
        ("[]", "the whole: "),
    ],
)
def test_a_file_that_is_no_problem_says_where(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "problem.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(Malformed) as caught:
        files.read(file)
    assert str(file) in str(caught.value) and told in str(caught.value) and "\n" not in str(caught.value)


def test_a_plan_of_another_problem_is_refused(season: tuple[Path, Path], tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    files.write_plan(file, {"somewhere/0": Placement(0)})
    done = RUN.invoke(app, ["replan", str(season[0]), str(file)])
    assert done.exit_code == 2 and "somewhere/0 is no event of the problem" in done.stderr


def test_interrupted_it_ends_with_the_best_so_far() -> None:
    command = [sys.executable, "-m", "services.scheduling.solver", *SMALL, "--seconds", "600", "--json"]
    running = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None and "Ctrl-C" in running.stderr.readline()
    running.send_signal(signal.SIGINT)
    told, _ = running.communicate(timeout=60)
    assert json.loads(told)["seconds"] < 300 and len(json.loads(told)["by rule"]) >= 5


def test_where_nothing_can_be_kept_it_begins_all_the_same(tmp_path: Path) -> None:
    """Neither the tree, nor the user's folder, nor a place by setting can be written, as in a locked-down container.

    There numba's own way to keep what it compiles fails when the module is loaded.
    """
    solver = tmp_path / "tree" / "services" / "scheduling" / "solver"
    solver.mkdir(parents=True)
    for package in (solver.parent.parent, solver.parent):
        (package / "__init__.py").touch()
    for file in (PROJECT / "services" / "scheduling" / "solver").glob("*.py"):
        (solver / file.name).write_text(file.read_text())
    (solver / "__pycache__").write_text("a file where a folder would have to be")
    script = (
        "from services.scheduling.solver.anneal import State; "
        "from services.scheduling.solver.problem import Event, Problem; "
        "state = State(Problem(1, 2, (Event('a', 'a', 1, (0, 1)),)), 0, hard=50); state.begin(); "
        "print(len(state.plan()))"
    )
    env = {
        "PATH": os.environ["PATH"], "HOME": "/dev/null", "PYTHONDONTWRITEBYTECODE": "1",
        "NUMBA_CACHE_DIR": "/dev/null/nowhere",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path / "tree", env=env, check=False
    )
    assert done.stdout.strip() == "1", done.stderr[-2000:]
