"""Durable timers: what is due fires once, in the order of its instants, whatever restarts in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime

import structlog
from opentelemetry.trace import SpanKind
from pymongo import ASCENDING, IndexModel
from pymongo.errors import PyMongoError

from shared import clock, identity, tracing
from shared.domain import Timer
from shared.errors import Unavailable
from shared.inbox import reason_of
from shared.lease import Lease
from shared.metrics import TIMERS
from shared.mongo import Database, Transaction

Handler = Callable[[Timer, Transaction], Awaitable[None]]

AT_ONCE = 50
ATTEMPTS = 5
POLL_SECONDS = 0.5
CLOCK_WATCH_SECONDS = 0.01

INDEXES = {
    "timers": [
        IndexModel([("due_at", ASCENDING)], name="due"),
        IndexModel([("failed", ASCENDING)], name="failed", partialFilterExpression={"failed": True}),
    ]
}

log = structlog.get_logger("timers")


class Timers:
    """What a service does when an instant has come. A handler sees `clock.now()` = the instant at which it was due."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    def on(self, kind: str) -> Callable[[Handler], Handler]:
        def register(handler: Handler) -> Handler:
            if kind in self._handlers:
                raise RuntimeError(f"two handlers for timers of kind {kind}")
            self._handlers[kind] = handler
            return handler

        return register

    async def run(self, database: Database, stopping: asyncio.Event, *, lease_seconds: float = 6.0) -> None:
        """Fire what is due until told to stop. Only one process of a service does, by a lease."""
        lease = Lease(database, "timers", lease_seconds)
        try:
            while not stopping.is_set():
                try:
                    if not await lease.keep():
                        await _wait(stopping, lease.patience)
                        continue
                    database.timers_changed.clear()
                    seen = clock.now()
                    if not await self.fire_due(database, until=seen):
                        await self._idle(database, stopping, seen)
                except (PyMongoError, Unavailable, OSError) as error:
                    log.warning("timers.waiting", reason=type(error).__name__)
                    await _wait(stopping, 1.0)
        finally:
            await lease.release()

    async def _idle(self, database: Database, stopping: asyncio.Event, seen: datetime) -> None:
        """Until the poll interval is over, a timer was set in this process, or a virtual clock moved."""
        loop = asyncio.get_running_loop()
        end = loop.time() + POLL_SECONDS
        while not stopping.is_set() and not database.timers_changed.is_set() and loop.time() < end:
            if clock.virtual() and clock.now() != seen:
                return
            await asyncio.sleep(CLOCK_WATCH_SECONDS)

    async def fire_due(self, database: Database, *, until: datetime) -> int:
        """Fire the timers due by then, earliest first. Returns how many were found."""
        due = await database.query(
            Timer, {"due_at": {"$lte": until}, "failed": False}, sort=[("due_at", 1), ("_id", 1)], limit=AT_ONCE
        )
        for timer in due:
            await self._fire(timer, database)
        return len(due)

    async def _fire(self, seen: Timer, database: Database) -> None:
        async def work(tx: Transaction) -> bool:
            timer = await tx.load(Timer, seen.id)
            if timer is None or timer.due_at != seen.due_at or timer.failed:
                return False  # cancelled, moved, or fired by another
            tx.correlationid, tx.causationid = timer.correlationid, timer.causationid
            tx.delete(timer)
            await self._handlers[timer.kind](timer, tx)
            return True

        with (
            tracing.begun(f"timer {seen.kind}", SpanKind.INTERNAL, None, {"correlation_id": seen.correlationid or ""}),
            clock.at(seen.due_at),
            identity.acting_as_system(),
            structlog.contextvars.bound_contextvars(correlation_id=seen.correlationid),
        ):
            try:
                fired = await database.transaction(work)
            except Unavailable:
                raise
            except Exception as error:
                await self._failed(seen, error, database)
                return
        if fired:
            TIMERS.labels(seen.kind).inc()

    async def _failed(self, seen: Timer, error: Exception, database: Database) -> None:
        """Count it; after some attempts it rests, visibly, and lets the others go on."""
        log.error("timer.failed", kind=seen.kind, reason=reason_of(error), attempt=seen.failures + 1)

        async def work(tx: Transaction) -> None:
            timer = await tx.load(Timer, seen.id)
            if timer is not None and timer.due_at == seen.due_at:
                failures = timer.failures + 1
                tx.save(timer.but(failures=failures, failed=failures >= ATTEMPTS))

        await database.transaction(work)
        await asyncio.sleep(0.02)

    @staticmethod
    async def next_due(database: Database) -> datetime | None:
        """The instant of the earliest timer that is still to fire."""
        found = await database.query(Timer, {"failed": False}, sort=[("due_at", 1)], limit=1)
        return found[0].due_at if found else None


async def _wait(stopping: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), seconds)
