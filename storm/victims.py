"""The workers of a storm: real ones, forked from a process that has imported everything, so that each lives at once."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from contextlib import suppress
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Any

from shared import clock, logs
from shared.service import Work
from shared.settings import Settings
from storm import points
from storm.world import SERVICES

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["storm.victims"])


class Life:
    """One worker from its start to its end. With a point it kills itself there; without, it works until stopped.

    Its machine's clock is `ahead` by so many seconds.
    """

    def __init__(
        self,
        service: str,
        settings: dict[str, Any],
        log: str,
        point: str | None = None,
        passes: int = 1,
        ahead: float = 0.0,
    ):
        self._told, telling = _processes.Pipe(duplex=False)
        arguments = (service, settings, log, point, passes, ahead, telling)
        self._process = _processes.Process(target=_live, args=arguments, daemon=True)
        self._process.start()
        telling.close()

    async def end(self, seconds: float) -> str | None:
        """Wait for its death; the point at which it died, or None when it did not come there in time and was ended.

        Raises `RuntimeError` when it died of something else.
        """
        await asyncio.to_thread(self._process.join, seconds)
        late = self._process.is_alive()
        if late:
            self._process.kill()
            await asyncio.to_thread(self._process.join)
        with suppress(EOFError):
            return str(self._told.recv())
        if not late:
            raise RuntimeError(f"a worker died by itself, with {self._process.exitcode}")
        return None

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int | None:
        """Tell it to stop, and wait for it; its exit code."""
        if self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, number)
        await asyncio.to_thread(self._process.join, 20)
        if self._process.is_alive():
            self._process.kill()
            await asyncio.to_thread(self._process.join)
        return self._process.exitcode

    @property
    def alive(self) -> bool:
        return self._process.is_alive()


def _live(
    service: str, settings: dict[str, Any], log: str, point: str | None, passes: int, ahead: float, telling: Connection
) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    logs.setup(service=SERVICES[service].name, role="worker", version="storm", level="INFO")
    _set_clock(ahead)
    if point is not None:
        points.arm(point, passes, telling.send)
    asyncio.run(_work(service, Settings(**settings)))


def _set_clock(ahead: float) -> None:
    """What this process takes for the time, for its own positions and stamps and for what the clients stamp."""
    seconds, nanoseconds = time.time, time.time_ns
    time.time = lambda: seconds() + ahead
    time.time_ns = lambda: nanoseconds() + int(ahead * 1e9)
    clock.real_now = lambda: clock._milliseconds(datetime.fromtimestamp(time.time(), UTC))


async def _work(name: str, settings: Settings) -> None:
    service = SERVICES[name]
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    database = service.database(settings)
    work = Work(service, database, settings, stopping)
    work.start()
    await stopping.wait()
    await work.stop()
    await database.close()
