"""Operators' commands on a real broker and database that ask for passwords."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from confluent_kafka.admin import (
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)

from services.scheduling.app import service as scheduling
from services.scheduling.consumers import consumer
from shared import broker
from shared.broker import rights_of_agency
from shared.cloudevents import Record
from shared.domain import Timer
from shared.kafka import Kafka
from shared.mongo import Database, Transaction
from shared.ops import Site, groups, sites
from shared.outbox import Relay
from shared.service import Work
from stack import PROJECT, Stack
from tests.ops.conftest import Answer, ops
from tests.shared.sample import enrolled
from tests.support import START, days, record, uid, until

Environments = Callable[..., Path]


@pytest.fixture(scope="module")
async def prepared(stack: Stack) -> None:
    """Everything as the services' `prepare` leaves it."""
    for site in sites(stack.home / "environments", []):
        await broker.prepare(site.kafka(), site.topics, site.rights, 1)
        database = site.database()
        await database.ensure(site.service.all_indexes())
        await database.close()


@pytest.fixture
async def site(stack: Stack, prepared: None) -> Site:
    (site,) = sites(stack.home / "environments", ["scheduling"])
    return site


@pytest.fixture
async def kept(site: Site) -> AsyncIterator[Database]:
    """Scheduling's own database."""
    database = site.database()
    yield database
    for name in ("inbox", "blocks", "outbox", "timers", "leases"):
        await database.collection(name).delete_many({})
    await database.close()


@asynccontextmanager
async def relaying(site: Site, database: Database) -> AsyncIterator[None]:
    relay = Relay(database, site.settings.kafka(), lease_seconds=0.6)
    running = asyncio.create_task(relay.run())
    try:
        yield
    finally:
        relay.stop()
        await asyncio.wait_for(running, 10)


async def publish(kafka: Kafka, *published: Record) -> None:
    producer = AIOKafkaProducer(**kafka.aiokafka())
    await producer.start()
    for one in published:
        await producer.send(one.topic, one.value, key=one.key, headers=list(one.headers), timestamp_ms=one.timestamp)
    await producer.stop()


def seen(answer: Answer, part: str) -> dict[str, Any]:
    """What doctor saw of a part."""
    (finding,) = [f for f in answer.told["findings"] if f["part"] == part]
    return dict(finding)


# --- topics and rights: first, while nothing is prepared ---------------------------------------------------------


async def test_topics_and_rights_are_compared_with_what_is_declared_and_mended_when_the_operator_agrees(
    stack: Stack, environments: Environments
) -> None:
    folder = environments()
    fresh = await ops(folder, "topics", "diff", "--json")
    assert fresh.code == 1
    kinds = {row["kind"] for row in fresh.told}
    assert kinds == {"topic-missing", "right-missing"}
    refused = await ops(folder, "topics", "apply", answer="n\n")
    assert refused.code == 1 and "about to mend training.enrollment: missing" in refused.err
    assert (await ops(folder, "topics", "diff", "--json")).told == fresh.told
    applied = await ops(folder, "topics", "apply", "--yes", "--json")
    assert applied.code == 0 and len(applied.told["mended"]) == len(fresh.told)
    assert (await ops(folder, "topics", "diff")).out == "topics and rights are as declared\n"


async def test_a_setting_that_differs_is_set_and_a_right_beyond_the_declared_is_told_but_never_taken_away(
    stack: Stack, environments: Environments, site: Site
) -> None:
    admin = AdminClient(site.kafka().librdkafka())
    entry = ConfigEntry("retention.ms", "1000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, "training.scheduling", incremental_configs=[entry])
    for future in admin.incremental_alter_configs([resource]).values():
        await asyncio.to_thread(future.result, 10)
    await broker.prepare(site.kafka(), [broker.Topic("training.agency.bkn", 1)], rights_of_agency("bkn"), 1)
    nosy = rights_of_agency("bkn")[0]
    nosy.principal = "User:agency-nosy"
    for future in admin.create_acls([nosy]).values():
        await asyncio.to_thread(future.result, 10)
    try:
        applied = await ops(environments(), "topics", "apply", "--yes", "--json")
        assert applied.code == 1
        assert applied.told["mended"] == ["training.scheduling: retention.ms=1000, declared 34560000000"]
        assert applied.told["left"] == ["agency-nosy: may READ topic training.agency.bkn, which is not declared"]
        (left,) = (await ops(environments(), "topics", "diff", "--json")).told
        assert (left["service"], left["kind"]) == ("notification", "undeclared")
    finally:
        every = (ResourceType.ANY, None, ResourcePatternType.ANY, nosy.principal, None)
        his = AclBindingFilter(*every, AclOperation.ANY, AclPermissionType.ANY)
        for gone in admin.delete_acls([his]).values():
            await asyncio.to_thread(gone.result, 10)


# --- doctor ------------------------------------------------------------------------------------------------------


async def test_a_wrong_password_is_told_from_a_neighbour_that_is_away(
    stack: Stack, environments: Environments, site: Site
) -> None:
    uri = site.settings.mongo_uri.get_secret_value()
    _, password = stack.credentials("mongo-scheduling")
    forgotten = environments("scheduling", MONGO_URI=uri.replace(password, "forgotten"), KAFKA_PASSWORD="forgotten")
    wrong = await ops(forgotten, "doctor", "--json")
    assert wrong.code == 1
    assert seen(wrong, "database")["told"] == "answers, but its user or password is wrong"
    assert seen(wrong, "broker")["told"] == "answers, but refuses the user scheduling: wrong password"
    assert "forgotten" not in wrong.out
    away = environments("scheduling", MONGO_URI="mongodb://127.0.0.1:1", KAFKA_BOOTSTRAP="127.0.0.1:1")
    gone = await ops(away, "doctor", "--json")
    assert seen(gone, "database")["told"] == "unreachable"
    assert seen(gone, "broker")["told"] == "unreachable at 127.0.0.1:1 (ConnectionRefusedError)"
    assert all(finding["do"] for finding in gone.told["findings"] if finding["state"] == "bad")


async def test_a_broker_that_is_reached_but_spoken_to_in_another_way_is_told(
    environments: Environments, site: Site
) -> None:
    told = await ops(environments("scheduling", KAFKA_SECURITY_PROTOCOL="PLAINTEXT"), "doctor", "--json")
    assert seen(told, "broker")["told"].startswith("is reached, but then leads nowhere")


async def test_another_services_database_and_a_wrong_administrator_are_told_by_name(
    stack: Stack, environments: Environments, site: Site
) -> None:
    told = await ops(
        environments("scheduling", MONGO_DATABASE="enrollment", KAFKA_ADMIN_PASSWORD="forgotten"), "doctor", "--json"
    )
    assert seen(told, "database")["told"] == "answers, but this user may not read its database"
    assert seen(told, "broker")["state"] == "good"
    assert seen(told, "broker (admin)")["told"] == "answers, but refuses the user admin: wrong password"


async def test_a_wrong_setting_is_one_finding_and_the_other_services_are_looked_at(
    environments: Environments, site: Site
) -> None:
    environments("enrollment")
    told = await ops(environments("scheduling", KAFKA_USERNAME=""), "doctor", "--json")
    assert "KAFKA_USERNAME" in seen(told, "settings")["told"]
    looked_at = [f["part"] for f in told.told["findings"] if f["service"] == "enrollment"]
    assert {"database", "broker", "topics and rights", "issuer"} <= set(looked_at)
    refused = await ops(environments("scheduling", KAFKA_USERNAME=""), "outbox", "status")
    assert refused.code == 1 and refused.err.startswith("scheduling: settings: ")


async def test_doctor_finds_what_waits_and_is_content_when_a_worker_works(
    environments: Environments, site: Site, kept: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = environments("scheduling")

    async def wait(tx: Transaction) -> None:
        tx.forward(record(enrolled(1), 1), "training.scheduling")
        await tx.set_timer("close", "a", START)

    await kept.transaction(wait)
    await consumer.receive([record(enrolled(2), 1, ce_id=b"no id")], kept)
    await publish(site.kafka(), record(enrolled(3), 1))
    monkeypatch.setattr("shared.ops.doctor.OUTBOX_SECONDS", 0)

    async def told_of_the_record() -> Answer | None:
        answer = await ops(folder, "doctor", "--json")
        return answer if seen(answer, "group scheduling")["told"] == "1 records to do, members: 0" else None

    sick = await until(told_of_the_record)
    assert sick.code == 1 and not sick.told["well"]
    assert seen(sick, "outbox")["do"] == "nobody publishes: start a worker of this service"
    assert seen(sick, "timers")["told"].startswith("1 overdue, since 2022-02-21T01:00:00")
    assert seen(sick, "parked scheduling")["told"] == "1 parked: 1 unreadable:id"
    assert seen(sick, "group scheduling")["state"] == "bad"
    monkeypatch.undo()
    await kept.collection("timers").delete_many({})
    (parked,) = await consumer.parked(kept)
    await consumer.drop(parked.key, "unreadable", kept)
    work = Work(scheduling, kept, site.settings, asyncio.Event())
    work.start()
    try:

        async def content() -> bool:
            return (await ops(folder, "doctor")).code == 0

        await until(content, seconds=20)
        well = await ops(folder, "doctor", "--json")
        assert {(f["part"], f["state"]) for f in well.told["findings"] if f["state"] != "good"} == {
            ("environment", "note")
        }
        status = await ops(folder, "outbox", "status", "--json")
        assert status.told[0]["topics"] == {} and status.told[0]["relay"]
        occupied = await ops(folder, "rewind", "scheduling", "training.enrollment", "--yes")
        assert occupied.code == 1 and "Nothing was changed" in occupied.err
        assert "worker --rewind training.enrollment" in occupied.err
    finally:
        work._stopping.set()
        await work.stop()
    assert (await ops(folder, "outbox", "status", "--json")).told[0]["relay"] is None


async def test_a_missing_index_and_a_clock_that_goes_wrong_are_told(
    environments: Environments, site: Site, kept: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept.collection("inbox").drop_index("parked")
    monkeypatch.setattr("time.time", lambda clock=time.time: clock() + 7)
    try:
        told = await ops(environments("scheduling"), "doctor", "--json")
    finally:
        monkeypatch.undo()
        await kept.ensure(scheduling.all_indexes())
    assert seen(told, "indexes")["told"] == "missing: inbox.parked"
    assert seen(told, "clock")["told"] == "7.0 s ahead of the database's"


# --- events ------------------------------------------------------------------------------------------------------


async def test_what_an_event_says_is_shown_by_its_contract_and_nothing_else_of_the_record(
    environments: Environments, site: Site
) -> None:
    name = "Siti Rahmawati Canary"
    event = enrolled(7)
    talkative = json.dumps({**event.model_dump(mode="json"), "full_name": name}).encode()
    good = record(event, 1)
    wordy = record(enrolled(8), 1, ce_correlationid=name.encode())
    unknown = record(enrolled(8), 1, ce_type=b"id.go.lan.training.unheard-of.v1")
    broken = Record(
        event.topic, 0, 0, name.encode(), f'{{"{name}": 1'.encode(), (("x", name.encode()),), good.timestamp
    )
    await publish(
        site.kafka(),
        Record(good.topic, 0, 0, good.key, talkative, good.headers, good.timestamp),
        wordy,
        unknown,
        Record(event.topic, 0, 0, event.key.encode(), name.encode(), record(enrolled(9), 1).headers, good.timestamp),
        broken,
    )
    for form in ([], ["--json"]):
        told = await ops(environments("scheduling"), "events", "tail", "training.enrollment", "--last", "50", *form)
        assert told.code == 0 and "Canary" not in told.out
    shown = [json.loads(line) for line in told.out.splitlines()]
    (decoded,) = [one for one in shown if one.get("subject") == event.subject]
    assert decoded["data"] == event.model_dump(mode="json") and decoded["correlationid"] == uid(1, 0xC0)
    reasons = {one["unreadable"] for one in shown if "unreadable" in one}
    assert {"unknown-type", "correlationid", "missing-ce_specversion"} <= reasons
    assert any(reason.startswith("invalid:") for reason in reasons)
    missing = await ops(environments("scheduling"), "events", "tail", "training.astray")
    assert missing.code == 1 and "no topic training.astray" in missing.err


# --- parked records ----------------------------------------------------------------------------------------------


async def test_what_lies_parked_is_listed_shown_given_up_and_tried_again(
    environments: Environments, site: Site, kept: Database
) -> None:
    folder = environments("scheduling")
    event = enrolled(20)
    first, second = record(event, 1), record(event, 2)
    bad = Record(first.topic, 0, first.offset, first.key, b'{"full_name": "Canary"}', first.headers, first.timestamp)
    await consumer.receive([bad, second], kept)
    one, two = (await ops(folder, "dlq", "list", "--json")).told
    assert one["reason"].startswith("invalid:/") and two["reason"] == "behind"
    early = await ops(folder, "dlq", "retry", two["key"], "--yes", "--json")
    assert early.told == [{"key": two["key"], "outcome": "untouched: its dead letter is not on the topic yet"}]
    async with relaying(site, kept):
        await until(lambda: empty(kept))
    shown = await ops(folder, "dlq", "show", one["key"], "--json")
    assert shown.told["behind"] == [two["key"]] and shown.told["record"]["unreadable"].startswith("invalid:/")
    assert "Canary" not in shown.out
    await consumer.receive([record(enrolled(21), 1, ce_subject=b"Siti Canary")], kept)
    (odd,) = [row for row in (await ops(folder, "dlq", "list", "--json")).told if row["subject"] is None]
    assert odd["reason"] == "unreadable:subject"
    await consumer.drop(odd["key"], "published-in-error", kept)
    assert (await ops(folder, "dlq", "show", two["key"], "--json")).told["record"]["subject"] == event.subject
    behind = await ops(folder, "dlq", "retry", two["key"], "--yes", "--json")
    assert behind.code == 1 and behind.told[0]["outcome"].startswith("untouched: an earlier one")
    again = await ops(folder, "dlq", "retry", one["key"], "--yes", "--json")
    assert again.told[0]["outcome"].startswith("parked again: invalid:/")

    unsure = await ops(folder, "dlq", "drop", one["key"], "--reason", "published-in-error", answer="n\n")
    assert unsure.code == 1 and f"about to give up {one['key']} for good" in unsure.err
    assert len((await ops(folder, "dlq", "list", "--json")).told) == 2
    nonsense = await ops(folder, "dlq", "drop", one["key"], "--reason", "because Siti asked", "--yes")
    assert nonsense.code == 2
    sure = await ops(folder, "dlq", "drop", one["key"], "--reason", "published-in-error", answer="y\n")
    assert sure.code == 0
    row = await kept.collection("inbox").find_one({"_id": one["key"]})
    assert (row["fate"], row["dropped_for"]) == ("dropped", "published-in-error")
    retried = await ops(folder, "dlq", "retry", "--subject", event.subject, "--yes", "--json")
    assert (retried.code, retried.told) == (0, [{"key": two["key"], "outcome": "handled"}])
    assert (await ops(folder, "dlq", "list")).out.splitlines()[-1] == "0 parked"


async def empty(database: Database) -> bool:
    return await database.collection("outbox").find_one({}) is None


async def test_a_key_that_is_not_parked_and_a_group_that_is_not_there_are_refused_in_one_line(
    environments: Environments, kept: Database
) -> None:
    folder = environments("scheduling")
    for arguments, told in (
        (("dlq", "show", "scheduling|/training/enrollment|x"), "not parked"),
        (("dlq", "drop", "nobody|x", "--reason", "superseded", "--yes"), "there is no group 'nobody'"),
        (("dlq", "retry", "scheduling|x", "--yes"), "not parked"),
        (("dlq", "retry"), "name what to retry"),
        (("rewind", "scheduling", "training.assessment"), "it reads training.enrollment"),
    ):
        refused = await ops(folder, *arguments)
        assert refused.code == 1 and told in refused.err and len(refused.err.splitlines()) == 1


# --- rewind and timers -------------------------------------------------------------------------------------------


async def test_an_empty_group_is_set_to_the_beginning_and_one_with_members_is_left_alone(
    environments: Environments, site: Site
) -> None:
    folder, group, topic = environments("notification"), "notification-feed", "training.enrollment"
    (whose,) = sites(folder, ["notification"])
    await publish(site.kafka(), record(enrolled(30), 1), record(enrolled(31), 1))
    kafka: Kafka = whose.settings.kafka()
    member = AIOKafkaConsumer(topic, **kafka.aiokafka(), group_id=group, auto_offset_reset="latest")
    await member.start()
    try:
        await member.seek_to_end()
        await member.commit({p: await member.position(p) for p in member.assignment()})
        occupied = await ops(folder, "rewind", group, topic, "--yes")
        assert occupied.code == 1 and f"{group} has members" in occupied.err
    finally:
        await member.stop()
    before = await groups.stands(kafka, group, [topic])
    assert before.empty and before.total == 0 and before.records[topic] >= 2
    unsure = await ops(folder, "rewind", group, topic, answer="n\n")
    assert f"about to set {group} to the beginning of {topic}: {before.records[topic]} records" in unsure.err
    assert (await groups.stands(kafka, group, [topic])).total == 0
    done = await ops(folder, "rewind", group, topic, "--yes", "--json")
    assert done.told == {"group": group, "topic": topic, "partitions": 12, "records": before.records[topic]}
    assert (await groups.stands(kafka, group, [topic])).total == before.records[topic]


async def test_timers_are_listed_by_their_instant_and_one_that_gave_up_is_tried_again(
    environments: Environments, kept: Database
) -> None:
    folder = environments("scheduling")

    async def work(tx: Transaction) -> None:
        await tx.set_timer("close", "b", START + days(40_000), session_id=uid(2))
        await tx.set_timer("close", "a", START, session_id=uid(1))

    await kept.transaction(work)
    late, waiting = (await ops(folder, "timers", "list", "--json")).told
    assert (late["state"], late["ids"]) == ("overdue", {"session_id": uid(1)}) and waiting["state"] == "waiting"
    assert (await ops(folder, "timers", "retry", late["id"], "--yes")).code == 1
    await kept.collection("timers").update_one({"_id": late["id"]}, {"$set": {"failed": True, "failures": 5}})
    (gave_up,) = (await ops(folder, "timers", "list", "--failed", "--json")).told
    again = await ops(folder, "timers", "retry", gave_up["id"], "--yes")
    assert again.code == 0 and f"about to let scheduling try close {late['id']} again" in again.err
    timer = await kept.get(Timer, late["id"])
    assert timer is not None and (timer.failures, timer.failed) == (0, False)
    assert timer.due_at - START == timedelta(0)


# --- the frame ---------------------------------------------------------------------------------------------------


def test_a_containers_own_environment_is_enough_and_answers_hold_nothing_but_json(stack: Stack, prepared: None) -> None:
    env = {"PATH": os.environ["PATH"], **stack.environment("scheduling"), "SERVICE": "scheduling"}
    command = [sys.executable, "-m", "shared.ops", "outbox", "status", "--json"]
    done = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["service"] for row in json.loads(done.stdout)] == ["scheduling"]


async def test_in_a_folder_of_settings_nothing_of_the_operators_own_shell_counts(
    environments: Environments, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = environments("scheduling") / "scheduling.env"
    file.write_text("".join(line for line in file.read_text().splitlines(True) if "ADMIN" not in line))
    monkeypatch.setenv("KAFKA_ADMIN_USERNAME", "of-another-installation")
    (site,) = sites(file.parent, [])
    assert site.settings.kafka_admin_username is None and not site.has_admin
    refused = await ops(file.parent, "topics", "diff")
    assert refused.code == 1 and "KAFKA_ADMIN_USERNAME" in refused.err


async def test_who_names_no_service_or_an_unknown_one_is_told_what_there_is(environments: Environments) -> None:
    folder = environments("scheduling")
    unknown = await ops(folder, "--service", "catering", "doctor")
    assert unknown.code == 1 and "no catering.env; there are scheduling" in unknown.err
