"""The play: what the scenario says, that it is the same every time, and when a stack is quiet."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from demo.player import unsettled
from demo.scenario import Scenario, cast
from demo.topics import Listener
from services.enrollment.domain import valid_nip
from shared.cloudevents import Envelope
from shared.ids import _client_id
from shared.kafka import Kafka
from stack import PROJECT
from tests.support import uid

SCENARIO = Scenario.read(PROJECT / "scenarios" / "pkp-2022-iii.yaml")


def test_the_cohort_is_that_of_the_report() -> None:
    cohort = SCENARIO.cohort
    counts = Counter({group.kind.value: group.count.value for group in SCENARIO.agencies})
    assert (cohort.starts_on.value.isoformat(), cohort.starts_on.origin) == ("2022-02-21", "fact")
    assert cohort.starts_on.value.strftime("%A") == "Monday"
    assert (counts["ministry"], counts["lpnk"] + counts["ltn"], counts["province"]) == (21, 14, 2)
    assert counts.total() == 37
    assert (cohort.ends_on.value - cohort.starts_on.value).days + 1 == 17 * 7


def test_everybody_is_generated_labelled_and_the_same_for_the_same_seed() -> None:
    people = cast(SCENARIO).people
    assert people == cast(SCENARIO).people
    assert all(person.name.endswith("(generated)") for person in people)
    assert all(valid_nip(person.nip) and _client_id(person.id) for person in people)
    assert len({p.id for p in people}) == len({p.nip for p in people}) == len({p.email for p in people}) == len(people)
    other = cast(SCENARIO.model_copy(update={"seed": "another"})).people
    assert {p.id for p in people}.isdisjoint(p.id for p in other)


def worker(**changes: Any) -> dict[str, Any]:
    return {
        "quiet": True,
        "produced": {},
        "committed": {},
        "consumes": {},
        "outbox": 0,
        "timers_due": 0,
        "pending": {"messages": 0},
        **changes,
    }


def test_a_stack_is_quiet_when_all_that_was_produced_is_done_in_every_group_that_reads_it() -> None:
    publisher = worker(produced={"training.enrollment-3": 7})
    reader = worker(
        consumes={"scheduling": ["training.enrollment"]}, committed={"scheduling": {"training.enrollment-3": 6}}
    )
    assert unsettled({"enrollment": publisher, "scheduling": reader}) == [
        "scheduling: training.enrollment-3 at 6 of 7",
    ]
    reader["committed"]["scheduling"]["training.enrollment-3"] = 7
    assert unsettled({"enrollment": publisher, "scheduling": reader}) == []


def test_who_still_has_something_to_do_is_named() -> None:
    assert unsettled({"notification": worker(quiet=False, outbox=1)}) == [
        "notification: {'outbox': 1, 'pending': {'messages': 0}}",
    ]
    assert unsettled({"assessment": worker(quiet=False, pending={})}) == ["assessment: not consuming yet"]


def heard(sequence: int) -> Envelope:
    now = datetime.now(UTC)
    facts: dict[str, Any] = dict.fromkeys(("correlationid", "causationid", "authtype", "authid", "traceparent"))
    return Envelope(uid(1), "t", "/training/enrollment", "s", sequence, now, now, "k", agencyid="-", **facts)


def test_a_listener_notices_a_gap_and_a_double() -> None:
    listener = Listener("x", Kafka("127.0.0.1:1"))
    for sequence in (1, 2, 4, 4):
        listener.hear(heard(sequence))
    assert listener.faults == ["t 4 after 2", "t 4 after 4"]
