"""A fact on its way by hand: write it in a transaction, produce it at once, and have another process consume it."""

from __future__ import annotations

import json
from typing import Any

from aiokafka import AIOKafkaProducer
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from benchmarks.floors.endpoint import event_headers


class Sender:
    """Writes and produces in this process. What it lost between the two, a crash would lose."""

    def __init__(self, mongo_uri: str, name: str, kafka: dict[str, Any], topic: str) -> None:
        self._client: Any = AsyncIOMotorClient(mongo_uri, tz_aware=True)
        self._database = self._client[name]
        self._topic = topic
        self._producer = AIOKafkaProducer(**kafka, acks="all", enable_idempotence=True)

    async def __aenter__(self) -> Sender:
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()
        self._client.close()

    async def call_out(self, roster_id: str) -> None:
        event = {"roster_id": roster_id, "number": 1}

        async def work(session: Any) -> None:
            await self._database["rosters"].find_one({"_id": roster_id}, session=session)
            await self._database["rosters"].insert_one({"_id": roster_id, "version": 1, "number": 1}, session=session)

        async with await self._client.start_session() as session:
            await session.with_transaction(
                work, read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority")
            )
        headers = [(name, value) for name, value in event_headers(roster_id, 1, self._topic)]
        await self._producer.send_and_wait(
            self._topic, json.dumps(event).encode(), key=roster_id.encode(), headers=headers
        )
