"""A rolling upgrade: the version before and this one run side by side under load, and every fact is recorded once."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
import subprocess
import tarfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from stack import PROJECT, SERVICES
from tests.compose.installation import Installation, build

PREVIOUS = (PROJECT / "tests" / "compose" / "previous-version").read_text().strip()
PAUSE_SECONDS = 0.05


@pytest.fixture(scope="session")
def previous(image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image of the version before. Fails where its commit cannot be had, or its image cannot be built."""
    tree = tmp_path_factory.mktemp("previous")
    archive = subprocess.run(["git", "archive", PREVIOUS], cwd=PROJECT, capture_output=True, check=False)
    assert archive.returncode == 0, f"commit {PREVIOUS} is not in this clone: git fetch --unshallow"
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(tree, filter="data")
    (tree / ".dockerignore").write_text((PROJECT / ".dockerignore").read_text())
    build("previous", tree)
    return "previous"


@pytest.fixture(scope="module")
def running(image: str, previous: str) -> Iterator[Installation]:
    """The version before in every process that serves, on what this version's `prepare` made."""
    made = Installation(image)
    try:
        made.up()
        # The version before knows no clock that names the system's.
        command = "echo 2022-01-03T02:00:00+00:00 > /clock/draft && mv /clock/draft /clock/instant"
        made.compose("run", "--rm", "-T", "--no-deps", "--entrypoint", "sh", "demo", "-c", command)
        old = [f"{service}-{role}" for service in SERVICES for role in ("api", "worker")]
        made.up("--no-deps", *old, settings={"TAG": previous})
        assert versions(made, "scheduling-worker") == ["previous"]
        yield made
    finally:
        made.down()


def versions(installation: Installation, service: str) -> list[str]:
    told = [one["Config"]["Image"] for one in installation.inspected() if f"-{service}-" in one["Name"]]
    return sorted(image.partition(":")[2] for image in told)


@dataclass
class Load:
    """Agencies that are registered all the while, each by a request that is repeated until it is answered."""

    accepted: list[str] = field(default_factory=list)
    refused: Counter[int] = field(default_factory=Counter)


@asynccontextmanager
async def load(installation: Installation, folder: Path) -> AsyncIterator[Load]:
    authority = installation.take(folder, "console", "/credentials/ca.pem")
    token = installation.run("demo", "token", "organiser-01").strip().splitlines()[-1]
    done = Load()
    address = f"https://localhost:{installation.ports['GATEWAY_PORT']}"
    verify = ssl.create_default_context(cafile=str(authority))

    async def register(number: int, http: httpx.AsyncClient) -> None:
        id = str(uuid.uuid4())
        body = {"code": f"roll-{number:05d}", "kind": "ministry", "name": f"Kementerian {number} (generated)"}
        while True:
            try:
                answer = await http.put(f"/enrollment/v1/agencies/{id}", json=body)
            except httpx.TransportError:
                answer = httpx.Response(599)
            if answer.status_code in (200, 201):
                done.accepted.append(id)
                return
            done.refused[answer.status_code] += 1
            await asyncio.sleep(0.2)

    async def go_on() -> None:
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=address, verify=verify, headers=headers, timeout=10) as http:
            number = 0
            while not over.is_set():
                number += 1
                await register(number, http)
                await asyncio.sleep(PAUSE_SECONDS)

    over = asyncio.Event()
    going = asyncio.create_task(go_on())
    try:
        yield done
    finally:
        over.set()
        await asyncio.wait_for(going, 60)


async def test_both_versions_run_side_by_side_and_nothing_is_lost_or_done_twice(
    running: Installation, tmp_path: Path, count: Callable[[str], None]
) -> None:
    async with load(running, tmp_path) as done:
        for service in SERVICES:
            both = [f"{service}-api", f"{service}-worker"]
            before = {name: running.ids(name) for name in both}
            scaled = [option for name in both for option in ("--scale", f"{name}=2")]
            await asyncio.to_thread(running.up, "--no-deps", "--no-recreate", *scaled, *both)
            assert all(versions(running, name) == ["previous", "test"] for name in both)
            await asyncio.sleep(3)
            old = [container for ids in before.values() for container in ids]
            await asyncio.to_thread(
                subprocess.run, ["docker", "stop", "-t", "15", *old], check=True, capture_output=True
            )
            await asyncio.to_thread(subprocess.run, ["docker", "rm", *old], check=True, capture_output=True)
    assert all(versions(running, f"{s}-{role}") == ["test"] for s in SERVICES for role in ("api", "worker"))
    assert len(done.accepted) > 100
    announced = await settled(running, len(done.accepted))
    assert Counter(announced) == Counter(done.accepted)
    told = running.compose("run", "--rm", "-T", "--no-deps", "ops", "doctor", "--json", check=False)
    assert [one for one in json.loads(told.stdout)["findings"] if one["state"] == "bad"] == []
    asked_again = dict(done.refused)
    count(f"{len(done.accepted)} agencies registered while eight processes were replaced; asked again: {asked_again}")


async def settled(installation: Installation, number: int) -> list[str]:
    """The agencies that were announced, once as many were and another service knows as many, or a while has passed."""
    deadline = time.monotonic() + 90
    while True:
        told = installation.run("ops", "events", "tail", "training.enrollment", "--last", "10000", "--json")
        found = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
        ids = {e["id"]: e["subject"] for e in found if e["type"].endswith("agency-registered.v1")}
        known = kept(installation)
        if len(ids) >= number and known >= number:
            assert known == number
            return list(ids.values())
        assert time.monotonic() < deadline, (number, len(ids), known)
        await asyncio.sleep(2)


CONTACTS = """
from dotenv import dotenv_values
from pymongo import MongoClient
told = dotenv_values("/secrets/operator/notification.env")
print(MongoClient(told["MONGO_URI"])["notification"]["agency_contacts"].count_documents({}))
"""


def kept(installation: Installation) -> int:
    """How many agencies another service has come to know."""
    told = installation.compose("run", "--rm", "-T", "--no-deps", "--entrypoint", "python", "ops", "-c", CONTACTS)
    return int(told.stdout)
