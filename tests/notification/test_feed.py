"""The agencies' feed: own facts and own cohorts' facts, byte for byte, in order, without a gap, never twice."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest

from services.notification import commands, feed
from services.notification.consumers import consumer as main
from services.notification.domain import AgencySubscription
from shared.cloudevents import Envelope, Record, read
from shared.contracts import REGISTRY, Event
from shared.inbox import Position
from shared.mongo import Database, Transaction
from tests.notification.story import (
    agency,
    enrolled,
    graduated,
    grouped,
    moved,
    nominated,
    not_passed,
    opened,
    published,
    scheduled,
    withdrawn,
)
from tests.support import START, deliver, records, uid


@pytest.fixture(autouse=True)
def nothing_filled_back() -> None:
    feed._backfilled.clear()


@pytest.fixture
async def other(database: Database, mongo_uri: str) -> AsyncIterator[Database]:
    """The same database as another process sees it."""
    other = Database(
        mongo_uri, database.collection("x").database.name, service=database.service, driver=database.driver
    )
    yield other
    await other.close()


async def heard(database: Database, code: str) -> list[tuple[Envelope, Record]]:
    """What lies in the outbox for an agency, in order."""
    found = []
    for document in await database.collection("outbox").find({}).sort([("_id", 1)]).to_list(None):
        if document["topic"] == f"training.agency.{code}":
            for row in document["rows"]:
                headers = tuple((name, value) for name, value in row["headers"])
                record = Record(document["topic"], 0, 0, row["key"], row["value"], headers, 0)
                found.append((read(record), record))
    return found


def names(told: Sequence[tuple[Envelope, Record]]) -> list[str]:
    return [envelope.type.split(".")[-2] for envelope, _ in told]


async def subscribed(database: Database, *numbers: int) -> None:
    for n in numbers:
        await deliver(main, database, agency(n))
        await commands.subscribe(uid(n, 0xA), database)


async def test_an_agency_hears_its_own_facts_and_its_cohorts_and_no_one_elses(database: Database) -> None:
    await subscribed(database, 1, 2)
    given = records(
        database,
        *(opened(), nominated(1, 1), enrolled(1, 1), grouped(1), scheduled(), moved(), published()),
        *(not_passed(1, 1), graduated(1, 1)),
    )
    await feed.consumer.receive(given, database)
    first, second = await heard(database, "agency-1"), await heard(database, "agency-2")
    assert names(first) == [
        *("cohort-opened", "nomination-submitted", "participant-enrolled", "session-scheduled"),
        *("session-rescheduled", "schedule-published", "module-not-passed", "programme-completed"),
    ]
    assert names(second) == ["cohort-opened"]


async def test_a_fact_is_forwarded_byte_for_byte(database: Database) -> None:
    await subscribed(database, 1)
    given = records(database, opened(), enrolled(1, 1))
    await feed.consumer.receive(given, database)
    told = await heard(database, "agency-1")
    assert [(r.key, r.value, r.headers) for _, r in told] == [(r.key, r.value, r.headers) for r in given]


async def test_what_happened_in_the_cohort_before_the_first_nomination_comes_first(database: Database) -> None:
    await subscribed(database, 1)
    given = records(database, opened(), scheduled(), published(), nominated(1, 1), moved())
    await feed.consumer.receive(given, database)
    assert names(await heard(database, "agency-1")) == [
        *("cohort-opened", "session-scheduled", "schedule-published", "nomination-submitted", "session-rescheduled"),
    ]


async def test_nothing_comes_twice_however_often_records_come(database: Database) -> None:
    await subscribed(database, 1)
    given = records(database, opened(), nominated(1, 1), scheduled())
    await feed.consumer.receive(given, database)
    await database.collection("inbox").drop()
    await feed.consumer.receive(given, database)
    assert len(await heard(database, "agency-1")) == 3


async def test_no_document_is_made_for_an_agency_without_a_subscription(database: Database) -> None:
    await feed.consumer.receive(records(database, opened(), enrolled(1, 1)), database)
    assert await database.collection("outbox").find({}).to_list(None) == []


async def test_a_parked_record_of_the_mail_rules_blocks_no_agency(database: Database) -> None:
    await subscribed(database, 1)
    given = records(database, enrolled(1, 1), withdrawn(1, 1))
    block = f"{main.group}|/training/enrollment|{read(given[0]).subject}"
    await database.collection("blocks").insert_one({"_id": block, "open": 1})  # something before them lies parked
    fates = await main.receive(given, database)
    assert (fates.parked, {letter.reason for letter in await main.parked(database)}) == (2, {"behind"})
    assert (await feed.consumer.receive(given, database)).handled == 2
    assert names(await heard(database, "agency-1")) == ["participant-enrolled", "participant-withdrawn"]


@pytest.mark.parametrize("subscribed_before", [True, False])
async def test_an_agency_is_given_no_record_that_breaks_its_contract_or_is_another_agencys(
    database: Database, subscribed_before: bool
) -> None:
    """What fits no contract may hold anything; an agency hears no more of that subject until it is mended."""
    if subscribed_before:
        await subscribed(database, 1)
    free, empty, others, good = records(database, *(enrolled(n, 1) for n in (1, 2, 3, 4)))
    given = [
        dataclasses.replace(free, value=(free.value or b"")[:-1] + b',"roster_number":"somebody"}'),
        dataclasses.replace(empty, value=None),
        dataclasses.replace(others, value=enrolled(3, 2).model_dump_json().encode()),
        good,
    ]
    assert (await feed.consumer.receive(given, database)).parked == 3
    assert [p.reason for p in await feed.consumer.parked(database)] == [
        *("invalid:/roster_number:int_parsing", "invalid:/:json_invalid", "agency-differs-from-data")
    ]
    if not subscribed_before:
        await subscribed(database, 1)

        async def read_back(position: Position) -> list[Record]:
            return given

        await feed.back_fill([Position("training.enrollment", 0, 10)], read_back, database)
    assert [record for _, record in await heard(database, "agency-1")] == [
        dataclasses.replace(good, topic="training.agency.agency-1", offset=0, timestamp=0)
    ]


async def test_a_type_that_is_not_known_yet_is_given_to_its_agency_as_it_is(database: Database) -> None:
    await subscribed(database, 1)
    (known,) = records(database, enrolled(1, 1))
    headers = {**dict(known.headers), "ce_type": b"id.go.lan.training.enrollment.participant-promoted.v1"}
    assert (await feed.consumer.receive([dataclasses.replace(known, headers=tuple(headers.items()))], database)).handled
    assert names(await heard(database, "agency-1")) == ["participant-promoted"]


def test_no_agency_is_fed_from_the_restricted_topic() -> None:
    assert feed.consumer.topics == sorted(feed.PUBLIC_TOPICS)
    assert {cls.topic for cls in REGISTRY.values()} - set(feed.PUBLIC_TOPICS) == {"training.assessment-restricted"}


# --- at the same moment, from two processes ----------------------------------------------------------------------

Step = Callable[[Transaction], Awaitable[None]]


def forwarding(database: Database, event: Event) -> Step:
    (record,) = records(database, event)
    return lambda tx: feed.forward_to_agencies(record, read(record), tx)


async def subscribing(tx: Transaction) -> None:
    await tx.load(AgencySubscription, uid(1, 0xA))
    await feed.subscribe(tx.save(AgencySubscription(id=uid(1, 0xA), since=START)), tx)


async def collide(database: Database, other: Database, slow: Step, fast: Step) -> int:
    """`fast` begins and commits after `slow` has read and before it commits; how often `slow` had to run."""
    runs = 0

    async def work(tx: Transaction) -> None:
        nonlocal runs
        runs += 1
        await slow(tx)
        if runs == 1:
            await other.transaction(fast)

    await database.transaction(work)
    return runs


@pytest.mark.parametrize("known", [True, False], ids=["known", "unheard-of"])
@pytest.mark.parametrize("nomination_first", [True, False])
async def test_a_nomination_and_a_session_at_the_same_moment_see_each_other(
    nomination_first: bool, known: bool, database: Database, other: Database
) -> None:
    await subscribed(database, 1)
    if known:
        await feed.consumer.receive(records(database, opened()), database)
    steps = forwarding(database, nominated(1, 1)), forwarding(database, scheduled())
    slow, fast = steps if nomination_first else reversed(steps)
    assert await collide(database, other, slow, fast) == 2
    told = names(await heard(database, "agency-1"))
    assert sorted(told) == ["cohort-opened"] * known + ["nomination-submitted", "session-scheduled"]


@pytest.mark.parametrize("subscription_first", [True, False])
async def test_a_subscription_and_a_session_at_the_same_moment_see_each_other(
    subscription_first: bool, database: Database, other: Database
) -> None:
    await deliver(main, database, agency(1))
    await feed.consumer.receive(records(database, opened(), nominated(1, 1)), database)
    steps = subscribing, forwarding(database, scheduled())
    slow, fast = steps if subscription_first else reversed(steps)
    assert await collide(database, other, slow, fast) == 2
    assert names(await heard(database, "agency-1")) == ["cohort-opened", "session-scheduled"]


STORY: list[Event] = [
    opened(),
    nominated(1, 1),
    enrolled(1, 1),
    scheduled(),
    nominated(2, 2),
    enrolled(2, 2),
    moved(),
    published(),
    not_passed(1, 1),
    graduated(1, 1),
    graduated(2, 2),
]


@pytest.mark.parametrize("seed", range(25))
async def test_whenever_an_agency_subscribes_it_holds_every_subject_from_its_first_fact(
    seed: int, database: Database
) -> None:
    """Subscribe at any moment, in polls of any size: no gap, no double, and in the end everything that it may have."""
    chance = random.Random(seed)
    log = records(database, *STORY)
    log = [Record(r.topic, 0, n, r.key, r.value, r.headers, 0) for n, r in enumerate(log)]
    joins = {1: chance.randrange(len(log)), 2: chance.randrange(len(log))}
    cursor = 0

    async def read_back(position: Position) -> list[Record]:
        return [r for r in log if r.topic == position.topic and r.offset < position.offset]

    while cursor < len(log):
        for n, at in joins.items():
            if at <= cursor and n in joins:
                await subscribed(database, n)
        size = chance.randint(1, 4)
        polled = log[cursor : cursor + size]
        first = {r.topic: r.offset for r in reversed(polled)}
        positions = [Position(topic, 0, offset) for topic, offset in first.items()]
        await feed.back_fill(positions, read_back, database)
        await feed.consumer.receive(polled, database)
        cursor += size
    await subscribed(database, 1, 2)
    topics = sorted({r.topic for r in log})
    await feed.back_fill([Position(topic, 0, len(log)) for topic in topics], read_back, database)
    for n in (1, 2):
        told = await heard(database, f"agency-{n}")
        last: dict[tuple[str, str], int] = {}
        for envelope, _ in told:
            assert envelope.sequence == last.get((envelope.source, envelope.subject), 0) + 1
            last[envelope.source, envelope.subject] = envelope.sequence
        own = [e for e in STORY if e.agency in ("-", uid(n, 0xA))]
        assert len(told) == len(own)
