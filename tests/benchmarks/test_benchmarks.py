"""The benchmarks run. What they measure is never judged here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.figures import BEGIN, END, compared, markdown, write
from shared.kafka import Kafka
from stack import PROJECT

SEEN = ("relay: backlog, 100", "relay: live", "inbox", "16 clients, p99", "foreign handler", "seats", "a command")


def test_every_benchmark_runs_in_a_tiny_size(mongo_uri: str, kafka: Kafka) -> None:
    """All but the one that would fetch Kafka Connect."""
    command = [sys.executable, "-m", "benchmarks", "--tiny", "--mongo-uri", mongo_uri]
    command += ["--kafka-bootstrap", kafka.bootstrap]
    told: dict[str, str] = {"KAFKA_SECURITY_PROTOCOL": kafka.protocol}
    if kafka.username and kafka.password:
        told |= {"KAFKA_USERNAME": kafka.username, "KAFKA_PASSWORD": kafka.password}
    done = subprocess.run(
        command, cwd=PROJECT, env={**os.environ, **told}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert [name for name in SEEN if name not in done.stdout] == []


@pytest.mark.parametrize(("ours", "at_least", "met"), [(90, True, True), (80, True, False), (80, False, True)])
def test_a_figure_is_judged_by_the_runs_that_stood_beside_each_other(ours: float, at_least: bool, met: bool) -> None:
    """The middle of the three ratios decides; one run that something else disturbed does not."""
    figure = compared("relay", "events/s", [ours, 1, ours * 2], [100, 100, 200], 0.85, at_least=at_least)
    assert figure.ratio == ours / 100 and figure.met is met


def test_the_table_is_written_between_its_marks_and_nowhere_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    figure = compared("relay", "events/s", [90.0], [100.0], 0.85, at_least=True)
    write(page, markdown([figure], "a machine", [10.0]))
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| relay | 90 events/s | 100 events/s | 0.90 | ≥ 0.85 | yes |" in text
    unmarked = tmp_path / "unmarked.md"
    unmarked.write_text("nothing")
    with pytest.raises(SystemExit):
        write(unmarked, "")
