"""`python -m demo play SCENARIO`: plays the scenario on an empty stack or installation, reads everything back."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import httpx
import yaml
from aiokafka.errors import KafkaError
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from demo import report
from demo.place import Embedded, Installed, Place
from demo.play import play
from demo.player import QUIET_SECONDS, Gateway, NotQuiet, Unexpected, set_clock_file
from demo.scenario import DAYS_BEFORE, Scenario, cast
from demo.summary import Summary
from demo.topics import NotRead, everything, kafka
from shared import reference
from stack import PROJECT, Missing, NotStarted, Stack

WEEKS_BEFORE = DAYS_BEFORE // 7
FAILURES = (Missing, NotStarted, NotQuiet, NotRead, Unexpected, httpx.HTTPError, KafkaError)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="Plays a scenario: on the embedded stack, or on the installation that INSTALLATION names.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    play_command = commands.add_parser("play", help="play a scenario on an emptied stack")
    play_command.add_argument("scenario", type=Path)
    play_command.add_argument("--report", type=Path, default=Path("var/demo/report.html"))
    play_command.add_argument(
        "--patience",
        type=float,
        default=QUIET_SECONDS,
        metavar="SECONDS",
        help="how long anything may stay on its way; more than %(default)s where parts go away meanwhile",
    )
    token_command = commands.add_parser("token", help="in an installation: a token of one of the scenario's people")
    token_command.add_argument("username", help="organiser-01, coordinator-07, participant-12, …")
    token_command.add_argument("scenario", type=Path, nargs="?", default=PROJECT / "scenarios" / "pkp-2022-iii.yaml")
    arguments = parser.parse_args()
    console = Console()
    try:
        scenario = Scenario.read(arguments.scenario)
    except (OSError, yaml.YAMLError, ValidationError) as error:
        console.print(f"[bold red]{arguments.scenario} cannot be played[/]: {escape(str(error))}", highlight=False)
        return 2
    folder = os.environ.get("INSTALLATION")
    installed = Installed(Path(folder), cast(scenario)) if folder else None
    try:
        if arguments.command == "token":
            print(asyncio.run(_token(installed, arguments.username)))
            return 0
        if installed is not None:
            summary = asyncio.run(_on_an_installation(scenario, installed, console, arguments.patience))
        else:
            summary = _on_the_embedded_stack(scenario, console, arguments.patience)
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    except FAILURES as error:
        console.print(f"[bold red]{type(error).__name__}[/]: {escape(str(error))}", highlight=False)
        return 1
    report.write(scenario, summary, arguments.report)
    table = Table(title=f"{scenario.title.value}: what was read back", show_header=False)
    for name, value in summary.lines:
        table.add_row(name, value)
    console.print(table)
    console.print(f"report: {arguments.report}")
    for failure in summary.failed:
        console.print(f"[bold red]does not hold[/]: {escape(failure)}")
    return 1 if summary.failed else 0


def _on_the_embedded_stack(scenario: Scenario, console: Console, patience: float) -> Summary:
    stack = Stack()
    try:
        return asyncio.run(_on_an_empty_stack(scenario, stack, console, patience))
    except FAILURES:
        crashed = [part for part, state in stack.status().items() if state == "crashed"]
        for part in crashed:
            console.print(f"{part} has crashed:\n{stack.processes.tail(part)}", highlight=False, markup=False)
        raise
    finally:
        if os.environ.get("KEEP"):
            console.print(f"the stack is still up: {stack.home / 'endpoints.json'}")
        else:
            stack.down()


async def _on_an_empty_stack(scenario: Scenario, stack: Stack, console: Console, patience: float) -> Summary:
    """Empty the stack, start it on the virtual clock, play, and read back."""
    began = time.monotonic()
    with console.status("starting broker, database, gateway and four services"):
        await asyncio.to_thread(stack.reset_data)
        await asyncio.to_thread(stack.up, virtual_clock=scenario.begins_at)
    console.print(f"the stack is up after {time.monotonic() - began:.0f} s")
    return await _told(scenario, Embedded(stack), console, patience)


async def _on_an_installation(scenario: Scenario, place: Installed, console: Console, patience: float) -> Summary:
    """Play on an installation that nobody has used yet: the clock, which the play sets, never goes back.

    Raises `NotStarted` for one that has been used.
    """
    broker = kafka(place.endpoints, place.credentials("kafka-admin"))
    if used := sorted(topic for topic, records in (await everything(broker)).items() if records):
        raise NotStarted(f"something lies on {', '.join(used)}: empty the installation first (docker compose down -v)")
    set_clock_file(Path(place.endpoints["clock"]), scenario.begins_at)
    return await _told(scenario, place, console, patience)


async def _told(scenario: Scenario, place: Place, console: Console, patience: float) -> Summary:
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[day]}"), TimeElapsedColumn(),
        console=console, transient=True,
    ) as progress:  # fmt: skip
        narrator = Narrator(scenario, progress)
        summary = await play(scenario, place, narrator, patience=patience)
        narrator.week_over()
    return summary


async def _token(place: Installed | None, username: str) -> str:
    """What somebody of the scenario signs in with at a demonstration's issuer. Raises `NotStarted`."""
    if place is None:
        raise NotStarted("INSTALLATION is not set: for the embedded stack there is python -m stack token")
    person = next((p for p in place.cast.people if p.username == username), None)
    if person is None:
        raise NotStarted(f"nobody in the scenario is called {username}")
    async with httpx.AsyncClient(timeout=30) as http:
        return await Gateway("", place.sign_in, http).token("", person.id)


class Narrator:
    """Says what happens, once per step, and what the sessions of a week came to; moves the bar with the weeks."""

    def __init__(self, scenario: Scenario, progress: Progress) -> None:
        self._first = scenario.cohort.starts_on.value
        self._workplace = reference.curriculum(scenario.cohort.curriculum_version.value).jp_workplace.value
        self._progress = progress
        self._weeks = ((scenario.cohort.ends_on.value - self._first).days + 1) // 7
        self._task = progress.add_task("week", total=WEEKS_BEFORE + self._weeks, day="")
        self._said: set[str] = set()
        self._week = 0
        self._attended: Counter[str] = Counter()

    def __call__(self, at: datetime, words: list[str]) -> None:
        week = (at.date() - self._first).days // 7 + 1
        if week > self._week:
            self.week_over()
            if self._week and week > self._week + 1:
                between = f"weeks {self._week + 1}-{week - 1}"
                self._print(f"{between}  no sessions: change projects at the workplace, {self._workplace} JP declared")
            self._week = week
        self._progress.update(
            self._task, completed=min(WEEKS_BEFORE + self._weeks, week + WEEKS_BEFORE), day=f"{at:%a %d %b %Y}"
        )
        self._attended.update(line for line in words if line.startswith("attendance"))
        fresh = [line for line in dict.fromkeys(words) if not line.startswith("attendance")]
        for line in [f"{fresh[0]} … and {len(fresh) - 1} more"] if len(fresh) > 3 else fresh:
            if line not in self._said:
                self._said.add(line)
                self._print(f"[dim]{at:%d %b}[/] {f'week {week:2}' if week > 0 else 'before '}  {line}")

    def week_over(self) -> None:
        """Tell of the week's sessions."""
        if self._attended:
            told = ", ".join(f"{line} × {count}" for line, count in sorted(self._attended.items()))
            self._print(f"       week {self._week:2}  {told}")
        self._attended.clear()

    def _print(self, line: str) -> None:
        self._progress.console.print(line, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
