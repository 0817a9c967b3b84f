"""Sends what is due: addresses resolved at the moment of sending, the mail server asked, then the ledger marked.

A crash between sending and marking sends again under the same Message-ID: at the mail server, at least once. What is
away (enrollment, the issuer, the mail server) makes messages wait, and parks nothing. What is refused for now is put
off by itself: no message waits for another's recipient.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime
from enum import Enum

import aiosmtplib
import structlog

from services.notification import domain, store
from services.notification.domain import Delivery, DeliveryStatus, Message, NamedCohort
from shared import clock
from shared.contacts import Contact, contacts_of
from shared.contracts.notification import Channel
from shared.lease import Lease
from shared.mongo import AWAY, Transaction
from shared.service import Context

AT_ONCE = 50
POLL_SECONDS = 0.1
INBOX_DAYS = 90

log = structlog.get_logger("sender")


class Outcome(Enum):
    """What became of one try."""

    SENT = "sent"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    NOT_YET = "not yet"
    PERHAPS = "perhaps"


async def send_messages(context: Context) -> None:
    """Until told to stop: send what is due, in batches. Only one worker does, by a lease."""

    async def to_send() -> int:
        return await store.waiting(context.database)

    context.pending["messages"] = to_send
    lease = Lease(context.database, "sender", context.settings.lease_seconds)
    backoff = 0.2
    try:
        while not context.stopping.is_set():
            try:
                if not await lease.keep():
                    await _pause(context, lease.patience)
                    continue
                found = await store.due(context.database, clock.real_now(), AT_ONCE)
                if found:
                    await _send(found, context)
                else:
                    await _pause(context, POLL_SECONDS)
                backoff = 0.2
            except (*AWAY, aiosmtplib.SMTPException, OSError) as error:
                log.warning("messages.waiting", reason=type(error).__name__, seconds=round(backoff, 1))
                await _pause(context, backoff)
                backoff = min(30.0, backoff * 2)
    finally:
        await lease.release()


async def _pause(context: Context, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(context.stopping.wait(), seconds)


async def _send(found: Sequence[Delivery], context: Context) -> None:
    """Deliver a batch, and mark what became of each. Raises when a neighbour is away; what was sent is marked first."""
    settings = context.settings
    people = await contacts_of(
        (d.recipient_id for d in found), enrollment_url=settings.enrollment_internal_url, tokens=context.tokens
    )
    cohorts = await context.database.get_many(NamedCohort, {d.cohort_id for d in found if d.cohort_id is not None})
    outcomes: dict[str, Outcome] = {}
    messages: dict[str, tuple[str, str]] = {}
    for delivery in found:
        if (person := people.get(delivery.recipient_id)) is None:
            outcomes[delivery.id] = Outcome.UNKNOWN
        else:
            cohort = domain.cohort_name(cohorts.get(delivery.cohort_id or ""))
            messages[delivery.id] = domain.render(delivery.template, delivery.facts, person.name, cohort)
            if delivery.channel is Channel.INBOX:
                outcomes[delivery.id] = Outcome.SENT
    interruption: Exception | None = None
    mails = [d for d in found if d.channel is Channel.EMAIL]
    if await context.database.collection("holds").find_one({"_id": "mail"}) is not None:
        # Put back from a backup, nobody knows which of these had gone out before: none goes out a second time.
        outcomes |= {d.id: Outcome.PERHAPS for d in mails if d.id in messages}
        mails = []
    try:
        await _mail(mails, messages, people, outcomes, context)
    except (aiosmtplib.SMTPException, OSError) as error:
        interruption = error
    await _mark([d for d in found if d.id in outcomes], outcomes, messages, context)
    if interruption is not None:
        raise interruption


async def _mail(
    deliveries: Sequence[Delivery],
    messages: Mapping[str, tuple[str, str]],
    people: Mapping[str, Contact],
    outcomes: dict[str, Outcome],
    context: Context,
) -> None:
    """Hand the e-mails to the mail server over one connection; note each outcome as it is known.

    Raises when the connection is lost. The message in hand is put off then, too: should it be the one that the server
    cannot bear, the others still go.
    """
    going = [delivery for delivery in deliveries if delivery.id in messages]
    if not going:
        return
    settings = context.settings
    server = aiosmtplib.SMTP(
        hostname=settings.smtp_host,
        port=settings.smtp_port,
        use_tls=settings.smtp_security == "tls",
        start_tls=settings.smtp_security == "starttls",
        username=settings.smtp_username or None,
        password=settings.smtp_password.get_secret_value() if settings.smtp_password else None,
        timeout=10,
    )
    async with server:
        for delivery in going:
            mail = _email(delivery, *messages[delivery.id], people[delivery.recipient_id], settings.mail_from)
            try:
                await server.send_message(mail)
            except (aiosmtplib.SMTPRecipientsRefused, aiosmtplib.SMTPResponseException) as error:
                code = min([r.code for r in getattr(error, "recipients", [])] or [getattr(error, "code", 0)])
                outcomes[delivery.id] = Outcome.REFUSED if code >= 500 else Outcome.NOT_YET
                if code == aiosmtplib.SMTPStatus.domain_unavailable:  # and with it the server closes the connection
                    raise
            except (aiosmtplib.SMTPNotSupported, ValueError):
                outcomes[delivery.id] = Outcome.REFUSED  # an address that this server has no way to write
            except (aiosmtplib.SMTPException, OSError):
                outcomes[delivery.id] = Outcome.NOT_YET
                raise
            else:
                outcomes[delivery.id] = Outcome.SENT


def _email(delivery: Delivery, subject: str, text: str, person: Contact, sender: str) -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = sender
    mail["To"] = person.email
    mail["Subject"] = subject
    mail["Date"] = format_datetime(clock.now())
    mail["Message-ID"] = f"<{delivery.id}@{sender.partition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(text)
    return mail


async def _mark(
    found: Sequence[Delivery],
    outcomes: Mapping[str, Outcome],
    messages: Mapping[str, tuple[str, str]],
    context: Context,
) -> None:
    """Write what became of each delivery, and announce it. Inbox messages come to be here."""

    async def work(tx: Transaction) -> None:
        current = await tx.load_many(Delivery, [d.id for d in found])
        await tx.load_many(Message, [d.id for d in found if d.channel is Channel.INBOX])
        for delivery in current.values():
            if delivery.status is not DeliveryStatus.DUE:
                continue
            tx.correlationid, tx.causationid = delivery.correlationid, delivery.causationid
            match outcomes[delivery.id]:
                case Outcome.SENT:
                    if delivery.channel is Channel.INBOX:
                        tx.save(_message(delivery, *messages[delivery.id], now=clock.now()))
                    tx.save(*domain.sent(delivery, clock.now()))
                case Outcome.UNKNOWN:
                    tx.save(*domain.suppressed(delivery, "unknown-person", clock.now()))
                case Outcome.PERHAPS:
                    tx.save(*domain.suppressed(delivery, "perhaps-sent-before", clock.now()))
                case Outcome.REFUSED:
                    tx.save(*domain.failed(delivery, "refused-by-mail-server", clock.now()))
                case Outcome.NOT_YET:
                    tx.save(*domain.put_off(delivery, clock.now(), clock.real_now()))

    if found:
        await context.database.transaction(work)


def _message(delivery: Delivery, subject: str, text: str, *, now: datetime) -> Message:
    return Message(
        id=delivery.id,
        recipient_id=delivery.recipient_id,
        subject=subject,
        text=text,
        sent_at=now,
        kept_until=clock.real_now() + timedelta(days=INBOX_DAYS),
    )
