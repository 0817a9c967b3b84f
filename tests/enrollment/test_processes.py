"""Two real API processes and a crowd that wants the same seats over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from services.enrollment.domain import Cohort
from shared.contracts.enrollment import ParticipantEnrolled
from shared.identity import Role
from shared.mongo import Database
from tests.enrollment.story import COHORT, accepted, opened, registered
from tests.servers import free_port
from tests.support import INSTALLATION_KEY, KEYS, announced, many, token, uid, until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def issuer() -> Iterator[str]:
    """The tests' issuer, where other processes find it."""

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told = KEYS if self.path == "/jwks" else {"issuer": address, "jwks_uri": f"{address}/jwks"}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(told).encode())

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Keys)
    address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield address
    server.shutdown()
    server.server_close()


@pytest.fixture
def apis(database: Database, mongo_uri: str, issuer: str, tmp_path: Path) -> Iterator[list[str]]:
    """The addresses of two processes that serve the same database."""
    ports = [free_port(), free_port()]
    started = []
    for port in ports:
        env = {
            "PATH": os.environ["PATH"],
            "ENVIRONMENT": "development",
            "MONGO_URI": mongo_uri,
            "MONGO_DATABASE": database.collection("x").database.name,
            "KAFKA_BOOTSTRAP": "127.0.0.1:1",
            "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
            "OIDC_ISSUER": issuer,
            "INSTALLATION_KEY": INSTALLATION_KEY,
            "HTTP_PORT": str(port),
            "INTERNAL_PORT": str(free_port()),
        }
        command = [sys.executable, "-m", "services.enrollment.app", "api"]
        with (tmp_path / f"{port}.log").open("wb") as log:
            started.append(subprocess.Popen(command, env=env, cwd=ROOT, stdout=log, stderr=log))
    yield [f"http://127.0.0.1:{port}" for port in ports]
    for process in started:
        process.kill()
        process.wait()


async def test_a_crowd_confirms_on_two_processes_and_exactly_forty_get_a_seat(
    database: Database, apis: list[str], issuer: str, count: Callable[[str], None]
) -> None:
    crowd = many(80, 200)
    await opened(database)
    await registered(database, *range(1, crowd + 1))
    nominations = [await accepted(database, n) for n in range(1, crowd + 1)]
    organiser = token(Role.ORGANISER, person_id=uid(1, 0x0F), iss=issuer)
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=crowd)) as client:

        async def serving(api: str) -> bool:
            try:
                return (await client.get(f"{api}/openapi.json")).status_code == 200
            except httpx.TransportError:
                return False

        for api in apis:
            await until(lambda api=api: serving(api), seconds=30)  # type: ignore[misc]

        async def confirm(n: int, id: str) -> int:
            answer = await client.put(f"{apis[n % 2]}/v1/nominations/{id}/confirmation", headers=organiser)
            return answer.status_code

        began = time.monotonic()
        answers = Counter(await asyncio.gather(*(confirm(n, id) for n, id in enumerate(nominations))))
        seconds = time.monotonic() - began
    assert answers == {200: 40, 409: crowd - 40}
    told = [event for _, event in await announced(database, ParticipantEnrolled)]
    assert sorted(e.roster_number for e in told if isinstance(e, ParticipantEnrolled)) == list(range(1, 41))
    cohort = await database.get(Cohort, COHORT)
    assert cohort is not None and len(cohort.seats) == 40
    count(f"{crowd} for 40 seats on two processes in {seconds:.1f} s: 40 seats")
