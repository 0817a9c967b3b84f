"""CloudEvents 1.0 on Kafka, binary mode, both ways: attributes as `ce_*` headers, data as the value.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid5

from shared.contracts import NAMESPACE, Event
from shared.ids import is_id

CONTENT_TYPE = "application/json"
SEQUENCE_DIGITS = 10
_REQUIRED = ("ce_specversion", "ce_id", "ce_type", "ce_source", "ce_subject", "ce_time", "ce_sequence")
_KNOWN = frozenset(
    (
        *_REQUIRED,
        *("ce_recordedtime", "ce_partitionkey", "ce_correlationid", "ce_causationid", "ce_agencyid"),
        *("ce_authtype", "ce_authid", "ce_dataschema", "ce_traceparent", "ce_dataclassification", "content-type"),
    )
)


# Only in its one canonical form: in others there is room for what is no id.
_uuid = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch


# These are kept with what lies parked, and told in logs and metrics: nothing but an id or a code may get there.
_FORMS: dict[str, Callable[[str], object]] = {
    "ce_id": is_id,
    "ce_subject": is_id,
    "ce_type": re.compile(r"[A-Za-z0-9.-]{1,128}").fullmatch,
    "ce_source": re.compile(r"/[a-z0-9/.-]{1,127}").fullmatch,
    "ce_correlationid": _uuid,
    "ce_causationid": _uuid,
}


@dataclass(frozen=True, slots=True)
class Record:
    """A record of a Kafka topic as it lay there."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp: int


@dataclass(frozen=True, slots=True)
class Envelope:
    """The attributes of an event; everything that is known of it without its data."""

    id: str
    type: str
    source: str
    subject: str
    sequence: int
    time: datetime
    recordedtime: datetime | None
    partitionkey: str
    correlationid: str | None
    causationid: str | None
    agencyid: str
    authtype: str | None
    authid: str | None
    traceparent: str | None


class Unreadable(Exception):
    """A record that is no event of ours. `reason` is a code; it never repeats the input."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def event_id(source: str, type: str, subject: str, sequence: int) -> str:
    """The id of a fact: the same however often it is sent."""
    return str(uuid5(NAMESPACE, f"{source}|{type}|{subject}|{sequence}"))


def schema_url(type: str) -> str:
    """The exact JSON Schema of an event type, as a reference into the published contracts."""
    return f"/contracts/schemas/{type}.json"


def headers_for(
    event: Event,
    *,
    sequence: int,
    time: datetime,
    recordedtime: datetime,
    correlationid: str,
    causationid: str | None,
    authtype: str,
    authid: str,
    traceparent: str | None,
    agencyid: str,
) -> list[tuple[str, bytes]]:
    """The headers of an event about to be recorded."""
    source = event.source()
    headers = [
        ("content-type", CONTENT_TYPE),
        ("ce_specversion", "1.0"),
        ("ce_id", event_id(source, event.type, event.subject, sequence)),
        ("ce_type", event.type),
        ("ce_source", source),
        ("ce_subject", event.subject),
        ("ce_time", _text(time)),
        ("ce_recordedtime", _text(recordedtime)),
        ("ce_dataschema", schema_url(event.type)),
        ("ce_partitionkey", event.key),
        ("ce_sequence", str(sequence).zfill(SEQUENCE_DIGITS)),
        ("ce_correlationid", correlationid),
        ("ce_agencyid", agencyid),
        ("ce_authtype", authtype),
        ("ce_authid", authid),
        ("ce_dataclassification", "confidential" if event.topic.endswith("-restricted") else "internal"),
    ]
    if causationid is not None:
        headers.append(("ce_causationid", causationid))
    if traceparent is not None:
        headers.append(("ce_traceparent", traceparent))
    return [(name, value.encode()) for name, value in headers]


def read(record: Record) -> Envelope:
    """The envelope of a record. Raises `Unreadable` with a reason code."""
    found: dict[str, str] = {}
    for name, value in record.headers:
        if name not in _KNOWN:
            continue
        if name in found:
            raise Unreadable(f"duplicate-{name}")
        if value is None:
            raise Unreadable(f"null-{name}")
        try:
            found[name] = value.decode()
        except UnicodeDecodeError:
            raise Unreadable(f"not-utf8-{name}") from None
    for name in _REQUIRED:
        if not found.get(name):
            raise Unreadable(f"missing-{name}")
    if found["ce_specversion"] != "1.0":
        raise Unreadable("specversion")
    sequence = found["ce_sequence"]
    if len(sequence) != SEQUENCE_DIGITS or not (sequence.isascii() and sequence.isdigit()) or int(sequence) < 1:
        raise Unreadable("sequence")
    for name, form in _FORMS.items():
        if name in found and not form(found[name]):
            raise Unreadable(name.removeprefix("ce_"))
    try:
        key = (record.key or b"").decode()
    except UnicodeDecodeError:
        raise Unreadable("key") from None
    partitionkey = found.get("ce_partitionkey", key)
    if not key:
        raise Unreadable("no-key")
    if partitionkey != key:
        raise Unreadable("key-differs-from-partitionkey")
    return Envelope(
        id=found["ce_id"],
        type=found["ce_type"],
        source=found["ce_source"],
        subject=found["ce_subject"],
        sequence=int(sequence),
        time=_instant(found["ce_time"], "time"),
        recordedtime=_instant(found["ce_recordedtime"], "recordedtime") if "ce_recordedtime" in found else None,
        partitionkey=partitionkey,
        correlationid=found.get("ce_correlationid"),
        causationid=found.get("ce_causationid"),
        agencyid=found.get("ce_agencyid", "-"),
        authtype=found.get("ce_authtype"),
        authid=found.get("ce_authid"),
        traceparent=found.get("ce_traceparent"),
    )


def _text(instant: datetime) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _instant(text: str, attribute: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is None:
            raise Unreadable(attribute)
        return instant.astimezone(UTC)
    except (ValueError, OverflowError):  # no instant, or one before the first or after the last day of any calendar
        raise Unreadable(attribute) from None
