"""Opaque ids: which are accepted, and how the ones we make ourselves are derived so that a rerun makes the same."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID, uuid5

from pydantic import AfterValidator, WithJsonSchema

NAMESPACE = UUID("6f0d4f6e-4c57-5b0e-9d5c-0f6a0f4a2a17")


def _checked(value: str, versions: frozenset[int]) -> str:
    try:
        parsed = UUID(value)
    except ValueError:
        raise ValueError("not a UUID") from None
    if str(parsed) != value or parsed.version not in versions:
        raise ValueError("not a lower-case UUID of version " + ", ".join(map(str, sorted(versions))))
    return value


def _id(value: str) -> str:
    return _checked(value, frozenset({4, 5, 7}))


def is_id(value: object) -> bool:
    """Whether this is an opaque id of ours."""
    try:
        return isinstance(value, str) and bool(_id(value))
    except ValueError:
        return False


def _client_id(value: str) -> str:
    return _checked(value, frozenset({4, 7}))


_SCHEMA = WithJsonSchema({"type": "string", "format": "uuid"})

Id = Annotated[str, AfterValidator(_id), _SCHEMA]
"""An opaque id in canonical lower-case form: UUIDv4 or v7 when a client made it, UUIDv5 when we derived it."""

ClientId = Annotated[str, AfterValidator(_client_id), _SCHEMA]
"""An id that a client may choose: UUIDv4 or v7. A personal number in its place is refused."""


def derive(service: str, kind: str, *natural_key: object) -> str:
    """The id of something a handler, timer or command creates: UUIDv5 over `service|kind|natural key`.

    Nothing inside a transaction draws a random id, so a retry, a replay and a second play with the same seed agree.
    """
    return str(uuid5(NAMESPACE, "|".join((service, kind, *map(str, natural_key)))))
