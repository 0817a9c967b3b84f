"""From nomination to seat: what may happen to agencies, cohorts, nominations and enrollments, and what it means."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, ClassVar
from zoneinfo import ZoneInfo

from pydantic import BaseModel, Field, StringConstraints

from shared.contracts import Code, Id
from shared.contracts.enrollment import (
    AgencyKind,
    AgencyRegistered,
    CohortCancelled,
    CohortCapacityChanged,
    CohortConfirmed,
    CohortOpened,
    NominationRejected,
    NominationReturned,
    NominationSubmitted,
    NominationVerified,
    ParticipantEnrolled,
    ParticipantWithdrawn,
    SeatSource,
    WithdrawalReason,
)
from shared.domain import State
from shared.errors import Rejected
from shared.ids import derive
from shared.reference import RuleSet

# --- refusals ----------------------------------------------------------------------------------------------------


class AgencyCodeTaken(Rejected):
    """Another agency has, or had, this code."""


class PersonKnown(Rejected):
    """A person with this personnel number is registered already."""


class CohortNumberTaken(Rejected):
    """This programme has a cohort of this number in this year already."""


class UnknownRules(Rejected):
    """The programme, rule set or curriculum is not in the reference data, or they do not belong together."""


class CapacityOutsideRules(Rejected):
    """The rule set does not allow a class of this size."""


class CohortNotOpen(Rejected):
    """The cohort is no longer open for this."""


class RegistrationClosed(Rejected):
    """The nomination window of this cohort is over."""


class NominationNotReady(Rejected):
    """The nomination is not at the step that this needs."""


class RequirementsNotMet(Rejected):
    """The nominee does not meet every requirement of the rule set."""


class DocumentsMissing(Rejected):
    """Documents that the rule set demands are missing."""


class CohortFull(Rejected):
    """Every seat of the cohort is taken."""


class SeatsTaken(Rejected):
    """More seats are taken than the new capacity has."""


class BelowMinimum(Rejected):
    """The cohort has fewer participants than its minimum."""


class NotEnrolled(Rejected):
    """The participant does not hold a seat."""


class OutsideEnrollment(Rejected):
    """A withdrawal takes effect between the day of the enrollment and the last day of the cohort."""


class WrongReplacement(Rejected):
    """One replacement takes the place of a withdrawn participant of the same agency and cohort, before the start."""


# --- states ------------------------------------------------------------------------------------------------------


class Agency(State):
    """An agency (instansi) that sends participants. Its code is ours, for life, and never used again."""

    collection: ClassVar[str] = "agencies"

    code: str
    kind: AgencyKind
    name: str
    bkn_code: str | None = None
    bkn_code_source: str | None = None
    asked: str


class AgencyCode(State):
    """That a code is taken, for ever."""

    collection: ClassVar[str] = "agency_codes"

    agency_id: Id


class Person(State):
    """A participant, trainer, mentor, coach, examiner or official. The only place where a name is kept."""

    collection: ClassVar[str] = "people"
    editable: ClassVar[frozenset[str]] = frozenset({"name", "email", "zone"})

    name: str
    email: str
    nip: str | None = None
    agency_id: Id | None = None
    zone: str = "Asia/Jakarta"
    generated: bool = False
    asked: str


class PersonNumber(State):
    """That a personnel number belongs to somebody; its id is a keyed digest of the number."""

    collection: ClassVar[str] = "person_numbers"

    person_id: Id


class CohortStatus(StrEnum):
    OPEN = "open"
    CONFIRMED = "confirmed"
    CANCELLED = "cancelled"


class Cohort(State):
    """A cohort (angkatan): one run of a programme, bound to one rule set and curriculum for life.

    `seats` maps roster numbers (nomor daftar hadir) to enrollments: the number belongs to the seat, not the person.
    """

    collection: ClassVar[str] = "cohorts"

    programme_id: Id
    rule_set_version: Code
    curriculum_version: Code
    number: int
    year: int
    capacity: int
    min_size: int
    nominations_close_at: datetime
    starts_on: date
    ends_on: date
    zone: str
    status: CohortStatus = CohortStatus.OPEN
    seats: dict[int, Id] = {}
    asked: str


class CohortNumber(State):
    """That a programme's cohort number of a year is taken."""

    collection: ClassVar[str] = "cohort_numbers"

    cohort_id: Id


class NominationStatus(StrEnum):
    SUBMITTED = "submitted"
    RETURNED = "returned"
    VERIFIED = "verified"
    REJECTED = "rejected"
    ACCEPTED = "accepted"
    CONFIRMED = "confirmed"


FactName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]{0,31}$")]
Facts = Annotated[dict[FactName, Code], Field(max_length=32)]
"""What an agency states about a nominee, by the names under which rule sets ask for it: codes on both sides."""
Documents = Annotated[list[Code], Field(max_length=32)]
"""The papers that an agency holds ready, by the codes of the rule set."""


class Nomination(State):
    """An agency's proposal of a person for a cohort; one per person and cohort."""

    collection: ClassVar[str] = "nominations"

    cohort_id: Id
    participant_id: Id
    agency_id: Id
    mentor_id: Id
    documents: Documents
    facts: Facts
    replaces: Id | None = None
    status: NominationStatus = NominationStatus.SUBMITTED
    rule_ids: list[Code] = []
    reason_code: Code | None = None


class EnrollmentStatus(StrEnum):
    ENROLLED = "enrolled"
    WITHDRAWN = "withdrawn"


class Enrollment(State):
    """A participant's seat in a cohort."""

    collection: ClassVar[str] = "enrollments"

    cohort_id: Id
    nomination_id: Id
    participant_id: Id
    agency_id: Id
    mentor_id: Id
    roster_number: int
    seat_source: SeatSource
    enrolled_on: date
    status: EnrollmentStatus = EnrollmentStatus.ENROLLED
    reason_code: WithdrawalReason | None = None
    effective_on: date | None = None
    replaced_by: Id | None = None  # the nomination that is to take, or has taken, this participant's place


def nomination_id(cohort_id: str, person_id: str) -> str:
    return derive("enrollment", "nomination", cohort_id, person_id)


def enrollment_id(nomination_id: str) -> str:
    return derive("enrollment", "enrollment", nomination_id)


# --- personnel numbers -------------------------------------------------------------------------------------------


def valid_nip(nip: str) -> bool:
    """Whether this can be a civil servant's number (NIP): birth date, month of appointment, sex, sequence.

    There is no check digit: a wrong but well-formed number cannot be told. Source: Perka BKN 22/2007.
    """
    if re.fullmatch(r"[0-9]{18}", nip) is None:
        return False
    try:
        born = date(int(nip[:4]), int(nip[4:6]), int(nip[6:8]))
        appointed = date(int(nip[8:12]), int(nip[12:14]), 1)
    except ValueError:
        return False
    return appointed > born and nip[14] in "12" and nip[15:] != "000"


# --- decisions ---------------------------------------------------------------------------------------------------


def _today(cohort: Cohort, now: datetime) -> date:
    """The day that it is where the cohort is held."""
    return now.astimezone(ZoneInfo(cohort.zone)).date()


def register(agency: Agency, now: datetime) -> AgencyRegistered:
    return AgencyRegistered(agency_id=agency.id, code=agency.code, kind=agency.kind, registered_at=now)


def open_cohort(cohort: Cohort, rules: RuleSet, *, programme_code: str, now: datetime) -> CohortOpened:
    """Open a cohort for nomination. Raises `UnknownRules`, `CapacityOutsideRules`, `RegistrationClosed`."""
    if rules.programme != programme_code:
        raise UnknownRules
    if cohort.capacity > rules.class_max.value or not 0 < cohort.min_size <= cohort.capacity:
        raise CapacityOutsideRules(class_max=rules.class_max.value, class_min=rules.class_min.value)
    if cohort.nominations_close_at <= now:
        raise RegistrationClosed
    fields = (
        *("programme_id", "rule_set_version", "curriculum_version", "number", "year", "capacity", "min_size"),
        *("nominations_close_at", "starts_on", "ends_on", "zone"),
    )
    return CohortOpened(cohort_id=cohort.id, opened_at=now, **{name: getattr(cohort, name) for name in fields})


def change_capacity(
    cohort: Cohort, capacity: int, rules: RuleSet, *, reason_code: str, now: datetime
) -> tuple[Cohort, CohortCapacityChanged]:
    """More or fewer seats. Raises `CohortNotOpen`, `SeatsTaken`, `CapacityOutsideRules`."""
    if cohort.status is CohortStatus.CANCELLED:
        raise CohortNotOpen
    if capacity < len(cohort.seats) or capacity < cohort.min_size:
        raise SeatsTaken(taken=len(cohort.seats), min_size=cohort.min_size)
    if capacity > rules.class_max.value:
        raise CapacityOutsideRules(class_max=rules.class_max.value)
    event = CohortCapacityChanged(
        cohort_id=cohort.id, capacity=capacity, previous=cohort.capacity, reason_code=reason_code, changed_at=now
    )
    return cohort.but(capacity=capacity), event


def confirm_cohort(cohort: Cohort, *, now: datetime) -> tuple[Cohort, CohortConfirmed]:
    """The cohort will run. Raises `CohortNotOpen`, `BelowMinimum`."""
    if cohort.status is not CohortStatus.OPEN:
        raise CohortNotOpen
    if len(cohort.seats) < cohort.min_size:
        raise BelowMinimum(size=len(cohort.seats), min_size=cohort.min_size)
    event = CohortConfirmed(cohort_id=cohort.id, size=len(cohort.seats), confirmed_at=now)
    return cohort.but(status=CohortStatus.CONFIRMED), event


def cancel_cohort(cohort: Cohort, *, reason_code: str, now: datetime) -> tuple[Cohort, CohortCancelled]:
    """The cohort will not run. Raises `CohortNotOpen` when it was cancelled before."""
    if cohort.status is CohortStatus.CANCELLED:
        raise CohortNotOpen
    event = CohortCancelled(cohort_id=cohort.id, reason_code=reason_code, cancelled_at=now)
    return cohort.but(status=CohortStatus.CANCELLED), event


def nominate(
    cohort: Cohort, nomination: Nomination, replaced: Enrollment | None, *, now: datetime
) -> NominationSubmitted:
    """Propose a person, in the window; or, until the start, as the replacement of one who withdrew.

    Raises `CohortNotOpen`, `RegistrationClosed`, `WrongReplacement`.
    """
    if cohort.status is CohortStatus.CANCELLED:
        raise CohortNotOpen
    if nomination.replaces is not None:
        fits = (
            replaced is not None
            and replaced.status is EnrollmentStatus.WITHDRAWN
            and (replaced.cohort_id, replaced.agency_id) == (cohort.id, nomination.agency_id)
            and replaced.replaced_by in (None, nomination.id)
            and _today(cohort, now) <= cohort.starts_on
        )
        if not fits:
            raise WrongReplacement
    elif now > cohort.nominations_close_at or cohort.status is not CohortStatus.OPEN:
        raise RegistrationClosed
    return NominationSubmitted(
        nomination_id=nomination.id,
        cohort_id=cohort.id,
        participant_id=nomination.participant_id,
        agency_id=nomination.agency_id,
        submitted_at=now,
    )


def unmet(rules: RuleSet, facts: Mapping[str, str]) -> list[str]:
    """The requirements that a nominee does not meet, by rule id. An unknown fact is not met."""
    return [r.rule_id for r in rules.requirements if facts.get(r.fact) not in r.one_of]


def missing_documents(rules: RuleSet, documents: Iterable[str]) -> list[str]:
    return sorted(set(rules.documents.value) - set(documents))


class Decision(StrEnum):
    """What the organiser decides about a submitted nomination."""

    VERIFY = "verify"
    RETURN = "return"
    REJECT = "reject"


def verify(
    nomination: Nomination, decision: Decision, rules: RuleSet, *, reason_code: str | None, now: datetime
) -> tuple[Nomination, NominationVerified | NominationReturned | NominationRejected]:
    """Decide on the papers. Raises `NominationNotReady`, `DocumentsMissing`, `RequirementsNotMet` (with the rules)."""
    if nomination.status is not NominationStatus.SUBMITTED:
        raise NominationNotReady(step=nomination.status)
    who = {
        "nomination_id": nomination.id,
        "cohort_id": nomination.cohort_id,
        "participant_id": nomination.participant_id,
        "agency_id": nomination.agency_id,
    }
    rule_ids = unmet(rules, nomination.facts)
    missing = missing_documents(rules, nomination.documents)
    if decision is Decision.VERIFY:
        if missing:
            raise DocumentsMissing(documents=missing)
        if rule_ids:
            raise RequirementsNotMet(rule_ids=rule_ids)
        return nomination.but(status=NominationStatus.VERIFIED), NominationVerified(**who, verified_at=now)
    if decision is Decision.RETURN:
        code = reason_code or ("documents-missing" if missing else "to-be-completed")
        returned = NominationReturned(**who, reason_code=code, returned_at=now)
        return nomination.but(status=NominationStatus.RETURNED, reason_code=code), returned
    code = reason_code or ("requirements-not-met" if rule_ids else "not-selected")
    rejected = NominationRejected(**who, reason_code=code, rule_ids=rule_ids, rejected_at=now)
    return nomination.but(status=NominationStatus.REJECTED, reason_code=code, rule_ids=rule_ids), rejected


def accept(cohort: Cohort, nomination: Nomination) -> Nomination:
    """The organiser takes the nominee. Raises `CohortNotOpen` once it was cancelled, `NominationNotReady`."""
    if cohort.status is CohortStatus.CANCELLED:
        raise CohortNotOpen
    if nomination.status is not NominationStatus.VERIFIED:
        raise NominationNotReady(step=nomination.status)
    return nomination.but(status=NominationStatus.ACCEPTED)


def enroll(
    cohort: Cohort, nomination: Nomination, *, now: datetime
) -> tuple[Cohort, Nomination, Enrollment, ParticipantEnrolled]:
    """Give the nominee a seat with the lowest free roster number.

    Raises `CohortNotOpen`, `NominationNotReady` or `CohortFull`.
    """
    if cohort.status is CohortStatus.CANCELLED:
        raise CohortNotOpen
    if nomination.status is not NominationStatus.ACCEPTED:
        raise NominationNotReady(step=nomination.status)
    if len(cohort.seats) >= cohort.capacity:
        raise CohortFull(capacity=cohort.capacity)
    number = next(n for n in range(1, len(cohort.seats) + 2) if n not in cohort.seats)
    enrollment = Enrollment(
        id=enrollment_id(nomination.id),
        cohort_id=cohort.id,
        nomination_id=nomination.id,
        participant_id=nomination.participant_id,
        agency_id=nomination.agency_id,
        mentor_id=nomination.mentor_id,
        roster_number=number,
        seat_source=SeatSource.REPLACEMENT if nomination.replaces else SeatSource.DIRECT,
        enrolled_on=_today(cohort, now),
    )
    event = ParticipantEnrolled(
        enrollment_id=enrollment.id,
        programme_id=cohort.programme_id,
        rule_set_version=cohort.rule_set_version,
        curriculum_version=cohort.curriculum_version,
        enrolled_at=now,
        **{
            name: getattr(enrollment, name)
            for name in (
                *("cohort_id", "nomination_id", "participant_id", "agency_id", "mentor_id"),
                *("roster_number", "seat_source"),
            )
        },
    )
    return (
        cohort.but(seats={**cohort.seats, number: enrollment.id}),
        nomination.but(status=NominationStatus.CONFIRMED),
        enrollment,
        event,
    )


def withdraw(
    cohort: Cohort, enrollment: Enrollment, *, reason_code: WithdrawalReason, effective_on: date, now: datetime
) -> tuple[Cohort, Enrollment, ParticipantWithdrawn]:
    """Give the seat up. Until the day of the start it is free again; afterwards it stays empty, whatever is backdated.

    Raises `NotEnrolled`, `CohortNotOpen` once the cohort was cancelled, `OutsideEnrollment`.
    """
    if enrollment.status is not EnrollmentStatus.ENROLLED:
        raise NotEnrolled
    if cohort.status is CohortStatus.CANCELLED:
        raise CohortNotOpen
    if not enrollment.enrolled_on <= effective_on <= cohort.ends_on:
        raise OutsideEnrollment(first=enrollment.enrolled_on, last=cohort.ends_on)
    released = max(effective_on, _today(cohort, now)) <= cohort.starts_on
    seats = {n: e for n, e in cohort.seats.items() if e != enrollment.id or not released}
    event = ParticipantWithdrawn(
        enrollment_id=enrollment.id,
        cohort_id=cohort.id,
        participant_id=enrollment.participant_id,
        agency_id=enrollment.agency_id,
        reason_code=reason_code,
        seat_released=released,
        effective_on=effective_on,
        withdrawn_at=now,
    )
    changed = enrollment.but(status=EnrollmentStatus.WITHDRAWN, reason_code=reason_code, effective_on=effective_on)
    return cohort.but(seats=seats), changed, event


# --- composition -------------------------------------------------------------------------------------------------


class Composition(BaseModel):
    """Who sits in a cohort, by reporting group; always counted from its members."""

    participants: int
    ministries: int
    non_ministry: int  # LPNK and LTN
    local_governments: int
    agencies: int


_GROUPS = {
    AgencyKind.MINISTRY: "ministries",
    AgencyKind.LPNK: "non_ministry",
    AgencyKind.LTN: "non_ministry",
    AgencyKind.PROVINCE: "local_governments",
    AgencyKind.REGENCY: "local_governments",
    AgencyKind.CITY: "local_governments",
}


def composition(enrollments: Sequence[Enrollment], agencies: Mapping[str, Agency]) -> Composition:
    """Count the enrolled participants by the kind of their agency."""
    members = [e for e in enrollments if e.status is EnrollmentStatus.ENROLLED]
    counted = Counter(_GROUPS[agencies[e.agency_id].kind] for e in members)
    return Composition(
        participants=len(members),
        ministries=counted["ministries"],
        non_ministry=counted["non_ministry"],
        local_governments=counted["local_governments"],
        agencies=len({e.agency_id for e in members}),
    )
