"""Kafka Connect with the MongoDB source connector as one process, on an outbox of one document for each event.

It deletes nothing, sets no CloudEvents headers and no key of ours: a yardstick for speed alone.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.kafka import Kafka
from stack import PROJECT, Missing
from stack.broker import java

_POM = Path(__file__).with_name("pom.xml")
_LIBS = PROJECT / "var" / "connect-libs"
_NAME = "outbox"


def fetch() -> Path:
    """Its jars, fetched once. Raises `Missing` where Maven is not there or finds nothing."""
    if not _LIBS.exists():
        if shutil.which("mvn") is None:
            raise Missing("mvn is missing: install Maven, version 3.6 or later")
        draft = _LIBS.with_name(_LIBS.name + ".draft")
        shutil.rmtree(draft, ignore_errors=True)
        command = ["mvn", "-q", "-B", "-f", str(_POM), "dependency:copy-dependencies", "-DincludeScope=runtime"]
        if subprocess.run([*command, f"-DoutputDirectory={draft}"], capture_output=True, check=False).returncode:
            raise Missing("Maven could not fetch Kafka Connect")
        draft.rename(_LIBS)
    return _LIBS


class Connector:
    """A running connector, by its own HTTP interface."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log
        self._url = f"http://127.0.0.1:{port}/connectors"

    def wait(self, state: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                with urllib.request.urlopen(f"{self._url}/{_NAME}/status", timeout=2) as answer:
                    told = json.load(answer)
                states = {told["connector"]["state"], *(task["state"] for task in told["tasks"])}
                if told["tasks"] and states == {state}:
                    return
            except (OSError, urllib.error.URLError):
                pass
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise TimeoutError(f"the connector is not {state}: {self._log.read_text()[-1500:]}")
            time.sleep(0.1)

    def tell(self, verb: str) -> None:
        """`pause` or `resume`."""
        request = urllib.request.Request(f"{self._url}/{_NAME}/{verb}", method="PUT")
        with urllib.request.urlopen(request, timeout=5):
            pass


@contextmanager
def connector(folder: Path, port: int, kafka: Kafka, mongo_uri: str, database: str, topic: str) -> Iterator[Connector]:
    """Copies every document that comes into the database's outbox to the topic."""
    libs = fetch()
    reach = {"bootstrap.servers": kafka.bootstrap, "security.protocol": kafka.protocol}
    if kafka.protocol != "PLAINTEXT":
        login = f'username="{kafka.username}" password="{kafka.password}"'
        reach["sasl.mechanism"] = "SCRAM-SHA-512"
        reach["sasl.jaas.config"] = f"org.apache.kafka.common.security.scram.ScramLoginModule required {login};"
    text = "org.apache.kafka.connect.storage.StringConverter"
    worker = {
        **reach,
        **{f"producer.{name}": value for name, value in reach.items()},
        "listeners": f"http://127.0.0.1:{port}",
        "offset.storage.file.filename": str(folder / "connect-offsets"),
        "offset.flush.interval.ms": "1000",
        "key.converter": text,
        "value.converter": text,
        "plugin.discovery": "only_scan",
    }
    source = {
        "name": _NAME,
        "connector.class": "com.mongodb.kafka.connect.MongoSourceConnector",
        "tasks.max": "1",
        "connection.uri": mongo_uri,
        "database": database,
        "collection": "outbox",
        "topic.namespace.map": json.dumps({"*": topic}),
        "publish.full.document.only": "true",
        "output.format.value": "json",
        "poll.await.time.ms": "10",
    }
    files = []
    for name, settings in (("worker", worker), ("source", source)):
        file = folder / f"connect-{name}.properties"
        file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        file.chmod(0o600)
        files.append(str(file))
    command = [*java(libs, "-Xmx512m"), "org.apache.kafka.connect.cli.ConnectStandalone", *files]
    with (folder / "connect.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        running = Connector(port, process, folder / "connect.log")
        running.wait("RUNNING")
        yield running
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
