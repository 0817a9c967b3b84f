"""Whatever is sent with a good token: no answer is a 5xx, and each is one that the OpenAPI document announces."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi import checks

from shared.http import BODY_BYTES
from shared.identity import Role
from tests.malice.access import ACCESS
from tests.malice.doors import doors
from tests.malice.worlds import World
from tests.support import clock_at, service_token, token

EXAMPLES = 4
"""So many well-formed requests per route, and as many malformed ones; the same in every run."""
CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


def described(document: dict[str, Any]) -> dict[str, APIOperation[Any, Any, Any, Any]]:
    """The operations of an OpenAPI document by their routes."""
    found = {}
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        found[f"{operation.method.upper()} {operation.path}"] = operation
    return found


def drawn(operation: APIOperation[Any, Any, Any, Any], mode: GenerationMode, **given_parts: Any) -> list[Case[Any]]:
    """Requests for one operation as its description allows them, or as it does not."""
    cases: list[Case[Any]] = []

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode, **given_parts))
    def draw(case: Case[Any]) -> None:
        cases.append(case)

    with suppress(Unsatisfiable):  # nothing in it could be malformed
        draw()
    return cases


def caller(world: World, route: str) -> dict[str, str]:
    """Somebody with every role to whom what is asked for is open."""
    who = ACCESS[world.service.name][route]
    if who.services:
        return service_token(who.services[0], world.service.name)
    relation = next((relation for relation in who.to if relation in world.people), "participant")
    roles = tuple(role for role in Role if role is not Role.SERVICE)
    return token(*roles, person_id=world.people[relation], agency_ids=[world.agency], audience=world.service.name)


def known(value: Any, ids: dict[str, Any], name: str = "") -> Any:
    """The same with ids that the world knows in place of invented ones."""
    if isinstance(value, dict):
        return {key: known(item, ids, key) for key, item in value.items()}
    if isinstance(value, list):
        return [known(item, ids, name.removesuffix("s")) for item in value]
    return ids.get(name, value) if isinstance(value, str) else value


def request(case: Case[Any], headers: dict[str, str]) -> httpx.Request:
    """What a client would send; the token is ours, whatever was drawn for it."""
    made = case.as_transport_kwargs(base_url="http://service.test")
    content = json.dumps(made["json"]).encode() if "json" in made else made.get("data")
    sent = {"content-type": "application/json"} if "json" in made else {}
    for name, value in made["headers"].items():
        if name.lower() not in ("authorization", "content-length", "transfer-encoding", "host"):
            sent[name.lower()] = value
    raw = [(name.encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in sent.items()]
    raw += [(name.encode(), value.encode()) for name, value in headers.items()]
    return httpx.Request(made["method"], made["url"], params=made["params"], headers=raw, content=content)


async def test_every_answer_is_one_that_the_description_announces(world: World) -> None:
    found: list[str] = []
    statuses: set[int] = set()
    async with doors(world.service, world.database) as served:
        for client in set(served.values()):
            operations = described((await client.get("/openapi.json")).json())
            for route in [route for route in ACCESS[world.service.name] if route in operations]:
                operation, headers = operations[route], caller(world, route)
                _, path, _ = world.request(route)
                names, places = re.findall(r"{(\w+)}", route), re.sub(r"{\w+}", "([^/]+)", route.split(" ")[1])
                ids = dict(zip(names, re.fullmatch(places, path).groups(), strict=True))  # type: ignore[union-attr]
                cases = drawn(operation, GenerationMode.NEGATIVE)
                cases += drawn(operation, GenerationMode.POSITIVE, **({"path_parameters": ids} if ids else {}))
                for case in cases:
                    case.body = known(case.body, {**world.ids, **ids})
                    with clock_at(world.at):
                        answer = await client.send(request(case, headers))
                    statuses.add(answer.status_code)
                    try:
                        case.validate_response(answer, checks=CHECKS)
                    except BaseExceptionGroup as failures:
                        found += [
                            f"{route} {answer.status_code}: {f} <- {case.body!r:.300}" for f in failures.exceptions
                        ]
    assert not found, "\n".join(found)
    assert {200, 422} <= statuses


ODD: dict[str, Any] = {
    "nothing": None,
    "a number": 7,
    "beyond 64 bits": 2**64,
    "the last exact number": 2**53 - 1,
    "below zero": -1,
    "a fraction": 0.1,
    "a boolean": True,
    "no text": "",
    "NUL": "a\x00b",
    "half a character": "\ud800",
    "right to left": "\u202egnp.exe",
    "combining": "e" + "\u0301" * 500,
    "beyond the plane": "\U0001f9d1\u200d\U0001f393",
    "line breaks": "a\r\nBcc: x@example.org",
    "a long text": "x" * 100_000,
    "an operator": {"$gt": ""},
    "a list": [],
    "a list of lists": [[[[]]]],
    "a path": "../../etc/passwd",
    "year one": "0001-01-01T00:00:00Z",
    "year 9999": "9999-12-31T23:59:59.999999-12:00",
    "a leap second": "2016-12-31T23:59:60Z",
    "a day that is not": "2022-02-30",
    "full-width digits": "\uff11\uff12",
}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places in a body where something stands."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from leaves(item, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    if not path:
        return by
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], by)
    return copy


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"[" * depth + b"]" * depth + b"}" * depth


async def test_one_odd_value_in_a_good_body_is_never_more_than_refused(world: World) -> None:
    found = []
    async with doors(world.service, world.database) as served:
        for route, good in world.bodies.items():
            method, path, _ = world.request(route)
            headers = caller(world, route) | {"content-type": "application/json"}
            bodies = {
                f"{'/'.join(map(str, place))}: {what}": json.dumps(replaced(good, place, value)).encode()
                for place in leaves(good)
                for what, value in ODD.items()
            }
            bodies["an unknown field"] = json.dumps({**good, "$where": "1", "is_admin": True}).encode()
            bodies |= {f"{depth} deep": nested(depth) for depth in (10, 1_000, 200_000)}
            bodies |= {"10 MB": b'{"a":"' + b"x" * 10_000_000 + b'"}', "half": json.dumps(good).encode()[:-1]}
            bodies |= {"no UTF-8": b'{"a":"\xff\xfe"}', "UTF-16": json.dumps(good).encode("utf-16")}
            bodies["twice the same field"] = b'{"a":1,' + json.dumps(good).encode()[1:]
            with clock_at(world.at):
                for what, body in bodies.items():
                    answer = await served[route].request(method, path, content=body, headers=headers)
                    if answer.status_code >= 500 or (len(body) > BODY_BYTES) is not (answer.status_code == 413):
                        found.append(f"{route} {what}: {answer.status_code}")
                    elif what in ("an unknown field", "half", "twice the same field") and answer.status_code != 422:
                        found.append(f"{route} {what}: {answer.status_code} instead of 422")
    assert not found, "\n".join(found)


async def test_odd_paths_and_headers_are_never_more_than_refused(world: World) -> None:
    odd = ("%00", "%ff", "%2e%2e", "%F0%9F%A7%91", "$ne", "x" * 2000, "1" * 18)
    headers = {
        "If-Match": ("*", '"99999999999999999999"', '"-1"', "\xff", "x" * 5000),
        "Idempotency-Key": ("", "\xff" * 9, "k" * 65, "a\tb-c-d-e-f"),
        "X-Correlation-Id": ("\xff", "x" * 5000, "a\tb"),
        "X-Forwarded-Prefix": ("/../..", "//evil.test", "\xff"),
        "Content-Type": ("application/json; charset=utf-16", "text/plain", "\xff", "multipart/form-data"),
        "Content-Length": ("-1", "\xb2", "99999999999999999999"),
    }
    found = []
    async with doors(world.service, world.database) as served:
        for route, client in served.items():
            method, path, body = world.request(route)
            good = {} if ACCESS[world.service.name][route].public else caller(world, route)
            asked: list[tuple[str, dict[str, str]]] = [
                (re.sub(rf"(?<=/){re.escape(part)}(?=/|$)", value, path, count=1), {})
                for part in set(path.split("/")) - set(route.split(" ")[1].split("/"))
                for value in odd
            ]
            if method == "GET":
                asked += [(f"{path}?limit={value}&after={value}", {}) for value in ("-1", "9" * 30, "%00", "%ff", "[]")]
            if body is not None:
                asked += [(path, {name: value}) for name, values in headers.items() for value in values]
            with clock_at(world.at):
                for where, sent in asked:
                    raw = [(n.encode(), v.encode("latin-1")) for n, v in {**good, **sent}.items()]
                    content = json.dumps(body).encode() if body is not None else b""
                    answer = await client.request(method, where, headers=raw, content=content)
                    if answer.status_code >= 500:
                        found.append(f"{method} {where:.200} {sent!r:.80}: {answer.status_code}")
    assert not found, "\n".join(found)
