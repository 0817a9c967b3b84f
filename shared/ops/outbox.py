"""What lies in an outbox, and who is publishing it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from shared.mongo import Database

LOOKED_AT = 5_000


@dataclass(frozen=True, slots=True)
class Outbox:
    """What is not yet published. `topics` counts documents (one per transaction and topic), up to 5,000 in all."""

    oldest_seconds: float
    topics: dict[str, int]
    relay: str | None
    """Who holds the relay's lease at this moment, by the name it drew at its start."""

    @property
    def empty(self) -> bool:
        return not self.topics


async def outbox_of(database: Database) -> Outbox:
    """Look at a service's outbox. Raises `PyMongoError`."""
    rows = database.collection("outbox").find({}, {"topic": 1}).sort("_id", 1).limit(LOOKED_AT)
    topics: dict[str, int] = {}
    oldest = 0.0
    for row in await rows.to_list(None):
        if not topics:
            oldest = max(0.0, time.time() - int(row["_id"][:20]) / 1_000_000)
        topics[row["topic"]] = topics.get(row["topic"], 0) + 1
    lease = await database.collection("leases").find_one({"_id": "relay"})
    server_now = datetime.now(UTC).timestamp() - await database.clock_skew()
    held = lease is not None and lease["ends_at"].timestamp() > server_now
    return Outbox(oldest, topics, lease["holder"] if lease and held else None)
