"""Events and parked records made readable. Personal data cannot be shown: nothing is, but what a contract names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import ValidationError

from shared.cloudevents import Record, Unreadable
from shared.cloudevents import read as read_envelope
from shared.contracts import REGISTRY
from shared.inbox import Consumer, Parked, dead_letters, description, reason_of
from shared.kafka import Kafka
from shared.worker import described_topics, read_topic, record_of

RESTRICTED = "-restricted"


def decoded(record: Record) -> dict[str, Any]:
    """A record as its event's contract understands it: the fields that the contract names, and nothing else of it.

    What fits no contract is told by the reason alone. Marks (restricted topics) are withheld.
    """
    at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
    told: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "published": at.isoformat(timespec="milliseconds"),
    }
    try:
        envelope = read_envelope(record)
    except Unreadable as error:
        return {**told, "unreadable": error.reason}
    if (cls := REGISTRY.get(envelope.type)) is None:
        return {**told, "unreadable": "unknown-type"}
    try:
        event = cls.model_validate_json(record.value or b"")
    except ValidationError as error:
        return {**told, "unreadable": reason_of(error)}
    if (envelope.subject, envelope.partitionkey, envelope.source) != (event.subject, event.key, cls.source()):
        return {**told, "unreadable": "envelope-differs-from-data"}
    told |= {
        "event": cls.__name__,
        "type": cls.type,
        "source": cls.source(),
        "subject": event.subject,
        "sequence": envelope.sequence,
        "id": envelope.id,
        "key": event.key,
        "time": envelope.time.isoformat(timespec="milliseconds"),
        "correlationid": as_id(envelope.correlationid),
        "causationid": as_id(envelope.causationid),
    }
    if cls.topic.endswith(RESTRICTED):
        return {**told, "data": None, "withheld": "restricted"}
    return {**told, "data": event.model_dump(mode="json")}


def as_id(text: str | None) -> str | None:
    """What others wrote where an id belongs: shown where it is one, and only there."""
    try:
        return str(UUID(text)) if text else None
    except ValueError:
        return None


async def tail(kafka: Kafka, topics: Sequence[str], *, last: int, follow: bool) -> AsyncIterator[dict[str, Any]]:
    """The last events of the topics in the order of their publishing, then, if asked, those that come.

    Outside any group: nobody's position moves. Raises `LookupError` for a topic that is not there.
    """
    described = await described_topics(kafka, topics)
    if missing := [topic["topic"] for topic in described if topic["error_code"]]:
        raise LookupError(missing[0])
    partitions = [TopicPartition(topic["topic"], p["partition"]) for topic in described for p in topic["partitions"]]
    arguments = kafka.aiokafka() | {"enable_auto_commit": False, "auto_offset_reset": "earliest"}
    consumer = AIOKafkaConsumer(**arguments, isolation_level="read_committed")
    await consumer.start()
    try:
        consumer.assign(partitions)
        first, end = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        for partition in partitions:
            consumer.seek(partition, max(first[partition], end[partition] - last))
        recent: list[Record] = []
        while any([await consumer.position(p) < end[p] for p in partitions]):
            recent += [record_of(raw) for batch in (await consumer.getmany(timeout_ms=300)).values() for raw in batch]
        recent.sort(key=lambda r: (r.timestamp, r.topic, r.partition, r.offset))
        for record in recent[-last:] if last else ():
            yield decoded(record)
        while follow:
            for batch in (await consumer.getmany(timeout_ms=500)).values():
                for raw in batch:
                    yield decoded(record_of(raw))
    finally:
        await consumer.stop()


async def letters(kafka: Kafka, consumer: Consumer, parked: Sequence[Parked]) -> list[Record]:
    """The dead letters of these parked records, each in its present attempt."""
    current = {(one.key, str(one.attempt)) for one in parked}
    found = []
    for topic in sorted({one.topic for one in parked}):
        for letter in await read_topic(kafka, dead_letters(topic, consumer.group)):
            described = description(letter)
            if (described.get("dl_key", ""), described.get("dl_attempt", "")) in current:
                found.append(letter)
    return found
