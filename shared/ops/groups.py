"""Consumer groups as the broker knows them: how far they are, who is in them, and putting them back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from confluent_kafka import ConsumerGroupState, ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from shared.kafka import Kafka

SECONDS = 15
T = TypeVar("T")
_UNSETTLED = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)


@dataclass(frozen=True, slots=True)
class Standing:
    """A group: its members, and by topic how many records it has and how many of them are to be done."""

    group: str
    state: str
    members: tuple[str, ...]
    lag: dict[str, int]
    records: dict[str, int]

    @property
    def empty(self) -> bool:
        return not self.members

    @property
    def total(self) -> int:
        return sum(self.lag.values())


class Occupied(Exception):
    """The group has members, and Kafka sets the offsets of an empty group only."""

    def __init__(self, standing: Standing) -> None:
        super().__init__(f"{standing.group} has {len(standing.members)} members")
        self.standing = standing


async def stands(kafka: Kafka, group: str, topics: Iterable[str]) -> Standing:
    """Where the group stands. Raises `KafkaException`."""
    return await _settled(_stands, _admin(kafka), group, sorted(topics))


async def rewind(kafka: Kafka, group: str, topic: str) -> int:
    """Have the group read the topic again from its beginning. Returns how many partitions were set.

    Raises `Occupied` while anybody is a member, also one who has just left and is still waited for.
    """
    return await _settled(_rewind, _admin(kafka), group, topic)


async def _settled(ask: Callable[..., T], *arguments: Any) -> T:
    """Ask again while the broker is still making up its mind who looks after the group, or a partition."""
    deadline = asyncio.get_running_loop().time() + SECONDS
    while True:
        try:
            return await asyncio.to_thread(ask, *arguments)
        except KafkaException as error:
            passing = error.args[0].code() in _UNSETTLED or error.args[0].retriable()
            if not passing or asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(0.2)


def _admin(kafka: Kafka) -> AdminClient:
    return AdminClient({**kafka.librdkafka(), "log_level": 0})


def _partitions(admin: AdminClient, topics: Iterable[str]) -> list[TopicPartition]:
    found = []
    for topic in topics:
        described = admin.list_topics(topic, timeout=SECONDS).topics[topic]
        found += [TopicPartition(topic, number) for number in described.partitions]
    return found


def _offsets(admin: AdminClient, partitions: list[TopicPartition], spec: OffsetSpec) -> dict[tuple[str, int], int]:
    asked = {TopicPartition(p.topic, p.partition): spec for p in partitions}
    answers = admin.list_offsets(asked, request_timeout=SECONDS) if asked else {}
    return {(p.topic, p.partition): future.result(timeout=SECONDS).offset for p, future in answers.items()}


def _stands(admin: AdminClient, group: str, topics: list[str]) -> Standing:
    partitions = _partitions(admin, topics)
    first = _offsets(admin, partitions, OffsetSpec.earliest())
    end = _offsets(admin, partitions, OffsetSpec.latest())
    asked = [ConsumerGroupTopicPartitions(group)]
    committed: dict[tuple[str, int], int] = {}
    state, members = "empty", ()
    try:
        (future,) = admin.describe_consumer_groups([group], request_timeout=SECONDS).values()
        described = future.result(timeout=SECONDS)
        if described.state is not ConsumerGroupState.DEAD:
            state = described.state.name.lower()
        members = tuple(sorted(m.group_instance_id or m.client_id for m in described.members))
        (future,) = admin.list_consumer_group_offsets(asked, request_timeout=SECONDS).values()
        told = future.result(timeout=SECONDS).topic_partitions
        committed = {(p.topic, p.partition): p.offset for p in told if p.offset >= 0}
    except KafkaException as error:
        if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:  # nobody has ever read as this group
            raise
    lag, records = dict.fromkeys(topics, 0), dict.fromkeys(topics, 0)
    for place, last in end.items():
        lag[place[0]] += max(0, last - max(committed.get(place, 0), first[place]))
        records[place[0]] += last - first[place]
    return Standing(group, state, members, lag, records)


def _rewind(admin: AdminClient, group: str, topic: str) -> int:
    standing = _stands(admin, group, [topic])
    if not standing.empty:
        raise Occupied(standing)
    first = _offsets(admin, _partitions(admin, [topic]), OffsetSpec.earliest())
    wanted = [TopicPartition(name, partition, offset) for (name, partition), offset in first.items()]
    asked = [ConsumerGroupTopicPartitions(group, wanted)]
    try:
        (future,) = admin.alter_consumer_group_offsets(asked, request_timeout=SECONDS).values()
        for answer in future.result(timeout=SECONDS).topic_partitions:
            if answer.error:
                raise KafkaException(answer.error)
    except KafkaException as error:
        # Somebody joined since we looked.
        if error.args[0].code() in (KafkaError.UNKNOWN_MEMBER_ID, KafkaError.NON_EMPTY_GROUP):
            raise Occupied(_stands(admin, group, [topic])) from None
        raise
    return len(wanted)
