"""A tiny training world for the kernel's tests: cohorts with seats, and enrollments in them."""

from __future__ import annotations

from typing import ClassVar

from shared.contracts.enrollment import CohortConfirmed, ParticipantEnrolled, SeatSource
from shared.domain import State
from shared.errors import Rejected
from shared.mongo import Database, Transaction
from tests.support import START, uid

COHORT = uid(1, 0xC)


class Full(Rejected):
    """Every seat is taken."""


class Cohort(State):
    collection: ClassVar[str] = "cohorts"
    editable: ClassVar[frozenset[str]] = frozenset({"label"})

    taken: int = 0
    open: bool = True
    label: str = "a"


class Enrollment(State):
    collection: ClassVar[str] = "enrollments"

    cohort_id: str


def enrolled(number: int, *, cohort_id: str = COHORT, agency: int = 1) -> ParticipantEnrolled:
    """The fact that participant `number` holds a seat."""
    return ParticipantEnrolled(
        enrollment_id=uid(number, 0xE),
        cohort_id=cohort_id,
        nomination_id=uid(number, 0xA),
        participant_id=uid(number, 0xB),
        agency_id=uid(agency, 0xD),
        mentor_id=uid(number, 0xF),
        programme_id=uid(1),
        rule_set_version="pkp-2019.1",
        curriculum_version="pkp-2019.1",
        roster_number=number,
        seat_source=SeatSource.DIRECT,
        enrolled_at=START,
    )


def confirmed(size: int, *, cohort_id: str = COHORT) -> CohortConfirmed:
    return CohortConfirmed(cohort_id=cohort_id, size=size, confirmed_at=START)


async def open_cohort(database: Database, cohort_id: str = COHORT) -> Cohort:
    async def work(tx: Transaction) -> Cohort:
        await tx.load(Cohort, cohort_id)
        return tx.save(Cohort(id=cohort_id))

    return await database.transaction(work)


async def enroll(database: Database, number: int, *, capacity: int = 40, cohort_id: str = COHORT) -> Enrollment:
    """Take a seat and announce it; raises `Full`."""

    async def work(tx: Transaction) -> Enrollment:
        if known := await tx.load(Enrollment, uid(number, 0xE)):
            return known
        cohort = await tx.require(Cohort, cohort_id)
        if cohort.taken >= capacity:
            raise Full
        tx.save(cohort.but(taken=cohort.taken + 1))
        event = enrolled(number, cohort_id=cohort_id)
        return tx.save(Enrollment(id=event.enrollment_id, cohort_id=cohort_id), event)

    return await database.transaction(work, key=cohort_id)
