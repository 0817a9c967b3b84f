"""The processes of a service: the few lines of its app.py become `api`, `worker`, `all`, `prepare` and `redrive`.

An api needs only its database and serves while Kafka is away. A worker waits for what is missing and says for what.
Told to stop, either finishes what it has begun, within ten seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import gc
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, TypeVar

import structlog
import uvicorn
from aiokafka.errors import KafkaError as AioKafkaError
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.telemetry import TelemetryConfig
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pymongo import IndexModel
from pymongo.errors import PyMongoError

from shared import clock, http, identity, inbox, logs, outbox, pages, timers, tracing, vitals, worker
from shared.errors import Unavailable
from shared.inbox import Consumer, dead_letters
from shared.mongo import Database
from shared.settings import Settings, from_environment
from shared.timers import Timers

T = TypeVar("T")

VERSION = "0.2.0"
FAILING_SECONDS = 30.0  # longer than a task that fails at once rests between two tries
_NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}  # its own tells whole addresses

log = structlog.get_logger("service")


@dataclass(slots=True)
class Context:
    """What a worker's own loop is given."""

    database: Database
    settings: Any
    tokens: identity.Tokens
    stopping: asyncio.Event
    pending: dict[str, Callable[[], Awaitable[int]]] = field(default_factory=dict)
    """How to ask, by name of the work, how much is to be done now. The player of a scenario waits for all to be 0."""


Loop = Callable[[Context], Coroutine[Any, Any, None]]
PrepareAgency = Callable[[Any, Database, str], Awaitable[None]]


@dataclass(frozen=True)
class ForwardLedger:
    """Where a service notes what it has forwarded to topics of its prefix: the last sequence of each subject."""

    collection: str
    id: Callable[[str, str, str], str]
    """From the topic's name behind the prefix, source and subject: the state's id. Its field is `last`."""


@dataclass(frozen=True)
class Service:
    """One service: what it is called, what it answers, what it consumes, what it keeps."""

    name: str
    routers: Sequence[APIRouter]
    internal_routers: Sequence[APIRouter] = ()
    consumers: Sequence[Consumer] = ()
    timers: Timers = field(default_factory=Timers)
    indexes: Mapping[str, Sequence[IndexModel]] = field(default_factory=dict)
    settings: type[Settings] = Settings
    loops: Sequence[Loop] = ()
    further: Mapping[str, Loop] = field(default_factory=dict)
    """Processes beyond api and worker that it needs: role and what it does, besides saying how it is."""
    writes_prefix: str | None = None
    """Topics beyond its own that it writes: those whose names begin so."""
    ledger: ForwardLedger | None = None
    """Of what it forwards to those, if it does."""
    prepare_agency: PrepareAgency | None = None
    neighbours: Callable[[Any], Mapping[str, str]] = lambda settings: {}
    """From its settings: who else it calls, by name, and where (`smtp://host:port`, `http://…`)."""
    description: str = ""

    # what it is made of

    def database(self, settings: Settings) -> Database:
        name = settings.mongo_database or self.name
        uri = settings.mongo_uri.get_secret_value()
        return Database(uri, name, service=self.name, driver=settings.mongo_driver)

    def public_app(self, database: Database, settings: Settings) -> FastAPI:
        """What the gateway reaches."""
        app = _app(self.name, self.description)
        self._equip(app, database, settings, self.routers)
        return app

    def internal_app(self, database: Database, settings: Settings, work: Tasks | None = None) -> FastAPI:
        """What only neighbours and operators reach: health, metrics, internal routes."""
        app = _app(f"{self.name} (internal)")
        app.state.work = work
        self._equip(app, database, settings, [*self.internal_routers, _health])
        return app

    def _equip(self, app: FastAPI, database: Database, settings: Settings, routers: Sequence[APIRouter]) -> None:
        app.state.database = database
        app.state.settings = settings
        app.state.verifier = identity.verifier(
            settings.oidc_issuer, self.name, settings.installation_key.get_secret_value()
        )
        app.state.tokens = _tokens(self.name, settings)
        for router in routers:
            app.router.routes.extend(router.routes)  # an included router is matched a second time, at each request
        http.install(app)
        if undeclared := identity.undeclared(app):
            raise RuntimeError(f"{self.name}: routes that do not state who may call them: {undeclared}")

    def all_indexes(self) -> dict[str, Sequence[IndexModel]]:
        return {**inbox.INDEXES, **timers.INDEXES, **http.INDEXES, **self.indexes}

    # roles

    def main(self) -> None:
        """The command line of app.py."""
        parser = argparse.ArgumentParser(prog=f"services.{self.name}.app", description=self.description)
        roles = parser.add_subparsers(dest="role", required=True)
        roles.add_parser("api", help="serve HTTP")
        for role in ("worker", "all"):
            help = "consume, publish, fire timers" + (" and serve HTTP, in one process" if role == "all" else "")
            roles.add_parser(role, help=help).add_argument(
                "--rewind",
                metavar="TOPIC",
                action="append",
                default=[],
                help="read this topic again from its beginning",
            )
        for role, loop in self.further.items():
            roles.add_parser(role, help=(loop.__doc__ or "").strip().splitlines()[0].rstrip("."))
        prepare = roles.add_parser("prepare", help="create indexes, topics and rights; safe to repeat")
        if self.prepare_agency:
            prepare.add_argument("--agency", metavar="CODE", action="append", default=[], help="topic, user and rights")
        redrive = roles.add_parser("redrive", help="try parked records again")
        for once in (prepare, redrive):
            help = "how long to wait for a neighbour that is away (60)"
            once.add_argument("--patience", metavar="SECONDS", type=float, default=60.0, help=help)
        arguments = parser.parse_args()
        read = {topic for consumer in self.consumers for topic in consumer.topics}
        if unread := sorted(set(getattr(arguments, "rewind", [])) - read):
            told = ", ".join(sorted(read)) or "no topic"
            raise SystemExit(f"--rewind {' '.join(unread)}: {self.name} reads {told}")
        settings = from_environment(self.settings)
        logs.setup(service=self.name, role=arguments.role, version=VERSION, level=settings.log_level)
        clock.use(settings.clock_source)
        match arguments.role:
            case "prepare":
                asyncio.run(self._prepare(settings, getattr(arguments, "agency", []), arguments.patience))
            case "redrive":
                asyncio.run(self._redrive(settings, arguments.patience))
            case role:
                asyncio.run(self.run(role, settings, rewind=getattr(arguments, "rewind", [])))

    async def _prepare(self, settings: Settings, agencies: Sequence[str], patience: float) -> None:
        """Indexes, topics and rights. Waits for database and broker; refuses to go on with a drift."""
        from shared import broker  # the administrator's client; no other role pays for it

        kafka = settings.kafka(admin=True)
        if kafka.protocol != "PLAINTEXT" and not (kafka.username and kafka.password):
            raise SystemExit("settings: KAFKA_ADMIN_USERNAME, KAFKA_ADMIN_PASSWORD: prepare needs both")
        database = self.database(settings)
        try:
            for code in agencies:
                assert self.prepare_agency is not None
                given = settings, database, code
                await _patiently("prepare", partial(self.prepare_agency, *given), patience)
            if agencies:
                return
            topics = broker.topics_of(self.name, self.consumers)
            rights = broker.rights_of(settings.kafka_username or "", topics, self.consumers, self.writes_prefix)
            if kafka.protocol == "PLAINTEXT":
                rights = []
            replication = settings.kafka_replication
            own = settings.kafka()
            if own.username and own.password:
                user = own.username, own.password
                await _patiently("prepare", lambda: broker.make_user(kafka, *user), patience)
            drift = await _patiently("prepare", lambda: broker.prepare(kafka, topics, rights, replication), patience)
            await _patiently("prepare", lambda: database.ensure(self.all_indexes()), patience)
            if drift:
                raise SystemExit("prepare: " + "; ".join(drift))
            log.info("service.prepared", topics=len(topics), rights=len(rights))
        finally:
            await database.close()

    async def _redrive(self, settings: Settings, patience: float) -> None:
        """Try what lies parked again, and print what became of it. Waits for database and broker."""
        database = self.database(settings)
        try:
            for consumer in self.consumers:
                letters = []
                for topic in consumer.topics:
                    name = dead_letters(topic, consumer.group)
                    letters += await _patiently("redrive", partial(worker.read_topic, settings.kafka(), name), patience)
                fates = await _patiently("redrive", partial(consumer.redrive, letters, database), patience)
                left = len(await _patiently("redrive", partial(consumer.parked, database), patience))
                log.info(
                    "redrive.done", group=consumer.group, handled=fates.handled, parked_again=fates.parked, left=left
                )
                print(f"{consumer.group}: {fates.handled} handled, {fates.parked} parked again, {left} left")
        finally:
            await database.close()

    async def run(self, role: str, settings: Settings, *, rewind: Sequence[str] = ()) -> None:
        """Be this role until SIGTERM or SIGINT."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        resource = {"service.name": self.name, "service.version": VERSION, "service.instance.id": settings.instance}
        with tracing.exported(settings.otlp_endpoint, **resource, role=role):
            async with self.running(role, settings, stopping, rewind=rewind):
                log.info("service.started", role=role)
                await stopping.wait()
                log.info("service.stopping")
        log.info("service.stopped")

    @asynccontextmanager
    async def running(
        self, role: str, settings: Settings, stopping: asyncio.Event, *, rewind: Sequence[str] = ()
    ) -> AsyncIterator[Tasks | None]:
        """The role's servers and tasks, for as long as the context lasts."""
        database = self.database(settings)
        work: Tasks | None = None
        if role in self.further:
            work = Tasks(self, database, settings, stopping, [self.further[role]])
        elif role != "api":
            work = Work(self, database, settings, stopping, rewind)
        places = [_listening("INTERNAL", settings.internal_host, settings.internal_port)]
        servers = [_server(self.internal_app(database, settings, work))]
        if role in ("api", "all"):
            places.append(_listening("HTTP", settings.http_host, settings.http_port))
            servers.append(_server(self.public_app(database, settings)))
        serving = [asyncio.create_task(s.serve(sockets=[at])) for s, at in zip(servers, places, strict=True)]
        gc.freeze()  # what start-up made stays; collections then look only at what requests make
        try:
            if work is not None:
                work.start()
            yield work
        finally:
            stopping.set()
            for server in servers:
                server.should_exit = True
            if work is not None:
                await work.stop()
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*serving, return_exceptions=True), 5)
            await database.close()


def _tokens(service: str, settings: Settings) -> identity.Tokens:
    secret = settings.client_secret.get_secret_value() if settings.client_secret else ""
    return identity.Tokens(settings.oidc_issuer, settings.client_id or service, secret)


class Tasks:
    """Loops that run until told to stop; one that ends by a bug is reported and begun again."""

    def __init__(
        self, service: Service, database: Database, settings: Settings, stopping: asyncio.Event, loops: Sequence[Loop]
    ) -> None:
        self.database = database
        self.context = Context(database, settings, _tokens(service.name, settings), stopping)
        self._stopping = stopping
        self._loops = loops
        self._tasks: list[asyncio.Task[None]] = []
        self._failed_at: dict[str, float] = {}

    def start(self) -> None:
        for loop in self._loops:
            self._go(loop.__name__, lambda loop=loop: loop(self.context))  # type: ignore[misc]

    def _go(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._tasks.append(asyncio.create_task(self._tend(name, work), name=name))

    async def _tend(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        pause = 0.5
        while not self._stopping.is_set():
            try:
                await work()
                return
            except Exception as error:
                log.error("task.failed", task=name, reason=type(error).__name__, exc_info=True)
                self._failed_at[name] = time.monotonic()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), pause)
                pause = min(10.0, pause * 2)

    async def stop(self) -> None:
        """Let the tasks end what they are at; what takes longer is cancelled."""
        _, late = await asyncio.wait(self._tasks, timeout=5) if self._tasks else (set(), set())
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def quiet(self) -> dict[str, Any]:
        """Whether anything is still to be done here."""
        pending = {name: await ask() for name, ask in self.context.pending.items()}
        return {"quiet": not any(pending.values()), "pending": pending}

    def state(self) -> dict[str, Any]:
        return {"tasks_failing": [n for n, at in self._failed_at.items() if time.monotonic() < at + FAILING_SECONDS]}


class Work(Tasks):
    """What a worker does: inbox, relay, timers and the service's own loops."""

    def __init__(
        self,
        service: Service,
        database: Database,
        settings: Settings,
        stopping: asyncio.Event,
        rewind: Sequence[str] = (),
    ) -> None:
        super().__init__(service, database, settings, stopping, service.loops)
        self.service = service
        self.relay = outbox.Relay(database, settings.kafka(), lease_seconds=settings.lease_seconds)
        self.intakes = worker.Intakes(service.consumers, database, settings.kafka(), settings.instance, rewind)
        self._lease_seconds = settings.lease_seconds

    def start(self) -> None:
        def fire() -> Coroutine[Any, Any, None]:
            return self.service.timers.run(self.database, self._stopping, lease_seconds=self._lease_seconds)

        self._go("relay", self.relay.run)
        self._go("timers", fire)
        self._go("intakes", lambda: self.intakes.run(self._stopping))
        self._go("vitals", lambda: vitals.show(self.database, self.intakes, self._stopping))
        super().start()

    async def stop(self) -> None:
        """Finish batches and commits first, then stop publishing. What is not yet published lies in the outbox."""
        await self.intakes.stop()
        self.relay.stop()
        await super().stop()

    async def quiet(self) -> dict[str, Any]:
        """Whether anything is still on its way through this worker."""
        now = clock.now()
        due_at = await Timers.next_due(self.database)
        outbox_row = await self.database.collection("outbox").find_one({}, {"_id": 1})
        left = {"outbox": int(outbox_row is not None), "timers_due": int(due_at is not None and due_at <= now)}
        pending = {name: await ask() for name, ask in self.context.pending.items()}
        return {
            "quiet": self.intakes.started and not any(left.values()) and not any(pending.values()),
            "produced": dict(self.relay.produced),
            "committed": {intake.consumer.group: dict(intake.committed) for intake in self.intakes.groups},
            "consumes": {intake.consumer.group: intake.consumer.topics for intake in self.intakes.groups},
            **left,
            "pending": pending,
            "next_timer_at": due_at.isoformat() if due_at and due_at > now else None,
        }

    def state(self) -> dict[str, Any]:
        return {
            "consuming": self.intakes.started and all(intake.alive for intake in self.intakes.groups),
            "outbox_oldest_seconds": round(self.relay.oldest_seconds, 3),
            "topics_held": {topic: round(age, 1) for topic, age in self.relay.held.items()},
            **super().state(),
        }


# --- health ------------------------------------------------------------------------------------------------------

_health = APIRouter(tags=["health"])


@_health.get("/healthz")
async def alive(caller: Annotated[None, identity.public()]) -> dict[str, str]:
    """The process answers."""
    return {"status": "alive"}


@_health.get("/readyz")
async def ready(request: Request, response: Response, caller: Annotated[None, identity.public()]) -> dict[str, Any]:
    """Whether it can do its work: an api needs its database; a worker consumes, and none of its tasks keeps failing."""
    state: dict[str, Any] = {"database": await request.app.state.database.ping()}
    is_ready = bool(state["database"])
    if (work := request.app.state.work) is not None:
        state |= work.state()
        is_ready = is_ready and state.get("consuming", True) and not state["tasks_failing"]
    response.status_code = 200 if is_ready else 503
    return {"status": "ready" if is_ready else "waiting", **state}


@_health.get("/metrics", include_in_schema=False)
async def metrics(caller: Annotated[None, identity.public()]) -> Response:
    """Prometheus metrics of this process."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


@_health.get("/internal/v1/quiet")
async def quiet(request: Request, caller: Annotated[None, identity.public()]) -> dict[str, Any]:
    """What is still on its way through this worker; the player of a scenario waits until nothing is."""
    if (work := request.app.state.work) is None:
        return {"quiet": True}
    return dict(await work.quiet())


# --- frame -------------------------------------------------------------------------------------------------------


def _app(title: str, description: str = "") -> FastAPI:
    """An app that sends nobody elsewhere: neither to a path without its slash nor to another's script and style."""
    app = FastAPI(
        title=title,
        version=VERSION,
        description=description,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        telemetry=_NO_TELEMETRY,
    )
    pages.show(app)
    return app


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: the role stops it, in order with everything else."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: FastAPI) -> _Server:
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=4)
    return _Server(config)


def _listening(which: str, host: str, port: int) -> socket.socket:
    """The place where a server is reached; `SystemExit` with one line naming the settings where none can be."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        made = socket.create_server((host, port), family=family, backlog=2048)
        # asyncio spares answers the 40 ms that Nagle's algorithm may hold them back only where a socket says that it
        # is TCP; the one just made does not, and opened again by its number it does.
        return socket.socket(fileno=made.detach())
    except OSError as error:
        reason = errno.errorcode.get(error.errno or 0, type(error).__name__)
        named = f"{which}_HOST, {which}_PORT"
        raise SystemExit(f"settings: {named}: cannot listen on {host}:{port} ({reason})") from None


async def _patiently(role: str, attempt: Callable[[], Awaitable[T]], seconds: float) -> T:
    """Try again while a neighbour is away; end with one line when it stays away, and at once when it refuses us."""
    from confluent_kafka import KafkaException

    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            return await attempt()
        except (PyMongoError, KafkaException, AioKafkaError, Unavailable, OSError, TimeoutError) as error:
            who = "database" if isinstance(error, (PyMongoError, Unavailable)) else "broker"
            reason = _name(error)
            if "authorization" in reason.lower() or getattr(error, "code", None) in _DATABASE_REFUSES:
                raise SystemExit(f"{role}: the {who} refuses it ({reason})") from None
            if asyncio.get_running_loop().time() > deadline:
                raise SystemExit(f"{role}: the {who} is away ({reason})") from None
            log.warning(f"{role}.waiting", for_=who, reason=reason)
            await asyncio.sleep(1)


_DATABASE_REFUSES = {13, 18, 85, 86}
"""Unauthorized, AuthenticationFailed, and an index that stands there under other terms."""


def _name(error: BaseException) -> str:
    """The broker's own name of what went wrong, where it says one; else the error's class."""
    told = error.args[0] if error.args else None
    name = getattr(told, "name", None)
    return str(name()) if callable(name) else type(error).__name__
