"""Real servers for tests: from a container engine where one answers, else as plain processes of the embedded stack."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.kafka import Kafka
from stack import Stack


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def container_engine() -> bool:
    """Whether a container engine answers here."""
    try:
        import docker

        docker.from_env(timeout=2).ping()
    except Exception:
        return False
    return True


@contextmanager
def mongo(folder: Path) -> Iterator[str]:
    """MongoDB in a container, or the embedded server without authentication; yields its URI."""
    if container_engine():
        from testcontainers.core.container import DockerContainer

        with DockerContainer("mongo:8.0").with_command("--replSet rs0 --bind_ip_all").with_exposed_ports(27017) as box:
            address = f"{box.get_container_host_ip()}:{box.get_exposed_port(27017)}"
            deadline = time.monotonic() + 60
            members = '{_id: "rs0", members: [{_id: 0, host: "127.0.0.1:27017"}]}'
            initiate = f"try {{ rs.status().ok }} catch (e) {{ rs.initiate({members}).ok }}"
            while box.exec(["mongosh", "--quiet", "--eval", initiate]).exit_code and time.monotonic() < deadline:
                time.sleep(0.5)
            yield f"mongodb://{address}/?directConnection=true"
        return
    port = free_port()
    program = Path(sys.executable).with_name("secantusd-py")
    command = [str(program), "--port", str(port), "--storage-path", str(folder)]
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 20
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the embedded database did not start:\n" + (folder / "log").read_text()[-2000:])
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"mongodb://127.0.0.1:{port}/?directConnection=true"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


@contextmanager
def kafka(folder: Path) -> Iterator[Kafka]:
    """Apache Kafka in a container, or the embedded stack's broker with users and rights; yields its administrator."""
    if container_engine():
        from testcontainers.core.container import DockerContainer

        port = free_port()
        listeners = "PLAINTEXT://0.0.0.0:9092,CONTROLLER://0.0.0.0:9093"
        box = DockerContainer("apache/kafka:4.3.1").with_bind_ports(9092, port)
        for name, value in {
            "KAFKA_NODE_ID": "1",
            "KAFKA_PROCESS_ROLES": "broker,controller",
            "KAFKA_LISTENERS": listeners,
            "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
            "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
            "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        }.items():
            box = box.with_env(name, value)
        with box:
            yield Kafka(f"127.0.0.1:{port}")
        return
    stack = Stack(folder)
    stack.up(("kafka",))
    try:
        yield Kafka(stack.endpoints["kafka"]["bootstrap"], "SASL_PLAINTEXT", *stack.credentials("kafka-admin"))
    finally:
        stack.down()
