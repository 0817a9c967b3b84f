"""Rules and words are data; what they name exists."""

from __future__ import annotations

import pytest
from jinja2 import meta

from services.notification import domain
from shared import catalogue, reference
from shared.contracts import REGISTRY
from tests.support import uid

RULES = list(domain.rules().values())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.template)
def test_a_rule_names_an_event_and_a_template_that_exist(rule: domain.Rule) -> None:
    assert rule.event in REGISTRY and rule.template in domain.templates() and rule.to and rule.channels


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.template)
def test_whom_a_rule_names_its_event_names_too(rule: domain.Rule) -> None:
    """So that nothing must have arrived before, from whichever topic, to know who it is."""
    named = {
        "participant": "participant_id",
        "mentor": "mentor_id",
        "trainers": "session_id",
        "coordinators": "agency_id",
    }
    needed = {named.get(audience, "cohort_id") for audience in rule.to}
    assert needed <= set(REGISTRY[rule.event].model_fields)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.template)
def test_every_variable_of_a_template_is_a_field_of_its_event_or_a_name(rule: domain.Rule) -> None:
    words = domain.templates()[rule.template]
    known = {*REGISTRY[rule.event].model_fields, "name", "cohort"}
    for text in (words.subject, words.text):
        assert meta.find_undeclared_variables(domain._words.parse(text)) <= known


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.template)
def test_every_message_can_be_written(rule: domain.Rule) -> None:
    facts = catalogue.example(REGISTRY[rule.event])
    subject, text = domain.render(rule.template, facts, "Peserta 01 (generated)", "PKP Angkatan III Tahun 2022")
    assert subject and "\n" not in subject and "Peserta 01 (generated)" in text
    assert "PKP Angkatan III Tahun 2022" in " ".join(text.split()) and facts["cohort_id"] not in text


@pytest.mark.parametrize(
    ("number", "written"), [(1, "I"), (3, "III"), (4, "IV"), (9, "IX"), (14, "XIV"), (49, "XLIX"), (1994, "MCMXCIV")]
)
def test_a_cohort_is_called_by_programme_roman_number_and_year(number: int, written: str) -> None:
    pkp = domain.NamedCohort(id=uid(1), programme_id=reference.programme("pkp").id, number=number, year=2022)
    assert domain.cohort_name(pkp) == f"PKP Angkatan {written} Tahun 2022"
    assert domain.cohort_name(pkp.but(programme_id=uid(2))) == f"Angkatan {written} Tahun 2022"
    assert domain.cohort_name(None) == "angkatan ini"


def test_every_template_is_used() -> None:
    assert set(domain.templates()) == {rule.template for rule in RULES}


def test_a_name_cannot_smuggle_a_header_or_a_template_into_a_message() -> None:
    facts = catalogue.example(REGISTRY[RULES[0].event])
    subject, text = domain.render(RULES[0].template, facts, "{{ 7 * 7 }}\nBcc: all@example.go.id", "PKP")
    assert "49" not in text and "\n" not in subject
