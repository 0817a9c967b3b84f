"""What scheduling makes of the facts of enrollment, in whatever order they come."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import timedelta
from itertools import permutations

import pytest

from services.scheduling import commands, domain
from services.scheduling.consumers import consumer
from services.scheduling.domain import LearningGroup, ResourceDay, Roster
from shared.contracts import Event
from shared.contracts.enrollment import CohortCapacityChanged
from shared.contracts.scheduling import LearningGroupChanged, LearningGroupFormed, SessionCancelled
from shared.errors import Rejected
from shared.mongo import Database, document
from tests.scheduling.story import BEFORE, Story, group, know, of_module, published, sessions_of, staff
from tests.support import announced, clock_at, deliver, record


async def roster(database: Database, story: Story) -> Roster:
    found = await database.get(Roster, story.cohort_id)
    assert found is not None
    return found


async def groups(database: Database, story: Story) -> list[LearningGroup]:
    ids = [domain.group_id(story.cohort_id, n) for n in (1, 2)]
    return sorted((await database.get_many(LearningGroup, ids)).values(), key=lambda g: g.number)


def capacity(story: Story, to: int) -> CohortCapacityChanged:
    return CohortCapacityChanged(
        cohort_id=story.cohort_id, capacity=to, previous=40, reason_code="larger-room", changed_at=BEFORE
    )


async def test_the_roster_knows_the_cohort_and_who_is_in_it(database: Database) -> None:
    story = Story()
    await know(database, story)
    await deliver(consumer, database, capacity(story, 38), story.withdrawn(2), story.enrolled(7, number=2))
    known = await roster(database, story)
    assert (known.starts_on, known.ends_on, known.capacity) == (story.starts_on, story.opened().ends_on, 38)
    assert known.curriculum_version == "pkp-2019.1"
    assert set(known.active) == {story.enrollment(i) for i in (1, 3, 4, 5, 6, 7)}


async def test_every_order_of_the_facts_gives_the_same_roster_and_the_same_groups(database: Database) -> None:
    """All 120 orders, also such as one partition never shows: withdrawn before enrolled, capacity before opening."""
    kept = None
    for n, order in enumerate(permutations(range(5)), start=1):
        story = Story(n)
        facts: list[Event] = [
            story.opened(),
            capacity(story, 38),
            story.enrolled(1),
            story.enrolled(2),
            story.withdrawn(2),
        ]
        fates = await deliver(consumer, database, story.enrolled(3), story.enrolled(4, number=2))
        given = [record(facts[i], 9 if i in (1, 4) else 1, at=BEFORE) for i in order]
        with clock_at(BEFORE):
            more = await consumer.receive(given, database)
        assert (fates.handled, more.handled, more.parked) == (2, 5, 0)
        found = await roster(database, story)
        seen = (
            found.capacity,
            found.starts_on,
            [
                (m.roster_number, m.participant_id == story.person(i))
                for i in (1, 3, 4)
                if (m := found.members[story.enrollment(i)]).active
            ],
            found.members[story.enrollment(2)].active,
            len(found.members),
        )
        kept = kept or seen
        assert seen == kept
        assert {id[-2:] for id in found.active} == {story.enrollment(i)[-2:] for i in (1, 3, 4)}
        with clock_at(BEFORE):
            formed = await group(database, story)
        assert [g.enrollment_ids for g in formed] == [[story.enrollment(1), story.enrollment(3)], [story.enrollment(4)]]


async def test_the_same_facts_again_change_nothing(database: Database) -> None:
    story = Story()
    facts = [record(event, 1, at=BEFORE) for event in story.everybody()]
    with clock_at(BEFORE):
        first = await consumer.receive(facts, database)
        was = document(await roster(database, story))
        again = await consumer.receive(facts, database)
    assert (first.handled, again.duplicate, again.handled) == (len(facts), len(facts), 0)
    assert document(await roster(database, story)) == was


async def test_a_batch_and_single_records_come_to_the_same(database: Database) -> None:
    together, single = Story(1), Story(2)
    for story in (together, single):
        await know(database, story)
        with clock_at(BEFORE):
            await group(database, story)

    def late(s: Story) -> list[Event]:
        return [s.withdrawn(1), s.enrolled(7, number=1), s.withdrawn(2), s.enrolled(8, number=2), s.enrolled(9)]

    await deliver(consumer, database, *late(together), at=BEFORE)
    for event in late(single):
        await deliver(consumer, database, event, at=BEFORE)
    names = [
        [[story.enrollment(i) for i in range(1, 10)].index(id) + 1 for id in g.enrollment_ids]
        for story in (together, single)
        for g in await groups(database, story)
    ]
    assert names[:2] == names[2:]
    assert sorted(names[0] + names[1]) == [3, 4, 5, 6, 7, 8, 9]


# --- learning groups ---------------------------------------------------------------------------------------------


async def test_groups_are_dealt_out_evenly_by_roster_number_and_announced(database: Database) -> None:
    story = Story(size=37)
    shuffled = story.everybody()
    random.Random(3).shuffle(shuffled)
    await deliver(consumer, database, *shuffled, at=BEFORE)
    with clock_at(BEFORE):
        formed = await group(database, story)
        again = await group(database, story)
    assert [g.id for g in formed] == [g.id for g in again]
    assert [len(g.enrollment_ids) for g in formed] == [19, 18]
    assert formed[0].enrollment_ids == [story.enrollment(i) for i in range(1, 38, 2)]
    told = [event for _, event in await announced(database)]
    assert [type(event) for event in told] == [LearningGroupFormed] * 2
    for event, kept in zip(told, formed, strict=True):
        assert isinstance(event, LearningGroupFormed)
        assert event.enrollment_ids == kept.enrollment_ids
        assert (event.coach_id, event.examiner_id) == (kept.coach_id, kept.examiner_id)
    assert [e.coach_id for e in told if isinstance(e, LearningGroupFormed)] == story.coaches


async def test_who_withdraws_leaves_the_group_and_the_replacement_joins_the_smallest(database: Database) -> None:
    story = Story()
    await know(database, story)
    with clock_at(BEFORE):
        await group(database, story)
    await deliver(consumer, database, story.withdrawn(2), story.withdrawn(4), at=BEFORE)
    assert [len(g.enrollment_ids) for g in await groups(database, story)] == [3, 1]
    await deliver(consumer, database, story.enrolled(7, number=2), story.enrolled(8, number=4), at=BEFORE)
    assert [g.enrollment_ids for g in await groups(database, story)] == [
        [story.enrollment(i) for i in (1, 3, 5)],
        [story.enrollment(i) for i in (6, 7, 8)],
    ]
    changed = [event for _, event in await announced(database, LearningGroupChanged)]
    assert len(changed) == 4
    assert isinstance(last := changed[-1], LearningGroupChanged)
    assert last.enrollment_ids == [story.enrollment(i) for i in (6, 7, 8)]
    assert [e.sequence for e, _ in await announced(database)] == [1, 1, 2, 3, 4, 5]


async def test_who_comes_and_goes_while_groups_are_being_formed_is_in_one_group_or_none(
    database: Database, mongo_uri: str
) -> None:
    """Forming races enrolling and withdrawing in another process."""
    elsewhere = Database(mongo_uri, database.collection("x").database.name, service="scheduling")
    try:
        for n in range(1, 9):
            story = Story(n)
            await know(database, story)
            coming = [story.enrolled(7), story.withdrawn(1), story.enrolled(8), story.withdrawn(2)]

            async def come_and_go(events: Sequence[Event] = coming) -> None:
                for event in events:
                    await deliver(consumer, elsewhere, event, at=BEFORE)

            with clock_at(BEFORE):
                await asyncio.gather(group(database, story), come_and_go())
            members = [id for g in await groups(database, story) for id in g.enrollment_ids]
            assert sorted(members) == [story.enrollment(i) for i in range(3, 9)]
    finally:
        await elsewhere.close()


async def test_nobody_is_in_two_groups_whatever_comes_and_goes(database: Database) -> None:
    story = Story(size=9)
    await know(database, story)
    with clock_at(BEFORE):
        await group(database, story)
    chance = random.Random(7)
    active, next_one = set(range(1, 10)), 10
    for _ in range(30):
        if active and chance.random() < 0.5:
            leaving = chance.choice(sorted(active))
            active.remove(leaving)
            await deliver(consumer, database, story.withdrawn(leaving), at=BEFORE)
        else:
            active.add(next_one)
            await deliver(consumer, database, story.enrolled(next_one), at=BEFORE)
            next_one += 1
        members = [id for g in await groups(database, story) for id in g.enrollment_ids]
        assert sorted(members) == sorted(story.enrollment(i) for i in active)


@pytest.mark.parametrize("wrong", [0, 1, 3])
async def test_a_learning_group_needs_one_coach_and_one_examiner(database: Database, wrong: int) -> None:
    story = Story()
    await know(database, story)
    people = [*story.coaches, story.person(1)][:wrong]
    with clock_at(BEFORE):
        for coaches, examiners in ((people, people), (people, story.examiners), (story.coaches, people)):
            with pytest.raises(domain.GroupsMismatch) as refusal:
                await commands.form_groups(story.cohort_id, coaches, examiners, database)
            assert refusal.value.members == {"learning_groups": 2}


async def test_groups_are_formed_of_somebody_and_of_a_known_cohort_once(database: Database) -> None:
    story = Story()
    with clock_at(BEFORE):
        with pytest.raises(domain.CohortUnknown):
            await group(database, story)
        await deliver(consumer, database, story.opened(), story.enrolled(1), at=BEFORE)
        with pytest.raises(domain.NoParticipants):
            await group(database, story)
        await deliver(consumer, database, story.enrolled(2), at=BEFORE)
        await group(database, story)
        with pytest.raises(domain.GroupsFormed):
            await commands.form_groups(story.cohort_id, story.coaches[::-1], story.examiners, database)


# --- cancellation ------------------------------------------------------------------------------------------------


async def reserved(database: Database) -> set[str]:
    """The sessions that hold anything."""
    return {r.session_id for day in await database.query(ResourceDay, {}) for r in day.reserved}


async def test_a_cancelled_cohort_frees_what_it_had_reserved_and_tells_of_every_session(database: Database) -> None:
    story = Story()
    await staff(database)
    sessions = await published(database, story)
    assert await reserved(database) == {s.id for s in sessions}
    await deliver(consumer, database, story.cancelled(), at=BEFORE)
    told = [event for _, event in await announced(database, SessionCancelled)]
    assert {event.subject for event in told} == {s.id for s in sessions}
    assert await reserved(database) == set()
    assert all(s.cancelled for s in await sessions_of(database, story))


async def test_another_cohort_can_have_the_trainers_of_a_cancelled_one(database: Database) -> None:
    first, second = Story(1), Story(2)
    await staff(database, trainers=2)
    await published(database, first)
    with clock_at(BEFORE):
        await know(database, second)
        await group(database, second)
        with pytest.raises(Rejected):
            await commands.draft(second.schedule_id, second.cohort_id, "asked", database)
    await deliver(consumer, database, first.cancelled(), at=BEFORE)
    assert len(await published(database, second)) == 66


async def test_what_was_held_before_the_cancellation_stays_held(database: Database) -> None:
    story = Story()
    await staff(database)
    sessions = await published(database, story)
    at = of_module(sessions, "tim-efektif")[0].ends_at
    await deliver(consumer, database, story.cancelled(at=at), at=at + timedelta(hours=1))
    now = await sessions_of(database, story)
    assert {s.id for s in now if s.cancelled} == {s.id for s in sessions if s.starts_at > at}
    assert 0 < sum(s.cancelled for s in now) < len(now)
    assert await reserved(database) == {s.id for s in now if not s.cancelled}


async def test_a_cancelled_cohort_is_neither_grouped_nor_drafted_nor_published(database: Database) -> None:
    story, drafted = Story(1), Story(2)
    await staff(database)
    with clock_at(BEFORE):
        await know(database, drafted)
        await group(database, drafted)
        await commands.draft(drafted.schedule_id, drafted.cohort_id, "asked", database)
    await deliver(consumer, database, story.cancelled(), *story.everybody(), drafted.cancelled(), at=BEFORE)
    asked: Sequence[object] = (
        group(database, story),
        commands.draft(story.schedule_id, story.cohort_id, "asked", database),
        commands.publish(drafted.schedule_id, database),
    )
    with clock_at(BEFORE):
        for coroutine in asked:
            with pytest.raises(domain.CohortCancelled):
                await coroutine  # type: ignore[misc]
