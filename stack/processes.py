"""Parts of the stack as processes: started apart from the terminal, known again later, stopped for certain."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]

_own: dict[int, subprocess.Popen[bytes]] = {}
"""Children of this very process. Each is collected by its own handle: waiting for any child would take away the
exit status of one that somebody else in this process waits for."""


class Missing(Exception):
    """A prerequisite is not installed; the message is the one line that says what to install."""


class NotStarted(Exception):
    """A part did not come up. The message says which, and its last lines."""


def _boot() -> str:
    """Tells one run of the machine from the next; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def began(pid: int) -> str | None:
    """When the process began; None when none lives. Together with the pid it guards against a pid used again."""
    if (child := _own.get(pid)) is not None and child.poll() is not None:
        return None
    if Path("/proc/self/stat").exists():
        try:
            state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if state in "ZX" and not _threads_left(pid) else f"{_boot()}/{fields[18]}"
    at = _began_in_words(pid)
    return f"{_boot()}/{at}" if at else None


def _threads_left(pid: int) -> bool:
    """Whether threads of a process that has ended are still ending: until then it holds its ports."""
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
    except OSError:
        return False


def _began_in_words(pid: int) -> str | None:
    """The same to the second, where the system has no table of processes to read."""
    told = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
    )
    state, _, at = told.stdout.strip().partition(" ")
    return at.strip() if at and not state.startswith("Z") else None


@dataclass(frozen=True)
class Processes:
    """The processes of one stack, by part."""

    home: Path

    def noted(self) -> list[str]:
        """The parts that were started and not stopped since."""
        return sorted(note.stem for note in (self.home / "run").glob("*.json"))

    def _note(self, part: str) -> Path:
        return self.home / "run" / f"{part}.json"

    def _read(self, part: str) -> tuple[int, str] | None:
        try:
            note = json.loads(self._note(part).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return int(note["pid"]), str(note["began"])

    def log(self, part: str) -> Path:
        return self.home / "logs" / f"{part}.log"

    def tail(self, part: str, lines: int = 20) -> str:
        """The last lines that a part wrote."""
        path = self.log(part)
        if not path.exists() or not path.stat().st_size:
            return "(it wrote nothing)"
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - 400 * lines - 64_000))
            return "\n".join(log.read().decode("utf-8", "replace").splitlines()[-lines:])

    def pid(self, part: str) -> int | None:
        """The process of a part, if it runs."""
        if (note := self._read(part)) is None:
            return None
        pid, at = note
        return pid if began(pid) == at else None

    def crashed(self, part: str) -> bool:
        """Whether the part was started, not stopped since, and is gone although the machine has not gone down."""
        note = self._read(part)
        return note is not None and note[1].startswith(_boot()) and self.pid(part) is None

    def start(self, part: str, command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a part in a session of its own, so that an interrupted terminal leaves no half of a stack."""
        self._note(part).parent.mkdir(parents=True, exist_ok=True)
        process = self._spawn(part, command, env)
        draft = self._note(part).with_suffix(".draft")
        draft.write_text(json.dumps({"pid": process.pid, "began": began(process.pid) or "ended at once"}))
        draft.replace(self._note(part))
        return process

    def run(self, name: str, command: Sequence[str], env: Mapping[str, str], given_up: threading.Event) -> int:
        """Run a command to its end, its output in the log of this name; end it when the caller gives up."""
        process = self._spawn(name, command, env)
        while process.poll() is None:
            if given_up.wait(0.02):
                process.terminate()
                process.wait(5)
        return process.returncode

    def _spawn(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        self.log(name).parent.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(env),
                start_new_session=True,
                cwd=PROJECT,
            )
        _own[process.pid] = process
        return process

    def signal(self, part: str, number: signal.Signals) -> None:
        """Send a signal to the part, if it is still the process that was started."""
        if (pid := self.pid(part)) is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(pid, number)
            else:
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
                time.sleep(0.02)
            self._note(part).unlink(missing_ok=True)

    def kill(self, part: str) -> None:
        """End a part without a word, as a loss of power would. It counts as crashed from then on."""
        self.signal(part, signal.SIGKILL)
        while self.pid(part) is not None:
            time.sleep(0.01)
