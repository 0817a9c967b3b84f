"""A scenario played on a running stack, from the registration of its agencies to its certificates, and read back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

from demo.place import Place
from demo.player import QUIET_SECONDS, Gateway, Player
from demo.scenario import Scenario, cast
from demo.story import Story, Told
from demo.summary import Summary, read_back
from demo.topics import Listener, kafka


async def play(
    scenario: Scenario,
    place: Place,
    told: Told,
    *,
    patience: float = QUIET_SECONDS,
    calm: Callable[[], Awaitable[None]] | None = None,
) -> Summary:
    """Play on a place that holds nothing yet and whose virtual clock stands at `scenario.begins_at`.

    `told` hears each instant with what is done then, in words. Agencies listen with their own users meanwhile.
    `patience` is how long something may stay on its way, in seconds: more where processes are killed meanwhile;
    `calm` ends that: it is awaited after the last step, before anything is read back.
    Raises `NotQuiet`, `NotRead` and `Unexpected`.
    """
    endpoints = place.endpoints
    listeners: list[Listener] = []

    async def provision(codes: list[str]) -> None:
        arguments = [argument for code in codes for argument in ("--agency", code)]
        await asyncio.to_thread(place.prepare, "notification", *arguments)
        for code in codes:
            reader = kafka(place.endpoints, place.credentials(f"kafka-agency-{code}"))
            listeners.append(Listener(code, reader, patient=patience > QUIET_SECONDS))
            listeners[-1].start()

    # A pool looks at each of its connections for every request: the many short questions get a small one of their own.
    async with httpx.AsyncClient(timeout=30, verify=place.trust) as http, httpx.AsyncClient(timeout=5) as asking:
        gateway = Gateway(endpoints["gateway"], place.sign_in, http)
        gateway.patience = patience - QUIET_SECONDS  # none in a play where nobody is ended
        player = Player(Path(endpoints["clock"]), place.workers, asking, patience=patience)
        player.now = scenario.begins_at
        story = Story(scenario, cast(scenario), gateway, player, told)
        began = time.monotonic()
        try:
            await story.play(provision)
            seconds = time.monotonic() - began
            if calm is not None:
                await calm()
                await player.quiet()
            await asyncio.gather(*(listener.caught_up() for listener in listeners))
            admin = kafka(endpoints, place.credentials("kafka-admin"))
            summary = await read_back(story, endpoints, admin, listeners, http, await place.mails())
        finally:
            for listener in listeners:
                await listener.stop()
    summary.say("played in", f"{seconds:.0f} s, {gateway.calls} calls")
    summary.say("stops of the clock", player.told_stops())
    return summary
