"""The agencies' feed: each subscribed agency's own facts on its own topic, byte for byte, in order, without gaps.

An agency holds, per source and subject, a prefix from 1. It gets the facts of subjects that carry its id, every
`CohortOpened`, and the cohort-level facts of cohorts for which it nominated, the earlier ones first. Who belongs to
a learning group is never forwarded: a group names others' people.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from services.notification.domain import AgencyContact, AgencySubscription
from shared.cloudevents import Envelope, Record
from shared.contracts import REGISTRY, Id
from shared.contracts.enrollment import CohortOpened
from shared.domain import State
from shared.ids import derive
from shared.inbox import Consumer, Position, ReadBack
from shared.mongo import Database, Transaction

PUBLIC_TOPICS = ("training.enrollment", "training.scheduling", "training.assessment", "training.notification")
COHORT_LEVEL = ("Cohort", "SchedulePublished", "Session", "TrainerAssigned")

consumer = Consumer("notification-feed")


def topic_of(code: str) -> str:
    return f"training.agency.{code}"


class Kept(BaseModel):
    """A cohort-level record as it lay on its topic."""

    model_config = ConfigDict(frozen=True)

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    source: str
    subject: str
    sequence: int
    opened: bool


class FeedCohort(State):
    """A cohort's agencies and its cohort-level records. Every feed transaction that touches the cohort saves it, so

    that a nomination and a session fact conflict instead of missing each other.
    """

    collection: ClassVar[str] = "feed_cohorts"

    agency_ids: list[Id] = []
    records: list[Kept] = []


class Ledger(State):
    """How far an agency's feed has come with one source and subject."""

    collection: ClassVar[str] = "feed_ledger"

    last: int = 0


def ledger_id(code: str, source: str, subject: str) -> str:
    """Of what was forwarded to an agency about one subject."""
    return derive("notification", "feed-ledger", code, source, subject)


class Directory(State):
    """The subscribed agencies, by id, with their codes; and the cohorts that were opened. One per installation."""

    collection: ClassVar[str] = "feed_directory"

    codes: dict[Id, str] = {}
    cohort_ids: list[Id] = []


class Backfill(State):
    """How far each partition was read again for a newly subscribed agency. Its id is the agency's."""

    collection: ClassVar[str] = "feed_backfills"

    since: datetime
    done: list[str] = []


DIRECTORY = derive("notification", "feed-directory")


async def _directory(tx: Transaction) -> Directory:
    return await tx.load(Directory, DIRECTORY) or Directory(id=DIRECTORY)


async def _subscribed(tx: Transaction) -> dict[str, str]:
    """Agency id → code of the subscribed agencies."""
    return (await _directory(tx)).codes


@consumer.on_record(*PUBLIC_TOPICS)
async def forward_to_agencies(record: Record, envelope: Envelope, tx: Transaction) -> None:
    """Give the record to every subscribed agency that it concerns."""
    await _forward(record, envelope, tx, await _subscribed(tx))


async def _forward(record: Record, envelope: Envelope, tx: Transaction, codes: dict[str, str]) -> None:
    cls = REGISTRY.get(envelope.type)
    if envelope.agencyid != "-":
        cohort_id = envelope.partitionkey
        if cls is not None and "cohort_id" in cls.model_fields:
            await _enter(envelope.agencyid, cohort_id, tx, codes)
        if (code := codes.get(envelope.agencyid)) is not None:
            await _let_out(code, record, envelope.source, envelope.subject, envelope.sequence, tx)
        return
    if cls is None or not cls.__name__.startswith(COHORT_LEVEL):
        return
    cohort = await tx.load(FeedCohort, envelope.partitionkey) or FeedCohort(id=envelope.partitionkey)
    kept = _kept(record, envelope, cls is CohortOpened)
    if not any((k.source, k.subject, k.sequence) == (kept.source, kept.subject, kept.sequence) for k in cohort.records):
        cohort = tx.save(cohort.but(records=[*cohort.records, kept]))
        if kept.opened:
            directory = await _directory(tx)
            if cohort.id not in directory.cohort_ids:
                tx.save(directory.but(cohort_ids=[*directory.cohort_ids, cohort.id]))
    else:
        tx.rely_on(cohort)
    for agency_id, code in codes.items():
        if kept.opened or agency_id in cohort.agency_ids:
            await _let_out(code, record, kept.source, kept.subject, kept.sequence, tx)


async def _enter(agency_id: str, cohort_id: str, tx: Transaction, codes: dict[str, str]) -> None:
    """The agency takes part in the cohort from now on: what happened there so far comes first."""
    cohort = await tx.load(FeedCohort, cohort_id) or FeedCohort(id=cohort_id)
    if agency_id in cohort.agency_ids:
        tx.rely_on(cohort)
        return
    cohort = tx.save(cohort.but(agency_ids=[*cohort.agency_ids, agency_id]))
    if (code := codes.get(agency_id)) is not None:
        await _catch_up(code, cohort, tx, everything=True)


async def _catch_up(code: str, cohort: FeedCohort, tx: Transaction, *, everything: bool) -> None:
    for kept in cohort.records:
        if everything or kept.opened:
            await _let_out(code, _record(kept), kept.source, kept.subject, kept.sequence, tx)


async def _let_out(code: str, record: Record, source: str, subject: str, sequence: int, tx: Transaction) -> None:
    """Only the next of a subject goes out: nothing twice, nothing before its predecessor."""
    id = ledger_id(code, source, subject)
    ledger = await tx.load(Ledger, id) or Ledger(id=id)
    if sequence == ledger.last + 1:
        tx.save(ledger.but(last=sequence))
        tx.forward(record, topic_of(code))


def _kept(record: Record, envelope: Envelope, opened: bool) -> Kept:
    return Kept(
        topic=record.topic,
        key=record.key,
        value=record.value,
        headers=list(record.headers),
        source=envelope.source,
        subject=envelope.subject,
        sequence=envelope.sequence,
        opened=opened,
    )


def _record(kept: Kept) -> Record:
    return Record(kept.topic, 0, 0, kept.key, kept.value, tuple(kept.headers), 0)


# --- subscribing -------------------------------------------------------------------------------------------------


async def subscribe(subscription: AgencySubscription, tx: Transaction) -> None:
    """From the next batch on, the agency is fed; first each partition is read again for it."""
    agency = await tx.load(AgencyContact, subscription.id)
    assert agency is not None
    if await tx.load(Backfill, subscription.id) is None:
        tx.save(Backfill(id=subscription.id, since=subscription.since))
    directory = await _directory(tx)
    if subscription.id not in directory.codes:
        directory = tx.save(directory.but(codes={**directory.codes, subscription.id: agency.code}))
    for cohort in (await tx.load_many(FeedCohort, directory.cohort_ids)).values():
        tx.rely_on(cohort)
        await _catch_up(agency.code, cohort, tx, everything=subscription.id in cohort.agency_ids)


_backfilled: set[tuple[str, str]] = set()


async def back_fill(positions: Sequence[Position], read: ReadBack, database: Database) -> None:
    """Before a batch: for every agency for which a partition was not yet read again, read it up to the batch.

    The ledger lets out only what the agency does not have, so reading twice is harmless.
    """
    backfills = await database.query(Backfill, {})
    for position in positions:
        partition = f"{position.topic}-{position.partition}"
        waiting = [b for b in backfills if partition not in b.done and (b.id, partition) not in _backfilled]
        if not waiting:
            continue
        records = await read(position) if position.offset else []
        for backfill in waiting:
            await _back_fill(backfill.id, partition, records, database)
            _backfilled.add((backfill.id, partition))


async def _back_fill(agency_id: str, partition: str, records: Sequence[Record], database: Database) -> None:
    for first in range(0, max(1, len(records)), 200):
        part = records[first : first + 200]

        async def work(
            tx: Transaction, part: Sequence[Record] = part, last: bool = first + 200 >= len(records)
        ) -> None:
            code = (await _subscribed(tx)).get(agency_id)
            if code is not None:
                for record in part:
                    envelope = consumer.forwards(record)
                    if envelope is not None and envelope.agencyid == agency_id:
                        await _let_out(code, record, envelope.source, envelope.subject, envelope.sequence, tx)
            if last and (backfill := await tx.load(Backfill, agency_id)) and partition not in backfill.done:
                tx.save(backfill.but(done=[*backfill.done, partition]))

        await database.transaction(work)


consumer.before_batch = back_fill
