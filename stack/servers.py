"""A broker and a database for a command: those that its caller names; for what is not named, the embedded stack's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from shared.kafka import Kafka
from stack import Stack


@dataclass(frozen=True)
class Servers:
    """Where they are. `stack` is set when both are the command's own, which may then also be taken away."""

    kafka: Kafka
    mongo_uri: str
    stack: Stack | None


@contextmanager
def servers(stack: Stack, *, kafka_bootstrap: str | None, mongo_uri: str | None) -> Iterator[Servers]:
    """Start on `stack` what the caller did not name, and stop it afterwards. Raises `Missing` and `NotStarted`."""
    own = [part for part, given in (("kafka", kafka_bootstrap), ("mongo", mongo_uri)) if not given]
    if own:
        stack.up(own)
    try:
        yield Servers(
            _named_broker(kafka_bootstrap) if kafka_bootstrap else _own_broker(stack),
            mongo_uri or _own_database(stack),
            stack if len(own) == 2 else None,
        )
    finally:
        stack.down()


def own_servers(stack: Stack) -> Servers:
    """A running stack's, as their administrator."""
    return Servers(_own_broker(stack), _own_database(stack), stack)


def _own_broker(stack: Stack) -> Kafka:
    return Kafka(stack.endpoints["kafka"]["bootstrap"], "SASL_PLAINTEXT", *stack.credentials("kafka-admin"))


def _named_broker(bootstrap: str) -> Kafka:
    user, password = os.environ.get("KAFKA_USERNAME"), os.environ.get("KAFKA_PASSWORD")
    protocol: Any = os.environ.get("KAFKA_SECURITY_PROTOCOL", "SASL_SSL" if user else "PLAINTEXT")
    return Kafka(bootstrap, protocol, user, password, os.environ.get("KAFKA_CA_FILE"))


def _own_database(stack: Stack) -> str:
    user, password = stack.credentials("mongo-admin")
    return f"{stack.endpoints['mongo']['uri'].replace('://', f'://{user}:{password}@')}&authSource=admin"
