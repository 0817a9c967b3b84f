"""`python -m demo play SCENARIO`: empties the stack, plays the scenario on it, reads everything back."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from demo import report
from demo.player import Gateway, NotQuiet, Player, Unexpected
from demo.scenario import Scenario, cast
from demo.story import Story
from demo.summary import Summary, read_back
from demo.topics import Listener, kafka
from stack import Missing, Stack
from stack.processes import NotStarted

WEEKS_BEFORE = 7


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description="Plays a scenario on the embedded stack.")
    commands = parser.add_subparsers(dest="command", required=True)
    play_command = commands.add_parser("play", help="play a scenario on an emptied stack")
    play_command.add_argument("scenario", type=Path)
    play_command.add_argument("--report", type=Path, default=Path("var/demo/report.html"))
    arguments = parser.parse_args()
    console = Console()
    scenario = Scenario.read(arguments.scenario)
    stack = Stack()
    try:
        summary, story = asyncio.run(play(scenario, stack, console))
    except (Missing, NotStarted, NotQuiet, Unexpected) as error:
        console.print(f"[bold red]{type(error).__name__}[/]: {error}")
        return 1
    finally:
        if not os.environ.get("KEEP"):
            stack.down()
    report.write(story, summary, arguments.report)
    table = Table(title=f"{scenario.title.value}: what was read back", show_header=False)
    for name, value in summary.lines:
        table.add_row(name, value)
    console.print(table)
    console.print(f"report: {arguments.report}")
    for failure in summary.failed:
        console.print(f"[bold red]does not hold[/]: {failure}")
    if os.environ.get("KEEP"):
        console.print(f"the stack is still up: {stack.home / 'endpoints.json'}")
    return 1 if summary.failed else 0


async def play(scenario: Scenario, stack: Stack, console: Console) -> tuple[Summary, Story]:
    """Empty the stack, start it on the virtual clock, play, and read back."""
    began = time.monotonic()
    people = cast(scenario)
    story_begins = Story(scenario, people, None, None, None).begins_at  # type: ignore[arg-type]
    with console.status("starting broker, database, gateway and four services"):
        await asyncio.to_thread(stack.reset_data)
        await asyncio.to_thread(stack.up, virtual_clock=story_begins)
    console.print(f"the stack is up after {time.monotonic() - began:.0f} s")
    endpoints = stack.endpoints
    listeners: list[Listener] = []

    async def provision(codes: list[str]) -> None:
        arguments = [argument for code in codes for argument in ("--agency", code)]
        await asyncio.to_thread(stack.prepare, "notification", *arguments)
        for code in codes:
            listeners.append(Listener(code, kafka(stack.endpoints, stack.credentials(f"kafka-agency-{code}"))))
            listeners[-1].start()

    async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=64)) as http:
        gateway = Gateway(endpoints["gateway"], endpoints["issuer"], stack.credentials("client-scenario"), http)
        internal = {name: addresses["internal"] for name, addresses in endpoints["services"].items()}
        player = Player(Path(endpoints["clock"]), internal, http)
        player.now = story_begins
        began = time.monotonic()
        try:
            with Progress(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[day]}"), TimeElapsedColumn(),
                console=console, transient=True,
            ) as progress:  # fmt: skip
                story = Story(scenario, people, gateway, player, _teller(scenario, progress, console))
                await story.play(provision)
            seconds = time.monotonic() - began
            await player.quiet()
            admin = kafka(endpoints, stack.credentials("kafka-admin"))
            await _all_heard(listeners)
            summary = await read_back(story, endpoints, admin, listeners, http)
        finally:
            for listener in listeners:
                await listener.stop()
    summary.say("played in", f"{seconds:.0f} s, {gateway.calls} calls")
    summary.say("stops of the clock", player.told_stops())
    return summary, story


async def _all_heard(listeners: list[Listener]) -> None:
    """Let the agencies hear what has just been sent: until nothing new came for half a second."""
    before = -1
    while (now := sum(len(listener.heard) for listener in listeners)) != before:
        before = now
        await asyncio.sleep(0.5)


def _teller(scenario: Scenario, progress: Progress, console: Console) -> Callable[[datetime, list[str]], None]:
    """Says what happens, once per step, and moves the bar with the weeks."""
    start = scenario.cohort.starts_on.value
    weeks = WEEKS_BEFORE + 17
    task = progress.add_task("week", total=weeks, day="")
    said: set[str] = set()

    def told(at: datetime, words: list[str]) -> None:
        week = (at.date() - start).days // 7 + 1
        progress.update(task, completed=min(weeks, week + WEEKS_BEFORE), day=f"{at:%a %d %b %Y}")
        fresh = [w for w in dict.fromkeys(words) if not w.startswith("attendance")]
        several = len(fresh) > 3
        for line in [f"{fresh[0]} … and {len(fresh) - 1} more"] if several else fresh:
            if line not in said:
                said.add(line)
                label = f"week {week:2}" if week > 0 else "before "
                progress.console.print(f"[dim]{at:%d %b}[/] {label}  {line}")

    return told


if __name__ == "__main__":
    sys.exit(main())
