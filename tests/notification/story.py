"""Events of a tiny cohort, as notification hears them."""

from __future__ import annotations

from datetime import date, datetime

from shared import reference
from shared.contracts.assessment import (
    CredentialIssued,
    CredentialKind,
    ModuleNotPassed,
    ProgrammeCompleted,
    ProgrammeNotCompleted,
)
from shared.contracts.enrollment import (
    AgencyKind,
    AgencyRegistered,
    CohortOpened,
    NominationRejected,
    NominationReturned,
    NominationSubmitted,
    ParticipantEnrolled,
    ParticipantWithdrawn,
    SeatSource,
    WithdrawalReason,
)
from shared.contracts.scheduling import (
    LearningGroupChanged,
    LearningGroupFormed,
    RescheduleReason,
    SchedulePublished,
    SessionCancelled,
    SessionMode,
    SessionRescheduled,
    SessionScheduled,
)
from tests.support import START, days, uid

PKP = reference.programme("pkp").id
COHORT, SESSION, GROUP = uid(1, 0xC), uid(1, 0x5), uid(1, 0x6)


def agency(n: int) -> AgencyRegistered:
    return AgencyRegistered(agency_id=uid(n, 0xA), code=f"agency-{n}", kind=AgencyKind.MINISTRY, registered_at=START)


def opened() -> CohortOpened:
    return CohortOpened(
        cohort_id=COHORT,
        programme_id=PKP,
        rule_set_version="pkp-2019.1",
        curriculum_version="pkp-2019.1",
        number=3,
        year=2022,
        capacity=40,
        min_size=2,
        nominations_close_at=START,
        starts_on=date(2022, 2, 21),
        ends_on=date(2022, 6, 19),
        zone="Asia/Jakarta",
        opened_at=START,
    )


def nominated(n: int, agency: int) -> NominationSubmitted:
    return NominationSubmitted(
        nomination_id=uid(n, 0x9),
        cohort_id=COHORT,
        participant_id=uid(n, 0xB),
        agency_id=uid(agency, 0xA),
        submitted_at=START,
    )


def enrolled(n: int, agency: int = 1, *, at: datetime = START) -> ParticipantEnrolled:
    return ParticipantEnrolled(
        enrollment_id=uid(n, 0xE),
        cohort_id=COHORT,
        nomination_id=uid(n, 0x9),
        participant_id=uid(n, 0xB),
        agency_id=uid(agency, 0xA),
        mentor_id=uid(n, 0xD),
        programme_id=uid(1),
        rule_set_version="pkp-2019.1",
        curriculum_version="pkp-2019.1",
        roster_number=n,
        seat_source=SeatSource.DIRECT,
        enrolled_at=at,
    )


def withdrawn(n: int, agency: int = 1, *, at: datetime = START) -> ParticipantWithdrawn:
    return ParticipantWithdrawn(
        enrollment_id=uid(n, 0xE),
        cohort_id=COHORT,
        participant_id=uid(n, 0xB),
        agency_id=uid(agency, 0xA),
        reason_code=WithdrawalReason.ASSIGNMENT,
        seat_released=True,
        effective_on=date(2022, 2, 7),
        withdrawn_at=at,
    )


def grouped(*numbers: int) -> LearningGroupFormed:
    return LearningGroupFormed(
        group_id=GROUP,
        cohort_id=COHORT,
        number=1,
        enrollment_ids=[uid(n, 0xE) for n in numbers],
        coach_id=uid(1, 0x7),
        examiner_id=uid(2, 0x7),
        formed_at=START,
    )


def regrouped(*numbers: int) -> LearningGroupChanged:
    facts = grouped(*numbers).model_dump(exclude={"formed_at"})
    return LearningGroupChanged(**facts, changed_at=START)


def scheduled() -> SessionScheduled:
    return SessionScheduled(
        session_id=SESSION,
        cohort_id=COHORT,
        module_id=uid(1, 0x8),
        jp=3,
        mode=SessionMode.DISTANCE,
        group_ids=[GROUP],
        starts_at=START,
        ends_at=START + days(0.1),
        zone="Asia/Jakarta",
        trainer_ids=[uid(9, 0x7)],
        room_id=uid(1, 0x4),
    )


def moved() -> SessionRescheduled:
    facts = scheduled().model_dump(exclude={"ical_sequence", "starts_at", "ends_at"})
    return SessionRescheduled(
        **facts,
        starts_at=START + days(1),
        ends_at=START + days(1.1),
        ical_sequence=1,
        previous_starts_at=START,
        previous_ends_at=START + days(0.1),
        reason_code=RescheduleReason.ORGANISER,
        rescheduled_at=START,
    )


def published() -> SchedulePublished:
    return SchedulePublished(
        schedule_id=uid(1, 0x3),
        cohort_id=COHORT,
        schedule_version=1,
        curriculum_version="pkp-2019.1",
        modules=[],
        added=66,
        changed=0,
        removed=0,
        first_day=date(2022, 2, 21),
        last_day=date(2022, 6, 17),
        published_at=START,
    )


def not_passed(n: int, agency: int = 1) -> ModuleNotPassed:
    return ModuleNotPassed(
        module_result_id=uid(n, 0x2),
        cohort_id=COHORT,
        enrollment_id=uid(n, 0xE),
        participant_id=uid(n, 0xB),
        agency_id=uid(agency, 0xA),
        module_id=uid(1, 0x8),
        attempt=1,
        attempts_left=1,
        reason_codes=["score-below-mark"],
        rule_set_version="pkp-2019.1",
        decided_at=START,
    )


def graduated(n: int, agency: int = 1) -> ProgrammeCompleted:
    return ProgrammeCompleted(
        enrollment_id=uid(n, 0xE),
        cohort_id=COHORT,
        participant_id=uid(n, 0xB),
        agency_id=uid(agency, 0xA),
        programme_id=uid(1),
        rule_set_version="pkp-2019.1",
        decision_id=uid(1, 0x1),
        decided_on=date(2022, 6, 19),
    )


def returned(n: int, agency: int = 1) -> NominationReturned:
    return NominationReturned(**_nomination(n, agency), reason_code="document-missing", returned_at=START)


def rejected(n: int, agency: int = 1) -> NominationRejected:
    return NominationRejected(**_nomination(n, agency), reason_code="requirement-not-met", rejected_at=START)


def _nomination(n: int, agency: int) -> dict[str, str]:
    return nominated(n, agency).model_dump(exclude={"submitted_at"})


def cancelled() -> SessionCancelled:
    return SessionCancelled(
        session_id=SESSION, cohort_id=COHORT, module_id=uid(1, 0x8), reason_code="organiser", cancelled_at=START
    )


def not_graduated(n: int, agency: int = 1) -> ProgrammeNotCompleted:
    return ProgrammeNotCompleted(**graduated(n, agency).model_dump(), reason_codes=["aspect.project-result"])


def certified(n: int, agency: int = 1) -> CredentialIssued:
    return CredentialIssued(
        credential_id=uid(n, 0x10),
        cohort_id=COHORT,
        enrollment_id=uid(n, 0xE),
        participant_id=uid(n, 0xB),
        agency_id=uid(agency, 0xA),
        kind=CredentialKind.GRADUATION,
        issued_on=date(2022, 6, 19),
    )
