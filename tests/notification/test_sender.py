"""Sending, with a real mail server as peer: what is away makes messages wait, and nothing is sent twice by us."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import UnthreadedController
from aiosmtpd.smtp import SMTP, AuthResult
from pydantic import SecretStr

from ops import init
from services.enrollment.app import service as enrollment
from services.enrollment.commands import register_person
from services.enrollment.domain import Person
from services.notification import domain, store
from services.notification.app import NotificationSettings
from services.notification.consumers import consumer
from services.notification.domain import Delivery, DeliveryStatus, Message
from services.notification.sender import send_messages
from shared import clock, personal
from shared.contracts.notification import Channel, NotificationFailed, NotificationSent, NotificationSuppressed
from shared.mongo import Database
from shared.service import Context, _listening, _server
from tests.notification.story import enrolled, opened
from tests.servers import free_port
from tests.support import KEYS, START, announced, clock_at, deliver, service_token, settings_for, uid, until


class Mailbox:
    """A mail server's memory; it may refuse, for now or for good, every message or one recipient's."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.answer = "250 kept"
        self.answers: dict[str, str] = {}

    async def handle_RCPT(self, server: SMTP, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        answer = self.answers.get(address, "250 go on")
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:
        if self.answer.startswith("250"):
            self.messages.append(envelope.content)
        return self.answer


class Tokens:
    """A service's tokens, from the tests' issuer."""

    async def get(self, audience: str) -> str:
        return service_token("notification", audience)["Authorization"].removeprefix("Bearer ")


def address(kind: int) -> str:
    """The first participant's (0xB) or mentor's (0xD)."""
    return f"p{kind}@example.go.id"


class World:
    def __init__(self, context: Context, mailbox: Mailbox, mail: Any, people: Database) -> None:
        self.context = context
        self.mailbox = mailbox
        self.mail = mail
        self.people = people


@pytest.fixture
async def world(database: Database, mongo_uri: str) -> AsyncIterator[World]:
    """Enrollment as a neighbour over HTTP, a mail server, and the sender's context."""
    people = Database(mongo_uri, f"people-{id(database)}", service="enrollment")
    for n, kind in ((1, 0xB), (1, 0xD)):
        person = Person(id=uid(n, kind), name=f"Person {n} (generated)", email=address(kind), asked="x")
        await register_person(person, people, key="k" * 16, if_match=None)
    internal = enrollment.internal_app(people, settings_for())
    internal.state.verifier.trust(KEYS)
    port, smtp_port = free_port(), free_port()
    server = _server(internal)
    serving = asyncio.create_task(server.serve(sockets=[_listening("INTERNAL", "127.0.0.1", port)]))
    mailbox = Mailbox()
    mail = UnthreadedController(mailbox, hostname="127.0.0.1", port=smtp_port, loop=asyncio.get_running_loop())
    await mail._create_server()
    settings = settings_for(
        NotificationSettings,
        smtp_port=smtp_port,
        mail_from="training@example.go.id",
        enrollment_internal_url=f"http://127.0.0.1:{port}",
        lease_seconds=0.6,
    )
    context = Context(database, settings, Tokens(), asyncio.Event())  # type: ignore[arg-type]
    await until(lambda: server.started)
    yield World(context, mailbox, mail, people)
    context.stopping.set()
    server.should_exit = True
    await serving
    await people.drop()
    await people.close()


async def sending(world: World) -> asyncio.Task[None]:
    return asyncio.create_task(send_messages(world.context))


async def stopped(world: World, task: asyncio.Task[None]) -> None:
    world.context.stopping.set()
    await asyncio.wait_for(task, 10)
    world.context.stopping.clear()


async def left(database: Database) -> int:
    return len(await database.query(Delivery, {"status": DeliveryStatus.DUE.value}))


async def none_left(database: Database) -> bool:
    return await left(database) == 0


async def test_a_message_is_sent_once_and_announced_without_its_words(world: World, database: Database) -> None:
    await deliver(consumer, database, opened(), enrolled(1))
    task = await sending(world)
    await until(lambda: none_left(database))
    await stopped(world, task)
    assert len(world.mailbox.messages) == 2
    text = world.mailbox.messages[0].decode()
    assert "pendaftaran pada PKP Angkatan III Tahun 2022 telah ditetapkan" in text
    assert "Auto-Submitted: auto-generated" in text and "Message-ID: <" in text
    assert len(await database.query(Message, {})) == 2
    sent = await announced(database, NotificationSent)
    assert len(sent) == 4
    assert all("generated" not in event.model_dump_json() for _, event in sent)
    kept = await database.collection("deliveries").find({}).to_list(None)
    assert "example.go.id" not in str(kept) and "generated" not in str(kept)


async def test_a_message_lies_in_the_inbox_for_as_long_as_the_list_of_personal_data_says(
    world: World, database: Database
) -> None:
    (listed,) = [c for c in personal.COLLECTIONS if (c.service, c.collection) == ("notification", "messages")]
    days = timedelta(days=int(listed.retention.removesuffix(" days")))
    await database.ensure(store.INDEXES)
    index = (await database.collection(Message.collection).index_information())["retention"]
    assert (index["key"], index["expireAfterSeconds"]) == ([("kept_until", 1)], 0)
    await deliver(consumer, database, enrolled(1))
    before = clock.real_now()
    task = await sending(world)
    await until(lambda: none_left(database))
    await stopped(world, task)
    for message in await database.query(Message, {}):
        assert before + days <= message.kept_until <= clock.real_now() + days


async def test_a_crash_between_sending_and_marking_sends_again_under_the_same_message_id(
    world: World, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deliver(consumer, database, enrolled(1))

    async def crash(*arguments: object) -> None:
        raise OSError("the process ends here")

    monkeypatch.setattr("services.notification.sender._mark", crash)
    task = await sending(world)
    await until(lambda: len(world.mailbox.messages) == 2)
    await stopped(world, task)
    monkeypatch.undo()
    task = await sending(world)
    await until(lambda: none_left(database))
    await stopped(world, task)
    ids = [line for m in world.mailbox.messages for line in m.decode().splitlines() if line.startswith("Message-ID")]
    assert len(set(ids)) == 2 and len(ids) >= 4
    assert len(await announced(database, NotificationSent)) == 4


@pytest.mark.parametrize("recipient", [address(0xB), address(0xD)])  # one of them comes first
@pytest.mark.parametrize("answer", ["450 mailbox busy", "421 closing, come back later"])
async def test_one_recipients_refusal_for_now_holds_up_nobody_else(
    answer: str, recipient: str, world: World, database: Database
) -> None:
    world.mailbox.answers = {recipient: answer}
    await deliver(consumer, database, enrolled(1))
    with clock_at(START):
        task = await sending(world)
    (waiting,) = await until(lambda: put_off(database))
    await until(lambda: world.mailbox.messages)
    await stopped(world, task)
    assert len(world.mailbox.messages) == 1 and recipient not in world.mailbox.messages[0].decode()
    assert waiting.attempts >= 1 and waiting.not_before > clock.real_now() - timedelta(seconds=1)
    world.mailbox.answers = {}
    with clock_at(START):  # a played clock that stands still keeps no mail waiting
        task = await sending(world)
    await until(lambda: none_left(database))
    await stopped(world, task)
    assert len(world.mailbox.messages) == 2
    assert await announced(database, NotificationFailed) == []


async def put_off(database: Database) -> list[Delivery]:
    return await database.query(Delivery, {"status": DeliveryStatus.DUE.value, "attempts": {"$gt": 0}})


async def test_what_the_mail_server_does_not_take_for_four_days_has_failed(world: World, database: Database) -> None:
    await deliver(consumer, database, enrolled(1))
    delivery, *_ = await database.query(Delivery, {"channel": Channel.EMAIL.value})
    now = START
    while len(tried := domain.put_off(delivery, START, now)) == 1:
        delivery = tried[0]
        assert timedelta(seconds=2) <= delivery.not_before - now <= timedelta(hours=4)
        now = delivery.not_before
    assert timedelta(days=4) <= now - START < timedelta(days=5)
    last = {"$set": {"attempts": delivery.attempts}}
    await database.collection("deliveries").update_many({"channel": Channel.EMAIL.value}, last)
    world.mailbox.answer = "451 still busy"
    task = await sending(world)
    await until(lambda: none_left(database))
    await stopped(world, task)
    failed = [event for _, event in await announced(database, NotificationFailed)]
    assert [e.reason_code for e in failed if isinstance(e, NotificationFailed)] == ["not-taken-in-time"] * 2


async def test_an_address_that_the_mail_server_cannot_write_fails_alone(world: World, database: Database) -> None:
    world.mail.SMTP_kwargs["enable_SMTPUTF8"] = False
    for n, kind, email in ((2, 0xB, "p\u00e9serta@example.go.id"), (2, 0xD, "mentor@example.go.id")):
        person = Person(id=uid(n, kind), name=f"Person {n} (generated)", email=email, asked="x")
        await register_person(person, world.people, key="k" * 16, if_match=None)
    await deliver(consumer, database, enrolled(2))
    task = await sending(world)
    await until(lambda: none_left(database))
    await stopped(world, task)
    assert len(world.mailbox.messages) == 1 and "mentor@example.go.id" in world.mailbox.messages[0].decode()
    ((_, failed),) = await announced(database, NotificationFailed)
    assert isinstance(failed, NotificationFailed) and failed.recipient_id == uid(2, 0xB)


async def test_messages_wait_while_the_mail_server_is_away(world: World, database: Database) -> None:
    there = world.context.settings.smtp_port
    object.__setattr__(world.context.settings, "smtp_port", 1)
    await deliver(consumer, database, enrolled(1))
    task = await sending(world)
    await until(lambda: _partly(database))
    assert await left(database) == 2 and await put_off(database) == []
    object.__setattr__(world.context.settings, "smtp_port", there)
    await until(lambda: none_left(database))
    await stopped(world, task)
    assert len(world.mailbox.messages) == 2
    assert await announced(database, NotificationFailed) == []


async def _partly(database: Database) -> bool:
    """The in-app messages have left; the e-mails have not."""
    return len(await database.query(Message, {})) == 2


async def test_a_refusal_for_good_is_a_failure_with_its_code(world: World, database: Database) -> None:
    world.mailbox.answer = "550 no such mailbox"
    await deliver(consumer, database, enrolled(1))
    task = await sending(world)
    await until(lambda: none_left(database))
    await stopped(world, task)
    failed = [event for _, event in await announced(database, NotificationFailed)]
    assert [e.reason_code for e in failed if isinstance(e, NotificationFailed)] == ["refused-by-mail-server"] * 2


async def test_whom_enrollment_does_not_know_gets_nothing(world: World, database: Database) -> None:
    await deliver(consumer, database, enrolled(7))
    task = await sending(world)
    await until(lambda: none_left(database))
    await stopped(world, task)
    assert world.mailbox.messages == []
    suppressed = [event for _, event in await announced(database, NotificationSuppressed)]
    assert {e.reason_code for e in suppressed if isinstance(e, NotificationSuppressed)} == {"unknown-person"}


async def test_messages_wait_while_enrollment_is_away(world: World, database: Database) -> None:
    await deliver(consumer, database, enrolled(1))
    there = world.context.settings.enrollment_internal_url
    object.__setattr__(world.context.settings, "enrollment_internal_url", "http://127.0.0.1:1")
    task = await sending(world)
    await asyncio.sleep(0.5)  # it has tried
    assert await left(database) == 4
    object.__setattr__(world.context.settings, "enrollment_internal_url", there)
    await until(lambda: none_left(database))
    await stopped(world, task)
    assert len(world.mailbox.messages) == 2


async def test_after_a_restore_no_mail_goes_out_until_it_is_released_and_the_inbox_is_not_held(
    world: World, database: Database
) -> None:
    await database.collection("holds").insert_one({"_id": "mail"})
    await deliver(consumer, database, enrolled(1))
    task = await sending(world)
    await until(lambda: none_left(database))
    assert world.mailbox.messages == [] and len(await database.query(Message, {})) == 2
    suppressed = [event for _, event in await announced(database, NotificationSuppressed)]
    assert [e.reason_code for e in suppressed if isinstance(e, NotificationSuppressed)] == ["perhaps-sent-before"] * 2
    await database.collection("holds").delete_one({"_id": "mail"})
    await deliver(consumer, database, enrolled(1, 2))
    await until(lambda: none_left(database))
    await stopped(world, task)


async def test_it_signs_in_at_the_mail_server_by_tls_and_never_in_the_clear(
    world: World, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = init._authority()
    (tmp_path / "server.pem").write_text(init._certificate(authority, ["localhost"]))
    (tmp_path / "authority.pem").write_text(authority)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "server.pem")
    signed_in: list[tuple[bytes, bytes]] = []

    def known(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        signed_in.append((data.login, data.password))
        return AuthResult(success=data.password == b"a-drawn-password")

    port = free_port()
    told = {"tls_context": tls, "require_starttls": True, "auth_required": True, "authenticator": known}
    mail = UnthreadedController(world.mailbox, hostname="localhost", port=port, loop=asyncio.get_running_loop(), **told)
    await mail._create_server()
    for name, value in (("smtp_host", "localhost"), ("smtp_port", port), ("smtp_username", "training")):
        object.__setattr__(world.context.settings, name, value)
    object.__setattr__(world.context.settings, "smtp_password", SecretStr("a-drawn-password"))
    object.__setattr__(world.context.settings, "smtp_security", "starttls")
    await deliver(consumer, database, enrolled(1))
    task = await sending(world)
    await until(lambda: _partly(database))
    await asyncio.sleep(0.3)
    assert world.mailbox.messages == [] and signed_in == []  # whoever cannot be trusted is not told the password
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    await until(lambda: none_left(database))
    await stopped(world, task)
    assert len(world.mailbox.messages) == 2 and set(signed_in) == {(b"training", b"a-drawn-password")}


def test_a_password_for_the_mail_server_is_refused_where_it_would_go_in_the_clear() -> None:
    told = {"mail_from": "training@example.go.id", "enrollment_internal_url": "http://enrollment:8001"}
    with pytest.raises(ValueError, match="SMTP_SECURITY"):
        settings_for(NotificationSettings, smtp_username="training", smtp_password="a-drawn-password", **told)
    with pytest.raises(ValueError, match="SMTP_PASSWORD"):
        settings_for(NotificationSettings, smtp_username="training", smtp_security="tls", **told)
