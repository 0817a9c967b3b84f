"""Whom to tell: once, whatever comes first, and nobody who joins later gets old mail."""

from __future__ import annotations

import itertools

from services.notification import commands
from services.notification.consumers import consumer
from services.notification.domain import Delivery, Notice
from shared.mongo import Database
from tests.notification.story import (
    agency,
    enrolled,
    graduated,
    grouped,
    moved,
    published,
    regrouped,
    scheduled,
    withdrawn,
)
from tests.support import START, days, deliver, records, uid


async def told(database: Database, template: str) -> set[tuple[str, str]]:
    """(recipient, channel) of the deliveries of a template."""
    found = await database.query(Delivery, {"template": template})
    return {(d.recipient_id, d.channel.value) for d in found}


async def test_participant_and_mentor_are_told_of_a_seat_by_both_channels(database: Database) -> None:
    await deliver(consumer, database, enrolled(1))
    people = (uid(1, 0xB), uid(1, 0xD))
    assert await told(database, "participant-enrolled") == set(itertools.product(people, ("email", "inbox")))


async def test_replaying_a_topic_tells_nobody_again(database: Database) -> None:
    given = records(database, enrolled(1), enrolled(2), published())
    await consumer.receive(given, database)
    before = {d.id for d in await database.query(Delivery, {})}
    await database.collection("inbox").drop()  # as if the memory of the inbox were lost
    await consumer.receive(given, database)
    assert {d.id for d in await database.query(Delivery, {})} == before


async def test_the_whole_cohort_is_told_once_of_the_timetable_but_not_those_who_left(database: Database) -> None:
    await deliver(consumer, database, enrolled(1), enrolled(2), withdrawn(2), published())
    assert await told(database, "schedule-published") == {(uid(1, 0xB), "email"), (uid(1, 0xB), "inbox")}


async def test_who_held_a_seat_is_told_of_the_timetable_whenever_the_seat_is_heard_of(database: Database) -> None:
    joined_after = enrolled(4, at=START + days(1))
    await deliver(consumer, database, enrolled(1), published(), enrolled(2), joined_after)
    await deliver(consumer, database, enrolled(3))
    assert {who for who, _ in await told(database, "schedule-published")} == {uid(n, 0xB) for n in (1, 2, 3)}


async def test_what_is_told_late_is_still_caused_by_what_happened(database: Database) -> None:
    await deliver(consumer, database, published())
    await deliver(consumer, database, enrolled(1))
    (notice,) = await database.query(Notice, {})
    made = await database.query(Delivery, {"template": "schedule-published"})
    assert {delivery.causationid for delivery in made} == {notice.id}


async def test_who_had_left_by_then_is_not_told_although_the_news_of_it_comes_late(database: Database) -> None:
    await deliver(consumer, database, enrolled(1), enrolled(2), grouped(1, 2), scheduled())
    await deliver(consumer, database, moved(), published(), at=START + days(2))
    await deliver(consumer, database, withdrawn(2, at=START + days(1)))
    assert {who for who, _ in await told(database, "schedule-published")} == {uid(1, 0xB)}
    assert {who for who, _ in await told(database, "session-rescheduled")} == {uid(1, 0xB), uid(9, 0x7)}


async def test_a_moved_session_is_told_to_its_group_as_it_was_then(database: Database) -> None:
    await deliver(consumer, database, grouped(1, 2), scheduled(), moved(), regrouped(1, 3))
    await deliver(consumer, database, enrolled(1), enrolled(2), enrolled(3))
    people = {uid(1, 0xB), uid(2, 0xB), uid(9, 0x7)}
    assert {who for who, _ in await told(database, "session-rescheduled")} == people


async def test_coordinators_are_told_about_their_agencys_people(database: Database) -> None:
    await deliver(consumer, database, agency(1))
    await commands.name_coordinator(uid(1, 0xA), uid(50), database)
    await deliver(consumer, database, enrolled(1), enrolled(2, agency=2), graduated(1), graduated(2, agency=2))
    assert (uid(50), "email") in await told(database, "programme-completed")
    found = await database.query(Delivery, {"template": "programme-completed", "recipient_id": uid(50)})
    assert {d.facts["agency_id"] for d in found} == {uid(1, 0xA)}
