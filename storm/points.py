"""The named points at which a process dies: seams of the kernel, wrapped in the process that is to die there.

The kernel itself has no hooks: what runs in production is what is killed here.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from shared.inbox import Consumer
from shared.mongo import Database
from shared.outbox import Relay, _Broker

RELAY = ("relay.before-send", "relay.sent", "relay.acknowledged", "relay.deleting")
INBOX = ("inbox.before-commit", "inbox.committing", "inbox.committed")
"""Where a worker can die; `sent` is before the acknowledgement, `deleting` and `committing` with the request out."""

_receiving: ContextVar[bool] = ContextVar("receiving", default=False)


def arm(point: str, passes: int, told: Callable[[str], None]) -> None:
    """Have this process die at the point when it comes there for the `passes`-th time, after saying where."""
    left = passes

    def die() -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            told(point)
            os.kill(os.getpid(), signal.SIGKILL)

    async def in_flight(request: Any) -> Any:
        """Die while the request is out and not answered; what is answered too soon does not count."""
        task = asyncio.ensure_future(request)
        await asyncio.wait({task}, timeout=random.uniform(0, 0.003))
        if not task.done():
            die()
        return await task

    def around(owner: type, name: str, wrap: Callable[..., Any]) -> None:
        original = getattr(owner, name)

        async def wrapped(*arguments: Any, **named: Any) -> Any:
            return await wrap(original, *arguments, **named)

        setattr(owner, name, staticmethod(wrapped) if name == "_commit" else wrapped)

    async def at_entry(original: Any, *arguments: Any, **named: Any) -> Any:
        die()
        return await original(*arguments, **named)

    async def underway(original: Any, *arguments: Any, **named: Any) -> Any:
        return await in_flight(original(*arguments, **named))

    async def after_send(original: Any, *arguments: Any, **named: Any) -> Any:
        sent = await original(*arguments, **named)
        await asyncio.sleep(random.uniform(0, 0.002))
        if not sent.done():
            die()
        return sent

    async def marked(original: Any, *arguments: Any, **named: Any) -> Any:
        token = _receiving.set(True)
        try:
            result = await original(*arguments, **named)
        finally:
            _receiving.reset(token)
        if point == "inbox.committed":
            die()
        return result

    async def commit(original: Any, *arguments: Any, **named: Any) -> Any:
        if not _receiving.get():
            return await original(*arguments, **named)
        wrap = at_entry if point == "inbox.before-commit" else underway
        return await wrap(original, *arguments, **named)

    match point:
        case "relay.before-send":
            around(Relay, "_batch", at_entry)
        case "relay.sent":
            around(_Broker, "send", after_send)
        case "relay.acknowledged":
            around(Relay, "_delete", at_entry)
        case "relay.deleting":
            around(Relay, "_delete", underway)
        case "inbox.before-commit" | "inbox.committing":
            around(Consumer, "receive", marked)
            around(Database, "_commit", commit)
        case "inbox.committed":
            around(Consumer, "receive", marked)
        case _:
            raise LookupError(point)
