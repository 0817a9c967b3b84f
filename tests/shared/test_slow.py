"""Answers that come late, or not: a delaying proxy stands before the database."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Annotated
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import APIRouter
from pymongo.errors import OperationFailure

from shared.errors import Unavailable
from shared.http import Db, problems
from shared.identity import public
from shared.mongo import Database, Driver
from shared.service import Service
from storm.proxy import Proxy
from tests.shared.sample import COHORT, Cohort, enroll, open_cohort
from tests.support import api

router = APIRouter()


@router.put("/v1/enrollments/{number}", responses=problems(Unavailable))
async def put_enrollment(number: int, caller: Annotated[None, public()], database: Db) -> dict[str, int]:
    await enroll(database, number)
    return {"enrolled": number}


service = Service("shared", routers=[router])


@pytest.fixture
async def proxy(mongo_uri: str) -> AsyncIterator[Proxy]:
    async with Proxy(urlsplit(mongo_uri).port or 27017) as proxy:
        yield proxy


@pytest.fixture
async def behind(database: Database, proxy: Proxy, driver: Driver) -> AsyncIterator[Database]:
    """The test's database, reached through the proxy."""
    uri = f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true"
    behind = Database(uri, database.collection("x").database.name, service="shared", driver=driver)
    await open_cohort(behind)
    yield behind
    proxy.delay = 0.0
    await behind.close()


async def put(behind: Database, number: int) -> tuple[httpx.Response, float]:
    async with api(service, behind) as client:
        began = time.monotonic()
        return await client.put(f"/v1/enrollments/{number}"), time.monotonic() - began


async def taken(database: Database) -> int:
    cohort = await database.get(Cohort, COHORT)
    return cohort.taken if cohort else 0


async def test_late_answers_make_a_request_slower_and_not_wrong(
    database: Database, behind: Database, proxy: Proxy
) -> None:
    proxy.delay = 0.1
    answer, seconds = await put(behind, 1)
    assert answer.status_code == 200 and 0.4 < seconds < 4
    assert await taken(database) == 1


async def test_a_database_that_hangs_is_a_503_in_time_and_used_again_when_it_answers(
    database: Database, behind: Database, proxy: Proxy
) -> None:
    proxy.delay = 600.0
    answer, seconds = await put(behind, 1)
    assert (answer.status_code, answer.json()["type"].rpartition("#")[2]) == (503, "unavailable")
    assert seconds < 10
    proxy.delay = 0.0
    assert (await put(behind, 2))[0].status_code == 200
    assert await taken(database) >= 1


@pytest.mark.parametrize("code", [8, 13, 14031], ids=["storage fails", "refuses us", "disk full"])
async def test_a_database_that_cannot_do_it_is_a_503(
    database: Database, behind: Database, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    async def refuse(*_: object) -> None:
        raise OperationFailure("no", code)

    with monkeypatch.context() as patched:
        patched.setattr(Database, "_commit", staticmethod(refuse))
        answer, _ = await put(behind, 1)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    assert answer.json()["type"].endswith("impaired")
    assert await taken(database) == 0
