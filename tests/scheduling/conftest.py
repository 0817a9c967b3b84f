"""The engine, compiled once for all test workers and the processes that they start."""

from __future__ import annotations

import fcntl
import tempfile
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def compiled() -> None:
    """Whoever comes first compiles; the others wait, and load what it has kept."""
    from services.scheduling.solver.problem import Event, Problem
    from services.scheduling.solver.search import solve

    with (Path(tempfile.gettempdir()) / "training-engine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        solve(Problem(1, 2, (Event("a", "a", 1, (0, 1)),)), steps=1, seeds=(0,))
