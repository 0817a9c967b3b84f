"""Who calls, and what they may: tokens verified by the issuer's keys, roles stated by every route, one policy.

Deny by default. A role alone never opens a person's record: the policy compares the caller's `person_id` and
`agency_ids` with the ids in a service's own state. What is not yours does not exist (404).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

import httpx
import jwt
import structlog
from fastapi import Depends, FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from shared.errors import Failure, NotFound, Unavailable
from shared.ids import is_id

ALGORITHMS = ("RS256", "ES256", "EdDSA")
LEEWAY_SECONDS = 30
TOKENS_KNOWN = 10_000
KEYS_FRESH_SECONDS = 300.0
ASK_AGAIN_SECONDS = 5.0
ASK_PATIENCE_SECONDS = 1.0  # how long a caller whose key is known waits to hear whether it still is the issuer's

_BAD_ANSWER = (httpx.HTTPError, httpx.InvalidURL, LookupError, ValueError, TypeError, AttributeError, jwt.PyJWTError)
"""What an issuer causes that is away, or that answers something else than it should."""

log = structlog.get_logger("identity")


class Role(StrEnum):
    """What somebody is in the training."""

    ORGANISER = "organiser"  # penyelenggara
    COORDINATOR = "coordinator"  # of an agency: nominates its people
    TRAINER = "trainer"  # widyaiswara
    PARTICIPANT = "participant"
    MENTOR = "mentor"  # the participant's direct superior
    COACH = "coach"
    EXAMINER = "examiner"  # penguji
    OPERATOR = "operator"
    SERVICE = "service"


class Unauthenticated(Failure):
    """The request carries no valid token for this service."""

    status: ClassVar[int] = 401


class Forbidden(Failure):
    """Your role may not do this."""

    status: ClassVar[int] = 403


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as the token says."""

    person_id: str | None
    roles: frozenset[Role]
    agency_ids: frozenset[str]
    client: str | None
    authid: str

    def has(self, *roles: Role) -> bool:
        return not self.roles.isdisjoint(roles)

    def of_agency(self, agency_id: str) -> bool:
        """Whether the caller coordinates this agency's training."""
        return self.has(Role.COORDINATOR) and agency_id in self.agency_ids

    def is_person(self, *person_ids: str | None) -> bool:
        return self.person_id is not None and self.person_id in person_ids


# --- policy ------------------------------------------------------------------------------------------------------


def see_person(caller: Caller, *, person_id: str, agency_id: str | None = None) -> None:
    """The person itself, the coordinator of its agency, or the organiser. Raises `NotFound`."""
    if caller.has(Role.ORGANISER) or caller.is_person(person_id):
        return
    if agency_id is not None and caller.of_agency(agency_id):
        return
    raise NotFound


def act_for_agency(caller: Caller, agency_id: str) -> None:
    """The coordinator of the agency, or the organiser. Raises `NotFound`."""
    if not (caller.has(Role.ORGANISER) or caller.of_agency(agency_id)):
        raise NotFound


def be_one_of(caller: Caller, *person_ids: str | None) -> None:
    """One of these persons, or the organiser. Raises `NotFound`."""
    if not (caller.has(Role.ORGANISER) or caller.is_person(*person_ids)):
        raise NotFound


# --- who acts, for what is announced -----------------------------------------------------------------------------

_acting: ContextVar[tuple[str, str]] = ContextVar("acting", default=("system", "system"))


def acting() -> tuple[str, str]:
    """CloudEvents `authtype` and `authid` of whoever causes what is being written."""
    return _acting.get()


@contextmanager
def acting_as_system() -> Iterator[None]:
    """Inside, the service itself acts: a handler or a timer."""
    token = _acting.set(("system", "system"))
    try:
        yield
    finally:
        _acting.reset(token)


def act_as(caller: Caller) -> None:
    """From here on in this request, the caller acts."""
    _acting.set(("user" if caller.person_id else "service_account", caller.authid))


# --- tokens ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Known:
    """Whose a verified token is, by which of the issuer's keys, and when it ends."""

    caller: Caller
    kid: str
    key: jwt.PyJWK
    until: int


class Verifier:
    """Verifies tokens for one service by the issuer's published keys, which may rotate at any time."""

    def __init__(self, issuer: str, audience: str, installation_key: str) -> None:
        self._issuer = issuer
        self._audience = audience
        self._installation_key = installation_key.encode()
        self._keys: dict[str, jwt.PyJWK] = {}
        self._known: dict[bytes, _Known] = {}
        self._asked_at = float("-inf")
        self._got_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None
        self._away = False

    def trust(self, jwks: Mapping[str, Any]) -> None:
        """Take these keys as the issuer's present ones. A key of a kind that we cannot use hinders no other."""
        keys: dict[str, jwt.PyJWK] = {}
        for published in jwks["keys"]:
            if published.get("use", "sig") == "sig" and isinstance(published.get("kid"), str):
                with suppress(jwt.PyJWTError, ValueError, TypeError, LookupError):
                    keys[published["kid"]] = jwt.PyJWK(published)
        if not keys:
            raise LookupError("no key in it can be used")
        self._keys = keys
        self._got_at = time.monotonic()

    async def caller(self, bearer: str) -> Caller:
        """Who holds this token. Raises `Unauthenticated`; `Unavailable` while no key of the issuer is known.

        A token that was verified is known again while it lasts and its key is among the issuer's: a client sends the
        same one with every request, and verifying costs more than anything else of a short one.
        """
        digest = hashlib.sha256(bearer.encode("utf-8", "surrogatepass")).digest()
        if (known := self._known.get(digest)) is not None:
            if time.time() - LEEWAY_SECONDS < known.until and await self._key(known.kid) is known.key:
                return known.caller
            self._known.pop(digest, None)
        try:
            header = jwt.get_unverified_header(bearer)
        except jwt.PyJWTError:
            raise Unauthenticated from None
        if header.get("alg") not in ALGORITHMS or not isinstance(header.get("kid"), str):
            raise Unauthenticated
        key = await self._key(header["kid"])
        if key is None:
            raise Unauthenticated
        try:
            claims = jwt.decode(
                bearer,
                key,
                algorithms=[header["alg"]],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iat", "aud", "iss", "sub"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError):
            raise Unauthenticated from None
        caller = self._caller(claims)
        if len(self._known) >= TOKENS_KNOWN:
            self._known.clear()
        self._known[digest] = _Known(caller, header["kid"], key, int(claims["exp"]))
        return caller

    async def _key(self, kid: str) -> jwt.PyJWK | None:
        """The issuer's key of this name. An issuer that is away or hangs keeps nobody waiting whose key is known."""
        now = time.monotonic()
        if kid in self._keys:
            if now - self._got_at >= KEYS_FRESH_SECONDS and (asking := self._ask()) and not self._away:
                await asyncio.wait({asking}, timeout=ASK_PATIENCE_SECONDS)
        elif asking := self._ask():
            await asyncio.wait({asking})
        if not self._keys:
            raise Unavailable
        return self._keys.get(kid)

    def _ask(self) -> asyncio.Task[None] | None:
        """Ask the issuer for its keys, once for all who want to know; not again at once, unless no key is known."""
        rested = time.monotonic() - self._asked_at >= ASK_AGAIN_SECONDS
        if self._asking is None and (rested or not self._keys):
            self._asking = asyncio.create_task(self._refresh())
        return self._asking

    async def _refresh(self) -> None:
        try:
            self.trust(await discover_keys(self._issuer))
            self._away = False
        except _BAD_ANSWER as error:
            self._away = True
            log.warning("issuer.away", reason=type(error).__name__)
        finally:
            self._asked_at = time.monotonic()
            self._asking = None

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        roles, agencies = claims.get("roles", []), claims.get("agency_ids", [])
        person_id, client = claims.get("person_id"), claims.get("client_id")
        well_formed = (
            isinstance(roles, list)
            and isinstance(agencies, list)
            and all(isinstance(item, str) for item in (*roles, *agencies))
            and (client is None or isinstance(client, str))
            and (person_id is None or is_id(person_id))  # it is announced as `authid`: never a personal number
        )
        if not well_formed:
            raise Unauthenticated
        known = frozenset(role for role in Role if role.value in roles)
        return Caller(person_id, known, frozenset(agencies), client, person_id or self._opaque(str(claims["sub"])))

    def _opaque(self, subject: str) -> str:
        """The first 128 bits of HMAC-SHA256 over issuer and subject: never the subject itself."""
        message = f"{self._issuer}\n{subject}".encode()
        return hmac.new(self._installation_key, message, hashlib.sha256).hexdigest()[:32]


async def _discovery(client: httpx.AsyncClient, issuer: str) -> dict[str, Any]:
    answer = await client.get(issuer.rstrip("/") + "/.well-known/openid-configuration")
    answer.raise_for_status()
    return dict(answer.json())


async def discover_keys(issuer: str) -> dict[str, Any]:
    """The issuer's JWKS, found by OpenID Connect discovery."""
    async with httpx.AsyncClient(timeout=3) as client:
        answer = await client.get((await _discovery(client, issuer))["jwks_uri"])
        answer.raise_for_status()
        return dict(answer.json())


def verifier(issuer: str, audience: str, installation_key: str) -> Verifier:
    return Verifier(issuer, audience, installation_key)


class Tokens:
    """This service's own tokens for calling others, by client credentials, kept until shortly before they end."""

    def __init__(self, issuer: str, client_id: str, secret: str) -> None:
        self._issuer = issuer
        self._client = (client_id, secret)
        self._tokens: dict[str, tuple[str, float]] = {}

    async def get(self, audience: str) -> str:
        """A token for calling that service. Raises `Unavailable` when the issuer is away or refuses."""
        token, ends_at = self._tokens.get(audience, ("", 0.0))
        if time.monotonic() < ends_at:
            return token
        try:
            async with httpx.AsyncClient(timeout=3) as client:
                endpoint = (await _discovery(client, self._issuer))["token_endpoint"]
                client_id, secret = self._client
                asked = {"grant_type": "client_credentials", "audience": audience}
                answer = await client.post(endpoint, data=asked | {"client_id": client_id, "client_secret": secret})
                answer.raise_for_status()
                granted = answer.json()
                token, seconds = str(granted["access_token"]), float(granted.get("expires_in", 60))
        except _BAD_ANSWER as error:
            raise Unavailable from error
        self._tokens[audience] = (token, time.monotonic() + seconds * 0.8)
        return token


# --- routes ------------------------------------------------------------------------------------------------------


async def caller_of(request: Request) -> Caller:
    """Who calls, verified once per request."""
    known: Caller | None = getattr(request.state, "caller", None)
    if known is None:
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not bearer:
            raise Unauthenticated
        known = request.state.caller = await request.app.state.verifier.caller(bearer.strip())
    return known


class Allowed:
    """The dependency by which a route states who may call it."""

    def __init__(self, roles: frozenset[Role], services: frozenset[str]) -> None:
        self.roles = roles
        self.services = services

    async def __call__(self, request: Request) -> Caller:
        caller = await caller_of(request)
        as_service = caller.has(Role.SERVICE) and caller.client in self.services
        if not as_service and not caller.has(*(self.roles - {Role.SERVICE})):
            raise Forbidden
        act_as(caller)
        return caller


class Public:
    """The dependency by which a route states that anybody may call it."""

    async def __call__(self) -> None:
        return None


def allow(*roles: Role, services: tuple[str, ...] = ()) -> Any:
    """Callers with one of these roles, or one of these services, may call the route."""
    return Depends(Allowed(frozenset(roles), frozenset(services)))


def public() -> Any:
    """Anybody may call the route."""
    return Depends(Public())


def statement_of(route: APIRoute) -> list[Allowed | Public]:
    """What a route states about its callers: exactly one statement, or it must not be served."""

    def walk(dependant: Dependant) -> Iterator[Allowed | Public]:
        for inner in dependant.dependencies:
            if isinstance(inner.call, (Allowed, Public)):
                yield inner.call
            yield from walk(inner)

    return list(walk(route.dependant))


def routes_of(app: FastAPI) -> list[APIRoute]:
    """Every route of ours that an app serves; the framework's own pages are not among them."""

    def walk(routes: Iterable[Any]) -> Iterator[APIRoute]:
        for route in routes:
            if isinstance(route, APIRoute):
                yield route
            elif hasattr(route, "original_router"):  # a router that was included
                yield from walk(route.original_router.routes)
            elif hasattr(route, "routes"):
                yield from walk(route.routes or ())

    return list(walk(app.routes))


def undeclared(app: FastAPI) -> list[str]:
    """Routes that do not state exactly once who may call them."""
    return [f"{sorted(route.methods or ())} {route.path}" for route in routes_of(app) if len(statement_of(route)) != 1]
