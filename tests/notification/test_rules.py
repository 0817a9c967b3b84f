"""Rules and words are data; what they name exists."""

from __future__ import annotations

import pytest
from jinja2 import meta

from services.notification import domain
from shared import catalogue
from shared.contracts import REGISTRY

RULES = list(domain.rules().values())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.template)
def test_a_rule_names_an_event_and_a_template_that_exist(rule: domain.Rule) -> None:
    assert rule.event in REGISTRY and rule.template in domain.templates() and rule.to and rule.channels


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.template)
def test_every_variable_of_a_template_is_a_field_of_its_event_or_the_recipients_name(rule: domain.Rule) -> None:
    words = domain.templates()[rule.template]
    known = {*REGISTRY[rule.event].model_fields, "name"}
    for text in (words.subject, words.text):
        assert meta.find_undeclared_variables(domain._words.parse(text)) <= known


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.template)
def test_every_message_can_be_written(rule: domain.Rule) -> None:
    facts = catalogue.example(REGISTRY[rule.event])
    subject, text = domain.render(rule.template, facts, "Peserta 01 (generated)")
    assert subject and "\n" not in subject and "Peserta 01 (generated)" in text


def test_every_template_is_used() -> None:
    assert set(domain.templates()) == {rule.template for rule in RULES}


def test_a_name_cannot_smuggle_a_header_or_a_template_into_a_message() -> None:
    facts = catalogue.example(REGISTRY[RULES[0].event])
    subject, text = domain.render(RULES[0].template, facts, "{{ 7 * 7 }}\nBcc: all@example.go.id")
    assert "49" not in text and "\n" not in subject
