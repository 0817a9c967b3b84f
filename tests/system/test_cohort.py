"""A short cohort through the gateway: api and worker apart, and a worker that is killed in the middle."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from cloudevents.core.formats.json import JSONFormat
from jsonschema import Draft202012Validator
from pymongo import AsyncMongoClient

from demo.play import play
from demo.scenario import Scenario, cast
from demo.summary import Summary
from demo.topics import everything, kafka
from shared import personal
from shared.contracts import REGISTRY
from stack import PROJECT, Stack
from storm.cohort import short_scenario

KILLED = "assessment-worker"


class Played:
    """What is known of the one play that these tests share."""

    def __init__(self, stack: Stack, scenario: Scenario, summary: Summary, killed: int) -> None:
        self.stack = stack
        self.scenario = scenario
        self.summary = summary
        self.killed = killed


@pytest.fixture(scope="module")
async def played(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Played]:
    """A stack with api and worker apart, on which the short cohort was played while one worker was killed."""
    home: Path = tmp_path_factory.mktemp("stack")
    stack = Stack(home, apart=True)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MONGO_TRANSACTION_LIFETIME", "2")
        scenario = short_scenario()
        await asyncio.to_thread(stack.up, virtual_clock=scenario.begins_at)
        try:
            yield await _play(stack, scenario)
        finally:
            await asyncio.to_thread(stack.down)


async def _play(stack: Stack, scenario: Scenario) -> Played:
    killings: list[asyncio.Task[None]] = []

    async def kill() -> None:
        await asyncio.to_thread(stack.kill_part, KILLED)
        await asyncio.to_thread(stack.start_part, KILLED)

    def told(at: datetime, words: list[str]) -> None:
        if not killings and any(line.startswith("marks of diagnosa") for line in words):
            killings.append(asyncio.create_task(kill()))

    summary = await play(scenario, stack, told, patience=60)
    await asyncio.gather(*killings)
    return Played(stack, scenario, summary, len(killings))


async def test_the_cohort_ends_as_it_should_although_a_worker_was_killed(played: Played) -> None:
    assert played.killed == 1
    assert played.summary.failed == []
    assert dict(played.summary.lines)["composition"].startswith(
        "8 participants = 3 Kementerian + 4 LPNK and LTN + 1 Pemda"
    )


async def test_every_record_is_a_cloudevent_that_fits_its_committed_schema(played: Played) -> None:
    admin = kafka(played.stack.endpoints, played.stack.credentials("kafka-admin"))
    schemas = {t: json.loads((PROJECT / "contracts" / "schemas" / f"{t}.json").read_text()) for t in REGISTRY}
    seen = set()
    for topic, records in (await everything(admin)).items():
        assert records == [] or not topic.endswith(".dlq")
        for record in records:
            headers: Any = dict(record.headers)
            message = KafkaMessage(headers=headers, key=(record.key or b"").decode(), value=record.value or b"")
            event = from_binary_event(message, JSONFormat())
            Draft202012Validator(schemas[event.get_type()]).validate(event.get_data())
            seen.add(event.get_type())
    assert len(seen) >= 20


async def test_a_module_is_completed_once_per_participant_and_attempt(played: Played) -> None:
    completed = [e for e in played.summary.events if e.type.endswith("module-completed.v1")]
    assert len({e.id for e in completed}) == len({e.subject for e in completed}) == 8 * 18


async def test_sequences_have_no_gap(played: Played) -> None:
    last: dict[tuple[str, str], int] = {}
    for event in played.summary.events:
        subject = (event.source, event.subject)
        assert event.sequence <= last.get(subject, 0) + 1
        last[subject] = max(event.sequence, last.get(subject, 0))


async def test_no_name_or_address_is_on_any_topic_or_in_any_log(played: Played) -> None:
    """Names, addresses and personnel numbers of everybody, searched in topics (keys, headers, values) and all logs."""
    people = cast(played.scenario).people
    words = {w.encode() for p in people for w in (p.name, p.email, p.nip)}
    admin = kafka(played.stack.endpoints, played.stack.credentials("kafka-admin"))
    for records in (await everything(admin)).values():
        for record in records:
            text = b"|".join((record.key or b"", record.value or b"", *(v or b"" for _, v in record.headers)))
            assert not any(word in text for word in words)
    for log in (played.stack.home / "logs").glob("*.log"):
        text = log.read_bytes()
        assert not any(word in text for word in words), log.name


async def test_no_name_or_address_is_kept_outside_the_collections_that_are_for_them(played: Played) -> None:
    words = {w for p in cast(played.scenario).people for w in (p.name, p.email, p.nip)}
    allowed = {(c.service, c.collection) for c in personal.COLLECTIONS}
    found: set[tuple[str, str]] = set()
    user, password = played.stack.credentials("mongo-admin")
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
        played.stack.endpoints["mongo"]["uri"], username=user, password=password, authSource="admin"
    )
    for service in ("enrollment", "scheduling", "assessment", "notification"):
        for collection in await client[service].list_collection_names():
            async for document in client[service][collection].find({}):
                if any(word in str(document) for word in words):
                    found.add((service, collection))
    await client.close()
    assert found <= allowed
    assert ("enrollment", "people") in found and ("assessment", "sealed_certificates") not in found


async def test_internal_routes_are_not_reachable_through_the_gateway(played: Played) -> None:
    gateway = played.stack.endpoints["gateway"]
    async with httpx.AsyncClient() as http:
        for path in ("internal/v1/contacts", "internal/v1/quiet", "metrics", "healthz", "readyz"):
            assert (await http.get(f"{gateway}/enrollment/{path}")).status_code == 404
            assert (await http.get(f"{gateway}/enrollment/v1/../{path}")).status_code == 404


async def test_an_agency_can_read_its_own_topic_and_no_other(played: Played) -> None:
    from aiokafka import AIOKafkaConsumer
    from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError

    own = kafka(played.stack.endpoints, played.stack.credentials("kafka-agency-kementerian-01"))
    refused = (TopicAuthorizationFailedError, GroupAuthorizationFailedError)
    for topic, group in (
        ("training.agency.pemda-01", "agency.kementerian-01.a"),
        ("training.assessment-restricted", "agency.kementerian-01.a"),
        ("training.agency.kementerian-01", "agency.pemda-01.a"),
    ):
        consumer = AIOKafkaConsumer(topic, **own.aiokafka(), group_id=group, auto_offset_reset="earliest")
        with pytest.raises(refused):
            await consumer.start()
            await asyncio.wait_for(consumer.getone(), 10)
        await consumer.stop()


async def test_each_service_shows_its_openapi_and_its_pages_under_its_prefix(played: Played) -> None:
    gateway = played.stack.endpoints["gateway"]
    async with httpx.AsyncClient() as http:
        for service in ("enrollment", "scheduling", "assessment", "notification"):
            document = (await http.get(f"{gateway}/{service}/openapi.json")).json()
            assert document["openapi"].startswith("3.1") and document["servers"] == [{"url": f"/{service}"}]
            assert (await http.get(f"{gateway}/{service}/docs")).status_code == 200
