"""What may happen to the neighbours of a service while it is at work. Each trouble begins, lasts, and is over."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from confluent_kafka.admin import AclBinding, AclBindingFilter, AdminClient
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from shared import broker
from shared.kafka import Kafka
from stack import Stack
from stack.servers import own_servers
from storm.proxy import Proxy

Mark = Literal["backlog", "standstill", "waiting"]


class Trouble(Protocol):
    """`mark` is what must be seen while it lasts; else it was none."""

    @property
    def name(self) -> str: ...
    @property
    def mark(self) -> Mark: ...
    async def begin(self) -> None: ...
    async def end(self) -> None: ...


@dataclass(frozen=True)
class Away:
    """A part is gone without a word."""

    stack: Stack
    part: str

    @property
    def name(self) -> str:
        return f"{self.part} away"

    @property
    def mark(self) -> Mark:
        return "standstill" if self.part == "mongo" else "backlog"

    async def begin(self) -> None:
        await asyncio.to_thread(self.stack.kill_part, self.part)

    async def end(self) -> None:
        await asyncio.to_thread(self.stack.start_part, self.part)


@dataclass(frozen=True)
class Slow:
    """Everything that goes to and from the neighbours takes its time."""

    proxies: Sequence[Proxy]
    delay: float

    mark: Mark = "waiting"

    @property
    def name(self) -> str:
        return f"answers late by {self.delay * 2:.1f} s"

    async def begin(self) -> None:
        self._set(self.delay)

    async def end(self) -> None:
        self._set(0.0)

    def _set(self, delay: float) -> None:
        for proxy in self.proxies:
            proxy.delay = delay


@dataclass(frozen=True)
class Refused:
    """Somebody takes away rights on the broker, and gives them back."""

    admin: Kafka
    rights: Sequence[AclBinding]

    name: str = "broker refuses (rights taken away)"
    mark: Mark = "backlog"

    async def begin(self) -> None:
        await asyncio.to_thread(self._take)

    def _take(self) -> None:
        client = AdminClient(self.admin.librdkafka())
        names = ("restype", "name", "resource_pattern_type", "principal", "host", "operation", "permission_type")
        which = [AclBindingFilter(*(getattr(right, name) for name in names)) for right in self.rights]
        for future in client.delete_acls(which, request_timeout=15).values():
            future.result(timeout=20)

    async def end(self) -> None:
        await broker.prepare(self.admin, [], self.rights, 1)


@dataclass(frozen=True)
class Full:
    """The disk under a part has no room left. The part may die of it, or live on and do nothing: it is begun again."""

    stack: Stack
    part: str
    disk: Path
    database: str = ""
    """A database on it that is written to until it cannot; it may have room in files that it has already."""
    _filling: list[asyncio.Task[None]] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def name(self) -> str:
        return f"disk of {self.part} full"

    @property
    def mark(self) -> Mark:
        return "standstill" if self.part == "mongo" else "backlog"

    async def begin(self) -> None:
        if self.database:  # while it can still make a collection: what is written to it then fills the journal too
            with MongoClient[dict[str, bytes]](own_servers(self.stack).mongo_uri) as client:
                await asyncio.to_thread(client[self.database]["ballast"].insert_one, {"of": b""})
        await asyncio.to_thread(self._fill)
        self._filling.append(asyncio.create_task(self._keep_full()))

    async def _keep_full(self) -> None:
        """What a database gives back of its own files is taken again."""
        while True:
            await asyncio.sleep(0.1)
            await asyncio.to_thread(self._fill)

    def _fill(self) -> None:
        with (self.disk / "ballast").open("ab", buffering=0) as ballast:
            for size in (1 << 20, 1 << 12):
                with suppress(OSError):
                    while True:
                        ballast.write(b"\0" * size)
        if self.database:
            # It answers late before it says that it cannot.
            with MongoClient[dict[str, bytes]](own_servers(self.stack).mongo_uri, timeoutMS=4_000) as client:
                for size in (1 << 18, 1 << 10):
                    with suppress(PyMongoError):
                        while not self._over.is_set():
                            client[self.database]["ballast"].insert_one({"of": bytes(size)})

    async def end(self) -> None:
        self._over.set()
        for filling in self._filling:
            filling.cancel()
            await asyncio.gather(filling, return_exceptions=True)
        await asyncio.to_thread(self.stack.kill_part, self.part)
        (self.disk / "ballast").unlink()
        await asyncio.to_thread(self.stack.start_part, self.part)
