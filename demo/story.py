"""What the people of a cohort do, in order: the steps of a scenario, made from what the services answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from demo.player import Gateway, Player, Step, Unexpected
from demo.scenario import Agency, Cast, Person, Scenario
from shared import reference

Told = Callable[[datetime, list[str]], None]
Caller = tuple[str, str | None, tuple[str, ...]]


class Story:
    """One cohort, from the registration of its agencies to its certificates."""

    def __init__(self, scenario: Scenario, people: Cast, gateway: Gateway, player: Player, told: Told) -> None:
        self.scenario = scenario
        self.cast = people
        self._gateway = gateway
        self._player = player
        self._told = told
        self._zone = scenario.zone
        self._curriculum = reference.curriculum(scenario.cohort.curriculum_version.value)
        self._rules = reference.rule_set(scenario.cohort.rule_set_version.value)
        self.cohort_id = scenario.id("cohort")
        self.schedule_id = scenario.id("schedule")
        self.enrollments: dict[str, dict[str, Any]] = {}  # agency code → enrollment
        self._person = {person.id: person for person in people.people}

    # who calls

    @property
    def organiser(self) -> Caller:
        return "organiser", self.cast.organiser.id, ()

    def _coordinator(self, agency: Agency) -> Caller:
        return "coordinator", self.cast.coordinators[agency.code].id, (agency.id,)

    def _at(self, day: date, clock: str) -> datetime:
        return datetime.combine(day, time.fromisoformat(clock), self._zone)

    def _before(self, days: int, clock: str = "09:00") -> datetime:
        return self._at(self.scenario.cohort.starts_on.value - timedelta(days=days), clock)

    def _agency(self, code: str) -> Agency:
        return next(agency for agency in self.cast.agencies if agency.code == code)

    # the play

    @property
    def begins_at(self) -> datetime:
        return self.scenario.begins_at

    async def play(self, provision: Callable[[list[str]], Awaitable[None]]) -> None:
        """Everything, part by part; each part is planned from what the one before it brought about."""
        await self._player.play(self._registration(), self._told)
        await self._player.play(self._opening(provision), self._told)
        await self._player.play(self._nomination(), self._told)
        await self._player.play(self._seats(), self._told)
        await self._player.play(self._replacement(), self._told)
        await self._player.play(self._planning(), self._told)
        move = await self._moving()
        if move is not None:
            before = [step for step in await self._training() if step.at < move.at]
            await self._player.play([*before, move], self._told)
        after = [step for step in await self._training() if move is None or step.at >= move.at]
        await self._player.play(after, self._told)
        await self._player.play(self._graduation(), self._told)

    def _registration(self) -> list[Step]:
        at = self.begins_at
        call, organiser = self._gateway.call, self.organiser

        async def agencies() -> None:
            await asyncio.gather(
                *(
                    call(
                        organiser,
                        "PUT",
                        f"/enrollment/v1/agencies/{a.id}",
                        {"code": a.code, "kind": a.kind, "name": a.name},
                    )
                    for a in self.cast.agencies
                )
            )

        async def people() -> None:
            await asyncio.gather(
                *(
                    call(
                        organiser,
                        "PUT",
                        f"/enrollment/v1/people/{p.id}",
                        {"name": p.name, "email": p.email, "nip": p.nip, "agency_id": p.agency_id, "generated": True},
                    )
                    for p in self.cast.people
                )
            )

        return [
            Step(at, f"the organiser registers {len(self.cast.agencies)} agencies", agencies),
            Step(at, f"the organiser registers {len(self.cast.people)} generated people", people),
        ]

    def _opening(self, provision: Callable[[list[str]], Awaitable[None]]) -> list[Step]:
        call, organiser = self._gateway.call, self.organiser
        cohort = self.scenario.cohort

        async def coordinators() -> None:
            await asyncio.gather(
                *(
                    call(
                        organiser,
                        "PUT",
                        f"/notification/v1/agencies/{a.id}/coordinators/{self.cast.coordinators[a.code].id}",
                    )
                    for a in self.cast.agencies
                )
            )

        async def subscriptions() -> None:
            for code in self.scenario.listeners:
                agency = self._agency(code)
                await call(self._coordinator(agency), "PUT", f"/notification/v1/agencies/{agency.id}/subscription")
            await provision(self.scenario.listeners)

        async def open_cohort() -> None:
            body = {
                "programme_id": reference.programme(cohort.programme.value).id,
                "rule_set_version": cohort.rule_set_version.value,
                "curriculum_version": cohort.curriculum_version.value,
                "number": cohort.number.value,
                "year": cohort.year.value,
                "capacity": cohort.capacity.value,
                "min_size": cohort.min_size.value,
                "nominations_close_at": self._before(28).isoformat(),
                "starts_on": cohort.starts_on.value.isoformat(),
                "ends_on": cohort.ends_on.value.isoformat(),
                "zone": cohort.zone.value,
            }
            await call(organiser, "PUT", f"/enrollment/v1/cohorts/{self.cohort_id}", body)

        async def teaching_staff() -> None:
            codes = [module.code for module in self._curriculum.modules]
            for position, trainer in enumerate(self.cast.trainers):
                own = [code for n, code in enumerate(codes) if (n + position) % 3 != 0]
                await call(organiser, "PUT", f"/scheduling/v1/trainers/{trainer.id}", {"modules": own})
            for room in self.cast.rooms:
                body = {"kind": room["kind"], "seats": room["seats"]}
                await call(organiser, "PUT", f"/scheduling/v1/rooms/{room['id']}", body)

        return [
            Step(self._before(48), "coordinators are named", coordinators),
            Step(
                self._before(48), f"{len(self.scenario.listeners)} agencies subscribe to their own facts", subscriptions
            ),
            Step(self._before(47), f"the organiser opens {self.scenario.title.value} for nomination", open_cohort),
            Step(self._before(47), "trainers' qualifications and rooms are registered", teaching_staff),
        ]

    # nomination

    def _nominee(
        self, person: Person, mentor: Person, *, eligible: bool = True, replaces: str | None = None
    ) -> dict[str, Any]:
        return {
            "person_id": person.id,
            "mentor_id": mentor.id,
            "documents": self._rules.documents.value,
            "facts": {"employment": "pns", "position_level": "pengawas" if eligible else "pelaksana"},
            "replaces": replaces,
        }

    async def _nominate(self, agency: Agency, nominees: list[dict[str, Any]]) -> list[dict[str, Any]]:
        outcome = await self._gateway.call(
            self._coordinator(agency),
            "POST",
            f"/enrollment/v1/cohorts/{self.cohort_id}/nominations",
            {"agency_id": agency.id, "nominees": nominees},
            headers={"Idempotency-Key": f"nominate-{agency.code}-{len(nominees)}-{nominees[-1]['person_id'][:8]}"},
        )
        return list(outcome["rows"])

    def _nomination(self) -> list[Step]:
        def nominating(agency: Agency) -> Callable[[], Awaitable[None]]:
            async def act() -> None:
                nominees = [self._nominee(self.cast.participants[agency.code], self.cast.mentors[agency.code])]
                if agency.code == self.scenario.incidents.not_eligible:
                    spare = self._nominee(
                        self.cast.spare[agency.code], self.cast.spare_mentors[agency.code], eligible=False
                    )
                    nominees.append(spare)
                await self._nominate(agency, nominees)

            return act

        async def verify() -> None:
            page = await self._gateway.call(
                self.organiser, "GET", f"/enrollment/v1/cohorts/{self.cohort_id}/nominations?limit=500"
            )
            await asyncio.gather(*(self._decide(nomination["id"]) for nomination in page["items"]))

        return [
            *(Step(self._before(42), f"{agency.code} nominates", nominating(agency)) for agency in self.cast.agencies),
            Step(self._before(35), "the organiser verifies every nomination against the rule set", verify),
        ]

    async def _decide(self, nomination_id: str) -> None:
        """Verify and accept; whom the rule set does not allow is rejected, with the rule's name."""
        path = f"/enrollment/v1/nominations/{nomination_id}"
        answer = await self._gateway.call(
            self.organiser, "PUT", f"{path}/verification", {"decision": "verify"}, expect=(200, 409)
        )
        if "rule_ids" in answer and answer.get("type", "").endswith("requirements-not-met"):
            await self._gateway.call(self.organiser, "PUT", f"{path}/verification", {"decision": "reject"})
            assert self._player.now is not None
            self._told(self._player.now, [f"a nominee is rejected: {', '.join(answer['rule_ids'])} not met"])
            return
        await self._gateway.call(self.organiser, "PUT", f"{path}/acceptance")

    def _seats(self) -> list[Step]:
        def confirming(agency: Agency) -> Callable[[], Awaitable[None]]:
            return lambda: self._confirm(agency, self.cast.participants[agency.code])

        # One after the other: who confirms first gets the lower roster number, in every play the same.
        return [
            Step(self._before(21) + timedelta(minutes=n), "participants confirm their seats", confirming(agency))
            for n, agency in enumerate(self.cast.agencies)
        ]

    async def _confirm(self, agency: Agency, participant: Person) -> None:
        page = await self._gateway.call(
            self._coordinator(agency), "GET", f"/enrollment/v1/cohorts/{self.cohort_id}/nominations"
        )
        nomination = next(n for n in page["items"] if n["participant_id"] == participant.id)
        self.enrollments[agency.code] = await self._gateway.call(
            ("participant", participant.id, ()), "PUT", f"/enrollment/v1/nominations/{nomination['id']}/confirmation"
        )

    def _replacement(self) -> list[Step]:
        code = self.scenario.incidents.withdraws
        if code is None:
            return []
        agency = self._agency(code)

        async def withdraw() -> None:
            enrollment = self.enrollments[agency.code]
            body = {"reason_code": "assignment", "effective_on": self._before(14).date().isoformat()}
            path = f"/enrollment/v1/enrollments/{enrollment['id']}/withdrawal"
            await self._gateway.call(self._coordinator(agency), "PUT", path, body)

        async def nominate_another() -> None:
            spare = self._nominee(
                self.cast.spare[agency.code],
                self.cast.spare_mentors[agency.code],
                replaces=self.enrollments[agency.code]["id"],
            )
            (row,) = await self._nominate(agency, [spare])
            await self._decide(row["nomination_id"])

        async def confirm() -> None:
            await self._confirm(agency, self.cast.spare[agency.code])

        return [
            Step(self._before(14), f"the participant of {code} withdraws: needed elsewhere", withdraw),
            Step(self._before(12), f"{code} nominates another, who is accepted", nominate_another),
            Step(self._before(10), f"the replacement of {code} confirms", confirm),
        ]

    def _planning(self) -> list[Step]:
        call, organiser = self._gateway.call, self.organiser

        async def confirm_cohort() -> None:
            await call(organiser, "PUT", f"/enrollment/v1/cohorts/{self.cohort_id}/confirmation")

        async def groups() -> None:
            body = {"coach_ids": [c.id for c in self.cast.coaches], "examiner_ids": [e.id for e in self.cast.examiners]}
            await call(organiser, "PUT", f"/scheduling/v1/cohorts/{self.cohort_id}/groups", body)

        async def schedule() -> None:
            path = f"/scheduling/v1/schedules/{self.schedule_id}"
            await call(organiser, "PUT", path, {"cohort_id": self.cohort_id})
            await call(organiser, "PUT", f"{path}/publication")

        return [
            Step(self._before(7), "the organiser confirms the cohort", confirm_cohort),
            Step(self._before(6), "two learning groups are formed", groups),
            Step(self._before(5), "the timetable is placed, checked and published", schedule),
        ]

    # training

    async def _training(self) -> list[Step]:
        """Everything from the first session to the last repeated seminar, by the timetable as it stands."""
        sessions = await self._sessions()
        steps: list[Step] = []
        last_end: dict[str, datetime] = {}
        for session in sessions:
            ends_at = datetime.fromisoformat(session["ends_at"])
            last_end[session["module_id"]] = max(ends_at, last_end.get(session["module_id"], ends_at))
            words = f"attendance is taken ({session['mode']}, {session['jp']} JP)"
            steps.append(Step(ends_at + timedelta(minutes=5), words, self._attendance(session)))
        modules = self._curriculum.by_id()
        ends = {modules[id].code: ends_at for id, ends_at in last_end.items()}
        for id, ends_at in last_end.items():
            if modules[id].component is not None:
                at = ends_at + timedelta(hours=20)
                steps.append(Step(at, f"marks of {modules[id].code} are entered", self._marks(id, modules[id].code)))
        steps += self._projects(ends)
        second = self.scenario.incidents.second_attempt
        if second is not None:
            words = f"the participant of {second.agency} passes {second.module} at the second attempt"
            at = ends[second.module] + timedelta(days=7)
            steps.append(Step(at, words, self._second_attempt(second.agency, second.module, second.scores[1])))
        return steps

    async def _moving(self) -> Step | None:
        """One session is moved three days before it, to the first other slot nearby that the service allows."""
        name = self.scenario.incidents.session_moved
        if name is None:
            return None
        module, _, part = name.partition("/")
        sessions = await self._sessions()
        own = [s for s in sessions if s["module_id"] == self._curriculum.module_id(module)]
        session = own[int(part) - 1]
        starts_at = datetime.fromisoformat(session["starts_at"]).astimezone(self._zone)
        blocks = [clock for clock, _ in self._curriculum.day_templates[session["mode"]].value]
        options = [self._at(starts_at.date() + timedelta(days=n), clock) for n in (0, 1, -1, 2) for clock in blocks]

        async def move() -> None:
            path = f"/scheduling/v1/sessions/{session['id']}/time"
            for option in (o for o in options if o != starts_at):
                body = {"starts_at": option.isoformat(), "reason_code": "organiser"}
                answer = await self._gateway.call(self.organiser, "PUT", path, body, expect=(200, 409))
                if answer.get("ical_sequence") == 1:
                    return
            raise Unexpected(f"no other slot was free for {name}")

        return Step(starts_at - timedelta(days=3), f"session {name} is moved", move)

    async def _sessions(self) -> list[dict[str, Any]]:
        path = f"/scheduling/v1/cohorts/{self.cohort_id}/sessions"
        return list(await self._gateway.call(self.organiser, "GET", path))

    def _attendance(self, session: dict[str, Any]) -> Callable[[], Awaitable[None]]:
        ill = self.scenario.incidents.ill

        async def take() -> None:
            current = await self._gateway.call(self.organiser, "GET", f"/scheduling/v1/sessions/{session['id']}")
            absences = []
            day = datetime.fromisoformat(current["starts_at"]).astimezone(self._zone).date()
            if ill is not None and ill.day == day:
                enrollment_id = self.enrollments[ill.agency]["id"]
                groups = await self._gateway.call(
                    self.organiser, "GET", f"/scheduling/v1/cohorts/{self.cohort_id}/groups"
                )
                own = [g["id"] for g in groups if enrollment_id in g["enrollment_ids"]]
                if set(own) & set(current["group_ids"]):
                    absences.append({"enrollment_id": enrollment_id, "status": "sick"})
            trainer: Caller = ("trainer", current["trainer_ids"][0], ())
            path = f"/scheduling/v1/sessions/{session['id']}/attendance"
            await self._gateway.call(trainer, "PUT", path, {"absences": absences})

        return take

    def _marks(self, module_id: str, code: str) -> Callable[[], Awaitable[None]]:
        second = self.scenario.incidents.second_attempt

        async def mark() -> None:
            marks = []
            for agency_code, enrollment in self.enrollments.items():
                score = self.scenario.score(agency_code, code)
                if second is not None and (second.agency, second.module) == (agency_code, code):
                    score = second.scores[0]
                marks.append({"enrollment_id": enrollment["id"], "score": str(score)})
            path = f"/assessment/v1/cohorts/{self.cohort_id}/modules/{module_id}/marks"
            await self._gateway.call(self.organiser, "PUT", path, {"marks": marks})

        return mark

    def _second_attempt(self, agency_code: str, module: str, score: Decimal) -> Callable[[], Awaitable[None]]:
        async def mark() -> None:
            enrollment_id, module_id = self.enrollments[agency_code]["id"], self._curriculum.module_id(module)
            path = f"/assessment/v1/enrollments/{enrollment_id}/modules/{module_id}/attempts/2"
            await self._gateway.call(self.organiser, "PUT", path, {"score": str(score)})

        return mark

    # change projects

    def _project_id(self, agency_code: str) -> str:
        return self.scenario.id("project", agency_code)

    def _projects(self, ends: dict[str, datetime]) -> list[Step]:
        concept, plan, result = (ends[m] for m in ("konsep-aksi-perubahan", "seminar-rancangan", "seminar-hasil"))
        failing = self.scenario.incidents.not_graduating

        async def register() -> None:
            await asyncio.gather(*(self._register_project(code) for code in self.enrollments))

        async def consent() -> None:
            await asyncio.gather(*(self._consent(code) for code in self.enrollments))

        def seminar(stage: str, attempt: int) -> Callable[[], Awaitable[None]]:
            async def hold() -> None:
                examiners = await self._examiners()
                codes = [failing.agency] if attempt == 2 and failing is not None else list(self.enrollments)
                await asyncio.gather(*(self._seminar(code, stage, attempt, examiners) for code in codes))

            return hold

        steps = [
            Step(concept + timedelta(hours=1), "participants register their change projects", register),
            Step(concept + timedelta(hours=2), "mentors agree to the change projects", consent),
            Step(plan + timedelta(hours=1), "examiners mark the seminars of the plan", seminar("plan", 1)),
            Step(result + timedelta(hours=1), "examiners mark the seminars of the result", seminar("result", 1)),
        ]
        if failing is not None:
            words = f"the participant of {failing.agency} repeats the seminar of the result and does not pass"
            steps.append(Step(result + timedelta(hours=20), words, seminar("result", 2)))
        return steps

    def _participant(self, agency_code: str) -> Person:
        return self._person[self.enrollments[agency_code]["participant_id"]]

    async def _register_project(self, code: str) -> None:
        body = {"enrollment_id": self.enrollments[code]["id"], "theme": "digital-service"}
        caller: Caller = ("participant", self._participant(code).id, ())
        await self._gateway.call(caller, "PUT", f"/assessment/v1/change-projects/{self._project_id(code)}", body)

    async def _consent(self, code: str) -> None:
        caller: Caller = ("mentor", self.enrollments[code]["mentor_id"], ())
        path = f"/assessment/v1/change-projects/{self._project_id(code)}/mentor-consent"
        await self._gateway.call(caller, "PUT", path)

    async def _examiners(self) -> dict[str, str]:
        groups = await self._gateway.call(self.organiser, "GET", f"/scheduling/v1/cohorts/{self.cohort_id}/groups")
        return {id: group["examiner_id"] for group in groups for id in group["enrollment_ids"]}

    async def _seminar(self, code: str, stage: str, attempt: int, examiners: dict[str, str]) -> None:
        failing = self.scenario.incidents.not_graduating
        scores = {}
        for criterion in self._rules.seminar_criteria[stage].value:
            scores[criterion] = str(self.scenario.score(code, stage, criterion))
            if failing is not None and (failing.agency, failing.seminar) == (code, stage):
                scores[criterion] = str(failing.scores[attempt - 1])
        caller: Caller = ("examiner", examiners[self.enrollments[code]["id"]], ())
        path = f"/assessment/v1/change-projects/{self._project_id(code)}/seminars/{stage}"
        await self._gateway.call(caller, "PUT", path, {"attempt": attempt, "scores": scores})

    # the end

    def _graduation(self) -> list[Step]:
        day = self.scenario.cohort.ends_on.value

        async def meeting() -> None:
            body = {"decision_id": self.scenario.id("decision"), "decided_on": day.isoformat()}
            await self._gateway.call(self.organiser, "PUT", f"/assessment/v1/cohorts/{self.cohort_id}/graduation", body)

        async def certificates() -> None:
            await self._gateway.call(self.organiser, "PUT", f"/assessment/v1/cohorts/{self.cohort_id}/certificates")

        return [
            Step(self._at(day, "10:00"), "the graduation meeting decides about every participant", meeting),
            Step(self._at(day, "15:00"), "numbered certificates are issued", certificates),
        ]
