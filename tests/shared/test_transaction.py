"""The unit of work: state and events together or not at all, gapless sequences, no write skew."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid5

import pytest
from bson import BSON
from pymongo import InsertOne

from shared import clock
from shared.contracts import NAMESPACE
from shared.domain import expect_revision
from shared.errors import Contended, NotFound, PreconditionFailed, Stale, Unavailable
from shared.mongo import Database, Transaction, _Positions
from tests.shared.sample import COHORT, Cohort, Enrollment, Full, confirmed, enroll, enrolled, open_cohort
from tests.support import START, announced, many, record, uid


async def test_a_state_and_its_events_are_written_together(database: Database) -> None:
    await open_cohort(database)
    await enroll(database, 1)
    ((envelope, event),) = await announced(database)
    assert event == enrolled(1)
    assert (envelope.subject, envelope.sequence, envelope.partitionkey) == (uid(1, 0xE), 1, COHORT)
    assert envelope.agencyid == uid(1, 0xD)


async def test_a_fact_tells_when_it_happened_in_the_training_and_when_it_was_really_recorded(
    database: Database,
) -> None:
    with clock.at(START):
        await open_cohort(database)
        await enroll(database, 1)
    ((envelope, _),) = await announced(database)
    assert envelope.time == START
    assert envelope.recordedtime is not None and abs(envelope.recordedtime - datetime.now(UTC)) < timedelta(minutes=1)


async def test_nothing_is_written_when_the_work_refuses(database: Database) -> None:
    await open_cohort(database)

    async def work(tx: Transaction) -> None:
        cohort = await tx.require(Cohort, COHORT)
        tx.save(cohort.but(taken=1), confirmed(1))
        raise Full

    with pytest.raises(Full):
        await database.transaction(work)
    assert await announced(database) == []
    kept = await database.get(Cohort, COHORT)
    assert kept is not None and kept.taken == 0


async def test_sequences_count_per_subject_without_gaps_and_ids_follow_from_them(database: Database) -> None:
    await open_cohort(database)

    async def confirm(tx: Transaction) -> None:
        cohort = await tx.require(Cohort, COHORT)
        cohort = tx.save(cohort, confirmed(1), confirmed(2))
        tx.save(cohort, confirmed(3))

    await asyncio.gather(*(database.transaction(confirm) for _ in range(5)))
    told = await announced(database)
    assert [envelope.sequence for envelope, _ in told] == list(range(1, 16))
    for envelope, _ in told:
        name = f"{envelope.source}|{envelope.type}|{envelope.subject}|{envelope.sequence}"
        assert UUID(envelope.id) == uuid5(NAMESPACE, name)


async def test_an_event_belongs_to_the_state_it_is_saved_with(database: Database) -> None:
    await open_cohort(database)

    async def work(tx: Transaction) -> None:
        tx.save(await tx.require(Cohort, COHORT), enrolled(1))

    with pytest.raises(RuntimeError, match="subject"):
        await database.transaction(work)


async def test_one_subject_keeps_one_key_and_agency_for_life(database: Database) -> None:
    await open_cohort(database)
    await enroll(database, 1)

    async def work(tx: Transaction) -> None:
        tx.save(await tx.require(Enrollment, uid(1, 0xE)), enrolled(1, agency=2))

    with pytest.raises(RuntimeError, match="for life"):
        await database.transaction(work)


async def test_a_second_save_from_an_older_object_is_stale(database: Database) -> None:
    await open_cohort(database)

    async def work(tx: Transaction) -> None:
        cohort = await tx.require(Cohort, COHORT)
        tx.save(cohort.but(taken=1))
        tx.save(cohort.but(taken=2))

    with pytest.raises(Stale):
        await database.transaction(work)


async def test_a_blind_insert_is_a_bug(database: Database) -> None:
    async def work(tx: Transaction) -> None:
        tx.save(Cohort(id=COHORT))

    with pytest.raises(RuntimeError, match="loaded"):
        await database.transaction(work)


async def test_who_creates_the_same_thing_at_the_same_time_sees_the_other(database: Database) -> None:
    created = []

    async def create() -> None:
        async def work(tx: Transaction) -> bool:
            if await tx.load(Cohort, COHORT):
                return False
            tx.save(Cohort(id=COHORT), confirmed(1))
            return True

        created.append(await database.transaction(work))

    await asyncio.gather(*(create() for _ in range(10)))
    assert sorted(created) == [False] * 9 + [True]
    assert len(await announced(database)) == 1


async def test_a_hundred_want_forty_seats_and_exactly_forty_get_one(database: Database) -> None:
    await open_cohort(database)
    outcomes = await asyncio.gather(*(enroll(database, n) for n in range(1, 101)), return_exceptions=True)
    assert sum(isinstance(outcome, Enrollment) for outcome in outcomes) == 40
    assert sum(isinstance(outcome, Full) for outcome in outcomes) == 60
    kept = await database.get(Cohort, COHORT)
    assert kept is not None and kept.taken == 40
    assert len(await announced(database)) == 40


async def test_no_one_is_enrolled_after_the_door_closed(database: Database, elsewhere: Database) -> None:
    """Snapshot isolation alone would let a decision that only read the cohort slip past its closing."""
    for round in range(many(20, 200)):
        cohort_id = uid(round, 0xC)
        await open_cohort(database, cohort_id)

        async def close(cohort_id: str = cohort_id) -> int:
            async def work(tx: Transaction) -> int:
                cohort = await tx.require(Cohort, cohort_id)
                inside = await tx.find(Enrollment, {"cohort_id": cohort_id}, owner=cohort)
                tx.save(cohort.but(open=False))
                return len(inside)

            return await database.transaction(work)

        async def enter(number: int, cohort_id: str = cohort_id) -> None:
            async def work(tx: Transaction) -> None:
                cohort = await tx.require(Cohort, cohort_id)
                if not cohort.open:
                    raise Full
                tx.rely_on(cohort)
                await tx.load(Enrollment, uid(number, 0xE))
                tx.save(Enrollment(id=uid(number, 0xE), cohort_id=cohort_id))

            await elsewhere.transaction(work)

        numbers = range(round * 10, round * 10 + 5)
        counted, *entered = await asyncio.gather(close(), *(enter(n) for n in numbers), return_exceptions=True)
        assert all(outcome is None or isinstance(outcome, Full) for outcome in entered), entered
        assert len(await database.query(Enrollment, {"cohort_id": cohort_id})) == counted


async def test_two_who_look_at_the_same_set_do_not_both_add_to_it(database: Database) -> None:
    """Each writes a state of its own; only the set's owner, named in `find`, makes them meet."""
    await open_cohort(database)
    await open_cohort(database, uid(2, 0xC))
    await enroll(database, 9, cohort_id=uid(2, 0xC))  # two who make one collection would meet by that alone
    looked = 0
    both = asyncio.Event()

    async def claim(number: int) -> None:
        async def work(tx: Transaction) -> None:
            nonlocal looked
            cohort = await tx.require(Cohort, COHORT)
            inside = await tx.find(Enrollment, {"cohort_id": COHORT}, owner=cohort)
            looked += 1
            if looked == 2:
                both.set()
            await both.wait()
            await tx.load(Enrollment, uid(number, 0xE))
            if not inside:
                tx.save(Enrollment(id=uid(number, 0xE), cohort_id=COHORT))

        await database.transaction(work)

    await asyncio.gather(claim(1), claim(2))
    assert len(await database.query(Enrollment, {"cohort_id": COHORT})) == 1
    assert looked > 2, "one of them met a conflict and looked again"


async def test_a_deleted_state_is_gone_and_a_new_one_may_take_its_place(database: Database) -> None:
    await open_cohort(database)

    async def work(tx: Transaction) -> None:
        cohort = await tx.require(Cohort, COHORT)
        tx.delete(cohort)
        with pytest.raises(Stale):
            tx.save(cohort.but(taken=7))
        tx.save(Cohort(id=COHORT, taken=1))

    await database.transaction(work)
    kept = await database.get(Cohort, COHORT)
    assert kept is not None and (kept.taken, kept.version) == (1, 1)


async def test_nobody_exceeds_a_quota_that_two_processes_fill_at_once(database: Database, elsewhere: Database) -> None:
    """A decision that rests on how many there are: two who both see the last free place may not both take it."""
    for round in range(many(20, 200)):
        cohort_id = uid(round, 0xC)
        await open_cohort(database, cohort_id)

        async def enter(number: int, through: Database, cohort_id: str = cohort_id) -> None:
            async def work(tx: Transaction) -> None:
                cohort = await tx.require(Cohort, cohort_id)
                if len(await tx.find(Enrollment, {"cohort_id": cohort_id}, owner=cohort)) >= 2:
                    raise Full
                await tx.load(Enrollment, uid(number, 0xE))
                tx.save(Enrollment(id=uid(number, 0xE), cohort_id=cohort_id))

            await through.transaction(work)

        entering = [enter(round * 10 + n, (database, elsewhere)[n % 2]) for n in range(4)]
        outcomes = await asyncio.gather(*entering, return_exceptions=True)
        assert sum(isinstance(outcome, Full) for outcome in outcomes) == outcomes.count(None) == 2
        assert len(await database.query(Enrollment, {"cohort_id": cohort_id})) == 2


async def test_find_sees_what_this_transaction_wrote(database: Database) -> None:
    await open_cohort(database)

    async def work(tx: Transaction) -> int:
        cohort = await tx.require(Cohort, COHORT)
        await tx.load(Enrollment, uid(1, 0xE))
        tx.save(Enrollment(id=uid(1, 0xE), cohort_id=COHORT), enrolled(1))
        found = await tx.find(Enrollment, {"cohort_id": COHORT}, owner=cohort)
        return len(found)

    assert await database.transaction(work) == 1
    kept = await database.collection("enrollments").find_one({"_id": uid(1, 0xE)})
    assert kept["pos"] > 0


async def test_an_effect_leaves_after_its_cause(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the clock of the machine that recorded the cause was ahead of ours."""
    monkeypatch.setattr("shared.mongo._positions", _Positions())
    await open_cohort(database)
    await enroll(database, 1)
    before = (await database.collection("outbox").find({}).sort([("_id", 1)]).to_list(None))[-1]["_id"]
    await database.collection("cohorts").update_one({"_id": COHORT}, {"$set": {"pos": 9_999_999_999_999_999}})
    await enroll(database, 2)
    after = (await database.collection("outbox").find({}).sort([("_id", 1)]).to_list(None))[-1]["_id"]
    assert after > before and int(after[:20]) == 10_000_000_000_000_000


async def test_one_outbox_document_per_transaction_and_topic(database: Database) -> None:
    await open_cohort(database)

    async def work(tx: Transaction) -> None:
        for number in range(1, 31):
            await tx.load(Enrollment, uid(number, 0xE))
            tx.save(Enrollment(id=uid(number, 0xE), cohort_id=COHORT), enrolled(number))

    await database.transaction(work)
    (document,) = await database.collection("outbox").find({}).to_list(None)
    assert document["topic"] == "training.enrollment" and len(document["rows"]) == 30


async def test_a_large_transactions_outbox_is_split_and_keeps_its_order(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into more than ten parts, of which the tenth sorts behind the second."""
    monkeypatch.setattr("shared.mongo.OUTBOX_DOCUMENT_BYTES", 5000)
    await open_cohort(database)

    async def work(tx: Transaction) -> None:
        for number in range(1, 61):
            await tx.load(Enrollment, uid(number, 0xE))
            tx.save(Enrollment(id=uid(number, 0xE), cohort_id=COHORT), enrolled(number))

    await database.transaction(work)
    documents = await database.collection("outbox").find({}).to_list(None)
    assert len(documents) > 10 and max(len(BSON.encode(document)) for document in documents) < 5200
    assert [event for _, event in await announced(database)] == [enrolled(number) for number in range(1, 61)]


async def test_more_than_one_document_of_the_database_can_hold_leaves_in_one_transaction(database: Database) -> None:
    values = [bytes([number]) * 1_000_000 for number in range(17)]

    async def work(tx: Transaction) -> None:
        for value in values:
            tx.forward(replace(record(confirmed(1), 1), value=value), "training.agency.some")

    await database.transaction(work)
    documents = await database.collection("outbox").find({}).sort([("_id", 1)]).to_list(None)
    assert len(documents) > 1
    assert [row["value"] for document in documents for row in document["rows"]] == values


async def test_the_revision_moves_only_when_an_editable_field_does(
    database: Database, elsewhere: Database, count: Callable[[str], None]
) -> None:
    """Edits with If-Match succeed for as long as another process enrolls one participant after the other."""
    await open_cohort(database)

    async def rename(revision: int) -> Cohort:
        async def work(tx: Transaction) -> Cohort:
            cohort = await tx.require(Cohort, COHORT)
            expect_revision(cohort, revision)
            return tx.save(cohort.but(label=f"after {revision}"))

        return await database.transaction(work)

    longest, edits, asked, edited, moments = 0.0, many(5, 100), 0, asyncio.Event(), random.Random(1)

    async def crowd() -> None:
        nonlocal asked
        while not edited.is_set():
            asked += 1
            await enroll(elsewhere, asked, capacity=100_000)

    enrolling = asyncio.gather(*(crowd() for _ in range(8)))
    try:
        for revision in range(1, edits + 1):
            await asyncio.sleep(moments.uniform(0.0, 0.05))
            began = time.monotonic()
            assert (await rename(revision)).revision == revision + 1
            longest = max(longest, time.monotonic() - began)
    finally:
        edited.set()
        await enrolling
    with pytest.raises(PreconditionFailed):
        await rename(edits)
    kept = await database.get(Cohort, COHORT)
    assert kept is not None and (kept.taken, kept.label, kept.revision) == (asked, f"after {edits}", edits + 1)
    count(f"{edits} edits beside {asked} enrollments, slowest {longest:.1f} s")


async def test_a_thing_that_is_not_there_is_not_found(database: Database) -> None:
    async def work(tx: Transaction) -> None:
        await tx.require(Cohort, COHORT)

    with pytest.raises(NotFound):
        await database.transaction(work)


async def test_a_database_that_is_away_is_unavailable_and_not_a_crash() -> None:
    for driver in ("motor", "pymongo"):
        away = Database("mongodb://127.0.0.1:1/?directConnection=true", "x", service="x", driver=driver)
        with pytest.raises(Unavailable) as raised:
            await away.transaction(lambda tx: tx.load(Cohort, COHORT), patience=0.5)
        assert not isinstance(raised.value, Contended)
        await away.close()


async def test_what_ran_out_of_time_lets_go_of_what_it_had_written(database: Database) -> None:
    """Else whoever wants it next, and the same batch first, conflicts until the server ends what nobody goes on with.

    And too much for its time is not a neighbour that is away: a batch of it is to come again in parts.
    """
    await open_cohort(database)

    async def confirm(tx: Transaction) -> None:
        cohort = await tx.require(Cohort, COHORT)
        tx.save(cohort.but(taken=cohort.taken + 1))
        await tx.find(Cohort, {"_id": COHORT}, owner=None)  # which writes it
        if slow:  # the time ends while the server is at work
            await asyncio.sleep(max(0.0, began + 0.49 - time.monotonic()))
            for n in range(1_000):
                tx.write("many", InsertOne({"_id": n}))

    slow, began = True, time.monotonic()
    with pytest.raises(Contended):
        await database.transaction(confirm, patience=0.5)
    slow = False
    await database.transaction(confirm, patience=8.0)
    kept = await database.get(Cohort, COHORT)
    assert kept is not None and kept.taken == 1


async def test_an_event_over_64_kib_is_refused_at_commit(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await open_cohort(database)
    monkeypatch.setattr("shared.mongo.EVENT_BYTES", 100)
    with pytest.raises(ValueError, match="larger"):
        await enroll(database, 1)
    assert await announced(database) == []
