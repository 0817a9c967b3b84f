"""A cohort as enrollment would announce it, and the people and rooms it is taught with. Every person is made up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from services.scheduling import commands
from services.scheduling.consumers import consumer
from services.scheduling.domain import LearningGroup, Room, RoomKind, Schedule, Session, Span, Trainer
from shared import reference
from shared.contracts import Event
from shared.contracts.enrollment import (
    CohortCancelled,
    CohortOpened,
    ParticipantEnrolled,
    ParticipantWithdrawn,
    SeatSource,
    WithdrawalReason,
)
from shared.mongo import Database
from tests.support import clock_at, deliver, uid

CURRICULUM = reference.curriculum("pkp-2019.1")
PROGRAMME = reference.programme("pkp")
MODULES = [module.code for module in CURRICULUM.modules]
BEFORE = datetime(2022, 2, 7, 3, 0, tzinfo=UTC)
"""Two weeks before the first session."""
START = date(2022, 2, 21)
SEVENTEEN_WEEKS = timedelta(weeks=17) - timedelta(days=1)


def trainer_id(number: int) -> str:
    return uid(number, 0x10)


def room_id(number: int) -> str:
    return uid(number, 0x11)


@dataclass
class Story:
    """A cohort of `size` participants of two agencies; `n` tells cohorts of one database apart."""

    n: int = 1
    size: int = 6
    starts_on: date = START

    def _id(self, number: int, kind: int) -> str:
        return uid(self.n * 1000 + number, kind)

    @property
    def cohort_id(self) -> str:
        return self._id(0, 1)

    @property
    def schedule_id(self) -> str:
        return self._id(0, 2)

    def enrollment(self, i: int) -> str:
        return self._id(i, 3)

    def person(self, i: int) -> str:
        return self._id(i, 4)

    def agency(self, i: int) -> str:
        return self._id(i % 2, 5)

    @property
    def coaches(self) -> list[str]:
        return [self._id(1, 6), self._id(2, 6)]

    @property
    def examiners(self) -> list[str]:
        return [self._id(1, 7), self._id(2, 7)]

    def opened(self, *, capacity: int = 40) -> CohortOpened:
        return CohortOpened(
            cohort_id=self.cohort_id,
            programme_id=PROGRAMME.id,
            rule_set_version="pkp-2019.1",
            curriculum_version="pkp-2019.1",
            number=self.n,
            year=self.starts_on.year,
            capacity=capacity,
            min_size=1,
            nominations_close_at=BEFORE,
            starts_on=self.starts_on,
            ends_on=self.starts_on + SEVENTEEN_WEEKS,
            zone="Asia/Jakarta",
            opened_at=BEFORE - timedelta(days=60),
        )

    def enrolled(self, i: int, *, number: int | None = None, at: datetime = BEFORE) -> ParticipantEnrolled:
        return ParticipantEnrolled(
            enrollment_id=self.enrollment(i),
            cohort_id=self.cohort_id,
            nomination_id=self._id(i, 8),
            participant_id=self.person(i),
            agency_id=self.agency(i),
            mentor_id=self._id(i, 9),
            programme_id=PROGRAMME.id,
            rule_set_version="pkp-2019.1",
            curriculum_version="pkp-2019.1",
            roster_number=number or i,
            seat_source=SeatSource.DIRECT if number is None else SeatSource.REPLACEMENT,
            enrolled_at=at,
        )

    def withdrawn(self, i: int, *, at: datetime = BEFORE) -> ParticipantWithdrawn:
        return ParticipantWithdrawn(
            enrollment_id=self.enrollment(i),
            cohort_id=self.cohort_id,
            participant_id=self.person(i),
            agency_id=self.agency(i),
            reason_code=WithdrawalReason.ASSIGNMENT,
            seat_released=True,
            effective_on=at.date(),
            withdrawn_at=at,
        )

    def cancelled(self, *, at: datetime = BEFORE) -> CohortCancelled:
        return CohortCancelled(cohort_id=self.cohort_id, reason_code="too-few-participants", cancelled_at=at)

    def everybody(self) -> list[Event]:
        return [self.opened(), *(self.enrolled(i) for i in range(1, self.size + 1))]


async def staff(
    database: Database, *, trainers: int = 4, seats: int = 40, away: Sequence[tuple[datetime, datetime]] = ()
) -> None:
    """Trainers for every module, the first of them away at times, and three rooms of either kind."""
    for number in range(1, trainers + 1):
        spans = [Span(starts_at=a, ends_at=b) for a, b in away] if number == 1 else []
        await commands.register_trainer(
            Trainer(id=trainer_id(number), modules=MODULES, unavailable=spans), database, None
        )
    for number in range(1, 7):
        kind = RoomKind.VIRTUAL if number <= 3 else RoomKind.PHYSICAL
        await commands.register_room(Room(id=room_id(number), kind=kind, seats=seats), database, None)


async def know(database: Database, story: Story, *, at: datetime = BEFORE) -> None:
    """Scheduling has heard of the cohort and of everybody in it."""
    fates = await deliver(consumer, database, *story.everybody(), at=at)
    assert fates.parked == 0


async def group(database: Database, story: Story) -> list[LearningGroup]:
    return await commands.form_groups(story.cohort_id, story.coaches, story.examiners, database)


async def draft(database: Database, story: Story) -> Schedule:
    return (await commands.draft(story.schedule_id, story.cohort_id, "asked", database))[0]


async def published(database: Database, *stories: Story) -> list[Session]:
    """The timetables of these cohorts are in force; the sessions of the first."""
    with clock_at(BEFORE):
        for story in stories:
            await know(database, story)
            await group(database, story)
            await draft(database, story)
            await commands.publish(story.schedule_id, database)
    return await sessions_of(database, stories[0])


async def sessions_of(database: Database, story: Story) -> list[Session]:
    return await database.query(Session, {"cohort_id": story.cohort_id}, sort=[("starts_at", 1), ("_id", 1)])


def of_module(sessions: Iterable[Session], code: str) -> list[Session]:
    return [session for session in sessions if session.module_id == CURRICULUM.module_id(code)]
