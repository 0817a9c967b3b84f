"""What each process holds in memory: after its start here, under a load where `command` and `latency` ask for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from benchmarks.figures import Figure, alone
from benchmarks.site import Site

MUST_MB = 90


def resident(name: str, pid: int) -> Figure:
    """What this process holds now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    held = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
    return alone(f"resident memory: {name}", "MB", held, MUST_MB)


async def measure(site: Site) -> list[Figure]:
    if site.stack is None:
        return []
    stack, figures = site.stack, []
    if site.size.services:
        await asyncio.to_thread(stack.up, stack.services)
    for part in (*stack.services, "mongo"):
        if pid := stack.processes.pid(part):
            figures.append(resident("server of MongoDB's protocol" if part == "mongo" else part, pid))
    for part in stack.services:
        stack.stop_part(part)
    return figures
