"""`python -m benchmarks [NAME …]`: measure beside the floors, print the table. Exit 0 when every must is met."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import logging
import os
import secrets
import signal
import sys
import tempfile
from pathlib import Path

from stack import Missing, NotStarted, Stack
from stack.servers import Servers, servers

# Memory before anything has been written; the race after all else on the same server, as its floor leaves a thousand
# transactions that the embedded server does not get over.
NAMES = ("memory", "relay", "inbox", "command", "latency", "growth", "race", "connector")


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(NAMES)}; by default all")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table between the marks of this file")
    parser.add_argument("--tiny", action="store_true", help="only to see that everything runs")
    parser.add_argument("--mongo-uri", help="a MongoDB of yours (transactions are needed); else one of the run's own")
    parser.add_argument("--mongo-name", default="a MongoDB of yours", help="what the table says about it")
    parser.add_argument("--kafka-bootstrap", help="a broker of yours; KAFKA_USERNAME, KAFKA_PASSWORD as for a service")
    arguments = parser.parse_args()
    if unknown := set(arguments.names).difference(NAMES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended from outside, it ends its servers, too
    os.environ["BENCH_RUN"] = secrets.token_hex(3).translate(str.maketrans("0123456789", "ghijklmnop"))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        try:
            return _run(arguments, Path(folder))
        except (Missing, NotStarted) as error:
            print(f"benchmarks: {error}", file=sys.stderr)
            return 2


def _run(arguments: argparse.Namespace, folder: Path) -> int:
    named = {"kafka_bootstrap": arguments.kafka_bootstrap, "mongo_uri": arguments.mongo_uri}
    with servers(Stack(folder / "stack", apart=True), **named) as at:
        return asyncio.run(_measure(arguments, folder, at))


async def _measure(arguments: argparse.Namespace, folder: Path, at: Servers) -> int:
    from rich.console import Console
    from rich.table import Table

    from benchmarks.figures import HEADINGS, Figure, calibration, machine, markdown, write
    from benchmarks.site import TINY, Site, Size
    from shared import logs

    server = arguments.mongo_name if arguments.mongo_uri else "the embedded server of MongoDB's protocol (secantusdb)"
    where = f"{machine()}; on {server}"
    logs.setup(service="bench", role="bench", version="0")
    logging.disable(logging.ERROR)  # what topics and groups say until they have settled
    site = Site(at.kafka, at.mongo_uri, folder, TINY if arguments.tiny else Size(), at.stack)
    console = Console(stderr=True, width=160)
    figures: list[Figure] = []
    calibrated = [calibration()]
    try:
        for name in arguments.names or (NAMES[:-1] if arguments.tiny else NAMES):
            console.print(f"{name} …", style="dim")
            measured = await importlib.import_module(f"benchmarks.{name}").measure(site)
            for figure in measured:
                console.print("   " + "  ".join(figure.cells()))
            figures += measured
            calibrated.append(calibration())
    finally:
        await site.clear()
    table = Table(*HEADINGS, title=where)
    for figure in figures:
        table.add_row(*figure.cells())
    Console(width=160).print(table)
    if arguments.write:
        write(arguments.write, markdown(figures, where, calibrated))
    return int(not arguments.tiny and not all(figure.met for figure in figures))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
