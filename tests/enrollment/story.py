"""What tests of enrollment say in one line."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import httpx

from services.enrollment import commands, domain
from services.enrollment.domain import Agency, Cohort, Nomination, Person
from shared import reference
from shared.contracts.enrollment import AgencyKind
from shared.identity import Role
from shared.mongo import Database
from tests.support import clock_at, token, uid

COHORT = uid(1, 0xC)
NOW = datetime(2022, 1, 10, 2, 0, tzinfo=UTC)
PKP = reference.programme("pkp").id
RULES = reference.rule_set("pkp-2019.1")
ORGANISER = token(Role.ORGANISER, person_id=uid(1, 0x0F))
GOOD = {"employment": "pns", "position_level": "pengawas"}


def coordinator(agency: int) -> dict[str, str]:
    return token(Role.COORDINATOR, person_id=uid(agency, 0xCC), agency_ids=[uid(agency, 0xA)])


def cohort(**changes: Any) -> Cohort:
    given: dict[str, Any] = {
        "id": COHORT,
        "programme_id": PKP,
        "rule_set_version": "pkp-2019.1",
        "curriculum_version": "pkp-2019.1",
        "number": 3,
        "year": 2022,
        "capacity": 40,
        "min_size": 20,
        "nominations_close_at": datetime(2022, 1, 24, tzinfo=UTC),
        "starts_on": date(2022, 2, 21),
        "ends_on": date(2022, 6, 19),
        "zone": "Asia/Jakarta",
        "asked": "x",
    }
    return Cohort.model_validate(given | changes)


def nomination(number: int, **changes: Any) -> Nomination:
    given: dict[str, Any] = {
        "id": domain.nomination_id(COHORT, uid(number, 0xB)),
        "cohort_id": COHORT,
        "participant_id": uid(number, 0xB),
        "agency_id": uid(number, 0xA),
        "mentor_id": uid(number, 0xD),
        "documents": RULES.documents.value,
        "facts": GOOD,
    }
    return Nomination.model_validate(given | changes)


async def opened(database: Database, **changes: Any) -> Cohort:
    with clock_at(NOW):
        return (await commands.open_cohort(cohort(**changes), database))[0]


async def registered(database: Database, *numbers: int) -> None:
    """Agencies 1 … each with a participant and a mentor of the same number; kinds in turn."""
    kinds = list(AgencyKind)
    for n in numbers:
        agency = Agency(id=uid(n, 0xA), code=f"agency-{n}", kind=kinds[n % len(kinds)], name=f"Agency {n}", asked="x")
        await commands.register_agency(agency, database)
        for kind, role in ((0xB, "participant"), (0xD, "mentor")):
            person = Person(
                id=uid(n, kind),
                name=f"{role} {n} (generated)",
                email=f"{role}-{n}@example.go.id",
                agency_id=uid(n, 0xA),
                asked="x",
            )
            await commands.register_person(person, database, key="k" * 16, if_match=None)


def nominee(number: int, **changes: Any) -> commands.Nominee:
    given: dict[str, Any] = {
        "person_id": uid(number, 0xB),
        "mentor_id": uid(number, 0xD),
        "documents": RULES.documents.value,
        "facts": GOOD,
    }
    return commands.Nominee.model_validate(given | changes)


async def accepted(database: Database, number: int) -> str:
    """The accepted nomination of participant `number`."""
    with clock_at(NOW):
        (row,) = await commands.nominate(COHORT, uid(number, 0xA), [nominee(number)], database, None)
        assert row.nomination_id is not None
        await commands.decide_nomination(row.nomination_id, domain.Decision.VERIFY, None, database)
        await commands.accept_nomination(row.nomination_id, database)
        return row.nomination_id


async def put(
    client: httpx.AsyncClient, path: str, who: dict[str, str], body: Any = None, **headers: str
) -> httpx.Response:
    return await client.put(path, json=body, headers=who | headers)
