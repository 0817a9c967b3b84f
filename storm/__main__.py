"""`python -m storm`: kill, take away, count. Exit 0 only when nothing was lost, doubled or out of order."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import sys
import tempfile
from collections import Counter
from pathlib import Path

from stack import Missing, NotStarted, Stack
from stack.servers import Servers, servers


def main() -> int:
    parser = argparse.ArgumentParser(prog="storm", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="how often a worker is killed at a named point")
    parser.add_argument(
        "--away", type=float, default=20, metavar="SECONDS", help="how long broker and database are away"
    )
    parser.add_argument("--mongo-uri", help="a MongoDB of yours (transactions are needed); else one of the storm's own")
    parser.add_argument("--kafka-bootstrap", help="a broker of yours; KAFKA_USERNAME, KAFKA_PASSWORD as for a service")
    parser.add_argument(
        "--cohort", action="store_true", help="instead: play a cohort while every process is ended again and again"
    )
    parser.add_argument("--json", action="store_true", help="the report for a machine")
    arguments = parser.parse_args()
    os.environ["STORM_RUN"] = secrets.token_hex(3).translate(str.maketrans("0123456789", "ghijklmnop"))
    with tempfile.TemporaryDirectory(prefix="storm-") as folder:
        try:
            return _cohort(Path(folder)) if arguments.cohort else _run(arguments, Path(folder))
        except (Missing, NotStarted) as error:
            print(f"storm: {error}", file=sys.stderr)
            return 2


def _grouped(found: list[str]) -> list[tuple[tuple[str, str], int]]:
    """The differences by kind: the collection and the fields, how often."""
    return Counter((line.partition(" ")[0], line.rpartition(": ")[2]) for line in found).most_common(40)


def _cohort(folder: Path) -> int:
    from storm.cohort import differences, played, short_scenario

    async def plays() -> int:
        quiet = await played(folder / "quiet", short_scenario(), disturbed=False)
        disturbed = await played(folder / "disturbed", short_scenario(), disturbed=True, seed=1)
        found = [*quiet.summary.failed, *disturbed.summary.failed, *differences(quiet, disturbed)]
        kinds = Counter(name.rpartition(" ")[2] for name in disturbed.ended.elements())
        ended = ", ".join(f"{number} by {kind}" for kind, number in sorted(kinds.items()))
        print(
            f"played in {quiet.seconds:.0f} s undisturbed, in {disturbed.seconds:.0f} s with processes ended: {ended}"
        )
        print(f"each of {len({name.partition(' ')[0] for name in disturbed.ended})} processes, of both kinds or one")
        facts, states = sum(map(len, quiet.ids.values())), sum(map(len, quiet.states.values()))
        print(f"{facts} facts, {states} states and {len(quiet.mails)} mails compared: {len(found)} differ")
        print("\n".join(f"{what} {where}: {n}" for (what, where), n in _grouped(found)))
        return int(bool(found))

    return asyncio.run(plays())


def _run(arguments: argparse.Namespace, folder: Path) -> int:
    os.environ.setdefault("MONGO_TRANSACTION_LIFETIME", "2")  # else each kill bars what it touched for 20 s
    named = {"kafka_bootstrap": arguments.kafka_bootstrap, "mongo_uri": arguments.mongo_uri}
    with servers(Stack(folder / "stack"), **named) as at:
        return asyncio.run(_storm(arguments, folder, at))


async def _storm(arguments: argparse.Namespace, folder: Path, at: Servers) -> int:
    from storm.run import Storm

    storm = Storm(at.kafka, at.mongo_uri, folder, stack=at.stack)
    storm.outage_seconds = arguments.away
    await storm.prepare()
    try:
        await storm.rage(arguments.kills)
    finally:
        await storm.clear()
    report = storm.report
    if arguments.json:
        print(json.dumps(report.told()))
    else:
        _show(report)
    return int(bool(report.failed or report.toothless))


def _show(report: object) -> None:
    from rich.console import Console
    from rich.table import Table

    from storm.run import _ALL, Report

    assert isinstance(report, Report)
    table = Table(title="storm", show_header=False)
    for point in _ALL:
        missed = f" ({report.missed[point]} lives did not come there)" if report.missed[point] else ""
        table.add_row(f"killed at {point}", f"{report.kills[point]}{missed}")
    verdict = report.verdict
    table.add_row("taken away", ", ".join(report.outages) or "nothing")
    table.add_row("backlog reached", f"{report.backlog} documents in an outbox")
    table.add_row("records", f"{verdict.events}, duplicates {verdict.duplicates}")
    table.add_row("lost", str(verdict.lost))
    table.add_row("doubled", str(verdict.doubled))
    table.add_row("out of turn", str(verdict.disordered))
    table.add_row("parked", str(report.parked))
    table.add_row("took", f"{report.seconds:.0f} s")
    Console(width=100).print(table)
    for line in (*report.failed, *report.toothless):
        print(line)


if __name__ == "__main__":
    sys.exit(main())
