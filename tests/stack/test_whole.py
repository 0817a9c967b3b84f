"""The stack as a whole: found by its file of endpoints, started once, honest about what crashed, emptied for a play."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path

import httpx
import pytest

from stack import _PASSED_ON, NEIGHBOURS, PROJECT, SERVICES, Missing, NotStarted, Stack, _plain_environment, broker


def command(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m stack …` on the stack in this folder."""
    env = {**os.environ, "STACK_HOME": str(home), **environment}
    return subprocess.run(
        [sys.executable, "-m", "stack", *arguments], cwd=PROJECT, env=env, capture_output=True, text=True, check=False
    )


def pids(stack: Stack) -> dict[str, int | None]:
    return {part: stack.processes.pid(part) for part in stack.parts}


def test_endpoints_name_every_address_and_every_credential(stack: Stack) -> None:
    endpoints = stack.endpoints
    assert json.loads((stack.home / "endpoints.json").read_text()) == endpoints
    assert endpoints["gateway"].startswith("http://127.0.0.1:")
    assert httpx.get(endpoints["issuer"] + "/jwks").status_code == 200
    assert re.fullmatch(r"127\.0\.0\.1:\d+", endpoints["kafka"]["bootstrap"])
    assert list(Path(endpoints["kafka"]["libs"]).glob("kafka-clients-*.jar"))
    assert endpoints["mongo"]["uri"].startswith("mongodb://")
    assert re.fullmatch(r"127\.0\.0\.1:\d+", endpoints["mail"]["smtp"])
    assert httpx.get(endpoints["mail"]["http"] + "/messages").status_code == 200
    assert set(endpoints["services"]) == set(SERVICES)
    assert {"kafka-admin", "mongo-admin", "kafka-enrollment", "client-scenario"} <= set(endpoints["credentials"])
    for file in map(Path, endpoints["credentials"].values()):
        assert file.stat().st_mode & 0o777 == 0o600
        assert re.fullmatch(r"username=\S+\npassword=\S+\n", file.read_text())


def test_a_second_up_does_nothing(stack: Stack) -> None:
    before, began = pids(stack), time.monotonic()
    assert stack.up(NEIGHBOURS) == []
    assert time.monotonic() - began < 1
    assert pids(stack) == before
    again = command(stack.home, "up", "--without-services")
    assert again.returncode == 0
    assert "everything runs already" in again.stdout


def test_a_crashed_part_is_reported_with_its_last_lines_and_started_again(stack: Stack) -> None:
    with stack.processes.log("mail").open("a") as log:
        log.write("\n".join(f"line {number}" for number in range(30)) + "\n")
    stack.kill_part("mail")
    assert stack.status()["mail"] == "crashed"
    status = command(stack.home, "status")
    assert status.returncode == 1
    assert re.search(r"^mail +crashed$", status.stdout, re.M)
    up = command(stack.home, "up", "--without-services")
    assert "mail had crashed" in up.stderr
    assert "line 10\n" in up.stderr and "line 29\n" in up.stderr and "line 9\n" not in up.stderr
    assert "started mail in" in up.stdout
    assert stack.status()["mail"] == "running"


def test_a_part_that_cannot_start_says_why(small: Stack) -> None:
    small.up(["mail"])
    small.stop_part("mail")
    address = small.endpoints["mail"]["smtp"]
    taken = r"mail: port \d+ is taken by another program; set PORT_MAIL_SMTP"
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))), pytest.raises(NotStarted, match=taken):
        small.up(["mail"])
    messages = small.home / "data" / "mail" / "messages.jsonl"
    messages.unlink()
    messages.mkdir()
    with pytest.raises(NotStarted, match=r"(?s)mail ended with 1:.*IsADirectoryError"):
        small.up(["mail"])
    assert small.status()["mail"] == "crashed"


def test_a_process_that_only_has_the_number_of_a_part_is_left_alone(small: Stack) -> None:
    (small.home / "run").mkdir(parents=True)
    boot = Path("/proc/sys/kernel/random/boot_id")
    at = f"{boot.read_text().strip() if boot.exists() else ''}/1"
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        (small.home / "run" / "mail.json").write_text(json.dumps({"pid": bystander.pid, "began": at}))
        assert small.status()["mail"] == "crashed"
        small.kill_part("mail")
        small.down()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_two_stacks_run_side_by_side_and_ports_can_be_set(
    stack: Stack, small: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("PORT_MAIL_HTTP", str(port))
    assert small.up(["mail"]) == ["mail"]
    assert small.endpoints["mail"]["http"] == f"http://127.0.0.1:{port}"
    assert small.endpoints["mail"]["smtp"] != stack.endpoints["mail"]["smtp"]
    assert httpx.get(stack.endpoints["mail"]["http"] + "/messages").status_code == 200
    monkeypatch.setenv("PORT_MAIL_HTTP", "many")
    with pytest.raises(NotStarted, match="PORT_MAIL_HTTP: 'many' is no port"):
        small.up(["issuer"])


def test_interrupted_it_leaves_no_half_of_a_stack(small: Stack) -> None:
    small.up(["mail"])
    env = {**os.environ, "STACK_HOME": str(small.home)}
    up = subprocess.Popen([sys.executable, "-m", "stack", "up", "--without-services"], cwd=PROJECT, env=env)
    deadline = time.monotonic() + 20
    while "issuer" not in small.processes.noted() and time.monotonic() < deadline:
        time.sleep(0.02)
    up.terminate()
    assert up.wait(30) == 130
    assert {part for part, state in small.status().items() if state == "running"} == {"mail"}


def test_a_missing_prerequisite_is_one_line_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "bin"
    empty.mkdir()
    without_java = command(tmp_path / "home", "up", "--only", "kafka", PATH=str(empty), JAVA_HOME="")
    assert without_java.returncode == 1
    assert without_java.stderr == "java is missing: install a JDK, version 17 or later\n"
    java = empty / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    java.chmod(0o755)
    too_old = command(tmp_path / "home", "up", "--only", "kafka", PATH=f"{empty}:/bin", JAVA_HOME="")
    assert too_old.stderr == "java 11.0.2 is too old: install a JDK, version 17 or later\n"
    monkeypatch.setenv("PATH", str(empty))
    with pytest.raises(Missing, match="mvn is missing: install Maven"):
        broker.fetch(tmp_path / "jars")


def test_where_no_stack_is_the_commands_say_so(tmp_path: Path) -> None:
    for asked in (["endpoints"], ["token", "--role", "organiser"], ["rotate-keys"]):
        told = command(tmp_path, *asked)
        assert told.returncode == 1
        assert told.stderr.count("\n") == 1


def test_the_issuer_is_for_development_only(tmp_path: Path) -> None:
    env = {**os.environ, "ENVIRONMENT": "production"}
    asked = [sys.executable, "-m", "stack.issuer", "0", str(tmp_path)]
    refused = subprocess.run(asked, cwd=PROJECT, env=env, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr == "the development issuer runs only with ENVIRONMENT=development\n"


def test_the_virtual_clock_never_goes_back(small: Stack) -> None:
    instant = datetime(2022, 1, 3, 8, tzinfo=UTC)
    small.up(["mail"], virtual_clock=instant.replace(tzinfo=None))
    assert datetime.fromisoformat(Path(small.endpoints["clock"]).read_text().strip()) == instant
    assert small.environment("enrollment")["CLOCK_SOURCE"] == small.endpoints["clock"]
    with pytest.raises(NotStarted, match="never goes back"):
        small.up(["mail"], virtual_clock=instant - timedelta(days=1))
    small.reset_data()
    assert "CLOCK_SOURCE" not in small.environment("enrollment")


def test_each_service_gets_its_own_settings_and_no_other(stack: Stack) -> None:
    found = {service: stack.environment(service) for service in SERVICES}
    for service, settings in found.items():
        assert settings["ENVIRONMENT"] == "development"
        assert settings["CLIENT_ID"] == settings["MONGO_DATABASE"] == settings["KAFKA_USERNAME"] == service
        assert settings["MONGO_URI"].endswith(f"authSource={service}")
        assert "KAFKA_ADMIN_PASSWORD" not in settings
        assert stack.environment(service, admin=True)["KAFKA_ADMIN_USERNAME"] == "admin"
        assert ("CERTIFICATE_KEY" in settings) == (service == "assessment")
        assert ("SMTP_PORT" in settings) == ("CREDENTIALS_DIR" in settings) == (service == "notification")
    for secret in ("KAFKA_PASSWORD", "CLIENT_SECRET", "MONGO_URI"):
        assert len({settings[secret] for settings in found.values()}) == len(SERVICES)
    assert len({settings["INSTALLATION_KEY"] for settings in found.values()}) == 1


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_that_is_given_is_known_and_every_known_one_has_an_effect(service: str, stack: Stack) -> None:
    known = set(import_module(f"services.{service}.app").service.settings.model_fields)
    given = set(stack.environment(service, admin=True)) - set(_plain_environment()) - set(_PASSED_ON)
    assert {name.lower() for name in given} <= known
    folders = (PROJECT / "shared", PROJECT / "services" / service)
    source = "".join(file.read_text() for folder in folders for file in folder.rglob("*.py"))
    assert {name for name in known if re.search(rf"\b(self|settings)\.{name}\b", source) is None} == set()


def test_an_emptied_stack_keeps_its_secrets_and_ports_and_nothing_that_was_played(stack: Stack) -> None:
    """Last in this file: it stops and starts what the others share."""
    kept = (stack.home / "secrets.json").read_text(), stack.credentials("kafka-admin")
    jars = sorted(Path(stack.endpoints["kafka"]["libs"]).iterdir())
    agency = stack.home / "credentials" / "kafka-agency-somewhere"
    agency.write_text("username=agency-somewhere\npassword=x\n")
    stack.note_endpoints()
    assert agency.name in stack.endpoints["credentials"]
    stack.reset_data()
    assert agency.name not in stack.endpoints["credentials"]
    assert stack.up(NEIGHBOURS) == list(NEIGHBOURS)
    assert ((stack.home / "secrets.json").read_text(), stack.credentials("kafka-admin")) == kept
    assert sorted(Path(stack.endpoints["kafka"]["libs"]).iterdir()) == jars
    assert httpx.get(stack.endpoints["mail"]["http"] + "/messages").json() == []
