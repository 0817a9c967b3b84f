"""The kernel's tests run on both drivers: where one differs from the other at every run, the rest with `FULL=1`."""

from __future__ import annotations

import pytest

from shared.mongo import Driver
from tests.support import many

DRIVERS: tuple[Driver, ...] = ("motor", "pymongo")
ALWAYS_BOTH = {"test_transaction", "test_inbox"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    named = any("driver" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "driver" in metafunc.fixturenames and not named:
        both = metafunc.module.__name__.rpartition(".")[2] in ALWAYS_BOTH
        metafunc.parametrize("driver", DRIVERS if both else DRIVERS[: many(1, 2)], indirect=True)


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> Driver:
    chosen: Driver = request.param
    return chosen
