"""A storm from its first gust to the count afterwards."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pymongo.errors import PyMongoError

from shared import broker
from shared.broker import Topic
from shared.cloudevents import read
from shared.errors import Contended, Unavailable
from shared.inbox import INDEXES, dead_letters
from shared.kafka import Kafka
from shared.mongo import Database
from shared.timers import INDEXES as TIMER_INDEXES
from shared.worker import read_topic
from stack import Stack
from storm import points
from storm.judge import Seen, Verdict, judge_effects, judge_topic
from storm.victims import Life
from storm.world import CALLER, LISTENER, SERVICES, Answered, Called, Caller, Tally, call_out, cohort_id

COHORTS = 24
CALLS_PER_SECOND = 60
PARTITIONS = 4
COMES_TO_POINT_SECONDS = 20.0
DRAIN_SECONDS = 120.0


@dataclass
class Report:
    """What a storm did, and what it found afterwards."""

    kills: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    """Lives that did not come to their point in time and were ended without one."""
    outages: list[str] = field(default_factory=list)
    died_in_outage: int = 0
    backlog: int = 0
    parked: int = 0
    seconds: float = 0.0
    verdict: Verdict = field(default_factory=Verdict)

    @property
    def toothless(self) -> list[str]:
        """Why this storm proves nothing: points hardly met, no record sent twice, nothing ever waiting."""
        reasons = [f"{point} was met {self.kills[point]} times" for point in _ALL if self.kills[point] < 5]
        if not self.verdict.duplicates:
            reasons.append("no record came twice")
        if not self.backlog:
            reasons.append("nothing ever waited in the outbox")
        return reasons

    @property
    def failed(self) -> list[str]:
        """Everything that must not be."""
        found = self.verdict.wrong[:20]
        if not self.verdict.kept:
            verdict = self.verdict
            found.insert(0, f"lost {verdict.lost}, doubled {verdict.doubled}, out of turn {verdict.disordered}")
        if self.parked:
            found.append(f"{self.parked} records were parked")
        if self.died_in_outage:
            found.append(f"{self.died_in_outage} workers died because a neighbour was away")
        return found

    def told(self) -> dict[str, Any]:
        """The report for a machine."""
        return {
            **{name: value for name, value in vars(self).items() if name != "verdict"},
            **asdict(self.verdict),
            "failed": self.failed,
            "toothless": self.toothless,
        }


_ALL = (*points.RELAY, *points.INBOX)


def aims(service: str) -> Iterator[str]:
    """The points at which one service is killed, in turn; the listener's own relay at one of its points each turn."""
    relay = itertools.cycle(points.RELAY)
    while True:
        if service == "caller":
            yield from points.RELAY
        else:
            yield from points.INBOX
            yield next(relay)


class Storm:
    """One storm over a broker and a database. With a `stack` of its own it can also take these two away."""

    def __init__(self, kafka: Kafka, mongo_uri: str, logs: Path, *, stack: Stack | None = None) -> None:
        self._kafka = kafka
        self._mongo_uri = mongo_uri
        self._logs = logs
        self._stack = stack
        self._databases = {
            name: Database(mongo_uri, f"storm-{service.name}", service=service.name)
            for name, service in SERVICES.items()
        }
        self._committed: dict[str, int] = {}
        self._calling = asyncio.Event()
        self.report = Report()

    def _settings(self, name: str) -> dict[str, Any]:
        service = SERVICES[name].name
        return {
            "environment": "development",
            "mongo_uri": self._mongo_uri,
            "mongo_database": f"storm-{service}",
            "kafka_bootstrap": self._kafka.bootstrap,
            "kafka_security_protocol": self._kafka.protocol,
            "kafka_username": self._kafka.username,
            "kafka_password": self._kafka.password,
            "kafka_ca_file": self._kafka.ca_file,
            "oidc_issuer": "http://127.0.0.1:1",
            "installation_key": "an installation key of a storm",
            "instance": "storm",
            "lease_seconds": 0.3,
        }

    def _life(self, name: str, point: str | None = None, passes: int = 1) -> Life:
        return Life(name, self._settings(name), str(self._logs / f"{name}.log"), point, passes)

    # before and after

    async def prepare(self) -> None:
        topics = [Topic(Called.topic, PARTITIONS), Topic(Answered.topic, PARTITIONS)]
        topics.append(Topic(dead_letters(Called.topic, LISTENER), 1))
        drift = await broker.prepare(self._kafka, topics, [], 1)
        if drift:
            raise SystemExit("storm: " + "; ".join(drift))
        for database in self._databases.values():
            await database.ensure({**INDEXES, **TIMER_INDEXES})

    async def clear(self) -> None:
        """Leave nothing behind on the servers."""
        from confluent_kafka.admin import AdminClient

        for database in self._databases.values():
            with suppress(PyMongoError):
                await database.drop()
            await database.close()
        names = [Called.topic, Answered.topic, dead_letters(Called.topic, LISTENER)]
        admin = AdminClient(self._kafka.librdkafka())
        for future in admin.delete_topics(names, request_timeout=15).values():
            with suppress(Exception):
                future.result(timeout=20)

    # the storm

    async def rage(self, kills: int) -> None:
        """Call numbers out all the while, kill `kills` times at named points, then let it settle and count."""
        began = time.monotonic()
        self._calling.set()
        calling = [asyncio.create_task(self._call(cohort_id(n))) for n in range(COHORTS)]
        watching = asyncio.create_task(self._watch_backlog())
        try:
            done = asyncio.Barrier(2)
            await asyncio.gather(
                self._kill("caller", kills - kills // 2, done),
                self._kill("listener", kills // 2, done),
            )
            if self._stack is not None:
                await self._outages()
        finally:
            self._calling.clear()
            await asyncio.gather(*calling)
            watching.cancel()
        await self._settle()
        await self._count()
        self.report.seconds = time.monotonic() - began

    outage_seconds: float = 0.0

    async def _outages(self) -> None:
        """Broker, then database away while numbers are called out: the workers wait, and catch up."""
        for part in ("kafka", "mongo") if self.outage_seconds else ():
            assert self._stack is not None
            lives = [self._life(name) for name in SERVICES]
            await asyncio.sleep(2)
            await asyncio.to_thread(self._stack.kill_part, part)
            await asyncio.sleep(self.outage_seconds)
            await asyncio.to_thread(self._stack.start_part, part)
            self.report.died_in_outage += sum(not life.alive for life in lives)
            await self._caught_up()
            self.report.outages.append(f"{part} {self.outage_seconds:.0f} s")
            await asyncio.gather(*(life.stop() for life in lives))

    async def _caught_up(self) -> None:
        """Until as many answers were counted as numbers had been committed when this was asked."""
        asked = dict(self._committed)

        async def there() -> bool:
            tallies = await self._tallies()
            return all(tallies.get(cohort, (0, 0))[0] >= number for cohort, number in asked.items())

        await self._until(there)

    async def _call(self, cohort: str) -> None:
        """One number after the other; where the outcome is not known, the state itself tells it at the next."""
        pause = COHORTS / CALLS_PER_SECOND
        while self._calling.is_set():
            with suppress(Unavailable, Contended):
                self._committed[cohort] = await call_out(self._databases["caller"], cohort)
            await asyncio.sleep(random.uniform(0.5, 1.5) * pause)

    async def _kill(self, name: str, times: int, others: asyncio.Barrier) -> None:
        for point in itertools.islice(aims(name), times):
            while True:
                met = await self._life(name, point, random.randint(1, 4)).end(COMES_TO_POINT_SECONDS)
                if met is not None:
                    self.report.kills[met] += 1
                    break
                self.report.missed[point] += 1
        life = self._life(name)  # the other service comes to its points only while this one works
        await others.wait()
        await life.stop()

    async def _watch_backlog(self) -> None:
        while True:
            with suppress(PyMongoError):
                outbox = self._databases["caller"].collection("outbox")
                waiting = await outbox.find({}, {"_id": 1}).to_list(None)
                self.report.backlog = max(self.report.backlog, len(waiting))
            await asyncio.sleep(1)

    # afterwards

    async def _settle(self) -> None:
        lives = [self._life(name) for name in SERVICES]

        async def empty() -> bool:
            for database in self._databases.values():
                if await database.collection("outbox").find_one({}, {"_id": 1}) is not None:
                    return False
            tallies = await self._tallies()
            return all(tallies.get(c.id, (0, 0))[0] >= c.number for c in await self._callers())

        try:
            await self._until(empty)
        finally:
            await asyncio.gather(*(life.stop() for life in lives))

    async def _until(self, check: Any) -> None:
        """Wait for it; what does not come true in time is found when everything is counted."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < deadline:
            with suppress(PyMongoError, Unavailable):
                if await check():
                    return
            await asyncio.sleep(0.1)

    async def _callers(self) -> list[Caller]:
        return await self._databases["caller"].query(Caller, {})

    async def _tallies(self) -> dict[str, tuple[int, int]]:
        tallies = await self._databases["listener"].query(Tally, {})
        return {tally.cohort_id: (tally.counted, tally.out_of_turn) for tally in tallies}

    async def _count(self) -> None:
        committed = {caller.id: caller.number for caller in await self._callers()}
        tallies = await self._databases["listener"].query(Tally, {})
        verdict = self.report.verdict
        for cohort, number in self._committed.items():
            if committed.get(cohort, 0) < number:
                verdict.lost += number - committed.get(cohort, 0)
                verdict.wrong.append(f"states: {cohort} was told {number} and stands at {committed.get(cohort, 0)}")
        verdict += judge_topic(CALLER, await self._seen(Called.topic), committed)
        verdict += judge_effects(committed, await self._tallies())
        verdict += judge_topic(LISTENER, await self._seen(Answered.topic), {t.id: t.counted for t in tallies})
        parked = await self._databases["listener"].collection("inbox").find({"fate": "parked"}).to_list(None)
        self.report.parked = len(parked)

    async def _seen(self, topic: str) -> list[Seen]:
        seen = []
        for record in await read_topic(self._kafka, topic):
            envelope = read(record)
            seen.append(Seen(envelope.subject, envelope.sequence, envelope.id, record.value or b""))
        return seen
