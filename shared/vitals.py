"""What a worker shows of what waits: parked records, timers, the clock; what the lag of its groups is.

Looked at now and then, by indexes and up to a limit, so that it costs the same however much is kept.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import structlog
from pymongo.errors import PyMongoError

from shared import clock
from shared.errors import Unavailable
from shared.inbox import Consumer
from shared.metrics import CLOCK_SKEW, CONSUMING, LAG, PARKED, TIMERS_FAILED, TIMERS_OVERDUE
from shared.mongo import Database
from shared.timers import Timers
from shared.worker import Intake, Intakes

SECONDS = 15.0
COUNTED = 10_000

log = structlog.get_logger("vitals")


async def show(database: Database, intakes: Intakes, stopping: asyncio.Event) -> None:
    """Keep the metrics true until told to stop; while the database is away they keep what was seen last."""
    for intake in intakes.groups:
        _tell(intakes, intake)
    while not stopping.is_set():
        try:
            await look(database, [intake.consumer for intake in intakes.groups])
        except (PyMongoError, Unavailable, OSError) as error:
            log.debug("vitals.waiting", reason=type(error).__name__)
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), SECONDS)


def _tell(intakes: Intakes, intake: Intake) -> None:
    """What is known from memory is told when somebody asks."""
    LAG.labels(intake.consumer.group).set_function(lambda: intake.lag)
    CONSUMING.labels(intake.consumer.group).set_function(lambda: intakes.started and intake.alive)


async def look(database: Database, consumers: Sequence[Consumer]) -> None:
    """Look once at what the database knows."""
    parked = await database.collection("inbox").find({"fate": "parked"}, {"_id": 1}).limit(COUNTED).to_list(None)
    lying = Counter(row["_id"].partition("|")[0] for row in parked)
    for consumer in consumers:
        PARKED.labels(consumer.group).set(lying[consumer.group])
    failed = await database.collection("timers").find({"failed": True}, {"_id": 1}).limit(COUNTED).to_list(None)
    TIMERS_FAILED.set(len(failed))
    due_at = await Timers.next_due(database)
    TIMERS_OVERDUE.set(max(0.0, (clock.now() - due_at).total_seconds()) if due_at else 0.0)
    CLOCK_SKEW.set(await database.clock_skew())
