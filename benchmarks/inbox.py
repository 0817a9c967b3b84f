"""The inbox: how fast events that wait on a topic are handled."""

from __future__ import annotations

import asyncio
import time

from aiokafka import AIOKafkaProducer

from benchmarks.figures import Figure, Measure, compared, side_by_side
from benchmarks.floors.inbox import listen
from benchmarks.relay import documents
from benchmarks.site import Site
from benchmarks.world import LISTENER, called_on, listening
from shared.kafka import Kafka
from shared.mongo import Database
from shared.worker import Intakes


async def produce(kafka: Kafka, topic: str, events: int, first: int = 0) -> None:
    """Put so many events on the topic, each of another roster."""
    producer = AIOKafkaProducer(**kafka.aiokafka(), max_batch_size=128 * 1024)
    await producer.start()
    try:
        for document in documents(topic, first + events, 1)[first:]:
            (row,) = document["rows"]
            headers = [(name, value) for name, value in row["headers"]]
            await producer.send(topic, row["value"], key=row["key"], headers=headers)
        await producer.flush()
    finally:
        await producer.stop()


async def handled(database: Database, kafka: Kafka, topic: str, group: str, events: int, before: int = 0) -> float:
    """Our worker's intake: events a second, from the first commit to the last. Every one must have been handled."""
    with called_on(topic):
        consumer = listening(group)
        intakes = Intakes([consumer], database, kafka, "bench")
        await intakes.start(asyncio.Event())
        done = first = 0
        began = time.perf_counter()
        while done < events:
            await asyncio.sleep(0.01)
            done = sum(intakes.groups[0].committed.values()) - before
            if 0 < done < events and not first:
                first, began = done, time.perf_counter()
        seconds = time.perf_counter() - began
        await intakes.stop()
    fates = await database.collection("inbox").distinct("fate")
    if fates != ["handled"]:
        raise SystemExit(f"benchmarks: events of the inbox were {', '.join(fates)}")
    return (done - first) / seconds


async def measure(site: Site) -> list[Figure]:
    size = site.size
    topics = {}
    for events in (size.events, size.single_events):
        topics[events] = await site.topic(f"training.{site.name('events')}")
        await produce(site.kafka, topics[events], events)

    async def ours() -> list[float]:
        database = await site.database("inbox", service=LISTENER)
        rate = await handled(database, site.kafka, topics[size.events], site.name("group"), size.events)
        await database.drop()
        await database.close()
        return [rate]

    def bare(events: int, at_once: int) -> Measure:
        async def run() -> list[float]:
            name = site.name("inbox")
            database = await site.database("inbox", name=name)
            kafka = site.kafka.aiokafka()
            rate = await listen(site.mongo_uri, name, kafka, topics[events], site.name("group"), events, at_once)
            await database.drop()
            await database.close()
            return [rate]

        return run

    values = await side_by_side(ours, bare(size.events, 100), bare(size.single_events, 1), runs=size.runs)
    mine, batches, singles = ([value[0] for value in measured] for measured in values)
    return [
        compared(
            "inbox; bare aiokafka, same writes, 100 a transaction", "events/s", mine, batches, 0.85, at_least=True
        ),
        compared("inbox; bare aiokafka, a transaction for each event", "events/s", mine, singles, 6, at_least=True),
    ]
