"""Handling events once: what a handler writes, the note that it was handled, and what it announces commit together.

Every record has one of five fates: handled, duplicate, ignored, parked, or (database or broker away) not yet.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, TypeVar

import structlog
from opentelemetry.trace import SpanKind
from pydantic import TypeAdapter, ValidationError
from pymongo import ASCENDING, DeleteOne, IndexModel, InsertOne, UpdateOne

from shared import clock, identity, tracing
from shared.cloudevents import Envelope, Record, Unreadable
from shared.cloudevents import read as read_envelope
from shared.contracts import REGISTRY, Event, source_of
from shared.domain import State
from shared.errors import Contended, Failure, Impaired, Unavailable
from shared.metrics import EVENTS
from shared.mongo import Database, Transaction

E = TypeVar("E", bound=Event)
Handler = Callable[[Any, Transaction], Awaitable[None]]
RecordHandler = Callable[[Record, Envelope, Transaction], Awaitable[None]]
Reads = Callable[[Any], "tuple[type[State], str] | Sequence[tuple[type[State], str]]"]

BATCH_RECORDS = 100
BATCH_SECONDS = 1.0
IN_PLACE_SECONDS = 2.0
ALONE_SECONDS = 15.0
ATTEMPTS = 5
INBOX_DAYS = 430  # longer than Kafka keeps records, so that no replay finds the memory gone

INDEXES = {
    "inbox": [
        IndexModel([("at", ASCENDING)], name="retention", expireAfterSeconds=INBOX_DAYS * 86_400),
        IndexModel([("block", ASCENDING)], name="block", sparse=True),
        IndexModel([("fate", ASCENDING)], name="parked", partialFilterExpression={"fate": "parked"}),
    ],
}

log = structlog.get_logger("inbox")


@dataclass(frozen=True, slots=True)
class _Route:
    adapter: TypeAdapter[Any]
    handler: Handler
    reads: Reads | None


@cache
def _adapter(event: type[Event]) -> TypeAdapter[Any]:
    return TypeAdapter(event)


@dataclass(slots=True)
class _Item:
    """A record on its way through a transaction."""

    record: Record
    envelope: Envelope | None = None
    event: Event | None = None  # for its handler
    key: str = ""
    bad: str | None = None  # the reason for which it cannot even be handed to a handler
    counted: bool = False  # a handler wants it: it gets an inbox row

    def place(self, group: str) -> str:
        """The key of one that has no id."""
        return f"{group}|{self.record.topic}|{self.record.partition}|{self.record.offset}"


@dataclass(frozen=True, slots=True)
class Parked:
    """A record that lies on the dead-letter topic, as its inbox row tells."""

    key: str
    topic: str
    reason: str
    attempt: int
    at: datetime
    source: str | None
    subject: str | None
    sequence: int | None


@dataclass(slots=True)
class Fates:
    """How many records met which fate in one call of `receive`."""

    handled: int = 0
    duplicate: int = 0
    ignored: int = 0
    parked: int = 0
    fresh: list[tuple[str, str]] = field(default_factory=list)


def reason_of(error: BaseException) -> str:
    """A refusal's code, or an error's class. Never a message: messages repeat the input."""
    if isinstance(error, Failure):
        return error.code
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        pointer = "/" + "/".join(str(part) for part in first["loc"])
        return f"invalid:{pointer}:{first['type']}"
    return type(error).__name__


def _neighbour_is_away(error: BaseException) -> bool:
    """Whether the record has no part in it: it comes again.

    `Impaired` may be a record's own doing (a document on which the server fails each time); a server that fails at
    everything does not let it be parked either.
    """
    return isinstance(error, Unavailable) and not isinstance(error, Impaired)


def dead_letters(topic: str, group: str) -> str:
    """The topic on which a group parks what it could not handle of another topic."""
    return f"{topic}.{group}.dlq"


def description(letter: Record) -> dict[str, str]:
    """What a dead letter says of how it was parked: its `dl_*` headers."""
    return {name: (value or b"").decode("utf-8", "replace") for name, value in letter.headers if name.startswith("dl_")}


def original(letter: Record) -> Record:
    """The record as it lay on its own topic, from its dead letter."""
    described = description(letter)
    own = tuple((name, value) for name, value in letter.headers if not name.startswith("dl_"))
    place = (described["dl_topic"], int(described["dl_partition"]), int(described["dl_offset"]))
    return Record(*place, letter.key, letter.value, own, letter.timestamp)


class Consumer:
    """What one Kafka group of a service does with the events of others. The group is the consumer's name."""

    def __init__(self, group: str) -> None:
        self.group = group
        self._routes: dict[str, _Route] = {}
        self._on_record: dict[str, RecordHandler] = {}
        self._topics: set[str] = set()
        self.before_batch: BeforeBatch | None = None

    # what is registered

    def on(self, *events: type[Event], reads: Reads | None = None) -> Callable[[Handler], Handler]:
        """Handle these event types. `reads` names the states that the handler loads: a batch loads them at once."""

        def register(handler: Handler) -> Handler:
            for event in events:
                if event.type in self._routes:
                    raise RuntimeError(f"{self.group}: two handlers for {event.__name__}")
                self._routes[event.type] = _Route(TypeAdapter(event), handler, reads)
                self._topics.add(event.topic)
            return handler

        return register

    def on_record(self, *topics: str) -> Callable[[RecordHandler], RecordHandler]:
        """Handle every record of these topics as bytes, to send it on unchanged: what fits its contract, and every

        readable one of a type that is not known here.
        """

        def register(handler: RecordHandler) -> RecordHandler:
            for topic in topics:
                self._on_record[topic] = handler
                self._topics.add(topic)
            return handler

        return register

    @property
    def topics(self) -> list[str]:
        return sorted(self._topics)

    @property
    def handles(self) -> list[str]:
        """The event types that have a handler here."""
        return sorted(self._routes)

    # receiving

    async def receive(self, records: Sequence[Record], database: Database) -> Fates:
        """Handle records in their order, in as few transactions as correctness allows.

        Returns when every one of them has a fate; raises `Unavailable` when the database is away, and the caller
        brings the same records again.
        """
        fates = Fates()
        for first in range(0, len(records), BATCH_RECORDS):
            items = [self._opened(record) for record in records[first : first + BATCH_RECORDS]]
            await self._together(items, database, fates)
        return fates

    def _opened(self, record: Record) -> _Item:
        item = _Item(record)
        item.key = item.place(self.group)
        try:
            item.envelope = read_envelope(record)
        except Unreadable as error:
            item.bad, item.counted = reason_of_unreadable(error), True
            return item
        envelope = item.envelope
        item.key = f"{self.group}|{envelope.source}|{envelope.id}"
        route, forwarded = self._routes.get(envelope.type), record.topic in self._on_record
        if route is None and not forwarded:
            return item
        item.counted = True
        known = REGISTRY.get(envelope.type)
        if envelope.source != source_of(record.topic) or (known and known.topic != record.topic):
            # Who may write a topic is the broker's to decide, and this record passes for another topic's: nothing that
            # it says of itself is taken, least of all whose place in a row it has.
            item.key, item.envelope, item.bad = item.place(self.group), None, "unreadable:of-another-topic"
            return item
        if known is None:
            return item
        try:
            event = (route.adapter if route else _adapter(known)).validate_json(record.value or b"")
        except ValidationError as error:
            item.bad = reason_of(error)
            return item
        if event.subject != envelope.subject or event.key != envelope.partitionkey:
            item.bad = "subject-or-key-differs-from-data"
        elif forwarded and event.agency != envelope.agencyid:
            item.bad = "agency-differs-from-data"
        elif route is not None:
            item.event = event
        return item

    def forwards(self, record: Record) -> Envelope | None:
        """The envelope of a record that `on_record` would be given; nothing of one that is parked."""
        item = self._opened(record)
        return item.envelope if item.bad is None and record.topic in self._on_record else None

    async def _together(self, items: list[_Item], database: Database, fates: Fates) -> None:
        """One transaction for all of them; on a failure halves, until the culprit is alone."""
        if not items:
            return
        done: Fates | None = None
        taken = len(items)

        async def work(tx: Transaction) -> None:
            nonlocal done, taken
            done, taken = await self._apply(items, tx)

        try:
            patience = IN_PLACE_SECONDS if len(items) > 1 else ALONE_SECONDS
            await database.transaction(work, patience=patience)
        except Contended:
            if len(items) == 1:
                raise
        except Exception as error:
            if _neighbour_is_away(error):
                raise
            if len(items) == 1:
                await self._alone(items[0], error, database, fates)
                return
        else:
            assert done is not None
            self._count(done, fates)
            await self._together(items[taken:], database, fates)
            return
        middle = len(items) // 2
        await self._together(items[:middle], database, fates)
        await self._together(items[middle:], database, fates)

    async def _alone(self, item: _Item, error: Exception, database: Database, fates: Fates) -> None:
        """A record whose handling failed: a refusal parks it at once, anything else is tried again first."""
        attempt = 1
        while attempt < ATTEMPTS and (isinstance(error, Impaired) or not isinstance(error, Failure)):
            await asyncio.sleep(0.02 * 2**attempt)
            attempt += 1
            done = Fates()

            async def again(tx: Transaction) -> None:
                nonlocal done
                done, _ = await self._apply([item], tx)

            try:
                await database.transaction(again, patience=ALONE_SECONDS)
            except Exception as another:
                if _neighbour_is_away(another):
                    raise
                error = another
            else:
                self._count(done, fates)
                return
        item.bad = reason_of(error)
        done = Fates()

        async def park(tx: Transaction) -> None:
            nonlocal done
            done, _ = await self._apply([item], tx)

        await database.transaction(park, patience=ALONE_SECONDS)
        log_failure = log.info if isinstance(error, Failure) and error.status == 409 else log.error
        log_failure("event.parked", group=self.group, reason=item.bad, ce_type=item.envelope and item.envelope.type)
        self._count(done, fates)

    def _count(self, done: Fates, fates: Fates) -> None:
        for fate in ("handled", "duplicate", "ignored", "parked"):
            if number := getattr(done, fate):
                setattr(fates, fate, getattr(fates, fate) + number)
                EVENTS.labels(self.group, fate).inc(number)
        fates.fresh.extend(done.fresh)

    async def _apply(
        self, items: Sequence[_Item], tx: Transaction, *, redriven: Parked | None = None
    ) -> tuple[Fates, int]:
        """Handle the items in one transaction. Returns their fates and how many were taken within the time limit."""
        fates = Fates()
        counted = [item for item in items if item.counted]
        fates.ignored = len(items) - len(counted)
        if not counted:
            return fates, len(items)
        keys = [item.key for item in counted]
        seen: set[str] = set()
        if redriven is None:
            seen = {row["_id"] for row in await tx.read("inbox", {"_id": {"$in": keys}})}
        blocks: dict[str, int] = {}
        if wanted := {self._block(item.envelope) for item in counted if item.envelope}:
            blocks = {row["_id"]: row["open"] for row in await tx.read("blocks", {"_id": {"$in": sorted(wanted)}})}
        await self._read_ahead(counted, tx)
        began = time.monotonic()
        taken = 0
        for item in items:
            if taken and time.monotonic() - began > BATCH_SECONDS:
                fates.ignored -= sum(1 for late in items[taken:] if not late.counted)
                break
            taken += 1
            if not item.counted:
                continue
            if item.key in seen:
                fates.duplicate += 1
                continue
            seen.add(item.key)
            block = self._block(item.envelope) if item.envelope else None
            if item.bad is None and block is not None and redriven is None and blocks.get(block):
                self._park(item, "behind", tx, blocks, attempt=1)
                fates.parked += 1
            elif item.bad is not None:
                self._park(
                    item,
                    item.bad,
                    tx,
                    blocks,
                    attempt=redriven.attempt + 1 if redriven else 1,
                    again=redriven is not None,
                )
                fates.parked += 1
            else:
                await self._handle(item, tx)
                fates.handled += 1
                fates.fresh.append((item.envelope.type, item.envelope.id) if item.envelope else ("", item.key))
                if redriven is None:
                    tx.write("inbox", InsertOne({"_id": item.key, "fate": "handled", "at": clock.real_now()}))
        return fates, taken

    async def _read_ahead(self, items: Iterable[_Item], tx: Transaction) -> None:
        """Load what the handlers declared, one query per kind of state for the whole batch."""
        wanted: dict[type[State], list[str]] = {}
        for item in items:
            if item.bad is not None or item.event is None or (reads := self._routes[item.event.type].reads) is None:
                continue
            named = reads(item.event)
            for cls, id in [named] if isinstance(named, tuple) else named:
                wanted.setdefault(cls, []).append(id)
        for cls, ids in wanted.items():
            await tx.load_many(cls, ids)

    async def _handle(self, item: _Item, tx: Transaction) -> None:
        assert item.envelope is not None
        tx.cause = item.envelope
        attributes = {
            "messaging.system": "kafka",
            "messaging.consumer.group.name": self.group,
            "cloudevents.event_type": item.envelope.type,
            "correlation_id": item.envelope.correlationid or item.envelope.id,
        }
        # Not `bound_contextvars`: it reads every variable that there is, for each record.
        told = structlog.contextvars.bind_contextvars(
            correlation_id=item.envelope.correlationid, causation_id=item.envelope.id
        )
        try:
            with (
                tracing.begun(f"process {self.group}", SpanKind.CONSUMER, item.envelope.traceparent, attributes),
                identity.acting_as_system(),
            ):
                if item.event is not None:
                    await self._routes[item.envelope.type].handler(item.event, tx)
                if (forward := self._on_record.get(item.record.topic)) is not None:
                    await forward(item.record, item.envelope, tx)
        finally:
            structlog.contextvars.reset_contextvars(**told)
        tx.cause = None

    # parking

    def _block(self, envelope: Envelope) -> str:
        return f"{self.group}|{envelope.source}|{envelope.subject}"

    def _park(
        self, item: _Item, reason: str, tx: Transaction, blocks: dict[str, int], *, attempt: int, again: bool = False
    ) -> None:
        """Onto the dead-letter topic with its reason, by way of the outbox; its subject waits behind it from now on."""
        envelope = item.envelope
        origin = (item.record.topic, item.record.partition, item.record.offset)
        described = {
            "dl_group": self.group,
            "dl_topic": origin[0],
            "dl_partition": str(origin[1]),
            "dl_offset": str(origin[2]),
            "dl_reason": reason,
            "dl_attempt": str(attempt),
            "dl_key": item.key,
        }
        original = [(name, value) for name, value in item.record.headers if not name.startswith("dl_")]
        key = item.record.key
        if key is None and item.record.value is None:
            key = b""  # a record that holds nothing at all is one that no producer of aiokafka's can send
        record = Record(*origin, key, item.record.value, tuple(original), item.record.timestamp)
        tx.forward(record, dead_letters(origin[0], self.group), [(k, v.encode()) for k, v in described.items()])
        row: dict[str, Any] = {
            "fate": "parked",
            "at": clock.real_now(),
            "reason": reason,
            "attempt": attempt,
            "topic": origin[0],
        }
        if envelope is not None:
            block = self._block(envelope)
            row |= {
                "block": block,
                "source": envelope.source,
                "subject": envelope.subject,
                "sequence": envelope.sequence,
            }
            if not again:
                blocks[block] = blocks.get(block, 0) + 1
                tx.write("blocks", UpdateOne({"_id": block}, {"$inc": {"open": 1}}, upsert=True))
            else:  # still open: touch it, so that a live record of the same subject conflicts instead of slipping past
                tx.write("blocks", UpdateOne({"_id": block}, {"$inc": {"touched": 1}}))
        if again:
            tx.write("inbox", UpdateOne({"_id": item.key}, {"$set": row}))
        else:
            tx.write("inbox", InsertOne({"_id": item.key, **row}))

    async def parked(self, database: Database) -> list[Parked]:
        """What lies parked for this group, by subject and sequence."""
        rows = await database.collection("inbox").find({"fate": "parked"}).to_list(None)
        mine = [row for row in rows if row["_id"].startswith(f"{self.group}|")]
        return sorted(
            (
                Parked(
                    row["_id"],
                    row["topic"],
                    row["reason"],
                    row["attempt"],
                    row["at"],
                    row.get("source"),
                    row.get("subject"),
                    row.get("sequence"),
                )
                for row in mine
            ),
            key=lambda p: (p.source or "", p.subject or "", p.sequence or 0, p.key),
        )

    async def redrive(self, letters: Sequence[Record], database: Database) -> Fates:
        """Try parked records again, in sequence per subject. `letters` are the group's dead-letter topics, read whole.

        The inbox row tells which letter is current; an older attempt is skipped. A record that is refused again is
        parked again, and what is behind it stays behind.
        """
        fates = Fates()
        current = {parked.key: parked for parked in await self.parked(database)}
        open_items: list[tuple[Parked, _Item]] = []
        for letter in letters:
            described = description(letter)
            parked = current.get(described.get("dl_key", ""))
            if parked is None or described.get("dl_attempt") != str(parked.attempt):
                continue
            item = self._opened(original(letter))
            item.key = parked.key
            open_items.append((parked, item))
        open_items.sort(key=lambda pair: (pair[0].source or "", pair[0].subject or "", pair[0].sequence or 0))
        stuck: set[str] = set()
        for parked, item in open_items:
            block = self._block(item.envelope) if item.envelope else None
            if block is not None and block in stuck:
                continue
            if not await self._redrive_one(parked, item, database, fates) and block is not None:
                stuck.add(block)
        return fates

    async def _redrive_one(self, parked: Parked, item: _Item, database: Database, fates: Fates) -> bool:
        done = Fates()

        async def work(tx: Transaction) -> bool:
            nonlocal done
            rows = await tx.read("inbox", {"_id": parked.key})
            if not rows or rows[0]["fate"] != "parked" or rows[0]["attempt"] != parked.attempt:
                return True
            if item.envelope is not None:
                ahead = await tx.read("inbox", {"block": self._block(item.envelope), "fate": "parked"})
                if any(row["sequence"] < item.envelope.sequence for row in ahead):
                    return False
            if not item.counted:  # the handler is gone: nobody wants it any more
                self._released(parked.key, "ignored", tx)
                await self._unblock(item, tx)
                done = Fates(ignored=1)
                return True
            done, _ = await self._apply([item], tx, redriven=parked)
            if done.handled:
                self._released(parked.key, "handled", tx)
                await self._unblock(item, tx)
            return bool(done.handled)

        try:
            settled = await database.transaction(work)
        except Unavailable:
            raise
        except Exception as error:
            item.bad = reason_of(error)
            settled = await database.transaction(work)
        self._count(done, fates)
        return settled

    async def drop(self, key: str, reason: str, database: Database) -> bool:
        """An operator gives a parked record up, for a reason code. Returns whether it was parked."""

        async def work(tx: Transaction) -> bool:
            rows = await tx.read("inbox", {"_id": key, "fate": "parked"})
            if not rows or not key.startswith(f"{self.group}|"):
                return False
            tx.write(
                "inbox",
                UpdateOne({"_id": key}, {"$set": {"fate": "dropped", "dropped_for": reason}, "$unset": {"block": ""}}),
            )
            if block := rows[0].get("block"):
                await self._lower(block, tx)
            return True

        return await database.transaction(work)

    def _released(self, key: str, fate: str, tx: Transaction) -> None:
        tx.write("inbox", UpdateOne({"_id": key}, {"$set": {"fate": fate}, "$unset": {"block": ""}}))

    async def _unblock(self, item: _Item, tx: Transaction) -> None:
        if item.envelope is not None:
            await self._lower(self._block(item.envelope), tx)

    @staticmethod
    async def _lower(block: str, tx: Transaction) -> None:
        """One fewer parked for the subject; the transaction that brings it to none lifts the block."""
        rows = await tx.read("blocks", {"_id": block})
        if rows and rows[0]["open"] > 1:
            tx.write("blocks", UpdateOne({"_id": block}, {"$inc": {"open": -1}}))
        elif rows:
            tx.write("blocks", DeleteOne({"_id": block}))


def reason_of_unreadable(error: Unreadable) -> str:
    return f"unreadable:{error.reason}"


@dataclass(frozen=True, slots=True)
class Position:
    """How far a partition has been handled before the batch at hand: offsets below `offset` are done."""

    topic: str
    partition: int
    offset: int


ReadBack = Callable[[Position], Awaitable[list[Record]]]
"""Reads a partition again, from its first record to just before the position."""

BeforeBatch = Callable[[Sequence[Position], ReadBack, Database], Awaitable[None]]
"""Called by the worker with the partitions of a batch before it is handed to `receive`."""
