"""Commands on a real database: once, in order, and never a seat too many."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta

import pytest

from services.enrollment import commands, domain
from services.enrollment.domain import Agency, Cohort, Enrollment, NominationStatus, Person
from shared.contracts.enrollment import (
    AgencyKind,
    AgencyRegistered,
    CohortCancelled,
    CohortOpened,
    NominationSubmitted,
    NominationVerified,
    ParticipantEnrolled,
    ParticipantWithdrawn,
    WithdrawalReason,
)
from shared.errors import IdTaken
from shared.http import Idempotency
from shared.mongo import Database, Transaction
from tests.enrollment.story import COHORT, NOW, accepted, nominee, opened, registered
from tests.support import announced, clock_at, many, uid


async def test_asking_twice_opens_one_cohort_and_another_request_under_its_id_is_refused(database: Database) -> None:
    await opened(database)
    await opened(database)
    assert len(await announced(database, CohortOpened)) == 1
    with pytest.raises(IdTaken):
        await opened(database, asked="other")


async def test_a_programme_has_one_cohort_of_a_number_and_year(database: Database) -> None:
    await opened(database)
    with pytest.raises(domain.CohortNumberTaken):
        await opened(database, id=uid(2, 0xC))


async def test_a_cohort_needs_rules_that_exist_and_belong_together(database: Database) -> None:
    for wrong in ({"rule_set_version": "none.1"}, {"programme_id": uid(9)}, {"curriculum_version": "other.1"}):
        with pytest.raises(domain.UnknownRules):
            await opened(database, **wrong)
    assert await database.query(Cohort, {}) == []


async def test_an_agency_code_is_never_used_again(database: Database) -> None:
    await registered(database, 1)
    with pytest.raises(domain.AgencyCodeTaken):
        again = Agency(id=uid(99, 0xA), code="agency-1", kind=AgencyKind.LPNK, name="x", asked="x")
        await commands.register_agency(again, database)
    assert len(await announced(database, AgencyRegistered)) == 1


async def test_a_personnel_number_belongs_to_one_person_and_stays_in_one_collection(database: Database) -> None:
    def person(number: int) -> Person:
        return Person(
            id=uid(number), name="generated", email="g@example.go.id", nip="198001012005011001", asked=str(number)
        )

    await commands.register_person(person(1), database, key="k" * 16, if_match=None)
    with pytest.raises(domain.PersonKnown):
        await commands.register_person(person(2), database, key="k" * 16, if_match=None)
    numbers = await database.collection("person_numbers").find({}).to_list(None)
    assert "198001012005011001" not in str(numbers) and len(numbers) == 1


async def test_bulk_nomination_tells_each_row_by_itself_and_twice_changes_nothing(database: Database) -> None:
    await opened(database)
    await registered(database, 1, 2)
    rows = [nominee(1), nominee(1), nominee(2), nominee(3)]
    with clock_at(NOW):
        first = await commands.nominate(COHORT, uid(1, 0xA), rows, database, None)
        again = await commands.nominate(COHORT, uid(1, 0xA), rows, database, None)
    assert first == again
    assert [(row.status, row.problem) for row in first] == [
        (NominationStatus.SUBMITTED, None),
        (None, "not-found"),  # another agency's person
        (None, "not-found"),  # nobody
    ]
    assert len(await announced(database, NominationSubmitted)) == 1


async def test_a_returned_nomination_can_be_completed_and_sent_again(database: Database) -> None:
    await opened(database)
    await registered(database, 1)
    with clock_at(NOW):
        (row,) = await commands.nominate(COHORT, uid(1, 0xA), [nominee(1, documents=[])], database, None)
        assert row.nomination_id
        await commands.decide_nomination(row.nomination_id, domain.Decision.RETURN, None, database)
        await commands.nominate(COHORT, uid(1, 0xA), [nominee(1)], database, None)
        kept = await commands.decide_nomination(row.nomination_id, domain.Decision.VERIFY, None, database)
    assert kept.status is NominationStatus.VERIFIED
    assert [e.sequence for e, _ in await announced(database) if e.subject == row.nomination_id] == [1, 2, 3, 4]


async def test_a_nominee_has_a_mentor_who_is_another_person_of_the_same_agency(database: Database) -> None:
    await opened(database)
    await registered(database, 1, 2)
    with clock_at(NOW):
        for mentor, problem in ((uid(1, 0xB), "own-mentor"), (uid(2, 0xD), "not-found"), (uid(9, 0xD), "not-found")):
            (row,) = await commands.nominate(COHORT, uid(1, 0xA), [nominee(1, mentor_id=mentor)], database, None)
            assert (row.nomination_id, row.problem) == (None, problem)
    assert await announced(database, NominationSubmitted) == []


async def test_a_request_replayed_late_submits_nothing_again(database: Database) -> None:
    """The first answer was lost, the nomination was returned meanwhile: the client's retry is no second submission."""
    await opened(database)
    await registered(database, 1, 2)

    async def asked() -> list[commands.RowOutcome]:
        rows = [nominee(1), nominee(2)]
        return await commands.nominate(COHORT, uid(1, 0xA), rows, database, Idempotency("nominate-1", "c", "d"))

    with clock_at(NOW):
        first, _ = await asked()
        assert first.nomination_id
        await commands.decide_nomination(first.nomination_id, domain.Decision.RETURN, None, database)
        again, other = await asked()
    assert (again.nomination_id, again.status) == (first.nomination_id, NominationStatus.RETURNED)
    assert (other.nomination_id, other.problem) == (None, "not-found")
    assert len(await announced(database, NominationSubmitted)) == 1


async def test_who_is_accepted_was_verified_and_saying_so_again_changes_nothing(database: Database) -> None:
    await opened(database)
    await registered(database, 1)
    id = await accepted(database, 1)
    kept = await commands.decide_nomination(id, domain.Decision.VERIFY, None, database)
    assert kept.status is NominationStatus.ACCEPTED
    assert len(await announced(database, NominationVerified)) == 1


async def test_nobody_is_verified_for_a_cancelled_cohort(database: Database) -> None:
    await opened(database)
    await registered(database, 1)
    with clock_at(NOW):
        (row,) = await commands.nominate(COHORT, uid(1, 0xA), [nominee(1)], database, None)
        assert row.nomination_id
        await commands.cancel_cohort(COHORT, "too-few", database)
        with pytest.raises(domain.CohortNotOpen):
            await commands.decide_nomination(row.nomination_id, domain.Decision.VERIFY, None, database)


async def test_nobody_is_accepted_for_a_cancelled_cohort(database: Database) -> None:
    """Nor while it is being cancelled: whoever is accepted meanwhile makes the cancellation look again."""
    await opened(database)
    await registered(database, 1, 2)
    looks = 0
    with clock_at(NOW):
        one, two = [
            row.nomination_id or ""
            for n in (1, 2)
            for row in await commands.nominate(COHORT, uid(n, 0xA), [nominee(n)], database, None)
        ]
        for id in (one, two):
            await commands.decide_nomination(id, domain.Decision.VERIFY, None, database)

        async def cancel(tx: Transaction) -> None:
            nonlocal looks
            looks += 1
            cohort = await tx.require(Cohort, COHORT)
            if looks == 1:
                kept = await commands.accept_nomination(one, database)
                assert kept.status is NominationStatus.ACCEPTED
            tx.save(*domain.cancel_cohort(cohort, reason_code="too-few", now=NOW))

        await database.transaction(cancel)
        assert looks == 2
        with pytest.raises(domain.CohortNotOpen):
            await commands.accept_nomination(two, database)


async def test_two_hundred_confirm_at_once_and_exactly_forty_get_a_seat(database: Database) -> None:
    await opened(database)
    numbers = range(1, 201)
    await registered(database, *numbers)
    nominations = [await accepted(database, n) for n in numbers]
    with clock_at(NOW):
        outcomes = await asyncio.gather(
            *(commands.confirm_nomination(id, COHORT, database) for id in nominations), return_exceptions=True
        )
    seats = [outcome for outcome in outcomes if isinstance(outcome, Enrollment)]
    assert len(seats) == 40 and sorted(seat.roster_number for seat in seats) == list(range(1, 41))
    assert sum(isinstance(outcome, domain.CohortFull) for outcome in outcomes) == 160
    assert len(await announced(database, ParticipantEnrolled)) == 40


async def test_confirming_twice_enrolls_once(database: Database) -> None:
    await opened(database)
    await registered(database, 1)
    id = await accepted(database, 1)
    with clock_at(NOW):
        first, again = await asyncio.gather(*(commands.confirm_nomination(id, COHORT, database) for _ in range(2)))
    assert first.id == again.id
    assert len(await announced(database, ParticipantEnrolled)) == 1


async def test_a_withdrawal_frees_the_seat_for_the_agencys_replacement(database: Database) -> None:
    await opened(database, capacity=1, min_size=1)
    await registered(database, 1, 2)
    id = await accepted(database, 1)
    with clock_at(NOW):
        left = await commands.confirm_nomination(id, COHORT, database)
        day, why = date(2022, 2, 7), WithdrawalReason.ASSIGNMENT
        await commands.withdraw(left.id, COHORT, why, day, database)
        await commands.withdraw(left.id, COHORT, why, day, database)
        with pytest.raises(domain.NotEnrolled):
            await commands.withdraw(left.id, COHORT, why, day + timedelta(days=1), database)
    assert len(await announced(database, ParticipantWithdrawn)) == 1
    kept = await database.get(Cohort, COHORT)
    assert kept is not None and kept.seats == {}


async def test_two_cannot_take_the_place_of_one_unless_the_first_is_rejected(database: Database) -> None:
    await opened(database)
    await registered(database, 1)
    for number in (21, 22):  # two more of the same agency
        person = Person(
            id=uid(number, 0xB), name="generated", email="g@example.go.id", agency_id=uid(1, 0xA), asked="x"
        )
        await commands.register_person(person, database, key="k" * 16, if_match=None)
    id = await accepted(database, 1)
    with clock_at(NOW):
        left = await commands.confirm_nomination(id, COHORT, database)
        await commands.withdraw(left.id, COHORT, WithdrawalReason.ASSIGNMENT, date(2022, 2, 7), database)
        rows = [nominee(n, mentor_id=uid(1, 0xD), replaces=left.id) for n in (21, 22)]
        first, second = await commands.nominate(COHORT, uid(1, 0xA), rows, database, None)
        assert first.nomination_id and (second.nomination_id, second.problem) == (None, "wrong-replacement")
        await commands.decide_nomination(first.nomination_id, domain.Decision.REJECT, "quota", database)
        first, second = await commands.nominate(COHORT, uid(1, 0xA), rows, database, None)
    assert (first.status, second.status) == (NominationStatus.REJECTED, NominationStatus.SUBMITTED)


async def test_nobody_slips_in_while_registration_closes(database: Database, elsewhere: Database) -> None:
    """A cancellation and a nomination at the same moment: whoever is nominated was nominated before."""
    await registered(database, 1)
    rounds = many(25, 200)
    for round in range(rounds):
        await opened(database, id=uid(round, 0xC), number=round + 10)

        async def nominate(id: str = uid(round, 0xC)) -> None:
            with clock_at(NOW):
                (row,) = await commands.nominate(id, uid(1, 0xA), [nominee(1)], elsewhere, None)
                assert row.problem in (None, "cohort-not-open")

        async def cancel(id: str = uid(round, 0xC)) -> None:
            with clock_at(NOW):
                await commands.cancel_cohort(id, "too-few", database)

        await asyncio.gather(*((nominate(), cancel()) if round % 2 else (cancel(), nominate())))
    told: dict[str, list[str]] = {}
    for envelope, event in await announced(database, CohortOpened, NominationSubmitted, CohortCancelled):
        told.setdefault(envelope.partitionkey, []).append(type(event).__name__)
    assert len(told) == rounds
    for names in told.values():
        assert names in (
            ["CohortOpened", "CohortCancelled"],
            ["CohortOpened", "NominationSubmitted", "CohortCancelled"],
        )
