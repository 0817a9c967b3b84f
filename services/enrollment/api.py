"""Enrollment's HTTP API."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, EmailStr, Field, StringConstraints, field_validator, model_validator

from services.enrollment import commands, domain, store
from services.enrollment.domain import Agency, Cohort, Enrollment, Nomination, Person
from shared.contracts import Code, Zone
from shared.contracts.enrollment import AgencyKind, SeatSource, WithdrawalReason
from shared.errors import IdTaken, NotFound, PreconditionFailed
from shared.http import Asked, Day, Db, IdempotencyKey, IfMatch, Instant, Line, Page, Paging, etag, problems
from shared.identity import Caller, Role, act_for_agency, allow, see_person
from shared.ids import ClientId, Id

router = APIRouter()
internal = APIRouter()

AgencyCodeText = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{2,31}$")]
Organiser = Annotated[Caller, allow(Role.ORGANISER)]
Anyone = Annotated[Caller, allow(*(role for role in Role if role is not Role.SERVICE))]
Coordination = Annotated[Caller, allow(Role.ORGANISER, Role.COORDINATOR)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class View(BaseModel):
    model_config = ConfigDict(from_attributes=True)


# --- agencies ----------------------------------------------------------------------------------------------------


class AgencyBody(Body):
    """An agency (instansi) as the organiser registers it."""

    code: AgencyCodeText
    kind: AgencyKind
    name: Line
    bkn_code: Annotated[Line, StringConstraints(max_length=32)] | None = None
    bkn_code_source: Line | None = None


class AgencyView(View):
    id: Id
    code: str
    kind: AgencyKind
    name: str
    bkn_code: str | None
    bkn_code_source: str | None


@router.put(
    "/v1/agencies/{agency_id}", status_code=201, responses=problems(domain.AgencyCodeTaken, IdTaken), tags=["agencies"]
)
async def register_agency(
    agency_id: ClientId, body: AgencyBody, asked: Asked, caller: Organiser, response: Response, db: Db
) -> AgencyView:
    """Register an agency. Its code is for life and never used again. Asking again is answered 200."""
    kept, new = await commands.register_agency(Agency(id=agency_id, asked=asked, **body.model_dump()), db)
    response.status_code = 201 if new else 200
    return AgencyView.model_validate(kept)


@router.get("/v1/agencies/{agency_id}", responses=problems(NotFound), tags=["agencies"])
async def agency(agency_id: Id, caller: Anyone, db: Db) -> AgencyView:
    """One agency."""
    if (found := await db.get(Agency, agency_id)) is None:
        raise NotFound
    return AgencyView.model_validate(found)


@router.get("/v1/agencies", tags=["agencies"])
async def agencies(caller: Anyone, paging: Paging, db: Db) -> Page[AgencyView]:
    """The registered agencies."""
    items, after = await store.agencies(db, paging.limit, paging.after)
    return Page(items=[AgencyView.model_validate(item) for item in items], next=after)


# --- people ------------------------------------------------------------------------------------------------------


class PersonBody(Body):
    """A person of any role. `generated` marks people that a scenario made up."""

    name: Line
    email: EmailStr
    nip: str | None = Field(default=None, description="18 digits; kept here and nowhere else")
    agency_id: Id | None = None
    zone: Zone = "Asia/Jakarta"
    generated: bool = False

    @field_validator("nip")
    @classmethod
    def _well_formed(cls, nip: str | None) -> str | None:
        if nip is not None and not domain.valid_nip(nip):
            raise ValueError("not a well-formed NIP")
        return nip


class PersonView(View):
    id: Id
    name: str
    email: str
    agency_id: Id | None
    zone: str
    generated: bool


@router.put(
    "/v1/people/{person_id}",
    status_code=201,
    responses=problems(domain.PersonKnown, IdTaken, NotFound, PreconditionFailed),
    tags=["people"],
)
async def register_person(
    person_id: ClientId,
    body: PersonBody,
    asked: Asked,
    if_match: IfMatch,
    caller: Coordination,
    request: Request,
    response: Response,
    db: Db,
) -> PersonView:
    """Register a person; with If-Match, change name, address or zone. A coordinator only for the own agency."""
    if not caller.has(Role.ORGANISER):
        act_for_agency(caller, body.agency_id or "")
    person = Person(id=person_id, asked=asked, **body.model_dump())
    key = request.app.state.settings.installation_key.get_secret_value()
    kept, new = await commands.register_person(person, db, key=key, if_match=if_match)
    response.status_code = 201 if new else 200
    response.headers["ETag"] = etag(kept)
    return PersonView.model_validate(kept)


@router.get("/v1/people/{person_id}", responses=problems(NotFound), tags=["people"])
async def person(person_id: Id, caller: Anyone, response: Response, db: Db) -> PersonView:
    """One person: oneself, one's agency's for its coordinator, any for the organiser."""
    if (found := await db.get(Person, person_id)) is None:
        raise NotFound
    see_person(caller, person_id=found.id, agency_id=found.agency_id)
    response.headers["ETag"] = etag(found)
    return PersonView.model_validate(found)


# --- cohorts -----------------------------------------------------------------------------------------------------


LONGEST = timedelta(days=730)
"""No programme lasts longer. How long a curriculum needs is asked when the cohort's timetable is drafted."""


class CohortBody(Body):
    """A cohort (angkatan) to be opened on a programme and rule set of the reference data."""

    programme_id: Id
    rule_set_version: Code
    curriculum_version: Code
    number: int = Field(ge=1, le=9999)
    year: int = Field(ge=2000, le=2100)
    capacity: int = Field(ge=1, le=1000)
    min_size: int = Field(ge=1, le=1000)
    nominations_close_at: Instant
    starts_on: Day
    ends_on: Day
    zone: Zone = "Asia/Jakarta"

    @model_validator(mode="after")
    def _plausible(self) -> CohortBody:
        if not timedelta(0) <= self.ends_on - self.starts_on < LONGEST:
            raise ValueError("it must end on or after its first day, and within two years")
        return self


class CohortView(View):
    id: Id
    programme_id: Id
    rule_set_version: str
    curriculum_version: str
    number: int
    year: int
    capacity: int
    min_size: int
    nominations_close_at: datetime
    starts_on: date
    ends_on: date
    zone: str
    status: domain.CohortStatus
    seats_taken: int


def _cohort(cohort: Cohort) -> CohortView:
    return CohortView.model_validate({**dict(cohort), "seats_taken": len(cohort.seats)})


@router.put(
    "/v1/cohorts/{cohort_id}",
    status_code=201,
    responses=problems(
        domain.CohortNumberTaken, domain.UnknownRules, domain.CapacityOutsideRules, domain.RegistrationClosed, IdTaken
    ),
    tags=["cohorts"],
)
async def open_cohort(
    cohort_id: ClientId, body: CohortBody, asked: Asked, caller: Organiser, response: Response, db: Db
) -> CohortView:
    """Open a cohort for nomination. Asking again is answered 200."""
    kept, new = await commands.open_cohort(Cohort(id=cohort_id, asked=asked, **body.model_dump()), db)
    response.status_code = 201 if new else 200
    return _cohort(kept)


@router.get("/v1/cohorts/{cohort_id}", responses=problems(NotFound), tags=["cohorts"])
async def cohort(cohort_id: Id, caller: Anyone, db: Db) -> CohortView:
    """One cohort."""
    return _cohort(await _known_cohort(cohort_id, db))


@router.get("/v1/cohorts", tags=["cohorts"])
async def cohorts(caller: Anyone, paging: Paging, db: Db) -> Page[CohortView]:
    """All cohorts."""
    items, after = await store.cohorts(db, paging.limit, paging.after)
    return Page(items=[_cohort(item) for item in items], next=after)


async def _known_cohort(cohort_id: str, db: Db) -> Cohort:
    if (found := await db.get(Cohort, cohort_id)) is None:
        raise NotFound
    return found


@router.get("/v1/cohorts/{cohort_id}/composition", responses=problems(NotFound), tags=["cohorts"])
async def composition(cohort_id: Id, caller: Anyone, db: Db) -> domain.Composition:
    """Who sits in the cohort by kind of agency, counted from its members."""
    await _known_cohort(cohort_id, db)
    members = await store.enrollments_of(db, cohort_id)
    return domain.composition(members, await store.agencies_named(db, {m.agency_id for m in members}))


class CapacityBody(Body):
    capacity: int = Field(ge=1, le=1000)
    reason_code: Code


@router.put(
    "/v1/cohorts/{cohort_id}/capacity",
    responses=problems(NotFound, domain.SeatsTaken, domain.CapacityOutsideRules, domain.CohortNotOpen),
    tags=["cohorts"],
)
async def change_capacity(cohort_id: Id, body: CapacityBody, caller: Organiser, db: Db) -> CohortView:
    """Change how many seats there are; never below those taken."""
    return _cohort(await commands.change_capacity(cohort_id, body.capacity, body.reason_code, db))


@router.put(
    "/v1/cohorts/{cohort_id}/confirmation",
    responses=problems(NotFound, domain.BelowMinimum, domain.CohortNotOpen),
    tags=["cohorts"],
)
async def confirm_cohort(cohort_id: Id, caller: Organiser, db: Db) -> CohortView:
    """The cohort will run."""
    return _cohort(await commands.confirm_cohort(cohort_id, db))


class CancellationBody(Body):
    reason_code: Code


@router.put("/v1/cohorts/{cohort_id}/cancellation", responses=problems(NotFound), tags=["cohorts"])
async def cancel_cohort(cohort_id: Id, body: CancellationBody, caller: Organiser, db: Db) -> CohortView:
    """The cohort will not run."""
    return _cohort(await commands.cancel_cohort(cohort_id, body.reason_code, db))


# --- nominations -------------------------------------------------------------------------------------------------


class NominationsBody(Body):
    """An agency's nominees. Each row is taken or refused by itself."""

    agency_id: Id
    nominees: list[commands.Nominee] = Field(min_length=1, max_length=200)


class NominationView(View):
    id: Id
    cohort_id: Id
    participant_id: Id
    agency_id: Id
    mentor_id: Id
    documents: list[str]
    status: domain.NominationStatus
    rule_ids: list[str]
    reason_code: str | None
    replaces: Id | None


class NominationsOutcome(BaseModel):
    rows: list[commands.RowOutcome]


@router.post("/v1/cohorts/{cohort_id}/nominations", responses=problems(NotFound), tags=["nominations"])
async def nominate(
    cohort_id: Id, body: NominationsBody, idempotency: IdempotencyKey, caller: Coordination, db: Db
) -> NominationsOutcome:
    """Nominate people of an agency, with an outcome per row. Sending it again changes nothing."""
    act_for_agency(caller, body.agency_id)
    rows = await commands.nominate(cohort_id, body.agency_id, body.nominees, db, idempotency)
    return NominationsOutcome(rows=rows)


@router.get("/v1/cohorts/{cohort_id}/nominations", responses=problems(NotFound), tags=["nominations"])
async def nominations(cohort_id: Id, caller: Coordination, paging: Paging, db: Db) -> Page[NominationView]:
    """The nominations of a cohort; for a coordinator, those of the own agency."""
    await _known_cohort(cohort_id, db)
    own = None if caller.has(Role.ORGANISER) else caller.agency_ids
    items, after = await store.nominations_of(db, cohort_id, own, paging.limit, paging.after)
    return Page(items=[NominationView.model_validate(item) for item in items], next=after)


async def _known_nomination(nomination_id: str, caller: Caller, db: Db) -> Nomination:
    if (found := await db.get(Nomination, nomination_id)) is None:
        raise NotFound
    see_person(caller, person_id=found.participant_id, agency_id=found.agency_id)
    return found


@router.get("/v1/nominations/{nomination_id}", responses=problems(NotFound), tags=["nominations"])
async def nomination(nomination_id: Id, caller: Anyone, db: Db) -> NominationView:
    """One nomination: one's own, one's agency's, or any for the organiser."""
    return NominationView.model_validate(await _known_nomination(nomination_id, caller, db))


class VerificationBody(Body):
    decision: domain.Decision
    reason_code: Code | None = None


@router.put(
    "/v1/nominations/{nomination_id}/verification",
    responses=problems(
        NotFound,
        domain.RequirementsNotMet,
        domain.DocumentsMissing,
        domain.NominationNotReady,
        domain.CohortNotOpen,
    ),
    tags=["nominations"],
)
async def verify(nomination_id: Id, body: VerificationBody, caller: Organiser, db: Db) -> NominationView:
    """Decide on a nominee's papers. The rule set's requirements are evaluated, and named where they are not met."""
    kept = await commands.decide_nomination(nomination_id, body.decision, body.reason_code, db)
    return NominationView.model_validate(kept)


@router.put(
    "/v1/nominations/{nomination_id}/acceptance",
    responses=problems(NotFound, domain.NominationNotReady, domain.CohortNotOpen),
    tags=["nominations"],
)
async def accept(nomination_id: Id, caller: Organiser, db: Db) -> NominationView:
    """Take a verified nominee."""
    return NominationView.model_validate(await commands.accept_nomination(nomination_id, db))


class EnrollmentView(View):
    id: Id
    cohort_id: Id
    nomination_id: Id
    participant_id: Id
    agency_id: Id
    mentor_id: Id
    roster_number: int
    seat_source: SeatSource
    status: domain.EnrollmentStatus
    reason_code: WithdrawalReason | None
    effective_on: date | None


@router.put(
    "/v1/nominations/{nomination_id}/confirmation",
    responses=problems(NotFound, domain.CohortFull, domain.NominationNotReady, domain.CohortNotOpen),
    tags=["nominations"],
)
async def confirm(nomination_id: Id, caller: Anyone, db: Db) -> EnrollmentView:
    """Confirm an accepted nomination into a seat: the nominee, the agency's coordinator or the organiser."""
    known = await _known_nomination(nomination_id, caller, db)
    return EnrollmentView.model_validate(await commands.confirm_nomination(known.id, known.cohort_id, db))


# --- enrollments -------------------------------------------------------------------------------------------------


async def _known_enrollment(enrollment_id: str, caller: Caller, db: Db) -> Enrollment:
    if (found := await db.get(Enrollment, enrollment_id)) is None:
        raise NotFound
    if not caller.is_person(found.mentor_id):
        see_person(caller, person_id=found.participant_id, agency_id=found.agency_id)
    return found


@router.get("/v1/enrollments/{enrollment_id}", responses=problems(NotFound), tags=["enrollments"])
async def enrollment(enrollment_id: Id, caller: Anyone, db: Db) -> EnrollmentView:
    """One enrollment."""
    return EnrollmentView.model_validate(await _known_enrollment(enrollment_id, caller, db))


@router.get("/v1/cohorts/{cohort_id}/enrollments", responses=problems(NotFound), tags=["enrollments"])
async def enrollments(cohort_id: Id, caller: Coordination, db: Db) -> list[EnrollmentView]:
    """The roster of a cohort, withdrawn participants included; for a coordinator, the own agency's."""
    await _known_cohort(cohort_id, db)
    found = await store.enrollments_of(db, cohort_id)
    visible = [e for e in found if caller.has(Role.ORGANISER) or caller.of_agency(e.agency_id)]
    return [EnrollmentView.model_validate(e) for e in visible]


class WithdrawalBody(Body):
    reason_code: WithdrawalReason
    effective_on: Day


@router.put(
    "/v1/enrollments/{enrollment_id}/withdrawal",
    responses=problems(NotFound, domain.NotEnrolled, domain.CohortNotOpen, domain.OutsideEnrollment),
    tags=["enrollments"],
)
async def withdraw(enrollment_id: Id, body: WithdrawalBody, caller: Coordination, db: Db) -> EnrollmentView:
    """Give up a seat: the agency's coordinator or the organiser."""
    known = await _known_enrollment(enrollment_id, caller, db)
    act_for_agency(caller, known.agency_id)
    kept = await commands.withdraw(known.id, known.cohort_id, body.reason_code, body.effective_on, db)
    return EnrollmentView.model_validate(kept)


# --- for other services ------------------------------------------------------------------------------------------


class ContactsBody(Body):
    person_ids: list[Id] = Field(max_length=500)


class Contact(View):
    """How to reach a person; asked for at the moment of sending and not kept."""

    person_id: Id
    name: str
    email: str
    zone: str


@internal.post("/internal/v1/contacts", tags=["internal"])
async def contacts(
    body: ContactsBody, caller: Annotated[Caller, allow(services=("notification", "assessment"))], db: Db
) -> list[Contact]:
    """Names and addresses of people; unknown ids are left out."""
    found = await store.people(db, body.person_ids)
    return [Contact(person_id=p.id, name=p.name, email=p.email, zone=p.zone) for p in found.values()]
