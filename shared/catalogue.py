"""Writes what the code promises: JSON Schemas, the AsyncAPI document, the pages of events, problems and settings.

`python -m shared.catalogue` writes; `--check` fails when a committed file is not what the code says.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import sys
import types
import typing
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import yaml
from pydantic import AwareDatetime, BaseModel

from shared.cloudevents import headers_for
from shared.contracts import REGISTRY, Event
from shared.errors import Failure
from shared.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
VERSION = "0.2.0"


def events() -> list[type[Event]]:
    return [REGISTRY[type] for type in sorted(REGISTRY)]


# --- schemas -----------------------------------------------------------------------------------------------------


def schema(event: type[Event]) -> dict[str, Any]:
    """The JSON Schema of an event's data, as its readers see it."""
    made = event.model_json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"/contracts/schemas/{event.type}.json",
        **made,
        "description": inspect.cleandoc(event.__doc__ or ""),
        "x-topic": event.topic,
        "x-subject": event.subject_field,
        "x-key": event.key_field,
    }


# --- examples ----------------------------------------------------------------------------------------------------


def example(event: type[Event]) -> dict[str, Any]:
    """Generated data of an event, the same every time. No value in it means anybody or anything real."""
    return json.loads(event.model_validate(_values(event)).model_dump_json())  # type: ignore[no-any-return]


def _values(model: type[BaseModel]) -> dict[str, Any]:
    return {name: _value(info.annotation, f"{model.__name__}.{name}") for name, info in model.model_fields.items()}


def _value(annotation: Any, name: str) -> Any:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is list:
        return [_value(arguments[0], name)]
    if origin in (typing.Union, types.UnionType):
        return _value(next(a for a in arguments if a is not type(None)), name)
    if inspect.isclass(annotation):
        if issubclass(annotation, Enum):
            return next(iter(annotation)).value
        if issubclass(annotation, BaseModel):
            return _values(annotation)
        plain: dict[type, Any] = {
            int: 1,
            bool: True,
            Decimal: "81.25",
            datetime: datetime(2022, 2, 21, 2, tzinfo=UTC),
            date: date(2022, 2, 21),
        }
        if annotation in plain:
            return plain[annotation]
    if name.endswith(("_id", "_ids")) and not name.endswith("rule_ids"):
        return str(UUID(bytes=hashlib.sha256(name.encode()).digest()[:16], version=4))
    if name.endswith(".zone"):
        return "Asia/Jakarta"
    if name.endswith("_at"):
        return datetime(2022, 2, 21, 2, tzinfo=UTC)
    return "pkp-2019.1" if name.endswith("_version") else "an-example"


# --- AsyncAPI ----------------------------------------------------------------------------------------------------


def _header_schema() -> dict[str, Any]:
    sample = headers_for(
        REGISTRY[sorted(REGISTRY)[0]].model_validate(_values(events()[0])),
        sequence=1,
        time=datetime(2022, 2, 21, tzinfo=UTC),
        recordedtime=datetime(2022, 2, 21, tzinfo=UTC),
        correlationid="x",
        causationid="x",
        authtype="system",
        authid="system",
        traceparent=None,
        agencyid="-",
    )
    optional = {"ce_causationid"}
    return {
        "type": "object",
        "description": "CloudEvents 1.0 attributes, binary mode.",
        "properties": {name: {"type": "string"} for name, _ in sample},
        "required": [name for name, _ in sample if name not in optional],
    }


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document: what is published on which topic."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    schemas: dict[str, Any] = {"CloudEventsHeaders": _header_schema()}
    for event in events():
        name, channel = event.__name__, event.topic.replace(".", "_").replace("-", "_")
        made = event.model_json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
        schemas |= made.pop("$defs", {})
        schemas[name] = made
        messages[name] = {
            "name": event.type,
            "title": name,
            "summary": inspect.cleandoc(event.__doc__ or "").splitlines()[0],
            "contentType": "application/json",
            "headers": {
                "allOf": [
                    {"$ref": "#/components/schemas/CloudEventsHeaders"},
                    {"properties": {"ce_type": {"const": event.type}}},
                ]
            },
            "payload": {"$ref": f"#/components/schemas/{name}"},
        }
        told = channels.setdefault(channel, {"address": event.topic, "messages": {}})
        told["messages"][name] = {"$ref": f"#/components/messages/{name}"}
        operation = operations.setdefault(
            f"publish_{channel}", {"action": "send", "channel": {"$ref": f"#/channels/{channel}"}, "messages": []}
        )
        operation["messages"].append({"$ref": f"#/channels/{channel}/messages/{name}"})
    public = [
        e.__name__ for e in events() if not e.topic.endswith("-restricted") and not e.__name__.startswith("Learning")
    ]
    channels["training_agency"] = {
        "address": "training.agency.{code}",
        "description": "An agency's own facts and its cohorts' facts, byte for byte as on the topics above.",
        "parameters": {"code": {"description": "The agency's code in this installation."}},
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in public},
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Angkatan",
            "version": VERSION,
            "description": "Events of the civil-servant training lifecycle.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
    }


# --- pages -------------------------------------------------------------------------------------------------------


def events_page() -> str:
    """docs/events.md"""
    lines = [
        "# Events",
        "",
        "Generated from `shared/contracts/`. CloudEvents 1.0 in Kafka's binary mode: the value is the data, attributes",
        "are `ce_*` headers. `subject` names what the fact is about, `sequence` counts its facts from 1 without gaps,",
        "and the key (`partitionkey`) keeps all facts of a cohort in order on a topic. Within a version, fields are",
        "only added, with a default. No event carries a name, an address, a personal number or free text.",
        "",
    ]
    for topic in sorted({event.topic for event in events()}):
        lines += [f"## `{topic}`", ""]
        for event in (e for e in events() if e.topic == topic):
            lines += [f"### {event.__name__}", "", f"`{event.type}` · since {event.since}", ""]
            lines += [*inspect.cleandoc(event.__doc__ or "").splitlines(), ""]
            lines += [
                f"Subject `{event.subject_field}`, key `{event.key_field}`.",
                "",
                "| Field | Type |",
                "| --- | --- |",
            ]
            lines += [f"| `{name}` | {_type_name(info)} |" for name, info in event.model_fields.items()]
            lines += [""]
    return "\n".join(lines).rstrip() + "\n"


def _type_name(info: Any) -> str:
    def named(annotation: Any, metadata: Any = ()) -> str:
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is list:
            return f"list of {named(arguments[0])}"
        if origin is typing.Annotated:
            return named(arguments[0], arguments[1:])
        if annotation is str:
            told = repr(metadata)
            return "id" if "_id" in told else "time zone" if "_known_zone" in told else "code"
        if inspect.isclass(annotation) and issubclass(annotation, Enum):
            return " \\| ".join(f"`{member.value}`" for member in annotation)
        if annotation in (datetime, AwareDatetime):
            return "instant"
        if annotation is Decimal:
            return "mark, 0 to 100"
        return str(getattr(annotation, "__name__", annotation))

    told = named(info.annotation, info.metadata)
    return told if info.is_required() else f"{told}, optional"


def failures() -> list[type[Failure]]:
    """Every refusal and failure that a caller may meet, from all services."""
    for service in ("enrollment", "scheduling", "assessment", "notification"):
        __import__(f"services.{service}.app")

    def below(cls: type[Failure]) -> list[type[Failure]]:
        return [cls, *(inner for sub in cls.__subclasses__() for inner in below(sub))]

    named = {cls.code: cls for cls in below(Failure) if cls.__module__.startswith(("services.", "shared."))}
    named.pop(Failure.code)
    return [named[code] for code in sorted(named)]


_BEFORE_ANY_COMMAND: dict[str, tuple[int | str, str]] = {
    "invalid-request": (422, "The request does not fit its schema. `errors` names each place by a JSON pointer."),
    "malformed-request": (400, "The request cannot be read."),
    "method-not-allowed": (405, "This resource does not know that method."),
    "too-large": (413, "The body is larger than one mebibyte."),
    "http-failure": ("as answered", "The request failed before it reached any rule of training."),
    "internal-failure": (500, "The service failed. It is recorded; name the `correlation_id` when you report it."),
}


def problems_page() -> str:
    """docs/problems.md"""
    lines = [
        "# Problems",
        "",
        "Generated from the refusals in the code. A failed request answers `application/problem+json` (RFC 9457) with",
        "`type` (a section of this page), `title`, `status`, `correlation_id`, and the problem's own members.",
        "",
        "A failure with another content type is from the gateway, which promises its status and no body: 404 where it",
        "has no route, 413 above two mebibytes, 502 while the service is away, 504 when it does not begin to answer",
        "within twenty seconds.",
        "",
    ]
    told = _BEFORE_ANY_COMMAND | {cls.code: (cls.status, _sentence(cls)) for cls in failures()}
    for code in sorted(told):
        status, words = told[code]
        lines += [f"## {code}", "", f"Status {status}. {words}", ""]
    return "\n".join(lines).rstrip() + "\n"


def _sentence(cls: type[Failure]) -> str:
    return " ".join(inspect.cleandoc(cls.__doc__ or cls.title).split())


# --- settings ----------------------------------------------------------------------------------------------------


def settings_page() -> str:
    """docs/settings.md"""
    lines = [
        "# Settings",
        "",
        "Generated from the settings classes. Each is an environment variable of its name, or a file of its name in",
        "lower case in a folder that `SECRETS_DIR` names (several folders are separated by colons). A wrong or missing",
        "one ends the process at once, with a line that names it and shows no value.",
        "",
        "## Every service",
        "",
        *_settings_table(Settings, set()),
    ]
    for service in ("enrollment", "scheduling", "assessment", "notification"):
        own = importlib.import_module(f"services.{service}.app").service.settings
        if own is not Settings:
            lines += ["", f"## {service}", "", *_settings_table(own, set(Settings.model_fields))]
    return "\n".join(lines) + "\n"


def _settings_table(cls: type[Settings], without: set[str]) -> list[str]:
    lines = ["| Setting | Default | What it is |", "| --- | --- | --- |"]
    for name, info in cls.model_fields.items():
        if name in without:
            continue
        if info.is_required():
            default = "must be set"
        elif info.default_factory is not None:
            default = "the machine's name"
        else:
            default = "" if info.default in (None, "") else f"`{info.default}`"
        secret = " Secret." if "SecretStr" in str(info.annotation) else ""
        chosen = [v for part in (info.annotation, *get_args(info.annotation)) for v in get_args(part)]
        words = [f"`{v}`" for v in chosen if isinstance(v, str)]
        one_of = f" One of {', '.join(words)}." if words else ""
        told = " ".join(inspect.cleandoc(info.description or "").split())
        lines.append(f"| `{name.upper()}` | {default} | {told}{one_of}{secret} |")
    return lines


# --- files -------------------------------------------------------------------------------------------------------


def files() -> dict[Path, str]:
    """Every generated file with its content. Examples are append-only: those that exist are left as they are."""
    made = {ROOT / "contracts" / "schemas" / f"{e.type}.json": json.dumps(schema(e), indent=2) + "\n" for e in events()}
    for event in events():
        path = ROOT / "contracts" / "examples" / event.type / "0001.json"
        made[path] = path.read_text() if path.exists() else json.dumps(example(event), indent=2) + "\n"
    made[ROOT / "contracts" / "asyncapi.yaml"] = yaml.safe_dump(asyncapi(), sort_keys=False, width=120)
    made[ROOT / "docs" / "events.md"] = events_page()
    made[ROOT / "docs" / "problems.md"] = problems_page()
    made[ROOT / "docs" / "settings.md"] = settings_page()
    return made


def main() -> int:
    made = files()
    if "--check" in sys.argv:
        stale = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
        kept = set((ROOT / "contracts" / "schemas").glob("*.json")) - set(made)
        for path in (*stale, *sorted(kept)):
            print(f"{path.relative_to(ROOT)} is not what the code says: make generate", file=sys.stderr)
        return int(bool(stale or kept))
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
