"""Simulated annealing of a problem by one thread: what the compiled kernel needs of it, and what it made of it.

Whole numbers only, and no clock: for the same seed, the same plan on every machine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any

import numpy as np

from services.scheduling.solver import kernel
from services.scheduling.solver.check import FROM_TARGET, LONG_DAY
from services.scheduling.solver.problem import Event, Pin, Placement, Plan, Problem

Ints = np.ndarray[Any, Any]

SCALE = 100
"""Costs are counted in hundredths: the balance of loads is divided by 100 only when it is told."""
LEVELS = 1000
_SLACK = 30 * SCALE
"""More than a single move saves otherwise, nearly always; one that saves more and clashes is not looked at."""
_NEVER = 1 << 30


def _logarithm(number: Decimal) -> int:
    return int((-number.ln() * (1 << 16)).to_integral_value())


with localcontext() as _exact:  # by decimal arithmetic, so that no machine's library has a say
    _exact.prec = 20
    _HALVING = _logarithm(Decimal("0.5"))
    LN = np.array([_logarithm(Decimal(2 * n + 513) / 1024) for n in range(256)], dtype=np.int32)
    """-ln of (256.5 + n) / 512 in 65536ths."""


def cooling(*stages: tuple[str, str, str]) -> list[int]:
    """`LEVELS` temperatures in 256ths of a hundredth. A stage: its share, and from which cost it cools to which."""
    told: list[int] = []
    with localcontext() as exact:
        exact.prec = 20
        shares = Decimal(0)
        for share, hottest, coldest in stages:
            shares += Decimal(share)
            first, last = Decimal(hottest), Decimal(coldest)
            levels = int((shares * LEVELS).to_integral_value()) - len(told)
            step = ((last / first).ln() / max(1, levels - 1)).exp()
            told += [int((first * step**n * 256 * SCALE).to_integral_value()) for n in range(levels)]
    return told


@dataclass(frozen=True)
class Moves:
    """How often each kind of move is tried, in 1024ths, as `kernel.MOVES` explains them."""

    start: int = 0
    start_room: int = 0
    room: int = 0
    trainer: int = 0
    start_trainer: int = 0
    free: int = 0
    kempe: int = 0
    periods: int = 0
    all_trainer: int = 0
    all_room: int = 0

    def told(self) -> list[int]:
        """For each kind the upper bound of its share; raises ValueError where all is not 1024."""
        bounds = np.cumsum([getattr(self, kind) for kind in kernel.MOVES])
        if bounds[-1] != 1024:
            raise ValueError(f"the moves' shares are {bounds[-1]} 1024ths together")
        return [int(bound) for bound in bounds]


class Impossible(Exception):
    """An event has no place at all: no start, or no room that is large enough."""


class State:
    """A problem in flat buffers, every event somewhere: what one thread searches.

    Half of all tries are with the events in `focus`, where there are some. Raises `Impossible`.
    """

    def __init__(self, problem: Problem, seed: int, *, hard: int, focus: Sequence[str] = ()) -> None:
        self.problem = problem
        self._layout = _Layout(problem, focus)
        self.given, self.at = self._layout.given, self._layout.at
        self.state = np.zeros(self._layout.state_size, np.int32)
        self.scratch = np.zeros(self._layout.scratch_size, np.int32)
        self.x = np.array([(seed + 1) * 0x9E3779B97F4A7C15 % 2**64 or 1], dtype=np.uint64)
        self._hard = SCALE * hard
        self._kept = np.zeros(3 * len(problem.events), np.int32)
        self.out = np.zeros(8, np.int64)

    def begin(self, plan: Plan | None = None) -> None:
        """Put every event where the plan has it, as nearly as it may be there; without one at random."""
        self._layout.put(self.state, plan, self.x)
        kernel.fill(self.given, self.state, self.scratch, self.at)
        kernel.counted(self.given, self.state, self.scratch, self.at, self.out)
        self.out[2:4] = self.out[:2]
        self._kept[:] = self.state[: len(self._kept)]

    def run(self, moves: Sequence[int], heat: int, steps: int) -> None:
        """So many tries at a temperature; none where nothing may be moved."""
        if not self._layout.movable:
            return
        how = np.array([steps, heat, self._hard, _SLACK, *moves], np.int64)
        kernel.chunk(self.given, self.state, self.scratch, self._kept, self.at, self.x, how, self.out)

    @property
    def now(self) -> tuple[int, int]:
        """Clashes, and cost in hundredths, of where everything is."""
        return int(self.out[0]) + self._layout.standing[0], int(self.out[1]) + self._layout.standing[1]

    @property
    def best(self) -> tuple[int, int]:
        """Clashes, and cost in hundredths, of the best that was seen."""
        return int(self.out[2]) + self._layout.standing[0], int(self.out[3]) + self._layout.standing[1]

    @property
    def accepted(self) -> int:
        return int(self.out[5])

    def plan(self, *, best: bool = True) -> dict[str, Placement]:
        """The best that was seen, or what is now."""
        return self._layout.plan(self._kept if best else self.state)


class _Layout:
    """A problem as the kernel's buffers: what does not change, where each stretch lies, and how large the rest is."""

    def __init__(self, problem: Problem, focus: Sequence[str]) -> None:
        if problem.slots_per_day > 16:
            raise ValueError("more than 16 slots a day")
        self.problem = problem
        events = problem.events
        self._fixed = _led_by_one(problem)
        self._trainers = [] if self._fixed else _names(event.trainers for event in events)
        self._rooms = _names(event.rooms for event in events)
        self._trainer = {name: n for n, name in enumerate(self._trainers)}
        self._room = {name: n for n, name in enumerate(self._rooms)}
        self._groups = _names([("group", name) for name in event.groups] for event in events)
        if self._fixed:
            self._groups += _names([("trainer", name) for name in event.trainers] for event in events)
        slots, days = problem.days * problem.slots_per_day, problem.days
        weeks = -(-days // problem.days_per_week)
        a: dict[str, Any] = {"dur": [event.duration for event in events], "log": LN}
        sizes = {"events": len(events), "slots": slots, "days": days, "weeks": weeks}
        self._candidates(a, slots)
        sizes |= self._who(a, slots, days, weeks)
        self._changes(a)
        numbers = {id: n for n, id in enumerate(event.id for event in events)}
        a["focus"] = [numbers[id] for id in focus]
        self.movable = len(a["mv"])
        weights = problem.weights
        numbers = sizes | {
            "per_day": problem.slots_per_day, "week": problem.days_per_week, "trainers": len(self._trainers),
            "rooms": len(self._rooms), "has_arcs": int(bool(problem.arcs)), "t_cap": problem.trainer_day_cap,
            "tw_cap": problem.trainer_week_cap or _NEVER, "movable": self.movable, "focused": len(focus),
            "single": int(all(event.duration == 1 and event.rooms for event in events)),
            "w_trainer": SCALE * weights.trainer, "w_room": SCALE * weights.room, "w_balance": weights.balance,
            "w_spread": SCALE * weights.spread, "spread_free": FROM_TARGET, "w_least": SCALE * weights.days,
            "halving": _HALVING,
        }  # fmt: skip
        self._lay(a, numbers)
        self.standing = self._standing()

    def _candidates(self, a: dict[str, Any], slots: int) -> None:
        """The candidates of each event, equal ones once; what a room costs; the events that may be moved at all."""
        problem = self.problem
        kept: dict[str, dict[tuple[tuple[int, int], ...], int]] = {"s": {}, "t": {}, "r": {}}
        chosen: dict[str, list[int]] = {"s": [], "t": [], "r": []}
        known: dict[tuple[Any, ...], tuple[tuple[tuple[int, int], ...], ...]] = {}
        a["mv"] = []
        for n, event in enumerate(problem.events):
            pin = problem.pins.get(event.id, Pin())
            key = (event.starts, event.trainers, event.rooms, event.size, event.duration, pin)
            if (found := known.get(key)) is None:
                found = known[key] = self._of(event, pin)
            for kind, one in zip("str", found, strict=True):
                chosen[kind].append(kept[kind].setdefault(one, len(kept[kind])))
            if any(len(one) > 1 for one in found):
                a["mv"].append(n)
        for kind, width in (("s", slots), ("t", len(self._trainers)), ("r", len(self._rooms))):
            a[f"{kind}set"] = chosen[kind]
            a[f"{kind}s_at"], a[f"{kind}s"] = _rows([index for index, _ in one] for one in kept[kind])
            within = np.full((len(kept[kind]), width), -1 if kind == "r" else 0, np.int32)
            for row, one in enumerate(kept[kind]):
                for index, value in one:
                    within[row, index] = value
            a["r_cost" if kind == "r" else f"{kind}_may"] = within

    def _of(self, event: Event, pin: Pin) -> tuple[tuple[tuple[int, int], ...], ...]:
        """An event's starts and trainers, and its rooms with what each costs."""
        problem = self.problem
        last, per_day = problem.days * problem.slots_per_day, problem.slots_per_day
        starts = _narrowed(event.starts, pin.start)
        for start in starts:
            if start < 0 or start + event.duration > last or start % per_day + event.duration > per_day:
                raise Impossible(f"{event.id} would not be within a day at slot {start}")
        short = {room: max(0, event.size - problem.seats.get(room, event.size)) for room in event.rooms}
        fits = tuple(room for room in event.rooms if problem.weights.seat or not short[room])
        rooms = _narrowed(fits, pin.room) if event.rooms else ()
        trainers = () if self._fixed or not event.trainers else _narrowed(event.trainers, pin.trainer)
        if not starts:
            raise Impossible(f"{event.id} has no start")
        if event.rooms and not rooms:
            raise Impossible(f"no room of {event.id} has {event.size} seats")
        return (
            tuple((start, 1) for start in starts),
            tuple((self._trainer[name], 1) for name in trainers if name in self._trainer),
            tuple(
                (self._room[name], SCALE * problem.weights.seat * short.get(name, 0))
                for name in rooms
                if name in self._room
            ),
        )

    def _who(self, a: dict[str, Any], slots: int, days: int, weeks: int) -> dict[str, int]:
        """Groups and the profiles that they make, series, classes, and what a day, a week, a class costs."""
        problem, events, weights = self.problem, self.problem.events, self.problem.weights
        group = {name: n for n, name in enumerate(self._groups)}
        profiles: dict[tuple[int, ...], int] = {}
        series: dict[tuple[str, tuple[str, ...]], int] = {}
        classes: dict[str, int] = {}
        a["prof"] = []
        for event in events:
            mine = {group["group", name] for name in event.groups}
            if self._fixed:
                mine |= {group["trainer", name] for name in event.trainers}
            a["prof"].append(profiles.setdefault(tuple(sorted(mine)), len(profiles)))
        a["ser"] = [series.setdefault((event.cls, event.groups), len(series)) for event in events]
        a["cls"] = [classes.setdefault(event.cls, len(classes)) for event in events]
        a["pg_at"], a["pg"] = _rows(profiles)
        holding: dict[int, list[int]] = defaultdict(list)
        for profile, n in profiles.items():
            for g in profile:
                holding[g].append(n)
        near = [sorted({n for g in profile for n in holding[g]}) for profile in profiles]
        a["pn_at"], a["pn"] = _rows(near)
        a["clash"] = np.zeros((len(profiles), len(profiles)), np.int32)
        for n, others in enumerate(near):
            a["clash"][n, others] = 1
        a["own"] = [int(bool(profile)) for profile in profiles]
        a["ce_at"], a["ce"] = _rows(_inverse(a["cls"], len(classes)))
        a["se_at"], a["se"] = _rows(_inverse(a["ser"], len(series)))

        a["table"] = _day_costs(problem)
        a["paid"] = [int(kind == "group") for kind, _ in self._groups]
        a["target"] = np.full((len(group), weeks), -1, np.int32)
        a["gcap"] = np.full((len(group), days), _NEVER, np.int32)
        for (kind, name), n in group.items():
            if kind == "group":
                for week, wanted in problem.week_targets.get(name, {}).items():
                    if 0 <= week < weeks:
                        a["target"][n, week] = wanted
                for day, cap in problem.group_day_caps.items():
                    if 0 <= day < days:
                        a["gcap"][n, day] = cap
        a["least"] = [problem.class_days.get(name, 0) if weights.days else 0 for name in classes]
        ahead: list[list[int]] = [[] for _ in classes]
        after: list[list[int]] = [[] for _ in classes]
        for first, second in dict.fromkeys(problem.arcs):
            if first in classes and second in classes:
                ahead[classes[second]].append(classes[first])
                after[classes[first]].append(classes[second])
        a["ab_at"], a["ab"] = _rows(ahead)
        a["aa_at"], a["aa"] = _rows(after)

        away = _busy([name for kind, name in self._groups if kind == "group"], problem.group_busy, slots)
        if self._fixed:
            ill = _busy([name for kind, name in self._groups if kind == "trainer"], problem.trainer_busy, slots)
            away = np.concatenate([away, ill])
        a["c_busy"] = np.array([away[list(profile)].sum(axis=0) for profile in profiles], np.int32)
        a["t_busy"] = _busy(self._trainers, problem.trainer_busy, slots)
        a["r_busy"] = _busy(self._rooms, problem.room_busy, slots)
        return {
            "profiles": len(profiles), "groups": len(group), "series": len(series), "classes": len(classes),
            "has_caps": int((a["gcap"] < _NEVER).any()), "has_targets": int((a["target"] >= 0).any()),
            "has_costs": int(a["table"].any()), "has_least": int(any(a["least"])),
        }  # fmt: skip

    def _changes(self, a: dict[str, Any]) -> None:
        """Where events were, and what it costs to have them elsewhere."""
        for name in ("old_s", "old_t", "old_r", "ch_s", "ch_t", "ch_r"):
            a[name] = [-1 if name.startswith("old") else 0] * len(self.problem.events)
        for n, event in enumerate(self.problem.events):
            if (was := self.problem.before.get(event.id)) is not None:
                a["old_s"][n], a["old_t"][n], a["old_r"][n] = self._numbered(was)
                prices = self.problem.change_costs.get(event.id, (0, 0, 0))
                a["ch_s"][n], a["ch_t"][n], a["ch_r"][n] = (SCALE * price for price in prices)

    def _numbered(self, where: Placement) -> tuple[int, int, int]:
        return where.start, self._trainer.get(where.trainer or "", -2), self._room.get(where.room or "", -2)

    def _lay(self, a: dict[str, Any], numbers: Mapping[str, int]) -> None:
        n_g, n_t, n_r, n_s, n_c = (numbers[name] for name in ("groups", "trainers", "rooms", "series", "classes"))
        events, slots, days, weeks = (numbers[name] for name in ("events", "slots", "days", "weeks"))
        sizes = {
            "start": events, "trainer": events, "room": events, "conf": numbers["profiles"] * slots,
            "gocc": n_g * slots, "gwho": n_g * slots, "gmask": n_g * days, "gexc": n_g * days, "gload": n_g * days,
            "gweek": n_g * weeks, "tocc": n_t * slots, "twho": n_t * slots, "tday": n_t * days, "tweek": n_t * weeks,
            "tload": n_t, "rocc": n_r * slots, "rwho": n_r * slots, "ser_t": n_s * n_t, "ser_tn": n_s,
            "ser_r": n_s * n_r, "ser_rn": n_s, "cday": n_c * days, "cdays": n_c,
            "mark": events, **dict.fromkeys(kernel.SCRATCH[1:], kernel.LONGEST),
        }  # fmt: skip
        stretches = [np.asarray(a[name], np.int32).ravel() for name in kernel.GIVEN]
        self.given = np.concatenate([*stretches, np.zeros(1, np.int32)])
        self._given_at = dict(zip(kernel.GIVEN, _ends([len(one) for one in stretches]), strict=True))
        state, scratch = ([sizes[name] for name in names] for names in (kernel.STATE, kernel.SCRATCH))
        self.state_size, self.scratch_size = sum(state), sum(scratch)
        offsets = [*self._given_at.values(), *_ends(state), *_ends(scratch)]
        self.at = np.array([*offsets, *(numbers[name] for name in kernel.SCALARS)], np.int64)

    def put(self, state: Ints, plan: Plan | None, x: Ints) -> None:
        """Every event where the plan has it, or at the candidate next to that, or at any."""
        many = len(self.problem.events)
        for n, event in enumerate(self.problem.events):
            was = (None, None, None) if plan is None else self._numbered(plan[event.id])
            for place, (kind, old) in enumerate(zip("str", was, strict=True)):
                options = self._options(kind, n)
                if not len(options):
                    value = -1
                elif old is not None and place == 0:
                    value = int(options[np.abs(options - old).argmin()])
                elif old is not None and old in options:
                    value = old
                else:
                    x[0] = np.uint64((int(x[0]) * 6364136223846793005 + 1442695040888963407) % 2**64 or 1)
                    value = int(options[(int(x[0]) >> 33) % len(options)])
                state[place * many + n] = value

    def _options(self, kind: str, event: int) -> Ints:
        at = self._given_at
        row = int(self.given[at[f"{kind}set"] + event])
        first, last = self.given[at[f"{kind}s_at"] + row : at[f"{kind}s_at"] + row + 2]
        return self.given[at[f"{kind}s"] + first : at[f"{kind}s"] + last]

    def plan(self, state: Ints) -> dict[str, Placement]:
        many = len(self.problem.events)
        found = {}
        for n, event in enumerate(self.problem.events):
            s, t, r = (int(state[place * many + n]) for place in range(3))
            trainer = self._trainers[t] if t >= 0 else event.trainers[0] if self._fixed and event.trainers else None
            found[event.id] = Placement(s, trainer, self._rooms[r] if r >= 0 else None)
        return found

    def _standing(self) -> tuple[int, int]:
        """What no move changes, and the kernel does not count: pins on what is no candidate; fixed trainers' costs."""
        problem, weights = self.problem, self.problem.weights
        hard = 0
        for event in problem.events:
            pin = problem.pins.get(event.id, Pin())
            hard += pin.start is not None and pin.start not in event.starts
            hard += pin.trainer is not None and pin.trainer not in event.trainers
            hard += pin.room is not None and pin.room not in event.rooms
        cost = self._unattended()
        if not self._fixed:
            return hard, cost
        load: dict[str, int] = defaultdict(int)
        leading: dict[tuple[str, tuple[str, ...]], set[str]] = defaultdict(set)
        changes = 0
        for event in problem.events:
            for name in event.trainers:
                load[name] += event.duration
                leading[event.cls, event.groups].add(name)
            if (was := problem.before.get(event.id)) is not None:
                changed = was.trainer != (event.trainers[0] if event.trainers else None)
                changes += changed * problem.change_costs.get(event.id, (0, 0, 0))[1]
        extra = sum(len(names) - 1 for names in leading.values())
        cost += SCALE * (weights.trainer * extra + changes) + weights.balance * sum(n * n for n in load.values())
        return hard, cost

    def _unattended(self) -> int:
        """Targets of groups that attend nothing, and of weeks that the problem does not have."""
        problem, known = self.problem, {name for kind, name in self._groups if kind == "group"}
        weeks = -(-problem.days // problem.days_per_week)
        off = (
            max(0, target - FROM_TARGET)
            for group, targets in problem.week_targets.items()
            for week, target in targets.items()
            if group not in known or not 0 <= week < weeks
        )
        return SCALE * problem.weights.spread * sum(off)


def _led_by_one(problem: Problem) -> bool:
    """Whether nobody is to be chosen: each event has one trainer at most, who then only is one more of its groups."""
    free_day = problem.trainer_day_cap >= problem.slots_per_day and problem.trainer_week_cap is None
    pinned = any(pin.trainer is not None for pin in problem.pins.values())
    return free_day and not pinned and all(len(event.trainers) <= 1 for event in problem.events)


def _narrowed(candidates: tuple[Any, ...], fixed: Any) -> tuple[Any, ...]:
    """The candidates, or the one that is pinned."""
    return candidates if fixed is None else (fixed,)


def _day_costs(problem: Problem) -> Ints:
    """What a day costs a group, by the mask of its slots, in hundredths."""
    weights, told = problem.weights, []
    for mask in range(1 << problem.slots_per_day):
        slots = [slot for slot in range(problem.slots_per_day) if mask >> slot & 1]
        idle = slots[-1] + 1 - slots[0] - len(slots) if slots else 0
        isolated = sum(slot - 1 not in slots and slot + 1 not in slots for slot in slots)
        cost = weights.idle * idle + weights.isolated * isolated
        told.append(SCALE * (cost + weights.long_day * max(0, len(slots) - LONG_DAY) ** 2))
    return np.array(told, dtype=np.int32)


def _names(lists: Iterable[Iterable[Any]]) -> list[Any]:
    return list(dict.fromkeys(name for one in lists for name in one))


def _rows(rows: Iterable[Iterable[int]]) -> tuple[list[int], list[int]]:
    """Lists one after another, and where each begins."""
    at, flat = [0], list[int]()
    for row in rows:
        flat += row
        at.append(len(flat))
    return at, flat


def _ends(lengths: Sequence[int]) -> list[int]:
    """Where each of some stretches begins when they lie one after another."""
    return [int(n) for n in np.cumsum([0, *lengths[:-1]])] if lengths else []


def _inverse(of: Sequence[int], size: int) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in range(size)]
    for n, value in enumerate(of):
        found[value].append(n)
    return found


def _busy(names: Sequence[str], busy: Mapping[str, frozenset[int]], slots: int) -> Ints:
    found = np.zeros((len(names), slots), np.int32)
    for n, name in enumerate(names):
        found[n, [slot for slot in busy.get(name, ()) if 0 <= slot < slots]] = 1
    return found
