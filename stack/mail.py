"""A mail server that delivers nothing: it keeps what arrived and lets one read it over HTTP.

`python -m stack.mail SMTP_PORT HTTP_PORT FILE`
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import UTC, datetime
from email import message_from_bytes, policy
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from aiosmtpd.controller import UnthreadedController
from fastapi import FastAPI, HTTPException, Query, Response


class Kept:
    """What arrived, in order, in a file that is only ever appended to and outlives the process."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._last = 0
        self.messages: dict[int, dict[str, Any]] = {}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        whole = file.read_bytes()
        complete = whole[: whole.rfind(b"\n") + 1]
        if complete != whole:  # ended in the middle of a line: that message was never acknowledged
            os.truncate(file, len(complete))
        for line in complete.splitlines():
            self._take(json.loads(line))

    def _take(self, entry: dict[str, Any]) -> None:
        if "cleared" in entry:
            self.messages = {}
            self._last = max(self._last, entry["cleared"])
        else:
            self.messages[entry["id"]] = entry
            self._last = entry["id"]

    def _append(self, entry: dict[str, Any]) -> None:
        with self._file.open("ab") as file:
            file.write(json.dumps(entry).encode() + b"\n")
        self._take(entry)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # aiosmtpd's name
        self._append(
            {
                "id": self._last + 1,
                "received_at": datetime.now(UTC).isoformat(),
                "from": envelope.mail_from,
                "to": envelope.rcpt_tos,
                **read(envelope.content),
            }
        )
        return "250 kept"

    def clear(self) -> None:
        """Forget all. Numbers go on, so that whoever asks for what came since a number misses nothing."""
        self._append({"cleared": self._last})


def read(content: bytes) -> dict[str, Any]:
    """Subject, headers and text of a message; whatever cannot be understood is kept as it came."""
    parsed = message_from_bytes(content, policy=policy.default)
    try:
        body = parsed.get_body(("plain", "html"))
        return {
            "subject": str(parsed["subject"] or ""),
            "headers": {name: str(value) for name, value in parsed.items()},
            "text": body.get_content() if body else "",
        }
    except Exception:  # an unknown charset, a header that is none: the parser has no common class for these
        return {"subject": "", "headers": {}, "text": content.decode("utf-8", "replace")}


def pages(kept: Kept) -> FastAPI:
    app = FastAPI(title="mail")

    @app.get("/messages")
    async def messages(to: str | None = None, since: Annotated[int, Query(ge=0)] = 0) -> list[dict[str, Any]]:
        """What arrived after message number `since`, for one recipient or all."""
        wanted = to.casefold() if to is not None else None
        return [
            message
            for message in kept.messages.values()
            if message["id"] > since and (wanted is None or wanted in (name.casefold() for name in message["to"]))
        ]

    @app.get("/messages/{id}")
    async def message(id: int) -> dict[str, Any]:
        if id not in kept.messages:
            raise HTTPException(404)
        return kept.messages[id]

    @app.delete("/messages", status_code=204)
    async def clear() -> Response:
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
