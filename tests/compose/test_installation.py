"""`docker compose up` from a clone: everything healthy, the cohort played, and seen from where its users stand."""

from __future__ import annotations

import json
import re
import socket
import ssl
import subprocess
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError

from shared import reference
from shared.kafka import Kafka
from stack import PROJECT, SERVICES
from tests.compose.conftest import SCALED, SHARING
from tests.compose.installation import Installation

AGENCY = "kementerian-01"
ENDED = {"init", "database", "agency", *(f"{service}-prepare" for service in SERVICES)}


def test_everything_that_runs_is_healthy_and_everything_that_ends_ended_well(installation: Installation) -> None:
    states: dict[str, list[tuple[str, str]]] = {}
    for one in installation.containers():
        states.setdefault(one["Service"], []).append((one["State"], one["Health"] or str(one["ExitCode"])))
    assert {name for name in states if name in ENDED} == ENDED
    for name, found in states.items():
        assert set(found) == {("exited", "0") if name in ENDED else ("running", "healthy")}, name
        assert len(found) == (3 if name in SCALED else 1)


def test_the_cohort_is_played_on_workers_that_share_their_partitions(played: str, installation: Installation) -> None:
    """Its last lines are those of the embedded stack's play: nothing twice, nothing parked, no agency with a gap."""
    assert "does not hold" not in played
    told = re.sub(r"[\s│]+", " ", played)
    for line in ("graduates 36; not graduated 1", "266 e-mails arrived", "0 sent twice", "dead letters 0"):
        assert line in told, line
    for service in SHARING:
        done = []
        for container in installation.ids(service):
            command = ["docker", "exec", container, "python", "-c", ASSIGNED]
            done.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        assert len(done) == 3 and all(done), (service, done)


ASSIGNED = """
import json, urllib.request
told = json.load(urllib.request.urlopen("http://127.0.0.1:8001/internal/v1/quiet"))
print(json.dumps(sorted({p for group in told["committed"].values() for p in group})))
"""


def test_the_report_is_kept(played: str, installation: Installation) -> None:
    page = installation.compose(
        "run", "--rm", "-T", "--no-deps", "--entrypoint", "cat", "demo", "/reports/report.html"
    ).stdout
    assert "PKP Angkatan III 2022" in page and "</html>" in page


def test_portal_clients_reach_the_gateway_by_tls_and_nothing_behind_it(
    played: str, installation: Installation, authority: Path
) -> None:
    port = installation.ports["GATEWAY_PORT"]
    token = installation.run("demo", "token", "organiser-01").strip().splitlines()[-1]
    with httpx.Client(
        base_url=f"https://localhost:{port}", verify=ssl.create_default_context(cafile=authority)
    ) as http:
        for service in SERVICES:
            assert http.get(f"/{service}/openapi.json").status_code == 200
            for internal in ("metrics", "readyz", "internal/v1/quiet"):
                assert http.get(f"/{service}/{internal}").status_code == 404
        agencies = "/enrollment/v1/agencies"
        assert http.get(agencies).status_code == 401
        answer = http.get(agencies, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200 and len(answer.json()["items"]) == 37
        assert (
            http.get("/realms/training/.well-known/openid-configuration").json()["issuer"].endswith("/realms/training")
        )
    with pytest.raises(httpx.TransportError):
        httpx.get(f"https://localhost:{port}/enrollment/openapi.json")  # not trusted without the authority
    with socket.create_connection(("localhost", port)) as plain:
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            old.wrap_socket(plain)


def test_a_better_timetable_is_looked_for_by_the_solvers_container(
    played: str, installation: Installation, authority: Path
) -> None:
    """For a further cohort; what was compiled when the image was made need not be compiled again."""
    token = installation.run("demo", "token", "organiser-01").strip().splitlines()[-1]
    further, schedule = (str(uuid.UUID(int=0xCD, version=4)), str(uuid.UUID(int=0xCC, version=4)))
    cohort = {
        "programme_id": reference.programme("pkp").id,
        "rule_set_version": "pkp-2019.1",
        "curriculum_version": "pkp-2019.1",
        "number": 4,
        "year": 2022,
        "capacity": 40,
        "min_size": 20,
        "nominations_close_at": "2022-08-01T10:00:00Z",
        "starts_on": "2022-08-22",
        "ends_on": "2022-12-18",
    }
    with httpx.Client(
        base_url=f"https://localhost:{installation.ports['GATEWAY_PORT']}",
        verify=ssl.create_default_context(cafile=authority),
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    ) as http:
        path = f"/scheduling/v1/schedules/{schedule}/search"
        assert http.put(f"/enrollment/v1/cohorts/{further}", json=cohort).status_code == 201
        deadline = time.monotonic() + 90
        while http.put(path, json={"cohort_id": further, "seconds": 3}).status_code != 202:
            assert time.monotonic() < deadline, "scheduling has not heard of the cohort"
            time.sleep(0.2)
        while (search := http.get(path).json())["status"] not in ("done", "failed"):
            assert time.monotonic() < deadline, search
            time.sleep(0.2)
        assert (search["status"], search["adopted"], search["progress"]["clashes"]) == ("done", True, 0)
        assert http.get(f"/scheduling/v1/schedules/{schedule}").json()["status"] == "draft"


def credentials(installation: Installation, folder: Path, authority: Path, agency: str) -> Kafka:
    file = installation.take(folder, "console", f"/credentials/kafka-agency-{agency}")
    told = dict(line.split("=", 1) for line in file.read_text().splitlines())
    bootstrap = f"localhost:{installation.ports['AGENCIES_PORT']}"
    return Kafka(bootstrap, "SASL_SSL", told["username"], told["password"], str(authority))


async def test_an_agency_listens_from_outside_to_its_own_topic_and_no_other(
    played: str, installation: Installation, authority: Path, tmp_path: Path
) -> None:
    reader = credentials(installation, tmp_path, authority, AGENCY)
    own = AIOKafkaConsumer(
        f"training.agency.{AGENCY}",
        **reader.aiokafka(),
        group_id=f"agency.{AGENCY}.outside",
        auto_offset_reset="earliest",
    )
    await own.start()
    try:
        record = await own.getone()
        assert dict(record.headers)["ce_specversion"] == b"1.0"
    finally:
        await own.stop()
    refused = (TopicAuthorizationFailedError, GroupAuthorizationFailedError)
    for topic in ("training.agency.pemda-02", "training.assessment-restricted", "training.enrollment"):
        other = AIOKafkaConsumer(topic, **reader.aiokafka(), group_id=f"agency.{AGENCY}.outside")
        with pytest.raises(refused):
            await other.start()
            await other.getone()
        await other.stop()


async def test_a_wrong_password_is_not_let_in(
    played: str, installation: Installation, authority: Path, tmp_path: Path
) -> None:
    right = credentials(installation, tmp_path, authority, AGENCY)
    wrong = Kafka(right.bootstrap, "SASL_SSL", right.username, "no-such-password", right.ca_file)
    consumer = AIOKafkaConsumer(**wrong.aiokafka())
    with pytest.raises(KafkaError):
        await consumer.start()
    await consumer.stop()


def test_the_console_shows_what_its_agency_hears(played: str, installation: Installation) -> None:
    told = installation.compose(
        "exec", "-T", "console", "listen", "--max-messages", "3", "--timeout-ms", "30000", seconds=60
    )
    assert told.stdout.count("ce_specversion:1.0") == 3


def test_the_mail_catchers_page_shows(played: str, installation: Installation) -> None:
    address = f"http://127.0.0.1:{installation.ports['MAIL_PORT']}"
    assert httpx.get(address).status_code == 200
    assert httpx.get(f"{address}/api/v1/messages").json()["total"] == 266


def test_doctor_finds_all_well_and_says_that_this_is_a_demonstration(played: str, installation: Installation) -> None:
    told = told_by_doctor(installation)
    assert [one for one in told if one[2] == "bad"] == []
    assert {(service, "environment", "note") for service in SERVICES} <= set(told)


def test_prepare_is_safe_to_run_twice_and_at_once(played: str, installation: Installation) -> None:
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(installation.run, f"{service}-prepare") for service in SERVICES for _ in range(2)]
        for job in jobs:
            job.result()
    installation.run("init")
    installation.run("database")
    assert [one for one in told_by_doctor(installation) if one[2] == "bad"] == []


def test_a_second_play_is_refused(played: str, installation: Installation) -> None:
    assert "empty the installation first" in installation.run("demo", check=False)


def test_no_secret_is_seen_in_configuration_containers_or_logs(played: str, installation: Installation) -> None:
    secrets = [line for value in installation.secrets().values() for line in value.splitlines() if len(line) > 20]
    secrets = [line for line in secrets if "-----" not in line]
    config = installation.compose("--profile", "*", "config").stdout
    inspected = json.dumps(installation.inspected())
    logs = installation.compose("logs", "--no-color").stdout
    assert len(secrets) > 20 and len(logs) > 1000
    for where, text in (("config", config), ("inspect", inspected), ("logs", logs)):
        assert [secret[:4] for secret in secrets if secret in text] == [], where


def test_what_runs_is_as_hardened_as_its_configuration_says(installation: Installation) -> None:
    for one in installation.inspected():
        if not one["State"]["Running"]:
            continue
        name = one["Name"]
        assert one["HostConfig"]["ReadonlyRootfs"] and one["HostConfig"]["CapDrop"] == ["ALL"], name
        script = "touch /here 2>/dev/null && echo written; grep -E '^(CapEff|NoNewPrivs|Uid)' /proc/self/status"
        shell = ["docker", "exec", one["Id"], "sh", "-c", script]
        told = subprocess.run(shell, capture_output=True, text=True, check=False).stdout
        if not told:  # an image without a shell
            continue
        assert "written" not in told, name
        assert "CapEff:\t0000000000000000" in told and "NoNewPrivs:\t1" in told, name
        assert re.search(r"Uid:\t[1-9]", told), name


def test_everything_comes_back_after_a_restart(played: str, installation: Installation, authority: Path) -> None:
    before = told_by_doctor(installation)
    installation.compose("restart", "--timeout", "20", seconds=300)
    installation.up("--no-recreate", *(o for service in SCALED for o in ("--scale", f"{service}=3")))
    assert told_by_doctor(installation) == before
    token = installation.run("demo", "token", "organiser-01").strip().splitlines()[-1]
    verify = ssl.create_default_context(cafile=authority)
    with httpx.Client(base_url=f"https://localhost:{installation.ports['GATEWAY_PORT']}", verify=verify) as http:
        answer = http.get("/enrollment/v1/agencies", headers={"Authorization": f"Bearer {token}"})
    assert len(answer.json()["items"]) == 37


def test_rotated_passwords_are_brought_to_broker_and_database(played: str, installation: Installation) -> None:
    before = installation.secrets()
    for name in ("kafka-scheduling", "mongo-scheduling"):
        installation.run("init", "ops.init", "rotate", name)
    after = installation.secrets()
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"kafka-scheduling", "mongo-scheduling"}
    of_scheduling = ("database", "scheduling-prepare", "scheduling-api", "scheduling-worker")
    installation.up("--force-recreate", "--no-deps", "--scale", "scheduling-worker=3", *of_scheduling)
    assert [one for one in told_by_doctor(installation) if one[2] == "bad"] == []


def told_by_doctor(installation: Installation) -> list[tuple[str, str, str]]:
    """Each part and whether it is well, once the groups are read again."""
    deadline = time.monotonic() + 60
    while True:
        asked = installation.compose("run", "--rm", "-T", "--no-deps", "ops", "doctor", "--json", check=False)
        told = json.loads(asked.stdout)["findings"]
        found = [(one["service"], one["part"], one["state"]) for one in told]
        if all(state != "bad" for *_, state in found) or time.monotonic() > deadline:
            return found
        time.sleep(2)


def test_the_readmes_commands_are_those_that_were_tried_here() -> None:
    readme = (PROJECT / "README.md").read_text()
    for command in ("docker compose up", "docker compose run --rm demo", "docker compose exec console listen"):
        assert command in readme
