"""The unit of work: states and the events that announce them are written in one transaction, or not at all.

The one place that imports the driver. It runs on motor and on PyMongo's asyncio client (`MONGO_DRIVER`).
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, TypeVar, cast

import pymongo
import structlog
from pymongo import DeleteOne, InsertOne, ReplaceOne, UpdateOne
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from shared import clock, identity, tracing
from shared.cloudevents import Envelope, Record, event_id, headers_for
from shared.contracts import Event
from shared.domain import State, Timer
from shared.errors import Contended, Impaired, NotFound, Stale, Unavailable
from shared.ids import derive

S = TypeVar("S", bound=State)
T = TypeVar("T")
Driver = Literal["motor", "pymongo"]
Document = dict[str, Any]
Sort = Sequence[tuple[str, int]]

EVENT_BYTES = 64 * 1024
SELECTION_SECONDS = 3.0
ATTEMPT_SECONDS = 5.0  # a database that dies under a transaction holds its caller no longer than this and a selection
ABORT_SECONDS = 2.0
PAUSE_SECONDS = 0.25  # at most, after a conflict: longer ones starve whoever has lost a few times
OUTBOX_DOCUMENT_BYTES = 8 * 1024 * 1024
_BY_ID: Sort = (("_id", 1),)
_SNAPSHOT = ReadConcern("snapshot")
_MAJORITY = WriteConcern("majority")


# --- documents ---------------------------------------------------------------------------------------------------


_AS_IS = frozenset((str, int, float, bool, bytes, datetime, type(None)))


def _plain(value: Any) -> Any:
    """What BSON can keep: dates, decimals and enums become strings; instants stay instants."""
    if type(value) in _AS_IS:
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(item) for item in value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    return value


def document(state: State) -> Document:
    """The state as it is kept."""
    plain = cast(Document, _plain(state.model_dump()))
    plain["_id"] = plain.pop("id")
    return plain


def state_of(cls: type[S], kept: Document) -> S:
    return cls.model_validate({**kept, "id": kept["_id"]})


# --- failures of the driver --------------------------------------------------------------------------------------


def _duplicate_id(error: PyMongoError) -> bool:
    """Somebody created the same id since our snapshot: a conflict, and the next run sees it.

    Inside `bulk_write` it is a `BulkWriteError` of code 65 with the 11000 in its details.
    """
    if isinstance(error, BulkWriteError):
        writes = (error.details or {}).get("writeErrors", [])
        return any(w.get("code") == 11000 and "_id" in (w.get("keyPattern") or {"_id": 1}) for w in writes)
    return isinstance(error, DuplicateKeyError) and "_id" in ((error.details or {}).get("keyPattern") or {"_id": 1})


def conflict(error: BaseException) -> bool:
    """Whether the same transaction, run again, may well succeed."""
    return isinstance(error, PyMongoError) and (
        error.has_error_label("TransientTransactionError") or _duplicate_id(error)
    )


AWAY = (Unavailable, PyMongoError)
"""What a loop that asks again anyway waits out, whatever ails the database."""


def away(error: BaseException) -> bool:
    """Whether the database cannot be reached at all."""
    return isinstance(error, (ServerSelectionTimeoutError, ConnectionFailure))


_IMPAIRED = {1, 8, 13, 18, 14031}
"""InternalError, UnknownError (its storage failed), Unauthorized, AuthenticationFailed, OutOfDiskSpace."""


def impaired(error: BaseException) -> bool:
    """Whether the server itself is at fault, whatever it was asked."""
    return isinstance(error, OperationFailure) and error.code in _IMPAIRED


# --- the unit of work --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Held:
    """One state inside a transaction: as it was read, and as it stands now."""

    stored_version: int | None  # None: not in the database
    current: State | None
    dirty: bool = False
    relied: bool = False
    flushed: bool = False
    gone: bool = False


@dataclass(slots=True)
class _Row:
    topic: str
    key: bytes | None
    headers: list[list[Any]]
    value: bytes | None

    def size(self) -> int:
        """About as many bytes as it takes inside its document, where every header is an array of its own."""
        return len(self.value or b"") + sum(len(k) + len(v or b"") + 32 for k, v in self.headers) + 128


@dataclass(slots=True)
class _Positions:
    """Outbox positions of this process: microseconds of real time, never twice, never backwards."""

    process: int = field(default_factory=lambda: random.getrandbits(32))
    last: int = 0

    def next(self, after: int) -> int:
        self.last = max(time.time_ns() // 1000, self.last + 1, after + 1)
        return self.last


_positions = _Positions()


class Transaction:
    """What one command or one batch of events reads and writes. Nothing reaches the database until it ends,

    except before a `find`, which must see it. A closure that gets one may run several times: it touches nothing else.
    """

    def __init__(self, database: Database, session: Any) -> None:
        self._database = database
        self._session = session
        self._held: dict[tuple[str, str], _Held] = {}
        self._classes: dict[str, type[State]] = {}
        self._rows: list[_Row] = []
        self._writes: dict[str, list[Any]] = {}
        self._read_pos = 0
        self.cause: Envelope | None = None
        self.correlationid: str | None = None
        self.causationid: str | None = None

    # reading

    async def load(self, cls: type[S], id: str) -> S | None:
        """The state as this transaction sees it, or None. What is about to be created is loaded first, too."""
        if (held := self._held.get((cls.collection, id))) is not None:
            return cast(S | None, held.current)
        return (await self.load_many(cls, [id])).get(id)

    async def require(self, cls: type[S], id: str) -> S:
        """The state, or `NotFound`."""
        if (state := await self.load(cls, id)) is None:
            raise NotFound
        return state

    async def load_many(self, cls: type[S], ids: Iterable[str]) -> dict[str, S]:
        """The states of these ids that exist, by id, in one query."""
        wanted = list(dict.fromkeys(ids))
        missing = [id for id in wanted if (cls.collection, id) not in self._held]
        if missing:
            collection = self._database.collection(cls.collection)
            if len(missing) == 1:
                one = await collection.find_one({"_id": missing[0]}, session=self._session)
                kept = [one] if one is not None else []
            else:
                kept = await collection.find({"_id": {"$in": missing}}, session=self._session).to_list(None)
            found = {doc["_id"]: self._hold(cls, doc) for doc in kept}
            for id in missing:
                if id not in found:
                    self._held[cls.collection, id] = _Held(stored_version=None, current=None)
        result: dict[str, S] = {}
        for id in wanted:
            if (state := self._held[cls.collection, id].current) is not None:
                result[id] = cast(S, state)
        return result

    async def find(
        self, cls: type[S], filter: Mapping[str, Any], *, owner: State | None, sort: Sort = _BY_ID, limit: int = 0
    ) -> list[S]:
        """The states that match, those written earlier in this transaction included.

        `owner` is the state that owns the set: a decision that rests on a set or an absence rests on its owner, and
        whoever inserts into the set saves or relies on the owner too. `None` only where nothing is decided by it.
        """
        await self._flush()
        if owner is not None:
            self.rely_on(owner)
        cursor = self._database.collection(cls.collection).find(filter, session=self._session)
        cursor = cursor.sort(list(sort))
        if limit:
            cursor = cursor.limit(limit)
        states = [self._hold(cls, doc) for doc in await cursor.to_list(None)]
        return [state for state in states if state is not None]

    def _hold(self, cls: type[S], kept: Document) -> S:
        slot = (cls.collection, kept["_id"])
        if (held := self._held.get(slot)) is None or (held.current is None and not held.gone):
            state = state_of(cls, kept)
            self._read_pos = max(self._read_pos, state.pos)
            self._held[slot] = held = _Held(stored_version=state.version, current=state)
        return cast(S, held.current)

    # writing

    def save(self, state: S, *events: Event) -> S:
        """Write the state, and announce the events with it. Returns the state at its next version.

        A new state may take the place of one that this transaction deleted. Raises `Stale` when a newer object of it
        was saved in this transaction already, or it was deleted.
        """
        cls = type(state)
        held = self._held.get((cls.collection, state.id))
        if held is None:
            raise RuntimeError(f"{cls.__name__}: saved without having been loaded in this transaction")
        known = held.current
        if state.version != (known.version if known else 0):
            raise Stale
        edited = known is None or any(getattr(known, name) != getattr(state, name) for name in cls.editable)
        sequences, key, agency = dict(state.sequences), state.event_key, state.event_agency
        for event in events:
            if event.subject != state.id:
                raise RuntimeError(f"{type(event).__name__}: its subject is not the {cls.__name__} it is saved with")
            if key not in (None, event.key) or agency not in (None, event.agency):
                raise RuntimeError(f"{type(event).__name__}: one subject keeps one key and one agency for life")
            key, agency = event.key, event.agency
            source = event.source()
            sequences[source] = sequences.get(source, 0) + 1
            self._announce(event, sequences[source])
        saved = state.model_copy(
            update={
                "version": state.version + 1,
                "revision": state.revision + 1 if edited else state.revision,
                "sequences": sequences,
                "event_key": key,
                "event_agency": agency,
            }
        )
        held.current, held.dirty, held.gone = saved, True, False
        return saved

    def delete(self, state: State) -> None:
        """Remove a state that announces nothing (a reservation, a timer)."""
        held = self._held.get((state.collection, state.id))
        if held is None or held.current is None or held.current.version != state.version:
            raise Stale
        held.current, held.dirty, held.gone = None, True, True

    def rely_on(self, state: State) -> None:
        """The decision rests on this state's content: make whoever changes it meanwhile conflict with us."""
        held = self._held.get((state.collection, state.id))
        if held is None or held.current is None:
            raise RuntimeError(f"{type(state).__name__}: relied on without having been loaded in this transaction")
        held.relied = True

    async def set_timer(self, kind: str, key: str, due_at: datetime, **ids: str) -> None:
        """Have `kind` happen at an instant of domain time; the same kind and key again moves it."""
        id = derive(self._database.service, "timer", kind, key)
        known = await self.load(Timer, id)
        fields = {"due_at": due_at, "ids": ids, "failures": 0, "failed": False}
        if known is not None and {name: getattr(known, name) for name in fields} == fields:
            return
        correlationid, causationid = self._origin()
        origin = {"correlationid": correlationid, "causationid": causationid}
        self.save(known.but(**fields, **origin) if known else Timer(id=id, kind=kind, key=key, **fields, **origin))

    async def cancel_timer(self, kind: str, key: str) -> None:
        """It shall not happen. Nothing to cancel is fine."""
        if known := await self.load(Timer, derive(self._database.service, "timer", kind, key)):
            self.delete(known)

    def forward(self, record: Record, topic: str, extra_headers: Sequence[tuple[str, bytes]] = ()) -> None:
        """Send a record on to another topic as it is: key, value and headers byte for byte."""
        headers = [[name, value] for name, value in (*record.headers, *extra_headers)]
        self._rows.append(_Row(topic, record.key, headers, record.value))

    def _origin(self) -> tuple[str | None, str | None]:
        if self.cause is not None:
            return self.cause.correlationid or self.cause.id, self.cause.id
        if self.correlationid is not None:
            return self.correlationid, self.causationid
        return structlog.contextvars.get_contextvars().get("correlation_id"), None

    def _announce(self, event: Event, sequence: int) -> None:
        value = event.model_dump_json().encode()
        if len(value) > EVENT_BYTES:
            raise ValueError(f"{type(event).__name__}: larger than {EVENT_BYTES} bytes")
        correlationid, causationid = self._origin()
        authtype, authid = identity.acting()
        headers = headers_for(
            event,
            sequence=sequence,
            time=clock.now(),
            recordedtime=clock.real_now(),
            correlationid=correlationid or event_id(event.source(), event.type, event.subject, sequence),
            causationid=causationid,
            authtype=authtype,
            authid=authid,
            traceparent=tracing.traceparent(),
            agencyid=event.agency,
        )
        self._rows.append(_Row(event.topic, event.key.encode(), [[k, v] for k, v in headers], value))

    # the kernel's own bookkeeping (inbox rows, blocks)

    async def read(self, collection: str, filter: Mapping[str, Any]) -> list[Document]:
        found = await self._database.collection(collection).find(filter, session=self._session).to_list(None)
        return cast(list[Document], found)

    def write(self, collection: str, operation: Any) -> None:
        self._writes.setdefault(collection, []).append(operation)

    # ending

    async def _flush(self, pos: int = 0) -> None:
        """Write what is collected; with a position, for good."""
        operations: dict[str, list[Any]] = {}
        expected: dict[str, int] = {}
        for (collection, id), held in self._held.items():
            guarded = {"_id": id, "version": held.stored_version}
            if held.dirty and held.gone:
                if held.stored_version is None:
                    held.dirty = False
                    continue
                operation: Any = DeleteOne(guarded)
                held.stored_version = None
            elif held.dirty and held.current is not None:
                kept = document(held.current)
                kept["pos"] = pos
                operation = InsertOne(kept) if held.stored_version is None else ReplaceOne(guarded, kept)
                expected[collection] = expected.get(collection, 0) - (held.stored_version is None)
                held.stored_version, held.relied, held.flushed = held.current.version, False, not pos
            elif pos and held.flushed:
                operation = UpdateOne({"_id": id}, {"$set": {"pos": pos}})
                held.flushed = held.relied = False
            elif held.relied and pos:
                operation = UpdateOne(guarded, {"$inc": {"guard": 1}})
            else:
                continue
            held.dirty = False
            operations.setdefault(collection, []).append(operation)
            expected[collection] = expected.get(collection, 0) + 1
        for collection, wanted in operations.items():
            result = await self._database.collection(collection).bulk_write(wanted, session=self._session)
            if result.matched_count + result.deleted_count != expected[collection]:
                raise Stale

    async def _finish(self) -> None:
        pos = _positions.next(self._read_pos)
        await self._flush(pos)
        for collection, operations in self._writes.items():
            await self._database.collection(collection).bulk_write(operations, session=self._session)
        if documents := list(self._outbox_documents(pos)):
            await self._database.collection("outbox").insert_many(documents, session=self._session)

    def _outbox_documents(self, pos: int) -> Iterable[Document]:
        """One document per topic, split at 8 MB, rows in order."""
        by_topic: dict[str, list[_Row]] = {}
        for row in self._rows:
            by_topic.setdefault(row.topic, []).append(row)
        number = 0
        for topic, rows in by_topic.items():
            part: list[Document] = []
            size = 0
            for row in rows:
                if part and size + row.size() > OUTBOX_DOCUMENT_BYTES:
                    yield self._outbox_document(pos, number, topic, part)
                    number, part, size = number + 1, [], 0
                part.append({"key": row.key, "value": row.value, "headers": row.headers})
                size += row.size()
            yield self._outbox_document(pos, number, topic, part)
            number += 1

    @staticmethod
    def _outbox_document(pos: int, number: int, topic: str, rows: list[Document]) -> Document:
        return {"_id": f"{pos:020d}-{_positions.process:08x}-{number:04d}", "topic": topic, "rows": rows}

    @property
    def touched_timers(self) -> bool:
        return any(collection == Timer.collection for collection, _ in self._held)


class Database:
    """One service's own database. Opened once per process; nothing connects until first used."""

    def __init__(self, uri: str, name: str, *, service: str, driver: Driver = "motor", pool: int = 50) -> None:
        options: dict[str, Any] = {
            "maxPoolSize": pool,
            "appname": service,
            "tz_aware": True,
            "serverSelectionTimeoutMS": 3_000,
            "connectTimeoutMS": 3_000,
            "w": "majority",
            "readConcernLevel": "majority",
        }
        self.service = service
        self.driver = driver
        self.timers_changed = asyncio.Event()
        self._motor = driver == "motor"
        # Either pool is entered in any order by PyMongo; the gate is fair.
        self._gate = asyncio.Semaphore(pool)
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        if self._motor:
            os.environ.setdefault("MOTOR_MAX_WORKERS", "32")  # five per core would let two change streams starve us
            from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorClientSession

            self._client: Any = AsyncIOMotorClient(uri, **options)
            self._motor_session = AsyncIOMotorClientSession
        else:
            self._client = pymongo.AsyncMongoClient(uri, **options)
        self._database: Any = self._client[name]
        self._collections: dict[str, Any] = {}  # the driver makes one anew at each asking

    # transactions

    async def transaction(
        self,
        work: Callable[[Transaction], Awaitable[T]],
        *,
        key: str | None = None,
        patience: float = 15.0,
    ) -> T:
        """Run `work` and commit what it collected. It may run several times.

        `key` names what many want at once (a cohort with few seats): within this process they then take turns, which
        is faster than colliding; the guarantee is the transaction's. Raises `Contended` or `Unavailable` after
        `patience` seconds, `Impaired` at once, and whatever `work` raises.
        """
        with tracing.step("transaction"):
            return await self._in_turn(work, key, patience)

    async def _in_turn(self, work: Callable[[Transaction], Awaitable[T]], key: str | None, patience: float) -> T:
        if key is None:
            return await self._persist(work, patience)
        lock, waiting = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, waiting + 1)
        try:
            async with lock:
                return await self._persist(work, patience)
        finally:
            lock, waiting = self._locks.pop(key)
            if waiting > 1:
                self._locks[key] = (lock, waiting - 1)

    async def _persist(self, work: Callable[[Transaction], Awaitable[T]], patience: float) -> T:
        deadline = time.monotonic() + patience
        attempt = 0
        while True:
            try:
                await self._reach()
                async with self._gate:
                    return await self._attempt(work, deadline)
            except PyMongoError as error:
                if isinstance(error, ServerSelectionTimeoutError):
                    raise Unavailable from error
                if impaired(error):
                    raise Impaired from error
                retryable = conflict(error) or away(error)
                if not retryable and not error.timeout:
                    raise
                if error.timeout and not await self.ping():
                    raise Unavailable from error
                attempt += 1
                tracing.note(conflicts=attempt)
                pause = random.uniform(0.005, min(PAUSE_SECONDS, 0.005 * 2**attempt))
                if time.monotonic() + pause >= deadline or not retryable:
                    # A batch that is too much for its time is no neighbour that is away: it is to come in parts.
                    if away(error) and not error.timeout:
                        raise Unavailable from error
                    raise Contended from error
                await asyncio.sleep(pause)

    async def _reach(self) -> None:
        """Raises `Unavailable` after three seconds when no server can be written to; costs nothing when one is known.

        Inside `pymongo.timeout` the driver would look for a server for as long as the whole transaction may take.
        """
        known = (self._client.delegate if self._motor else self._client).topology_description
        if not known.has_writable_server() and not await self.ping(SELECTION_SECONDS):
            raise Unavailable

    async def _attempt(self, work: Callable[[Transaction], Awaitable[T]], deadline: float) -> T:
        async with self._session() as session:
            try:
                with pymongo.timeout(max(0.05, min(ATTEMPT_SECONDS, deadline - time.monotonic()))):
                    started = session.start_transaction(read_concern=_SNAPSHOT, write_concern=_MAJORITY)
                    if not self._motor:
                        await started
                    tx = Transaction(self, session)
                    result = await work(tx)
                    await tx._finish()
                    await self._commit(session, deadline)
            except BaseException:
                # In a time of its own: a transaction that ran out of time and is not told so keeps what it has
                # written from everybody, the next attempt first, for as long as the server lets it live.
                with suppress(PyMongoError), pymongo.timeout(ABORT_SECONDS):
                    if session.in_transaction:
                        await session.abort_transaction()
                raise
            if tx.touched_timers:
                self.timers_changed.set()
            return result

    @staticmethod
    async def _commit(session: Any, deadline: float) -> None:
        while True:
            try:
                await session.commit_transaction()
                return
            except PyMongoError as error:
                unknown = error.has_error_label("UnknownTransactionCommitResult")
                if not unknown or error.timeout or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Any]:
        if not self._motor:
            async with self._client.start_session() as session:
                yield session
            return
        # motor would give the making and the ending of a session to a thread each, though neither waits for anything.
        session = self._motor_session(self._client.delegate.start_session(), self._client)
        try:
            yield session
        finally:
            if session.delegate.in_transaction:
                await session.end_session()
            else:
                session.delegate.end_session()

    # reading without deciding

    def collection(self, name: str) -> Any:
        """The driver's collection, for the kernel and for indexes."""
        if (known := self._collections.get(name)) is None:
            known = self._collections[name] = self._database[name]
        return known

    async def get(self, cls: type[S], id: str) -> S | None:
        return (await self.get_many(cls, [id])).get(id)

    async def get_many(self, cls: type[S], ids: Iterable[str]) -> dict[str, S]:
        return {state.id: state for state in await self.query(cls, {"_id": {"$in": list(dict.fromkeys(ids))}})}

    async def query(
        self, cls: type[S], filter: Mapping[str, Any], *, sort: Sort = _BY_ID, limit: int | None = None
    ) -> list[S]:
        """States that match, outside any transaction: for showing, not for deciding. Raises `Unavailable`."""
        try:
            await self._reach()
            async with self._gate:
                with pymongo.timeout(10):
                    cursor = self.collection(cls.collection).find(filter).sort(list(sort))
                    if limit:
                        cursor = cursor.limit(limit)
                    return [state_of(cls, doc) for doc in await cursor.to_list(None)]
        except PyMongoError as error:
            if away(error) or error.timeout:
                raise Unavailable from error
            if impaired(error):
                raise Impaired from error
            raise

    async def page(
        self, cls: type[S], filter: Mapping[str, Any], *, limit: int, after: str | None
    ) -> tuple[list[S], str | None]:
        """One page in the order of ids, and the id after which the next one begins (None: that was the last)."""
        bounded = {"$and": [filter, {"_id": {"$gt": after}}]} if after else filter
        states = await self.query(cls, bounded, limit=limit + 1)
        return states[:limit], states[limit - 1].id if len(states) > limit else None

    @asynccontextmanager
    async def watch(self, name: str) -> AsyncIterator[Any]:
        """A change stream of a collection's inserts."""
        stream = self.collection(name).watch([{"$match": {"operationType": "insert"}}], max_await_time_ms=1000)
        if not self._motor:
            stream = await stream
        async with stream:
            yield stream

    @asynccontextmanager
    async def outbox_snapshot(self, limit: int, without: Iterable[str] = ()) -> AsyncIterator[Any]:
        """A cursor over what lies in the outbox now, in order, consistent while it is consumed; without some topics."""
        async with self._session() as session:
            outbox = self.collection("outbox").with_options(read_concern=_SNAPSHOT)
            filter = {"topic": {"$nin": topics}} if (topics := sorted(without)) else {}
            cursor = outbox.find(filter, session=session, batch_size=200).sort("_id", 1).limit(limit)
            try:
                yield cursor
            finally:
                await cursor.close()

    async def ensure(self, indexes: Mapping[str, Sequence[pymongo.IndexModel]]) -> None:
        """Create the indexes that are missing."""
        for name, models in indexes.items():
            if models:
                await self.collection(name).create_indexes(list(models))

    async def ping(self, seconds: float = 1.0) -> bool:
        """Whether a server answers within the given time."""
        try:
            with pymongo.timeout(seconds):
                await self._database.command("ping")
            return True
        except PyMongoError:
            return False

    async def clock_skew(self) -> float:
        """By how many seconds this machine's clock is ahead of the server's; leases run by the server's.

        Within half a round trip and the millisecond that the server tells. Raises `PyMongoError`.
        """
        with pymongo.timeout(3):
            before = time.time()
            told = (await self._database.command("hello"))["localTime"].timestamp()
            return float((before + time.time()) / 2 - told)

    async def drop(self) -> None:
        """Delete everything: for tests and for emptying a played stack."""
        await self._client.drop_database(self._database.name)

    async def close(self) -> None:
        if self._motor:
            await asyncio.to_thread(self._client.close)  # it takes leave of the server, and would wait for it here
        else:
            await self._client.close()
