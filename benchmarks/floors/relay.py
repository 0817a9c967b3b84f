"""Drains an outbox by hand: one cursor, sends in a row, one transaction of deletions a batch; no lease, no looking."""

from __future__ import annotations

import asyncio
import os
from typing import Any

os.environ.setdefault("MOTOR_MAX_WORKERS", "32")
from aiokafka import AIOKafkaProducer
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import DeleteOne
from pymongo.read_concern import ReadConcern

BATCH_ROWS = 500


async def drain(mongo_uri: str, name: str, kafka: dict[str, Any], rows: int) -> None:
    """Send and delete until so many rows have left, those that come meanwhile included."""
    client: Any = AsyncIOMotorClient(mongo_uri, tz_aware=True)
    outbox = client[name]["outbox"]
    reading = outbox.with_options(read_concern=ReadConcern("snapshot"))
    producer = AIOKafkaProducer(**kafka, acks="all", enable_idempotence=True, max_batch_size=128 * 1024)
    await producer.start()

    async def send(batch: list[Any]) -> int:
        sent = [
            await producer.send(
                document["topic"],
                row["value"],
                key=row["key"],
                headers=[(header, value) for header, value in row["headers"]],
            )
            for document in batch
            for row in document["rows"]
        ]
        await asyncio.gather(*sent)
        async with await client.start_session() as session, session.start_transaction():
            await outbox.bulk_write([DeleteOne({"_id": document["_id"]}) for document in batch], session=session)
        return len(sent)

    left = rows
    try:
        while left > 0:
            async with await client.start_session() as session:
                batch: list[Any] = []
                waiting = 0
                async for document in reading.find({}, session=session, batch_size=200).sort("_id", 1).limit(5000):
                    batch.append(document)
                    waiting += len(document["rows"])
                    if waiting >= BATCH_ROWS:
                        left -= await send(batch)
                        batch, waiting = [], 0
                if batch:
                    left -= await send(batch)
    finally:
        await producer.stop()
        client.close()
