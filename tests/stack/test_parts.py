"""What each part of the stack does for those who use it: broker, database, mail, issuer, gateway."""

from __future__ import annotations

import asyncio
import smtplib
import subprocess
import sys
import uuid
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx
import jwt
import pymongo
import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic
from pymongo.errors import OperationFailure

from shared.identity import Role, Verifier
from stack import PROJECT, SERVICES, Stack, broker
from stack.issuer import TOKEN_SECONDS, Keys
from stack.mail import Kept, read

# --- broker ------------------------------------------------------------------------------------------------------


def client(stack: Stack, user: str, password: str) -> dict[str, Any]:
    """How a client of librdkafka logs in."""
    return {
        "bootstrap.servers": stack.endpoints["kafka"]["bootstrap"],
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": user,
        "sasl.password": password,
        "log_level": 0,
    }


@pytest.fixture(scope="module")
def topic(stack: Stack) -> str:
    """A topic with one record, on which nobody but the administrator has rights."""
    name = f"test.{uuid.uuid4().hex[:8]}"
    admin = client(stack, *stack.credentials("kafka-admin"))
    made = AdminClient(admin)
    made.create_topics([NewTopic(name, 1, 1)])[name].result(20)
    producer = Producer(admin)
    producer.produce(name, b"a fact")
    assert producer.flush(20) == 0
    return name


def test_a_storage_is_made_whatever_its_drawn_cluster_id_begins_with(stack: Stack, tmp_path: Path) -> None:
    folder, cluster_id = tmp_path / "kafka", "-" + "A" * 20 + "Q"
    broker.configure(folder, 1, 1, 2, "admin", "password")
    libs = Path(stack.endpoints["kafka"]["libs"])
    broker.format_storage(libs, folder, tmp_path / "blank", cluster_id, {"admin": "password"})
    assert f"cluster.id={cluster_id}" in (folder / "log" / "meta.properties").read_text()


async def console_consumer(stack: Stack, folder: Path, topic: str, user: str, password: str) -> tuple[str, str]:
    """What the stock tool reads from the topic as this user, and what it complains of."""
    login = f'org.apache.kafka.common.security.scram.ScramLoginModule required username="{user}" password="{password}";'
    config = folder / f"{user}.properties"
    config.write_text(
        f"security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-512\nsasl.jaas.config={login}\n"
        f"group.id={uuid.uuid4()}\nauto.offset.reset=earliest\n"
    )
    kafka = stack.endpoints["kafka"]
    command = [*broker.java(Path(kafka["libs"])), "org.apache.kafka.tools.consumer.ConsoleConsumer"]
    command += ["--bootstrap-server", kafka["bootstrap"], "--topic", topic, "--command-config", str(config)]
    asked = [*command, "--max-messages", "1", "--timeout-ms", "20000"]
    done = await asyncio.to_thread(subprocess.run, asked, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout, done.stdout + done.stderr


async def test_the_stock_consumer_reads_for_a_known_user_and_is_refused_for_an_unknown_one(
    stack: Stack, topic: str, tmp_path: Path
) -> None:
    known, unknown, without_right = await asyncio.gather(
        console_consumer(stack, tmp_path, topic, *stack.credentials("kafka-admin")),
        console_consumer(stack, tmp_path, topic, "nobody", "a password"),
        console_consumer(stack, tmp_path, topic, *stack.credentials("kafka-enrollment")),
    )
    assert "a fact" in known[0]
    assert "a fact" not in unknown[0]
    assert "SaslAuthenticationException" in unknown[1]
    assert "a fact" not in without_right[0]
    assert "AuthorizationException" in without_right[1]


def test_a_topic_comes_only_from_prepare(stack: Stack) -> None:
    unknown = f"test.{uuid.uuid4().hex[:8]}"
    failures: list[object] = []
    producer = Producer(client(stack, *stack.credentials("kafka-admin")) | {"message.timeout.ms": 3000})
    producer.produce(unknown, b"a fact", on_delivery=lambda error, _: failures.append(error))
    producer.flush(10)
    assert failures and failures[0] is not None


def test_preparing_without_the_administrators_rights_is_refused_at_once_by_the_brokers_own_word(stack: Stack) -> None:
    user, password = stack.credentials("kafka-enrollment")
    env = stack.environment("enrollment") | {"KAFKA_ADMIN_USERNAME": user, "KAFKA_ADMIN_PASSWORD": password}
    command = [sys.executable, "-m", "services.enrollment.app", "prepare"]
    refused = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert refused.returncode == 1
    assert refused.stderr == "prepare: the broker refuses it (CLUSTER_AUTHORIZATION_FAILED)\n"


def test_the_broker_remembers_where_a_group_stood_for_sixty_days(stack: Stack) -> None:
    admin = AdminClient(client(stack, *stack.credentials("kafka-admin")))
    (told,) = admin.describe_configs([ConfigResource(ConfigResource.Type.BROKER, "1")]).values()
    assert told.result(20)["offsets.retention.minutes"].value == str(60 * 24 * 60)


def test_the_administrator_is_the_only_super_user_and_the_controller_knows_no_strangers(stack: Stack) -> None:
    lines = (stack.home / "data" / "kafka" / "server.properties").read_text().splitlines()
    assert "super.users=User:admin" in lines
    port = next(line for line in lines if line.startswith("controller.quorum.voters")).rpartition(":")[2]
    stranger = AdminClient({"bootstrap.servers": f"127.0.0.1:{port}", "log_level": 0})
    with pytest.raises(KafkaException):
        stranger.list_topics(timeout=1)


# --- database ----------------------------------------------------------------------------------------------------


def database_of(stack: Stack, service: str) -> pymongo.MongoClient[dict[str, Any]]:
    return pymongo.MongoClient(stack.environment(service)["MONGO_URI"], serverSelectionTimeoutMS=5000)


def test_a_service_writes_its_own_database_and_reads_no_other(stack: Stack) -> None:
    with database_of(stack, "enrollment") as own:
        own["enrollment"]["tried"].insert_one({"_id": 1})
        with own.start_session() as session, session.start_transaction():
            own["enrollment"]["tried"].insert_one({"_id": 2}, session=session)
        assert own["enrollment"]["tried"].count_documents({}) == 2
        with pytest.raises(OperationFailure):
            own["assessment"]["tried"].insert_one({"_id": 1})
    with database_of(stack, "assessment") as other, pytest.raises(OperationFailure):
        other["enrollment"]["tried"].find_one({})


def test_the_database_asks_everybody_who_he_is(stack: Stack) -> None:
    nameless: pymongo.MongoClient[dict[str, Any]]
    with pymongo.MongoClient(stack.endpoints["mongo"]["uri"]) as nameless, pytest.raises(OperationFailure):
        nameless["enrollment"]["tried"].find_one({})


def test_what_a_vanished_process_held_is_free_when_its_transactions_lifetime_is_over(
    small: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's default of a minute would bar a document that long after each crash."""
    monkeypatch.setenv("MONGO_TRANSACTION_LIFETIME", "1")
    small.up(["mongo"])
    with database_of(small, "enrollment") as vanished, database_of(small, "enrollment") as other:
        seats = other["enrollment"]["seats"]
        seats.insert_one({"_id": 1})
        with vanished.start_session() as session:
            session.start_transaction()
            vanished["enrollment"]["seats"].update_one({"_id": 1}, {"$set": {"by": "vanished"}}, session=session)
            with pymongo.timeout(15), other.start_session() as again:
                again.with_transaction(lambda tx: seats.update_one({"_id": 1}, {"$set": {"by": "other"}}, session=tx))
        assert seats.find_one() == {"_id": 1, "by": "other"}


# --- mail --------------------------------------------------------------------------------------------------------


def send(stack: Stack, to: str, subject: str) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "training@example.go.id", to, subject
    message.set_content("Selamat, Anda diterima – angkatan III\n")
    host, _, port = stack.endpoints["mail"]["smtp"].partition(":")
    with smtplib.SMTP(host, int(port)) as smtp:
        smtp.send_message(message)


def test_what_was_mailed_can_be_read_also_after_a_crash(stack: Stack) -> None:
    url = stack.endpoints["mail"]["http"] + "/messages"
    send(stack, "Ani@example.go.id", "diterima")
    send(stack, "budi@example.go.id", "jadwal")
    stack.kill_part("mail")
    stack.start_part("mail")
    (found,) = httpx.get(url, params={"to": "ani@example.go.id"}).json()
    assert found["subject"] == found["headers"]["Subject"] == "diterima"
    assert found["from"] == "training@example.go.id"
    assert found["text"].strip() == "Selamat, Anda diterima – angkatan III"
    assert httpx.get(f"{url}/{found['id']}").json() == found
    later = httpx.get(url, params={"since": found["id"]}).json()
    assert [message["subject"] for message in later] == ["jadwal"]


def test_message_numbers_go_on_after_the_mailbox_was_emptied(stack: Stack) -> None:
    url = stack.endpoints["mail"]["http"] + "/messages"
    send(stack, "ani@example.go.id", "before")
    before = httpx.get(url).json()[-1]["id"]
    assert httpx.delete(url).status_code == 204
    assert httpx.get(url).json() == []
    send(stack, "ani@example.go.id", "after")
    assert [message["id"] for message in httpx.get(url, params={"since": before}).json()] == [before + 1]


def test_a_message_cut_off_by_a_crash_is_forgotten_and_the_others_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "messages.jsonl"
    file.write_bytes(b'{"id": 1, "to": []}\n{"id": 2, "to"')
    assert list(Kept(file).messages) == [1]
    assert file.read_bytes() == b'{"id": 1, "to": []}\n'


def test_a_message_that_nobody_can_decode_is_kept_as_it_came() -> None:
    assert "kosong" in read(b"Content-Type: text/plain; charset=no-such\r\n\r\nkosong")["text"]


# --- issuer ------------------------------------------------------------------------------------------------------


def grant(stack: Stack, name: str, **asked: str) -> httpx.Response:
    client_id, secret = stack.credentials(f"client-{name}")
    form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret, **asked}
    endpoint = httpx.get(stack.endpoints["issuer"] + "/.well-known/openid-configuration").json()["token_endpoint"]
    return httpx.post(endpoint, data=form)


def claims(stack: Stack, token: str, audience: str) -> dict[str, Any]:
    """The token's claims, verified as a service verifies them."""
    found = httpx.get(stack.endpoints["issuer"] + "/.well-known/openid-configuration").json()
    keys = {key["kid"]: jwt.PyJWK(key) for key in httpx.get(found["jwks_uri"]).json()["keys"]}
    key = keys[jwt.get_unverified_header(token)["kid"]]
    return dict(jwt.decode(token, key, algorithms=["RS256"], audience=audience, issuer=found["issuer"]))


def test_tokens_verify_by_the_published_keys_and_survive_a_rotation(stack: Stack) -> None:
    person_id = str(uuid.uuid4())
    asked = {"audience": "enrollment scheduling", "roles": "coordinator trainer", "agency_ids": "a b"}
    old = grant(stack, "scenario", person_id=person_id, **asked).json()["access_token"]
    Keys(stack.home / "data-of-issuer").rotate()
    new = grant(stack, "scenario", person_id=person_id, **asked).json()["access_token"]
    assert jwt.get_unverified_header(old)["kid"] != jwt.get_unverified_header(new)["kid"]
    for token in (old, new):
        for audience in ("enrollment", "scheduling"):
            found = claims(stack, token, audience)
            assert found["sub"] == found["person_id"] == person_id
            assert (found["roles"], found["agency_ids"]) == (["coordinator", "trainer"], ["a", "b"])
            assert found["exp"] - found["iat"] == 3600
        with pytest.raises(jwt.InvalidAudienceError):
            claims(stack, token, "assessment")


async def test_our_own_verifier_takes_tokens_of_before_and_after_a_rotation(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.identity.ASK_AGAIN_SECONDS", 0)  # else the issuer is not asked twice within seconds
    person_id = str(uuid.uuid4())
    asked = {"audience": "enrollment", "roles": "organiser", "person_id": person_id}
    verifier = Verifier(stack.endpoints["issuer"], "enrollment", "k" * 16)
    for _ in range(2):
        caller = await verifier.caller(grant(stack, "scenario", **asked).json()["access_token"])
        assert (caller.person_id, caller.roles) == (person_id, frozenset({Role.ORGANISER}))
        Keys(stack.home / "data-of-issuer").rotate()


def test_a_service_is_a_machine_whatever_it_asks_for(stack: Stack) -> None:
    answer = grant(stack, "notification", audience="enrollment", roles="organiser", person_id=str(uuid.uuid4()))
    found = claims(stack, answer.json()["access_token"], "enrollment")
    assert (found["roles"], found["client_id"], found["sub"]) == (["service"], "notification", "notification")
    assert "person_id" not in found


@pytest.mark.parametrize(
    ("asked", "status", "error"),
    [
        ({"client_secret": "wrong – ✗", "audience": "enrollment"}, 401, "invalid_client"),
        ({"client_id": "nobody", "audience": "enrollment"}, 401, "invalid_client"),
        ({"grant_type": "password", "audience": "enrollment"}, 400, "unsupported_grant_type"),
        ({}, 400, "invalid_request"),
    ],
)
def test_the_issuer_refuses_by_the_book(stack: Stack, asked: dict[str, str], status: int, error: str) -> None:
    answer = grant(stack, "enrollment", **asked)
    assert (answer.status_code, answer.json()["error"]) == (status, error)


def test_a_key_is_published_until_the_last_token_that_it_signed_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_800_000_000 * 10**9
    monkeypatch.setattr("stack.issuer.time.time_ns", lambda: now)
    keys = Keys(tmp_path)
    seen = []
    for minutes in (0, 20, 20, 20, 21):
        now += minutes * 60 * 10**9
        if minutes:
            keys.rotate()
        seen.append(len(keys.current))
    assert seen == [1, 2, 3, 4, 4]  # the first was replaced 61 minutes ago, the others more recently
    assert TOKEN_SECONDS == 3600


# --- gateway -----------------------------------------------------------------------------------------------------


async def test_the_gateway_routes_the_public_api_and_takes_the_prefix_off(gateway: str) -> None:
    async with httpx.AsyncClient(base_url=gateway) as http:
        for service in SERVICES:
            for path in ("/v1/things/1", "/openapi.json", "/docs", "/docs/swagger-ui.css"):
                told = (await http.get(f"/{service}{path}", headers={"X-Forwarded-Prefix": "/evil"})).json()
                assert told["path"] == path
                assert told["headers"]["X-Forwarded-Prefix"] == f"/{service}"


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/v1/things", "/internal/v1/quiet", "/metrics", "/api/rawdata", "/dashboard/", "/ping"),
        *(f"/enrollment{path}" for path in ("", "/", "/v1", "/internal", "/internal/v1/quiet", "/metrics", "/healthz")),
        *("/enrollment/readyz", "/enrollment/v1/../internal/v1/quiet", "/enrollment/v1/%2e%2e/metrics"),
        *("/enrollment/v1//../../internal", "/ENROLLMENT/v1/things", "/billing/v1/things"),
    ],
)
async def test_nothing_else_is_routed(gateway: str, path: str) -> None:
    host, _, port = gateway.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))  # as it is: a client library would tidy the path
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 404 ")


async def test_a_body_that_is_too_large_is_refused_by_the_service_in_its_own_words(gateway: str) -> None:
    async with httpx.AsyncClient(base_url=gateway) as http:
        assert (await http.post("/enrollment/v1/things", content=bytes(1 << 20))).status_code == 200
        for size in ((1 << 20) + 1, 2 << 20):
            answer = await http.post("/enrollment/v1/things", content=bytes(size))
            assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")
        assert (await http.post("/enrollment/v1/things", content=bytes((2 << 20) + 1))).status_code == 413


async def test_a_service_that_says_nothing_is_given_up(gateway: str) -> None:
    """The common setting is twenty seconds; this gateway was started with one."""
    assert "GATEWAY_PATIENCE=20s" in (PROJECT / "gateway" / "traefik.env").read_text().splitlines()
    async with httpx.AsyncClient(base_url=gateway, timeout=10) as http:
        for content in (b"", bytes(1 << 20)):
            assert (await http.post("/enrollment/v1/hung", content=content)).status_code == 504
