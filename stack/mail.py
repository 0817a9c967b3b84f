"""A mail server that delivers nothing: it keeps what arrived and lets one read it over HTTP.

`python -m stack.mail SMTP_PORT HTTP_PORT FILE`
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import uvicorn
from aiosmtpd.controller import UnthreadedController
from fastapi import FastAPI, HTTPException, Response


class Kept:
    """What arrived, in order, in a file that outlives the process."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        self.messages: list[dict[str, Any]] = []
        if file.exists():
            self.messages = [json.loads(line) for line in file.read_text().splitlines()]

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # aiosmtpd's name
        parsed = message_from_bytes(envelope.content, policy=policy.default)
        body = parsed.get_body(("plain", "html"))
        message = {
            "id": len(self.messages) + 1,
            "received_at": datetime.now(UTC).isoformat(),
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "subject": str(parsed["subject"]),
            "headers": {name: str(value) for name, value in parsed.items()},
            "text": body.get_content() if body else "",
        }
        self.messages.append(message)
        with self._file.open("a") as file:
            file.write(json.dumps(message) + "\n")
        return "250 kept"

    def clear(self) -> None:
        self.messages.clear()
        self._file.unlink(missing_ok=True)


def pages(kept: Kept) -> FastAPI:
    app = FastAPI(title="mail")

    @app.get("/messages")
    def messages(to: str | None = None, since: int = 0) -> list[dict[str, Any]]:
        """What arrived after message number `since`, for one recipient or all."""
        return [m for m in kept.messages[since:] if to is None or to in m["to"]]

    @app.get("/messages/{id}")
    def message(id: int) -> dict[str, Any]:
        if not 0 < id <= len(kept.messages):
            raise HTTPException(404)
        return kept.messages[id - 1]

    @app.delete("/messages", status_code=204)
    def clear() -> Response:
        kept.clear()
        return Response(status_code=204)

    return app


async def main() -> None:
    smtp_port, http_port, file = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    kept = Kept(file)
    smtp = UnthreadedController(kept, hostname="127.0.0.1", port=smtp_port, loop=asyncio.get_running_loop())
    await smtp._create_server()
    await uvicorn.Server(
        uvicorn.Config(pages(kept), host="127.0.0.1", port=http_port, log_level="warning", access_log=False)
    ).serve()


if __name__ == "__main__":
    asyncio.run(main())
