"""A command over HTTP: how long its caller waits."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import ExitStack
from functools import partial

from benchmarks.figures import Figure, compared, percentile, side_by_side
from benchmarks.memory import resident
from benchmarks.site import Site, bearer, free_port
from benchmarks.world import roster_id

MUST = 1.1


async def load(port: int, clients: int, requests: int) -> list[float]:
    """Seconds that each request took: bare streams, kept alive; each client has rosters of its own."""
    token = bearer()
    body = json.dumps({"note": 1}).encode()
    took: list[float] = []

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = (
            f"PUT /v1/rosters/{roster_id(number)}/number HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        for _ in range(requests // clients):
            began = time.perf_counter()
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = answer.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            told = await reader.readexactly(int(length))
            took.append(time.perf_counter() - began)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"benchmarks: the endpoint answered {answer!r} {told!r}")
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return took


async def measure(site: Site) -> list[Figure]:
    figures = []
    name, other = site.name("command"), site.name("command")
    for chosen in (name, other):
        await (await site.database("command", name=chosen)).close()
    settings = site.settings(name)
    floor_port = free_port()
    with ExitStack() as processes:
        api = processes.enter_context(site.process("service-api", service="caller", settings=settings, **{"as": "api"}))
        processes.enter_context(site.process("endpoint", database=other, port=floor_port))
        for port in (settings["http_port"], floor_port):
            await load(port, 1, min(100, site.size.requests))
        for clients, requests in ((1, site.size.requests), (16, 4 * site.size.requests)):

            async def run(port: int, clients: int = clients, requests: int = requests) -> list[float]:
                took = await load(port, clients, max(clients, requests))
                return [percentile(took, 0.5) * 1000, percentile(took, 0.99) * 1000]

            mine, floor = await side_by_side(
                partial(run, settings["http_port"]), partial(run, floor_port), runs=site.size.runs
            )
            for index, share in enumerate(("p50", "p99")):
                figures.append(
                    compared(
                        f"command over HTTP, {clients} client{'s' * (clients > 1)}, {share}; hand-written endpoint",
                        "ms",
                        [value[index] for value in mine],
                        [value[index] for value in floor],
                        MUST,
                        at_least=False,
                    )
                )
        figures.append(resident("api under load", api.pid))
    return figures
