"""Processes: a wrong setting, neighbours away, time, logs without people, and a stop inside ten seconds."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shared import clock, logs, personal, reference
from shared.service import _listening
from shared.settings import Settings, from_environment
from tests.servers import free_port
from tests.support import INSTALLATION_KEY

ROOT = Path(__file__).resolve().parents[2]


def environment(**changes: str | None) -> dict[str, str]:
    given: dict[str, str | None] = {
        "PATH": os.environ["PATH"],
        "ENVIRONMENT": "development",
        "MONGO_URI": "mongodb://127.0.0.1:1/?directConnection=true",
        "KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
        "OIDC_ISSUER": "http://127.0.0.1:1",
        "INSTALLATION_KEY": INSTALLATION_KEY,
        **changes,
    }
    return {name: value for name, value in given.items() if value is not None}


def run(*arguments: str, env: dict[str, str], service: str = "enrollment") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"services.{service}.app", *arguments]
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"MONGO_URI": None}, "MONGO_URI"),
        ({"MONGO_URI": "mongodb://user:canary@host:99999/"}, "MONGO_URI"),
        ({"MONGO_URI": "mongodb+srv://"}, "MONGO_URI"),
        ({"MONGO_DATABASE": "canary b$"}, "MONGO_DATABASE"),
        ({"HTTP_PORT": "canary"}, "HTTP_PORT"),
        ({"INSTALLATION_KEY": "canary"}, "INSTALLATION_KEY"),
        ({"ENVIRONMENT": "production", "CLOCK_SOURCE": "clock"}, "CLOCK_SOURCE"),
        ({"CLOCK_SOURCE": "/no/such/canary"}, "CLOCK_SOURCE"),
        ({"CLOCK_SOURCE": __file__}, "CLOCK_SOURCE"),
        ({"ENVIRONMENT": "production"}, "KAFKA_SECURITY_PROTOCOL"),
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "KAFKA_USERNAME"),
        ({"KAFKA_BOOTSTRAP": ""}, "KAFKA_BOOTSTRAP"),
        ({"KAFKA_BOOTSTRAP": "canary"}, "KAFKA_BOOTSTRAP"),
        ({"KAFKA_BOOTSTRAP": "one:9092,two:99999"}, "KAFKA_BOOTSTRAP"),
        ({"KAFKA_CA_FILE": "/no/such/canary"}, "KAFKA_CA_FILE"),
        ({"KAFKA_CA_FILE": __file__}, "KAFKA_CA_FILE"),
        ({"OIDC_ISSUER": "canary"}, "OIDC_ISSUER"),
        ({"OIDC_ISSUER": "http://issuer:canary"}, "OIDC_ISSUER"),
        ({"SECRETS_DIR": "/no/such/canary"}, "SECRETS_DIR"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it_and_tells_no_value(
    changes: dict[str, str | None], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", environment(**changes))
    with pytest.raises(SystemExit) as stopped:
        from_environment(Settings)
    line = str(stopped.value)
    assert line.startswith("settings: ") and named in line and "canary" not in line and "\n" not in line


def test_sound_settings_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "kafka_password").write_text("from a file")
    given = {"KAFKA_BOOTSTRAP": "one.example:9092,[::1]:9093", "MONGO_URI": "mongodb+srv://u:p@cluster.example/"}
    monkeypatch.setattr(os, "environ", environment(**given, SECRETS_DIR=str(tmp_path)))
    settings = from_environment(Settings)
    assert settings.kafka_password is not None and settings.kafka_password.get_secret_value() == "from a file"
    assert (settings.kafka_bootstrap, settings.mongo_uri.get_secret_value()) == tuple(given.values())


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"HTTP_PORT": "canary"}, "HTTP_PORT"), ({"INTERNAL_HOST": "999.1.1.1"}, "INTERNAL_HOST")],
    ids=["unreadable", "no-such-address"],
)
def test_a_wrong_setting_stops_the_process_with_that_line_and_nothing_else(
    changes: dict[str, str | None], named: str
) -> None:
    done = run("api", env=environment(**changes))
    assert done.returncode == 1
    (line,) = (done.stdout + done.stderr).splitlines()
    assert line.startswith("settings: ") and named in line and "canary" not in line


def test_a_redrive_whose_broker_is_away_ends_with_one_line_that_says_so() -> None:
    done = run("redrive", "--patience", "0", env=environment(), service="scheduling")
    assert done.returncode == 1
    assert done.stderr == "redrive: the broker is away (KafkaConnectionError)\n"


def test_a_topic_that_nobody_reads_cannot_be_rewound(monkeypatch: pytest.MonkeyPatch) -> None:
    from services.assessment.app import service

    monkeypatch.setattr(sys, "argv", ["app", "worker", "--rewind", "training.enrolment"])
    with pytest.raises(SystemExit, match=r"^--rewind training\.enrolment: assessment reads training\.enrollment, .*$"):
        service.main()


def _get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


@pytest.mark.parametrize("role", ["api", "worker", "all"])
def test_a_process_lives_without_its_neighbours_says_so_and_stops_in_time(role: str, tmp_path: Path) -> None:
    http, internal = free_port(), free_port()
    env = environment(HTTP_PORT=str(http), INTERNAL_PORT=str(internal))
    log = tmp_path / "log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "services.scheduling.app", role]
        process = subprocess.Popen(command, env=env, cwd=ROOT, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 20
        while _get(f"http://127.0.0.1:{internal}/healthz")[0] != 200:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        status, body = _get(f"http://127.0.0.1:{internal}/readyz")
        assert status == 503 and json.loads(body)["database"] is False
        if role != "worker":
            assert _get(f"http://127.0.0.1:{http}/openapi.json")[0] == 200
        if role != "api":
            while b"worker.waiting" not in log.read_bytes():
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
        assert b"training_outbox_oldest_seconds" in _get(f"http://127.0.0.1:{internal}/metrics")[1]
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert process.wait(15) == 0
        assert time.monotonic() - began < 10
        for line in log.read_text().splitlines():
            told = json.loads(line)
            assert {"timestamp", "level", "event", "service", "role", "version"} <= set(told), line
    finally:
        process.kill()
        process.wait()


# --- time --------------------------------------------------------------------------------------------------------


def test_the_virtual_clock_is_one_instant_for_everybody_and_real_time_stays_real(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    file.write_text("2022-02-21T08:00:00.123456+07:00\n")
    clock.use(str(file))
    try:
        assert clock.now() == datetime(2022, 2, 21, 1, 0, 0, 123_000, tzinfo=UTC)
        draft = tmp_path / "draft"
        draft.write_text("2022-02-22T08:00:00+07:00")
        draft.replace(file)
        assert clock.now() == datetime(2022, 2, 22, 1, tzinfo=UTC)
        assert clock.real_now().year >= 2025
        with clock.at(datetime(2021, 1, 1, tzinfo=UTC)):
            assert clock.now().year == 2021
    finally:
        clock.use(None)


# --- logs --------------------------------------------------------------------------------------------------------


def test_no_log_line_tells_a_name_a_value_or_an_exceptions_message(capsys: pytest.CaptureFixture[str]) -> None:
    program = """
import logging, structlog
from shared import logs
logs.setup(service="enrollment", role="api", version="1", level="INFO")
secret = "canary-in-a-local"
try:
    int("canary-in-a-message")
except ValueError:
    structlog.get_logger().error("it.failed", exc_info=True, name="canary-name", deep={"email": "canary@x", "ok": 1})
    logging.getLogger("aiokafka").error("library failed", exc_info=True, extra={"nip": "canary-nip"})
    logging.getLogger("some.library").exception("it failed")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "canary" not in done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 3 and all(line["exception"][0]["class"] == "builtins.ValueError" for line in lines)
    assert lines[0]["deep"] == {"ok": 1}


def test_every_personal_field_is_dropped_at_any_depth() -> None:
    line = {"event": "x", "a": [dict.fromkeys(logs.PERSONAL, "canary")], "NIP": "canary"}
    assert "canary" not in str(logs.without_personal_data(None, "info", line))


# --- reference data and personal data ----------------------------------------------------------------------------


def test_released_reference_data_never_changes() -> None:
    recorded = dict(line.split("  ")[::-1] for line in (reference.FOLDER / "VERSIONS").read_text().splitlines())
    assert recorded == reference.digests()


def test_the_curriculum_has_290_hours_on_campus_and_540_at_the_workplace() -> None:
    curriculum = reference.curriculum("pkp-2019.1")
    assert sum(module.jp.value.total for module in curriculum.modules) == curriculum.jp_on_campus.value == 290
    assert curriculum.jp_workplace.value == 540
    assert [stage.days.value for stage in curriculum.stages] == [36, 60, 5]


def test_weights_sum_to_a_hundred_and_exactly_seventy_does_not_pass() -> None:
    from decimal import Decimal

    rules = reference.rule_set("pkp-2019.1")
    assert not rules.passes(Decimal("70.00")) and rules.passes(Decimal("70.01"))


@pytest.mark.parametrize("name", ["../secrets", "pkp-2019.1/../x", "none.1", ""])
def test_an_unknown_version_is_a_lookup_failure(name: str) -> None:
    with pytest.raises(reference.UnknownReference):
        reference.rule_set(name)


def test_personal_data_has_a_purpose_and_an_end() -> None:
    assert {(c.service, c.collection) for c in personal.COLLECTIONS} == {
        ("enrollment", "people"),
        ("assessment", "sealed_certificates"),
        ("notification", "messages"),
    }
    assert all(collection.purpose and collection.retention for collection in personal.COLLECTIONS)


async def test_no_answer_is_held_back_to_be_sent_with_the_next() -> None:
    """Head and body of an answer leave in two writes; with Nagle's algorithm the second waits 40 ms for the client."""
    seen: asyncio.Queue[int] = asyncio.Queue()

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted = writer.get_extra_info("socket")
        seen.put_nowait(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    place = _listening("HTTP", "127.0.0.1", 0)
    async with await asyncio.start_server(note, sock=place):
        _, writer = await asyncio.open_connection(*place.getsockname())
        assert await asyncio.wait_for(seen.get(), 5)
        writer.close()
