"""Topics and rights on the broker, as code: what `prepare` creates and compares."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from shared.contracts import REGISTRY
from shared.inbox import Consumer, dead_letters
from shared.kafka import Kafka

RETENTION_MS = 400 * 86_400_000  # a cohort alone lasts 119 days
SERVICE_PARTITIONS = 12
SOURCE_MESSAGE_BYTES = 1_048_588  # the broker's default
DEAD_LETTER_BYTES = 2 * SOURCE_MESSAGE_BYTES


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it must be. Partitions are never changed in place: keys would move."""

    name: str
    partitions: int
    max_message_bytes: int | None = None


def topics_of(service: str, consumers: Sequence[Consumer]) -> list[Topic]:
    """The topics that a service owns: what it publishes, and where its groups park."""
    own = {event.topic for event in REGISTRY.values() if event.topic.split(".")[1].split("-")[0] == service}
    parked = {dead_letters(topic, consumer.group) for consumer in consumers for topic in consumer.topics}
    return [
        *(Topic(name, SERVICE_PARTITIONS) for name in sorted(own)),
        *(Topic(name, 1, DEAD_LETTER_BYTES) for name in sorted(parked)),
    ]


def _acl(kind: ResourceType, name: str, user: str, operation: AclOperation, *, prefixed: bool = False) -> AclBinding:
    pattern = ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL
    return AclBinding(kind, name, pattern, f"User:{user}", "*", operation, AclPermissionType.ALLOW)


def rights_of(
    user: str, owned: Sequence[Topic], consumers: Sequence[Consumer], writes_prefix: str | None
) -> list[AclBinding]:
    """What the service's user may do: write its own topics and dead letters, read what its groups consume."""
    topic, group = ResourceType.TOPIC, ResourceType.GROUP
    rights = [_acl(topic, owned_topic.name, user, AclOperation.WRITE) for owned_topic in owned]
    rights += [_acl(topic, t.name, user, AclOperation.READ) for t in owned if t.name.endswith(".dlq")]
    if writes_prefix:
        rights.append(_acl(topic, writes_prefix, user, AclOperation.WRITE, prefixed=True))
    for consumer in consumers:
        rights += [_acl(topic, name, user, AclOperation.READ) for name in consumer.topics]
        rights.append(_acl(group, consumer.group, user, AclOperation.READ))
    return rights


def rights_of_agency(code: str) -> list[AclBinding]:
    """An agency reads its own topic, with any group under its own prefix (the final dot keeps others' names out)."""
    user = f"agency-{code}"
    return [
        _acl(ResourceType.TOPIC, f"training.agency.{code}", user, AclOperation.READ),
        _acl(ResourceType.GROUP, f"agency.{code}.", user, AclOperation.READ, prefixed=True),
    ]


async def prepare(kafka: Kafka, topics: Sequence[Topic], rights: Sequence[AclBinding], replication: int) -> list[str]:
    """Create what is missing. Safe to run twice and at once. Returns what differs from what is declared, in words."""
    return await asyncio.to_thread(_prepare, kafka, topics, rights, replication)


def _prepare(kafka: Kafka, topics: Sequence[Topic], rights: Sequence[AclBinding], replication: int) -> list[str]:
    admin = AdminClient(kafka.librdkafka())
    wanted = []
    for topic in topics:
        config = {"retention.ms": str(RETENTION_MS), "cleanup.policy": "delete"}
        if topic.max_message_bytes:
            config["max.message.bytes"] = str(topic.max_message_bytes)
        wanted.append(
            NewTopic(topic.name, num_partitions=topic.partitions, replication_factor=replication, config=config)
        )
    if wanted:
        for future in admin.create_topics(wanted, request_timeout=15).values():
            try:
                future.result(timeout=20)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
    for created in admin.create_acls(list(dict.fromkeys(rights)), request_timeout=15).values() if rights else ():
        created.result(timeout=20)
    there = admin.list_topics(timeout=15).topics
    return [
        f"{topic.name}: {len(there[topic.name].partitions)} partitions, declared {topic.partitions}"
        for topic in topics
        if topic.name in there and len(there[topic.name].partitions) != topic.partitions
    ]
