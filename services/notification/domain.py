"""Who is told what, once: rules as data, deliveries as a ledger, and the read model that tells who somebody is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict

from shared import reference
from shared.contracts import REGISTRY, Code, Event, Id
from shared.contracts.notification import Channel, NotificationFailed, NotificationSent, NotificationSuppressed
from shared.domain import State
from shared.errors import Rejected
from shared.ids import derive

FOLDER = Path(__file__).parent
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
    """A participant of a cohort, for telling who is to be told."""

    model_config = ConfigDict(frozen=True)

    participant_id: Id
    mentor_id: Id
    agency_id: Id
    active: bool = True


class CohortPeople(State):
    """Who belongs to a cohort: members, groups, sessions' people. Its id is the cohort's."""

    collection: ClassVar[str] = "cohort_people"

    members: dict[Id, Membership] = {}
    groups: dict[Id, list[Id]] = {}
    waiting: list[Id] = []
    """Notices whose recipients are not all known yet."""


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
    """An event for which a rule exists, until everybody it concerns is known. Its id is the event's."""

    collection: ClassVar[str] = "notices"

    event_type: str
    value: str  # the event's data as it arrived; it holds no personal data


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
    not_before: datetime
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


class NotYetKnown(Exception):
    """Facts that say who the recipients are have not arrived yet."""


def recipients(
    event: Event,
    audiences: Iterable[Audience],
    people: CohortPeople,
    session: SessionPeople | None,
    agency: AgencyContact | None,
) -> list[str]:
    """The persons to be told of an event, each once. Raises `NotYetKnown`.

    Those who are members when the event is handled; nobody who joins later gets old mail.
    """
    told: list[str] = []
    for audience in audiences:
        match audience:
            case "participant" | "mentor":
                told.append(_person(event, audience, people))
            case "coordinators":
                told += agency.coordinator_ids if agency else []
            case "members":
                if not people.members:
                    raise NotYetKnown
                told += [m.participant_id for m in people.members.values() if m.active]
            case "attendees" | "trainers":
                if session is None:
                    raise NotYetKnown
                if audience == "trainers":
                    told += session.trainer_ids
                    continue
                for group_id in session.group_ids:
                    for enrollment_id in people.groups.get(group_id, ()):
                        if (member := people.members.get(enrollment_id)) is None:
                            raise NotYetKnown
                        told += [member.participant_id] if member.active else []
    return list(dict.fromkeys(told))


def _person(event: Event, audience: Audience, people: CohortPeople) -> str:
    named: str | None = getattr(event, f"{audience}_id", None)
    if named is not None:
        return named
    member = people.members.get(getattr(event, "enrollment_id", ""))
    if member is None:
        raise NotYetKnown
    return member.participant_id if audience == "participant" else member.mentor_id


def deliveries(notice_id: str, event: Event, told: Iterable[str], rule: Rule, now: datetime) -> list[Delivery]:
    """One delivery per recipient and channel."""
    facts = event.model_dump(mode="json")
    return [
        Delivery(
            id=derive("notification", "delivery", notice_id, recipient_id, channel),
            event_id=notice_id,
            recipient_id=recipient_id,
            channel=channel,
            template=rule.template,
            cohort_id=getattr(event, "cohort_id", None),
            facts=facts,
            not_before=now,
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


def suppressed(delivery: Delivery, reason_code: str, now: datetime) -> tuple[Delivery, NotificationSuppressed]:
    changed = delivery.but(status=DeliveryStatus.SUPPRESSED, reason_code=reason_code, facts={})
    return changed, NotificationSuppressed(**_outcome(delivery), reason_code=reason_code, suppressed_at=now)


def event_of(notice: Notice) -> Event:
    return REGISTRY[notice.event_type].model_validate_json(notice.value)
