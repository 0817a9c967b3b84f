"""What is said about a play at its end, and what makes it fail."""

from __future__ import annotations

from typing import Any

import pytest

from demo.scenario import Incidents
from demo.summary import Facts, Summary, compare, facts_of, tell_incidents, tell_topics
from demo.topics import Listener
from shared.cloudevents import Record, read
from shared.contracts import Event
from shared.contracts.enrollment import (
    NominationRejected,
    NominationSubmitted,
    ParticipantEnrolled,
    ParticipantWithdrawn,
    SeatSource,
    WithdrawalReason,
)
from shared.contracts.scheduling import AttendanceRecorded, AttendanceStatus
from shared.kafka import Kafka
from tests.support import START, record, uid

COHORT, AGENCY = uid(1, 0xC), uid(1, 0xA)
WHO = {"cohort_id": COHORT, "agency_id": AGENCY}
PLANNED = Incidents(not_eligible="a-01", withdraws="a-02")


def submitted(n: int) -> Event:
    return NominationSubmitted(nomination_id=uid(n, 1), participant_id=uid(n), submitted_at=START, **WHO)


def rejected(n: int, *rules: str) -> Event:
    return NominationRejected(
        nomination_id=uid(n, 1),
        participant_id=uid(n),
        reason_code="requirements-not-met",
        rule_ids=list(rules),
        rejected_at=START,
        **WHO,
    )


def enrolled(n: int) -> Event:
    return ParticipantEnrolled(
        enrollment_id=uid(n, 2),
        nomination_id=uid(n, 1),
        participant_id=uid(n),
        mentor_id=uid(n, 9),
        programme_id=uid(1, 8),
        rule_set_version="pkp-2019.1",
        curriculum_version="pkp-2019.1",
        roster_number=n,
        seat_source=SeatSource.DIRECT,
        enrolled_at=START,
        **WHO,
    )


def withdrawn(n: int) -> Event:
    return ParticipantWithdrawn(
        enrollment_id=uid(n, 2),
        participant_id=uid(n),
        reason_code=WithdrawalReason.ASSIGNMENT,
        seat_released=True,
        effective_on=START.date(),
        withdrawn_at=START,
        **WHO,
    )


def attended(n: int, status: AttendanceStatus = AttendanceStatus.PRESENT) -> Event:
    return AttendanceRecorded(
        attendance_id=uid(n, 3),
        session_id=uid(1, 4),
        module_id=uid(1, 5),
        enrollment_id=uid(n, 2),
        participant_id=uid(n),
        status=status,
        jp=3,
        recorded_at=START,
        **WHO,
    )


def on_topics(*facts: Event) -> dict[str, list[Record]]:
    """The facts as records on their topics, each the first of its subject."""
    topics: dict[str, list[Record]] = {}
    for fact in facts:
        topics.setdefault(fact.topic, []).append(record(fact, _sequence(fact)))
    return topics


def _sequence(fact: Event) -> int:
    return 2 if isinstance(fact, NominationRejected | ParticipantWithdrawn) else 1


def facts(*facts: Event) -> dict[str, Facts]:
    return facts_of(on_topics(*facts))


AS_PLANNED = (
    submitted(1),
    submitted(2),
    submitted(3),
    rejected(3, "echelon-iv"),
    enrolled(1),
    enrolled(2),
    withdrawn(2),
)


def told(*given: Event, incidents: Incidents = PLANNED, participants: int = 1) -> Summary:
    summary = Summary()
    tell_incidents(summary, facts(*given), incidents, participants)
    return summary


def test_what_went_as_the_scenario_gives_it_holds() -> None:
    summary = told(*AS_PLANNED)
    assert summary.failed == []
    assert dict(summary.lines)["nominations"] == "3; rejected 1 (not met: echelon-iv)"
    assert dict(summary.lines)["seats"] == "2 given, 1 withdrawn"


def test_a_rejection_that_the_scenario_does_not_give_fails() -> None:
    summary = told(*AS_PLANNED, incidents=Incidents(withdraws="a-02"))
    assert summary.failed == ["nominations: 3; rejected 1 (not met: echelon-iv)"]


def test_a_rejection_without_the_rule_that_stood_in_the_way_fails() -> None:
    assert told(submitted(3), rejected(3), incidents=Incidents(not_eligible="a-01"), participants=0).failed == [
        "nominations: 1; rejected 1"
    ]


def test_a_seat_that_the_composition_does_not_count_fails() -> None:
    assert told(*AS_PLANNED, participants=2).failed == ["seats: 2 given, 1 withdrawn"]


@pytest.mark.parametrize("status", [AttendanceStatus.SICK, AttendanceStatus.ABSENT])
def test_somebody_missing_whom_the_scenario_does_not_let_fall_ill_fails(status: AttendanceStatus) -> None:
    summary = told(attended(1), attended(2, status), incidents=Incidents(), participants=0)
    assert summary.failed == [f"attendance: 2 recorded: present 1, {status.value} 1"]


def test_a_fact_that_was_sent_twice_counts_once() -> None:
    twice = on_topics(*AS_PLANNED)
    twice["training.enrollment"] += twice["training.enrollment"]
    summary = Summary()
    tell_incidents(summary, facts_of(twice), PLANNED, 1)
    assert summary.failed == []


def test_dead_letters_and_copies_for_agencies_are_no_facts_of_their_own() -> None:
    topics = on_topics(*AS_PLANNED)
    copies = topics["training.enrollment"]
    topics |= {"training.agency.a-01": copies, "training.enrollment.scheduling.dlq": copies}
    assert list(facts_of(topics)) == ["training.enrollment"]


NOTHING = {"sessions": 0, "modules completed": 0, "graduates": 0, "certificates": 0, "messages": 0}


@pytest.mark.parametrize("name", NOTHING)
def test_what_a_service_tells_but_never_announced_fails(name: str) -> None:
    agreeing, differing = Summary(told=dict(NOTHING)), Summary(told=NOTHING | {name: 1})
    compare(agreeing, facts(*AS_PLANNED))
    compare(differing, facts(*AS_PLANNED))
    assert agreeing.failed == []
    assert len(differing.failed) == 1


# --- topics ------------------------------------------------------------------------------------------------------


def of_topics(topics: dict[str, list[Record]], *listeners: Listener) -> Summary:
    summary = Summary()
    tell_topics(summary, topics, facts_of(topics), listeners)
    return summary


def test_the_digest_depends_on_the_facts_and_not_on_their_order_or_how_often_they_were_sent() -> None:
    one = of_topics(on_topics(*AS_PLANNED))
    other = of_topics(on_topics(*reversed(AS_PLANNED), *AS_PLANNED[:2]))
    assert one.digest == other.digest
    assert of_topics(on_topics(*AS_PLANNED[:-1])).digest != one.digest


def test_a_dead_letter_fails() -> None:
    topics: dict[str, Any] = on_topics(*AS_PLANNED)
    topics["training.enrollment.scheduling.dlq"] = topics["training.enrollment"][:1]
    assert of_topics(topics).failed == ["dead letters: 1"]


def test_a_topic_without_any_event_fails() -> None:
    topics = on_topics(*AS_PLANNED) | {"training.scheduling": []}
    assert of_topics(topics).failed == ["events on training.scheduling: 0"]


def listening(*heard: Event) -> Listener:
    listener = Listener("a-01", Kafka("127.0.0.1:1"))
    for fact in heard:
        listener.hear(read(record(fact, _sequence(fact))))
    return listener


def test_an_agency_that_heard_all_of_its_topic_holds() -> None:
    own = (submitted(3), rejected(3, "echelon-iv"))
    topics = on_topics(*AS_PLANNED) | {"training.agency.a-01": [record(fact, _sequence(fact)) for fact in own]}
    summary = of_topics(topics, listening(*own))
    assert summary.failed == []
    assert dict(summary.lines)["agency a-01 heard"].startswith("2 of 2 facts on its own topic")


@pytest.mark.parametrize("heard", [(), (submitted(3),), (rejected(3, "echelon-iv"), submitted(3))])
def test_an_agency_that_heard_nothing_or_less_or_in_another_order_fails(heard: tuple[Event, ...]) -> None:
    own = (submitted(3), rejected(3, "echelon-iv"))
    topics = on_topics(*AS_PLANNED) | {"training.agency.a-01": [record(fact, _sequence(fact)) for fact in own]}
    (failure,) = of_topics(topics, listening(*heard)).failed
    assert failure.startswith("agency a-01 heard")
