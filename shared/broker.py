"""Topics and rights on the broker, as code: what `prepare` creates, and what operators compare and mend."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from shared.contracts import REGISTRY
from shared.inbox import Consumer, dead_letters
from shared.kafka import Kafka

RETENTION_MS = 400 * 86_400_000  # a cohort alone lasts 119 days
SERVICE_PARTITIONS = 12
SOURCE_MESSAGE_BYTES = 1_048_588  # the broker's default
DEAD_LETTER_BYTES = 2 * SOURCE_MESSAGE_BYTES
SCRAM_ITERATIONS = 8192


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it must be. Partitions are never changed in place: keys would move."""

    name: str
    partitions: int
    max_message_bytes: int | None = None

    @property
    def settings(self) -> dict[str, str]:
        """What the broker must keep of it, by the broker's names."""
        # A limit of bytes is kept only where they lie as they are: a compressed record of five kilobytes may be too
        # large for its dead letter, or for a document. And not every codec is one that a consumer can read.
        settings = {"retention.ms": str(RETENTION_MS), "cleanup.policy": "delete", "compression.type": "uncompressed"}
        if self.max_message_bytes:
            settings["max.message.bytes"] = str(self.max_message_bytes)
        return settings


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing on the broker that is not as declared."""

    kind: Literal["topic-missing", "partitions", "setting", "right-missing", "undeclared"]
    name: str
    told: str
    cure: Topic | AclBinding | None = None
    """What `apply` makes as it must be; nothing where it cannot."""

    def __str__(self) -> str:
        return f"{self.name}: {self.told}"

    @property
    def do(self) -> str:
        """What an operator does about it."""
        match self.kind:
            case "partitions":
                return "never changed in place, keys would move: move to a topic of a new name"
            case "undeclared":
                return "take it away (kafka-acls --remove), unless you know who gave it and why"
        return "topics apply"


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
        wanted.append(
            NewTopic(topic.name, num_partitions=topic.partitions, replication_factor=replication, config=topic.settings)
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


async def make_user(kafka: Kafka, user: str, password: str) -> None:
    """Let a user in by this password, known or not: so an emptied broker and a new password are both taken care of."""
    await asyncio.to_thread(_make_user, kafka, user, password)


def _make_user(kafka: Kafka, user: str, password: str) -> None:
    admin = AdminClient(kafka.librdkafka())  # what it is asked fails as soon as nobody holds it any more
    mechanism = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, SCRAM_ITERATIONS)
    asked = admin.alter_user_scram_credentials([UserScramCredentialUpsertion(user, mechanism, password.encode())])
    for future in asked.values():
        future.result(timeout=20)


async def differences(
    kafka: Kafka, topics: Sequence[Topic], rights: Sequence[AclBinding], agencies_prefix: str | None = None
) -> list[Difference]:
    """What is not as declared, as the administrator sees it; nothing is changed.

    With `agencies_prefix` the agencies' topics that are there count as declared, each with its agency's rights. What
    the users of declared rights, and agencies, may do beyond them is told as undeclared. Where no rights are
    declared, none are looked at.
    """
    return await asyncio.to_thread(_differences, kafka, list(topics), list(rights), agencies_prefix)


def _differences(
    kafka: Kafka, topics: list[Topic], rights: list[AclBinding], agencies_prefix: str | None
) -> list[Difference]:
    admin = AdminClient({**kafka.librdkafka(), "log_level": 0})
    there = admin.list_topics(timeout=15).topics
    agencies = [name for name in sorted(there) if agencies_prefix and name.startswith(agencies_prefix)]
    topics += [Topic(name, 1) for name in agencies]
    if rights:
        rights += [right for name in agencies for right in rights_of_agency(name.removeprefix(agencies_prefix or ""))]
    found = [
        Difference("topic-missing", t.name, f"missing; declared with {t.partitions} partitions", t)
        for t in topics
        if t.name not in there
    ]
    known = [topic for topic in topics if topic.name in there]
    asked = [ConfigResource(ConfigResource.Type.TOPIC, topic.name) for topic in known]
    kept: dict[str, Any] = {}
    for resource, future in admin.describe_configs(asked, request_timeout=15).items() if asked else ():
        kept[resource.name] = future.result(timeout=20)
    for topic in known:
        if (partitions := len(there[topic.name].partitions)) != topic.partitions:
            found.append(Difference("partitions", topic.name, f"{partitions} partitions, declared {topic.partitions}"))
        for name, declared in topic.settings.items():
            if (value := kept[topic.name][name].value) != declared:
                found.append(Difference("setting", topic.name, f"{name}={value}, declared {declared}", topic))
    if rights:
        anything = AclBindingFilter(
            ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
        )
        given = {
            (_whose(acl), _words(acl)) for acl in admin.describe_acls(anything, request_timeout=15).result(timeout=20)
        }
        wanted = {(_whose(acl), _words(acl)): acl for acl in rights}
        users = {user for user, _ in wanted}
        for user, words in sorted(wanted.keys() - given):
            acl = wanted[user, words]
            found.append(Difference("right-missing", user, f"may not {words}, as is declared", acl))
        for user, words in sorted(given - wanted.keys()):
            if user in users or (agencies_prefix and user.startswith("agency-")):
                found.append(Difference("undeclared", user, f"may {words}, which is not declared"))
    return found


def _whose(acl: AclBinding) -> str:
    return str(acl.principal).removeprefix("User:")


def _words(acl: AclBinding) -> str:
    """A right in words: `READ topic training.enrollment`."""
    told = f"{acl.operation.name} {acl.restype.name.lower()} {acl.name}"
    if acl.resource_pattern_type is ResourcePatternType.PREFIXED:
        told += "*"
    if acl.permission_type is not AclPermissionType.ALLOW:
        told = f"{acl.permission_type.name} {told}"
    if acl.host != "*":
        told += f" from {acl.host}"
    return told


async def apply(kafka: Kafka, found: Sequence[Difference], replication: int) -> None:
    """Mend those of the differences that can be mended: create what is missing, set what is set otherwise.

    Nothing is taken away.
    """
    topics = [d.cure for d in found if d.kind == "topic-missing" and isinstance(d.cure, Topic)]
    rights = [d.cure for d in found if d.kind == "right-missing" and isinstance(d.cure, AclBinding)]
    await prepare(kafka, topics, rights, replication)
    settings = [d.cure for d in found if d.kind == "setting" and isinstance(d.cure, Topic)]
    await asyncio.to_thread(_set, kafka, list(dict.fromkeys(settings)))


def _set(kafka: Kafka, topics: Sequence[Topic]) -> None:
    admin = AdminClient({**kafka.librdkafka(), "log_level": 0})
    asked = [
        ConfigResource(
            ConfigResource.Type.TOPIC,
            topic.name,
            incremental_configs=[
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                for name, value in topic.settings.items()
            ],
        )
        for topic in topics
    ]
    for future in admin.incremental_alter_configs(asked, request_timeout=15).values() if asked else ():
        future.result(timeout=20)
