"""What a worker shows of itself to Prometheus, as the database knows it."""

from __future__ import annotations

from datetime import timedelta

from prometheus_client import REGISTRY

from shared import clock, vitals
from shared.contracts.enrollment import CohortConfirmed
from shared.inbox import INDEXES, Consumer
from shared.mongo import Database, Transaction
from shared.timers import INDEXES as TIMER_INDEXES
from shared.timers import Timers
from tests.shared.sample import confirmed
from tests.support import START, record


def shown(name: str, **labels: str) -> float:
    value = REGISTRY.get_sample_value(name, labels)
    assert value is not None, f"{name} is not shown"
    return value


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
