"""Commands that want the same document, with nothing between a conflict and the next try."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from pymongo.errors import OperationFailure, PyMongoError

from shared import mongo
from shared.mongo import Database, Transaction, conflict

_EVER = 3600.0
_INTERNAL_ERROR = 1
"""What the embedded server says of a transaction that it has ended itself, as happens among a thousand."""


async def at_once(database: Database, work: Callable[[Transaction], Awaitable[Any]]) -> Any:
    """The same transaction as ours, tried again at once for as long as it takes: no lock, no pause, no bound."""
    mongo.ATTEMPT_SECONDS = _EVER
    while True:
        try:
            return await database._attempt(work, time.monotonic() + _EVER)
        except PyMongoError as error:
            if not conflict(error) and not (isinstance(error, OperationFailure) and error.code == _INTERNAL_ERROR):
                raise
