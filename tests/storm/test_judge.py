"""What a storm counts as lost, doubled or out of turn; each break of a promise is found."""

from __future__ import annotations

import pytest

from storm.judge import Seen, judge_effects, judge_topic

ONE, TWO, THREE = (Seen("cohort", n, f"id-{n}", b"{}") for n in (1, 2, 3))


def test_a_record_that_comes_again_under_its_id_is_a_duplicate_and_nothing_worse() -> None:
    verdict = judge_topic("t", [ONE, TWO, ONE, TWO, THREE], {"cohort": 3})
    assert verdict.kept and (verdict.events, verdict.duplicates) == (5, 2)


@pytest.mark.parametrize(
    ("records", "committed", "broken"),
    [
        ([ONE, TWO], 3, "lost"),
        ([ONE, THREE], 3, "lost"),
        ([ONE, THREE, TWO], 3, "disordered"),
        ([ONE, TWO, Seen("cohort", 2, "another-id", b"{}")], 2, "doubled"),
        ([ONE, TWO, Seen("cohort", 2, "id-2", b"other")], 2, "doubled"),
        ([ONE, TWO, THREE], 2, "doubled"),
        ([], 1, "lost"),
    ],
    ids=["end-missing", "gap", "overtaken", "two-ids", "other-content", "never-committed", "nothing"],
)
def test_each_broken_promise_is_found(records: list[Seen], committed: int, broken: str) -> None:
    verdict = judge_topic("t", records, {"cohort": committed})
    assert not verdict.kept and getattr(verdict, broken) >= 1 and verdict.wrong


def test_an_effect_is_counted_once_and_in_its_turn() -> None:
    assert judge_effects({"a": 3, "b": 0}, {"a": (3, 0)}).kept
    assert judge_effects({"a": 3}, {"a": (2, 0)}).lost == 1
    assert judge_effects({"a": 3}, {"a": (4, 0)}).doubled == 1
    assert judge_effects({"a": 3}, {"a": (3, 1)}).disordered == 1
