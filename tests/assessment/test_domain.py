"""The rules of passing, graduating and certifying, as decisions over what was recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.assessment import domain
from services.assessment.domain import (
    ChangeProject,
    Cohort,
    Group,
    Held,
    Member,
    ModuleLedger,
    ModuleResult,
    Record,
)
from shared import reference
from shared.contracts.assessment import (
    ChangeProjectAssessed,
    ChangeProjectScored,
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
from shared.contracts.scheduling import AttendanceStatus, ModulePlan
from tests.support import uid

NOW = datetime(2022, 3, 1, 9, 0, tzinfo=UTC)
RULES = reference.rule_set("pkp-2019.1")
CURRICULUM = reference.curriculum("pkp-2019.1")
SCORED = next(m for m in CURRICULUM.modules if m.component == "academic")
UNSCORED = next(m for m in CURRICULUM.modules if m.component is None)
COHORT, EXAMINER, COACH = uid(1, 1), uid(1, 2), uid(2, 2)
ANI, BUDI = uid(1, 3), uid(2, 3)
GROUP = uid(1, 4)

marks = st.decimals(min_value=0, max_value=100, places=2)


def lenient(**changes: Any) -> reference.RuleSet:
    """The rule set with some values changed, as another version would have them."""
    raw = RULES.model_dump()
    for name, value in changes.items():
        raw[name] = {**raw[name], "value": value}
    return reference.RuleSet.model_validate(raw)


def member(number: int) -> Member:
    return Member(participant_id=uid(number, 5), agency_id=uid(1, 6), mentor_id=uid(number, 7), roster_number=number)


def cohort(**changes: Any) -> Cohort:
    plan = ModulePlan(
        module_id=CURRICULUM.module_id(UNSCORED.code),
        sessions=2,
        jp_synchronous=6,
        jp_asynchronous=0,
        jp_classical=0,
        starts_on=date(2022, 2, 28),
        ends_on=date(2022, 3, 1),
    )
    known: dict[str, Any] = {
        "programme_id": reference.programme("pkp").id,
        "rule_set_version": RULES.version,
        "curriculum_version": CURRICULUM.version,
        "number": 3,
        "year": 2022,
        "starts_on": date(2022, 2, 21),
        "ends_on": date(2022, 6, 17),
        "members": {ANI: member(1), BUDI: member(2)},
        "groups": {GROUP: Group(enrollment_ids=[ANI, BUDI], coach_id=COACH, examiner_id=EXAMINER)},
        "plans": {plan.module_id: plan},
    }
    return Cohort(id=COHORT, **{**known, **changes})


def ledger(
    sessions: int = 2, *, attended: Mapping[str, Sequence[AttendanceStatus | None]] | None = None, jp: int = 3
) -> ModuleLedger:
    """A module with sessions on consecutive days; `attended` by enrollment and session, None where unrecorded."""
    module_id = CURRICULUM.module_id(UNSCORED.code)
    held = {uid(n, 8): Held(ends_at=NOW + timedelta(days=n), jp=jp, group_ids=[GROUP]) for n in range(1, sessions + 1)}
    recorded = {
        who: {uid(n, 8): status for n, status in enumerate(row, start=1) if status is not None}
        for who, row in (attended or {}).items()
    }
    return ModuleLedger(
        id=domain.ledger_id(COHORT, module_id),
        cohort_id=COHORT,
        module_id=module_id,
        sessions=held,
        attendance=recorded,
    )


def result(module: reference.Module = SCORED, *, attempt: int = 1, **changes: Any) -> ModuleResult:
    module_id = CURRICULUM.module_id(module.code)
    return ModuleResult(
        id=domain.result_id(ANI, module_id, attempt),
        cohort_id=COHORT,
        enrollment_id=ANI,
        participant_id=uid(1, 5),
        agency_id=uid(1, 6),
        module_id=module_id,
        attempt=attempt,
        **changes,
    )


def settle(
    kept: ModuleResult, module: reference.Module = SCORED, *, locked: bool = False
) -> tuple[ModuleResult, list[Any]]:
    """Decide, and count what was announced, as saving would."""
    decided, events = domain.settle(kept, module, RULES, locked=locked, reason_code="attendance-corrected", now=NOW)
    counted = {domain.SOURCE: kept.sequences.get(domain.SOURCE, 0) + len(events)}
    return decided.but(sequences=counted), events


PRESENT, SICK, ABSENT = AttendanceStatus.PRESENT, AttendanceStatus.SICK, AttendanceStatus.ABSENT


# --- passing a module --------------------------------------------------------------------------------------------


@given(marks)
def test_a_mark_passes_exactly_when_it_is_above_seventy(mark: Decimal) -> None:
    outcome, reasons = domain.judge(result(score=mark), SCORED, RULES)
    assert (outcome is Outcome.PASSED) == (mark > Decimal("70.00"))
    assert reasons == ([] if mark > Decimal("70.00") else ["score-below-mark"])


def test_exactly_seventy_passes_only_where_the_rule_set_says_at_least() -> None:
    at_the_mark = result(score=Decimal("70.00"))
    assert domain.judge(at_the_mark, SCORED, RULES)[0] is Outcome.NOT_PASSED
    assert domain.judge(at_the_mark, SCORED, lenient(pass_mark_strict=False))[0] is Outcome.PASSED


def test_a_missing_mark_is_incomplete_and_a_zero_is_not_passed() -> None:
    assert domain.judge(result(), SCORED, RULES) == (None, [])
    assert domain.judge(result(score=Decimal("0.00")), SCORED, RULES) == (Outcome.NOT_PASSED, ["score-below-mark"])


@given(st.integers(min_value=0, max_value=60))
def test_a_missing_mark_stays_incomplete_whatever_the_absence(absence: int) -> None:
    assert domain.judge(result(absence_jp=absence), SCORED, RULES) == (None, [])


@given(st.integers(min_value=0, max_value=60))
def test_absence_up_to_the_limit_passes_a_module_without_marks(absence: int) -> None:
    outcome, reasons = domain.judge(result(UNSCORED, absence_jp=absence), UNSCORED, RULES)
    within = 2 * absence <= UNSCORED.placed_jp
    assert (outcome, reasons) == ((Outcome.PASSED, []) if within else (Outcome.NOT_PASSED, ["absence-limit"]))


def test_every_reason_is_named() -> None:
    failed = result(absence_jp=9, score=Decimal("60"))
    assert domain.judge(failed, SCORED, RULES)[1] == ["absence-limit", "score-below-mark"]


def test_a_repeated_attempt_needs_a_mark_even_where_the_module_has_none() -> None:
    again = result(UNSCORED, attempt=2, absence_jp=9)
    assert domain.judge(again, UNSCORED, RULES) == (None, [])
    assert domain.judge(again.but(score=Decimal("75")), UNSCORED, RULES) == (Outcome.PASSED, [])


@given(marks, st.integers(min_value=1, max_value=2))
def test_a_repeated_attempt_is_never_marked_above_the_cap(mark: Decimal, attempt: int) -> None:
    marked, events = domain.mark(result(attempt=attempt), mark, RULES, now=NOW)
    assert marked.score == (min(mark, Decimal("85.00")) if attempt == 2 else mark)
    assert [type(event) for event in events] == [ModuleScored]
    assert isinstance(events[0], ModuleScored) and events[0].score == marked.score


def test_the_same_mark_again_changes_and_announces_nothing() -> None:
    marked, _ = domain.mark(result(), Decimal("80"), RULES, now=NOW)
    assert domain.mark(marked, Decimal("80.00"), RULES, now=NOW) == (marked, [])


@given(marks)
def test_no_mark_is_on_the_open_topic(mark: Decimal) -> None:
    decided, events = settle(result(score=mark))
    assert decided.outcome is not None
    assert not any("score" in type(event).model_fields for event in events)


# --- announced once, then only revised ---------------------------------------------------------------------------


@given(st.lists(st.one_of(marks, st.integers(min_value=0, max_value=20)), min_size=1, max_size=12))
def test_whatever_changes_completion_is_announced_at_most_once(changes: list[Decimal | int]) -> None:
    kept, told = result(), []
    for change in changes:
        kept = kept.but(score=change) if isinstance(change, Decimal) else kept.but(absence_jp=change)
        kept, events = settle(kept)
        told += events
    assert sum(isinstance(event, (ModuleCompleted, ModuleNotPassed)) for event in told) <= 1
    assert all(isinstance(event, ModuleResultRevised) for event in told[1:])
    assert [event.supersedes for event in told[1:]] == list(range(1, len(told)))
    if told:
        says = told[-1].outcome if isinstance(told[-1], ModuleResultRevised) else None
        if says is None:
            says = Outcome.PASSED if isinstance(told[-1], ModuleCompleted) else Outcome.NOT_PASSED
        assert says is kept.outcome
        assert all(a.outcome is not b.outcome for a, b in pairwise(told[1:]))


def test_the_last_failed_attempt_leaves_none() -> None:
    _, first = settle(result(score=Decimal("65")))
    _, second = settle(result(attempt=2, score=Decimal("65")))
    assert [event.attempts_left for event in (*first, *second)] == [1, 0]


def test_after_the_lock_an_outcome_stands_and_the_change_is_noted() -> None:
    passed, _ = settle(result(UNSCORED), UNSCORED)
    late, events = settle(passed.but(absence_jp=9), UNSCORED, locked=True)
    assert events == []
    assert late.outcome is Outcome.PASSED
    assert late.changed_after_lock


def test_a_failed_second_attempt_does_not_hide_a_first_one_that_was_revised_to_passed() -> None:
    first = result(UNSCORED, outcome=Outcome.PASSED)
    second = result(UNSCORED, attempt=2, outcome=Outcome.NOT_PASSED, score=Decimal("50"))
    assert domain.last_attempts([second, first])[first.module_id] == first
    failed = first.but(outcome=Outcome.NOT_PASSED)
    assert domain.last_attempts([second, failed])[first.module_id] == second


# --- closing a module --------------------------------------------------------------------------------------------


def test_a_module_is_complete_when_every_planned_session_has_attendance_for_everybody() -> None:
    assert domain.complete(ledger(attended={ANI: [PRESENT, SICK], BUDI: [PRESENT, ABSENT]}), cohort())
    assert not domain.complete(ledger(attended={ANI: [PRESENT, SICK], BUDI: [PRESENT, None]}), cohort())
    assert not domain.complete(ledger(attended={ANI: [PRESENT, SICK]}), cohort())


def test_a_module_is_not_complete_before_every_planned_session_is_known() -> None:
    full = {ANI: [PRESENT], BUDI: [PRESENT]}
    assert not domain.complete(ledger(1, attended=full), cohort())
    assert not domain.complete(ledger(attended={ANI: [PRESENT] * 2, BUDI: [PRESENT] * 2}), cohort(plans={}))


def test_a_module_is_not_complete_while_a_group_of_a_session_is_unknown() -> None:
    full = ledger(attended={ANI: [PRESENT] * 2, BUDI: [PRESENT] * 2})
    assert not domain.complete(full, cohort(groups={}))
    wider = {id: held.model_copy(update={"group_ids": [GROUP, uid(9, 4)]}) for id, held in full.sessions.items()}
    assert not domain.complete(full.but(sessions=wider), cohort())


def test_a_cancelled_session_needs_no_attendance_and_counts_no_absence() -> None:
    full = ledger(attended={ANI: [PRESENT, None], BUDI: [PRESENT, None]})
    second = full.sessions[uid(2, 8)].model_copy(update={"cancelled": True})
    held = full.but(sessions={**full.sessions, uid(2, 8): second})
    assert domain.complete(held, cohort())
    assert domain.absence_jp(held, cohort(), ANI) == 0


def test_whoever_left_the_group_is_not_waited_for() -> None:
    alone = {GROUP: Group(enrollment_ids=[ANI], coach_id=COACH, examiner_id=EXAMINER)}
    held = ledger(attended={ANI: [PRESENT, PRESENT], BUDI: [PRESENT, None]})
    assert domain.complete(held, cohort(groups=alone))
    assert domain.close(held, cohort(groups=alone)).taking_part == [ANI]


def test_a_module_closes_two_days_after_its_last_session() -> None:
    assert domain.closes_at(ledger(), cohort(), RULES) == NOW + timedelta(days=2 + RULES.module_closing_days.value)


def test_a_module_without_sessions_closes_after_its_window() -> None:
    plan = next(iter(cohort().plans.values())).model_copy(update={"sessions": 0})
    alone = cohort(plans={plan.module_id: plan})
    due_at = domain.closes_at(ledger(0), alone, RULES)
    assert due_at is not None
    assert due_at.date() >= plan.ends_on
    assert domain.close(ledger(0), alone).taking_part == sorted([ANI, BUDI])


statuses = st.lists(st.sampled_from([PRESENT, SICK, AttendanceStatus.PERMITTED, ABSENT, None]), min_size=3, max_size=3)


@given(statuses, st.integers(min_value=1, max_value=4))
def test_absence_counts_the_hours_of_every_session_not_attended(row: list[AttendanceStatus | None], jp: int) -> None:
    held = ledger(3, attended={ANI: row}, jp=jp)
    assert domain.absence_jp(held, cohort(), ANI) == jp * sum(status is not PRESENT for status in row)


def test_a_session_of_another_group_is_no_absence() -> None:
    others = {GROUP: Group(enrollment_ids=[BUDI], coach_id=COACH, examiner_id=EXAMINER)}
    assert domain.absence_jp(ledger(), cohort(groups=others), ANI) == 0


# --- the change project ------------------------------------------------------------------------------------------


def project(**changes: Any) -> ChangeProject:
    known: dict[str, Any] = {
        "cohort_id": COHORT,
        "enrollment_id": ANI,
        "participant_id": uid(1, 5),
        "agency_id": uid(1, 6),
        "theme": "public-service",
        "asked": "asked",
        "consented_at": NOW,
    }
    return ChangeProject(id=uid(1, 9), **{**known, **changes})


def rubric(stage: ProjectStage, *scores: str) -> dict[str, Decimal]:
    criteria = RULES.seminar_criteria[stage.value].value
    return {name: Decimal(score) for name, score in zip(criteria, scores or ("80",) * len(criteria), strict=True)}


def seminar(kept: ChangeProject, stage: ProjectStage, attempt: int, *scores: str) -> tuple[ChangeProject, list[Any]]:
    return domain.hold_seminar(kept, stage, attempt, rubric(stage, *scores), RULES, now=NOW)


def test_no_seminar_is_held_before_the_mentor_agreed() -> None:
    with pytest.raises(domain.ConsentMissing):
        seminar(project(consented_at=None), ProjectStage.PLAN, 1)


def test_the_result_is_presented_only_after_the_plan_was_passed() -> None:
    with pytest.raises(domain.SeminarNotDue):
        seminar(project(), ProjectStage.RESULT, 1)
    failed, _ = seminar(project(), ProjectStage.PLAN, 1, "60", "60", "60", "60")
    with pytest.raises(domain.SeminarNotDue):
        seminar(failed, ProjectStage.RESULT, 1)
    passed, _ = seminar(failed, ProjectStage.PLAN, 2)
    seminar(passed, ProjectStage.RESULT, 1)


def test_a_seminar_has_one_repetition_and_none_after_it_was_passed() -> None:
    failed, _ = seminar(project(), ProjectStage.PLAN, 1, "60", "60", "60", "60")
    with pytest.raises(domain.SeminarNotDue):
        seminar(failed, ProjectStage.PLAN, 3)
    twice, _ = seminar(failed, ProjectStage.PLAN, 2, "60", "60", "60", "60")
    with pytest.raises(domain.SeminarNotDue):
        seminar(twice, ProjectStage.PLAN, 3)
    passed, _ = seminar(project(), ProjectStage.PLAN, 1)
    with pytest.raises(domain.SeminarNotDue):
        seminar(passed, ProjectStage.PLAN, 2)


def test_a_seminar_is_marked_by_every_criterion_and_no_other() -> None:
    wanted = rubric(ProjectStage.PLAN)
    for wrong in (dict(list(wanted.items())[1:]), {**wanted, "handwriting": Decimal("90")}, {}):
        with pytest.raises(domain.CriteriaMismatch):
            domain.hold_seminar(project(), ProjectStage.PLAN, 1, wrong, RULES, now=NOW)


@pytest.mark.parametrize(
    ("scores", "mark", "outcome"),
    [
        (("70.00", "70.00", "70.00", "70.00"), "70.00", Outcome.NOT_PASSED),
        (("70.00", "70.00", "70.00", "70.02"), "70.01", Outcome.PASSED),  # 70.005 rounds half up
        (("70.00", "70.00", "70.00", "70.01"), "70.00", Outcome.NOT_PASSED),  # 70.0025 rounds down
        (("80.01", "80.02", "80.02", "80.01"), "80.02", Outcome.PASSED),  # 80.015
    ],
)
def test_a_seminar_mark_is_the_mean_of_its_criteria_to_two_decimals(
    scores: tuple[str, ...], mark: str, outcome: Outcome
) -> None:
    held, events = seminar(project(), ProjectStage.PLAN, 1, *scores)
    assert held.seminars[-1].score == Decimal(mark)
    assert [type(event) for event in events] == [ChangeProjectAssessed, ChangeProjectScored]
    assert events[0].outcome is outcome
    assert events[1].score == Decimal(mark)


def test_a_repeated_seminar_is_capped() -> None:
    failed, _ = seminar(project(), ProjectStage.PLAN, 1, "60", "60", "60", "60")
    again, events = seminar(failed, ProjectStage.PLAN, 2, "100", "100", "100", "100")
    assert again.seminars[-1].score == events[1].score == Decimal("85.00")


@given(st.lists(marks, min_size=4, max_size=4))
def test_a_seminar_mark_lies_between_its_criteria_with_two_decimals(scores: list[Decimal]) -> None:
    held, _ = seminar(project(), ProjectStage.PLAN, 1, *map(str, scores))
    mark = held.seminars[-1].score
    assert min(scores) <= mark <= max(scores)
    assert abs(mark - sum(scores, Decimal(0)) / 4) <= Decimal("0.005")
    assert mark == mark.quantize(Decimal("0.01"))


# --- graduation --------------------------------------------------------------------------------------------------


def all_results(score: str = "80", **others: Any) -> dict[str, ModuleResult]:
    """A passed result in every module; `others` by module code with a dash as underscore."""
    found = {}
    for module in CURRICULUM.modules:
        mark = Decimal(score) if module.component else None
        kept = result(module, outcome=Outcome.PASSED, score=mark)
        found[kept.module_id] = kept.but(**others.get(module.code.replace("-", "_"), {}))
    return found


def finished(plan: str = "80", final: str = "80") -> ChangeProject:
    planned, _ = seminar(project(), ProjectStage.PLAN, 1, *(plan,) * 4)
    done, _ = seminar(planned, ProjectStage.RESULT, 1, *(final,) * 4)
    return done


def judged(results: dict[str, ModuleResult], made: ChangeProject | None, absences: int = 0) -> domain.Judgement:
    return domain.graduate(ANI, results, made, absences, CURRICULUM, RULES)


def test_a_participant_with_everything_passed_graduates() -> None:
    decision = judged(all_results(), finished())
    assert (decision.graduated, decision.reason_codes) == (True, [])
    assert decision.total == Decimal("80.00")
    assert decision.predicate == "Cukup Memuaskan"  # above 70.00, and 80.00 is not above 80.00


@pytest.mark.parametrize(
    ("score", "predicate"),
    [("90.01", "Sangat Memuaskan"), ("90.00", "Memuaskan"), ("80.01", "Memuaskan"), ("70.01", "Cukup Memuaskan")],
)
def test_the_predicate_is_the_band_that_the_total_is_above(score: str, predicate: str) -> None:
    assert judged(all_results(score), finished(score, score)).predicate == predicate


def test_status_is_decided_by_aspect_and_not_by_the_total() -> None:
    weak = all_results("100", studi_lapangan={"score": Decimal("70.00")})
    decision = judged(weak, finished("100", "100"))
    assert decision.total is not None and decision.total > 90
    assert (decision.graduated, decision.reason_codes) == (False, ["aspect.field-study"])


def test_a_module_not_passed_is_enough_not_to_graduate() -> None:
    failed = all_results(kebijakan_pelatihan={"outcome": Outcome.NOT_PASSED})
    assert judged(failed, finished()).reason_codes == ["module-not-passed"]


@given(st.integers(min_value=0, max_value=40))
def test_absence_above_the_programmes_limit_is_enough_not_to_graduate(absences: int) -> None:
    decision = judged(all_results(), finished(), absences)
    assert decision.graduated == (absences <= RULES.absence_limit_jp.value)
    assert decision.absence_jp == absences


def test_an_aspect_is_the_mean_of_its_modules_rounded_before_it_is_compared() -> None:
    academic = [m.code.replace("-", "_") for m in CURRICULUM.modules if m.component == "academic"]
    assert len(academic) == 3
    marks = ("70.00", "70.00", "70.01")  # mean 70.00333, rounded 70.00: not above
    results = all_results("80", **{c: {"score": Decimal(m)} for c, m in zip(academic, marks, strict=True)})
    assert judged(results, finished()).reason_codes == ["aspect.academic"]
    marks = ("70.00", "70.01", "70.01")  # 70.00667, rounded 70.01: above
    results = all_results("80", **{c: {"score": Decimal(m)} for c, m in zip(academic, marks, strict=True)})
    assert judged(results, finished()).reason_codes == []


def test_a_missing_aspect_gives_no_total_rather_than_one_that_counts_it_as_zero() -> None:
    failed, _ = seminar(project(), ProjectStage.PLAN, 1, "60", "60", "60", "60")
    failed, _ = seminar(failed, ProjectStage.PLAN, 2, "60", "60", "60", "60")
    decision = judged(all_results(), failed)
    assert decision.reason_codes == ["aspect.project-plan", "aspect.project-result"]
    assert (decision.total, decision.predicate) == (None, None)


@given(st.lists(marks, min_size=5, max_size=5))
def test_the_total_is_the_weighted_sum_of_the_aspects(scores: list[Decimal]) -> None:
    by_component = dict(zip(("academic", "field-study", "conduct"), scores, strict=False))
    results = {
        id: kept.but(score=by_component[module.component])
        for (id, kept), module in zip(all_results().items(), CURRICULUM.modules, strict=True)
        if module.component
    }
    plan, final = (
        domain.Seminar(stage=s, attempt=1, score=m, outcome=Outcome.PASSED)
        for s, m in zip(ProjectStage, scores[3:], strict=True)
    )
    decision = judged(all_results() | results, project(seminars=[plan, final]))
    exact = (scores[0] * 10 + scores[1] * 20 + scores[3] * 20 + scores[4] * 30 + scores[2] * 20) / 100
    assert decision.total is not None
    assert abs(decision.total - exact) <= Decimal("0.005")
    assert decision.graduated == all(score > 70 for score in scores)


def test_what_is_missing_is_named_and_nothing_is_missing_in_the_end() -> None:
    open_ = all_results(berpikir_kreatif={"outcome": None, "score": None})
    assert domain.missing(open_, None, CURRICULUM, RULES) == [
        "module.berpikir-kreatif",
        "project.plan",
        "project.result",
    ]
    nothing: dict[str, ModuleResult] = {}
    assert len(domain.missing(nothing, finished(), CURRICULUM, RULES)) == len(CURRICULUM.modules)
    assert domain.missing(all_results(), finished(), CURRICULUM, RULES) == []


def test_nobody_waits_for_a_result_seminar_after_the_plan_failed_for_good() -> None:
    once, _ = seminar(project(), ProjectStage.PLAN, 1, "60", "60", "60", "60")
    assert domain.missing(all_results(), once, CURRICULUM, RULES) == ["project.result"]
    twice, _ = seminar(once, ProjectStage.PLAN, 2, "60", "60", "60", "60")
    assert domain.missing(all_results(), twice, CURRICULUM, RULES) == []


# --- decision and certificate ------------------------------------------------------------------------------------


def record(**changes: Any) -> Record:
    return Record(
        id=ANI, cohort_id=COHORT, participant_id=uid(1, 5), agency_id=uid(1, 6), mentor_id=uid(1, 7), **changes
    )


def test_the_decision_is_announced_with_its_reasons_and_without_marks() -> None:
    today = date(2022, 6, 17)
    good, bad = judged(all_results(), finished()), judged(all_results(), finished(), absences=19)
    kept, event = domain.announce(record(), good, cohort(), uid(7), today)
    assert kept.graduated and isinstance(event, ProgrammeCompleted)
    kept, event = domain.announce(record(), bad, cohort(), uid(7), today)
    assert not kept.graduated and isinstance(event, ProgrammeNotCompleted)
    assert event.reason_codes == ["absence-limit"]
    assert "80" not in event.model_dump_json(include={"reason_codes"})


@pytest.mark.parametrize(
    ("graduated", "kind"), [(True, CredentialKind.GRADUATION), (False, CredentialKind.PARTICIPATION)]
)
def test_a_certificate_says_whether_its_holder_graduated_or_took_part(graduated: bool, kind: CredentialKind) -> None:
    made, event = domain.issue(
        record(graduated=graduated),
        cohort(),
        7,
        organiser="lan-ri",
        pattern=RULES.certificate_number.value,
        jp=830,
        today=date(2022, 6, 17),
    )
    assert (made.kind, event.kind) == (kind, kind)
    assert made.number == "00007/PKP/LAN-RI/06/2022"
    assert made.id == event.credential_id == domain.credential_id(ANI)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("Ani Contoh Rahayu", "A. C. R."), ("Budi", "B."), ("  Siti  (Contoh) ", "S."), ("Émile Ñusa", "É. Ñ."), ("", "")],
)
def test_the_public_sees_initials_only(name: str, shown: str) -> None:
    assert domain.masked(name) == shown
