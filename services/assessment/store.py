"""Assessment's collections: indexes, queries, and the loading that several decisions share."""

from __future__ import annotations

from pymongo import ASCENDING, IndexModel

from services.assessment import domain
from services.assessment.domain import Cohort, ModuleLedger, ModuleResult, Record
from shared import reference
from shared.mongo import Database, Transaction

INDEXES = {
    "module_results": [
        IndexModel([("cohort_id", ASCENDING)]),
        IndexModel([("enrollment_id", ASCENDING)]),
    ],
    "records": [IndexModel([("cohort_id", ASCENDING)])],
    "change_projects": [IndexModel([("cohort_id", ASCENDING)])],
    "module_ledgers": [IndexModel([("cohort_id", ASCENDING)])],
}


async def results_of(database: Database, enrollment_id: str) -> list[ModuleResult]:
    return await database.query(ModuleResult, {"enrollment_id": enrollment_id})


async def results_in(database: Database, cohort_id: str) -> list[ModuleResult]:
    return await database.query(ModuleResult, {"cohort_id": cohort_id})


async def records_in(database: Database, cohort_id: str) -> list[Record]:
    return await database.query(Record, {"cohort_id": cohort_id})


async def ledgers_in(database: Database, cohort_id: str) -> list[ModuleLedger]:
    return await database.query(ModuleLedger, {"cohort_id": cohort_id})


async def awaiting_certificate(database: Database, cohort: Cohort) -> dict[str, str]:
    """The participants who were decided upon and have no certificate yet: enrollment → person."""
    records = await database.get_many(Record, cohort.active)
    return {r.id: r.participant_id for r in records.values() if r.graduated is not None and r.credential_id is None}


async def ledgers(tx: Transaction, cohort: Cohort) -> list[ModuleLedger]:
    """The ledgers of a cohort's modules, by their derived ids: the curriculum's, and the timetable's meanwhile."""
    modules = dict.fromkeys(cohort.plans)
    if cohort.curriculum_version is not None:
        modules |= dict.fromkeys(reference.curriculum(cohort.curriculum_version).by_id())
    ids = [domain.ledger_id(cohort.id, module_id) for module_id in modules]
    return list((await tx.load_many(ModuleLedger, ids)).values())
