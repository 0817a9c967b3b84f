"""A cohort played while every process of its stack is ended again and again; it ends as an undisturbed play does."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pymongo import AsyncMongoClient

from demo.place import Embedded
from demo.play import play
from demo.player import QUIET_SECONDS
from demo.scenario import Scenario
from demo.summary import Summary
from stack import PROJECT, SERVICES, Stack

FEW = {"ministry": 3, "lpnk": 3, "ltn": 1, "province": 1}
PATIENCE_SECONDS = 90.0
_OF_THE_KERNEL = {"outbox", "inbox", "leases", "timers", "blocks", "idempotency"}
_OF_THIS_RUN = {"version", "pos", "guard", "revision", "correlationid", "attempts", "not_before", "kept_until"}
"""How often something was tried, by which request, and when by the machine's clock; what became of it is elsewhere."""
_OF_THE_INSTALLATION = {"enrollment.person_numbers"}
_SEALED = {"sealed"}
_SETS = {"done", "agency_ids"}
"""Named or encrypted by each installation's own keys: two stacks never have them alike. `_SETS` are in no order."""


def short_scenario() -> Scenario:
    """The cohort of the demo with few agencies; its incidents fall on those that are left."""
    given: dict[str, Any] = yaml.safe_load((PROJECT / "scenarios" / "pkp-2022-iii.yaml").read_text())
    for group in given["agencies"]:
        group["count"] = {"value": FEW[group["kind"]], "origin": "invented"}
    given["seed"] = "short"
    given["cohort"]["min_size"]["value"] = 5
    given["listeners"] = ["kementerian-01", "pemda-01"]
    given["incidents"] |= {
        "not_eligible": "kementerian-02",
        "ill": {"agency": "kementerian-03", "day": "2022-03-08"},
        "second_attempt": given["incidents"]["second_attempt"] | {"agency": "kementerian-01"},
        "not_graduating": given["incidents"]["not_graduating"] | {"agency": "lpnk-02"},
    }
    return Scenario.model_validate(given)


@dataclass
class Disturber:
    """Ends the processes of a stack one after the other, by SIGTERM or SIGKILL in turn, and starts each again."""

    stack: Stack
    seed: int = 0
    pause: float = 0.5
    rounds: int | None = None
    """How often each; until the play is over, where none is said."""
    ended: Counter[str] = field(default_factory=Counter)

    async def run(self) -> None:
        """Until cancelled or done; what it has ended by then runs again."""
        dice = random.Random(self.seed)
        kill = False
        for _ in itertools.count() if self.rounds is None else range(self.rounds):
            parts = list(self.stack.parts)
            dice.shuffle(parts)
            for part in parts:
                kill = not kill
                await asyncio.shield(asyncio.create_task(self._end(part, kill)))
                await asyncio.sleep(dice.uniform(0, self.pause))

    async def _end(self, part: str, kill: bool) -> None:
        await asyncio.to_thread(self.stack.kill_part if kill else self.stack.stop_part, part)
        await asyncio.to_thread(self.stack.start_part, part)
        self.ended[f"{part} {'SIGKILL' if kill else 'SIGTERM'}"] += 1


@dataclass
class Outcome:
    """What a play left: its facts, its states, its mail; and what it was like."""

    summary: Summary
    ids: dict[str, set[str]]
    """Subject → the ids of its facts."""
    states: dict[str, dict[str, Any]]
    """`service.collection` → id → the state, without what tells how often something was tried."""
    mails: set[tuple[str, str]]
    """Recipient and Message-ID of what arrived; the same message twice counts once."""
    ended: Counter[str]
    seconds: float


@asynccontextmanager
async def played(
    home: Path, scenario: Scenario, *, disturbed: bool, seed: int = 0, rounds: int | None = None
) -> AsyncIterator[tuple[Stack, Outcome]]:
    """Play on a new stack, api and worker apart, disturbed or not. It stands until the caller is done with it."""
    stack = Stack(home, apart=True)
    place = Embedded(stack)
    await asyncio.to_thread(stack.up, virtual_clock=scenario.begins_at)
    try:
        disturber = Disturber(stack, seed, rounds=rounds)
        disturbing = asyncio.create_task(disturber.run()) if disturbed else None

        async def calm() -> None:
            if disturbing is not None:
                disturbing.cancel()
                await asyncio.gather(disturbing, return_exceptions=True)
                await asyncio.to_thread(stack.up)  # whatever it had just ended

        began = time.monotonic()
        try:
            patience = PATIENCE_SECONDS if disturbed else QUIET_SECONDS
            summary = await play(scenario, place, lambda at, words: None, patience=patience, calm=calm)
        finally:
            await calm()
        seconds = time.monotonic() - began
        ids: dict[str, set[str]] = {}
        for event in summary.events:
            ids.setdefault(f"{event.source} {event.subject}", set()).add(event.id)
        mails = {(mail.to, mail.message_id) for mail in await place.mails()}
        yield stack, Outcome(summary, ids, await _states(stack), mails, disturber.ended, seconds)
    finally:
        await asyncio.to_thread(stack.down)


async def _states(stack: Stack) -> dict[str, dict[str, Any]]:
    user, password = stack.credentials("mongo-admin")
    found: dict[str, dict[str, Any]] = {}
    async with AsyncMongoClient[dict[str, Any]](
        stack.endpoints["mongo"]["uri"], username=user, password=password, authSource="admin"
    ) as client:
        for service in SERVICES:
            for name in set(await client[service].list_collection_names()) - _OF_THE_KERNEL:
                if f"{service}.{name}" in _OF_THE_INSTALLATION:
                    continue
                kept = await client[service][name].find({}).to_list(None)
                found[f"{service}.{name}"] = {str(document["_id"]): _comparable(document) for document in kept}
    return found


def _comparable(document: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in document.items() if name not in _OF_THIS_RUN | _SEALED}
    for name in _SETS & kept.keys():
        kept[name] = sorted(kept[name])
    if "records" in kept:  # as bytes, with the machine's time in them: what they say is compared as facts
        kept["records"] = len(kept["records"])
    return kept


def differences(quiet: Outcome, disturbed: Outcome) -> list[str]:
    """In words, everything that one play left and the other did not."""
    found = []
    for subject in sorted(quiet.ids.keys() | disturbed.ids.keys()):
        if quiet.ids.get(subject) != disturbed.ids.get(subject):
            counts = [len(outcome.ids.get(subject, ())) for outcome in (quiet, disturbed)]
            found.append(f"facts of {subject}: {counts[0]} and {counts[1]}")
    for name in sorted(quiet.states.keys() | disturbed.states.keys()):
        one, other = quiet.states.get(name, {}), disturbed.states.get(name, {})
        for id in sorted(one.keys() | other.keys()):
            before, after = one.get(id, {}), other.get(id, {})
            fields = sorted(k for k in {*before, *after} if before.get(k) != after.get(k))
            if fields:
                found.append(f"{name} {id}: {', '.join(fields)}")
    for recipient, message in sorted(quiet.mails ^ disturbed.mails):
        found.append(f"mail {message} to {recipient}")
    return found
