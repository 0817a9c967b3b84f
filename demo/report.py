"""The report of a play: one page that needs nothing else, in the reader's own light or dark."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from html import escape
from pathlib import Path
from zoneinfo import ZoneInfo

from demo.scenario import Scenario
from demo.summary import Summary
from shared import reference

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --paper: #fbfbf9; --line: #d9dde3;
  --distance: #2f6db3; --classical: #c2571a; --workplace: #7a8f3c; --enrollment: #2f6db3; --scheduling: #c2571a;
  --assessment: #7a4fa3; --notification: #3c8f7c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #9aa5b1; --paper: #14181e; --line: #323a45;
  --distance: #6ea8e6; --classical: #eb8a4f; --workplace: #a9c25c; --enrollment: #6ea8e6; --scheduling: #eb8a4f;
  --assessment: #b48be0; --notification: #63c2ab; } }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2.6rem 0 .4rem; }
p, figcaption, caption { margin: .3rem 0 .8rem; color: var(--soft); text-align: left; }
caption { padding-bottom: .5rem; } details { margin: .4rem 0; } summary { color: var(--soft); cursor: pointer; }
table.numbers th { width: auto; } table.numbers td { font-variant-numeric: tabular-nums; }
figure { margin: 0; overflow-x: auto; }
svg { display: block; width: 100%; min-width: 44rem; height: auto; }
svg text { fill: var(--soft); font: 10px system-ui, sans-serif; }
table { border-collapse: collapse; width: 100%; overflow-wrap: anywhere; }
table.numbers { overflow-wrap: normal; }
th, td { text-align: left; padding: .4rem .6rem .4rem 0; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 600; width: min(17rem, 40%); }
ul.key { list-style: none; display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; padding: 0; margin: .5rem 0; }
ul.key span { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px; margin-right: .4rem; }
ol.line { list-style: none; margin: 0; padding: 0; border-left: 2px solid var(--line); }
ol.line li { padding: .15rem 0 .15rem 1rem; }
ol.line time { color: var(--soft); display: inline-block; min-width: 9.5rem; }
"""
_HALF_A_DAY = 4
_SERVICES = ("enrollment", "scheduling", "assessment", "notification")


def write(scenario: Scenario, summary: Summary, path: Path) -> None:
    """Write the page."""
    zone, cohort = scenario.zone, scenario.cohort
    first, last = cohort.starts_on.value, cohort.ends_on.value
    title = escape(scenario.title.value)
    weeks = ((last - first).days + 1) // 7
    modules = reference.curriculum(cohort.curriculum_version.value).by_id()
    titles = {id: module.title.value for id, module in modules.items()}
    modes = (
        *(("distance", "distance session"), ("classical", "classical session")),
        *(("workplace", "workplace stage"), ("line", "closed weekday")),
    )
    body = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body><main>
<h1>{title}</h1>
<p>{weeks} weeks from {first:%d %B %Y}, played through four services that know each other only by
their events. People and agencies are generated; nobody here is real.</p>
<h2>The {weeks} weeks</h2>
<figure><figcaption>Each square is a day, each column a week. The number is the training hours (JP) that one learning
group has sessions for; a training day without sessions is for self-study.</figcaption>
{_weeks(summary, first, last, zone)}
{_key(modes)}</figure>
<h2>Events per day</h2>
<figure><figcaption>How many facts each service announced, from registration to certificates, by domain
time.</figcaption>
{_events(summary, zone)}
{_key(tuple((name, name) for name in _SERVICES))}
{_events_in_numbers(summary, zone)}</figure>
<h2>One participant's way</h2>
<p>Every fact about one graduate, in the order of time; attendance is counted per week.</p>
{_timeline(summary, zone, titles)}
<h2>What was read back</h2>
{_table("Every line comes from the services, the topics and the mailbox after the play.", summary.lines)}
<h2>What is fact and what is invented</h2>
{_table("The scenario as it was given, each value with where it comes from.", _origins(scenario))}
</main></body></html>"""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(body)


def _table(caption: str, lines: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in lines)
    return f"<table><caption>{escape(caption)}</caption>{rows}</table>"


def _origins(scenario: Scenario) -> list[tuple[str, str]]:
    """Every value of the scenario with its origin; what has none beside it is invented as a whole."""
    cohort = [(name.replace("_", " "), given) for name, given in scenario.cohort]
    agencies = [(f"agencies of kind {group.kind.value}", group.count) for group in scenario.agencies]
    return [
        *((name, f"{given.value} ({given.origin})") for name, given in (*cohort, *agencies)),
        ("names, people, marks", "generated from the seed (invented)"),
        ("staff, rooms, incidents", "invented"),
    ]


def _key(entries: tuple[tuple[str, str], ...]) -> str:
    items = "".join(f'<li><span style="background:var(--{name})"></span>{label}</li>' for name, label in entries)
    return f'<ul class="key">{items}</ul>'


def _weeks(summary: Summary, first: date, last: date, zone: ZoneInfo) -> str:
    hours: dict[date, Counter[str]] = defaultdict(Counter)
    groups = sorted({g for s in summary.sessions for g in s["group_ids"]})
    for session in summary.sessions:
        if groups and groups[0] in session["group_ids"] and not session["cancelled"]:
            hours[datetime.fromisoformat(session["starts_at"]).astimezone(zone).date()][session["mode"]] += session[
                "jp"
            ]
    taught = sorted(hours)
    distance_end = max((d for d in taught if hours[d]["distance"]), default=first)
    classical_start = min((d for d in taught if hours[d]["classical"]), default=last)
    closed = {day for year in {first.year, last.year} for day in reference.holidays("id", year)}
    monday = first - timedelta(days=first.weekday())
    weeks = ((last - monday).days // 7) + 1
    step, left, top = 40, 40, 22
    parts = []
    for week in range(weeks):
        start = monday + timedelta(weeks=week)
        parts.append(f'<text x="{left + week * step + 2}" y="14">{start:%d %b}</text>')
        for weekday in range(7):
            day = start + timedelta(days=weekday)
            if not first <= day <= last:
                continue
            x, y = left + week * step, top + weekday * 24
            mode = next(iter(hours[day]), None) if day in hours else None
            jp = sum(hours[day].values()) if day in hours else 0
            label = f"{day:%A %d %B}: {jp} JP {mode}" if mode else f"{day:%A %d %B}"
            fill, opacity = "none", 1.0
            if mode:
                fill, opacity = f"var(--{mode})", 1.0 if jp > _HALF_A_DAY else 0.35
            elif day in closed and weekday < 5:
                fill, opacity, label = "var(--line)", 1.0, label + ": closed"
            elif distance_end < day < classical_start:
                fill, opacity, label = "var(--workplace)", 0.22, label + ": workplace stage"
            parts.append(
                f'<rect x="{x}" y="{y}" width="35" height="20" rx="3" fill="{fill}" fill-opacity="{opacity:.2f}" '
                f'stroke="var(--line)"><title>{label}</title></rect>'
            )
            if jp:
                ink = "paper" if jp > _HALF_A_DAY else "ink"
                parts.append(f'<text x="{x + 14}" y="{y + 14}" style="fill:var(--{ink});font-weight:600">{jp}</text>')
    names = "".join(f'<text x="4" y="{top + n * 24 + 14}">{name}</text>' for n, name in enumerate(_DAYS))
    width, height = left + weeks * step, top + 7 * 24
    return _svg(width, height, "training hours per day", names + "".join(parts))


def _svg(width: int, height: int, label: str, inner: str) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{inner}</svg>'


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def _per_day(summary: Summary, zone: ZoneInfo) -> dict[date, Counter[str]]:
    per_day: dict[date, Counter[str]] = defaultdict(Counter)
    for event in summary.events:
        service = event.source.removeprefix("/training/").removesuffix("-restricted")
        per_day[event.time.astimezone(zone).date()][service] += 1
    return per_day


def _events_in_numbers(summary: Summary, zone: ZoneInfo) -> str:
    """The same as a table by week, for whoever cannot see the picture."""
    weeks: dict[date, Counter[str]] = defaultdict(Counter)
    for day, counts in _per_day(summary, zone).items():
        weeks[day - timedelta(days=day.weekday())] += counts
    head = "".join(f'<th scope="col">{service}</th>' for service in _SERVICES)
    rows = "".join(
        f'<tr><th scope="row">{monday:%d %B}</th>' + "".join(f"<td>{counts[name]}</td>" for name in _SERVICES) + "</tr>"
        for monday, counts in sorted(weeks.items())
    )
    table = f'<table class="numbers"><tr><th scope="col">week of</th>{head}</tr>{rows}</table>'
    return f"<details><summary>By week, in numbers</summary>{table}</details>"


def _events(summary: Summary, zone: ZoneInfo) -> str:
    per_day = _per_day(summary, zone)
    first, last = min(per_day), max(per_day)
    days = (last - first).days + 1
    tallest = max(sum(counts.values()) for counts in per_day.values())
    width, height, base = 760, 190, 165
    bar = (width - 50) / days
    parts = [f'<line x1="40" y1="{base}" x2="{width}" y2="{base}" stroke="var(--line)"/>']
    for fraction in (0.5, 1.0):
        y = base - 145 * fraction
        parts.append(
            f'<line x1="40" y1="{y:.0f}" x2="{width}" y2="{y:.0f}" stroke="var(--line)" stroke-dasharray="2 4"/>'
        )
        parts.append(f'<text x="4" y="{y + 4:.0f}">{tallest * fraction:.0f}</text>')
    for day, counts in sorted(per_day.items()):
        x, y = 42 + (day - first).days * bar, float(base)
        for service in _SERVICES:
            tall = 145 * counts[service] / tallest
            y -= tall
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(bar - 1, 1.2):.1f}" height="{tall:.1f}" '
                f'fill="var(--{service})">'
                f"<title>{day:%d %B}: {service} {counts[service]}</title></rect>"
            )
    month = first.replace(day=1)
    while month <= last:
        begins = max(0, (month - first).days)
        parts.append(f'<text x="{42 + begins * bar:.0f}" y="{height - 8}">{month:%B}</text>')
        month = (month + timedelta(days=32)).replace(day=1)
    return _svg(width, height, "events per day and service", "".join(parts))


def _timeline(summary: Summary, zone: ZoneInfo, titles: Mapping[str, str]) -> str:
    weeks: Counter[date] = Counter()
    rows: list[tuple[datetime, str]] = []
    for when, type, module_id in summary.facts:
        local = when.astimezone(zone)
        if type.endswith("attendance-recorded.v1"):
            weeks[local.date() - timedelta(days=local.weekday())] += 1
        else:
            rows.append((local, _words(type) + (f": {titles[module_id]}" if module_id in titles else "")))
    for monday, count in weeks.items():
        friday = datetime.combine(monday + timedelta(days=4), datetime.max.time(), zone)
        rows.append((friday, f"attendance recorded in {count} sessions of the week"))
    counted = Counter((when.strftime("%d %b %Y"), what) for when, what in rows)
    shown = dict.fromkeys((when.strftime("%d %b %Y"), what) for when, what in sorted(rows))
    items = "".join(
        f"<li><time>{day}</time> {escape(what)}{f' × {counted[day, what]}' if counted[day, what] > 1 else ''}</li>"
        for day, what in shown
    )
    return f'<ol class="line">{items}</ol>'


def _words(type: str) -> str:
    return type.split(".")[-2].replace("-", " ")
