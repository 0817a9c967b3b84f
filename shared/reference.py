"""Programmes, rule sets, curricula and holidays from `reference/`: versioned, each fact with source and confidence."""

from __future__ import annotations

import hashlib
from datetime import date
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from shared.ids import derive

T = TypeVar("T")
FOLDER = Path(__file__).resolve().parents[1] / "reference"


class Known(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sourced(Known, Generic[T]):
    """A fact with where it comes from and how sure it is (C, K, D or G: see reference/README.md)."""

    value: T
    source: str
    confidence: Literal["C", "K", "D", "G"]


class Programme(Known):
    """A training programme, e.g. PKP."""

    code: str
    title: Sourced[str]
    organiser: Sourced[str]
    organiser_code: str

    @property
    def id(self) -> str:
        return derive("reference", "programme", self.code)


# --- rule sets ---------------------------------------------------------------------------------------------------


class Requirement(Known):
    """A condition on a nominee: the named fact is one of some codes."""

    rule_id: str
    fact: str
    one_of: list[str]
    title: Sourced[str]


class Component(Known):
    """An aspect of the assessment and its weight in per cent."""

    code: str
    weight: Sourced[int]


class Band(Known):
    """A predicate for totals above a score."""

    above: Decimal
    label: Sourced[str]


class RuleSet(Known):
    """The rules that a cohort is bound to for life."""

    version: str
    programme: str
    legal_basis: Sourced[list[str]]
    class_min: Sourced[int]
    class_max: Sourced[int]
    requirements: list[Requirement]
    documents: Sourced[list[str]]
    components: list[Component]
    pass_mark: Sourced[Decimal]
    pass_mark_strict: Sourced[bool]
    attempts: Sourced[int]
    remedial_cap: Sourced[Decimal]
    absence_limit_jp: Sourced[int]
    module_absence_limit_share: Sourced[Decimal] = Field(description="of the hours of a module that are held")
    module_closing_days: Sourced[int]
    bands: list[Band]
    seminar_criteria: dict[str, Sourced[list[str]]]
    certificate_number: Sourced[str]

    @model_validator(mode="after")
    def _weights(self) -> RuleSet:
        if sum(component.weight.value for component in self.components) != 100:
            raise ValueError("the components' weights must sum to 100")
        return self

    def passes(self, score: Decimal) -> bool:
        """Whether a mark passes; at exactly the pass mark it depends on the rule set."""
        mark = self.pass_mark.value
        return score > mark if self.pass_mark_strict.value else score >= mark


# --- curricula ---------------------------------------------------------------------------------------------------


class Hours(Known):
    """Training hours (JP) of a module by mode. Asynchronous hours have no clock time."""

    synchronous: int
    asynchronous: int
    classical: int

    @property
    def total(self) -> int:
        return self.synchronous + self.asynchronous + self.classical


class Module(Known):
    """A subject (mata pelatihan). `grouping` says whether the whole cohort or each learning group meets."""

    code: str
    title: Sourced[str]
    stage: str
    grouping: Literal["cohort", "group"]
    session_jp: int
    jp: Sourced[Hours]
    component: str | None = None

    @property
    def placed_jp(self) -> int:
        """Hours that need a slot in the timetable."""
        return self.jp.value.synchronous + self.jp.value.classical


class Agenda(Known):
    """A learning block (agenda pembelajaran); its modules come before those of the next."""

    code: str
    number: str
    title: Sourced[str]
    modules: list[Module]


class Stage(Known):
    """A part of the training: so many training days, or at least so many calendar days at the workplace."""

    code: str
    kind: Literal["training-days", "calendar-days"]
    days: Sourced[int]
    mode: Literal["distance", "classical"] | None = None
    jp_per_day: Sourced[int] | None = None
    one_week: bool = False


def _blocks(value: Any) -> Any:
    return [tuple(block) for block in value] if isinstance(value, list) else value


Blocks = Annotated[list[tuple[str, int]], BeforeValidator(_blocks)]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class Curriculum(Known):
    """What is taught, in which order, with how many hours of which kind."""

    version: str
    programme: str
    jp_on_campus: Sourced[int]
    jp_workplace: Sourced[int]
    weeks: Sourced[int]
    jp_minutes: Sourced[int]
    learning_groups: Sourced[int]
    working_days: Sourced[list[Weekday]]
    day_templates: dict[str, Sourced[Blocks]] = Field(
        description="per mode: blocks of start time and JP, breaks between"
    )
    stages: list[Stage]
    agendas: list[Agenda]

    @model_validator(mode="after")
    def _hours(self) -> Curriculum:
        total = sum(module.jp.value.total for module in self.modules)
        if total != self.jp_on_campus.value:
            raise ValueError(f"the modules have {total} JP, not {self.jp_on_campus.value}")
        return self

    @property
    def modules(self) -> list[Module]:
        """All modules in the order in which they are taught."""
        return [module for agenda in self.agendas for module in agenda.modules]

    def module_id(self, code: str) -> str:
        """The id by which events name a module."""
        return derive("reference", "module", self.version, code)

    def by_id(self) -> dict[str, Module]:
        return {self.module_id(module.code): module for module in self.modules}


class Holidays(Known):
    country: str
    year: int
    days: Sourced[list[date]]


# --- reading -----------------------------------------------------------------------------------------------------


class UnknownReference(LookupError):
    """There is no such version in `reference/`."""


def _read(kind: str, name: str) -> Any:
    path = FOLDER / kind / f"{name}.yaml"
    if path.parent != FOLDER / kind or not path.exists():
        raise UnknownReference(f"{kind}/{name}")
    return yaml.safe_load(path.read_text())


@cache
def programme(code: str) -> Programme:
    """Raises `UnknownReference`."""
    return Programme.model_validate(_read("programmes", code))


@cache
def programmes() -> dict[str, Programme]:
    """All programmes by id."""
    return {p.id: p for p in (programme(path.stem) for path in sorted((FOLDER / "programmes").glob("*.yaml")))}


@cache
def rule_set(version: str) -> RuleSet:
    """Raises `UnknownReference`."""
    return RuleSet.model_validate(_read("rule-sets", version))


@cache
def curriculum(version: str) -> Curriculum:
    """Raises `UnknownReference`."""
    return Curriculum.model_validate(_read("curricula", version))


@cache
def holidays(country: str, year: int) -> frozenset[date]:
    """The closed days of a year; none where the year is not recorded."""
    try:
        return frozenset(Holidays.model_validate(_read("holidays", f"{country}-{year}")).days.value)
    except UnknownReference:
        return frozenset()


def digests() -> dict[str, str]:
    """The digest of every data file, as `reference/VERSIONS` records the released ones."""
    return {
        str(path.relative_to(FOLDER)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(FOLDER.rglob("*.yaml"))
    }
