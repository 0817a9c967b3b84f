"""The demonstration's realm of Keycloak: a client for each service, one for the portal, and the scenario's people.

Its people are generated (`demo.scenario`) and share one drawn password. A real installation names its own issuer, which
must put into a token what the mappers here do: `person_id`, `roles`, `agency_ids`, and every service as audience.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from demo.scenario import Cast, Person, Scenario, cast

NAME = "training"
PORTAL = "portal"
SCENARIO = Path(__file__).resolve().parents[1] / "scenarios" / "pkp-2022-iii.yaml"
TOKEN_SECONDS = 3600
PERSONAL = ("person_id", "roles", "agency_ids")


def realm(clients: Mapping[str, str], password: str, portal_secret: str) -> dict[str, Any]:
    """The realm as Keycloak imports it. `clients` are the services' with their secrets."""
    people = cast(Scenario.read(SCENARIO))
    return {
        "realm": NAME,
        "enabled": True,
        "accessTokenLifespan": TOKEN_SECONDS,
        "bruteForceProtected": True,
        "clients": [_portal(portal_secret, clients), *(_service(name, clients) for name in clients)],
        "users": [_user(person, roles, password) for person, roles in _people(people)],
        "components": {"org.keycloak.userprofile.UserProfileProvider": [_profile()]},
    }


def _people(people: Cast) -> Iterator[tuple[Person, tuple[str, ...]]]:
    """Everybody, with what they are in the training."""
    yield people.organiser, ("organiser",)
    for person in people.coordinators.values():
        yield person, ("coordinator",)
    for group in (people.participants, people.spare):
        for person in group.values():
            yield person, ("participant",)
    for group in (people.mentors, people.spare_mentors):
        for person in group.values():
            yield person, ("mentor",)
    for person in people.trainers:
        yield person, ("trainer",)
    for person in people.coaches:
        yield person, ("coach", "trainer")
    for person in people.examiners:
        yield person, ("examiner", "trainer")


def _user(person: Person, roles: tuple[str, ...], password: str) -> dict[str, Any]:
    coordinates = [person.agency_id] if person.agency_id and "coordinator" in roles else []
    return {
        "username": person.username,
        "email": person.email,
        "emailVerified": True,
        "firstName": person.name,
        "lastName": "(generated)",
        "enabled": True,
        "attributes": {"person_id": [person.id], "roles": list(roles), "agency_ids": coordinates},
        "credentials": [{"type": "password", "value": password, "temporary": False}],
    }


def _portal(secret: str, clients: Mapping[str, str]) -> dict[str, Any]:
    """People sign in through it; the demonstration does by password, as no browser is there."""
    own = [
        _mapper("person_id", "oidc-usermodel-attribute-mapper", {"user.attribute": "person_id"}),
        _mapper("roles", "oidc-usermodel-attribute-mapper", {"user.attribute": "roles", "multivalued": "true"}),
        _mapper(
            "agency_ids", "oidc-usermodel-attribute-mapper", {"user.attribute": "agency_ids", "multivalued": "true"}
        ),
    ]
    return {
        "clientId": PORTAL,
        "secret": secret,
        "enabled": True,
        "directAccessGrantsEnabled": True,
        "standardFlowEnabled": False,
        "fullScopeAllowed": False,
        "defaultClientScopes": ["basic"],  # a token needs no name and no address
        "protocolMappers": [*own, *_audiences(clients)],
    }


def _service(name: str, clients: Mapping[str, str]) -> dict[str, Any]:
    own = [
        _mapper("client_id", "oidc-hardcoded-claim-mapper", {"claim.value": name}),
        _mapper("roles", "oidc-hardcoded-claim-mapper", {"claim.value": '["service"]', "jsonType.label": "JSON"}),
    ]
    return {
        "clientId": name,
        "secret": clients[name],
        "enabled": True,
        "serviceAccountsEnabled": True,
        "standardFlowEnabled": False,
        "fullScopeAllowed": False,
        "defaultClientScopes": ["basic"],  # a token needs no name and no address
        "protocolMappers": [*own, *_audiences(clients)],
    }


def _audiences(clients: Mapping[str, str]) -> list[dict[str, Any]]:
    return [_mapper(f"for {name}", "oidc-audience-mapper", {"included.custom.audience": name}) for name in clients]


def _mapper(claim: str, kind: str, config: Mapping[str, str]) -> dict[str, Any]:
    told = {"claim.name": claim, "jsonType.label": "String", "access.token.claim": "true", "id.token.claim": "false"}
    return {"name": claim, "protocol": "openid-connect", "protocolMapper": kind, "config": told | dict(config)}


def _profile() -> dict[str, Any]:
    """What is kept of a user: without it, attributes of ours would be dropped at import."""
    required: list[dict[str, Any]] = [{"name": name} for name in ("username", "email", "firstName", "lastName")]
    ours: list[dict[str, Any]] = [{"name": name, "multivalued": name != "person_id"} for name in PERSONAL]
    only_admin = {"view": ["admin"], "edit": ["admin"]}
    attributes = [{**attribute, "permissions": only_admin} for attribute in (*required, *ours)]
    return {
        "providerId": "declarative-user-profile",
        "config": {"kc.user.profile.config": [json.dumps({"attributes": attributes})]},
    }
