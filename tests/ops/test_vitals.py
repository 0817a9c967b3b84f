"""What a worker shows of itself to Prometheus, seen on a real broker and database."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from shared import broker, clock, vitals
from shared.broker import Topic
from shared.contracts.enrollment import CohortConfirmed
from shared.inbox import INDEXES, Consumer
from shared.kafka import Kafka
from shared.mongo import Database, Transaction
from shared.outbox import Relay
from shared.service import Service, Work
from shared.timers import INDEXES as TIMER_INDEXES
from shared.timers import Timers
from tests.shared.sample import COHORT, Cohort, confirmed, open_cohort
from tests.support import START, record, settings_for, until


def shown(name: str, **labels: str) -> float:
    value = REGISTRY.get_sample_value(name, labels)
    assert value is not None, f"{name} is not shown"
    return value


@pytest.fixture
async def relay(database: Database, kafka: Kafka) -> AsyncIterator[Relay]:
    relay = Relay(database, kafka, lease_seconds=0.6)
    running = asyncio.create_task(relay.run())
    yield relay
    relay.stop()
    await asyncio.wait_for(running, 10)


async def test_records_not_yet_done_are_the_groups_lag_until_they_are_done(
    database: Database, kafka: Kafka, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = f"training.lag{os.getpid()}"
    await broker.prepare(kafka, [Topic(topic, 1), Topic(f"{topic}.{topic}.dlq", 1)], [], 1)
    monkeypatch.setattr(CohortConfirmed, "topic", topic)
    consumer, gate = Consumer(topic), asyncio.Event()

    @consumer.on(CohortConfirmed)
    async def wait_for_the_gate(event: CohortConfirmed, tx: Transaction) -> None:
        await gate.wait()

    await database.ensure(INDEXES)
    await open_cohort(database)
    settings = settings_for(
        kafka_bootstrap=kafka.bootstrap,
        kafka_security_protocol=kafka.protocol,
        kafka_username=kafka.username,
        kafka_password=kafka.password,
    )
    work = Work(Service("scheduling", routers=[], consumers=[consumer]), database, settings, asyncio.Event())
    work.start()
    try:
        for _ in range(3):

            async def confirm(tx: Transaction) -> None:
                tx.save(await tx.require(Cohort, COHORT), confirmed(5))

            await database.transaction(confirm)
        await until(lambda: shown("training_group_lag_records", group=topic) == 3)
        assert shown("training_consuming", group=topic) == 1
        gate.set()
        await until(lambda: shown("training_group_lag_records", group=topic) == 0)
    finally:
        gate.set()
        work._stopping.set()
        await work.stop()
    assert shown("training_consuming", group=topic) == 0


async def test_parked_records_are_shown_per_group_and_only_while_they_lie_there(database: Database) -> None:
    consumers = [Consumer("seats"), Consumer("seats-feed")]

    @consumers[0].on(CohortConfirmed)
    async def never(event: CohortConfirmed, tx: Transaction) -> None:
        """Not reached."""

    await database.ensure(INDEXES)
    await consumers[0].receive([record(confirmed(1), 1, ce_id=b"no id")], database)
    await vitals.look(database, consumers)
    assert shown("training_parked_records", group="seats") == 1
    assert shown("training_parked_records", group="seats-feed") == 0
    (parked,) = await consumers[0].parked(database)
    await consumers[0].drop(parked.key, "published-in-error", database)
    await vitals.look(database, consumers)
    assert shown("training_parked_records", group="seats") == 0


async def test_a_timer_that_nobody_fires_is_overdue_and_one_that_gave_up_is_failed(database: Database) -> None:
    timers = Timers()

    @timers.on("close")
    async def refuse(timer: object, tx: Transaction) -> None:
        raise ValueError("never works")

    async def work(tx: Transaction) -> None:
        await tx.set_timer("close", "a", START)

    await database.ensure(TIMER_INDEXES)
    await database.transaction(work)
    with clock.at(START + timedelta(minutes=5)):
        await vitals.look(database, [])
    assert shown("training_timers_overdue_seconds") == 300
    for _ in range(5):
        await timers.fire_due(database, until=START)
    await vitals.look(database, [])
    assert (shown("training_timers_failed"), shown("training_timers_overdue_seconds")) == (1, 0)


async def test_one_machine_has_one_clock(database: Database) -> None:
    await vitals.look(database, [])
    assert abs(shown("training_clock_skew_seconds")) < 0.5
