"""Who may see and do what in assessment, over HTTP: one's own and what is another's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from services.assessment import commands
from services.assessment.app import service
from services.assessment.commands import Seal
from services.assessment.consumers import consumer
from shared.contracts.assessment import ProjectStage
from shared.http import BODY_BYTES
from shared.identity import Role
from shared.mongo import Database
from shared.settings import from_environment
from tests.assessment.passages import (
    KEY,
    attend,
    decision_id,
    finish,
    graduate,
    mark,
    name_of,
    names,
    present,
    project_id,
    rubric,
)
from tests.assessment.story import AFTER, DECIDED_ON, MODULES, SCORED, Story, module_id
from tests.support import api, clock_at, deliver, token, uid

SETTINGS: dict[str, Any] = {
    "certificate_key": KEY,
    "enrollment_internal_url": "http://127.0.0.1:1",
    "client_secret": "secret",
}
STORY = Story()
ORGANISER = token(Role.ORGANISER, person_id=uid(1, 90))
STRANGERS = {
    "another participant": token(Role.PARTICIPANT, person_id=STORY.person(2)),
    "another mentor": token(Role.MENTOR, person_id=STORY.mentor(2)),
    "another group's coach": token(Role.COACH, person_id=STORY.coach(2)),
    "another group's examiner": token(Role.EXAMINER, person_id=STORY.examiner(2)),
    "another agency's coordinator": token(Role.COORDINATOR, person_id=uid(2, 90), agency_ids=[STORY.agency(2)]),
    "a coordinator of no agency": token(Role.COORDINATOR, person_id=uid(3, 90)),
    "a trainer": token(Role.TRAINER, person_id=uid(4, 90)),
    "an operator": token(Role.OPERATOR, person_id=uid(5, 90)),
    "whoever has every role but the organiser's": token(
        *(role for role in Role if role not in (Role.ORGANISER, Role.SERVICE)), person_id=uid(6, 90)
    ),
    "a holder of roles without a person": token(Role.PARTICIPANT, Role.MENTOR, Role.EXAMINER, Role.COACH),
}
SELF = token(Role.PARTICIPANT, person_id=STORY.person(1))
MENTOR = token(Role.MENTOR, person_id=STORY.mentor(1))
COACH = token(Role.COACH, person_id=STORY.coach(1))
EXAMINER = token(Role.EXAMINER, person_id=STORY.examiner(1))
COORDINATOR = token(Role.COORDINATOR, person_id=uid(7, 90), agency_ids=[STORY.agency(1)])

RESULTS = f"/v1/enrollments/{STORY.enrollment(1)}/results"
PROJECT = f"/v1/change-projects/{project_id(STORY, 1)}"
GRADUATION = f"/v1/cohorts/{STORY.cohort_id}/graduation"
CERTIFICATES = f"/v1/cohorts/{STORY.cohort_id}/certificates"
DECISION = {"decision_id": decision_id(STORY), "decided_on": DECIDED_ON.isoformat()}
ACADEMIC = SCORED[1]
MARKS = f"/v1/cohorts/{STORY.cohort_id}/modules/{module_id(ACADEMIC)}/marks"
SECOND = f"/v1/enrollments/{STORY.enrollment(1)}/modules/{module_id(ACADEMIC)}/attempts/2"


def seminar(stage: ProjectStage = ProjectStage.PLAN, score: str = "80", attempt: int = 1) -> dict[str, Any]:
    return {"attempt": attempt, "scores": {name: str(mark) for name, mark in rubric(stage, score).items()}}


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with api(service, database, **SETTINGS) as client:
        with clock_at(AFTER):
            yield client


async def statuses(client: httpx.AsyncClient, method: str, path: str, body: Any = None) -> dict[str, int]:
    """How strangers are answered."""
    found = {}
    for who, headers in STRANGERS.items():
        found[who] = (await client.request(method, path, json=body, headers=headers)).status_code
    return found


# --- one's own and another's -------------------------------------------------------------------------------------


async def test_results_are_for_those_near_the_participant_and_marks_for_the_participant_and_the_organiser(
    client: httpx.AsyncClient, database: Database
) -> None:
    await attend(database, STORY)
    await mark(database, STORY, "81.5")
    for headers, with_marks in (
        (SELF, True),
        (ORGANISER, True),
        (MENTOR, False),
        (COACH, False),
        (EXAMINER, False),
        (COORDINATOR, False),
    ):
        answer = await client.get(RESULTS, headers=headers)
        assert answer.status_code == 200
        assert len(answer.json()) == len(MODULES)
        assert {row["score"] for row in answer.json()} == ({None, "81.50"} if with_marks else {None})
        assert {row["outcome"] for row in answer.json()} == {"passed"}
    assert set((await statuses(client, "GET", RESULTS)).values()) == {404}


async def test_a_participant_sees_what_a_result_waits_for_and_why_it_was_not_passed(
    client: httpx.AsyncClient, database: Database
) -> None:
    story = STORY
    await deliver(consumer, database, *story.enrollment_facts(), *story.timetable(), at=story.starts_at(ACADEMIC))
    await deliver(consumer, database, *story.attendance(MODULES[:-1]), at=AFTER)
    for code, score in ((ACADEMIC, 70), (SCORED[2], 80)):
        path = f"/v1/cohorts/{story.cohort_id}/modules/{module_id(code)}/marks"
        body = {"marks": [{"enrollment_id": story.enrollment(1), "score": score}]}
        assert (await client.put(path, json=body, headers=ORGANISER)).status_code == 200
    rows = {row["module_id"]: row for row in (await client.get(RESULTS, headers=SELF)).json()}
    shown = [(rows[module_id(c)]["outcome"], rows[module_id(c)]["waits_for"]) for c in SCORED[:3]]
    assert shown == [(None, "mark"), ("not-passed", None), ("passed", None)]
    assert rows[module_id(ACADEMIC)]["reason_codes"] == ["score-below-mark"]
    assert module_id(MODULES[-1]) not in rows


async def test_a_coordinator_sees_the_outcomes_of_the_own_agency_and_no_mark(
    client: httpx.AsyncClient, database: Database
) -> None:
    await attend(database, STORY)
    await mark(database, STORY)
    path = f"/v1/cohorts/{STORY.cohort_id}/results"
    own = (await client.get(path, headers=COORDINATOR)).json()
    assert {row["enrollment_id"] for row in own} == {STORY.enrollment(1), STORY.enrollment(3)}
    assert {row["score"] for row in own} == {None}
    everything = (await client.get(path, headers=ORGANISER)).json()
    assert len({row["enrollment_id"] for row in everything}) == 3
    assert {row["score"] for row in everything} == {None, "80.00"}
    assert (await client.get(path, headers=SELF)).status_code == 403


async def test_only_the_organiser_marks_modules(client: httpx.AsyncClient, database: Database) -> None:
    await attend(database, STORY)
    body = {"marks": [{"enrollment_id": STORY.enrollment(1), "score": "65"}]}
    for headers in (*STRANGERS.values(), SELF, MENTOR, COACH, EXAMINER, COORDINATOR):
        assert (await client.put(MARKS, json=body, headers=headers)).status_code == 403
        assert (await client.put(SECOND, json={"score": "80"}, headers=headers)).status_code == 403
    assert (await client.put(MARKS, json=body)).status_code == 401
    first = await client.put(MARKS, json=body, headers=ORGANISER)
    assert first.json()[0]["outcome"] == "not-passed"
    again = await client.put(SECOND, json={"score": "99"}, headers=ORGANISER)
    assert (again.json()["outcome"], again.json()["score"]) == ("passed", "85.00")


async def test_a_participant_registers_only_the_own_project(client: httpx.AsyncClient, database: Database) -> None:
    await attend(database, STORY)
    body = {"enrollment_id": STORY.enrollment(1), "theme": "public-service"}
    strangers = await statuses(client, "PUT", PROJECT, body)
    assert set(strangers.values()) == {403, 404}
    assert strangers["another participant"] == strangers["whoever has every role but the organiser's"] == 404
    first = await client.put(PROJECT, json=body, headers=SELF)
    assert first.status_code == 201
    again = await client.put(PROJECT, json=body, headers=SELF)
    assert (again.status_code, again.json()) == (200, first.json())
    other = await client.put(PROJECT, json={**body, "theme": "digital"}, headers=SELF)
    assert (other.status_code, other.json()["type"]) == (409, "/docs/problems.md#id-taken")


async def test_a_project_is_seen_by_those_who_work_on_it(client: httpx.AsyncClient, database: Database) -> None:
    await attend(database, STORY)
    await present(database, STORY, 1)
    for headers in (SELF, MENTOR, COACH, EXAMINER, ORGANISER):
        assert (await client.get(PROJECT, headers=headers)).status_code == 200
    assert set((await statuses(client, "GET", PROJECT)).values()) == {404}
    assert (await client.get(PROJECT, headers=COORDINATOR)).status_code == 404


async def test_only_the_participants_mentor_consents_and_only_the_groups_examiner_marks(
    client: httpx.AsyncClient, database: Database
) -> None:
    await attend(database, STORY)
    body = {"enrollment_id": STORY.enrollment(1), "theme": "public-service"}
    await client.put(PROJECT, json=body, headers=SELF)
    consent, plan = f"{PROJECT}/mentor-consent", f"{PROJECT}/seminars/plan"
    both = token(Role.ORGANISER, Role.MENTOR, Role.EXAMINER, person_id=uid(8, 90))
    for path, sent in ((consent, None), (plan, seminar())):
        answers = await statuses(client, "PUT", path, sent)
        assert set(answers.values()) == {403, 404}
        assert answers["whoever has every role but the organiser's"] == 404
        assert answers["a holder of roles without a person"] == 404
        assert (await client.put(path, json=sent, headers=both)).status_code == 404
        assert (await client.put(path, json=sent, headers=SELF)).status_code == 403
    too_early = await client.put(plan, json=seminar(), headers=EXAMINER)
    assert too_early.json()["type"] == "/docs/problems.md#consent-missing"
    agreed = await client.put(consent, headers=MENTOR)
    assert agreed.json()["consented_at"] is not None
    held = await client.put(plan, json=seminar(score="75.25"), headers=EXAMINER)
    assert held.json()["seminars"] == [{"stage": "plan", "attempt": 1, "score": "75.25", "outcome": "passed"}]
    result = await client.put(f"{PROJECT}/seminars/result", json=seminar(ProjectStage.RESULT), headers=EXAMINER)
    assert [s["stage"] for s in result.json()["seminars"]] == ["plan", "result"]


async def test_an_examiner_who_left_the_group_may_no_longer_mark(client: httpx.AsyncClient, database: Database) -> None:
    await attend(database, STORY)
    await commands.register_project(project_id(STORY, 1), STORY.enrollment(1), "public-service", "asked", database)
    await commands.consent(project_id(STORY, 1), database)
    moved = [STORY.regrouped(1, [2]), STORY.regrouped(2, [1, 3])]
    await deliver(consumer, database, *moved, at=AFTER)
    assert (await client.put(f"{PROJECT}/seminars/plan", json=seminar(), headers=EXAMINER)).status_code == 404
    now = token(Role.EXAMINER, person_id=STORY.examiner(2))
    assert (await client.put(f"{PROJECT}/seminars/plan", json=seminar(), headers=now)).status_code == 200


# --- graduation --------------------------------------------------------------------------------------------------


async def test_the_organiser_decides_and_everybody_sees_the_own_decision(
    client: httpx.AsyncClient, database: Database
) -> None:
    await finish(database, STORY)
    for headers in (*STRANGERS.values(), SELF, MENTOR, EXAMINER, COORDINATOR):
        assert (await client.put(GRADUATION, json=DECISION, headers=headers)).status_code == 403
    decided = await client.put(GRADUATION, json=DECISION, headers=ORGANISER)
    assert [(row["graduated"], row["total"]) for row in decided.json()] == [(True, "80.00")] * 3
    again = await client.put(GRADUATION, json=DECISION, headers=ORGANISER)
    assert (again.status_code, again.json()) == (200, decided.json())
    (own,) = (await client.get(GRADUATION, headers=SELF)).json()
    assert (own["participant_id"], own["total"], own["predicate"]) == (STORY.person(1), "80.00", "Cukup Memuaskan")
    theirs = (await client.get(GRADUATION, headers=COORDINATOR)).json()
    assert {row["participant_id"] for row in theirs} == {STORY.person(1), STORY.person(3)}
    assert {(row["graduated"], row["total"], row["predicate"]) for row in theirs} == {(True, None, None)}
    seen = await statuses(client, "GET", GRADUATION)
    assert seen.pop("another participant") == seen.pop("another agency's coordinator") == 200  # their own
    assert set(seen.values()) == {403, 404}


async def test_an_undecided_cohort_is_refused_with_the_list_of_what_is_missing(
    client: httpx.AsyncClient, database: Database
) -> None:
    await attend(database, STORY)
    await mark(database, STORY)
    refused = await client.put(GRADUATION, json=DECISION, headers=ORGANISER)
    assert (refused.status_code, refused.json()["type"]) == (409, "/docs/problems.md#marks-incomplete")
    assert refused.json()["missing"] == {STORY.enrollment(i): ["project.plan", "project.result"] for i in (1, 2, 3)}


# --- certificates ------------------------------------------------------------------------------------------------


async def certified(database: Database) -> list[str]:
    await finish(database, STORY)
    await graduate(database, STORY)
    with clock_at(AFTER):
        issued = await commands.issue_certificates(STORY.cohort_id, names, Seal(KEY), database)
    return [credential.id for credential in issued]


async def test_while_enrollment_is_away_issuing_answers_503_and_nothing_is_half_done(
    client: httpx.AsyncClient, database: Database
) -> None:
    await finish(database, STORY)
    early = await client.put(CERTIFICATES, headers=ORGANISER)
    assert (early.status_code, early.json()["type"]) == (409, "/docs/problems.md#not-decided")
    await graduate(database, STORY)
    answer = await client.put(CERTIFICATES, headers=ORGANISER)
    assert (answer.status_code, answer.json()["type"]) == (503, "/docs/problems.md#unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert await database.collection("credentials").count_documents({}) == 0
    for headers in (SELF, COORDINATOR, EXAMINER):
        assert (await client.put(CERTIFICATES, headers=headers)).status_code == 403


async def test_a_holder_sees_the_certificate_with_the_name_and_nobody_else_does(
    client: httpx.AsyncClient, database: Database
) -> None:
    id, *_ = await certified(database)
    for headers in (SELF, ORGANISER):
        answer = await client.get(f"/v1/credentials/{id}", headers=headers)
        assert answer.json()["name"] == name_of(STORY.person(1))
        assert answer.json()["number"] == "00001/PKP/LAN-RI/06/2022"
    for headers in (MENTOR, COACH, EXAMINER, COORDINATOR):
        assert (await client.get(f"/v1/credentials/{id}", headers=headers)).status_code == 404
    assert set((await statuses(client, "GET", f"/v1/credentials/{id}")).values()) == {404}
    assert (await client.get(f"/v1/credentials/{id}")).status_code == 401


async def test_anybody_may_verify_a_certificate_and_learns_initials_only(
    client: httpx.AsyncClient, database: Database
) -> None:
    id, *_ = await certified(database)
    answer = await client.get(f"/v1/verify/{id}")
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"].startswith("public, max-age=")
    assert answer.json() == {
        "number": "00001/PKP/LAN-RI/06/2022",
        "status": "valid",
        "kind": "graduation",
        "holder": "C. P.",
        "programme": "Pelatihan Kepemimpinan Pengawas",
        "cohort_number": 3,
        "cohort_year": 2022,
        "organiser": "Lembaga Administrasi Negara Republik Indonesia",
        "jp": 830,
        "starts_on": "2022-02-21",
        "ends_on": "2022-06-17",
        "issued_on": "2022-06-17",
    }
    for secret in (name_of(STORY.person(1)), STORY.person(1), STORY.enrollment(1), STORY.agency(1)):
        assert secret not in answer.text
    unknown = await client.get(f"/v1/verify/{uid(1, 99)}")
    assert (unknown.status_code, "Cache-Control" in unknown.headers) == (404, False)
    for nonsense in ("1", "..", "%00", "x" * 300):
        assert (await client.get(f"/v1/verify/{nonsense}")).status_code in (404, 422)


# --- what cannot be read -----------------------------------------------------------------------------------------


async def test_a_mark_is_a_number_from_0_to_100_with_two_decimals(
    client: httpx.AsyncClient, database: Database
) -> None:
    await attend(database, STORY)
    headers = {**ORGANISER, "Content-Type": "application/json"}
    for score in ("-1", "100.01", "70.001", '"70.001"', "NaN", "Infinity", "null", '"seventy"', "true", "1e400", "[]"):
        body = f'{{"marks": [{{"enrollment_id": "{STORY.enrollment(1)}", "score": {score}}}]}}'
        assert (await client.put(MARKS, content=body, headers=headers)).status_code == 422, score
    assert await database.collection("module_results").count_documents({"score": {"$ne": None}}) == 0


async def test_one_participant_is_marked_once_in_a_list(client: httpx.AsyncClient, database: Database) -> None:
    await attend(database, STORY)
    twice = [{"enrollment_id": STORY.enrollment(1), "score": score} for score in ("60", "90")]
    assert (await client.put(MARKS, json={"marks": twice}, headers=ORGANISER)).status_code == 422


async def test_an_attempt_has_one_address(client: httpx.AsyncClient) -> None:
    for other in ("2.0", "02", "+2", "٢"):
        path = SECOND.removesuffix("2") + other
        assert (await client.put(path, json={"score": "80"}, headers=ORGANISER)).status_code == 422, other


UNFIT: list[Any] = [
    {"attempt": 0, "scores": {"fit-of-idea": 80}},
    {"attempt": 1, "scores": {}},
    {"attempt": 1, "scores": {"fit-of-idea": 101}},
    {"attempt": 1, "scores": {"x" * 65: 80}},
    {"attempt": 1, "scores": {"$where": 80}},
    {"attempt": 1, "scores": {"a.b": 80}},
    {"attempt": 10**15, "scores": {"fit-of-idea": 80}},
    [],
]


async def test_a_seminar_that_does_not_fit_is_refused_and_leaves_no_trace(
    client: httpx.AsyncClient, database: Database
) -> None:
    await attend(database, STORY)
    await commands.register_project(project_id(STORY, 1), STORY.enrollment(1), "public-service", "asked", database)
    await commands.consent(project_id(STORY, 1), database)
    for body in UNFIT:
        answer = await client.put(f"{PROJECT}/seminars/plan", json=body, headers=EXAMINER)
        assert answer.status_code in (409, 422), body
    assert (await client.get(PROJECT, headers=SELF)).json()["seminars"] == []


async def test_a_body_beyond_the_limit_is_refused(client: httpx.AsyncClient, database: Database) -> None:
    headers = {**ORGANISER, "Content-Type": "application/json"}
    assert (await client.put(MARKS, content=b" " * (BODY_BYTES + 1), headers=headers)).status_code == 413


async def test_what_is_not_known_here_is_404_or_says_so(client: httpx.AsyncClient, database: Database) -> None:
    gone = uid(77, 77)
    for path in (f"/v1/enrollments/{gone}/results", f"/v1/change-projects/{gone}", f"/v1/credentials/{gone}"):
        assert (await client.get(path, headers=ORGANISER)).status_code == 404
    for path in (f"/v1/cohorts/{gone}/results", f"/v1/cohorts/{gone}/graduation"):
        assert (await client.get(path, headers=ORGANISER)).status_code == 404
    decide = await client.put(f"/v1/cohorts/{gone}/graduation", json=DECISION, headers=ORGANISER)
    assert decide.json()["type"] == "/docs/problems.md#cohort-unknown"
    project = {"enrollment_id": gone, "theme": "public-service"}
    assert (await client.put(PROJECT, json=project, headers=ORGANISER)).status_code == 404
    second = f"/v1/enrollments/{gone}/modules/{module_id(ACADEMIC)}/attempts/2"
    assert (await client.put(second, json={"score": 80}, headers=ORGANISER)).status_code == 404


@pytest.mark.parametrize("key", ["", "c2hvcnQ=", "not base64 at all", KEY[:-2]])
def test_a_wrong_certificate_key_stops_the_process_at_its_start_without_being_told(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    environment = {
        "ENVIRONMENT": "development",
        "MONGO_URI": "mongodb://127.0.0.1:1",
        "KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
        "OIDC_ISSUER": "http://issuer.test",
        "INSTALLATION_KEY": "an installation key for tests",
        "ENROLLMENT_INTERNAL_URL": "http://127.0.0.1:1",
    }
    for name, value in {**environment, "CERTIFICATE_KEY": key}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=r"^settings: CERTIFICATE_KEY: [^\n]*$") as stopped:
        from_environment(service.settings)
    assert not key or key not in str(stopped.value)
    monkeypatch.setenv("CERTIFICATE_KEY", KEY)
    assert from_environment(service.settings).certificate_key.get_secret_value() == KEY  # type: ignore[attr-defined]
