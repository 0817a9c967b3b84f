"""Servers for tests: endpoints that the environment names, else containers, else the embedded stack's processes."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from shared.kafka import Kafka
from shared.mongo import Database, Driver

FIRST = ("tests/storm/", "tests/system/", "tests/stack/", "tests/scheduling/")
"""What takes longest begins first, so that two workers end at the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: next((n for n, begin in enumerate(FIRST) if item.nodeid.startswith(begin)), len(FIRST)))


@pytest.fixture(scope="session")
def mongo_uri() -> Iterator[str]:
    """A server that speaks MongoDB's protocol, with transactions and change streams."""
    if uri := os.environ.get("TEST_MONGO_URI"):
        yield uri
        return
    from tests import servers

    with tempfile.TemporaryDirectory(prefix="training-mongo-") as folder, servers.mongo(Path(folder)) as uri:
        yield uri


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """A real broker, as its administrator. `TEST_KAFKA_BOOTSTRAP` names one that is there (without authentication)."""
    if bootstrap := os.environ.get("TEST_KAFKA_BOOTSTRAP"):
        yield Kafka(bootstrap)
        return
    from tests import servers

    with tempfile.TemporaryDirectory(prefix="training-kafka-") as folder, servers.kafka(Path(folder)) as broker:
        yield broker


@pytest.fixture
def driver() -> Driver:
    """The driver under test; `shared/`'s tests run on both."""
    return "pymongo" if os.environ.get("MONGO_DRIVER") == "pymongo" else "motor"


@pytest.fixture
async def database(mongo_uri: str, driver: Driver, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """A database of its own for this test; the service is the folder's (`tests/enrollment` → enrollment)."""
    service = request.path.parent.name
    database = Database(mongo_uri, f"test-{uuid.uuid4().hex[:12]}", service=service, driver=driver)
    yield database
    await database.drop()
    await database.close()
