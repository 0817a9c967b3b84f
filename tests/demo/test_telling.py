"""What the command says while it plays, and how it ends."""

from __future__ import annotations

import io
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from demo.__main__ import Narrator
from demo.scenario import Scenario

PROJECT = Path(__file__).resolve().parents[2]
FILE = PROJECT / "scenarios" / "pkp-2022-iii.yaml"
SCENARIO = Scenario.read(FILE)
ATTENDANCE = "attendance is taken (distance, 3 JP)"


def on(day: int, hour: int = 9) -> datetime:
    """An hour of a day of the training, counted from 1."""
    return SCENARIO.begins_at.replace(hour=hour) + timedelta(days=48 + day)


def said(*told: tuple[datetime, list[str]]) -> list[str]:
    out = io.StringIO()
    progress = Progress(console=Console(file=out, width=200, color_system=None))
    narrator = Narrator(SCENARIO, progress)
    for at, words in told:
        narrator(at, words)
    narrator.week_over()
    return [line.strip() for line in out.getvalue().splitlines()]


def test_attendance_is_told_once_a_week_with_its_number_of_sessions() -> None:
    lines = said(*((on(day), [ATTENDANCE, ATTENDANCE]) for day in (1, 2, 3)), (on(8), [ATTENDANCE]))
    assert lines == [f"week  1  {ATTENDANCE} × 6", f"week  2  {ATTENDANCE} × 1"]


def test_weeks_without_sessions_are_told_as_the_time_at_the_workplace() -> None:
    lines = said((on(50), [ATTENDANCE]), (on(113), [ATTENDANCE]))
    assert lines[1] == "weeks 9-16  no sessions: change projects at the workplace, 540 JP declared"


def test_what_many_do_at_once_is_one_line_and_what_was_said_is_not_repeated() -> None:
    nominations = [f"agency-{n} nominates" for n in range(37)]
    assert said((on(-41), nominations)) == ["10 Jan before   agency-0 nominates … and 36 more"]
    confirming = [(on(-20) + timedelta(minutes=n), ["participants confirm"]) for n in range(37)]
    assert said(*confirming) == ["31 Jan before   participants confirm"]


def test_steps_of_the_training_are_told_with_day_and_week() -> None:
    assert said((on(10), ["marks are entered"])) == ["02 Mar week  2  marks are entered"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "demo", *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (FILE.read_text().replace("listeners: [kementerian-01", "listeners: [kementerian-99"), "kementerian-99"),
        ("title: {value: x", "title"),
        ("seed: 1", "cohort"),
    ],
)
def test_a_scenario_that_cannot_be_played_is_named_before_anything_is_started(
    tmp_path: Path, text: str, named: str
) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text(text)
    ended = run("play", str(file), "--report", str(tmp_path / "report.html"))
    assert ended.returncode == 2
    assert "cannot be played" in ended.stdout and named in ended.stdout
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "report.html").exists()


def test_a_scenario_file_that_is_not_there_ends_with_one_line() -> None:
    ended = run("play", "scenarios/none.yaml")
    assert ended.returncode == 2
    assert "scenarios/none.yaml cannot be played" in ended.stdout and ended.stderr == ""
