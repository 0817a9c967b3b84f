"""Malformed records of every kind amid good ones, on every topic that a service consumes, on the real broker.

Nothing stalls, no good record is lost, each bad one is parked once for its reason, and `redrive` brings back what can
be.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.util import calc_crc32c
from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import AdminClient
from structlog.testing import capture_logs

from services.notification import commands as notifying
from services.notification import feed
from services.notification.consumers import consumer as notification
from shared import broker, clock
from shared.broker import Topic
from shared.cloudevents import Envelope, Record, read
from shared.contracts import Event
from shared.contracts.assessment import ProgrammeCompleted
from shared.contracts.enrollment import AgencyKind, AgencyRegistered
from shared.errors import Rejected
from shared.inbox import Consumer, dead_letters, description
from shared.kafka import Kafka
from shared.mongo import Database, Transaction
from shared.ops import groups
from shared.service import Service, Work
from shared.worker import read_topic
from tests.assessment.story import OPENING
from tests.malice.cohort import AGENCY, PLAIN, Cohort
from tests.malice.spoiling import ADDRESS, INFLATED, KINDS, NUMBER, UNDONE, Kind, drawn
from tests.malice.worlds import SERVICES, SETTINGS
from tests.orders import Kept
from tests.support import many, record, settings_for, until

CONSUMING = [service for service in SERVICES.values() if service.consumers]
CONSUMERS = {consumer.group: consumer for service in CONSUMING for consumer in service.consumers}
TOPICS = sorted({topic for consumer in CONSUMERS.values() for topic in consumer.topics})
PLACES = [(consumer, topic) for consumer in CONSUMERS.values() for topic in consumer.topics]
UNORDERED = frozenset({"records", "agency_ids", "cohort_ids", "standing"})
BOOKKEEPING = {"inbox", "outbox", "blocks", "leases", "timers", "feed_backfills"}


@dataclass
class Sent:
    """A record on its way to the broker, and what each group shall make of it."""

    record: Record
    event: Event
    kind: Kind = KINDS["a fact"]
    name: str = "good"
    waits: Literal["", "for a release", "behind"] = ""
    """Nothing is wrong with it, but its handlers refuse it for now, or its subject is behind one that is parked."""
    refused: KafkaError | None = None

    def id(self, group: str) -> str:
        """Its key in the inbox of a group."""
        if not self.kind.named:
            return f"{group}|{self.record.topic}|{self.record.partition}|{self.record.offset}"
        headers = dict(self.record.headers)
        return f"{group}|{(headers['ce_source'] or b'').decode()}|{(headers['ce_id'] or b'').decode()}"


class _Unlettered:
    """Builds what another does, but for the name of a header: it becomes bytes that are no UTF-8."""

    def __init__(self, builder: Any) -> None:
        self._builder = builder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._builder, name)

    def build(self) -> bytearray:
        built = bytearray(self._builder.build())
        at = built.index(b"ZZQQ")
        built[at : at + 4] = b"\xff\xfe\x80\xc0"
        built[17:21] = calc_crc32c(bytes(built[21:])).to_bytes(4, "big")
        return built


class Broker:
    """Producers of every kind, and what they have put where."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._producers: dict[str, Producer] = {}
        self._raw: AIOKafkaProducer | None = None
        # Who is the first on a broker to want a transaction waits for the log of them.
        self._ready = asyncio.ensure_future(asyncio.to_thread(self._producer, "transaction"))

    async def put(self, batch: Sequence[Sent]) -> None:
        """In this order as far as one producer sends them; returns when the broker has all."""
        await self._ready
        await asyncio.to_thread(self._put_all, [sent for sent in batch if sent.kind.way != "raw name"])
        for sent in batch:
            if sent.kind.way == "raw name":
                await self._put_raw(sent)

    def _put_all(self, batch: Sequence[Sent]) -> None:
        for sent in batch:
            self._put(sent)
        for producer in self._producers.values():
            assert producer.flush(60) == 0

    def _producer(self, way: str) -> Producer:
        if way not in self._producers:
            told = {**self._kafka.librdkafka(), "message.max.bytes": 64_000_000, "linger.ms": 5, "log_level": 0}
            match way:
                case "plain":
                    told |= {"enable.idempotence": True}
                case "transaction":
                    told |= {"transactional.id": f"malice-{uuid.uuid4().hex[:8]}"}
                case codec:
                    told |= {"compression.type": codec}
            self._producers[way] = Producer(told)
            if way == "transaction":
                self._producers[way].init_transactions(30)
        return self._producers[way]

    def _put(self, sent: Sent) -> None:
        transaction = sent.kind.way in ("committed", "aborted")
        producer, r = self._producer("transaction" if transaction else sent.kind.way), sent.record
        if transaction:
            producer.begin_transaction()

        def noted(error: KafkaError | None, message: Any) -> None:
            if error is None:
                sent.record = replace(r, partition=message.partition(), offset=message.offset())
            sent.refused = error

        while True:
            try:
                producer.produce(
                    r.topic,
                    value=r.value,
                    key=r.key,
                    headers=list(r.headers),
                    partition=r.partition,
                    timestamp=r.timestamp if r.timestamp == 1 else 0,
                    on_delivery=noted,
                )
                break
            except BufferError:
                producer.poll(0.1)
        if sent.kind.way == "committed":
            producer.commit_transaction(30)
        elif transaction:
            producer.flush(30)
            producer.abort_transaction(30)

    async def _put_raw(self, sent: Sent) -> None:
        """With a name that a client in another language may send, and no client in Python does."""
        if self._raw is None:
            self._raw = AIOKafkaProducer(**self._kafka.aiokafka())
            await self._raw.start()
        batch, r = self._raw.create_batch(), sent.record
        batch.append(timestamp=None, key=r.key, value=r.value, headers=list(r.headers))
        batch._builder = _Unlettered(batch._builder)
        put = await (await self._raw.send_batch(batch, r.topic, partition=r.partition))
        headers = (*r.headers[:-1], (r"\xff\xfe\x80\xc0", r.headers[-1][1]))
        sent.record = replace(r, offset=put.offset, headers=headers)

    async def close(self) -> None:
        if self._raw is not None:
            await self._raw.stop()


@pytest.fixture
async def put(kafka: Kafka) -> AsyncIterator[Broker]:
    """The topics of all services and of one agency, empty, and a way to put records there."""
    admin = AdminClient({**kafka.librdkafka(), "log_level": 0})
    topics = [topic for service in SERVICES.values() for topic in broker.topics_of(service.name, service.consumers)]
    topics.append(Topic(feed.topic_of("fed"), 1))

    async def clear() -> None:
        there = admin.list_topics(timeout=15).topics
        if ours := [topic.name for topic in topics if topic.name in there]:
            for deleted in admin.delete_topics(ours).values():
                await asyncio.to_thread(deleted.result, 20)

    await clear()  # other tests of services leave records on these topics
    await broker.prepare(kafka, topics, [], 1)
    producing = Broker(kafka)
    yield producing
    await producing.close()
    await clear()


class NotUnderstood(Rejected):
    """A release that does not know this yet."""


@dataclass
class Release:
    """The handlers of all groups as they are now: until it is mended, some facts are refused, and one type fails."""

    subjects: set[str]
    failing_on: str
    mended: bool = False
    heard: list[tuple[str, str, str, int]] = field(default_factory=list)
    """Group, source, subject and sequence of those facts, in the order in which they were handled."""

    def put_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for consumer in CONSUMERS.values():
            for type, route in consumer._routes.items():
                tried = self._tried(consumer.group, route.handler)
                monkeypatch.setitem(consumer._routes, type, replace(route, handler=tried))
            for topic, handler in consumer._on_record.items():
                monkeypatch.setitem(consumer._on_record, topic, self._tried(consumer.group, handler))

    def _tried(self, group: str, handler: Callable[..., Any]) -> Callable[..., Any]:
        async def tried(*given: Any) -> None:
            tx: Transaction = given[-1]
            assert tx.cause is not None
            if tx.cause.subject in self.subjects:
                self._judge(group, tx.cause)
            await handler(*given)

        return tried

    def _judge(self, group: str, cause: Envelope) -> None:
        if self.mended:
            self.heard.append((group, cause.source, cause.subject, cause.sequence))
        elif cause.type == self.failing_on:
            raise ZeroDivisionError
        else:
            raise NotUnderstood


# --- one world with all services --------------------------------------------------------------------------------


def settings_of(service: Service, kafka: Kafka, mongo_uri: str, database: str) -> Any:
    return settings_for(
        service.settings,
        **SETTINGS.get(service.name, {}),
        mongo_uri=mongo_uri,
        mongo_database=database,
        kafka_bootstrap=kafka.bootstrap,
        kafka_security_protocol=kafka.protocol,
        kafka_username=kafka.username,
        kafka_password=kafka.password,
        lease_seconds=2.0,
        instance="malice",
    )


@dataclass
class Running:
    """The workers of all services that consume, each with its own database, beside a quiet database of each."""

    databases: dict[str, Database]
    quiet: dict[str, Database]
    settings: dict[str, Any]
    works: list[Work]

    @property
    def by_group(self) -> dict[str, Database]:
        return {c.group: self.databases[service.name] for service in CONSUMING for c in service.consumers}

    async def rows(self, group: str) -> dict[str, str]:
        """Inbox key → `handled`, or the reason for which it is parked."""
        kept = await self.by_group[group].collection("inbox").find({}).to_list(None)
        return {
            row["_id"]: row["reason"] if row["fate"] == "parked" else row["fate"]
            for row in kept
            if row["_id"].startswith(f"{group}|")
        }


@pytest.fixture
async def running(kafka: Kafka, put: Broker, mongo_uri: str) -> AsyncIterator[Running]:
    feed._backfilled.clear()
    name = f"test-{uuid.uuid4().hex[:8]}"
    names = {service.name: f"{name}-{service.name}" for service in CONSUMING}
    settings = {s.name: settings_of(s, kafka, mongo_uri, names[s.name]) for s in CONSUMING}
    databases = {s.name: s.database(settings[s.name]) for s in CONSUMING}
    quiet = {s.name: Database(mongo_uri, f"{names[s.name]}-quiet", service=s.name) for s in CONSUMING}
    stopping = asyncio.Event()
    for service in CONSUMING:
        for database in (databases[service.name], quiet[service.name]):
            await database.ensure(service.all_indexes())
    agency = AgencyRegistered(agency_id=AGENCY, code="fed", kind=AgencyKind.LPNK, registered_at=OPENING)
    with clock.at(OPENING):
        for database in (databases["notification"], quiet["notification"]):
            await notification.receive([record(agency, 1, at=OPENING)], database)
            await notifying.subscribe(AGENCY, database)
            await database.collection("inbox").delete_many({})
        works = [Work(service, databases[service.name], settings[service.name], stopping) for service in CONSUMING]
        for work in works:
            work.start()
    yield Running(databases, quiet, settings, works)
    stopping.set()
    await asyncio.gather(*(work.stop() for work in works))
    for database in (*databases.values(), *quiet.values()):
        await database.drop()
        await database.close()


REFUSED, ORPHANED = Cohort(900), Cohort(901)
"""A cohort of which the release at hand does not understand some, and one with a fact whose predecessor is broken."""
NOT_UNDERSTOOD = {REFUSED.enrollment(3), REFUSED.session(PLAIN)}


def mixed(chance: random.Random, cohorts: int, number: int) -> list[Sent]:
    """On every topic so many malformed records of every kind, amid the facts of so many cohorts, some of both twice."""
    fresh = iter(range(10_000, 10_000_000))
    made = []
    for turn, topic in enumerate(TOPICS):
        good = [sent for n in range(1, cohorts + 1) for sent in _told(Cohort(n), topic)]
        good += [
            replace(sent, waits="for a release") if sent.event.subject in NOT_UNDERSTOOD else sent
            for sent in _told(REFUSED, topic)
        ]
        lanes: dict[bytes | None, list[Sent]] = {}
        for sent in good:
            lanes.setdefault(sent.record.key, []).append(sent)
        order = [lane for lane in lanes.values() for _ in lane]
        chance.shuffle(order)
        spoiled = [_spoiled(name, topic, Cohort(next(fresh)), chance) for name in drawn(chance, number, turn)]
        spoiled += [replace(sent) for sent in chance.sample(spoiled, len(spoiled) // 20) if sent.kind.named]
        for kind in (UNDONE, *(INFLATED if number else [INFLATED[turn % len(INFLATED)]])):
            (fact,) = _told(Cohort(next(fresh)), topic)[2:3]
            fact = replace(fact, kind=kind, name="undone" if kind is UNDONE else "inflated")
            spoiled.insert(chance.randrange(len(spoiled)), replace(fact, record=kind.spoil(fact.record, fact.event)))
        bad = iter(spoiled)
        for n, lane in enumerate(order):
            made += [next(bad) for _ in range((n + 1) * len(spoiled) // len(order) - n * len(spoiled) // len(order))]
            made.append(lane.pop(0))
            if chance.random() < 0.1:
                made.append(replace(made[-1]))
        made += [replace(s, record=replace(s.record, partition=p)) for p, s in enumerate(_closing(topic, fresh))]
    first, second = (
        sent for sent in _told(ORPHANED, "training.enrollment") if sent.event.subject == ORPHANED.enrollment(3)
    )
    broken = KINDS["value: half of it"]
    first = replace(first, kind=broken, name="value: half of it", record=broken.spoil(first.record, first.event))
    return [*made, first, replace(second, waits="behind")]


def _closing(topic: str, fresh: Iterator[int]) -> list[Sent]:
    """A last good one for every partition: behind the last mark of a transaction a group has nothing to commit."""
    return [_told(Cohort(next(fresh)), topic)[2] for _ in range(broker.SERVICE_PARTITIONS)]


def _told(cohort: Cohort, topic: str) -> list[Sent]:
    partition = cohort.n % broker.SERVICE_PARTITIONS
    return [Sent(replace(r, partition=partition), event) for r, event in cohort.told(topic)]


def _spoiled(name: str, topic: str, cohort: Cohort, chance: random.Random) -> Sent:
    """Of a cohort of its own, so that what is parked makes no good record wait; in whichever partition."""
    kind = KINDS[name]
    events = [event for event in cohort.facts(topic) if kind.of(type(event))]
    if not events:  # of this topic no event has what this kind spoils
        kind, name, events = KINDS["value: null"], "value: null", cohort.facts(topic)
    event = chance.choice(events)
    made = replace(record(event, 1, at=OPENING), partition=chance.randrange(broker.SERVICE_PARTITIONS))
    return Sent(kind.spoil(made, event), event, kind, name)


def expected(sent: Sequence[Sent], consumer: Consumer, release: Release) -> dict[str, str]:
    """What the inbox of a group must hold of all these: nothing of what it ignores, and of what comes twice once."""
    rows: dict[str, str] = {}
    subjects: set[tuple[str, str]] = set()
    for one in sent:
        if one.kind is UNDONE or one.refused is not None or one.record.topic not in consumer.topics:
            continue
        fate = one.kind.fate(consumer, one.record, type(one.event))
        if fate == "ignored" or (id := one.id(consumer.group)) in rows:
            continue
        if one.waits == "behind":
            fate = "behind"
        elif one.waits and not release.mended:
            first = (one.event.source(), one.event.subject) not in subjects
            subjects.add((one.event.source(), one.event.subject))
            bug = type(one.event).type == release.failing_on
            fate = "behind" if not first else "ZeroDivisionError" if bug else "not-understood"
        rows[id] = fate
    return rows


async def settled(running: Running, sent: Sequence[Sent], seconds: float) -> None:
    """Wait until every group has gone past every record and everything that it announces has left."""
    ends: dict[str, dict[str, int]] = {topic: {} for topic in TOPICS}
    for one in sent:
        if one.kind is not UNDONE and one.refused is None:
            r = one.record
            partition = f"{r.topic}-{r.partition}"
            ends[r.topic][partition] = max(ends[r.topic].get(partition, 0), r.offset + 1)

    def left() -> dict[str, int]:
        found: Counter[str] = Counter()
        for intake in (intake for work in running.works for intake in work.intakes.groups):
            for topic in intake.consumer.topics:
                for partition, end in ends[topic].items():
                    found[intake.consumer.group] += max(0, end - intake.committed.get(partition, 0))
        return +found

    with suppress(AssertionError):
        await until(lambda: not left(), seconds=seconds)
    assert left() == {}, f"records to be done after {seconds} s"
    await until(lambda: published(running), seconds=seconds)


async def became(running: Running, sent: Sequence[Sent], release: Release) -> dict[str, dict[str, str]]:
    """What every group has made of every record, which is what it must."""
    wanted = {group: expected(sent, consumer, release) for group, consumer in CONSUMERS.items()}
    for group in wanted:
        found, names = await running.rows(group), {one.id(group): one.name for one in sent}
        keys = found.keys() | wanted[group].keys()
        told = [(names.get(key, key), wanted[group].get(key), found.get(key)) for key in keys]
        assert [t for t in told if t[1] != t[2]] == [], group
    return wanted


Letters = dict[tuple[str, str], list[Record]]
"""Group and topic → the dead letters."""


async def letters(kafka: Kafka, places: Sequence[tuple[Consumer, str]] = PLACES) -> Letters:
    names = [dead_letters(topic, consumer.group) for consumer, topic in places]
    found = await asyncio.gather(*(read_topic(kafka, name) for name in names))
    return {(consumer.group, topic): lying for (consumer, topic), lying in zip(places, found, strict=True)}


def each_parked_once(found: Letters, sent: Sequence[Sent], wanted: dict[str, dict[str, str]]) -> int:
    """Every parked record has one dead letter, which tells where it lay and why, and is the record byte for byte.

    One that a relay has published again, because the broker's answer did not come in time, is the same to the byte.
    """
    number = 0
    for consumer, topic in PLACES:
        reasons = {id: why for id, why in wanted[consumer.group].items() if why != "handled"}
        parked: dict[str, list[Record]] = {}
        for one in sent:
            if one.record.topic == topic and (id := one.id(consumer.group)) in reasons:
                parked.setdefault(id, []).append(one.record)
        lying = list({(r.key, r.value, r.headers): r for r in found[consumer.group, topic]}.values())
        lay = Counter(description(letter)["dl_key"] for letter in lying)
        more = [description(letter) for letter in lying if lay[description(letter)["dl_key"]] != 1]
        assert (parked.keys() - lay.keys(), lay.keys() - parked.keys(), more) == (set(), set(), [])
        for letter in lying:
            told = description(letter)
            same = parked[told["dl_key"]]
            place = told["dl_topic"], int(told["dl_partition"]), int(told["dl_offset"])
            assert place in {(r.topic, r.partition, r.offset) for r in same}
            reason = told["dl_group"], told["dl_reason"], told["dl_attempt"]
            assert reason == (consumer.group, reasons[told["dl_key"]], "1")
            own = tuple(header for header in letter.headers if not header[0].startswith("dl_"))
            nobody = letter.key == b"" and same[0].key is None and same[0].value is None
            assert (None if nobody else letter.key, letter.value, own) == (same[0].key, same[0].value, same[0].headers)
            assert not any(personal in text for personal in (NUMBER, ADDRESS) for text in told.values())
        number += len(lying)
    return number


async def as_if_alone(running: Running, given: Sequence[Sent]) -> None:
    """Each service holds what it would hold had it been given these alone, and the agency has been told the same."""
    for service in CONSUMING:
        there, quiet = running.databases[service.name], running.quiet[service.name]
        with clock.at(OPENING):
            for consumer in service.consumers:
                known: dict[str, Record] = {}
                for one in given:
                    if one.kind.fate(consumer, one.record, type(one.event)) == "handled":
                        known.setdefault(one.id(consumer.group), one.record)
                records = [r for topic in consumer.topics for r in known.values() if r.topic == topic]
                fates = await consumer.receive(records, quiet)
                # A batch whose commit was not answered in time is tried again, and then is a duplicate.
                assert fates.handled + fates.duplicate == len(records)
        said, wanted = [(await kept(database)).said(UNORDERED) for database in (there, quiet)]
        assert said.keys() == wanted.keys()
        assert [(k, v, wanted[k]) for k, v in said.items() if v != wanted[k]][:3] == []


async def kept(database: Database) -> Kept:
    raw = database.collection("x").database
    names = set(await raw.list_collection_names()) - BOOKKEEPING
    return Kept({name: {d["_id"]: d for d in await raw[name].find({}).to_list(None)} for name in names})


def by_subject(records: Sequence[Record]) -> dict[tuple[str, str], list[tuple[int, Any]]]:
    told: dict[tuple[str, str], list[tuple[int, Any]]] = {}
    for r in records:
        envelope = read(r)
        told.setdefault((envelope.source, envelope.subject), []).append(
            (envelope.sequence, (r.key, r.value, r.headers))
        )
    return told


async def fed_alone(running: Running) -> list[Record]:
    """What lies for the agency in the quiet world's outbox."""
    found = []
    for document in await running.quiet["notification"].collection("outbox").find({}).sort([("_id", 1)]).to_list(None):
        for row in document["rows"] if document["topic"] == feed.topic_of("fed") else ():
            headers = tuple((name, value) for name, value in row["headers"])
            found.append(Record(document["topic"], 0, 0, row["key"], row["value"], headers, 0))
    return found


async def published(running: Running) -> bool:
    """Nothing is left in an outbox."""
    for database in running.databases.values():
        if await database.collection("outbox").find_one({}, {"_id": 1}):
            return False
    return True


async def redrive(running: Running, found: Letters, consumer: Consumer, ids: set[str]) -> int:
    """Try these again; how many were handled."""
    lying = [letter for topic in consumer.topics for letter in found.get((consumer.group, topic), [])]
    tried = [letter for letter in lying if description(letter)["dl_key"] in ids]
    with clock.at(OPENING):
        return (await consumer.redrive(tried, running.by_group[consumer.group])).handled


async def nothing_personal(running: Running, lines: Sequence[Any]) -> None:
    """Neither in a log line nor in what the kernel keeps beside what it parks."""
    kept = [lines]
    for database in running.databases.values():
        kept += [await database.collection(name).find({}).to_list(None) for name in ("inbox", "blocks")]
    assert not any(personal in str(told) for personal in (NUMBER, ADDRESS, "Peserta") for told in kept)


async def test_malformed_records_of_every_kind_stop_nobody_and_each_is_parked_once_for_its_reason(
    running: Running, put: Broker, kafka: Kafka, monkeypatch: pytest.MonkeyPatch, count: Callable[[str], None]
) -> None:
    """What can be brought back is, in its order, once its release is there; the rest stays parked, once more tried."""
    seconds = many(60, 3600)
    release = Release(NOT_UNDERSTOOD, failing_on=ProgrammeCompleted.type)
    release.put_on(monkeypatch)
    sent = mixed(random.Random(20220221), many(2, 60), many(0, 10_000))
    began = time.monotonic()
    with capture_logs() as lines:
        for first in range(0, len(sent), 500):
            await put.put(sent[first : first + 500])
        await settled(running, sent, seconds)
        took = time.monotonic() - began
        wanted = await became(running, sent, release)
        refused = [one for one in sent if one.refused is not None]
        assert {one.name for one in refused} == {"inflated"} and len(refused) == many(1, len(INFLATED)) * len(TOPICS)
        assert all(one.refused and one.refused.code() == KafkaError.MSG_SIZE_TOO_LARGE for one in refused)

        async def nothing_left() -> bool:
            stand = [await groups.stands(kafka, c.group, c.topics) for c in CONSUMERS.values()]
            return not any(standing.total for standing in stand)

        await until(nothing_left)
        found = await letters(kafka)
        parked = each_parked_once(found, sent, wanted)
        good = [one for one in sent if one.kind is not UNDONE and one.refused is None and not one.waits]
        await as_if_alone(running, good)
        fed = by_subject(await read_topic(kafka, feed.topic_of("fed")))
        assert fed == by_subject(await fed_alone(running))

        release.mended = True
        began = time.monotonic()
        again: dict[str, set[str]] = {}
        for consumer in CONSUMERS.values():
            lying = sorted(id for id, why in wanted[consumer.group].items() if why != "handled")
            special = {one.id(consumer.group) for one in sent if one.waits or one.event.key == ORPHANED.cohort_id}
            again[consumer.group] = special.union(lying[:: many(8, 10)])
            await redrive(running, found, consumer, again[consumer.group])
        redriven = time.monotonic() - began
        left = await became(running, sent, release)
        back = sum(rows[id] != left[group][id] for group, rows in wanted.items() for id in rows)
        assert back == len(release.heard) == len(set(release.heard))
        for group, source, subject, _ in release.heard:
            order = [s for g, o, about, s in release.heard if (g, o, about) == (group, source, subject)]
            assert order == sorted(order)
        await as_if_alone(running, sorted((one for one in sent if one.waits == "for a release"), key=_in_its_row))
        for group, rows in left.items():
            tried = {p.key: p.attempt for p in await CONSUMERS[group].parked(running.by_group[group])}
            assert tried == {
                id: 2 if id in again[group] and why != "behind" else 1 for id, why in rows.items() if why != "handled"
            }

        await until(lambda: published(running), seconds=seconds)
        given_up, behind = (one for one in sent if one.event.key == ORPHANED.cohort_id)
        topic = given_up.record.topic
        found = await letters(kafka, [(consumer, topic) for consumer in CONSUMERS.values()])
        for consumer in CONSUMERS.values():
            database, id = running.by_group[consumer.group], behind.id(consumer.group)
            mine = {one.id(consumer.group) for one in sent if one.record.topic == topic} & again[consumer.group]
            tried_again = [told for told in map(description, found[consumer.group, topic]) if told["dl_attempt"] == "2"]
            second = [told["dl_key"] for told in tried_again]
            assert sorted(second) == sorted(k for k in mine if left[consumer.group][k] not in ("handled", "behind"))
            assert await consumer.drop(given_up.id(consumer.group), "published-in-error", database)
            assert await redrive(running, found, consumer, {id}) == 1
            assert (await running.rows(consumer.group))[id] == "handled"
    assert [line for line in lines if line["event"] in FAILED] == []
    await nothing_personal(running, lines)
    for work in running.works:
        assert work.state()["consuming"] and not work.state()["topics_held"]
    kinds, all_rows = len({one.name for one in sent}), sum(map(len, wanted.values()))
    count(
        f"{len(sent):,} records of {kinds} kinds on {len(TOPICS)} topics, for {len(PLACES)} pairs of group and topic: "
        f"{all_rows - parked:,} handled and {parked:,} parked in {took:.0f} s; {back} brought back and "
        f"{sum(map(len, again.values())) - back:,} others tried again in {redriven:.0f} s"
    )


def _in_its_row(one: Sent) -> tuple[str, str, int]:
    envelope = read(one.record)
    return envelope.source, envelope.subject, envelope.sequence


FAILED = {"batch.failed", "task.failed", "relay.row_refused", "relay.topic_held"}
