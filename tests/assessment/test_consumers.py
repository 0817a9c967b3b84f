"""What assessment makes of the facts of enrollment and scheduling, in whatever order they arrive."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from services.assessment import domain
from services.assessment.consumers import consumer, timers
from services.assessment.domain import ModuleLedger, ModuleResult
from shared.contracts import Event
from shared.contracts.assessment import ModuleCompleted, ModuleNotPassed, ModuleResultRevised, Outcome
from shared.contracts.scheduling import AttendanceStatus
from shared.mongo import Database
from tests.assessment.story import AFTER, SCORED, Story, module_id
from tests.support import announced, clock_at, deliver, fire_timers, many, record

PRESENT, SICK, ABSENT = AttendanceStatus.PRESENT, AttendanceStatus.SICK, AttendanceStatus.ABSENT
PLAIN, MARKED, ALONE = "kebijakan-pelatihan", "bela-negara", "komitmen-pembelajaran"
assert MARKED in SCORED and not {PLAIN, ALONE} & set(SCORED)


async def result(database: Database, story: Story, i: int, code: str, attempt: int = 1) -> ModuleResult | None:
    return await database.get(ModuleResult, domain.result_id(story.enrollment(i), module_id(code), attempt))


async def ledger(database: Database, story: Story, code: str) -> ModuleLedger:
    found = await database.get(ModuleLedger, domain.ledger_id(story.cohort_id, module_id(code)))
    assert found is not None
    return found


def told(events: list[tuple[Any, Event]]) -> list[type[Event]]:
    return [type(event) for _, event in events]


# --- one module --------------------------------------------------------------------------------------------------


async def test_the_last_attendance_completes_the_module_for_everybody_at_once(database: Database) -> None:
    story = Story()
    *before, last = story.attendance([PLAIN])
    await deliver(consumer, database, *story.enrollment_facts(), *story.timetable([PLAIN]), *before, at=AFTER)
    assert await announced(database) == []
    await deliver(consumer, database, last, at=AFTER)
    completed = await announced(database)
    assert told(completed) == [ModuleCompleted] * 3
    assert {event.subject for _, event in completed} == {
        domain.result_id(story.enrollment(i), module_id(PLAIN), 1) for i in story.people
    }
    assert {envelope.agencyid for envelope, _ in completed} == {story.agency(1), story.agency(2)}


async def test_the_same_facts_again_complete_nothing_twice(database: Database) -> None:
    story = Story()
    facts = [record(event, 1, at=AFTER) for event in story.whole()]
    with clock_at(AFTER):
        first = await consumer.receive(facts, database)
        kept = await announced(database)
        again = await consumer.receive(facts, database)
    assert (first.handled, again.handled, again.duplicate) == (len(facts), 0, len(facts))
    assert await announced(database) == kept


async def test_a_module_does_not_close_before_its_last_session_is_over(database: Database) -> None:
    story = Story()
    during = story.ends_at(PLAIN) - timedelta(minutes=30)
    await deliver(consumer, database, *story.enrollment_facts(), *story.timetable([PLAIN]), at=story.starts_at(PLAIN))
    await deliver(consumer, database, *story.attendance([PLAIN]), at=during)
    assert await announced(database) == []
    await fire_timers(timers, database, until=story.ends_at(PLAIN) - timedelta(minutes=1))
    assert await announced(database) == []
    await fire_timers(timers, database, until=story.ends_at(PLAIN))
    completed = await announced(database, ModuleCompleted)
    assert len(completed) == 3
    assert {event.completed_at for _, event in completed if isinstance(event, ModuleCompleted)} == {
        story.ends_at(PLAIN)
    }


async def test_with_attendance_missing_a_module_closes_two_days_later_by_itself(database: Database) -> None:
    story = Story()
    due_at = story.ends_at(PLAIN) + timedelta(days=2)
    facts = [*story.enrollment_facts(), *story.timetable([PLAIN]), *story.attendance([PLAIN])[:2]]
    await deliver(consumer, database, *facts, at=story.ends_at(PLAIN))
    await fire_timers(timers, database, until=due_at - timedelta(seconds=1))
    assert await announced(database) == []
    await fire_timers(timers, database, until=due_at)
    assert (await ledger(database, story, PLAIN)).closed
    assert told(await announced(database)) == [ModuleCompleted] * 2 + [ModuleNotPassed]
    unrecorded = await result(database, story, 3, PLAIN)
    assert unrecorded is not None and unrecorded.absence_jp == 3
    await fire_timers(timers, database, until=due_at + timedelta(days=30))
    assert len(await announced(database)) == 3


async def test_a_moved_session_moves_the_closing(database: Database) -> None:
    story = Story()
    await deliver(consumer, database, *story.enrollment_facts(), *story.timetable([PLAIN]), at=story.starts_at(PLAIN))
    await deliver(consumer, database, story.rescheduled(PLAIN, by=timedelta(days=3)), at=story.starts_at(PLAIN))
    await fire_timers(timers, database, until=story.ends_at(PLAIN) + timedelta(days=5, seconds=-1))
    assert not (await ledger(database, story, PLAIN)).closed
    await fire_timers(timers, database, until=story.ends_at(PLAIN) + timedelta(days=5))
    assert (await ledger(database, story, PLAIN)).closed


async def test_a_module_without_sessions_closes_after_its_window_in_the_cohorts_zone(database: Database) -> None:
    story = Story()
    window = story.starts_at(ALONE).date()
    facts = [*story.enrollment_facts(), story.withdrawn(3), story.formed(1), story.published({ALONE: 0})]
    await deliver(consumer, database, *facts, at=story.starts_at(ALONE))
    midnight = story.starts_at(ALONE).replace(hour=17, minute=0)  # 24.00 in Jakarta
    assert midnight.date() == window
    await fire_timers(timers, database, until=midnight - timedelta(seconds=1))
    assert await announced(database) == []
    await fire_timers(timers, database, until=midnight)
    assert told(await announced(database)) == [ModuleCompleted] * 2


async def test_a_module_whose_every_session_was_cancelled_is_completed_by_nobody(database: Database) -> None:
    story = Story()
    facts = [*story.enrollment_facts(), *story.timetable([PLAIN]), story.cancelled(PLAIN)]
    await deliver(consumer, database, *facts, at=story.starts_at(PLAIN))
    await fire_timers(timers, database, until=AFTER)
    assert not (await ledger(database, story, PLAIN)).closed
    assert await announced(database) == []


async def test_absence_above_the_limit_is_not_passed_with_its_reason_and_an_attempt_left(database: Database) -> None:
    story = Story(people=[1], groups={1: [1]})
    hours = {"jp": 7}
    facts = [
        *story.enrollment_facts(),
        story.formed(1),
        story.scheduled(PLAIN, **hours),
        story.published({PLAIN: 1}),
        story.attended(PLAIN, 1, ABSENT, **hours),
    ]
    await deliver(consumer, database, *facts, at=AFTER)
    ((_, event),) = await announced(database)
    assert isinstance(event, ModuleNotPassed)
    assert (event.reason_codes, event.attempts_left) == (["absence-limit"], 1)


async def test_a_correction_after_the_closing_revises_and_never_completes_again(database: Database) -> None:
    story = Story(people=[1], groups={1: [1]})
    facts = [
        *story.enrollment_facts(),
        story.formed(1),
        story.scheduled(PLAIN, jp=7),
        story.published({PLAIN: 1}),
        story.attended(PLAIN, 1, jp=7),
    ]
    await deliver(consumer, database, *facts, at=AFTER)
    await deliver(consumer, database, story.corrected(PLAIN, 1, SICK, PRESENT, jp=7), at=AFTER)
    await deliver(consumer, database, story.corrected(PLAIN, 1, ABSENT, SICK, jp=7), at=AFTER)
    await deliver(consumer, database, story.corrected(PLAIN, 1, PRESENT, ABSENT, jp=7), at=AFTER)
    events = [event for _, event in await announced(database)]
    assert [type(event) for event in events] == [ModuleCompleted, ModuleResultRevised, ModuleResultRevised]
    revisions = [event for event in events if isinstance(event, ModuleResultRevised)]
    assert [(r.supersedes, r.outcome) for r in revisions] == [(1, Outcome.NOT_PASSED), (2, Outcome.PASSED)]
    assert [envelope.sequence for envelope, _ in await announced(database)] == [1, 2, 3]


async def test_a_marked_module_waits_for_its_mark_in_sight(database: Database) -> None:
    story = Story()
    facts = [*story.enrollment_facts(), *story.timetable([MARKED]), *story.attendance([MARKED])]
    await deliver(consumer, database, *facts, at=AFTER)
    assert await announced(database) == []
    waiting = await result(database, story, 1, MARKED)
    assert waiting is not None and (waiting.outcome, waiting.score) == (None, None)


async def test_whoever_withdrew_is_not_waited_for(database: Database) -> None:
    story = Story()
    facts = [*story.enrollment_facts(), *story.timetable([PLAIN]), *story.attendance([PLAIN])[:2]]
    await deliver(consumer, database, *facts, at=AFTER)
    await deliver(consumer, database, story.withdrawn(3), at=AFTER)
    assert await announced(database) == []
    await deliver(consumer, database, story.regrouped(2, []), at=AFTER)
    assert told(await announced(database)) == [ModuleCompleted] * 2
    assert await result(database, story, 3, PLAIN) is None


async def test_whoever_joins_after_the_closing_gets_a_result_and_an_attempt_to_make_up(database: Database) -> None:
    story = Story(people=[1, 2], groups={1: [1, 2]})
    facts = [
        *story.enrollment_facts(),
        story.formed(1),
        story.scheduled(PLAIN, jp=7),
        story.published({PLAIN: 1}),
        *(story.attended(PLAIN, i, jp=7) for i in (1, 2)),
    ]
    await deliver(consumer, database, *facts, at=AFTER)
    await deliver(consumer, database, story.regrouped(1, [1, 2, 3]), story.enrolled(3), at=AFTER)
    late = [event for _, event in await announced(database)][-1]
    assert isinstance(late, ModuleNotPassed)
    assert (late.enrollment_id, late.attempts_left) == (story.enrollment(3), 1)


# --- at the same instant -------------------------------------------------------------------------------------------


async def test_the_last_attendance_and_the_closing_timer_never_close_a_module_twice(
    database: Database, elsewhere: Database
) -> None:
    """The one that comes second finds the module closed: what it brings is counted, nothing is completed again."""
    for n in range(1, many(30, 200) + 1):
        story = Story(n=n, people=[1], groups={1: [1]})
        due_at = story.ends_at(PLAIN) + timedelta(days=2)
        facts = [*story.enrollment_facts(), story.formed(1), story.scheduled(PLAIN, jp=7), story.published({PLAIN: 1})]
        await deliver(consumer, database, *facts, at=story.starts_at(PLAIN))
        await asyncio.gather(
            deliver(consumer, elsewhere, story.attended(PLAIN, 1, jp=7), at=due_at),
            fire_timers(timers, database, until=due_at),
        )
        kept = await result(database, story, 1, PLAIN)
        assert kept is not None
        assert (kept.outcome, kept.absence_jp) == (Outcome.PASSED, 0), n
        events = [type(e) for envelope, e in await announced(database) if envelope.subject == kept.id]
        assert events in ([ModuleCompleted], [ModuleNotPassed, ModuleResultRevised]), n
        await database.collection("outbox").delete_many({})


async def test_the_last_attendance_and_the_seat_that_it_is_for_never_miss_each_other(
    database: Database, elsewhere: Database
) -> None:
    """Two workers at the same instant: one closes the module, the other learns who the participant is."""
    for n in range(1, many(30, 200) + 1):
        story = Story(n=n, people=[1], groups={1: [1]})
        await deliver(consumer, database, story.opened(), *story.timetable([PLAIN]), at=AFTER)
        await asyncio.gather(
            deliver(consumer, database, story.attended(PLAIN, 1), at=AFTER),
            deliver(consumer, elsewhere, story.enrolled(1), at=AFTER),
        )
        kept = await result(database, story, 1, PLAIN)
        assert kept is not None and kept.outcome is Outcome.PASSED, n
        assert (await ledger(database, story, PLAIN)).undecided == {}
