"""Notification's collections: indexes and queries."""

from __future__ import annotations

from datetime import datetime

from pymongo import ASCENDING, IndexModel

from services.notification.domain import Delivery, DeliveryStatus, Message
from shared.mongo import Database

INDEXES = {
    "deliveries": [IndexModel([("status", ASCENDING)]), IndexModel([("cohort_id", ASCENDING)])],
    "messages": [
        IndexModel([("recipient_id", ASCENDING)]),
        IndexModel([("kept_until", ASCENDING)], name="retention", expireAfterSeconds=0),
    ],
}


async def due(database: Database, now: datetime, limit: int) -> list[Delivery]:
    """Deliveries to be made by this instant of the machine's clock."""
    filter = {"status": DeliveryStatus.DUE.value, "not_before": {"$lte": now}}
    return await database.query(Delivery, filter, limit=limit)


async def waiting(database: Database) -> int:
    """Whether any is still to be made, now or later: 0 or 1."""
    return len(await database.query(Delivery, {"status": DeliveryStatus.DUE.value}, limit=1))


async def inbox_of(
    database: Database, person_id: str, limit: int, after: str | None
) -> tuple[list[Message], str | None]:
    return await database.page(Message, {"recipient_id": person_id}, limit=limit, after=after)


async def deliveries(
    database: Database, cohort_id: str | None, limit: int, after: str | None
) -> tuple[list[Delivery], str | None]:
    return await database.page(Delivery, {"cohort_id": cohort_id} if cohort_id else {}, limit=limit, after=after)
