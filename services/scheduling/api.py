"""Scheduling's HTTP API."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.scheduling import commands, domain, store
from services.scheduling.domain import Room, Roster, Schedule, Search, Session, Span, Trainer
from shared.contracts import Code
from shared.contracts.scheduling import AttendanceStatus, ModulePlan, RescheduleReason, SessionMode
from shared.errors import IdTaken, NotFound, PreconditionFailed
from shared.http import Asked, Db, IfMatch, Instant, etag, problems
from shared.identity import Caller, Role, allow, be_one_of
from shared.ids import ClientId, Id

router = APIRouter()

Organiser = Annotated[Caller, allow(Role.ORGANISER)]
Anyone = Annotated[Caller, allow(*(role for role in Role if role is not Role.SERVICE))]
Teaching = Annotated[Caller, allow(Role.ORGANISER, Role.TRAINER)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class View(BaseModel):
    model_config = ConfigDict(from_attributes=True)


# --- trainers and rooms ------------------------------------------------------------------------------------------


class SpanBody(Body):
    starts_at: Instant
    ends_at: Instant

    @model_validator(mode="after")
    def _in_order(self) -> SpanBody:
        if self.ends_at <= self.starts_at:
            raise ValueError("it must end after it begins")
        return self


class TrainerBody(Body):
    """For which modules a trainer (widyaiswara) is qualified, and when away."""

    modules: list[Code] = Field(max_length=200)
    unavailable: list[SpanBody] = Field(default=[], max_length=500)


class TrainerView(View):
    id: Id
    modules: list[str]
    unavailable: list[Span]


@router.put("/v1/trainers/{person_id}", responses=problems(PreconditionFailed), tags=["trainers and rooms"])
async def register_trainer(
    person_id: Id, body: TrainerBody, if_match: IfMatch, caller: Organiser, response: Response, db: Db
) -> TrainerView:
    """Register what a trainer may teach and when the trainer is away."""
    spans = [Span(starts_at=s.starts_at, ends_at=s.ends_at) for s in body.unavailable]
    kept = await commands.register_trainer(Trainer(id=person_id, modules=body.modules, unavailable=spans), db, if_match)
    response.headers["ETag"] = etag(kept)
    return TrainerView.model_validate(kept)


@router.get("/v1/trainers/{person_id}", responses=problems(NotFound), tags=["trainers and rooms"])
async def trainer(person_id: Id, caller: Teaching, response: Response, db: Db) -> TrainerView:
    """A trainer's qualifications: one's own, or any for the organiser."""
    be_one_of(caller, person_id)
    if (found := await db.get(Trainer, person_id)) is None:
        raise NotFound
    response.headers["ETag"] = etag(found)
    return TrainerView.model_validate(found)


class RoomBody(Body):
    """A room, or a virtual one with its licence's size."""

    kind: domain.RoomKind
    seats: int = Field(ge=1, le=10_000)


class RoomView(View):
    id: Id
    kind: domain.RoomKind
    seats: int


@router.put("/v1/rooms/{room_id}", responses=problems(PreconditionFailed), tags=["trainers and rooms"])
async def register_room(
    room_id: ClientId, body: RoomBody, if_match: IfMatch, caller: Organiser, response: Response, db: Db
) -> RoomView:
    """Register a room."""
    kept = await commands.register_room(Room(id=room_id, kind=body.kind, seats=body.seats), db, if_match)
    response.headers["ETag"] = etag(kept)
    return RoomView.model_validate(kept)


@router.get("/v1/rooms/{room_id}", responses=problems(NotFound), tags=["trainers and rooms"])
async def room(room_id: Id, caller: Anyone, response: Response, db: Db) -> RoomView:
    """A room."""
    if (found := await db.get(Room, room_id)) is None:
        raise NotFound
    response.headers["ETag"] = etag(found)
    return RoomView.model_validate(found)


# --- learning groups ---------------------------------------------------------------------------------------------


class GroupsBody(Body):
    """One learning group per coach; the examiner at the same place is the group's."""

    coach_ids: list[Id] = Field(min_length=1, max_length=20)
    examiner_ids: list[Id] = Field(min_length=1, max_length=20)


class GroupView(View):
    id: Id
    cohort_id: Id
    number: int
    enrollment_ids: list[Id]
    coach_id: Id
    examiner_id: Id


@router.put(
    "/v1/cohorts/{cohort_id}/groups",
    responses=problems(
        domain.CohortUnknown,
        domain.CohortCancelled,
        domain.CurriculumUnknown,
        domain.GroupsFormed,
        domain.NoParticipants,
        domain.GroupsMismatch,
    ),
    tags=["learning groups"],
)
async def form_groups(cohort_id: Id, body: GroupsBody, caller: Organiser, db: Db) -> list[GroupView]:
    """Form the learning groups (kelompok) of a cohort by roster number."""
    formed = await commands.form_groups(cohort_id, body.coach_ids, body.examiner_ids, db)
    return [GroupView.model_validate(group) for group in formed]


@router.get("/v1/cohorts/{cohort_id}/groups", responses=problems(NotFound), tags=["learning groups"])
async def groups(
    cohort_id: Id,
    caller: Annotated[Caller, allow(Role.ORGANISER, Role.TRAINER, Role.COACH, Role.EXAMINER)],
    db: Db,
) -> list[GroupView]:
    """The learning groups: those that one coaches or examines, or all for the organiser."""
    if (roster := await db.get(Roster, cohort_id)) is None:
        raise NotFound
    found = await store.groups_of(db, roster)
    visible = [g for g in found if caller.has(Role.ORGANISER) or caller.is_person(g.coach_id, g.examiner_id)]
    return [GroupView.model_validate(group) for group in visible]


# --- schedules ---------------------------------------------------------------------------------------------------


class ScheduleBody(Body):
    cohort_id: Id


class ScheduleView(View):
    id: Id
    cohort_id: Id
    curriculum_version: str
    status: domain.ScheduleStatus
    sessions: list[domain.PlannedSession]
    modules: list[ModulePlan]
    first_day: date
    last_day: date
    cost: dict[str, int]


@router.put(
    "/v1/schedules/{schedule_id}",
    status_code=201,
    responses=problems(
        domain.CohortUnknown,
        domain.CohortCancelled,
        domain.CurriculumUnknown,
        domain.CalendarUnknown,
        domain.DoesNotFit,
        domain.NobodyQualified,
        domain.NoRoomLargeEnough,
        domain.NotPlaceable,
        domain.AlreadyPublished,
        IdTaken,
    ),
    tags=["schedules"],
)
async def draft(
    schedule_id: ClientId, body: ScheduleBody, asked: Asked, caller: Organiser, response: Response, db: Db
) -> ScheduleView:
    """Place a cohort's curriculum into dated sessions. A draft reserves nothing and is seen by the organiser only.

    Asking again is answered 200 with the draft as it stands.
    """
    kept, new = await commands.draft(schedule_id, body.cohort_id, asked, db)
    response.status_code = 201 if new else 200
    return ScheduleView.model_validate(kept)


@router.get("/v1/schedules/{schedule_id}", responses=problems(NotFound), tags=["schedules"])
async def schedule(schedule_id: Id, caller: Organiser, db: Db) -> ScheduleView:
    """A draft or published timetable."""
    if (found := await db.get(Schedule, schedule_id)) is None:
        raise NotFound
    return ScheduleView.model_validate(found)


@router.put(
    "/v1/schedules/{schedule_id}/publication",
    responses=problems(
        NotFound,
        domain.AlreadyReserved,
        domain.AlreadyPublished,
        domain.DraftOutdated,
        domain.NoParticipants,
        domain.CohortUnknown,
        domain.CohortCancelled,
    ),
    tags=["schedules"],
)
async def publish(schedule_id: Id, caller: Organiser, db: Db) -> ScheduleView:
    """Put a draft in force: everything is reserved and every session announced, or nothing."""
    return ScheduleView.model_validate(await commands.publish(schedule_id, db))


class SearchBody(Body):
    """For which cohort, and how long to look: more seconds, better timetables."""

    cohort_id: Id
    seconds: int = Field(default=20, ge=1, le=600)


class SearchView(View):
    id: Id
    cohort_id: Id
    seconds: int
    status: domain.SearchStatus
    stopping: bool
    progress: domain.SearchProgress | None
    adopted: bool
    reason: str | None
    missing: dict[str, Any]


@router.put(
    "/v1/schedules/{schedule_id}/search",
    status_code=202,
    responses=problems(
        domain.CohortUnknown, domain.CohortCancelled, domain.AlreadyPublished, domain.SearchUnderWay, IdTaken
    ),
    tags=["schedules"],
)
async def ask_search(
    schedule_id: ClientId, body: SearchBody, asked: Asked, caller: Organiser, response: Response, db: Db
) -> SearchView:
    """Have a better timetable looked for: trainers' loads even, one trainer for a module, no idle hours.

    What is found becomes the draft of this id when it is better. The same request again is answered 200 with how far
    the search is.
    """
    kept, new = await commands.ask_search(schedule_id, body.cohort_id, body.seconds, asked, db)
    response.status_code = 202 if new else 200
    return SearchView.model_validate(kept)


@router.get("/v1/schedules/{schedule_id}/search", responses=problems(NotFound), tags=["schedules"])
async def search(schedule_id: Id, caller: Organiser, db: Db) -> SearchView:
    """How far a search is: clashes and cost of the best timetable so far, by rule; or why there is none."""
    if (found := await db.get(Search, schedule_id)) is None:
        raise NotFound
    return SearchView.model_validate(found)


@router.delete("/v1/schedules/{schedule_id}/search", responses=problems(NotFound), tags=["schedules"])
async def stop_search(schedule_id: Id, caller: Organiser, db: Db) -> SearchView:
    """End a search now, with the best that it has found. One that has ended stays as it is."""
    return SearchView.model_validate(await commands.stop_search(schedule_id, db))


# --- sessions ----------------------------------------------------------------------------------------------------


class SessionView(View):
    id: Id
    cohort_id: Id
    module_id: Id
    jp: int
    mode: SessionMode
    group_ids: list[Id]
    starts_at: datetime
    ends_at: datetime
    zone: str
    trainer_ids: list[Id]
    room_id: Id
    ical_sequence: int
    cancelled: bool
    attendance_taken: bool


async def _known_session(session_id: str, db: Db) -> Session:
    if (found := await db.get(Session, session_id)) is None:
        raise NotFound
    return found


@router.get("/v1/cohorts/{cohort_id}/sessions", responses=problems(NotFound), tags=["sessions"])
async def sessions(cohort_id: Id, caller: Anyone, db: Db) -> list[SessionView]:
    """The timetable in force, in the order of time."""
    if await db.get(Roster, cohort_id) is None:
        raise NotFound
    return [SessionView.model_validate(s) for s in await store.sessions_of(db, cohort_id)]


@router.get("/v1/sessions/{session_id}", responses=problems(NotFound), tags=["sessions"])
async def session(session_id: Id, caller: Anyone, response: Response, db: Db) -> SessionView:
    """One session."""
    found = await _known_session(session_id, db)
    response.headers["ETag"] = etag(found)
    return SessionView.model_validate(found)


class TimeBody(Body):
    starts_at: Instant
    reason_code: RescheduleReason


@router.put(
    "/v1/sessions/{session_id}/time",
    responses=problems(NotFound, domain.NotASlot, domain.AlreadyReserved, domain.SessionOver, PreconditionFailed),
    tags=["sessions"],
)
async def reschedule(
    session_id: Id, body: TimeBody, if_match: IfMatch, caller: Organiser, response: Response, db: Db
) -> SessionView:
    """Hold one session at another time. The whole timetable is checked with it."""
    kept = await commands.reschedule(session_id, body.starts_at, body.reason_code, if_match, db)
    response.headers["ETag"] = etag(kept)
    return SessionView.model_validate(kept)


# --- attendance --------------------------------------------------------------------------------------------------


class Absence(Body):
    enrollment_id: Id
    status: AttendanceStatus


class AttendanceBody(Body):
    """Everybody expected was present, but these."""

    absences: list[Absence] = Field(default=[], max_length=1000)

    @model_validator(mode="after")
    def _each_once(self) -> AttendanceBody:
        if len({absence.enrollment_id for absence in self.absences}) < len(self.absences):
            raise ValueError("each participant once")
        return self


class AttendanceView(View):
    id: Id
    session_id: Id
    enrollment_id: Id
    status: AttendanceStatus
    jp: int


@router.put(
    "/v1/sessions/{session_id}/attendance",
    responses=problems(
        NotFound, domain.SessionNotBegun, domain.NotAttending, domain.AttendanceTaken, domain.SessionOver
    ),
    tags=["attendance"],
)
async def take_attendance(session_id: Id, body: AttendanceBody, caller: Teaching, db: Db) -> list[AttendanceView]:
    """Record the attendance of a session: its trainer, or the organiser."""
    be_one_of(caller, *(await _known_session(session_id, db)).trainer_ids)
    absences = {absence.enrollment_id: absence.status for absence in body.absences}
    return [AttendanceView.model_validate(a) for a in await commands.take_attendance(session_id, absences, db)]


@router.get("/v1/sessions/{session_id}/attendance", responses=problems(NotFound), tags=["attendance"])
async def attendance(session_id: Id, caller: Teaching, db: Db) -> list[AttendanceView]:
    """The recorded attendance of a session: for its trainer, or the organiser."""
    be_one_of(caller, *(await _known_session(session_id, db)).trainer_ids)
    return [AttendanceView.model_validate(a) for a in await store.attendance_of(db, session_id)]


class CorrectionBody(Body):
    status: AttendanceStatus
    reason_code: Code


@router.put(
    "/v1/sessions/{session_id}/attendance/{enrollment_id}",
    responses=problems(NotFound, domain.AttendanceNotTaken),
    tags=["attendance"],
)
async def correct_attendance(
    session_id: Id, enrollment_id: Id, body: CorrectionBody, caller: Teaching, db: Db
) -> AttendanceView:
    """Correct a recorded attendance: the session's trainer, or the organiser."""
    be_one_of(caller, *(await _known_session(session_id, db)).trainer_ids)
    kept = await commands.correct_attendance(session_id, enrollment_id, body.status, body.reason_code, db)
    return AttendanceView.model_validate(kept)
