"""Opaque ids: which are accepted, and how the ones we make ourselves are derived so that a rerun makes the same."""

from __future__ import annotations

import re
from typing import Annotated
from uuid import UUID, uuid5

from pydantic import AfterValidator, WithJsonSchema

NAMESPACE = UUID("6f0d4f6e-4c57-5b0e-9d5c-0f6a0f4a2a17")


def _form(versions: str) -> re.Pattern[str]:
    return re.compile(f"[0-9a-f]{{8}}-[0-9a-f]{{4}}-[{versions}][0-9a-f]{{3}}-[89ab][0-9a-f]{{3}}-[0-9a-f]{{12}}")


# By their form, not by the class UUID: every event and every state is checked at each reading.
_OURS, _CLIENTS = _form("457"), _form("47")


def _checked(value: str, form: re.Pattern[str]) -> str:
    if form.fullmatch(value) is None:
        raise ValueError("not a lower-case UUID of an accepted version")
    return value


def _id(value: str) -> str:
    return _checked(value, _OURS)


def is_id(value: object) -> bool:
    """Whether this is an opaque id of ours."""
    return isinstance(value, str) and _OURS.fullmatch(value) is not None


def _client_id(value: str) -> str:
    return _checked(value, _CLIENTS)


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
