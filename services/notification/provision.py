"""Gives an agency its topic, its user on the broker, and the right to read that topic and nothing else."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Any

import structlog

from services.notification.feed import topic_of
from shared import broker
from shared.mongo import Database

log = structlog.get_logger("provision")


async def provision(settings: Any, database: Database, code: str) -> None:
    """Make topic, user and rights of an agency; safe to repeat. An agency whose password lies there keeps it.

    The password is written to `CREDENTIALS_DIR/kafka-agency-<code>`, readable by its owner only.
    """
    if re.fullmatch(r"[a-z][a-z0-9-]{2,31}", code) is None:
        raise SystemExit(f"prepare: {code!r} is not an agency code")
    kafka = settings.kafka(admin=True)
    topic = broker.Topic(topic_of(code), 1)
    rights = [] if kafka.protocol == "PLAINTEXT" else broker.rights_of_agency(code)
    drift = await broker.prepare(kafka, [topic], rights, settings.kafka_replication)
    if drift:
        raise SystemExit("prepare: " + "; ".join(drift))
    if rights:
        await broker.make_user(kafka, f"agency-{code}", _password(Path(settings.credentials_dir), code))
    log.info("agency.provisioned", agency=code, topic=topic.name)


def _password(folder: Path, code: str) -> str:
    """The agency's password: the one that lies there, else a new one, which is then laid there."""
    file = folder / f"kafka-agency-{code}"
    if file.exists():
        return file.read_text().split("password=", 1)[1].strip()
    password = secrets.token_urlsafe(24)
    folder.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(file.name + ".draft")
    draft.touch(mode=0o600)
    draft.write_text(f"username=agency-{code}\npassword={password}\n")
    draft.replace(file)
    return password
