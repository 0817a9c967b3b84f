"""Where a run takes place: its broker, its database, its processes."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from pymongo.errors import PyMongoError

from benchmarks.world import CALLER, RUN
from shared import broker
from shared.broker import Topic
from shared.inbox import INDEXES
from shared.kafka import Kafka
from shared.mongo import Database
from shared.timers import INDEXES as TIMER_INDEXES
from stack import PROJECT, Stack

ISSUER = "http://127.0.0.1:1"
PARTITIONS = 12
_numbers = itertools.count(1)
_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    runs: int = 3
    backlog: int = 10_000
    events: int = 6_000
    single_events: int = 600
    requests: int = 600
    delays: int = 150
    racers: tuple[int, ...] = (200, 1000)
    small: int = 1_000
    large: int = 100_000
    services: bool = True


TINY = Size(
    runs=1,
    backlog=40,
    events=40,
    single_events=10,
    requests=4,
    delays=3,
    racers=(50,),
    small=10,
    large=50,
    services=False,
)
"""Enough to see that everything runs; its figures mean nothing."""


@dataclass
class Site:
    kafka: Kafka
    mongo_uri: str
    folder: Path
    size: Size
    stack: Stack | None
    """The run's own servers; None where some are the caller's."""
    databases: list[tuple[str, str]] = field(default_factory=list)

    def name(self, kind: str) -> str:
        """A name that nothing of this or another run has."""
        return f"bench-{kind}-{RUN}-{next(_numbers)}"

    async def database(self, kind: str, *, service: str = CALLER, name: str | None = None) -> Database:
        """A database with the kernel's indexes."""
        chosen = name or self.name(kind)
        self.databases.append((self.mongo_uri, chosen))
        database = Database(self.mongo_uri, chosen, service=service)
        await database.ensure({**INDEXES, **TIMER_INDEXES})
        return database

    async def topic(self, name: str) -> str:
        await broker.prepare(self.kafka, [Topic(name, PARTITIONS), Topic(f"{name}.{name}.dlq", 1)], [], 1)
        return name

    async def clear(self) -> None:
        """Leave no database behind."""
        for uri, name in self.databases:
            database = Database(uri, name, service=CALLER)
            with suppress(PyMongoError):  # a server that only one benchmark had is gone
                await database.drop()
            await database.close()

    # processes

    def settings(self, database: str, **more: Any) -> dict[str, Any]:
        """Settings of a service of ours as a process of this run."""
        return {
            "environment": "development",
            "mongo_uri": self.mongo_uri,
            "mongo_database": database,
            "kafka_bootstrap": self.kafka.bootstrap,
            "kafka_security_protocol": self.kafka.protocol,
            "kafka_username": self.kafka.username,
            "kafka_password": self.kafka.password,
            "oidc_issuer": ISSUER,
            "installation_key": "an installation key of a benchmark",
            "instance": "bench",
            "http_port": free_port(),
            "internal_port": free_port(),
            **more,
        }

    @contextmanager
    def process(self, role: str, **told: Any) -> Iterator[subprocess.Popen[str]]:
        """`benchmarks.roles` in this role; it says `ready` when it is, and ends when its input does."""
        message = {"kafka": dataclasses.asdict(self.kafka), "mongo_uri": self.mongo_uri, "jwks": JWKS, **told}
        with (self.folder / f"{role}.log").open("a") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.roles", role],
                cwd=PROJECT,
                env={**os.environ, "BENCH_RUN": RUN},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            assert child.stdin and child.stdout
            try:
                child.stdin.write(json.dumps(message) + "\n")
                child.stdin.flush()
                if child.stdout.readline() != "ready\n":
                    raise self.ended(role)
                yield child
            finally:
                with suppress(OSError):
                    child.stdin.close()
                try:
                    child.wait(15)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
                child.stdout.close()

    def ended(self, role: str) -> SystemExit:
        """A process in this role has ended before it should: the end of its log, which goes with the run."""
        said = (self.folder / f"{role}.log").read_text().splitlines()[-20:]
        return SystemExit("\n".join([f"benchmarks: {role} ended too early; the last it said:", *said]))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


JWKS: dict[str, Any] = {
    "keys": [{**jwt.algorithms.RSAAlgorithm.to_jwk(_KEY.public_key(), as_dict=True), "kid": "bench", "alg": "RS256"}]
}


def bearer() -> str:
    """The token of an organiser, for ours and for the floor alike."""
    now = int(time.time())
    claims = {"iss": ISSUER, "sub": "organiser", "aud": [CALLER], "iat": now, "exp": now + 36_000}
    roles = {"roles": ["organiser"], "agency_ids": []}
    return jwt.encode(claims | roles, _KEY, algorithm="RS256", headers={"kid": "bench"})
