"""Handles events by hand: what was handled, what is read and what is written by one query each, one commit a batch."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from typing import Any

os.environ.setdefault("MOTOR_MAX_WORKERS", "32")
from aiokafka import AIOKafkaConsumer
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import InsertOne, ReplaceOne
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern


async def listen(
    mongo_uri: str, name: str, kafka: dict[str, Any], topic: str, group: str, events: int | None, at_once: int
) -> float:
    """Handle events, up to so many in one transaction; returns how many a second, from the first commit to the last.

    Without a number of events it goes on for ever.
    """
    client: Any = AsyncIOMotorClient(mongo_uri, tz_aware=True)
    database = client[name]
    consumer = AIOKafkaConsumer(
        topic,
        **kafka,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=200,
        isolation_level="read_committed",
    )
    await consumer.start()
    done = first = 0
    began = time.perf_counter()
    try:
        while events is None or done < events:
            polled = await consumer.getmany(timeout_ms=1000, max_records=at_once)
            records = [record for part in polled.values() for record in part]
            if not records:
                continue
            async with await client.start_session() as session:
                await session.with_transaction(
                    lambda session, records=records: _handle(database, session, group, records),
                    read_concern=ReadConcern("snapshot"),
                    write_concern=WriteConcern("majority"),
                )
            await consumer.commit()
            done += len(records)
            if not first and done != events:
                first, began = done, time.perf_counter()
    finally:
        await consumer.stop()
        client.close()
    return (done - first) / (time.perf_counter() - began)


async def _handle(database: Any, session: Any, group: str, records: list[Any]) -> None:
    keys = [f"{group}|{dict(record.headers)['ce_id'].decode()}" for record in records]
    seen = {row["_id"] async for row in database["inbox"].find({"_id": {"$in": keys}}, session=session)}
    events = [(key, json.loads(record.value)) for key, record in zip(keys, records, strict=True) if key not in seen]
    ids = list({event["roster_id"] for _, event in events})
    known = {kept["_id"]: kept async for kept in database["heard"].find({"_id": {"$in": ids}}, session=session)}
    there = set(known)
    for _, event in events:
        id = event["roster_id"]
        version = known[id]["version"] + 1 if id in known else 1
        known[id] = {"_id": id, "version": version, "number": event["number"], "heard_ns": time.time_ns()}
    writes: list[Any] = [ReplaceOne({"_id": id}, known[id]) if id in there else InsertOne(known[id]) for id in ids]
    now = datetime.now(UTC)
    rows = [InsertOne({"_id": key, "fate": "handled", "at": now}) for key, _ in events]
    if writes:
        await database["heard"].bulk_write(writes, session=session)
        await database["inbox"].bulk_write(rows, session=session)
