"""Enrollment's collections: indexes and queries."""

from __future__ import annotations

from collections.abc import Iterable

from pymongo import ASCENDING, IndexModel

from services.enrollment.domain import Agency, Cohort, Enrollment, Nomination, Person
from shared.mongo import Database

INDEXES = {
    "nominations": [IndexModel([("cohort_id", ASCENDING)])],
    "enrollments": [IndexModel([("cohort_id", ASCENDING)])],
}


async def enrollments_of(database: Database, cohort_id: str) -> list[Enrollment]:
    """Every enrollment of a cohort, withdrawn ones included, by roster number."""
    return await database.query(Enrollment, {"cohort_id": cohort_id}, sort=[("roster_number", 1), ("_id", 1)])


async def agencies_named(database: Database, ids: Iterable[str]) -> dict[str, Agency]:
    return await database.get_many(Agency, ids)


async def agencies(database: Database, limit: int, after: str | None) -> tuple[list[Agency], str | None]:
    return await database.page(Agency, {}, limit=limit, after=after)


async def cohorts(database: Database, limit: int, after: str | None) -> tuple[list[Cohort], str | None]:
    return await database.page(Cohort, {}, limit=limit, after=after)


async def nominations_of(
    database: Database, cohort_id: str, agency_ids: Iterable[str] | None, limit: int, after: str | None
) -> tuple[list[Nomination], str | None]:
    """Nominations of a cohort; of some agencies only, unless None."""
    filter: dict[str, object] = {"cohort_id": cohort_id}
    if agency_ids is not None:
        filter["agency_id"] = {"$in": sorted(agency_ids)}
    return await database.page(Nomination, filter, limit=limit, after=after)


async def people(database: Database, ids: Iterable[str]) -> dict[str, Person]:
    return await database.get_many(Person, ids)
