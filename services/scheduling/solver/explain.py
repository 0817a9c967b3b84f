"""Why there is no plan: the smallest set of rules that cannot all be kept, in words.

Nobody can be in two places at once and a room holds one event at a time; that is not for anybody to decide. What may be
decided is a rule here: that a class is held in full, that it comes after another, that somebody is away, a day's or a
week's limit, a pin. Each is a literal that OR-Tools CP-SAT may assume, and a set is found that is as small as can be:
it breaks with any one of its rules given up (hitting sets of correction sets, as Ignatiev et al. 2015 find such sets).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Literal

from ortools.sat.python import cp_model

from services.scheduling.solver.prechecks import Shortage, shortages
from services.scheduling.solver.problem import Event, Pin, Problem

Kind = Literal["held", "order", "away", "trainer-day", "trainer-week", "group-day", "pin"]
MOST_EVENTS = 400
"""Above this only parts of a problem are looked at: what is short, then what each group attends."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Something that was decided: what kind, of whom, and where it has a number or a time, which."""

    kind: Kind
    names: tuple[str, ...]
    number: int = 0
    first: int = 0
    last: int = 0

    def words(self, named: Callable[[int], str]) -> str:
        """In words; `named` says when a slot is."""
        who = " and ".join(self.names)
        span = named(self.first) if self.first == self.last else f"{named(self.first)} to {named(self.last)}"
        match self.kind:
            case "held":
                return f"{who}: {self.number} to be held, between {named(self.first)} and {named(self.last)}"
            case "order":
                return f"all of {self.names[0]} ends before any of {self.names[1]} begins"
            case "away":
                return f"{who} is away: {span}"
            case "trainer-day":
                return f"nobody leads more than {self.number} slots a day"
            case "trainer-week":
                return f"nobody leads more than {self.number} slots a week"
            case "group-day":
                return f"no group has more than {self.number} slots on {span}"
            case "pin":
                return f"{who} stays as it is fixed"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why there is no plan. Without rules and shortages none was found, which promises no plan."""

    rules: tuple[Rule, ...] = ()
    smallest: bool = False
    """Whether it was shown that no smaller set of rules clashes."""
    shortages: tuple[Shortage, ...] = ()
    feasible: bool = False
    """Whether the search for a reason found a plan of the whole problem in its place."""
    seconds: float = 0.0


def explain(problem: Problem, *, seconds: float = 20.0) -> Reason:
    """What stands in the way of a plan: shortages, which need no search, and the smallest set of rules that clash."""
    began = time.monotonic()
    short = tuple(shortages(problem))
    feasible = False
    for part in _parts(problem, short):
        left = seconds - (time.monotonic() - began)
        if left <= 0:
            break
        found, plan = _smallest(part, time.monotonic() + left)
        if found is not None:
            return Reason(found[0], found[1], short, False, time.monotonic() - began)
        feasible = plan and part is problem
    return Reason((), False, short, feasible and not short, time.monotonic() - began)


def _parts(problem: Problem, short: Sequence[Shortage]) -> Iterable[Problem]:
    """Smaller problems none of which has a plan unless the whole has one, the most suspect first."""
    suspects = [set(one.name.split("+")) for one in short]
    for names in suspects:
        yield _only(problem, {e.cls for e in problem.events if e.cls in names or names & set(e.groups)})
    if len(problem.events) <= MOST_EVENTS:
        yield problem
        return
    for group in dict.fromkeys(group for event in problem.events for group in event.groups):
        yield _only(problem, {event.cls for event in problem.events if group in event.groups})


def _only(problem: Problem, classes: set[str]) -> Problem:
    return replace(problem, events=tuple(e for e in problem.events if e.cls in classes)[:MOST_EVENTS])


def _smallest(problem: Problem, until: float) -> tuple[tuple[tuple[Rule, ...], bool] | None, bool]:
    """The smallest set of rules that clash, and whether that is sure; or none, and whether a plan was seen."""
    model = _Model(problem)
    core, plan = model.clash(model.rules, until)
    if core is None:
        return None, plan
    best = _shrunk(model, core, until)
    corrections = _singles(model, best, until)
    while time.monotonic() < until:
        few = _hitting(corrections)
        if len(few) >= len(best):
            return (_in_order(best), True), False
        clash, plan = model.clash(few, until)
        if clash is not None:
            return (_in_order(clash), True), False
        if not plan:
            break
        kept = model.most(few, until)
        corrections.append([rule for rule in model.rules if rule not in kept])
    return (_in_order(best), False), False


def _in_order(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    order = ("held", "order", "away", "trainer-day", "trainer-week", "group-day", "pin")
    return tuple(sorted(rules, key=lambda rule: (order.index(rule.kind), rule.first, rule.names)))


def _shrunk(model: _Model, core: list[Rule], until: float) -> list[Rule]:
    """The set without every rule that it clashes without."""
    for rule in core:
        if rule in core and time.monotonic() < until:
            fewer, _ = model.clash([other for other in core if other != rule], until)
            core = core if fewer is None else fewer
    return core


def _singles(model: _Model, core: Sequence[Rule], until: float) -> list[list[Rule]]:
    """Each rule of this set without which all others can be kept: every set that clashes has it."""
    found = []
    for rule in core:
        _, plan = model.clash([other for other in model.rules if other != rule], until)
        if plan:
            found.append([rule])
    return found


def _hitting(corrections: Sequence[Sequence[Rule]]) -> list[Rule]:
    """The fewest rules of which each of these sets has one."""
    model = cp_model.CpModel()
    taken = {rule: model.new_bool_var("") for rule in dict.fromkeys(r for one in corrections for r in one)}
    for one in corrections:
        model.add_bool_or([taken[rule] for rule in one])
    model.minimize(sum(taken.values()))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.solve(model)
    return [rule for rule, literal in taken.items() if solver.boolean_value(literal)]


class _Model:
    """The problem with a literal for each rule; what is not assumed may be broken."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._model = cp_model.CpModel()
        self._literals: dict[Rule, cp_model.IntVar] = {}
        self._starts: dict[str, cp_model.IntVar] = {}
        self._led: dict[str, dict[str, cp_model.IntVar]] = {}
        self._housed: dict[str, dict[str, cp_model.IntVar]] = {}
        self._held = self._classes()
        self._whereabouts()
        self._orders()
        self._absences()
        self._limits()
        self._pins()
        self.rules = list(self._literals)
        self._kept: set[Rule] = set()

    def clash(self, rules: Sequence[Rule], until: float) -> tuple[list[Rule] | None, bool]:
        """Some of these rules that cannot all be kept; or None, and whether that is since they can."""
        self._model.clear_assumptions()
        self._model.clear_objective()
        self._model.add_assumptions([self._literals[rule] for rule in rules])
        solver = self._solver(until)
        status = solver.solve(self._model)
        if status != cp_model.INFEASIBLE:
            if found := status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
                self._remember(solver)
            return None, found
        core = set(solver.sufficient_assumptions_for_infeasibility())
        return [rule for rule in rules if self._literals[rule].index in core] or list(rules), False

    def most(self, rules: Sequence[Rule], until: float) -> set[Rule]:
        """As many rules as are seen to be kept together with these, for which `clash` has just found a plan."""
        self._model.clear_assumptions()
        self._model.add_assumptions([self._literals[rule] for rule in rules])
        self._model.maximize(sum(self._literals.values()))
        solver = self._solver(min(until, time.monotonic() + 2))
        if solver.solve(self._model) in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            self._remember(solver)
        return self._kept

    def _remember(self, solver: cp_model.CpSolver) -> None:
        """What a plan keeps; the next search begins from it."""
        self._kept = {rule for rule, literal in self._literals.items() if solver.boolean_value(literal)}
        self._model.clear_hints()
        for variable in (*self._literals.values(), *self._starts.values()):
            self._model.add_hint(variable, solver.value(variable))

    def _solver(self, until: float) -> cp_model.CpSolver:
        solver = cp_model.CpSolver()
        solver.parameters.max_time_in_seconds = max(0.01, until - time.monotonic())
        solver.parameters.num_workers = 1
        return solver

    def _rule(self, rule: Rule) -> cp_model.IntVar:
        return self._literals.setdefault(rule, self._model.new_bool_var(""))

    def _classes(self) -> dict[str, cp_model.IntVar]:
        """Where each event may be, and that a class is held; alike events of a group keep their order."""
        problem = self._problem
        classes: dict[str, list[Event]] = defaultdict(list)
        for event in problem.events:
            classes[event.cls].append(event)
        held = {}
        for cls, events in classes.items():
            starts = [start for event in events for start in event.starts]
            last = max((s + e.duration - 1 for e in events for s in e.starts), default=0)
            held[cls] = self._rule(Rule("held", (cls,), len(events), min(starts, default=0), last))
            for event in events:
                domain = cp_model.Domain.from_values(list(event.starts) or [0])
                self._starts[event.id] = self._model.new_int_var_from_domain(domain, "")
                pin = problem.pins.get(event.id, Pin())
                if pin.start is not None and pin.start not in event.starts:
                    self._model.add_implication(self._rule(Rule("pin", (event.id,))), held[cls].negated())
                if not event.starts:
                    self._model.add(held[cls] == 0)
                for names, kept in ((event.trainers, self._led), (self._large(event), self._housed)):
                    kept[event.id] = {name: self._model.new_bool_var("") for name in names}
                    if names:
                        self._model.add_exactly_one(kept[event.id].values())
                if event.rooms and not self._large(event):
                    self._model.add(held[cls] == 0)
            alike = sorted(events, key=lambda e: (e.groups, e.duration, e.starts, e.trainers, e.rooms))
            for _, same in groupby(alike, key=lambda e: (e.groups, e.duration, e.starts, e.trainers, e.rooms)):
                row = [event for event in same if event.groups and event.id not in problem.pins]
                for one, other in pairwise(row):
                    after = self._starts[one.id] + one.duration <= self._starts[other.id]
                    self._model.add(after).only_enforce_if(held[cls])
        return held

    def _large(self, event: Event) -> list[str]:
        seats, any_room = self._problem.seats, self._problem.weights.seat
        return [room for room in event.rooms if any_room or seats.get(room, event.size) >= event.size]

    def _whereabouts(self) -> None:
        """Nobody is in two places at once, no room holds two events."""
        lanes: dict[tuple[str, str], list[cp_model.IntervalVar]] = defaultdict(list)
        for event in self._problem.events:
            start, held = self._starts[event.id], self._held[event.cls]
            whole = self._model.new_optional_fixed_size_interval_var(start, event.duration, held, "")
            for group in event.groups:
                lanes["group", group].append(whole)
            for kind, chosen in (("trainer", self._led[event.id]), ("room", self._housed[event.id])):
                for name, literal in chosen.items():
                    there = self._model.new_bool_var("")
                    self._model.add_bool_or([there, literal.negated(), held.negated()])
                    self._model.add_implication(there, literal)
                    lanes[kind, name].append(
                        self._model.new_optional_fixed_size_interval_var(start, event.duration, there, "")
                    )
        for intervals in lanes.values():
            if len(intervals) > 1:
                self._model.add_no_overlap(intervals)

    def _orders(self) -> None:
        classes: dict[str, list[Event]] = defaultdict(list)
        for event in self._problem.events:
            classes[event.cls].append(event)
        end = self._problem.days * self._problem.slots_per_day
        for before, after in dict.fromkeys(self._problem.arcs):
            if before not in classes or after not in classes:
                continue
            rule = self._rule(Rule("order", (before, after)))
            between = self._model.new_int_var(0, end, "")
            kept = [rule, self._held[before], self._held[after]]
            for event in classes[before]:
                self._model.add(self._starts[event.id] + event.duration <= between).only_enforce_if(kept)
            for event in classes[after]:
                self._model.add(self._starts[event.id] >= between).only_enforce_if(kept)

    def _absences(self) -> None:
        """Each run of slots in which somebody is away is a rule of its own, where it touches an event's starts."""
        problem = self._problem
        for event in problem.events:
            own: list[tuple[str, cp_model.IntVar | None, frozenset[int]]] = []
            own += [(group, None, problem.group_busy.get(group, frozenset())) for group in event.groups]
            for chosen, busy in ((self._led, problem.trainer_busy), (self._housed, problem.room_busy)):
                own += [(name, lit, busy.get(name, frozenset())) for name, lit in chosen[event.id].items()]
            for name, literal, closed in own:
                for first, last in _runs(closed):
                    open_ = [s for s in event.starts if s + event.duration <= first or s > last]
                    if len(open_) == len(event.starts):
                        continue
                    enforced = [self._rule(Rule("away", (name,), 0, first, last)), self._held[event.cls]]
                    enforced += [] if literal is None else [literal]
                    if open_:
                        domain = cp_model.Domain.from_values(open_)
                        self._model.add_linear_expression_in_domain(self._starts[event.id], domain).only_enforce_if(
                            enforced
                        )
                    else:
                        self._model.add_bool_or([one.negated() for one in enforced])

    def _limits(self) -> None:
        """What a group may have on a day, a trainer on a day and in a week: where it could be passed at all."""
        problem, per_day = self._problem, self._problem.slots_per_day
        of_group: dict[tuple[str, int], list[cp_model.LinearExprT]] = defaultdict(list)
        of_day: dict[tuple[str, int], list[cp_model.LinearExprT]] = defaultdict(list)
        of_week: dict[tuple[str, int], list[cp_model.LinearExprT]] = defaultdict(list)
        capped = {day for day, cap in problem.group_day_caps.items() if cap < per_day}
        leading = problem.trainer_day_cap < per_day or problem.trainer_week_cap is not None
        for event in problem.events:
            days = {start // per_day for start in event.starts}
            for day in days if leading and self._led[event.id] else days & capped:
                here, start = self._model.new_bool_var(""), self._starts[event.id]
                on = cp_model.Domain(day * per_day, (day + 1) * per_day - 1)
                self._model.add_linear_expression_in_domain(start, on.complement()).only_enforce_if(
                    [here.negated(), self._held[event.cls]]
                )
                if day in capped:
                    for group in event.groups:
                        of_group[group, day].append(event.duration * here)
                if leading:
                    for name, literal in self._led[event.id].items():
                        both = self._model.new_bool_var("")
                        self._model.add_bool_or([both, here.negated(), literal.negated()])
                        of_day[name, day].append(event.duration * both)
                        of_week[name, day // problem.days_per_week].append(event.duration * both)
        for (_, day), loads in of_group.items():
            cap = problem.group_day_caps[day]
            rule = Rule("group-day", (), cap, day * per_day, (day + 1) * per_day - 1)
            self._model.add(sum(loads) <= cap).only_enforce_if(self._rule(rule))
        if problem.trainer_day_cap < per_day:
            for loads in of_day.values():
                rule = Rule("trainer-day", (), problem.trainer_day_cap)
                self._model.add(sum(loads) <= problem.trainer_day_cap).only_enforce_if(self._rule(rule))
        if (week_cap := problem.trainer_week_cap) is not None:
            for loads in of_week.values():
                rule = Rule("trainer-week", (), week_cap)
                self._model.add(sum(loads) <= week_cap).only_enforce_if(self._rule(rule))

    def _pins(self) -> None:
        for event in self._problem.events:
            if (pin := self._problem.pins.get(event.id)) is None:
                continue
            rule = self._rule(Rule("pin", (event.id,)))
            if pin.start is not None:
                self._model.add(self._starts[event.id] == pin.start).only_enforce_if(rule)
            for fixed, chosen in ((pin.trainer, self._led), (pin.room, self._housed)):
                if fixed is not None and chosen[event.id]:
                    wanted = chosen[event.id].get(fixed)
                    self._model.add_bool_or([rule.negated()] if wanted is None else [rule.negated(), wanted])


def _runs(slots: Iterable[int]) -> list[tuple[int, int]]:
    """Slots in a row, as first and last."""
    found: list[tuple[int, int]] = []
    for slot in sorted(slots):
        if found and found[-1][1] == slot - 1:
            found[-1] = (found[-1][0], slot)
        else:
            found.append((slot, slot))
    return found
