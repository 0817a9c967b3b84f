"""What each process holds in memory: the services' own, and those that other benchmarks have seen at work."""

from __future__ import annotations

import asyncio

from benchmarks.figures import Figure, alone
from benchmarks.site import Site, resident_mb

MUST_MB = 90


async def measure(site: Site) -> list[Figure]:
    seen = dict(site.resident)
    if site.stack is not None:
        stack = site.stack
        if site.size.services:
            await asyncio.to_thread(stack.up, stack.services)
        for part in (*stack.services, "mongo"):
            if pid := stack.processes.pid(part):
                seen["server of MongoDB's protocol, after the run" if part == "mongo" else part] = resident_mb(pid)
        for part in stack.services:
            stack.stop_part(part)
    return [alone(f"resident memory: {name}", "MB", held, MUST_MB) for name, held in seen.items()]
