"""A scenario file, and the people and agencies that it makes up: generated from its seed, labelled, never real."""

from __future__ import annotations

import hashlib
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Generic, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

from shared import reference
from shared.contracts.enrollment import AgencyKind

T = TypeVar("T")
DAYS_BEFORE = 49
"""From the registration of the agencies to the first day of training."""


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Given(Part, Generic[T]):
    """A value with where it comes from: a fact of the report, derived from one, or invented."""

    value: T
    origin: str


class CohortGiven(Part):
    programme: Given[str]
    number: Given[int]
    year: Given[int]
    starts_on: Given[date]
    ends_on: Given[date]
    rule_set_version: Given[str]
    curriculum_version: Given[str]
    capacity: Given[int]
    min_size: Given[int]
    zone: Given[str]


class AgencyGroup(Part):
    kind: AgencyKind
    code: str
    label: str
    count: Given[int]


class Staff(Part):
    trainers: int
    coaches: int
    examiners: int
    virtual_rooms: int
    physical_rooms: int


class Illness(Part):
    agency: str
    day: date


class Attempts(Part):
    agency: str
    scores: list[Decimal]
    module: str = ""
    seminar: str = ""


class Incidents(Part):
    not_eligible: str | None = None
    withdraws: str | None = None
    session_moved: str | None = None
    ill: Illness | None = None
    second_attempt: Attempts | None = None
    not_graduating: Attempts | None = None


class Scenario(Part):
    """What is played."""

    title: Given[str]
    seed: str
    cohort: CohortGiven
    agencies: list[AgencyGroup]
    listeners: list[str]
    staff: Staff
    incidents: Incidents

    @staticmethod
    def read(path: Path) -> Scenario:
        return Scenario.model_validate(yaml.safe_load(path.read_text()))

    @model_validator(mode="after")
    def _playable(self) -> Scenario:
        """Incidents and listeners name agencies, modules and days that the scenario has."""
        happens, cohort = self.incidents, self.cohort
        codes = {f"{group.code}-{n:02d}" for group in self.agencies for n in range(1, group.count.value + 1)}
        concerned = [part.agency for part in (happens.ill, happens.second_attempt, happens.not_graduating) if part]
        concerned += [code for code in (happens.not_eligible, happens.withdraws) if code]
        if unknown := {*concerned, *self.listeners} - codes:
            raise ValueError(f"no such agency: {', '.join(sorted(unknown))}")
        modules = {module.code for module in reference.curriculum(cohort.curriculum_version.value).modules}
        taught = {happens.session_moved.partition("/")[0]} if happens.session_moved else set()
        taught |= {happens.second_attempt.module} if happens.second_attempt else set()
        if unknown := taught - modules:
            raise ValueError(f"no such module: {', '.join(sorted(unknown))}")
        if happens.ill and not cohort.starts_on.value <= happens.ill.day <= cohort.ends_on.value:
            raise ValueError(f"nobody is taught on {happens.ill.day}")
        return self

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.cohort.zone.value)

    @property
    def begins_at(self) -> datetime:
        """When the agencies are registered: the first instant of the play."""
        return datetime.combine(self.cohort.starts_on.value - timedelta(days=DAYS_BEFORE), time(9), self.zone)

    def id(self, kind: str, *name: object) -> str:
        """An id as a client would choose it (UUIDv4 in form), the same for the same seed."""
        digest = hashlib.sha256("|".join((self.seed, kind, *map(str, name))).encode()).digest()
        return str(UUID(bytes=digest[:16], version=4))

    def score(self, *name: object) -> Decimal:
        """A mark between 76 and 96 for somebody and something, the same for the same seed."""
        digest = hashlib.sha256("|".join((self.seed, "score", *map(str, name))).encode()).digest()
        return Decimal(7600 + int.from_bytes(digest[:4]) % 2001) / 100


class Agency(Part):
    id: str
    code: str
    kind: AgencyKind
    name: str


class Person(Part):
    """Somebody generated. Names say so."""

    id: str
    name: str
    email: str
    nip: str
    agency_id: str | None = None

    @property
    def username(self) -> str:
        """By what the person signs in at a demonstration's issuer."""
        return self.email.partition("@")[0]


class Cast(Part):
    """Everybody and everything that a scenario needs."""

    agencies: list[Agency]
    organiser: Person
    coordinators: dict[str, Person]
    participants: dict[str, Person]
    mentors: dict[str, Person]
    spare: dict[str, Person]
    spare_mentors: dict[str, Person]
    trainers: list[Person]
    coaches: list[Person]
    examiners: list[Person]
    rooms: list[dict[str, Any]]

    @property
    def people(self) -> list[Person]:
        grouped = (self.coordinators, self.participants, self.mentors, self.spare, self.spare_mentors)
        return [
            self.organiser,
            *(person for group in grouped for person in group.values()),
            *self.trainers,
            *self.coaches,
            *self.examiners,
        ]


def cast(scenario: Scenario) -> Cast:
    """Generate the agencies and people of a scenario."""
    counter = 0

    def person(role: str, name: str, number: int, agency_id: str | None = None) -> Person:
        nonlocal counter
        counter += 1
        born = date(1975, 1, 1) + timedelta(days=37 * counter % 6000)
        nip = f"{born:%Y%m%d}2005{1 + counter % 12:02d}{1 + counter % 2}{1 + counter % 999:03d}"
        return Person(
            id=scenario.id(role, number, agency_id),
            name=f"{name} {number:02d} (generated)",
            email=f"{role}-{number:02d}@example.go.id",
            nip=nip,
            agency_id=agency_id,
        )

    agencies = [
        Agency(
            id=scenario.id("agency", f"{group.code}-{n:02d}"),
            code=f"{group.code}-{n:02d}",
            kind=group.kind,
            name=f"{group.label} {n:02d} (contoh)",
        )
        for group in scenario.agencies
        for n in range(1, group.count.value + 1)
    ]
    extra = {c for c in (scenario.incidents.not_eligible, scenario.incidents.withdraws) if c}
    numbered = list(enumerate(agencies, start=1))
    staff = scenario.staff
    return Cast(
        agencies=agencies,
        organiser=person("organiser", "Penyelenggara", 1),
        coordinators={a.code: person("coordinator", "Koordinator", n, a.id) for n, a in numbered},
        participants={a.code: person("participant", "Peserta", n, a.id) for n, a in numbered},
        mentors={a.code: person("mentor", "Mentor", n, a.id) for n, a in numbered},
        spare={a.code: person("spare", "Calon peserta", n, a.id) for n, a in numbered if a.code in extra},
        spare_mentors={a.code: person("spare-mentor", "Mentor calon", n, a.id) for n, a in numbered if a.code in extra},
        trainers=[person("trainer", "Widyaiswara", n) for n in range(1, staff.trainers + 1)],
        coaches=[person("coach", "Coach", n) for n in range(1, staff.coaches + 1)],
        examiners=[person("examiner", "Penguji", n) for n in range(1, staff.examiners + 1)],
        rooms=[
            {"id": scenario.id("room", kind, n), "kind": kind, "seats": seats}
            for kind, count, seats in (("virtual", staff.virtual_rooms, 100), ("physical", staff.physical_rooms, 45))
            for n in range(1, count + 1)
        ],
    )
