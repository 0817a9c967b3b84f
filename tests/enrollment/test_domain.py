"""Seats, nominations and composition, as rules."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.enrollment import domain
from services.enrollment.domain import Agency, Cohort, Decision, Enrollment, NominationStatus
from shared.contracts.enrollment import AgencyKind, NominationRejected, SeatSource, WithdrawalReason
from tests.enrollment.story import COHORT, GOOD, NOW, RULES, cohort, nomination
from tests.support import uid

ACCEPTED = {"status": NominationStatus.ACCEPTED}


def test_a_nominee_who_holds_no_such_post_is_not_verified_and_is_told_the_rule() -> None:
    with pytest.raises(domain.RequirementsNotMet) as refused:
        domain.verify(
            nomination(1, facts={**GOOD, "position_level": "pelaksana"}),
            Decision.VERIFY,
            RULES,
            reason_code=None,
            now=NOW,
        )
    assert refused.value.members == {"rule_ids": ["echelon-iv"]}


def test_an_unknown_fact_is_not_met() -> None:
    assert domain.unmet(RULES, {}) == ["civil-servant", "echelon-iv"]


def test_missing_documents_are_named() -> None:
    with pytest.raises(domain.DocumentsMissing) as refused:
        domain.verify(nomination(1, documents=["portrait"]), Decision.VERIFY, RULES, reason_code=None, now=NOW)
    assert "post-decree" in str(refused.value.members["documents"])


def test_a_rejection_names_the_requirements_that_were_not_met() -> None:
    kept, event = domain.verify(nomination(1, facts={}), Decision.REJECT, RULES, reason_code=None, now=NOW)
    assert isinstance(event, NominationRejected)
    assert (event.reason_code, event.rule_ids) == ("requirements-not-met", ["civil-servant", "echelon-iv"])
    assert kept.status is NominationStatus.REJECTED


def test_nobody_is_nominated_after_the_window_or_into_a_cancelled_cohort() -> None:
    with pytest.raises(domain.RegistrationClosed):
        domain.nominate(cohort(), nomination(1), None, now=NOW + timedelta(days=30))
    with pytest.raises(domain.CohortNotOpen):
        domain.nominate(cohort(status="cancelled"), nomination(1), None, now=NOW)


def test_a_seat_is_given_only_to_an_accepted_nominee() -> None:
    with pytest.raises(domain.NominationNotReady):
        domain.enroll(cohort(), nomination(1), now=NOW)


def test_a_full_cohort_gives_no_seat() -> None:
    full = cohort(capacity=1, min_size=1, seats={1: uid(1)})
    with pytest.raises(domain.CohortFull):
        domain.enroll(full, nomination(1, **ACCEPTED), now=NOW)


def withdrawn(cohort: Cohort, enrollment: Enrollment, day: date) -> tuple[Cohort, Enrollment]:
    changed, left, _ = domain.withdraw(
        cohort, enrollment, reason_code=WithdrawalReason.ASSIGNMENT, effective_on=day, now=NOW
    )
    return changed, left


def test_a_replacement_takes_the_roster_number_that_became_free() -> None:
    running, _, first, _ = domain.enroll(cohort(), nomination(1, **ACCEPTED), now=NOW)
    running, _, _, _ = domain.enroll(running, nomination(2, **ACCEPTED), now=NOW)
    running, left = withdrawn(running, first, date(2022, 2, 7))
    replacing = nomination(3, agency_id=first.agency_id, replaces=first.id)
    domain.nominate(running, replacing, left, now=NOW + timedelta(days=30))  # the window is over, the start is not
    _, _, third, event = domain.enroll(running, replacing.but(**ACCEPTED), now=NOW)
    assert (third.roster_number, event.seat_source) == (1, SeatSource.REPLACEMENT)


@pytest.mark.parametrize(
    "changes", [{"agency_id": uid(9, 0xA)}, {"cohort_id": uid(9, 0xC)}, {"status": "enrolled"}], ids=str
)
def test_a_replacement_belongs_to_the_same_agency_and_cohort_and_to_one_who_left(changes: dict[str, str]) -> None:
    running, _, first, _ = domain.enroll(cohort(), nomination(1, **ACCEPTED), now=NOW)
    running, left = withdrawn(running, first, date(2022, 2, 7))
    replacing = nomination(3, agency_id=first.agency_id, replaces=first.id)
    with pytest.raises(domain.WrongReplacement):
        domain.nominate(running, replacing, left.but(**changes), now=NOW)


def test_one_place_has_one_replacement_at_a_time() -> None:
    running, _, first, _ = domain.enroll(cohort(), nomination(1, **ACCEPTED), now=NOW)
    running, left = withdrawn(running, first, date(2022, 2, 7))
    replacing = nomination(3, agency_id=first.agency_id, replaces=first.id)
    domain.nominate(running, replacing, left.but(replaced_by=replacing.id), now=NOW)  # sent again
    with pytest.raises(domain.WrongReplacement):
        domain.nominate(running, replacing, left.but(replaced_by=uid(9)), now=NOW)


def test_the_last_day_for_a_replacement_is_the_day_of_the_start_where_the_cohort_is_held() -> None:
    running, _, first, _ = domain.enroll(cohort(), nomination(1, **ACCEPTED), now=NOW)
    running, left = withdrawn(running, first, date(2022, 2, 7))
    replacing = nomination(3, agency_id=first.agency_id, replaces=first.id)
    midnight = datetime(2022, 2, 21, 17, 0, tzinfo=UTC)  # in Jakarta
    domain.nominate(running, replacing, left, now=midnight - timedelta(seconds=1))
    with pytest.raises(domain.WrongReplacement):
        domain.nominate(running, replacing, left, now=midnight)


def test_a_withdrawal_dated_back_to_before_the_start_frees_no_seat() -> None:
    running, _, first, _ = domain.enroll(cohort(), nomination(1, **ACCEPTED), now=NOW)
    kept, _, event = domain.withdraw(
        running,
        first,
        reason_code=WithdrawalReason.PERSONAL,
        effective_on=date(2022, 2, 7),
        now=NOW + timedelta(days=60),
    )
    assert not event.seat_released and kept.seats == running.seats


def test_a_withdrawal_takes_effect_between_enrollment_and_the_last_day() -> None:
    running, _, first, _ = domain.enroll(cohort(), nomination(1, **ACCEPTED), now=NOW)
    for day in (date(2022, 1, 10), date(2022, 6, 19)):  # the day of the enrollment, and the cohort's last
        withdrawn(running, first, day)
    for day in (date(2022, 1, 9), date(2022, 6, 20)):
        with pytest.raises(domain.OutsideEnrollment) as refused:
            withdrawn(running, first, day)
        assert refused.value.members == {"first": date(2022, 1, 10), "last": date(2022, 6, 19)}


def test_nobody_withdraws_from_a_cohort_that_was_cancelled() -> None:
    running, _, first, _ = domain.enroll(cohort(), nomination(1, **ACCEPTED), now=NOW)
    cancelled, _ = domain.cancel_cohort(running, reason_code="too-few-participants", now=NOW)
    with pytest.raises(domain.CohortNotOpen):
        withdrawn(cancelled, first, date(2022, 2, 7))


@pytest.mark.parametrize("nip", ["198001012005011000", "198013012005011001", "197901012005013001", "1980", "١" * 18])
def test_what_cannot_be_a_personnel_number_is_told(nip: str) -> None:
    assert domain.valid_nip("198001012005011001") and not domain.valid_nip(nip)


def test_after_the_start_a_seat_stays_empty() -> None:
    running, _, first, _ = domain.enroll(cohort(), nomination(1, **ACCEPTED), now=NOW)
    _, _, event = domain.withdraw(
        running, first, reason_code=WithdrawalReason.PERSONAL, effective_on=date(2022, 3, 1), now=NOW
    )
    assert not event.seat_released


@given(st.lists(st.tuples(st.sampled_from(["enroll", "withdraw"]), st.integers(1, 12)), max_size=60), st.integers(1, 6))
def test_whatever_happens_seats_never_exceed_capacity_and_roster_numbers_are_unique(
    moves: list[tuple[str, int]], capacity: int
) -> None:
    running = cohort(capacity=capacity, min_size=1)
    seated: dict[int, Enrollment] = {}
    for move, number in moves:
        if move == "enroll" and number not in seated:
            try:
                running, _, seated[number], _ = domain.enroll(running, nomination(number, **ACCEPTED), now=NOW)
            except domain.CohortFull:
                assert len(seated) == capacity
        elif move == "withdraw" and number in seated:
            running, _ = withdrawn(running, seated.pop(number), date(2022, 2, 1))
        assert len(running.seats) == len(seated) <= capacity
        numbers = [enrollment.roster_number for enrollment in seated.values()]
        assert len(set(numbers)) == len(numbers)
        assert all(1 <= n <= capacity for n in numbers)


def test_the_reference_cohort_is_composed_of_21_14_and_2() -> None:
    kinds = (
        [AgencyKind.MINISTRY] * 21 + [AgencyKind.LPNK] * 13 + [AgencyKind.LTN] + [AgencyKind.PROVINCE, AgencyKind.CITY]
    )
    agencies = {
        uid(n, 0xA): Agency(id=uid(n, 0xA), code=f"agency-{n}", kind=kind, name="x", asked="x")
        for n, kind in enumerate(kinds)
    }
    members = [domain.enroll(cohort(), nomination(n, **ACCEPTED), now=NOW)[2] for n in range(37)]
    counted = domain.composition(members, agencies)
    assert (counted.participants, counted.ministries, counted.non_ministry, counted.local_governments) == (
        37,
        21,
        14,
        2,
    )
    assert domain.composition(members[1:], agencies).ministries == 20


def test_a_cohort_is_confirmed_from_its_minimum_size_on() -> None:
    with pytest.raises(domain.BelowMinimum):
        domain.confirm_cohort(cohort(min_size=2, seats={1: uid(1)}), now=NOW)
    _, event = domain.confirm_cohort(cohort(min_size=1, seats={1: uid(1)}), now=NOW)
    assert event.size == 1


def test_capacity_never_falls_below_the_seats_taken_nor_exceeds_the_rules() -> None:
    taken = cohort(min_size=1, seats={n: uid(n) for n in range(1, 31)})
    with pytest.raises(domain.SeatsTaken):
        domain.change_capacity(taken, 29, RULES, reason_code="x", now=NOW)
    with pytest.raises(domain.CapacityOutsideRules):
        domain.change_capacity(taken, 41, RULES, reason_code="x", now=NOW)
    _, event = domain.change_capacity(taken, 35, RULES, reason_code="larger-room", now=NOW)
    assert (event.previous, event.capacity) == (40, 35)


@pytest.mark.parametrize(
    ("nip", "good"),
    [
        ("198001012005011001", True),
        ("198013012005011001", False),  # thirteenth month
        ("198002302005011001", False),  # 30 February
        ("198001012005131001", False),
        ("198001011979011001", False),  # appointed before birth
        ("198001012005013001", False),
        ("198001012005011000", False),
        ("19800101200501100", False),
        ("1980 1012005011001", False),
    ],
)
def test_a_personnel_number_is_checked_as_far_as_it_can_be(nip: str, good: bool) -> None:
    assert domain.valid_nip(nip) is good


def test_one_person_has_one_nomination_per_cohort_by_its_id() -> None:
    assert domain.nomination_id(COHORT, uid(1)) == domain.nomination_id(COHORT, uid(1))
    assert domain.nomination_id(COHORT, uid(1)) != domain.nomination_id(COHORT, uid(2))
