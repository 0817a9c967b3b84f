"""Notification's API: one's own inbox, one's own agency's subscription."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest

from services.notification.app import service
from services.notification.consumers import consumer
from services.notification.domain import Message
from shared.identity import Role
from shared.mongo import Database, Transaction
from tests.notification.story import agency, enrolled
from tests.support import START, api, deliver, token, uid

ORGANISER = token(Role.ORGANISER, person_id=uid(1, 0xF))


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with api(
        service, database, mail_from="t@example.go.id", enrollment_internal_url="http://127.0.0.1:1"
    ) as client:
        yield client


def coordinator(n: int) -> dict[str, str]:
    return token(Role.COORDINATOR, person_id=uid(n, 0xCC), agency_ids=[uid(n, 0xA)])


async def test_an_agency_subscribes_once_it_is_known_and_only_for_itself(
    client: httpx.AsyncClient, database: Database
) -> None:
    path = f"/v1/agencies/{uid(1, 0xA)}/subscription"
    assert (await client.put(path, headers=coordinator(1))).json()["type"].endswith("#agency-unknown")
    await deliver(consumer, database, agency(1))
    assert (await client.put(path, headers=coordinator(2))).status_code == 404
    first = await client.put(path, headers=coordinator(1))
    again = await client.put(path, headers=ORGANISER)
    assert first.json() == again.json() and first.json()["topic"] == "training.agency.agency-1"
    assert (await client.get(path, headers=coordinator(2))).status_code == 404


async def test_a_coordinator_is_named_for_an_agency_that_is_known(
    client: httpx.AsyncClient, database: Database
) -> None:
    path = f"/v1/agencies/{uid(1, 0xA)}/coordinators/{uid(50)}"
    early = await client.put(path, headers=ORGANISER)
    assert early.status_code == 409 and early.json()["type"].endswith("#agency-unknown")
    await deliver(consumer, database, agency(1))
    for _ in range(2):
        assert (await client.put(path, headers=ORGANISER)).json()["coordinator_ids"] == [uid(50)]


async def test_an_inbox_is_ones_own(client: httpx.AsyncClient, database: Database) -> None:
    async def work(tx: Transaction) -> None:
        for n in (1, 2):
            await tx.load(Message, uid(n))
            kept = {"subject": "s", "text": "t", "sent_at": START, "kept_until": START + timedelta(days=90)}
            tx.save(Message.model_validate({"id": uid(n), "recipient_id": uid(n, 0xB), **kept}))

    await database.transaction(work)
    mine = token(Role.PARTICIPANT, person_id=uid(1, 0xB))
    assert [m["id"] for m in (await client.get("/v1/inbox", headers=mine)).json()["items"]] == [uid(1)]
    assert (await client.put(f"/v1/inbox/{uid(2)}/read", headers=mine)).status_code == 404
    assert (await client.put(f"/v1/inbox/{uid(1)}/read", headers=mine)).json()["read"] is True
    assert (await client.get("/v1/inbox", headers=token(Role.OPERATOR))).json()["items"] == []


async def test_the_organiser_sees_what_became_of_each_message_without_its_words(
    client: httpx.AsyncClient, database: Database
) -> None:
    await deliver(consumer, database, enrolled(1))
    page = (await client.get("/v1/deliveries", headers=ORGANISER)).json()
    assert len(page["items"]) == 4 and {"facts", "text"}.isdisjoint(page["items"][0])
    assert (await client.get("/v1/deliveries", headers=coordinator(1))).status_code == 403
