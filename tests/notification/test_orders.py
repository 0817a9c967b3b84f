"""Whichever topic is faster: the same people are told of the same things, and an agency's feed holds the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from services.notification import commands, feed
from services.notification.consumers import consumer
from services.notification.domain import CohortPeople, Delivery
from shared.cloudevents import Record
from shared.contracts import Event
from shared.contracts.scheduling import LearningGroupFormed
from shared.inbox import Position
from shared.mongo import Database
from tests.notification import story
from tests.notification.story import COHORT, agency, enrolled, moved, nominated, opened, published, scheduled, withdrawn
from tests.orders import Orders, Tried
from tests.support import START, clock_at, days, deliver, record, uid

END = START + days(119)

LIFECYCLE: list[tuple[float, Event]] = [
    (-40, agency(1)),
    (-35, opened()),
    (-30, story.returned(3)),
    (-29, story.rejected(3)),
    (-20, enrolled(1, at=START - days(20))),
    (-19, enrolled(2, at=START - days(19))),
    (5, withdrawn(2, at=START + days(5))),
    (-10, story.grouped(1, 2)),
    (-9, scheduled()),
    (-8, published()),
    (3, moved()),
    (6, story.regrouped(1)),
    (7, story.cancelled()),
    (100, story.not_passed(1)),
    (101, story.not_graduated(1)),
    (102, story.graduated(1)),
    (103, story.certified(1)),
]
"""Everything that notification consumes once, on the day on which it happens: the second participant leaves on the
sixth day, after the session was moved and before it is cancelled."""

FED: list[tuple[float, Event]] = [
    (-40, agency(1)),
    (-35, opened()),
    (-30, nominated(1, 1)),
    (-30, nominated(2, 2)),
    (-20, enrolled(1, 1)),
    (-10, story.grouped(1)),
    (-9, scheduled()),
    (-8, published()),
    (3, moved()),
    (100, story.not_passed(1)),
    (101, story.graduated(1)),
    (101, story.not_graduated(2, 2)),
]


def as_published(facts: Sequence[tuple[float, Event]]) -> list[Record]:
    counted: Counter[tuple[str, str]] = Counter()
    made = []
    for day, event in facts:
        counted[event.source(), event.subject] += 1
        made.append(record(event, counted[event.source(), event.subject], at=START + days(day)))
    return made


def test_the_lifecycle_has_every_type_that_notification_consumes() -> None:
    assert {event.type for _, event in LIFECYCLE} == set(consumer.handles)


async def test_in_every_order_the_same_people_are_told_of_the_same_things(database: Database, tried: Tried) -> None:
    await deliver(consumer, database, agency(1))
    await commands.name_coordinator(uid(1, 0xA), uid(1, 0x50), database)
    await database.collection("inbox").delete_many({})
    orders = Orders(consumer, database, as_published(LIFECYCLE), at=END, unordered=["standing"])
    found = await tried(orders)
    both, trainer = {uid(1, 0xB), uid(2, 0xB)}, uid(9, 0x7)
    told: dict[str, set[str]] = {}
    for delivery in found.states(Delivery):
        told.setdefault(delivery.template, set()).add(delivery.recipient_id)
    assert told["schedule-published"] == both
    assert told["session-rescheduled"] == both | {trainer}
    assert told["session-cancelled"] == {uid(1, 0xB), trainer}
    (people,) = found.states(CohortPeople)
    assert people.id == COHORT and len(people.standing) == 3


@pytest.mark.parametrize("when", ["before", "after"])
async def test_in_every_order_an_agency_hears_the_same_and_each_subject_in_its_order(
    database: Database, tried: Tried, when: str
) -> None:
    """Subscribed before the first record, or after the last."""
    log = as_published(FED)

    async def read_back(position: Position) -> list[Record]:
        return [r for r in log if r.topic == position.topic]

    async def subscribe_late() -> None:
        with clock_at(END):
            await commands.subscribe(uid(1, 0xA), database)
        feed._backfilled.clear()
        topics = sorted({r.topic for r in log})
        await feed.back_fill([Position(topic, 0, 1) for topic in topics], read_back, database)

    await deliver(consumer, database, agency(1))
    if when == "before":
        await commands.subscribe(uid(1, 0xA), database)
    found = await tried(
        Orders(
            feed.consumer,
            database,
            log,
            at=END,
            finish=subscribe_late if when == "after" else None,
            unordered=["records", "agency_ids", "cohort_ids"],
        ),
        explore=when == "before",
    )
    own = [e for _, e in FED if e.agency in ("-", uid(1, 0xA)) and not isinstance(e, LearningGroupFormed)]
    heard = [row for topic, rows in found.kept.announced.items() if "agency-1:" in topic for row in rows]
    assert len(heard) == len(own)
    assert not [topic for topic in found.kept.announced if "agency-2" in topic]
