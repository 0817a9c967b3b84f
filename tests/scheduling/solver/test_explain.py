"""Why there is no plan: what is missing and by how much, and the smallest set of rules that clash, in words."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from itertools import combinations

import pytest

from services.scheduling import timetable
from services.scheduling.solver import generator
from services.scheduling.solver.check import check, costs
from services.scheduling.solver.explain import Reason, Rule, explain
from services.scheduling.solver.placement import NoPlacement, place
from services.scheduling.solver.prechecks import shortages
from services.scheduling.solver.problem import Event, Pin, Problem
from services.scheduling.solver.search import solve
from tests.scheduling.story import CURRICULUM, SEVENTEEN_WEEKS, START
from tests.scheduling.test_timetable import HOLIDAYS, reference_case
from tests.support import printed_by_processes


def calendar(*more_closed: date) -> tuple[Reason, list[str]]:
    season = timetable.calendar(CURRICULUM, START, START + SEVENTEEN_WEEKS, {*HOLIDAYS, *more_closed})
    reason = explain(season.problem, seconds=100)
    return reason, [rule.words(season.named) for rule in reason.rules]


# --- the reference cohort ----------------------------------------------------------------------------------------


def test_the_reference_cohorts_timetable_is_found() -> None:
    _, given, simple, _ = reference_case()
    solved = solve(given, steps=400_000, seeds=(0,))
    assert solved.violations == []
    assert solved.cost <= sum(costs(given, simple).values())


def test_its_stages_fit_between_their_first_and_last_day() -> None:
    reason, words = calendar()
    assert reason.feasible and words == []
    season = timetable.calendar(CURRICULUM, START, START + SEVENTEEN_WEEKS, HOLIDAYS)
    assert check(season.problem, place(season.problem)) == []
    assert solve(season.problem, steps=500_000, seeds=(0,)).violations == []


def test_one_more_closed_weekday_of_stage_one_clashes_with_named_rules(count: Callable[[str], None]) -> None:
    reason, words = calendar(date(2022, 3, 9))
    count(f"why the reference cohort does not fit with one more closed day: shown in {reason.seconds:.1f} s")
    assert reason.smallest
    assert words == [
        "classical: 1 to be held, between 2022-02-21 and 2022-06-17",
        "distance: 36 to be held, between 2022-02-21 and 2022-06-17",
        "workplace: 60 to be held, between 2022-02-21 and 2022-06-19",
        "all of distance ends before any of workplace begins",
        "all of workplace ends before any of classical begins",
        "cohort is away: 2022-02-28",
        "cohort is away: 2022-03-03",
        "cohort is away: 2022-03-09",
    ]


def test_one_more_closed_weekday_of_stage_three_clashes_too() -> None:
    reason, words = calendar(date(2022, 6, 15))
    assert reason.smallest and len(words) == 6
    assert words[-1] == "cohort is away: 2022-06-15"


def test_one_more_closed_weekday_of_stage_two_changes_nothing() -> None:
    reason, words = calendar(date(2022, 5, 11))
    assert reason.feasible and words == []


# --- in general --------------------------------------------------------------------------------------------------


def small(seed: int) -> Problem:
    """Two groups, three classes, two trainers who are away at times: often without a plan."""
    dice = random.Random(seed)
    slots = range(6)
    events = [
        Event(f"{cls}/{n}", cls, 1, tuple(slots), led, (), (dice.choice("gh"),))
        for cls, led in (("a", ("ann",)), ("b", ("ann", "bob")), ("c", ("bob",)))
        for n in range(dice.randint(1, 3))
    ]
    return Problem(
        2, 3, tuple(events),
        trainer_busy={t: frozenset(dice.sample(slots, dice.randint(0, 4))) for t in ("ann", "bob")},
        group_busy={g: frozenset(dice.sample(slots, dice.randint(0, 3))) for g in "gh"},
        arcs=tuple(arc for arc in (("a", "b"), ("b", "c")) if dice.random() < 0.5),
        trainer_day_cap=dice.randint(1, 3),
        group_day_caps={0: dice.randint(1, 3)},
        pins={"a/0": Pin(start=dice.choice(slots))} if dice.random() < 0.3 else {},
    )  # fmt: skip


def without(problem: Problem, given_up: set[Rule], every: set[Rule]) -> Problem:
    """The problem in which only the rules of `every` that are not given up hold."""
    kept = every - given_up

    def runs(rules: set[Rule], names: set[str]) -> dict[str, frozenset[int]]:
        found: dict[str, frozenset[int]] = {}
        for rule in rules:
            if rule.kind == "away" and rule.names[0] in names:
                found[rule.names[0]] = found.get(rule.names[0], frozenset()) | set(range(rule.first, rule.last + 1))
        return found

    held = {rule.names[0] for rule in kept if rule.kind == "held"}
    return replace(
        problem,
        events=tuple(event for event in problem.events if event.cls in held),
        arcs=tuple(arc for arc in problem.arcs if any(r.kind == "order" and r.names == arc for r in kept)),
        trainer_busy=runs(kept, {"ann", "bob"}),
        group_busy=runs(kept, {"g", "h"}),
        trainer_day_cap=problem.trainer_day_cap if any(r.kind == "trainer-day" for r in kept) else 99,
        group_day_caps=problem.group_day_caps if any(r.kind == "group-day" for r in kept) else {},
        pins={id: pin for id, pin in problem.pins.items() if any(r.kind == "pin" and r.names == (id,) for r in kept)},
    )


def has_a_plan(problem: Problem) -> bool:
    """By search and, where that finds none, by the absence of any reason in what is left."""
    if not problem.events:
        return True
    try:
        return check(problem, place(problem)) == []
    except NoPlacement:
        return solve(problem, steps=60_000, seeds=(0,)).violations == []


@pytest.mark.parametrize("seed", range(60))
def test_the_rules_named_clash_and_none_of_them_can_be_spared(seed: int) -> None:
    problem = small(seed)
    reason = explain(problem)
    if not reason.rules:
        assert reason.feasible or reason.shortages
        return
    every = set(reason.rules)
    assert not has_a_plan(without(problem, set(), every))
    for rule in reason.rules:
        assert has_a_plan(without(problem, {rule}, every)), rule
    assert reason.smallest
    if len(every) > 1:
        for fewer in combinations(every, len(every) - 1):
            assert has_a_plan(without(problem, every - set(fewer), every))


def test_enough_of_the_small_problems_have_no_plan() -> None:
    assert sum(bool(explain(small(seed)).rules) for seed in range(60)) >= 15


def test_what_is_impossible_in_one_cohort_of_many_is_found_there() -> None:
    problem = generator.cohorts(generator.Size(10, 16, 4, 4), 3)
    ring = replace(problem, arcs=(*problem.arcs, ("cohort-004/B3", "cohort-004/B1")))
    reason = explain(ring)
    told = {rule.names for rule in reason.rules if rule.kind == "order"}
    assert ("cohort-004/B3", "cohort-004/B1") in told and len(reason.rules) <= 6


# --- before any search -------------------------------------------------------------------------------------------


def test_a_window_that_is_too_short_for_a_chain_is_named_with_what_is_missing() -> None:
    days = tuple(range(0, 40, 8))
    first = [Event(f"a/{n}", "a", 4, tuple(d + h for d in days for h in (0, 4)), (), (), ("g",)) for n in range(6)]
    then = [Event(f"b/{n}", "b", 4, tuple(d + h for d in days for h in (0, 4)), (), (), ("g",)) for n in range(6)]
    problem = Problem(5, 8, (*first, *then), arcs=(("a", "b"),))
    chains = [short for short in shortages(problem) if short.rule == "H7"]
    assert [(short.name, short.needed, short.there, short.first_day) for short in chains] == [("b", 24, 16, 3)]
    assert "8 too few" in str(chains[0])
    roomy = replace(problem, events=(*first, *then[:4]))
    assert shortages(roomy) == []


def test_trainers_of_a_stage_who_are_away_too_often_are_named_with_the_missing_hours() -> None:
    starts = tuple(range(16))
    events = tuple(Event(f"{cls}/{n}", cls, 1, starts, ("ann",), (), (cls,)) for cls in "ab" for n in range(5))
    problem = Problem(2, 8, events, trainer_busy={"ann": frozenset(range(8))}, trainer_day_cap=6)
    assert [(s.rule, s.name, s.slots) for s in shortages(problem)] == [("H5", "a+b", 4)]


def test_rooms_of_a_stage_that_are_too_few_are_named_with_the_missing_hours() -> None:
    starts = tuple(range(4))
    events = tuple(Event(f"{g}/{n}", g, 1, starts, (), ("hall",), (g,), size=20) for g in "abc" for n in range(2))
    problem = Problem(1, 4, events, seats={"hall": 25})
    assert [(s.rule, s.slots) for s in shortages(problem)] == [("H6", 2)]


def test_a_class_without_any_day_is_named() -> None:
    problem = Problem(1, 4, (Event("a/0", "a", 2, (), (), (), ("g",)),))
    assert [(s.rule, s.name, s.slots) for s in shortages(problem)] == [("H1", "a", 2)]


def test_the_same_question_has_the_same_answer_in_every_process() -> None:
    """Also where several sets are the smallest."""
    program = (
        "from tests.scheduling.solver.test_explain import explain, small; "
        "print([explain(small(seed), seconds=100).rules for seed in range(12)])"
    )
    assert len(printed_by_processes(program, hash_seeds=("1", "2"))) == 1
