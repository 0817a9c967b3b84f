"""A small cohort as enrollment and scheduling would announce it. Every person in it is made up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from shared import reference
from shared.contracts import Event
from shared.contracts.enrollment import (
    CohortCancelled,
    CohortOpened,
    ParticipantEnrolled,
    ParticipantWithdrawn,
    SeatSource,
    WithdrawalReason,
)
from shared.contracts.scheduling import (
    AttendanceCorrected,
    AttendanceRecorded,
    AttendanceStatus,
    LearningGroupChanged,
    LearningGroupFormed,
    ModulePlan,
    RescheduleReason,
    SchedulePublished,
    SessionCancelled,
    SessionMode,
    SessionRescheduled,
    SessionScheduled,
)
from shared.ids import derive
from tests.support import uid

CURRICULUM = reference.curriculum("pkp-2019.1")
RULES = reference.rule_set("pkp-2019.1")
PROGRAMME = reference.programme("pkp")
MODULES = [module.code for module in CURRICULUM.modules]
SCORED = [module.code for module in CURRICULUM.modules if module.component]
OPENING = datetime(2022, 2, 21, 1, 0, tzinfo=UTC)
DECIDED_ON = date(2022, 6, 17)
AFTER = datetime(2022, 6, 17, 9, 0, tzinfo=UTC)
"""After the last session of every cohort here."""


def module_id(code: str) -> str:
    return CURRICULUM.module_id(code)


@dataclass
class Story:
    """Three participants of two agencies in two learning groups; `n` tells cohorts of one database apart."""

    n: int = 1
    people: Sequence[int] = (1, 2, 3)
    groups: Mapping[int, Sequence[int]] = field(default_factory=lambda: {1: (1, 2), 2: (3,)})

    def _id(self, number: int, kind: int) -> str:
        return uid(self.n * 1000 + number, kind)

    @property
    def cohort_id(self) -> str:
        return self._id(0, 1)

    def enrollment(self, i: int) -> str:
        return self._id(i, 2)

    def person(self, i: int) -> str:
        return self._id(i, 3)

    def mentor(self, i: int) -> str:
        return self._id(i, 4)

    def agency(self, i: int) -> str:
        """Of the first and third participant one, of the second another."""
        return self._id(i % 2, 5)

    def coach(self, group: int) -> str:
        return self._id(group, 6)

    def examiner(self, group: int) -> str:
        return self._id(group, 7)

    def group(self, group: int) -> str:
        return self._id(group, 8)

    def session(self, code: str, number: int = 1) -> str:
        return derive("scheduling", "session", self.cohort_id, code, number)

    # enrollment

    def opened(self) -> CohortOpened:
        return CohortOpened(
            cohort_id=self.cohort_id,
            programme_id=PROGRAMME.id,
            rule_set_version=RULES.version,
            curriculum_version=CURRICULUM.version,
            number=3,
            year=2022,
            capacity=40,
            min_size=1,
            nominations_close_at=OPENING - timedelta(days=10),
            starts_on=OPENING.date(),
            ends_on=DECIDED_ON,
            zone="Asia/Jakarta",
            opened_at=OPENING - timedelta(days=60),
        )

    def enrolled(self, i: int) -> ParticipantEnrolled:
        return ParticipantEnrolled(
            enrollment_id=self.enrollment(i),
            cohort_id=self.cohort_id,
            nomination_id=self._id(i, 9),
            participant_id=self.person(i),
            agency_id=self.agency(i),
            mentor_id=self.mentor(i),
            programme_id=PROGRAMME.id,
            rule_set_version=RULES.version,
            curriculum_version=CURRICULUM.version,
            roster_number=i,
            seat_source=SeatSource.DIRECT,
            enrolled_at=OPENING - timedelta(days=5),
        )

    def withdrawn(self, i: int) -> ParticipantWithdrawn:
        return ParticipantWithdrawn(
            enrollment_id=self.enrollment(i),
            cohort_id=self.cohort_id,
            participant_id=self.person(i),
            agency_id=self.agency(i),
            reason_code=WithdrawalReason.ASSIGNMENT,
            seat_released=False,
            effective_on=OPENING.date(),
            withdrawn_at=OPENING,
        )

    def called_off(self) -> CohortCancelled:
        return CohortCancelled(cohort_id=self.cohort_id, reason_code="too-few", cancelled_at=OPENING)

    # scheduling

    def _group(self, group: int, people: Iterable[int]) -> dict[str, object]:
        return {
            "group_id": self.group(group),
            "cohort_id": self.cohort_id,
            "number": group,
            "enrollment_ids": [self.enrollment(i) for i in people],
            "coach_id": self.coach(group),
            "examiner_id": self.examiner(group),
        }

    def formed(self, group: int) -> LearningGroupFormed:
        facts = self._group(group, self.groups[group])
        return LearningGroupFormed.model_validate({**facts, "formed_at": OPENING})

    def regrouped(self, group: int, people: Iterable[int]) -> LearningGroupChanged:
        return LearningGroupChanged.model_validate({**self._group(group, people), "changed_at": OPENING})

    def starts_at(self, code: str, number: int = 1) -> datetime:
        return OPENING + timedelta(days=MODULES.index(code), hours=4 * (number - 1))

    def ends_at(self, code: str, number: int = 1) -> datetime:
        return self.starts_at(code, number) + timedelta(minutes=135)

    def _session(self, code: str, number: int, jp: int, moved: timedelta) -> dict[str, object]:
        return {
            "session_id": self.session(code, number),
            "cohort_id": self.cohort_id,
            "module_id": module_id(code),
            "jp": jp,
            "mode": SessionMode.DISTANCE,
            "group_ids": [self.group(group) for group in self.groups],
            "starts_at": self.starts_at(code, number) + moved,
            "ends_at": self.ends_at(code, number) + moved,
            "zone": "Asia/Jakarta",
            "trainer_ids": [self._id(1, 10)],
            "room_id": self._id(1, 11),
        }

    def scheduled(self, code: str, number: int = 1, *, jp: int = 3) -> SessionScheduled:
        return SessionScheduled.model_validate(self._session(code, number, jp, timedelta()))

    def rescheduled(self, code: str, number: int = 1, *, jp: int = 3, by: timedelta) -> SessionRescheduled:
        return SessionRescheduled.model_validate(
            {
                **self._session(code, number, jp, by),
                "ical_sequence": 1,
                "previous_starts_at": self.starts_at(code, number),
                "previous_ends_at": self.ends_at(code, number),
                "reason_code": RescheduleReason.TRAINER_UNAVAILABLE,
                "rescheduled_at": OPENING,
            }
        )

    def cancelled(self, code: str, number: int = 1) -> SessionCancelled:
        return SessionCancelled(
            session_id=self.session(code, number),
            cohort_id=self.cohort_id,
            module_id=module_id(code),
            reason_code="organiser",
            cancelled_at=OPENING,
        )

    def published(self, sessions: Mapping[str, int]) -> SchedulePublished:
        """The timetable with so many sessions per module."""
        plans = [
            ModulePlan(
                module_id=module_id(code),
                sessions=number,
                jp_synchronous=3 * number,
                jp_asynchronous=0 if number else 3,
                jp_classical=0,
                starts_on=self.starts_at(code).date(),
                ends_on=self.starts_at(code, number or 1).date(),
            )
            for code, number in sessions.items()
        ]
        return SchedulePublished(
            schedule_id=self._id(1, 12),
            cohort_id=self.cohort_id,
            schedule_version=1,
            curriculum_version=CURRICULUM.version,
            modules=plans,
            added=sum(sessions.values()),
            changed=0,
            removed=0,
            first_day=OPENING.date(),
            last_day=DECIDED_ON,
            published_at=OPENING,
        )

    def attended(
        self, code: str, i: int, status: AttendanceStatus = AttendanceStatus.PRESENT, *, number: int = 1, jp: int = 3
    ) -> AttendanceRecorded:
        facts = self._attendance(code, number, i, jp)
        ended = self.ends_at(code, number)
        return AttendanceRecorded.model_validate({**facts, "status": status, "recorded_at": ended})

    def corrected(
        self,
        code: str,
        i: int,
        status: AttendanceStatus,
        previous: AttendanceStatus,
        *,
        number: int = 1,
        jp: int = 3,
    ) -> AttendanceCorrected:
        return AttendanceCorrected.model_validate(
            {
                **self._attendance(code, number, i, jp),
                "status": status,
                "previous": previous,
                "reason_code": "recorded-wrongly",
                "corrected_at": AFTER,
            }
        )

    def _attendance(self, code: str, number: int, i: int, jp: int) -> dict[str, object]:
        session_id = self.session(code, number)
        return {
            "attendance_id": derive("scheduling", "attendance", session_id, self.enrollment(i)),
            "session_id": session_id,
            "module_id": module_id(code),
            "cohort_id": self.cohort_id,
            "enrollment_id": self.enrollment(i),
            "participant_id": self.person(i),
            "agency_id": self.agency(i),
            "jp": jp,
        }

    # whole passages

    def enrollment_facts(self) -> list[Event]:
        return [self.opened(), *(self.enrolled(i) for i in self.people)]

    def timetable(self, modules: Iterable[str] = MODULES) -> list[Event]:
        """Groups formed and one session of three hours per module."""
        codes = list(modules)
        return [
            *(self.formed(group) for group in self.groups),
            *(self.scheduled(code) for code in codes),
            self.published(dict.fromkeys(codes, 1)),
        ]

    def attendance(self, modules: Iterable[str] = MODULES) -> list[Event]:
        """Everybody was there."""
        return [self.attended(code, i) for code in modules for i in self.people]

    def whole(self) -> list[Event]:
        """Everything that others announce of a cohort until its last session."""
        return [*self.enrollment_facts(), *self.timetable(), *self.attendance()]
