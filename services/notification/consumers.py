"""What notification does when something happened: know who belongs where, note whom to tell. Nothing is sent here."""

from __future__ import annotations

from collections.abc import Iterable

from services.notification import domain
from services.notification.domain import (
    AgencyContact,
    CohortPeople,
    Delivery,
    DeliveryStatus,
    Membership,
    NamedCohort,
    Notice,
    SessionPeople,
)
from shared.contracts import REGISTRY, Event
from shared.contracts.enrollment import AgencyRegistered, CohortOpened, ParticipantEnrolled, ParticipantWithdrawn
from shared.contracts.scheduling import (
    LearningGroupChanged,
    LearningGroupFormed,
    SessionCancelled,
    SessionRescheduled,
    SessionScheduled,
)
from shared.inbox import Consumer
from shared.mongo import Transaction

consumer = Consumer("notification")

OfCohort = (
    ParticipantEnrolled
    | ParticipantWithdrawn
    | LearningGroupFormed
    | LearningGroupChanged
    | SessionScheduled
    | SessionRescheduled
    | SessionCancelled
)


def _people_of(event: OfCohort) -> tuple[type[CohortPeople], str]:
    return CohortPeople, event.cohort_id


async def _people(tx: Transaction, cohort_id: str) -> CohortPeople:
    return await tx.load(CohortPeople, cohort_id) or CohortPeople(id=cohort_id)


# --- who belongs where -------------------------------------------------------------------------------------------


@consumer.on(AgencyRegistered)
async def know_agency(event: AgencyRegistered, tx: Transaction) -> None:
    """Know the agency's code, by which its topic is named."""
    if await tx.load(AgencyContact, event.agency_id) is None:
        tx.save(AgencyContact(id=event.agency_id, code=event.code))


@consumer.on(CohortOpened, reads=lambda event: (NamedCohort, event.cohort_id))
async def know_cohort(event: CohortOpened, tx: Transaction) -> None:
    """Know what the cohort is called."""
    if await tx.load(NamedCohort, event.cohort_id) is None:
        tx.save(NamedCohort(id=event.cohort_id, programme_id=event.programme_id, number=event.number, year=event.year))


@consumer.on(ParticipantEnrolled, reads=_people_of)
async def welcome_participant(event: ParticipantEnrolled, tx: Transaction) -> None:
    """Know the member, tell participant and mentor, and the participant what members were told meanwhile."""
    people = await _people(tx, event.cohort_id)
    known = people.members.get(event.enrollment_id)
    member = Membership(
        participant_id=event.participant_id,
        mentor_id=event.mentor_id,
        agency_id=event.agency_id,
        enrolled_at=event.enrolled_at,
        withdrawn_at=known.withdrawn_at if known else None,
    )
    tx.save(people.but(members={**people.members, event.enrollment_id: member}))
    await _notice(event, tx)
    for notice in (await tx.load_many(Notice, people.standing)).values():
        if domain.concerns(notice, event.enrollment_id, member):
            await _make(notice, [member.participant_id], tx)


@consumer.on(ParticipantWithdrawn, reads=_people_of)
async def see_participant_off(event: ParticipantWithdrawn, tx: Transaction) -> None:
    """Confirm the withdrawal; what happened in the cohort since then is not sent there, unless it has left."""
    await _notice(event, tx)
    people = await _people(tx, event.cohort_id)
    if (member := people.members.get(event.enrollment_id)) is None:
        return
    left = member.model_copy(update={"withdrawn_at": event.withdrawn_at})
    tx.save(people.but(members={**people.members, event.enrollment_id: left}))
    for notice in (await tx.load_many(Notice, people.standing)).values():
        if domain.concerns(notice, event.enrollment_id, member) > domain.concerns(notice, event.enrollment_id, left):
            await _take_back(notice, member.participant_id, tx)


@consumer.on(LearningGroupFormed, LearningGroupChanged, reads=_people_of)
async def know_group(event: LearningGroupFormed | LearningGroupChanged, tx: Transaction) -> None:
    """Know who meets in a group."""
    people = await _people(tx, event.cohort_id)
    tx.save(people.but(groups={**people.groups, event.group_id: event.enrollment_ids}))


@consumer.on(SessionScheduled, SessionRescheduled, SessionCancelled, reads=_people_of)
async def know_session(event: SessionScheduled | SessionRescheduled | SessionCancelled, tx: Transaction) -> None:
    """Know who leads a session and for whom it is; a change is told."""
    if not isinstance(event, SessionCancelled):
        known = await tx.load(SessionPeople, event.session_id)
        facts = {"trainer_ids": event.trainer_ids, "group_ids": event.group_ids}
        tx.save(known.but(**facts) if known else SessionPeople(id=event.session_id, **facts))
    await _notice(event, tx)


# --- whom to tell ------------------------------------------------------------------------------------------------


async def tell(event: Event, tx: Transaction) -> None:
    """Note whom to tell of an event by its rule."""
    await _notice(event, tx)


_KNOWN_ALREADY = {event.type for event in OfCohort.__args__}
for _type in domain.rules():
    if _type not in _KNOWN_ALREADY:
        consumer.on(REGISTRY[_type])(tell)


async def _notice(event: Event, tx: Transaction) -> None:
    """Make the deliveries of an event; where it concerns members, whoever is heard of later is told as well."""
    if event.type not in domain.rules():
        return
    assert tx.cause is not None
    if await tx.load(Notice, tx.cause.id) is not None:
        return
    cohort_id, session_id = getattr(event, "cohort_id", None), getattr(event, "session_id", None)
    people = await _people(tx, cohort_id or event.subject)
    session = await tx.load(SessionPeople, session_id) if session_id else None
    notice = domain.notice(tx.cause, event, people, session)
    agency = await tx.load(AgencyContact, event.agency) if event.agency != "-" else None
    await _make(notice, domain.recipients(notice, people, agency), tx)
    if domain.to_members(notice):
        tx.save(notice)
        tx.save(people.but(standing=[*people.standing, notice.id]))


async def _make(notice: Notice, told: Iterable[str], tx: Transaction) -> None:
    """The deliveries to these persons, where they are not made already."""
    made = domain.deliveries(notice, told)
    known = await tx.load_many(Delivery, [delivery.id for delivery in made])
    for delivery in made:
        if delivery.id not in known:
            tx.save(delivery)


async def _take_back(notice: Notice, recipient_id: str, tx: Transaction) -> None:
    """Who had left by then is not told after all; what is sent is sent."""
    channels = domain.rules()[notice.event_type].channels
    ids = [domain.delivery_id(notice, recipient_id, channel) for channel in channels]
    for delivery in (await tx.load_many(Delivery, ids)).values():
        if delivery.status is DeliveryStatus.DUE:
            tx.delete(delivery)
