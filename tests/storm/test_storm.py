"""The kernel on real servers while its workers are killed at every named point and much befalls its neighbours."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from stack import PROJECT

KILLS = 40


def storm(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "storm", "--json", *arguments]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=400, check=False)
    assert done.stdout, done.stderr[-3000:]
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(report)
    assert report["failed"] == [] and report["toothless"] == [], report
    assert done.returncode == 0
    return report


def test_whatever_is_killed_nothing_is_lost_doubled_or_out_of_turn() -> None:
    report = storm("--kills", str(KILLS), "--away", "3", "--rate", "20")
    assert sum(report["kills"].values()) == KILLS
    assert [trouble["name"] for trouble in report["troubles"]] == ["kafka away", "mongo away"]


def test_late_answers_lost_rights_and_full_disks_lose_double_and_disorder_nothing() -> None:
    report = storm("--faults", "--away", "2", "--rate", "20")
    assert [trouble["name"] for trouble in report["troubles"]] == [
        "answers late by 0.2 s",
        "broker refuses (rights taken away)",
        "disk of kafka full",
        "disk of mongo full",
    ]
