"""Event contracts: the base class, the permitted field types and the registry of every event type.

An event is a promise to people we do not know: additive within a version, never personal, documented by its class.
The contracts stand alone; they import no service and no infrastructure.
"""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Annotated, ClassVar
from zoneinfo import available_timezones

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from shared.ids import NAMESPACE, Id

__all__ = ["NAMESPACE", "REGISTRY", "Code", "Day", "Event", "Fact", "Id", "Instant", "Score", "Zone", "source_of"]


_ZONES = frozenset(available_timezones()) - {"Factory", "localtime"}
"""Places; the two that are left out mean whatever the machine is set to."""


def _known_zone(value: str) -> str:
    if value not in _ZONES:
        raise ValueError("not an IANA time zone")
    return value


def _no_number(value: str) -> str:
    if re.search(r"\d{10}", value):
        raise ValueError("a code holds no personal number")
    return value


Code = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$"), AfterValidator(_no_number)]
"""A code from a closed list of the reference data, e.g. a rule-set version or a reason."""

Zone = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]+(/[A-Za-z0-9_+-]+){0,2}$"), AfterValidator(_known_zone)]
"""An IANA time zone; the reference list is the tz database."""

Instant = AwareDatetime
Day = date
Score = Annotated[Decimal, Field(ge=0, le=100, decimal_places=2)]
"""A mark of 0 to 100 with two decimals. Only on the restricted topic."""


class Fact(BaseModel):
    """A model inside an event; the same field types are permitted in it."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def source_of(topic: str) -> str:
    """CloudEvents `source` of everything on a topic (`training.enrollment` → `/training/enrollment`)."""
    return "/" + topic.replace(".", "/", 1)


REGISTRY: dict[str, type[Event]] = {}
"""Every event type this installation publishes, by its CloudEvents `type`."""


class Event(Fact):
    """A fact that a service announces. Subclasses state type, topic, subject and key as literals."""

    type: ClassVar[str]
    topic: ClassVar[str]
    subject_field: ClassVar[str]
    key_field: ClassVar[str]
    since: ClassVar[str] = "0.1.0"

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if not re.fullmatch(r"id\.go\.lan\.training\.[a-z]+\.[a-z-]+\.v[1-9][0-9]*", cls.type):
            raise TypeError(f"{cls.__name__}: {cls.type!r} is not an event type")
        for field in (cls.subject_field, cls.key_field):
            if field not in cls.model_fields:
                raise TypeError(f"{cls.__name__}: no field {field!r}")
        if cls.type in REGISTRY:
            raise TypeError(f"{cls.__name__}: {cls.type} is already taken by {REGISTRY[cls.type].__name__}")
        REGISTRY[cls.type] = cls

    @classmethod
    def source(cls) -> str:
        """CloudEvents `source`: the publisher, from the topic."""
        return source_of(cls.topic)

    @property
    def subject(self) -> str:
        return str(getattr(self, self.subject_field))

    @property
    def key(self) -> str:
        return str(getattr(self, self.key_field))

    @property
    def agency(self) -> str:
        """The agency whose own fact this is, or `-` where it concerns no single agency."""
        return str(getattr(self, "agency_id", "-"))


# The registry is complete once this package is imported.
from shared.contracts import assessment, enrollment, notification, scheduling  # noqa: E402, F401
