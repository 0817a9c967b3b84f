"""Drafts, publication through the reservation ledger, moved sessions and attendance, on a real database."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import combinations
from typing import Any

import pytest

from services.scheduling import commands, domain
from services.scheduling.consumers import consumer
from services.scheduling.domain import Attendance, ResourceDay, Room, RoomKind, Schedule, Session, Span, Trainer
from shared.contracts.scheduling import (
    AttendanceCorrected,
    AttendanceRecorded,
    AttendanceStatus,
    RescheduleReason,
    SchedulePublished,
    SessionMode,
    SessionRescheduled,
    SessionScheduled,
    TrainerAssigned,
)
from shared.errors import IdTaken, NotFound, PreconditionFailed, Rejected
from shared.mongo import Database
from tests.scheduling.story import (
    BEFORE,
    CURRICULUM,
    MODULES,
    Story,
    draft,
    group,
    know,
    of_module,
    published,
    room_id,
    sessions_of,
    staff,
    trainer_id,
)
from tests.support import announced, clock_at, deliver, uid

PRESENT, SICK, ABSENT, PERMITTED = (
    AttendanceStatus.PRESENT,
    AttendanceStatus.SICK,
    AttendanceStatus.ABSENT,
    AttendanceStatus.PERMITTED,
)
WIB = timezone(timedelta(hours=7))
HOUR = timedelta(hours=1)
SLOTS = ((1, 0), (3, 30))


@pytest.fixture
async def elsewhere(database: Database, mongo_uri: str) -> AsyncIterator[Database]:
    """The same database as another process sees it: no lock is shared."""
    other = Database(mongo_uri, database.collection("x").database.name, service="scheduling", driver=database.driver)
    yield other
    await other.close()


async def ready(database: Database, *stories: Story) -> None:
    """Known, grouped and drafted, but not published."""
    with clock_at(BEFORE):
        for story in stories:
            await know(database, story)
            await group(database, story)
            await draft(database, story)


async def ledger(database: Database) -> Counter[str]:
    return Counter(r.session_id for day in await database.query(ResourceDay, {}) for r in day.reserved)


async def clashes(database: Database) -> list[tuple[str, str]]:
    """Sessions that share a trainer, a room or a group at one time, read from the sessions themselves."""
    standing = [s for s in await database.query(Session, {}) if not s.cancelled]
    return [
        (a.event, b.event)
        for a, b in combinations(standing, 2)
        if a.starts_at < b.ends_at
        and b.starts_at < a.ends_at
        and set(domain.resources_of(a)) & set(domain.resources_of(b))
    ]


async def attempt(asked: Coroutine[Any, Any, object]) -> Rejected | None:
    """What was refused, or None."""
    try:
        await asked
    except Rejected as refusal:
        return refusal
    return None


# --- drafts ------------------------------------------------------------------------------------------------------


async def test_a_draft_is_the_whole_curriculum_in_dated_sessions_and_reserves_nothing(database: Database) -> None:
    story = Story(size=37)
    await staff(database)
    await know(database, story)
    with clock_at(BEFORE):
        made = await draft(database, story)
    assert (made.first_day, made.last_day) == (date(2022, 2, 21), date(2022, 6, 17))
    assert {p.starts_at.astimezone(WIB).time().hour for p in made.sessions} == {8, 10, 13}
    plans = {plan.module_id: plan for plan in made.modules}
    assert sum(p.jp_synchronous + p.jp_asynchronous + p.jp_classical for p in plans.values()) == 290
    for module in CURRICULUM.modules:
        plan = plans[CURRICULUM.module_id(module.code)]
        own = [p for p in made.sessions if p.module == module.code]
        assert plan.sessions == len(own)
        assert plan.starts_on <= min(p.starts_at.astimezone(WIB).date() for p in own)
        assert plan.ends_on >= max(p.starts_at.astimezone(WIB).date() for p in own)
    assert set(made.cost) == {"S1", "S3", "S4", "S5", "S6"} and made.cost["S1"] == 0
    assert await database.query(ResourceDay, {}) == []
    assert await announced(database) == []


async def test_the_same_draft_twice_is_one_and_another_under_its_id_is_refused(database: Database) -> None:
    story, other = Story(1), Story(2)
    await staff(database)
    await know(database, story)
    await know(database, other)
    with clock_at(BEFORE):
        asked = [commands.draft(story.schedule_id, story.cohort_id, "asked", database) for _ in range(2)]
        (first, new), (again, new_again) = await asyncio.gather(*asked)
        assert first.sessions == again.sessions and first.version == again.version == 1
        assert {new, new_again} == {True, False}
        with pytest.raises(IdTaken):
            await commands.draft(story.schedule_id, other.cohort_id, "otherwise", database)


async def test_a_cohort_that_nobody_announced_cannot_be_drafted(database: Database) -> None:
    story = Story()
    await staff(database)
    await deliver(consumer, database, story.enrolled(1))
    with pytest.raises(domain.CohortUnknown):
        await draft(database, story)


async def test_a_cohort_that_starts_a_day_late_is_refused_with_stage_and_days(database: Database) -> None:
    story = Story(starts_on=date(2022, 2, 22))
    opened = story.opened().model_copy(update={"ends_on": date(2022, 6, 19)})
    await staff(database)
    await deliver(consumer, database, opened, story.enrolled(1), story.enrolled(2))
    with pytest.raises(domain.DoesNotFit) as refusal:
        await draft(database, story)
    assert refusal.value.members["stage"] == "classical"
    assert refusal.value.members["short_by_days"] == 5
    assert refusal.value.members["closed_days"][:2] == ["2022-02-28", "2022-03-03"]  # type: ignore[index]


async def test_a_year_whose_holidays_nobody_recorded_is_not_taken_for_one_without_holidays(database: Database) -> None:
    story = Story(starts_on=date(2031, 2, 24))
    await staff(database)
    await know(database, story)
    with pytest.raises(domain.CalendarUnknown) as refusal:
        await draft(database, story)
    assert refusal.value.members == {"years": [2031]}


async def test_a_cohort_of_a_curriculum_that_is_not_here_yet_is_refused_by_name(database: Database) -> None:
    """Enrollment may already be a version ahead."""
    story = Story()
    await staff(database)
    opened = story.opened().model_copy(update={"curriculum_version": "pkp-2031.1"})
    await deliver(consumer, database, opened, story.enrolled(1), story.enrolled(2))
    with clock_at(BEFORE):
        for asked in (draft(database, story), group(database, story)):
            refusal = await attempt(asked)
            assert isinstance(refusal, domain.CurriculumUnknown)
            assert refusal.members == {"curriculum_version": "pkp-2031.1"}


@pytest.mark.parametrize(("zone", "hours"), [("Asia/Makassar", 8), ("Asia/Jayapura", 9)])
async def test_eight_o_clock_is_eight_o_clock_where_the_cohort_is(database: Database, zone: str, hours: int) -> None:
    """In Jayapura the day begins on the ledger's day before."""
    story, neighbour = Story(1), Story(2)
    await staff(database, trainers=6)
    there = story.opened().model_copy(update={"zone": zone})
    await deliver(consumer, database, there, *story.everybody()[1:])
    with clock_at(BEFORE):
        await group(database, story)
        await draft(database, story)
        await commands.publish(story.schedule_id, database)
    await published(database, neighbour)
    sessions = await sessions_of(database, story)
    local = [s.starts_at.astimezone(timezone(timedelta(hours=hours))) for s in sessions]
    assert {at.strftime("%H:%M") for at in local} == {"08:00", "10:30", "13:00"}
    assert (local[0].date(), local[-1].date()) == (date(2022, 2, 21), date(2022, 6, 17))
    assert all(at.weekday() < 5 for at in local)
    assert await clashes(database) == []
    days = [d for d in await database.query(ResourceDay, {}) if any(r.session_id == sessions[0].id for r in d.reserved)]
    assert {d.day for d in days} == {s.astimezone(UTC).date() for s in (sessions[0].starts_at, sessions[0].ends_at)}


async def test_what_is_missing_for_a_draft_is_named(database: Database) -> None:
    story = Story()
    await know(database, story)
    with pytest.raises(domain.NobodyQualified) as nobody:
        await draft(database, story)
    assert nobody.value.members["modules"] == sorted(MODULES)
    await staff(database, seats=5)
    with pytest.raises(domain.NoRoomLargeEnough) as small:
        await draft(database, story)
    assert "bela-negara" in small.value.members["modules"]  # type: ignore[operator]
    assert "tim-efektif" not in small.value.members["modules"]  # type: ignore[operator]
    await staff(database)
    for number in range(2, 5):
        trainer = Trainer(id=trainer_id(number), modules=[])
        await commands.register_trainer(trainer, database, None)
    with pytest.raises(domain.NotPlaceable) as one:
        await draft(database, story)
    assert one.value.members["shortages"] == [
        {"rule": "H5", "of": "berbagi-hasil+rencana-tindak-lanjut+seminar-hasil", "short_by_jp": 16}
    ]


# --- publication -------------------------------------------------------------------------------------------------


async def test_a_publication_tells_every_session_with_its_trainer_and_then_the_timetable(database: Database) -> None:
    story = Story(size=37)
    await staff(database)
    await ready(database, story)
    with clock_at(BEFORE):
        before = time.perf_counter()
        await commands.publish(story.schedule_id, database)
        seconds = time.perf_counter() - before
    print(f"published 66 sessions in {seconds:.2f} s")
    assert seconds < 5
    told = [event for _, event in await announced(database)][2:]
    assert [type(event) for event in told] == [SessionScheduled, TrainerAssigned] * 66 + [SchedulePublished]
    sessions = {s.id: s for s in await sessions_of(database, story)}
    for scheduled, assigned in zip(told[:-1:2], told[1::2], strict=True):
        assert isinstance(scheduled, SessionScheduled) and isinstance(assigned, TrainerAssigned)
        kept = sessions[scheduled.session_id]
        assert assigned.session_id == kept.id and [assigned.trainer_id] == kept.trainer_ids == scheduled.trainer_ids
        assert (scheduled.starts_at, scheduled.ends_at, scheduled.jp) == (kept.starts_at, kept.ends_at, kept.jp)
        assert set(scheduled.group_ids) <= {domain.group_id(story.cohort_id, n) for n in (1, 2)}
    last = told[-1]
    assert isinstance(last, SchedulePublished)
    assert (last.added, last.changed, last.removed, last.schedule_version) == (66, 0, 0, 1)
    assert sum(plan.sessions for plan in last.modules) == 66
    assert {e.sequence for e, _ in await announced(database, SessionScheduled)} == {1}


async def test_publishing_twice_announces_once(database: Database) -> None:
    story = Story()
    await staff(database)
    await ready(database, story)
    with clock_at(BEFORE):
        await asyncio.gather(*(commands.publish(story.schedule_id, database) for _ in range(4)))
    assert len(await announced(database, SchedulePublished)) == 1
    assert len(await announced(database, SessionScheduled)) == 66


async def test_of_two_drafts_of_a_cohort_published_at_once_one_is_in_force(
    database: Database, elsewhere: Database
) -> None:
    story = Story()
    await staff(database, trainers=12)
    await ready(database, story)
    with clock_at(BEFORE):
        second, _ = await commands.draft(uid(77, 2), story.cohort_id, "asked", database)
        answers = await asyncio.gather(
            attempt(commands.publish(story.schedule_id, database)), attempt(commands.publish(second.id, elsewhere))
        )
    assert sorted(type(answer).__name__ for answer in answers) == ["AlreadyPublished", "NoneType"]
    assert len(await announced(database, SchedulePublished)) == 1
    assert len(await sessions_of(database, story)) == 66


async def test_a_cohort_has_one_timetable_in_force(database: Database) -> None:
    story = Story()
    await staff(database)
    await ready(database, story)
    with clock_at(BEFORE):
        second, _ = await commands.draft(uid(77, 2), story.cohort_id, "asked", database)
        await commands.publish(story.schedule_id, database)
        with pytest.raises(domain.AlreadyPublished) as refusal:
            await commands.publish(second.id, database)
    assert refusal.value.members == {"schedule_id": story.schedule_id}


async def test_without_learning_groups_nothing_is_published(database: Database) -> None:
    story = Story()
    await staff(database)
    await know(database, story)
    with clock_at(BEFORE):
        await draft(database, story)
        with pytest.raises(domain.NoParticipants):
            await commands.publish(story.schedule_id, database)
        with pytest.raises(NotFound):
            await commands.publish(uid(1), database)
    assert await announced(database) == []


async def test_every_session_holds_its_trainer_room_and_groups_in_the_ledger(database: Database) -> None:
    story = Story()
    await staff(database)
    sessions = await published(database, story)
    assert await ledger(database) == {s.id: 2 + len(s.group_ids) for s in sessions}
    assert await clashes(database) == []


async def test_a_second_cohort_is_placed_around_the_first(database: Database) -> None:
    await staff(database, trainers=6)
    await published(database, Story(1), Story(2))
    assert await clashes(database) == []
    assert len(await announced(database, SessionScheduled)) == 2 * 66


async def test_two_cohorts_racing_for_the_same_trainers_one_wins_and_the_other_is_told_who_is_taken(
    database: Database, elsewhere: Database
) -> None:
    """Races between two processes; both drafts were made while everything was free."""
    await staff(database)
    for race in range(3):
        first, second = Story(10 + 2 * race), Story(11 + 2 * race)
        await ready(database, first, second)

        with clock_at(BEFORE):
            answers = await asyncio.gather(
                attempt(commands.publish(first.schedule_id, database)),
                attempt(commands.publish(second.schedule_id, elsewhere)),
            )
        assert sorted(type(answer).__name__ for answer in answers) == ["AlreadyReserved", "NoneType"]
        lost, won = (first, second) if answers[0] else (second, first)
        refusal = next(answer for answer in answers if answer)
        assert refusal.members["resource"] in {"trainer", "room"}
        assert refusal.members["resource_id"] in {*map(trainer_id, range(1, 5)), *map(room_id, range(1, 7))}
        assert await sessions_of(database, lost) == []
        assert (await database.get(Schedule, lost.schedule_id)).status == "draft"  # type: ignore[union-attr]
        assert await clashes(database) == []
        await deliver(consumer, database, won.cancelled(), lost.cancelled(), at=BEFORE)
        assert await ledger(database) == {}


async def test_a_trainer_who_went_away_after_the_draft_is_not_published(database: Database) -> None:
    story = Story()
    await staff(database)
    await ready(database, story)
    made = await database.get(Schedule, story.schedule_id)
    assert made is not None
    theirs = next(p for p in made.sessions if p.trainer_id == trainer_id(1))
    span = Span(starts_at=theirs.starts_at, ends_at=theirs.ends_at)
    with clock_at(BEFORE):
        away = Trainer(id=trainer_id(1), modules=MODULES, unavailable=[span])
        await commands.register_trainer(away, database, None)
        with pytest.raises(domain.DraftOutdated) as refusal:
            await commands.publish(story.schedule_id, database)
        assert refusal.value.members["sessions"] == [{"session": theirs.event, "rule": "H5"}]
        await commands.register_trainer(Trainer(id=trainer_id(1), modules=MODULES), database, None)
        await commands.register_room(Room(id=room_id(1), kind=RoomKind.VIRTUAL, seats=5), database, None)
        with pytest.raises(domain.DraftOutdated) as refusal:
            await commands.publish(story.schedule_id, database)
        rules = {found["rule"] for found in refusal.value.members["sessions"]}  # type: ignore[attr-defined]
        assert rules == {"H6"}
    assert await sessions_of(database, story) == []


async def test_an_edit_of_a_trainer_needs_the_edition_that_was_seen(database: Database) -> None:
    first = await commands.register_trainer(Trainer(id=trainer_id(1), modules=["a"]), database, None)
    second = await commands.register_trainer(Trainer(id=trainer_id(1), modules=["b"]), database, first.revision)
    assert second.revision == first.revision + 1
    with pytest.raises(PreconditionFailed):
        await commands.register_trainer(Trainer(id=trainer_id(1), modules=["c"]), database, first.revision)
    await commands.register_room(Room(id=room_id(1), kind=RoomKind.VIRTUAL, seats=5), database, None)
    with pytest.raises(PreconditionFailed):
        await commands.register_room(Room(id=room_id(1), kind=RoomKind.VIRTUAL, seats=6), database, 99)


# --- moving one session ------------------------------------------------------------------------------------------


async def free_start(database: Database, session: Session) -> datetime:
    """A start at which the service lets this session be held, found by asking as a planner would."""
    for n in range(1, 12):
        for hour, minute in SLOTS:
            at = (session.starts_at + timedelta(days=n)).replace(hour=hour, minute=minute)
            try:
                await commands.reschedule(session.id, at, RescheduleReason.ORGANISER, None, database)
            except Rejected:
                continue
            return at
    raise AssertionError("no other start")


async def test_a_moved_session_takes_its_reservations_along_and_tells_both_times(database: Database) -> None:
    story = Story()
    await staff(database)
    sessions = await published(database, story)
    session = of_module(sessions, "manajemen-mutu")[1]
    with clock_at(BEFORE):
        at = await free_start(database, session)
    moved = await database.get(Session, session.id)
    assert moved is not None
    assert (moved.starts_at, moved.ends_at) == (at, at + (session.ends_at - session.starts_at))
    assert (moved.ical_sequence, moved.revision) == (1, session.revision + 1)
    assert await ledger(database) == {s.id: 2 + len(s.group_ids) for s in sessions}
    for day in await database.query(ResourceDay, {}):
        for kept in day.reserved:
            if kept.session_id == session.id:
                assert (kept.starts_at, kept.ends_at, day.day) == (moved.starts_at, moved.ends_at, at.date())
    (told,) = [event for _, event in await announced(database, SessionRescheduled)]
    assert isinstance(told, SessionRescheduled)
    assert (told.previous_starts_at, told.previous_ends_at) == (session.starts_at, session.ends_at)
    assert (told.starts_at, told.ical_sequence, told.reason_code) == (at, 1, RescheduleReason.ORGANISER)
    with clock_at(BEFORE):
        again = await commands.reschedule(session.id, at, RescheduleReason.ORGANISER, None, database)
        assert again.ical_sequence == 1
        back = await commands.reschedule(session.id, session.starts_at, RescheduleReason.ORGANISER, None, database)
    assert back.ical_sequence == 2
    assert [e.sequence for e, _ in await announced(database, SessionRescheduled)] == [3, 4]


async def test_a_moved_session_is_one_day_in_the_ledger_whatever_zone_the_planner_writes(database: Database) -> None:
    """17.00 in Honolulu on one date is 10.00 in Jakarta on the next."""
    story = Story()
    await staff(database)
    sessions = await published(database, story)
    session = of_module(sessions, "manajemen-mutu")[1]
    with clock_at(BEFORE):
        at = await free_start(database, session)
        await commands.reschedule(session.id, session.starts_at, RescheduleReason.ORGANISER, None, database)
        abroad = at.astimezone(timezone(timedelta(hours=-10)))
        assert abroad.date() != at.date()
        await commands.reschedule(session.id, abroad, RescheduleReason.ORGANISER, None, database)
    days = [d for d in await database.query(ResourceDay, {}) if any(r.session_id == session.id for r in d.reserved)]
    assert {d.day for d in days} == {at.date()}
    assert {d.id for d in days} == {
        id for r in domain.resources_of(session) for id in domain.resource_days(r, at, at + HOUR)
    }


async def test_where_a_session_cannot_go_the_rule_is_named(database: Database) -> None:
    story = Story()
    await staff(database)
    sessions = await published(database, story)
    session = of_module(sessions, "manajemen-mutu")[0]
    first = sessions[0]
    asked = {
        session.starts_at + timedelta(minutes=20): "H1",  # not a slot
        session.starts_at.replace(month=3, day=12, hour=1, minute=0): "H1",  # Saturday
        datetime(2022, 3, 3, 1, tzinfo=UTC): "H1",  # holiday
        datetime(2022, 4, 20, 1, tzinfo=UTC): "H1",  # at the workplace
        datetime(2022, 6, 14, 1, tzinfo=UTC): "H1",  # the classical block
        sessions[5].starts_at: "H2",
    }
    with clock_at(BEFORE):
        for at, rule in asked.items():
            with pytest.raises(domain.NotASlot) as refusal:
                await commands.reschedule(session.id, at, RescheduleReason.ORGANISER, None, database)
            assert refusal.value.members["rule"] == rule, at
        for at in (datetime(2022, 4, 13, 1, tzinfo=UTC), datetime(2022, 4, 13, 3, 30, tzinfo=UTC)):
            with pytest.raises(domain.NotASlot):  # its agenda comes first
                await commands.reschedule(first.id, at, RescheduleReason.ORGANISER, None, database)
        with pytest.raises(NotFound):
            await commands.reschedule(uid(1), BEFORE, RescheduleReason.ORGANISER, None, database)
    assert await announced(database, SessionRescheduled) == []


async def test_the_sessions_of_a_trainer_who_fell_ill_are_moved_one_after_the_other(database: Database) -> None:
    """The first move must not fail because the second session is still wrong."""
    story = Story()
    await staff(database)
    sessions = await published(database, story)
    ill = of_module(sessions, "manajemen-mutu")[:2]
    spans = [Span(starts_at=s.starts_at, ends_at=s.ends_at) for s in ill]
    assert ill[0].trainer_ids == ill[1].trainer_ids
    trainer = Trainer(id=ill[0].trainer_ids[0], modules=MODULES, unavailable=spans)
    with clock_at(BEFORE):
        await commands.register_trainer(trainer, database, None)
        for session in ill:
            await free_start(database, session)
        with pytest.raises(domain.NotASlot) as refusal:
            await commands.reschedule(ill[0].id, ill[0].starts_at, RescheduleReason.ORGANISER, None, database)
    assert refusal.value.members["rule"] == "H5"
    assert len(await announced(database, SessionRescheduled)) == 2


async def test_a_session_is_not_moved_from_one_hour_of_its_trainers_absence_into_another(database: Database) -> None:
    story = Story()
    await staff(database)
    session = of_module(await published(database, story), "manajemen-mutu")[0]
    with clock_at(BEFORE):
        free = await free_start(database, session)
        await commands.reschedule(session.id, session.starts_at, RescheduleReason.ORGANISER, None, database)
        always = [Span(starts_at=BEFORE, ends_at=BEFORE + timedelta(days=150))]
        trainer = Trainer(id=session.trainer_ids[0], modules=MODULES, unavailable=always)
        await commands.register_trainer(trainer, database, None)
        refusal = await attempt(
            commands.reschedule(session.id, free, RescheduleReason.TRAINER_UNAVAILABLE, None, database)
        )
    assert isinstance(refusal, domain.NotASlot) and refusal.members == {"rule": "H5"}


async def test_a_session_that_has_begun_is_not_moved_and_none_into_the_past(database: Database) -> None:
    story = Story()
    await staff(database)
    sessions = await published(database, story)
    session = of_module(sessions, "manajemen-mutu")[0]
    with clock_at(session.starts_at), pytest.raises(domain.SessionOver):
        await free_start_once(database, session, session.starts_at + timedelta(days=1))
    with clock_at(session.starts_at - HOUR), pytest.raises(domain.SessionOver):
        await free_start_once(database, session, session.starts_at - timedelta(days=1))
    await deliver(consumer, database, story.cancelled(at=BEFORE), at=BEFORE)
    with clock_at(BEFORE), pytest.raises(domain.CohortCancelled):
        await free_start_once(database, session, session.starts_at + timedelta(days=1))


async def free_start_once(database: Database, session: Session, at: datetime) -> None:
    await commands.reschedule(session.id, at, RescheduleReason.ORGANISER, None, database)


async def test_of_two_who_move_the_same_edition_one_is_told_to_look_again(
    database: Database, elsewhere: Database
) -> None:
    story = Story()
    await staff(database)
    sessions = await published(database, story)
    session = of_module(sessions, "manajemen-mutu")[1]
    with clock_at(BEFORE):
        at = await free_start(database, session)
        seen = await database.get(Session, session.id)
        assert seen is not None
        back = session.starts_at
        answers = await asyncio.gather(
            commands.reschedule(session.id, back, RescheduleReason.ORGANISER, seen.revision, database),
            commands.reschedule(session.id, at + timedelta(days=7), RescheduleReason.CALENDAR, 0, elsewhere),
            return_exceptions=True,
        )
    assert isinstance(answers[0], Session) and isinstance(answers[1], PreconditionFailed)


def one_session(n: int, *, trainer: int, room: int, starts_at: datetime) -> Session:
    story = Story(n)
    return Session(
        id=domain.session_id(story.schedule_id, "manajemen-mutu/1"),
        schedule_id=story.schedule_id,
        cohort_id=story.cohort_id,
        event="manajemen-mutu/1",
        module_id=CURRICULUM.module_id("manajemen-mutu"),
        jp=3,
        mode=SessionMode.DISTANCE,
        group_ids=[domain.group_id(story.cohort_id, 1)],
        starts_at=starts_at,
        ends_at=starts_at + timedelta(minutes=135),
        zone="Asia/Jakarta",
        trainer_ids=[trainer_id(trainer)],
        room_id=room_id(room),
    )


@pytest.mark.parametrize("shared_resource", ["trainer", "room"])
async def test_of_sixteen_who_reserve_overlapping_hours_at_once_one_gets_them(
    database: Database, elsewhere: Database, shared_resource: str
) -> None:
    """Two processes, sixteen cohorts, one trainer or one room; the hours only overlap, over midnight of the ledger."""
    at = datetime(2022, 2, 21, 23, 0, tzinfo=UTC)
    wanted = [
        one_session(
            n,
            trainer=1 if shared_resource == "trainer" else n,
            room=1 if shared_resource == "room" else n,
            starts_at=at + timedelta(minutes=8 * n),
        )
        for n in range(1, 17)
    ]

    async def reserve(session: Session, where: Database) -> None:
        await where.transaction(lambda tx: commands.reserve(tx, [session]))

    answers = await asyncio.gather(
        *(attempt(reserve(s, (database, elsewhere)[n % 2])) for n, s in enumerate(wanted)), return_exceptions=False
    )
    assert answers.count(None) == 1
    assert {type(answer) for answer in answers if answer} == {domain.AlreadyReserved}
    assert {answer.members["resource"] for answer in answers if answer} == {shared_resource}
    winner = wanted[answers.index(None)]
    days = {starts.date() for starts in (winner.starts_at, winner.ends_at)}
    assert await ledger(database) == {winner.id: 3 * len(days)}


# --- attendance --------------------------------------------------------------------------------------------------


async def held(database: Database, story: Story) -> Session:
    """A session of the whole cohort."""
    await staff(database)
    return of_module(await published(database, story), "bela-negara")[0]


async def test_attendance_is_one_fact_for_everybody_expected(database: Database) -> None:
    story = Story()
    session = await held(database, story)
    with clock_at(session.ends_at):
        taken = await commands.take_attendance(session.id, {story.enrollment(2): SICK}, database)
    assert {a.enrollment_id for a in taken} == {story.enrollment(i) for i in range(1, 7)}
    told = [event for _, event in await announced(database, AttendanceRecorded)]
    assert len(told) == 6
    for event in told:
        assert isinstance(event, AttendanceRecorded)
        assert event.attendance_id == domain.attendance_id(session.id, event.enrollment_id)
        assert event.status is (SICK if event.enrollment_id == story.enrollment(2) else PRESENT)
        assert (event.module_id, event.jp, event.cohort_id) == (session.module_id, session.jp, story.cohort_id)
    envelopes = {e.agencyid for e, _ in await announced(database, AttendanceRecorded)}
    assert envelopes == {story.agency(1), story.agency(2)}


async def test_a_session_of_one_group_is_attended_by_that_group(database: Database) -> None:
    story = Story()
    await staff(database)
    sessions = await published(database, story)
    second = domain.group_id(story.cohort_id, 2)
    session = next(s for s in sessions if s.group_ids == [second])
    with clock_at(session.ends_at):
        with pytest.raises(domain.NotAttending) as refusal:
            await commands.take_attendance(session.id, {story.enrollment(1): SICK}, database)
        taken = await commands.take_attendance(session.id, {}, database)
    assert refusal.value.members == {"enrollment_ids": [story.enrollment(1)]}
    assert {a.enrollment_id for a in taken} == {story.enrollment(i) for i in (2, 4, 6)}


async def test_taking_attendance_at_once_from_two_places_records_it_once(
    database: Database, elsewhere: Database
) -> None:
    story = Story()
    session = await held(database, story)
    absences = {story.enrollment(2): SICK}
    with clock_at(session.ends_at):
        await asyncio.gather(
            *(commands.take_attendance(session.id, absences, at) for at in (database, elsewhere, database, elsewhere))
        )
    assert len(await announced(database, AttendanceRecorded)) == 6
    assert len(await database.query(Attendance, {"session_id": session.id})) == 6


async def test_other_attendance_than_recorded_is_a_correction_not_a_second_record(
    database: Database, elsewhere: Database
) -> None:
    story = Story()
    session = await held(database, story)
    with clock_at(session.ends_at):
        answers = await asyncio.gather(
            commands.take_attendance(session.id, {story.enrollment(1): SICK}, database),
            commands.take_attendance(session.id, {story.enrollment(1): ABSENT}, elsewhere),
            return_exceptions=True,
        )
        assert sorted(type(answer).__name__ for answer in answers) == ["AttendanceTaken", "list"]
        with pytest.raises(domain.AttendanceTaken):
            await commands.take_attendance(session.id, {}, database)
    assert len(await announced(database, AttendanceRecorded)) == 6


async def test_attendance_is_not_taken_before_the_session_begins(database: Database) -> None:
    story = Story()
    session = await held(database, story)
    with clock_at(session.starts_at - timedelta(milliseconds=1)), pytest.raises(domain.SessionNotBegun):
        await commands.take_attendance(session.id, {}, database)
    with clock_at(session.starts_at):
        assert len(await commands.take_attendance(session.id, {}, database)) == 6


async def test_who_withdrew_is_not_expected_any_more(database: Database) -> None:
    story = Story()
    session = await held(database, story)
    await deliver(consumer, database, story.withdrawn(2), at=BEFORE)
    with clock_at(session.ends_at):
        with pytest.raises(domain.NotAttending):
            await commands.take_attendance(session.id, {story.enrollment(2): SICK}, database)
        taken = await commands.take_attendance(session.id, {}, database)
    assert {a.enrollment_id for a in taken} == {story.enrollment(i) for i in (1, 3, 4, 5, 6)}


async def test_sending_the_same_list_again_after_a_withdrawal_is_still_the_same_list(database: Database) -> None:
    story = Story()
    session = await held(database, story)
    absences = {story.enrollment(2): SICK}
    with clock_at(session.ends_at):
        await commands.take_attendance(session.id, absences, database)
        await deliver(consumer, database, story.withdrawn(2, at=session.ends_at), at=session.ends_at)
        await commands.take_attendance(session.id, absences, database)
    assert len(await announced(database, AttendanceRecorded)) == 6


async def test_a_replacement_was_not_present_before_there_was_a_seat(database: Database) -> None:
    story = Story()
    session = await held(database, story)
    later = session.ends_at + HOUR
    await deliver(consumer, database, story.withdrawn(2), story.enrolled(7, number=2, at=later), at=later)
    with clock_at(later):
        taken = await commands.take_attendance(session.id, {}, database)
        assert story.enrollment(7) not in {a.enrollment_id for a in taken}
        following = next(s for s in await sessions_of(database, story) if s.starts_at > later and len(s.group_ids) == 2)
    with clock_at(following.ends_at):
        taken = await commands.take_attendance(following.id, {}, database)
    assert story.enrollment(7) in {a.enrollment_id for a in taken}


async def test_a_seat_whose_news_came_late_is_recorded_when_the_list_is_sent_again(database: Database) -> None:
    story = Story()
    session = await held(database, story)
    with clock_at(session.ends_at):
        await commands.take_attendance(session.id, {}, database)
        await deliver(consumer, database, story.enrolled(7, at=BEFORE), at=session.ends_at)
        await commands.take_attendance(session.id, {}, database)
    told = [event.subject for _, event in await announced(database, AttendanceRecorded)]
    assert len(told) == len(set(told)) == 7


async def test_withdrawing_races_taking_attendance_and_nobody_is_recorded_after_leaving(
    database: Database, elsewhere: Database
) -> None:
    """A withdrawal that the list did not know conflicts with it: the order of the outbox tells which came first."""
    story = Story(size=14)
    await staff(database)
    sessions = [s for s in await published(database, story) if len(s.group_ids) == 2][:6]
    for i, session in enumerate(sessions, start=1):
        with clock_at(session.ends_at):
            await asyncio.gather(
                commands.take_attendance(session.id, {}, database),
                deliver(consumer, elsewhere, story.withdrawn(i, at=session.ends_at), at=session.ends_at),
            )
        recorded = {a.enrollment_id for a in await database.query(Attendance, {"session_id": session.id})}
        left = {story.enrollment(n) for n in range(1, i + 1)}
        members = {story.enrollment(n) for n in range(1, 15)}
        assert members - left <= recorded <= members - left | {story.enrollment(i)}
        order = [(type(event).__name__, event) for _, event in await announced(database)]
        change = max(n for n, (name, _) in enumerate(order) if name == "LearningGroupChanged")
        last = max(n for n, (name, _) in enumerate(order) if name == "AttendanceRecorded")
        assert (story.enrollment(i) in recorded) == (last < change)


async def test_a_correction_tells_what_it_was_and_what_it_is(database: Database) -> None:
    story = Story()
    session = await held(database, story)
    with clock_at(session.ends_at):
        with pytest.raises(domain.AttendanceNotTaken):
            await commands.correct_attendance(session.id, story.enrollment(2), SICK, "certificate", database)
        await commands.take_attendance(session.id, {story.enrollment(2): ABSENT}, database)
        for _ in range(2):
            await commands.correct_attendance(session.id, story.enrollment(2), SICK, "certificate", database)
        await commands.correct_attendance(session.id, story.enrollment(2), PERMITTED, "letter", database)
    told = await announced(database, AttendanceCorrected)
    assert [envelope.sequence for envelope, _ in told] == [2, 3]
    seen = [(e.previous, e.status, e.reason_code) for _, e in told if isinstance(e, AttendanceCorrected)]
    assert seen == [(ABSENT, SICK, "certificate"), (SICK, PERMITTED, "letter")]
    kept = await database.get(Attendance, domain.attendance_id(session.id, story.enrollment(2)))
    assert kept is not None and kept.status is PERMITTED


# --- the ledger, purely ------------------------------------------------------------------------------------------


def test_a_reservation_over_midnight_holds_both_days() -> None:
    at = datetime(2022, 2, 21, 23, 30, tzinfo=UTC)
    days = domain.resource_days("room|x", at, at + HOUR)
    assert set(days.values()) == {date(2022, 2, 21), date(2022, 2, 22)}
    assert domain.resource_days("room|x", at.astimezone(WIB), (at + HOUR).astimezone(WIB)) == days


def test_back_to_back_is_no_clash_and_one_minute_is() -> None:
    at = datetime(2022, 2, 21, 1, tzinfo=UTC)
    kept = ResourceDay(id=uid(1), resource=f"trainer|{trainer_id(1)}", day=at.date())
    kept = domain.reserve(kept, domain.Reserved(session_id=uid(1), starts_at=at, ends_at=at + HOUR))
    after = domain.Reserved(session_id=uid(2), starts_at=at + HOUR, ends_at=at + 2 * HOUR)
    kept = domain.reserve(kept, after)
    assert domain.reserve(kept, after).reserved == kept.reserved
    over = domain.Reserved(session_id=uid(3), starts_at=at + HOUR - timedelta(minutes=1), ends_at=at + HOUR)
    with pytest.raises(domain.AlreadyReserved) as refusal:
        domain.reserve(kept, over)
    assert refusal.value.members["resource_id"] == trainer_id(1)
    freed = domain.release(kept, uid(1))
    assert [r.session_id for r in domain.reserve(freed, over).reserved] == [uid(2), uid(3)]
