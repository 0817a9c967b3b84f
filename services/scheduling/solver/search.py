"""Solves a problem: a search for each seed on a thread of its own, watched, stopped at any moment, checked at the end.

Bounded by time for users; bounded by tries it gives the same plan on every machine, for the same seeds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from services.scheduling.solver.anneal import LEVELS, SCALE, Moves, State, cooling
from services.scheduling.solver.check import Violation, check, costs
from services.scheduling.solver.problem import Plan, Problem

CHUNK = 20_000
TOLD_SECONDS = 0.2


@dataclass(frozen=True)
class Schedule:
    """How a search cools, by stages (share of it, from which temperature to which), what a clash costs, its moves."""

    stages: tuple[tuple[str, str, str], ...]
    hard: int
    moves: Moves


LECTURES = Schedule((("1", "4", "0.1"),), 50, Moves(start=405, start_room=107, room=92, kempe=400, periods=20))
"""For lectures of one slot with many groups, as in the public benchmark."""
COHORTS = Schedule(
    (("0.08", "2", "0.2"), ("0.92", "6", "0.1")),
    50,
    Moves(start=150, start_room=100, room=150, trainer=100, free=300, kempe=60, all_trainer=60, all_room=104),
)
"""For sessions of several slots, with trainers and rooms to choose."""


@dataclass(frozen=True)
class Progress:
    """How far a search is: the best plan so far, as the engine counts it and by each rule, as the checker does."""

    seconds: float
    clashes: int
    cost: int
    by_rule: dict[str, int]
    moves: int
    compiling: bool = False


@dataclass
class Solved:
    """The best plan that was found, checked. `violations` is empty for one that may be used."""

    plan: Plan
    violations: list[Violation]
    by_rule: dict[str, int]
    seconds: float
    moves: int
    seed: int
    clash_free_after: float | None
    """Seconds until the first plan without a clash, compiling apart; None when there was none."""
    costs_by_seed: list[tuple[int, int]] = field(default_factory=list)

    @property
    def cost(self) -> int:
        return sum(self.by_rule.values())


class Miscounted(AssertionError):
    """Engine and checker do not agree about a plan: an error of this program."""


def schedule_for(problem: Problem) -> Schedule:
    return LECTURES if all(event.duration == 1 for event in problem.events) else COHORTS


def solve(
    problem: Problem,
    *,
    seconds: float | None = None,
    steps: int | None = None,
    seeds: Sequence[int] = (0, 1),
    begin: Plan | None = None,
    schedule: Schedule | None = None,
    focus: Sequence[str] = (),
    told: Callable[[Progress], bool] | None = None,
) -> Solved:
    """Search for so many seconds, or for so many tries with each seed. `told` hears of it five times a second, and

    ends it by returning false. `begin` is a plan to start from, `focus` names events with which half of the tries are.
    Raises `Miscounted` rather than return a plan about which engine and checker differ.
    """
    if (seconds is None) == (steps is None):
        raise ValueError("either seconds or steps")
    if not problem.events:
        return Solved({}, [], costs(problem, {}), 0.0, 0, seeds[0], 0.0)
    how = schedule or schedule_for(problem)
    states = [State(problem, seed, hard=how.hard, focus=focus) for seed in seeds]
    for state in states:
        state.begin(begin)
    if told is not None and not told(Progress(0.0, *states[0].best, {}, 0, compiling=True)):
        return _finished(problem, states, seeds, 0.0, 0, None)
    _warm(problem, how)
    watch = _Watch(len(states), time.monotonic(), steps)
    heats, moves = cooling(*how.stages), how.moves.told()
    threads = [
        threading.Thread(target=_work, args=(state, n, heats, moves, seconds, watch), daemon=True)
        for n, state in enumerate(states)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        threads[0].join(TOLD_SECONDS) if threads[0].is_alive() else threads[-1].join(TOLD_SECONDS)
        if told is not None and not told(_seen(problem, states, watch)):
            watch.stopping.set()
    for thread in threads:
        thread.join()
    return _finished(problem, states, seeds, watch.elapsed, sum(watch.moves), watch.clash_free_after)


class _Watch:
    """What the threads of a search share."""

    def __init__(self, threads: int, began: float, steps: int | None) -> None:
        self.began = began
        self.steps = steps
        self.stopping = threading.Event()
        self.moves = [0] * threads
        self.clash_free_after: float | None = None

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began


def _work(state: State, number: int, heats: list[int], moves: list[int], seconds: float | None, watch: _Watch) -> None:
    if watch.steps is not None:
        share, more = divmod(watch.steps, LEVELS)
        for level in range(LEVELS):
            if watch.stopping.is_set():
                return
            _chunk(state, number, moves, heats[level], share + (level < more), watch)
        return
    assert seconds is not None
    while not watch.stopping.is_set() and (elapsed := watch.elapsed) < seconds:
        _chunk(state, number, moves, heats[min(LEVELS - 1, int(elapsed / seconds * LEVELS))], CHUNK, watch)


def _chunk(state: State, number: int, moves: list[int], heat: int, steps: int, watch: _Watch) -> None:
    state.run(moves, heat, steps)
    watch.moves[number] += steps
    if watch.clash_free_after is None and state.best[0] == 0:
        watch.clash_free_after = watch.elapsed


def _warm(problem: Problem, how: Schedule) -> None:
    """Compile, or load what was compiled before, apart from the time that is for the search."""
    few = State(Problem(problem.days, problem.slots_per_day, problem.events[:1]), 0, hard=how.hard)
    few.begin()
    few.run(how.moves.told(), 1, 1)


def _best(states: Sequence[State]) -> int:
    return min(range(len(states)), key=lambda n: states[n].best)


def _seen(problem: Problem, states: Sequence[State], watch: _Watch) -> Progress:
    best = states[_best(states)]
    return Progress(watch.elapsed, *best.best, costs(problem, best.plan()), sum(watch.moves))


def _finished(
    problem: Problem, states: Sequence[State], seeds: Sequence[int], seconds: float, moves: int, first: float | None
) -> Solved:
    number = _best(states)
    plan = states[number].plan()
    violations, by_rule = check(problem, plan), costs(problem, plan)
    clashes, cost = states[number].best
    counted = cost // SCALE
    if (clashes == 0) != (not violations) or counted != sum(by_rule.values()):
        raise Miscounted(f"engine: {clashes} clashes, cost {counted}; checker: {len(violations)}, {by_rule}")
    return Solved(plan, violations, by_rule, seconds, moves, seeds[number], first, [state.best for state in states])
