"""Gives an agency its topic, its user on the broker, and the right to read that topic and nothing else."""

from __future__ import annotations

import asyncio
import re
import secrets
from pathlib import Path
from typing import Any

import structlog
from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from services.notification.feed import topic_of
from shared import broker
from shared.kafka import Kafka
from shared.mongo import Database

ITERATIONS = 8192

log = structlog.get_logger("provision")


async def provision(settings: Any, database: Database, code: str) -> None:
    """Make topic, user and rights of an agency; safe to repeat. A known user keeps its password.

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
    file = Path(settings.credentials_dir) / f"kafka-agency-{code}"
    if rights and not file.exists():
        password = secrets.token_urlsafe(24)
        await asyncio.to_thread(_make_user, kafka, f"agency-{code}", password)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(f"username=agency-{code}\npassword={password}\n")
    log.info("agency.provisioned", agency=code, topic=topic.name)


def _make_user(kafka: Kafka, user: str, password: str) -> None:
    admin = AdminClient(kafka.librdkafka())
    mechanism = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, ITERATIONS)
    asked = admin.alter_user_scram_credentials([UserScramCredentialUpsertion(user, mechanism, password.encode())])
    for future in asked.values():
        future.result(timeout=20)
