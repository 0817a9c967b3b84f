"""What a process writes: JSON lines whoever speaks, and in none of them a person or an exception's message."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shared import logs

ROOT = Path(__file__).resolve().parents[2]
SETUP = """
import asyncio, gc, logging, threading, warnings
import structlog
from shared import logs
logs.setup(service="enrollment", role="api", version="1")
log, library = structlog.get_logger("ours"), logging.getLogger("faststream")
"""


def told(code: str) -> list[dict[str, Any]]:
    """The lines of a process that runs this code. Nothing may stand on standard error."""
    done = subprocess.run(
        [sys.executable, "-c", SETUP + code], capture_output=True, text=True, cwd=ROOT, timeout=30, check=False
    )
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


SPOKEN = {
    "an exception as an argument": 'library.error("failed: %s", ValueError("Canary Canary"))',
    "free text as an argument": 'library.error("no place for %s", "Canary Canary")',
    "a named argument": 'library.error("failed for %(name)s", {"name": "canary"})',
    "an argument that does not fit": 'library.error("%d failed", "canary canary")',
    "more lines than one": 'library.error("failed\\nfor canary")',
    "an exception's message repeated": """
try: int("canary")
except ValueError as error: library.error(f"ValueError: {error}", exc_info=error)
""",
    "a task that nobody awaited": """
async def fails(): int("canary")
async def main():
    task = asyncio.create_task(fails()); await asyncio.sleep(0); del task; gc.collect()
asyncio.run(main())
""",
    "a callback": """
async def main(): asyncio.get_running_loop().call_soon(lambda: int("canary")); await asyncio.sleep(0.01)
asyncio.run(main())
""",
    "a thread": 'thread = threading.Thread(target=lambda: int("canary")); thread.start(); thread.join()',
    "the process itself": 'int("canary")',
    "a warning": 'warnings.warn("canary")',
    "several at once": """
async def main():
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(int, "canary"))
try: asyncio.run(main())
except ExceptionGroup: log.error("group.failed", exc_info=True)
""",
    "an address in a value": 'log.info("it.happened", reason="no such user <canary@example.go.id>")',
    "a field that ends in name": 'log.info("it.happened", full_name="canary", deep=[{"Contact_Email": "canary"}])',
    "a number beyond 64 bits beside": 'log.info("it.happened", n=2**70, name="canary")',
    "a key that is no text": 'log.info("it.happened", found={("canary",): 1, 2: 3})',
    "half a character beside": 'log.info("it.happened", half="\\ud800", email="canary")',
}


@pytest.mark.parametrize("code", SPOKEN.values(), ids=SPOKEN)
def test_whoever_speaks_says_it_in_one_line_without_the_canary(code: str) -> None:
    (line,) = told(code)
    assert {"timestamp", "level", "event", "service", "role", "version"} <= set(line)
    assert "canary" not in json.dumps(line).lower()


def test_of_several_exceptions_at_once_every_class_and_place_is_told() -> None:
    (line,) = told(SPOKEN["several at once"])
    assert {"builtins.ExceptionGroup", "builtins.ValueError"} <= {one["class"] for one in line["exception"]}


def test_a_library_keeps_its_words_its_numbers_and_its_codes() -> None:
    (line,) = told('library.warning("topic %s has %d of %.1f", "training.enrollment", 3, 4.5)')
    assert (line["event"], line["logger"]) == ("topic training.enrollment has 3 of 4.5", "faststream")


@pytest.mark.parametrize("text", ["196503281990031001", "19650328 199003 1 001", "3174012345678901", "a.b@x.go.id"])
def test_what_looks_like_a_personal_number_or_an_address_is_removed(text: str) -> None:
    line = logs.without_personal_data(None, "info", {"event": f"failed for {text}, sorry"})
    assert line["event"].startswith("failed for [removed]") and text[:6] not in line["event"]


def test_an_id_an_instant_and_a_topic_are_no_personal_number() -> None:
    line = {"event": "x", "a": "00000000-0000-4000-8000-000000000001", "b": "2022-02-21T01:00:00.123456Z"}
    assert logs.without_personal_data(None, "info", line) == line


def test_a_client_that_tries_in_vain_twenty_times_a_second_does_not_fill_the_disk() -> None:
    lines = told(
        """
client = logging.getLogger("aiokafka.conn")
for number in range(100): client.error("Unable connect to node with id %s", number)
client.error("Something else")
for number in range(100): library.error("Another library")
"""
    )
    events = [line["event"] for line in lines]
    assert (len([e for e in events if e.startswith("Unable")]), events.count("Something else")) == (1, 1)
    assert events.count("Another library") == 100
