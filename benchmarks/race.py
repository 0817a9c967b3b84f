"""Many commands that want one of few seats at once, from two processes."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from uuid import uuid4

from benchmarks.figures import Figure, alone, compared, side_by_side
from benchmarks.site import Site
from benchmarks.world import SEATS

PATIENCE_SECONDS = 300.0
"""The floor's retries hinder each other the more there are; what it has not done by then shows enough."""


async def _race(site: Site, commands: int, *, naive: bool) -> list[float]:
    """Seconds until the last of them has its answer, and how many got a seat.

    A floor that takes longer than `PATIENCE_SECONDS` is ended and said to have taken so long, with every seat given.
    """
    name, cohort_id = site.name("race"), str(uuid4())
    database = await site.database("race", name=name)
    with ExitStack() as processes:
        racers = [
            processes.enter_context(
                site.process(
                    "racer", database=name, cohort_id=cohort_id, naive=naive, numbers=list(range(first, commands, 2))
                )
            )
            for first in range(2)
        ]
        for racer in racers:
            assert racer.stdin
            racer.stdin.write("go\n")
            racer.stdin.flush()
        answers = [asyncio.to_thread(racer.stdout.readline) for racer in racers if racer.stdout]
        waited = asyncio.gather(*answers)
        try:
            lines = await asyncio.wait_for(asyncio.shield(waited), PATIENCE_SECONDS if naive else None)
        except TimeoutError:
            for racer in racers:
                racer.kill()
            await waited
            await database.drop()
            await database.close()
            return [PATIENCE_SECONDS, SEATS]
        if not all(lines):
            raise site.ended("racer")
        told = [json.loads(line) for line in lines]
    seats = await database.collection("seats").find({}).to_list(None)
    await database.drop()
    await database.close()
    if sum(t["seated"] for t in told) != len(seats):
        raise SystemExit(f"benchmarks: {told} of a race that left {len(seats)} seats")
    return [max(t["seconds"] for t in told), len(seats)]


async def measure(site: Site) -> list[Figure]:
    figures = []
    wrong = 0.0
    for commands in site.size.racers:

        async def ours(commands: int = commands) -> list[float]:
            return await _race(site, commands, naive=False)

        async def bare(commands: int = commands) -> list[float]:
            return await _race(site, commands, naive=True)

        runs = site.size.runs if commands <= 200 else 1  # the floor takes minutes
        mine, floor = await side_by_side(ours, bare, runs=runs)
        wrong += sum(abs(seats - SEATS) for _, seats in (*mine, *floor))
        figures.append(
            compared(
                f"{commands} commands for {SEATS} seats, two processes; no pause, no lock",
                "commands/s",
                [commands / seconds for seconds, _ in mine],
                [commands / seconds for seconds, _ in floor],
                10,
                at_least=True,
            )
        )
    figures.append(alone(f"seats given beyond or below {SEATS}, in all these races", "", wrong, 0))
    return figures
