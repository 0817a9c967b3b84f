"""Problems and plans as JSON files, read with one clear error where they are wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from services.scheduling.solver.problem import Placement, Plan, Problem, Season

MOST_EVENTS = 50_000


class Malformed(Exception):
    """The file, where in it, and what is wrong there; on one line."""


_SEASON, _PLAN = TypeAdapter(Season), TypeAdapter(dict[str, Placement])


def write(file: Path, season: Season) -> None:
    file.write_bytes(_SEASON.dump_json(season))


def write_plan(file: Path, plan: Plan) -> None:
    file.write_bytes(_PLAN.dump_json(dict(plan), indent=1))


def read(file: Path) -> Season:
    """A problem that makes sense. Raises `Malformed`."""
    season: Season = _read(file, _SEASON.validate_json)
    if told := _wrong(season.problem):
        raise Malformed(f"{file}: {told}")
    return season


def read_plan(file: Path, problem: Problem) -> Plan:
    """A plan in which every event of the problem is placed, and nothing else. Raises `Malformed`."""
    plan: dict[str, Placement] = _read(file, _PLAN.validate_json)
    known = {event.id for event in problem.events}
    if unknown := sorted(plan.keys() - known):
        raise Malformed(f"{file}: {unknown[0]} is no event of the problem")
    if missing := sorted(known - plan.keys()):
        raise Malformed(f"{file}: {missing[0]} is not placed ({len(missing)} in all)")
    return plan


def _read(file: Path, parse: Callable[[bytes], Any]) -> Any:
    try:
        return parse(content := file.read_bytes())
    except OSError as error:
        raise Malformed(f"{file}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "json_invalid":
            raise Malformed(f"{file}:{_line(content)}: {first['msg']}") from None
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise Malformed(f"{file}: {where}: {first['msg']}") from None


def _line(content: bytes) -> int:
    """The line at which a text stops being JSON."""
    try:
        json.loads(content)
    except json.JSONDecodeError as error:
        return error.lineno
    except UnicodeDecodeError as error:
        return content[: error.start].count(b"\n") + 1
    return 1


def _wrong(problem: Problem) -> str | None:
    """What is wrong with a problem of the right form."""
    if not 1 <= problem.slots_per_day <= 16:
        return f"slots_per_day is {problem.slots_per_day}, and must be from 1 to 16"
    if problem.days < 1 or problem.days_per_week < 1:
        return "days and days_per_week must be at least 1"
    if len(problem.events) > MOST_EVENTS:
        return f"{len(problem.events)} events, and {MOST_EVENTS} is the most"
    seen: set[str] = set()
    slots = problem.days * problem.slots_per_day
    for event in problem.events:
        if event.id in seen:
            return f"event {event.id} is there twice"
        seen.add(event.id)
        if event.duration < 1 or event.size < 0:
            return f"event {event.id}: duration must be at least 1, and size not negative"
        for start in event.starts:
            if (
                start < 0
                or start + event.duration > slots
                or start % problem.slots_per_day + event.duration > (problem.slots_per_day)
            ):
                return f"event {event.id}: at slot {start} it would not lie within a day"
        if unknown := [room for room in event.rooms if problem.seats and room not in problem.seats]:
            return f"event {event.id}: room {unknown[0]} is unknown"
    classes = {event.cls for event in problem.events}
    for pair in problem.arcs:
        if unknown := [cls for cls in pair if cls not in classes]:
            return f"arc {' -> '.join(pair)}: class {unknown[0]} is unknown"
    for what, named in (("pins", problem.pins), ("before", problem.before), ("change_costs", problem.change_costs)):
        if unknown := [id for id in named if id not in seen]:
            return f"{what}: {unknown[0]} is no event"
    return None
