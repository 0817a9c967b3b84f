"""A storm from its first gust to the count afterwards."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AclBinding, AdminClient
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
from storm import points
from storm.judge import Seen, Verdict, judge_effects, judge_topic
from storm.troubles import Mark, Trouble
from storm.victims import Life
from storm.world import CALLER, LISTENER, SERVICES, Answered, Called, Caller, Tally, call_out, cohort_id

COHORTS = 24
CALLS_PER_SECOND = 60.0
PARTITIONS = 4
COMES_TO_POINT_SECONDS = 20.0
DRAIN_SECONDS = 120.0
PATIENCE = 8
"""How often a trouble is given its time again until it is felt."""
CLOCKS_APART_SECONDS = 50 * 60
"""By how much the clocks of two lives may differ; the broker itself refuses what is dated more than an hour ahead."""


@dataclass
class Suffered:
    """What a trouble did while it lasted: to who asked, and to what had to be sent."""

    name: str
    seconds: float
    asked: int
    """How many commands would have been committed without it."""
    committed: int
    refused: int
    median_ms: float
    backlog: int
    recovered_seconds: float = 0.0

    def felt(self, mark: Mark) -> bool:
        """Whether it was a trouble at all."""
        match mark:
            case "backlog":
                return self.backlog >= 10
            case "standstill":
                return self.committed < self.asked / 2
        return self.median_ms >= 100


@dataclass
class Report:
    """What a storm did, and what it found afterwards."""

    asked: int = 0
    """How many kills it was to do."""
    kills: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    """Lives that did not come to their point in time and were ended without one."""
    troubles: list[Suffered] = field(default_factory=list)
    unfelt: list[str] = field(default_factory=list)
    died_in_trouble: int = 0
    backlog: int = 0
    parked: int = 0
    seconds: float = 0.0
    verdict: Verdict = field(default_factory=Verdict)

    @property
    def toothless(self) -> list[str]:
        """Why this storm proves nothing: points hardly met, no record sent twice, nothing ever waiting."""
        reasons = [f"{name} was not felt" for name in self.unfelt]
        if self.asked:
            reasons += [f"{point} was met {self.kills[point]} times" for point in POINTS if self.kills[point] < 5]
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
        if self.died_in_trouble:
            found.append(f"{self.died_in_trouble} workers died of what happened to a neighbour")
        return found

    def told(self) -> dict[str, Any]:
        """The report for a machine."""
        return {
            **vars(self),
            **asdict(self.verdict),
            "verdict": "kept" if self.verdict.kept else "broken",
            "troubles": [asdict(suffered) for suffered in self.troubles],
            "failed": self.failed,
            "toothless": self.toothless,
        }


POINTS = (*points.RELAY, *points.INBOX)


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
    """One storm over a broker, as its administrator, and a database.

    `users` names the broker's users of the two services, where these are not to be the administrator.
    """

    def __init__(
        self,
        kafka: Kafka,
        mongo_uri: str,
        logs: Path,
        users: Mapping[str, tuple[str, str]] | None = None,
        *,
        calls_per_second: float = CALLS_PER_SECOND,
    ) -> None:
        self._kafka = kafka
        self._mongo_uri = mongo_uri
        self._logs = logs
        self._users = users or {}
        self._calls_per_second = calls_per_second
        self._databases = {
            name: Database(mongo_uri, f"storm-{service.name}", service=service.name)
            for name, service in SERVICES.items()
        }
        self._committed: dict[str, int] = {}
        self._took: list[float] = []
        self._refused = 0
        self._kills_until = math.inf
        self._calling = asyncio.Event()
        self.report = Report()

    def _settings(self, name: str) -> dict[str, Any]:
        service = SERVICES[name].name
        user, password = self._users.get(name, (self._kafka.username, self._kafka.password))
        return {
            "environment": "development",
            "mongo_uri": self._mongo_uri,
            "mongo_database": f"storm-{service}",
            "kafka_bootstrap": self._kafka.bootstrap,
            "kafka_security_protocol": self._kafka.protocol,
            "kafka_username": user,
            "kafka_password": password,
            "kafka_ca_file": self._kafka.ca_file,
            "oidc_issuer": "http://127.0.0.1:1",
            "installation_key": "an installation key of a storm",
            "instance": "storm",
            "lease_seconds": 0.3,
        }

    def _life(self, name: str, point: str | None = None, passes: int = 1) -> Life:
        ahead = random.uniform(-0.5, 0.5) * CLOCKS_APART_SECONDS
        return Life(name, self._settings(name), str(self._logs / f"{name}.log"), point, passes, ahead)

    # before and after

    @property
    def rights(self) -> list[AclBinding]:
        """What the services' own users must be allowed, as for any service of ours."""
        owned = {"caller": [Topic(Called.topic, PARTITIONS)], "listener": [Topic(Answered.topic, PARTITIONS)]}
        owned["listener"].append(Topic(dead_letters(Called.topic, LISTENER), 1))
        return [
            right
            for name, (user, _) in self._users.items()
            for right in broker.rights_of(user, owned[name], SERVICES[name].consumers, None)
        ]

    async def prepare(self) -> None:
        topics = [Topic(Called.topic, PARTITIONS), Topic(Answered.topic, PARTITIONS)]
        topics.append(Topic(dead_letters(Called.topic, LISTENER), 1))
        drift = await broker.prepare(self._kafka, topics, self.rights, 1)
        if drift:
            raise SystemExit("storm: " + "; ".join(drift))
        for database in self._databases.values():
            await database.ensure({**INDEXES, **TIMER_INDEXES})

    async def clear(self) -> None:
        """Leave nothing behind on the servers."""
        for database in self._databases.values():
            with suppress(PyMongoError):
                await database.drop()
            await database.close()
        await asyncio.to_thread(self._delete_topics)

    def _delete_topics(self) -> None:
        names = [Called.topic, Answered.topic, dead_letters(Called.topic, LISTENER)]
        admin = AdminClient(self._kafka.librdkafka())
        for future in admin.delete_topics(names, request_timeout=15).values():
            with suppress(Exception):
                future.result(timeout=20)

    # the storm

    async def rage(self, kills: int, troubles: Sequence[Trouble] = (), seconds: float = math.inf) -> None:
        """Call numbers out all the while, kill `kills` times at named points, or for so many seconds; then let the

        troubles come one by one, let it settle, and count.
        """
        began = time.monotonic()
        self._kills_until = began + seconds
        self.report.asked = kills
        self._calling.set()
        calling = [asyncio.create_task(self._call(cohort_id(n))) for n in range(COHORTS)]
        watching = asyncio.create_task(self._watch_backlog())
        try:
            if kills:
                done = asyncio.Barrier(2)
                await asyncio.gather(
                    self._kill("caller", kills - kills // 2, done),
                    self._kill("listener", kills // 2, done),
                )
            for trouble in troubles:
                await self._suffer(trouble)
        finally:
            self._calling.clear()
            await asyncio.gather(*calling)
            watching.cancel()
        await self._settle()
        await self._count()
        self.report.seconds = time.monotonic() - began

    trouble_seconds: float = 20.0

    async def _suffer(self, trouble: Trouble) -> None:
        """A trouble comes over two working services and is over again: they wait, and catch up."""
        lives = [self._life(name) for name in SERVICES]
        await asyncio.sleep(1)
        await self._caught_up()  # with what was committed since: so both are at work
        await trouble.begin()
        try:
            for _ in range(PATIENCE):  # a disk may find room again: the trouble lasts until it is one
                self._took, self._refused = [], 0
                await asyncio.sleep(self.trouble_seconds)
                median = statistics.median(self._took) * 1000 if self._took else 0.0
                seconds, committed, refused = self.trouble_seconds, len(self._took), self._refused
                asked = round(seconds * self._calls_per_second)
                suffered = Suffered(trouble.name, seconds, asked, committed, refused, round(median), 0)
                if trouble.mark == "backlog" or suffered.felt(trouble.mark):
                    break
        finally:
            await trouble.end()
        over = time.monotonic()
        suffered.backlog = await self._waiting()
        await self._caught_up()
        suffered.recovered_seconds = round(time.monotonic() - over, 1)
        self.report.died_in_trouble += sum(not life.alive for life in lives)
        self.report.troubles.append(suffered)
        if not suffered.felt(trouble.mark):
            self.report.unfelt.append(trouble.name)
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
        pause = COHORTS / self._calls_per_second
        while self._calling.is_set():
            began = time.monotonic()
            try:
                self._committed[cohort] = await call_out(self._databases["caller"], cohort)
                self._took.append(time.monotonic() - began)
            except (Unavailable, Contended):
                self._refused += 1
            await asyncio.sleep(random.uniform(0.5, 1.5) * pause)

    async def _kill(self, name: str, times: int, others: asyncio.Barrier) -> None:
        for point in itertools.islice(aims(name), times):
            if time.monotonic() > self._kills_until:
                break
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
            self.report.backlog = max(self.report.backlog, await self._waiting())
            await asyncio.sleep(1)

    async def _waiting(self) -> int:
        """How many documents lie in the caller's outbox; none, where nobody can tell."""
        with suppress(PyMongoError):
            return len(await self._databases["caller"].collection("outbox").find({}, {"_id": 1}).to_list(None))
        return 0

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
