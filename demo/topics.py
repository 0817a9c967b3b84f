"""What lies on the topics: all of it, or as an agency sees its own while the play goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from shared.cloudevents import Envelope, Record, Unreadable
from shared.cloudevents import read as read_envelope
from shared.kafka import Kafka
from shared.worker import record_of

READING_SECONDS = 30.0


class NotRead(Exception):
    """A topic could not be read to its end; the message names the partitions."""


def kafka(endpoints: dict[str, Any], credential: tuple[str, str]) -> Kafka:
    broker = endpoints["kafka"]
    return Kafka(broker["bootstrap"], broker.get("protocol", "SASL_PLAINTEXT"), *credential, broker.get("ca"))


async def everything(reader: Kafka) -> dict[str, list[Record]]:
    """Every record of every training topic, by topic, in the order of partitions and offsets. Raises `NotRead`."""
    admin = AIOKafkaAdminClient(**reader.aiokafka())
    await admin.start()
    try:
        names = sorted(name for name in await admin.list_topics() if name.startswith("training."))
        described = await admin.describe_topics(names)
    finally:
        await admin.close()
    partitions = [TopicPartition(t["topic"], p["partition"]) for t in described for p in t["partitions"]]
    consumer = AIOKafkaConsumer(**reader.aiokafka(), enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    found: dict[TopicPartition, list[Record]] = {partition: [] for partition in partitions}
    try:
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        for partition, offset in (await consumer.beginning_offsets(partitions)).items():
            consumer.seek(partition, offset)
        left = {partition for partition, end in ends.items() if end > 0}
        deadline = time.monotonic() + READING_SECONDS
        while left:
            if time.monotonic() > deadline:
                raise NotRead(", ".join(f"{p.topic}-{p.partition} to {ends[p]}" for p in sorted(left)))
            for partition, raw in (await consumer.getmany(timeout_ms=1000)).items():
                found[partition] += [record_of(record) for record in raw]
            left = {p for p in left if not found[p] or found[p][-1].offset + 1 < ends[p]}
    finally:
        await consumer.stop()
    result: dict[str, list[Record]] = {name: [] for name in names}
    for partition in sorted(partitions):
        result[partition.topic] += found[partition]
    return result


class Listener:
    """An agency that listens on its own topic with its own user and group. A `patient` one comes again when it must."""

    def __init__(self, code: str, reader: Kafka, *, patient: bool = False) -> None:
        self.code = code
        self.topic = f"training.agency.{code}"
        self.heard: list[Envelope] = []
        self.faults: list[str] = []
        self.repeats = 0
        self._reader = reader
        self.patient = patient
        self._last: dict[tuple[str, str], int] = {}
        self._ids: set[str] = set()
        self._position = 0
        self._consumer: AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def caught_up(self, seconds: float = 10.0) -> None:
        """Wait until it has heard what lies on its topic now. What it does not hear in time is a fault."""
        deadline = time.monotonic() + seconds
        while not self.faults:
            if self._consumer is not None:
                partition = TopicPartition(self.topic, 0)
                if self._position >= (await self._consumer.end_offsets([partition]))[partition]:
                    return
            if time.monotonic() > deadline:
                self.faults.append(f"heard nothing behind {self._position} within {seconds:.0f} s")
            await asyncio.sleep(0.05)

    async def _listen(self) -> None:
        while True:
            try:
                await self._connected()
            except (KafkaError, OSError) as error:
                if not self.patient:
                    self.faults.append(type(error).__name__)
                    return
                await asyncio.sleep(0.5)
            except Unreadable as error:
                self.faults.append(type(error).__name__)
                return

    async def _connected(self) -> None:
        consumer = AIOKafkaConsumer(
            self.topic,
            **self._reader.aiokafka(),
            group_id=f"agency.{self.code}.demo",
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
        try:
            await consumer.start()
            self._consumer = consumer
            async for raw in consumer:
                self.hear(read_envelope(record_of(raw)))
                self._position = raw.offset + 1
        finally:
            self._consumer = None
            await consumer.stop()

    def hear(self, envelope: Envelope) -> None:
        """Note it, and whether it is the next of its subject; one that comes again under its id is left out."""
        subject = (envelope.source, envelope.subject)
        if envelope.id in self._ids:
            self.repeats += 1
            return
        self._ids.add(envelope.id)
        if envelope.sequence != self._last.get(subject, 0) + 1:
            self.faults.append(f"{envelope.type} {envelope.sequence} after {self._last.get(subject, 0)}")
        self._last[subject] = envelope.sequence
        self.heard.append(envelope)


def events_of(records: Sequence[Record]) -> list[Envelope]:
    return [read_envelope(record) for record in records]
