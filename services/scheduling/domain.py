"""Timetables in force: publishing and moving sessions, reserving people and rooms, learning groups, attendance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any, ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shared.contracts import Code, Id
from shared.contracts.scheduling import (
    AttendanceCorrected,
    AttendanceRecorded,
    AttendanceStatus,
    LearningGroupChanged,
    LearningGroupFormed,
    ModulePlan,
    RescheduleReason,
    SchedulePublished,
    SessionCancelled,
    SessionMode,
    SessionRescheduled,
    SessionScheduled,
    TrainerAssigned,
)
from shared.domain import State
from shared.errors import Rejected
from shared.ids import derive

# --- refusals ----------------------------------------------------------------------------------------------------


class CohortUnknown(Rejected):
    """Nothing is known here yet of this cohort; it may have been opened a moment ago."""


class CohortCancelled(Rejected):
    """The cohort was cancelled."""


class CurriculumUnknown(Rejected):
    """The curriculum that the cohort is bound to is not in the reference data of this installation."""


class CalendarUnknown(Rejected):
    """The holidays of a year of the cohort are not recorded in the reference data."""


class DoesNotFit(Rejected):
    """The curriculum's stages do not fit between the cohort's first and last day."""


class NobodyQualified(Rejected):
    """No registered trainer is qualified for some modules."""


class NoRoomLargeEnough(Rejected):
    """No room of the right kind has the seats for some modules."""


class NotPlaceable(Rejected):
    """No timetable was found with these trainers and rooms."""


class DraftOutdated(Rejected):
    """A trainer or room of the draft no longer fits its session; a new draft is needed."""


class AlreadyPublished(Rejected):
    """The cohort has a timetable in force."""


class SearchUnderWay(Rejected):
    """Another search for this timetable has not ended; stop it first."""


class NotFoundInTime(Rejected):
    """No timetable was found in the seconds given, and none of the rules was shown to stand in the way: give more."""


class SearchStopped(Rejected):
    """The search was stopped before there was a timetable."""


class SearchBroken(Rejected):
    """The search ended by an error of ours, which is in the solver's log."""


class AlreadyReserved(Rejected):
    """A trainer, room or learning group is taken at that time."""


class SessionOver(Rejected):
    """The session has begun, or was cancelled."""


class NotASlot(Rejected):
    """A session of this module cannot be held then: the rule names what stands in the way."""


class SessionNotBegun(Rejected):
    """Attendance is taken once the session has begun."""


class NotAttending(Rejected):
    """Some of the named participants do not belong to this session."""


class AttendanceTaken(Rejected):
    """Attendance was recorded otherwise before; correct it instead."""


class AttendanceNotTaken(Rejected):
    """There is no recorded attendance to correct."""


class GroupsFormed(Rejected):
    """The learning groups of this cohort were formed otherwise before."""


class GroupsMismatch(Rejected):
    """Every learning group needs one coach and one examiner, and there are as many as the curriculum says."""


class NoParticipants(Rejected):
    """The cohort has no participants yet."""


# --- states ------------------------------------------------------------------------------------------------------


class Span(BaseModel):
    """From an instant until before another."""

    model_config = ConfigDict(frozen=True)

    starts_at: datetime
    ends_at: datetime


class Trainer(State):
    """A trainer (widyaiswara): for which modules, and when not."""

    collection: ClassVar[str] = "trainers"
    editable: ClassVar[frozenset[str]] = frozenset({"modules", "unavailable"})

    modules: list[Code]
    unavailable: list[Span] = []


class RoomKind(StrEnum):
    VIRTUAL = "virtual"
    PHYSICAL = "physical"


class Room(State):
    """A room, or the licence for a virtual one."""

    collection: ClassVar[str] = "rooms"
    editable: ClassVar[frozenset[str]] = frozenset({"kind", "seats"})

    kind: RoomKind
    seats: int


class Member(BaseModel):
    """A participant of a cohort as enrollment announced it."""

    model_config = ConfigDict(frozen=True)

    participant_id: Id
    agency_id: Id
    roster_number: int
    enrolled_at: AwareDatetime
    active: bool = True


class Roster(State):
    """What scheduling knows of a cohort: its days, its rules and its members. Its id is the cohort's."""

    collection: ClassVar[str] = "rosters"

    curriculum_version: Code | None = None
    zone: str = "Asia/Jakarta"
    starts_on: date | None = None
    ends_on: date | None = None
    capacity: int = 0
    cancelled: bool = False
    members: dict[Id, Member] = {}
    withdrawn: list[Id] = []
    group_count: int = 0
    coach_ids: list[Id] = []
    examiner_ids: list[Id] = []
    schedule_id: Id | None = None

    @property
    def active(self) -> dict[str, Member]:
        return {id: member for id, member in self.members.items() if member.active}


class LearningGroup(State):
    """A learning group (kelompok) with its coach and examiner."""

    collection: ClassVar[str] = "learning_groups"

    cohort_id: Id
    number: int
    enrollment_ids: list[Id]
    coach_id: Id
    examiner_id: Id


class Session(State):
    """A session of the timetable in force."""

    collection: ClassVar[str] = "sessions"
    editable: ClassVar[frozenset[str]] = frozenset({"starts_at"})

    schedule_id: Id
    cohort_id: Id
    event: str  # its name in the placement, e.g. manajemen-mutu/2
    module_id: Id
    jp: int
    mode: SessionMode
    group_ids: list[Id]
    starts_at: datetime
    ends_at: datetime
    zone: str
    trainer_ids: list[Id]
    room_id: Id
    ical_sequence: int = 0
    cancelled: bool = False
    attendance_taken: bool = False


class PlannedSession(BaseModel):
    """A session of a draft."""

    model_config = ConfigDict(frozen=True)

    event: str
    module: Code
    groups: list[int]
    jp: int
    mode: SessionMode
    starts_at: datetime
    ends_at: datetime
    trainer_id: Id
    room_id: Id


class ScheduleStatus(StrEnum):
    DRAFT = "draft"
    PUBLISHED = "published"


class Schedule(State):
    """A timetable of a cohort: a draft until it is published."""

    collection: ClassVar[str] = "schedules"

    cohort_id: Id
    curriculum_version: Code
    status: ScheduleStatus = ScheduleStatus.DRAFT
    sessions: list[PlannedSession]
    modules: list[ModulePlan]
    first_day: date
    last_day: date
    cost: dict[str, int] = Field(default={}, description="by soft rule, S1 to S6, as the checker counts it")
    asked: str


class SearchStatus(StrEnum):
    ASKED = "asked"
    SEARCHING = "searching"
    DONE = "done"
    FAILED = "failed"


class SearchProgress(BaseModel):
    """How far a search is: clashes and cost of the best timetable so far, by soft rule as the checker counts."""

    model_config = ConfigDict(frozen=True)

    phase: Literal["compiling", "searching"]
    seconds: float = 0.0
    clashes: int = 0
    cost: int = 0
    by_rule: dict[str, int] = {}
    tries: int = 0


class Search(State):
    """That a better timetable is looked for; it has the id of the draft that it will become."""

    collection: ClassVar[str] = "searches"

    cohort_id: Id
    seconds: int
    asked: str
    asked_at: datetime
    status: SearchStatus = SearchStatus.ASKED
    stopping: bool = False
    progress: SearchProgress | None = None
    adopted: bool = False
    reason: str | None = Field(default=None, description="why there is no timetable: the code of the error")
    missing: dict[str, Any] = {}

    @property
    def over(self) -> bool:
        return self.status in (SearchStatus.DONE, SearchStatus.FAILED)


NOT_BEGUN: dict[str, Any] = {
    "status": SearchStatus.ASKED, "stopping": False, "progress": None, "adopted": False, "reason": None, "missing": {},
}  # fmt: skip
"""What a search is like that is asked for once more."""
PLANNED = ("curriculum_version", "sessions", "modules", "first_day", "last_day", "cost")
"""What of a draft is the plan's."""


class Reserved(BaseModel):
    """That something is taken by a session for a time."""

    model_config = ConfigDict(frozen=True)

    session_id: Id
    starts_at: datetime
    ends_at: datetime


class ResourceDay(State):
    """The reservations of one trainer, room or learning group on one day (UTC). Its id is derived from both, so

    whoever reserves writes this one document: two who want the same hour conflict, whatever cohort they plan for.
    """

    collection: ClassVar[str] = "resource_days"

    resource: str
    day: date
    reserved: list[Reserved] = []


class Attendance(State):
    """Whether a participant attended a session; one per session and enrollment."""

    collection: ClassVar[str] = "attendance"

    session_id: Id
    module_id: Id
    cohort_id: Id
    enrollment_id: Id
    participant_id: Id
    agency_id: Id
    status: AttendanceStatus
    jp: int


def group_id(cohort_id: str, number: int) -> str:
    return derive("scheduling", "group", cohort_id, number)


def session_id(schedule_id: str, event: str) -> str:
    return derive("scheduling", "session", schedule_id, event)


def attendance_id(session_id: str, enrollment_id: str) -> str:
    return derive("scheduling", "attendance", session_id, enrollment_id)


# --- the reservation ledger --------------------------------------------------------------------------------------


def resource_days(resource: str, starts_at: datetime, ends_at: datetime) -> dict[str, date]:
    """The ledger documents that a time touches: id → day."""
    first, last = starts_at.astimezone(UTC).date(), ends_at.astimezone(UTC).date()
    return {derive("scheduling", "resource-day", resource, day): day for day in {first, last}}


def reserve(kept: ResourceDay, wanted: Reserved) -> ResourceDay:
    """Take the time on this day, or raise `AlreadyReserved` with what is taken."""
    for other in kept.reserved:
        if (
            other.session_id != wanted.session_id
            and other.starts_at < wanted.ends_at
            and wanted.starts_at < other.ends_at
        ):
            kind, _, id = kept.resource.partition("|")
            raise AlreadyReserved(resource=kind, resource_id=id, starts_at=other.starts_at.isoformat())
    return kept.but(reserved=[*(r for r in kept.reserved if r.session_id != wanted.session_id), wanted])


def release(kept: ResourceDay, session_id: str) -> ResourceDay:
    return kept.but(reserved=[r for r in kept.reserved if r.session_id != session_id])


def resources_of(session: Session) -> list[str]:
    """What a session needs for itself."""
    return [
        *(f"trainer|{id}" for id in session.trainer_ids),
        f"room|{session.room_id}",
        *(f"group|{id}" for id in session.group_ids),
    ]


# --- learning groups ---------------------------------------------------------------------------------------------


def form_groups(
    cohort_id: str, members: Mapping[str, Member], coach_ids: Sequence[str], examiner_ids: Sequence[str], now: datetime
) -> list[tuple[LearningGroup, LearningGroupFormed]]:
    """Deal the members out by roster number, one group per coach and examiner. Raises `NoParticipants`."""
    if len(members) < len(coach_ids):
        raise NoParticipants
    dealt = sorted(members, key=lambda id: (members[id].roster_number, id))
    formed = []
    for number, (coach_id, examiner_id) in enumerate(zip(coach_ids, examiner_ids, strict=True), start=1):
        group = LearningGroup(
            id=group_id(cohort_id, number),
            cohort_id=cohort_id,
            number=number,
            enrollment_ids=dealt[number - 1 :: len(coach_ids)],
            coach_id=coach_id,
            examiner_id=examiner_id,
        )
        facts = {
            name: getattr(group, name) for name in ("cohort_id", "number", "enrollment_ids", "coach_id", "examiner_id")
        }
        formed.append((group, LearningGroupFormed(group_id=group.id, formed_at=now, **facts)))
    return formed


def regroup(
    group: LearningGroup, enrollment_ids: Sequence[str], now: datetime
) -> tuple[LearningGroup, LearningGroupChanged]:
    """The group with other members."""
    changed = group.but(enrollment_ids=list(enrollment_ids))
    facts = {
        name: getattr(changed, name) for name in ("cohort_id", "number", "enrollment_ids", "coach_id", "examiner_id")
    }
    return changed, LearningGroupChanged(group_id=group.id, changed_at=now, **facts)


# --- sessions ----------------------------------------------------------------------------------------------------


def outdated(
    planned: Sequence[PlannedSession], trainers: Mapping[str, Trainer], rooms: Mapping[str, Room], sizes: Sequence[int]
) -> list[tuple[str, str]]:
    """What changed under a draft, as (session, rule): H5 its trainer, H6 its room. `sizes` are those of the groups."""
    found = []
    for session in planned:
        trainer, room = trainers.get(session.trainer_id), rooms.get(session.room_id)
        if (
            trainer is None
            or session.module not in trainer.modules
            or any(
                away.starts_at < session.ends_at and session.starts_at < away.ends_at for away in trainer.unavailable
            )
        ):
            found.append((session.event, "H5"))
        kind = RoomKind.VIRTUAL if session.mode is SessionMode.DISTANCE else RoomKind.PHYSICAL
        if room is None or room.kind is not kind or room.seats < sum(sizes[number - 1] for number in session.groups):
            found.append((session.event, "H6"))
    return found


def publish_session(session: Session, now: datetime) -> list[SessionScheduled | TrainerAssigned]:
    names = (
        "cohort_id",
        "module_id",
        "jp",
        "mode",
        "group_ids",
        "starts_at",
        "ends_at",
        "zone",
        "trainer_ids",
        "room_id",
    )
    facts = {name: getattr(session, name) for name in names}
    assigned = [
        TrainerAssigned(
            session_id=session.id,
            cohort_id=session.cohort_id,
            module_id=session.module_id,
            trainer_id=trainer_id,
            assigned_at=now,
        )
        for trainer_id in session.trainer_ids
    ]
    return [SessionScheduled(session_id=session.id, **facts), *assigned]


def publish(schedule: Schedule, now: datetime) -> tuple[Schedule, SchedulePublished]:
    event = SchedulePublished(
        schedule_id=schedule.id,
        cohort_id=schedule.cohort_id,
        schedule_version=1,
        curriculum_version=schedule.curriculum_version,
        modules=schedule.modules,
        added=len(schedule.sessions),
        changed=0,
        removed=0,
        first_day=schedule.first_day,
        last_day=schedule.last_day,
        published_at=now,
    )
    return schedule.but(status=ScheduleStatus.PUBLISHED), event


def move(
    session: Session, starts_at: datetime, *, reason_code: RescheduleReason, now: datetime
) -> tuple[Session, SessionRescheduled]:
    """Hold the session at another time. Raises `SessionOver`."""
    if session.cancelled or session.starts_at <= now or starts_at <= now:
        raise SessionOver
    moved = session.but(
        starts_at=starts_at,
        ends_at=starts_at + (session.ends_at - session.starts_at),
        ical_sequence=session.ical_sequence + 1,
    )
    names = (
        *("cohort_id", "module_id", "jp", "mode", "group_ids", "starts_at", "ends_at", "zone", "trainer_ids"),
        *("room_id", "ical_sequence"),
    )
    event = SessionRescheduled(
        session_id=session.id,
        previous_starts_at=session.starts_at,
        previous_ends_at=session.ends_at,
        reason_code=reason_code,
        rescheduled_at=now,
        **{name: getattr(moved, name) for name in names},
    )
    return moved, event


def cancel(session: Session, *, reason_code: str, now: datetime) -> tuple[Session, SessionCancelled]:
    event = SessionCancelled(
        session_id=session.id,
        cohort_id=session.cohort_id,
        module_id=session.module_id,
        reason_code=reason_code,
        cancelled_at=now,
    )
    return session.but(cancelled=True), event


# --- attendance --------------------------------------------------------------------------------------------------


def attendees(session: Session, groups: Iterable[LearningGroup], roster: Roster) -> dict[str, Member]:
    """Who belongs in a session: the active members of its groups who held their seat before it was over."""
    ids = [id for group in groups if group.id in session.group_ids for id in group.enrollment_ids]
    active = roster.active
    return {id: active[id] for id in ids if id in active and active[id].enrolled_at < session.ends_at}


def take_attendance(
    session: Session, expected: Mapping[str, Member], absences: Mapping[str, AttendanceStatus], *, now: datetime
) -> list[tuple[Attendance, AttendanceRecorded]]:
    """Everybody expected was present but those named. Raises `SessionNotBegun`, `NotAttending`, `SessionOver`."""
    if session.cancelled:
        raise SessionOver
    if now < session.starts_at:
        raise SessionNotBegun
    if strangers := sorted(set(absences) - set(expected)):
        raise NotAttending(enrollment_ids=strangers)
    taken = []
    for enrollment_id, member in sorted(expected.items(), key=lambda pair: pair[1].roster_number):
        attendance = Attendance(
            id=attendance_id(session.id, enrollment_id),
            session_id=session.id,
            module_id=session.module_id,
            cohort_id=session.cohort_id,
            enrollment_id=enrollment_id,
            participant_id=member.participant_id,
            agency_id=member.agency_id,
            status=absences.get(enrollment_id, AttendanceStatus.PRESENT),
            jp=session.jp,
        )
        taken.append(
            (attendance, AttendanceRecorded(attendance_id=attendance.id, recorded_at=now, **_facts(attendance)))
        )
    return taken


def correct(
    attendance: Attendance, status: AttendanceStatus, *, reason_code: str, now: datetime
) -> tuple[Attendance, AttendanceCorrected]:
    """It was recorded wrongly; this is right."""
    corrected = attendance.but(status=status)
    event = AttendanceCorrected(
        attendance_id=attendance.id,
        previous=attendance.status,
        reason_code=reason_code,
        corrected_at=now,
        **_facts(corrected),
    )
    return corrected, event


_ATTENDANCE_FACTS = (
    *("session_id", "module_id", "cohort_id", "enrollment_id", "participant_id", "agency_id", "status", "jp"),
)


def _facts(attendance: Attendance) -> dict[str, Any]:
    return {name: getattr(attendance, name) for name in _ATTENDANCE_FACTS}
