"""One trace from a caller's request to what another service does about it; and nothing in it that tells of a person."""

from __future__ import annotations

import asyncio
import itertools
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Annotated

import pytest
from fastapi import APIRouter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from shared import broker, tracing
from shared.broker import Topic
from shared.contracts.enrollment import ParticipantEnrolled
from shared.http import Db
from shared.identity import Caller, Role, allow
from shared.inbox import Consumer, dead_letters
from shared.kafka import Kafka
from shared.mongo import Database, Driver, Transaction
from shared.outbox import Relay
from shared.service import Service
from shared.timers import Timers
from shared.worker import Intakes
from tests.shared.sample import COHORT, Cohort, Enrollment, enroll, enrolled, open_cohort
from tests.support import START, announced, api, deliver, fire_timers, token, until

ORIGIN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE = int(ORIGIN.split("-")[1], 16)
CANARY = "canary-in-an-address"

_names = itertools.count()
router = APIRouter()


@router.put("/v1/seats/{number}")
async def take_seat(number: int, caller: Annotated[Caller, allow(Role.ORGANISER)], db: Db, q: str = "") -> None:
    """Take a seat."""
    await enroll(db, number)


@router.put("/v1/broken-seats/{number}")
async def break_seat(number: int, caller: Annotated[Caller, allow(Role.ORGANISER)], db: Db) -> None:
    """Fail with a message that repeats the input."""

    async def work(tx: Transaction) -> None:
        raise ZeroDivisionError(CANARY)

    await db.transaction(work)


SEATING = Service("enrollment", routers=[router])


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Every span that ends, while the test runs."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider)
    yield exporter
    tracing.use(None)


@pytest.fixture
async def neighbour(mongo_uri: str, driver: Driver) -> AsyncIterator[Database]:
    """The consuming service's own database."""
    database = Database(mongo_uri, f"test-{uuid.uuid4().hex[:12]}", service="scheduling", driver=driver)
    yield database
    await database.drop()
    await database.close()


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name.startswith(name)]


def traces(*spans: ReadableSpan) -> set[int]:
    return {span.context.trace_id for span in spans if span.context}


def child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    return bool(span.parent and parent.context and span.parent.span_id == parent.context.span_id)


async def test_a_request_is_one_trace_with_what_a_foreign_service_does_about_it(
    database: Database,
    neighbour: Database,
    kafka: Kafka,
    spans: InMemorySpanExporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topic = f"training.trace{os.getpid()}-{next(_names)}"
    monkeypatch.setattr(ParticipantEnrolled, "topic", topic)
    consumer = Consumer(topic)

    @consumer.on(ParticipantEnrolled, reads=lambda event: (Enrollment, event.enrollment_id))
    async def keep(event: ParticipantEnrolled, tx: Transaction) -> None:
        await tx.load(Enrollment, event.enrollment_id)
        tx.save(Enrollment(id=event.enrollment_id, cohort_id=event.cohort_id), event)  # announced in its turn

    await broker.prepare(kafka, [Topic(topic, 3), Topic(dead_letters(topic, topic), 1)], [], 1)
    await open_cohort(database)
    relay, intakes = Relay(database, kafka, lease_seconds=0.6), Intakes([consumer], neighbour, kafka, "one")
    stopping = asyncio.Event()
    running = asyncio.create_task(relay.run())
    try:
        await intakes.start(stopping)
        async with api(SEATING, database) as client:
            headers = token(Role.ORGANISER) | {"traceparent": ORIGIN, "tracestate": CANARY}
            for number in (1, 2):
                assert (await client.put(f"/v1/seats/{number}?q={CANARY}", headers=headers)).status_code == 200
        await until(lambda: len(named(spans, "process")) == 2)
    finally:
        relay.stop()
        await asyncio.gather(running, intakes.stop())

    requests, commands = named(spans, "PUT /v1/seats/{number}"), named(spans, "transaction")
    sent, handled = named(spans, f"send {topic}"), named(spans, f"process {topic}")
    assert len(requests) == len(commands) == len(sent) == len(handled) == 2
    assert traces(*requests, *commands, *sent, *handled) == {TRACE}
    for request, command in zip(requests, commands, strict=True):
        assert request.parent is not None and request.parent.is_remote
        assert child(command, request)
        assert sum(child(span, command) for span in sent) == sum(child(span, command) for span in handled) == 1
    ((envelope, _), _) = await announced(neighbour)
    assert (envelope.traceparent or "").split("-")[1] == ORIGIN.split("-")[1]
    assert CANARY not in "".join(span.to_json() for span in spans.get_finished_spans())


async def test_events_of_one_batch_keep_their_own_traces(database: Database, spans: InMemorySpanExporter) -> None:
    consumer = Consumer("seats")

    @consumer.on(ParticipantEnrolled)
    async def ignore(event: ParticipantEnrolled, tx: Transaction) -> None:
        return None

    await deliver(consumer, database, *(enrolled(number) for number in range(3)))
    handled = named(spans, "process seats")
    assert len(traces(*handled)) == len(handled) == 3


async def test_a_failure_is_told_by_its_class_and_no_message(database: Database, spans: InMemorySpanExporter) -> None:
    async with api(SEATING, database) as client:
        answer = await client.put(f"/v1/broken-seats/1?q={CANARY}", headers=token(Role.ORGANISER))
    assert answer.status_code == 500
    (request,), (command,) = named(spans, "PUT /v1/broken-seats/{number}"), named(spans, "transaction")
    assert command.status.description == "ZeroDivisionError" and not request.status.is_ok
    assert CANARY not in request.to_json() + command.to_json() and not command.events


async def test_a_timer_that_is_due_begins_a_trace(database: Database, spans: InMemorySpanExporter) -> None:
    timers = Timers()

    @timers.on("close")
    async def close(timer: object, tx: Transaction) -> None:
        cohort = await tx.require(Cohort, COHORT)
        tx.save(cohort.but(open=False))

    await open_cohort(database)

    async def work(tx: Transaction) -> None:
        await tx.set_timer("close", COHORT, due_at=START)

    await database.transaction(work)
    await fire_timers(timers, database, until=START)
    (fired,) = named(spans, "timer close")
    assert fired.parent is None and child(named(spans, "transaction")[-1], fired)


async def test_without_a_collector_nothing_is_traced_and_a_callers_trace_is_not_kept(database: Database) -> None:
    await open_cohort(database)
    async with api(SEATING, database) as client:
        await client.put("/v1/seats/1", headers=token(Role.ORGANISER) | {"traceparent": ORIGIN})
    ((envelope, _),) = await announced(database)
    assert envelope.traceparent is None


def test_what_ended_reaches_the_collector_before_the_process_does() -> None:
    bodies: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return None

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with (
            tracing.exported(f"http://127.0.0.1:{server.server_port}/", **{"service.name": "enrollment"}),
            tracing.begun("close the books", SpanKind.INTERNAL, None, {}),
        ):
            assert tracing.traceparent()
        server.shutdown()
    assert tracing.traceparent() is None
    ((path, body),) = bodies
    assert path == "/v1/traces" and len(body) > 100
