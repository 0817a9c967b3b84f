"""Who may: tokens that are refused, keys that rotate, routes that must say whom they let in."""

from __future__ import annotations

import time
from typing import Annotated, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import FastAPI

from services.assessment.app import service as assessment
from services.enrollment.app import service as enrollment
from services.notification.app import service as notification
from services.scheduling.app import service as scheduling
from shared import identity
from shared.errors import NotFound, Unavailable
from shared.identity import Caller, Role, Unauthenticated, Verifier
from shared.mongo import Database
from shared.service import Service
from tests.support import INSTALLATION_KEY, ISSUER, KEYS, settings_for, token, uid

SERVICES = [assessment, enrollment, notification, scheduling]
EXTRA = {
    "assessment": {"certificate_key": "A" * 43 + "=", "enrollment_internal_url": "http://127.0.0.1:1"},
    "notification": {"mail_from": "t@example.go.id", "enrollment_internal_url": "http://127.0.0.1:1"},
}


def verifier(audience: str = "enrollment") -> Verifier:
    made = Verifier(ISSUER, audience, INSTALLATION_KEY)
    made.trust(KEYS)
    return made


def bearer(*roles: Role, **claims: Any) -> str:
    return token(*roles, **claims)["Authorization"].removeprefix("Bearer ")


async def test_a_good_token_tells_who_calls() -> None:
    caller = await verifier().caller(bearer(Role.COORDINATOR, person_id=uid(1), agency_ids=[uid(2)]))
    assert (caller.person_id, caller.roles, caller.authid) == (uid(1), {Role.COORDINATOR}, uid(1))
    assert caller.of_agency(uid(2)) and not caller.of_agency(uid(3))


async def test_a_machine_is_named_by_a_digest_never_by_its_subject() -> None:
    caller = await verifier().caller(bearer(Role.SERVICE, sub="payroll-machine"))
    assert len(caller.authid) == 32 and "payroll" not in caller.authid


OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
GOOD = {"iss": ISSUER, "sub": "x", "aud": ["enrollment"], "iat": int(time.time()), "exp": int(time.time()) + 600}


def forged(claims: dict[str, Any], key: Any, algorithm: str, kid: str | None = "test") -> str:
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": kid} if kid else {})


REFUSED = {
    "other audience": lambda: bearer(Role.ORGANISER, audience="scheduling"),
    "other issuer": lambda: bearer(Role.ORGANISER, iss="http://elsewhere.test"),
    "expired": lambda: bearer(Role.ORGANISER, exp=int(time.time()) - 60),
    "not yet": lambda: bearer(Role.ORGANISER, nbf=int(time.time()) + 600),
    "no expiry": lambda: bearer(Role.ORGANISER, exp=None),
    "other key": lambda: forged(GOOD, OTHER_KEY, "RS256"),
    "unknown key id": lambda: forged(GOOD, OTHER_KEY, "RS256", "nobody"),
    "no key id": lambda: forged(GOOD, OTHER_KEY, "RS256", None),
    "none": lambda: forged(GOOD, "", "none"),
    "symmetric": lambda: forged(GOOD, "a secret of thirty-two characters", "HS256"),
    "roles are no list": lambda: bearer(Role.ORGANISER, roles="organiser"),
    "garbage": lambda: "garbage",
    "empty": lambda: "",
}


@pytest.mark.parametrize("made", REFUSED.values(), ids=REFUSED)
async def test_a_token_that_is_not_ours_is_refused(made: Any) -> None:
    with pytest.raises(Unauthenticated):
        await verifier().caller(made())


async def test_without_any_key_the_issuer_is_unavailable_and_not_the_caller_wrong() -> None:
    with pytest.raises(Unavailable):
        await Verifier("http://127.0.0.1:1", "enrollment", INSTALLATION_KEY).caller(bearer(Role.ORGANISER))


async def test_a_new_key_is_fetched_once_and_the_old_one_still_verifies(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    new = {**jwt.algorithms.RSAAlgorithm.to_jwk(OTHER_KEY.public_key(), as_dict=True), "kid": "new", "alg": "RS256"}

    async def rotated(issuer: str) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return {"keys": [*KEYS["keys"], new]}

    monkeypatch.setattr(identity, "discover_keys", rotated)
    kept = verifier()
    for _ in range(3):
        await kept.caller(forged({**GOOD, "roles": []}, OTHER_KEY, "RS256", "new"))
        with pytest.raises(Unauthenticated):
            await kept.caller(forged(GOOD, OTHER_KEY, "RS256", "never-heard-of"))
    await kept.caller(bearer(Role.ORGANISER))
    assert asked == 1


async def test_keys_keep_serving_while_the_issuer_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "KEYS_FRESH_SECONDS", 0.0)
    kept = Verifier("http://127.0.0.1:1", "enrollment", INSTALLATION_KEY)
    kept.trust(KEYS)
    await kept.caller(bearer(Role.ORGANISER, iss="http://127.0.0.1:1"))


@pytest.mark.parametrize("service", SERVICES, ids=lambda s: s.name)
async def test_every_route_states_whom_it_lets_in(service: Service, database: Database) -> None:
    settings = settings_for(service.settings, **EXTRA.get(service.name, {}))
    for app in (service.public_app(database, settings), service.internal_app(database, settings)):
        assert identity.undeclared(app) == []
        assert len(identity.routes_of(app)) > 3


def test_a_route_that_forgets_to_say_so_is_found() -> None:
    app = FastAPI()

    @app.get("/open")
    async def careless() -> None: ...

    @app.get("/twice")
    async def twice(
        a: Annotated[None, identity.public()], b: Annotated[Caller, identity.allow(Role.TRAINER)]
    ) -> None: ...

    assert identity.undeclared(app) == ["['GET'] /open", "['GET'] /twice"]


def caller(*roles: Role, person: str | None = None, agencies: tuple[str, ...] = ()) -> Caller:
    return Caller(person, frozenset(roles), frozenset(agencies), None, "x")


def test_a_role_alone_never_opens_a_persons_record() -> None:
    for role in Role:
        if role is Role.ORGANISER:
            continue
        with pytest.raises(NotFound):
            identity.see_person(caller(role, person=uid(9)), person_id=uid(1), agency_id=uid(2))
        with pytest.raises(NotFound):
            identity.be_one_of(caller(role, person=uid(9)), uid(1), None)
    identity.see_person(caller(Role.PARTICIPANT, person=uid(1)), person_id=uid(1))
    identity.see_person(caller(Role.COORDINATOR, agencies=(uid(2),)), person_id=uid(1), agency_id=uid(2))


def test_a_machine_without_a_person_is_nobody() -> None:
    with pytest.raises(NotFound):
        identity.be_one_of(caller(Role.TRAINER), None)
