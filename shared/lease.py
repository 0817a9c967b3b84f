"""Which of several processes does the work that only one should do at a time. A courtesy, not a fence:

what it guards must stay correct when, for a moment, two believe to hold it.
"""

from __future__ import annotations

import random
import time
from contextlib import suppress

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError, PyMongoError

from shared.mongo import Database


class Lease:
    """A document that names its holder and when it ends, by the database's own clock."""

    def __init__(self, database: Database, name: str, seconds: float) -> None:
        self._leases = database.collection("leases")
        self._name = name
        self._seconds = seconds
        self._holder = f"{random.getrandbits(64):016x}"
        self._until = 0.0

    @property
    def held(self) -> bool:
        """True with a margin: work begun now ends before anyone else can take over."""
        return time.monotonic() < self._until - self._seconds / 3

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._until - time.monotonic())

    async def keep(self) -> bool:
        """Take it, or prolong it when half of it is over. Returns whether it is held."""
        if self.held and self.seconds_left > self._seconds / 2:
            return True
        asked_at = time.monotonic()  # before the round trip: we rather believe to have it shorter than we do
        mine = {"$eq": ["$holder", self._holder]}
        over = {
            "$lt": [{"$toLong": "$ends_at"}, {"$toLong": "$$NOW"}]
        }  # as numbers: not every server compares dates here
        try:
            kept = await self._leases.find_one_and_update(
                {"_id": self._name, "$expr": {"$or": [mine, over]}},
                [{"$set": {"holder": self._holder, "ends_at": {"$add": ["$$NOW", int(self._seconds * 1000)]}}}],
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
        except DuplicateKeyError:  # another holds it: the upsert collided with it
            kept = None
        self._until = asked_at + self._seconds if kept else 0.0
        return kept is not None

    @property
    def patience(self) -> float:
        """How long to wait before asking again for a lease that another holds."""
        return self._seconds / 3 * random.uniform(0.8, 1.2)

    async def release(self) -> None:
        """Give it up now, so that nobody waits for it to end."""
        if self._until:
            self._until = 0.0
            with suppress(PyMongoError):
                await self._leases.update_one(
                    {"_id": self._name, "holder": self._holder}, [{"$set": {"ends_at": {"$subtract": ["$$NOW", 1]}}}]
                )
