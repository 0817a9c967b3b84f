"""What may happen to the neighbours of a service while it is at work. Each trouble begins, lasts, and is over."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
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

    @property
    def name(self) -> str:
        return f"disk of {self.part} full"

    @property
    def mark(self) -> Mark:
        return "standstill" if self.part == "mongo" else "backlog"

    async def begin(self) -> None:
        await asyncio.to_thread(self._fill)

    def _fill(self) -> None:
        with (self.disk / "ballast").open("wb", buffering=0) as ballast:
            for size in (1 << 20, 1 << 12):
                try:
                    while True:
                        ballast.write(b"\0" * size)
                except OSError:
                    continue
        if self.database:
            with MongoClient[dict[str, bytes]](own_servers(self.stack).mongo_uri, timeoutMS=3000) as client:
                try:
                    while True:
                        client[self.database]["ballast"].insert_one({"of": bytes(1 << 18)})
                except PyMongoError:
                    return

    async def end(self) -> None:
        (self.disk / "ballast").unlink()
        await asyncio.to_thread(self.stack.kill_part, self.part)
        await asyncio.to_thread(self.stack.start_part, self.part)
