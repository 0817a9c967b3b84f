"""Who may: tokens that are refused, keys that rotate, routes that must say whom they let in."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

import httpx
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
    assert (caller.person_id, caller.roles, caller.authid) == (uid(1), frozenset({Role.COORDINATOR}), uid(1))
    assert caller.of_agency(uid(2)) and not caller.of_agency(uid(3))


async def test_a_machine_is_named_by_a_digest_never_by_its_subject() -> None:
    caller = await verifier().caller(bearer(Role.SERVICE, sub="payroll-machine"))
    assert len(caller.authid) == 32 and "payroll" not in caller.authid


async def test_a_token_that_comes_again_is_known_while_it_lasts_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    verified, decode = 0, jwt.decode

    def counting(*arguments: Any, **named: Any) -> Any:
        nonlocal verified
        verified += 1
        return decode(*arguments, **named)

    monkeypatch.setattr("shared.identity.jwt.decode", counting)
    monkeypatch.setattr("shared.identity.TOKENS_KNOWN", 2)
    ours, first = verifier(), bearer(Role.ORGANISER)
    assert await ours.caller(first) == await ours.caller(first)
    assert verified == 1
    with pytest.raises(Unauthenticated):
        await ours.caller(first[:-4] + "AAAA")
    for person in range(3):
        await ours.caller(bearer(Role.PARTICIPANT, person_id=uid(person)))
    assert len(ours._known) <= 2
    last = bearer(Role.ORGANISER, exp=int(time.time()) - identity.LEEWAY_SECONDS + 2)
    await ours.caller(last)
    await asyncio.sleep(2.1)
    with pytest.raises(Unauthenticated):
        await ours.caller(last)


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


def stale(issuer: str = ISSUER) -> Verifier:
    """A verifier whose keys are known and want to be asked for again."""
    kept = Verifier(issuer, "enrollment", INSTALLATION_KEY)
    kept.trust(KEYS)
    return kept


async def test_an_issuer_that_hangs_keeps_nobody_waiting_whose_key_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    async def hangs(issuer: str) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        await asyncio.sleep(3600)
        return {}

    monkeypatch.setattr(identity, "KEYS_FRESH_SECONDS", 0.0)
    monkeypatch.setattr(identity, "ASK_PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(identity, "discover_keys", hangs)
    kept, good = stale(), bearer(Role.ORGANISER)
    async with asyncio.timeout(5):
        await asyncio.gather(*(kept.caller(good) for _ in range(20)))
    assert asked == 1


async def test_a_key_that_the_issuer_withdrew_is_refused_at_the_first_call_after_it_went_stale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    new = {**jwt.algorithms.RSAAlgorithm.to_jwk(OTHER_KEY.public_key(), as_dict=True), "kid": "new", "alg": "RS256"}

    async def rotated(issuer: str) -> dict[str, Any]:
        return {"keys": [new]}

    ours, often = stale(), bearer(Role.ORGANISER)
    await ours.caller(often)
    monkeypatch.setattr(identity, "KEYS_FRESH_SECONDS", 0.0)
    monkeypatch.setattr(identity, "discover_keys", rotated)
    for held in (often, bearer(Role.ORGANISER, person_id=uid(1))):
        with pytest.raises(Unauthenticated):
            await ours.caller(held)


NONSENSE: dict[str, Any] = {
    "a list": [1],
    "nothing": {},
    "null": {"keys": None},
    "words": {"keys": ["a", "b"]},
    "no keys": {"keys": []},
    "keys of no kind": {"keys": [{"kid": "test", "kty": "none"}]},
}


@pytest.mark.parametrize("answered", NONSENSE.values(), ids=NONSENSE)
async def test_an_issuer_that_answers_nonsense_counts_as_away(answered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nonsense(issuer: str) -> Any:
        return answered

    monkeypatch.setattr(identity, "KEYS_FRESH_SECONDS", 0.0)
    monkeypatch.setattr(identity, "discover_keys", nonsense)
    assert (await stale().caller(bearer(Role.ORGANISER))).has(Role.ORGANISER)
    with pytest.raises(Unavailable):
        await Verifier(ISSUER, "enrollment", INSTALLATION_KEY).caller(bearer(Role.ORGANISER))


async def test_a_published_key_that_we_cannot_use_hinders_no_other() -> None:
    odd = [{"kid": "odd", "kty": "OKP", "crv": "X448", "x": "AA"}, {"kid": "worse", "kty": "RSA", "n": None, "e": 3}]
    kept = Verifier(ISSUER, "enrollment", INSTALLATION_KEY)
    kept.trust({"keys": [*odd, *KEYS["keys"], {"kty": "EC"}]})
    assert (await kept.caller(bearer(Role.ORGANISER))).has(Role.ORGANISER)


@pytest.mark.parametrize("person", ["196503281990031001", "Budi", "", 7, uid(1).upper().replace("0", "A")])
async def test_a_token_whose_person_is_no_opaque_id_is_refused(person: Any) -> None:
    """The id is announced with what the person does: a personal number in its place must not get in."""
    with pytest.raises(Unauthenticated):
        await verifier().caller(bearer(Role.PARTICIPANT, sub="somebody", person_id=person))


class Answers:
    """What an issuer answers to any request, in place of its address."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *told: Any) -> None:
        answers, client = iter(told), httpx.AsyncClient

        def handle(request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, json=next(answers))

        monkeypatch.setattr(
            httpx, "AsyncClient", lambda **options: client(transport=httpx.MockTransport(handle), **options)
        )


@pytest.mark.parametrize(
    "told",
    [
        [["a"]],
        [{}],
        [{"token_endpoint": None}],
        [{"token_endpoint": "http://i.test:port"}],
        [{"token_endpoint": "http://i.test"}, 7],
    ],
    ids=["a list", "nothing", "null", "no address", "a number for a token"],
)
async def test_a_service_gets_no_token_from_an_issuer_that_answers_nonsense(
    told: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    Answers(monkeypatch, *told)
    with pytest.raises(Unavailable):
        await identity.Tokens("http://i.test", "notification", "secret").get("enrollment")


async def test_a_services_own_token_is_asked_for_once_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = {"token_endpoint": "http://i.test/token"}
    Answers(
        monkeypatch,
        endpoint,
        {"access_token": "one", "expires_in": "300"},
        endpoint,
        {"access_token": "two", "expires_in": 0},
        endpoint,
        {"access_token": "three", "expires_in": 300},
    )
    tokens = identity.Tokens("http://i.test", "notification", "secret")
    assert [await tokens.get("enrollment") for _ in range(3)] == ["one"] * 3
    assert [await tokens.get("assessment") for _ in range(2)] == ["two", "three"]


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
