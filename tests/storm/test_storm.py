"""The kernel on real servers while its workers are killed at every named point and its neighbours are taken away."""

from __future__ import annotations

import json
import subprocess
import sys

from stack import PROJECT

KILLS = 40


def test_whatever_is_killed_nothing_is_lost_doubled_or_out_of_turn() -> None:
    command = [sys.executable, "-m", "storm", "--kills", str(KILLS), "--away", "3", "--json"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=400, check=False)
    assert done.stdout, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    print(report)
    assert report["failed"] == [] and report["toothless"] == [], report
    assert sum(report["kills"].values()) == KILLS and len(report["outages"]) == 2
    assert done.returncode == 0
