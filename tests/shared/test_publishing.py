"""From the outbox over a real broker into another service's inbox."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupAuthorizationFailedError
from confluent_kafka.admin import AdminClient, ConfigResource
from prometheus_client import REGISTRY
from pymongo.errors import DuplicateKeyError

from shared import broker
from shared import outbox as outbox_module
from shared.broker import Topic
from shared.cloudevents import Record, read
from shared.contracts.enrollment import CohortConfirmed, ParticipantEnrolled
from shared.domain import State
from shared.errors import Rejected
from shared.inbox import INDEXES, Consumer, Position
from shared.kafka import Kafka
from shared.mongo import Database, Driver, Transaction
from shared.outbox import Relay
from shared.service import Service, Work
from shared.worker import Intake, read_partition, read_topic
from tests.shared.relaying import LEASE_SECONDS, processes
from tests.shared.relaying import relay as relay_process
from tests.shared.sample import COHORT, Cohort, Enrollment, confirmed, enroll, enrolled, open_cohort
from tests.shared.test_process import ROOT, environment
from tests.support import many, record, settings_for, uid, until

_names = itertools.count()


class Unwelcome(Rejected):
    """This one may not be seated."""


class Seats(State):
    collection: ClassVar[str] = "seats"

    taken: list[int] = []


@pytest.fixture
async def topic(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> str:
    """A topic of this test's own, on which the sample events are published."""
    name = f"training.t{os.getpid()}-{next(_names)}"
    await broker.prepare(kafka, [Topic(name, 3), Topic(f"{name}.{name}.dlq", 1)], [], 1)
    monkeypatch.setattr(ParticipantEnrolled, "topic", name)
    monkeypatch.setattr(CohortConfirmed, "topic", name)
    return name


@pytest.fixture
async def relay(database: Database, kafka: Kafka) -> AsyncIterator[Relay]:
    relay = Relay(database, kafka, lease_seconds=0.6)
    running = asyncio.create_task(relay.run())
    yield relay
    relay.stop()
    await asyncio.wait_for(running, 10)


async def outbox(database: Database) -> list[Any]:
    return list(await database.collection("outbox").find({}).to_list(None))


async def published(kafka: Kafka, topic: str, count: int) -> list[Record]:
    async def there() -> list[Record] | None:
        records = await read_topic(kafka, topic)
        return records if len(records) >= count else None

    found: list[Record] = await until(there)
    return found


async def test_what_was_committed_is_published_in_order_and_leaves_the_outbox(
    database: Database, kafka: Kafka, topic: str, relay: Relay
) -> None:
    await open_cohort(database)
    for number in range(1, 31):
        await enroll(database, number)
    records = await published(kafka, topic, 30)
    assert [read(r).subject for r in records] == [uid(n, 0xE) for n in range(1, 31)]
    assert {r.key for r in records} == {COHORT.encode()}
    assert await until(lambda: _empty(database))
    assert sum(relay.produced.values()) == 30


async def _empty(database: Database) -> bool:
    return not await outbox(database)


async def test_a_topic_that_does_not_exist_holds_back_only_itself(
    database: Database, kafka: Kafka, topic: str, relay: Relay
) -> None:
    missing = f"{topic}.missing"
    await open_cohort(database)
    await database.transaction(_forwarding(missing))
    await enroll(database, 1)
    await published(kafka, topic, 1)
    assert await until(lambda: missing in relay.held)
    (left,) = await outbox(database)
    assert left["topic"] == missing
    assert await until(lambda: relay.oldest_seconds > 0)
    await broker.prepare(kafka, [Topic(missing, 1)], [], 1)
    assert await until(lambda: _empty(database))


async def test_a_row_that_can_never_be_sent_holds_its_own_topic_and_nobody_elses(
    database: Database, kafka: Kafka, topic: str, relay: Relay
) -> None:
    other = f"{topic}.{topic}.dlq"
    await open_cohort(database)

    async def spoil(tx: Transaction) -> None:
        bad = record(confirmed(1), 1)
        tx.forward(Record(bad.topic, 0, 0, None, None, bad.headers, 0), other)

    await database.transaction(spoil)

    async def behind(tx: Transaction) -> None:
        tx.forward(record(confirmed(1), 1), other)

    await database.transaction(behind)
    await enroll(database, 1)
    await published(kafka, topic, 1)
    assert await until(lambda: other in relay.held)
    await enroll(database, 2)
    await published(kafka, topic, 2)
    assert [document["topic"] for document in await outbox(database)] == [other, other]
    assert await read_topic(kafka, other) == []  # what came later did not overtake it


@pytest.mark.parametrize("driver", ["motor"], indirect=True)
async def test_a_topic_deleted_under_load_holds_back_only_itself_and_comes_again_without_a_loss(
    database: Database, kafka: Kafka, topic: str, relay: Relay
) -> None:
    """A send to it would hang for ever, and the producer with it."""
    doomed, admin = f"{topic}.doomed", AdminClient(kafka.librdkafka())
    await broker.prepare(kafka, [Topic(doomed, 1)], [], 1)
    await open_cohort(database)
    facts = [replace(record(confirmed(n), n), value=str(n).encode()) for n in range(1, 101)]
    for number, fact in enumerate(facts, 1):
        await enroll(database, number, capacity=1000)
        await database.transaction(_forwarding(doomed, fact))
        if number == 30:
            await asyncio.to_thread(admin.delete_topics([doomed])[doomed].result, 20)
    arrived = await published(kafka, topic, 100)
    assert list(dict.fromkeys(read(r).subject for r in arrived)) == [uid(n, 0xE) for n in range(1, 101)]
    assert await until(lambda: list(relay.held) == [doomed])
    held = [document for document in await outbox(database) if document["topic"] == doomed]
    waiting = [row["value"] for document in held for row in document["rows"]]
    assert waiting == [fact.value for fact in facts[-len(waiting) :]] and len(waiting) >= 70
    await broker.prepare(kafka, [Topic(doomed, 1)], [], 1)
    assert await until(lambda: _empty(database))
    assert [r.value for r in await read_topic(kafka, doomed)] == waiting


async def test_a_commit_wakes_the_relay(database: Database, kafka: Kafka, topic: str, monkeypatch: Any) -> None:
    """Also that of another process: the outbox itself tells. Without it, a poll would bring it later."""
    monkeypatch.setattr("shared.outbox.POLL_SECONDS", 600.0)
    relay = Relay(database, kafka, lease_seconds=0.6)
    running = asyncio.create_task(relay.run())
    await open_cohort(database)
    numbers = itertools.count(1)

    async def one_left() -> bool:  # who commits before the relay listens is seen by its first look, or by nobody
        await enroll(database, next(numbers), capacity=1000)
        return sum(relay.produced.values()) > 0

    try:
        await until(one_left)
        for _ in range(5):
            await until(lambda: _empty(database), seconds=5)
            await enroll(database, next(numbers), capacity=1000)
        await until(lambda: _empty(database), seconds=5)
    finally:
        relay.stop()
        await asyncio.wait_for(running, 10)


async def test_what_commits_with_an_earlier_position_during_a_round_is_not_deleted_with_it(
    database: Database, kafka: Kafka, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_cohort(database)
    await enroll(database, 1)
    await enroll(database, 2)
    late = {**(await outbox(database))[0], "_id": f"{1:020d}-00000000-0000"}
    send = outbox_module._Broker.send

    async def overtaken(self: Any, *given: Any) -> Any:
        with suppress(DuplicateKeyError):
            await database.collection("outbox").insert_one(late)
        return await send(self, *given)

    monkeypatch.setattr(outbox_module._Broker, "send", overtaken)
    relay = Relay(database, kafka, lease_seconds=0.6)
    running = asyncio.create_task(relay.run())
    arrived = await published(kafka, topic, 3)
    monkeypatch.undo()
    relay.stop()
    await asyncio.wait_for(running, 10)
    assert [read(r).subject for r in arrived] == [uid(n, 0xE) for n in (1, 2, 1)]


async def test_the_broker_keeps_facts_for_400_days_and_dead_letters_may_be_twice_as_large(kafka: Kafka) -> None:
    from services.scheduling.app import service

    name = f"training.r{os.getpid()}-{next(_names)}"
    topics = [replace(t, name=f"{name}.{t.name}") for t in broker.topics_of(service.name, service.consumers)]
    await broker.prepare(kafka, topics, [], 1)
    admin = AdminClient(kafka.librdkafka())
    asked = [ConfigResource(ConfigResource.Type.TOPIC, topic.name) for topic in topics]
    told = {
        resource.name: {key: entry.value for key, entry in (await asyncio.to_thread(future.result, 20)).items()}
        for resource, future in admin.describe_configs(asked).items()
    }
    assert {config["retention.ms"] for config in told.values()} == {str(400 * 86_400_000)}
    limits = {name.endswith(".dlq"): int(config["max.message.bytes"]) for name, config in told.items()}
    assert limits[True] >= 2 * limits[False]


async def test_the_age_of_the_oldest_row_grows_while_the_broker_is_away(database: Database, topic: str) -> None:
    await open_cohort(database)
    await enroll(database, 1)
    relay = Relay(database, Kafka("127.0.0.1:1"), lease_seconds=0.6)
    running = asyncio.create_task(relay.run())
    assert await until(lambda: relay.oldest_seconds > 0.5)
    assert len(await outbox(database)) == 1
    relay.stop()
    await asyncio.wait_for(running, 15)


async def test_a_relay_that_lost_its_lease_tells_what_waits_now_and_not_what_it_once_saw(
    database: Database, kafka: Kafka, topic: str, relay: Relay
) -> None:
    await database.transaction(_forwarding(f"{topic}.missing"))
    assert await until(lambda: relay.held and relay.oldest_seconds > 0)
    ends_at = datetime.now(UTC) + timedelta(minutes=1)
    await database.collection("leases").update_one({"_id": "relay"}, {"$set": {"holder": "x", "ends_at": ends_at}})
    await database.collection("outbox").delete_many({})
    assert await until(lambda: relay.oldest_seconds == 0 and not relay.held)


def _forwarding(topic: str, fact: Record | None = None) -> Callable[[Transaction], Awaitable[None]]:
    async def work(tx: Transaction) -> None:
        tx.forward(fact or record(confirmed(1), 1), topic)

    return work


async def test_only_one_of_two_relays_publishes_and_the_other_takes_over(
    database: Database, kafka: Kafka, topic: str
) -> None:
    relays = [Relay(database, kafka, lease_seconds=0.6) for _ in range(2)]
    running = [asyncio.create_task(relay.run()) for relay in relays]
    await open_cohort(database)
    for number in range(1, 6):
        await enroll(database, number)
    await published(kafka, topic, 5)
    leader = max(range(2), key=lambda n: sum(relays[n].produced.values()))
    assert sum(relays[1 - leader].produced.values()) == 0
    relays[leader].stop()
    await asyncio.wait_for(running[leader], 10)
    await enroll(database, 6)
    await published(kafka, topic, 6)
    relays[1 - leader].stop()
    await asyncio.wait_for(running[1 - leader], 10)


async def test_two_relays_that_both_believe_to_hold_the_lease_keep_each_subjects_order(
    database: Database, kafka: Kafka, topic: str, mongo_uri: str, driver: Driver, count: Callable[[str], None]
) -> None:
    """Two processes; in turn one is stopped in the middle of sending for longer than its lease lasts.

    What leaves twice has the same id and the same bytes; without the second copies every subject is in its order.
    """
    rounds, subjects = many(2, 40), 100
    await open_cohort(database)

    async def change(tx: Transaction) -> None:
        for n, seat in enumerate((await tx.load_many(Enrollment, [uid(n, 0xE) for n in range(subjects)])).values()):
            tx.save(seat, *[enrolled(n)] * 5)

    async def begin(tx: Transaction) -> None:
        await tx.load_many(Enrollment, [uid(n, 0xE) for n in range(subjects)])
        for n in range(subjects):
            tx.save(Enrollment(id=uid(n, 0xE), cohort_id=COHORT), enrolled(n))

    await database.transaction(begin)
    with processes(2, relay_process, mongo_uri, database.collection("x").database.name, driver, kafka, topic) as relays:
        await until(lambda: _empty(database))
        for round in range(rounds):
            for _ in range(4):
                await database.transaction(change)
            for stalled in (relays[round % 2], relays[1 - round % 2]):
                stalled.signal(signal.SIGSTOP)
                await asyncio.sleep(2 * LEASE_SECONDS)
                stalled.signal(signal.SIGCONT)
            await database.transaction(change)
            await until(lambda: _empty(database), seconds=30)
        await asyncio.sleep(2 * LEASE_SECONDS)  # what a stalled one still had in hand
    first: dict[str, bytes | None] = {}
    order: dict[str, list[int]] = {}
    twice = 0
    for found in await read_topic(kafka, topic):
        envelope = read(found)
        if envelope.id in first:
            twice += 1
            assert first[envelope.id] == found.value
        else:
            first[envelope.id] = found.value
            order.setdefault(envelope.subject, []).append(envelope.sequence)
    assert twice or rounds < 10  # or no two ever believed it
    assert len(order) == subjects
    assert all(numbers == list(range(1, 1 + 25 * rounds + 1)) for numbers in order.values())
    count(f"{len(first):,} events, {2 * rounds} stalls longer than the lease, {twice} sent twice, none lost")


def seats_service(group: str) -> tuple[Service, Consumer]:
    consumer = Consumer(group)

    @consumer.on(ParticipantEnrolled, reads=lambda event: (Seats, event.cohort_id))
    async def seat(event: ParticipantEnrolled, tx: Transaction) -> None:
        seats = await tx.load(Seats, event.cohort_id) or Seats(id=event.cohort_id)
        tx.save(seats.but(taken=[*seats.taken, event.roster_number]))

    return Service("scheduling", routers=[], consumers=[consumer], indexes=INDEXES), consumer


def settings_of(kafka: Kafka, **more: Any) -> Any:
    return settings_for(
        kafka_bootstrap=kafka.bootstrap,
        kafka_security_protocol=kafka.protocol,
        kafka_username=kafka.username,
        kafka_password=kafka.password,
        lease_seconds=0.6,
        instance="the-one-worker",  # a restart takes its place in the group at once
        **more,
    )


def started(service: Service, database: Database, kafka: Kafka, *, rewind: Sequence[str] = ()) -> Work:
    work = Work(service, database, settings_of(kafka), asyncio.Event(), rewind)
    work.start()
    return work


async def stopped(work: Work) -> None:
    work._stopping.set()
    await work.stop()


async def test_a_fact_of_one_service_reaches_the_other_once_and_the_worker_becomes_quiet(
    database: Database, kafka: Kafka, topic: str, relay: Relay, mongo_uri: str, driver: Driver
) -> None:
    other = Database(mongo_uri, f"other-{os.getpid()}-{next(_names)}", service="scheduling", driver=driver)
    service, consumer = seats_service(topic)
    work = started(service, other, kafka)
    try:
        await open_cohort(database)
        for number in range(1, 21):
            await enroll(database, number)

        async def all_seated() -> bool:
            seats = await other.get(Seats, COHORT)
            return seats is not None and seats.taken == list(range(1, 21))

        assert await until(all_seated)

        async def settled() -> bool:
            told = await work.quiet()
            done = told["committed"][consumer.group]
            return bool(told["quiet"]) and all(done.get(p, 0) >= o for p, o in relay.produced.items())

        assert await until(settled)
        assert work.state()["consuming"]
    finally:
        await stopped(work)
        await other.drop()
        await other.close()


async def test_a_poisoned_record_is_parked_on_the_broker_and_the_partition_goes_on(
    database: Database, kafka: Kafka, topic: str, relay: Relay, mongo_uri: str, driver: Driver
) -> None:
    other = Database(mongo_uri, f"other-{os.getpid()}-{next(_names)}", service="scheduling", driver=driver)
    await other.ensure(INDEXES)
    service, _ = seats_service(topic)
    work = started(service, other, kafka)
    try:
        await open_cohort(database)
        await enroll(database, 1)

        async def spoil(tx: Transaction) -> None:
            bad = record(confirmed(1), 1)
            tx.forward(Record(bad.topic, 0, 0, bad.key, b"{", (("ce_id", None), ("x", b"\xff")), 0), topic)

        await database.transaction(spoil)
        await enroll(database, 2)

        async def seated() -> bool:
            seats = await other.get(Seats, COHORT)
            return seats is not None and seats.taken == [1, 2]

        assert await until(seated)
        (letter,) = await published(kafka, f"{topic}.{topic}.dlq", 1)
        assert letter.value == b"{" and ("ce_id", None) in letter.headers
        assert dict(letter.headers)["dl_reason"] == b"unreadable:null-ce_id"
    finally:
        await stopped(work)
        await other.drop()
        await other.close()


async def test_a_record_that_holds_nothing_at_all_is_parked_like_any_other(
    database: Database, kafka: Kafka, topic: str, mongo_uri: str, driver: Driver
) -> None:
    from confluent_kafka import Producer

    await database.ensure(INDEXES)
    service, consumer = seats_service(topic)
    work = started(service, database, kafka)
    try:
        producer = Producer(kafka.librdkafka())
        producer.produce(topic, None, None, headers=[])
        producer.flush(10)
        (letter,) = await published(kafka, f"{topic}.{topic}.dlq", 1)
        assert (letter.key, letter.value) == (b"", None)
        assert await until(lambda: _empty(database))
        (parked,) = await consumer.parked(database)
        assert parked.reason == "unreadable:missing-ce_specversion"
        assert work.state()["tasks_failing"] == []
    finally:
        await stopped(work)


async def test_redriving_brings_back_what_was_parked_once_the_reason_is_gone(
    database: Database, kafka: Kafka, topic: str, relay: Relay, mongo_uri: str, driver: Driver
) -> None:
    """From the dead-letter topic into the same service's inbox, never by way of the public topic."""
    other = Database(mongo_uri, f"other-{os.getpid()}-{next(_names)}", service="scheduling", driver=driver)
    await other.ensure(INDEXES)
    consumer = Consumer(topic)
    refused = {2}

    @consumer.on(ParticipantEnrolled, reads=lambda event: (Seats, event.cohort_id))
    async def seat(event: ParticipantEnrolled, tx: Transaction) -> None:
        if event.roster_number in refused:
            raise Unwelcome
        seats = await tx.load(Seats, event.cohort_id) or Seats(id=event.cohort_id)
        tx.save(seats.but(taken=[*seats.taken, event.roster_number]))

    service = Service("scheduling", routers=[], consumers=[consumer], indexes=INDEXES)
    work = started(service, other, kafka)
    try:
        await open_cohort(database)
        for number in (1, 2, 3):
            await enroll(database, number)
        await published(kafka, f"{topic}.{topic}.dlq", 1)
    finally:
        await stopped(work)
    refused.clear()
    letters = await read_topic(kafka, f"{topic}.{topic}.dlq")
    assert (await consumer.redrive(letters, other)).handled == 1
    seats = await other.get(Seats, COHORT)
    assert seats is not None and seats.taken == [1, 3, 2]
    assert len(await read_topic(kafka, topic)) == 3
    await other.drop()
    await other.close()


@pytest.mark.parametrize("driver", ["motor"], indirect=True)
async def test_the_redrive_role_tries_what_is_parked_again_and_tells_what_became_of_it(
    database: Database, kafka: Kafka, mongo_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.scheduling.app import service

    (consumer,) = service.consumers
    await broker.prepare(kafka, broker.topics_of(service.name, [consumer]), [], 1)
    await database.ensure(INDEXES)
    good, bad = record(enrolled(1), 1), replace(record(enrolled(2), 1), value=b"{")
    block = f"{consumer.group}|/training/enrollment|{uid(1, 0xE)}"
    await database.collection("blocks").insert_one({"_id": block, "open": 1})  # the good one waits behind another
    assert (await consumer.receive([good, bad], database)).parked == 2
    relay = Relay(database, kafka, lease_seconds=0.6)
    running = asyncio.create_task(relay.run())
    assert await until(lambda: _empty(database))
    relay.stop()
    await running

    async def role(uri: str) -> tuple[int | None, bytes, bytes]:
        command = [sys.executable, "-m", "services.scheduling.app", "redrive", "--patience", "0"]
        env = environment(
            MONGO_URI=uri,
            MONGO_DATABASE=database.collection("inbox").database.name,
            KAFKA_BOOTSTRAP=kafka.bootstrap,
            KAFKA_SECURITY_PROTOCOL=kafka.protocol,
            KAFKA_USERNAME=kafka.username,
            KAFKA_PASSWORD=kafka.password,
        )
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, env=env, cwd=ROOT, stdout=pipe, stderr=pipe)
        told, complained = await process.communicate()
        return process.returncode, told, complained

    (ended, told, complained), away = await asyncio.gather(role(mongo_uri), role("mongodb://127.0.0.1:1"))
    assert (ended, complained) == (0, b"")
    assert told.splitlines()[-1] == b"scheduling: 1 handled, 1 parked again, 1 left"
    assert away[0] == 1 and away[2] == b"redrive: the database is away (ServerSelectionTimeoutError)\n"


async def test_redriving_while_more_of_the_same_subject_arrives_applies_all_in_its_order(
    database: Database, kafka: Kafka, topic: str, relay: Relay, mongo_uri: str, driver: Driver
) -> None:
    """An operator redrives again and again, while records come live and letters are still on their way."""
    other = Database(mongo_uri, f"other-{os.getpid()}-{next(_names)}", service="scheduling", driver=driver)
    await other.ensure(INDEXES)
    consumer = Consumer(topic)
    refusing = True

    @consumer.on(ParticipantEnrolled, reads=lambda event: (Seats, event.cohort_id))
    async def seat(event: ParticipantEnrolled, tx: Transaction) -> None:
        if refusing and event.roster_number == 1:
            raise Unwelcome
        seats = await tx.load(Seats, event.cohort_id) or Seats(id=event.cohort_id)
        tx.save(seats.but(taken=[*seats.taken, event.roster_number]))

    async def change(number: int) -> None:
        async def work(tx: Transaction) -> None:
            known = await tx.load(Enrollment, uid(1, 0xE)) or Enrollment(id=uid(1, 0xE), cohort_id=COHORT)
            tx.save(known, enrolled(1).model_copy(update={"roster_number": number}))

        await database.transaction(work)

    async def parked() -> bool:
        return {p.reason for p in await consumer.parked(other)} == {"unwelcome", "behind"}

    work = started(Service("scheduling", routers=[], consumers=[consumer], indexes=INDEXES), other, kafka)
    try:
        for number in range(1, 11):
            await change(number)
        await until(parked, seconds=25)
        refusing = False
        for number in range(11, 41):
            await change(number)
            if number % 5 == 0:
                await consumer.redrive(await read_topic(kafka, f"{topic}.{topic}.dlq"), other)

        async def all_applied() -> bool:
            await consumer.redrive(await read_topic(kafka, f"{topic}.{topic}.dlq"), other)
            seats = await other.get(Seats, COHORT)
            return seats is not None and len(seats.taken) == 40

        await until(all_applied, seconds=25)
    finally:
        await stopped(work)
    published_as = [int(json.loads(r.value or b"")["roster_number"]) for r in await read_topic(kafka, topic)]
    seats = await other.get(Seats, COHORT)
    assert seats is not None and seats.taken == published_as
    assert await consumer.parked(other) == []
    await other.drop()
    await other.close()


async def test_a_handler_added_later_sees_the_past_when_its_group_is_rewound(
    database: Database, kafka: Kafka, topic: str, relay: Relay, mongo_uri: str, driver: Driver
) -> None:
    """The state is as if the handler had always been there, and what was handled before is not handled again."""
    other = Database(mongo_uri, f"other-{os.getpid()}-{next(_names)}", service="scheduling", driver=driver)
    await other.ensure(INDEXES)
    service, consumer = seats_service(topic)
    work = started(service, other, kafka)
    try:
        await open_cohort(database)

        async def confirm(tx: Transaction) -> None:
            tx.save(await tx.require(Cohort, COHORT), confirmed(5))

        await database.transaction(confirm)
        await enroll(database, 1)

        async def seated() -> bool:
            return await other.get(Seats, COHORT) is not None

        assert await until(seated)
    finally:
        await stopped(work)
    seen: list[int] = []

    @consumer.on(CohortConfirmed)
    async def note(event: CohortConfirmed, tx: Transaction) -> None:
        seen.append(event.size)

    work = started(service, other, kafka, rewind=[topic])
    try:
        assert await until(lambda: seen == [5])
        seats = await other.get(Seats, COHORT)
        assert seats is not None and seats.taken == [1]
    finally:
        await stopped(work)
        await other.drop()
        await other.close()


async def test_records_not_yet_done_are_the_groups_lag_until_they_are_done(
    database: Database, kafka: Kafka, topic: str, relay: Relay
) -> None:
    def shown(metric: str) -> float | None:
        return REGISTRY.get_sample_value(metric, {"group": topic})

    consumer, gate = Consumer(topic), asyncio.Event()

    @consumer.on(ParticipantEnrolled)
    async def wait_for_the_gate(event: ParticipantEnrolled, tx: Transaction) -> None:
        await gate.wait()

    await database.ensure(INDEXES)
    await open_cohort(database)
    for number in (1, 2, 3):
        await enroll(database, number)
    work = started(Service("scheduling", routers=[], consumers=[consumer]), database, kafka)
    try:
        await until(lambda: shown("training_group_lag_records") == 3)
        assert shown("training_consuming") == 1
        gate.set()
        await until(lambda: shown("training_group_lag_records") == 0)
    finally:
        gate.set()
        await stopped(work)
    assert shown("training_consuming") == 0


@pytest.mark.parametrize("driver", ["motor"], indirect=True)
async def test_a_worker_told_to_stop_amid_a_backlog_loses_nothing_and_doubles_nothing(
    database: Database, kafka: Kafka, topic: str, relay: Relay, mongo_uri: str
) -> None:
    """What it had begun is committed on both sides; the next one goes on at the very next record."""
    name = f"other-{os.getpid()}-{next(_names)}"
    other = Database(mongo_uri, name, service="scheduling")
    await other.ensure(INDEXES)
    onward, backlog = f"{topic}.onward", list(range(1, 801))
    await broker.prepare(kafka, [Topic(onward, 1)], [], 1)
    consumer, amid, stopping = Consumer(topic), asyncio.Event(), asyncio.Event()

    @consumer.on(ParticipantEnrolled, reads=lambda event: (Seats, event.cohort_id))
    async def seat(event: ParticipantEnrolled, tx: Transaction) -> None:
        if event.roster_number == 150 and not amid.is_set():
            amid.set()
            await until(stopping.is_set)
        seats = await tx.load(Seats, event.cohort_id) or Seats(id=event.cohort_id)
        tx.save(seats.but(taken=[*seats.taken, event.roster_number]))
        tx.forward(replace(record(event, 1), value=str(event.roster_number).encode()), onward)

    async def enroll_all(tx: Transaction) -> None:
        await tx.load_many(Enrollment, [uid(n, 0xE) for n in backlog])
        for n in backlog:
            tx.save(Enrollment(id=uid(n, 0xE), cohort_id=COHORT), enrolled(n))

    async def taken() -> list[int]:
        seats = await other.get(Seats, COHORT)
        return seats.taken if seats else []

    async def all_on() -> bool:
        return len(await taken()) == len(backlog) and await _empty(other)

    await database.transaction(enroll_all)
    await until(lambda: _empty(database))
    service = Service("scheduling", routers=[], consumers=[consumer], indexes=INDEXES)
    settings = settings_of(kafka, internal_port=0, mongo_uri=mongo_uri, mongo_database=name)
    async with service.running("worker", settings, stopping):
        await until(amid.is_set)
    begun = await taken()
    assert 150 <= len(begun) < len(backlog), "the batch at hand was finished, and no other begun"
    sent = [int(r.value or b"") for r in await read_topic(kafka, onward)]
    waiting = [int(row["value"]) for document in await outbox(other) for row in document["rows"]]
    assert sent + waiting == begun == backlog[: len(begun)]
    admin = AIOKafkaAdminClient(**kafka.aiokafka())
    await admin.start()
    offsets = await admin.list_consumer_group_offsets(topic)
    await admin.close()
    assert sum(place.offset for place in offsets.values()) == len(begun)
    async with service.running("worker", settings, asyncio.Event()):
        await until(all_on)
    assert await taken() == backlog
    assert [int(r.value or b"") for r in await read_topic(kafka, onward)] == backlog
    await other.drop()
    await other.close()


async def test_a_partition_is_read_again_up_to_a_position(
    database: Database, kafka: Kafka, topic: str, relay: Relay
) -> None:
    await open_cohort(database)
    for number in range(1, 11):
        await enroll(database, number)
    records = await published(kafka, topic, 10)
    position = Position(topic, records[0].partition, records[6].offset)
    for _ in range(10):  # once in a while a reader that is reset to the end saw nothing
        assert await read_partition(kafka, position) == records[:6]


async def test_preparing_twice_and_at_once_changes_nothing_and_a_drift_is_told(kafka: Kafka) -> None:
    name = f"training.p{os.getpid()}-{next(_names)}"
    await asyncio.gather(*(broker.prepare(kafka, [Topic(name, 2)], [], 1) for _ in range(3)))
    assert await broker.prepare(kafka, [Topic(name, 2)], [], 1) == []
    (drift,) = await broker.prepare(kafka, [Topic(name, 4)], [], 1)
    assert drift == f"{name}: 2 partitions, declared 4"


async def test_a_worker_waits_for_topics_that_are_not_there_yet(
    database: Database, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"training.w{os.getpid()}-{next(_names)}"
    monkeypatch.setattr(ParticipantEnrolled, "topic", name)
    service, _ = seats_service(name)
    work = started(service, database, kafka)
    try:
        await asyncio.sleep(0.3)  # it has looked at least once
        assert not work.intakes.started
        await broker.prepare(kafka, [Topic(name, 2)], [], 1)
        assert await until(lambda: work.intakes.started)
    finally:
        await stopped(work)


def _end_coordination(intake: Intake) -> None:
    intake.subscriber.consumer._coordinator._coordination_task.cancel()


def _refuse_a_poll(intake: Intake) -> None:
    intake.subscriber.consumer._coordinator._pending_exception = GroupAuthorizationFailedError("of this group")


@pytest.mark.parametrize("lose", [_end_coordination, _refuse_a_poll])
async def test_a_worker_whose_group_was_lost_for_good_begins_again(
    database: Database,
    kafka: Kafka,
    topic: str,
    relay: Relay,
    monkeypatch: pytest.MonkeyPatch,
    lose: Callable[[Intake], None],
) -> None:
    """As after the broker refused it: nothing would be read any more."""
    monkeypatch.setattr("shared.worker.LOOK_SECONDS", 0.1)
    service, _ = seats_service(topic)
    work = started(service, database, kafka)
    try:
        await until(lambda: work.state()["consuming"])
        lose(work.intakes.groups[0])
        await until(lambda: not work.state()["consuming"])
        await open_cohort(database)
        await enroll(database, 1)
        await until(lambda: database.get(Seats, COHORT))
        await until(lambda: work.state()["consuming"])
    finally:
        await stopped(work)


async def test_a_clock_that_is_hours_ahead_makes_facts_wait_and_loses_none(
    database: Database, kafka: Kafka, topic: str, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker refuses what is dated more than an hour ahead of its own clock."""
    send = AIOKafkaProducer.send

    def ahead(producer: AIOKafkaProducer, *arguments: Any, **named: Any) -> Awaitable[Any]:  # its clock is in C
        stamp = int((time.time() + 2 * 3600) * 1000)
        sending: Awaitable[Any] = send(producer, *arguments, **named, timestamp_ms=stamp)
        return sending

    await open_cohort(database)
    with monkeypatch.context() as jumped:
        jumped.setattr(AIOKafkaProducer, "send", ahead)
        await enroll(database, 1)
        await asyncio.sleep(1.5)
        assert await outbox(database) and await read_topic(kafka, topic) == []
    await enroll(database, 2)
    first, second = await published(kafka, topic, 2)
    assert [read(found).subject for found in (first, second)] == [enrolled(1).enrollment_id, enrolled(2).enrollment_id]
    await until(lambda: _empty(database))


def subscribers() -> Sequence[Any]:
    from services.assessment.app import service as assessment
    from services.enrollment.app import service as enrollment
    from services.notification.app import service as notification
    from services.scheduling.app import service as scheduling

    return [assessment, enrollment, notification, scheduling]


@pytest.mark.parametrize("service", subscribers(), ids=lambda s: s.name)
async def test_no_subscriber_has_the_default_acknowledgement(service: Service, database: Database) -> None:
    from faststream import AckPolicy

    from shared.worker import Intakes

    intakes = Intakes(service.consumers, database, Kafka("127.0.0.1:1"), "test")
    for intake in intakes.groups:
        assert intake.subscriber.ack_policy is AckPolicy.NACK_ON_ERROR
    assert len(intakes.groups) == len(service.consumers)
