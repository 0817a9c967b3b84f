"""Commands that want the same document, with nothing between a conflict and the next try."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from pymongo.errors import PyMongoError

from shared.mongo import Database, Transaction, conflict


async def at_once(database: Database, work: Callable[[Transaction], Awaitable[Any]]) -> Any:
    """The same transaction as ours, tried again at once for as long as it takes: no lock, no pause, no turn."""
    while True:
        try:
            return await database._attempt(work, time.monotonic() + 600)
        except PyMongoError as error:
            if not conflict(error):
                raise
