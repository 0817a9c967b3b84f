"""Scheduling's HTTP API: who may ask what, and how the answer looks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from services.scheduling import domain
from services.scheduling.app import service
from services.scheduling.consumers import consumer
from shared.contracts.scheduling import SessionRescheduled
from shared.identity import Role
from shared.mongo import Database
from tests.scheduling.story import (
    BEFORE,
    MODULES,
    Story,
    draft,
    group,
    know,
    of_module,
    published,
    room_id,
    staff,
    trainer_id,
)
from tests.support import announced, api, clock_at, deliver, token, uid

STORY = Story()
ORGANISER = token(Role.ORGANISER, person_id=uid(1, 90))
TRAINER = token(Role.TRAINER, person_id=trainer_id(1))
COACH = token(Role.COACH, person_id=STORY.coaches[0])
PARTICIPANT = token(Role.PARTICIPANT, person_id=STORY.person(1))
NOT_ORGANISERS = {
    "trainer": TRAINER,
    "coach": COACH,
    "participant": PARTICIPANT,
    "coordinator": token(Role.COORDINATOR, person_id=uid(2, 90), agency_ids=[STORY.agency(1)]),
    "a service": token(Role.SERVICE, client_id="assessment", sub="assessment"),
    "nobody": {},
}
TRAINERS = f"/v1/trainers/{trainer_id(1)}"
ROOMS = f"/v1/rooms/{room_id(1)}"
GROUPS = f"/v1/cohorts/{STORY.cohort_id}/groups"
SCHEDULE = f"/v1/schedules/{STORY.schedule_id}"
GROUPS_BODY = {"coach_ids": STORY.coaches, "examiner_ids": STORY.examiners}


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with api(service, database) as client:
        with clock_at(BEFORE):
            yield client


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"].startswith("application/problem+json"), answer.text
    return answer.status_code, answer.json()["type"].rpartition("#")[2]


async def test_the_whole_way_from_trainers_to_attendance_over_http(
    client: httpx.AsyncClient, database: Database
) -> None:
    await know(database, STORY)
    for number in (1, 2, 3):
        path = f"/v1/trainers/{trainer_id(number)}"
        assert (await client.put(path, json={"modules": MODULES}, headers=ORGANISER)).status_code == 200
    for number, kind in enumerate(["virtual", "virtual", "physical", "physical"], start=1):
        body = {"kind": kind, "seats": 40}
        assert (await client.put(f"/v1/rooms/{room_id(number)}", json=body, headers=ORGANISER)).status_code == 200
    formed = await client.put(GROUPS, json=GROUPS_BODY, headers=ORGANISER)
    assert [len(g["enrollment_ids"]) for g in formed.json()] == [3, 3]
    made = await client.put(SCHEDULE, json={"cohort_id": STORY.cohort_id}, headers=ORGANISER)
    assert made.status_code == 201 and made.json()["status"] == "draft"
    assert (await client.get(f"/v1/cohorts/{STORY.cohort_id}/sessions", headers=PARTICIPANT)).json() == []
    answer = await client.put(f"{SCHEDULE}/publication", headers=ORGANISER)
    assert answer.status_code == 200 and answer.json()["status"] == "published"
    sessions = (await client.get(f"/v1/cohorts/{STORY.cohort_id}/sessions", headers=PARTICIPANT)).json()
    assert len(sessions) == len(made.json()["sessions"]) == 66
    assert [s["starts_at"] for s in sessions] == sorted(s["starts_at"] for s in sessions)
    first = sessions[0]
    with clock_at(BEFORE + timedelta(days=200)):
        path = f"/v1/sessions/{first['id']}/attendance"
        body = {"absences": [{"enrollment_id": STORY.enrollment(1), "status": "sick"}]}
        leader = token(Role.TRAINER, person_id=first["trainer_ids"][0])
        taken = await client.put(path, json=body, headers=leader)
        assert [row["status"] for row in taken.json()] == ["sick", *["present"] * 5]
        assert (await client.get(path, headers=leader)).json() == sorted(taken.json(), key=lambda row: row["id"])
        correction = {"status": "permitted", "reason_code": "letter-of-assignment"}
        corrected = await client.put(f"{path}/{STORY.enrollment(1)}", json=correction, headers=leader)
        assert corrected.json()["status"] == "permitted"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", TRAINERS, {"modules": []}),
        ("PUT", ROOMS, {"kind": "virtual", "seats": 1}),
        ("PUT", GROUPS, GROUPS_BODY),
        ("PUT", SCHEDULE, {"cohort_id": STORY.cohort_id}),
        ("GET", SCHEDULE, None),
        ("PUT", f"{SCHEDULE}/publication", None),
        ("PUT", f"/v1/sessions/{uid(1)}/time", {"starts_at": "2022-03-01T01:00:00Z", "reason_code": "organiser"}),
    ],
)
async def test_planning_is_the_organisers(
    client: httpx.AsyncClient, method: str, path: str, body: dict[str, Any] | None
) -> None:
    for who, headers in NOT_ORGANISERS.items():
        answer = await client.request(method, path, json=body, headers=headers)
        assert answer.status_code == (401 if who == "nobody" else 403), who


async def test_attendance_is_of_the_sessions_own_trainer_and_the_organiser(
    client: httpx.AsyncClient, database: Database
) -> None:
    await staff(database)
    session = of_module(await published(database, STORY), "bela-negara")[0]
    path = f"/v1/sessions/{session.id}/attendance"
    own = token(Role.TRAINER, person_id=session.trainer_ids[0])
    other = token(Role.TRAINER, person_id=next(t for t in map(trainer_id, (1, 2)) if t not in session.trainer_ids))
    correction = {"status": "sick", "reason_code": "certificate"}
    with clock_at(session.ends_at):
        assert (await client.put(path, json={}, headers=other)).status_code == 404
        assert (await client.put(path, json={}, headers=PARTICIPANT)).status_code == 403
        assert (await client.put(path, json={}, headers=own)).status_code == 200
        assert (await client.put(path, json={}, headers=ORGANISER)).status_code == 200
        assert (await client.get(path, headers=other)).status_code == 404
        assert len((await client.get(path, headers=own)).json()) == 6
        one = f"{path}/{STORY.enrollment(1)}"
        assert (await client.put(one, json=correction, headers=other)).status_code == 404
        assert (await client.put(one, json=correction, headers=own)).status_code == 200
        nobody = f"{path}/{uid(9, 9)}"
        assert problem(await client.put(nobody, json=correction, headers=own)) == (409, "attendance-not-taken")
        again = await client.put(path, json={}, headers=own)
        assert problem(again) == (409, "attendance-taken")


async def test_a_coach_sees_the_own_group_and_the_organiser_all(client: httpx.AsyncClient, database: Database) -> None:
    assert (await client.get(GROUPS, headers=ORGANISER)).status_code == 404
    assert (await client.get(f"/v1/cohorts/{STORY.cohort_id}/sessions", headers=PARTICIPANT)).status_code == 404
    await know(database, STORY)
    await group(database, STORY)
    assert [g["number"] for g in (await client.get(GROUPS, headers=ORGANISER)).json()] == [1, 2]
    assert [g["number"] for g in (await client.get(GROUPS, headers=COACH)).json()] == [1]
    examiner = token(Role.EXAMINER, person_id=STORY.examiners[1])
    assert [g["number"] for g in (await client.get(GROUPS, headers=examiner)).json()] == [2]
    assert (await client.get(GROUPS, headers=TRAINER)).json() == []
    assert (await client.get(GROUPS, headers=PARTICIPANT)).status_code == 403


async def test_a_trainer_sees_the_own_entry_and_no_other(client: httpx.AsyncClient, database: Database) -> None:
    await staff(database)
    assert (await client.get(TRAINERS, headers=TRAINER)).json()["modules"] == MODULES
    assert (await client.get(f"/v1/trainers/{trainer_id(2)}", headers=TRAINER)).status_code == 404
    assert (await client.get(f"/v1/trainers/{trainer_id(2)}", headers=ORGANISER)).status_code == 200
    assert (await client.get(f"/v1/trainers/{uid(99)}", headers=ORGANISER)).status_code == 404
    assert (await client.get(ROOMS, headers=PARTICIPANT)).json()["seats"] == 40
    assert (await client.get(f"/v1/rooms/{uid(99)}", headers=PARTICIPANT)).status_code == 404


async def test_refusals_say_what_stands_in_the_way(client: httpx.AsyncClient, database: Database) -> None:
    body = {"cohort_id": STORY.cohort_id}
    assert problem(await client.put(SCHEDULE, json=body, headers=ORGANISER)) == (409, "cohort-unknown")
    assert problem(await client.put(f"{SCHEDULE}/publication", headers=ORGANISER)) == (404, "not-found")
    await know(database, STORY)
    answer = await client.put(SCHEDULE, json=body, headers=ORGANISER)
    assert problem(answer) == (409, "nobody-qualified")
    assert answer.json()["modules"] == sorted(MODULES)
    await staff(database)
    late = Story(2)
    opened = late.opened().model_copy(update={"ends_on": late.opened().ends_on - timedelta(days=7)})
    await deliver(consumer, database, opened, late.enrolled(1), at=BEFORE)
    path = f"/v1/schedules/{late.schedule_id}"
    answer = await client.put(path, json={"cohort_id": late.cohort_id}, headers=ORGANISER)
    assert problem(answer) == (409, "does-not-fit")
    assert (answer.json()["stage"], answer.json()["short_by_days"]) == ("classical", 5)
    assert answer.json()["closed_days"] == ["2022-02-28", "2022-03-03"]
    one = {"coach_ids": STORY.coaches[:1], "examiner_ids": STORY.examiners[:1]}
    answer = await client.put(GROUPS, json=one, headers=ORGANISER)
    assert problem(answer) == (409, "groups-mismatch") and answer.json()["learning_groups"] == 2


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        (TRAINERS, {"modules": ["NOT A CODE"]}, "/modules/0"),
        (TRAINERS, {"modules": [], "name": "somebody"}, "/name"),
        (TRAINERS, {"modules": [], "unavailable": [{"starts_at": "2022-03-01T01:00:00"}]}, "/unavailable/0/starts_at"),
        (
            TRAINERS,
            {
                "modules": [],
                "unavailable": [{"starts_at": "2022-03-02T01:00:00Z", "ends_at": "2022-03-01T01:00:00Z"}],
            },
            "/unavailable/0",
        ),
        (
            TRAINERS,
            {"modules": [], "unavailable": [{"starts_at": "0001-01-01T00:00Z", "ends_at": "9999-12-31T23:59-10:00"}]},
            "/unavailable/0/ends_at",
        ),
        (f"/v1/sessions/{uid(1)}/time", {"starts_at": "9999-12-31T23:59-10:00", "reason_code": "organiser"}, "/starts"),
        (ROOMS, {"kind": "garden", "seats": 4}, "/kind"),
        (ROOMS, {"kind": "virtual", "seats": 0}, "/seats"),
        (SCHEDULE, {}, "/cohort_id"),
        (f"/v1/sessions/{uid(1)}/time", {"starts_at": "2022-03-01T08:00:00", "reason_code": "organiser"}, "/starts_at"),
        (f"/v1/sessions/{uid(1)}/time", {"starts_at": "2022-03-01T08:00:00Z", "reason_code": "whim"}, "/reason_code"),
        (
            f"/v1/sessions/{uid(1)}/attendance",
            {"absences": [{"enrollment_id": uid(1), "status": s} for s in ("sick", "absent")]},
            "",
        ),
        (f"/v1/sessions/{uid(1)}/attendance", {"absences": [{"enrollment_id": uid(1), "status": "late"}]}, "status"),
    ],
)
async def test_a_body_that_does_not_fit_is_answered_with_its_place(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], pointer: str
) -> None:
    answer = await client.put(path, json=body, headers=ORGANISER)
    assert answer.status_code == 422, answer.text
    assert any(pointer in error["pointer"] for error in answer.json()["errors"]), answer.json()
    assert "somebody" not in answer.text


async def test_a_draft_is_made_by_an_id_of_the_clients_own(client: httpx.AsyncClient, database: Database) -> None:
    await staff(database)
    await know(database, STORY)
    body = {"cohort_id": STORY.cohort_id}
    assert (await client.put("/v1/schedules/not-an-id", json=body, headers=ORGANISER)).status_code == 422
    first = await client.put(SCHEDULE, json=body, headers=ORGANISER)
    again = await client.put(SCHEDULE, json=body, headers=ORGANISER)
    assert first.json() == again.json()
    other = await client.put(SCHEDULE, json={"cohort_id": Story(2).cohort_id}, headers=ORGANISER)
    assert problem(other) == (409, "id-taken")
    shown = await client.get(SCHEDULE, headers=ORGANISER)
    assert shown.json() == first.json()


@pytest.mark.parametrize("seen", ['"1"', "*"])
async def test_an_edit_of_what_nobody_registered_registers_nothing(seen: str, client: httpx.AsyncClient) -> None:
    bodies = {f"/v1/trainers/{uid(1, 7)}": {"modules": []}, f"/v1/rooms/{uid(1, 8)}": {"kind": "virtual", "seats": 9}}
    for path, body in bodies.items():
        assert (await client.put(path, json=body, headers=ORGANISER | {"If-Match": seen})).status_code == 412
        assert (await client.put(path, json=body, headers=ORGANISER)).status_code == 200
        assert (await client.put(path, json=body, headers=ORGANISER | {"If-Match": "*"})).status_code == 200


async def test_a_session_is_moved_by_the_edition_that_was_seen(client: httpx.AsyncClient, database: Database) -> None:
    await staff(database)
    session = of_module(await published(database, STORY), "manajemen-mutu")[1]
    path = f"/v1/sessions/{session.id}"
    seen = await client.get(path, headers=PARTICIPANT)
    assert seen.status_code == 200
    moved = None
    for n in range(1, 12):
        for hour in ("08:00", "10:30"):
            day = (session.starts_at + timedelta(days=n)).date()
            body = {"starts_at": f"{day}T{hour}:00+07:00", "reason_code": "organiser"}
            headers = ORGANISER | {"If-Match": seen.headers["etag"]}
            if moved is None and (answer := await client.put(f"{path}/time", json=body, headers=headers)).is_success:
                moved = answer
    assert moved is not None and moved.json()["ical_sequence"] == 1
    assert moved.json()["starts_at"].endswith("Z")
    assert moved.headers["etag"] != seen.headers["etag"]
    body = {"starts_at": session.starts_at.isoformat(), "reason_code": "organiser"}
    stale = await client.put(f"{path}/time", json=body, headers=ORGANISER | {"If-Match": seen.headers["etag"]})
    assert stale.status_code == 412
    fresh = await client.put(f"{path}/time", json=body, headers=ORGANISER | {"If-Match": moved.headers["etag"]})
    assert fresh.json()["ical_sequence"] == 2
    assert len(await announced(database, SessionRescheduled)) == 2


async def test_attendance_does_not_move_the_edition_of_a_session(client: httpx.AsyncClient, database: Database) -> None:
    await staff(database)
    session = of_module(await published(database, STORY), "bela-negara")[0]
    path = f"/v1/sessions/{session.id}"
    before = (await client.get(path, headers=ORGANISER)).headers["etag"]
    with clock_at(session.ends_at):
        assert (await client.put(f"{path}/attendance", json={}, headers=ORGANISER)).status_code == 200
    after = await client.get(path, headers=ORGANISER)
    assert after.headers["etag"] == before and after.json()["attendance_taken"]


async def test_two_cohorts_that_want_the_same_trainers_the_second_is_told_who_is_taken(
    client: httpx.AsyncClient, database: Database
) -> None:
    other = Story(2)
    await staff(database)
    for story in (STORY, other):
        await know(database, story)
        await group(database, story)
        await draft(database, story)
    assert (await client.put(f"{SCHEDULE}/publication", headers=ORGANISER)).status_code == 200
    answer = await client.put(f"/v1/schedules/{other.schedule_id}/publication", headers=ORGANISER)
    assert problem(answer) == (409, "already-reserved")
    assert answer.json()["resource"] == "trainer" and answer.json()["resource_id"].startswith("00000010-")


async def test_no_answer_and_no_event_holds_a_name(client: httpx.AsyncClient, database: Database) -> None:
    """What scheduling keeps and says is ids, codes, hours and instants."""
    await staff(database)
    await published(database, STORY)
    fields = {name for _, event in await announced(database) for name in type(event).model_fields}
    assert not {name for name in fields if any(word in name for word in ("name", "email", "link", "note", "title"))}
    kept = [name for cls in (domain.Trainer, domain.Roster, domain.Member) for name in cls.model_fields]
    assert not {"name", "email", "nip", "phone"} & set(kept)
