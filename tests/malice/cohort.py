"""A cohort of which every service that publishes announces something: what its topics hold when nothing is wrong."""

from __future__ import annotations

from collections import Counter
from typing import Any

from shared.cloudevents import Record
from shared.contracts import Event
from shared.contracts.assessment import (
    CredentialIssued,
    CredentialKind,
    ModuleCompleted,
    ModuleNotPassed,
    ProgrammeCompleted,
    ProgrammeNotCompleted,
)
from shared.contracts.enrollment import (
    AgencyKind,
    AgencyRegistered,
    CohortCapacityChanged,
    CohortConfirmed,
    NominationRejected,
    NominationReturned,
    NominationSubmitted,
)
from shared.contracts.notification import Channel, NotificationFailed, NotificationSent, NotificationSuppressed
from shared.contracts.scheduling import AttendanceStatus, TrainerAssigned
from tests.assessment.story import OPENING, PROGRAMME, RULES, Story, module_id
from tests.support import days, record, uid

PLAIN, MARKED = "kebijakan-pelatihan", "bela-negara"
AGENCY = uid(1, 0xA6)
"""Has a subscription; of every cohort's participants the first and the third are its own."""


class Cohort(Story):
    """A cohort of which every service that publishes announces something."""

    def agency(self, i: int) -> str:
        return AGENCY if i % 2 else self._id(2, 5)

    def _nomination(self, i: int) -> dict[str, Any]:
        told = self.enrolled(i).model_dump(include={"nomination_id", "cohort_id", "participant_id", "agency_id"})
        return told | {"submitted_at": OPENING, "returned_at": OPENING, "rejected_at": OPENING}

    def _result(self, i: int, kind: int) -> dict[str, Any]:
        told = self.enrolled(i).model_dump(include={"enrollment_id", "cohort_id", "participant_id", "agency_id"})
        result = {"module_result_id": self._id(i, kind), "module_id": module_id(PLAIN), "attempt": 1}
        return told | result | {"rule_set_version": RULES.version, "programme_id": PROGRAMME.id}

    def _message(self, i: int) -> dict[str, Any]:
        return {
            "notification_id": self._id(i, 0x20),
            "recipient_id": self.person(i),
            "channel": Channel.EMAIL,
            "template": "participant-enrolled",
            "cause_event_id": self._id(i, 0x21),
        }

    def facts(self, topic: str) -> list[Event]:
        """In their order. What nobody but the feed hears of is among them."""
        match topic:
            case "training.enrollment":
                return self._from_enrollment()
            case "training.scheduling":
                return self._from_scheduling()
            case "training.assessment":
                return self._from_assessment()
        return self._from_notification()

    def _from_enrollment(self) -> list[Event]:
        of, agency = self.cohort_id, {"agency_id": self.agency(2), "code": f"agency-{self.n}"}
        return [
            AgencyRegistered.model_validate(agency | {"kind": AgencyKind.PROVINCE, "registered_at": OPENING}),
            self.opened(),
            CohortCapacityChanged(cohort_id=of, capacity=30, previous=40, reason_code="room", changed_at=OPENING),
            NominationSubmitted.model_validate(self._nomination(1)),
            NominationReturned.model_validate(self._nomination(4) | {"reason_code": "document-missing"}),
            NominationRejected.model_validate(self._nomination(4) | {"reason_code": "requirement-not-met"}),
            *(self.enrolled(i) for i in self.people),
            CohortConfirmed(cohort_id=of, size=3, confirmed_at=OPENING),
            self.withdrawn(3),
            self.called_off(),
        ]

    def _from_scheduling(self) -> list[Event]:
        assigned = TrainerAssigned(
            session_id=self.session(PLAIN),
            cohort_id=self.cohort_id,
            module_id=module_id(PLAIN),
            trainer_id=self._id(1, 10),
            assigned_at=OPENING,
        )
        return [
            *(self.formed(group) for group in self.groups),
            self.scheduled(PLAIN),
            self.scheduled(MARKED, 1),
            self.scheduled(MARKED, 2),
            assigned,
            self.published({PLAIN: 1, MARKED: 2}),
            self.regrouped(2, []),
            self.rescheduled(PLAIN, by=days(0.1)),
            self.cancelled(MARKED, 2),
            *(self.attended(PLAIN, i) for i in self.people),
            self.corrected(PLAIN, 2, AttendanceStatus.SICK, AttendanceStatus.PRESENT),
        ]

    def _from_assessment(self) -> list[Event]:
        first, second, third = (self._result(i, 0x22) for i in (1, 2, 3))
        absent = {"attempts_left": 1, "reason_codes": ["absence"], "decided_at": OPENING}
        decided = {"decision_id": self._id(1, 0x23), "decided_on": OPENING.date()}
        paper = {"credential_id": self._id(1, 0x24), "kind": CredentialKind.GRADUATION, "issued_on": OPENING.date()}
        return [
            ModuleNotPassed.model_validate(first | absent),
            ModuleCompleted.model_validate(second | {"hours_credited": 3, "completed_at": OPENING}),
            ProgrammeCompleted.model_validate(third | decided),
            ProgrammeNotCompleted.model_validate(second | decided | {"reason_codes": ["aspect.project-result"]}),
            CredentialIssued.model_validate(third | paper),
        ]

    def _from_notification(self) -> list[Event]:
        failed = {"reason_code": "refused", "failed_at": OPENING}
        return [
            NotificationSent.model_validate(self._message(1) | {"sent_at": OPENING}),
            NotificationFailed.model_validate(self._message(2) | failed),
            NotificationSuppressed.model_validate(
                self._message(3) | {"reason_code": "erased", "suppressed_at": OPENING}
            ),
        ]

    def told(self, topic: str) -> list[tuple[Record, Event]]:
        """As they are published, with the sequence that their publisher counts."""
        counted: Counter[str] = Counter()
        made = []
        for event in self.facts(topic):
            counted[event.subject] += 1
            made.append((record(event, counted[event.subject], at=OPENING), event))
        return made
