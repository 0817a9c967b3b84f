"""After a disruption: a plan without violations, as few changes as can be, and nothing that was held is moved."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.scheduling.solver import generator
from services.scheduling.solver.check import check
from services.scheduling.solver.generator import Disruption, disrupted
from services.scheduling.solver.problem import Event, Placement, Plan, Problem
from services.scheduling.solver.repair import NotRepaired, broken, frozen, repair
from services.scheduling.solver.search import solve


@pytest.fixture(scope="module")
def published() -> tuple[Problem, Plan]:
    problem = generator.cohorts(generator.Size(10, 16, 4, 4), 3)
    solved = solve(problem, steps=1_500_000, seeds=(0,))
    assert solved.violations == []
    return problem, solved.plan


@pytest.mark.parametrize("kind", ["trainer", "room"])
def test_only_what_is_broken_changes_where_that_is_enough(published: tuple[Problem, Plan], kind: Disruption) -> None:
    problem, plan = published
    now = disrupted(problem, plan, kind)
    hurt = broken(now, plan)
    assert hurt
    repaired = repair(now, plan, seconds=20)
    assert check(now, repaired.plan) == []
    assert set(repaired.broken) == set(hurt) and len(hurt) <= len(repaired.changed) <= 2 * len(hurt)
    if repaired.minimal:
        assert set(repaired.changed) == set(hurt)


def test_a_plan_that_still_holds_stays_as_it_is(published: tuple[Problem, Plan]) -> None:
    problem, plan = published
    repaired = repair(problem, plan)
    assert repaired.plan == plan and repaired.changed == () and repaired.minimal


def test_a_new_holiday_breaks_every_session_of_its_day(published: tuple[Problem, Plan]) -> None:
    problem, plan = published
    now = disrupted(problem, plan, "holiday")
    days = {plan[id].start // problem.slots_per_day for id in broken(now, plan)}
    assert len(days) == 1
    assert len(broken(now, plan)) == sum(where.start // problem.slots_per_day in days for where in plan.values())


def test_what_was_held_is_never_moved(published: tuple[Problem, Plan]) -> None:
    problem, plan = published
    now = frozen(disrupted(problem, plan, "room"), plan, before_day=40)
    held = {id: where for id, where in plan.items() if where.start // problem.slots_per_day < 40}
    assert held and {id: now.pins[id].start for id in held} == {id: where.start for id, where in held.items()}
    if not set(broken(now, plan)) & held.keys():
        repaired = repair(now, plan, seconds=20)
        assert {id: repaired.plan[id] for id in held} == held


def test_what_cannot_be_repaired_says_how_much_is_left() -> None:
    event = Event("a/0", "a", 1, (0, 1), ("ann",), (), ("g",))
    problem = Problem(1, 2, (event, replace(event, id="a/1")))
    plan = {"a/0": Placement(0, "ann"), "a/1": Placement(1, "ann")}
    ill = replace(problem, trainer_busy={"ann": frozenset({1})})
    with pytest.raises(NotRepaired, match="violations are left") as caught:
        repair(ill, plan, seconds=3)
    assert caught.value.violations >= 1
