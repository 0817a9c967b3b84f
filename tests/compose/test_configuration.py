"""What a deployed installation is like: read from the configuration as compose understands it, not from promises."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from stack import PROJECT, SERVICES

BASE = ("docker-compose.yml",)
CLUSTER = ("docker-compose.yml", "ops/compose.cluster.yml")
ONCE = {"init", "database", "agency", *(f"{service}-prepare" for service in SERVICES)}
BY_HAND = {"demo", "ops"}
PUBLISHED = {"gateway": ["8443"], "kafka": ["9094"], "mailpit": ["8025"]}
CLUSTERED = {"kafka-2": ["9094"], "kafka-3": ["9094"]}
SECRET = re.compile(r"(password|secret|key|token)", re.IGNORECASE)
A_FILE = re.compile(r"^/secrets/|\.pem$")


class _Reader(yaml.SafeLoader):
    """Reads compose's own tag, by which a file says that it replaces what another has."""


_Reader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))  # type: ignore[arg-type]


def as_written(files: tuple[str, ...]) -> dict[str, Any]:
    """The files by a reader of YAML, settings put in as compose does: where there is no docker."""
    settings = dict(
        line.split("=", 1) for line in (PROJECT / ".env").read_text().splitlines() if re.match(r"\w+=", line)
    )
    if len(files) > 1:
        text = (PROJECT / "ops" / "cluster.env").read_text()
        settings |= dict(line.split("=", 1) for line in text.splitlines() if re.match(r"\w+=", line))

    def value(found: re.Match[str]) -> str:
        return settings.get(found["name"]) or (found["default"] or "")

    merged: dict[str, Any] = {}
    for file in files:
        text = (PROJECT / file).read_text().replace("$$", "\ue000")
        told = yaml.load(re.sub(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*)|:\?[^}]*)?\}", value, text), _Reader)
        for name, service in told["services"].items():
            before = merged.setdefault(service.get("extends", {}).get("service", name), {})
            merged[name] = (
                before | service | {"depends_on": before.get("depends_on", {}) | service.get("depends_on", {})}
            )
    return merged


def as_understood(files: tuple[str, ...]) -> dict[str, Any]:
    """The files as compose itself reads them."""
    named = [option for file in files for option in ("-f", file)] + ["--env-file", ".env"]
    named += ["--env-file", "ops/cluster.env"] if len(files) > 1 else []
    command = ["docker", "compose", *named, "--profile", "*", "config", "--format", "json"]
    told = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    return dict(json.loads(told.stdout)["services"])


def _compose_is_here() -> bool:
    return bool(shutil.which("docker")) and not subprocess.run(["docker", "compose", "version"], check=False).returncode


@pytest.fixture(
    scope="module", params=[(r, f) for f in (BASE, CLUSTER) for r in ("as written", "as understood")], ids=str
)
def services(request: pytest.FixtureRequest) -> Mapping[str, Mapping[str, Any]]:
    reader, files = request.param
    if reader == "as written":
        return as_written(files)
    if not _compose_is_here():
        pytest.skip("no docker compose here: the files are read as written only")
    return as_understood(files)


def running(services: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return ((name, service) for name, service in services.items() if name not in ONCE | BY_HAND)


def test_every_service_of_ours_has_its_roles(services: Mapping[str, Any]) -> None:
    for service in SERVICES:
        for role in ("prepare", "api", "worker"):
            assert services[f"{service}-{role}"]["command"] == [f"services.{service}.app", role]


def test_nothing_runs_as_root_and_every_root_file_system_is_read_only(services: Mapping[str, Any]) -> None:
    for name, service in services.items():
        assert re.fullmatch(r"[1-9]\d*:\d+", service["user"]), name
        assert service["read_only"] is True, name


def test_no_capability_is_left_and_none_can_be_gained(services: Mapping[str, Any]) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"] and "cap_add" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged") and not service.get("pid") and not service.get("ipc"), name


def test_everything_has_limits(services: Mapping[str, Any]) -> None:
    for name, service in services.items():
        limits = service["deploy"]["resources"]["limits"]
        assert limits["memory"] and float(limits["cpus"]) > 0 and int(limits["pids"]) > 0, name
        assert service["logging"]["options"]["max-size"], name


def test_what_runs_is_looked_after(services: Mapping[str, Any]) -> None:
    for name, service in running(services):
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"], name
    for name in (ONCE | BY_HAND) & services.keys():
        assert _is_never_restarted(services[name]), name


def _is_never_restarted(service: Mapping[str, Any]) -> bool:
    return str(service.get("restart", "no")) == "no"


def test_each_waits_for_what_it_needs(services: Mapping[str, Any]) -> None:
    def needs(name: str) -> dict[str, str]:
        return {other: told["condition"] for other, told in services[name].get("depends_on", {}).items()}

    done, healthy = "service_completed_successfully", "service_healthy"
    for service in SERVICES:
        assert needs(f"{service}-prepare") == {"kafka": healthy, "database": done} | {
            name: healthy for name in ("kafka-2", "kafka-3") if name in services
        }
        assert needs(f"{service}-api") == needs(f"{service}-worker") == {f"{service}-prepare": done}
        assert needs("gateway")[f"{service}-api"] == healthy
    assert all(needs(name) == {"init": done} for name in services if name.startswith(("kafka", "mongo", "keycloak")))
    assert needs("database")["mongo"] == healthy


def test_only_portal_agencies_and_the_demonstrations_mail_are_published(services: Mapping[str, Any]) -> None:
    allowed = PUBLISHED | CLUSTERED
    for name, service in services.items():
        published = [
            re.findall(r"\d+", str(p["target"] if isinstance(p, dict) else p))[-1] for p in service.get("ports", [])
        ]
        assert published == allowed.get(name, []), name
    (mail,) = services["mailpit"]["ports"]
    assert "127.0.0.1" in str(mail)


def test_the_gateway_reaches_neither_broker_nor_database(services: Mapping[str, Any]) -> None:
    assert set(services["gateway"]["networks"]) == {"front"}
    assert set(services["mongo"]["networks"]) == {"data"}
    assert all(set(services[name]["networks"]) == {"bus"} for name in services if name.startswith("kafka"))
    assert all(not {"bus"} & set(services[f"{service}-api"]["networks"]) for service in SERVICES)


def test_no_secret_is_written_down(services: Mapping[str, Any]) -> None:
    for name, service in services.items():
        for variable, value in (service.get("environment") or {}).items():
            if SECRET.search(variable) and value:
                assert A_FILE.search(str(value)) or variable == "GATEWAY_KEY", (name, variable)
            assert not re.search(r"://[^/\s]+:[^/\s]+@", str(value)), (name, variable)


def test_each_service_is_given_its_own_secrets_and_no_others(services: Mapping[str, Any]) -> None:
    def volumes(name: str) -> set[str]:
        return {
            str(v["source"] if isinstance(v, dict) else v).partition(":")[0] for v in services[name].get("volumes", [])
        }

    for service in SERVICES:
        for role in ("api", "worker"):
            assert volumes(f"{service}-{role}") == {f"{service}-own", "clock"}
    holders = {name for name in services if "kept" in volumes(name)}
    assert holders == {"init"}
    assert {name for name in services if "admin" in volumes(name)} == {
        "init", "database", "agency", "demo", *(f"{service}-prepare" for service in SERVICES),
    }  # fmt: skip


def test_every_image_is_pinned(services: Mapping[str, Any]) -> None:
    for name, service in services.items():
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+(\.\d+)?", service["image"]), (name, service["image"])


def test_what_is_committed_as_settings_holds_no_secret() -> None:
    for file in (".env", "ops/cluster.env"):
        for line in (PROJECT / file).read_text().splitlines():
            assert line.startswith("#") or not SECRET.search(line.partition("=")[0]), line


def test_a_clusters_members_are_those_of_its_file() -> None:
    """Three brokers and three members of the replica set, each named where the others look for it."""
    services = as_written(CLUSTER)
    lines = (PROJECT / "ops" / "cluster.env").read_text().splitlines()
    told = dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))
    brokers, members = (told[name].split(",") for name in ("KAFKA_NODES", "MONGO_HOSTS"))
    assert len(brokers) == len(members) == 3 and told["KAFKA_REPLICATION"] == "3"
    assert [f"{name}:9092" for name in brokers] == told["KAFKA_BOOTSTRAP"].split(",")
    for name in brokers:
        assert services[name]["environment"]["NODE"] == name
    data = set()
    for host in members:
        member = services[host.removesuffix(":27017")]
        assert member["entrypoint"] == ["/bin/bash", "/start.sh"] and "replicas" in (
            *member.get("profiles", ["replicas"]),
        )
        data |= {str(volume).partition(":")[0] for volume in member["volumes"] if str(volume).endswith(":/data/db")}
    assert len(data) == 3
    assert "--replSet rs0" in (PROJECT / "ops" / "mongo.sh").read_text()
