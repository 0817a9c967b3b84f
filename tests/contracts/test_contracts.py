"""Promises to people we do not know: every event type, its fields, its schema, its wire form."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import types
import typing
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import pytest
from annotated_types import Ge, Le
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event, to_binary_event
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, ValidationError

from shared import catalogue, http
from shared.cloudevents import Envelope, Record, event_id, headers_for, read
from shared.contracts import REGISTRY, Code, Day, Event, Fact, Id, Instant, Score, Zone
from shared.errors import Failure

EVENTS = [pytest.param(event, id=event.__name__) for event in catalogue.events()]
AT = datetime(2022, 2, 21, 1, 0, tzinfo=UTC)


PERMITTED = (Id, Code, Zone, Instant, Day, int, bool)
"""Text only as one of the three that check what it holds; a constraint of length or a description is no check."""


def forbidden_types(model: type[BaseModel]) -> list[str]:
    """Fields whose type no event may have: free text, floats, unbounded decimals, naive times, free dictionaries."""

    def permitted(annotation: Any, metadata: tuple[Any, ...] = ()) -> bool:
        if annotation in PERMITTED:
            return True
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is typing.Annotated:
            return permitted(arguments[0], arguments[1:])
        if origin is list:
            return permitted(arguments[0])
        if origin in (typing.Union, types.UnionType):
            return all(permitted(argument, metadata) for argument in arguments if argument is not type(None))
        if not inspect.isclass(annotation):
            return False
        if issubclass(annotation, BaseModel):
            return not forbidden_types(annotation)
        if annotation is Decimal:
            bounds = [bound for told in metadata for bound in getattr(told, "metadata", [told])]
            return {Ge, Le} <= {type(bound) for bound in bounds}
        return issubclass(annotation, Enum)

    hints = typing.get_type_hints(model, include_extras=True)
    return [name for name in model.model_fields if not permitted(hints[name])]


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_has_only_fields_of_permitted_types(event: type[Event]) -> None:
    assert forbidden_types(event) == []


class Remarked(Fact):
    remark: str


def test_the_check_of_field_types_finds_free_text_floats_and_naive_times() -> None:
    class Careless(Fact):
        remark: str
        described: Annotated[str, Field(description="a remark")]
        short: Annotated[str, StringConstraints(max_length=5000)] | None
        patterned: Annotated[str, StringConstraints(pattern=".*")]
        score: float
        mark: Annotated[Decimal, Field(description="a mark")]
        half_bounded: Annotated[Decimal, Field(ge=0)]
        when: datetime
        more: dict[str, int]
        texts: list[str]
        inner: list[Remarked]

    class Careful(Fact):
        id: Id
        code: Code | None
        codes: list[Code]
        zone: Zone
        mark: Score
        when: Instant
        day: Day | None
        count: Annotated[int, Field(ge=1)]

    assert forbidden_types(Careless) == list(Careless.model_fields)
    assert forbidden_types(Careful) == []


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


SUBJECTS = {
    "enrollment": {"agency_id", "cohort_id", "nomination_id", "enrollment_id"},
    "scheduling": {"schedule_id", "session_id", "group_id", "attendance_id"},
    "assessment": {"module_result_id", "project_id", "enrollment_id", "credential_id"},
    "notification": {"notification_id"},
}
"""Of what each service counts the facts. Counters live in the saved state, so each of these is one kind of state."""


def test_a_service_tells_facts_only_of_its_own_kinds_of_state() -> None:
    told: dict[str, set[str]] = {}
    for event in REGISTRY.values():
        told.setdefault(event.topic.removesuffix("-restricted").split(".")[1], set()).add(event.subject_field)
    assert told == SUBJECTS


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


_PROSE = ("description", "title", "default")
_WHERE = ("x-topic", "x-subject", "x-key")


def breaks(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What a newer schema of the same version breaks for its readers: all but added optional fields and prose."""
    broken = [f"{word} changed" for word in _WHERE if word in old and old[word] != new.get(word)]
    broken += _object_breaks("", old, new)
    for name, told in old.get("$defs", {}).items():
        now = new.get("$defs", {}).get(name)
        if now is None:
            broken.append(f"{name} is gone")
        elif told.get("enum") != now.get("enum"):
            broken.append(f"{name} has other members")
        else:
            broken += _object_breaks(f"{name}.", told, now)
    return broken


def _object_breaks(prefix: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    broken = []
    for name, told in old.get("properties", {}).items():
        now = new.get("properties", {}).get(name)
        if now is None:
            broken.append(f"{prefix}{name} is gone")
        elif {k: v for k, v in told.items() if k not in _PROSE} != {k: v for k, v in now.items() if k not in _PROSE}:
            broken.append(f"{prefix}{name} changed")
    before, after = set(old.get("required", ())), set(new.get("required", ()))
    broken += [f"{prefix}{name} is required" for name in sorted(after - before)]
    broken += [f"{prefix}{name} is optional" for name in sorted(before - after)]
    return broken


def test_the_comparison_of_schemas_finds_what_breaks_a_reader() -> None:
    part = {"properties": {"c": {"type": "integer"}}, "required": ["c"]}
    old = {
        "x-key": "cohort_id",
        "properties": {"a": {"type": "string"}, "p": {"$ref": "#/$defs/P"}},
        "required": ["a"],
        "$defs": {"K": {"enum": ["x"]}, "P": part},
    }

    def but(**changes: Any) -> list[str]:
        return breaks(old, old | changes)

    def defined(**changes: Any) -> list[str]:
        return but(**{"$defs": {**old["$defs"], **changes}})  # type: ignore[dict-item]

    properties = {"a": {"type": "string", "description": "better"}, "p": {"$ref": "#/$defs/P"}}
    assert but(properties=properties | {"b": {"type": "integer"}}) == []
    assert defined(P={**part, "properties": {"c": {"type": "integer"}, "d": {"type": "integer"}}}) == []
    assert breaks({"properties": {}}, old | {"required": []}) == []
    assert but(properties={"a": {"type": "string"}}) == ["p is gone"]
    assert but(properties=properties | {"a": {"type": "integer"}}) == ["a changed"]
    assert but(required=["a", "p"]) == ["p is required"]
    assert but(required=[]) == ["a is optional"]
    assert but(**{"x-key": "enrollment_id"}) == ["x-key changed"]
    assert defined(K={"enum": ["x", "y"]}) == ["K has other members"]
    assert defined(P={"properties": {}, "required": []}) == ["P.c is gone", "P.c is optional"]
    assert defined(P={"properties": {"c": {"type": "string"}}, "required": ["c"]}) == ["P.c changed"]
    assert but(**{"$defs": {"K": {"enum": ["x"]}}}) == ["P is gone"]


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, cwd=catalogue.ROOT)
    return done.stdout if done.returncode == 0 else ""


def published() -> list[str]:
    """The commits against which a promise is kept: the last release, the merge base, and the commit before this."""
    head = git("rev-parse", "HEAD").strip()
    named = (
        git("describe", "--tags", "--abbrev=0").strip(),
        git("merge-base", "HEAD", "origin/main").strip(),
        git("rev-parse", "--verify", "--quiet", "HEAD~1").strip(),
    )
    return [head, *(base for base in dict.fromkeys(named) if base and base != head)] if head else []


def test_no_published_schema_was_broken() -> None:
    if not (bases := published()):
        pytest.skip("not a git checkout")
    broken = {}
    for base in bases:
        for path in git("ls-tree", "-r", "--name-only", base, "contracts/schemas").splitlines():
            new = catalogue.ROOT / path
            old = json.loads(git("show", f"{base}:{path}"))
            if told := breaks(old, json.loads(new.read_text())) if new.exists() else ["it is gone"]:
                broken[path] = told
    assert broken == {}


def test_no_published_example_was_changed_or_taken_away() -> None:
    if not (bases := published()):
        pytest.skip("not a git checkout")
    changed = set()
    for base in bases:
        for line in git("ls-tree", "-r", base, "contracts/examples").splitlines():
            described, path = line.split("\t")
            new = catalogue.ROOT / path
            if not new.exists() or git("hash-object", str(new)).strip() != described.split()[2]:
                changed.add(path)
    assert changed == set()


def test_every_kind_of_problem_that_is_answered_has_its_page() -> None:
    """Also those that the HTTP layer answers itself, before any refusal exists."""
    told = ast.walk(ast.parse(inspect.getsource(http)))
    codes = {code for code, _ in http._HTTP_CODES.values()} | {"http-failure"}
    for node in told:
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_answer":
            codes |= {a.value for a in node.args[1:2] if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    page = catalogue.problems_page().splitlines()
    assert {"too-large", "internal-failure", "invalid-request"} < codes
    assert [code for code in sorted(codes) if f"## {code}" not in page] == []


def test_two_services_that_share_a_problems_code_mean_the_same() -> None:
    catalogue.failures()
    meant: dict[str, set[tuple[int, str]]] = {}
    left = [Failure]
    while left:
        failure = left.pop()
        left += failure.__subclasses__()
        if failure.__module__.startswith(("services.", "shared.")):
            meant.setdefault(failure.code, set()).add((failure.status, catalogue._sentence(failure)))
    assert {code: told for code, told in meant.items() if len(told) > 1} == {}


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


def sample(event: type[Event] | Event, *, sequence: int = 3, at: datetime = AT) -> tuple[Event, Record]:
    """A fact, or the example of its kind, as it goes over the wire."""
    made = event if isinstance(event, Event) else event.model_validate(catalogue.example(event))
    headers = headers_for(
        made,
        sequence=sequence,
        time=at,
        recordedtime=at,
        correlationid=event_id("a", "b", "c", 1),
        causationid=None,
        authtype="system",
        authid="system",
        traceparent=None,
        agencyid=made.agency,
    )
    value = made.model_dump_json().encode()
    return made, Record(made.topic, 0, 7, made.key.encode(), value, tuple(headers), 0)


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


def values(annotation: Any, metadata: Any = ()) -> st.SearchStrategy[Any]:
    """Everything that a field of this type may hold."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return values(arguments[0], arguments[1:])
    if origin is list:
        return st.lists(values(arguments[0]), max_size=3)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(values(argument, metadata) for argument in arguments))
    if annotation is type(None):
        return st.none()
    if annotation is str:
        told = repr(metadata)
        if "_id at" in told:
            return st.uuids(version=4).map(str)
        zones = st.sampled_from(["Asia/Jakarta", "Asia/Makassar", "Asia/Jayapura", "UTC"])
        return zones if "_known_zone" in told else st.from_regex(r"[a-z]([a-z0-9]?[.-]){0,9}", fullmatch=True)
    if inspect.isclass(annotation):
        if issubclass(annotation, Enum):
            return st.sampled_from(annotation)
        if issubclass(annotation, BaseModel):
            return facts(annotation)
        zones_of_time = st.sampled_from([UTC, timezone(timedelta(hours=7)), timezone(-timedelta(hours=3, minutes=30))])
        drawn: dict[Any, st.SearchStrategy[Any]] = {
            bool: st.booleans(),
            int: st.integers(1, 2**31),
            Decimal: st.decimals(0, 100, places=2),
            date: st.dates(),
        }
        if annotation in drawn:
            return drawn[annotation]
        if annotation.__name__ in ("AwareDatetime", "datetime"):
            return st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=zones_of_time)
    raise TypeError(annotation)


def facts(model: type[BaseModel]) -> st.SearchStrategy[Any]:
    fields = {name: values(info.annotation, info.metadata) for name, info in model.model_fields.items()}
    return st.fixed_dictionaries(fields).map(model.model_validate)


@pytest.mark.parametrize("event", EVENTS)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=st.data(), sequence=st.integers(1, 10**10 - 1), at=st.datetimes(timezones=st.just(UTC)))
def test_whatever_a_fact_holds_arrives_as_it_was(
    event: type[Event], drawn: st.DataObject, sequence: int, at: datetime
) -> None:
    """Through the SDK and back, by our own reading, and by the schema that others read."""
    made: Event = drawn.draw(facts(event))
    _, record = sample(made, sequence=sequence, at=at)
    decoded = from_binary_event(
        KafkaMessage(headers=dict(record.headers), key=made.key, value=record.value or b""),  # type: ignore[arg-type]
        JSONFormat(),
    )
    envelope = read(record)
    assert event.model_validate(decoded.get_data()) == event.model_validate_json(record.value or b"") == made
    assert (envelope.id, envelope.subject) == (decoded.get_id(), decoded.get_subject())
    assert envelope.sequence == sequence == int(str(decoded.get_extension("sequence")))
    assert envelope.time == decoded.get_time() == at.replace(microsecond=at.microsecond // 1000 * 1000)
    Draft202012Validator(catalogue.schema(event)).validate(json.loads(record.value or b""))


@pytest.mark.parametrize("code", ["196503281990031001", "nip-196503281990031001", "081234567890", "Budi Santoso", ""])
def test_a_code_is_no_personal_number_and_no_text(code: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Code).validate_python(code)


def test_every_example_folder_belongs_to_an_event() -> None:
    folders = {path.name for path in Path(catalogue.ROOT / "contracts" / "examples").iterdir()}
    assert folders == set(REGISTRY)


def test_the_examples_for_contributors_are_real_code() -> None:
    text = (catalogue.ROOT / "CONTRIBUTING.md").read_text()
    code = [
        path.read_text() for part in ("services", "shared") for path in sorted((catalogue.ROOT / part).rglob("*.py"))
    ]
    examples = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    assert len(examples) == 5
    assert [example for example in examples if not any(example in source for source in code)] == []
