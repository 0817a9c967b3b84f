"""Whom to tell: once, whatever comes first, and nobody who joins later gets old mail."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from services.notification import commands
from services.notification.consumers import consumer
from services.notification.domain import CohortPeople, Delivery, Notice
from shared.contracts import Event
from shared.contracts.scheduling import SchedulePublished
from shared.mongo import Database
from tests.notification.story import (
    COHORT,
    agency,
    enrolled,
    graduated,
    grouped,
    moved,
    not_passed,
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


INPUTS: dict[str, Sequence[Event]] = {
    "enrollment": [enrolled(1), enrolled(2)],
    "scheduling": [grouped(1, 2), scheduled(), moved(), published()],
    "assessment": [not_passed(1)],
}


def interleavings() -> list[list[Event]]:
    """Every order that keeps the order within each topic."""
    labels = [name for name, events in INPUTS.items() for _ in events]
    orders = set(itertools.permutations(labels))
    result = []
    for order in sorted(orders):
        cursors = {name: iter(events) for name, events in INPUTS.items()}
        result.append([next(cursors[name]) for name in order])
    return result


ORDERS = interleavings()


@pytest.mark.parametrize(
    "order", ORDERS[:: max(1, len(ORDERS) // 25)], ids=lambda o: "-".join(type(e).__name__[0:9] for e in o)
)
async def test_whichever_topic_is_faster_the_same_people_are_told(order: list[Event], database: Database) -> None:
    fates = [await deliver(consumer, database, event) for event in order]
    assert sum(f.parked for f in fates) == 0
    both, trainer = {uid(1, 0xB), uid(2, 0xB)}, uid(9, 0x7)
    assert {who for who, _ in await told(database, "session-rescheduled")} == both | {trainer}
    assert {who for who, _ in await told(database, "module-not-passed")} == {uid(1, 0xB)}
    assert await told(database, "schedule-published") == set(itertools.product(both, ("email", "inbox")))
    assert [notice.event_type for notice in await database.query(Notice, {})] == [SchedulePublished.type]
    people = await database.get(CohortPeople, COHORT)
    assert people is not None and people.waiting == []
