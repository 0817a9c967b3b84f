"""What every endpoint has: problem documents, limits, correlation; and nothing that a caller sends becomes a 500."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import uuid4

import httpx
import pytest
from fastapi import APIRouter
from pydantic import BaseModel

from shared.errors import Rejected, Unavailable
from shared.http import BODY_BYTES, problems
from shared.identity import Caller, Role, allow, public
from shared.mongo import Database
from shared.service import Service
from tests.support import api, token


class NoRoom(Rejected):
    """There is no room left."""


class Body(BaseModel):
    seats: int
    label: str = ""


router = APIRouter()


@router.put("/v1/rooms/{name}", responses=problems(NoRoom, Unavailable))
async def put_room(name: str, body: Body, caller: Annotated[Caller, allow(Role.ORGANISER)]) -> Body:
    match name:
        case "full":
            raise NoRoom(seats=3)
        case "away":
            raise Unavailable
        case "bug":
            raise ZeroDivisionError("canary in a message")
    return body


@router.get("/v1/open")
async def open_to_all(caller: Annotated[None, public()]) -> dict[str, str]:
    return {"hello": "world"}


SERVICE = Service("enrollment", routers=[router])
WHO = token(Role.ORGANISER)


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with api(SERVICE, database) as client:
        yield client


async def put(client: httpx.AsyncClient, name: str = "a", **request: Any) -> httpx.Response:
    given = {"json": {"seats": 1}} | request if "content" not in request else request
    return await client.put(f"/v1/rooms/{name}", headers=WHO | {"content-type": "application/json"}, **given)


async def test_a_refusal_is_a_problem_document_with_its_own_members(client: httpx.AsyncClient) -> None:
    answer = await put(client, "full")
    told = answer.json()
    assert answer.status_code == told["status"] == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert (told["type"], told["title"], told["seats"]) == ("/docs/problems.md#no-room", "There is no room left", 3)
    assert told["correlation_id"] == answer.headers["x-correlation-id"]


async def test_a_neighbour_away_is_a_503_that_says_when_to_try_again(client: httpx.AsyncClient) -> None:
    answer = await put(client, "away")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


async def test_a_bug_is_a_500_that_tells_nothing(client: httpx.AsyncClient) -> None:
    answer = await put(client, "bug")
    assert answer.status_code == 500 and "canary" not in answer.text and "Zero" not in answer.text


UNREADABLE = {
    "not json": b"{",
    "not utf-8": b'{"seats": 1, "label": "\xff"}',
    "lone surrogate": b'{"seats": 1, "label": "\\ud800"}',
    "nul": b'{"seats": 1, "label": "\\u0000"}',
    "beyond 64 bits": b'{"seats": 99999999999999999999}',
    "beyond doubles": b'{"seats": 9007199254740993}',
    "not a number": b'{"seats": NaN}',
    "infinite": b'{"seats": Infinity}',
    "bottomless": b"[" * 200_000,
    "list": b"[]",
    "null": b"null",
    "empty": b"",
    "other type": b'{"seats": "many"}',
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
async def test_a_body_that_does_not_fit_is_told_so(content: bytes, client: httpx.AsyncClient) -> None:
    answer = await put(client, content=content)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith("/body")


async def test_a_body_beyond_the_limit_is_not_read(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * (BODY_BYTES // 10)

    assert (await put(client, content=b" " * (BODY_BYTES + 1))).status_code == 413
    assert (await put(client, content=chunks())).status_code == 413


async def test_what_is_not_there_and_what_is_not_allowed_are_problems_too(client: httpx.AsyncClient) -> None:
    for request, status in (
        (client.get("/nowhere"), 404),
        (client.delete("/v1/open"), 405),
        (client.put("/v1/rooms/a", json={"seats": 1}), 401),
        (client.put("/v1/rooms/a", json={"seats": 1}, headers=token(Role.TRAINER)), 403),
    ):
        answer = await request
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"


async def test_a_correlation_id_is_taken_over_only_when_it_can_be_one(client: httpx.AsyncClient) -> None:
    good = str(uuid4())
    kept = await client.get("/v1/open", headers={"x-correlation-id": good})
    other = await client.get("/v1/open", headers={"x-correlation-id": "Budi"})
    assert kept.headers["x-correlation-id"] == good
    assert other.headers["x-correlation-id"] not in ("Budi", good)


async def test_the_description_says_how_requests_fail(client: httpx.AsyncClient) -> None:
    told = (await client.get("/openapi.json", headers={"x-forwarded-prefix": "/enrollment"})).json()
    responses = told["paths"]["/v1/rooms/{name}"]["put"]["responses"]
    assert told["openapi"].startswith("3.1") and told["servers"] == [{"url": "/enrollment"}]
    assert list(responses["409"]["content"]) == ["application/problem+json"]
    assert {"401", "403", "409", "422", "503"} <= set(responses)
