"""Every route × role × own or another's agency × own or another's person, as `access.py` says; and forged tokens."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
import uuid
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from shared.identity import Role
from shared.mongo import Database
from tests.malice.access import ACCESS, Who
from tests.malice.doors import doors
from tests.malice.worlds import SERVICES, WORLDS, World
from tests.support import ISSUER, KEYS, clock_at, service_token, token, uid


@dataclass(frozen=True)
class Somebody:
    """A caller: the roles, the person, and whether the agency is the one whose things are asked for."""

    name: str
    headers: dict[str, str]
    roles: frozenset[Role] = frozenset()
    relations: frozenset[str] = frozenset()
    client: str | None = None


def everybody(world: World) -> Iterator[Somebody]:
    """Every role, and all of them but the organiser's at once, as each person, of the own agency or another.

    An agency opens something to its coordinator only: for the others it is the own one, which is the harder case.
    """
    allowed = tuple(role for role in Role if role is not Role.SERVICE)
    sets: dict[str, tuple[Role, ...]] = {role.value: (role,) for role in allowed}
    sets["every role but the organiser's"] = tuple(role for role in allowed if role is not Role.ORGANISER)
    for called, roles in sets.items():
        for relation, person_id in {**world.people, "no person": None}.items():
            agencies = {"own agency": world.agency, "another agency": world.other_agency}
            if Role.COORDINATOR not in roles:
                del agencies["another agency"]
            for whose, agency in agencies.items():
                related = {relation} if person_id else set()
                if Role.ORGANISER in roles:
                    related.add("organiser")
                if Role.COORDINATOR in roles and agency == world.agency:
                    related.add("agency")
                headers = token(*roles, person_id=person_id, agency_ids=[agency], audience=world.service.name)
                name = f"{called}, {relation}, {whose}"
                yield Somebody(name, headers, frozenset(roles), frozenset(related))
    for client in ("enrollment", "scheduling", "assessment", "notification", "unheard-of"):
        headers = service_token(client, world.service.name)
        yield Somebody(f"service {client}", headers, frozenset({Role.SERVICE}), client=client)
    yield Somebody("nobody", {})


def verdict(who: Who, caller: Somebody) -> int:
    """200 (let in), 401, 403 or 404."""
    if who.public or (caller.client is not None and caller.client in who.services):
        return 200
    if not caller.headers:
        return 401
    if not caller.roles & set(who.roles):
        return 403
    return 200 if not who.to or caller.relations & set(who.to) else 404


def telling(who: Who, callers: list[Somebody]) -> Iterator[Somebody]:
    """Those callers whose answers can differ: where a role alone decides, two persons of each role are enough."""
    asked: Counter[tuple[frozenset[Role], int]] = Counter()
    for caller in callers:
        expected = verdict(who, caller)
        decided = who.public or expected == 403 or not (who.to or who.shows)
        asked[caller.roles, expected] += 1
        if not decided or caller.client or asked[caller.roles, expected] <= 2:
            yield caller


def wrong(world: World, route: str, who: Who, caller: Somebody, answer: httpx.Response) -> str | None:
    """What is wrong with this answer, if anything is."""
    expected, got = verdict(who, caller), answer.status_code
    if expected != 200:
        told = {"type", "title", "status", "correlation_id"}
        fits = got == expected and set(answer.json()) == told  # of what is not yours not even a member is told
        return None if fits else f"{got} instead of {expected}"
    if (seen := world.seen.get(route)) is not None and not caller.relations & set(who.shows):
        return None if got == 404 or (got == 200 and seen not in answer.text) else f"{got}, or shown another's"
    if seen is not None and seen not in answer.text:
        return f"{got}, and does not show what is the caller's"
    return None if got in (200, 201, 202, 409) else f"{got} instead of being let in"


async def contents(database: Database) -> str:
    """A digest of everything that the database holds."""
    digest = hashlib.sha256()
    for name in sorted(await database.collection("outbox").database.list_collection_names()):
        for document in await database.collection(name).find({}).sort([("_id", 1)]).to_list(None):
            digest.update(f"{name} {document}\n".encode())
    return digest.hexdigest()


async def test_everybody_is_let_in_exactly_where_the_table_says_so_and_whoever_is_refused_changes_nothing(
    world: World,
) -> None:
    table, callers = ACCESS[world.service.name], list(everybody(world))
    found, done = [], set()
    async with doors(world.service, world.database) as served:
        assert set(served) == set(table), "a route and its line in access.py"

        async def ask(route: str, who: Who, caller: Somebody) -> None:
            method, path, body = world.request(route)
            answer = await served[route].request(method, path, json=body, headers=caller.headers)
            if told := wrong(world, route, who, caller, answer):
                found.append(f"{route} as {caller.name}: {told}")
            if answer.is_success:
                done.add(route)

        with clock_at(world.at):
            before = await contents(world.database)
            for route, who in table.items():
                for caller in (one for one in telling(who, callers) if verdict(who, one) != 200):
                    await ask(route, who, caller)
            assert found == []
            assert await contents(world.database) == before
            for route, who in table.items():
                for caller in (one for one in telling(who, callers) if verdict(who, one) == 200):
                    await ask(route, who, caller)
    assert found == []
    assert done == set(table), "every route was answered as it should to somebody"


# --- tokens ------------------------------------------------------------------------------------------------------

OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OUR_PUBLIC_KEY = jwt.PyJWK(KEYS["keys"][0]).key.public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
EVERYTHING = (*Role,)


def good(audience: str, **changes: Any) -> str:
    return token(*EVERYTHING, person_id=uid(1), audience=audience, **changes)["Authorization"].removeprefix("Bearer ")


def again(audience: str, header: dict[str, Any], sign: Callable[[bytes], bytes] | None, **changes: Any) -> str:
    """A good token's claims under another header and signature: what a library would refuse to make."""
    claims = jwt.decode(good(audience, **changes), options={"verify_signature": False})

    def part(data: bytes) -> bytes:
        return urlsafe_b64encode(data).rstrip(b"=")

    signed = part(json.dumps(header).encode()) + b"." + part(json.dumps(claims).encode())
    return (signed + b"." + part(sign(signed) if sign else b"")).decode()


def keyed(key: bytes) -> Callable[[bytes], bytes]:
    return lambda signed: hmac.new(key, signed, hashlib.sha256).digest()


def own(audience: str, **headers: Any) -> str:
    """Signed by a key of the forger's own."""
    claims = jwt.decode(good(audience), options={"verify_signature": False})
    return jwt.encode(claims, OTHER_KEY, algorithm="RS256", headers={"kid": "test", **headers})


THEIR_JWK = jwt.algorithms.RSAAlgorithm.to_jwk(OTHER_KEY.public_key(), as_dict=True)
NOW = int(time.time())
FORGED: dict[str, Callable[[str], str]] = {
    "for another service": lambda s: good("notification" if s != "notification" else "enrollment"),
    "for nobody": lambda s: good(s, aud=[]),
    "of another issuer": lambda s: good(s, iss="http://elsewhere.test"),
    "of an issuer whose name begins alike": lambda s: good(s, iss=ISSUER + ".evil.test"),
    "ended": lambda s: good(s, exp=NOW - 60),
    "without an end": lambda s: good(s, exp=None),
    "not valid yet": lambda s: good(s, nbf=NOW + 600),
    "issued in the future": lambda s: good(s, iat=NOW + 600),
    "without a subject": lambda s: good(s, sub=None),
    "signed by another key": own,
    "signed by the key that it brings along": lambda s: own(s, jwk=THEIR_JWK),
    "signed by a key that it points to": lambda s: own(s, jku="http://127.0.0.1:1/jwks", kid="theirs"),
    "of an unknown key": lambda s: good(s, kid="nobody"),
    "of a key that is a path": lambda s: good(s, kid="../../dev/null"),
    "by an algorithm that we do not take": lambda s: good(s, algorithm="PS256"),
    "HS256 with our public key": lambda s: again(s, {"alg": "HS256", "kid": "test"}, keyed(OUR_PUBLIC_KEY)),
    "HS256 with our public key, called RS256": lambda s: again(
        s, {"alg": "RS256", "kid": "test"}, keyed(OUR_PUBLIC_KEY)
    ),
    "none": lambda s: again(s, {"alg": "none", "kid": "test"}, None),
    "NoNe": lambda s: again(s, {"alg": "NoNe", "kid": "test"}, None),
    "RS256 without a signature": lambda s: again(s, {"alg": "RS256", "kid": "test"}, None),
    "with a word that must be understood": lambda s: own(s, crit=["exp"]),
    "changed after it was signed": lambda s: good(s)[:-8] + "AAAAAAAA",
    "no token at all": lambda s: "x" * 4000,
}


@pytest.mark.parametrize("name", WORLDS)
async def test_no_route_of_any_service_takes_a_forged_token(name: str, mongo_uri: str) -> None:
    database = Database(mongo_uri, f"test-{uuid.uuid4().hex[:12]}", service=name)
    forged = {called: forge(name) for called, forge in FORGED.items()}
    taken = []
    async with doors(SERVICES[name], database) as served:
        for route in (route for route, who in ACCESS[name].items() if not who.public):
            method, path = route.split(" ")
            path = re.sub(r"\{\w+\}", uid(1), path)
            for forgery, bearer in forged.items():
                answer = await served[route].request(method, path, headers={"Authorization": f"Bearer {bearer}"})
                if (answer.status_code, answer.headers.get("www-authenticate")) != (401, "Bearer"):
                    taken.append(f"{route}: {forgery}: {answer.status_code}")
    await database.close()
    assert taken == []
