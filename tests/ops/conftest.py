"""One stack with users and rights for the tests of the operators' commands, called as an operator calls them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from shared.ops.__main__ import app
from stack import Stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Broker, database and issuer, freshly made: nothing is prepared on them."""
    stack = Stack(tmp_path_factory.mktemp("stack"))
    try:
        stack.up(("kafka", "mongo", "issuer"))
        yield stack
    finally:
        stack.down()


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def told(self) -> Any:
        """What was said with `--json`."""
        return json.loads(self.out)


@pytest.fixture
def environments(stack: Stack, tmp_path: Path) -> Callable[..., Path]:
    """A folder of settings of the stack's services, some of them changed."""

    def made(*services: str, **changes: str) -> Path:
        for file in (stack.home / "environments").glob("*.env"):
            if services and file.stem not in services:
                continue
            given = dict(line.split("=", 1) for line in file.read_text().splitlines())
            given |= changes
            (tmp_path / file.name).write_text("".join(f"{name}={value}\n" for name, value in given.items()))
        return tmp_path

    return made


async def ops(folder: Path, *arguments: str, answer: str | None = None) -> Answer:
    """`python -m shared.ops …` on the services in this folder; `answer` is what the operator types."""
    runner = CliRunner()
    command = ["--environments", str(folder), *arguments]
    done = await asyncio.to_thread(runner.invoke, app, command, input=answer)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return Answer(done.exit_code, done.stdout, done.stderr)
