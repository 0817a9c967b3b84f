"""One installation for all that may share it: started from nothing, three of its workers threefold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.installation import Installation, absent, build

SHARING = ("scheduling-worker", "notification-worker")
"""Whose workers share the partitions that they read; enrollment's read nothing, one of them publishes."""
SCALED = ("enrollment-worker", *SHARING)


@pytest.fixture(scope="session")
def image() -> str:
    """The image of this tree."""
    if reason := absent():
        pytest.skip(reason)
    build("test")
    return "test"


@pytest.fixture(scope="session")
def installation(image: str) -> Iterator[Installation]:
    made = Installation(image)
    try:
        made.up(*(option for service in SCALED for option in ("--scale", f"{service}=3")))
        yield made
    finally:
        made.down()


@pytest.fixture(scope="session")
def played(installation: Installation) -> str:
    """What is printed when the cohort has been played on it."""
    told = installation.run("demo", seconds=420, check=False)
    assert "report: /reports/report.html" in told, told[-4000:]
    return told


@pytest.fixture(scope="session")
def authority(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What clients outside trust the gateway and the broker by."""
    return installation.take(tmp_path_factory.mktemp("authority"), "console", "/credentials/ca.pem")
