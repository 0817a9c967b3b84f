"""A compose installation of a test's own: its own project, ports and volumes, taken away with everything afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stack import PROJECT
from tests.servers import container_engine, free_port

UP_SECONDS = 420


def absent() -> str:
    """Why no installation can be started here; empty where one can."""
    if shutil.which("docker") is None:
        return "no docker command"
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        return "docker has no compose"
    return "" if container_engine() else "no container engine answers"


@dataclass
class Installation:
    """One installation. `files` are compose files and `env_files` files of settings, relative to the project."""

    tag: str = "test"
    files: Sequence[str] = ("docker-compose.yml",)
    env_files: Sequence[str] = (".env",)
    settings: Mapping[str, str] = field(default_factory=dict)
    name: str = field(default_factory=lambda: f"angkatan-test-{uuid.uuid4().hex[:8]}")
    ports: dict[str, int] = field(
        default_factory=lambda: {n: free_port() for n in ("GATEWAY_PORT", "AGENCIES_PORT", "MAIL_PORT")}
    )

    @property
    def environment(self) -> dict[str, str]:
        ports = {name: str(port) for name, port in self.ports.items()}
        return dict(os.environ) | ports | {"COMPOSE_PROJECT_NAME": self.name, "TAG": self.tag} | dict(self.settings)

    def compose(
        self,
        *arguments: str,
        seconds: float = 120,
        check: bool = True,
        input: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """`docker compose …` in this installation. Fails with what was printed."""
        files = [option for file in self.files for option in ("-f", file)]
        files += [option for file in self.env_files for option in ("--env-file", file)]
        done = subprocess.run(
            ["docker", "compose", *files, *arguments],
            cwd=PROJECT,
            env=self.environment | dict(settings or {}),
            capture_output=True,
            text=True,
            input=input,
            timeout=seconds,
            check=False,
        )
        assert not check or done.returncode == 0, f"{arguments}: {(done.stdout + done.stderr)[-4000:]}"
        return done

    def up(self, *arguments: str, **options: Any) -> None:
        """Start, and wait until everything is healthy."""
        self.compose("up", "-d", "--wait", *arguments, seconds=UP_SECONDS, **options)

    def down(self) -> None:
        self.compose("--profile", "*", "down", "-v", "--remove-orphans", "--timeout", "5", check=False)

    def run(self, service: str, *arguments: str, seconds: float = 180, check: bool = True) -> str:
        """What a command in a container of its own prints, its complaints behind it."""
        done = self.compose("run", "--rm", "-T", "--no-deps", service, *arguments, seconds=seconds, check=check)
        return done.stdout if check else done.stdout + done.stderr

    def containers(self) -> list[dict[str, Any]]:
        """Every container of the installation, those that have ended included."""
        told = self.compose("ps", "-a", "--format", "json").stdout
        return [json.loads(line) for line in told.splitlines()]

    def inspected(self) -> list[dict[str, Any]]:
        """All that the engine knows of each container."""
        ids = [one["ID"] for one in self.containers()]
        found = subprocess.run(["docker", "inspect", *ids], capture_output=True, text=True, check=True)
        return list(json.loads(found.stdout))

    def ids(self, service: str) -> list[str]:
        """The running containers of a service."""
        return self.compose("ps", "-q", service).stdout.split()

    def secret(self, name: str) -> str:
        """One of the drawn secrets, by its name."""
        return str(self.secrets()[name])

    def secrets(self) -> dict[str, str]:
        told = self.compose(
            "run", "--rm", "-T", "--no-deps", "--entrypoint", "cat", "init", "/secrets/kept/secrets.json"
        )
        return dict(json.loads(told.stdout))

    def take(self, folder: Path, service: str, file: str) -> Path:
        """A copy of a file that a container of the service can read."""
        told = self.compose("run", "--rm", "-T", "--no-deps", "--entrypoint", "cat", service, file)
        copy = folder / Path(file).name
        copy.write_text(told.stdout)
        return copy


def build(tag: str, source: Path = PROJECT) -> None:
    """The image of a source tree, by today's Dockerfile. Fails with what was printed."""
    done = subprocess.run(
        ["docker", "build", "-q", "-t", f"angkatan:{tag}", "-f", str(PROJECT / "Dockerfile"), str(source)],
        env=dict(os.environ) | {"DOCKER_BUILDKIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
