"""Marks, change projects, graduation and certificates, on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from cryptography.exceptions import InvalidTag

from services.assessment import commands, domain
from services.assessment.commands import Seal
from services.assessment.consumers import consumer
from services.assessment.domain import (
    ChangeProject,
    Cohort,
    Credential,
    Member,
    ModuleResult,
    Record,
    SealedCertificate,
)
from shared.contacts import Contact
from shared.contracts.assessment import (
    ChangeProjectAssessed,
    ChangeProjectPlanned,
    ChangeProjectScored,
    CredentialIssued,
    CredentialKind,
    ModuleCompleted,
    ModuleNotPassed,
    ModuleResultRevised,
    ModuleScored,
    Outcome,
    ProgrammeCompleted,
    ProgrammeNotCompleted,
    ProjectStage,
)
from shared.contracts.scheduling import AttendanceStatus
from shared.domain import State
from shared.errors import IdTaken, NotFound, Unavailable
from shared.mongo import Database, Driver, Transaction
from tests.assessment.passages import (
    KEY,
    attend,
    decision_id,
    finish,
    graduate,
    mark,
    name_of,
    names,
    present,
    project_id,
    rubric,
)
from tests.assessment.story import AFTER, CURRICULUM, DECIDED_ON, MODULES, PROGRAMME, RULES, SCORED, Story, module_id
from tests.support import announced, clock_at, deliver, many, uid

ACADEMIC = SCORED[1]
UNMARKED = next(code for code in MODULES if code not in SCORED)
SEAL = Seal(KEY)


async def give(database: Database, story: Story, code: str, score: str, *people: int) -> list[ModuleResult]:
    scores = {story.enrollment(i): Decimal(score) for i in people or story.people}
    with clock_at(AFTER):
        return await commands.mark_module(story.cohort_id, module_id(code), scores, database)


async def remedial(database: Database, story: Story, i: int, code: str, score: str, attempt: int = 2) -> ModuleResult:
    with clock_at(AFTER):
        return await commands.mark_attempt(story.enrollment(i), module_id(code), attempt, Decimal(score), database)


def same(found: Sequence[State], expected: Sequence[State]) -> bool:
    """Whether these are the same states at the same versions (a position is known only once it is written)."""
    return [s.model_dump(exclude={"pos"}) for s in found] == [s.model_dump(exclude={"pos"}) for s in expected]


# --- marks -------------------------------------------------------------------------------------------------------


async def test_a_mark_decides_what_only_waited_for_it(database: Database) -> None:
    story = Story()
    await attend(database, story)
    before = len(await announced(database))
    marked = await give(database, story, ACADEMIC, "70.01", 1)
    marked += await give(database, story, ACADEMIC, "70.00", 2)
    assert [r.outcome for r in marked] == [Outcome.PASSED, Outcome.NOT_PASSED]
    told = (await announced(database))[before:]
    assert {type(event) for _, event in told} == {ModuleScored, ModuleCompleted, ModuleNotPassed}
    assert len(told) == 4


async def test_a_mark_travels_only_on_the_restricted_topic_with_its_own_count(database: Database) -> None:
    story = Story()
    await attend(database, story)
    await give(database, story, ACADEMIC, "81.37")
    for document in await database.collection("outbox").find({}).to_list(None):
        restricted = document["topic"] == "training.assessment-restricted"
        for row in document["rows"]:
            assert (b"81.37" in row["value"]) == restricted
    scored = await announced(database, ModuleScored)
    assert {(e.source, e.sequence) for e, _ in scored} == {("/training/assessment-restricted", 1)}
    subjects = {e.subject for e, _ in scored}
    completed = [e for e, _ in await announced(database, ModuleCompleted) if e.subject in subjects]
    assert {(e.source, e.sequence) for e in completed} == {("/training/assessment", 1)}


async def test_a_mark_given_before_the_module_closes_waits_for_the_closing(database: Database) -> None:
    story = Story()
    await deliver(consumer, database, *story.enrollment_facts(), *story.timetable(), at=story.starts_at(ACADEMIC))
    early = await give(database, story, ACADEMIC, "80")
    assert {r.outcome for r in early} == {None}
    assert await announced(database, ModuleCompleted) == []
    await deliver(consumer, database, *story.attendance([ACADEMIC]), at=AFTER)
    assert len(await announced(database, ModuleCompleted)) == 3


async def test_the_same_mark_again_changes_nothing(database: Database) -> None:
    story = Story()
    await attend(database, story)
    first = await give(database, story, ACADEMIC, "80")
    before = await announced(database)
    assert same(await give(database, story, ACADEMIC, "80.00"), first)
    assert await announced(database) == before


async def test_a_changed_mark_revises_the_result(database: Database) -> None:
    story = Story()
    await attend(database, story)
    await give(database, story, ACADEMIC, "80", 1)
    await give(database, story, ACADEMIC, "90", 1)
    await give(database, story, ACADEMIC, "69", 1)
    id = domain.result_id(story.enrollment(1), module_id(ACADEMIC), 1)
    told = [(type(event), e.sequence) for e, event in await announced(database) if e.subject == id]
    assert [t for t in told if t[0] is ModuleScored] == [(ModuleScored, 1), (ModuleScored, 2), (ModuleScored, 3)]
    assert [t for t in told if t[0] is not ModuleScored] == [(ModuleCompleted, 1), (ModuleResultRevised, 2)]


async def test_marks_are_taken_together_or_not_at_all(database: Database) -> None:
    story = Story()
    await attend(database, story)
    scores = {story.enrollment(1): Decimal(80), uid(99, 99): Decimal(80)}
    with pytest.raises(domain.NotInCohort) as refused:
        await commands.mark_module(story.cohort_id, module_id(ACADEMIC), scores, database)
    assert refused.value.members == {"enrollment_ids": [uid(99, 99)]}
    assert await announced(database, ModuleScored) == []


async def test_a_module_without_marks_and_a_cohort_that_nobody_knows_are_refused(database: Database) -> None:
    story = Story()
    await attend(database, story)
    for unknown in (module_id(UNMARKED), uid(1, 99)):
        with pytest.raises(domain.ModuleNotScored):
            await commands.mark_module(story.cohort_id, unknown, {}, database)
    with pytest.raises(domain.CohortUnknown):
        await commands.mark_module(uid(9, 1), module_id(ACADEMIC), {}, database)


async def test_nothing_is_marked_or_decided_in_a_cancelled_cohort(database: Database) -> None:
    story = Story()
    await finish(database, story)
    await deliver(consumer, database, story.called_off(), at=AFTER)
    with pytest.raises(domain.CohortCancelled):
        await give(database, story, ACADEMIC, "90")
    with pytest.raises(domain.CohortCancelled):
        await graduate(database, story)


async def test_a_second_attempt_may_pass_and_is_capped(database: Database) -> None:
    story = Story()
    await attend(database, story)
    await give(database, story, ACADEMIC, "65", 1)
    again = await remedial(database, story, 1, ACADEMIC, "99")
    assert (again.attempt, again.score, again.outcome) == (2, Decimal("85.00"), Outcome.PASSED)
    events = [
        event
        for _, event in await announced(database, ModuleCompleted, ModuleNotPassed)
        if event.model_dump()["module_id"] == module_id(ACADEMIC)
    ]
    assert [(type(e), e.model_dump()["attempt"]) for e in events] == [(ModuleNotPassed, 1), (ModuleCompleted, 2)]
    before = await announced(database)
    assert same([await remedial(database, story, 1, ACADEMIC, "99")], [again])
    assert await announced(database) == before


async def test_there_is_no_second_attempt_at_what_was_passed_or_is_open_and_no_third_at_all(database: Database) -> None:
    story = Story()
    await attend(database, story)
    await give(database, story, ACADEMIC, "80", 1)
    await give(database, story, ACADEMIC, "60", 2)
    for i, attempt in ((1, 2), (3, 2), (2, 3)):
        with pytest.raises(domain.NoAttemptLeft):
            await remedial(database, story, i, ACADEMIC, "80", attempt)
    failed = await remedial(database, story, 2, ACADEMIC, "70")
    assert failed.outcome is Outcome.NOT_PASSED
    with pytest.raises(domain.NoAttemptLeft):
        await remedial(database, story, 2, ACADEMIC, "80", 3)
    with pytest.raises(NotFound):
        await remedial(database, Story(n=9), 1, ACADEMIC, "80")


# --- change projects ---------------------------------------------------------------------------------------------


async def test_a_change_project_goes_from_its_plan_over_consent_to_two_seminars(database: Database) -> None:
    story = Story()
    await attend(database, story)
    before = len(await announced(database))
    kept = await present(database, story, 1, {ProjectStage.PLAN: "75.5", ProjectStage.RESULT: "91"})
    assert [(s.stage, s.attempt, s.score, s.outcome) for s in kept.seminars] == [
        (ProjectStage.PLAN, 1, Decimal("75.50"), Outcome.PASSED),
        (ProjectStage.RESULT, 1, Decimal("91.00"), Outcome.PASSED),
    ]
    assert kept.seminars[0].criteria == rubric(ProjectStage.PLAN, "75.5")
    told = [event for _, event in (await announced(database))[before:]]
    open_facts = [type(e) for e in told if not isinstance(e, ChangeProjectScored)]
    assert open_facts == [ChangeProjectPlanned, ChangeProjectAssessed, ChangeProjectAssessed]
    assert [e.score for e in told if isinstance(e, ChangeProjectScored)] == [Decimal("75.50"), Decimal("91.00")]


async def test_a_participant_has_one_project_and_asking_twice_registers_once(database: Database) -> None:
    story = Story()
    await attend(database, story)
    one = uid(1, 30), story.enrollment(1), "public-service", "asked", database
    (first, new), (again, new_again) = await asyncio.gather(*(commands.register_project(*one) for _ in range(2)))
    assert same([again], [first]) and {new, new_again} == {True, False}
    with pytest.raises(IdTaken):
        await commands.register_project(uid(1, 30), story.enrollment(2), "public-service", "other", database)
    with pytest.raises(domain.ProjectExists):
        await commands.register_project(uid(2, 30), story.enrollment(1), "public-service", "asked", database)
    assert await database.get(ChangeProject, uid(2, 30)) is None


async def test_consent_and_marks_given_twice_are_announced_once(database: Database) -> None:
    story = Story()
    await attend(database, story)
    first = await present(database, story, 1)
    before = await announced(database)
    with clock_at(AFTER):
        await commands.consent(first.id, database)
        for stage in ProjectStage:
            assert same([await commands.hold_seminar(first.id, stage, 1, rubric(stage), database)], [first])
    assert await announced(database) == before


async def test_a_held_seminar_is_not_marked_otherwise_even_with_the_same_mean(database: Database) -> None:
    story = Story()
    await attend(database, story)
    kept = await present(database, story, 1)
    criteria = rubric(ProjectStage.PLAN)
    first, second, *_ = criteria
    shifted = {**criteria, first: Decimal(70), second: Decimal(90)}
    with pytest.raises(domain.SeminarNotDue):
        await commands.hold_seminar(kept.id, ProjectStage.PLAN, 1, shifted, database)


# --- graduation --------------------------------------------------------------------------------------------------


async def test_graduation_is_refused_while_anything_is_undecided_and_says_what(database: Database) -> None:
    story = Story()
    await attend(database, story)
    await mark(database, story, but=[ACADEMIC])
    await give(database, story, ACADEMIC, "80", 1, 3)
    for i in (1, 2):
        await present(database, story, i)
    with pytest.raises(domain.MarksIncomplete) as refused:
        await graduate(database, story)
    assert refused.value.members["missing"] == {
        story.enrollment(2): [f"module.{ACADEMIC}"],
        story.enrollment(3): ["project.plan", "project.result"],
    }
    assert await announced(database, ProgrammeCompleted, ProgrammeNotCompleted) == []
    kept = await database.get(Cohort, story.cohort_id)
    assert kept is not None and not kept.locked


async def test_a_cohort_without_participants_cannot_be_decided_and_so_not_locked(database: Database) -> None:
    story = Story()
    await deliver(consumer, database, story.opened(), at=AFTER)
    with pytest.raises(domain.MarksIncomplete):
        await graduate(database, story)


async def test_everybody_is_judged_with_reasons_and_the_same_decision_again_is_the_same(database: Database) -> None:
    story = Story()
    await attend(database, story)
    await mark(database, story)
    for i, result in ((1, "80"), (2, "90.01"), (3, "70")):
        await present(database, story, i, {ProjectStage.RESULT: result})
    await graduate(database, story)
    before = await announced(database)
    await graduate(database, story)
    assert await announced(database) == before
    decided = await announced(database, ProgrammeCompleted, ProgrammeNotCompleted)
    assert {(e.subject, type(event)) for e, event in decided} == {
        (story.enrollment(1), ProgrammeCompleted),
        (story.enrollment(2), ProgrammeCompleted),
        (story.enrollment(3), ProgrammeNotCompleted),
    }
    reasons = [event.reason_codes for _, event in decided if isinstance(event, ProgrammeNotCompleted)]
    assert reasons == [["aspect.project-result"]]
    second = await database.get(Record, story.enrollment(2))
    assert second is not None and second.total == Decimal("83.00")  # 0.7 x 80 + 0.3 x 90.01 = 83.003


async def test_graduation_is_not_decided_twice_in_different_ways(database: Database) -> None:
    story = Story()
    await finish(database, story)
    await graduate(database, story)
    for other, day in ((uid(2, 22), DECIDED_ON), (decision_id(story), date(2022, 6, 18))):
        with pytest.raises(domain.AlreadyDecided):
            await commands.decide_graduation(story.cohort_id, other, day, database)


async def test_whoever_withdrew_is_not_judged(database: Database) -> None:
    story = Story()
    await attend(database, story)
    await mark(database, story)
    await deliver(consumer, database, story.withdrawn(3), at=AFTER)
    for i in (1, 2):
        await present(database, story, i)
    await graduate(database, story)
    third = await database.get(Record, story.enrollment(3))
    assert third is not None and third.graduated is None
    assert len(await announced(database, ProgrammeCompleted, ProgrammeNotCompleted)) == 2


async def test_absence_above_the_programmes_limit_keeps_from_graduating(database: Database) -> None:
    story = Story(people=[1], groups={1: [1]})
    long = {module.code for module in CURRICULUM.modules if module.placed_jp >= 6}
    away = [code for code in MODULES if code in long][:7]  # three hours each: 21 of at most 18, and half of none
    facts = [story.attended(code, 1, AttendanceStatus.SICK) for code in away]
    present_elsewhere = story.attendance([code for code in MODULES if code not in away])
    await deliver(
        consumer, database, *story.enrollment_facts(), *story.timetable(), *facts, *present_elsewhere, at=AFTER
    )
    await mark(database, story)
    await present(database, story, 1)
    await graduate(database, story)
    ((_, event),) = await announced(database, ProgrammeNotCompleted)
    assert isinstance(event, ProgrammeNotCompleted) and event.reason_codes == ["absence-limit"]


async def test_after_the_decision_marks_are_locked(database: Database) -> None:
    story = Story()
    await finish(database, story)
    await graduate(database, story)
    before = await announced(database)
    with pytest.raises(domain.MarksLocked):
        await give(database, story, ACADEMIC, "90")
    with pytest.raises(domain.MarksLocked):
        await remedial(database, story, 1, ACADEMIC, "90")
    with pytest.raises(domain.MarksLocked):
        await commands.hold_seminar(
            project_id(story, 1), ProjectStage.RESULT, 2, rubric(ProjectStage.RESULT, "90"), database
        )
    with pytest.raises(domain.MarksLocked):
        await commands.register_project(uid(9, 30), story.enrollment(1), "public-service", "asked", database)
    assert await announced(database) == before


async def test_a_correction_after_the_decision_is_noted_and_changes_no_outcome(database: Database) -> None:
    story = Story(people=[1], groups={1: [1]})
    first, second = MODULES[:2]
    facts = [
        *story.enrollment_facts(),
        story.formed(1),
        story.scheduled(first, jp=7),
        *(story.scheduled(code) for code in MODULES[1:]),
        story.published(dict.fromkeys(MODULES, 1)),
        story.attended(first, 1, jp=7),
        *story.attendance(MODULES[1:]),
    ]
    await deliver(consumer, database, *facts, at=AFTER)
    await mark(database, story)
    await present(database, story, 1)
    await graduate(database, story)
    before = await announced(database)
    late = story.corrected(first, 1, AttendanceStatus.ABSENT, AttendanceStatus.PRESENT, jp=7)
    fates = await deliver(consumer, database, late, at=AFTER)
    assert fates.parked == 0
    assert await announced(database) == before
    kept = await database.get(ModuleResult, domain.result_id(story.enrollment(1), module_id(first), 1))
    assert kept is not None
    assert (kept.outcome, kept.changed_after_lock) == (Outcome.PASSED, True)
    untouched = await database.get(ModuleResult, domain.result_id(story.enrollment(1), module_id(second), 1))
    assert untouched is not None and not untouched.changed_after_lock


async def _ready(database: Database, story: Story) -> None:
    """A cohort of one, everything recorded: written at once, so that a race can be run a hundred times."""

    async def work(tx: Transaction) -> None:
        who = {"participant_id": story.person(1), "agency_id": story.agency(1)}
        enrollment_id, id = story.enrollment(1), project_id(story, 1)
        member = Member(**who, mentor_id=story.mentor(1), roster_number=1)
        known = {
            "programme_id": PROGRAMME.id,
            "rule_set_version": RULES.version,
            "curriculum_version": CURRICULUM.version,
            "members": {enrollment_id: member},
        }
        await tx.load(Cohort, story.cohort_id)
        tx.save(Cohort.model_validate({"id": story.cohort_id, **known}))
        facts = {"cohort_id": story.cohort_id, **who}
        await tx.load(Record, enrollment_id)
        tx.save(Record(id=enrollment_id, mentor_id=story.mentor(1), project_id=id, **facts))
        seminars = [
            domain.Seminar(stage=stage, attempt=1, score=Decimal(80), outcome=Outcome.PASSED) for stage in ProjectStage
        ]
        await tx.load(ChangeProject, id)
        tx.save(
            ChangeProject(
                id=id,
                enrollment_id=enrollment_id,
                theme="any",
                asked="a",
                seminars=seminars,
                consented_at=AFTER,
                **facts,
            )
        )
        ids = {code: domain.result_id(enrollment_id, module_id(code), 1) for code in MODULES}
        await tx.load_many(ModuleResult, ids.values())
        for code, result_id in ids.items():
            score = Decimal(80) if code in SCORED else None
            tx.save(
                ModuleResult(
                    id=result_id,
                    enrollment_id=enrollment_id,
                    module_id=module_id(code),
                    attempt=1,
                    score=score,
                    outcome=Outcome.PASSED,
                    **facts,
                )
            )

    await database.transaction(work)


async def test_no_mark_gets_in_after_the_lock_and_none_before_it_is_forgotten(
    database: Database, mongo_uri: str, driver: Driver
) -> None:
    """The graduation meeting against the marking of the field study, in two processes' connections at one instant."""
    name = database.collection("cohorts").database.name
    elsewhere = Database(mongo_uri, name, service="assessment", driver=driver)
    for n in range(1, 101):
        story = Story(n=n, people=[1], groups={1: [1]})
        await _ready(database, story)
        refused, _ = await asyncio.gather(
            give(elsewhere, story, "studi-lapangan", "100"), graduate(database, story), return_exceptions=True
        )
        record = await database.get(Record, story.enrollment(1))
        kept = await database.get(ModuleResult, domain.result_id(story.enrollment(1), module_id("studi-lapangan"), 1))
        assert record is not None and kept is not None
        in_time = not isinstance(refused, domain.MarksLocked)
        assert kept.score == (Decimal(100) if in_time else Decimal(80)), n
        assert record.total == (Decimal("84.00") if in_time else Decimal("80.00")), n
    await elsewhere.close()


# --- certificates ------------------------------------------------------------------------------------------------


async def issue(database: Database, story: Story, at: datetime = AFTER) -> list[Credential]:
    with clock_at(at):
        return await commands.issue_certificates(story.cohort_id, names, SEAL, database)


async def test_certificates_are_numbered_without_gaps_over_cohorts_in_roster_order(database: Database) -> None:
    first, second = Story(n=1), Story(n=2)
    await finish(database, first, second)
    for story in (first, second):
        await graduate(database, story)
    issued = await issue(database, first) + await issue(database, second)
    assert [c.number for c in issued] == [f"{n:05d}/PKP/LAN-RI/06/2022" for n in range(1, 7)]
    assert [c.enrollment_id for c in issued[:3]] == [first.enrollment(i) for i in (1, 2, 3)]
    assert len(await announced(database, CredentialIssued)) == 6


async def test_asking_again_issues_nothing_more_and_needs_no_names(database: Database) -> None:
    story = Story()
    await finish(database, story)
    await graduate(database, story)
    first = await issue(database, story)

    async def away(person_ids: Iterable[str]) -> dict[str, Contact]:
        raise Unavailable

    before = await announced(database)
    with clock_at(AFTER):
        assert same(await commands.issue_certificates(story.cohort_id, away, SEAL, database), first)
    assert await announced(database) == before


async def test_while_enrollment_is_away_nothing_is_issued_and_no_number_is_lost(database: Database) -> None:
    story = Story()
    await finish(database, story)
    await graduate(database, story)

    async def away(person_ids: Iterable[str]) -> dict[str, Contact]:
        raise Unavailable

    async def forgetful(person_ids: Iterable[str]) -> dict[str, Contact]:
        return await names(sorted(person_ids)[1:])

    with pytest.raises(Unavailable):
        await commands.issue_certificates(story.cohort_id, away, SEAL, database)
    with pytest.raises(domain.HolderUnknown):
        await commands.issue_certificates(story.cohort_id, forgetful, SEAL, database)
    assert await database.query(Credential, {}) == []
    assert await database.query(SealedCertificate, {}) == []
    assert [c.number[:5] for c in await issue(database, story)] == ["00001", "00002", "00003"]


async def test_issuing_for_two_cohorts_at_once_leaves_no_gap_and_no_double(database: Database) -> None:
    stories = [Story(n=n, people=[1, 2], groups={1: [1, 2]}) for n in range(1, 5)]
    await finish(database, *stories)
    for story in stories:
        await graduate(database, story)
    twice = [issue(database, story) for story in stories for _ in range(2)]
    await asyncio.gather(*twice)
    numbers = sorted(c.number[:5] for c in await database.query(Credential, {}))
    assert numbers == [f"{n:05d}" for n in range(1, 9)]


async def test_no_certificate_before_the_decision(database: Database) -> None:
    story = Story()
    await finish(database, story)
    with pytest.raises(domain.NotDecided):
        await issue(database, story)


async def test_who_did_not_graduate_gets_a_certificate_of_participation(database: Database) -> None:
    story = Story()
    await attend(database, story)
    await mark(database, story)
    for i in story.people:
        await present(database, story, i, {ProjectStage.RESULT: "70" if i == 2 else "80"})
    await graduate(database, story)
    kinds = {c.enrollment_id: c.kind for c in await issue(database, story)}
    assert kinds == {
        story.enrollment(1): CredentialKind.GRADUATION,
        story.enrollment(2): CredentialKind.PARTICIPATION,
        story.enrollment(3): CredentialKind.GRADUATION,
    }


async def test_whoever_enrolled_after_the_decision_gets_no_certificate(database: Database) -> None:
    story = Story()
    await finish(database, story)
    await graduate(database, story)
    await deliver(consumer, database, story.enrolled(4), at=AFTER)
    assert len(await issue(database, story)) == 3


async def test_a_certificate_is_dated_in_the_cohorts_zone(database: Database) -> None:
    story = Story()
    await finish(database, story)
    await graduate(database, story)
    new_year_in_jakarta = datetime(2022, 12, 31, 17, 0, tzinfo=UTC)
    issued = await issue(database, story, new_year_in_jakarta)
    assert {c.issued_on for c in issued} == {date(2023, 1, 1)}
    assert issued[0].number == "00001/PKP/LAN-RI/01/2023"


async def test_a_name_is_nowhere_but_sealed_and_opens_only_for_its_own_certificate(database: Database) -> None:
    story = Story()
    await finish(database, story)
    await graduate(database, story)
    first, second, _ = await issue(database, story)
    for collection in await database.collection("x").database.list_collection_names():
        for document in await database.collection(collection).find({}).to_list(None):
            assert "Peserta" not in repr(document), collection
    sealed = {s.id: s.sealed for s in await database.query(SealedCertificate, {})}
    assert SEAL.open(first.id, sealed[first.id]) == name_of(first.participant_id)
    with pytest.raises(InvalidTag):
        SEAL.open(second.id, sealed[first.id])


async def test_no_mark_is_given_after_the_marks_were_locked(database: Database, elsewhere: Database) -> None:
    """A failing mark and the graduation meeting at the same moment: the meeting has seen it, or it is refused."""
    stories = [Story(n=n, people=[1], groups={1: [1]}) for n in range(1, many(10, 200) + 1)]
    for story in stories:
        await finish(database, story)

        async def fail(story: Story = story) -> None:
            with clock_at(AFTER):
                scores = {story.enrollment(1): Decimal(10)}
                await commands.mark_module(story.cohort_id, module_id(SCORED[0]), scores, elsewhere)

        refused, met = await asyncio.gather(fail(), graduate(database, story), return_exceptions=True)
        assert refused is None or isinstance(refused, domain.MarksLocked)
        assert met is None or isinstance(met, domain.MarksIncomplete)  # a second attempt is due first
        id = domain.result_id(story.enrollment(1), module_id(SCORED[0]), 1)
        result, record = await database.get(ModuleResult, id), await database.get(Record, story.enrollment(1))
        assert result is not None and record is not None
        assert (result.score == 10) == (refused is None)
        assert bool(record.graduated) == (refused is not None), story.n
