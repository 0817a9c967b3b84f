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
    CohortOpened,
    NominationSubmitted,
    ParticipantEnrolled,
    ParticipantWithdrawn,
    WithdrawalReason,
)
from shared.errors import IdTaken
from shared.mongo import Database
from tests.enrollment.story import COHORT, NOW, accepted, nominee, opened, registered
from tests.support import announced, clock_at, uid


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


async def test_nobody_slips_in_while_registration_closes(database: Database) -> None:
    """A cancellation and nominations at the same moment: whoever is nominated was nominated before."""
    for round in range(10):
        id = uid(round, 0xC)
        await opened(database, id=id, number=round + 10)
        await registered(database, round + 1)

        async def nominate(id: str = id, n: int = round + 1) -> None:
            with clock_at(NOW):
                rows = await commands.nominate(id, uid(n, 0xA), [nominee(n)], database, None)
                if rows[0].problem:
                    assert rows[0].problem == "cohort-not-open"

        async def cancel(id: str = id) -> None:
            with clock_at(NOW):
                await commands.cancel_cohort(id, "too-few", database)

        await asyncio.gather(nominate(), cancel())
        told = [event for envelope, event in await announced(database) if envelope.partitionkey == id]
        names = [type(event).__name__ for event in told]
        assert names in (
            ["CohortOpened", "CohortCancelled"],
            ["CohortOpened", "NominationSubmitted", "CohortCancelled"],
        )
