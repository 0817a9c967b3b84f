"""Servers for tests: endpoints that the environment names, else containers, else the embedded stack's processes."""

from __future__ import annotations

import gc
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from shared.kafka import Kafka
from shared.mongo import Database, Driver
from tests.orders import Found, Orders, Tried
from tests.support import many

FIRST = (
    *("tests/storm/", "tests/system/", "tests/stack/", "tests/scheduling/"),
    *("tests/notification/test_orders", "tests/shared/test_publishing", "tests/benchmarks/"),
)
"""What takes longest begins first, so that all workers end at the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: next((n for n, begin in enumerate(FIRST) if item.nodeid.startswith(begin)), len(FIRST)))


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: it is not looked through again and again for garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


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


@pytest.fixture
async def elsewhere(database: Database, mongo_uri: str, driver: Driver) -> AsyncIterator[Database]:
    """The same database as another process opens it: whatever lock this one holds in memory, it does not see."""
    other = Database(mongo_uri, database.collection("x").database.name, service=database.service, driver=driver)
    yield other
    await other.close()


@pytest.fixture
def count(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Says at the end of the run what this test has tried how often."""
    return lambda text: record_property("count", text)


@pytest.fixture
def tried(count: Callable[[str], None]) -> Tried:
    async def all_and_some(orders: Orders, *, explore: bool = True) -> Found:
        found = await orders.explore() if explore else None
        some = await orders.shuffle(many(5, 5000), found.outcome if found else None)
        explored = f"all {found.orders:,} orders, by {found.transactions:,} transactions; " if found else ""
        count(f"{explored}{some.orders:,} of {orders.number:,} orders from end to end")
        return found or some

    return all_and_some


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counted = [(r, t) for r in terminalreporter.getreports("passed") for n, t in r.user_properties if n == "count"]
    if counted:
        terminalreporter.section("counts")
    for report, text in counted:
        terminalreporter.line(f"{report.nodeid.removeprefix('tests/')}: {text}")
