"""The two services of a storm: one calls numbers out, cohort by cohort; the other counts and answers."""

from __future__ import annotations

import os
from typing import ClassVar

from shared.contracts import Event, Id
from shared.domain import State
from shared.ids import derive
from shared.inbox import Consumer
from shared.mongo import Database, Transaction
from shared.service import Service

RUN = os.environ.get("STORM_RUN", "0")
"""Keeps the topics and databases of two storms on the same servers apart."""
CALLER, LISTENER = f"caller{RUN}", f"listener{RUN}"


class Called(Event):
    """A cohort called out its next number."""

    type: ClassVar[str] = "id.go.lan.training.storm.called.v1"
    topic: ClassVar[str] = f"training.{CALLER}"
    subject_field: ClassVar[str] = "cohort_id"
    key_field: ClassVar[str] = "cohort_id"

    cohort_id: Id
    number: int


class Answered(Event):
    """A number was heard and counted."""

    type: ClassVar[str] = "id.go.lan.training.storm.answered.v1"
    topic: ClassVar[str] = f"training.{LISTENER}"
    subject_field: ClassVar[str] = "tally_id"
    key_field: ClassVar[str] = "cohort_id"

    tally_id: Id
    cohort_id: Id
    number: int


class Caller(State):
    collection: ClassVar[str] = "callers"

    number: int = 0


class Tally(State):
    collection: ClassVar[str] = "tallies"

    cohort_id: Id
    counted: int = 0
    out_of_turn: int = 0


def cohort_id(number: int) -> str:
    return derive("storm", "cohort", str(number))


def tally_id(cohort_id: str) -> str:
    return derive("storm", "tally", cohort_id)


async def call_out(database: Database, cohort_id: str) -> int:
    """Call the cohort's next number; returns it once it is committed."""

    async def work(tx: Transaction) -> Caller:
        caller = await tx.load(Caller, cohort_id) or Caller(id=cohort_id)
        number = caller.number + 1
        return tx.save(caller.but(number=number), Called(cohort_id=cohort_id, number=number))

    return (await database.transaction(work)).number


listener = Consumer(LISTENER)


@listener.on(Called, reads=lambda event: (Tally, tally_id(event.cohort_id)))
async def count(event: Called, tx: Transaction) -> None:
    """Count the number, note whether its turn had come, and answer."""
    id = tally_id(event.cohort_id)
    tally = await tx.load(Tally, id) or Tally(id=id, cohort_id=event.cohort_id)
    counted = tally.counted + 1
    late = int(event.number != counted)
    tx.save(
        tally.but(counted=counted, out_of_turn=tally.out_of_turn + late),
        Answered(tally_id=id, cohort_id=event.cohort_id, number=event.number),
    )


SERVICES = {"caller": Service(CALLER, routers=[]), "listener": Service(LISTENER, routers=[], consumers=[listener])}
