"""What the outside may ask of scheduling."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from services.scheduling import domain, store, timetable
from services.scheduling.domain import (
    Attendance,
    LearningGroup,
    PlannedSession,
    Reserved,
    ResourceDay,
    Room,
    Roster,
    Schedule,
    Search,
    SearchProgress,
    Session,
    Trainer,
)
from services.scheduling.solver.check import check, costs
from services.scheduling.solver.placement import NoPlacement
from services.scheduling.solver.problem import Placement, Plan, Problem, Season
from shared import clock, reference
from shared.contracts.scheduling import AttendanceStatus, ModulePlan, RescheduleReason, SessionMode
from shared.domain import Seen, expect_revision, same_request
from shared.errors import IdTaken, Rejected
from shared.mongo import Database, Transaction


async def register_trainer(trainer: Trainer, database: Database, if_match: Seen) -> Trainer:
    """For which modules a person may be assigned, and when not. Raises `PreconditionFailed`."""

    async def work(tx: Transaction) -> Trainer:
        known = await tx.load(Trainer, trainer.id)
        expect_revision(known, if_match)
        if known is None:
            return tx.save(trainer)
        if (known.modules, known.unavailable) == (trainer.modules, trainer.unavailable):
            return known
        return tx.save(known.but(modules=trainer.modules, unavailable=trainer.unavailable))

    return await database.transaction(work)


async def register_room(room: Room, database: Database, if_match: Seen) -> Room:
    """A room or virtual room and its seats. Raises `PreconditionFailed`."""

    async def work(tx: Transaction) -> Room:
        known = await tx.load(Room, room.id)
        expect_revision(known, if_match)
        if known is None:
            return tx.save(room)
        if (known.kind, known.seats) == (room.kind, room.seats):
            return known
        return tx.save(known.but(kind=room.kind, seats=room.seats))

    return await database.transaction(work)


async def form_groups(
    cohort_id: str, coach_ids: Sequence[str], examiner_ids: Sequence[str], database: Database
) -> list[LearningGroup]:
    """Form the learning groups, one per coach. Asking twice forms them once.

    Raises `GroupsMismatch`, `GroupsFormed`, `NoParticipants`.
    """

    async def work(tx: Transaction) -> list[LearningGroup]:
        roster = await _roster(tx, cohort_id)
        if roster.group_count:
            if (roster.coach_ids, roster.examiner_ids) != (list(coach_ids), list(examiner_ids)):
                raise domain.GroupsFormed
            return await store.groups_in(tx, roster)
        wanted = _curriculum(roster).learning_groups.value
        if not len(coach_ids) == len(examiner_ids) == wanted:
            raise domain.GroupsMismatch(learning_groups=wanted)
        await tx.load_many(LearningGroup, [domain.group_id(cohort_id, n + 1) for n in range(len(coach_ids))])
        formed = domain.form_groups(cohort_id, roster.active, coach_ids, examiner_ids, clock.now())
        tx.save(roster.but(group_count=len(formed), coach_ids=list(coach_ids), examiner_ids=list(examiner_ids)))
        return [tx.save(group, event) for group, event in formed]

    return await database.transaction(work, key=cohort_id)


async def _roster(tx: Transaction, cohort_id: str) -> Roster:
    """What is known of a cohort. Raises `CohortUnknown`, `CohortCancelled`."""
    roster = await tx.load(Roster, cohort_id)
    if roster is None or roster.starts_on is None:
        raise domain.CohortUnknown
    if roster.cancelled:
        raise domain.CohortCancelled
    return roster


def _curriculum(roster: Roster) -> reference.Curriculum:
    """The curriculum that the cohort is bound to. Raises `CurriculumUnknown`."""
    try:
        return reference.curriculum(roster.curriculum_version or "")
    except reference.UnknownReference:
        raise domain.CurriculumUnknown(curriculum_version=roster.curriculum_version) from None


# --- drafting ----------------------------------------------------------------------------------------------------


def _grid(roster: Roster) -> tuple[timetable.Grid, list[timetable.StageDays]]:
    """The cohort's stages on the calendar. Raises `CalendarUnknown`, `DoesNotFit` with stage and missing days."""
    assert roster.starts_on and roster.ends_on
    curriculum = _curriculum(roster)
    years = range(roster.starts_on.year, roster.ends_on.year + 1)
    if unknown := [year for year in years if not reference.holidays("id", year)]:
        raise domain.CalendarUnknown(years=unknown)
    closed = frozenset().union(*(reference.holidays("id", year) for year in years))
    try:
        placed = timetable.stages(curriculum, roster.starts_on, roster.ends_on, closed)
    except timetable.NoRoomInCalendar as error:
        raise domain.DoesNotFit(
            stage=error.stage,
            short_by_days=error.short_by_days,
            last_day=error.last_day.isoformat(),
            closed_days=[day.isoformat() for day in error.closed],
        ) from None
    return timetable.Grid.of(curriculum, roster.zone, placed), placed


async def _problem(roster: Roster, grid: timetable.Grid, database: Database, *, own: frozenset[str]) -> Problem:
    """The cohort's problem with the trainers, rooms and reservations of the moment; `own` sessions do not count."""
    assert roster.starts_on and roster.ends_on
    taken: dict[str, list[tuple[datetime, datetime]]] = {}
    first, last = (roster.starts_on - timedelta(days=1)).isoformat(), (roster.ends_on + timedelta(days=1)).isoformat()
    for day in await store.reserved_between(database, first, last):
        spans = [(r.starts_at, r.ends_at) for r in day.reserved if r.session_id not in own]
        taken.setdefault(day.resource.partition("|")[2], []).extend(spans)
    trainers = [
        timetable.Trainer(t.id, frozenset(t.modules), tuple((s.starts_at, s.ends_at) for s in t.unavailable))
        for t in await store.trainers(database)
    ]
    rooms = [timetable.Room(r.id, r.kind is domain.RoomKind.VIRTUAL, r.seats) for r in await store.rooms(database)]
    size = max(len(roster.active), 1)
    return timetable.problem(grid, size=size, trainers=trainers, rooms=rooms, taken=taken)


async def draft(schedule_id: str, cohort_id: str, asked: str, database: Database) -> tuple[Schedule, bool]:
    """Place the cohort's curriculum into dated sessions, as a draft that reserves nothing yet; and whether it is new.

    Raises `CalendarUnknown`, `DoesNotFit`, `NobodyQualified`, `NoRoomLargeEnough` or `NotPlaceable`, each with what
    is missing, and `AlreadyPublished`.
    """
    if known := await database.get(Schedule, schedule_id):
        same_request(known.asked, asked)
        return known, False
    work_to_do = await to_place(cohort_id, database)
    try:
        plan = await asyncio.to_thread(timetable.solve, work_to_do.problem)
    except NoPlacement as error:
        raise domain.NotPlaceable(module=error.cls, rule=error.rule, candidates=error.candidates) from None
    schedule = drafted(schedule_id, work_to_do, plan, asked)

    async def work(tx: Transaction) -> tuple[Schedule, bool]:
        if known := await tx.load(Schedule, schedule_id):
            same_request(known.asked, asked)
            return known, False
        return tx.save(schedule), True

    return await database.transaction(work)


@dataclass(frozen=True, slots=True)
class ToPlace:
    """What is to be placed for a cohort: its stages on the calendar, and the problem with what is free now."""

    roster: Roster
    grid: timetable.Grid
    stages: list[timetable.StageDays]
    problem: Problem


async def to_place(cohort_id: str, database: Database) -> ToPlace:
    """A cohort's timetable as a problem. Raises what `draft` does but for `IdTaken`, where no search would help.

    `AlreadyPublished` comes first: what a timetable in force has reserved is not free for its own cohort either.
    """
    roster = await database.get(Roster, cohort_id)
    if roster is None or roster.starts_on is None or roster.curriculum_version is None:
        raise domain.CohortUnknown
    if roster.cancelled:
        raise domain.CohortCancelled
    if roster.schedule_id is not None:
        raise domain.AlreadyPublished(schedule_id=roster.schedule_id)
    grid, placed = _grid(roster)
    problem = await _problem(roster, grid, database, own=frozenset())
    if modules := timetable.unstaffed(problem):
        raise domain.NobodyQualified(modules=modules)
    if modules := timetable.unhoused(problem):
        raise domain.NoRoomLargeEnough(modules=modules, size=len(roster.active))
    if missing := timetable.shortages(problem):
        raise domain.NotPlaceable(shortages=[{"rule": m.rule, "of": m.name, "short_by_jp": m.slots} for m in missing])
    return ToPlace(roster, grid, placed, problem)


async def calendar_of(cohort_id: str, database: Database) -> Season:
    """A cohort's stages on the calendar as a problem of days, to ask why they do not fit."""
    roster = await database.get(Roster, cohort_id)
    if roster is None or roster.starts_on is None or roster.ends_on is None:
        raise domain.CohortUnknown
    years = range(roster.starts_on.year, roster.ends_on.year + 1)
    closed = frozenset().union(*(reference.holidays("id", year) for year in years))
    return timetable.calendar(_curriculum(roster), roster.starts_on, roster.ends_on, closed)


def drafted(schedule_id: str, given: ToPlace, plan: Plan, asked: str) -> Schedule:
    """A plan as a draft."""
    sessions = timetable.dated(given.grid, given.problem, plan)
    return Schedule(
        id=schedule_id,
        cohort_id=given.roster.id,
        curriculum_version=given.roster.curriculum_version or "",
        sessions=[
            PlannedSession(
                event=s.event,
                module=s.module,
                groups=list(s.groups),
                jp=s.jp,
                mode=SessionMode(s.mode),
                starts_at=s.starts_at,
                ends_at=s.ends_at,
                trainer_id=s.trainer,
                room_id=s.room,
            )
            for s in sessions
        ],
        modules=_module_plans(given.grid, given.stages, sessions),
        first_day=given.stages[0].first,
        last_day=given.stages[-1].last,
        cost=costs(given.problem, plan),
        asked=asked,
    )


def _module_plans(
    grid: timetable.Grid, placed: Sequence[timetable.StageDays], sessions: Sequence[timetable.Dated]
) -> list[ModulePlan]:
    windows = timetable.asynchronous_windows(grid.curriculum, placed, sessions)
    plans = []
    for module in grid.curriculum.modules:
        own = [s for s in sessions if s.module == module.code]
        days = [s.day for s in own] + list(windows.get(module.code, ()))
        hours = module.jp.value
        plans.append(
            ModulePlan(
                module_id=grid.curriculum.module_id(module.code),
                sessions=len(own),
                jp_synchronous=hours.synchronous,
                jp_asynchronous=hours.asynchronous,
                jp_classical=hours.classical,
                starts_on=min(days),
                ends_on=max(days),
            )
        )
    return plans


# --- searching ---------------------------------------------------------------------------------------------------


async def ask_search(
    schedule_id: str, cohort_id: str, seconds: int, asked: str, database: Database
) -> tuple[Search, bool]:
    """Have a better timetable looked for, which then is the draft of this id; and whether that is new.

    Raises `CohortUnknown`, `CohortCancelled`, `AlreadyPublished`, `SearchUnderWay`, and `IdTaken` for another cohort's.
    """

    async def work(tx: Transaction) -> tuple[Search, bool]:
        roster = await _roster(tx, cohort_id)
        schedule = await tx.load(Schedule, schedule_id)
        known = await tx.load(Search, schedule_id)
        if known is not None and known.asked == asked:
            return known, False
        if any(one is not None and one.cohort_id != cohort_id for one in (known, schedule)):
            raise IdTaken
        if roster.schedule_id is not None:
            raise domain.AlreadyPublished(schedule_id=roster.schedule_id)
        if known is not None and not known.over:
            raise domain.SearchUnderWay
        given: dict[str, Any] = {"cohort_id": cohort_id, "seconds": seconds, "asked": asked, "asked_at": clock.now()}
        if known is not None:
            return tx.save(known.but(**given, **domain.NOT_BEGUN)), True
        return tx.save(Search(id=schedule_id, **given)), True

    return await database.transaction(work)


async def stop_search(schedule_id: str, database: Database) -> Search:
    """End a search with the best that it has found. Raises `NotFound`."""

    async def work(tx: Transaction) -> Search:
        search = await tx.require(Search, schedule_id)
        return search if search.over or search.stopping else tx.save(search.but(stopping=True))

    return await database.transaction(work)


async def note_progress(schedule_id: str, progress: SearchProgress, database: Database) -> bool:
    """Tell how far a search is; returns whether it is to go on."""

    async def work(tx: Transaction) -> bool:
        search = await tx.require(Search, schedule_id)
        if not search.over:
            tx.save(search.but(status=domain.SearchStatus.SEARCHING, progress=progress))
        return not search.stopping

    return await database.transaction(work)


async def give_up(schedule_id: str, refusal: Rejected, database: Database) -> None:
    """A search that ends without a timetable, and why."""

    async def work(tx: Transaction) -> None:
        search = await tx.require(Search, schedule_id)
        told = {"reason": refusal.code, "missing": dict(refusal.members)}
        tx.save(search.but(status=domain.SearchStatus.FAILED, **told))

    await database.transaction(work)


async def adopt(schedule_id: str, given: ToPlace, plan: Plan, database: Database) -> bool:
    """Make what a search has found the draft, unless that is as good already; returns whether it did.

    A timetable in force is never replaced. Raises `AlreadyPublished`.
    """

    async def work(tx: Transaction) -> bool:
        search = await tx.require(Search, schedule_id)
        known = await tx.load(Schedule, schedule_id)
        if known is not None and known.status is domain.ScheduleStatus.PUBLISHED:
            raise domain.AlreadyPublished(schedule_id=schedule_id)
        found = drafted(schedule_id, given, plan, search.asked)
        adopted = known is None or sum(found.cost.values()) < sum(known.cost.values())
        if known is None:
            tx.save(found)
        elif adopted:
            tx.save(known.but(**{name: getattr(found, name) for name in domain.PLANNED}))
        tx.save(search.but(status=domain.SearchStatus.DONE, adopted=adopted))
        return adopted

    return await database.transaction(work)


# --- publishing --------------------------------------------------------------------------------------------------


async def publish(schedule_id: str, database: Database) -> Schedule:
    """Put a draft in force: reserve every trainer, room and group, and announce every session; all or nothing.

    Raises `AlreadyReserved` naming the resource when another cohort was faster, `DraftOutdated` when a trainer or
    room changed since the draft, `AlreadyPublished`, `NoParticipants`.
    """

    async def work(tx: Transaction) -> Schedule:
        schedule = await tx.require(Schedule, schedule_id)
        if schedule.status is domain.ScheduleStatus.PUBLISHED:
            return schedule
        roster = await _roster(tx, schedule.cohort_id)
        if roster.schedule_id is not None:
            raise domain.AlreadyPublished(schedule_id=roster.schedule_id)
        if not roster.group_count:
            raise domain.NoParticipants
        await _still_fits(tx, schedule, roster)
        curriculum = reference.curriculum(schedule.curriculum_version)
        now = clock.now()
        sessions = [_session(planned, schedule, roster.zone, curriculum) for planned in schedule.sessions]
        await tx.load_many(Session, [session.id for session in sessions])
        await reserve(tx, sessions)
        for session in sessions:
            tx.save(session, *domain.publish_session(session, now))
        tx.save(roster.but(schedule_id=schedule.id))
        return tx.save(*domain.publish(schedule, now))

    return await database.transaction(work, key="publication")


async def _still_fits(tx: Transaction, schedule: Schedule, roster: Roster) -> None:
    """The draft's trainers and rooms as they are now. Raises `DraftOutdated` with the rule for each session."""
    trainers = await tx.load_many(Trainer, [planned.trainer_id for planned in schedule.sessions])
    rooms = await tx.load_many(Room, [planned.room_id for planned in schedule.sessions])
    sizes = [len(group.enrollment_ids) for group in await store.groups_in(tx, roster)]
    if changed := domain.outdated(schedule.sessions, trainers, rooms, sizes):
        raise domain.DraftOutdated(sessions=[{"session": event, "rule": rule} for event, rule in changed])


def _session(planned: PlannedSession, schedule: Schedule, zone: str, curriculum: reference.Curriculum) -> Session:
    return Session(
        id=domain.session_id(schedule.id, planned.event),
        schedule_id=schedule.id,
        cohort_id=schedule.cohort_id,
        event=planned.event,
        module_id=curriculum.module_id(planned.module),
        jp=planned.jp,
        mode=planned.mode,
        group_ids=[domain.group_id(schedule.cohort_id, number) for number in planned.groups],
        starts_at=planned.starts_at,
        ends_at=planned.ends_at,
        zone=zone,
        trainer_ids=[planned.trainer_id],
        room_id=planned.room_id,
    )


async def reserve(tx: Transaction, sessions: Sequence[Session], *, released: Sequence[Session] = ()) -> None:
    """Move reservations in the ledger: those of `released` go, those of `sessions` come. Raises `AlreadyReserved`."""
    touched: dict[str, tuple[str, object]] = {}
    for session in (*released, *sessions):
        for resource in domain.resources_of(session):
            for id, day in domain.resource_days(resource, session.starts_at, session.ends_at).items():
                touched[id] = (resource, day)
    kept = await tx.load_many(ResourceDay, touched)
    days = {
        id: kept.get(id) or ResourceDay.model_validate({"id": id, "resource": resource, "day": day})
        for id, (resource, day) in touched.items()
    }
    for session in released:
        for resource in domain.resources_of(session):
            for id in domain.resource_days(resource, session.starts_at, session.ends_at):
                days[id] = domain.release(days[id], session.id)
    for session in sessions:
        wanted = Reserved(session_id=session.id, starts_at=session.starts_at, ends_at=session.ends_at)
        for resource in domain.resources_of(session):
            for id in domain.resource_days(resource, session.starts_at, session.ends_at):
                days[id] = domain.reserve(days[id], wanted)
    for day_state in days.values():
        tx.save(day_state)


async def release(tx: Transaction, sessions: Sequence[Session]) -> None:
    """Free what these sessions had reserved."""
    await reserve(tx, [], released=sessions)


async def reschedule(
    session_id: str, starts_at: datetime, reason_code: RescheduleReason, if_match: Seen, database: Database
) -> Session:
    """Hold one session at another time; the checker must find nothing in the whole plan that was not wrong before.

    Raises `NotASlot` with the rule that stands in the way, `AlreadyReserved`, `SessionOver`, `PreconditionFailed`.
    """

    starts_at = starts_at.astimezone(UTC)

    async def work(tx: Transaction) -> Session:
        session = await tx.require(Session, session_id)
        if session.starts_at == starts_at:
            return session
        expect_revision(session, if_match)
        roster = await _roster(tx, session.cohort_id)
        tx.rely_on(roster)
        moved, event = domain.move(session, starts_at, reason_code=reason_code, now=clock.now())
        others = await tx.find(Session, {"cohort_id": session.cohort_id, "cancelled": False}, owner=roster)
        await _check(roster, others, moved, database)
        await reserve(tx, [moved], released=[session])
        return tx.save(moved, event)

    known = await database.get(Session, session_id)
    return await database.transaction(work, key=known.cohort_id if known else None)


async def _check(roster: Roster, sessions: Sequence[Session], moved: Session, database: Database) -> None:
    """The independent checker over the timetable as it would be. What it finds already (a trainer fell ill, and this

    is the first of that trainer's sessions to be moved) is no reason to refuse. Raises `NotASlot`.
    """
    grid, _ = _grid(roster)
    problem = await _problem(roster, grid, database, own=frozenset(session.id for session in sessions))

    def plan(of: Sequence[Session]) -> dict[str, Placement]:
        at = {s.event: timetable.placement_of(grid, s.starts_at, s.trainer_ids[0], s.room_id) for s in of}
        return {event: where for event, where in at.items() if where is not None}

    before = check(problem, plan(sessions))
    after = check(problem, plan([moved if session.id == moved.id else session for session in sessions]))
    if broken := [violation for violation in after if violation not in before or violation.event == moved.event]:
        raise domain.NotASlot(rule=broken[0].rule)


# --- attendance --------------------------------------------------------------------------------------------------


async def take_attendance(
    session_id: str, absences: Mapping[str, AttendanceStatus], database: Database
) -> list[Attendance]:
    """Record who attended: everybody of the session's groups but those named. Asking twice records once.

    Raises `SessionNotBegun`, `NotAttending`, `AttendanceTaken`.
    """

    async def work(tx: Transaction) -> list[Attendance]:
        session = await tx.require(Session, session_id)
        roster = await _roster(tx, session.cohort_id)
        tx.rely_on(roster)
        expected = domain.attendees(session, await store.groups_in(tx, roster), roster)
        ids = {id: domain.attendance_id(session.id, id) for id in (*expected, *absences)}
        recorded = await tx.load_many(Attendance, ids.values())
        known = {id: recorded[key] for id, key in ids.items() if key in recorded}
        if any(was.status is not absences.get(id, AttendanceStatus.PRESENT) for id, was in known.items()):
            raise domain.AttendanceTaken
        named = {id: status for id, status in absences.items() if id not in known or id in expected}
        taken = domain.take_attendance(session, expected, named, now=clock.now())
        if not session.attendance_taken:
            tx.save(session.but(attendance_taken=True))
        return [known.get(a.enrollment_id) or tx.save(a, event) for a, event in taken]

    known_session = await database.get(Session, session_id)
    return await database.transaction(work, key=known_session.cohort_id if known_session else None)


async def correct_attendance(
    session_id: str, enrollment_id: str, status: AttendanceStatus, reason_code: str, database: Database
) -> Attendance:
    """A recorded attendance was wrong. Raises `AttendanceNotTaken`."""

    async def work(tx: Transaction) -> Attendance:
        attendance = await tx.load(Attendance, domain.attendance_id(session_id, enrollment_id))
        if attendance is None:
            raise domain.AttendanceNotTaken
        if attendance.status is status:
            return attendance
        return tx.save(*domain.correct(attendance, status, reason_code=reason_code, now=clock.now()))

    return await database.transaction(work)
