"""Longer passages of a cohort's life that several tests begin with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from services.assessment import commands
from services.assessment.consumers import consumer
from services.assessment.domain import ChangeProject
from shared.contacts import Contact
from shared.contracts.assessment import ProjectStage
from shared.mongo import Database
from tests.assessment.story import AFTER, DECIDED_ON, RULES, SCORED, Story, module_id
from tests.support import clock_at, deliver, uid

KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="  # of these tests only


def rubric(stage: ProjectStage, score: str = "80") -> dict[str, Decimal]:
    return {criterion: Decimal(score) for criterion in RULES.seminar_criteria[stage.value].value}


def project_id(story: Story, i: int) -> str:
    return uid(story.n * 1000 + i, 20)


async def attend(database: Database, *stories: Story) -> None:
    """The cohort is taught to its end, and everybody was there."""
    for story in stories:
        fates = await deliver(consumer, database, *story.whole(), at=AFTER)
        assert fates.parked == 0


async def mark(database: Database, story: Story, score: str = "80", *, but: Iterable[str] = ()) -> None:
    """Everybody gets this mark in every marked module, but in some."""
    scores = {story.enrollment(i): Decimal(score) for i in story.people}
    with clock_at(AFTER):
        for code in SCORED:
            if code not in but:
                await commands.mark_module(story.cohort_id, module_id(code), scores, database)


async def present(
    database: Database, story: Story, i: int, marks: Mapping[ProjectStage, str] | None = None
) -> ChangeProject:
    """A change project from registration to its result seminar."""
    with clock_at(AFTER):
        id = project_id(story, i)
        kept, _ = await commands.register_project(id, story.enrollment(i), "public-service", "asked", database)
        kept = await commands.consent(id, database)
        for stage in ProjectStage:
            scores = rubric(stage, (marks or {}).get(stage, "80"))
            kept = await commands.hold_seminar(id, stage, 1, scores, database)
        return kept


async def finish(database: Database, *stories: Story) -> None:
    """Everything is recorded that a graduation meeting needs."""
    await attend(database, *stories)
    for story in stories:
        await mark(database, story)
        for i in story.people:
            await present(database, story, i)


def decision_id(story: Story) -> str:
    return uid(story.n, 21)


async def graduate(database: Database, story: Story) -> None:
    with clock_at(AFTER):
        await commands.decide_graduation(story.cohort_id, decision_id(story), DECIDED_ON, database)


def name_of(person_id: str) -> str:
    """An invented name that a test can tell from any other text."""
    return f"Contoh Peserta-{person_id[-4:]}"


async def names(person_ids: Iterable[str]) -> dict[str, Contact]:
    """What enrollment would answer."""
    return {
        id: Contact(person_id=id, name=name_of(id), email="peserta@example.invalid", zone="Asia/Jakarta")
        for id in person_ids
    }
