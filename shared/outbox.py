"""The relay: what lies in the outbox is what is not yet published, and it leaves in order.

Only the holder of the lease sends. A document is deleted, by its id, after the broker has acknowledged every row of
it; a crash in between sends it again under the same event ids, which the inbox answers as duplicates.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import InvalidMessageError, KafkaError, MessageSizeTooLargeError
from pymongo import DeleteOne
from pymongo.errors import PyMongoError

from shared import tracing
from shared.errors import Unavailable
from shared.kafka import Kafka
from shared.lease import Lease
from shared.metrics import HELD, LEADER, OUTBOX_AGE, PUBLISHED
from shared.mongo import Database

ROUND_DOCUMENTS = 5000
BATCH_ROWS = 500
POLL_SECONDS = 0.5
ACKNOWLEDGE_SECONDS = 2.0
TOPICS_KNOWN_SECONDS = 5.0
MAX_REQUEST_BYTES = 4 * 1024 * 1024

REFUSED_SECONDS = 30.0
_NEVER = (MessageSizeTooLargeError, InvalidMessageError)

log = structlog.get_logger("outbox")


class Away(Exception):
    """The broker did not acknowledge; nothing is known to be wrong with a topic."""


class Refused(Exception):
    """What lies in a row can never be sent to its topic, however often it is tried."""


class _Broker:
    """A producer with its administration client, made together and thrown away together after any failure."""

    def __init__(self, kafka: Kafka, client_id: str) -> None:
        arguments = kafka.aiokafka() | {"client_id": client_id, "request_timeout_ms": 10_000}
        self._producer = AIOKafkaProducer(
            **arguments,
            acks="all",
            enable_idempotence=True,
            max_batch_size=128 * 1024,
            max_request_size=MAX_REQUEST_BYTES,
        )
        self._admin = AIOKafkaAdminClient(**arguments)
        self._writable: dict[str, tuple[bool, float]] = {}

    async def start(self) -> None:
        async with asyncio.timeout(10):
            await self._admin.start()
            await self._producer.start()

    async def unwritable(self, topics: Iterable[str], *, afresh: bool = False) -> set[str]:
        """Those of the topics that do not exist or may not be written. Asked first, because a send to one hangs."""
        now = time.monotonic()
        wanted = set(topics)
        unknown = [t for t in wanted if afresh or self._writable.get(t, (True, 0.0))[1] < now]
        if unknown:
            async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
                described = await self._admin.describe_topics(unknown)
            for topic in described:
                writable = topic["error_code"] == 0 and all(p["leader"] >= 0 for p in topic["partitions"])
                self._writable[topic["topic"]] = (writable, now + (TOPICS_KNOWN_SECONDS if writable else 0.5))
        return {t for t in wanted if not self._writable.get(t, (False, 0.0))[0]}

    async def send(self, topic: str, row: Mapping[str, Any]) -> asyncio.Future[Any]:
        """Raises `Refused` when the client itself will not take the row."""
        try:
            headers = [(name, value) for name, value in row["headers"]]
            sent: asyncio.Future[Any] = await self._producer.send(topic, row["value"], key=row["key"], headers=headers)
        except (*_NEVER, AssertionError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise Refused from error
        return sent

    async def close(self) -> None:
        """An idempotent producer flushes for ever while the broker is away: after two seconds it is cut off."""
        try:
            async with asyncio.timeout(2):
                await self._producer.stop()
        except (Exception, asyncio.CancelledError):
            with suppress(Exception):
                await self._producer._sender.close()
            with suppress(Exception):
                await self._producer.client.close()
        with suppress(Exception):
            async with asyncio.timeout(2):
                await self._admin.close()


class Relay:
    """Publishes one service's outbox until stopped."""

    def __init__(self, database: Database, kafka: Kafka, *, lease_seconds: float = 6.0) -> None:
        self._database = database
        self._kafka = kafka
        self._lease = Lease(database, "relay", lease_seconds)
        self._stopping = asyncio.Event()
        self._wake = asyncio.Event()
        self._broker: _Broker | None = None
        self.produced: dict[str, int] = {}
        """`topic-partition` → the offset after the last row that the broker acknowledged to this process."""
        self._held_from: dict[str, int] = {}
        self._refused: dict[str, float] = {}
        """Topics of rows that can never be sent → when to try again nevertheless. An operator must look."""
        self._oldest: int | None = None
        OUTBOX_AGE.set_function(lambda: self.oldest_seconds)

    async def run(self) -> None:
        """Until `stop`: rounds while there is something, else wait to be woken."""
        watcher = asyncio.create_task(self._watch())
        backoff = 0.1
        try:
            while not self._stopping.is_set():
                try:
                    if not await self._lease.keep():
                        LEADER.set(0)
                        self._held_from.clear()  # another's to hold now
                        await self._look()
                        await self._pause(self._lease.patience)
                        continue
                    LEADER.set(1)
                    if self._broker is None:
                        broker = _Broker(self._kafka, f"{self._database.service}-relay")
                        try:
                            await broker.start()
                        except BaseException:
                            await broker.close()
                            raise
                        self._broker = broker
                    self._wake.clear()  # before the round: what commits during it wakes the next
                    if not await self._round():
                        await self._pause(POLL_SECONDS, wakeable=True)  # not at all, if something woke it meanwhile
                    backoff = 0.1
                except (KafkaError, PyMongoError, OSError, TimeoutError, Away, Unavailable) as error:
                    log.warning("relay.waiting", reason=type(error).__name__, seconds=backoff)
                    await self._discard()
                    await self._look()
                    await self._pause(backoff)
                    backoff = min(5.0, backoff * 2)
        finally:
            watcher.cancel()
            with suppress(BaseException):
                await watcher
            await self._discard()
            await self._lease.release()
            LEADER.set(0)

    def stop(self) -> None:
        self._stopping.set()

    async def _round(self) -> bool:
        """Everything that lies there now, in order, batch by batch. Returns whether more may lie there.

        Topics known to be unwritable are left out of the query, so that a long row of theirs hides nobody else's.
        """
        assert self._broker is not None
        now = time.monotonic()
        self._refused = {topic: again for topic, again in self._refused.items() if now < again}
        without = await self._broker.unwritable(self._held_from) if self._held_from else set()
        without |= self._refused.keys()
        self._held_from = {topic: pos for topic, pos in self._held_from.items() if topic in without}
        oldest: int | None = min(self._held_from.values(), default=None)
        left = False
        read = 0
        batch: list[Any] = []
        rows = 0
        async with self._database.outbox_snapshot(ROUND_DOCUMENTS, without) as documents:
            async for document in documents:
                pos = int(document["_id"][:20])
                if oldest is None or pos < oldest:
                    oldest = pos
                self._show_age(oldest)
                batch.append(document)
                read += 1
                rows += len(document["rows"])
                if rows >= BATCH_ROWS:
                    left |= await self._batch(batch)
                    batch, rows = [], 0
                    if self._stopping.is_set():
                        return left
            if batch:  # before the cursor is closed, which takes the driver a turn of a thread
                left |= await self._batch(batch)
        self._show_age(min(self._held_from.values(), default=None))
        return left and read == ROUND_DOCUMENTS

    async def _batch(self, documents: list[Any]) -> bool:
        """Send the rows of these documents in order, wait for all, delete the documents. Returns whether any left."""
        assert self._broker is not None
        topics = {document["topic"] for document in documents}
        unwritable = await self._broker.unwritable(topics) | self._refused.keys()
        for document in documents:
            if document["topic"] in unwritable:
                self._hold(document)
        going = [document for document in documents if document["topic"] not in unwritable]
        if not going:
            return False
        if not await self._lease.keep():
            raise Away
        pending: list[tuple[Any, list[asyncio.Future[Any]]]] = []
        flying: list[asyncio.Future[Any]] = []
        failed = False
        began = tracing.now()
        try:
            async with asyncio.timeout(min(ACKNOWLEDGE_SECONDS, self._lease.seconds_left)):
                for document in going:
                    sent: list[asyncio.Future[Any]] = []
                    pending.append((document, sent))
                    if document["topic"] in self._refused:
                        continue  # what is behind it on the same topic does not overtake it
                    try:
                        for row in document["rows"]:
                            sent.append(await self._broker.send(document["topic"], row))
                    except Refused as error:
                        self._refuse(document, error.__cause__)
                    flying.extend(sent)
                if flying:
                    await asyncio.wait(flying)
        except TimeoutError:
            failed = True
        acknowledged = []
        for document, sent in pending:
            complete = len(sent) == len(document["rows"])
            if complete and all(f.done() and not f.cancelled() and f.exception() is None for f in sent):
                acknowledged.append(document)
                for future in sent:
                    self._note(future.result())
                tracing.published(document["topic"], document["rows"], began)
            elif document["topic"] not in self._refused:
                if never := [f for f in sent if f.done() and not f.cancelled() and isinstance(f.exception(), _NEVER)]:
                    self._refuse(document, never[0].exception())
                failed = True
        if acknowledged:
            await self._delete([document["_id"] for document in acknowledged])
            for document in acknowledged:
                PUBLISHED.labels(document["topic"]).inc(len(document["rows"]))
        if failed:
            bad = await self._broker.unwritable(topics, afresh=True)
            for document in going:
                if document["topic"] in bad:
                    self._hold(document)
            raise Away
        return bool(acknowledged)

    def _refuse(self, document: Mapping[str, Any], error: BaseException | None) -> None:
        """Hold the topic of a row that can never be sent; the others go on."""
        log.error("relay.row_refused", topic=document["topic"], outbox_id=document["_id"], reason=type(error).__name__)
        self._refused[document["topic"]] = time.monotonic() + REFUSED_SECONDS
        self._hold(document)

    def _note(self, metadata: Any) -> None:
        partition = f"{metadata.topic}-{metadata.partition}"
        self.produced[partition] = max(self.produced.get(partition, 0), metadata.offset + 1)

    async def _delete(self, ids: list[str]) -> None:
        """By id: a smaller position may have been committed meanwhile."""
        outbox = self._database.collection("outbox")
        if len(ids) == 1:
            await outbox.delete_one({"_id": ids[0]})
            return

        async def work(tx: Any) -> None:
            for id in ids:
                tx.write("outbox", DeleteOne({"_id": id}))

        await self._database.transaction(work)

    def _hold(self, document: Mapping[str, Any]) -> None:
        topic, pos = document["topic"], int(document["_id"][:20])
        if topic not in self._held_from:
            log.warning("relay.topic_held", topic=topic, seconds=round(_age(pos), 1))
        self._held_from[topic] = min(pos, self._held_from.get(topic, pos))

    @property
    def held(self) -> dict[str, float]:
        """Topics that cannot be written → the age in seconds of their oldest row."""
        return {topic: _age(pos) for topic, pos in self._held_from.items()}

    @property
    def oldest_seconds(self) -> float:
        """The age of the oldest row that is not published; it grows while nothing can be sent."""
        return _age(self._oldest) if self._oldest else 0.0

    def _show_age(self, oldest: int | None) -> None:
        self._oldest = oldest
        HELD.clear()
        for topic, seconds in self.held.items():
            HELD.labels(topic).set(seconds)

    async def _look(self) -> None:
        """See what waits, while no round can tell."""
        with suppress(PyMongoError):
            found = await self._database.collection("outbox").find_one({}, {"_id": 1}, sort=[("_id", 1)])
            self._show_age(int(found["_id"][:20]) if found else None)

    async def _watch(self) -> None:
        """Woken within a millisecond of a commit by whichever process; polling is the fallback."""
        while True:
            try:
                async with self._database.watch("outbox") as inserts:
                    async for _ in inserts:
                        self._wake.set()
            except (PyMongoError, OSError) as error:
                log.debug("relay.watch_interrupted", reason=type(error).__name__)
            await asyncio.sleep(1)

    async def _discard(self) -> None:
        if self._broker is not None:
            broker, self._broker = self._broker, None
            await broker.close()

    async def _pause(self, seconds: float, *, wakeable: bool = False) -> None:
        events = [self._stopping, self._wake] if wakeable else [self._stopping]
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


def _age(pos: int) -> float:
    return max(0.0, time.time() - pos / 1_000_000)
