"""What every endpoint has: problem documents, limits, correlation; and nothing that a caller sends becomes a 500."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any
from uuid import uuid4

import httpx
import pytest
from fastapi import APIRouter
from prometheus_client import generate_latest
from pydantic import AwareDatetime, BaseModel, ConfigDict

from shared import clock
from shared.errors import Rejected, Unavailable
from shared.http import BODY_BYTES, Asked, Db, IdempotencyKey, problems
from shared.identity import Caller, Role, allow, public
from shared.mongo import Database, Transaction
from shared.service import Service
from tests.support import KEYS, START, api, settings_for, token, uid


class NoRoom(Rejected):
    """There is no room left."""


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

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


class Plan(BaseModel):
    on: date
    at: AwareDatetime
    number: int
    more: Any = None


@router.put("/v1/plans/{plan}")
async def put_plan(
    plan: str, body: Plan, asked: Asked, caller: Annotated[Caller, allow(Role.ORGANISER)], database: Db
) -> dict[str, str]:
    kept = {"_id": plan, "at": body.at, "day_before": str(body.on - timedelta(days=1)), "number": body.number}
    await database.collection("plans").insert_one(kept)
    return {"asked": asked}


@router.post("/v1/plans")
async def post_plan(
    key: IdempotencyKey, caller: Annotated[Caller, allow(Role.ORGANISER)], database: Db
) -> dict[str, int]:
    assert key is not None

    async def work(tx: Transaction) -> int:
        if done := await key.replay(tx):
            return done.status
        key.remember(tx, 201, "/v1/plans/1")
        return 201

    return {"status": await database.transaction(work)}


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


async def test_the_name_of_an_invented_field_is_told_only_as_far_as_one_needs_it(client: httpx.AsyncClient) -> None:
    answer = await put(client, json={"seats": 1, "x" * 100: 1, "y" * 101: 1, "~/" * 200_000: 1})
    pointers = [error["pointer"] for error in answer.json()["errors"]]
    assert pointers == ["/body/" + "x" * 100, "/body/" + "y" * 100 + "…", "/body/" + "~0~1" * 50 + "…"]


async def test_a_body_beyond_the_limit_is_not_read(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * (BODY_BYTES // 10)

    assert (await put(client, content=b" " * (BODY_BYTES + 1))).status_code == 413
    assert (await put(client, content=chunks())).status_code == 413


async def test_what_is_not_there_and_what_is_not_allowed_are_problems_too(client: httpx.AsyncClient) -> None:
    for request, status in (
        (client.get("/nowhere"), 404),
        (client.get("/v1/open/", headers={"host": "elsewhere.test"}), 404),  # sent on to nowhere, whatever Host says
        (client.delete("/v1/open"), 405),
        (client.put("/v1/rooms/a", json={"seats": 1}), 401),
        (client.put("/v1/rooms/a", json={"seats": 1}, headers=token(Role.TRAINER)), 403),
    ):
        answer = await request
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"


async def test_the_page_of_the_api_needs_nobody_elsewhere(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs", headers={"x-forwarded-prefix": "/enrollment"})
    assert page.status_code == 200 and "//" not in re.sub(r"//( .*)?$", "", page.text, flags=re.M)
    assert "url: '/enrollment/openapi.json'" in page.text and '"validatorUrl": null' in page.text
    parts = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert len(parts) == 3
    for part in parts:
        assert part.startswith("/enrollment/docs/")
        assert len((await client.get(part.removeprefix("/enrollment"))).content) > 1000
    assert (await client.get("/redoc")).status_code == (await client.get("/docs/core.py")).status_code == 404


async def test_head_is_answered_as_get_without_the_body(client: httpx.AsyncClient) -> None:
    for path, status in (("/v1/open", 200), ("/openapi.json", 200), ("/nowhere", 404), ("/v1/rooms/a", 405)):
        bare, whole = await client.head(path), await client.get(path)
        assert (bare.status_code, bare.content) == (whole.status_code, b"") == (status, b"")
        assert whole.content and bare.headers["content-length"] == str(len(whole.content))
        assert bare.headers["content-type"] == whole.headers["content-type"]
    assert 'method="HEAD"' in generate_latest().decode()


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


PLAN = {"on": "2022-02-21", "at": "2022-02-21T08:00:00+07:00", "number": 1}
OUT_OF_RANGE = {
    "an instant after the last day": {"at": "9999-12-31T23:59:59-12:00"},
    "an instant before the first day": {"at": "0001-01-01T00:00:00+12:00"},
    "the day before the first": {"on": "0001-01-01"},
    "a number as text": {"number": "99999999999999999999"},
    "a number as a float": {"number": 1e19},
}


@pytest.mark.parametrize("changes", OUT_OF_RANGE.values(), ids=OUT_OF_RANGE)
async def test_a_value_that_no_calendar_or_database_holds_does_not_fit(
    changes: dict[str, Any], client: httpx.AsyncClient
) -> None:
    assert (await client.put("/v1/plans/good", headers=WHO, json=PLAN)).status_code == 200
    answer = await client.put("/v1/plans/bad", headers=WHO, json=PLAN | changes)
    assert (answer.status_code, answer.json()["type"]) == (422, "/docs/problems.md#invalid-request")
    assert str(next(iter(changes.values()))) not in answer.text


@pytest.mark.parametrize("depth", [33, 900, 910, 915, 918, 921, 922, 924, 926, 930, 950])
async def test_nesting_has_one_limit_however_deep_the_code_that_reads_it(depth: int, client: httpx.AsyncClient) -> None:
    for opened, closed in (("[", "]"), ('{"a":', "}")):
        content = f'{{"more": {opened * depth}{"1" if opened != "[" else ""}{closed * depth}}}'
        answer = await client.put("/v1/plans/deep", headers=WHO | {"content-type": "application/json"}, content=content)
        assert answer.json()["errors"] == [{"pointer": "/body", "detail": "nested-too-deeply"}]


async def test_a_flat_list_of_many_is_not_deep(client: httpx.AsyncClient) -> None:
    many = PLAN | {"more": [[{"a": number}] for number in range(1000)]}
    assert (await client.put("/v1/plans/flat", headers=WHO, json=many)).status_code == 200


async def test_an_idempotency_key_is_kept_by_real_time_also_in_a_played_scenario(
    client: httpx.AsyncClient, database: Database
) -> None:
    with clock.at(START):
        assert (await client.post("/v1/plans", headers=WHO | {"Idempotency-Key": "some-key-1"})).status_code == 200
    (kept,) = await database.collection("idempotency").find({}).to_list(None)
    assert abs(kept["at"] - datetime.now(UTC)) < timedelta(minutes=1)


OTHER_KINDS = ["text/plain", "application/octet-stream", "application/x-www-form-urlencoded", "multipart/form-data"]


@pytest.mark.parametrize("kind", OTHER_KINDS)
async def test_a_body_that_is_no_json_does_not_fit_and_breaks_nothing(kind: str, client: httpx.AsyncClient) -> None:
    headers = WHO | {"content-type": kind, "idempotency-key": "once-and-for-all"}
    for content in (b"abc", b"\xff\xfe", b"[" * 100_000):
        answer = await client.put("/v1/plans/kind", headers=headers, content=content)
        assert (answer.status_code, answer.json()["type"]) == (422, "/docs/problems.md#invalid-request")
    assert (await client.post("/v1/plans", headers=headers, content=b"abc")).json() == {"status": 201}
    assert (await client.post("/v1/plans", headers=headers, content=b"abd")).status_code == 422


@pytest.mark.parametrize("content", [b'{"seats": NaN}', b'{"seats": 1, "label": "\\ud800"}'], ids=["nan", "surrogate"])
async def test_the_limits_hold_however_the_content_type_is_spelt(content: bytes, client: httpx.AsyncClient) -> None:
    answer = await client.put("/v1/rooms/a", headers=WHO | {"content-type": "Application/JSON"}, content=content)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/body")


async def test_half_a_request_of_a_caller_who_left_does_nothing(database: Database) -> None:
    app = SERVICE.public_app(database, settings_for(SERVICE.settings))
    app.state.verifier.trust(KEYS)
    headers = [(name.lower().encode(), value.encode()) for name, value in WHO.items()]
    scope = {"type": "http", "method": "PUT", "path": "/v1/plans/half", "root_path": "", "query_string": b""}
    messages: list[Any] = [
        {"type": "http.request", "body": json.dumps(PLAN).encode(), "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0) if len(messages) > 1 else messages[0]

    async def send(message: Any) -> None:
        sent.append(message)

    headers += [(b"content-type", b"application/json"), (b"content-length", b"2000")]
    await app({**scope, "http_version": "1.1", "scheme": "http", "headers": headers}, receive, send)
    assert sent == []
    assert await database.collection("plans").find_one({"_id": "half"}) is None


async def test_an_invented_method_makes_no_new_metric(client: httpx.AsyncClient) -> None:
    for number in range(3):
        assert (await client.request(f"INVENTED{number}", "/v1/open")).status_code == 405
    told = generate_latest().decode()
    assert "INVENTED" not in told and 'method="other"' in told


async def test_an_idempotency_key_belongs_to_one_caller_and_one_request(client: httpx.AsyncClient) -> None:
    key = {"idempotency-key": "nomination-list-7"}
    mine, other = token(Role.ORGANISER, person_id=uid(1)), token(Role.ORGANISER, person_id=uid(2))
    for who in (mine, mine, other):
        assert (await client.post("/v1/plans", headers=who | key, json={"a": 1, "b": 2})).json() == {"status": 201}
    same = await client.post(
        "/v1/plans", headers=mine | key | {"content-type": "application/json"}, content=b'{"b":2, "a":1}'
    )
    assert same.status_code == 200
    reused = await client.post("/v1/plans", headers=mine | key, json={"a": 2})
    assert (reused.status_code, reused.json()["type"]) == (422, "/docs/problems.md#idempotency-key-reused")
    assert (await client.post("/v1/plans", headers=mine | {"idempotency-key": "a b"}, json={})).status_code == 400


async def test_the_same_key_in_flight_twice_acts_once(client: httpx.AsyncClient, database: Database) -> None:
    key = WHO | {"idempotency-key": "in-flight-twice"}
    answers = await asyncio.gather(*(client.post("/v1/plans", headers=key, json={"a": 1}) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    (kept,) = await database.collection("idempotency").find({}).to_list(None)
    assert set(kept) >= {"caller", "digest", "status", "location", "at"} and "body" not in kept
    assert "Bearer" not in str(kept)


async def test_the_description_says_which_routes_are_open(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert paths["/v1/open"]["get"]["security"] == [] and "401" not in paths["/v1/open"]["get"]["responses"]
    assert "security" not in paths["/v1/plans"]["post"]


async def test_the_internal_port_describes_itself_too(database: Database) -> None:
    async with api(SERVICE, database, internal=True) as internal:
        described = await internal.get("/openapi.json")
    assert described.status_code == 200 and "/metrics" not in described.json()["paths"]


async def test_what_every_route_may_answer_is_described(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert {"400", "503"} <= set(paths["/v1/plans"]["post"]["responses"])
    assert {"413", "422", "503"} <= set(paths["/v1/rooms/{name}"]["put"]["responses"])
