"""The embedded stack: broker, database, gateway, mail, issuer and the four services as plain processes, no containers.

Everything that it keeps lies under one folder (`var/stack`, or `STACK_HOME`), so two checkouts run side by side.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from stack.processes import NotStarted, Processes

PROJECT = Path(__file__).resolve().parents[1]
SERVICES = ("enrollment", "scheduling", "assessment", "notification")
NEIGHBOURS = ("kafka", "mongo", "mail", "issuer")
_PORTS = (
    *("kafka", "kafka-controller", "mongo", "mail-smtp", "mail-http", "issuer", "gateway"),
    *(f"{service}-{kind}" for service in SERVICES for kind in ("http", "internal", "api-internal")),
)


class Missing(Exception):
    """A prerequisite is not installed; the message is the one line that says what to install."""


def home_folder() -> Path:
    return Path(os.environ.get("STACK_HOME") or PROJECT / "var" / "stack").resolve()


class Stack:
    """One stack in one folder. `apart` runs each service as two processes, api and worker, instead of one."""

    def __init__(self, home: Path | None = None, *, apart: bool = False) -> None:
        self.home = home or home_folder()
        roles = ("-api", "-worker") if apart else ("",)
        self.services = tuple(service + role for service in SERVICES for role in roles)
        self.parts = (*NEIGHBOURS, *self.services, "gateway")
        self.processes = Processes(self.home)
        self._libs = PROJECT / "var" / "kafka-libs"

    # what is known of it

    @property
    def endpoints(self) -> dict[str, Any]:
        """Every address, and where each credential lies."""
        return dict(json.loads((self.home / "endpoints.json").read_text()))

    def credentials(self, name: str) -> tuple[str, str]:
        """User and password of a credential by its name in `endpoints.json`."""
        lines = (self.home / "credentials" / name).read_text().splitlines()
        found = dict(line.split("=", 1) for line in lines)
        return found["username"], found["password"]

    def status(self) -> dict[str, str]:
        """For each part: running, crashed, or stopped."""
        return {part: self._state(part) for part in self.parts}

    def _state(self, part: str) -> str:
        if self.processes.pid(part):
            return "running"
        return "crashed" if self.processes.noted(part) else "stopped"

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One command at a time changes a stack."""
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    # up and down

    def up(self, parts: Sequence[str] | None = None, *, virtual_clock: datetime | None = None) -> list[str]:
        """Start what does not run and wait until it is ready. Returns what was started; nothing when all ran.

        Raises `Missing` for an absent prerequisite and `NotStarted` with the last lines of a part that failed.
        """
        with self._alone():
            if virtual_clock is not None:
                self.set_clock(virtual_clock)
            wanted = [p for p in self.parts if (parts is None or p in parts) and self.processes.pid(p) is None]
            if not wanted:
                return []
            if "kafka" in wanted:
                self._require_java()
                self._fetch_broker()
            self._settle()
            neighbours = [part for part in wanted if part in NEIGHBOURS]
            self._together([lambda part=part: self._start(part) for part in neighbours])  # type: ignore[misc]
            services = sorted({part.partition("-")[0] for part in wanted if part in self.services})
            self._together([lambda part=part: self.prepare(part) for part in services])  # type: ignore[misc]
            later = [part for part in wanted if part not in NEIGHBOURS]
            self._together([lambda part=part: self._start(part) for part in later])  # type: ignore[misc]
            return wanted

    def down(self) -> None:
        """Stop everything: services first, so that they finish what they have begun."""
        with self._alone():
            self.processes.stop(["gateway", *self.services], seconds=12)
            self.processes.stop(["mail", "issuer", "kafka", "mongo"], seconds=15)

    def reset_data(self) -> None:
        """Stop, and forget what was played; secrets, ports and the broker's programs stay."""
        self.down()
        shutil.rmtree(self.home / "data", ignore_errors=True)
        shutil.rmtree(self.home / "logs", ignore_errors=True)
        (self.home / "clock").unlink(missing_ok=True)
        for agency in (self.home / "credentials").glob("kafka-agency-*"):
            agency.unlink()

    def stop_part(self, part: str) -> None:
        self.processes.stop([part], seconds=12)

    def kill_part(self, part: str) -> None:
        """As a machine that loses power would: no goodbye."""
        self.processes.signal(part, signal.SIGKILL)
        self.processes.stop([part], seconds=5)

    def start_part(self, part: str) -> None:
        self._start(part)

    def set_clock(self, instant: datetime) -> None:
        """Move the virtual clock; written beside and renamed, so that nobody reads half of it."""
        self.home.mkdir(parents=True, exist_ok=True)
        draft = self.home / "clock.draft"
        draft.write_text(instant.isoformat() + "\n")
        draft.replace(self.home / "clock")

    def _together(self, jobs: Sequence[Callable[[], None]]) -> None:
        with ThreadPoolExecutor(max(1, len(jobs))) as pool:
            for future in [pool.submit(job) for job in jobs]:
                future.result()

    # first start

    def _require_java(self) -> None:
        if shutil.which("java") is None:
            raise Missing("java is missing: install a JDK, version 17 or later")
        told = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
        version = told.split('"')[1].split(".")[0] if '"' in told else "0"
        if not version.isdigit() or int(version) < 17:
            raise Missing(f"java {version} is too old: install a JDK, version 17 or later")

    def _fetch_broker(self) -> None:
        """Apache Kafka's own jars, fetched once per checkout and again when the list of them changes."""
        pom = PROJECT / "stack" / "pom.xml"
        mark = self._libs / "from-pom"
        if mark.exists() and mark.read_text() == pom.read_text():
            return
        if shutil.which("mvn") is None:
            raise Missing("mvn is missing: install Maven, version 3.6 or later")
        shutil.rmtree(self._libs, ignore_errors=True)
        command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime"]
        done = subprocess.run(
            [*command, f"-DoutputDirectory={self._libs}"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise NotStarted("Maven could not fetch the broker:\n" + "\n".join(done.stdout.splitlines()[-20:]))
        mark.write_text(pom.read_text())

    def _settle(self) -> None:
        """Choose ports and make secrets, once; write down where everything is."""
        file = self.home / "secrets.json"
        kept: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"ports": {}}
        for name in _PORTS:
            if fixed := os.environ.get("PORT_" + name.upper().replace("-", "_")):
                kept["ports"][name] = int(fixed)
        taken = set(kept["ports"].values())
        for name in _PORTS:
            while name not in kept["ports"] or kept["ports"][name] == 0:
                if (port := _free_port()) not in taken:
                    kept["ports"][name] = port
                    taken.add(port)
        kept.setdefault("installation_key", secrets.token_hex(32))
        kept.setdefault("certificate_key", base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
        kept.setdefault("cluster_id", base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("="))
        kept.setdefault("clients", {name: secrets.token_hex(16) for name in (*SERVICES, "scenario")})
        _write_private(file, json.dumps(kept, indent=1))
        for kind in ("kafka", "mongo"):
            for user in ("admin", *SERVICES):
                path = self.home / "credentials" / f"{kind}-{user}"
                if not path.exists():
                    _write_private(path, f"username={user}\npassword={secrets.token_hex(16)}\n")
        for client, secret in kept["clients"].items():
            _write_private(self.home / "credentials" / f"client-{client}", f"username={client}\npassword={secret}\n")
        _write_private(self.home / "data-of-issuer" / "clients.json", json.dumps(kept["clients"]))
        self.note_endpoints()

    def note_endpoints(self) -> None:
        """Write `endpoints.json` afresh: also the credentials that came since."""
        ports = json.loads((self.home / "secrets.json").read_text())["ports"]
        web = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        endpoints = {
            "gateway": web["gateway"],
            "issuer": web["issuer"],
            "kafka": {"bootstrap": f"127.0.0.1:{ports['kafka']}", "libs": str(self._libs)},
            "mongo": {"uri": f"mongodb://127.0.0.1:{ports['mongo']}/?directConnection=true"},
            "mail": {"smtp": f"127.0.0.1:{ports['mail-smtp']}", "http": web["mail-http"]},
            "services": {s: {"http": web[f"{s}-http"], "internal": web[f"{s}-internal"]} for s in SERVICES},
            "clock": str(self.home / "clock"),
            "credentials": {path.name: str(path) for path in sorted((self.home / "credentials").iterdir())},
        }
        (self.home / "endpoints.json").write_text(json.dumps(endpoints, indent=1) + "\n")

    # each part

    def prepare(self, service: str, *arguments: str) -> None:
        """Run the service's `prepare`: indexes, topics and rights, or what the arguments ask. Raises `NotStarted`."""
        command = [sys.executable, "-m", f"services.{service}.app", "prepare", *arguments]
        environment = self.environment(service, admin=True)
        done = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = (done.stdout + done.stderr).splitlines()[-20:]
            raise NotStarted(f"{service} could not be prepared:\n" + "\n".join(lines))
        self.note_endpoints()

    def environment(self, service: str, *, admin: bool = False) -> dict[str, str]:
        """The settings of one service in this stack; with the administrator's, for `prepare`."""
        kept = json.loads((self.home / "secrets.json").read_text())
        endpoints = self.endpoints
        mongo_user, mongo_password = self.credentials(f"mongo-{service}")
        kafka_user, kafka_password = self.credentials(f"kafka-{service}")
        ports = kept["ports"]
        smtp_host, _, smtp_port = endpoints["mail"]["smtp"].partition(":")
        settings = {
            "ENVIRONMENT": "development",
            "MONGO_URI": f"mongodb://{mongo_user}:{mongo_password}@127.0.0.1:{ports['mongo']}"
            f"/?directConnection=true&authSource={service}",
            "MONGO_DATABASE": service,
            "KAFKA_BOOTSTRAP": endpoints["kafka"]["bootstrap"],
            "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "KAFKA_USERNAME": kafka_user,
            "KAFKA_PASSWORD": kafka_password,
            "HTTP_PORT": str(ports[f"{service}-http"]),
            "INTERNAL_PORT": str(ports[f"{service}-internal"]),
            "OIDC_ISSUER": endpoints["issuer"],
            "CLIENT_ID": service,
            "CLIENT_SECRET": kept["clients"][service],
            "INSTALLATION_KEY": kept["installation_key"],
            "GATEWAY_URL": endpoints["gateway"],
            "INSTANCE": "embedded",
            "LOG_LEVEL": os.environ.get("LOG_LEVEL", "INFO"),
            "SMTP_HOST": smtp_host,
            "SMTP_PORT": smtp_port,
            "MAIL_FROM": "training@example.go.id",
            "ENROLLMENT_INTERNAL_URL": endpoints["services"]["enrollment"]["internal"],
            "CREDENTIALS_DIR": str(self.home / "credentials"),
            "CERTIFICATE_KEY": kept["certificate_key"],
            "PUBLIC_URL": endpoints["gateway"],
        }
        if (self.home / "clock").exists():
            settings["CLOCK_SOURCE"] = str(self.home / "clock")
        if admin:
            settings["KAFKA_ADMIN_USERNAME"], settings["KAFKA_ADMIN_PASSWORD"] = self.credentials("kafka-admin")
        passed = {
            name: os.environ[name] for name in ("MONGO_DRIVER", "PYTHONPATH", "SSL_CERT_FILE") if name in os.environ
        }
        return _plain_environment() | passed | settings

    def _start(self, part: str) -> None:
        command, env, ready = self._described(part)
        process = self.processes.start(part, command, env)
        deadline = time.monotonic() + 60
        while not ready():
            if process.poll() is not None:
                raise NotStarted(f"{part} ended with {process.returncode}:\n{self.processes.tail(part)}")
            if time.monotonic() > deadline:
                raise NotStarted(f"{part} is not ready after 60 s:\n{self.processes.tail(part)}")
            time.sleep(0.05)

    def _described(self, part: str) -> tuple[list[str], dict[str, str], Callable[[], bool]]:
        """How a part is started, with which environment, and how one sees that it is ready."""
        kept = json.loads((self.home / "secrets.json").read_text())
        ports, endpoints, data = kept["ports"], self.endpoints, self.home / "data"
        python = [sys.executable, "-m"]
        env = _plain_environment()
        if part == "kafka":
            self._format_broker(ports, kept["cluster_id"])
            command = [*self._java("-Xms256m", "-Xmx512m"), "kafka.Kafka", str(data / "kafka" / "server.properties")]
            return command, env, lambda: _listens(ports["kafka"])
        if part == "mongo":
            users = data / "mongo" / "users.json"
            made = []
            for user in ("admin", *SERVICES):
                name, password = self.credentials(f"mongo-{user}")
                database, role = ("admin", "root") if user == "admin" else (user, "readWrite")
                made.append({"username": name, "password": password, "database": database, "role": role})
            _write_private(users, json.dumps(made))
            lifetime = os.environ.get("MONGO_TRANSACTION_LIFETIME", "20")
            command = [*python, "stack.database", str(ports["mongo"]), str(users.parent), str(users), lifetime]
            return command, env, lambda: _listens(ports["mongo"])
        if part == "mail":
            file = str(data / "mail" / "messages.jsonl")
            command = [*python, "stack.mail", str(ports["mail-smtp"]), str(ports["mail-http"]), file]
            return command, env, lambda: _answers(endpoints["mail"]["http"] + "/messages")
        if part == "issuer":
            command = [*python, "stack.issuer", str(ports["issuer"]), str(self.home / "data-of-issuer")]
            env["ENVIRONMENT"] = "development"
            return command, env, lambda: _answers(endpoints["issuer"] + "/jwks")
        if part == "gateway":
            program = Path(sys.executable).with_name("traefik")
            env |= {f"{name.upper()}_URL": endpoints["services"][name]["http"] for name in SERVICES}
            env |= {
                "TRAEFIK_ENTRYPOINTS_WEB_ADDRESS": f"127.0.0.1:{ports['gateway']}",
                "TRAEFIK_PROVIDERS_FILE_FILENAME": str(PROJECT / "gateway" / "routes.yaml"),
                "TRAEFIK_GLOBAL_CHECKNEWVERSION": "false",
                "TRAEFIK_LOG_LEVEL": "WARN",
            }
            return (
                [str(program)],
                env,
                lambda: _answers(f"{endpoints['gateway']}/enrollment/openapi.json", any_status=True),
            )
        service, _, role = part.partition("-")
        env = self.environment(service)
        health = endpoints["services"][service]["internal"]
        if role == "api":  # the worker has the address that neighbours and the player know
            env["INTERNAL_PORT"] = str(ports[f"{service}-api-internal"])
            health = f"http://127.0.0.1:{env['INTERNAL_PORT']}"
        command = [*python, f"services.{service}.app", role or "all"]
        return command, env, lambda: _answers(health + "/readyz")

    def _java(self, *options: str) -> list[str]:
        quick = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
        logging = f"-Dlog4j2.configurationFile={PROJECT / 'stack' / 'log4j2.properties'}"
        return ["java", *options, *quick, logging, "-cp", f"{self._libs}/*"]

    def _format_broker(self, ports: dict[str, int], cluster_id: str) -> None:
        """Once: the broker's configuration, its storage, and the users that it must know before it starts."""
        folder = self.home / "data" / "kafka"
        file = folder / "server.properties"
        if file.exists():
            return
        draft = folder / "draft.properties"
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        admin, admin_password = self.credentials("kafka-admin")
        broker_login = scram.replace("required;", f'required username="{admin}" password="{admin_password}";')
        lines = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{ports['kafka-controller']}",
            "listeners": f"CLIENT://127.0.0.1:{ports['kafka']},CONTROLLER://127.0.0.1:{ports['kafka-controller']}",
            "advertised.listeners": f"CLIENT://127.0.0.1:{ports['kafka']}",
            "listener.security.protocol.map": "CLIENT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "CLIENT",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
            "listener.name.client.scram-sha-512.sasl.jaas.config": broker_login,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            # The controller's listener knows no users; it listens on this machine only.
            "super.users": f"User:{admin};User:ANONYMOUS",
            "log.dirs": str(folder / "log"),
            "auto.create.topics.enable": "false",
            "num.partitions": "12",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "10",
            "offsets.retention.minutes": str(60 * 24 * 60),
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "log.segment.bytes": "67108864",
            "log.index.size.max.bytes": "1048576",
            "log.retention.check.interval.ms": "300000",
        }
        _write_private(draft, "".join(f"{name}={value}\n" for name, value in lines.items()))
        command = [*self._java("-Xmx256m"), "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(draft)]
        for user in ("admin", *SERVICES):
            name, password = self.credentials(f"kafka-{user}")
            command += ["--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]"]
        done = subprocess.run(command, capture_output=True, text=True, env=_plain_environment(), check=False)
        if done.returncode:
            raise NotStarted("the broker's storage could not be formatted:\n" + (done.stdout + done.stderr)[-2000:])
        draft.replace(file)


# --- small things ------------------------------------------------------------------------------------------------


def _plain_environment() -> dict[str, str]:
    """What a part needs of ours; nothing of the caller's own settings leaks into it."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "JAVA_HOME", "TMPDIR", "VIRTUAL_ENV")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"PYTHONUNBUFFERED": "1"}


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _answers(url: str, *, any_status: bool = False) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        return any_status and error.code < 500
    except OSError:
        return False
