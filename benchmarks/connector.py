"""The relay beside what one would take instead of it."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.figures import Figure, compared, side_by_side
from benchmarks.floors.connector import Connector, connector
from benchmarks.relay import documents, fill, relayed
from benchmarks.site import PARTITIONS, Site, free_port
from benchmarks.world import Called
from shared.mongo import Database
from stack import Missing


async def measure(site: Site) -> list[Figure]:
    """Nothing where Kafka Connect cannot be fetched or started."""
    try:
        with open_mongo(site) as uri:
            beside = dataclasses.replace(site, mongo_uri=uri)
            name, topic = site.name("connector"), await site.topic(f"training.{site.name('connector')}")
            database = await beside.database("connector", name=name)
            with connector(site.folder, free_port(), site.kafka, uri, name, topic) as running:
                consumer = AIOKafkaConsumer(**site.kafka.aiokafka())
                await consumer.start()
                try:
                    return await _beside(beside, running, database, consumer, topic)
                finally:
                    await consumer.stop()
                    await database.close()
    except (Missing, TimeoutError) as error:
        print(f"benchmarks: without Kafka Connect: {error}", file=sys.stderr)
        return []


@contextmanager
def open_mongo(site: Site) -> Iterator[str]:
    """The caller's server, or an embedded one that asks nobody who he is: where rights exist the connector wants to
    be told them in a way that the embedded server does not know."""
    if site.stack is None:
        yield site.mongo_uri
        return
    port = free_port()
    program = Path(sys.executable).with_name("secantusd-py")
    command = [str(program), "--port", str(port), "--storage-path", str(site.folder / "open-mongo")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if time.monotonic() > deadline:
                raise TimeoutError("the embedded server did not start")
            time.sleep(0.05)
        yield f"mongodb://127.0.0.1:{port}/?directConnection=true"
    finally:
        process.terminate()
        process.wait(20)


async def _beside(
    site: Site, running: Connector, database: Database, consumer: AIOKafkaConsumer, topic: str
) -> list[Figure]:
    partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    loop = asyncio.get_running_loop()
    count = 0

    async def arrived(events: int) -> None:
        deadline = loop.time() + 120
        while sum((await consumer.end_offsets(partitions)).values()) < events:
            if loop.time() > deadline:
                raise TimeoutError("the connector has stopped sending")
            await asyncio.sleep(0.01)

    async def theirs(events: int, live: bool) -> list[float]:
        nonlocal count
        lying = documents(topic, events, 1)
        for document in lying:
            document["_id"] += f"-{count}"
        if live:
            began = loop.time()
            await fill(database, lying, 20)
        else:
            await asyncio.to_thread(running.tell, "pause")
            await asyncio.to_thread(running.wait, "PAUSED")
            await fill(database, lying)
            began = loop.time()
            await asyncio.to_thread(running.tell, "resume")
        count += events
        await arrived(count)
        return [events / (loop.time() - began)]

    async def ours(events: int, live: bool) -> list[float]:
        own = await site.database("outbox")
        lying = documents(Called.topic, events, 1 if live else 10)
        if not live:
            await fill(own, lying)
        began = loop.time()
        relaying = relayed(own, site.kafka, Called.topic, events)
        await asyncio.gather(relaying, *([fill(own, lying, 20)] if live else []))
        seconds = loop.time() - began
        await own.drop()
        await own.close()
        return [events / seconds]

    await site.topic(Called.topic)
    await theirs(min(1000, site.size.backlog), True)  # warm, as a Java machine wants to be
    await ours(20, False)
    figures = []
    for live, must in ((False, 1.0), (True, 0.6)):
        events = site.size.backlog // (2 if live else 1)
        mine, floor = await side_by_side(
            partial(ours, events, live), partial(theirs, events, live), runs=site.size.runs
        )
        figures.append(
            compared(
                f"relay: {'live, while others write' if live else 'backlog, 10 events a transaction'}; Kafka Connect",
                "events/s",
                [value for (value,) in mine],
                [value for (value,) in floor],
                must,
                at_least=True,
            )
        )
    return figures
