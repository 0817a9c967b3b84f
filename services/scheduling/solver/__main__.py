"""`python -m services.scheduling.solver`: the timetabling engine by hand, on files and on made-up cohorts."""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, pstdev
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import TextColumn, TimeElapsedColumn
from rich.table import Table

from services.scheduling.solver import bench as benchmark
from services.scheduling.solver import cbctt, explain, files, generator, repair
from services.scheduling.solver.anneal import Impossible
from services.scheduling.solver.generator import Disruption, disrupted
from services.scheduling.solver.picture import week_grid
from services.scheduling.solver.prechecks import shortages
from services.scheduling.solver.problem import Plan, Problem, Season
from services.scheduling.solver.search import Progress, Solved, solve

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Seconds = Annotated[float, typer.Option(min=0.1, help="How long to search.")]
Seeds = Annotated[int, typer.Option(min=1, max=64, help="Searches, one on each core.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON on standard output.")]
Plot = Annotated[Path | None, typer.Option(help="An SVG of one group's, trainer's or room's weeks.")]
Of = Annotated[str, typer.Option(help="Of whom the picture is; the first group when nothing is said.")]


@app.command("solve")
def solve_file(
    file: Path,
    seconds: Seconds = 60,
    seeds: Seeds = 2,
    seed: Annotated[int, typer.Option(help="The first of the seeds.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="So many tries with each seed, in the place of a time.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the solution goes.")] = None,
    plot: Plot = None,
    of: Of = "",
    as_json: AsJson = False,
) -> None:
    """Solve a `.ctt` or `.ectt` file of the public benchmark, or a problem in `.json`."""
    instance = _instance(file) if file.suffix != ".json" else None
    season = Season(instance.problem) if instance is not None else _season(file)
    name = instance.name if instance is not None else file.stem
    solved = _solved(name, season.problem, None if steps else seconds, steps, range(seed, seed + seeds))
    if out is not None and instance is not None:
        out.write_text(instance.solution(solved.plan))
    elif out is not None:
        files.write_plan(out, solved.plan)
    _draw(plot, of, season.problem, solved.plan)
    _tell(name, season.problem, solved, as_json)


@app.command("bench")
def bench(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False)],
    seconds: Seconds = 60,
    seeds: Seeds = 2,
    seed: Annotated[int, typer.Option(help="The first of the seeds.")] = 0,
    out: Annotated[Path | None, typer.Option(help="A folder for the solutions.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only these instances.")] = None,
    peer: Annotated[
        str | None, typer.Option(help="Another program's command, with {file} and {out}, shown beside ours.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Solve every instance of a folder and tell the gap to the best known; every solution is checked twice."""
    found: list[benchmark.Row] = []
    console = Console(stderr=True)
    try:
        with console.status("compiling") as status:
            for row in benchmark.rows(
                folder,
                seconds=seconds,
                seeds=seeds,
                first=seed,
                out=out,
                only=only or (),
                peer=peer,
                told=status.update,
            ):
                found.append(row)
                console.print(f"{row.instance}: {', '.join(map(str, row.ours))}", highlight=False)
    except (cbctt.Malformed, benchmark.Disagrees) as error:
        _end(str(error))
    if as_json:
        print(benchmark.as_json(found))
        return
    titles = (
        "instance",
        "best known",
        "ours",
        "gap",
        "violations",
        "first without clash",
        "moves/s",
        "validated",
        "peer",
    )
    table = Table(*titles)
    for row in found:
        gap = "" if not row.best_known else f"{row.best / row.best_known - 1:+.0%}"
        first = "-" if row.clash_free_after is None else f"{row.clash_free_after:.1f} s"
        known, other = ("" if n is None else str(n) for n in (row.best_known, row.peer))
        ours, speed = ", ".join(map(str, row.ours)), f"{row.moves_per_second / 1e6:.1f} M"
        table.add_row(
            row.instance, known, ours, gap, str(row.violations), first, speed, "yes" if row.validated else "no", other
        )
    Console(width=140).print(table)
    for name, value in benchmark.sums(found).items():
        print(f"{name}: {value:+.1%}" if name.startswith("gap") else f"{name}: {value:.0f}")


@app.command("ablation")
def ablation(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False)],
    seconds: Seconds = 10,
    seeds: Seeds = 2,
) -> None:
    """What each kind of move and the range of cooling are worth: on eight instances of a folder, and on 40 cohorts."""
    console = Console(stderr=True)
    with console.status("compiling") as status:
        print(f"excess over the best known, summed over {', '.join(benchmark.TUNED_ON)}; {seconds:g} s, {seeds} seeds")
        for name, excess in benchmark.ablation(folder, seconds, seeds, status.update):
            print(f"{name:34} {excess:7.1f}", flush=True)
        problem = generator.cohorts(generator.Size(), 1)
        print("40 cohorts: clashes, cost, idle, further trainers, further rooms, seconds to the first without a clash")
        for name, solved in benchmark.ablation_of_cohorts(problem, seconds, seeds, status.update):
            first = "-" if solved.clash_free_after is None else f"{solved.clash_free_after:.2f}"
            rules = [solved.by_rule[rule] for rule in ("S1", "S4", "S5")]
            print(f"{name:34} {len(solved.violations):4} {solved.cost:7} {rules} {first}", flush=True)


@app.command("cohorts")
def cohorts(
    cohorts: Annotated[int, typer.Option(min=1, max=1000)] = 40,
    trainers: Annotated[int, typer.Option(min=8)] = 50,
    virtual_rooms: Annotated[int, typer.Option(min=1)] = 10,
    physical_rooms: Annotated[int, typer.Option(min=1)] = 10,
    weeks: Annotated[int, typer.Option(min=2, help="Over how many weeks the cohorts begin.")] = 16,
    instance: Annotated[int, typer.Option(help="Seed of the made-up problem.")] = 1,
    seconds: Seconds = 60,
    seeds: Seeds = 2,
    save: Annotated[Path | None, typer.Option(help="Where the problem goes, as JSON.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the plan goes, as JSON.")] = None,
    plot: Plot = None,
    of: Of = "",
    as_json: AsJson = False,
) -> None:
    """Make up cohorts of 60 sessions each, and place them."""
    size = generator.Size(cohorts, trainers, virtual_rooms, physical_rooms, weeks)
    problem = generator.cohorts(size, instance)
    if save is not None:
        files.write(save, Season(problem))
    solved = _solved(f"{cohorts} cohorts", problem, seconds, None, range(seeds))
    if out is not None:
        files.write_plan(out, solved.plan)
    _draw(plot, of, problem, solved.plan)
    _tell(f"{cohorts} cohorts, instance {instance}", problem, solved, as_json)


@app.command("replan")
def replan(
    file: Annotated[Path, typer.Argument(help="The problem as it is now, or as it was with --disruption.")],
    plan: Annotated[Path, typer.Argument(help="The published plan.")],
    disruption: Annotated[
        Disruption | None, typer.Option(help="The busiest trainer away, room closed, or day a holiday, made up.")
    ] = None,
    frozen_before: Annotated[
        int, typer.Option(min=0, help="What is published for an earlier day is a fact, and stays.")
    ] = 0,
    seconds: Seconds = 15,
    offers: Annotated[bool, typer.Option(help="Also plans with more changes and better quality.")] = True,
    out: Annotated[Path | None, typer.Option(help="Where the plan with the fewest changes goes, as JSON.")] = None,
    as_json: AsJson = False,
) -> None:
    """Repair a published plan with as few changes as can be, and offer alternatives; replaces nothing."""
    season = _season(file)
    try:
        published = files.read_plan(plan, season.problem)
    except files.Malformed as error:
        _end(str(error))
    problem = season.problem if disruption is None else disrupted(season.problem, published, disruption)
    if frozen_before:
        problem = repair.frozen(problem, published, frozen_before)
    try:
        if offers:
            found = repair.alternatives(problem, published, seconds=seconds)
        else:
            found = [repair.repair(problem, published, seconds=seconds)]
    except repair.NotRepaired as error:
        for short in shortages(problem):
            print(short, file=sys.stderr)
        _end(f"not repaired: {error}")
    if out is not None:
        files.write_plan(out, found[0].plan)
    told = [_offer(Season(problem, season.slot_names), published, one) for one in found]
    if as_json:
        print(json.dumps(told, indent=1))
        return
    for number, one in enumerate(told, 1):
        changes = one.pop("changes")
        print(f"plan {number}: " + ", ".join(f"{what} {value}" for what, value in one.items()))
        for change in changes:
            print(f"    {change}")


def _offer(season: Season, published: Plan, offer: repair.Repaired) -> dict[str, Any]:
    changes = repair.difference(season.problem, published, offer.plan)
    seen = repair.touched(season.problem, changes)

    def told(change: repair.Change) -> str:
        pairs = (
            (season.named(change.before.start), season.named(change.after.start)),
            (change.before.trainer, change.after.trainer),
            (change.before.room, change.after.room),
        )
        return f"{change.event.id}: " + "; ".join(f"{was} -> {now}" for was, now in pairs if was != now)

    return {
        "broken": len(offer.broken),
        "changed": len(offer.changed),
        "fewest shown": offer.minimal,
        "cost": offer.cost,
        "by rule": dict(offer.by_rule),
        "how": offer.how,
        "without a clash after": round(offer.clash_free_after, 2),
        "seconds": round(offer.seconds, 2),
        **{f"{what} touched": dict(sorted(counted.items())) for what, counted in seen.items()},
        "changes": [told(change) for change in changes],
    }


@app.command("explain")
def explain_file(
    file: Path,
    seconds: Seconds = 20,
    closed: Annotated[
        list[int] | None, typer.Option(help="Slots on which no group may be there, as if they had become holidays.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Why a problem has no plan: what is short, and the smallest set of rules that clash. Exit 1 when one was found."""
    season = Season(_instance(file).problem) if file.suffix != ".json" else _season(file)
    problem = season.problem
    if closed:
        groups = {group for event in problem.events for group in event.groups}
        busy = {group: problem.group_busy.get(group, frozenset()) | frozenset(closed) for group in sorted(groups)}
        problem = replace(problem, group_busy=busy)
    reason = explain.explain(problem, seconds=seconds)
    words = [rule.words(season.named) for rule in reason.rules]
    if not (words or reason.shortages or reason.feasible) and not solve(problem, seconds=seconds).violations:
        reason = replace(reason, feasible=True)
    if as_json:
        told = {"clash": words, "smallest": reason.smallest, "short": [str(one) for one in reason.shortages]}
        print(json.dumps(told | {"feasible": reason.feasible}))
    else:
        for short in reason.shortages:
            print(f"short: {short}")
        if words:
            print("these cannot all be kept" + (", and no fewer clash:" if reason.smallest else ":"))
            print("\n".join(f"  - {one}" for one in words))
        elif reason.feasible:
            print("there is a plan")
        elif not reason.shortages:
            print("no reason was found in the time; that promises no plan")
    raise typer.Exit(int(bool(words or reason.shortages)))


def quality(problem: Problem, plan: Plan) -> dict[str, Any]:
    """What planners ask of cohorts' timetables: idle JP, modules with one trainer, trainers' loads, rooms changed."""
    led: dict[tuple[str, tuple[str, ...]], set[str | None]] = {}
    housed: dict[tuple[str, tuple[str, ...]], set[str | None]] = {}
    used: dict[tuple[str, int], set[int]] = {}
    load: Counter[str] = Counter(trainer for event in problem.events for trainer in event.trainers)
    load = Counter(dict.fromkeys(load, 0))
    for event in problem.events:
        where = plan[event.id]
        led.setdefault((event.cls, event.groups), set()).add(where.trainer)
        housed.setdefault((event.cls, event.groups), set()).add(where.room)
        day, slot = divmod(where.start, problem.slots_per_day)
        for group in event.groups:
            used.setdefault((group, day), set()).update(range(slot, slot + event.duration))
        if where.trainer is not None:
            load[where.trainer] += event.duration
    loads = list(load.values())
    return {
        "idle JP": sum(max(slots) + 1 - min(slots) - len(slots) for slots in used.values()),
        "modules with one trainer": sum(len(names) == 1 for names in led.values()) / max(1, len(led)),
        "sd of trainers' loads": pstdev(loads) / mean(loads) if loads and mean(loads) else 0.0,
        "further rooms": sum(len(names) - 1 for names in housed.values()) / max(1, len(housed)),
    }


class _watched:
    """Shows how far a search is, on standard error, where that is a terminal; ends it when interrupted."""

    def __init__(self, name: str) -> None:
        columns = (TextColumn("{task.description}"), TextColumn("{task.fields[told]}"), TimeElapsedColumn())
        self._bar = Bar(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
        self._task = self._bar.add_task(name, total=None, told="")
        self._interrupted = False
        self._said = sys.stderr.isatty()
        self._before: Any = None

    def __enter__(self) -> Callable[[Progress], bool]:
        self._before = signal.signal(signal.SIGINT, self._interrupt)
        self._bar.start()
        return self._told

    def _interrupt(self, *_: object) -> None:
        self._interrupted = True

    def _told(self, seen: Progress) -> bool:
        if seen.compiling:
            words = "compiling (once on a machine)"
        else:
            rules = " ".join(f"{rule} {cost}" for rule, cost in seen.by_rule.items())
            if not self._said:
                print("searching; Ctrl-C ends it with the best so far", file=sys.stderr, flush=True)
                self._said = True
            words = f"{seen.clashes} clashes, cost {seen.cost // 100} ({rules}), {seen.moves / 1e6:.0f} M moves"
        self._bar.update(self._task, told=words)
        return not self._interrupted

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        signal.signal(signal.SIGINT, self._before)


def _instance(file: Path) -> cbctt.Instance:
    try:
        return cbctt.read(file)
    except cbctt.Malformed as error:
        _end(str(error))


def _season(file: Path) -> Season:
    try:
        return files.read(file)
    except files.Malformed as error:
        _end(str(error))


def _solved(name: str, problem: Problem, seconds: float | None, steps: int | None, seeds: range) -> Solved:
    """Search unless it is seen beforehand that there is no plan; Ctrl-C ends it with the best so far."""
    if short := shortages(problem):
        for one in short:
            print(one, file=sys.stderr)
        _end(f"{name}: there is no plan")
    with _watched(name) as told:
        try:
            return solve(problem, seconds=seconds, steps=steps, seeds=list(seeds), told=told)
        except Impossible as error:
            _end(str(error))


def _tell(name: str, problem: Problem, solved: Solved, as_json: bool) -> None:
    first = solved.clash_free_after
    told: dict[str, Any] = {
        "problem": name,
        "events": len(problem.events),
        "violations": len(solved.violations),
        "cost": solved.cost,
        "by rule": solved.by_rule,
        "seconds": round(solved.seconds, 2),
        "first without clash": None if first is None else round(first, 2),
        "moves per second": round(solved.moves / max(0.001, solved.seconds)),
        "seed": solved.seed,
    }
    if any(event.duration > 1 for event in problem.events):
        told |= {name: round(value, 4) for name, value in quality(problem, solved.plan).items()}
    if as_json:
        print(json.dumps(told, indent=1))
    else:
        for what, value in told.items():
            print(f"{what:26} {value}")
    raise typer.Exit(int(bool(solved.violations)))


def _draw(plot: Path | None, of: str, problem: Problem, plan: Plan) -> None:
    if plot is not None:
        names = [name for event in problem.events for name in event.groups] or [""]
        try:
            plot.write_text(week_grid(problem, plan, of or names[0]))
        except KeyError:
            _end(f"{of}: no group, trainer or room of this problem")


def _end(told: str) -> NoReturn:
    print(told, file=sys.stderr)
    raise typer.Exit(2)


if __name__ == "__main__":
    app()
