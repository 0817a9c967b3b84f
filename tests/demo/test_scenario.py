"""The scenario file of the cohort, and the people whom it makes up."""

from __future__ import annotations

from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from demo.scenario import Given, Scenario, cast
from services.enrollment.domain import valid_nip
from shared.ids import ClientId

FILE = Path(__file__).resolve().parents[2] / "scenarios" / "pkp-2022-iii.yaml"


def given() -> dict[str, Any]:
    return dict(yaml.safe_load(FILE.read_text()))


def scenario(**changes: Any) -> Scenario:
    return Scenario.model_validate(given() | changes)


def every_value(part: BaseModel) -> list[tuple[str, Given[Any]]]:
    """All values with an origin, however deep, by the name of their field."""
    found: list[tuple[str, Given[Any]]] = []
    for name, value in part:
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Given):
                found.append((name, item))
            elif isinstance(item, BaseModel):
                found += every_value(item)
    return found


def test_the_cohort_has_37_participants_from_21_ministries_14_other_bodies_and_2_local_governments() -> None:
    people = cast(scenario())
    kinds = Counter(agency.kind.value for agency in people.agencies)
    assert kinds["ministry"] == 21
    assert kinds["lpnk"] + kinds["ltn"] == 14
    assert kinds["province"] == 2
    assert len(people.participants) == sum(kinds.values()) == 37


def test_the_opening_is_the_monday_of_the_report_and_the_training_lasts_17_weeks() -> None:
    cohort = scenario().cohort
    assert cohort.starts_on.value == date(2022, 2, 21)
    assert cohort.starts_on.value.weekday() == 0
    assert (cohort.ends_on.value - cohort.starts_on.value).days + 1 == 17 * 7


def test_every_value_says_whether_it_is_a_fact_or_derived_or_invented() -> None:
    values = every_value(scenario())
    assert len(values) >= 14
    assert {origin for _, value in values if (origin := value.origin.split()[0].rstrip(":"))} == {
        "fact",
        "derived",
        "invented",
    }


def test_what_the_report_does_not_say_is_not_called_a_fact() -> None:
    invented = {"capacity", "min_size"}
    assert {name for name, value in every_value(scenario()) if value.origin != "fact"} >= invented
    split = {group.kind.value: group.count.origin for group in scenario().agencies}
    assert split["lpnk"].startswith("invented") and split["ltn"].startswith("invented")


def test_a_misspelt_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="incident"):
        scenario(incident={})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"listeners": ["kementerian-99"]}, "kementerian-99"),
        ({"incidents": given()["incidents"] | {"withdraws": "lpnk-77"}}, "lpnk-77"),
        ({"incidents": given()["incidents"] | {"session_moved": "manajemen-waktu/1"}}, "manajemen-waktu"),
        ({"incidents": given()["incidents"] | {"ill": {"agency": "pemda-01", "day": "2023-03-08"}}}, "2023-03-08"),
    ],
)
def test_an_incident_that_nobody_could_play_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        scenario(**changes)


def ids(of: Scenario) -> list[str]:
    people = cast(of)
    rooms = [room["id"] for room in people.rooms]
    return [*(p.id for p in people.people), *(a.id for a in people.agencies), *rooms, of.id("cohort")]


def test_the_same_seed_makes_the_same_people_and_another_seed_makes_others() -> None:
    assert cast(scenario()) == cast(scenario())
    assert not set(ids(scenario())) & set(ids(scenario(seed="another")))


def test_every_id_is_one_that_a_client_may_choose_and_belongs_to_one_thing() -> None:
    made = ids(scenario())
    assert len(made) == len(set(made)) > 160
    accepted = TypeAdapter(ClientId)
    for id in made:
        assert accepted.validate_python(id) == id
        assert UUID(id).version == 4


def test_nobody_generated_can_be_taken_for_somebody_real() -> None:
    people = cast(scenario())
    for person in people.people:
        assert person.name.endswith("(generated)")
        assert person.email.partition("@")[2].startswith("example.")
    assert all(agency.name.endswith("(contoh)") for agency in people.agencies)


def test_personnel_numbers_are_well_formed_and_nobody_shares_one_or_an_address() -> None:
    numbers = [person.nip for person in cast(scenario()).people]
    assert len(set(numbers)) == len(numbers) == len({person.email for person in cast(scenario()).people})
    assert all(valid_nip(number) for number in numbers)


def test_only_agencies_with_an_incident_have_a_second_nominee() -> None:
    people = cast(scenario())
    assert set(people.spare) == {"kementerian-05", "lpnk-03"}
    assert cast(scenario(incidents={})).spare == {}


def test_marks_come_from_the_seed_and_pass() -> None:
    one = scenario()
    marks = [one.score(f"agency-{n}", "diagnosa-organisasi") for n in range(200)]
    assert marks == [scenario().score(f"agency-{n}", "diagnosa-organisasi") for n in range(200)]
    assert all(76 <= mark <= 96 and mark == round(mark, 2) for mark in marks)
    assert len(set(marks)) > 100
