"""What enrollment announces on `training.enrollment`: agencies, cohorts, nominations and seats."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from shared.contracts import Code, Day, Event, Id, Instant, Zone


class AgencyKind(StrEnum):
    """What an agency (instansi) is; the reporting group is derived from it."""

    MINISTRY = "ministry"  # kementerian
    LPNK = "lpnk"  # lembaga pemerintah non-kementerian
    LTN = "ltn"  # lembaga tinggi negara
    PROVINCE = "province"
    REGENCY = "regency"
    CITY = "city"


class SeatSource(StrEnum):
    """By which way a participant came to the seat."""

    DIRECT = "direct"
    REPLACEMENT = "replacement"  # took the place of a participant of the same agency who withdrew
    OVERRIDE = "override"


class WithdrawalReason(StrEnum):
    """Why a participant gave up the seat. Anything medical or disciplinary is `personal`."""

    ASSIGNMENT = "assignment"  # duty elsewhere
    PERSONAL = "personal"
    AGENCY_REQUEST = "agency-request"
    RETURNED = "returned"  # pengembalian peserta


class AgencyRegistered(Event):
    """An agency takes part in training and may nominate.

    Published once per agency. `code` is this installation's own short name for it, never reused.
    """

    type: ClassVar[str] = "id.go.lan.training.enrollment.agency-registered.v1"
    topic: ClassVar[str] = "training.enrollment"
    subject_field: ClassVar[str] = "agency_id"
    key_field: ClassVar[str] = "agency_id"

    agency_id: Id
    code: Code
    kind: AgencyKind
    registered_at: Instant


class CohortOpened(Event):
    """A cohort (angkatan) is open for nomination.

    It stays bound to the programme, rule set and curriculum named here for life.
    """

    type: ClassVar[str] = "id.go.lan.training.enrollment.cohort-opened.v1"
    topic: ClassVar[str] = "training.enrollment"
    subject_field: ClassVar[str] = "cohort_id"
    key_field: ClassVar[str] = "cohort_id"

    cohort_id: Id
    programme_id: Id
    rule_set_version: Code
    curriculum_version: Code
    number: int
    year: int
    capacity: int
    min_size: int
    nominations_close_at: Instant
    starts_on: Day
    ends_on: Day
    zone: Zone
    opened_at: Instant


class CohortConfirmed(Event):
    """The cohort will run: its members are known and it has reached its minimum size."""

    type: ClassVar[str] = "id.go.lan.training.enrollment.cohort-confirmed.v1"
    topic: ClassVar[str] = "training.enrollment"
    subject_field: ClassVar[str] = "cohort_id"
    key_field: ClassVar[str] = "cohort_id"

    cohort_id: Id
    size: int
    confirmed_at: Instant


class CohortCancelled(Event):
    """The cohort will not run. Seats given in it are void."""

    type: ClassVar[str] = "id.go.lan.training.enrollment.cohort-cancelled.v1"
    topic: ClassVar[str] = "training.enrollment"
    subject_field: ClassVar[str] = "cohort_id"
    key_field: ClassVar[str] = "cohort_id"

    cohort_id: Id
    reason_code: Code
    cancelled_at: Instant


class CohortCapacityChanged(Event):
    """The organiser changed how many seats the cohort has. Never below the seats already given."""

    type: ClassVar[str] = "id.go.lan.training.enrollment.cohort-capacity-changed.v1"
    topic: ClassVar[str] = "training.enrollment"
    subject_field: ClassVar[str] = "cohort_id"
    key_field: ClassVar[str] = "cohort_id"

    cohort_id: Id
    capacity: int
    previous: int
    reason_code: Code
    changed_at: Instant


class NominationSubmitted(Event):
    """An agency nominates a person for a cohort. No seat is held by it."""

    type: ClassVar[str] = "id.go.lan.training.enrollment.nomination-submitted.v1"
    topic: ClassVar[str] = "training.enrollment"
    subject_field: ClassVar[str] = "nomination_id"
    key_field: ClassVar[str] = "cohort_id"

    nomination_id: Id
    cohort_id: Id
    participant_id: Id
    agency_id: Id
    submitted_at: Instant


class NominationVerified(Event):
    """The nominee's papers are complete and every requirement of the rule set is met."""

    type: ClassVar[str] = "id.go.lan.training.enrollment.nomination-verified.v1"
    topic: ClassVar[str] = "training.enrollment"
    subject_field: ClassVar[str] = "nomination_id"
    key_field: ClassVar[str] = "cohort_id"

    nomination_id: Id
    cohort_id: Id
    participant_id: Id
    agency_id: Id
    verified_at: Instant


class NominationReturned(Event):
    """The nomination went back to the agency to be completed; it may be submitted again."""

    type: ClassVar[str] = "id.go.lan.training.enrollment.nomination-returned.v1"
    topic: ClassVar[str] = "training.enrollment"
    subject_field: ClassVar[str] = "nomination_id"
    key_field: ClassVar[str] = "cohort_id"

    nomination_id: Id
    cohort_id: Id
    participant_id: Id
    agency_id: Id
    reason_code: Code
    returned_at: Instant


class NominationRejected(Event):
    """The nominee will not take part. `rule_ids` name the requirements that are not met, where that is the reason."""

    type: ClassVar[str] = "id.go.lan.training.enrollment.nomination-rejected.v1"
    topic: ClassVar[str] = "training.enrollment"
    subject_field: ClassVar[str] = "nomination_id"
    key_field: ClassVar[str] = "cohort_id"

    nomination_id: Id
    cohort_id: Id
    participant_id: Id
    agency_id: Id
    reason_code: Code
    rule_ids: list[Code] = []
    rejected_at: Instant


class ParticipantEnrolled(Event):
    """A participant holds a seat in a cohort.

    Published once per enrollment, when the seat is confirmed; not when one is requested.
    """

    type: ClassVar[str] = "id.go.lan.training.enrollment.participant-enrolled.v1"
    topic: ClassVar[str] = "training.enrollment"
    subject_field: ClassVar[str] = "enrollment_id"
    key_field: ClassVar[str] = "cohort_id"

    enrollment_id: Id
    cohort_id: Id
    nomination_id: Id
    participant_id: Id
    agency_id: Id
    mentor_id: Id
    programme_id: Id
    rule_set_version: Code
    curriculum_version: Code
    roster_number: int  # nomor daftar hadir (NDH): belongs to the seat
    seat_source: SeatSource
    enrolled_at: Instant


class ParticipantWithdrawn(Event):
    """A participant gave up the seat. What was recorded of the training so far stays."""

    type: ClassVar[str] = "id.go.lan.training.enrollment.participant-withdrawn.v1"
    topic: ClassVar[str] = "training.enrollment"
    subject_field: ClassVar[str] = "enrollment_id"
    key_field: ClassVar[str] = "cohort_id"

    enrollment_id: Id
    cohort_id: Id
    participant_id: Id
    agency_id: Id
    reason_code: WithdrawalReason
    seat_released: bool
    effective_on: Day
    withdrawn_at: Instant
