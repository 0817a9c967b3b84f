"""What assessment does when enrollment or scheduling announces something. The two have no order between them."""

from __future__ import annotations

from services.assessment import domain, settling, store
from services.assessment.domain import Cohort, Group, Held, Member, ModuleLedger, Record
from services.assessment.settling import CLOSING
from shared.contracts.enrollment import CohortCancelled, CohortOpened, ParticipantEnrolled, ParticipantWithdrawn
from shared.contracts.scheduling import (
    AttendanceCorrected,
    AttendanceRecorded,
    LearningGroupChanged,
    LearningGroupFormed,
    SchedulePublished,
    SessionCancelled,
    SessionRescheduled,
    SessionScheduled,
)
from shared.domain import State, Timer
from shared.inbox import Consumer
from shared.mongo import Transaction
from shared.timers import Timers

consumer = Consumer("assessment")
timers = Timers()

OfModule = SessionScheduled | SessionRescheduled | SessionCancelled | AttendanceRecorded | AttendanceCorrected
OfCohort = CohortOpened | CohortCancelled | ParticipantEnrolled | ParticipantWithdrawn | SchedulePublished
OfGroup = LearningGroupFormed | LearningGroupChanged


def _cohort_of(event: OfCohort | OfGroup) -> tuple[type[State], str]:
    return Cohort, event.cohort_id


def _ledger_of(event: OfModule) -> list[tuple[type[State], str]]:
    return [(Cohort, event.cohort_id), (ModuleLedger, domain.ledger_id(event.cohort_id, event.module_id))]


async def _cohort(tx: Transaction, cohort_id: str) -> Cohort:
    return await tx.load(Cohort, cohort_id) or Cohort(id=cohort_id)


async def _ledger(tx: Transaction, event: OfModule) -> ModuleLedger:
    known = await tx.load(ModuleLedger, domain.ledger_id(event.cohort_id, event.module_id))
    return known or domain.new_ledger(event.cohort_id, event.module_id)


async def _advance(tx: Transaction, cohort: Cohort, ledger: ModuleLedger, reason_code: str) -> None:
    """Go on with the module, relying on the cohort where it is not changed itself."""
    if cohort.version:
        tx.rely_on(cohort)
    await settling.advance(tx, cohort, ledger, reason_code=reason_code)


# --- from enrollment ---------------------------------------------------------------------------------------------


@consumer.on(CohortOpened, reads=_cohort_of)
async def open_cohort(event: CohortOpened, tx: Transaction) -> None:
    """Know the cohort's rules, and decide what waited for them."""
    cohort = tx.save(
        (await _cohort(tx, event.cohort_id)).but(
            programme_id=event.programme_id,
            rule_set_version=event.rule_set_version,
            curriculum_version=event.curriculum_version,
            number=event.number,
            year=event.year,
            zone=event.zone,
            starts_on=event.starts_on,
            ends_on=event.ends_on,
        )
    )
    for ledger in await store.ledgers(tx, cohort):
        await settling.advance(tx, cohort, ledger, reason_code="late-input")


@consumer.on(ParticipantEnrolled, reads=lambda e: [(Cohort, e.cohort_id), (Record, e.enrollment_id)])
async def open_record(event: ParticipantEnrolled, tx: Transaction) -> None:
    """Open the participant's record, and decide what waited for it."""
    cohort = await _cohort(tx, event.cohort_id)
    known = cohort.members.get(event.enrollment_id)
    member = Member(
        participant_id=event.participant_id,
        agency_id=event.agency_id,
        mentor_id=event.mentor_id,
        roster_number=event.roster_number,
        active=known.active if known else True,
    )
    cohort = tx.save(cohort.but(members={**cohort.members, event.enrollment_id: member}))
    if await tx.load(Record, event.enrollment_id) is None:
        tx.save(
            Record(
                id=event.enrollment_id,
                cohort_id=event.cohort_id,
                participant_id=event.participant_id,
                agency_id=event.agency_id,
                mentor_id=event.mentor_id,
            )
        )
    for ledger in await store.ledgers(tx, cohort):
        if event.enrollment_id in ledger.taking_part:
            await settling.decide(tx, cohort, ledger, [event.enrollment_id], reason_code="late-input")


@consumer.on(ParticipantWithdrawn, reads=_cohort_of)
async def close_record(event: ParticipantWithdrawn, tx: Transaction) -> None:
    """Judge the participant no more; what was decided stays."""
    cohort = await _cohort(tx, event.cohort_id)
    if (member := cohort.members.get(event.enrollment_id)) is not None:
        left = member.model_copy(update={"active": False})
        tx.save(cohort.but(members={**cohort.members, event.enrollment_id: left}))


@consumer.on(CohortCancelled, reads=_cohort_of)
async def close_cohort(event: CohortCancelled, tx: Transaction) -> None:
    """Nothing more is marked, decided or completed by mere time."""
    cohort = tx.save((await _cohort(tx, event.cohort_id)).but(cancelled=True))
    for ledger in await store.ledgers(tx, cohort):
        if not ledger.closed:
            await settling.advance(tx, cohort, ledger, reason_code="late-input")


# --- from scheduling ---------------------------------------------------------------------------------------------


@consumer.on(LearningGroupFormed, LearningGroupChanged, reads=_cohort_of)
async def note_group(event: OfGroup, tx: Transaction) -> None:
    """Know who belongs together, with which coach and examiner."""
    cohort = await _cohort(tx, event.cohort_id)
    group = Group(enrollment_ids=event.enrollment_ids, coach_id=event.coach_id, examiner_id=event.examiner_id)
    cohort = tx.save(cohort.but(groups={**cohort.groups, event.group_id: group}))
    for ledger in await store.ledgers(tx, cohort):
        if ledger.closed:
            await settling.admit(tx, cohort, ledger)
        else:
            await settling.advance(tx, cohort, ledger, reason_code="late-input")


@consumer.on(SessionScheduled, SessionRescheduled, reads=_ledger_of)
async def note_session(event: SessionScheduled | SessionRescheduled, tx: Transaction) -> None:
    """Know when a session of a module ends and for whom it is."""
    cohort = await _cohort(tx, event.cohort_id)
    ledger = await _ledger(tx, event)
    held = Held(ends_at=event.ends_at, jp=event.jp, group_ids=event.group_ids)
    ledger = tx.save(ledger.but(sessions={**ledger.sessions, event.session_id: held}))
    await _advance(tx, cohort, ledger, "session-changed")


@consumer.on(SessionCancelled, reads=_ledger_of)
async def drop_session(event: SessionCancelled, tx: Transaction) -> None:
    """Expect nobody in a session that is not held."""
    ledger = await _ledger(tx, event)
    if (held := ledger.sessions.get(event.session_id)) is None:
        return
    dropped = held.model_copy(update={"cancelled": True})
    ledger = tx.save(ledger.but(sessions={**ledger.sessions, event.session_id: dropped}))
    await _advance(tx, await _cohort(tx, event.cohort_id), ledger, "session-cancelled")


@consumer.on(SchedulePublished, reads=_cohort_of)
async def note_plan(event: SchedulePublished, tx: Transaction) -> None:
    """Know how many sessions each module has, and by when it closes at the latest."""
    cohort = await _cohort(tx, event.cohort_id)
    cohort = tx.save(cohort.but(plans={plan.module_id: plan for plan in event.modules}))
    known = {ledger.module_id: ledger for ledger in await store.ledgers(tx, cohort)}
    for plan in event.modules:
        if plan.module_id not in known and not plan.sessions:
            known[plan.module_id] = tx.save(domain.new_ledger(event.cohort_id, plan.module_id))
    for ledger in known.values():
        await settling.advance(tx, cohort, ledger, reason_code="late-input")


@consumer.on(AttendanceRecorded, AttendanceCorrected, reads=_ledger_of)
async def note_attendance(event: AttendanceRecorded | AttendanceCorrected, tx: Transaction) -> None:
    """Count it; the last attendance of a module closes it, a late one may revise a result."""
    cohort = await _cohort(tx, event.cohort_id)
    ledger = await _ledger(tx, event)
    own = {**ledger.attendance.get(event.enrollment_id, {}), event.session_id: event.status}
    was_closed = ledger.closed
    ledger = tx.save(ledger.but(attendance={**ledger.attendance, event.enrollment_id: own}))
    reason_code = "attendance-corrected" if isinstance(event, AttendanceCorrected) else "attendance-late"
    if was_closed:
        if cohort.version:
            tx.rely_on(cohort)
        await settling.decide(tx, cohort, ledger, [event.enrollment_id], reason_code=reason_code)
    elif domain.complete(ledger, cohort):
        await _advance(tx, cohort, ledger, reason_code)
    elif cohort.version:
        tx.rely_on(cohort)


# --- by time -----------------------------------------------------------------------------------------------------


@timers.on(CLOSING)
async def close_module(timer: Timer, tx: Transaction) -> None:
    """Its time is over: the module closes with what is recorded, complete or not."""
    cohort = await tx.require(Cohort, timer.ids["cohort_id"])
    ledger = await tx.require(ModuleLedger, timer.ids["ledger_id"])
    if ledger.closed:
        return
    tx.rely_on(cohort)
    ledger = tx.save(domain.close(ledger, cohort))
    await settling.decide(tx, cohort, ledger, ledger.taking_part, reason_code="late-input")
