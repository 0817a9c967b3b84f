"""Figures: measured in turns, judged against what they must be, and written down as a table."""

from __future__ import annotations

import gc
import hashlib
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

BEGIN, END = "<!-- figures: written by make bench -->", "<!-- end of figures -->"


@dataclass(frozen=True, slots=True)
class Figure:
    """One comparison. `ratio` is ours to the floor's; `at_least` tells on which side of `must` it has to be."""

    name: str
    unit: str
    ours: float
    floor: float | None
    ratio: float
    must: float
    at_least: bool
    spread: str = ""

    @property
    def met(self) -> bool:
        return self.ratio >= self.must if self.at_least else self.ratio <= self.must

    def cells(self) -> list[str]:
        sign = "≥" if self.at_least else "≤"
        alone = self.floor is None
        return [
            self.name,
            f"{_short(self.ours)} {self.unit}",
            "–" if self.floor is None else f"{_short(self.floor)} {self.unit}",
            "–" if alone else f"{self.ratio:.2f}{self.spread}",
            f"{sign} {_short(self.must)}{' ' + self.unit if alone else ''}",
            "yes" if self.met else "**no**",
        ]


HEADINGS = ["", "ours", "floor", "ratio", "must", "met"]


def _short(number: float) -> str:
    if abs(number) >= 1000:
        return f"{number:,.0f}"
    return f"{number:.0f}" if number == int(number) or abs(number) >= 100 else f"{number:.3g}"


Measure = Callable[[], Awaitable[Sequence[float]]]


async def side_by_side(ours: Measure, *floors: Measure, runs: int) -> list[list[list[float]]]:
    """Every measure in turn (A B A B …), so that whatever else the machine does falls on all. Values by measure."""
    seen: list[list[list[float]]] = [[] for _ in range(1 + len(floors))]
    for _ in range(runs):
        for index, measure in enumerate((ours, *floors)):
            gc.collect()
            gc.freeze()  # as a service does once it is up; ours and floor alike
            seen[index].append(list(await measure()))
            told = ", ".join(_short(value) for value in seen[index][-1])
            print(f"   {'floor' if index else 'ours'} {index or ''}: {told}", file=sys.stderr, flush=True)
    return seen


def compared(
    name: str, unit: str, ours: Sequence[float], floor: Sequence[float], must: float, *, at_least: bool
) -> Figure:
    """Medians, and the median of the ratios of the runs that stood beside each other, with the least and the most."""
    ratios = [mine / its for mine, its in zip(ours, floor, strict=True)]
    spread = f" ({min(ratios):.2f}–{max(ratios):.2f})" if len(ratios) > 1 else ""
    middle = statistics.median
    return Figure(name, unit, middle(ours), middle(floor), middle(ratios), must, at_least, spread)


def alone(name: str, unit: str, value: float, must: float) -> Figure:
    """A figure with a bound of its own and nothing beside it."""
    return Figure(name, unit, value, None, value, must, at_least=False)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def calibration() -> float:
    """How fast this machine is right now, in rounds a second of a fixed piece of Python."""
    began = time.perf_counter()
    rounds = 0
    digest = b""
    while (seconds := time.perf_counter() - began) < 0.5:
        for number in range(1000):
            digest = hashlib.sha256(digest + str({"n": number}).encode()).digest()
        rounds += 1
    return rounds / seconds


def machine() -> str:
    """In words: processor, memory, system, interpreter, and what else was running."""
    cpu = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return (
        f"{os.cpu_count()} × {cpu or platform.machine()}, {memory / 2**20:.0f} GiB, {platform.system()}, "
        f"Python {platform.python_version()}; load before the run {load:.1f}"
    )


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []


def markdown(figures: Sequence[Figure], where: str, calibrated: Sequence[float]) -> str:
    rows = [HEADINGS, ["---"] * len(HEADINGS), *(figure.cells() for figure in figures)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    rounds = f"{min(calibrated):.0f}–{max(calibrated):.0f}"
    told = f"{datetime.now(UTC):%Y-%m-%d}, {where}. Calibration between the benchmarks: {rounds} rounds a second."
    return f"{told}\n\n{table}\n"


def write(path: Path, text: str) -> None:
    """Put the figures between the file's marks."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"{path}: no line {BEGIN!r} and {END!r}")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")
