"""What tests of a service say: give it events, see what it announced, let time pass, call its API."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from shared import clock
from shared.cloudevents import Envelope, Record, headers_for
from shared.cloudevents import read as read_envelope
from shared.contracts import REGISTRY, Event
from shared.identity import Role
from shared.inbox import Consumer, Fates
from shared.mongo import Database
from shared.service import Service
from shared.settings import Settings
from shared.timers import Timers
from stack import PROJECT

START = datetime(2022, 2, 21, 1, 0, tzinfo=UTC)
ISSUER = "http://issuer.test"
INSTALLATION_KEY = "an installation key for tests"

_sequences: WeakKeyDictionary[Database, Counter[tuple[str, str]]] = WeakKeyDictionary()  # an `id` would come again
_offsets = itertools.count()


def many(few: int, all: int) -> int:
    """How often: few times in `make test`, as often as was promised in `make orders`."""
    return all if os.environ.get("FULL") else few


def printed_by_processes(program: str, *, hash_seeds: Iterable[str] = ("1", "2", "3")) -> set[str]:
    """What this program prints in processes that order their sets otherwise: one thing, if that decides nothing."""
    return {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
            cwd=PROJECT,
        ).stdout
        for seed in hash_seeds
    }


def uid(number: int, kind: int = 0) -> str:
    """A UUIDv4-shaped id that a test can read: the number is its tail."""
    return str(UUID(f"{kind:08x}-0000-4000-8000-{number:012x}"))


def record(event: Event, sequence: int, *, at: datetime = START, **headers: bytes | None) -> Record:
    """The event as its publisher's relay would have put it on the broker."""
    made = headers_for(
        event,
        sequence=sequence,
        time=at,
        recordedtime=at,
        correlationid=uid(sequence, 0xC0),
        causationid=None,
        authtype="system",
        authid="test",
        traceparent=None,
        agencyid=event.agency,
    )
    merged: dict[str, bytes | None] = {**dict(made), **headers}
    value = event.model_dump_json().encode()
    stamp = int(at.timestamp() * 1000)
    return Record(event.topic, 0, next(_offsets), event.key.encode(), value, tuple(merged.items()), stamp)


def records(database: Database, *events: Event, at: datetime = START) -> list[Record]:
    """Records of these events, with the sequence that their publisher would have counted."""
    made = []
    counted = _sequences.setdefault(database, Counter())
    for event in events:
        counted[event.source(), event.subject] += 1
        made.append(record(event, counted[event.source(), event.subject], at=at))
    return made


async def deliver(consumer: Consumer, database: Database, *events: Event, at: datetime = START) -> Fates:
    """Give the consumer these events, one poll for all."""
    with clock.at(at):
        return await consumer.receive(records(database, *events, at=at), database)


async def announced(database: Database, *types: type[Event]) -> list[tuple[Envelope, Event]]:
    """The events in the outbox in the order in which they will leave; only some types, if named."""
    found: list[tuple[Envelope, Event]] = []
    documents = await database.collection("outbox").find({}).sort([("_id", 1)]).to_list(None)
    for document in documents:
        if document["topic"].endswith(".dlq") or document["topic"].startswith("training.agency."):
            continue
        for row in document["rows"]:
            headers = tuple((name, value) for name, value in row["headers"])
            envelope = read_envelope(Record(document["topic"], 0, 0, row["key"], row["value"], headers, 0))
            cls = REGISTRY[envelope.type]
            if not types or cls in types:
                found.append((envelope, cls.model_validate_json(row["value"])))
    return found


async def fire_timers(timers: Timers, database: Database, *, until: datetime) -> None:
    """Let time pass until then: what is due fires, and what that makes due as well."""
    while await timers.fire_due(database, until=until):
        pass


@contextmanager
def clock_at(instant: datetime) -> Iterator[None]:
    """Inside, it is this instant of domain time."""
    with clock.at(instant):
        yield


async def until(check: Callable[[], Awaitable[Any] | Any], *, seconds: float = 15.0) -> Any:
    """Wait until the check holds, and return what it returned; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while True:
        result = check()
        if isinstance(result, Awaitable):
            result = await result
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"did not come true within {seconds} s: {check}")
        await asyncio.sleep(0.02)


# --- identity ----------------------------------------------------------------------------------------------------

_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
KEYS: dict[str, Any] = {
    "keys": [{**jwt.algorithms.RSAAlgorithm.to_jwk(_KEY.public_key(), as_dict=True), "kid": "test", "alg": "RS256"}]
}
"""The JWKS of the tests' issuer."""


def token(
    *roles: Role,
    person_id: str | None = None,
    agency_ids: Iterable[str] = (),
    audience: str | Iterable[str] = ("enrollment", "scheduling", "assessment", "notification"),
    algorithm: str = "RS256",
    kid: str = "test",
    **claims: Any,
) -> dict[str, str]:
    """The Authorization header of somebody with these roles."""
    now = int(time.time())
    body: dict[str, Any] = {
        "iss": ISSUER,
        "sub": claims.pop("sub", person_id or "somebody"),
        "aud": [audience] if isinstance(audience, str) else list(audience),
        "iat": now,
        "exp": now + 600,
        "roles": [role.value for role in roles],
        "agency_ids": list(agency_ids),
        **claims,
    }
    if person_id is not None:
        body["person_id"] = person_id
    return {"Authorization": "Bearer " + jwt.encode(body, _KEY, algorithm=algorithm, headers={"kid": kid})}


def service_token(client: str, audience: str) -> dict[str, str]:
    """The Authorization header of another service."""
    return token(Role.SERVICE, audience=audience, client_id=client, sub=client)


# --- the API -----------------------------------------------------------------------------------------------------


def settings_for(cls: type[Settings] = Settings, **more: Any) -> Any:
    """Settings of a service under test; nothing in them is reached unless a test starts it."""
    values: dict[str, Any] = {
        "environment": "development",
        "mongo_uri": os.environ.get("TEST_MONGO_URI", "mongodb://127.0.0.1:1"),
        "kafka_bootstrap": "127.0.0.1:1",
        "kafka_security_protocol": "PLAINTEXT",
        "oidc_issuer": ISSUER,
        "installation_key": INSTALLATION_KEY,
        **more,
    }
    return cls(**values)


@asynccontextmanager
async def api(
    service: Service, database: Database, *, internal: bool = False, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service's API, as the gateway (or, internal, a neighbour) would call it."""
    made = settings_for(service.settings, **settings)
    app = service.internal_app(database, made) if internal else service.public_app(database, made)
    app.state.verifier.trust(KEYS)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service.test") as client:
        yield client


def days(number: float) -> timedelta:
    return timedelta(days=number)
