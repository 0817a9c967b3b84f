"""`python -m shared.ops`: look at an installation, and mend it. What changes something says what, and asks."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import sys
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import structlog
import typer
from aiokafka.errors import KafkaError
from confluent_kafka import KafkaException
from pymongo.errors import PyMongoError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shared import clock
from shared.broker import Difference
from shared.domain import Timer
from shared.errors import Unavailable
from shared.inbox import Consumer, Parked, description, original
from shared.mongo import Database, Transaction
from shared.ops import Misplaced, Site, backup, doctor, group_of, groups, records, sites
from shared.ops.outbox import outbox_of

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
events = typer.Typer(no_args_is_help=True, help="What is published.")
dlq = typer.Typer(no_args_is_help=True, help="Parked records: dead letters.")
outbox = typer.Typer(no_args_is_help=True, help="What is not yet published.")
topics = typer.Typer(no_args_is_help=True, help="Topics and rights on the broker, beside what is declared.")
timers = typer.Typer(no_args_is_help=True, help="What will happen at its instant.")
mail = typer.Typer(no_args_is_help=True, help="Whether e-mail goes out.")
for name, group in (
    ("events", events), ("dlq", dlq), ("outbox", outbox), ("topics", topics), ("timers", timers), ("mail", mail)
):  # fmt: skip
    app.add_typer(group, name=name)

Json = Annotated[bool, typer.Option("--json", help="As JSON on standard output.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]


DatabaseAdmin = Annotated[
    Path,
    typer.Option(
        "--database-admin",
        envvar="DATABASE_ADMIN",
        help="File with the connection string of a user that may read and write all services' databases.",
        exists=True,
        dir_okay=False,
    ),
]


class Reason(StrEnum):
    """Why a parked record is given up: the closed list of reasons."""

    DUPLICATE = "duplicate"
    MENDED_BY_HAND = "mended-by-hand"
    PERSON_ERASED = "person-erased"
    PUBLISHED_IN_ERROR = "published-in-error"
    SUPERSEDED = "superseded"
    UNREADABLE = "unreadable"


@app.callback()
def installation(
    context: typer.Context,
    environments: Annotated[
        Path | None,
        typer.Option(envvar="ENVIRONMENTS", help="Folder with a file <service>.env for each service.", exists=True),
    ] = None,
    service: Annotated[
        list[str] | None,
        typer.Option(envvar="SERVICE", help="Only these; without a folder, the one whose environment this is."),
    ] = None,
) -> None:
    """Operators' commands. They reach an installation by the settings of its services."""
    context.obj = (environments, service or [])


# --- looking -----------------------------------------------------------------------------------------------------


@app.command("doctor")
def examine(
    context: typer.Context,
    gateway: Annotated[
        str | None, typer.Option(envvar="GATEWAY_URL", help="Address of the gateway: to look at the apis as well.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Look at every part by name: all is well, or what to do. Ends with 1 when something is wrong."""
    found = _run(doctor.examine(_sites(context, sound=False), gateway))
    wrong = [finding for finding in found if finding.state == "bad"]
    if as_json:
        _json({"well": not wrong, "findings": [dataclasses.asdict(finding) for finding in found]})
    else:
        colours = {"good": "green", "bad": "red", "note": "yellow"}
        _table(
            ("service", "part", "state", "what is seen", "what to do"),
            ((f.service, f.part, Text(f.state, colours[f.state]), f.told, f.do) for f in found),
        )
        _say(f"{len(wrong)} of {len(found)} need a hand" if wrong else f"all {len(found)} are well")
    raise typer.Exit(int(bool(wrong)))


@events.command("tail")
def tail(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="[TOPIC]...", help="All that are published.")] = None,
    last: Annotated[int, typer.Option(min=0, max=10_000, help="How many of the past.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="And those that come, until interrupted.")] = False,
    as_json: Json = False,
) -> None:
    """The last events as their contracts understand them; nobody's position moves."""
    there = _sites(context)
    site = next((site for site in there if site.has_admin), there[0])
    wanted = names or sorted({t.name for s in there for t in s.topics if not t.name.endswith(".dlq")})

    async def work() -> None:
        async for told in records.tail(site.kafka(), wanted, last=last, follow=follow):
            if as_json:
                print(json.dumps(told), flush=True)
            else:
                _say(_line(told))

    try:
        _run(work())
    except LookupError as error:
        _end(f"there is no topic {error}, or this user may not see it")


def _line(told: Mapping[str, Any]) -> str:
    place = f"{told['topic']}/{told['partition']}@{told['offset']}"
    if "unreadable" in told:
        return f"{told['published']}  {place}  not readable: {told['unreadable']}"
    data = "(restricted: withheld)" if told.get("withheld") else json.dumps(told["data"])
    return f"{told['time']}  {place}  {told['event']} {told['subject']} #{told['sequence']}  {data}"


@outbox.command("status")
def outbox_status(context: typer.Context, as_json: Json = False) -> None:
    """How old the oldest row is, what waits for which topic, and whether anybody publishes."""

    async def look(site: Site, database: Database) -> dict[str, Any]:
        return {"service": site.name, **dataclasses.asdict(await outbox_of(database))}

    rows = _run(_each(_sites(context), look))
    if as_json:
        _json(rows)
        return
    _table(
        ("service", "oldest", "waiting", "relay"),
        (
            (
                row["service"],
                f"{row['oldest_seconds']:.1f} s",
                ", ".join(f"{topic}: {number}" for topic, number in row["topics"].items()) or "nothing",
                f"lease held by {row['relay']}" if row["relay"] else Text("nobody publishes", "red"),
            )
            for row in rows
        ),
    )


@timers.command("list")
def timers_list(
    context: typer.Context,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that gave up.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    as_json: Json = False,
) -> None:
    """The next timers of each service, by the instant at which they are due."""

    async def look(site: Site, database: Database) -> list[dict[str, Any]]:
        found = await database.query(Timer, {"failed": True} if failed else {}, sort=[("due_at", 1)], limit=limit)
        return [
            {
                "service": site.name,
                "id": timer.id,
                "kind": timer.kind,
                "due_at": timer.due_at.isoformat(timespec="milliseconds"),
                "state": "failed" if timer.failed else "overdue" if timer.due_at <= now else "waiting",
                "failures": timer.failures,
                "ids": timer.ids,
            }
            for timer in found
        ]

    there = _sites(context)
    now = clock.now()
    rows = [row for found in _run(_each(there, look)) for row in found]
    if as_json:
        _json(rows)
        return
    _table(
        ("service", "due at", "kind", "state", "failures", "id", "about"),
        (
            (r["service"], r["due_at"], r["kind"], r["state"], str(r["failures"]), r["id"], _pairs(r["ids"]))
            for r in rows
        ),
    )
    _say(f"{len(rows)} timers; it is {now.isoformat(timespec='seconds')}")


# --- parked records ----------------------------------------------------------------------------------------------

Group = Annotated[str | None, typer.Option("--group", help="Only of this consumer group.")]


@dataclasses.dataclass(frozen=True)
class _Lying:
    """A parked record, and whose it is."""

    site: Site
    consumer: Consumer
    parked: Parked

    def told(self) -> dict[str, Any]:
        return {
            "service": self.site.name,
            "group": self.consumer.group,
            **dataclasses.asdict(self.parked),
            "at": self.parked.at.isoformat(timespec="seconds"),
            "subject": records.as_id(self.parked.subject),
        }


async def _lying(there: Sequence[Site], group: str | None = None) -> list[_Lying]:
    if group is not None:
        group_of(there, group)

    async def look(site: Site, database: Database) -> list[_Lying]:
        wanted = [c for c in site.service.consumers if group in (None, c.group)]
        return [_Lying(site, c, one) for c in wanted for one in await c.parked(database)]

    return [one for found in await _each(there, look) for one in found]


@dlq.command("list")
def dlq_list(context: typer.Context, group: Group = None, as_json: Json = False) -> None:
    """What lies parked, by group, subject and sequence, and for what reason."""
    lying = [one.told() for one in _run(_lying(_sites(context), group))]
    if as_json:
        _json(lying)
        return
    _table(
        ("key", "reason", "attempt", "subject", "sequence", "since"),
        (
            (o["key"], o["reason"], str(o["attempt"]), o["subject"] or "-", str(o["sequence"] or "-"), o["at"])
            for o in lying
        ),
    )
    _say(f"{len(lying)} parked")


@dlq.command("show")
def dlq_show(context: typer.Context, key: str, as_json: Json = False) -> None:
    """One parked record: why, what it says as its contract understands it, and what waits behind it."""

    async def work() -> dict[str, Any]:
        lying = await _lying(there, group_of(there, key.partition("|")[0])[1].group)
        one = next((o for o in lying if o.parked.key == key), None)
        if one is None:
            raise Misplaced(f"{key}: not parked")
        parked = one.parked
        same = [
            o.parked
            for o in lying
            if parked.subject and (o.parked.source, o.parked.subject) == (parked.source, parked.subject)
        ]
        found = await records.letters(one.site.kafka(), one.consumer, [parked])
        letter = original(found[0]) if found else None
        return {
            **one.told(),
            "record": records.decoded(letter) if letter else None,
            "ahead": [o.key for o in same if (o.sequence or 0) < (parked.sequence or 0)],
            "behind": [o.key for o in same if (o.sequence or 0) > (parked.sequence or 0)],
        }

    there = _sites(context)
    told = _run(work())
    if as_json:
        _json(told)
        return
    record = told.pop("record")
    for name, value in told.items():
        _say(f"{name:10} {', '.join(value) or '-' if isinstance(value, list) else value if value is not None else '-'}")
    _say(f"{'record':10} {_line(record) if record else 'its dead letter is not on the topic (yet: outbox status)'}")


@dlq.command("retry")
def dlq_retry(
    context: typer.Context,
    keys: Annotated[list[str] | None, typer.Argument(metavar="[KEY]...", help="These records.")] = None,
    subject: Annotated[str | None, typer.Option(help="All of this subject.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that lie parked.")] = False,
    group: Group = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Handle parked records again, in sequence per subject; what is refused again stays parked, with its new reason."""
    if sum((bool(keys), subject is not None, everything)) != 1:
        _end("name what to retry: keys, or --subject, or --all")
    there = _sites(context)
    lying = _run(_lying(there, group))
    chosen = [
        o for o in lying if everything or o.parked.key in (keys or ()) or (subject and o.parked.subject == subject)
    ]
    if unknown := set(keys or ()) - {one.parked.key for one in chosen}:
        _end(f"{sorted(unknown)[0]}: not parked")
    if not chosen:
        _end("nothing of that lies parked")
    _agree([f"try again {o.parked.key} (attempt {o.parked.attempt + 1}; {o.parked.reason})" for o in chosen], yes)

    async def again(site: Site, database: Database) -> list[dict[str, Any]]:
        told = []
        for consumer in site.service.consumers:
            mine = [o.parked for o in chosen if o.consumer is consumer]
            if not mine:
                continue
            letters = await records.letters(site.kafka(), consumer, mine)
            on_topic = {description(letter)["dl_key"] for letter in letters}
            await consumer.redrive(letters, database)
            after = {one.key: one for one in await consumer.parked(database)}
            for one in mine:
                still = after.get(one.key)
                if still is None:
                    outcome = "handled"
                elif still.attempt > one.attempt:
                    outcome = f"parked again: {still.reason}"
                elif one.key not in on_topic:
                    outcome = "untouched: its dead letter is not on the topic yet"
                else:
                    outcome = "untouched: an earlier one of its subject lies parked; retry the subject"
                told.append({"key": one.key, "outcome": outcome})
        return told

    outcomes = [
        row for found in _run(_each([s for s in there if any(o.site is s for o in chosen)], again)) for row in found
    ]
    if as_json:
        _json(outcomes)
    else:
        _table(("key", "outcome"), ((row["key"], row["outcome"]) for row in outcomes))
    raise typer.Exit(int(any(row["outcome"] != "handled" for row in outcomes)))


@dlq.command("drop")
def dlq_drop(
    context: typer.Context,
    key: str,
    reason: Annotated[Reason, typer.Option(help="Why; it is kept with the record's row.")],
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Give a parked record up for good. What was parked behind it can then be retried."""
    there = _sites(context)
    site, consumer = _run(_found(there, key))
    _agree([f"give up {key} for good, as {reason.value}: {site.name} will never handle it"], yes)

    async def work(site: Site, database: Database) -> bool:
        return await consumer.drop(key, reason.value, database)

    (dropped,) = _run(_each([site], work))
    if not dropped:
        _end(f"{key}: not parked any more")
    if as_json:
        _json({"key": key, "dropped_for": reason.value})
    else:
        _say("given up")


async def _found(there: Sequence[Site], key: str) -> tuple[Site, Consumer]:
    for one in await _lying(there, group_of(there, key.partition("|")[0])[1].group):
        if one.parked.key == key:
            return one.site, one.consumer
    raise Misplaced(f"{key}: not parked")


# --- changing ----------------------------------------------------------------------------------------------------


@app.command("rewind")
def rewind(
    context: typer.Context,
    group: str,
    topic: str,
    wait: Annotated[int, typer.Option(min=0, max=600, help="Seconds to wait for the last member to be gone.")] = 0,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Have an empty group read a topic again from its beginning. What it has handled is answered as duplicate."""
    site, consumer = _run(_grouped(_sites(context), group))
    if topic not in consumer.topics:
        _end(f"{group} does not read {topic}; it reads {', '.join(consumer.topics)}")

    async def work() -> int:
        deadline = asyncio.get_running_loop().time() + wait
        while True:
            try:
                return await groups.rewind(kafka, group, topic)
            except groups.Occupied:
                if asyncio.get_running_loop().time() >= deadline:
                    raise
                await asyncio.sleep(1)

    kafka = site.settings.kafka()
    try:
        standing = _run(groups.stands(kafka, group, [topic]))
        if not standing.empty and not wait:
            raise groups.Occupied(standing)
        _agree([f"set {group} to the beginning of {topic}: {standing.records[topic]} records are read again"], yes)
        partitions = _run(work())
    except groups.Occupied as error:
        members = ", ".join(error.standing.members)
        _end(
            f"{group} has members ({members}); Kafka sets the offsets of an empty group only. Nothing was changed.\n"
            f"Either stop every worker of {site.name} and run this again with --wait 60 (who has left is waited for "
            "30 s),\n"
            f"or let one worker do it as a member: stop it, and start it once as `worker --rewind {topic}`."
        )
    if as_json:
        _json({"group": group, "topic": topic, "partitions": partitions, "records": standing.records[topic]})
    else:
        _say(f"{group} begins {topic} again on {partitions} partitions when its workers start")


async def _grouped(there: Sequence[Site], group: str) -> tuple[Site, Consumer]:
    return group_of(there, group)


async def _differences(there: Sequence[Site]) -> list[tuple[Site, Difference]]:
    found = await asyncio.gather(*(site.differences() for site in there))
    return [(site, difference) for site, mine in zip(there, found, strict=True) for difference in mine]


def _differing(there: Sequence[Site]) -> list[tuple[Site, Difference]]:
    if blind := [site.name for site in there if not site.has_admin]:
        _end(f"{', '.join(blind)}: only the broker's administrator sees this: set KAFKA_ADMIN_USERNAME, _PASSWORD")

    return _run(_differences(there))


@topics.command("diff")
def topics_diff(context: typer.Context, as_json: Json = False) -> None:
    """What on the broker is not as declared. Ends with 1 when something is not."""
    found = _differing(_sites(context))
    rows = [{"service": s.name, "kind": d.kind, "name": d.name, "told": d.told, "do": d.do} for s, d in found]
    if as_json:
        _json(rows)
    elif rows:
        _table(("service", "kind", "name", "what is seen", "what to do"), (tuple(row.values()) for row in rows))
    else:
        _say("topics and rights are as declared")
    raise typer.Exit(int(bool(rows)))


@topics.command("apply")
def topics_apply(context: typer.Context, yes: Yes = False, as_json: Json = False) -> None:
    """Create what is missing and set what is set otherwise; takes nothing away, changes no number of partitions."""
    there = _sites(context)
    found = _differing(there)
    mended = [(site, difference) for site, difference in found if difference.cure is not None]
    left = found
    if mended:
        _agree([f"mend {difference}" for _, difference in mended], yes)

        async def work() -> list[tuple[Site, Difference]]:
            for site in there:
                await site.mend([difference for whose, difference in mended if whose is site])
            deadline = asyncio.get_running_loop().time() + 10
            while True:  # the broker knows a moment later what its controller has done
                found = await _differences(there)
                if all(d.cure is None for _, d in found) or asyncio.get_running_loop().time() > deadline:
                    return found
                await asyncio.sleep(0.2)

        left = _run(work())
    if as_json:
        _json({"mended": [str(d) for _, d in mended], "left": [str(d) for _, d in left]})
    else:
        _say(f"{len(mended)} mended, {len(left)} left")
        for _, difference in left:
            _say(f"left: {difference}; {difference.do}")
    raise typer.Exit(int(bool(left)))


@timers.command("retry")
def timers_retry(context: typer.Context, id: str, yes: Yes = False, as_json: Json = False) -> None:
    """Let a timer that gave up be tried again, as if it were due for the first time."""

    async def look(site: Site, database: Database) -> Timer | None:
        return await database.get(Timer, id)

    async def again(site: Site, database: Database) -> bool:
        async def work(tx: Transaction) -> bool:
            timer = await tx.load(Timer, id)
            if timer is None or not timer.failed:
                return False
            tx.save(timer.but(failures=0, failed=False))
            return True

        return await database.transaction(work)

    there = _sites(context)
    known = zip(there, _run(_each(there, look)), strict=True)
    site, timer = next(((s, t) for s, t in known if t is not None and t.failed), (None, None))
    if site is None or timer is None:
        _end(f"{id}: no timer of this id gave up")
    _agree([f"let {site.name} try {timer.kind} {id} again, due since {timer.due_at.isoformat()}"], yes)
    (done,) = _run(_each([site], again))
    if as_json:
        _json({"id": id, "again": done})
    else:
        _say("it fires with the next round" if done else "nothing to do: it no longer waits")


# --- frame -------------------------------------------------------------------------------------------------------


def _sites(context: typer.Context, *, sound: bool = True) -> list[Site]:
    """The services that were meant; where it matters, only such as could be reached by their settings."""
    environments, names = context.obj
    try:
        there = sites(environments, names)
    except Misplaced as error:
        _end(str(error))
    if sound and (wrong := [site for site in there if site.wrong]):
        _end(f"{wrong[0].name}: {wrong[0].wrong}")
    clocks = [site.settings.clock_source for site in there if not site.wrong]
    clock.use(clocks[0] if clocks else None)
    return there


async def _each(there: Sequence[Site], look: Any) -> list[Any]:
    """Do it for every service, each on its own database, one after the other."""
    results = []
    for site in there:
        database = site.database()
        try:
            results.append(await look(site, database))
        finally:
            await database.close()
    return results


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run it. A neighbour that is away is one line."""
    try:
        return asyncio.run(work)
    except Misplaced as error:
        _end(str(error))
    except (Unavailable, PyMongoError) as error:
        _end(f"the database is away or refuses ({type(error).__name__}): doctor tells which and why")
    except KafkaException as error:
        _end(f"the broker is away or refuses ({error.args[0].name()}): doctor tells why")
    except (KafkaError, OSError, TimeoutError) as error:
        _end(f"the broker is away or refuses ({type(error).__name__}): doctor tells why")


def _agree(changes: Iterable[str], yes: bool) -> None:
    """Say what is about to be changed, and ask."""
    for change in changes:
        typer.echo(f"about to {change}", err=True)
    if not yes:
        typer.confirm("Go on?", abort=True, err=True)


def _end(told: str) -> NoReturn:
    typer.echo(told, err=True)
    raise typer.Exit(1)


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 200, soft_wrap=False, highlight=False)


def _say(line: str) -> None:
    _console().print(line, markup=False, soft_wrap=True)


def _json(told: Any) -> None:
    print(json.dumps(told, indent=1))


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    _console().print(table)


def _pairs(ids: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in ids.items())


def main() -> None:
    # What libraries and the kernel log belongs to processes; here everything that matters is said in the answer.
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        app()
    except KeyboardInterrupt:
        raise SystemExit(130) from None


# --- saving and putting back -------------------------------------------------------------------------------------


@app.command("backup")
def save(context: typer.Context, folder: Path, database_admin: DatabaseAdmin, as_json: Json = False) -> None:
    """Save all services' databases and topics as of one instant, while they run, into an empty folder."""
    try:
        manifest = _run(backup.save(_sites(context), database_admin.read_text().strip(), folder))
    except backup.Refused as error:
        _end(str(error))
    if as_json:
        _json(manifest)
        return
    documents = sum(told["documents"] for found in manifest["databases"].values() for told in found.values())
    lying = sum(told["documents"] for told in manifest["topics"].values())
    _say(f"saved {documents} documents and {lying} records, as of {manifest['taken_at']}, in {folder}")


@app.command("restore")
def put_back(
    context: typer.Context,
    folder: Path,
    database_admin: DatabaseAdmin,
    mail_again: Annotated[bool, typer.Option(help="Send also what may have been sent after the backup.")] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Put a backup into an empty, prepared installation whose workers do not run yet."""
    there = _sites(context)
    try:
        manifest = backup.read_manifest(folder)
        if found := _run(backup.obstacles(there, manifest)):
            _end("nothing was put back:\n" + "\n".join(found))
        after = "e-mail goes out" if mail_again else "no e-mail goes out until `mail release`"
        _agree([f"put back what was saved at {manifest['taken_at']}; {after}"], yes)
        uri = database_admin.read_text().strip()
        done = backup.put_back(there, uri, folder, manifest, hold_mail=not mail_again)
    except backup.Refused as error:
        _end(str(error))
    except PyMongoError as error:
        _end(f"the database went away or refuses ({type(error).__name__}): empty the installation, begin again")
    if as_json:
        _json(dataclasses.asdict(done))
        return
    _say(f"put back {done.documents} documents and {done.records} records")
    _say(f"of the outbox {done.rows_left} rows are still to be published, {done.rows_published} had been")
    if done.mail_held:
        _say("start the workers; when doctor shows no records to do: mail release")


@mail.command("release")
def mail_release(context: typer.Context, yes: Yes = False) -> None:
    """Let e-mail go out again after a restore. What was held back until now stays so; deliveries list it."""
    there = [site for site in _sites(context) if site.name == "notification"]
    if not there:
        _end("these are not notification's settings")

    async def held(site: Site, database: Database) -> bool:
        return await database.collection("holds").find_one({"_id": "mail"}) is not None

    async def release(site: Site, database: Database) -> None:
        await database.collection("holds").delete_one({"_id": "mail"})

    if _run(_each(there, held)) != [True]:
        _say("e-mail is not held back")
        return
    _agree(["let e-mail go out from now on"], yes)
    _run(_each(there, release))
    _say("e-mail goes out")


if __name__ == "__main__":
    main()
