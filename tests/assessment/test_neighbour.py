"""Certificates with names from enrollment's own internal endpoint, over HTTP, with tokens of a real issuer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from services.assessment.app import service
from services.enrollment.app import service as enrollment
from services.enrollment.domain import Person
from shared.mongo import Database, Driver, Transaction
from stack.issuer import Keys, issuer
from tests.assessment.passages import KEY, finish, graduate, name_of
from tests.assessment.story import AFTER, Story
from tests.servers import free_port
from tests.support import api, clock_at, settings_for, uid, until

STORY = Story()
CLIENTS = {"assessment": "a secret of this test", "scenario": "another"}


@asynccontextmanager
async def serving(app: FastAPI, port: int) -> AsyncIterator[None]:
    """The app on a port of this machine, for as long as the context lasts."""
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, lifespan="off"))
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    try:
        yield
    finally:
        server.should_exit = True
        await task


async def _register_people(database: Database) -> None:
    async def work(tx: Transaction) -> None:
        for i in STORY.people:
            id = STORY.person(i)
            await tx.load(Person, id)
            tx.save(Person(id=id, name=name_of(id), email="peserta@example.invalid", generated=True, asked="asked"))

    await database.transaction(work)


async def bearer(issuer_url: str, **asked: str) -> dict[str, str]:
    """The Authorization header of somebody, by the issuer's client that speaks for people."""
    async with httpx.AsyncClient() as client:
        form = {"grant_type": "client_credentials", "audience": "assessment", "client_id": "scenario", **asked}
        answer = await client.post(f"{issuer_url}/token", data={**form, "client_secret": CLIENTS["scenario"]})
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}


async def test_certificates_wait_for_enrollment_and_then_carry_the_names_it_knows(
    database: Database, mongo_uri: str, driver: Driver, tmp_path: Path
) -> None:
    await finish(database, STORY)
    await graduate(database, STORY)
    people = Database(mongo_uri, database.collection("x").database.name + "-p", service="enrollment", driver=driver)
    await _register_people(people)
    issuer_port, enrollment_port = free_port(), free_port()
    url = f"http://127.0.0.1:{issuer_port}"
    settings: dict[str, Any] = {
        "oidc_issuer": url,
        "certificate_key": KEY,
        "enrollment_internal_url": f"http://127.0.0.1:{enrollment_port}",
        "client_id": "assessment",
        "client_secret": CLIENTS["assessment"],
    }
    path = f"/v1/cohorts/{STORY.cohort_id}/certificates"
    neighbour = enrollment.internal_app(people, settings_for(enrollment.settings, oidc_issuer=url))
    async with (
        serving(issuer(url, Keys(tmp_path), CLIENTS), issuer_port),
        api(service, database, **settings) as client,
    ):
        organiser = await bearer(url, roles="organiser", person_id=uid(1, 90))
        holder = await bearer(url, roles="participant", person_id=STORY.person(1))
        with clock_at(AFTER):
            assert (await client.put(path, headers=organiser)).status_code == 503
            assert await database.collection("credentials").count_documents({}) == 0
            async with serving(neighbour, enrollment_port):
                issued = await client.put(path, headers=organiser)
        assert issued.status_code == 200
        assert [row["number"][:5] for row in issued.json()] == ["00001", "00002", "00003"]
        held = await client.get(f"/v1/credentials/{issued.json()[0]['id']}", headers=holder)
        assert held.json()["name"] == name_of(STORY.person(1))
    await people.drop()
    await people.close()
