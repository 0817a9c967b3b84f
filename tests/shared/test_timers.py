"""Durable timers: due, fired once, cancelled, moved, surviving a restart."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from shared import clock
from shared.domain import Timer
from shared.mongo import Database, Driver, Transaction
from shared.timers import ATTEMPTS, Timers
from tests.shared.relaying import LEASE_SECONDS, fire, processes
from tests.shared.sample import Cohort, confirmed, open_cohort
from tests.support import START, announced, fire_timers, many, uid, until


class World:
    def __init__(self) -> None:
        self.timers = Timers()
        self.fired: list[tuple[str, datetime]] = []
        self.broken: set[str] = set()

        @self.timers.on("closing")
        async def close(timer: Timer, tx: Transaction) -> None:
            if timer.key in self.broken:
                raise ZeroDivisionError
            self.fired.append((timer.key, clock.now()))


@pytest.fixture
def world() -> World:
    return World()


async def set_timer(database: Database, key: str, due_at: datetime) -> None:
    await database.transaction(lambda tx: tx.set_timer("closing", key, due_at, cohort_id="c"))


async def test_a_timer_fires_once_and_sees_the_instant_at_which_it_was_due(world: World, database: Database) -> None:
    await set_timer(database, "b", START + timedelta(days=2))
    await set_timer(database, "a", START + timedelta(days=1))
    await fire_timers(world.timers, database, until=START)
    assert world.fired == []
    await fire_timers(world.timers, database, until=START + timedelta(days=9))
    await fire_timers(world.timers, database, until=START + timedelta(days=9))
    assert world.fired == [("a", START + timedelta(days=1)), ("b", START + timedelta(days=2))]


async def test_a_timer_can_be_moved_and_cancelled(world: World, database: Database) -> None:
    await set_timer(database, "a", START + timedelta(days=1))
    await set_timer(database, "a", START + timedelta(days=5))
    await set_timer(database, "b", START + timedelta(days=1))
    await database.transaction(lambda tx: tx.cancel_timer("closing", "b"))
    await fire_timers(world.timers, database, until=START + timedelta(days=2))
    assert world.fired == []
    assert await Timers.next_due(database) == START + timedelta(days=5)


async def test_a_timer_set_before_a_restart_fires_after_it(world: World, database: Database) -> None:
    await set_timer(database, "a", START)
    await fire_timers(World().timers, database, until=START - timedelta(days=1))
    restarted = World()
    await fire_timers(restarted.timers, database, until=START)
    assert [key for key, _ in restarted.fired] == ["a"]


async def test_two_workers_fire_it_once(database: Database) -> None:
    """The handler may run again after a conflict; what it announces is announced once."""
    cohorts = [uid(n, 0xC) for n in range(10)]
    for cohort_id in cohorts:
        await open_cohort(database, cohort_id)
        await set_timer(database, cohort_id, START)

    def worker() -> Timers:
        timers = Timers()

        @timers.on("closing")
        async def confirm(timer: Timer, tx: Transaction) -> None:
            tx.save(await tx.require(Cohort, timer.key), confirmed(1, cohort_id=timer.key))

        return timers

    await asyncio.gather(*(fire_timers(worker(), database, until=START) for _ in range(2)))
    assert sorted(envelope.subject for envelope, _ in await announced(database)) == cohorts
    assert await database.query(Timer, {}) == []


async def test_a_handler_may_set_its_own_timer_again(database: Database) -> None:
    """Every day until the third: what it deletes by firing, it sets anew in the same transaction."""
    timers = Timers()
    fired: list[datetime] = []

    @timers.on("closing")
    async def remind(timer: Timer, tx: Transaction) -> None:
        fired.append(clock.now())
        if clock.now() < START + timedelta(days=2):
            await tx.set_timer("closing", timer.key, clock.now() + timedelta(days=1))

    await set_timer(database, "a", START)
    await fire_timers(timers, database, until=START + timedelta(days=9))
    assert fired == [START + timedelta(days=n) for n in range(3)]
    assert await database.query(Timer, {}) == []


@pytest.mark.parametrize("looked", [False, True], ids=["", "after-a-look"])
async def test_a_timer_cancelled_and_set_again_at_once_is_due_as_last_said(database: Database, looked: bool) -> None:
    await set_timer(database, "a", START)

    async def change(tx: Transaction) -> None:
        await tx.cancel_timer("closing", "a")
        if looked:  # which writes the deletion first
            assert await tx.find(Timer, {}, owner=None) == []
        await tx.set_timer("closing", "a", START + timedelta(days=1))
        await tx.cancel_timer("closing", "a")
        await tx.set_timer("closing", "a", START + timedelta(days=2))

    await database.transaction(change)
    (timer,) = await database.query(Timer, {})
    assert timer.due_at == START + timedelta(days=2)


async def test_a_broken_timer_rests_after_some_attempts_and_lets_the_others_go_on(
    world: World, database: Database
) -> None:
    world.broken = {"a"}
    await set_timer(database, "a", START)
    await set_timer(database, "b", START)
    await fire_timers(world.timers, database, until=START)
    assert [key for key, _ in world.fired] == ["b"]
    (resting,) = await database.query(Timer, {})
    assert resting.failed and resting.failures == ATTEMPTS
    assert await Timers.next_due(database) is None


# --- the loop of a worker ----------------------------------------------------------------------------------------


@asynccontextmanager
async def running(timers: Timers, database: Database) -> AsyncIterator[asyncio.Event]:
    """A worker that fires timers, until the event is set or the context ends."""
    stopping = asyncio.Event()
    task = asyncio.create_task(timers.run(database, stopping, lease_seconds=0.6))
    try:
        yield stopping
    finally:
        stopping.set()
        await asyncio.wait_for(task, 10)


async def test_a_step_of_the_clock_and_a_timer_just_set_are_noticed_at_once(
    world: World, database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not by the next poll, which here would be in ten minutes."""
    monkeypatch.setattr("shared.timers.POLL_SECONDS", 600.0)
    file, days = tmp_path / "clock", [START + timedelta(days=n) for n in range(5)]
    file.write_text(START.isoformat())

    def fired(count: int) -> bool:
        return len(world.fired) == count

    clock.use(str(file))
    try:
        for day in days:
            await set_timer(database, f"set before {day}", day)
        async with running(world.timers, database):
            for number, day in enumerate(days, 1):
                (tmp_path / "draft").write_text(day.isoformat())
                (tmp_path / "draft").replace(file)
                await until(partial(fired, number), seconds=5)
            for number in range(1, 5):
                await set_timer(database, f"set just now {number}", days[-1])
                await until(partial(fired, len(days) + number), seconds=5)
    finally:
        clock.use(None)
    assert [instant for _, instant in world.fired] == [*days, *[days[-1]] * 4]


async def test_of_two_workers_one_fires_and_the_other_takes_over(database: Database) -> None:
    worlds = World(), World()

    async def fired(count: int) -> list[int]:
        await until(lambda: sum(len(world.fired) for world in worlds) == count)
        return [len(world.fired) for world in worlds]

    async with running(worlds[0].timers, database) as first, running(worlds[1].timers, database) as second:
        for n in range(5):
            await set_timer(database, f"a{n}", START)
            counts = await fired(n + 1)
        assert sorted(counts) == [0, 5]
        leader = counts.index(5)
        (first, second)[leader].set()
        await set_timer(database, "b", START)
        await fired(6)  # by either: it may have been on its way
        await set_timer(database, "c", START)
        await fired(7)
        assert worlds[1 - leader].fired[-1][0] == "c"


# --- real processes ----------------------------------------------------------------------------------------------


async def test_a_timer_set_before_its_process_is_killed_is_fired_by_another_and_once(
    database: Database, mongo_uri: str, driver: Driver, count: Callable[[str], None]
) -> None:
    """Two workers want the lease; the one that has it is stopped, continued and killed while timers fire."""
    rounds = many(2, 20)
    due = clock.now()
    number = itertools.count(1)
    pids = itertools.cycle((0, 1))
    with processes(2, fire, mongo_uri, database.collection("x").database.name, driver) as workers:
        for _ in range(rounds):
            before = next(number)
            for n in range(before, before + 20):
                await database.transaction(lambda tx, n=n: tx.set_timer("seat", str(n), due))  # type: ignore[misc]
                last = n
            number = itertools.count(last + 1)
            which = next(pids)
            workers[which].signal(signal.SIGSTOP)
            await asyncio.sleep(2 * LEASE_SECONDS)  # longer than a lease: the other believes to hold it, this one too
            workers[which].signal(signal.SIGCONT)
            await until(lambda: _none_due(database))
        for n in range(last + 1, last + 21):
            await database.transaction(lambda tx, n=n: tx.set_timer("seat", str(n), due))  # type: ignore[misc]
        workers[0].kill()
        await until(lambda: _none_due(database), seconds=25)
    told = [(e.subject, e.sequence) for e, _ in await announced(database)]
    assert sorted(told) == sorted((uid(n, 0xE), 1) for n in range(1, last + 21))
    count(f"{len(told)} timers, {rounds} stalls longer than the lease, one kill: each fired once")


async def _none_due(database: Database) -> bool:
    return not await database.query(Timer, {})
