"""Records that are no events of ours, and events that look odd and are: each kind by its name, with what becomes of it.

Whoever is named or numbered in them is made up.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any, Literal

from shared.cloudevents import Record
from shared.contracts import Event
from shared.ids import derive
from shared.inbox import Consumer

NUMBER, ADDRESS = "196503281990031001", "peserta-01@example.go.id"
PERSONAL = f"Peserta 01, NIP {NUMBER}, {ADDRESS}".encode()
"""Must get nowhere but into the dead letter, as it came."""

OTHER = "0b5e9a52-6d0c-4a6e-9a0e-3f0c1d2e4b5a"


def another(event: Event) -> str:
    """Another subject than this event's, and no other event's either."""
    return derive("malice", "other", event.subject)


ROOM = 1_048_588 - 4_000
"""What a record's value may have on a topic, with room for its headers."""

Way = Literal["plain", "gzip", "lz4", "zstd", "snappy", "committed", "aborted", "raw name"]
Spoil = Callable[[Record, Event], Record]
Values = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """How a record is spoiled, and for which reason it is parked: without one, nothing is wrong with it.

    It is parked by whoever reads the topic (`everybody`), by whoever wants its type, only where it is sent on
    (`forwarding`), or only where what it says is kept (`keeping`). `rare`: too large or too slow for many of them.
    """

    spoil: Spoil
    reason: str | None
    by: Literal["everybody", "whoever wants it", "forwarding", "keeping"] = "whoever wants it"
    way: Way = "plain"
    rare: bool = False
    of: Callable[[type[Event]], object] = lambda cls: True

    @property
    def named(self) -> bool:
        """Whether its id can be taken for one: else its place on the topic names it."""
        return self.by != "everybody" and self.reason != ELSEWHERE

    def fate(self, consumer: Consumer, record: Record, cls: type[Event]) -> str:
        """`handled`, `ignored`, or the reason for which this group parks it."""
        forwards = record.topic in consumer._on_record
        if self.by == "everybody":
            return self.reason_for(cls)
        if not forwards and (dict(record.headers)["ce_type"] or b"").decode() not in consumer.handles:
            return "ignored"
        if self.reason is None or (self.by == "forwarding" and not forwards):
            return "handled"
        if self.by == "keeping" and consumer.group == "notification-feed":
            return "handled"
        return self.reason_for(cls)

    def reason_for(self, cls: type[Event]) -> str:
        fields = {"subject": cls.subject_field, "first": next(iter(cls.model_fields))}
        fields |= {role: of(cls) for role, of in ROLES.items()}
        return (self.reason or "").format_map(fields)


ELSEWHERE = "unreadable:of-another-topic"


# --- which field ------------------------------------------------------------------------------------------------


def _field(fits: Callable[[Any], bool]) -> Callable[[type[Event]], str]:
    return lambda cls: next((name for name, field in cls.model_fields.items() if fits(field.annotation)), "")


instant = _field(lambda told: told is datetime)
integer = _field(lambda told: told is int)
choice = _field(lambda told: isinstance(told, type) and issubclass(told, Enum))
ROLES = {"instant": instant, "integer": integer, "choice": choice}


# --- what is changed --------------------------------------------------------------------------------------------


def header(name: str, value: bytes | None) -> Spoil:
    return lambda r, event: replace(r, headers=tuple((n, value if n == name else v) for n, v in r.headers))


def without(name: str) -> Spoil:
    return lambda r, event: replace(r, headers=tuple(h for h in r.headers if h[0] != name))


def more(*headers: tuple[str, bytes | None]) -> Spoil:
    return lambda r, event: replace(r, headers=(*r.headers, *headers))


def twice(name: str) -> Spoil:
    return lambda r, event: replace(r, headers=(*r.headers, (name, dict(r.headers)[name])))


def value(made: bytes | None) -> Spoil:
    return lambda r, event: replace(r, value=made)


def rewritten(change: Callable[[bytes], bytes]) -> Spoil:
    return lambda r, event: replace(r, value=change(r.value or b""))


def said(role: str, told: str) -> Spoil:
    """The field in this role says this instead, in JSON as it is written here."""

    def spoil(r: Record, event: Event) -> Record:
        name = event.subject_field if role == "subject" else ROLES[role](type(event))
        fields = [f'"{n}":{told if n == name else json.dumps(v)}' for n, v in json.loads(r.value or b"").items()]
        return replace(r, value=("{" + ",".join(fields) + "}").encode("utf-8", "surrogatepass"))

    return spoil


def unsaid(role: str) -> Spoil:
    def spoil(r: Record, event: Event) -> Record:
        data = json.loads(r.value or b"")
        del data[event.subject_field if role == "subject" else ROLES[role](type(event))]
        return replace(r, value=json.dumps(data).encode())

    return spoil


def besides(told: str) -> Spoil:
    """A field that no contract names."""
    return rewritten(lambda given: given[:-1] + f',"remark":{told}}}'.encode())


def keyed(key: bytes | None, told: bytes | None = None) -> Spoil:
    """Another key; the attribute that repeats it as well, where one is given."""

    def spoil(r: Record, event: Event) -> Record:
        r = replace(r, key=key)
        return r if told is None else header("ce_partitionkey", told)(r, event)

    return spoil


def structured(r: Record, event: Event) -> Record:
    """A CloudEvent in structured mode: everything in the value, nothing in the headers."""
    told = {n.removeprefix("ce_"): (v or b"").decode() for n, v in r.headers if n.startswith("ce_")}
    told["data"] = json.loads(r.value or b"")
    return replace(r, value=json.dumps(told).encode(), headers=(("content-type", b"application/cloudevents+json"),))


def nothing(r: Record, event: Event) -> Record:
    return replace(r, key=None, value=None, headers=())


def as_it_is(r: Record, event: Event) -> Record:
    return r


def elsewhere(r: Record, event: Event) -> Record:
    """A type of another topic, under the name of this one."""
    other = (
        "scheduling.session-cancelled" if event.topic != "training.scheduling" else "enrollment.participant-withdrawn"
    )
    return header("ce_type", f"id.go.lan.training.{other}.v1".encode())(r, event)


def filled(size: int, by: bytes) -> Callable[[bytes], bytes]:
    return lambda given: given + by * ((size - len(given)) // len(by))


# --- the kinds --------------------------------------------------------------------------------------------------

REQUIRED = ("ce_specversion", "ce_id", "ce_type", "ce_source", "ce_subject", "ce_time", "ce_sequence")
READ = (
    *REQUIRED,
    *("content-type", "ce_recordedtime", "ce_dataschema", "ce_partitionkey", "ce_correlationid", "ce_agencyid"),
    *("ce_authtype", "ce_authid", "ce_dataclassification"),
)
WRONG: dict[str, tuple[str, ...]] = {
    "specversion": ("0.3", "1.0 ", "1.1", "２.０"),
    "id": (
        NUMBER,
        ADDRESS,
        " " * 14 + NUMBER,
        OTHER.upper(),
        "{" + OTHER + "}",
        "00000000-0000-0019-6503-281990031001",
    ),
    "type": ("Peserta 01 terdaftar", "id.go.lan/enrolled", ADDRESS, "x" * 129, "id.go.lan.\u202etxt", "\x00"),
    "source": (
        "/training/Peserta 01",
        "training/enrollment",
        "https://example.go.id/",
        "/" + "a" * 200,
        "/training/\n",
    ),
    "subject": (NUMBER, "Peserta 01", OTHER.upper(), "00000000-0000-1000-8000-000000000000", "\x00", OTHER + "\n"),
    "sequence": (
        "0000000000",
        "1",
        "+000000001",
        "-000000001",
        "00000000001",
        "000000000x",
        "٠٠٠٠٠٠٠٠٠١",
        "1e00000001",
    ),
    "time": ("yesterday", "2022-02-21T01:00:00", "0001-01-01T00:00:00+23:59", "2022-13-01T00:00:00Z", NUMBER, "24:00Z"),
    "recordedtime": ("yesterday", "2022-02-21", "9999-12-31T23:59:59-00:01"),
    "correlationid": (NUMBER, "urn:uuid:" + OTHER),
    "causationid": (ADDRESS, OTHER.upper()),
}
BROKEN: dict[str, bytes | None] = {
    "null": None,
    "empty": b"",
    "half an object": b"{",
    "a word": b"Peserta",
    "a person": PERSONAL,
    "no UTF-8": b'{"a":"\xff\xfe"}',
    "bytes": bytes(range(256)),
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a mark of byte order before it": b"\xef\xbb\xbf{}",
    "two objects": b"{}{}",
    "a comma too many": b'{"a": 1,}',
    "an open string": b'{"a": "b',
    "a raw line feed in a string": b'{"a": "b\nc"}',
    "half a character": b'{"a": "\\ud800"}',
    "two halves the wrong way round": b'{"a": "\\udc00\\ud800"}',
    "depth": b"[" * 5_000,
    "depth that is closed": b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "NaN alone in wrong letters": b"nan",
    "zeros": b"\x00" * 100,
    "a page": b"<html><body>502 Bad Gateway</body></html>",
    "gzip": bytes.fromhex("1f8b0800000000000003abae050043bfa6a302000000"),
}
NO_OBJECT = {
    "null in JSON": b"null",
    "a list": b"[]",
    "a number": b"42",
    "a text": b'"a"',
    "NaN": b"NaN",
    "true": b"true",
}
NO_SUBJECT = {
    "null": ("null", "string_type"),
    "a number": ("7", "string_type"),
    "a number without an end": ("9" * 4_000, "string_type"),
    "NaN": ("NaN", "string_type"),
    "minus infinity": ("-Infinity", "string_type"),
    "a list": ("[]", "string_type"),
    "an object": ('{"$ne": null}', "string_type"),
    "a person": (json.dumps(PERSONAL.decode()), "value_error"),
    "a personal number": (f'"{NUMBER}"', "value_error"),
    "capitals": (f'"{OTHER.upper()}"', "value_error"),
    "a time-based id": ('"5f3c1f5e-8a4b-11ee-b9d1-0242ac120002"', "value_error"),
    "nothing": ('""', "value_error"),
    "nought": ('"\\u0000"', "value_error"),
    "control characters": ('"\\u0007\\u001b[31m\\u007f"', "value_error"),
    "letters from right to left": ('"\u202e\u0627\u200f"', "value_error"),
    "a face": ('"\U0001f642"', "value_error"),
    "a long text": (json.dumps("x" * 100_000), "value_error"),
}
NO_INSTANT = {
    "naive": ('"2022-02-21T01:00:00"', "timezone_aware"),
    "yesterday": ('"yesterday"', "datetime_from_date_parsing"),
    "the thirteenth month": ('"2022-13-01T00:00:00Z"', "datetime_from_date_parsing"),
    "null": ("null", "datetime_type"),
    "true": ("true", "datetime_type"),
}
NO_INTEGER = {
    "a half": ("1.5", "int_from_float"),
    "a word": ('"seven"', "int_parsing"),
    "NaN": ("NaN", "finite_number"),
    "infinity": ("Infinity", "finite_number"),
    "null": ("null", "int_type"),
    "a list": ("[7]", "int_type"),
}


def _kinds() -> Iterator[tuple[str, Kind]]:
    for name in REQUIRED:
        yield f"without {name}", Kind(without(name), f"unreadable:missing-{name}", "everybody")
        yield f"empty {name}", Kind(header(name, b""), f"unreadable:missing-{name}", "everybody")
    for name in READ:
        yield f"null {name}", Kind(header(name, None), f"unreadable:null-{name}", "everybody")
        yield f"{name} in no UTF-8", Kind(header(name, b"\xff\xfe"), f"unreadable:not-utf8-{name}", "everybody")
        yield f"two of {name}", Kind(twice(name), f"unreadable:duplicate-{name}", "everybody")
    for name, values in WRONG.items():
        for n, wrong in enumerate(values, 1):
            spoil = header(f"ce_{name}", wrong.encode())
            if name == "causationid":
                spoil = more((f"ce_{name}", wrong.encode()))
            yield f"wrong {name} {n}", Kind(spoil, f"unreadable:{name}", "everybody")
    missing = "unreadable:missing-ce_specversion"
    yield "no headers", Kind(lambda r, event: replace(r, headers=()), missing, "everybody")
    yield "nothing at all", Kind(nothing, missing, "everybody")
    yield "structured mode", Kind(structured, missing, "everybody")
    capitals: Spoil = lambda r, event: replace(r, headers=tuple((n.upper(), v) for n, v in r.headers))  # noqa: E731
    yield "headers in capitals", Kind(capitals, missing, "everybody")
    hyphens: Spoil = lambda r, event: replace(  # noqa: E731
        r, headers=tuple((n.replace("_", "-"), v) for n, v in r.headers)
    )
    yield "headers as HTTP has them", Kind(hyphens, missing, "everybody")
    person: Spoil = lambda r, event: replace(  # noqa: E731
        r, key=NUMBER.encode(), value=PERSONAL, headers=(("x-note", PERSONAL), (ADDRESS, None))
    )
    yield "a person in every place", Kind(person, missing, "everybody")
    yield "another key", Kind(keyed(OTHER.encode()), "unreadable:key-differs-from-partitionkey", "everybody")
    yield "a person as key", Kind(keyed(PERSONAL), "unreadable:key-differs-from-partitionkey", "everybody")
    yield "a key in no UTF-8", Kind(keyed(b"\xff\x00"), "unreadable:key", "everybody")
    yield "a null key", Kind(keyed(None, b""), "unreadable:no-key", "everybody")
    yield "an empty key", Kind(keyed(b"", b""), "unreadable:no-key", "everybody")
    yield (
        "a null key and no attribute that repeats it",
        Kind(
            lambda r, event: replace(without("ce_partitionkey")(r, event), key=None, value=None),
            "unreadable:no-key",
            "everybody",
        ),
    )
    junk = value(PERSONAL + b" " * (ROOM - len(PERSONAL)))
    yield "as large as may be", Kind(junk, "invalid:/:json_invalid", rare=True)
    many = tuple((f"x{n}", b"") for n in range(20_000))
    yield (
        "twenty thousand headers and no id",
        Kind(
            lambda r, event: more(*many)(without("ce_id")(r, event), event),
            "unreadable:missing-ce_id",
            "everybody",
            rare=True,
        ),
    )

    yield "a foreign source", Kind(header("ce_source", b"/training/elsewhere"), ELSEWHERE)
    yield "the source of a person", Kind(header("ce_source", f"/{NUMBER}".encode()), ELSEWHERE)
    yield "a type of another topic", Kind(elsewhere, ELSEWHERE)
    for name, broken in BROKEN.items():
        yield f"value: {name}", Kind(value(broken), "invalid:/:json_invalid")
    for name, wrong_root in NO_OBJECT.items():
        yield f"value: {name}", Kind(value(wrong_root), "invalid:/:model_type")
    yield "value: an empty object", Kind(value(b"{}"), "invalid:/{first}:missing")
    yield "value: half of it", Kind(rewritten(lambda v: v[: len(v) // 2]), "invalid:/:json_invalid")
    yield "value: twice", Kind(rewritten(lambda v: v + v), "invalid:/:json_invalid")
    yield "value: in a list", Kind(rewritten(lambda v: b"[" + v + b"]"), "invalid:/:model_type")
    yield "value: as a text", Kind(rewritten(lambda v: json.dumps(v.decode()).encode()), "invalid:/:model_type")
    yield "no subject", Kind(unsaid("subject"), "invalid:/{subject}:missing")
    for name, (told, error) in NO_SUBJECT.items():
        yield f"subject: {name}", Kind(said("subject", told), f"invalid:/{{subject}}:{error}")
    for role, fits, cases in (("instant", instant, NO_INSTANT), ("integer", integer, NO_INTEGER)):
        for name, (told, error) in cases.items():
            yield f"{role}: {name}", Kind(said(role, told), f"invalid:/{{{role}}}:{error}", of=fits)
        yield f"no {role}", Kind(unsaid(role), f"invalid:/{{{role}}}:missing", of=fits)
    yield "choice: none of the list", Kind(said("choice", '"stolen"'), "invalid:/{choice}:enum", of=choice)
    yield "choice: null", Kind(said("choice", "null"), "invalid:/{choice}:enum", of=choice)
    differs = "subject-or-key-differs-from-data"
    yield (
        "another subject in the header",
        Kind(lambda r, event: header("ce_subject", another(event).encode())(r, event), differs),
    )
    yield (
        "another subject in the data",
        Kind(lambda r, event: said("subject", f'"{another(event)}"')(r, event), differs),
    )
    yield "another key everywhere but in the data", Kind(keyed(OTHER.encode(), OTHER.encode()), differs)
    agency: Callable[[type[Event]], object] = lambda cls: "agency_id" in cls.model_fields  # noqa: E731
    yield "another agency", Kind(header("ce_agencyid", OTHER.encode()), "agency-differs-from-data", "forwarding")
    yield "a person as agency", Kind(header("ce_agencyid", PERSONAL), "agency-differs-from-data", "forwarding")
    yield "no agency", Kind(without("ce_agencyid"), "agency-differs-from-data", "forwarding", of=agency)
    seat: Callable[[type[Event]], object] = lambda cls: "roster_number" in cls.model_fields  # noqa: E731
    yield (
        "a number that no database keeps",
        Kind(said("integer", "9" * 30), "OverflowError", "keeping", of=seat, rare=True),
    )

    # What looks odd and is an event.
    of_tomorrow = header("ce_type", b"id.go.lan.training.enrollment.participant-promoted.v1")
    yield "a type not known yet", Kind(of_tomorrow, None)
    yield (
        "a version not known yet",
        Kind(lambda r, event: header("ce_type", event.type.replace(".v1", ".v2").encode())(r, event), None),
    )
    yield (
        "a type not known yet, with no JSON",
        Kind(lambda r, event: replace(of_tomorrow(r, event), value=b"\xff"), None),
    )
    yield "a fact", Kind(as_it_is, None)
    yield "headers of others", Kind(more(("x", None), ("x", b"\xff"), ("", b""), ("ce_new", b"\x00")), None)
    yield "a thousand headers", Kind(more(*((f"x-{n}", b"y") for n in range(1_000))), None)
    yield "a header's name of ten kilobytes", Kind(more(("n" * 10_240, b"")), None)
    yield "a header's name in odd letters", Kind(more(("ключ\u202e\U0001f642", b"1")), None)
    yield "a header's name in no UTF-8", Kind(more(("ZZQQ", b"1")), None, way="raw name")
    yield "another content type", Kind(header("content-type", b"text/xml; charset=latin-1"), None)
    yield "no content type", Kind(without("content-type"), None)
    yield "a trace that is none", Kind(more(("ce_traceparent", b"00-" + b"f" * 200)), None)
    yield "another schema", Kind(header("ce_dataschema", b"file:///etc/passwd"), None)
    yield (
        "only what an event must have",
        Kind(
            lambda r, event: replace(r, headers=tuple(h for h in r.headers if h[0] in (*REQUIRED, "ce_agencyid"))), None
        ),
    )
    yield "headers in another order", Kind(lambda r, event: replace(r, headers=r.headers[::-1]), None)
    yield "a time with another offset", Kind(header("ce_time", b"2022-02-21T08:00:00.000+07:00"), None)
    yield "a field that no contract names", Kind(besides('{"a": [NaN, 1e5, "\\u0000"]}'), None)
    yield "a field of large numbers", Kind(besides("1" * 4_000), None)
    yield "a field of every letter", Kind(besides(json.dumps("\u202e\u0000\ufffe\U0010ffff" + "é" * 500)), None)
    yield "a fact among many spaces", Kind(rewritten(filled(ROOM, b" ")), None, rare=True)
    yield "a fact from the past", Kind(lambda r, event: replace(r, timestamp=1), None)
    for codec in ("gzip", "lz4", "zstd", "snappy"):
        yield f"a fact in {codec}", Kind(as_it_is, None, way=codec)
        yield f"no JSON in {codec}", Kind(value(b"{"), "invalid:/:json_invalid", way=codec)
    yield "a fact in a transaction", Kind(as_it_is, None, way="committed")
    yield "no id in a transaction", Kind(without("ce_id"), "unreadable:missing-ce_id", "everybody", way="committed")


KINDS: dict[str, Kind] = dict(_kinds())
UNDONE = Kind(as_it_is, None, way="aborted")
"""A fact in a transaction that its producer took back: nobody may ever see it."""
INFLATED = [Kind(rewritten(filled(size, b" ")), None, way="gzip") for size in (1_200_000, 5_000_000, 20_000_000)]
"""Small where it is compressed; too large for a topic, for a dead letter, for a document."""


def drawn(chance: random.Random, number: int, turn: int) -> list[str]:
    """The names of so many, every kind among them, in an order of chance; the rare ones three times.

    Without a number a fourth of them all, another in each of four turns.
    """
    often, rare = ([name for name, kind in KINDS.items() if kind.rare is rare] for rare in (False, True))
    if not number:
        names = often[turn::4] + rare[turn::4]
    else:
        names = often + 3 * rare
        names += chance.choices(often, k=number - len(names))
    chance.shuffle(names)
    return names
