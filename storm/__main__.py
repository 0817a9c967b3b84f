"""`python -m storm`: kill, take away, refuse, delay, count. Exit 0 when nothing was lost, doubled or out of turn."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import secrets
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stack import Missing, NotStarted, Stack
from stack.servers import own_servers, servers

if TYPE_CHECKING:
    from storm.run import Report, Storm
    from storm.troubles import Trouble

DISK_MB = 64
LATE_SECONDS = 0.1
_ON_SMALL_DISKS = "STORM_ON_SMALL_DISKS"


def main() -> int:
    parser = argparse.ArgumentParser(prog="storm", description=__doc__)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--kills", type=int, help="how often a worker is killed at a named point (1000)")
    which.add_argument("--minutes", type=float, help="kill for so long, instead of so often")
    which.add_argument(
        "--faults",
        action="store_true",
        help="instead: slow answers, rights taken away, full disks; on servers of the storm's own (Linux)",
    )
    which.add_argument(
        "--cohort", action="store_true", help="instead: play a cohort while every process is ended again and again"
    )
    parser.add_argument(
        "--away", type=float, default=20, metavar="SECONDS", help="how long broker and database are away; a fault lasts"
    )
    parser.add_argument("--rate", type=float, default=60, metavar="N", help="commands a second, all the while (60)")
    parser.add_argument("--mongo-uri", help="a MongoDB of yours (transactions are needed); else one of the storm's own")
    parser.add_argument("--kafka-bootstrap", help="a broker of yours; KAFKA_USERNAME, KAFKA_PASSWORD as for a service")
    parser.add_argument("--json", action="store_true", help="the report for a machine")
    arguments = parser.parse_args()
    if (arguments.faults or arguments.cohort) and (arguments.mongo_uri or arguments.kafka_bootstrap):
        parser.error("servers of yours cannot be slowed down, filled up or ended from here: only --kills or --minutes")
    os.environ["STORM_RUN"] = secrets.token_hex(3).translate(str.maketrans("0123456789", "ghijklmnop"))
    os.environ.setdefault("MONGO_TRANSACTION_LIFETIME", "2")  # else each kill bars what it touched for 20 s
    if arguments.faults and _ON_SMALL_DISKS not in os.environ:
        _again_where_disks_can_be_mounted()
    with tempfile.TemporaryDirectory(prefix="storm-") as folder:
        try:
            if arguments.cohort:
                return _cohort(Path(folder), as_json=arguments.json)
            report = _faults(arguments, Path(folder)) if arguments.faults else _kills(arguments, Path(folder))
        except (Missing, NotStarted) as error:
            print(f"storm: {error}", file=sys.stderr)
            return 2
    if arguments.json:
        print(json.dumps(report.told()))
    else:
        _show(report)
    return int(bool(report.failed or report.toothless))


def _kills(arguments: argparse.Namespace, folder: Path) -> Report:
    """Workers killed at named points; with servers of the storm's own these are away, too."""
    from storm.run import Storm
    from storm.troubles import Away

    named = {"kafka_bootstrap": arguments.kafka_bootstrap, "mongo_uri": arguments.mongo_uri}
    with servers(Stack(folder / "stack"), **named) as at:
        away = [Away(at.stack, part) for part in ("kafka", "mongo")] if at.stack and arguments.away else []
        storm = Storm(at.kafka, at.mongo_uri, folder, calls_per_second=arguments.rate)
        kills, lasting = arguments.kills or 1000, math.inf
        if arguments.minutes:
            kills, lasting = sys.maxsize, arguments.minutes * 60
        return asyncio.run(_raged(storm, kills, away, arguments.away, lasting=lasting, guest=not at.stack))


def _faults(arguments: argparse.Namespace, folder: Path) -> Report:
    """What may befall the neighbours short of their death; each on a disk of its own, behind a proxy."""
    disks = {part: folder / "stack" / "data" / part for part in ("kafka", "mongo")}

    async def run() -> Report:
        from storm.proxy import Proxy
        from storm.run import Storm
        from storm.troubles import Full, Refused, Slow
        from storm.world import CALLER

        async with AsyncExitStack() as open_:
            for disk in disks.values():
                open_.enter_context(_small(disk))
            proxies = {part: await open_.enter_async_context(Proxy()) for part in disks}
            stack = Stack(folder / "stack", behind={part: proxy.port for part, proxy in proxies.items()})
            open_.push_async_callback(asyncio.to_thread, stack.down)
            await asyncio.to_thread(stack.up, list(disks))
            for part, proxy in proxies.items():
                proxy.target = stack.ports[part]
            at = own_servers(stack)
            users = {"caller": stack.credentials("kafka-enrollment"), "listener": stack.credentials("kafka-scheduling")}
            storm = Storm(at.kafka, at.mongo_uri, folder, users, calls_per_second=arguments.rate)
            troubles: list[Trouble] = [
                Slow(tuple(proxies.values()), LATE_SECONDS),
                Refused(at.kafka, storm.rights),
                Full(stack, "kafka", disks["kafka"]),
                Full(stack, "mongo", disks["mongo"], f"storm-{CALLER}"),
            ]
            return await _raged(storm, 0, troubles, arguments.away)

    return asyncio.run(run())


@contextmanager
def _small(disk: Path) -> Iterator[None]:
    """A disk of its own under this folder, of `DISK_MB`."""
    disk.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "small", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=False)


def _again_where_disks_can_be_mounted() -> None:
    """Begin again as root of a mount namespace of our own: what is mounted in it, nobody else sees."""
    inside = ["unshare", "--map-root-user", "--mount"]
    try:
        tried = subprocess.run([*inside, "true"], capture_output=True, text=True, check=False)
        reason = tried.stderr.strip() if tried.returncode else None
    except FileNotFoundError:
        reason = "there is no unshare (util-linux)"
    if reason:
        raise SystemExit(f"storm: no small disk can be mounted here: {reason}")
    os.environ[_ON_SMALL_DISKS] = "1"
    os.execvp(inside[0], [*inside, sys.executable, "-m", "storm", *sys.argv[1:]])


async def _raged(
    storm: Storm,
    kills: int,
    troubles: Sequence[Trouble],
    seconds: float,
    *,
    lasting: float = math.inf,
    guest: bool = False,
) -> Report:
    """Let it rage; on servers of somebody else it leaves nothing behind."""
    storm.trouble_seconds = seconds
    await storm.prepare()
    try:
        await storm.rage(kills, troubles, lasting)
    finally:
        if guest:
            await storm.clear()
    return storm.report


def _show(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    from storm.run import CLOCKS_APART_SECONDS, POINTS

    table = Table(title="storm", show_header=False)
    for point in POINTS if report.asked else ():
        missed = f" ({report.missed[point]} lives did not come there)" if report.missed[point] else ""
        table.add_row(f"killed at {point}", f"{report.kills[point]}{missed}")
    for suffered in report.troubles:
        table.add_row(
            f"{suffered.name}, {suffered.seconds:.0f} s",
            f"{suffered.committed} commands done (median {suffered.median_ms} ms), {suffered.refused} refused; "
            f"{suffered.backlog} documents waited; caught up in {suffered.recovered_seconds} s",
        )
    verdict = report.verdict
    table.add_row("clocks of workers", f"up to {CLOCKS_APART_SECONDS // 60} minutes apart")
    table.add_row("backlog reached", f"{report.backlog} documents in an outbox")
    table.add_row("records", f"{verdict.events}, duplicates {verdict.duplicates}")
    table.add_row("lost", str(verdict.lost))
    table.add_row("doubled", str(verdict.doubled))
    table.add_row("out of turn", str(verdict.disordered))
    table.add_row("parked", str(report.parked))
    table.add_row("took", f"{report.seconds:.0f} s")
    Console(width=140).print(table)
    for line in (*report.failed, *report.toothless):
        print(line)


# --- a cohort ----------------------------------------------------------------------------------------------------


def _grouped(found: list[str]) -> list[tuple[tuple[str, str], int]]:
    """The differences by kind: the collection and the fields, how often."""
    return Counter((line.partition(" ")[0], line.rpartition(": ")[2]) for line in found).most_common(40)


def _cohort(folder: Path, *, as_json: bool) -> int:
    from storm.cohort import differences, played, short_scenario

    async def plays() -> int:
        async with played(folder / "quiet", short_scenario(), disturbed=False) as (_, quiet):
            pass
        async with played(folder / "disturbed", short_scenario(), disturbed=True, seed=1) as (_, disturbed):
            pass
        found = [*quiet.summary.failed, *disturbed.summary.failed, *differences(quiet, disturbed)]
        kinds = Counter(name.rpartition(" ")[2] for name in disturbed.ended.elements())
        told = {
            "seconds_quiet": round(quiet.seconds),
            "seconds_disturbed": round(disturbed.seconds),
            "ended": dict(kinds),
            "processes": len({name.partition(" ")[0] for name in disturbed.ended}),
            "facts": sum(map(len, quiet.ids.values())),
            "states": sum(map(len, quiet.states.values())),
            "mails": len(quiet.mails),
            "differ": found,
        }
        if as_json:
            print(json.dumps(told))
            return int(bool(found))
        ended = ", ".join(f"{number} by {kind}" for kind, number in sorted(kinds.items()))
        print(
            f"played in {quiet.seconds:.0f} s undisturbed, in {disturbed.seconds:.0f} s with processes ended: {ended}"
        )
        print(f"each of {told['processes']} processes, of both kinds or one")
        print(f"{told['facts']} facts, {told['states']} states and {told['mails']} mails: {len(found)} differ")
        print("\n".join(f"{what} {where}: {n}" for (what, where), n in _grouped(found)))
        return int(bool(found))

    return asyncio.run(plays())


if __name__ == "__main__":
    sys.exit(main())
