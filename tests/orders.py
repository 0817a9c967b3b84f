"""Every order in which a consumer may get its records: all of them for a small lifecycle, some for a large one.

A topic keeps the order of a key; nothing else does. `explore` takes every interleaving on the real database: what is
kept after a record decides everything that follows, so two orders that have led to the same content go on as one, and
some hundred transactions stand for a hundred thousand orders. `shuffle` plays single orders from end to end, in
batches of any size and with records delivered twice, which is what `explore` leaves out.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import factorial, prod
from typing import Any, Protocol, TypeVar

import orjson
from bson import encode
from pymongo import DeleteOne, ReplaceOne

from shared import clock
from shared.cloudevents import Record
from shared.cloudevents import read as read_envelope
from shared.domain import State
from shared.errors import Unavailable
from shared.inbox import Consumer
from shared.mongo import Database, state_of

S = TypeVar("S", bound=State)
Announced = Mapping[str, tuple[tuple[str, str], ...]]
"""Topic and subject → what was announced there, in order: id and value."""

COUNTING = {"version", "revision", "pos", "guard", "at"}
"""How often a state was written and when: the only things in which two orders may differ."""

Finish = Callable[[], Awaitable[None]]
Content = dict[str, dict[Any, dict[str, Any]]]


@dataclass(frozen=True)
class Kept:
    """Everything in a database, and what was announced on the way there: per topic and subject, in order."""

    content: Content
    announced: Announced = field(default_factory=dict)

    def said(self, unordered: frozenset[str]) -> dict[str, bytes]:
        """By document and by subject, in a form that is equal when nothing but counting differs."""
        documents = {
            f"{collection}/{id}": orjson.dumps(_plain(document, unordered), option=orjson.OPT_SORT_KEYS)
            for collection, documents in self.content.items()
            for id, document in documents.items()
        }
        return documents | {subject: orjson.dumps(rows) for subject, rows in self.announced.items()}


def _plain(value: Any, unordered: frozenset[str], *, top: bool = True) -> Any:
    if isinstance(value, dict):
        plain = {str(k): _plain(v, unordered, top=False) for k, v in value.items() if not (top and k in COUNTING)}
        return {k: sorted(v, key=orjson.dumps) if k in unordered else v for k, v in plain.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, unordered, top=False) for item in value]
    return value.hex() if isinstance(value, bytes) else value


@dataclass(frozen=True)
class Found:
    """The one outcome of every order that was tried, and how many those were."""

    orders: int
    transactions: int
    outcome: dict[str, bytes]
    kept: Kept

    def states(self, cls: type[S]) -> list[S]:
        return [state_of(cls, kept) for kept in self.kept.content.get(cls.collection, {}).values()]


class Tried(Protocol):
    """The fixture `tried`: every order, and some from end to end, counted for the end of the test run."""

    async def __call__(self, orders: Orders, *, explore: bool = True) -> Found: ...


class Orders:
    """The orders of these records for one consumer, from what the database holds now, at one instant.

    `finish` lets time pass at the end of each order. `unordered` names fields whose list is a set in the order of
    arrival. An order fails when it parks a record or ends otherwise than the first.
    """

    def __init__(
        self,
        consumer: Consumer,
        database: Database,
        records: Sequence[Record],
        *,
        at: datetime,
        finish: Finish | None = None,
        unordered: Sequence[str] = (),
    ) -> None:
        lanes: dict[tuple[str, bytes | None], list[Record]] = {}
        for record in records:
            lanes.setdefault((record.topic, record.key), []).append(record)
        self.lanes = list(lanes.values())
        self._consumer = consumer
        self._database = database
        self._at = at
        self._finish = finish
        self._unordered = frozenset(unordered)
        self._present: Content = {}

    @property
    def number(self) -> int:
        """How many orders there are."""
        return factorial(sum(map(len, self.lanes))) // prod(factorial(len(lane)) for lane in self.lanes)

    async def explore(self) -> Found:
        """All of them, record by record."""
        origin = await self._capture({})
        layer: dict[tuple[tuple[int, ...], str], tuple[Kept, int, tuple[int, ...]]]
        layer = {((0,) * len(self.lanes), ""): (origin, 1, ())}
        transactions = 0
        for _ in range(sum(map(len, self.lanes))):
            after: dict[tuple[tuple[int, ...], str], tuple[Kept, int, tuple[int, ...]]] = {}
            for (taken, _), (kept, ways, path) in layer.items():
                for lane, records in enumerate(self.lanes):
                    if taken[lane] == len(records):
                        continue
                    await self._restore(kept)
                    await self._receive([records[taken[lane]]], [*path, lane])
                    reached = await self._capture(kept.announced)
                    transactions += 1
                    place = tuple(n + (i == lane) for i, n in enumerate(taken))
                    said = repr(sorted(reached.said(self._unordered).items()))
                    known, others, first = after.get((place, said), (reached, 0, (*path, lane)))
                    after[place, said] = (known, others + ways, first)
            layer = after
        orders = sum(ways for _, ways, _ in layer.values())
        assert orders == self.number
        outcome: dict[str, bytes] | None = None
        ended = origin
        for kept, _, path in layer.values():
            await self._restore(kept)
            ended = await self._end(kept.announced)
            outcome = self._same(outcome, ended, path)
        await self._restore(origin)
        assert outcome is not None
        return Found(orders, transactions, outcome, ended)

    async def rebuild(self) -> Found:
        """Topic by topic from the beginning; and once more, which is all known and changes nothing."""
        origin = await self._capture({})
        for lane in self.lanes:
            await self._receive(lane, [])
        ended = await self._end({})
        expected = self._same(None, ended, [])
        for lane in self.lanes:
            await self._receive(lane, [])
        self._same(expected, await self._end(ended.announced), [])
        await self._restore(origin)
        return Found(1, len(self.lanes), expected, ended)

    async def shuffle(
        self,
        number: int,
        expected: dict[str, bytes] | None = None,
        *,
        batches: Sequence[int] = (1, 2, 3, 8, 24, 100),
    ) -> Found:
        """So many different ones, drawn from all with equal chance (seeded), each from its beginning to its end."""
        origin = await self._capture({})
        tried: set[tuple[int, ...]] = set()
        transactions, ended = 0, origin
        for seed in range(10 * number):
            if len(tried) == min(number, self.number):
                break
            chance = random.Random(seed)
            path = [lane for lane, records in enumerate(self.lanes) for _ in records]
            chance.shuffle(path)
            if tuple(path) in tried:
                continue
            tried.add(tuple(path))
            cursors = [iter(records) for records in self.lanes]
            order = [next(cursors[lane]) for lane in path]
            await self._restore(origin)
            while order:
                size = chance.choice(batches)
                batch, order = order[:size], order[size:]
                await self._receive(batch, path)
                transactions += 1
                if chance.random() < 0.1:
                    await self._receive(batch[-2:], path)
            ended = await self._end({})
            expected = self._same(expected, ended, path)
        await self._restore(origin)
        assert expected is not None
        return Found(len(tried), transactions, expected, ended)

    async def race(self, number: int, expected: dict[str, bytes] | None = None) -> Found:
        """A worker for each topic and key, all at once, so many times."""
        origin = await self._capture({})
        ended = origin
        for seed in range(number):
            chances = [random.Random(f"{seed} {lane}") for lane in range(len(self.lanes))]

            async def work(lane: list[Record], chance: random.Random) -> None:
                while lane:
                    size = chance.choice((1, 2, 5, 20))
                    await self._receive(lane[:size], [seed])  # noqa: B023 (awaited within the round)
                    lane = lane[size:]

            await asyncio.gather(*map(work, self.lanes, chances))
            ended = await self._end({})
            expected = self._same(expected, ended, [seed])
            await self._restore(origin)
        assert expected is not None
        return Found(number, 0, expected, ended)

    async def _receive(self, records: Sequence[Record], path: Sequence[int]) -> None:
        with clock.at(self._at):
            while True:
                try:
                    fates = await self._consumer.receive(records, self._database)
                    break
                except Unavailable:  # on a busy machine; a worker, too, brings the same records again
                    continue
        done = fates.handled + fates.ignored + fates.duplicate
        assert done == len(records), f"{fates} in the order {path}"

    async def _end(self, announced: Announced) -> Kept:
        if self._finish is not None:
            await self._finish()
        return await self._capture(announced)

    def _same(self, expected: dict[str, bytes] | None, kept: Kept, path: Sequence[int]) -> dict[str, bytes]:
        found = kept.said(self._unordered)
        if expected is not None and found != expected:
            other = [k for k in sorted(expected.keys() | found.keys()) if expected.get(k) != found.get(k)]
            told = "\n".join(f"{k}\n  {expected.get(k)!r}\n  {found.get(k)!r}" for k in other[:5])
            raise AssertionError(f"the order {''.join(map(str, path))} ends otherwise in {len(other)} places:\n{told}")
        return found

    async def _capture(self, announced: Announced) -> Kept:
        """What is kept now. What was announced leaves the outbox, as if it had been published."""
        raw = self._database.collection("x").database
        content: Content = {}
        for name in await raw.list_collection_names():
            documents = {doc["_id"]: doc for doc in await raw[name].find({}).to_list(None)}
            if name == "outbox":
                announced = _with(announced, [documents[id] for id in sorted(documents)])
                if documents:
                    await raw[name].delete_many({})
            elif documents:
                content[name] = documents
        self._present = content
        return Kept(content, announced)

    async def _restore(self, kept: Kept) -> None:
        """Write what differs between what is there and what shall be."""
        raw = self._database.collection("x").database
        for name in sorted(self._present.keys() | kept.content.keys()):
            there, wanted = self._present.get(name, {}), kept.content.get(name, {})
            operations: list[Any] = [DeleteOne({"_id": id}) for id in there.keys() - wanted.keys()]
            operations += [
                ReplaceOne({"_id": id}, document, upsert=True)
                for id, document in wanted.items()
                if there.get(id) is not document and (id not in there or encode(there[id]) != encode(document))
            ]
            if operations:
                await raw[name].bulk_write(operations, ordered=False)
        self._present = kept.content


def _with(announced: Announced, documents: Sequence[Mapping[str, Any]]) -> dict[str, tuple[tuple[str, str], ...]]:
    """And what these outbox documents announce: id, and everything but the instants of recording."""
    told = dict(announced)
    for document in documents:
        for row in document["rows"]:
            headers = tuple((name, value) for name, value in row["headers"])
            envelope = read_envelope(Record(document["topic"], 0, 0, row["key"], row["value"], headers, 0))
            subject = f"{document['topic']}: {envelope.source} {envelope.subject}"
            told[subject] = (*told.get(subject, ()), (envelope.id, row["value"].decode()))
    return told
