"""The step that commands, consumers and timers share: close what is complete, decide what can be decided.

Facts of two topics arrive in any order. Whoever brings the last input of a decision runs it, through here.
"""

from __future__ import annotations

from collections.abc import Iterable

from services.assessment import domain
from services.assessment.domain import Cohort, ModuleLedger, ModuleResult
from shared import clock, reference
from shared.mongo import Transaction

CLOSING = "module-closing"


async def advance(tx: Transaction, cohort: Cohort, ledger: ModuleLedger, *, reason_code: str) -> ModuleLedger:
    """Close the module if it is complete, see to its timer, and decide the results of a closed one."""
    if cohort.rule_set_version is None:
        return ledger
    rules = reference.rule_set(cohort.rule_set_version)
    if not ledger.closed:
        if domain.complete(ledger, cohort):
            await tx.cancel_timer(CLOSING, ledger.id)
            ledger = tx.save(domain.close(ledger, cohort))
        elif ledger.module_id in cohort.plans and (due_at := domain.closes_at(ledger, rules)) is not None:
            await tx.set_timer(CLOSING, ledger.id, due_at, cohort_id=cohort.id, ledger_id=ledger.id)
    if ledger.closed:
        await decide(tx, cohort, ledger, ledger.taking_part, reason_code=reason_code)
    return ledger


async def decide(
    tx: Transaction, cohort: Cohort, ledger: ModuleLedger, enrollment_ids: Iterable[str], *, reason_code: str
) -> None:
    """Decide, or decide again, the first attempts of these participants at a closed module."""
    if cohort.rule_set_version is None or cohort.curriculum_version is None:
        return
    module = reference.curriculum(cohort.curriculum_version).by_id().get(ledger.module_id)
    if module is None:
        return
    rules = reference.rule_set(cohort.rule_set_version)
    concerned = [id for id in enrollment_ids if id in cohort.members and id in ledger.taking_part]
    ids = {id: domain.result_id(id, ledger.module_id, 1) for id in concerned}
    known = await tx.load_many(ModuleResult, ids.values())
    for enrollment_id, id in ids.items():
        result = known.get(id) or new_result(cohort, enrollment_id, ledger.module_id, 1)
        missed = domain.absence_jp(ledger, cohort, enrollment_id)
        before = result
        if result.absence_jp != missed:
            result = result.but(absence_jp=missed)
        result, events = domain.settle(
            result, module, rules, locked=cohort.locked, reason_code=reason_code, now=clock.now()
        )
        if events or result != before or id not in known:
            tx.save(result, *events)


def new_result(cohort: Cohort, enrollment_id: str, module_id: str, attempt: int) -> ModuleResult:
    member = cohort.members[enrollment_id]
    return ModuleResult(
        id=domain.result_id(enrollment_id, module_id, attempt),
        cohort_id=cohort.id,
        enrollment_id=enrollment_id,
        participant_id=member.participant_id,
        agency_id=member.agency_id,
        module_id=module_id,
        attempt=attempt,
    )
