"""The embedded stack's small parts: started once, known again, reported when they crash."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import aiosmtplib
import jwt
import pytest

from shared.identity import Role, Verifier
from stack import Missing, Stack
from stack.issuer import Keys


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stack"))
    stack.up(("mail", "issuer"))
    yield stack
    stack.down()


def ask(stack: Stack, **asked: str) -> str:
    client, secret = stack.credentials("client-scenario")
    body = {"grant_type": "client_credentials", "client_id": client, "client_secret": secret, **asked}
    with urllib.request.urlopen(stack.endpoints["issuer"] + "/token", urllib.parse.urlencode(body).encode()) as answer:
        return str(json.load(answer)["access_token"])


def test_a_second_up_is_over_at_once_and_starts_nothing(stack: Stack) -> None:
    began = time.monotonic()
    assert stack.up(("mail", "issuer")) == []
    assert time.monotonic() - began < 1


def test_secrets_are_readable_by_their_owner_only_and_every_address_is_named(stack: Stack) -> None:
    told = stack.endpoints
    assert {"gateway", "issuer", "kafka", "mongo", "mail", "services", "clock", "credentials"} <= set(told)
    assert {"kafka-admin", "mongo-admin", "kafka-enrollment", "client-scenario"} <= set(told["credentials"])
    for path in told["credentials"].values():
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
        assert [line.split("=")[0] for line in Path(path).read_text().splitlines()] == ["username", "password"]


def test_a_crashed_part_is_reported_and_started_again(stack: Stack) -> None:
    pid = stack.processes.pid("mail")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while stack.status()["mail"] != "crashed":
        assert time.monotonic() < deadline
    assert stack.up(("mail", "issuer")) == ["mail"]


async def test_mail_is_kept_and_can_be_read(stack: Stack) -> None:
    host, _, port = stack.endpoints["mail"]["smtp"].partition(":")
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "a@example.go.id", "b@example.go.id", "Jadwal"
    mail.set_content("isi")
    await aiosmtplib.send(mail, hostname=host, port=int(port))

    def read() -> Any:
        with urllib.request.urlopen(stack.endpoints["mail"]["http"] + "/messages?to=b@example.go.id") as answer:
            return json.load(answer)

    (kept,) = await asyncio.to_thread(read)
    assert (kept["subject"], kept["text"].strip()) == ("Jadwal", "isi")


async def test_tokens_of_the_issuer_verify_also_after_the_keys_rotated(stack: Stack) -> None:
    person = "6f0d4f6e-4c57-4b0e-9d5c-0f6a0f4a2a17"
    old = await asyncio.to_thread(ask, stack, audience="enrollment", roles="organiser", person_id=person)
    verifier = Verifier(stack.endpoints["issuer"], "enrollment", "k" * 16)
    assert (await verifier.caller(old)).roles == {Role.ORGANISER}
    Keys(stack.home / "data-of-issuer").rotate()
    new = await asyncio.to_thread(ask, stack, audience="enrollment scheduling", roles="trainer", person_id=person)
    assert jwt.get_unverified_header(new)["kid"] != jwt.get_unverified_header(old)["kid"]
    fresh = Verifier(stack.endpoints["issuer"], "scheduling", "k" * 16)
    assert (await fresh.caller(new)).person_id == person
    assert (await verifier.caller(old)).person_id == person


def test_only_the_scenario_may_speak_for_people(stack: Stack) -> None:
    client, secret = stack.credentials("client-enrollment")
    asked = {"audience": "enrollment", "client_id": client, "client_secret": secret, "roles": "organiser"}
    claims = jwt.decode(ask(stack, **asked), options={"verify_signature": False})
    assert (claims["roles"], claims["client_id"]) == (["service"], "enrollment")
    with pytest.raises(urllib.error.HTTPError):
        ask(stack, audience="enrollment", client_secret="wrong")


def test_the_issuer_does_not_run_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    from stack import issuer

    monkeypatch.setenv("ENVIRONMENT", "production")
    with pytest.raises(SystemExit, match="development"):
        issuer.main()


def test_a_missing_prerequisite_is_one_line_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Missing, match="install a JDK, version 17 or later"):
        Stack(tmp_path / "home").up(("kafka",))
