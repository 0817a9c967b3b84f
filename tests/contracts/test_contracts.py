"""Promises to people we do not know: every event type, its fields, its schema, its wire form."""

from __future__ import annotations

import inspect
import json
import subprocess
import types
import typing
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event, to_binary_event
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from shared import catalogue
from shared.cloudevents import Envelope, Record, event_id, headers_for, read
from shared.contracts import REGISTRY, Event, Fact, Id

EVENTS = [pytest.param(event, id=event.__name__) for event in catalogue.events()]
AT = datetime(2022, 2, 21, 1, 0, tzinfo=UTC)


def forbidden_types(model: type[BaseModel]) -> list[str]:
    """Fields whose type no event may have: bare text, floats, free dictionaries."""

    def wrong(annotation: Any, metadata: Any) -> bool:
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is typing.Annotated:
            return wrong(arguments[0], arguments[1:])
        if origin is list:
            return wrong(arguments[0], ())
        if origin in (typing.Union, types.UnionType):
            return any(wrong(argument, metadata) for argument in arguments if argument is not type(None))
        if annotation is str:
            return not metadata
        if annotation is datetime:
            return True  # an instant must be aware
        if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
            return bool(forbidden_types(annotation))
        if inspect.isclass(annotation) and issubclass(annotation, Decimal):
            return not metadata
        plain = (int, bool, date)
        return not (
            annotation in plain
            or (inspect.isclass(annotation) and issubclass(annotation, Enum))
            or getattr(annotation, "__name__", "") == "AwareDatetime"
        )

    hints = typing.get_type_hints(model, include_extras=True)
    return [name for name in model.model_fields if wrong(hints[name], ())]


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_has_only_fields_of_permitted_types(event: type[Event]) -> None:
    assert forbidden_types(event) == []


def test_the_check_of_field_types_finds_free_text_floats_and_naive_times() -> None:
    class Careless(Fact):
        remark: str
        score: float
        when: datetime
        more: dict[str, int]
        texts: list[str]
        good: Id

    assert forbidden_types(Careless) == ["remark", "score", "when", "more", "texts"]


PERSONAL = (
    "name",
    "email",
    "phone",
    "nip",
    "nik",
    "birth",
    "address",
    "photo",
    "gender",
    "link",
    "title",
    "text",
    "note",
)


@pytest.mark.parametrize("event", EVENTS)
def test_no_event_has_a_field_that_sounds_personal(event: type[Event]) -> None:
    assert [f for f in event.model_fields if any(word in f.split("_") for word in PERSONAL)] == []


def test_a_subject_belongs_to_one_kind_of_state_within_a_service() -> None:
    """Counters live in the saved state, so two kinds of state must not share a subject id."""
    kinds: dict[tuple[str, str], set[str]] = {}
    for event in REGISTRY.values():
        service = event.source().split("/")[2].split("-")[0]
        kinds.setdefault((service, event.subject_field), set()).add(event.subject_field)
    per_service: dict[str, list[str]] = {}
    for service, field in kinds:
        per_service.setdefault(service, []).append(field)
    assert per_service["enrollment"] == list(dict.fromkeys(per_service["enrollment"]))
    assert {"agency_id", "cohort_id", "nomination_id", "enrollment_id"} == set(per_service["enrollment"])


@pytest.mark.parametrize("event", EVENTS)
def test_the_key_is_the_cohort_the_agency_or_the_recipient(event: type[Event]) -> None:
    wanted = {"notification": "recipient_id"}.get(event.topic.split(".")[1], "cohort_id")
    assert event.key_field == ("agency_id" if event.subject_field == "agency_id" else wanted)


# --- committed files ---------------------------------------------------------------------------------------------


def test_committed_contracts_and_pages_are_what_the_code_says() -> None:
    stale = [str(path) for path, text in catalogue.files().items() if not path.exists() or path.read_text() != text]
    assert stale == []


@pytest.mark.parametrize("event", EVENTS)
def test_every_example_ever_published_can_still_be_read(event: type[Event]) -> None:
    examples = sorted((catalogue.ROOT / "contracts" / "examples" / event.type).glob("*.json"))
    assert examples
    for example in examples:
        data = json.loads(example.read_text())
        event.model_validate(data)
        Draft202012Validator(catalogue.schema(event)).validate(data)


def breaks(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What a newer schema of the same version breaks for its readers: all but added optional fields and prose."""
    broken = []
    for name, told in old.get("properties", {}).items():
        now = new.get("properties", {}).get(name)
        if now is None:
            broken.append(f"{name} is gone")
        elif {k: v for k, v in told.items() if k not in _PROSE} != {k: v for k, v in now.items() if k not in _PROSE}:
            broken.append(f"{name} changed")
    broken += [f"{name} is required" for name in set(new.get("required", ())) - set(old.get("required", ()))]
    broken += [f"{name} is optional" for name in set(old.get("required", ())) - set(new.get("required", ()))]
    for name, definition in old.get("$defs", {}).items():
        if "enum" in definition and definition["enum"] != new.get("$defs", {}).get(name, {}).get("enum"):
            broken.append(f"{name} has other members")
    return broken


_PROSE = ("description", "title", "default")


def test_the_comparison_of_schemas_finds_what_breaks_a_reader() -> None:
    old = {"properties": {"a": {"type": "string"}}, "required": ["a"], "$defs": {"K": {"enum": ["x"]}}}
    same = {**old, "properties": {"a": {"type": "string", "description": "better"}, "b": {"type": "integer"}}}
    assert breaks(old, same) == []
    assert breaks(old, {**old, "properties": {}}) == ["a is gone"]
    assert breaks(old, {**old, "properties": {"a": {"type": "integer"}}}) == ["a changed"]
    assert breaks(old, {**same, "required": ["a", "b"]}) == ["b is required"]
    assert breaks(old, {**old, "$defs": {"K": {"enum": ["x", "y"]}}}) == ["K has other members"]


def test_no_published_schema_was_broken_since_the_main_branch() -> None:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], capture_output=True, text=True, check=False, cwd=catalogue.ROOT
        ).stdout.strip()

    base = git("merge-base", "HEAD", "origin/main") or git("rev-parse", "HEAD")
    if not base:
        pytest.skip("not a git checkout")
    broken = {}
    for path in git("ls-tree", "-r", "--name-only", base, "contracts/schemas").splitlines():
        new = catalogue.ROOT / path
        old = json.loads(git("show", f"{base}:{path}"))
        broken[path] = breaks(old, json.loads(new.read_text())) if new.exists() else ["it is gone"]
    assert {path: told for path, told in broken.items() if told} == {}


def test_the_asyncapi_document_names_every_event_once() -> None:
    document = catalogue.asyncapi()
    names = [
        name
        for channel in document["channels"].values()
        if "{" not in channel["address"]
        for name in channel["messages"]
    ]
    assert sorted(names) == sorted(event.__name__ for event in catalogue.events())


# --- on the wire -------------------------------------------------------------------------------------------------


def sample(event: type[Event]) -> tuple[Event, Record]:
    made = event.model_validate(catalogue.example(event))
    headers = headers_for(
        made,
        sequence=3,
        time=AT,
        recordedtime=AT,
        correlationid=event_id("a", "b", "c", 1),
        causationid=None,
        authtype="system",
        authid="system",
        traceparent=None,
        agencyid=made.agency,
    )
    value = made.model_dump_json().encode()
    return made, Record(event.topic, 0, 7, made.key.encode(), value, tuple(headers), 0)


@pytest.mark.parametrize("event", EVENTS)
def test_the_cloudevents_sdk_reads_what_we_write(event: type[Event]) -> None:
    made, record = sample(event)
    message = KafkaMessage(headers=dict(record.headers), key=made.key, value=record.value or b"")  # type: ignore[arg-type]
    decoded = from_binary_event(message, JSONFormat())
    assert decoded.get_id() == event_id(event.source(), event.type, made.subject, 3)
    assert (decoded.get_type(), decoded.get_source(), decoded.get_subject()) == (
        event.type,
        event.source(),
        made.subject,
    )
    assert decoded.get_time() == AT
    assert decoded.get_extension("sequence") == "0000000003"
    assert event.model_validate(decoded.get_data()) == made


@pytest.mark.parametrize("event", EVENTS)
def test_we_read_what_the_cloudevents_sdk_writes(event: type[Event]) -> None:
    made, _ = sample(event)
    written = to_binary_event(
        CloudEvent(
            {
                "specversion": "1.0",
                "id": event_id(event.source(), event.type, made.subject, 1),
                "type": event.type,
                "source": event.source(),
                "subject": made.subject,
                "time": AT,
                "datacontenttype": "application/json",
                "sequence": "0000000001",
                "partitionkey": made.key,
                "agencyid": made.agency,
            },
            made.model_dump(mode="json"),
        ),
        JSONFormat(),
    )
    headers = tuple((name, value) for name, value in written.headers.items())
    key = written.key.encode() if isinstance(written.key, str) else written.key
    envelope = read(Record(event.topic, 0, 0, key, written.value, headers, 0))
    assert isinstance(envelope, Envelope)
    assert (envelope.sequence, envelope.time, envelope.subject) == (1, AT, made.subject)


def test_every_example_folder_belongs_to_an_event() -> None:
    folders = {path.name for path in Path(catalogue.ROOT / "contracts" / "examples").iterdir()}
    assert folders == set(REGISTRY)
