"""Two cohorts that share trainers and rooms: in whatever order their facts come, the same timetables and groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from services.scheduling.consumers import consumer
from services.scheduling.domain import LearningGroup, Roster, Session
from shared.contracts import Event
from shared.contracts.enrollment import CohortCapacityChanged
from shared.mongo import Database
from tests.orders import Orders, Tried
from tests.scheduling.story import BEFORE, Story, published, staff
from tests.support import record


def capacity(story: Story, to: int) -> CohortCapacityChanged:
    return CohortCapacityChanged(
        cohort_id=story.cohort_id, capacity=to, previous=40, reason_code="larger-room", changed_at=BEFORE
    )


def lifecycle(story: Story) -> list[Event]:
    """Everything that scheduling consumes, of a cohort of its own: one leaves, another comes, it is called off."""
    return [
        story.opened(),
        capacity(story, 38),
        story.enrolled(1),
        story.enrolled(2),
        story.withdrawn(2),
        story.enrolled(3, number=2),
        story.cancelled(),
    ]


def test_the_lifecycle_has_every_type_that_scheduling_consumes() -> None:
    assert {event.type for event in lifecycle(Story())} == set(consumer.handles)


def orders_of(database: Database, *events: Event, after: int = 0) -> Orders:
    counted: Counter[str] = Counter()
    made = []
    for event in events:
        counted[event.subject] += 1
        made.append(record(event, counted[event.subject] + after, at=BEFORE))
    return Orders(consumer, database, made, at=BEFORE)


async def test_in_every_order_two_cohorts_have_the_same_rosters(database: Database, tried: Tried) -> None:
    orders = orders_of(database, *lifecycle(Story(1)), *lifecycle(Story(2)))
    found = await tried(orders)
    assert [(len(r.active), r.capacity, r.cancelled) for r in found.states(Roster)] == [(2, 38, True)] * 2


async def test_in_every_order_two_published_timetables_change_alike(
    database: Database, count: Callable[[str], None]
) -> None:
    """One cohort is called off while in the other, which shares its trainers and rooms, one goes and another comes."""
    first, second = Story(1, size=4), Story(2, size=4)
    await staff(database)
    await published(database, first, second)
    await database.collection("outbox").delete_many({})
    await database.collection("inbox").delete_many({})
    off = [first.withdrawn(2), capacity(first, 30), first.cancelled()]
    on = [second.withdrawn(2), second.enrolled(7, number=2)]
    found = await orders_of(database, *off, *on, after=9).explore()
    count(f"all {found.orders} orders, by {found.transactions} transactions")
    assert {s.cohort_id for s in found.states(Session) if s.cancelled} == {first.cohort_id}
    assert all(s.cancelled for s in found.states(Session) if s.cohort_id == first.cohort_id)
    assert sorted(len(group.enrollment_ids) for group in found.states(LearningGroup)) == [1, 2, 2, 2]
