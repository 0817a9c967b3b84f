"""An installation saved while it runs, and put back into an empty one. docs/decisions/0014-backup.md tells why so.

The databases are read at one instant. The topics are read afterwards and cut to that instant: of each record it is
known by source, subject and sequence whether the states that were saved had announced it. So what is put back is one
moment of the whole: no record that its state does not know of, none missing, none published or handled a second time.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast

import bson
from aiokafka.admin import AIOKafkaAdminClient
from bson.raw_bson import RawBSONDocument
from confluent_kafka import Message, Producer
from pymongo import MongoClient
from pymongo.client_session import ClientSession
from pymongo.read_concern import ReadConcern

from shared.cloudevents import Record, Unreadable, read
from shared.inbox import Position, description
from shared.ops import Site
from shared.service import VERSION
from shared.worker import described_topics, end_offsets, read_partition

FORMAT = 1
MANIFEST = "manifest.json"
RESTORES = "restores"
"""A collection that is there only while and after something was put back; where it is unfinished, nothing may start."""
TRANSIENT = frozenset({"leases", RESTORES, "holds"})
"""Whose turn it is, not what is known."""
BATCH = 500
DLQ = ".dlq"


class Refused(Exception):
    """It cannot be saved or put back; the message says why, and nothing was changed unless it says so."""


Counters = dict[tuple[str, str], int]
"""Source and subject → how many events the saved state has announced."""


@dataclass
class Moment:
    """What the saved databases say of the topics."""

    announced: Counters = field(default_factory=dict)
    forwarded: dict[str, int] = field(default_factory=dict)
    """Id in the ledger of what was forwarded → the last sequence."""
    parked: dict[str, int] = field(default_factory=dict)
    """Key of a parked record → at which attempt."""

    def take(self, collection: str, document: Mapping[str, Any], ledger: str | None) -> None:
        """Note what one saved document says."""
        if sequences := document.get("sequences"):
            for source, number in sequences.items():
                self.announced[source, document["_id"]] = number
        if collection == ledger:
            self.forwarded[document["_id"]] = document["last"]
        if collection == "inbox" and document["fate"] == "parked":
            self.parked[document["_id"]] = document["attempt"]


def belongs(record: Record, moment: Moment, ledger: Mapping[str, Any]) -> bool:
    """Whether a record had been published, forwarded or parked by the saved moment.

    `ledger` gives, by the beginning of a topic's name, how its ledger names a record: code, source, subject → id.
    One whose attributes cannot be read announces nothing; what a group has made of it is in that group's inbox.
    """
    if record.topic.endswith(DLQ):
        told = description(record)
        return int(told.get("dl_attempt", 0)) <= moment.parked.get(told.get("dl_key", ""), -1)
    try:
        event = read(record)
    except Unreadable:
        return False
    for prefix, named in ledger.items():
        if record.topic.startswith(prefix):
            id = named(record.topic.removeprefix(prefix), event.source, event.subject)
            return event.sequence <= moment.forwarded.get(id, 0)
    return event.sequence <= moment.announced.get((event.source, event.subject), 0)


def identity(topic: str, headers: Iterable[Sequence[Any]]) -> tuple[str, str, str]:
    """What is the same of a record on its topic and of the row from which it was published."""
    told = {name: bytes(value).decode("utf-8", "replace") for name, value in headers if value is not None}
    if topic.endswith(DLQ):
        return topic, told.get("dl_key", ""), told.get("dl_attempt", "")
    return topic, told.get("ce_source", ""), told.get("ce_id", "")


# --- saving ------------------------------------------------------------------------------------------------------


async def save(sites: Sequence[Site], database_admin: str, folder: Path) -> dict[str, Any]:
    """Save all that the services keep and have published. Returns the manifest. Raises `Refused`."""
    manifest, moment = await asyncio.to_thread(_save_databases, sites, database_admin, folder)
    _, prefixes = _ledgers(sites)
    kafka = _administrator(sites).kafka()
    for topic in await _topics(sites, prefixes):
        with _Written(folder / "topics" / f"{topic}.bson.gz") as file:
            async for record in _lying(kafka, topic):
                if belongs(record, moment, prefixes):
                    file.write(bson.encode(_document(record)))
        manifest["topics"][topic] = file.told
    await asyncio.to_thread(_finish, folder, manifest)
    return manifest


def _save_databases(sites: Sequence[Site], database_admin: str, folder: Path) -> tuple[dict[str, Any], Moment]:
    """Save all databases as of one instant. Returns the manifest so far, and what they say of the topics."""
    if folder.exists() and any(folder.iterdir()):
        raise Refused(f"{folder} is not empty")
    ledgers, _ = _ledgers(sites)
    manifest: dict[str, Any] = {"format": FORMAT, "version": VERSION, "databases": {}, "topics": {}}
    moment = Moment()
    with _moment(database_admin) as (client, session):
        manifest["taken_at"] = datetime.now(UTC).isoformat(timespec="seconds")
        for site in sites:
            kept = client[_database(site)]
            found: dict[str, Any] = {}
            for name in sorted(kept.list_collection_names()):
                if name in TRANSIENT or name.startswith("system."):
                    continue
                with _Written(folder / site.name / f"{name}.bson.gz") as file:
                    for document in kept[name].find({}, session=session, batch_size=BATCH):
                        moment.take(name, document, ledgers.get(site.name))
                        file.write(bytes(document.raw))
                found[name] = file.told
            manifest["databases"][site.name] = found
    return manifest, moment


def _finish(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Only what was saved to its end has a manifest."""
    draft = folder / f"{MANIFEST}.draft"
    draft.write_text(json.dumps(manifest, indent=1))
    draft.replace(folder / MANIFEST)


@contextmanager
def _moment(uri: str) -> Iterator[tuple[MongoClient[RawBSONDocument], ClientSession]]:
    """A session in which every read sees the same instant of all databases.

    MongoDB offers just that for five minutes (`minSnapshotHistoryWindowInSeconds`). The embedded server takes such a
    session and then reads each time anew; there it is one transaction, for as long as one may last.
    """
    client: MongoClient[RawBSONDocument] = MongoClient(uri, document_class=RawBSONDocument)
    with client:
        if "secantusVersion" not in client.admin.command("buildInfo"):
            with client.start_session(snapshot=True) as session:
                yield client, session
            return
        with client.start_session() as session, session.start_transaction(read_concern=ReadConcern("snapshot")):
            yield client, session


class _Written:
    """A compressed file of BSON documents, as `mongodump --gzip` writes them, with its number and checksum."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = gzip.open(path, "wb", compresslevel=3)  # noqa: SIM115 - closed by __exit__
        self._number = 0

    def __enter__(self) -> _Written:
        return self

    def write(self, document: bytes) -> None:
        self._file.write(document)
        self._number += 1

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def told(self) -> dict[str, Any]:
        return {"documents": self._number, "sha256": _checksum(self._path), "bytes": self._path.stat().st_size}


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _document(record: Record) -> dict[str, Any]:
    return {
        "partition": record.partition,
        "key": record.key,
        "value": record.value,
        "headers": [[name, value] for name, value in record.headers],
        "timestamp": record.timestamp,
    }


async def _topics(sites: Sequence[Site], prefixes: Iterable[str]) -> list[str]:
    """The services' topics, dead letters' among them, and those to which they forward."""
    admin = AIOKafkaAdminClient(**_administrator(sites).kafka().aiokafka())
    try:
        await admin.start()
        there = set(await admin.list_topics())
    finally:
        await admin.close()
    own = {topic.name for site in sites for topic in site.topics}
    return sorted((own & there) | {name for name in there if name.startswith(tuple(prefixes))})


async def _lying(kafka: Any, topic: str) -> AsyncIterator[Record]:
    """What lies on a topic now, partition by partition, in order."""
    for partition, end in sorted((await end_offsets(kafka, topic)).items()):
        for record in await read_partition(kafka, Position(topic, partition, end)):
            yield record


# --- putting back ------------------------------------------------------------------------------------------------


@dataclass
class Restored:
    """What was put back, and what was not because it had been published already."""

    documents: int = 0
    records: int = 0
    rows_left: int = 0
    rows_published: int = 0
    mail_held: bool = False


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of what was saved, every file of it checked. Raises `Refused`."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        raise Refused(f"{folder}: no manifest; it was not saved to its end") from None
    if manifest.get("format") != FORMAT:
        raise Refused(f"{folder}: of format {manifest.get('format')}, and this version reads {FORMAT}")
    for path, told in _files(folder, manifest):
        if not path.exists() or _checksum(path) != told["sha256"]:
            raise Refused(f"{path}: damaged or missing; nothing was put back")
    return manifest


def _files(folder: Path, manifest: Mapping[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for service, collections in manifest["databases"].items():
        yield from ((folder / service / f"{name}.bson.gz", told) for name, told in collections.items())
    yield from ((folder / "topics" / f"{topic}.bson.gz", told) for topic, told in manifest["topics"].items())


async def obstacles(sites: Sequence[Site], manifest: Mapping[str, Any]) -> list[str]:
    """Why nothing may be put back here, in words; empty for an installation that was prepared and never used."""
    found = []
    if missing := sorted(set(manifest["databases"]) ^ {site.name for site in sites}):
        found.append(f"saved and present services differ: {', '.join(missing)}")
    for site in sites:
        database = site.database()
        try:
            kept = database.collection("x").database
            for name in await kept.list_collection_names():
                if name == RESTORES:
                    found.append(f"{site.name}: something was put back here before, wholly or in part")
                elif name not in TRANSIENT and await kept[name].find_one({}) is not None:
                    found.append(f"{site.name}: {name} is not empty")
        finally:
            await database.close()
    kafka = _administrator(sites).kafka()
    described = {one["topic"]: one["error_code"] for one in await described_topics(kafka, sorted(manifest["topics"]))}
    for topic, wrong in sorted(described.items()):
        if wrong:
            found.append(f"{topic} is not there: run prepare; for an agency's, prepare --agency CODE")
        elif sum((await end_offsets(kafka, topic)).values()):
            found.append(f"{topic} is not empty")
    return found


def put_back(
    sites: Sequence[Site], database_admin: str, folder: Path, manifest: Mapping[str, Any], *, hold_mail: bool
) -> Restored:
    """Put everything back. What it finds in the way is for `obstacles` to say before."""
    done = Restored(mail_held=hold_mail)
    mark = {"_id": "restore", "taken_at": manifest["taken_at"], "finished": False}
    with MongoClient[dict[str, Any]](database_admin) as client:
        databases = {site.name: client[_database(site)] for site in sites}
        for database in databases.values():
            database[RESTORES].insert_one(dict(mark))
        outboxes: dict[str, list[dict[str, Any]]] = {}
        for service, collections in manifest["databases"].items():
            for name in collections:
                saved = _read(folder / service / f"{name}.bson.gz")
                if name == "outbox":
                    outboxes[service] = [bson.decode(document.raw) for document in saved]
                    continue
                for batch in _batches(saved):
                    databases[service][name].insert_many(batch)
                    done.documents += len(batch)
        unsent = {
            identity(document["topic"], row["headers"])
            for documents in outboxes.values()
            for document in documents
            for row in document["rows"]
        }
        published = _publish(_administrator(sites).kafka(), folder, manifest, unsent, done)
        for service, documents in outboxes.items():
            for document in documents:
                left = [r for r in document["rows"] if identity(document["topic"], r["headers"]) not in published]
                done.rows_published += len(document["rows"]) - len(left)
                done.rows_left += len(left)
                if left:
                    databases[service]["outbox"].insert_one(document | {"rows": left})
        if hold_mail and "notification" in databases:
            databases["notification"]["holds"].insert_one({"_id": "mail", "since": datetime.now(UTC)})
        for database in databases.values():
            database[RESTORES].update_one({"_id": "restore"}, {"$set": {"finished": True}})
    return done


def _read(path: Path) -> Iterator[RawBSONDocument]:
    with gzip.open(path, "rb") as file:
        yield from bson.decode_file_iter(cast("IO[bytes]", file), bson.CodecOptions(RawBSONDocument))


def _batches(documents: Iterable[RawBSONDocument]) -> Iterator[list[RawBSONDocument]]:
    batch: list[RawBSONDocument] = []
    for document in documents:
        batch.append(document)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _publish(
    kafka: Any, folder: Path, manifest: Mapping[str, Any], asked: set[tuple[str, str, str]], done: Restored
) -> set[tuple[str, str, str]]:
    """Put every saved record where it lay, in order. Returns which of those asked for are among them."""
    told = {"enable.idempotence": True, "acks": "all", "linger.ms": 20, "message.max.bytes": 3_000_000, "log_level": 0}
    producer = Producer({**kafka.librdkafka(), **told})
    failed: list[str] = []
    published: set[tuple[str, str, str]] = set()

    def delivered(error: Any, message: Message) -> None:
        if error is not None:
            failed.append(str(error.name()))

    for topic in manifest["topics"]:
        for raw in _read(folder / "topics" / f"{topic}.bson.gz"):
            record = bson.decode(raw.raw)
            if (named := identity(topic, record["headers"])) in asked:
                published.add(named)
            while True:
                try:
                    producer.produce(
                        topic,
                        value=record["value"],
                        key=record["key"],
                        partition=record["partition"],
                        headers=[(name, value) for name, value in record["headers"]],
                        timestamp=record["timestamp"],
                        on_delivery=delivered,
                    )
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
            done.records += 1
    if producer.flush(60) or failed:
        raise Refused(f"the broker did not take everything ({', '.join(sorted(set(failed)))}): empty both, begin again")
    return published


# --- where -------------------------------------------------------------------------------------------------------


def _administrator(sites: Sequence[Site]) -> Site:
    """A service whose settings name the broker's administrator. Raises `Refused`."""
    for site in sites:
        if site.has_admin:
            return site
    raise Refused("no service's settings name the broker's administrator (KAFKA_ADMIN_USERNAME)")


def _database(site: Site) -> str:
    return str(site.settings.mongo_database or site.name)


def _ledgers(sites: Sequence[Site]) -> tuple[dict[str, str], dict[str, Any]]:
    """By service, the collection of what it has forwarded; by beginning of a topic's name, how that names a record."""
    collections: dict[str, str] = {}
    prefixes: dict[str, Any] = {}
    for site in sites:
        if (ledger := site.service.ledger) is not None:
            collections[site.name], prefixes[site.service.writes_prefix or ""] = ledger.collection, ledger.id
    return collections, prefixes
