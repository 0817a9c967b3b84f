"""What the outside may ask of assessment."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import date
from decimal import Decimal
from zoneinfo import ZoneInfo

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.assessment import domain, settling, store
from services.assessment.domain import (
    CertificateCounter,
    ChangeProject,
    Cohort,
    Credential,
    Judgement,
    ModuleLedger,
    ModuleResult,
    Record,
    SealedCertificate,
)
from shared import clock, reference
from shared.contacts import Contact
from shared.contracts.assessment import Outcome, ProjectStage
from shared.domain import same_request
from shared.ids import derive
from shared.mongo import Database, Transaction

Names = Callable[[Iterable[str]], Awaitable[Mapping[str, Contact]]]


async def _cohort(tx: Transaction, cohort_id: str, *, locked: bool = False) -> Cohort:
    """The cohort whose rules are known. Raises `CohortUnknown`, `CohortCancelled`; after graduation `MarksLocked`."""
    cohort = await tx.load(Cohort, cohort_id)
    if cohort is None or cohort.rule_set_version is None:
        raise domain.CohortUnknown
    if cohort.cancelled:
        raise domain.CohortCancelled
    if cohort.locked and not locked:
        raise domain.MarksLocked
    return cohort


def _rules(cohort: Cohort) -> tuple[reference.RuleSet, reference.Curriculum]:
    assert cohort.rule_set_version and cohort.curriculum_version
    return reference.rule_set(cohort.rule_set_version), reference.curriculum(cohort.curriculum_version)


# --- marks -------------------------------------------------------------------------------------------------------


async def mark_module(
    cohort_id: str, module_id: str, scores: Mapping[str, Decimal], database: Database
) -> list[ModuleResult]:
    """Record the marks of first attempts at a module, all or none; decides what only waited for its mark.

    Raises `MarksLocked`, `ModuleNotScored`, `NotInCohort`.
    """

    async def work(tx: Transaction) -> list[ModuleResult]:
        cohort = await _cohort(tx, cohort_id)
        tx.rely_on(cohort)
        rules, curriculum = _rules(cohort)
        module = curriculum.by_id().get(module_id)
        if module is None or module.component is None:
            raise domain.ModuleNotScored
        if strangers := sorted(set(scores) - set(cohort.members)):
            raise domain.NotInCohort(enrollment_ids=strangers)
        ledger = await tx.load(ModuleLedger, domain.ledger_id(cohort_id, module_id))
        if ledger is not None:
            tx.rely_on(ledger)
        ids = {e: domain.result_id(e, module_id, 1) for e in scores}
        known = await tx.load_many(ModuleResult, ids.values())
        marked = []
        for enrollment_id, score in scores.items():
            result = known.get(ids[enrollment_id]) or settling.new_result(cohort, enrollment_id, module_id, 1)
            result, events = domain.mark(result, score, rules, now=clock.now())
            if ledger is not None and ledger.closed and enrollment_id in ledger.taking_part:
                result = result.but(absence_jp=domain.absence_jp(ledger, cohort, enrollment_id))
                result, decided = domain.settle(
                    result, module, rules, locked=False, reason_code="mark-changed", now=clock.now()
                )
                events += decided
            marked.append(tx.save(result, *events) if events or ids[enrollment_id] not in known else result)
        return marked

    return await database.transaction(work, key=cohort_id)


async def mark_attempt(
    enrollment_id: str, module_id: str, attempt: int, score: Decimal, database: Database
) -> ModuleResult:
    """Record the mark of a repeated attempt (remedial) and decide it. Raises `NoAttemptLeft`, `MarksLocked`."""

    async def work(tx: Transaction) -> ModuleResult:
        record = await tx.require(Record, enrollment_id)
        cohort = await _cohort(tx, record.cohort_id)
        tx.rely_on(cohort)
        rules, curriculum = _rules(cohort)
        module = curriculum.by_id().get(module_id)
        before = await tx.load(ModuleResult, domain.result_id(enrollment_id, module_id, attempt - 1))
        if (
            module is None
            or not 2 <= attempt <= rules.attempts.value
            or before is None
            or before.outcome is not Outcome.NOT_PASSED
        ):
            raise domain.NoAttemptLeft
        tx.rely_on(before)
        id = domain.result_id(enrollment_id, module_id, attempt)
        known = await tx.load(ModuleResult, id)
        result, events = domain.mark(
            known or settling.new_result(cohort, enrollment_id, module_id, attempt), score, rules, now=clock.now()
        )
        result, decided = domain.settle(
            result, module, rules, locked=False, reason_code="mark-changed", now=clock.now()
        )
        events += decided
        return tx.save(result, *events) if events else result

    return await database.transaction(work)


# --- change projects ---------------------------------------------------------------------------------------------


async def register_project(
    project_id: str, enrollment_id: str, theme: str, asked: str, database: Database
) -> tuple[ChangeProject, bool]:
    """Register a participant's change project; and whether it is new. Asking twice registers once.

    Raises `ProjectExists`, `IdTaken`, `NotFound`.
    """

    async def work(tx: Transaction) -> tuple[ChangeProject, bool]:
        if known := await tx.load(ChangeProject, project_id):
            same_request(known.asked, asked)
            return known, False
        record = await tx.require(Record, enrollment_id)
        tx.rely_on(await _cohort(tx, record.cohort_id))
        if record.project_id is not None:
            raise domain.ProjectExists(project_id=record.project_id)
        tx.save(record.but(project_id=project_id))
        project = tx.save(
            ChangeProject(
                id=project_id,
                cohort_id=record.cohort_id,
                enrollment_id=record.id,
                participant_id=record.participant_id,
                agency_id=record.agency_id,
                theme=theme,
                asked=asked,
            )
        )
        return project, True

    return await database.transaction(work)


async def consent(project_id: str, database: Database) -> ChangeProject:
    """The mentor agrees to the project. Asking twice agrees once."""

    async def work(tx: Transaction) -> ChangeProject:
        project = await tx.require(ChangeProject, project_id)
        if project.consented_at is not None:
            return project
        return tx.save(*domain.consent(project, clock.now()))

    return await database.transaction(work)


async def hold_seminar(
    project_id: str, stage: ProjectStage, attempt: int, scores: Mapping[str, Decimal], database: Database
) -> ChangeProject:
    """Record an examiner's marks of a seminar. The same marks again change nothing.

    Raises `ConsentMissing`, `SeminarNotDue`, `CriteriaMismatch`, `MarksLocked`.
    """

    async def work(tx: Transaction) -> ChangeProject:
        project = await tx.require(ChangeProject, project_id)
        cohort = await _cohort(tx, project.cohort_id)
        tx.rely_on(cohort)
        rules, _ = _rules(cohort)
        held = next((s for s in project.seminars if (s.stage, s.attempt) == (stage, attempt)), None)
        if held is not None and held.criteria == scores:
            return project
        changed, events = domain.hold_seminar(project, stage, attempt, scores, rules, now=clock.now())
        return tx.save(changed, *events)

    return await database.transaction(work)


# --- graduation --------------------------------------------------------------------------------------------------


async def decide_graduation(cohort_id: str, decision_id: str, decided_on: date, database: Database) -> list[Record]:
    """The graduation meeting: judge every participant, announce it, lock the marks; all at once.

    Raises `MarksIncomplete` with what is missing for whom, `AlreadyDecided`.
    """

    async def work(tx: Transaction) -> list[Record]:
        cohort = await _cohort(tx, cohort_id, locked=True)
        records = await tx.load_many(Record, cohort.active)
        if cohort.locked:
            if (cohort.decision_id, cohort.decided_on) != (decision_id, decided_on):
                raise domain.AlreadyDecided
            return list(records.values())
        if len(records) < max(1, len(cohort.active)):
            raise domain.MarksIncomplete(missing={})
        judgements = await _judge(tx, cohort, records)
        tx.save(cohort.but(decision_id=decision_id, decided_on=decided_on))
        return [
            tx.save(*domain.announce(records[j.enrollment_id], j, cohort, decision_id, decided_on)) for j in judgements
        ]

    return await database.transaction(work, key=cohort_id)


async def _judge(tx: Transaction, cohort: Cohort, records: Mapping[str, Record]) -> list[Judgement]:
    rules, curriculum = _rules(cohort)
    results: dict[str, list[ModuleResult]] = {}
    for result in await tx.find(ModuleResult, {"cohort_id": cohort.id}, owner=cohort):
        results.setdefault(result.enrollment_id, []).append(result)
    projects = await tx.load_many(ChangeProject, [r.project_id for r in records.values() if r.project_id])
    ledgers = await store.ledgers(tx, cohort)
    judgements, lacking = [], {}
    for id, record in records.items():
        own = domain.last_attempts(results.get(id, ()))
        project = projects.get(record.project_id or "")
        if codes := domain.missing(own, project, curriculum, rules):
            lacking[id] = codes
        else:
            absences = domain.absences_of(ledgers, cohort, id)
            judgements.append(domain.graduate(id, own, project, absences, curriculum, rules))
    if lacking:
        raise domain.MarksIncomplete(missing=lacking)
    return judgements


# --- certificates ------------------------------------------------------------------------------------------------


class Seal:
    """Encrypts what a certificate prints, so that the archive is unreadable without the installation's key."""

    def __init__(self, key: str) -> None:
        self._cipher = AESGCM(base64.urlsafe_b64decode(key))

    @staticmethod
    def fits(key: str) -> bool:
        """Whether this is a key: 32 bytes in URL-safe base64."""
        try:
            return len(base64.b64decode(key, altchars=b"-_", validate=True)) == 32
        except ValueError:
            return False

    def close(self, credential_id: str, name: str) -> str:
        nonce = secrets.token_bytes(12)
        sealed = self._cipher.encrypt(nonce, json.dumps({"name": name}).encode(), credential_id.encode())
        return base64.b64encode(nonce + sealed).decode()

    def open(self, credential_id: str, sealed: str) -> str:
        raw = base64.b64decode(sealed)
        opened = self._cipher.decrypt(raw[:12], raw[12:], credential_id.encode())
        return str(json.loads(opened)["name"])


async def issue_certificates(cohort_id: str, names: Names, seal: Seal, database: Database) -> list[Credential]:
    """Issue every participant's numbered certificate, without gaps; asking again issues only what is missing.

    Names are fetched first: while enrollment is away nothing is issued. Raises `NotDecided`, `HolderUnknown`,
    `Unavailable`.
    """
    cohort = await database.get(Cohort, cohort_id)
    if cohort is None or not cohort.locked:
        raise domain.NotDecided
    holders = await store.awaiting_certificate(database, cohort)
    contacts = await names(holders.values()) if holders else {}
    if any(participant_id not in contacts for participant_id in holders.values()):
        raise domain.HolderUnknown
    sealed = {
        id: seal.close(domain.credential_id(id), contacts[participant_id].name)
        for id, participant_id in holders.items()
    }

    async def work(tx: Transaction) -> list[Credential]:
        cohort = await _cohort(tx, cohort_id, locked=True)
        tx.rely_on(cohort)
        rules, curriculum = _rules(cohort)
        programme = reference.programmes()[cohort.programme_id or ""]
        today = clock.now().astimezone(ZoneInfo(cohort.zone)).date()
        counter_id = derive("assessment", "certificate-counter", programme.organiser_code, today.year)
        counter = await tx.load(CertificateCounter, counter_id) or CertificateCounter(id=counter_id)
        records = await tx.load_many(Record, cohort.active)
        ids = {record.id: domain.credential_id(record.id) for record in records.values()}
        known = await tx.load_many(Credential, ids.values())
        await tx.load_many(SealedCertificate, ids.values())
        issued = list(known.values())
        last = counter.last
        for record in sorted(records.values(), key=lambda r: cohort.members[r.id].roster_number):
            if ids[record.id] in known or record.id not in sealed:
                continue
            last += 1
            credential, event = domain.issue(
                record,
                cohort,
                last,
                organiser=programme.organiser_code,
                pattern=rules.certificate_number.value,
                jp=curriculum.jp_on_campus.value + curriculum.jp_workplace.value,
                today=today,
            )
            tx.save(record.but(credential_id=credential.id))
            tx.save(SealedCertificate(id=credential.id, sealed=sealed[record.id]))
            issued.append(tx.save(credential, event))
        if last != counter.last:
            tx.save(counter.but(last=last))
        return sorted(issued, key=lambda c: c.number)

    return await database.transaction(work, key="certificates")
