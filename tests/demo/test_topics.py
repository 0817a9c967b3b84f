"""What an agency notices on its own topic."""

from __future__ import annotations

import pytest

from demo.topics import Listener
from shared.cloudevents import Envelope, read
from shared.contracts.enrollment import ParticipantWithdrawn, WithdrawalReason
from shared.kafka import Kafka
from tests.support import START, record, uid


def withdrawal(number: int, sequence: int) -> Envelope:
    fact = ParticipantWithdrawn(
        enrollment_id=uid(number),
        cohort_id=uid(1, 1),
        participant_id=uid(number, 2),
        agency_id=uid(1, 3),
        reason_code=WithdrawalReason.ASSIGNMENT,
        seat_released=True,
        effective_on=START.date(),
        withdrawn_at=START,
    )
    return read(record(fact, sequence))


def heard(*facts: tuple[int, int]) -> Listener:
    listener = Listener("lpnk-03", Kafka("127.0.0.1:1", "PLAINTEXT"))
    for number, sequence in facts:
        listener.hear(withdrawal(number, sequence))
    return listener


def test_subjects_that_each_count_from_one_are_as_they_should_be() -> None:
    listener = heard((1, 1), (2, 1), (1, 2), (2, 2), (2, 3))
    assert listener.faults == []
    assert len(listener.heard) == 5


@pytest.mark.parametrize("order", [((1, 2),), ((1, 1), (1, 3)), ((1, 1), (2, 1), (1, 4))])
def test_a_gap_and_a_late_beginning_are_noticed(order: tuple[tuple[int, int], ...]) -> None:
    (fault,) = heard(*order).faults
    assert "participant-withdrawn" in fault


def test_what_comes_again_under_its_id_is_heard_once() -> None:
    listener = heard((1, 1), (1, 2), (1, 1), (1, 2), (1, 3))
    assert listener.faults == [] and (len(listener.heard), listener.repeats) == (3, 2)


async def test_an_agency_that_cannot_reach_the_broker_says_so() -> None:
    listener = heard()
    listener.start()
    await listener.caught_up(seconds=20)
    assert listener.faults == ["KafkaConnectionError"]
    await listener.stop()
