"""Where a scenario is played: on the embedded stack, or on an installation of containers from within it."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx

from demo.scenario import Cast
from stack import SERVICES, NotStarted, Stack

WORKER_PORT = 8001


@dataclass(frozen=True, slots=True)
class Mail:
    """A message that arrived: to whom, and by which Message-ID."""

    to: str
    message_id: str


class Place(Protocol):
    """Where a scenario is played: the embedded stack, or a compose installation."""

    @property
    def endpoints(self) -> dict[str, Any]:
        """Every address, as `stack.Stack.endpoints` has them."""

    @property
    def trust(self) -> ssl.SSLContext | bool:
        """By what the gateway's certificate is checked."""

    @property
    def workers(self) -> dict[str, str]:
        """Each worker's internal address, by a name of its own."""

    def credentials(self, name: str) -> tuple[str, str]:
        """User and password of a credential by its name."""

    def prepare(self, service: str, *arguments: str) -> None:
        """Run the service's `prepare`. Raises `NotStarted`."""

    def sign_in(self, role: str, person_id: str | None, agency_ids: tuple[str, ...]) -> tuple[str, dict[str, str]]:
        """Where a token for somebody is asked for, and by which form."""

    async def mails(self) -> list[Mail]:
        """What arrived at the mail catcher."""


@dataclass(frozen=True)
class Embedded:
    """The embedded stack, which has an issuer that speaks for anybody and a mailbox of its own."""

    stack: Stack
    trust: ssl.SSLContext | bool = True

    @property
    def endpoints(self) -> dict[str, Any]:
        return self.stack.endpoints

    @property
    def workers(self) -> dict[str, str]:
        return {name: addresses["internal"] for name, addresses in self.endpoints["services"].items()}

    def credentials(self, name: str) -> tuple[str, str]:
        return self.stack.credentials(name)

    def prepare(self, service: str, *arguments: str) -> None:
        self.stack.prepare(service, *arguments)

    def sign_in(self, role: str, person_id: str | None, agency_ids: tuple[str, ...]) -> tuple[str, dict[str, str]]:
        client, secret = self.credentials("client-scenario")
        form = {
            "grant_type": "client_credentials",
            "client_id": client,
            "client_secret": secret,
            "audience": " ".join(SERVICES),
            "roles": role,
            "agency_ids": " ".join(agency_ids),
        }
        if person_id:
            form["person_id"] = person_id
        return self.endpoints["issuer"] + "/token", form

    async def mails(self) -> list[Mail]:
        async with httpx.AsyncClient(timeout=30) as http:
            found = (await http.get(self.endpoints["mail"]["http"] + "/messages")).json()
        return [Mail(str(m["headers"].get("To")), str(m["headers"].get("Message-ID"))) for m in found]


@dataclass(frozen=True)
class Installed:
    """An installation of containers, seen from one of them. `folder` has what only a demonstration is told.

    Its people sign in at the issuer with the one password that they share; its mail catcher is Mailpit.
    """

    folder: Path
    cast: Cast

    @property
    def endpoints(self) -> dict[str, Any]:
        workers = {service: f"http://{service}-worker:{WORKER_PORT}" for service in SERVICES}
        return {
            "gateway": os.environ["GATEWAY_URL"],
            "issuer": os.environ["OIDC_ISSUER"],
            "kafka": {
                "bootstrap": os.environ["KAFKA_BOOTSTRAP"],
                "protocol": "SASL_SSL",
                "ca": str(self.folder / "ca.pem"),
            },
            "services": {service: {"internal": address} for service, address in workers.items()},
            "clock": os.environ["CLOCK_SOURCE"],
        }

    @property
    def trust(self) -> ssl.SSLContext | bool:
        return ssl.create_default_context(cafile=str(self.folder / "ca.pem"))

    @property
    def workers(self) -> dict[str, str]:
        """All of them: a service that was scaled has several under one name."""
        found = {}
        for service, addresses in self.endpoints["services"].items():
            host = urlsplit(addresses["internal"]).hostname
            known = {str(info[4][0]) for info in socket.getaddrinfo(host, WORKER_PORT, type=socket.SOCK_STREAM)}
            for number, address in enumerate(sorted(known), start=1):
                name = service if len(known) == 1 else f"{service} {number}"
                found[name] = f"http://{address}:{WORKER_PORT}"
        return found

    def credentials(self, name: str) -> tuple[str, str]:
        if name == "kafka-admin":
            return self._told("kafka_admin_username"), self._told("kafka_admin_password")
        lines = (Path(os.environ["CREDENTIALS_DIR"]) / name).read_text().splitlines()
        found = dict(line.split("=", 1) for line in lines)
        return found["username"], found["password"]

    def _told(self, name: str) -> str:
        return (self.folder / name).read_text().strip()

    def prepare(self, service: str, *arguments: str) -> None:
        command = [sys.executable, "-m", f"services.{service}.app", "prepare", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotStarted(f"{service} could not be prepared:\n{(done.stdout + done.stderr)[-2000:]}")

    def sign_in(self, role: str, person_id: str | None, agency_ids: tuple[str, ...]) -> tuple[str, dict[str, str]]:
        person = next(p for p in self.cast.people if p.id == person_id)
        return self.endpoints["issuer"] + "/protocol/openid-connect/token", {
            "grant_type": "password",
            "client_id": "portal",
            "client_secret": self._told("portal_secret"),
            "username": person.username,
            "password": self._told("people_password"),
        }

    async def mails(self) -> list[Mail]:
        found: list[Mail] = []
        async with httpx.AsyncClient(timeout=30, base_url=os.environ["MAILBOX_URL"]) as http:
            while True:
                asked = {"start": len(found), "limit": 500}
                page = (await http.get("/api/v1/messages", params=asked)).json()
                found += [Mail(m["To"][0]["Address"], m["MessageID"]) for m in page["messages"]]
                if not page["messages"]:
                    return found
