"""Three brokers: the cohort is played on while one of them is gone, and nothing is lost, doubled or parked."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.compose.installation import Installation
from tests.servers import free_port

GONE = "kafka-2"


@pytest.fixture(scope="module")
def cluster(image: str) -> Iterator[Installation]:
    """Three brokers and one database: the replica set of three is only configured (`test_configuration`)."""
    made = Installation(
        image,
        files=("docker-compose.yml", "ops/compose.cluster.yml"),
        env_files=(".env", "ops/cluster.env"),
        settings={"COMPOSE_PROFILES": "demo", "MONGO_HOSTS": "mongo:27017"}
        | {name: str(free_port()) for name in ("AGENCIES_PORT_2", "AGENCIES_PORT_3")},
    )
    try:
        made.up()
        yield made
    finally:
        made.down()


def described(installation: Installation, what: str) -> str:
    tool = ["/opt/kafka/bin/kafka-topics.sh", "--bootstrap-server", "kafka:9092", "--describe", what]
    return installation.compose(
        "exec", "-T", "kafka", *tool, "--command-config", "/secrets/admin.properties", seconds=60
    ).stdout


def test_every_topic_lies_on_three_brokers(cluster: Installation) -> None:
    told = described(cluster, "--exclude-internal")
    assert set(re.findall(r"ReplicationFactor: (\d+)", told)) == {"3"}
    assert len(re.findall(r"Topic: training\.\S+\tTopicId", told)) > 12


def test_the_cohort_is_played_on_while_a_broker_is_gone(cluster: Installation, count: Callable[[str], None]) -> None:
    asked = ("play", "scenarios/pkp-2022-iii.yaml", "--report", "/reports/report.html", "--patience", "90")
    with ThreadPoolExecutor(1) as aside:
        playing = aside.submit(cluster.run, "demo", *asked, seconds=540, check=False)
        time.sleep(25)  # it has begun
        assert not playing.done(), playing.result()[-3000:]
        (container,) = cluster.ids(GONE)
        subprocess.run(["docker", "kill", container], check=True, capture_output=True)
        killed = time.monotonic()
        told = re.sub(r"[\s│]+", " ", playing.result())
        seconds = time.monotonic() - killed
    assert "does not hold" not in told and "report: /reports/report.html" in told, told[-3000:]
    for line in ("graduates 36; not graduated 1", "266 e-mails arrived", "dead letters 0"):
        assert line in told, line
    assert "Isr: 1,3" in described(cluster, "--under-replicated-partitions").replace("Isr: 3,1", "Isr: 1,3")
    twice = re.search(r"(\d+) sent twice", told)
    count(
        f"played on for {seconds:.0f} s without {GONE}; {twice[1] if twice else '?'} events sent twice under their id"
    )


def test_the_broker_comes_back_and_catches_up(cluster: Installation) -> None:
    cluster.up("--no-recreate")
    deadline = time.monotonic() + 60
    while described(cluster, "--under-replicated-partitions").strip():
        assert time.monotonic() < deadline
        time.sleep(1)
