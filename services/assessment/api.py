"""Assessment's HTTP API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from services.assessment import commands, domain, store
from services.assessment.domain import ChangeProject, Cohort, Credential, ModuleResult, Record, SealedCertificate
from shared import reference
from shared.contacts import Contact, contacts_of
from shared.contracts import Code, Score
from shared.contracts.assessment import CredentialKind, Outcome, ProjectStage
from shared.errors import IdTaken, NotFound, Unavailable
from shared.http import Asked, Count, Db, problems
from shared.identity import Caller, Role, allow, be_one_of, public, see_person
from shared.ids import ClientId, Id

router = APIRouter()

Organiser = Annotated[Caller, allow(Role.ORGANISER)]
Anyone = Annotated[Caller, allow(*(role for role in Role if role is not Role.SERVICE))]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class View(BaseModel):
    model_config = ConfigDict(from_attributes=True)


async def _known_cohort(cohort_id: str, db: Db) -> Cohort:
    if (found := await db.get(Cohort, cohort_id)) is None:
        raise NotFound
    return found


async def _known_record(enrollment_id: str, db: Db) -> tuple[Record, Cohort]:
    if (found := await db.get(Record, enrollment_id)) is None:
        raise NotFound
    return found, await _known_cohort(found.cohort_id, db)


# --- module results ----------------------------------------------------------------------------------------------


class ResultView(View):
    """One attempt at a module. The mark is shown to the participant and the organiser only.

    While there is no outcome, `waits_for` says what is still to come: the mark, or the closing of the module.
    """

    id: Id
    enrollment_id: Id
    module_id: Id
    attempt: int
    outcome: Outcome | None
    waits_for: Literal["mark", "closing"] | None
    score: Score | None
    absence_jp: int
    reason_codes: list[str]
    changed_after_lock: bool


def _result(result: ModuleResult) -> ResultView:
    waits_for = None if result.outcome else "mark" if result.score is None else "closing"
    return ResultView.model_validate({**dict(result), "waits_for": waits_for})


class Mark(Body):
    enrollment_id: Id
    score: Score


class MarksBody(Body):
    """The marks of first attempts at a module."""

    marks: list[Mark] = Field(min_length=1, max_length=1000)

    @field_validator("marks")
    @classmethod
    def _once_each(cls, marks: list[Mark]) -> list[Mark]:
        if len({mark.enrollment_id for mark in marks}) < len(marks):
            raise ValueError("a participant is marked twice")
        return marks


@router.put(
    "/v1/cohorts/{cohort_id}/modules/{module_id}/marks",
    responses=problems(
        domain.CohortUnknown, domain.CohortCancelled, domain.MarksLocked, domain.ModuleNotScored, domain.NotInCohort
    ),
    tags=["module results"],
)
async def mark_module(cohort_id: Id, module_id: Id, body: MarksBody, caller: Organiser, db: Db) -> list[ResultView]:
    """Record the marks of a module. All are taken or none."""
    scores = {mark.enrollment_id: mark.score for mark in body.marks}
    return [_result(r) for r in await commands.mark_module(cohort_id, module_id, scores, db)]


class AttemptBody(Body):
    score: Score


@router.put(
    "/v1/enrollments/{enrollment_id}/modules/{module_id}/attempts/{attempt}",
    responses=problems(NotFound, domain.NoAttemptLeft, domain.MarksLocked),
    tags=["module results"],
)
async def mark_attempt(
    enrollment_id: Id, module_id: Id, attempt: Count, body: AttemptBody, caller: Organiser, db: Db
) -> ResultView:
    """Record the mark of a repeated attempt (remedial); it is capped by the rule set."""
    if not 1 < attempt < 100:
        raise domain.NoAttemptLeft
    return _result(await commands.mark_attempt(enrollment_id, module_id, attempt, body.score, db))


@router.get("/v1/enrollments/{enrollment_id}/results", responses=problems(NotFound), tags=["module results"])
async def results(enrollment_id: Id, caller: Anyone, db: Db) -> list[ResultView]:
    """A participant's results with the reasons: one's own, one's agency's people's outcomes, any for the organiser."""
    record, cohort = await _known_record(enrollment_id, db)
    near = (record.mentor_id, cohort.coach_of(enrollment_id), cohort.examiner_of(enrollment_id))
    if not caller.is_person(*near):
        see_person(caller, person_id=record.participant_id, agency_id=record.agency_id)
    return _results(await store.results_of(db, enrollment_id), caller, record.participant_id)


def _results(found: Iterable[ModuleResult], caller: Caller, participant_id: str | None) -> list[ResultView]:
    with_marks = caller.has(Role.ORGANISER) or caller.is_person(participant_id)
    views = [_result(result) for result in found]
    return views if with_marks else [view.model_copy(update={"score": None}) for view in views]


@router.get("/v1/cohorts/{cohort_id}/results", responses=problems(NotFound), tags=["module results"])
async def cohort_results(
    cohort_id: Id, caller: Annotated[Caller, allow(Role.ORGANISER, Role.COORDINATOR)], db: Db
) -> list[ResultView]:
    """All results of a cohort; for a coordinator, outcomes of the own agency's people."""
    await _known_cohort(cohort_id, db)
    found = await store.results_in(db, cohort_id)
    return _results((r for r in found if caller.has(Role.ORGANISER) or caller.of_agency(r.agency_id)), caller, None)


# --- change projects ---------------------------------------------------------------------------------------------


class ProjectBody(Body):
    """A change project (aksi perubahan), by the code of its theme."""

    enrollment_id: Id
    theme: Code


class SeminarView(View):
    stage: ProjectStage
    attempt: int
    score: Score | None
    outcome: Outcome


class ProjectView(View):
    id: Id
    cohort_id: Id
    enrollment_id: Id
    theme: str
    consented_at: datetime | None
    seminars: list[SeminarView]


async def _known_project(project_id: str, db: Db) -> tuple[ChangeProject, Record, Cohort]:
    if (found := await db.get(ChangeProject, project_id)) is None:
        raise NotFound
    return found, *(await _known_record(found.enrollment_id, db))


@router.put(
    "/v1/change-projects/{project_id}",
    status_code=201,
    responses=problems(NotFound, domain.ProjectExists, domain.MarksLocked, IdTaken),
    tags=["change projects"],
)
async def register_project(
    project_id: ClientId,
    body: ProjectBody,
    asked: Asked,
    caller: Annotated[Caller, allow(Role.ORGANISER, Role.PARTICIPANT)],
    response: Response,
    db: Db,
) -> ProjectView:
    """Register one's change project. Asking again is answered 200."""
    record, _ = await _known_record(body.enrollment_id, db)
    be_one_of(caller, record.participant_id)
    kept, new = await commands.register_project(project_id, body.enrollment_id, body.theme, asked, db)
    response.status_code = 201 if new else 200
    return ProjectView.model_validate(kept)


@router.get("/v1/change-projects/{project_id}", responses=problems(NotFound), tags=["change projects"])
async def project(project_id: Id, caller: Anyone, db: Db) -> ProjectView:
    """A change project: for its participant, mentor, coach, examiner and the organiser."""
    found, record, cohort = await _known_project(project_id, db)
    near = (record.mentor_id, cohort.coach_of(record.id), cohort.examiner_of(record.id))
    be_one_of(caller, record.participant_id, *near)
    return ProjectView.model_validate(found)


@router.put("/v1/change-projects/{project_id}/mentor-consent", responses=problems(NotFound), tags=["change projects"])
async def consent(project_id: Id, caller: Annotated[Caller, allow(Role.MENTOR)], db: Db) -> ProjectView:
    """The participant's mentor agrees to the project."""
    _, record, _ = await _known_project(project_id, db)
    if not caller.is_person(record.mentor_id):
        raise NotFound
    return ProjectView.model_validate(await commands.consent(project_id, db))


class SeminarBody(Body):
    """The marks of one seminar by the criteria of the rule set."""

    attempt: int = Field(default=1, ge=1, le=9)
    scores: dict[Annotated[str, StringConstraints(max_length=64)], Score] = Field(min_length=1, max_length=20)


@router.put(
    "/v1/change-projects/{project_id}/seminars/{stage}",
    responses=problems(
        NotFound, domain.ConsentMissing, domain.SeminarNotDue, domain.CriteriaMismatch, domain.MarksLocked
    ),
    tags=["change projects"],
)
async def hold_seminar(
    project_id: Id, stage: ProjectStage, body: SeminarBody, caller: Annotated[Caller, allow(Role.EXAMINER)], db: Db
) -> ProjectView:
    """Record the marks of a seminar: the examiner of the participant's learning group."""
    _, record, cohort = await _known_project(project_id, db)
    if not caller.is_person(cohort.examiner_of(record.id)):
        raise NotFound
    return ProjectView.model_validate(await commands.hold_seminar(project_id, stage, body.attempt, body.scores, db))


# --- graduation --------------------------------------------------------------------------------------------------


class DecisionBody(Body):
    decision_id: ClientId
    decided_on: date


class DecisionView(View):
    """The decision about one participant."""

    id: Id
    participant_id: Id
    agency_id: Id
    graduated: bool | None
    reason_codes: list[str]
    total: Decimal | None
    predicate: str | None
    credential_id: Id | None


@router.put(
    "/v1/cohorts/{cohort_id}/graduation",
    responses=problems(domain.CohortUnknown, domain.CohortCancelled, domain.MarksIncomplete, domain.AlreadyDecided),
    tags=["graduation"],
)
async def decide_graduation(cohort_id: Id, body: DecisionBody, caller: Organiser, db: Db) -> list[DecisionView]:
    """The graduation meeting's decision (rapat kelulusan): computed per participant, with reasons; locks the marks."""
    decided = await commands.decide_graduation(cohort_id, body.decision_id, body.decided_on, db)
    return [DecisionView.model_validate(record) for record in decided]


@router.get("/v1/cohorts/{cohort_id}/graduation", responses=problems(NotFound), tags=["graduation"])
async def graduation(
    cohort_id: Id, caller: Annotated[Caller, allow(Role.ORGANISER, Role.COORDINATOR, Role.PARTICIPANT)], db: Db
) -> list[DecisionView]:
    """The decisions: one's own; for a coordinator those of the own agency, without totals; all for the organiser."""
    cohort = await _known_cohort(cohort_id, db)
    views = []
    for record in await store.records_in(db, cohort_id):
        if record.id not in cohort.active:
            continue
        if caller.has(Role.ORGANISER) or caller.is_person(record.participant_id):
            views.append(DecisionView.model_validate(record))
        elif caller.of_agency(record.agency_id):
            views.append(DecisionView.model_validate(record).model_copy(update={"total": None, "predicate": None}))
    if not views and not caller.has(Role.ORGANISER):
        raise NotFound
    return views


# --- certificates ------------------------------------------------------------------------------------------------


class CredentialView(View):
    id: Id
    enrollment_id: Id
    participant_id: Id
    kind: CredentialKind
    number: str
    jp: int
    starts_on: date
    ends_on: date
    issued_on: date


def _seal(request: Request) -> commands.Seal:
    return commands.Seal(request.app.state.settings.certificate_key.get_secret_value())


@router.put(
    "/v1/cohorts/{cohort_id}/certificates",
    responses=problems(domain.NotDecided, domain.HolderUnknown, Unavailable),
    tags=["certificates"],
)
async def issue_certificates(cohort_id: Id, caller: Organiser, request: Request, db: Db) -> list[CredentialView]:
    """Issue the numbered certificates (STTP) of a cohort. Asking again issues only what is missing."""
    settings, tokens = request.app.state.settings, request.app.state.tokens

    async def names(person_ids: Iterable[str]) -> Mapping[str, Contact]:
        return await contacts_of(person_ids, enrollment_url=settings.enrollment_internal_url, tokens=tokens)

    issued = await commands.issue_certificates(cohort_id, names, _seal(request), db)
    return [CredentialView.model_validate(credential) for credential in issued]


async def _known_credential(credential_id: str, db: Db) -> Credential:
    if (found := await db.get(Credential, credential_id)) is None:
        raise NotFound
    return found


class HeldCredential(CredentialView):
    """A certificate as its holder sees it."""

    name: str


@router.get("/v1/credentials/{credential_id}", responses=problems(NotFound), tags=["certificates"])
async def credential(credential_id: Id, caller: Anyone, request: Request, db: Db) -> HeldCredential:
    """A certificate with the name printed on it: for its holder and the organiser."""
    found = await _known_credential(credential_id, db)
    be_one_of(caller, found.participant_id)
    return HeldCredential.model_validate({**dict(found), "name": await _name(credential_id, request, db)})


async def _name(credential_id: str, request: Request, db: Db) -> str:
    if (sealed := await db.get(SealedCertificate, credential_id)) is None:
        raise NotFound
    return _seal(request).open(credential_id, sealed.sealed)


class Verification(BaseModel):
    """What anybody may know of a certificate."""

    number: str
    status: str
    kind: CredentialKind
    holder: str
    programme: str
    cohort_number: int
    cohort_year: int
    organiser: str
    jp: int
    starts_on: date
    ends_on: date
    issued_on: date


@router.get("/v1/verify/{credential_id}", responses=problems(NotFound), tags=["certificates"])
async def verify(
    credential_id: Id, caller: Annotated[None, public()], request: Request, response: Response, db: Db
) -> Verification:
    """Whether a certificate is genuine. Open to anybody; of the holder's name it tells the initials."""
    found = await _known_credential(credential_id, db)
    programme = reference.programmes()[found.programme_id]
    response.headers["Cache-Control"] = "public, max-age=300"
    names = ("number", "kind", "cohort_number", "cohort_year", "jp", "starts_on", "ends_on", "issued_on")
    return Verification(
        **{name: getattr(found, name) for name in names},
        status="valid",
        holder=domain.masked(await _name(credential_id, request, db)),
        programme=programme.title.value,
        organiser=programme.organiser.value,
    )
