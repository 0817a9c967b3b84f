"""From a command to the handler of a foreign service, each in its own process."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

from benchmarks.figures import Figure, compared, percentile, side_by_side
from benchmarks.floors.latency import Sender
from benchmarks.memory import resident
from benchmarks.site import Site
from benchmarks.world import LISTENER, Called, call_out, roster_id
from shared.inbox import dead_letters
from shared.mongo import Database

PACE_SECONDS = 0.05
_rosters = itertools.count(1_000_000)


async def _delays(send: Callable[[str], Awaitable[object]], listener: Database, number: int) -> list[float]:
    """Milliseconds from before each command to its handler, one command after another at a steady pace."""
    began: dict[str, int] = {}
    for _ in range(number):
        id = roster_id(next(_rosters))
        began[id] = time.time_ns()
        await send(id)
        await asyncio.sleep(PACE_SECONDS)
    ids = list(began)
    deadline = time.monotonic() + 30
    while True:
        heard = await listener.collection("heard").find({"_id": {"$in": ids}}).to_list(None)
        if len(heard) == number:
            return [(row["heard_ns"] - began[row["_id"]]) / 1e6 for row in heard]
        if time.monotonic() > deadline:
            raise SystemExit(f"benchmarks: of {number} events {len(heard)} were heard")
        await asyncio.sleep(0.05)


async def measure(site: Site) -> list[Figure]:
    names = {kind: site.name(kind) for kind in ("caller", "listener", "sender", "receiver")}
    databases = {kind: await site.database(kind, name=name) for kind, name in names.items()}
    floor_topic = f"training.{site.name('hand')}"
    for topic in (Called.topic, floor_topic, dead_letters(Called.topic, LISTENER)):
        await site.topic(topic)
    kafka = site.kafka.aiokafka()
    held: list[Figure] = []
    with ExitStack() as processes:

        def worker(name: str, database: str) -> None:
            told = {"service": name, "settings": site.settings(database), "as": "worker"}
            child = processes.enter_context(site.process(f"service-{name}", **told))
            workers[name] = child.pid

        workers: dict[str, int] = {}
        worker("caller", names["caller"])
        worker("listener", names["listener"])
        processes.enter_context(
            site.process("listener", database=names["receiver"], topic=floor_topic, group=site.name("group"))
        )
        async with Sender(site.mongo_uri, names["sender"], kafka, floor_topic) as sender:

            async def ours(number: int = site.size.delays) -> list[float]:
                took = await _delays(lambda id: call_out(id, databases["caller"]), databases["listener"], number)
                return [percentile(took, 0.5), percentile(took, 0.99)]

            async def bare(number: int = site.size.delays) -> list[float]:
                took = await _delays(sender.call_out, databases["receiver"], number)
                return [percentile(took, 0.5), percentile(took, 0.99)]

            await ours(3)
            await bare(3)
            mine, floor = await side_by_side(ours, bare, runs=site.size.runs)
        for name, pid in workers.items():
            held.append(resident(f"{name}'s worker at work", pid))
    for database in databases.values():
        await database.close()
    return [
        compared(
            f"command to foreign handler, {share}; transaction, produce, consume by hand",
            "ms",
            [value[index] for value in mine],
            [value[index] for value in floor],
            must,
            at_least=False,
        )
        for index, (share, must) in enumerate((("p50", 1.6), ("p99", 2.0)))
    ] + held
