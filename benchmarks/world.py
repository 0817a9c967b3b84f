"""What is measured: a service whose rosters call out numbers, and another that hears them."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, ClassVar

from fastapi import APIRouter
from pydantic import BaseModel

from shared.contracts import Event, Id
from shared.domain import State
from shared.errors import Rejected
from shared.http import Db, problems
from shared.identity import Caller, Role, allow
from shared.ids import derive
from shared.inbox import Consumer
from shared.mongo import Database, Transaction
from shared.service import Service

RUN = os.environ.get("BENCH_RUN", "0")
"""Keeps the topics and databases of two runs on the same servers apart."""
CALLER, LISTENER = f"benchcaller{RUN}", f"benchlistener{RUN}"
SEATS = 40


class Called(Event):
    """A roster called out its next number."""

    type: ClassVar[str] = "id.go.lan.training.bench.called.v1"
    topic: ClassVar[str] = f"training.{CALLER}"
    subject_field: ClassVar[str] = "roster_id"
    key_field: ClassVar[str] = "roster_id"

    roster_id: Id
    number: int


@contextmanager
def called_on(topic: str) -> Iterator[None]:
    """Inside, the calls are this topic's: on any other they would pass for another topic's, and be parked."""
    own, Called.topic = Called.topic, topic
    try:
        yield
    finally:
        Called.topic = own


class Roster(State):
    collection: ClassVar[str] = "rosters"

    number: int = 0


class Heard(State):
    collection: ClassVar[str] = "heard"

    number: int = 0
    heard_ns: int = 0


class Cohort(State):
    collection: ClassVar[str] = "cohorts"

    taken: int = 0


class Seat(State):
    collection: ClassVar[str] = "seats"

    cohort_id: Id


class Full(Rejected):
    """Every seat is taken."""


def roster_id(number: int) -> str:
    return derive("bench", "roster", str(number))


async def call_out(roster_id: str, database: Database) -> Roster:
    """Call the roster's next number."""

    async def work(tx: Transaction) -> Roster:
        roster = await tx.load(Roster, roster_id) or Roster(id=roster_id)
        number = roster.number + 1
        return tx.save(roster.but(number=number), Called(roster_id=roster_id, number=number))

    return await database.transaction(work)


def seating(cohort_id: str, number: int) -> Callable[[Transaction], Awaitable[Seat]]:
    """The closure of a command that takes a seat; raises `Full`."""

    async def work(tx: Transaction) -> Seat:
        cohort = await tx.load(Cohort, cohort_id) or Cohort(id=cohort_id)
        if cohort.taken >= SEATS:
            raise Full
        seat_id = derive("bench", "seat", cohort_id, str(number))
        await tx.load(Seat, seat_id)
        tx.save(cohort.but(taken=cohort.taken + 1))
        return tx.save(Seat(id=seat_id, cohort_id=cohort_id))

    return work


def listening(group: str) -> Consumer:
    """A consumer that keeps what it hears: one state read and written for each event."""
    consumer = Consumer(group)

    @consumer.on(Called, reads=lambda event: (Heard, event.roster_id))
    async def hear(event: Called, tx: Transaction) -> None:
        """Keep the last number and when it was heard."""
        heard = await tx.load(Heard, event.roster_id) or Heard(id=event.roster_id)
        tx.save(heard.but(number=event.number, heard_ns=time.time_ns()))

    return consumer


router = APIRouter()


class Call(BaseModel):
    """What a caller of the route says."""

    note: int


class RosterView(BaseModel):
    id: str
    number: int


@router.put("/v1/rosters/{roster_id}/number", responses=problems(Full))
async def next_number(
    roster_id: Id, body: Call, caller: Annotated[Caller, allow(Role.ORGANISER)], db: Db
) -> RosterView:
    """The roster calls out its next number."""
    roster = await call_out(roster_id, db)
    return RosterView(id=roster.id, number=roster.number)


SERVICES = {
    "caller": Service(CALLER, routers=[router]),
    "listener": Service(LISTENER, routers=[], consumers=[listening(LISTENER)]),
}
