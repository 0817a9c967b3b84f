"""Who is told what, once: rules as data, deliveries as a ledger, and the read model that tells who somebody is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict

from shared import reference
from shared.cloudevents import Envelope
from shared.contracts import REGISTRY, Code, Event, Id
from shared.contracts.notification import Channel, NotificationFailed, NotificationSent, NotificationSuppressed
from shared.domain import State
from shared.errors import Rejected
from shared.ids import derive

FOLDER = Path(__file__).parent
ATTEMPTS = 38
AT_ONCE = datetime(1970, 1, 1, tzinfo=UTC)
Audience = Literal["participant", "mentor", "coordinators", "members", "attendees", "trainers"]


class AgencyUnknown(Rejected):
    """Nothing is known here yet of this agency; it may have been registered a moment ago."""


# --- rules and templates -----------------------------------------------------------------------------------------


class Rule(BaseModel):
    """From an event type to recipients, channels and a template."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    event: str
    to: list[Audience]
    channels: list[Channel]
    template: Code


class Template(BaseModel):
    """A message's words."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: str
    text: str


_words = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)


@cache
def rules() -> dict[str, Rule]:
    """The rules by event type."""
    found = [Rule.model_validate(rule) for rule in yaml.safe_load((FOLDER / "rules.yaml").read_text())]
    return {rule.event: rule for rule in found}


@cache
def templates() -> dict[str, Template]:
    kept = yaml.safe_load((FOLDER / "templates" / "messages.yaml").read_text())
    return {name: Template.model_validate(template) for name, template in kept.items()}


def render(template: str, facts: Mapping[str, Any], name: str, cohort: str) -> tuple[str, str]:
    """Subject and text for one recipient about one cohort, by the names that people use."""
    words = templates()[template]
    known = {**facts, "name": name, "cohort": cohort}
    subject = _words.from_string(words.subject).render(known)
    return " ".join(subject.split()), _words.from_string(words.text).render(known)


# --- states ------------------------------------------------------------------------------------------------------


class Membership(BaseModel):
    """A participant of a cohort and for how long, for telling who is to be told."""

    model_config = ConfigDict(frozen=True)

    participant_id: Id
    mentor_id: Id
    agency_id: Id
    enrolled_at: datetime
    withdrawn_at: datetime | None = None


class CohortPeople(State):
    """Who belongs to a cohort: members, groups, sessions' people. Its id is the cohort's."""

    collection: ClassVar[str] = "cohort_people"

    members: dict[Id, Membership] = {}
    groups: dict[Id, list[Id]] = {}
    standing: list[Id] = []
    """Notices to members: told as well to whoever held a seat by then and is heard of only later."""


class NamedCohort(State):
    """What a cohort is called by: programme, number and year. Its id is the cohort's."""

    collection: ClassVar[str] = "named_cohorts"

    programme_id: Id
    number: int
    year: int


def cohort_name(cohort: NamedCohort | None) -> str:
    """What people call the cohort, e.g. "PKP Angkatan III Tahun 2022"; "angkatan ini" while that is not known here."""
    if cohort is None:
        return "angkatan ini"
    programme = reference.programmes().get(cohort.programme_id)
    named = f"Angkatan {_roman(cohort.number)} Tahun {cohort.year}"
    return f"{programme.code.upper()} {named}" if programme else named


_NUMERALS = (
    *((1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC")),
    *((50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")),
)


def _roman(number: int) -> str:
    written = ""
    for value, numeral in _NUMERALS:
        written += numeral * (number // value)
        number %= value
    return written


class SessionPeople(State):
    """Who leads a session and for which groups it is. Its id is the session's."""

    collection: ClassVar[str] = "session_people"

    trainer_ids: list[Id]
    group_ids: list[Id]


class AgencyContact(State):
    """An agency, and which persons coordinate its training. Its id is the agency's."""

    collection: ClassVar[str] = "agency_contacts"

    code: str
    coordinator_ids: list[Id] = []


class Notice(State):
    """An event for which a rule exists; kept where it concerns members, who may be heard of later, or to have left.

    Whom it concerns is settled when it happens; what arrives later only tells who they are. Its id is the event's.
    """

    collection: ClassVar[str] = "notices"

    event_type: str
    value: str  # the event's data as it arrived; it holds no personal data
    happened_at: datetime
    trainer_ids: list[Id] = []
    attendee_ids: list[Id] = []  # enrollments
    correlationid: str | None = None


class DeliveryStatus(StrEnum):
    DUE = "due"
    SENT = "sent"
    FAILED = "failed"
    SUPPRESSED = "suppressed"


class Delivery(State):
    """One message to one recipient by one channel about one event: the ledger that makes it once."""

    collection: ClassVar[str] = "deliveries"

    event_id: Id
    recipient_id: Id
    channel: Channel
    template: Code
    cohort_id: Id | None
    facts: dict[str, Any]
    status: DeliveryStatus = DeliveryStatus.DUE
    not_before: datetime = AT_ONCE  # of the machine's clock, whatever instant a scenario has
    attempts: int = 0
    reason_code: Code | None = None
    correlationid: str | None = None
    causationid: str | None = None


class Message(State):
    """A rendered message in somebody's in-app inbox."""

    collection: ClassVar[str] = "messages"

    recipient_id: Id
    subject: str
    text: str
    sent_at: datetime
    kept_until: datetime
    read: bool = False


class AgencySubscription(State):
    """That an agency wants its own facts on a topic of its own. Its id is the agency's."""

    collection: ClassVar[str] = "agency_subscriptions"

    since: datetime


# --- who is told -------------------------------------------------------------------------------------------------


def notice(cause: Envelope, event: Event, people: CohortPeople, session: SessionPeople | None) -> Notice:
    """Settle whom an event concerns. Groups and sessions are on the topic of what is told of them: they are known."""
    groups = session.group_ids if session else []
    return Notice(
        id=cause.id,
        event_type=event.type,
        value=event.model_dump_json(),
        happened_at=cause.time,
        correlationid=cause.correlationid,
        trainer_ids=session.trainer_ids if session else [],
        attendee_ids=[enrollment_id for group_id in groups for enrollment_id in people.groups.get(group_id, ())],
    )


def recipients(notice: Notice, people: CohortPeople, agency: AgencyContact | None) -> list[str]:
    """The persons to be told now, each once."""
    event = event_of(notice)
    told: list[str] = []
    for audience in rules()[notice.event_type].to:
        match audience:
            case "participant" | "mentor":
                told.append(getattr(event, f"{audience}_id"))
            case "coordinators":
                told += agency.coordinator_ids if agency else []
            case "trainers":
                told += notice.trainer_ids
    told += [member.participant_id for id, member in people.members.items() if concerns(notice, id, member)]
    return list(dict.fromkeys(told))


def concerns(notice: Notice, enrollment_id: str, member: Membership) -> bool:
    """Whether this member is to be told as such: whoever held a seat when it happened.

    Nobody who joins later gets old mail; nobody who has left gets new mail.
    """
    if notice.happened_at < member.enrolled_at or (member.withdrawn_at and member.withdrawn_at <= notice.happened_at):
        return False
    to = rules()[notice.event_type].to
    return "members" in to or ("attendees" in to and enrollment_id in notice.attendee_ids)


def to_members(notice: Notice) -> bool:
    return not {"members", "attendees"}.isdisjoint(rules()[notice.event_type].to)


def delivery_id(notice: Notice, recipient_id: str, channel: Channel) -> str:
    return derive("notification", "delivery", notice.id, recipient_id, channel)


def deliveries(notice: Notice, told: Iterable[str]) -> list[Delivery]:
    """One delivery per recipient and channel."""
    event, rule = event_of(notice), rules()[notice.event_type]
    facts = event.model_dump(mode="json")
    return [
        Delivery(
            id=delivery_id(notice, recipient_id, channel),
            event_id=notice.id,
            recipient_id=recipient_id,
            channel=channel,
            template=rule.template,
            cohort_id=getattr(event, "cohort_id", None),
            facts=facts,
            correlationid=notice.correlationid,
            causationid=notice.id,
        )
        for recipient_id in told
        for channel in rule.channels
    ]


# --- what became of it -------------------------------------------------------------------------------------------


def _outcome(delivery: Delivery) -> dict[str, Any]:
    return {
        "notification_id": delivery.id,
        "recipient_id": delivery.recipient_id,
        "channel": delivery.channel,
        "template": delivery.template,
        "cause_event_id": delivery.event_id,
    }


def sent(delivery: Delivery, now: datetime) -> tuple[Delivery, NotificationSent]:
    return delivery.but(status=DeliveryStatus.SENT, facts={}), NotificationSent(**_outcome(delivery), sent_at=now)


def failed(delivery: Delivery, reason_code: str, now: datetime) -> tuple[Delivery, NotificationFailed]:
    changed = delivery.but(status=DeliveryStatus.FAILED, reason_code=reason_code, facts={})
    return changed, NotificationFailed(**_outcome(delivery), reason_code=reason_code, failed_at=now)


def put_off(delivery: Delivery, now: datetime, real_now: datetime) -> tuple[Delivery, *tuple[NotificationFailed, ...]]:
    """The mail server does not take it now: again in two seconds, then in twice that, at most every four hours.

    By the machine's clock, as the mail server's is. After four days (the least that RFC 5321, 4.5.4.1, asks for) it
    has failed.
    """
    tried = delivery.but(attempts=delivery.attempts + 1)
    if tried.attempts == ATTEMPTS:
        return failed(tried, "not-taken-in-time", now)
    return (tried.but(not_before=real_now + min(timedelta(seconds=2 * 2**delivery.attempts), timedelta(hours=4))),)


def suppressed(delivery: Delivery, reason_code: str, now: datetime) -> tuple[Delivery, NotificationSuppressed]:
    changed = delivery.but(status=DeliveryStatus.SUPPRESSED, reason_code=reason_code, facts={})
    return changed, NotificationSuppressed(**_outcome(delivery), reason_code=reason_code, suppressed_at=now)


def event_of(notice: Notice) -> Event:
    return REGISTRY[notice.event_type].model_validate_json(notice.value)
