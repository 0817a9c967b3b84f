"""What is wrong with an installation, by the name of the part, and what to do about it. It only looks."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
from aiokafka.conn import create_conn
from aiokafka.errors import IllegalSaslStateError, SaslAuthenticationFailed, UnsupportedSaslMechanismError
from aiokafka.errors import KafkaError as ClientError
from confluent_kafka import KafkaException
from pymongo.errors import OperationFailure, PyMongoError, ServerSelectionTimeoutError

from shared import clock
from shared.domain import Timer
from shared.errors import Unavailable
from shared.kafka import Kafka
from shared.mongo import Database
from shared.ops import Site, groups
from shared.ops.outbox import outbox_of
from shared.worker import described_topics

OUTBOX_SECONDS = 30
SKEW_SECONDS = 1.0
LAG_RECORDS = 10_000
OVERDUE = timedelta(minutes=1)
ANSWER_SECONDS = 5.0
SOME_TOPIC = "training.enrollment"

State = Literal["good", "bad", "note"]
_AUTHENTICATION_FAILED, _UNAUTHORIZED = 18, 13


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `note`: nothing is wrong with it that is known, but it is worth reading."""

    service: str
    part: str
    state: State
    told: str
    do: str = ""


class _Sheet:
    """The findings of one service, in the order in which they were made."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.findings: list[Finding] = []

    def good(self, part: str, told: str) -> None:
        self.findings.append(Finding(self.service, part, "good", told))

    def bad(self, part: str, told: str, do: str) -> None:
        self.findings.append(Finding(self.service, part, "bad", told, do))

    def note(self, part: str, told: str, do: str = "") -> None:
        self.findings.append(Finding(self.service, part, "note", told, do))


async def examine(sites: Sequence[Site], gateway: str | None = None) -> list[Finding]:
    """Look at every service's neighbours, its settings' truth, and what waits in it; all services at once.

    With the address of the gateway, also at each api, as its callers see it.
    """
    sheets = await asyncio.gather(*(_site(site, gateway) for site in sites))
    return [finding for sheet in sheets for finding in sheet.findings]


async def _site(site: Site, gateway: str | None) -> _Sheet:
    sheet = _Sheet(site.name)
    if site.wrong:
        sheet.bad("settings", site.wrong.removeprefix("settings: "), "set what is named; .env or the container's own")
        return sheet
    if site.settings.environment == "development":
        told = "development: a virtual clock and unprotected connections are allowed"
        sheet.note("environment", told, "ENVIRONMENT=production where real people are kept")
    database = site.database()
    try:
        reached = await _database(site, database, sheet)
    finally:
        await database.close()
    await _broker(site, sheet, reached)
    await _issuer(site.settings.oidc_issuer, sheet)
    if gateway:
        await _gateway(f"{gateway.rstrip('/')}/{site.name}/openapi.json", sheet)
    for name, address in site.service.neighbours(site.settings).items():
        await _listening(name, address, sheet)
    return sheet


# --- the database, and what lies in it ---------------------------------------------------------------------------


async def _database(site: Site, database: Database, sheet: _Sheet) -> bool:
    """Whether it could be read."""
    try:
        await database.collection("leases").find_one({})
    except ServerSelectionTimeoutError:
        sheet.bad("database", "unreachable", "start it, or correct the host and port in MONGO_URI")
        return False
    except OperationFailure as error:
        match error.code:
            case code if code == _AUTHENTICATION_FAILED:
                user = "its user or password is wrong"
                sheet.bad("database", f"answers, but {user}", "correct user, password or authSource in MONGO_URI")
            case code if code == _UNAUTHORIZED:
                told = "answers, but this user may not read its database"
                sheet.bad("database", told, "give the user readWrite on it, or correct MONGO_DATABASE")
            case code:
                sheet.bad("database", f"refuses (code {code})", "look this code up in MongoDB's manual")
        return False
    except PyMongoError as error:
        sheet.bad("database", f"unreachable ({type(error).__name__})", "look at the network between here and there")
        return False
    try:
        sheet.good("database", "answers, and takes this user")
        await _indexes(site, database, sheet)
        await _clocks(database, sheet)
        await _outbox(database, sheet)
        await _timers(database, sheet)
        await _parked(site, database, sheet)
    except (PyMongoError, Unavailable) as error:
        sheet.bad("database", f"went away meanwhile ({type(error).__name__})", "look again")
        return False
    return True


async def _indexes(site: Site, database: Database, sheet: _Sheet) -> None:
    missing = []
    for name, models in site.service.all_indexes().items():
        try:
            there = await database.collection(name).index_information()
        except OperationFailure:  # the collection is not there yet
            there = {}
        missing += [f"{name}.{m.document['name']}" for m in models if m.document["name"] not in there]
    if missing:
        do = f"run its prepare: python -m services.{site.name}.app prepare"
        sheet.bad("indexes", "missing: " + ", ".join(sorted(missing)), do)
    else:
        sheet.good("indexes", "all there")


async def _clocks(database: Database, sheet: _Sheet) -> None:
    skew = await database.clock_skew()
    told = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} the database's"
    if abs(skew) > SKEW_SECONDS:
        sheet.bad("clock", told, "have this machine and the database's keep time by NTP")
    else:
        sheet.good("clock", told)


async def _outbox(database: Database, sheet: _Sheet) -> None:
    outbox = await outbox_of(database)
    if outbox.oldest_seconds > OUTBOX_SECONDS:
        if not outbox.relay:
            do = "nobody publishes: start a worker of this service"
        else:
            do = "a worker has the lease: outbox status, its log (relay.waiting, relay.topic_held), then the broker"
        sheet.bad("outbox", f"oldest row {outbox.oldest_seconds:.0f} s old", do)
    elif not outbox.relay:
        sheet.bad("outbox", "no worker holds the relay's lease", "start a worker of this service")
    else:
        sheet.good("outbox", "empty" if outbox.empty else f"oldest row {outbox.oldest_seconds:.1f} s old")


async def _timers(database: Database, sheet: _Sheet) -> None:
    failed = await database.query(Timer, {"failed": True}, limit=100)
    late = clock.now() - OVERDUE
    overdue = await database.query(Timer, {"due_at": {"$lte": late}, "failed": False}, sort=[("due_at", 1)], limit=100)
    if failed:
        kinds = ", ".join(f"{number} {kind}" for kind, number in Counter(t.kind for t in failed).most_common())
        do = "its log tells why (timer.failed); mend that, then timers retry"
        sheet.bad("timers", f"gave up: {kinds}", do)
    if overdue:
        told = f"{len(overdue)} overdue, since {overdue[0].due_at.isoformat(timespec='seconds')}"
        sheet.bad("timers", told, "start a worker of this service, or look for timers.waiting in its log")
    if not failed and not overdue:
        sheet.good("timers", "none overdue, none failed")


async def _parked(site: Site, database: Database, sheet: _Sheet) -> None:
    for consumer in site.service.consumers:
        if parked := await consumer.parked(database):
            reasons = Counter(one.reason for one in parked).most_common(3)
            told = f"{len(parked)} parked: " + ", ".join(f"{number} {reason}" for reason, number in reasons)
            sheet.bad(f"parked {consumer.group}", told, "dlq list, dlq show; then dlq retry, or dlq drop")
        else:
            sheet.good(f"parked {consumer.group}", "nothing")


# --- the broker, and what was declared on it ---------------------------------------------------------------------


async def _broker(site: Site, sheet: _Sheet, database_reached: bool) -> None:
    own: Kafka = site.settings.kafka()
    if not await _speaks(own, "broker", "KAFKA_USERNAME, KAFKA_PASSWORD", sheet):
        return
    if site.has_admin:
        names = "KAFKA_ADMIN_USERNAME, KAFKA_ADMIN_PASSWORD"
        if site.settings.kafka_admin_username and not await _speaks(site.kafka(), "broker (admin)", names, sheet):
            return
        await _declared(site, sheet)
    else:
        sheet.note("topics and rights", "not compared: KAFKA_ADMIN_USERNAME is not set here")
    for consumer in site.service.consumers:
        part = f"group {consumer.group}"
        try:
            standing = await groups.stands(own, consumer.group, consumer.topics)
        except (KafkaException, KeyError) as error:
            sheet.bad(part, f"cannot be seen ({_code(error)})", "topics diff, topics apply")
            continue
        told = f"{standing.total} records to do, members: {len(standing.members)}"
        if standing.empty:
            sheet.bad(part, told, f"nobody reads: start a worker of {site.name}")
        elif standing.total > LAG_RECORDS:
            sheet.bad(part, told, "wait if it falls; else add workers (up to 12), or look for batch.waiting in the log")
        else:
            sheet.good(part, told)


async def _speaks(kafka: Kafka, part: str, names: str, sheet: _Sheet) -> bool:
    """Whether every server that is named answers and takes this user, and where they lead to is reached as well."""
    right = True
    for server in kafka.servers:
        here = part if len(kafka.servers) == 1 else f"{part} {server}"
        try:
            async with _connection(kafka, server) as connection:
                if not connection.connected():
                    raise ConnectionResetError
        except SaslAuthenticationFailed:
            sheet.bad(here, f"answers, but refuses the user {kafka.username}: wrong password", f"correct {names}")
        except (UnsupportedSaslMechanismError, IllegalSaslStateError):
            sheet.bad(here, "answers, but does not know SCRAM-SHA-512", "switch it on, or KAFKA_SECURITY_PROTOCOL")
        except ssl.SSLError as error:
            told = "its certificate is not trusted" if isinstance(error, ssl.SSLCertVerificationError) else "no TLS"
            sheet.bad(here, f"answers, but {told}", "correct KAFKA_CA_FILE, or KAFKA_SECURITY_PROTOCOL")
        except (OSError, TimeoutError, ClientError) as error:
            told = f"unreachable at {server} ({type(error).__name__})"
            sheet.bad(here, told, "start it, or correct KAFKA_BOOTSTRAP or KAFKA_SECURITY_PROTOCOL")
        else:
            continue
        right = False
    if right:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await described_topics(kafka, [SOME_TOPIC])
        except (OSError, TimeoutError, ClientError) as error:
            told = f"is reached, but then leads nowhere ({type(error).__name__})"
            do = "its advertised addresses must be reachable from here, and KAFKA_SECURITY_PROTOCOL be theirs"
            sheet.bad(part, told, do)
            return False
        sheet.good(part, f"answers, and takes {kafka.username}" if kafka.username else "answers")
    return right


@asynccontextmanager
async def _connection(kafka: Kafka, server: str) -> AsyncIterator[Any]:
    """One connection, authenticated. The clients would say of a wrong password only that nobody can be reached."""
    host, _, port = server.rpartition(":")
    arguments = {name: value for name, value in kafka.aiokafka().items() if name != "bootstrap_servers"}
    async with asyncio.timeout(ANSWER_SECONDS):
        connection = await create_conn(host.strip("[]"), int(port), **arguments)
    try:
        yield connection
    finally:
        connection.close()


async def _declared(site: Site, sheet: _Sheet) -> None:
    try:
        found = await site.differences()
    except KafkaException as error:
        sheet.bad("topics and rights", f"cannot be compared ({_code(error)})", "give the admin user its rights")
        return
    for difference in found:
        sheet.bad("topics and rights", str(difference), difference.do)
    if not found:
        sheet.good("topics and rights", f"{len(site.topics)} topics, {len(site.rights)} rights as declared")


def _code(error: Exception) -> str:
    if isinstance(error, KafkaException):
        return str(error.args[0].name())
    return type(error).__name__


# --- the others --------------------------------------------------------------------------------------------------


async def _issuer(address: str, sheet: _Sheet) -> None:
    try:
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS) as client:
            told = (await client.get(address.rstrip("/") + "/.well-known/openid-configuration")).json()
            keys = (await client.get(told["jwks_uri"])).json()["keys"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        do = "start it, or correct OIDC_ISSUER; tokens of known keys are taken meanwhile"
        sheet.bad("issuer", f"does not answer as an issuer ({type(error).__name__})", do)
        return
    if told.get("issuer") != address:
        sheet.bad("issuer", "calls itself otherwise than OIDC_ISSUER", "set OIDC_ISSUER to its own name exactly")
    else:
        sheet.good("issuer", f"answers with {len(keys)} keys")


async def _gateway(address: str, sheet: _Sheet) -> None:
    """Through the gateway one sees whether both it and the service's api are there."""
    try:
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS) as client:
            status = (await client.get(address)).status_code
    except httpx.HTTPError as error:
        sheet.bad("gateway", f"unreachable ({type(error).__name__})", "start it, or correct its address")
        return
    if status == 200:
        sheet.good("api", "answers through the gateway")
    else:
        sheet.bad("api", f"the gateway answers {status} in its place", f"start an api of {sheet.service}")


async def _listening(name: str, address: str, sheet: _Sheet) -> None:
    parts = urlsplit(address)
    port = parts.port or {"https": 443, "smtp": 25}.get(parts.scheme, 80)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            _, writer = await asyncio.open_connection(parts.hostname, port)
        writer.close()
    except (OSError, TimeoutError) as error:
        told = f"unreachable at {parts.hostname}:{port} ({type(error).__name__})"
        sheet.bad(name, told, "start it, or correct its address; what needs it waits")
    else:
        sheet.good(name, "listens")
