"""Enrollment's API: who may, what is not yours, problems, idempotency, ETags."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from services.enrollment.app import service
from shared.identity import Role
from shared.mongo import Database
from tests.enrollment.story import (
    COHORT,
    GOOD,
    NOW,
    ORGANISER,
    PKP,
    RULES,
    accepted,
    coordinator,
    opened,
    put,
    registered,
)
from tests.support import announced, api, clock_at, service_token, token, uid

AGENCY = {"code": "kementerian-01", "kind": "ministry", "name": "Kementerian 01 (contoh)"}
PERSON = {"name": "Peserta 01 (generated)", "email": "p1@example.go.id", "agency_id": uid(1, 0xA)}


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with api(service, database) as client:
        yield client


def cohort_body(**changes: Any) -> dict[str, Any]:
    return {
        "programme_id": PKP,
        "rule_set_version": "pkp-2019.1",
        "curriculum_version": "pkp-2019.1",
        "number": 3,
        "year": 2022,
        "capacity": 40,
        "min_size": 20,
        "nominations_close_at": "2022-01-24T09:00:00+07:00",
        "starts_on": "2022-02-21",
        "ends_on": "2022-06-19",
    } | changes


async def test_an_agency_is_registered_once_and_the_same_request_answers_the_same(client: httpx.AsyncClient) -> None:
    first = await put(client, f"/v1/agencies/{uid(1, 0xA)}", ORGANISER, AGENCY)
    again = await put(client, f"/v1/agencies/{uid(1, 0xA)}", ORGANISER, dict(reversed(AGENCY.items())))
    other = await put(client, f"/v1/agencies/{uid(1, 0xA)}", ORGANISER, AGENCY | {"name": "Other"})
    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 409)
    assert first.json() == again.json()
    assert other.json()["type"].endswith("#id-taken")


async def test_of_two_who_register_the_same_at_once_one_is_told_that_it_is_new(client: httpx.AsyncClient) -> None:
    bodies = {
        f"/v1/agencies/{uid(1, 0xA)}": AGENCY,
        f"/v1/people/{uid(1, 0xB)}": PERSON,
        f"/v1/cohorts/{COHORT}": cohort_body(),
    }
    with clock_at(NOW):
        for path, body in bodies.items():
            answers = await asyncio.gather(*(put(client, path, ORGANISER, body) for _ in range(4)))
            assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
            assert len({answer.text for answer in answers}) == 1


async def test_a_personnel_number_as_id_is_refused(client: httpx.AsyncClient) -> None:
    for id in ("198001012005011001", "not-an-id", uid(1, 0xABC).upper(), "6ba7b810-9dad-11d1-80b4-00c04fd430c8"):
        assert (await put(client, f"/v1/people/{id}", ORGANISER, PERSON)).status_code == 422


async def test_a_wrong_body_is_told_place_by_place_without_its_values(client: httpx.AsyncClient) -> None:
    body = PERSON | {"email": "secret-canary", "nip": "123canary", "unknown": 1}
    answer = await put(client, f"/v1/people/{uid(1)}", ORGANISER, body)
    told = answer.json()
    assert answer.status_code == 422 and answer.headers["content-type"] == "application/problem+json"
    assert {e["pointer"] for e in told["errors"]} == {"/body/email", "/body/nip", "/body/unknown"}
    assert "canary" not in answer.text


async def test_a_cohort_that_the_rules_do_not_allow_is_refused_with_the_limit(client: httpx.AsyncClient) -> None:
    with clock_at(NOW):
        answer = await put(client, f"/v1/cohorts/{COHORT}", ORGANISER, cohort_body(capacity=41))
    assert answer.status_code == 409 and answer.json()["class_max"] == 40


async def test_a_coordinator_neither_sees_nor_infers_another_agencys_people(
    client: httpx.AsyncClient, database: Database
) -> None:
    await opened(database)
    await registered(database, 1, 2)
    id = await accepted(database, 2)
    for path in (f"/v1/people/{uid(2, 0xB)}", f"/v1/nominations/{id}"):
        mine = await client.get(path, headers=coordinator(2))
        theirs = await client.get(path, headers=coordinator(1))
        nobody = await client.get(path.replace("2", "7"), headers=coordinator(1))
        assert (mine.status_code, theirs.status_code, nobody.status_code) == (200, 404, 404)
        assert theirs.json() | {"correlation_id": ""} == nobody.json() | {"correlation_id": ""}
    listed = await client.get(f"/v1/cohorts/{COHORT}/nominations", headers=coordinator(1))
    assert listed.json()["items"] == []
    body = {
        "agency_id": uid(2, 0xA),
        "nominees": [{"person_id": uid(2, 0xB), "mentor_id": uid(2, 0xD), "documents": [], "facts": {}}],
    }
    assert (
        await client.post(f"/v1/cohorts/{COHORT}/nominations", json=body, headers=coordinator(1))
    ).status_code == 404


async def test_an_idempotency_key_is_for_one_request(client: httpx.AsyncClient, database: Database) -> None:
    await opened(database)
    await registered(database, 1)
    row = {"person_id": uid(1, 0xB), "mentor_id": uid(1, 0xD), "documents": RULES.documents.value, "facts": GOOD}
    body = {"agency_id": uid(1, 0xA), "nominees": [row]}
    headers = coordinator(1) | {"Idempotency-Key": "nominate-2022-01"}
    with clock_at(NOW):
        first = await client.post(f"/v1/cohorts/{COHORT}/nominations", json=body, headers=headers)
        again = await client.post(f"/v1/cohorts/{COHORT}/nominations", json=body, headers=headers)
        row["documents"] = []
        other = await client.post(f"/v1/cohorts/{COHORT}/nominations", json=body, headers=headers)
    assert first.json() == again.json() and first.status_code == 200
    assert other.status_code == 422 and other.json()["type"].endswith("#idempotency-key-reused")
    kept = await database.collection("idempotency").find({}).to_list(None)
    assert uid(1, 0xB) not in str(kept)


@pytest.mark.parametrize(
    "stated",
    [
        *({"facts": {name: "pns"}} for name in ("Budi Santoso, NIP 198001012005011001", "$where", "a.b", "", "a" * 33)),
        {"facts": {"employment": "Budi Santoso"}},
        {"facts": {"a" * n: "pns" for n in range(1, 33)} | {"one_more": "pns"}},
        {"documents": ["identity-card"] * 33},
    ],
    ids=lambda stated: str(stated)[:40],
)
async def test_a_nomination_keeps_no_words_of_the_agency(
    stated: dict[str, Any], client: httpx.AsyncClient, database: Database
) -> None:
    await opened(database)
    await registered(database, 1)
    row = {"person_id": uid(1, 0xB), "mentor_id": uid(1, 0xD), "documents": [], "facts": {}} | stated
    body = {"agency_id": uid(1, 0xA), "nominees": [row]}
    with clock_at(NOW):
        answer = await client.post(f"/v1/cohorts/{COHORT}/nominations", json=body, headers=coordinator(1))
    assert answer.status_code == 422
    assert await database.collection("nominations").find({}).to_list(None) == []


async def test_an_edit_needs_the_revision_that_was_seen(client: httpx.AsyncClient, database: Database) -> None:
    path = f"/v1/people/{uid(1, 0xB)}"
    first = await put(client, path, ORGANISER, PERSON)
    etag = first.headers["ETag"]
    changed = await put(client, path, ORGANISER, PERSON | {"email": "new@example.go.id"}, **{"If-Match": etag})
    late = await put(client, path, ORGANISER, PERSON | {"email": "late@example.go.id"}, **{"If-Match": etag})
    weak = await put(client, path, ORGANISER, PERSON, **{"If-Match": "W/" + changed.headers["ETag"]})
    odd = await put(client, path, ORGANISER, PERSON, **{"If-Match": "yesterday"})
    assert (changed.status_code, late.status_code, weak.status_code, odd.status_code) == (200, 412, 412, 400)
    assert (await client.get(path, headers=ORGANISER)).json()["email"] == "new@example.go.id"
    whichever = await put(client, path, ORGANISER, PERSON | {"email": "newest@example.go.id"}, **{"If-Match": "*"})
    assert (whichever.status_code, whichever.json()["email"]) == (200, "newest@example.go.id")


@pytest.mark.parametrize("seen", ['"1"', "*"])
async def test_an_edit_of_what_is_not_there_creates_nothing(seen: str, client: httpx.AsyncClient) -> None:
    path = f"/v1/people/{uid(1, 0xB)}"
    assert (await put(client, path, ORGANISER, PERSON, **{"If-Match": seen})).status_code == 412
    assert (await client.get(path, headers=ORGANISER)).status_code == 404


NO_NAMES = ["", "   ", "Peserta\r\nBcc: x@example.org", "Peserta\u001b[2J", "x" * 201]
NO_NAMES += [f"Peserta{mark}01" for mark in "\x85\u2028\u2029\u202a\u202e\u2066\u2069"]


@pytest.mark.parametrize("name", NO_NAMES)
async def test_a_name_is_one_line_of_text(client: httpx.AsyncClient, name: str) -> None:
    for path, body in ((f"/v1/people/{uid(1, 0xB)}", PERSON), (f"/v1/agencies/{uid(1, 0xA)}", AGENCY)):
        answer = await put(client, path, ORGANISER, body | {"name": name})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/body/name")


NO_COHORTS = {
    "before our times": {"starts_on": "0001-01-01"},
    "after our times": {"ends_on": "9999-12-31"},
    "closing after our times": {"nominations_close_at": "2100-01-01T00:00:00Z"},
    "over before it begins": {"ends_on": "2022-02-20"},
    "longer than two years": {"ends_on": "2024-02-21"},
    "nowhere": {"zone": "Factory"},
    "wherever the machine is": {"zone": "localtime"},
}


@pytest.mark.parametrize("changes", NO_COHORTS.values(), ids=NO_COHORTS)
async def test_a_cohort_is_held_at_a_plausible_time_and_place(
    client: httpx.AsyncClient, changes: dict[str, str]
) -> None:
    with clock_at(NOW):
        answer = await put(client, f"/v1/cohorts/{COHORT}", ORGANISER, cohort_body(**changes))
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] in ("/body", f"/body/{next(iter(changes))}")
        longest = await put(client, f"/v1/cohorts/{COHORT}", ORGANISER, cohort_body(ends_on="2024-02-20"))
        assert longest.status_code == 201


async def test_the_way_from_nomination_to_seat(client: httpx.AsyncClient, database: Database) -> None:
    await registered(database, 1)
    with clock_at(NOW):
        assert (await put(client, f"/v1/cohorts/{COHORT}", ORGANISER, cohort_body())).status_code == 201
        row = {"person_id": uid(1, 0xB), "mentor_id": uid(1, 0xD), "documents": RULES.documents.value, "facts": GOOD}
        posted = await client.post(
            f"/v1/cohorts/{COHORT}/nominations",
            json={"agency_id": uid(1, 0xA), "nominees": [row]},
            headers=coordinator(1),
        )
        nomination = f"/v1/nominations/{posted.json()['rows'][0]['nomination_id']}"
        early = await put(client, f"{nomination}/acceptance", ORGANISER)
        assert early.status_code == 409 and early.json()["step"] == "submitted"
        await put(client, f"{nomination}/verification", ORGANISER, {"decision": "verify"})
        await put(client, f"{nomination}/acceptance", ORGANISER)
        participant = token(Role.PARTICIPANT, person_id=uid(1, 0xB))
        stranger = token(Role.PARTICIPANT, person_id=uid(2, 0xB))
        assert (await put(client, f"{nomination}/confirmation", stranger)).status_code == 404
        seat = await put(client, f"{nomination}/confirmation", participant)
    assert seat.status_code == 200 and seat.json()["roster_number"] == 1
    composition = (await client.get(f"/v1/cohorts/{COHORT}/composition", headers=participant)).json()
    assert composition["participants"] == 1
    ((envelope, _),) = [pair for pair in await announced(database) if pair[0].type.endswith("participant-enrolled.v1")]
    assert envelope.authid == uid(1, 0xB)


async def test_contacts_are_told_to_the_services_that_send_and_to_nobody_else(database: Database) -> None:
    await registered(database, 1)
    async with api(service, database, internal=True) as internal:
        path, body = "/internal/v1/contacts", {"person_ids": [uid(1, 0xB), uid(77, 0xB)]}
        for who, status in (
            (service_token("notification", "enrollment"), 200),
            (service_token("assessment", "enrollment"), 200),
            (service_token("scheduling", "enrollment"), 403),
            (service_token("notification", "scheduling"), 401),
            (ORGANISER, 403),
            ({}, 401),
        ):
            assert (await internal.post(path, json=body, headers=who)).status_code == status
        told = await internal.post(path, json=body, headers=service_token("notification", "enrollment"))
        assert [contact["person_id"] for contact in told.json()] == [uid(1, 0xB)]
    async with api(service, database) as public:
        assert (
            await public.post(path, json=body, headers=service_token("notification", "enrollment"))
        ).status_code == 404


async def test_lists_come_in_pages(client: httpx.AsyncClient, database: Database) -> None:
    await registered(database, *range(1, 8))
    seen: list[str] = []
    after = ""
    while True:
        page = (await client.get(f"/v1/agencies?limit=3{after}", headers=ORGANISER)).json()
        seen += [agency["id"] for agency in page["items"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert seen == sorted(uid(n, 0xA) for n in range(1, 8))
    for limit in ("0", "3.0", "+3", "03", "3_0"):
        assert (await client.get("/v1/agencies", params={"limit": limit}, headers=ORGANISER)).status_code == 422


async def test_registering_a_person_of_another_agency_is_not_a_coordinators_business(client: httpx.AsyncClient) -> None:
    assert (await put(client, f"/v1/people/{uid(1, 0xB)}", coordinator(2), PERSON)).status_code == 404
    assert (await put(client, f"/v1/people/{uid(1, 0xB)}", coordinator(1), PERSON)).status_code == 201
