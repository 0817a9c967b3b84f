"""The kernel's tests run on both drivers."""

from __future__ import annotations

import pytest

from shared.mongo import Driver


@pytest.fixture(params=["motor", "pymongo"])
def driver(request: pytest.FixtureRequest) -> Driver:
    chosen: Driver = request.param
    return chosen
