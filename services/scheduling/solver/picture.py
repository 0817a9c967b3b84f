"""The weeks of a group, a trainer or a room as a picture (SVG): a row for each week, a column for each day."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from services.scheduling.solver.problem import Event, Placement, Plan, Problem

_WIDTH, _SLOT, _HEAD, _GAP = 120, 14, 22, 10


def week_grid(problem: Problem, plan: Plan, name: str) -> str:
    """Everything that the group, trainer or room of this name has. Raises `KeyError` where nobody has that name."""
    own = [(event, plan[event.id]) for event in problem.events if name in _names(event, plan[event.id])]
    if not own and not any(name in (*e.groups, *e.trainers, *e.rooms) for e in problem.events):
        raise KeyError(name)
    days = sorted({where.start // problem.slots_per_day for _, where in own})
    rows = sorted({day // problem.days_per_week for day in days})
    height = problem.slots_per_day * _SLOT + _GAP
    parts = [f'<text x="4" y="15" font-weight="bold">{escape(name)}</text>']
    for row, week in enumerate(rows):
        top = _HEAD + row * (height + _GAP)
        parts.append(f'<text x="4" y="{top + 12}">{week + 1}</text>')
        for column in range(problem.days_per_week):
            left = 30 + column * _WIDTH
            parts.append(_box(left, top, _WIDTH - 4, problem.slots_per_day * _SLOT, "#f4f4f4"))
    colours = {cls: f"hsl({n * 47 % 360} 60% 80%)" for n, cls in enumerate(sorted({event.cls for event, _ in own}))}
    for event, where in own:
        day, slot = divmod(where.start, problem.slots_per_day)
        top = _HEAD + rows.index(day // problem.days_per_week) * (height + _GAP) + slot * _SLOT
        left = 30 + day % problem.days_per_week * _WIDTH
        tall = event.duration * _SLOT - 1
        said = [n for n in (event.cls.removeprefix(f"{name}/"), where.trainer, where.room) if n and n != name]
        parts.append(_box(left, top, _WIDTH - 4, tall, colours[event.cls], ", ".join(said)))
        for line, words in enumerate(said[: event.duration]):
            parts.append(f'<text x="{left + 3}" y="{top + 11 + line * _SLOT}">{escape(words[:20])}</text>')
    size = 40 + problem.days_per_week * _WIDTH, _HEAD + len(rows) * (height + _GAP) + _GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" font-family="sans-serif" '
        f'font-size="10">{"".join(parts)}</svg>\n'
    )


def _names(event: Event, where: Placement) -> Iterable[str | None]:
    return (*event.groups, where.trainer, where.room)


def _box(x: int, y: int, width: int, height: int, fill: str, title: str = "") -> str:
    said = f"<title>{escape(title)}</title>" if title else ""
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}">{said}</rect>'
