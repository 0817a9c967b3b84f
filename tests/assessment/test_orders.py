"""Whichever topic is faster: the same results, the same records and the same events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest

from services.assessment.consumers import consumer, timers
from shared.cloudevents import Record as KafkaRecord
from shared.contracts import Event
from shared.contracts.scheduling import AttendanceStatus
from shared.mongo import Database
from tests.assessment.story import AFTER, Story
from tests.orders import Orders, Tried
from tests.support import fire_timers, many, record

PRESENT, SICK, ABSENT = AttendanceStatus.PRESENT, AttendanceStatus.SICK, AttendanceStatus.ABSENT
PLAIN, MARKED, ALONE = "kebijakan-pelatihan", "bela-negara", "komitmen-pembelajaran"


def lifecycle(story: Story, *, called_off: bool = False) -> tuple[list[KafkaRecord], list[KafkaRecord]]:
    """What enrollment and what scheduling announces, each in its order; all types with the cohort called off.

    The second participant misses a session, which is corrected after the module closed; the third withdraws.
    """
    from_enrollment: list[Event] = [*story.enrollment_facts(), story.withdrawn(3)]
    if called_off:
        from_enrollment.append(story.called_off())
    from_scheduling: list[Event] = [
        story.formed(1),
        story.formed(2),
        story.scheduled(PLAIN, 1, jp=7),
        story.scheduled(PLAIN, 2),
        story.scheduled(MARKED, 1),
        story.scheduled(MARKED, 2),
        story.published({PLAIN: 2, MARKED: 2, ALONE: 0}),
        story.regrouped(2, []),
        story.rescheduled(PLAIN, 2, by=timedelta(hours=2)),
        story.cancelled(MARKED, 2),
        story.attended(MARKED, 1),
        story.attended(MARKED, 2),
        story.attended(PLAIN, 1, number=1, jp=7),
        story.attended(PLAIN, 2, ABSENT, number=1, jp=7),
        story.attended(PLAIN, 1, number=2),
        story.attended(PLAIN, 2, number=2),  # closes the module: the second has not passed
        story.corrected(PLAIN, 2, PRESENT, ABSENT, jp=7),  # and has passed after all
        story.corrected(PLAIN, 1, SICK, PRESENT, jp=7),  # and the first has not
        story.regrouped(1, [1]),  # too late to change who took part
    ]
    counted: Counter[str] = Counter()
    made: list[list[KafkaRecord]] = []
    for events in (from_enrollment, from_scheduling):
        made.append([])
        for event in events:
            counted[event.subject] += 1
            made[-1].append(record(event, counted[event.subject], at=AFTER))
    return made[0], made[1]


def orders_of(database: Database, *, called_off: bool = False) -> Orders:
    async def finish() -> None:
        await fire_timers(timers, database, until=AFTER)
        assert await database.collection("timers").count_documents({}) == 0

    first, second = lifecycle(Story(), called_off=called_off)
    return Orders(consumer, database, [*first, *second], at=AFTER, finish=finish)


def test_the_lifecycle_has_every_type_that_assessment_consumes() -> None:
    kinds = {dict(r.headers)["ce_type"] for stream in lifecycle(Story(), called_off=True) for r in stream}
    assert {kind.decode() for kind in kinds if kind} == set(consumer.handles)


@pytest.mark.parametrize("called_off", [False, True], ids=["held", "called-off"])
async def test_every_order_of_the_two_topics_gives_the_same_results_and_the_same_events(
    database: Database, tried: Tried, called_off: bool
) -> None:
    found = await tried(orders_of(database, called_off=called_off))
    ids = {id for rows in found.kept.announced.values() for id, _ in rows}
    completed = 1 if called_off else 3  # the module without sessions closes by its window alone
    assert len(ids) == completed + 1 + 2  # one not passed, two revisions


async def test_two_workers_that_handle_the_two_topics_at_once_give_the_same_results(
    database: Database, count: Callable[[str], None]
) -> None:
    orders = orders_of(database)
    raced = await orders.race(many(15, 200), (await orders.shuffle(1)).outcome)
    count(f"{raced.orders} races of two workers")
