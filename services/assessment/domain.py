"""When a module is completed, who graduates, and why: pure decisions by a versioned rule set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import ClassVar
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict

from shared.contracts import Code, Event, Id, Score
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
from shared.contracts.scheduling import AttendanceStatus, ModulePlan
from shared.domain import State
from shared.errors import Rejected
from shared.ids import derive
from shared.reference import Curriculum, Module, RuleSet

SOURCE = "/training/assessment"

# --- refusals ----------------------------------------------------------------------------------------------------


class CohortUnknown(Rejected):
    """Nothing is known here yet of this cohort; it may have been opened a moment ago."""


class CohortCancelled(Rejected):
    """The cohort was cancelled."""


class MarksLocked(Rejected):
    """Graduation was decided; marks are locked."""


class NotInCohort(Rejected):
    """Some of these are not participants of the cohort."""


class ModuleNotScored(Rejected):
    """No mark is given in this module."""


class NoAttemptLeft(Rejected):
    """There is no such attempt, or the attempt before it has not ended without passing."""


class ProjectExists(Rejected):
    """The participant has a change project already."""


class ConsentMissing(Rejected):
    """The mentor has not agreed to the change project."""


class SeminarNotDue(Rejected):
    """The seminar before this one was not passed, or this attempt is not the next."""


class CriteriaMismatch(Rejected):
    """A seminar is marked by exactly the criteria of the rule set."""


class MarksIncomplete(Rejected):
    """Graduation cannot be decided: results or marks are missing."""


class AlreadyDecided(Rejected):
    """Graduation was decided otherwise before."""


class NotDecided(Rejected):
    """Graduation is not decided yet."""


class HolderUnknown(Rejected):
    """The holder's name cannot be printed: enrollment does not know the person."""


# --- states ------------------------------------------------------------------------------------------------------


class Member(BaseModel):
    """A participant as enrollment announced it."""

    model_config = ConfigDict(frozen=True)

    participant_id: Id
    agency_id: Id
    mentor_id: Id
    roster_number: int
    active: bool = True


class Group(BaseModel):
    """A learning group as scheduling announced it."""

    model_config = ConfigDict(frozen=True)

    enrollment_ids: list[Id]
    coach_id: Id
    examiner_id: Id


class Cohort(State):
    """What assessment knows of a cohort; it owns the sets of its results. Its id is the cohort's."""

    collection: ClassVar[str] = "cohorts"

    programme_id: Id | None = None
    rule_set_version: Code | None = None
    curriculum_version: Code | None = None
    number: int = 0
    year: int = 0
    zone: str = "Asia/Jakarta"
    starts_on: date | None = None
    ends_on: date | None = None
    members: dict[Id, Member] = {}
    groups: dict[Id, Group] = {}
    plans: dict[Id, ModulePlan] = {}
    cancelled: bool = False
    decision_id: Id | None = None
    decided_on: date | None = None

    @property
    def locked(self) -> bool:
        return self.decision_id is not None

    @property
    def active(self) -> dict[str, Member]:
        return {id: member for id, member in self.members.items() if member.active}

    def examiner_of(self, enrollment_id: str) -> str | None:
        return next((g.examiner_id for g in self.groups.values() if enrollment_id in g.enrollment_ids), None)

    def coach_of(self, enrollment_id: str) -> str | None:
        return next((g.coach_id for g in self.groups.values() if enrollment_id in g.enrollment_ids), None)


class Held(BaseModel):
    """A session of a module."""

    model_config = ConfigDict(frozen=True)

    ends_at: datetime
    jp: int
    group_ids: list[Id]
    cancelled: bool = False


class Change(BaseModel):
    """What a participant's absence came to, and by what."""

    model_config = ConfigDict(frozen=True)

    absence_jp: int
    reason_code: Code


class ModuleLedger(State):
    """Sessions and attendance of one module in one cohort, and whether the module is closed.

    `attendance`: enrollment → session → status. `taking_part`: who was to attend when it closed, or joined since.
    `undecided`: since it closed, what would have been decided of those of whom enrollment has not told yet.
    """

    collection: ClassVar[str] = "module_ledgers"

    cohort_id: Id
    module_id: Id
    sessions: dict[Id, Held] = {}
    attendance: dict[Id, dict[Id, AttendanceStatus]] = {}
    closed: bool = False
    taking_part: list[Id] = []
    undecided: dict[Id, list[Change]] = {}


class ModuleResult(State):
    """One attempt of one participant at one module. `outcome` is None while it is open."""

    collection: ClassVar[str] = "module_results"

    cohort_id: Id
    enrollment_id: Id
    participant_id: Id
    agency_id: Id
    module_id: Id
    attempt: int
    score: Score | None = None
    absence_jp: int = 0
    outcome: Outcome | None = None
    reason_codes: list[Code] = []
    changed_after_lock: bool = False


class Record(State):
    """A participant's way through the programme: project, decision, certificate. Its id is the enrollment's."""

    collection: ClassVar[str] = "records"

    cohort_id: Id
    participant_id: Id
    agency_id: Id
    mentor_id: Id
    project_id: Id | None = None
    graduated: bool | None = None
    reason_codes: list[Code] = []
    total: Decimal | None = None
    predicate: str | None = None
    credential_id: Id | None = None


class Seminar(BaseModel):
    """One attempt at a seminar."""

    model_config = ConfigDict(frozen=True)

    stage: ProjectStage
    attempt: int
    criteria: dict[Code, Score] = {}
    score: Score
    outcome: Outcome


class ChangeProject(State):
    """A change project (aksi perubahan) from its plan to its result."""

    collection: ClassVar[str] = "change_projects"

    cohort_id: Id
    enrollment_id: Id
    participant_id: Id
    agency_id: Id
    theme: Code
    consented_at: datetime | None = None
    seminars: list[Seminar] = []
    asked: str

    def last(self, stage: ProjectStage) -> Seminar | None:
        return next((s for s in reversed(self.seminars) if s.stage is stage), None)


class CertificateCounter(State):
    """The last certificate number of an organiser and year."""

    collection: ClassVar[str] = "certificate_counters"

    last: int = 0


class Credential(State):
    """A numbered certificate (STTP), without the holder's name."""

    collection: ClassVar[str] = "credentials"

    cohort_id: Id
    enrollment_id: Id
    participant_id: Id
    agency_id: Id
    kind: CredentialKind
    number: str
    programme_id: Id
    cohort_number: int
    cohort_year: int
    jp: int
    starts_on: date
    ends_on: date
    issued_on: date


class SealedCertificate(State):
    """The holder's name as printed, encrypted: archive duty survives the erasure of the person."""

    collection: ClassVar[str] = "sealed_certificates"

    sealed: str


def ledger_id(cohort_id: str, module_id: str) -> str:
    return derive("assessment", "module-ledger", cohort_id, module_id)


def new_ledger(cohort_id: str, module_id: str) -> ModuleLedger:
    return ModuleLedger(id=ledger_id(cohort_id, module_id), cohort_id=cohort_id, module_id=module_id)


def result_id(enrollment_id: str, module_id: str, attempt: int) -> str:
    return derive("assessment", "module-result", enrollment_id, module_id, attempt)


def credential_id(enrollment_id: str) -> str:
    return derive("assessment", "credential", enrollment_id)


# --- closing a module --------------------------------------------------------------------------------------------


def expected(cohort: Cohort, session: Held) -> set[str]:
    """Who is to attend a session: the present members of its groups."""
    return {id for g in session.group_ids if g in cohort.groups for id in cohort.groups[g].enrollment_ids}


def complete(ledger: ModuleLedger, cohort: Cohort) -> bool:
    """Whether every planned session is known and its attendance is recorded for everybody who is to attend.

    Rests on what scheduling announced and on nothing else, so that it comes true at the same fact whenever enrollment's
    facts arrive.
    """
    plan = cohort.plans.get(ledger.module_id)
    held = {id: s for id, s in ledger.sessions.items() if not s.cancelled}
    if plan is None or len(ledger.sessions) < plan.sessions or not held:
        return False
    return all(
        id in ledger.attendance.get(enrollment_id, {})
        for id, session in held.items()
        for enrollment_id in expected(cohort, session)
    ) and all(group_id in cohort.groups for session in held.values() for group_id in session.group_ids)


def belonging(ledger: ModuleLedger, cohort: Cohort) -> set[str]:
    """Who belongs to a module: the members of its sessions' groups, or everybody where it has no sessions."""
    if not ledger.sessions:
        return set(cohort.active)
    return {id for s in ledger.sessions.values() if not s.cancelled for id in expected(cohort, s)}


def close(ledger: ModuleLedger, cohort: Cohort) -> ModuleLedger:
    """The module is over: whoever belongs to it now gets a result."""
    return ledger.but(closed=True, taking_part=sorted(belonging(ledger, cohort)))


def last_session_ends_at(ledger: ModuleLedger) -> datetime | None:
    """When the module's last session is over; None while no session of it is to be held."""
    return max((s.ends_at for s in ledger.sessions.values() if not s.cancelled), default=None)


def closes_at(ledger: ModuleLedger, cohort: Cohort, rules: RuleSet | None) -> datetime | None:
    """When a module closes by time: complete, with its last session; else some days later, by the rule set.

    A module without any session closes when its window is over. One whose sessions were all cancelled does not close.
    """
    if (over_at := last_session_ends_at(ledger)) is not None:
        if complete(ledger, cohort):
            return over_at
        return over_at + timedelta(days=rules.module_closing_days.value) if rules else None
    plan = cohort.plans.get(ledger.module_id)
    if plan is None or plan.sessions or cohort.rule_set_version is None or cohort.cancelled:
        return None
    return datetime.combine(plan.ends_on + timedelta(days=1), time(), ZoneInfo(cohort.zone))


def absence_jp(ledger: ModuleLedger, cohort: Cohort, enrollment_id: str) -> int:
    """Training hours of the module that the participant did not attend. Once it closed, unrecorded is not attended."""
    recorded = ledger.attendance.get(enrollment_id, {})
    missed = 0
    for id, session in ledger.sessions.items():
        if session.cancelled:
            continue
        status = recorded.get(id)
        if status is None:
            missed += session.jp if enrollment_id in expected(cohort, session) else 0
        elif status is not AttendanceStatus.PRESENT:
            missed += session.jp
    return missed


# --- deciding a result -------------------------------------------------------------------------------------------


def rounded(value: Decimal) -> Decimal:
    """Two decimals, half up."""
    return value.quantize(Decimal("0.01"), ROUND_HALF_UP)


def judge(result: ModuleResult, module: Module, rules: RuleSet) -> tuple[Outcome | None, list[str]]:
    """Whether the attempt is passed, and why not. None while a mark is missing: missing is not zero.

    Passed = absence within the module's limit and every mark above the pass mark (an assumption of this project). A
    repeated attempt is decided by its mark alone.
    """
    scored = module.component is not None or result.attempt > 1
    if scored and result.score is None:
        return None, []
    reasons = []
    if result.attempt == 1 and result.absence_jp > rules.module_absence_limit_share.value * module.placed_jp:
        reasons.append("absence-limit")
    if scored and result.score is not None and not rules.passes(result.score):
        reasons.append("score-below-mark")
    return (Outcome.NOT_PASSED if reasons else Outcome.PASSED), reasons


def settle(
    result: ModuleResult, module: Module, rules: RuleSet, *, locked: bool, reason_code: str, now: datetime
) -> tuple[ModuleResult, list[Event]]:
    """Decide an attempt, or decide it again after a change; what was announced is only ever revised, never repeated."""
    outcome, reasons = judge(result, module, rules)
    if outcome is None or (outcome is result.outcome and reasons == result.reason_codes):
        return result, []
    if locked:
        return result.but(changed_after_lock=True), []
    who = {
        "module_result_id": result.id,
        "cohort_id": result.cohort_id,
        "enrollment_id": result.enrollment_id,
        "participant_id": result.participant_id,
        "agency_id": result.agency_id,
        "module_id": result.module_id,
        "attempt": result.attempt,
        "rule_set_version": rules.version,
    }
    decided = result.but(outcome=outcome, reason_codes=reasons)
    if result.outcome is not None:
        if outcome is result.outcome:
            return decided, []
        revised = ModuleResultRevised(
            **who, supersedes=result.sequences[SOURCE], outcome=outcome, reason_code=reason_code, revised_at=now
        )
        return decided, [revised]
    if outcome is Outcome.PASSED:
        return decided, [ModuleCompleted(**who, hours_credited=module.jp.value.total, completed_at=now)]
    left = max(0, rules.attempts.value - result.attempt)
    return decided, [ModuleNotPassed(**who, attempts_left=left, reason_codes=reasons, decided_at=now)]


def mark(result: ModuleResult, score: Decimal, rules: RuleSet, *, now: datetime) -> tuple[ModuleResult, list[Event]]:
    """Record a mark; a repeated attempt is capped. The mark itself travels on the restricted topic only."""
    given = rounded(min(score, rules.remedial_cap.value) if result.attempt > 1 else score)
    if result.score == given:
        return result, []
    event = ModuleScored(
        module_result_id=result.id,
        cohort_id=result.cohort_id,
        enrollment_id=result.enrollment_id,
        agency_id=result.agency_id,
        module_id=result.module_id,
        attempt=result.attempt,
        score=given,
        scored_at=now,
    )
    return result.but(score=given), [event]


# --- the change project ------------------------------------------------------------------------------------------


def consent(project: ChangeProject, now: datetime) -> tuple[ChangeProject, ChangeProjectPlanned]:
    """The mentor agrees: the project is planned."""
    event = ChangeProjectPlanned(planned_at=now, **_project(project))
    return project.but(consented_at=now), event


def _project(project: ChangeProject) -> dict[str, str]:
    names = ("cohort_id", "enrollment_id", "participant_id", "agency_id")
    return {"project_id": project.id, **{name: getattr(project, name) for name in names}}


def hold_seminar(
    project: ChangeProject,
    stage: ProjectStage,
    attempt: int,
    scores: Mapping[str, Decimal],
    rules: RuleSet,
    *,
    now: datetime,
) -> tuple[ChangeProject, list[Event]]:
    """An examiner marks a seminar by the criteria of the rule set; its mark is their mean.

    Raises `ConsentMissing`, `SeminarNotDue`, `CriteriaMismatch`.
    """
    if project.consented_at is None:
        raise ConsentMissing
    criteria = rules.seminar_criteria[stage.value].value
    if set(scores) != set(criteria):
        raise CriteriaMismatch(criteria=criteria)
    plan, before = project.last(ProjectStage.PLAN), project.last(stage)
    next_attempt = before.attempt + 1 if before else 1
    due = stage is ProjectStage.PLAN or (plan is not None and plan.outcome is Outcome.PASSED)
    passed_before = before is not None and before.outcome is Outcome.PASSED
    if not due or passed_before or attempt != next_attempt or attempt > rules.attempts.value:
        raise SeminarNotDue(next_attempt=next_attempt)
    score = rounded(sum(scores.values(), Decimal(0)) / len(scores))
    if attempt > 1:
        score = min(score, rules.remedial_cap.value)
    outcome = Outcome.PASSED if rules.passes(score) else Outcome.NOT_PASSED
    seminar = Seminar(stage=stage, attempt=attempt, criteria=dict(scores), score=score, outcome=outcome)
    facts = {**_project(project), "stage": stage, "attempt": attempt}
    without_participant = {name: value for name, value in facts.items() if name != "participant_id"}
    events: list[Event] = [
        ChangeProjectAssessed.model_validate({**facts, "outcome": outcome, "assessed_at": now}),
        ChangeProjectScored.model_validate({**without_participant, "score": score, "scored_at": now}),
    ]
    return project.but(seminars=[*project.seminars, seminar]), events


# --- graduation --------------------------------------------------------------------------------------------------


class Judgement(BaseModel):
    """Whether one participant graduates, and why not. No total, and no predicate, while an aspect has no mark."""

    enrollment_id: Id
    graduated: bool
    reason_codes: list[str]
    total: Decimal | None
    predicate: str | None
    absence_jp: int


def last_attempts(results: Iterable[ModuleResult]) -> dict[str, ModuleResult]:
    """Per module the attempt that counts: one that was passed, else the newest."""
    counting: dict[str, ModuleResult] = {}
    for result in sorted(results, key=lambda r: (r.outcome is Outcome.PASSED, r.attempt)):
        counting[result.module_id] = result
    return counting


def missing(
    results: Mapping[str, ModuleResult], project: ChangeProject | None, curriculum: Curriculum, rules: RuleSet
) -> list[str]:
    """What must still be recorded before a participant can be judged, as codes."""
    lacking = []
    for module in curriculum.modules:
        result = results.get(curriculum.module_id(module.code))
        if result is None or result.outcome is None:
            lacking.append(f"module.{module.code}")
    for stage in ProjectStage:
        plan = project.last(ProjectStage.PLAN) if project else None
        last = project.last(stage) if project else None
        exhausted = plan is not None and plan.outcome is Outcome.NOT_PASSED and plan.attempt >= rules.attempts.value
        if last is None and not (stage is ProjectStage.RESULT and exhausted):
            lacking.append(f"project.{stage.value}")
    return lacking


def graduate(
    enrollment_id: str,
    results: Mapping[str, ModuleResult],
    project: ChangeProject | None,
    absences: int,
    curriculum: Curriculum,
    rules: RuleSet,
) -> Judgement:
    """Judge one participant: by each aspect and not by the total; every module passed; absence within the limit.

    Source: graduation logic of BPSDM East Kalimantan, 2026; see the rule set for what is confirmed.
    """
    reasons = []
    if any(result.outcome is not Outcome.PASSED for result in results.values()):
        reasons.append("module-not-passed")
    if absences > rules.absence_limit_jp.value:
        reasons.append("absence-limit")
    components = {curriculum.module_id(m.code): m.component for m in curriculum.modules}
    total: Decimal | None = Decimal(0)
    for component in rules.components:
        if component.code.startswith("project-") and project is not None:
            seminar = project.last(ProjectStage(component.code.removeprefix("project-")))
            marks = [seminar.score] if seminar else []
        else:
            marks = [
                r.score for id, r in results.items() if components.get(id) == component.code and r.score is not None
            ]
        score = rounded(sum(marks, Decimal(0)) / len(marks)) if marks else None
        if score is None or not rules.passes(score):
            reasons.append(f"aspect.{component.code}")
        total = None if total is None or score is None else total + score * component.weight.value / 100
    total = None if total is None else rounded(total)
    predicate = next((band.label.value for band in rules.bands if total is not None and total > band.above), None)
    return Judgement(
        enrollment_id=enrollment_id,
        graduated=not reasons,
        reason_codes=reasons,
        total=total,
        predicate=predicate,
        absence_jp=absences,
    )


def announce(
    record: Record, judgement: Judgement, cohort: Cohort, decision_id: str, decided_on: date
) -> tuple[Record, ProgrammeCompleted | ProgrammeNotCompleted]:
    """Write the graduation meeting's decision into the participant's record."""
    facts = {
        "enrollment_id": record.id,
        "cohort_id": record.cohort_id,
        "participant_id": record.participant_id,
        "agency_id": record.agency_id,
        "programme_id": cohort.programme_id,
        "rule_set_version": cohort.rule_set_version,
        "decision_id": decision_id,
        "decided_on": decided_on,
    }
    decided = record.but(
        graduated=judgement.graduated,
        reason_codes=judgement.reason_codes,
        total=judgement.total,
        predicate=judgement.predicate,
    )
    if judgement.graduated:
        return decided, ProgrammeCompleted.model_validate(facts)
    return decided, ProgrammeNotCompleted.model_validate({**facts, "reason_codes": judgement.reason_codes})


# --- certificates ------------------------------------------------------------------------------------------------


def issue(
    record: Record, cohort: Cohort, number: int, *, organiser: str, pattern: str, jp: int, today: date
) -> tuple[Credential, CredentialIssued]:
    """The numbered certificate of one participant: graduated, or having taken part."""
    assert cohort.programme_id and cohort.starts_on and cohort.ends_on
    credential = Credential(
        id=credential_id(record.id),
        cohort_id=record.cohort_id,
        enrollment_id=record.id,
        participant_id=record.participant_id,
        agency_id=record.agency_id,
        kind=CredentialKind.GRADUATION if record.graduated else CredentialKind.PARTICIPATION,
        number=pattern.format(number=number, organiser=organiser.upper(), month=today.month, year=today.year),
        programme_id=cohort.programme_id,
        cohort_number=cohort.number,
        cohort_year=cohort.year,
        jp=jp,
        starts_on=cohort.starts_on,
        ends_on=cohort.ends_on,
        issued_on=today,
    )
    names = ("cohort_id", "enrollment_id", "participant_id", "agency_id", "kind", "issued_on")
    event = CredentialIssued(credential_id=credential.id, **{name: getattr(credential, name) for name in names})
    return credential, event


def masked(name: str) -> str:
    """A name as the public sees it: initials."""
    return " ".join(word[0] + "." for word in name.split() if word[0].isalnum())


def absences_of(ledgers: Sequence[ModuleLedger], cohort: Cohort, enrollment_id: str) -> int:
    """Training hours missed over the whole programme."""
    return sum(absence_jp(ledger, cohort, enrollment_id) for ledger in ledgers)
