"""A small played world of each service: one participant whose things are asked for, and others who have things too.

Every person in it is made up. What is the participant's own and what is another's really differ.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from services.assessment import commands as assessing
from services.assessment.app import service as assessment_service
from services.assessment.commands import Seal
from services.assessment.consumers import consumer as assessing_consumer
from services.enrollment import commands as enrolling
from services.enrollment.api import CohortBody
from services.enrollment.app import service as enrollment_service
from services.notification.app import service as notification_service
from services.notification.consumers import consumer as notifying_consumer
from services.notification.domain import Message
from services.notification.feed import consumer as feeding_consumer
from services.scheduling import commands as teaching
from services.scheduling.app import service as scheduling_service
from shared.contracts.assessment import ProjectStage
from shared.mongo import Database, Transaction
from shared.service import Service
from tests.assessment import passages
from tests.assessment import story as graded
from tests.enrollment import story as nominated
from tests.notification import story as told
from tests.scheduling import story as taught
from tests.support import START, clock_at, deliver, uid

SERVICES = {s.name: s for s in (enrollment_service, scheduling_service, assessment_service, notification_service)}
ADDRESS = "http://127.0.0.1:1"
SETTINGS: dict[str, dict[str, Any]] = {
    "assessment": {"certificate_key": passages.KEY, "enrollment_internal_url": ADDRESS},
    "notification": {"mail_from": "t@example.go.id", "enrollment_internal_url": ADDRESS},
}


@dataclass
class World:
    """A service's database in which something happened, and how to ask for what is one participant's own."""

    service: Service
    database: Database
    at: datetime
    people: Mapping[str, str]
    """The persons around that participant by relation; `stranger` is another participant, of another agency."""
    agency: str
    other_agency: str
    ids: Mapping[str, str] = field(default_factory=dict)
    bodies: Mapping[str, Any] = field(default_factory=dict)
    instead: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """For some routes other ids than those of `ids`."""
    seen: Mapping[str, str] = field(default_factory=dict)
    """What stands in a list for those alone who may see it."""

    def request(self, route: str) -> tuple[str, str, Any]:
        """Method, path and body that ask this route for the participant's own."""
        method, _, path = route.partition(" ")
        return method, path.format_map({**self.ids, **self.instead.get(route, {})}), self.bodies.get(route)


async def enrollment(database: Database) -> World:
    """Two agencies, each with an enrolled participant."""
    await nominated.opened(database, min_size=1)
    await nominated.registered(database, 1, 2)
    ids = [await nominated.accepted(database, n) for n in (1, 2)]
    with clock_at(nominated.NOW):
        seats = [await enrolling.confirm_nomination(id, nominated.COHORT, database) for id in ids]
    agency, person, mentor = uid(1, 0xA), uid(1, 0xB), uid(1, 0xD)
    row = {"person_id": person, "mentor_id": mentor, "documents": nominated.RULES.documents.value}
    cohort = nominated.cohort(number=4).model_dump(mode="json", include=set(CohortBody.model_fields))
    return World(
        enrollment_service,
        database,
        nominated.NOW,
        {"participant": person, "mentor": mentor, "stranger": uid(2, 0xB)},
        agency,
        uid(2, 0xA),
        {
            "agency_id": agency,
            "person_id": person,
            "cohort_id": nominated.COHORT,
            "nomination_id": ids[0],
            "enrollment_id": seats[0].id,
        },
        {
            "PUT /v1/agencies/{agency_id}": {"code": "agency-7", "kind": "ministry", "name": "Agency 7"},
            "PUT /v1/people/{person_id}": {"name": "P (generated)", "email": "p@example.go.id", "agency_id": agency},
            "PUT /v1/cohorts/{cohort_id}": cohort,
            "PUT /v1/cohorts/{cohort_id}/capacity": {"capacity": 39, "reason_code": "room"},
            "PUT /v1/cohorts/{cohort_id}/cancellation": {"reason_code": "too-few"},
            "POST /v1/cohorts/{cohort_id}/nominations": {
                "agency_id": agency,
                "nominees": [{**row, "facts": nominated.GOOD}],
            },
            "PUT /v1/nominations/{nomination_id}/verification": {"decision": "verify"},
            "PUT /v1/enrollments/{enrollment_id}/withdrawal": {
                "reason_code": "assignment",
                "effective_on": "2022-02-07",
            },
            "POST /internal/v1/contacts": {"person_ids": [person]},
        },
        {
            "PUT /v1/agencies/{agency_id}": {"agency_id": uid(7, 0xA)},
            "PUT /v1/people/{person_id}": {"person_id": uid(7, 0xB)},
            "PUT /v1/cohorts/{cohort_id}": {"cohort_id": uid(7, 0xC)},
        },
        {
            "GET /v1/cohorts/{cohort_id}/nominations": ids[0],
            "GET /v1/cohorts/{cohort_id}/enrollments": seats[0].id,
        },
    )


async def scheduling(database: Database) -> World:
    """A timetable in force, of which one session is over and another to come; and a cohort that has none yet."""
    story, further = taught.Story(), taught.Story(n=2)
    await taught.staff(database)
    sessions = await taught.published(database, story)
    over = taught.of_module(sessions, "bela-negara")[0]
    searched = uid(9, 2)
    await taught.know(database, further)
    with clock_at(taught.BEFORE):
        await teaching.ask_search(searched, further.cohort_id, 1, "asked", database)
    trainer = over.trainer_ids[0]
    return World(
        scheduling_service,
        database,
        over.ends_at,
        {
            "trainer": trainer,
            "coach": story.coaches[0],
            "examiner": story.examiners[0],
            "participant": story.person(1),
            "stranger": next(id for id in map(taught.trainer_id, (1, 2)) if id not in over.trainer_ids),
        },
        story.agency(1),
        story.agency(2),
        {
            "person_id": trainer,
            "room_id": taught.room_id(1),
            "cohort_id": story.cohort_id,
            "schedule_id": story.schedule_id,
            "session_id": over.id,
            "enrollment_id": story.enrollment(1),
        },
        {
            "PUT /v1/trainers/{person_id}": {"modules": taught.MODULES},
            "PUT /v1/rooms/{room_id}": {"kind": "virtual", "seats": 40},
            "PUT /v1/cohorts/{cohort_id}/groups": {"coach_ids": story.coaches, "examiner_ids": story.examiners},
            "PUT /v1/schedules/{schedule_id}": {"cohort_id": further.cohort_id},
            "PUT /v1/schedules/{schedule_id}/search": {"cohort_id": further.cohort_id, "seconds": 1},
            "PUT /v1/sessions/{session_id}/time": {
                "starts_at": sessions[-1].starts_at.isoformat(),
                "reason_code": "organiser",
            },
            "PUT /v1/sessions/{session_id}/attendance": {},
            "PUT /v1/sessions/{session_id}/attendance/{enrollment_id}": {
                "status": "sick",
                "reason_code": "certificate",
            },
        },
        {
            "PUT /v1/schedules/{schedule_id}": {"schedule_id": uid(7, 2)},
            "PUT /v1/schedules/{schedule_id}/search": {"schedule_id": uid(8, 2)},
            "GET /v1/schedules/{schedule_id}/search": {"schedule_id": searched},
            "DELETE /v1/schedules/{schedule_id}/search": {"schedule_id": searched},
            "PUT /v1/sessions/{session_id}/time": {"session_id": sessions[-1].id},
        },
        {"GET /v1/cohorts/{cohort_id}/groups": story.coaches[0]},
    )


class _SamePeople(graded.Story):
    """A further cohort of the very same people."""

    def _id(self, number: int, kind: int) -> str:
        return uid((1 if 3 <= kind <= 7 else self.n) * 1000 + number, kind)


async def assessment(database: Database) -> World:
    """One cohort that has its certificates, one before its graduation meeting, one that has only begun."""
    ended, running, begun = graded.Story(), _SamePeople(2), _SamePeople(3)
    await passages.finish(database, ended)
    await passages.graduate(database, ended)
    await passages.attend(database, running)
    await deliver(assessing_consumer, database, *begun.enrollment_facts(), at=graded.AFTER)
    with clock_at(graded.AFTER):
        certificates = await assessing.issue_certificates(ended.cohort_id, passages.names, Seal(passages.KEY), database)
        project = passages.project_id(running, 1)
        await assessing.register_project(project, running.enrollment(1), "public-service", "asked", database)
        await assessing.consent(project, database)
    credential = next(c.id for c in certificates if c.participant_id == ended.person(1))
    failed, repeated = (graded.module_id(code) for code in graded.SCORED[1:3])
    mark = "PUT /v1/cohorts/{cohort_id}/modules/{module_id}/marks"
    attempt = "PUT /v1/enrollments/{enrollment_id}/modules/{module_id}/attempts/{attempt}"
    with clock_at(graded.AFTER):
        await assessing.mark_module(running.cohort_id, repeated, {running.enrollment(1): Decimal(60)}, database)
    decision = {"decision_id": passages.decision_id(ended), "decided_on": graded.DECIDED_ON.isoformat()}
    rubric = {name: str(score) for name, score in passages.rubric(ProjectStage.PLAN).items()}
    register = "PUT /v1/change-projects/{project_id}"
    return World(
        assessment_service,
        database,
        graded.AFTER,
        {
            "participant": ended.person(1),
            "mentor": ended.mentor(1),
            "coach": ended.coach(1),
            "examiner": ended.examiner(1),
            "stranger": ended.person(2),
        },
        ended.agency(1),
        ended.agency(2),
        {
            "cohort_id": ended.cohort_id,
            "enrollment_id": ended.enrollment(1),
            "project_id": project,
            "stage": "plan",
            "credential_id": credential,
        },
        {
            mark: {"marks": [{"enrollment_id": running.enrollment(1), "score": "80"}]},
            attempt: {"score": "80"},
            register: {"enrollment_id": begun.enrollment(1), "theme": "public-service"},
            "PUT /v1/change-projects/{project_id}/seminars/{stage}": {"attempt": 1, "scores": rubric},
            "PUT /v1/cohorts/{cohort_id}/graduation": decision,
        },
        {
            mark: {"cohort_id": running.cohort_id, "module_id": failed},
            attempt: {"enrollment_id": running.enrollment(1), "module_id": repeated, "attempt": "2"},
            register: {"project_id": uid(7, 20)},
        },
        {
            "GET /v1/cohorts/{cohort_id}/results": ended.enrollment(1),
            "GET /v1/cohorts/{cohort_id}/graduation": ended.person(1),
        },
    )


async def notification(database: Database) -> World:
    """Two agencies that subscribed, and a message in the inbox of a participant of each."""
    for consumer in (notifying_consumer, feeding_consumer):
        await deliver(consumer, database, told.agency(1), told.agency(2), told.opened(), told.enrolled(1))

    async def write(tx: Transaction) -> None:
        for n in (1, 2):
            await tx.load(Message, uid(n))
            kept = {"subject": "s", "text": "t", "sent_at": START, "kept_until": START + timedelta(days=90)}
            tx.save(Message.model_validate({"id": uid(n), "recipient_id": uid(n, 0xB), **kept}))

    await database.transaction(write)
    return World(
        notification_service,
        database,
        START,
        {"participant": uid(1, 0xB), "stranger": uid(2, 0xB)},
        uid(1, 0xA),
        uid(2, 0xA),
        {"agency_id": uid(1, 0xA), "person_id": uid(1, 0xCC), "message_id": uid(1)},
        seen={"GET /v1/inbox": uid(1)},
    )


WORLDS: dict[str, Callable[[Database], Awaitable[World]]] = {
    "enrollment": enrollment,
    "scheduling": scheduling,
    "assessment": assessment,
    "notification": notification,
}
