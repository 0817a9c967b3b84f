"""An endpoint as one writes it without a kernel: token, body, and one transaction of the same reads and writes."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

os.environ.setdefault("MOTOR_MAX_WORKERS", "32")
import jwt
from fastapi import Depends, FastAPI, Header, HTTPException
from motor.motor_asyncio import AsyncIOMotorClient
from pydantic import BaseModel
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern


class Call(BaseModel):
    note: int


class View(BaseModel):
    id: str
    number: int


def endpoint(mongo_uri: str, name: str, topic: str, jwks: dict[str, Any], issuer: str, audience: str) -> FastAPI:
    app = FastAPI()
    client: Any = AsyncIOMotorClient(mongo_uri, tz_aware=True)
    database = client[name]
    key = jwt.PyJWK(jwks["keys"][0])

    async def caller(authorization: Annotated[str, Header()]) -> dict[str, Any]:
        token = authorization.removeprefix("Bearer ")
        claims: dict[str, Any] = jwt.decode(token, key, algorithms=["RS256"], audience=audience, issuer=issuer)
        if "organiser" not in claims["roles"]:
            raise HTTPException(403)
        return claims

    @app.put("/v1/rosters/{roster_id}/number")
    async def next_number(roster_id: UUID, body: Call, claims: dict[str, Any] = Depends(caller)) -> View:
        async def work(session: Any) -> int:
            kept = await database["rosters"].find_one({"_id": str(roster_id)}, session=session)
            number = kept["number"] + 1 if kept else 1
            changed = {"_id": str(roster_id), "version": number, "number": number}
            if kept:
                await database["rosters"].replace_one(
                    {"_id": str(roster_id), "version": kept["version"]}, changed, session=session
                )
            else:
                await database["rosters"].insert_one(changed, session=session)
            event = {"roster_id": str(roster_id), "number": number}
            headers = event_headers(str(roster_id), number, topic)
            row = {"key": str(roster_id).encode(), "value": json.dumps(event).encode(), "headers": headers}
            document = {"_id": f"{time.time_ns() // 1000:020d}-{uuid4()}", "topic": topic, "rows": [row]}
            await database["outbox"].insert_one(document, session=session)
            return number

        async with await client.start_session() as session:
            number = await session.with_transaction(
                work, read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority")
            )
        return View(id=str(roster_id), number=number)

    return app


def event_headers(subject: str, number: int, topic: str) -> list[list[Any]]:
    """Attributes of the same number and size as an event of ours has."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    attributes = {
        "content-type": "application/json",
        "ce_specversion": "1.0",
        "ce_id": str(uuid4()),
        "ce_type": "id.go.lan.training.bench.called.v1",
        "ce_source": "/" + topic.replace(".", "/"),
        "ce_subject": subject,
        "ce_time": now,
        "ce_recordedtime": now,
        "ce_dataschema": "/contracts/schemas/id.go.lan.training.bench.called.v1.json",
        "ce_partitionkey": subject,
        "ce_sequence": f"{number:010d}",
        "ce_correlationid": str(uuid4()),
        "ce_agencyid": "-",
        "ce_authtype": "service_account",
        "ce_authid": "0123456789abcdef0123456789abcdef",
        "ce_dataclassification": "internal",
    }
    return [[name, value.encode()] for name, value in attributes.items()]
