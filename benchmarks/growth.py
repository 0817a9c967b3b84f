"""What an event and a command cost when topic and collections have grown a hundredfold."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.figures import Figure, alone, compared, side_by_side
from benchmarks.inbox import handled, produce
from benchmarks.site import PARTITIONS, Site
from benchmarks.world import Heard, Roster, call_out, roster_id
from shared.kafka import Kafka
from shared.mongo import Database, document

MUST = 1.25


@dataclass
class _Place:
    """A database, a topic and a group that have a past of so many events."""

    database: Database
    topic: str
    group: str
    events: int
    commands: int = field(default=0)


async def _grown(site: Site, past: int) -> _Place:
    database, group = await site.database("grown"), site.name("group")
    topic = await site.topic(f"training.{site.name('grown')}")
    now = datetime.now(UTC)
    for first in range(0, past, 1000):
        numbers = range(first, min(past, first + 1000))
        rows = [{"_id": f"{group}|past|{roster_id(number)}", "fate": "handled", "at": now} for number in numbers]
        await database.collection("inbox").insert_many(rows)
        for cls in (Heard, Roster):
            states = [document(cls(id=roster_id(number), version=1, number=1)) for number in numbers]
            await database.collection(cls.collection).insert_many(states)
    await produce(site.kafka, topic, past)
    await _caught_up(site.kafka, topic, group)
    return _Place(database, topic, group, past)


async def _caught_up(kafka: Kafka, topic: str, group: str) -> None:
    """Commit the topic's end for the group, as if it had handled all of it."""
    consumer = AIOKafkaConsumer(**kafka.aiokafka(), group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.commit(await consumer.end_offsets(partitions))
    finally:
        await consumer.stop()


async def _examined(database: Database, name: str, filter: dict[str, Any]) -> int:
    """How many documents the server looks at to answer; all of them, where it does not say."""
    told = await database.collection(name).find(filter).explain()
    examined = told.get("executionStats", {}).get("totalDocsExamined")
    return int(examined if examined is not None else await database.collection(name).estimated_document_count())


async def measure(site: Site) -> list[Figure]:
    size = site.size
    small, large = await _grown(site, size.small), await _grown(site, size.large)
    batch = min(1000, size.events)

    async def run(place: _Place) -> list[float]:
        await produce(site.kafka, place.topic, batch, place.events)
        rate = await handled(place.database, site.kafka, place.topic, place.group, batch, place.events)
        place.events += batch
        began = time.perf_counter()
        commands = max(3, batch // 10)
        for number in range(commands):
            await call_out(roster_id(place.commands + number), place.database)
        place.commands += commands
        return [1e6 / rate if rate else 1.0, (time.perf_counter() - began) / commands * 1e6]

    grown, new = await side_by_side(lambda: run(large), lambda: run(small), runs=size.runs)
    figures = [
        compared(
            f"{name}: {size.large:,} events and states there, beside {size.small:,}",
            "µs",
            [value[index] for value in grown],
            [value[index] for value in new],
            MUST,
            at_least=False,
        )
        for index, name in enumerate(("an event in the inbox", "a command"))
    ]
    ids = [roster_id(number) for number in range(100)]
    keys = [f"{large.group}|past|{id}" for id in ids]
    for name, wanted in (("heard", ids), ("inbox", keys)):
        examined = await _examined(large.database, name, {"_id": {"$in": wanted}})
        figures.append(
            alone(f"documents of {size.large:,} in {name} looked at for a batch of 100, by explain", "", examined, 100)
        )
    for place in (small, large):
        await place.database.drop()
        await place.database.close()
    return figures
