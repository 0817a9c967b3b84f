"""The five fates of a record: handled, duplicate, ignored, parked, or not yet."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from pymongo.errors import OperationFailure

from shared import broker
from shared.cloudevents import Record, read
from shared.contracts.assessment import ProgrammeCompleted
from shared.contracts.enrollment import CohortConfirmed, ParticipantEnrolled
from shared.domain import State
from shared.errors import Contended, Impaired, Rejected, Unavailable
from shared.inbox import INDEXES, Consumer, dead_letters
from shared.mongo import Database, Transaction
from tests.notification.story import graduated
from tests.shared.sample import COHORT, confirmed, enrolled
from tests.support import START, deliver, many, record, records, uid


class Roster(State):
    collection: ClassVar[str] = "rosters"

    seated: list[int] = []
    asked: int = 0


def numbered(number: int) -> ParticipantEnrolled:
    """One subject's fact of this number."""
    return enrolled(1).model_copy(update={"roster_number": number})


class Unwelcome(Rejected):
    """This one may not be seated."""


class World:
    """A consumer that seats participants, and those with whom it has trouble."""

    def __init__(self) -> None:
        self.consumer = Consumer("scheduling")
        self.refused: set[int] = set()
        self.broken: set[int] = set()
        self.failing: set[int] = set()
        self.runs = 0
        self.transactions: list[Transaction] = []

        @self.consumer.on(ParticipantEnrolled, reads=lambda event: (Roster, event.cohort_id))
        async def seat(event: ParticipantEnrolled, tx: Transaction) -> None:
            self.runs += 1
            if tx not in self.transactions:
                self.transactions.append(tx)
            if event.roster_number in self.refused:
                raise Unwelcome
            if event.roster_number in self.broken:
                raise ZeroDivisionError
            if event.roster_number in self.failing:
                raise OperationFailure("internal", 1)
            roster = await tx.load(Roster, event.cohort_id) or Roster(id=event.cohort_id)
            tx.save(roster.but(seated=[*roster.seated, event.roster_number]))


@pytest.fixture
async def world(database: Database) -> World:
    await database.ensure(INDEXES)
    return World()


async def seated(database: Database) -> list[int]:
    roster = await database.get(Roster, COHORT)
    return roster.seated if roster else []


async def letters(database: Database) -> list[Record]:
    """The dead letters, as they lie in the outbox or would lie on their topic."""
    found: list[Record] = []
    for document in await database.collection("outbox").find({}).sort([("_id", 1)]).to_list(None):
        for row in document["rows"]:
            headers = tuple((name, value) for name, value in row["headers"])
            found.append(Record(document["topic"], 0, len(found), row["key"], row["value"], headers, 0))
    return found


def headers_of(letter: Record) -> dict[str, str]:
    return {name: (value or b"").decode("utf-8", "replace") for name, value in letter.headers}


async def test_an_event_is_handled_once_however_often_it_comes(world: World, database: Database) -> None:
    given = records(database, *(enrolled(n) for n in range(1, 51)))
    first = await world.consumer.receive(given, database)
    again = await world.consumer.receive([*given, *given[:5]], database)
    assert (first.handled, again.duplicate, again.handled) == (50, 55, 0)
    assert await seated(database) == list(range(1, 51))


async def test_a_duplicate_inside_one_poll_is_handled_once(world: World, database: Database) -> None:
    given = records(database, enrolled(1))
    fates = await world.consumer.receive([*given, *given], database)
    assert (fates.handled, fates.duplicate) == (1, 1)


async def test_a_type_that_nobody_handles_is_ignored_and_leaves_no_trace(world: World, database: Database) -> None:
    fates = await deliver(world.consumer, database, confirmed(1))
    assert fates.ignored == 1
    assert await database.collection("inbox").find({}).to_list(None) == []


async def test_a_refusal_parks_the_record_at_once_with_its_code(world: World, database: Database) -> None:
    world.refused = {25}
    fates = await deliver(world.consumer, database, *(enrolled(n) for n in range(1, 51)))
    assert (fates.handled, fates.parked) == (49, 1)
    assert 25 not in await seated(database)
    (letter,) = await letters(database)
    told = headers_of(letter)
    assert letter.topic == dead_letters("training.enrollment", "scheduling") == "training.enrollment.scheduling.dlq"
    assert (told["dl_reason"], told["dl_attempt"]) == ("unwelcome", "1")
    assert letter.value == enrolled(25).model_dump_json().encode() and letter.key == COHORT.encode()


async def test_a_bug_is_tried_five_times_and_then_parked_by_its_class(world: World, database: Database) -> None:
    world.broken = {3}
    fates = await deliver(world.consumer, database, enrolled(3))
    assert fates.parked == 1 and world.runs == 1 + 5 - 1
    (letter,) = await letters(database)
    assert headers_of(letter)["dl_reason"] == "ZeroDivisionError"


async def test_followers_of_a_parked_subject_wait_behind_it(world: World, database: Database) -> None:
    world.refused = {1}
    await deliver(world.consumer, database, enrolled(1), enrolled(1), enrolled(2))
    assert await seated(database) == [2]
    assert [p.reason for p in await world.consumer.parked(database)] == ["unwelcome", "behind"]


async def test_redrive_goes_in_sequence_and_lifts_the_block(world: World, database: Database) -> None:
    world.refused = {1}
    await deliver(world.consumer, database, enrolled(1), enrolled(1), enrolled(2))
    still = await world.consumer.redrive(await letters(database), database)
    assert (still.handled, still.parked) == (0, 1)
    assert [p.attempt for p in await world.consumer.parked(database)] == [2, 1]
    world.refused = set()
    done = await world.consumer.redrive(await letters(database), database)
    assert done.handled == 2
    assert await seated(database) == [2, 1, 1]
    assert await world.consumer.parked(database) == []
    assert await database.collection("blocks").find({}).to_list(None) == []
    assert (await deliver(world.consumer, database, enrolled(1))).handled == 1


async def test_a_letter_whose_predecessors_are_still_in_the_outbox_waits_for_them(
    world: World, database: Database
) -> None:
    world.refused = {1}
    await deliver(world.consumer, database, *(numbered(n) for n in (1, 2, 3)))
    world.refused = set()
    first, second, third = await letters(database)
    for too_early in ([third], [second, third], [third, second]):
        assert (await world.consumer.redrive(too_early, database)).handled == 0
    assert (await deliver(world.consumer, database, numbered(4))).parked == 1
    assert (await world.consumer.redrive([first, third], database)).handled == 1
    assert (await world.consumer.redrive(await letters(database), database)).handled == 3
    assert await seated(database) == [1, 2, 3, 4]


async def test_redriving_races_live_records_of_the_same_subject_and_all_are_handled_in_order(
    world: World, database: Database, elsewhere: Database
) -> None:
    """The last redriven record lifts the block in the very moment in which the next one arrives."""
    for round in range(many(10, 200)):
        world.refused = {1}
        numbers = [1, *range(2, 2 + round % 3)]
        await deliver(world.consumer, database, *(numbered(n) for n in numbers))
        world.refused = set()
        live = records(database, *(numbered(n) for n in range(len(numbers) + 1, len(numbers) + 4)))

        async def arrive(live: list[Record] = live) -> None:
            for given in live:
                await world.consumer.receive([given], elsewhere)

        await asyncio.gather(world.consumer.redrive(await letters(database), database), arrive())
        await world.consumer.redrive(await letters(database), database)
        assert await seated(database) == list(range(1, len(numbers) + 4)), round
        assert await world.consumer.parked(database) == []
        assert await database.collection("blocks").count_documents({}) == 0
        for name in ("rosters", "outbox"):
            await database.collection(name).delete_many({})


async def test_a_backlog_and_commands_on_one_document_starve_neither(
    world: World, database: Database, elsewhere: Database, count: Callable[[str], None]
) -> None:
    """The batches take the cohort's document with every transaction; so do four callers of the API's process."""
    number, taken, done = many(1000, 10_000), list[float](), asyncio.Event()

    async def command(tx: Transaction) -> None:
        roster = await tx.load(Roster, COHORT) or Roster(id=COHORT)
        tx.save(roster.but(asked=roster.asked + 1))

    async def call() -> None:
        while not done.is_set():
            began = time.monotonic()
            await elsewhere.transaction(command, key=COHORT)
            taken.append(time.monotonic() - began)
            await asyncio.sleep(0.1)

    callers = [asyncio.create_task(call()) for _ in range(4)]
    given = records(database, *(enrolled(n) for n in range(1, number + 1)))
    began, waited = time.monotonic(), 0
    try:
        while given:
            try:
                await world.consumer.receive(given[:100], database)
                given = given[100:]
            except Unavailable:  # the worker brings the same records again
                waited += 1
                assert waited < 20
        seconds = time.monotonic() - began
    finally:
        done.set()
        await asyncio.gather(*callers)
    roster = await database.get(Roster, COHORT)
    assert roster is not None and (roster.seated, roster.asked) == (list(range(1, number + 1)), len(taken))
    assert max(taken) < 10  # nobody was turned away, nobody waited long
    count(f"{number:,} events at {number / seconds:.0f}/s beside {len(taken)} commands, slowest {max(taken):.1f} s")


async def test_an_older_letter_of_the_same_record_is_skipped(world: World, database: Database) -> None:
    world.refused = {1}
    await deliver(world.consumer, database, enrolled(1))
    old = await letters(database)
    await world.consumer.redrive(old, database)
    world.refused = set()
    assert (await world.consumer.redrive(old, database)).handled == 0
    assert (await world.consumer.redrive(await letters(database), database)).handled == 1


async def test_an_operator_may_give_a_record_up(world: World, database: Database) -> None:
    world.refused = {1}
    await deliver(world.consumer, database, enrolled(1))
    (parked,) = await world.consumer.parked(database)
    assert await world.consumer.drop(parked.key, "test-data", database)
    assert not await world.consumer.drop(parked.key, "test-data", database)
    assert await database.collection("blocks").find({}).to_list(None) == []
    world.refused = set()
    assert (await deliver(world.consumer, database, enrolled(1))).handled == 1


# --- batches -----------------------------------------------------------------------------------------------------


async def test_a_hundred_records_share_a_transaction_and_one_look_at_each_kind_of_state(
    world: World, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[str] = Counter()
    collection = Database.collection

    def counting(self: Database, name: str) -> Any:
        asked[name] += 1
        return collection(self, name)

    given = records(database, *(enrolled(n, cohort_id=uid(n % 5, 0xC)) for n in range(101)))
    monkeypatch.setattr(Database, "collection", counting)
    assert (await world.consumer.receive(given[:100], database)).handled == 100
    assert (len(world.transactions), asked["rosters"]) == (1, 2), "five rosters: read once, written once"
    assert (await world.consumer.receive(given, database)).handled == 1
    assert len(world.transactions) == 2


async def test_a_batch_that_takes_long_is_committed_in_parts(
    world: World, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.inbox.BATCH_SECONDS", -1.0)  # every handler takes longer
    given = records(database, enrolled(1), confirmed(1), enrolled(2), enrolled(3), confirmed(2))
    fates = await world.consumer.receive([*given, given[0]], database)
    assert (fates.handled, fates.ignored, fates.duplicate) == (3, 2, 1)
    assert await seated(database) == [1, 2, 3]
    assert len(world.transactions) == 3


async def test_a_record_whose_state_is_fought_over_waits_alone_and_is_never_parked(
    world: World, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch meets conflicts, is halved without counting an attempt, and only the record concerned comes again."""
    monkeypatch.setattr("shared.inbox.IN_PLACE_SECONDS", 0.1)
    monkeypatch.setattr("shared.inbox.ALONE_SECONDS", 2.0)
    free = [enrolled(n, cohort_id=uid(n, 0xC)) for n in range(2, 5)]
    given = records(database, *free, enrolled(9))
    await deliver(world.consumer, database, enrolled(1))
    written, enough = asyncio.Event(), asyncio.Event()

    async def hold(tx: Transaction) -> None:
        roster = await tx.require(Roster, COHORT)
        tx.save(roster.but(seated=[*roster.seated, 8]))
        await tx.find(Roster, {"_id": COHORT}, owner=None)  # which writes it
        written.set()
        await enough.wait()

    holding = asyncio.create_task(database.transaction(hold))
    await written.wait()
    try:
        began = time.monotonic()
        with pytest.raises(Contended):
            await world.consumer.receive(given, database)
        assert time.monotonic() - began > 1.7, "alone, it is patient (to within a pause)"
        rows = await database.collection("inbox").find({}).to_list(None)
        assert [row["fate"] for row in rows] == ["handled"] * 4
        assert await letters(database) == []
    finally:
        enough.set()
        await holding
    again = await world.consumer.receive(given, database)
    assert (again.handled, again.duplicate) == (1, 3)
    assert await seated(database) == [1, 8, 9]


async def test_the_inbox_dates_what_it_keeps_by_real_time_also_in_a_played_scenario(
    world: World, database: Database
) -> None:
    """A row dated 2022 would fall to its own retention within a minute."""
    world.refused = {2}
    await deliver(world.consumer, database, enrolled(1), enrolled(2), at=START)
    rows = await database.collection("inbox").find({}).to_list(None)
    assert sorted(row["fate"] for row in rows) == ["handled", "parked"]
    assert all(abs(row["at"] - datetime.now(UTC)) < timedelta(minutes=1) for row in rows)


async def test_the_inbox_remembers_longer_than_the_broker_keeps_records(database: Database, world: World) -> None:
    indexes = await database.collection("inbox").index_information()
    assert indexes["retention"]["key"] == [("at", 1)]
    assert indexes["retention"]["expireAfterSeconds"] == 430 * 86_400 > broker.RETENTION_MS / 1000


def without(name: str) -> Callable[[Record], Record]:
    def changed(given: Record) -> Record:
        headers = tuple(header for header in given.headers if header[0] != name)
        return Record(given.topic, given.partition, given.offset, given.key, given.value, headers, given.timestamp)

    return changed


def with_header(name: str, value: bytes | None) -> Callable[[Record], Record]:
    def changed(given: Record) -> Record:
        headers = (*(h for h in given.headers if h[0] != name), (name, value))
        return Record(given.topic, given.partition, given.offset, given.key, given.value, headers, given.timestamp)

    return changed


def with_value(value: bytes | None) -> Callable[[Record], Record]:
    return lambda r: Record(r.topic, r.partition, r.offset, r.key, value, r.headers, r.timestamp)


MALFORMED = {
    "no-id": without("ce_id"),
    "no-type": without("ce_type"),
    "null-header": with_header("ce_time", None),
    "not-utf8": with_header("ce_subject", b"\xff\xfe"),
    "empty-sequence": with_header("ce_sequence", b""),
    "wrong-sequence": with_header("ce_sequence", b"12"),
    "unicode-sequence": with_header("ce_sequence", "١٢٣٤٥٦٧٨٩٠".encode()),
    "specversion": with_header("ce_specversion", b"0.3"),
    "time": with_header("ce_time", b"yesterday"),
    "other-key": lambda r: Record(r.topic, 0, r.offset, b"other", r.value, r.headers, 0),
    "binary-key": lambda r: Record(r.topic, 0, r.offset, b"\xff", r.value, r.headers, 0),
    "no-value": with_value(None),
    "not-json": with_value(b"{"),
    "wrong-fields": with_value(b"{}"),
    "list": with_value(b"[]"),
    "nested": with_value(b"[" * 5000),
    "other-subject": with_header("ce_subject", uid(99).encode()),
}


@pytest.mark.parametrize("spoil", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_record_is_parked_once_and_stops_nobody(
    spoil: Callable[[Record], Record], world: World, database: Database
) -> None:
    good = records(database, *(enrolled(n) for n in range(1, 4)))
    bad = spoil(record(enrolled(9), 1))
    fates = await world.consumer.receive([good[0], bad, *good[1:]], database)
    assert (fates.handled, fates.parked) == (3, 1)
    assert (await world.consumer.receive([bad], database)).duplicate == 1
    (letter,) = await letters(database)
    kept = tuple(header for header in letter.headers if not header[0].startswith("dl_"))
    assert (letter.key, letter.value, kept) == (bad.key, bad.value, bad.headers)
    reason = headers_of(letter)["dl_reason"]
    assert "yesterday" not in reason and "{" not in reason


async def test_a_record_handled_later_reaches_a_handler_added_later(world: World, database: Database) -> None:
    """Once-ignored records reach a new handler when the group is put at the beginning; handled ones are duplicates."""
    given = records(database, enrolled(1), confirmed(1))
    await world.consumer.receive(given, database)
    seen = []

    @world.consumer.on(CohortConfirmed)
    async def note(event: CohortConfirmed, tx: Transaction) -> None:
        seen.append(event.size)

    fates = await world.consumer.receive(given, database)
    assert (fates.duplicate, fates.handled, seen) == (1, 1, [1])


async def test_nothing_is_parked_while_the_database_is_away(world: World) -> None:
    away = Database("mongodb://127.0.0.1:1/?directConnection=true", "x", service="x")
    with pytest.raises(Unavailable):
        await deliver(world.consumer, away, enrolled(1))
    await away.close()


@pytest.mark.parametrize("code", [1, 13, 14031], ids=["ill", "refuses us", "disk full"])
async def test_nothing_is_parked_while_the_database_cannot_write(
    world: World, database: Database, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    given = records(database, enrolled(1), enrolled(2))

    async def refuse(*_: object) -> None:
        raise OperationFailure("no", code)

    with monkeypatch.context() as patched:
        patched.setattr(Database, "_commit", staticmethod(refuse))
        with pytest.raises(Impaired):
            await world.consumer.receive(given, database)
    assert (await world.consumer.receive(given, database)).handled == 2
    assert await letters(database) == [] and await seated(database) == [1, 2]


async def test_a_record_at_which_alone_the_database_fails_stops_nobody(world: World, database: Database) -> None:
    world.failing = {2}
    fates = await deliver(world.consumer, database, enrolled(1), enrolled(2), enrolled(3))
    assert (fates.handled, fates.parked) == (2, 1)
    (letter,) = await letters(database)
    assert headers_of(letter)["dl_reason"] == "impaired"


async def test_one_fact_of_two_services_under_one_id_is_two_facts(world: World, database: Database) -> None:
    """The inbox key holds the source: same subject, same sequence, both handled."""
    heard = []

    @world.consumer.on(ProgrammeCompleted)
    async def note(event: ProgrammeCompleted, tx: Transaction) -> None:
        heard.append(event.enrollment_id)

    first = record(enrolled(1), 1)
    other = record(graduated(1), 1, ce_id=dict(first.headers)["ce_id"])
    assert (await world.consumer.receive([first, other], database)).handled == 2
    assert heard == [read(first).subject]


async def test_a_fact_on_anothers_topic_or_under_anothers_name_is_parked_and_makes_nobody_wait(
    world: World, database: Database
) -> None:
    """Who may write one topic could else announce whatever is others' to announce."""
    real = record(enrolled(1), 1)
    elsewhere = dataclasses.replace(real, topic="training.scheduling")
    disguised = with_header("ce_source", b"/training/scheduling")(elsewhere)
    renamed = with_header("ce_source", b"/training/elsewhere")(real)
    renamed = dataclasses.replace(renamed, offset=renamed.offset + 1000)
    fates = await world.consumer.receive([elsewhere, disguised, renamed, real], database)
    assert (fates.parked, fates.duplicate, fates.handled) == (2, 1, 1)  # the first two lie in one place
    assert {(p.reason, p.subject) for p in await world.consumer.parked(database)} == {
        ("unreadable:of-another-topic", None)
    }
    assert await seated(database) == [1]
