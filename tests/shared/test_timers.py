"""Durable timers: due, fired once, cancelled, moved, surviving a restart."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from shared import clock
from shared.domain import Timer
from shared.mongo import Database, Transaction
from shared.timers import ATTEMPTS, Timers
from tests.support import START, fire_timers


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
    first, second = World(), World()
    for n in range(10):
        await set_timer(database, f"k{n}", START)
    await asyncio.gather(*(fire_timers(w.timers, database, until=START) for w in (first, second)))
    # The handler may run again after a conflict; what it wrote would have been written once.
    assert {key for key, _ in first.fired + second.fired} == {f"k{n}" for n in range(10)}
    assert await database.query(Timer, {}) == []


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
