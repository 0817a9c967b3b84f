"""One stack for all tests of the stack, in a folder of its own; a gateway in front of a service that only echoes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stack import NEIGHBOURS, Stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Broker, database, mail and issuer, freshly made."""
    stack = Stack(tmp_path_factory.mktemp("stack"))
    try:
        stack.up(NEIGHBOURS)
        yield stack
    finally:
        stack.down()


LIMIT = 1 << 20
_ended = threading.Event()


class _Echo(BaseHTTPRequestHandler):
    """Answers with the path and the headers that reached it; refuses a large body; is silent at `/v1/hung`."""

    def do_GET(self) -> None:
        if self.path == "/v1/hung":
            _ended.wait(30)
            return
        length = int(self.headers.get("Content-Length", 0))
        self.rfile.read(length)
        if length > LIMIT:
            self.send_response(413)
            self.send_header("Content-Type", "application/problem+json")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")
            return
        told = json.dumps({"path": self.path, "headers": dict(self.headers.items())}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def gateway(stack: Stack) -> Iterator[str]:
    """The address of the gateway; behind it all four services echo what they are asked."""
    servers = []
    for service in stack.endpoints["services"].values():
        server = ThreadingHTTPServer(("127.0.0.1", int(service["http"].rpartition(":")[2])), _Echo)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GATEWAY_PATIENCE", "1s")
        stack.up(["gateway"])
    yield str(stack.endpoints["gateway"])
    stack.stop_part("gateway")
    _ended.set()
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Stack]:
    """A second stack beside the first, of which only quick parts are started."""
    stack = Stack(tmp_path / "home")
    try:
        yield stack
    finally:
        stack.down()
