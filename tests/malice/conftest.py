"""The played world of each service."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from shared.mongo import Database
from tests.malice.worlds import WORLDS, World


@pytest.fixture(scope="module", params=WORLDS)
async def world(request: pytest.FixtureRequest, mongo_uri: str) -> AsyncIterator[World]:
    """The played world of each service in turn, in a database of its own."""
    database = Database(mongo_uri, f"test-{uuid.uuid4().hex[:12]}", service=request.param)
    yield await WORLDS[request.param](database)
    await database.drop()
    await database.close()
