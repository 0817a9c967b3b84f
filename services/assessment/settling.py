"""The step that commands, consumers and timers share: close what is complete, decide what can be decided.

Facts of two topics arrive in any order. Whoever brings the last input of a decision runs it, through here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.assessment import domain
from services.assessment.domain import Cohort, ModuleLedger, ModuleResult
from shared import clock, reference
from shared.mongo import Transaction

CLOSING = "module-closing"


async def advance(tx: Transaction, cohort: Cohort, ledger: ModuleLedger, *, reason_code: str) -> ModuleLedger:
    """Close the module if it is over and complete, see to its timer, and decide the results of a closed one."""
    if not ledger.closed:
        over_at = domain.last_session_ends_at(ledger)
        if over_at is not None and over_at <= clock.now() and domain.complete(ledger, cohort):
            await tx.cancel_timer(CLOSING, ledger.id)
            ledger = tx.save(domain.close(ledger, cohort))
        elif ledger.module_id in cohort.plans:
            rules = reference.rule_set(cohort.rule_set_version) if cohort.rule_set_version else None
            if (due_at := domain.closes_at(ledger, cohort, rules)) is not None:
                await tx.set_timer(CLOSING, ledger.id, due_at, cohort_id=cohort.id, ledger_id=ledger.id)
            else:
                await tx.cancel_timer(CLOSING, ledger.id)
    if ledger.closed:
        ledger = await decide(tx, cohort, ledger, ledger.taking_part, reason_code=reason_code)
    return ledger


async def admit(tx: Transaction, cohort: Cohort, ledger: ModuleLedger) -> ModuleLedger:
    """Whoever joins a group after the module closed gets a result too, and may make up for what was missed."""
    joined = sorted(domain.belonging(ledger, cohort).difference(ledger.taking_part))
    if not joined:
        return ledger
    ledger = tx.save(ledger.but(taking_part=sorted([*ledger.taking_part, *joined])))
    return await decide(tx, cohort, ledger, joined, reason_code="late-input")


async def decide(
    tx: Transaction, cohort: Cohort, ledger: ModuleLedger, enrollment_ids: Iterable[str], *, reason_code: str
) -> ModuleLedger:
    """Decide, or decide again, the first attempts of these participants at a closed module.

    While enrollment has not told of a participant, each state of the absence is noted instead and decided afterwards
    one by one: what is announced does not depend on which topic was faster.
    """
    concerned = [id for id in enrollment_ids if id in ledger.taking_part]
    changes = {
        id: domain.Change(absence_jp=domain.absence_jp(ledger, cohort, id), reason_code=reason_code) for id in concerned
    }
    undecided = dict(ledger.undecided)
    if cohort.rule_set_version is None or cohort.curriculum_version is None:
        waiting, ready = concerned, []
    else:
        waiting = [id for id in concerned if id not in cohort.members]
        ready = [id for id in concerned if id in cohort.members]
    for id in waiting:
        noted = undecided.get(id, [])
        if not noted or noted[-1].absence_jp != changes[id].absence_jp:
            undecided[id] = [*noted, changes[id]]
    if ready:
        await _decide(tx, cohort, ledger.module_id, {id: [*undecided.pop(id, []), changes[id]] for id in ready})
    return ledger if undecided == ledger.undecided else tx.save(ledger.but(undecided=undecided))


async def _decide(tx: Transaction, cohort: Cohort, module_id: str, changes: Mapping[str, list[domain.Change]]) -> None:
    assert cohort.rule_set_version and cohort.curriculum_version
    module = reference.curriculum(cohort.curriculum_version).by_id().get(module_id)
    if module is None:
        return
    rules = reference.rule_set(cohort.rule_set_version)
    ids = {id: domain.result_id(id, module_id, 1) for id in changes}
    known = await tx.load_many(ModuleResult, ids.values())
    for enrollment_id, id in ids.items():
        result = known.get(id)
        for change in changes[enrollment_id]:
            before = result or new_result(cohort, enrollment_id, module_id, 1)
            after, events = domain.settle(
                before.but(absence_jp=change.absence_jp),
                module,
                rules,
                locked=cohort.locked,
                reason_code=change.reason_code,
                now=clock.now(),
            )
            if result is None or events or after != before:
                result = tx.save(after, *events)


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
