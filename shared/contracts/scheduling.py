"""What scheduling announces on `training.scheduling`: the timetable, learning groups and attendance."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from shared.contracts import Code, Day, Event, Fact, Id, Instant, Zone


class SessionMode(StrEnum):
    """How a session is held."""

    DISTANCE = "distance"  # synchronous, by video
    CLASSICAL = "classical"  # face to face


class AttendanceStatus(StrEnum):
    """hadir, izin, sakit, tanpa keterangan."""

    PRESENT = "present"
    PERMITTED = "permitted"
    SICK = "sick"
    ABSENT = "absent"


class RescheduleReason(StrEnum):
    """Why a published session was moved."""

    TRAINER_UNAVAILABLE = "trainer-unavailable"
    ROOM_UNAVAILABLE = "room-unavailable"
    ORGANISER = "organiser"
    CALENDAR = "calendar"  # a holiday or collective leave was decreed


class ModulePlan(Fact):
    """What the published timetable holds for one module; on `ends_on` the last of it happens."""

    module_id: Id
    sessions: int
    jp_synchronous: int
    jp_asynchronous: int
    jp_classical: int
    starts_on: Day
    ends_on: Day


class SchedulePublished(Event):
    """The cohort's timetable is in force. Follows the facts of its single sessions on the same key.

    Published for the first timetable and for every later version; a single moved session makes no new version.
    """

    type: ClassVar[str] = "id.go.lan.training.scheduling.schedule-published.v1"
    topic: ClassVar[str] = "training.scheduling"
    subject_field: ClassVar[str] = "schedule_id"
    key_field: ClassVar[str] = "cohort_id"

    schedule_id: Id
    cohort_id: Id
    schedule_version: int
    curriculum_version: Code
    modules: list[ModulePlan]
    added: int
    changed: int
    removed: int
    first_day: Day
    last_day: Day
    published_at: Instant


class SessionScheduled(Event):
    """A session stands in the published timetable. Join links are never in events."""

    type: ClassVar[str] = "id.go.lan.training.scheduling.session-scheduled.v1"
    topic: ClassVar[str] = "training.scheduling"
    subject_field: ClassVar[str] = "session_id"
    key_field: ClassVar[str] = "cohort_id"

    session_id: Id
    cohort_id: Id
    module_id: Id
    jp: int  # jam pelajaran, training hours
    mode: SessionMode
    group_ids: list[Id]
    starts_at: Instant
    ends_at: Instant
    zone: Zone
    trainer_ids: list[Id]
    room_id: Id
    ical_sequence: int = 0


class SessionRescheduled(Event):
    """A published session was moved. Carries the whole session as it now stands."""

    type: ClassVar[str] = "id.go.lan.training.scheduling.session-rescheduled.v1"
    topic: ClassVar[str] = "training.scheduling"
    subject_field: ClassVar[str] = "session_id"
    key_field: ClassVar[str] = "cohort_id"

    session_id: Id
    cohort_id: Id
    module_id: Id
    jp: int
    mode: SessionMode
    group_ids: list[Id]
    starts_at: Instant
    ends_at: Instant
    zone: Zone
    trainer_ids: list[Id]
    room_id: Id
    ical_sequence: int
    previous_starts_at: Instant
    previous_ends_at: Instant
    reason_code: RescheduleReason
    rescheduled_at: Instant


class SessionCancelled(Event):
    """A published session will not be held."""

    type: ClassVar[str] = "id.go.lan.training.scheduling.session-cancelled.v1"
    topic: ClassVar[str] = "training.scheduling"
    subject_field: ClassVar[str] = "session_id"
    key_field: ClassVar[str] = "cohort_id"

    session_id: Id
    cohort_id: Id
    module_id: Id
    reason_code: Code
    cancelled_at: Instant


class TrainerAssigned(Event):
    """A trainer (widyaiswara) is to lead a session."""

    type: ClassVar[str] = "id.go.lan.training.scheduling.trainer-assigned.v1"
    topic: ClassVar[str] = "training.scheduling"
    subject_field: ClassVar[str] = "session_id"
    key_field: ClassVar[str] = "cohort_id"

    session_id: Id
    cohort_id: Id
    module_id: Id
    trainer_id: Id
    assigned_at: Instant


class LearningGroupFormed(Event):
    """A learning group (kelompok) of participants with one coach and one examiner (penguji)."""

    type: ClassVar[str] = "id.go.lan.training.scheduling.learning-group-formed.v1"
    topic: ClassVar[str] = "training.scheduling"
    subject_field: ClassVar[str] = "group_id"
    key_field: ClassVar[str] = "cohort_id"

    group_id: Id
    cohort_id: Id
    number: int
    enrollment_ids: list[Id]
    coach_id: Id
    examiner_id: Id
    formed_at: Instant


class LearningGroupChanged(Event):
    """The members, the coach or the examiner of a learning group changed. Carries the whole group as it now stands."""

    type: ClassVar[str] = "id.go.lan.training.scheduling.learning-group-changed.v1"
    topic: ClassVar[str] = "training.scheduling"
    subject_field: ClassVar[str] = "group_id"
    key_field: ClassVar[str] = "cohort_id"

    group_id: Id
    cohort_id: Id
    number: int
    enrollment_ids: list[Id]
    coach_id: Id
    examiner_id: Id
    changed_at: Instant


class AttendanceRecorded(Event):
    """Whether a participant attended a session, as first recorded by its trainer or the organiser."""

    type: ClassVar[str] = "id.go.lan.training.scheduling.attendance-recorded.v1"
    topic: ClassVar[str] = "training.scheduling"
    subject_field: ClassVar[str] = "attendance_id"
    key_field: ClassVar[str] = "cohort_id"

    attendance_id: Id
    session_id: Id
    module_id: Id
    cohort_id: Id
    enrollment_id: Id
    participant_id: Id
    agency_id: Id
    status: AttendanceStatus
    jp: int
    recorded_at: Instant


class AttendanceCorrected(Event):
    """A recorded attendance was wrong; this is how it stands now."""

    type: ClassVar[str] = "id.go.lan.training.scheduling.attendance-corrected.v1"
    topic: ClassVar[str] = "training.scheduling"
    subject_field: ClassVar[str] = "attendance_id"
    key_field: ClassVar[str] = "cohort_id"

    attendance_id: Id
    session_id: Id
    module_id: Id
    cohort_id: Id
    enrollment_id: Id
    participant_id: Id
    agency_id: Id
    status: AttendanceStatus
    previous: AttendanceStatus
    jp: int
    reason_code: Code
    corrected_at: Instant
