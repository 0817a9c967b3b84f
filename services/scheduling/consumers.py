"""What scheduling does when enrollment announces something."""

from __future__ import annotations

from services.scheduling import commands, domain, store
from services.scheduling.domain import Member, Roster, Session
from shared import clock
from shared.contracts.enrollment import (
    CohortCancelled,
    CohortCapacityChanged,
    CohortOpened,
    ParticipantEnrolled,
    ParticipantWithdrawn,
)
from shared.inbox import Consumer
from shared.mongo import Transaction

consumer = Consumer("scheduling")


def _of_cohort(
    event: CohortOpened | CohortCancelled | CohortCapacityChanged | ParticipantEnrolled | ParticipantWithdrawn,
) -> tuple[type[Roster], str]:
    return Roster, event.cohort_id


async def _roster(tx: Transaction, cohort_id: str) -> Roster:
    return await tx.load(Roster, cohort_id) or Roster(id=cohort_id)


@consumer.on(CohortOpened, reads=_of_cohort)
async def open_roster(event: CohortOpened, tx: Transaction) -> None:
    """Know the cohort's days and its curriculum."""
    roster = await _roster(tx, event.cohort_id)
    tx.save(
        roster.but(
            curriculum_version=event.curriculum_version,
            zone=event.zone,
            starts_on=event.starts_on,
            ends_on=event.ends_on,
            capacity=roster.capacity or event.capacity,  # a change of it may have come first
        )
    )


@consumer.on(CohortCapacityChanged, reads=_of_cohort)
async def note_capacity(event: CohortCapacityChanged, tx: Transaction) -> None:
    """Know how many may come."""
    tx.save((await _roster(tx, event.cohort_id)).but(capacity=event.capacity))


@consumer.on(ParticipantEnrolled, reads=_of_cohort)
async def seat_participant(event: ParticipantEnrolled, tx: Transaction) -> None:
    """Take the participant into the roster, and, where groups are formed, into the smallest."""
    roster = await _roster(tx, event.cohort_id)
    member = Member(
        participant_id=event.participant_id,
        agency_id=event.agency_id,
        roster_number=event.roster_number,
        enrolled_at=event.enrolled_at,
        active=event.enrollment_id not in roster.withdrawn,
    )
    tx.save(roster.but(members={**roster.members, event.enrollment_id: member}))
    if roster.group_count and member.active:
        groups = await store.groups_in(tx, roster)
        smallest = min(groups, key=lambda group: (len(group.enrollment_ids), group.number))
        tx.save(*domain.regroup(smallest, [*smallest.enrollment_ids, event.enrollment_id], clock.now()))


@consumer.on(ParticipantWithdrawn, reads=_of_cohort)
async def release_participant(event: ParticipantWithdrawn, tx: Transaction) -> None:
    """Expect the participant no longer; what was recorded stays."""
    roster = await _roster(tx, event.cohort_id)
    if event.enrollment_id in roster.withdrawn:
        return
    members = dict(roster.members)
    if (member := members.get(event.enrollment_id)) is not None:
        members[event.enrollment_id] = member.model_copy(update={"active": False})
    tx.save(roster.but(members=members, withdrawn=sorted([*roster.withdrawn, event.enrollment_id])))
    for group in await store.groups_in(tx, roster):
        if event.enrollment_id in group.enrollment_ids:
            staying = [id for id in group.enrollment_ids if id != event.enrollment_id]
            tx.save(*domain.regroup(group, staying, clock.now()))


@consumer.on(CohortCancelled, reads=_of_cohort)
async def cancel_timetable(event: CohortCancelled, tx: Transaction) -> None:
    """Cancel the sessions still to come and free what they had reserved; what was held stays."""
    roster = await _roster(tx, event.cohort_id)
    if roster.cancelled:
        return
    roster = tx.save(roster.but(cancelled=True))
    standing = await tx.find(Session, {"cohort_id": event.cohort_id, "cancelled": False}, owner=roster)
    sessions = [session for session in standing if session.starts_at > event.cancelled_at]
    await commands.release(tx, sessions)
    for session in sessions:
        tx.save(*domain.cancel(session, reason_code="cohort-cancelled", now=clock.now()))
