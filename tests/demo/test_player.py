"""The clock of a play: it waits until nothing is on its way, stops at every timer, and never goes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo import player as players
from demo.player import NotQuiet, Player, Step, unsettled

START = datetime(2022, 2, 21, 1, 0, tzinfo=UTC)


def worker(**told: Any) -> dict[str, Any]:
    """What a worker tells when nothing is on its way through it."""
    silent: dict[str, Any] = {
        "quiet": True,
        "produced": {},
        "committed": {},
        "consumes": {},
        "outbox": 0,
        "timers_due": 0,
        "pending": {},
        "next_timer_at": None,
    }
    return silent | told


def publisher(**produced: int) -> dict[str, Any]:
    return worker(produced={name.replace("_", "-"): offset for name, offset in produced.items()})


def reader(group: str, topics: list[str], **committed: int) -> dict[str, Any]:
    done = {name.replace("_", "-"): offset for name, offset in committed.items()}
    return worker(consumes={group: topics}, committed={group: done})


# --- what is on its way ------------------------------------------------------------------------------------------


def test_nothing_is_on_its_way_when_every_group_has_done_what_its_topics_hold() -> None:
    passes = {"enrollment": publisher(seats_0=7), "scheduling": reader("scheduling", ["seats"], seats_0=7)}
    assert unsettled(passes) == []


def test_a_group_that_lags_is_named_with_its_partition() -> None:
    passes = {"enrollment": publisher(seats_0=7), "scheduling": reader("scheduling", ["seats"], seats_0=6)}
    assert unsettled(passes) == ["scheduling: seats-0 at 6 of 7"]


def test_a_partition_that_a_group_never_committed_counts_as_not_begun() -> None:
    passes = {"enrollment": publisher(seats_11=1), "scheduling": reader("scheduling", ["seats"])}
    assert unsettled(passes) == ["scheduling: seats-11 at 0 of 1"]


def test_a_topic_that_a_group_does_not_read_is_not_waited_for() -> None:
    passes = {"assessment": publisher(marks_0=9), "scheduling": reader("scheduling", ["seats"])}
    assert unsettled(passes) == []


def test_a_topic_is_not_taken_for_another_whose_name_begins_alike() -> None:
    passes = {
        "assessment": worker(produced={"training.assessment-restricted-0": 9}),
        "notification": reader("notification", ["training.assessment"]),
    }
    assert unsettled(passes) == []


def test_each_group_of_a_service_is_waited_for_by_itself() -> None:
    both = worker(
        consumes={"mail": ["seats"], "feed": ["seats"]}, committed={"mail": {"seats-0": 3}, "feed": {"seats-0": 2}}
    )
    assert unsettled({"enrollment": publisher(seats_0=3), "notification": both}) == ["feed: seats-0 at 2 of 3"]


@pytest.mark.parametrize("left", [{"outbox": 1}, {"timers_due": 1}, {"pending": {"mail": 2}}])
def test_what_a_worker_still_has_to_do_is_named(left: dict[str, Any]) -> None:
    (line,) = unsettled({"notification": worker(quiet=False, **left)})
    assert line.startswith("notification: ") and next(iter(left)) in line


def test_a_worker_that_does_not_consume_yet_is_waited_for() -> None:
    assert unsettled({"scheduling": worker(quiet=False)}) == ["scheduling: not consuming yet"]


offsets = st.dictionaries(st.sampled_from(["a-0", "a-1", "b-0", "c-0"]), st.integers(1, 5))


@given(produced=st.lists(offsets, min_size=1, max_size=3), done=offsets, read=st.sets(st.sampled_from("abc")))
def test_it_is_quiet_exactly_when_no_read_partition_is_behind_any_publisher(
    produced: list[dict[str, int]], done: dict[str, int], read: set[str]
) -> None:
    passes = {f"publisher-{n}": worker(produced=offsets) for n, offsets in enumerate(produced)}
    passes["reader"] = worker(consumes={"group": sorted(read)}, committed={"group": done})
    behind = {
        partition
        for offsets in produced
        for partition, offset in offsets.items()
        if partition[0] in read and done.get(partition, 0) < offset
    }
    assert {line.split()[1] for line in unsettled(passes)} == behind


# --- the clock ---------------------------------------------------------------------------------------------------

Answer = Callable[[], Mapping[str, Any]]


class Workers:
    """The quiet endpoints of workers, as far as the player sees them."""

    def __init__(self, **answers: Answer) -> None:
        self.asked = 0
        self._answers = answers

    def answer(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/internal/v1/quiet"
        self.asked += 1
        return httpx.Response(200, json=self._answers[request.url.host]())

    def player(self, folder: Path, patience: float = players.QUIET_SECONDS) -> Player:
        http = httpx.AsyncClient(transport=httpx.MockTransport(self.answer))
        return Player(folder / "clock", {name: f"http://{name}" for name in self._answers}, http, patience=patience)


def instants(folder: Path) -> datetime:
    return datetime.fromisoformat((folder / "clock").read_text().strip())


async def test_two_equal_passes_end_the_wait(tmp_path: Path) -> None:
    workers = Workers(one=worker)
    assert await workers.player(tmp_path).quiet() is None
    assert workers.asked == 2


async def test_a_pass_that_tells_something_new_begins_the_count_again(tmp_path: Path) -> None:
    told: Iterator[dict[str, Any]] = iter([publisher(a_0=1), publisher(a_0=2), worker(quiet=False), publisher(a_0=2)])
    last = publisher(a_0=2)
    workers = Workers(one=lambda: next(told, last))
    await workers.player(tmp_path).quiet()
    assert workers.asked == 5


async def test_the_earliest_timer_of_all_workers_is_told(tmp_path: Path) -> None:
    later, earlier = (START + timedelta(days=n) for n in (9, 2))
    workers = Workers(
        one=lambda: worker(next_timer_at=later.isoformat()), two=lambda: worker(next_timer_at=earlier.isoformat())
    )
    assert await workers.player(tmp_path).quiet() == earlier


async def test_what_never_becomes_quiet_stops_the_play_and_is_named(
    tmp_path: Path,
) -> None:
    workers = Workers(enrollment=lambda: publisher(seats_4=3), scheduling=lambda: reader("scheduling", ["seats"]))
    with pytest.raises(NotQuiet, match=r"scheduling: seats-4 at 0 of 3"):
        await workers.player(tmp_path, patience=0.2).quiet()


async def test_a_worker_that_does_not_answer_is_waited_for_and_named(
    tmp_path: Path,
) -> None:
    def away() -> Mapping[str, Any]:
        raise httpx.ConnectError("refused")

    with pytest.raises(NotQuiet, match="assessment: "):
        await Workers(assessment=away).player(tmp_path, patience=0.2).quiet()


async def test_steps_are_played_in_the_order_of_their_instants_and_those_of_one_instant_together(
    tmp_path: Path,
) -> None:
    seen: list[tuple[str, datetime]] = []
    told: list[list[str]] = []

    def step(name: str, hours: int) -> Step:
        async def act() -> None:
            seen.append((name, instants(tmp_path)))

        return Step(START + timedelta(hours=hours), name, act)

    player = Workers(one=worker).player(tmp_path)
    await player.play([step("closing", 9), step("first", 1), step("second", 1)], lambda _, words: told.append(words))
    assert told == [["first", "second"], ["closing"]]
    assert seen == [
        ("first", START + timedelta(hours=1)),
        ("second", START + timedelta(hours=1)),
        ("closing", START + timedelta(hours=9)),
    ]


async def test_the_clock_stops_at_every_timer_between_two_steps(tmp_path: Path) -> None:
    timers = [START + timedelta(hours=n) for n in (3, 5, 8)]
    stops: list[datetime] = []

    def fired() -> dict[str, Any]:
        now = instants(tmp_path) if (tmp_path / "clock").exists() else START
        if now not in stops:
            stops.append(now)
        return worker(next_timer_at=next((t.isoformat() for t in timers if t > now), None))

    async def nothing() -> None: ...

    player = Workers(one=fired).player(tmp_path)
    steps = [Step(START + timedelta(hours=n), "", nothing) for n in (2, 6)]
    await player.play(steps, lambda *_: None)
    assert stops == [START, *(START + timedelta(hours=n) for n in (2, 3, 5, 6))]


async def test_the_clock_never_goes_back(tmp_path: Path) -> None:
    player = Workers(one=worker).player(tmp_path)
    player.set_clock(START)
    player.set_clock(START - timedelta(seconds=1))
    assert instants(tmp_path) == START == player.now


async def test_a_step_that_fails_stops_the_play(tmp_path: Path) -> None:
    later: list[str] = []

    async def refused() -> None:
        raise players.Unexpected("PUT /x: 409")

    async def after() -> None:
        later.append("played")

    player = Workers(one=worker).player(tmp_path)
    with pytest.raises(players.Unexpected, match="409"):
        await player.play([Step(START, "a", refused), Step(START + timedelta(1), "b", after)], lambda *_: None)
    assert later == []
