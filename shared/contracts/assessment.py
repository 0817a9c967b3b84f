"""What assessment announces: outcomes on `training.assessment`, marks only on `training.assessment-restricted`."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from shared.contracts import Code, Day, Event, Id, Instant, Score


class Outcome(StrEnum):
    """How an attempt ended."""

    PASSED = "passed"
    NOT_PASSED = "not-passed"


class ProjectStage(StrEnum):
    """The two seminars of a change project (aksi perubahan)."""

    PLAN = "plan"  # seminar rancangan
    RESULT = "result"  # seminar hasil


class CredentialKind(StrEnum):
    """What the certificate says."""

    GRADUATION = "graduation"  # STTP: lulus
    PARTICIPATION = "participation"  # telah mengikuti


class ModuleCompleted(Event):
    """A participant completed a module.

    Published exactly once per participant, module and attempt, and never taken back: a later change is a
    `ModuleResultRevised`.
    """

    type: ClassVar[str] = "id.go.lan.training.assessment.module-completed.v1"
    topic: ClassVar[str] = "training.assessment"
    subject_field: ClassVar[str] = "module_result_id"
    key_field: ClassVar[str] = "cohort_id"

    module_result_id: Id
    cohort_id: Id
    enrollment_id: Id
    participant_id: Id
    agency_id: Id
    module_id: Id
    attempt: int
    hours_credited: int  # JP
    rule_set_version: Code
    completed_at: Instant


class ModuleNotPassed(Event):
    """An attempt at a module ended without passing it."""

    type: ClassVar[str] = "id.go.lan.training.assessment.module-not-passed.v1"
    topic: ClassVar[str] = "training.assessment"
    subject_field: ClassVar[str] = "module_result_id"
    key_field: ClassVar[str] = "cohort_id"

    module_result_id: Id
    cohort_id: Id
    enrollment_id: Id
    participant_id: Id
    agency_id: Id
    module_id: Id
    attempt: int
    attempts_left: int
    reason_codes: list[Code]
    rule_set_version: Code
    decided_at: Instant


class ModuleResultRevised(Event):
    """A published module result no longer stands as announced, after a late correction."""

    type: ClassVar[str] = "id.go.lan.training.assessment.module-result-revised.v1"
    topic: ClassVar[str] = "training.assessment"
    subject_field: ClassVar[str] = "module_result_id"
    key_field: ClassVar[str] = "cohort_id"

    module_result_id: Id
    cohort_id: Id
    enrollment_id: Id
    participant_id: Id
    agency_id: Id
    module_id: Id
    attempt: int
    supersedes: int  # the sequence of this subject's event that no longer stands
    outcome: Outcome
    reason_code: Code
    rule_set_version: Code
    revised_at: Instant


class ChangeProjectPlanned(Event):
    """A participant registered a change project (aksi perubahan) and its mentor agreed to it."""

    type: ClassVar[str] = "id.go.lan.training.assessment.change-project-planned.v1"
    topic: ClassVar[str] = "training.assessment"
    subject_field: ClassVar[str] = "project_id"
    key_field: ClassVar[str] = "cohort_id"

    project_id: Id
    cohort_id: Id
    enrollment_id: Id
    participant_id: Id
    agency_id: Id
    planned_at: Instant


class ChangeProjectAssessed(Event):
    """An examiner decided on a change project after one of its two seminars."""

    type: ClassVar[str] = "id.go.lan.training.assessment.change-project-assessed.v1"
    topic: ClassVar[str] = "training.assessment"
    subject_field: ClassVar[str] = "project_id"
    key_field: ClassVar[str] = "cohort_id"

    project_id: Id
    cohort_id: Id
    enrollment_id: Id
    participant_id: Id
    agency_id: Id
    stage: ProjectStage
    attempt: int
    outcome: Outcome
    assessed_at: Instant


class ProgrammeCompleted(Event):
    """The graduation meeting (rapat kelulusan) decided that the participant graduated."""

    type: ClassVar[str] = "id.go.lan.training.assessment.programme-completed.v1"
    topic: ClassVar[str] = "training.assessment"
    subject_field: ClassVar[str] = "enrollment_id"
    key_field: ClassVar[str] = "cohort_id"

    enrollment_id: Id
    cohort_id: Id
    participant_id: Id
    agency_id: Id
    programme_id: Id
    rule_set_version: Code
    decision_id: Id
    decided_on: Day


class ProgrammeNotCompleted(Event):
    """The graduation meeting decided that the participant did not graduate, for the reasons named."""

    type: ClassVar[str] = "id.go.lan.training.assessment.programme-not-completed.v1"
    topic: ClassVar[str] = "training.assessment"
    subject_field: ClassVar[str] = "enrollment_id"
    key_field: ClassVar[str] = "cohort_id"

    enrollment_id: Id
    cohort_id: Id
    participant_id: Id
    agency_id: Id
    programme_id: Id
    rule_set_version: Code
    decision_id: Id
    reason_codes: list[Code]
    decided_on: Day


class CredentialIssued(Event):
    """A numbered certificate (STTP) exists and can be verified in public by its id."""

    type: ClassVar[str] = "id.go.lan.training.assessment.credential-issued.v1"
    topic: ClassVar[str] = "training.assessment"
    subject_field: ClassVar[str] = "credential_id"
    key_field: ClassVar[str] = "cohort_id"

    credential_id: Id
    cohort_id: Id
    enrollment_id: Id
    participant_id: Id
    agency_id: Id
    kind: CredentialKind
    issued_on: Day


class ModuleScored(Event):
    """The mark with which an attempt at a module was decided."""

    type: ClassVar[str] = "id.go.lan.training.assessment.module-scored.v1"
    topic: ClassVar[str] = "training.assessment-restricted"
    subject_field: ClassVar[str] = "module_result_id"
    key_field: ClassVar[str] = "cohort_id"

    module_result_id: Id
    cohort_id: Id
    enrollment_id: Id
    agency_id: Id
    module_id: Id
    attempt: int
    score: Score
    scored_at: Instant


class ChangeProjectScored(Event):
    """The mark that an examiner gave at one of the two seminars of a change project."""

    type: ClassVar[str] = "id.go.lan.training.assessment.change-project-scored.v1"
    topic: ClassVar[str] = "training.assessment-restricted"
    subject_field: ClassVar[str] = "project_id"
    key_field: ClassVar[str] = "cohort_id"

    project_id: Id
    cohort_id: Id
    enrollment_id: Id
    agency_id: Id
    stage: ProjectStage
    attempt: int
    score: Score
    scored_at: Instant
