"""Apache Kafka from its own jars: fetching them, formatting the storage, and the configuration of one small node."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from stack.files import write_private
from stack.processes import Missing, NotStarted

_FOLDER = Path(__file__).resolve().parent
_POM = _FOLDER / "pom.xml"
_JAVA_NEEDED = 17
_QUICK = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required"
_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"


def require_java() -> None:
    """Raises `Missing` unless a JDK of version 17 or later answers."""
    install = f"install a JDK, version {_JAVA_NEEDED} or later"
    if shutil.which("java") is None:
        raise Missing(f"java is missing: {install}")
    answer = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False)
    if answer.returncode or '"' not in answer.stderr:
        raise Missing(f"java does not answer: {install}")
    told = answer.stderr.split('"')[1]
    major = told.removeprefix("1.").split(".")[0].split("-")[0]
    if not major.isdigit() or int(major) < _JAVA_NEEDED:
        raise Missing(f"java {told} is too old: {install}")


def fetch(libs: Path) -> None:
    """Fetch the broker's jars, once per checkout and again when the list of them changes.

    They are put in place whole, and by one stack at a time: others of the same checkout may be starting.
    """
    if _fetched(libs):
        return
    libs.parent.mkdir(parents=True, exist_ok=True)
    with libs.with_name(libs.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _fetched(libs):
            return
        if shutil.which("mvn") is None:
            raise Missing("mvn is missing: install Maven, version 3.6 or later")
        draft = libs.with_name(libs.name + ".draft")
        shutil.rmtree(draft, ignore_errors=True)
        command = ["mvn", "-q", "-B", "-f", str(_POM), "dependency:copy-dependencies", "-DincludeScope=runtime"]
        done = subprocess.run([*command, f"-DoutputDirectory={draft}"], capture_output=True, text=True, check=False)
        if done.returncode:
            lines = (done.stdout + done.stderr).splitlines()[-20:]
            raise NotStarted("Maven could not fetch the broker:\n" + "\n".join(lines))
        (draft / "from-pom").write_text(_POM.read_text())
        shutil.rmtree(libs, ignore_errors=True)
        draft.rename(libs)


def _fetched(libs: Path) -> bool:
    mark = libs / "from-pom"
    return mark.exists() and mark.read_text() == _POM.read_text()


def java(libs: Path, *options: str) -> list[str]:
    """The command that runs a class of the broker's jars; the class and its arguments follow."""
    logging = f"-Dlog4j2.configurationFile={_FOLDER / 'log4j2.properties'}"
    return ["java", *options, *_QUICK, logging, "-cp", f"{libs}/*"]


def configure(folder: Path, port: int, told: int, controller_port: int, admin: str, password: str) -> Path:
    """Write the node's configuration, afresh at each start because ports may have been set otherwise since.

    Clients are sent to the port `told`, which is another than `port` where a proxy stands before the broker.
    """
    settings = node(admin, password) | {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"CLIENT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"CLIENT://127.0.0.1:{told}",
        "listener.security.protocol.map": "CLIENT:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT",
        "log.dirs": str(folder / "log"),
        **copies(1),
    }
    file = folder / "server.properties"
    write_private(file, "".join(f"{name}={value}\n" for name, value in settings.items()))
    return file


def node(admin: str, password: str) -> dict[str, str]:
    """What every broker of ours is set to, wherever it runs: who may come in, and how long things are kept."""
    login = f'username="{admin}" password="{password}"'
    return {
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "CLIENT",
        "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
        "sasl.mechanism.controller.protocol": "PLAIN",
        "listener.name.client.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.client.scram-sha-512.sasl.jaas.config": f"{_SCRAM} {login};",
        # SCRAM users live in the log that the controller serves, so its own listener knows its one user from here.
        "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.controller.plain.sasl.jaas.config": f'{_PLAIN} {login} user_{admin}="{password}";',
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:{admin}",
        "auto.create.topics.enable": "false",
        "num.partitions": "12",
        "offsets.topic.num.partitions": "10",
        "offsets.retention.minutes": str(60 * 24 * 60),
        "group.initial.rebalance.delay.ms": "0",
        # Files are made at these sizes beforehand; the defaults want a gigabyte for a hundred partitions.
        "log.segment.bytes": "67108864",
        "log.index.size.max.bytes": "1048576",
    }


def copies(nodes: int) -> dict[str, str]:
    """On how many of the nodes the broker keeps what is its own; one of three may be away."""
    kept, in_step = min(3, nodes), 2 if nodes > 2 else 1
    return {
        "default.replication.factor": str(kept),
        "min.insync.replicas": str(in_step),
        "offsets.topic.replication.factor": str(kept),
        "transaction.state.log.replication.factor": str(kept),
        "transaction.state.log.min.isr": str(in_step),
        "share.coordinator.state.topic.replication.factor": str(kept),
        "share.coordinator.state.topic.min.isr": str(in_step),
    }


def format_storage(libs: Path, folder: Path, blank: Path, cluster_id: str, users: Mapping[str, str]) -> None:
    """Make the storage with the users that the broker must know before it starts; `configure` comes first.

    Done once: an emptied stack gets a copy of `blank`, which spares it the start of a Java machine.
    """
    log = folder / "log"
    if (log / "meta.properties").exists():
        return
    if not (blank / "meta.properties").exists():
        shutil.rmtree(log, ignore_errors=True)
        # Passwords go by a file: anybody on the machine can read a command line.
        asked = folder / "format.arguments"
        scram = [f"--add-scram\nSCRAM-SHA-512=[name={name},password={secret}]\n" for name, secret in users.items()]
        write_private(asked, "".join(scram))
        tool = [*java(libs, "-Xmx256m"), "kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}"]
        done = subprocess.run(
            [*tool, "-c", str(folder / "server.properties"), f"@{asked}"], capture_output=True, text=True, check=False
        )
        asked.unlink()
        if done.returncode:
            raise NotStarted("the broker's storage could not be formatted:\n" + (done.stdout + done.stderr)[-2000:])
        _copy(log, blank)
    else:
        _copy(blank, log)


def _copy(source: Path, target: Path) -> None:
    """Copy a folder so that the target is there whole or not at all."""
    draft = target.with_name(target.name + ".draft")
    for stale in (draft, target):
        shutil.rmtree(stale, ignore_errors=True)
    shutil.copytree(source, draft)
    draft.rename(target)
