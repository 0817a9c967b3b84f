"""The relay: how fast what lies in the outbox leaves it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from prometheus_client import REGISTRY

from benchmarks.figures import Figure, compared, side_by_side
from benchmarks.floors.relay import drain
from benchmarks.site import Site
from benchmarks.world import Called, called_on, roster_id
from shared.clock import real_now
from shared.cloudevents import headers_for
from shared.kafka import Kafka
from shared.mongo import Database
from shared.outbox import Relay


def documents(topic: str, events: int, per_document: int) -> list[dict[str, Any]]:
    """Outbox documents as transactions of so many events leave them."""
    rows = []
    with called_on(topic):
        for number in range(events):
            event = Called(roster_id=roster_id(number), number=1)
            headers = headers_for(
                event,
                sequence=1,
                time=real_now(),
                recordedtime=real_now(),
                correlationid=event.roster_id,
                causationid=None,
                authtype="system",
                authid="system",
                traceparent=None,
                agencyid="-",
            )
            value = event.model_dump_json().encode()
            rows.append(
                {"key": event.key.encode(), "value": value, "headers": [[name, text] for name, text in headers]}
            )
    return [
        {"_id": f"{first + 1:020d}-00000000-0000", "topic": topic, "rows": rows[first : first + per_document]}
        for first in range(0, events, per_document)
    ]


async def fill(database: Database, lying: list[dict[str, Any]], at_once: int = 1000) -> None:
    for first in range(0, len(lying), at_once):
        await database.collection("outbox").insert_many(lying[first : first + at_once])


async def relayed(database: Database, kafka: Kafka, topic: str, events: int) -> None:
    """Our relay, from its start until so many events have left and it has ended."""

    def gone() -> float:
        return REGISTRY.get_sample_value("training_published_total", {"topic": topic}) or 0

    before = gone()
    relay = Relay(database, kafka)
    running = asyncio.create_task(relay.run())
    while gone() - before < events:
        await asyncio.sleep(0.002)
        if running.done():
            running.result()
    relay.stop()
    await running


Drain = Callable[[Database, str, int], Awaitable[None]]


async def measure(site: Site) -> list[Figure]:
    topic = await site.topic(f"training.{site.name('relayed')}")

    async def ours(database: Database, name: str, events: int) -> None:
        await relayed(database, site.kafka, topic, events)

    async def bare(database: Database, name: str, events: int) -> None:
        await drain(site.mongo_uri, name, site.kafka.aiokafka(), events)

    async def run(how: Drain, events: int, per_document: int, live: bool) -> list[float]:
        name = site.name("outbox")
        database = await site.database("outbox", name=name)
        lying = documents(topic, events, per_document)
        loop = asyncio.get_running_loop()
        if live:
            began = loop.time()
            await asyncio.gather(how(database, name, events), fill(database, lying, 20))
        else:
            await fill(database, lying)
            began = loop.time()
            await how(database, name, events)
        seconds = loop.time() - began
        await database.drop()
        await database.close()
        return [events / seconds]

    figures = []
    await run(ours, 20, 1, False)  # the topic's leaders are there from now on
    for per_document, live in ((1, False), (10, False), (100, False), (1, True)):
        told = f"{per_document} event{'s' * (per_document > 1)} a transaction"
        events = site.size.backlog // (2 if live else 1)
        mine, floor = await side_by_side(
            partial(run, ours, events, per_document, live),
            partial(run, bare, events, per_document, live),
            runs=site.size.runs,
        )
        figures.append(
            compared(
                f"relay: {'live, while others write' if live else 'backlog'}, {told}; bare loop",
                "events/s",
                [value for (value,) in mine],
                [value for (value,) in floor],
                0.6 if live else 0.85,
                at_least=True,
            )
        )
    return figures
