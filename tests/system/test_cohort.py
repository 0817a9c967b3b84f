"""A short cohort through the gateway: api and worker apart, and every process ended once while it is played."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from cloudevents.core.formats.json import JSONFormat
from jsonschema import Draft202012Validator
from pymongo import AsyncMongoClient
from typer.testing import CliRunner

from demo.place import Embedded
from demo.player import Gateway, Player
from demo.scenario import Scenario, cast
from demo.summary import Summary
from demo.topics import everything, kafka
from services.assessment.app import service as assessment
from services.notification import consumers as notification
from services.notification.app import service as notifying
from services.notification.commands import subscribe
from services.notification.domain import AgencyContact
from services.scheduling.app import service as scheduling
from shared import personal, reference
from shared.cloudevents import Record, read
from shared.contracts import REGISTRY
from shared.identity import routes_of
from shared.mongo import Database
from shared.ops import groups
from shared.ops.__main__ import app as operators
from stack import NEIGHBOURS, PROJECT, Stack
from storm.cohort import Outcome, differences, short_scenario
from storm.cohort import played as played_on
from tests.malice.worlds import SERVICES as SERVING
from tests.malice.worlds import SETTINGS
from tests.orders import Orders
from tests.support import clock_at, fire_timers, many, settings_for, uid, until

SERVICES = (scheduling, assessment, notifying)


@dataclass(frozen=True)
class Played:
    """What is known of the plays that these tests share."""

    scenario: Scenario
    stack: Stack
    """The one on which every process was ended while the cohort was played."""
    disturbed: Outcome
    quiet: Outcome

    @property
    def summary(self) -> Summary:
        return self.disturbed.summary


@pytest.fixture(scope="module")
async def played(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Played]:
    """The short cohort, played twice side by side: undisturbed, and while every process was ended once."""
    scenario = short_scenario()

    async def undisturbed() -> Outcome:
        async with played_on(tmp_path_factory.mktemp("quiet"), scenario, disturbed=False) as (_, outcome):
            return outcome

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MONGO_TRANSACTION_LIFETIME", "2")
        aside = asyncio.create_task(undisturbed())
        home = tmp_path_factory.mktemp("disturbed")
        async with played_on(home, scenario, disturbed=True, rounds=1) as (stack, disturbed):
            yield Played(scenario, stack, disturbed, await aside)


async def test_the_cohort_ends_as_it_should_although_every_process_was_ended(played: Played) -> None:
    assert {name.partition(" ")[0] for name in played.disturbed.ended} == set(played.stack.parts)
    assert {name.partition(" ")[2] for name in played.disturbed.ended} == {"SIGTERM", "SIGKILL"}
    assert played.summary.failed == []
    assert dict(played.summary.lines)["composition"].startswith(
        "8 participants = 3 Kementerian + 4 LPNK and LTN + 1 Pemda"
    )


async def test_facts_states_and_mail_are_those_of_an_undisturbed_play(
    played: Played, count: Callable[[str], None]
) -> None:
    assert played.quiet.summary.failed == []
    assert differences(played.quiet, played.disturbed) == []
    facts, states = (sum(map(len, kept.values())) for kept in (played.quiet.ids, played.quiet.states))
    ended = sum(played.disturbed.ended.values())
    count(f"{ended} processes ended; {facts} facts, {states} states and {len(played.quiet.mails)} mails alike")


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
    """Every route of every internal port, under each way to spell it, by whatever method."""
    gateway, tried = played.stack.endpoints["gateway"], set()
    async with httpx.AsyncClient() as http:
        for service, serving in SERVING.items():
            database = Database("mongodb://127.0.0.1:1", service, service=service)
            settings = settings_for(serving.settings, **SETTINGS.get(service, {}))
            for route in routes_of(serving.internal_app(database, settings)):
                path = route.path.lstrip("/")
                tried.add((service, path))
                for spelt in (path, f"v1/../{path}", f"v1/%2e%2e/{path}", f"v1//../{path}", f"/{path}"):
                    for method in (route.methods or set()) | {"GET"}:
                        answer = await http.request(method, f"{gateway}/{service}/{spelt}")
                        assert answer.status_code == 404, (method, service, spelt)
            await database.close()
    assert {("enrollment", "internal/v1/contacts"), ("scheduling", "metrics")} <= tried


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


async def test_a_search_for_a_timetable_is_done_by_the_solvers_process_and_told_through_the_gateway(
    played: Played,
) -> None:
    """Its process is killed while it searches; begun again, it does the same search."""
    stack, organiser = played.stack, ("organiser", uid(1, 0xF0), ())
    path = f"/scheduling/v1/schedules/{uid(1, 0xCC)}/search"
    body = {"cohort_id": uid(1, 0xCD), "seconds": 60}
    further = {
        "programme_id": reference.programme("pkp").id,
        "rule_set_version": "pkp-2019.1",
        "curriculum_version": "pkp-2019.1",
        "number": 4,
        "year": 2022,
        "capacity": 40,
        "min_size": 20,
        "nominations_close_at": "2022-08-01T10:00:00Z",
        "starts_on": "2022-08-22",
        "ends_on": "2022-12-18",
    }
    stack.start_part("scheduling-solver")
    try:
        async with httpx.AsyncClient(timeout=30) as http:
            gateway = Gateway(stack.endpoints["gateway"], Embedded(stack).sign_in, http)

            async def search() -> Any:
                return await gateway.call(organiser, "GET", path)

            async def searching() -> bool:
                return ((await search())["progress"] or {}).get("phase") == "searching"

            async def gone_on() -> bool:
                return bool((await search())["progress"] != left)

            async def ended() -> bool:
                return (await search())["status"] in ("done", "failed")

            async def asked_for() -> Any:  # refused until scheduling has heard of the cohort
                told = await gateway.call(organiser, "PUT", path, body, expect=(202, 409))
                return told if "progress" in told else None

            await gateway.call(organiser, "PUT", f"/enrollment/v1/cohorts/{uid(1, 0xCD)}", further)
            asked = await until(asked_for)
            assert (asked["status"], asked["progress"]) == ("asked", None)
            await until(searching, seconds=60)
            stack.kill_part("scheduling-solver")
            left = (await search())["progress"]
            stack.start_part("scheduling-solver")
            await until(gone_on, seconds=60)
            await gateway.call(organiser, "DELETE", path)
            await until(ended, seconds=30)
            told = await search()
            assert (told["status"], told["adopted"]) == ("done", True), told
            found = await gateway.call(organiser, "GET", f"/scheduling/v1/schedules/{uid(1, 0xCC)}")
            assert found["status"] == "draft" and found["cost"] == told["progress"]["by_rule"]
    finally:
        stack.stop_part("scheduling-solver")


@pytest.mark.parametrize("group", ["scheduling", "assessment", "notification", "notification-feed"])
async def test_in_whatever_order_a_groups_partitions_come_it_rebuilds_the_same_from_the_beginning(
    played: Played, group: str, mongo_uri: str, count: Callable[[str], None]
) -> None:
    service, consumer = next((s, c) for s in SERVICES for c in s.consumers if c.group == group)
    topics = await everything(kafka(played.stack.endpoints, played.stack.credentials("kafka-admin")))
    records = [record for topic in consumer.topics for record in topics[topic]]
    database = Database(mongo_uri, f"rebuilt-{group}", service=service.name)
    end = max(read(record).time for record in records) + timedelta(days=1)

    async def finish() -> None:
        await fire_timers(service.timers, database, until=end)

    if group == "notification-feed":
        await notification.consumer.receive(records, database)
        with clock_at(end):
            for agency in await database.query(AgencyContact, {"code": {"$in": played.scenario.listeners}}):
                await subscribe(agency.id, database)
        await database.collection("outbox").delete_many({})
    unordered = ["standing", "records", "agency_ids", "cohort_ids"]
    orders = Orders(consumer, database, records, at=end, finish=finish, unordered=unordered)
    try:
        rebuilt = await orders.rebuild()
        shuffled = await orders.shuffle(many(2, 200), rebuilt.outcome, batches=(20, 50, 100))
    finally:
        await database.drop()
        await database.close()
    count(f"{len(records):,} records, rebuilt and in {shuffled.orders} orders")


# --- what goes wrong tells nobody's name: last, because it leaves a record that is no event ----------------------


def canaries() -> list[dict[str, Any]]:
    """37 people made of strings that stand nowhere else."""
    made = []
    for n in range(37):
        mark = hashlib.sha256(f"canary {n}".encode()).hexdigest()[:20]
        nip = f"198002292005021{n + 900:03d}"
        made.append(
            {"name": f"Kenari-{mark} (generated)", "email": f"k-{mark}@example.go.id", "nip": nip, "mark": mark}
        )
    return made


def ports(stack: Stack) -> dict[str, int]:
    kept: dict[str, int] = json.loads((stack.home / "secrets.json").read_text())["ports"]
    return kept


async def logged(stack: Stack, words: Iterable[bytes]) -> list[str]:
    """The logs in which any of these stands."""
    return [log.name for log in (stack.home / "logs").glob("*.log") if any(word in log.read_bytes() for word in words)]


async def test_a_failure_and_a_parked_record_leave_no_personal_data_in_logs_metrics_reasons_or_collections(
    played: Played,
) -> None:
    """37 people of unique strings; a 500 with them in body, document and locals; a record with them parked by all.

    The 500 is a real one: a stored person that no longer fits its model, read and written through the gateway.
    A foreign record that cannot be read is kept on the dead-letter topics as it came, or it could not be judged or
    redriven: those topics are for operators only. What it says must get nowhere else: not into the reason beside it,
    not into a log, a metric or a collection. What we publish ourselves never holds personal data in the first place:
    until here, no dead-letter topic has a record (`test_every_record_is_a_cloudevent…`).
    """
    stack, people = played.stack, canaries()
    words = {word.encode() for person in people for word in (person["mark"], person["nip"])}
    texts = {word.decode() for word in words}
    user, password = stack.credentials("mongo-admin")
    mongo: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
        stack.endpoints["mongo"]["uri"], username=user, password=password, authSource="admin"
    )
    organiser = ("organiser", uid(1, 0xF0), ())
    async with httpx.AsyncClient(timeout=30) as http:
        gateway = Gateway(stack.endpoints["gateway"], Embedded(stack).sign_in, http)
        for n, person in enumerate(people):
            path, body = f"/enrollment/v1/people/{uid(n, 0xCA)}", {key: person[key] for key in ("name", "email", "nip")}
            await gateway.call(organiser, "PUT", path, body)
            await gateway.call(organiser, "PUT", path, body | {"zone": body["name"]}, expect=(422,))
            await gateway.call(organiser, "GET", f"/enrollment/v1/people/{body['nip']}", expect=(422,))
        damaged, first = uid(99, 0xCA), people[0]
        await mongo["enrollment"]["people"].insert_one(
            {"_id": damaged, "version": 1, "name": first["name"], "email": 7}
        )
        body = {"name": first["name"], "email": first["email"]}
        path = f"/enrollment/v1/people/{damaged}"
        for method in ("GET", "PUT"):
            told = await gateway.call(organiser, method, path, body, expect=(500,), headers={"If-Match": '"1"'})
            assert not any(text in str(told) for text in texts)
            noted = [line for line in _lines(stack, "enrollment-api") if told["correlation_id"] in line]
            assert any("request.failed" in line and "ValidationError" in line for line in noted)

        admin = kafka(stack.endpoints, stack.credentials("kafka-admin"))
        producer = AIOKafkaProducer(**admin.aiokafka())
        await producer.start()
        try:
            for person in people:
                text = json.dumps(person).encode()
                headers = [("ce_type", b"id.go.lan.training.enrollment.cohort-opened.v1"), ("x-note", text)]
                await producer.send_and_wait("training.enrollment", text, key=person["nip"].encode(), headers=headers)
        finally:
            await producer.stop()

        async def parked() -> dict[str, list[Record]]:
            found = {name: got for name, got in (await everything(admin)).items() if name.endswith(".dlq") and got}
            return found if len(found) == 4 and all(len(got) == len(people) for got in found.values()) else {}

        letters = await until(parked, seconds=60)
        for records in letters.values():
            assert {dict(record.headers)["dl_reason"] for record in records} == {b"unreadable:missing-ce_specversion"}
            for record in records:
                ours = [value or b"" for name, value in record.headers if name.startswith("dl_")]
                assert any(word in (record.value or b"") for word in words) and len(ours) >= 7
                assert not any(word in value for word in words for value in ours)

        assert await logged(stack, {told["correlation_id"].encode()}) == ["enrollment-api.log"]
        assert await logged(stack, words) == []
        for name, port in ports(stack).items():
            if name.endswith("internal"):
                metrics = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
                assert "training_" in metrics and not any(text in metrics for text in texts), name
    allowed, found = {(c.service, c.collection) for c in personal.COLLECTIONS}, set()
    for service in SERVING:
        await until(partial(_emptied, mongo[service]["outbox"]))
        for collection in await mongo[service].list_collection_names():
            async for document in mongo[service][collection].find({}):
                if any(text in str(document) for text in texts):
                    found.add((service, collection))
    await mongo.close()
    assert found == {("enrollment", "people")} <= allowed


def _lines(stack: Stack, part: str) -> list[str]:
    return (stack.home / "logs" / f"{part}.log").read_text().splitlines()


async def _emptied(outbox: Any) -> bool:
    return await outbox.find_one({}) is None


async def test_no_secret_of_the_stack_is_in_any_of_its_logs(played: Played) -> None:
    stack = played.stack
    kept = json.loads((stack.home / "secrets.json").read_text())
    secrets = {kept["installation_key"], kept["certificate_key"], *kept["clients"].values()}
    for name in stack.endpoints["credentials"]:
        secrets.add(stack.credentials(name)[1])
    for key in (stack.home / "data-of-issuer").glob("key-*.pem"):
        secrets.add(key.read_text().splitlines()[1])
    assert len(secrets) >= 18 and min(map(len, secrets)) >= 16
    assert len(list((stack.home / "logs").glob("*.log"))) >= len(stack.parts)
    assert await logged(stack, {secret.encode() for secret in secrets}) == []


# --- saved while it runs, and put back ---------------------------------------------------------------------------


async def ops(folder: Path, *arguments: str) -> tuple[int, str]:
    """`python -m shared.ops …` on a stack's services; how it ended, and what it said."""
    done = await asyncio.to_thread(CliRunner().invoke, operators, ["--environments", str(folder), *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stderr if done.exit_code else done.stdout


def administrator(stack: Stack, folder: Path) -> str:
    user, password = stack.credentials("mongo-admin")
    uri = stack.endpoints["mongo"]["uri"].replace("://", f"://{user}:{password}@") + "&authSource=admin"
    file = folder / f"{stack.home.name}-admin"
    file.write_text(uri)
    return str(file)


@asynccontextmanager
async def registering(stack: Stack) -> AsyncIterator[list[str]]:
    """Agencies are registered all the while; who was accepted."""
    accepted: list[str] = []
    organiser = ("organiser", uid(1, 0xF0), ())

    async def go_on() -> None:
        async with httpx.AsyncClient(timeout=30) as http:
            gateway = Gateway(stack.endpoints["gateway"], Embedded(stack).sign_in, http)
            gateway.patience = 20
            while True:
                id, number = str(uuid.uuid4()), len(accepted)
                body = {"code": f"late-{number:04d}", "kind": "ministry", "name": f"Kementerian {number} (generated)"}
                await gateway.call(organiser, "PUT", f"/enrollment/v1/agencies/{id}", body)
                accepted.append(id)

    going = asyncio.create_task(go_on())
    try:
        await until(lambda: len(accepted) > 20, seconds=30)
        yield accepted
        await asyncio.sleep(0.5)
    finally:
        going.cancel()
        (ended,) = await asyncio.gather(going, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError), ended


async def to_rest(stack: Stack) -> None:
    """Every group has read its topics to their end, and nothing is on its way."""

    async def read() -> bool:
        for service in SERVICES:
            for consumer in service.consumers:
                own = kafka(stack.endpoints, stack.credentials(f"kafka-{service.name}"))
                if (await groups.stands(own, consumer.group, consumer.topics)).total:
                    return False
        return True

    async with asyncio.timeout(120):
        while True:
            if await read():
                break
            await asyncio.sleep(0.3)
    async with httpx.AsyncClient(timeout=5) as http:
        await Player(Path(stack.endpoints["clock"]), Embedded(stack).workers, http, patience=60).quiet()


async def test_what_is_saved_under_load_is_put_back_as_one_moment_and_nothing_happens_twice(
    played: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: Callable[[str], None]
) -> None:
    stack, saved = played.stack, tmp_path / "saved"
    monkeypatch.setenv("MONGO_TRANSACTION_LIFETIME", "20")
    await asyncio.to_thread(stack.stop_part, "mongo")
    await asyncio.to_thread(stack.start_part, "mongo")
    there = stack.home / "environments"
    async with registering(stack) as accepted:
        before = len(accepted)
        backup = ("backup", str(saved), "--database-admin", administrator(stack, tmp_path))
        assert (await ops(there, *backup))[0] == 0
    assert "is not empty" in (await ops(there, *backup))[1]
    restore = ("restore", str(saved), "--yes", "--database-admin")
    assert "agencies is not empty" in (await ops(there, *restore, administrator(stack, tmp_path)))[1]

    other = Stack(tmp_path / "restored")
    kept = json.loads((stack.home / "secrets.json").read_text()) | {"ports": {}}
    other.home.mkdir()
    (other.home / "secrets.json").write_text(json.dumps(kept))
    shutil.copytree(stack.home / "credentials", other.home / "credentials")
    instant = datetime.fromisoformat((stack.home / "clock").read_text().strip())
    try:
        await asyncio.to_thread(other.up, NEIGHBOURS, virtual_clock=instant)
        for service in ("enrollment", "scheduling", "assessment", "notification"):
            await asyncio.to_thread(other.prepare, service)
        here, admin = other.home / "environments", administrator(other, tmp_path)
        assert "training.agency.kementerian-01 is not there" in (await ops(here, *restore, admin))[1]
        agencies = [argument for code in played.scenario.listeners for argument in ("--agency", code)]
        await asyncio.to_thread(other.prepare, "notification", *agencies)
        damaged = tmp_path / "damaged"
        shutil.copytree(saved, damaged)
        with (damaged / "enrollment" / "people.bson.gz").open("r+b") as file:
            file.write(b"\0\0")
        assert "people.bson.gz: damaged" in (await ops(here, "restore", str(damaged), *restore[2:], admin))[1]
        ended, told = await ops(here, *restore, admin, "--json")
        assert ended == 0, told
        put = json.loads(told)
        assert "put back here before" in (await ops(here, *restore, admin))[1]

        await asyncio.to_thread(other.up)
        await to_rest(other)
        administrators = kafka(other.endpoints, other.credentials("kafka-admin"))
        lying = await everything(administrators)
        counters, states = await announced(other)
        sequences: dict[tuple[str, str], list[int]] = {}
        for topic, records in lying.items():
            if topic.endswith(".dlq") or ".agency." in topic:
                continue
            for event in (read(record) for record in records):
                sequences.setdefault((event.source, event.subject), []).append(event.sequence)
        assert {subject: len(numbers) for subject, numbers in sequences.items()} == counters
        assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in sequences.values())
        for code in played.scenario.listeners:
            heard = [read(record) for record in lying[f"training.agency.{code}"]]
            assert len({event.id for event in heard}) == len(heard) > 50
        late = {id for id, document in states["enrollment", "agencies"].items() if document["code"].startswith("late-")}
        assert set(accepted[:before]) <= late <= set(accepted) and len(late) < len(accepted)
        assert late <= states["notification", "agency_contacts"].keys()
        assert await Embedded(other).mails() == []
        parked = json.loads((await ops(here, "dlq", "list", "--json"))[1])
        dropped = await ops(here, "dlq", "drop", parked[0]["key"], "--reason", "published-in-error", "--yes")
        assert parked and dropped[0] == 0
        assert "e-mail goes out" in (await ops(here, "mail", "release", "--yes"))[1]
        count(f"{put['documents']} documents, {put['records']} records, {len(late)} of {len(accepted)} late agencies")
    finally:
        await asyncio.to_thread(other.down)


async def announced(stack: Stack) -> tuple[dict[tuple[str, str], int], dict[tuple[str, str], dict[str, Any]]]:
    """Source and subject → how many events its state counts; and every document, by service and collection."""
    counters: dict[tuple[str, str], int] = {}
    states: dict[tuple[str, str], dict[str, Any]] = {}
    user, password = stack.credentials("mongo-admin")
    async with AsyncMongoClient[dict[str, Any]](
        stack.endpoints["mongo"]["uri"], username=user, password=password, authSource="admin"
    ) as client:
        for service in ("enrollment", "scheduling", "assessment", "notification"):
            for name in await client[service].list_collection_names():
                states[service, name] = {d["_id"]: d for d in await client[service][name].find({}).to_list(None)}
                for id, document in states[service, name].items():
                    for source, number in document.get("sequences", {}).items():
                        counters[source, id] = number
    return counters, states
