"""Scheduling's collections: indexes and queries."""

from __future__ import annotations

from pymongo import ASCENDING, IndexModel

from services.scheduling.domain import (
    Attendance,
    LearningGroup,
    ResourceDay,
    Room,
    Roster,
    Search,
    SearchStatus,
    Session,
    Trainer,
)
from services.scheduling.domain import group_id as group_id_of
from shared.mongo import Database, Transaction

INDEXES = {
    "sessions": [IndexModel([("cohort_id", ASCENDING), ("starts_at", ASCENDING)])],
    "attendance": [IndexModel([("session_id", ASCENDING)])],
    "searches": [IndexModel([("status", ASCENDING), ("asked_at", ASCENDING)])],
    "resource_days": [IndexModel([("day", ASCENDING)])],
}


async def sessions_of(database: Database, cohort_id: str) -> list[Session]:
    """The sessions of a cohort in the order of time, cancelled ones included."""
    return await database.query(Session, {"cohort_id": cohort_id}, sort=[("starts_at", 1), ("_id", 1)])


async def attendance_of(database: Database, session_id: str) -> list[Attendance]:
    return await database.query(Attendance, {"session_id": session_id})


async def groups_of(database: Database, roster: Roster) -> list[LearningGroup]:
    ids = [group_id_of(roster.id, n) for n in range(1, roster.group_count + 1)]
    return sorted((await database.get_many(LearningGroup, ids)).values(), key=lambda g: g.number)


async def groups_in(tx: Transaction, roster: Roster) -> list[LearningGroup]:
    ids = [group_id_of(roster.id, n) for n in range(1, roster.group_count + 1)]
    return sorted((await tx.load_many(LearningGroup, ids)).values(), key=lambda g: g.number)


async def open_searches(database: Database) -> list[Search]:
    """Searches that have not ended, the longest waiting first."""
    open_ = [SearchStatus.ASKED.value, SearchStatus.SEARCHING.value]
    return await database.query(Search, {"status": {"$in": open_}}, sort=[("asked_at", 1), ("_id", 1)])


async def trainers(database: Database) -> list[Trainer]:
    return await database.query(Trainer, {})


async def rooms(database: Database) -> list[Room]:
    return await database.query(Room, {})


async def reserved_between(database: Database, first: str, last: str) -> list[ResourceDay]:
    """What is taken on the days of a cohort."""
    return await database.query(ResourceDay, {"day": {"$gte": first, "$lte": last}})
