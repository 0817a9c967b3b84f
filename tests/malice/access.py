"""Who may call what: every route of every service, those behind the gateway and those of the internal port.

One line per route, read as a sentence: these roles may call it, and what it is about is open to those. Whoever has none
of the roles is answered 403; whoever is nobody of those to whom it is open, 404; without a token, 401. A new route
needs its line here.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.identity import Role

ORGANISER, COORDINATOR, TRAINER = Role.ORGANISER, Role.COORDINATOR, Role.TRAINER
PARTICIPANT, MENTOR, COACH, EXAMINER = Role.PARTICIPANT, Role.MENTOR, Role.COACH, Role.EXAMINER
ANY_ROLE = tuple(role for role in Role if role is not Role.SERVICE)


@dataclass(frozen=True)
class Who:
    """Who may call a route. `to` and `shows` name relations to what is asked for; empty means whoever has the role.

    A relation is `organiser`, `agency` (the coordinator of the agency that it concerns), or the person whom it
    concerns in that capacity, whatever role that person's token has.
    """

    roles: tuple[Role, ...] = ()
    services: tuple[str, ...] = ()
    public: bool = False
    to: tuple[str, ...] = ()
    """For all others it does not exist."""
    shows: tuple[str, ...] = ()
    """A list: all others are answered too, but without what concerns somebody else; or it does not exist for them."""


def may(*roles: Role, to: tuple[str, ...] = (), shows: tuple[str, ...] = ()) -> Who:
    return Who(roles, to=to, shows=shows)


PUBLIC = Who(public=True)
HEALTH = {f"GET {path}": PUBLIC for path in ("/healthz", "/readyz", "/metrics", "/internal/v1/quiet")}

# What changes a world stands behind what is asked of it: routes are tried in this order.
ACCESS: dict[str, dict[str, Who]] = {
    "enrollment": {
        "PUT /v1/agencies/{agency_id}": may(ORGANISER),
        "GET /v1/agencies/{agency_id}": may(*ANY_ROLE),
        "GET /v1/agencies": may(*ANY_ROLE),
        "PUT /v1/people/{person_id}": may(ORGANISER, COORDINATOR, to=("organiser", "agency")),
        "GET /v1/people/{person_id}": may(*ANY_ROLE, to=("organiser", "agency", "participant")),
        "PUT /v1/cohorts/{cohort_id}": may(ORGANISER),
        "GET /v1/cohorts/{cohort_id}": may(*ANY_ROLE),
        "GET /v1/cohorts": may(*ANY_ROLE),
        "GET /v1/cohorts/{cohort_id}/composition": may(*ANY_ROLE),
        "POST /v1/cohorts/{cohort_id}/nominations": may(ORGANISER, COORDINATOR, to=("organiser", "agency")),
        "GET /v1/cohorts/{cohort_id}/nominations": may(ORGANISER, COORDINATOR, shows=("organiser", "agency")),
        "GET /v1/nominations/{nomination_id}": may(*ANY_ROLE, to=("organiser", "agency", "participant")),
        "PUT /v1/nominations/{nomination_id}/verification": may(ORGANISER),
        "PUT /v1/nominations/{nomination_id}/acceptance": may(ORGANISER),
        "PUT /v1/nominations/{nomination_id}/confirmation": may(*ANY_ROLE, to=("organiser", "agency", "participant")),
        "GET /v1/enrollments/{enrollment_id}": may(*ANY_ROLE, to=("organiser", "agency", "participant", "mentor")),
        "GET /v1/cohorts/{cohort_id}/enrollments": may(ORGANISER, COORDINATOR, shows=("organiser", "agency")),
        "PUT /v1/enrollments/{enrollment_id}/withdrawal": may(ORGANISER, COORDINATOR, to=("organiser", "agency")),
        "PUT /v1/cohorts/{cohort_id}/capacity": may(ORGANISER),
        "PUT /v1/cohorts/{cohort_id}/confirmation": may(ORGANISER),
        "PUT /v1/cohorts/{cohort_id}/cancellation": may(ORGANISER),
        "POST /internal/v1/contacts": Who(services=("notification", "assessment")),
        **HEALTH,
    },
    "scheduling": {
        "PUT /v1/trainers/{person_id}": may(ORGANISER),
        "GET /v1/trainers/{person_id}": may(ORGANISER, TRAINER, to=("organiser", "trainer")),
        "PUT /v1/rooms/{room_id}": may(ORGANISER),
        "GET /v1/rooms/{room_id}": may(*ANY_ROLE),
        "PUT /v1/cohorts/{cohort_id}/groups": may(ORGANISER),
        "GET /v1/cohorts/{cohort_id}/groups": may(
            ORGANISER, TRAINER, COACH, EXAMINER, shows=("organiser", "coach", "examiner")
        ),
        "PUT /v1/schedules/{schedule_id}": may(ORGANISER),
        "GET /v1/schedules/{schedule_id}": may(ORGANISER),
        "PUT /v1/schedules/{schedule_id}/publication": may(ORGANISER),
        "PUT /v1/schedules/{schedule_id}/search": may(ORGANISER),
        "GET /v1/schedules/{schedule_id}/search": may(ORGANISER),
        "DELETE /v1/schedules/{schedule_id}/search": may(ORGANISER),
        "GET /v1/cohorts/{cohort_id}/sessions": may(*ANY_ROLE),
        "GET /v1/sessions/{session_id}": may(*ANY_ROLE),
        "PUT /v1/sessions/{session_id}/time": may(ORGANISER),
        "PUT /v1/sessions/{session_id}/attendance": may(ORGANISER, TRAINER, to=("organiser", "trainer")),
        "GET /v1/sessions/{session_id}/attendance": may(ORGANISER, TRAINER, to=("organiser", "trainer")),
        "PUT /v1/sessions/{session_id}/attendance/{enrollment_id}": may(
            ORGANISER, TRAINER, to=("organiser", "trainer")
        ),
        **HEALTH,
    },
    "assessment": {
        "PUT /v1/cohorts/{cohort_id}/modules/{module_id}/marks": may(ORGANISER),
        "PUT /v1/enrollments/{enrollment_id}/modules/{module_id}/attempts/{attempt}": may(ORGANISER),
        "GET /v1/enrollments/{enrollment_id}/results": may(
            *ANY_ROLE, to=("organiser", "agency", "participant", "mentor", "coach", "examiner")
        ),
        "GET /v1/cohorts/{cohort_id}/results": may(ORGANISER, COORDINATOR, shows=("organiser", "agency")),
        "PUT /v1/change-projects/{project_id}": may(ORGANISER, PARTICIPANT, to=("organiser", "participant")),
        "GET /v1/change-projects/{project_id}": may(
            *ANY_ROLE, to=("organiser", "participant", "mentor", "coach", "examiner")
        ),
        "PUT /v1/change-projects/{project_id}/mentor-consent": may(MENTOR, to=("mentor",)),
        "PUT /v1/change-projects/{project_id}/seminars/{stage}": may(EXAMINER, to=("examiner",)),
        "PUT /v1/cohorts/{cohort_id}/graduation": may(ORGANISER),
        "GET /v1/cohorts/{cohort_id}/graduation": may(
            ORGANISER, COORDINATOR, PARTICIPANT, shows=("organiser", "agency", "participant")
        ),
        "PUT /v1/cohorts/{cohort_id}/certificates": may(ORGANISER),
        "GET /v1/credentials/{credential_id}": may(*ANY_ROLE, to=("organiser", "participant")),
        "GET /v1/verify/{credential_id}": PUBLIC,
        **HEALTH,
    },
    "notification": {
        "PUT /v1/agencies/{agency_id}/subscription": may(ORGANISER, COORDINATOR, to=("organiser", "agency")),
        "GET /v1/agencies/{agency_id}/subscription": may(ORGANISER, COORDINATOR, to=("organiser", "agency")),
        "PUT /v1/agencies/{agency_id}/coordinators/{person_id}": may(ORGANISER),
        "GET /v1/inbox": may(*ANY_ROLE, shows=("participant",)),
        "PUT /v1/inbox/{message_id}/read": may(*ANY_ROLE, to=("participant",)),
        "GET /v1/rules": may(*ANY_ROLE),
        "GET /v1/deliveries": may(ORGANISER),
        **HEALTH,
    },
}
