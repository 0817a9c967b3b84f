"""What the outside may ask of enrollment."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from datetime import date
from typing import Any

from pydantic import BaseModel, ConfigDict

from services.enrollment import domain
from services.enrollment.domain import Agency, Cohort, Enrollment, Nomination, Person
from shared import clock, reference
from shared.contracts.enrollment import WithdrawalReason
from shared.domain import Seen, expect_revision, same_request
from shared.errors import NotFound, Rejected
from shared.http import Idempotency
from shared.ids import Id, derive
from shared.mongo import Database, Transaction


async def register_agency(agency: Agency, database: Database) -> tuple[Agency, bool]:
    """The agency, and whether it is new. Asking twice registers once. Raises `AgencyCodeTaken`, `IdTaken`."""

    async def work(tx: Transaction) -> tuple[Agency, bool]:
        if known := await tx.load(Agency, agency.id):
            same_request(known.asked, agency.asked)
            return known, False
        code_id = derive("enrollment", "agency-code", agency.code)
        if await tx.load(domain.AgencyCode, code_id):
            raise domain.AgencyCodeTaken
        tx.save(domain.AgencyCode(id=code_id, agency_id=agency.id))
        return tx.save(agency, domain.register(agency, clock.now())), True

    return await database.transaction(work)


async def register_person(person: Person, database: Database, *, key: str, if_match: Seen) -> tuple[Person, bool]:
    """Register a person, or change name, address or zone of one; and whether the person is new.

    Raises `PersonKnown`, `IdTaken`, `PreconditionFailed`.
    The number's own digest is keyed, so that nobody who reads the database can try numbers out.
    """
    number_id = None
    if person.nip is not None:
        digest = hmac.new(key.encode(), b"nip|" + person.nip.encode(), hashlib.sha256).hexdigest()
        number_id = derive("enrollment", "person-number", digest)

    async def work(tx: Transaction) -> tuple[Person, bool]:
        known = await tx.load(Person, person.id)
        if known is not None:
            if known.asked == person.asked:
                return known, False
            if if_match is None or (known.nip, known.agency_id) != (person.nip, person.agency_id):
                same_request(known.asked, person.asked)
            expect_revision(known, if_match)
            changes = {name: getattr(person, name) for name in ("name", "email", "zone", "asked")}
            return tx.save(known.but(**changes)), False
        expect_revision(None, if_match)
        if number_id is not None:
            if await tx.load(domain.PersonNumber, number_id):
                raise domain.PersonKnown
            tx.save(domain.PersonNumber(id=number_id, person_id=person.id))
        return tx.save(person), True

    return await database.transaction(work)


async def open_cohort(cohort: Cohort, database: Database) -> tuple[Cohort, bool]:
    """Open a cohort on a programme and rule set of the reference data; and whether it is new. Twice opens once."""
    programme, rules = _rules(cohort)

    async def work(tx: Transaction) -> tuple[Cohort, bool]:
        if known := await tx.load(Cohort, cohort.id):
            same_request(known.asked, cohort.asked)
            return known, False
        number_id = derive("enrollment", "cohort-number", cohort.programme_id, cohort.year, cohort.number)
        if await tx.load(domain.CohortNumber, number_id):
            raise domain.CohortNumberTaken
        event = domain.open_cohort(cohort, rules, programme_code=programme.code, now=clock.now())
        tx.save(domain.CohortNumber(id=number_id, cohort_id=cohort.id))
        return tx.save(cohort, event), True

    return await database.transaction(work)


def _rules(cohort: Cohort) -> tuple[reference.Programme, reference.RuleSet]:
    try:
        programme = reference.programmes()[cohort.programme_id]
        rules = reference.rule_set(cohort.rule_set_version)
        curriculum = reference.curriculum(cohort.curriculum_version)
    except LookupError:
        raise domain.UnknownRules from None
    if curriculum.programme != programme.code:
        raise domain.UnknownRules
    return programme, rules


async def change_capacity(cohort_id: str, capacity: int, reason_code: str, database: Database) -> Cohort:
    async def work(tx: Transaction) -> Cohort:
        cohort = await tx.require(Cohort, cohort_id)
        if cohort.capacity == capacity:
            return cohort
        rules = reference.rule_set(cohort.rule_set_version)
        changed, event = domain.change_capacity(cohort, capacity, rules, reason_code=reason_code, now=clock.now())
        return tx.save(changed, event)

    return await database.transaction(work, key=cohort_id)


async def confirm_cohort(cohort_id: str, database: Database) -> Cohort:
    async def work(tx: Transaction) -> Cohort:
        cohort = await tx.require(Cohort, cohort_id)
        if cohort.status is domain.CohortStatus.CONFIRMED:
            return cohort
        return tx.save(*domain.confirm_cohort(cohort, now=clock.now()))

    return await database.transaction(work, key=cohort_id)


async def cancel_cohort(cohort_id: str, reason_code: str, database: Database) -> Cohort:
    async def work(tx: Transaction) -> Cohort:
        cohort = await tx.require(Cohort, cohort_id)
        if cohort.status is domain.CohortStatus.CANCELLED:
            return cohort
        return tx.save(*domain.cancel_cohort(cohort, reason_code=reason_code, now=clock.now()))

    return await database.transaction(work, key=cohort_id)


class Nominee(BaseModel):
    """One row of a bulk nomination."""

    model_config = ConfigDict(extra="forbid")

    person_id: Id
    mentor_id: Id
    documents: domain.Documents
    facts: domain.Facts
    replaces: Id | None = None


class RowOutcome(BaseModel):
    """What became of one row: the nomination, or why there is none."""

    person_id: Id
    nomination_id: Id | None = None
    status: domain.NominationStatus | None = None
    problem: str | None = None


async def nominate(
    cohort_id: str, agency_id: str, nominees: Sequence[Nominee], database: Database, idempotency: Idempotency | None
) -> list[RowOutcome]:
    """Nominate an agency's people in bulk: every row by itself is taken or told why not; asking twice changes nothing.

    A returned nomination that is sent again is submitted again with what it now says; under an Idempotency-Key that
    was used before, nothing is: each row is told as it stands. The mentor is the nominee's superior: another person
    of the same agency. Raises `NotFound` for the cohort or agency.
    """

    async def work(tx: Transaction) -> list[RowOutcome]:
        cohort = await tx.require(Cohort, cohort_id)
        await tx.require(Agency, agency_id)
        replayed = idempotency is not None and await idempotency.replay(tx) is not None
        if idempotency is not None and not replayed:
            idempotency.remember(tx, 200, f"/v1/cohorts/{cohort_id}/nominations")
        tx.rely_on(cohort)
        ids = {row.person_id: domain.nomination_id(cohort_id, row.person_id) for row in nominees}
        known = await tx.load_many(Nomination, ids.values())
        people = await tx.load_many(Person, [id for row in nominees for id in (row.person_id, row.mentor_id)])
        replaced = await tx.load_many(Enrollment, [row.replaces for row in nominees if row.replaces])
        outcomes: dict[str, RowOutcome] = {}
        for row in nominees:
            outcome = RowOutcome(person_id=row.person_id)
            if row.person_id not in outcomes:
                outcomes[row.person_id] = outcome
            else:
                continue
            person, mentor = people.get(row.person_id), people.get(row.mentor_id)
            if person is None or mentor is None or {person.agency_id, mentor.agency_id} != {agency_id}:
                outcome.problem = NotFound.code
                continue
            if person.id == mentor.id:
                outcome.problem = "own-mentor"
                continue
            before = known.get(ids[row.person_id])
            if before is not None and (replayed or before.status is not domain.NominationStatus.RETURNED):
                outcome.nomination_id, outcome.status = before.id, before.status
                if before.agency_id != agency_id:
                    outcome.nomination_id, outcome.status, outcome.problem = None, None, "id-taken"
                continue
            asked: dict[str, Any] = {
                "mentor_id": row.mentor_id,
                "documents": row.documents,
                "facts": row.facts,
                "replaces": row.replaces,
                "status": domain.NominationStatus.SUBMITTED,
                "reason_code": None,
            }
            nomination = (
                before.but(**asked)
                if before
                else Nomination(
                    id=ids[row.person_id],
                    cohort_id=cohort_id,
                    participant_id=row.person_id,
                    agency_id=agency_id,
                    **asked,
                )
            )
            try:
                event = domain.nominate(cohort, nomination, replaced.get(row.replaces or ""), now=clock.now())
            except Rejected as refusal:
                outcome.problem = refusal.code
                continue
            if replayed:
                outcome.problem = "not-nominated"  # could be now, but was not when this was asked
                continue
            tx.save(nomination, event)
            if row.replaces is not None:
                replaced[row.replaces] = tx.save(replaced[row.replaces].but(replaced_by=nomination.id))
            outcome.nomination_id, outcome.status = nomination.id, nomination.status
        return list(outcomes.values())

    return await database.transaction(work, key=cohort_id)


async def decide_nomination(
    nomination_id: str, decision: domain.Decision, reason_code: str | None, database: Database
) -> Nomination:
    """Verify, return or reject a submitted nomination; the rule set is asked, not only the organiser.

    A replacement that is returned or rejected gives way to another. Raises `CohortNotOpen` once it was cancelled.
    """
    status = domain.NominationStatus
    settled = {
        domain.Decision.VERIFY: (status.VERIFIED, status.ACCEPTED, status.CONFIRMED),
        domain.Decision.RETURN: (status.RETURNED,),
        domain.Decision.REJECT: (status.REJECTED,),
    }

    async def work(tx: Transaction) -> Nomination:
        nomination = await tx.require(Nomination, nomination_id)
        if nomination.status in settled[decision]:
            return nomination
        cohort = await tx.require(Cohort, nomination.cohort_id)
        if cohort.status is domain.CohortStatus.CANCELLED:
            raise domain.CohortNotOpen
        tx.rely_on(cohort)
        rules = reference.rule_set(cohort.rule_set_version)
        decided, event = domain.verify(nomination, decision, rules, reason_code=reason_code, now=clock.now())
        if nomination.replaces is not None and decision is not domain.Decision.VERIFY:
            replaced = await tx.require(Enrollment, nomination.replaces)
            if replaced.replaced_by == nomination.id:
                tx.save(replaced.but(replaced_by=None))
        return tx.save(decided, event)

    known = await database.get(Nomination, nomination_id)
    return await database.transaction(work, key=known.cohort_id if known else None)


async def accept_nomination(nomination_id: str, database: Database) -> Nomination:
    """Take a verified nominee. Asking twice accepts once. Raises `CohortNotOpen`, `NominationNotReady`."""

    async def work(tx: Transaction) -> Nomination:
        nomination = await tx.require(Nomination, nomination_id)
        if nomination.status in (domain.NominationStatus.ACCEPTED, domain.NominationStatus.CONFIRMED):
            return nomination
        cohort = await tx.require(Cohort, nomination.cohort_id)
        tx.rely_on(cohort)
        return tx.save(domain.accept(cohort, nomination))

    known = await database.get(Nomination, nomination_id)
    return await database.transaction(work, key=known.cohort_id if known else None)


async def confirm_nomination(nomination_id: str, cohort_id: str, database: Database) -> Enrollment:
    """Confirm into a seat, and announce it in the same commit. Asking twice gives the same enrollment."""

    async def work(tx: Transaction) -> Enrollment:
        nomination = await tx.require(Nomination, nomination_id)
        if known := await tx.load(Enrollment, domain.enrollment_id(nomination_id)):
            return known
        cohort = await tx.require(Cohort, nomination.cohort_id)
        cohort, nomination, enrollment, event = domain.enroll(cohort, nomination, now=clock.now())
        tx.save(cohort)
        tx.save(nomination)
        return tx.save(enrollment, event)

    return await database.transaction(work, key=cohort_id)


async def withdraw(
    enrollment_id: str, cohort_id: str, reason_code: WithdrawalReason, effective_on: date, database: Database
) -> Enrollment:
    """Give up the seat. Asking twice withdraws once."""

    async def work(tx: Transaction) -> Enrollment:
        enrollment = await tx.require(Enrollment, enrollment_id)
        if enrollment.status is domain.EnrollmentStatus.WITHDRAWN:
            if (enrollment.reason_code, enrollment.effective_on) != (reason_code, effective_on):
                raise domain.NotEnrolled
            return enrollment
        cohort = await tx.require(Cohort, enrollment.cohort_id)
        cohort, enrollment, event = domain.withdraw(
            cohort, enrollment, reason_code=reason_code, effective_on=effective_on, now=clock.now()
        )
        tx.save(cohort)
        return tx.save(enrollment, event)

    return await database.transaction(work, key=cohort_id)
