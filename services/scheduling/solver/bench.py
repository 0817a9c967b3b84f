"""A folder of the public benchmark, solved and told beside the best that anybody has found."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean

from services.scheduling.solver import cbctt
from services.scheduling.solver.problem import Problem
from services.scheduling.solver.search import COHORTS, LECTURES, Schedule, Solved, solve

TUNED_ON = ("comp02", "comp06", "comp07", "comp10", "comp13", "comp16", "comp18", "comp21")
"""The instances on which parameters were chosen; what is told of the others was not."""


@dataclass(frozen=True)
class Row:
    """One instance: its best known cost, and ours with each seed."""

    instance: str
    best_known: int | None
    ours: tuple[int, ...]
    violations: int
    moves_per_second: float
    clash_free_after: float | None
    validated: bool
    """Whether the folder's own validator said the same of every solution; false where there is none."""
    peer: int | None = None

    @property
    def best(self) -> int:
        return min(self.ours)


class Disagrees(Exception):
    """The folder's validator counts otherwise than our checker."""


def known(folder: Path) -> dict[str, int]:
    """The best known costs, from the table in the folder's README or its parent's."""
    for place in (folder, folder.parent):
        if (readme := place / "README.md").exists():
            found = re.findall(r"^\| (\w+) \| (\d+) \|", readme.read_text(), re.MULTILINE)
            return {name: int(cost) for name, cost in found}
    return {}


def rows(
    folder: Path,
    *,
    seconds: float,
    seeds: int,
    first: int = 0,
    out: Path | None = None,
    only: Sequence[str] = (),
    peer: str | None = None,
    schedule: Schedule | None = None,
    told: Callable[[str], None] = lambda name: None,
) -> Iterator[Row]:
    """Solve every instance of the folder with so many seeds from `first` on, two at a time. Raises `Disagrees`.

    A peer has the instance after us, or with one seed at the same time, each on a core of its own.
    """
    best_known = known(folder)
    files = [file for file in sorted(folder.glob("*.*ctt")) if not only or file.stem in only]
    for file in files:
        told(file.stem)
        instance = cbctt.read(file)
        found: list[Solved] = []
        costs: list[int] = []
        other = _Peer(peer, file) if peer and seeds == 1 else None
        for seed in range(first, first + seeds, 2):
            pair = list(range(seed, min(first + seeds, seed + 2)))
            solved = solve(instance.problem, seconds=seconds, seeds=pair, schedule=schedule)
            found.append(solved)
            costs += [cost // 100 if not clashes else 10**6 for clashes, cost in solved.costs_by_seed]
        validated = all(_validated(file, instance, solved, out) for solved in found)
        yield Row(
            file.stem,
            best_known.get(file.stem),
            tuple(costs),
            min(len(solved.violations) for solved in found),
            sum(solved.moves for solved in found) / sum(solved.seconds for solved in found),
            min((s.clash_free_after for s in found if s.clash_free_after is not None), default=None),
            validated,
            (other or _Peer(peer, file)).penalty() if peer else None,
        )


def _validated(file: Path, instance: cbctt.Instance, solved: Solved, out: Path | None) -> bool:
    """Keep the solution, and have the folder's validator count it."""
    folder = out or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    solution = folder / f"{file.stem}.sol"
    solution.write_text(instance.solution(solved.plan))
    program = _validator(file)
    if program is None:
        return False
    violations, penalty = _counted(program, file, solution)
    if violations != len(solved.violations) and bool(violations) != bool(solved.violations):
        raise Disagrees(f"{file.stem}: {violations} violations, and we say {len(solved.violations)}")
    if not violations and penalty != solved.cost:
        raise Disagrees(f"{file.stem}: penalty {penalty}, and we say {solved.cost}")
    return True


def _counted(program: Path, file: Path, solution: Path) -> tuple[int, int]:
    command = [sys.executable, str(program), str(file), str(solution)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    told = re.search(r"violations (\d+)\s+penalty (\d+)", said)
    if told is None:
        raise Disagrees(f"{program} says nothing of {solution}: {said[-300:]}")
    return int(told[1]), int(told[2])


class _Peer:
    """Another program at work: `{file}` and `{out}` in its command are the instance and where its solution goes."""

    def __init__(self, command: str, file: Path) -> None:
        self._file = file
        self._folder = tempfile.TemporaryDirectory()
        self._out = Path(self._folder.name) / f"{file.stem}.sol"
        told = command.format(file=file, out=self._out)
        self._running = subprocess.Popen(told, shell=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def penalty(self) -> int | None:
        """What the folder's validator says of its solution; None where there is none, or one with violations."""
        self._running.wait()
        program = _validator(self._file)
        with self._folder:
            if program is None or not self._out.exists():
                return None
            violations, penalty = _counted(program, self._file, self._out)
            return None if violations else penalty


def _validator(file: Path) -> Path | None:
    return next((p / "validate.py" for p in (file.parent, file.parent.parent) if (p / "validate.py").exists()), None)


def sums(found: Sequence[Row]) -> dict[str, float]:
    """How far we are above the best known in sum: with the better of two seeds, and on the mean of all."""
    judged = [row for row in found if row.best_known is not None]
    best = sum(row.best_known or 0 for row in judged)
    if not best:
        return {}
    return {
        "best known": best,
        "ours, best": sum(row.best for row in judged),
        "gap, best": sum(row.best for row in judged) / best - 1,
        "gap, better of the first two": sum(min(row.ours[:2]) for row in judged) / best - 1,
        "gap, mean": sum(mean(row.ours) for row in judged) / best - 1,
        **_apart(judged),
        **_beside(judged),
    }


def _apart(judged: Sequence[Row]) -> dict[str, float]:
    """The same on the instances on which parameters were chosen, and on the others."""
    told = {}
    for name, rows_of in (
        ("tuned on", [row for row in judged if row.instance in TUNED_ON]),
        ("not tuned on", [row for row in judged if row.instance not in TUNED_ON]),
    ):
        if best := sum(row.best_known or 0 for row in rows_of):
            told[f"gap, better of the first two, {name}"] = sum(min(row.ours[:2]) for row in rows_of) / best - 1
    return told


def _beside(judged: Sequence[Row]) -> dict[str, float]:
    rows_of = [row for row in judged if row.peer is not None]
    if not rows_of:
        return {}
    best = sum(row.best_known or 0 for row in rows_of)
    return {
        "gap, peer": sum(row.peer or 0 for row in rows_of) / best - 1,
        "at or below the peer": sum(row.best <= (row.peer or 0) for row in rows_of),
    }


def as_json(found: Sequence[Row]) -> str:
    return json.dumps({"rows": [asdict(row) for row in found], "sums": sums(found)}, indent=1)


# --- what pays -----------------------------------------------------------------------------------------------------


def _with(schedule: Schedule, **shares: int) -> Schedule:
    """The same with other shares of moves; what that leaves or takes goes to and comes from single moves."""
    moves = replace(schedule.moves, **shares)
    rest = 1024 - sum(asdict(moves).values())
    return replace(schedule, moves=replace(moves, start_room=moves.start_room + rest))


LECTURE_VARIANTS: dict[str, Schedule] = {
    "as it is": LECTURES,
    "without Kempe chains": _with(LECTURES, kempe=0),
    "a quarter of the Kempe chains": _with(LECTURES, kempe=100),
    "without exchanging whole periods": _with(LECTURES, periods=0),
    "coldest 0.3": replace(LECTURES, stages=(("1", "4", "0.3"),)),
    "coldest 0.15": replace(LECTURES, stages=(("1", "4", "0.15"),)),
    "hottest 20": replace(LECTURES, stages=(("1", "20", "0.1"),)),
    "hottest 10": replace(LECTURES, stages=(("1", "10", "0.1"),)),
    "a clash at 20": replace(LECTURES, hard=20),
}
COHORT_VARIANTS: dict[str, Schedule] = {
    "as it is": COHORTS,
    "without whole-class moves": _with(COHORTS, all_trainer=0, all_room=0),
    "without Kempe chains": _with(COHORTS, kempe=0),
    "without looking for what is free": _with(COHORTS, free=0),
    "coldest 0.3": replace(COHORTS, stages=(("0.08", "2", "0.2"), ("0.92", "6", "0.3"))),
    "one stage": replace(COHORTS, stages=(("1", "6", "0.1"),)),
}


def ablation(folder: Path, seconds: float, seeds: int, told: Callable[[str], None]) -> Iterator[tuple[str, float]]:
    """For each variant the sum over the instances of `TUNED_ON` of mean penalty above the best known."""
    for name, schedule in LECTURE_VARIANTS.items():
        told(name)
        found = list(rows(folder, seconds=seconds, seeds=seeds, only=TUNED_ON, schedule=schedule))
        yield name, sum(mean(row.ours) - (row.best_known or 0) for row in found)


def ablation_of_cohorts(
    problem: Problem, seconds: float, seeds: int, told: Callable[[str], None]
) -> Iterator[tuple[str, Solved]]:
    """For each variant what becomes of a season of cohorts."""
    for name, schedule in COHORT_VARIANTS.items():
        told(name)
        yield name, solve(problem, seconds=seconds, seeds=list(range(seeds)), schedule=schedule)
