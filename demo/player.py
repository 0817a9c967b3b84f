"""Moves a stack's virtual clock from step to step, and waits at each until nothing is on its way any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import httpx

QUIET_SECONDS = 10.0
AT_ONCE = 16
AWAY = (502, 503, 504)
PAUSE_SECONDS = 0.03
"""Between two passes while something is on its way: asking costs the workers and their databases time."""
SERVICES = ("enrollment", "scheduling", "assessment", "notification")


class NotQuiet(Exception):
    """Something stayed on its way; the message names who."""


class Unexpected(Exception):
    """A service answered otherwise than the play expects."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something that people do at an instant. Steps of one instant go out together."""

    at: datetime
    words: str
    act: Callable[[], Awaitable[Any]]


SignIn = Callable[[str, str | None, tuple[str, ...]], tuple[str, dict[str, str]]]
"""Role, person and agencies → where a token for them is asked for, and by which form."""


@dataclass
class Gateway:
    """Calls through the gateway, each with the token of whoever makes it."""

    url: str
    sign_in: SignIn
    http: httpx.AsyncClient
    _tokens: dict[tuple[str, ...], asyncio.Task[str]] = field(default_factory=dict)
    _at_once: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    calls: int = 0

    patience: float = 0.0
    """For how many seconds a call is made again while nobody answers it, as people do; every call may be repeated."""

    async def token(self, role: str, person_id: str | None, agency_ids: Iterable[str] = ()) -> str:
        """Signed in once, also where many calls of one person begin together."""
        key = (role, person_id or "", *agency_ids)
        if key not in self._tokens:
            self._tokens[key] = asyncio.create_task(self._signed_in(*self.sign_in(role, person_id, tuple(agency_ids))))
        return await self._tokens[key]

    async def _signed_in(self, url: str, form: dict[str, str]) -> str:
        answer = await self._answered("POST", url, data=form)
        answer.raise_for_status()
        return str(answer.json()["access_token"])

    async def call(
        self,
        caller: tuple[str, str | None, tuple[str, ...]],
        method: str,
        path: str,
        body: Any = None,
        *,
        expect: tuple[int, ...] = (200, 201),
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """One call by (role, person, agencies). Raises `Unexpected` with the problem's code."""
        async with self._at_once:
            bearer = {"Authorization": f"Bearer {await self.token(*caller)}"} if caller[0] else {}
            self.calls += 1
            sent = {**bearer, **(headers or {})}
            answer = await self._answered(method, self.url + path, json=body, headers=sent)
        if answer.status_code not in expect:
            raise Unexpected(f"{method} {path}: {answer.status_code} {answer.text[:400]}")
        return answer.json()

    async def _answered(self, method: str, url: str, **request: Any) -> httpx.Response:
        deadline = time.monotonic() + self.patience
        while True:
            try:
                answer = await self.http.request(method, url, **request)
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
            else:
                # The gateway's own 404 is plain: it has started, and does not know its routes yet.
                plain = answer.status_code == 404 and "json" not in answer.headers.get("content-type", "")
                if not (plain or answer.status_code in AWAY) or time.monotonic() > deadline:
                    return answer
            await asyncio.sleep(0.2)


def unsettled(passes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Who still has something on its way, by what the workers tell; empty when all is settled.

    A service may have several workers, which share its partitions. Every offset that the broker acknowledged to a
    relay must be done in every group that reads the topic.
    """
    waiting = []
    produced: dict[str, int] = {}
    committed: dict[tuple[str, str], int] = {}
    for told in passes.values():
        for partition, offset in told["produced"].items():
            produced[partition] = max(produced.get(partition, 0), offset)
        for group, partitions in told["committed"].items():
            for partition, offset in partitions.items():
                committed[group, partition] = max(committed.get((group, partition), 0), offset)
    for service, told in passes.items():
        if not told["quiet"]:
            left = {name: told[name] for name in ("outbox", "timers_due", "pending") if told.get(name)}
            waiting.append(f"{service}: {left or 'not consuming yet'}")
        for group, topics in told["consumes"].items():
            for partition, offset in produced.items():
                done = committed.get((group, partition), 0)
                if partition.rpartition("-")[0] in topics and done < offset:
                    waiting.append(f"{group}: {partition} at {done} of {offset}")
    return list(dict.fromkeys(waiting))


def set_clock_file(clock: Path, instant: datetime) -> None:
    """Set a virtual clock; written beside and renamed, so that nobody reads half of it."""
    draft = clock.with_name("clock.draft")
    draft.write_text(instant.isoformat() + "\n")
    draft.replace(clock)


class Player:
    """Plays steps on a stack."""

    def __init__(
        self, clock: Path, internal: Mapping[str, str], http: httpx.AsyncClient, *, patience: float = QUIET_SECONDS
    ) -> None:
        self._clock = clock
        self._internal = dict(internal)
        self._http = http
        self._patience = patience
        self.stops: list[float] = []
        """Seconds that each wait for quiet took, what was on its way included."""
        self.idle: list[float] = []
        """Seconds of the last two passes alone: what a stop costs when nothing is on its way."""
        self.now: datetime | None = None

    def set_clock(self, instant: datetime) -> None:
        """Move domain time forward."""
        if self.now is not None and instant <= self.now:
            return
        set_clock_file(self._clock, instant)
        self.now = instant

    async def _ask(self) -> dict[str, dict[str, Any]]:
        async def one(service: str, url: str) -> tuple[str, dict[str, Any]]:
            try:
                answer = await self._http.get(url + "/internal/v1/quiet")
                answer.raise_for_status()
            except httpx.HTTPError:
                return service, {"quiet": False, "produced": {}, "committed": {}, "consumes": {}, "pending": "away"}
            return service, answer.json()

        return dict(await asyncio.gather(*(one(s, url) for s, url in self._internal.items())))

    async def quiet(self) -> datetime | None:
        """Wait until two equal passes tell that nothing is on its way. Returns the earliest timer to come."""
        began = time.monotonic()
        before: dict[str, dict[str, Any]] | None = None
        settled = began
        while True:
            asked = time.monotonic()
            told = await self._ask()
            waiting = unsettled(told)
            if not waiting and told == before:
                self.stops.append(time.monotonic() - began)
                self.idle.append(time.monotonic() - settled)
                instants = [t["next_timer_at"] for t in told.values() if t["next_timer_at"]]
                return min((datetime.fromisoformat(text) for text in instants), default=None)
            if time.monotonic() - began > self._patience:
                raise NotQuiet("; ".join(waiting) or "the workers tell something new each time")
            if not waiting and before is None:
                settled = asked
            before = None if waiting else told
            if waiting:
                await asyncio.sleep(PAUSE_SECONDS)

    async def play(self, steps: Iterable[Step], told: Callable[[datetime, list[str]], None]) -> None:
        """Play the steps in the order of their instants, and every timer that falls due in between."""
        queue = sorted(steps, key=lambda step: step.at)
        while queue:
            timer_at = await self.quiet()
            instant = queue[0].at
            if timer_at is not None and timer_at < instant and (self.now is None or timer_at > self.now):
                self.set_clock(timer_at)
                continue
            now = [step for step in queue if step.at == instant]
            queue = queue[len(now) :]
            self.set_clock(instant)
            told(instant, [step.words for step in now])
            await asyncio.gather(*(step.act() for step in now))
        await self.quiet()

    def told_stops(self) -> str:
        """How many stops, and what one costs, in words."""
        if not self.stops:
            return "no stops"
        own, whole = median(self.idle) * 1000, median(self.stops) * 1000
        return (
            f"{len(self.stops)} stops: {own:.0f} ms to see that nothing is left, {whole:.0f} ms with what was (medians)"
        )
