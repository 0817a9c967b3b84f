"""A relay, or the timers of a service, as a process of its own, which a test may stop, continue and kill."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from shared.contracts.enrollment import ParticipantEnrolled
from shared.domain import Timer
from shared.kafka import Kafka
from shared.mongo import Database, Driver, Transaction
from shared.outbox import Relay
from shared.timers import Timers
from tests.shared.sample import COHORT, Enrollment, enrolled

LEASE_SECONDS = 0.3

_processes = multiprocessing.get_context("forkserver")


class Process:
    """One of several that do the same work."""

    def __init__(self, work: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
        self._process = _processes.Process(target=_run, args=(work, arguments), daemon=True)
        self._process.start()

    def signal(self, number: signal.Signals) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


def _run(work: Callable[..., Coroutine[Any, Any, None]], arguments: tuple[Any, ...]) -> None:
    asyncio.run(work(*arguments))


@contextmanager
def processes(number: int, work: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> Iterator[list[Process]]:
    """So many of them, until the block ends."""
    started = [Process(work, *arguments) for _ in range(number)]
    try:
        yield started
    finally:
        for process in started:
            process.kill()


async def relay(mongo_uri: str, name: str, driver: Driver, kafka: Kafka, topic: str) -> None:
    """Publish the outbox of a database for ever."""
    ParticipantEnrolled.topic = topic
    database = Database(mongo_uri, name, service="shared", driver=driver)
    await Relay(database, kafka, lease_seconds=LEASE_SECONDS).run()


timers = Timers()


@timers.on("seat")
async def give_seat(timer: Timer, tx: Transaction) -> None:
    """Announce a seat when its time has come. Fired twice, there would be two events of one subject."""
    event = enrolled(int(timer.key))
    seat = await tx.load(Enrollment, event.enrollment_id) or Enrollment(id=event.enrollment_id, cohort_id=COHORT)
    tx.save(seat, event)


async def fire(mongo_uri: str, name: str, driver: Driver) -> None:
    """Fire the timers of a database for ever."""
    database = Database(mongo_uri, name, service="shared", driver=driver)
    await timers.run(database, asyncio.Event(), lease_seconds=LEASE_SECONDS)
