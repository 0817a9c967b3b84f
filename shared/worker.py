"""FastStream at the edge: one subscriber per consumer, raw bytes in, offsets committed only after the database has.

FastStream's Kafka defaults acknowledge before the handler has run; its negative acknowledgement retries at once and
for ever. So the policy is stated here, and every failure pauses before the records are brought again.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import ConsumerStoppedError, KafkaError, UnknownTopicOrPartitionError, for_code
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from pymongo.errors import PyMongoError

from shared.cloudevents import Record
from shared.errors import Unavailable
from shared.inbox import BATCH_RECORDS, Consumer, Position
from shared.kafka import Kafka
from shared.mongo import Database

LOOK_SECONDS = 1.0
POLL_MS = 200

log = structlog.get_logger("worker")


def record_of(raw: Any) -> Record:
    """aiokafka's record as ours."""
    return Record(raw.topic, raw.partition, raw.offset, raw.key, raw.value, tuple(raw.headers), raw.timestamp)


async def _unread(raw: Any, original: Callable[[Any], Awaitable[Any]]) -> Any:
    """Give FastStream nothing to choke on: a null or non-UTF-8 header would make it skip the whole batch."""
    message = await original((dataclasses.replace(raw[0], headers=()),))
    message.raw_message = raw
    return message


async def _undecoded(message: Any) -> Any:
    return message


class _Drain(ConsumerRebalanceListener):  # type: ignore[misc]
    """Lets the batch at hand finish before its partitions go to another worker; notes where new ones stand."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        lock = getattr(self._intake.subscriber, "lock", None)
        if revoked and lock is not None and not getattr(lock, "empty", True):
            await lock.wait_release(25)
        self._intake.committed = {}

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        await self._intake.note_committed(assigned)
        await self._intake.go_back(assigned)


class Intake:
    """One consumer group of this process: reads its topics and gives what comes to its `Consumer`."""

    def __init__(
        self,
        consumer: Consumer,
        database: Database,
        kafka: Kafka,
        member: str,
        rewind: Iterable[str] = (),
    ) -> None:
        self.consumer = consumer
        self._member = member
        self._rewind = frozenset(rewind)
        self._rewound: set[TopicPartition] = set()
        self.committed: dict[str, int] = {}
        """`topic-partition` → the offset before which everything is done, for the partitions this process owns."""
        self._database = database
        self._kafka = kafka
        self._failures = 0
        self.refusal: str | None = None
        """What the broker said when it refused this group, if it has."""
        self.subscriber: Any = None

    def subscribe(self, broker: KafkaBroker) -> None:
        """Read by this connection from now on."""
        self.subscriber = broker.subscriber(
            *self.consumer.topics,
            group_id=self.consumer.group,
            group_instance_id=f"{self.consumer.group}-{self._member}",
            batch=True,
            fetch_max_wait_ms=200,
            ack_policy=AckPolicy.NACK_ON_ERROR,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            session_timeout_ms=30_000,
            rebalance_timeout_ms=60_000,
            no_reply=True,
            parser=_unread,
            decoder=_undecoded,
            listener=_Drain(self),
        )
        subscriber = self.subscriber
        subscriber(self._batch)
        self.refusal = None

        async def poll(consumer: AIOKafkaConsumer) -> Any:
            """Whatever has come, at once; FastStream's own poll sleeps after every one that found nothing."""
            try:
                found = await consumer.getmany(timeout_ms=POLL_MS, max_records=BATCH_RECORDS)
            except KafkaError as error:
                if self.subscriber is subscriber and not (error.retriable or isinstance(error, ConsumerStoppedError)):
                    self.refusal = type(error).__name__
                raise
            return tuple(itertools.chain(*found.values()))

        subscriber.get_msg = poll

    async def _batch(self, message) -> None:  # type: ignore[no-untyped-def]  # an annotation would make FastStream decode
        records = [record_of(raw) for raw in message.raw_message]
        try:
            if self.consumer.before_batch is not None:
                await self.consumer.before_batch(_positions(records), self._read_back, self._database)
            await self.consumer.receive(records, self._database)
        except (Unavailable, PyMongoError, KafkaError, OSError) as error:
            self._failures += 1
            pause = min(30.0, 0.2 * 2 ** min(self._failures, 8)) * random.uniform(0.5, 1)
            log.warning(
                "batch.waiting", group=self.consumer.group, reason=type(error).__name__, seconds=round(pause, 1)
            )
            await asyncio.sleep(pause)
            raise
        except Exception as error:
            # Nothing that a record holds gets here: it would have been parked. The records come again.
            log.error("batch.failed", group=self.consumer.group, reason=type(error).__name__, exc_info=True)
            await asyncio.sleep(random.uniform(1, 2))
            raise
        self._failures = 0
        for record in records:
            self.committed[f"{record.topic}-{record.partition}"] = record.offset + 1

    async def note_committed(self, partitions: Iterable[TopicPartition]) -> None:
        if (kafka_consumer := self.subscriber.consumer) is not None:
            for partition in partitions:
                with suppress(KafkaError):
                    if (offset := await kafka_consumer.committed(partition)) is not None:
                        self.committed[f"{partition.topic}-{partition.partition}"] = offset

    async def go_back(self, partitions: Iterable[TopicPartition]) -> None:
        """Read the topics that an operator asked for from their beginning; what was handled is answered as duplicate.

        Done as a member: a static member stays in its group for a while after it has gone, and until then nobody
        may set the group's offsets from outside.
        """
        again = [p for p in partitions if p.topic in self._rewind and p not in self._rewound]
        if again and (kafka_consumer := self.subscriber.consumer) is not None:
            for partition, offset in (await kafka_consumer.beginning_offsets(again)).items():
                kafka_consumer.seek(partition, offset)
                self.committed[f"{partition.topic}-{partition.partition}"] = offset
            self._rewound.update(again)
            log.info("group.rewound", group=self.consumer.group, partitions=len(again))

    @property
    def lag(self) -> int:
        """How many records of the partitions that this process owns are still to be done, from memory alone."""
        kafka_consumer = getattr(self.subscriber, "consumer", None)
        if kafka_consumer is None:
            return 0
        ends = {f"{p.topic}-{p.partition}": kafka_consumer.highwater(p) or 0 for p in kafka_consumer.assignment()}
        return sum(max(0, end - self.committed.get(partition, 0)) for partition, end in ends.items())

    async def _read_back(self, position: Position) -> list[Record]:
        return await read_partition(self._kafka, position)

    @property
    def alive(self) -> bool:
        """Whether its loop runs and it is still a member of its group."""
        kafka_consumer = getattr(self.subscriber, "consumer", None)
        coordinator = getattr(kafka_consumer, "_coordinator", None)
        coordination = getattr(coordinator, "_coordination_task", None)
        dead = self.refusal is not None or (coordination is not None and coordination.done())
        return kafka_consumer is not None and not dead and any(not task.done() for task in self.subscriber.tasks)


def _positions(records: Sequence[Record]) -> list[Position]:
    first: dict[tuple[str, int], int] = {}
    for record in records:
        first.setdefault((record.topic, record.partition), record.offset)
    return [Position(topic, partition, offset) for (topic, partition), offset in first.items()]


@asynccontextmanager
async def _reader(kafka: Kafka) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer outside any group; closed also when it could not start."""
    # "earliest", and later an explicit seek: a reset to the latest, begun by `assign`, may overtake
    # `seek_to_beginning`, and the partition would look empty.
    arguments = kafka.aiokafka() | {"enable_auto_commit": False, "auto_offset_reset": "earliest"}
    consumer = AIOKafkaConsumer(**arguments, isolation_level="read_committed")
    try:
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


async def read_partition(kafka: Kafka, position: Position) -> list[Record]:
    """The records of one partition from its first to just before the position, outside any group."""
    partition = TopicPartition(position.topic, position.partition)
    async with _reader(kafka) as consumer:
        consumer.assign([partition])
        end = min(position.offset, (await consumer.end_offsets([partition]))[partition])
        consumer.seek(partition, (await consumer.beginning_offsets([partition]))[partition])
        records: list[Record] = []
        while await consumer.position(partition) < end:
            for raw in (await consumer.getmany(partition, timeout_ms=500)).get(partition, []):
                if raw.offset < end:
                    records.append(record_of(raw))
        return records


async def read_topic(kafka: Kafka, topic: str) -> list[Record]:
    """Everything that a topic holds now. A topic that does not exist holds nothing."""
    (described,) = await described_topics(kafka, [topic])
    if (code := described["error_code"]) == UnknownTopicOrPartitionError.errno:
        return []
    if code:
        raise for_code(code)
    return [
        record
        for partition, end in sorted((await end_offsets(kafka, topic)).items())
        if end
        for record in await read_partition(kafka, Position(topic, partition, end))
    ]


async def end_offsets(kafka: Kafka, topic: str) -> dict[int, int]:
    """Partition → the offset behind its last record now, 0 where it has none. Raises for a topic that is not there."""
    (described,) = await described_topics(kafka, [topic])
    if code := described["error_code"]:
        raise for_code(code)
    partitions = [TopicPartition(topic, p["partition"]) for p in described["partitions"]]
    async with _reader(kafka) as consumer:
        ends = await consumer.end_offsets(partitions)
    return {partition.partition: offset for partition, offset in ends.items()}


async def described_topics(kafka: Kafka, topics: Sequence[str]) -> list[Any]:
    """The broker's own description of each topic; one that is not there has an `error_code`."""
    admin = AIOKafkaAdminClient(**kafka.aiokafka())
    try:
        await admin.start()
        return list(await admin.describe_topics(list(topics)))
    finally:
        await admin.close()


class Intakes:
    """All consumer groups of a worker over one broker connection; starts when broker, topics and database are there."""

    def __init__(
        self,
        consumers: Sequence[Consumer],
        database: Database,
        kafka: Kafka,
        member: str,
        rewind: Sequence[str] = (),
    ) -> None:
        self._database = database
        self._kafka = kafka
        self.groups = [Intake(consumer, database, kafka, member, rewind) for consumer in consumers]
        self._broker = self._connection()
        self.started = False

    def _connection(self) -> KafkaBroker:
        broker = KafkaBroker(
            self._kafka.servers,
            security=self._kafka.faststream(),
            client_id=f"{self._database.service}-worker",
            apply_types=False,
            allow_auto_create_topics=False,
            graceful_timeout=8,
            logger=logging.getLogger("training.kafka"),
            log_level=logging.DEBUG,
        )
        for intake in self.groups:
            intake.subscribe(broker)
        refuse_default_acknowledgement(broker)
        return broker

    async def run(self, stopping: asyncio.Event) -> None:
        """Read until told to stop, and begin again where a group was lost.

        What the broker has once refused (rights taken away, a member fenced), aiokafka's consumer reads late or never
        again, also when the rights are back.
        """
        await self.start(stopping)
        while not stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), LOOK_SECONDS)
            lost = {intake.consumer.group: intake.refusal for intake in self.groups if not intake.alive}
            if lost and not stopping.is_set():
                log.warning("worker.beginning_again", groups=lost)
                self.started = False
                await self.stop()
                self._broker = self._connection()
                await self.start(stopping)

    async def start(self, stopping: asyncio.Event) -> None:
        """Wait for the neighbours, saying for whom, and begin. Returns at once when told to stop meanwhile."""
        backoff = 0.2
        while not stopping.is_set() and self.groups:
            try:
                topics = sorted({topic for intake in self.groups for topic in intake.consumer.topics})
                missing = [t["topic"] for t in await described_topics(self._kafka, topics) if t["error_code"]]
                if missing:
                    log.warning("worker.waiting", for_="topics", topics=missing, seconds=round(backoff, 1))
                elif not await self._database.ping():
                    log.warning("worker.waiting", for_="database", seconds=round(backoff, 1))
                else:
                    await self._broker.start()
                    self.started = True
                    for intake in self.groups:
                        await intake.note_committed(intake.subscriber.consumer.assignment())
                    log.info("worker.consuming", groups=[intake.consumer.group for intake in self.groups])
                    return
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning("worker.waiting", for_="broker", reason=type(error).__name__, seconds=round(backoff, 1))
                with suppress(Exception):
                    await self._broker.stop()
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), backoff)
            backoff = min(5.0, backoff * 2)
        self.started = not self.groups

    async def stop(self) -> None:
        """Let the batches at hand finish and be committed, for eight seconds at most."""
        with suppress(Exception):
            await asyncio.wait_for(self._broker.stop(), 9)


def refuse_default_acknowledgement(broker: KafkaBroker) -> None:
    """At-most-once is FastStream's default; no subscriber of ours may have it."""
    for subscriber in broker.subscribers:
        if subscriber.ack_policy is not AckPolicy.NACK_ON_ERROR:
            raise RuntimeError("a subscriber without an explicit acknowledgement policy")
