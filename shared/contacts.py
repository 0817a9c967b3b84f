"""How to reach people: asked of enrollment at the moment of sending, and not kept."""

from __future__ import annotations

from collections.abc import Iterable

import httpx
from pydantic import BaseModel

from shared.errors import Unavailable
from shared.identity import Tokens


class Contact(BaseModel):
    """A person's name and address, for one message or one certificate."""

    person_id: str
    name: str
    email: str
    zone: str


async def contacts_of(person_ids: Iterable[str], *, enrollment_url: str, tokens: Tokens) -> dict[str, Contact]:
    """The contacts that enrollment knows, by person. Raises `Unavailable` while enrollment or the issuer is away."""
    wanted = sorted(set(person_ids))
    found: dict[str, Contact] = {}
    bearer = await tokens.get("enrollment")
    try:
        async with httpx.AsyncClient(base_url=enrollment_url, timeout=5) as client:
            for first in range(0, len(wanted), 500):
                answer = await client.post(
                    "/internal/v1/contacts",
                    json={"person_ids": wanted[first : first + 500]},
                    headers={"Authorization": f"Bearer {bearer}"},
                )
                answer.raise_for_status()
                found |= {row["person_id"]: Contact.model_validate(row) for row in answer.json()}
    except (httpx.HTTPError, ValueError) as error:
        raise Unavailable from error
    return found
