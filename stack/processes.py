"""Parts of the stack as processes: started apart from the terminal, known again later, stopped for certain."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class NotStarted(Exception):
    """A part did not come up. The message says which, and its last lines."""


def _began(pid: int) -> str | None:
    """When the process began, as the system words it; None when there is none. Guards against a pid used again."""
    told = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, began = told.stdout.strip().partition(" ")
    return began.strip() if began and not state.startswith("Z") else None


@dataclass(frozen=True)
class Processes:
    """The processes of one stack, by part."""

    home: Path

    def _note(self, part: str) -> Path:
        return self.home / "run" / f"{part}.json"

    def log(self, part: str) -> Path:
        return self.home / "logs" / f"{part}.log"

    def tail(self, part: str, lines: int = 20) -> str:
        """The last lines that a part wrote."""
        path = self.log(part)
        if not path.exists():
            return "(it wrote nothing)"
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - 64_000))
            return "\n".join(log.read().decode("utf-8", "replace").splitlines()[-lines:])

    def pid(self, part: str) -> int | None:
        """The process of a part, if it runs."""
        try:
            note = json.loads(self._note(part).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        pid = int(note["pid"])
        return pid if _began(pid) == note["began"] else None

    def noted(self, part: str) -> bool:
        """Whether the part was started and not stopped since: without a process it crashed."""
        return self._note(part).exists()

    def start(self, part: str, command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a part in a session of its own, so that an interrupted terminal leaves no half of a stack."""
        self.log(part).parent.mkdir(parents=True, exist_ok=True)
        self._note(part).parent.mkdir(parents=True, exist_ok=True)
        with self.log(part).open("ab") as log:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(env),
                start_new_session=True,
                cwd=Path(__file__).resolve().parents[1],
            )
        self._note(part).write_text(json.dumps({"pid": process.pid, "began": _began(process.pid)}))
        return process

    def signal(self, part: str, number: signal.Signals) -> None:
        if (pid := self.pid(part)) is not None:
            os.kill(pid, number)

    def stop(self, parts: Sequence[str], *, seconds: float) -> None:
        """Ask the parts to end, together; end those that have not after the given time."""
        for part in parts:
            self.signal(part, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        for part in parts:
            while self.pid(part) is not None:
                if time.monotonic() > deadline:
                    self.signal(part, signal.SIGKILL)
                _reap()
                time.sleep(0.02)
            self._note(part).unlink(missing_ok=True)


def _reap() -> None:
    """Collect children of this very process that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
