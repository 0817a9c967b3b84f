"""The annealing kernel: every move of it compiled, whole numbers only, the same on every machine for the same seed.

All that a search needs lies in one flat buffer of 32-bit numbers, found by a table of offsets: compiled code that is
handed many arrays spends more on counting their references than on the search. A move takes some events away, puts them
elsewhere, and puts them back when the change is not accepted; `_place` alone knows what an event costs where it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
from numba import njit

from services.scheduling.solver.check import LONG_DAY
from services.scheduling.solver.problem import Placement, Plan, Problem

SCALE = 100
"""Costs are counted in hundredths: the balance of loads is divided by 100 only when it is told."""
LEVELS = 1000
_LN_BITS, _T_BITS = 16, 20
_LN_ENTRIES = 4096
MOST_GAINED = 30 * SCALE
"""More than a single move saves otherwise, nearly always; one that saves more and clashes is not looked at."""

# Where what lies in the buffer.
(
    DUR, CLS, SER, SET, TSET, RSET, TOK, ROK, GP, GL, SP, SL, TP, TL, RP, RL, RC, OK, CAP, GBUSY, TBUSY, RBUSY, TAB,
    CP, CL, SEP, SEL, AP, AL, IP, IL, MIN, KC, GEP, GEL,
    ST, TR, RM, GOCC, GMASK, GDAY, TOCC, TDAY, TLOAD, ROCC, CT, CR, CD, CDN, AT, NAT, POS,
    BST, BTR, BRM, MV, MS, MT, MR, MARK, BEF, CHG,
    E, S, P, D, G, T, R, N, C, M, KEMPE, TCAP, W_TRAINER, W_ROOM, W_DAYS, W_BALANCE, HARD, CHANGED, FOCUS, FOCUSED, END,
) = range(83)  # fmt: skip
_SCALARS = (E, S, P, D, G, T, R, N, C, M, KEMPE, TCAP, W_TRAINER, W_ROOM, W_DAYS, W_BALANCE, HARD, CHANGED)

# What a search is told of its moves, in 1024ths.
P_KEMPE, P_PERIODS, P_SAME, P_KEEP, P_TRAINER, P_SERIES, P_SWAP = range(7)


def _logarithms() -> np.ndarray:
    """-ln of (i + ½)/4096 in 65536ths: by decimal arithmetic, so that no machine's library has a say."""
    with localcontext() as exact:
        exact.prec = 20
        told = [-(Decimal(2 * i + 1) / (2 * _LN_ENTRIES)).ln() * (1 << _LN_BITS) for i in range(_LN_ENTRIES)]
        return np.array([int(value.to_integral_value()) for value in told], dtype=np.int64)


def cooling(hottest: str, coldest: str) -> np.ndarray:
    """Temperatures from the hottest to the coldest, each the same part of the one before, in 2^-20 of a cost of 1."""
    with localcontext() as exact:
        exact.prec = 20
        first, last = Decimal(hottest), Decimal(coldest)
        step = ((last / first).ln() / (LEVELS - 1)).exp()
        told = [first * step**n * (1 << _T_BITS) * SCALE for n in range(LEVELS)]
        return np.array([int(value.to_integral_value()) for value in told], dtype=np.int64)


LN = _logarithms()


@njit(inline="always")
def _random(x: Any) -> Any:
    """The next of a xorshift64* sequence; the state is one number."""
    v = x[0]
    v ^= v >> np.uint64(12)
    v ^= v << np.uint64(25)
    v ^= v >> np.uint64(27)
    x[0] = v
    return (v * np.uint64(2685821657736338717)) >> np.uint64(32)


@njit(inline="always")
def _below(x: Any, n: Any) -> Any:
    """A random number from 0 to n - 1."""
    return np.int64((_random(x) * np.uint64(n)) >> np.uint64(32))


@njit(inline="always")
def _place(m: Any, o: Any, e: Any, s: Any, t: Any, r: Any, sign: Any, out: Any) -> None:
    """Put an event somewhere (sign 1) or take it away (sign -1); adds the change to out: clashes, and cost."""
    hard = 0
    soft = 0
    dur = m[o[DUR] + e]
    slots = o[S]
    per_day = o[P]
    day = s // per_day
    first = s - day * per_day
    bits = ((1 << dur) - 1) << first
    for i in range(m[o[GP] + e], m[o[GP] + e + 1]):
        g = m[o[GL] + i]
        base = o[GOCC] + g * slots + s
        busy = o[GBUSY] + g * slots + s
        at = o[GMASK] + g * o[D] + day
        before = m[at]
        after = before
        for k in range(dur):
            if sign > 0:
                hard += m[base + k] + m[busy + k]
                m[base + k] += 1
            else:
                m[base + k] -= 1
                hard -= m[base + k] + m[busy + k]
                if m[base + k] == 0:
                    after &= ~(1 << (first + k))
        if sign > 0:
            after |= bits
        if after != before:
            m[at] = after
            soft += m[o[TAB] + after] - m[o[TAB] + before]
        load = o[GDAY] + g * o[D] + day
        cap = m[o[CAP] + day]
        old = m[load]
        new = old + sign * dur
        m[load] = new
        hard += max(0, new - cap) - max(0, old - cap)
    n = m[o[SER] + e]
    if t >= 0:
        base = o[TOCC] + t * slots + s
        busy = o[TBUSY] + t * slots + s
        for k in range(dur):
            if sign > 0:
                hard += m[base + k] + m[busy + k]
                m[base + k] += 1
            else:
                m[base + k] -= 1
                hard -= m[base + k] + m[busy + k]
        load = o[TDAY] + t * o[D] + day
        old = m[load]
        new = old + sign * dur
        m[load] = new
        hard += max(0, new - o[TCAP]) - max(0, old - o[TCAP])
        if o[W_BALANCE] != 0:
            all_ = m[o[TLOAD] + t]
            m[o[TLOAD] + t] = all_ + sign * dur
            soft += o[W_BALANCE] * dur * (2 * sign * all_ + dur)
        at = o[CT] + n * o[T] + t
        if sign > 0:
            if m[at] == 0:
                soft += o[W_TRAINER]
            m[at] += 1
        else:
            m[at] -= 1
            if m[at] == 0:
                soft -= o[W_TRAINER]
    if r >= 0:
        base = o[ROCC] + r * slots + s
        busy = o[RBUSY] + r * slots + s
        for k in range(dur):
            if sign > 0:
                hard += m[base + k] + m[busy + k]
                m[base + k] += 1
            else:
                m[base + k] -= 1
                hard -= m[base + k] + m[busy + k]
        soft += sign * m[o[RC] + n * o[R] + r]
        at = o[CR] + n * o[R] + r
        if sign > 0:
            if m[at] == 0:
                soft += o[W_ROOM]
            m[at] += 1
        else:
            m[at] -= 1
            if m[at] == 0:
                soft -= o[W_ROOM]
    c = m[o[CLS] + e]
    least = m[o[MIN] + c]
    if least > 0:
        at = o[CD] + c * o[D] + day
        held = m[o[CDN] + c]
        if sign > 0:
            if m[at] == 0:
                m[o[CDN] + c] = held + 1
                if held < least:
                    soft -= o[W_DAYS]
            m[at] += 1
        else:
            m[at] -= 1
            if m[at] == 0:
                m[o[CDN] + c] = held - 1
                if held <= least:
                    soft += o[W_DAYS]
    for i in range(m[o[AP] + c], m[o[AP] + c + 1]):
        later = m[o[AL] + i]
        for j in range(m[o[CP] + later], m[o[CP] + later + 1]):
            f = m[o[ST] + m[o[CL] + j]]
            if f >= 0 and f < s + dur:
                hard += sign
    for i in range(m[o[IP] + c], m[o[IP] + c + 1]):
        earlier = m[o[IL] + i]
        for j in range(m[o[CP] + earlier], m[o[CP] + earlier + 1]):
            x = m[o[CL] + j]
            f = m[o[ST] + x]
            if f >= 0 and f + m[o[DUR] + x] > s:
                hard += sign
    if o[CHANGED] != 0 and m[o[BEF] + 3 * e] != -2:
        if s != m[o[BEF] + 3 * e]:
            soft += sign * m[o[CHG] + 3 * e]
        if t != m[o[BEF] + 3 * e + 1]:
            soft += sign * m[o[CHG] + 3 * e + 1]
        if r != m[o[BEF] + 3 * e + 2]:
            soft += sign * m[o[CHG] + 3 * e + 2]
    if m[o[OK] + m[o[SET] + e] * slots + s] == 0:
        hard += sign
    if sign > 0:
        m[o[ST] + e] = s
        m[o[TR] + e] = t
        m[o[RM] + e] = r
        if o[KEMPE] != 0:
            k = m[o[NAT] + s]
            m[o[AT] + s * o[M] + k] = e
            m[o[POS] + e] = k
            m[o[NAT] + s] = k + 1
    else:
        m[o[ST] + e] = -1
        if o[KEMPE] != 0:
            k = m[o[NAT] + s] - 1
            m[o[NAT] + s] = k
            last = m[o[AT] + s * o[M] + k]
            m[o[AT] + s * o[M] + m[o[POS] + e]] = last
            m[o[POS] + last] = m[o[POS] + e]
    out[0] += hard
    out[1] += soft


@njit(inline="always")
def _in_the_way(m: Any, o: Any, e: Any, s: Any, t: Any, r: Any) -> Any:
    """How often an event would clash there, as far as can be seen without moving anything."""
    found = 0
    slots = o[S]
    dur = m[o[DUR] + e]
    for k in range(dur):
        for i in range(m[o[GP] + e], m[o[GP] + e + 1]):
            at = m[o[GL] + i] * slots + s + k
            found += m[o[GOCC] + at] + m[o[GBUSY] + at]
        if t >= 0:
            found += m[o[TOCC] + t * slots + s + k] + m[o[TBUSY] + t * slots + s + k]
        if r >= 0:
            found += m[o[ROCC] + r * slots + s + k] + m[o[RBUSY] + r * slots + s + k]
    return found


@njit(inline="always")
def _clashes(m: Any, o: Any, e: Any) -> Any:
    """How often an event clashes where it is, as far as `_in_the_way` would see it."""
    s = m[o[ST] + e]
    t = m[o[TR] + e]
    r = m[o[RM] + e]
    own = m[o[GP] + e + 1] - m[o[GP] + e] + (t >= 0) + (r >= 0)
    closed = m[o[OK] + m[o[SET] + e] * o[S] + s] == 0
    return _in_the_way(m, o, e, s, t, r) - own * m[o[DUR] + e] + closed


@njit(inline="always")
def _free_room(m: Any, o: Any, x: Any, e: Any, s: Any, kept: Any) -> Any:
    """A room for an event that a chain has moved: its own where that is free, else the cheapest that is."""
    slots = o[S]
    dur = m[o[DUR] + e]
    n = m[o[SER] + e]
    best = -1
    least = 1 << 30
    first = m[o[RP] + e]
    many = m[o[RP] + e + 1] - first
    if many == 0:
        return kept
    shift = _below(x, many)
    for i in range(-1, many):
        r = kept if i < 0 else m[o[RL] + first + (i + shift) % many]
        taken = 0
        for k in range(dur):
            taken += m[o[ROCC] + r * slots + s + k] + m[o[RBUSY] + r * slots + s + k]
        if taken == 0:
            cost = m[o[RC] + n * o[R] + r]
            if m[o[CR] + n * o[R] + r] == 0:
                cost += o[W_ROOM]
            if cost < least:
                least = cost
                best = r
            if cost == 0:
                break
    return kept if best < 0 else best


@njit(inline="always")
def _chain(m: Any, o: Any, x: Any, e: Any, to: Any, whole: Any) -> Any:
    """The events that must change sides when one goes to another start, because they or theirs clash; 0 for none."""
    here = m[o[ST] + e]
    m[o[MV]] = e
    m[o[MARK] + e] = 1
    n = 1
    if whole:
        for side in range(2):
            p = here if side == 0 else to
            for i in range(m[o[NAT] + p]):
                f = m[o[AT] + p * o[M] + i]
                if m[o[MARK] + f] == 0:
                    m[o[MARK] + f] = 1
                    m[o[MV] + n] = f
                    n += 1
    else:
        done = 0
        while done < n:
            f = m[o[MV] + done]
            done += 1
            p = to if m[o[ST] + f] == here else here
            row = o[KC] + m[o[SER] + f] * o[N]
            for i in range(m[o[NAT] + p]):
                g = m[o[AT] + p * o[M] + i]
                if m[o[MARK] + g] == 0 and m[row + m[o[SER] + g]] != 0:
                    m[o[MARK] + g] = 1
                    m[o[MV] + n] = g
                    n += 1
    fits = True
    for i in range(n):
        f = m[o[MV] + i]
        m[o[MARK] + f] = 0
        goes = to if m[o[ST] + f] == here else here
        if m[o[OK] + m[o[SET] + f] * o[S] + goes] == 0:
            fits = False
        m[o[MS] + i] = goes
        m[o[MT] + i] = m[o[TR] + f]
        m[o[MR] + i] = -2
    return n if fits else 0


@njit(nogil=True, cache=True)
def _steps(m: Any, o: Any, prm: Any, ln: Any, x: Any, cost: Any, heat: Any, steps: Any) -> Any:
    """So many tries at one temperature; returns how many were accepted. `cost` is that now, then that of the best."""
    accepted = 0
    delta = np.zeros(2, dtype=np.int64)
    events = o[E]
    for _ in range(steps):
        e = _below(x, events)
        if o[FOCUSED] > 0 and _below(x, 2) == 0:
            e = m[o[FOCUS] + _below(x, o[FOCUSED])]
        s = m[o[ST] + e]
        t = m[o[TR] + e]
        r = m[o[RM] + e]
        draw = _below(x, 1024)
        n = 0
        single = False
        starts = m[o[SP] + e + 1] - m[o[SP] + e]
        trainers = m[o[TP] + e + 1] - m[o[TP] + e]
        rooms = m[o[RP] + e + 1] - m[o[RP] + e]
        if draw < prm[P_KEMPE]:
            if o[KEMPE] != 0 and starts > 1:
                to = m[o[SL] + m[o[SP] + e] + _below(x, starts)]
                if to != s:
                    n = _chain(m, o, x, e, to, _below(x, 1024) < prm[P_PERIODS])
        elif draw < prm[P_KEMPE] + prm[P_SERIES]:
            room = _below(x, 2) == 0
            if room and rooms > 1:
                r = m[o[RL] + m[o[RP] + e] + _below(x, rooms)]
            elif trainers > 1:
                t = m[o[TL] + m[o[TP] + e] + _below(x, trainers)]
            series = m[o[SER] + e]
            for i in range(m[o[SEP] + series], m[o[SEP] + series + 1]):
                f = m[o[SEL] + i]
                if room:
                    may = r < 0 or m[o[ROK] + m[o[RSET] + f] * o[R] + r] != 0
                else:
                    may = t < 0 or m[o[TOK] + m[o[TSET] + f] * o[T] + t] != 0
                if not may:
                    n = 0
                    break
                m[o[MV] + n] = f
                m[o[MS] + n] = m[o[ST] + f]
                m[o[MT] + n] = m[o[TR] + f] if room else t
                m[o[MR] + n] = r if room else m[o[RM] + f]
                n += 1
        elif draw < prm[P_KEMPE] + prm[P_SERIES] + prm[P_SWAP]:
            if m[o[GP] + e + 1] > m[o[GP] + e]:
                g = m[o[GL] + m[o[GP] + e]]
                first = m[o[GEP] + g]
                for _ in range(4):
                    f = m[o[GEL] + first + _below(x, m[o[GEP] + g + 1] - first)]
                    to = m[o[ST] + f]
                    fits = f != e and to != s and m[o[DUR] + f] == m[o[DUR] + e]
                    if fits and m[o[OK] + m[o[SET] + e] * o[S] + to] != 0 and m[o[OK] + m[o[SET] + f] * o[S] + s] != 0:
                        m[o[MV]] = e
                        m[o[MS]] = to
                        m[o[MT]] = t
                        m[o[MR]] = r
                        m[o[MV] + 1] = f
                        m[o[MS] + 1] = s
                        m[o[MT] + 1] = m[o[TR] + f]
                        m[o[MR] + 1] = m[o[RM] + f]
                        n = 2
                        break
        else:
            single = True
            to = s
            if starts > 1 and _below(x, 1024) >= prm[P_SAME]:
                to = m[o[SL] + m[o[SP] + e] + _below(x, starts)]
            if trainers > 1 and _below(x, 1024) < prm[P_TRAINER]:
                t = m[o[TL] + m[o[TP] + e] + _below(x, trainers)]
            if rooms > 1 and (to == s or _below(x, 1024) >= prm[P_KEEP]):
                r = m[o[RL] + m[o[RP] + e] + _below(x, rooms)]
            if to != s or t != m[o[TR] + e] or r != m[o[RM] + e]:
                m[o[MV]] = e
                m[o[MS]] = to
                m[o[MT]] = t
                m[o[MR]] = r
                n = 1
                if o[KEMPE] != 0 and r >= 0 and m[o[ROCC] + r * o[S] + to] != 0:
                    # Somebody is there: they change places.
                    for i in range(m[o[NAT] + to]):
                        f = m[o[AT] + to * o[M] + i]
                        if f != e and m[o[RM] + f] == r:
                            own = m[o[RM] + e]
                            if (
                                own < 0
                                or m[o[OK] + m[o[SET] + f] * o[S] + s] == 0
                                or m[o[ROK] + m[o[RSET] + f] * o[R] + own] == 0
                            ):
                                n = 0
                            else:
                                m[o[MV] + 1] = f
                                m[o[MS] + 1] = s
                                m[o[MT] + 1] = m[o[TR] + f]
                                m[o[MR] + 1] = own
                                n = 2
                            break
        if n == 0:
            continue
        limit = (heat * ln[_below(x, ln.size)]) >> (_LN_BITS + _T_BITS)
        if single and o[HARD] - limit > MOST_GAINED:
            # A further clash is dearer than what may be accepted: most tries end here, at little cost.
            start = m[o[MS]]
            apart = start >= s + m[o[DUR] + e] or start + m[o[DUR] + e] <= s
            if n == 1 and apart:
                there = _in_the_way(m, o, e, start, m[o[MT]], m[o[MR]])
                if there > 0 and (cost[0] == 0 or there > _clashes(m, o, e)):
                    continue
            if n == 2 and cost[0] == 0 and m[o[KC] + m[o[SER] + e] * o[N] + m[o[SER] + m[o[MV] + 1]]] == 0:
                if _in_the_way(m, o, e, start, m[o[MT]], -1) > 0:
                    continue
                if _in_the_way(m, o, m[o[MV] + 1], s, m[o[MT] + 1], -1) > 0:
                    continue
        delta[0] = 0
        delta[1] = 0
        for phase in range(2):
            for i in range(n):
                f = m[o[MV] + i]
                # Where it was is kept behind the marks until the change is accepted.
                was = o[MARK] + events + 3 * i
                if phase == 0:
                    a = m[o[ST] + f]
                    b = m[o[TR] + f]
                    c = m[o[RM] + f]
                    m[was] = a
                    m[was + 1] = b
                    m[was + 2] = c
                else:
                    a = m[o[MS] + i]
                    b = m[o[MT] + i]
                    c = m[o[MR] + i]
                    if c == -2:
                        c = _free_room(m, o, x, f, a, m[o[RM] + f])
                _place(m, o, f, a, b, c, 2 * phase - 1, delta)
        change = delta[0] * o[HARD] + delta[1]
        if change <= limit:
            cost[0] += delta[0]
            cost[1] += delta[1]
            accepted += 1
            if cost[0] * o[HARD] + cost[1] < cost[2] * o[HARD] + cost[3]:
                cost[2] = cost[0]
                cost[3] = cost[1]
                for i in range(3 * events):
                    m[o[BST] + i] = m[o[ST] + i]
        else:
            for phase in range(2):
                for i in range(n):
                    f = m[o[MV] + i]
                    was = o[MARK] + events + 3 * i
                    if phase == 0:
                        _place(m, o, f, m[o[ST] + f], m[o[TR] + f], m[o[RM] + f], -1, delta)
                    else:
                        _place(m, o, f, m[was], m[was + 1], m[was + 2], 1, delta)
    return accepted


@njit(nogil=True, cache=True)
def _put(m: Any, o: Any, e: Any, s: Any, t: Any, r: Any, cost: Any) -> None:
    """Put one event that lies nowhere yet."""
    _place(m, o, e, s, t, r, 1, cost)


# --- from a problem to the buffer, and back ----------------------------------------------------------------------


@dataclass(frozen=True)
class Moves:
    """How often each kind of move is tried, in 1024ths; what is left over moves one event."""

    kempe: int = 204
    """Events of two starts that clash with each other, directly or in turn, change sides."""
    periods: int = 20
    """Of these, how often all events of both starts do."""
    same: int = 102
    """Of single moves, how often the start stays."""
    keep: int = 200
    """How often a single move keeps its room although it changes its start."""
    trainer: int = 256
    """How often a single move changes its trainer."""
    series: int = 0
    """All events of a class and its groups get another trainer, or another room."""
    swap: int = 0
    """Two events of a group change their starts."""

    def told(self) -> np.ndarray:
        return np.array(
            [self.kempe, self.periods, self.same, self.keep, self.trainer, self.series, self.swap], dtype=np.int64
        )


class State:
    """A problem in a flat buffer, every event somewhere: what one thread searches.

    Half of all tries are with the events in `focus`, where there are some.
    """

    def __init__(
        self, problem: Problem, seed: int, *, hard: int, kempe: bool = True, focus: Sequence[str] = ()
    ) -> None:
        self.problem = problem
        self._names = _Names(problem)
        self.m, self.o = _laid_out(problem, self._names, hard, kempe, [self._names.events[id] for id in focus])
        self.x = np.array([(seed + 1) * 0x9E3779B97F4A7C15 % 2**64 or 1], dtype=np.uint64)
        self.cost = np.zeros(4, dtype=np.int64)
        self._base = self._standing_cost()

    def begin(self, plan: Plan | None = None) -> None:
        """Put every event where the plan has it, or at random where it may be."""
        cost = np.zeros(2, dtype=np.int64)
        for e, event in enumerate(self.problem.events):
            if plan is not None:
                s, t, r = self._names.numbered(plan[event.id])
            else:
                s, t, r = self._drawn(e)
            _put(self.m, self.o, e, s, t, r, cost)
        self.cost[:2] = cost
        self.cost[2:] = cost
        n = 3 * len(self.problem.events)
        self.m[self.o[BST] : self.o[BST] + n] = self.m[self.o[ST] : self.o[ST] + n]

    def _drawn(self, e: int) -> tuple[int, int, int]:
        def one(pointers: int, values: int) -> int:
            first, last = self.m[self.o[pointers] + e], self.m[self.o[pointers] + e + 1]
            if first == last:
                return -1
            self.x[0] = np.uint64((int(self.x[0]) * 6364136223846793005 + 1442695040888963407) % 2**64 or 1)
            return int(self.m[self.o[values] + first + (int(self.x[0]) >> 33) % (last - first)])

        return one(SP, SL), one(TP, TL), one(RP, RL)

    def run(self, moves: np.ndarray, heat: int, steps: int) -> int:
        """So many tries at a temperature; returns how many were accepted."""
        return int(_steps(self.m, self.o, moves, LN, self.x, self.cost, np.int64(heat), steps))

    @property
    def now(self) -> tuple[int, int]:
        """Clashes, and cost in hundredths, of where everything is."""
        return int(self.cost[0]), int(self.cost[1]) + self._base

    @property
    def best(self) -> tuple[int, int]:
        """Clashes, and cost in hundredths, of the best that was seen."""
        return int(self.cost[2]), int(self.cost[3]) + self._base

    def plan(self, *, best: bool = True) -> dict[str, Placement]:
        """The best that was seen, or what is now."""
        first = self.o[BST] if best else self.o[ST]
        n = len(self.problem.events)
        rows = self.m[first : first + 3 * n].reshape(3, n)
        return {event.id: self._names.placement(*rows[:, e]) for e, event in enumerate(self.problem.events)}

    def _standing_cost(self) -> int:
        """What changes of cost leave out: what an empty timetable costs, and each series' first trainer and room."""
        weights, names = self.problem.weights, self._names
        days = sum(self.problem.class_days.get(cls, 0) for cls in names.classes)
        with_trainer = {names.series[e.cls, e.groups] for e in self.problem.events if e.trainers}
        with_room = {names.series[e.cls, e.groups] for e in self.problem.events if e.rooms}
        first = weights.trainer * len(with_trainer) + weights.room * len(with_room)
        return SCALE * (weights.days * days - first)


class _Names:
    """Numbers for everything that has a name."""

    def __init__(self, problem: Problem) -> None:
        def numbers(names: Any) -> dict[Any, int]:
            return {name: n for n, name in enumerate(dict.fromkeys(names))}

        events = problem.events
        self.events = numbers(event.id for event in events)
        self.groups = numbers(group for event in events for group in event.groups)
        self.trainers = numbers(trainer for event in events for trainer in event.trainers)
        self.rooms = numbers(room for event in events for room in event.rooms)
        self.classes = numbers(event.cls for event in events)
        self.series = numbers((event.cls, event.groups) for event in events)
        self._trainer, self._room = list(self.trainers), list(self.rooms)

    def numbered(self, where: Placement) -> tuple[int, int, int]:
        trainer = -1 if where.trainer is None else self.trainers.get(where.trainer, -1)
        return where.start, trainer, -1 if where.room is None else self.rooms.get(where.room, -1)

    def placement(self, start: int, trainer: int, room: int) -> Placement:
        return Placement(
            int(start), self._trainer[trainer] if trainer >= 0 else None, self._room[room] if room >= 0 else None
        )


def day_costs(problem: Problem) -> np.ndarray:
    """What a day costs a group, by the mask of its slots, in hundredths."""
    weights, told = problem.weights, []
    for mask in range(1 << problem.slots_per_day):
        slots = [slot for slot in range(problem.slots_per_day) if mask >> slot & 1]
        idle = slots[-1] + 1 - slots[0] - len(slots) if slots else 0
        isolated = sum(slot - 1 not in slots and slot + 1 not in slots for slot in slots)
        cost = weights.idle * idle + weights.isolated * isolated
        told.append(SCALE * (cost + weights.long_day * max(0, len(slots) - LONG_DAY) ** 2))
    return np.array(told, dtype=np.int32)


def _laid_out(
    problem: Problem, names: _Names, hard: int, kempe: bool, focus: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """The buffer with nothing placed, and the table of offsets and numbers."""
    events, pins, weights = problem.events, problem.pins, problem.weights
    slots = problem.days * problem.slots_per_day
    sizes = (
        len(events),
        len(names.groups),
        len(names.trainers),
        len(names.rooms),
        len(names.series),
        len(names.classes),
    )
    n_events, n_groups, n_trainers, n_rooms, n_series, n_classes = sizes
    parts: dict[int, np.ndarray] = {}
    o = np.zeros(END, dtype=np.int64)

    def rows(pointers: int, values: int, lists: Any) -> None:
        found = [list(one) for one in lists]
        parts[pointers] = np.cumsum([0, *(len(one) for one in found)])
        parts[values] = np.array([value for one in found for value in one] or [0])

    parts[DUR] = np.array([event.duration for event in events])
    parts[CLS] = np.array([names.classes[event.cls] for event in events])
    series = [names.series[event.cls, event.groups] for event in events]
    parts[SER] = np.array(series)
    rows(GP, GL, ([names.groups[g] for g in event.groups] for event in events))
    starts = [_narrowed(event.starts, pins.get(event.id), "start") for event in events]
    rows(SP, SL, starts)
    led = [_narrowed(event.trainers, pins.get(event.id), "trainer") for event in events]
    rows(TP, TL, ([names.trainers[t] for t in one] for one in led))
    parts[TSET], parts[TOK] = _sets([[names.trainers[t] for t in one] for one in led], n_trainers)

    def seated(event: Any) -> Any:
        fits = [room for room in event.rooms if weights.seat or problem.seats.get(room, event.size) >= event.size]
        return _narrowed(tuple(fits), pins.get(event.id), "room")

    held = [[names.rooms[room] for room in seated(event)] for event in events]
    rows(RP, RL, held)
    parts[RSET], parts[ROK] = _sets(held, n_rooms)
    room_costs = np.zeros((n_series, max(1, n_rooms)), dtype=np.int64)
    for event, number in zip(events, series, strict=True):
        for room in event.rooms:
            short = max(0, event.size - problem.seats.get(room, event.size))
            room_costs[number, names.rooms[room]] = SCALE * weights.seat * short
    parts[RC] = room_costs.ravel()
    parts[SET], parts[OK] = _sets(starts, slots)
    parts[CAP] = np.array([problem.group_day_caps.get(day, problem.slots_per_day) for day in range(problem.days)])

    def busy(known: dict[str, int], unavailable: Any) -> np.ndarray:
        found = np.zeros((max(1, len(known)), slots), dtype=np.int64)
        for name, closed in unavailable.items():
            if name in known:
                found[known[name], [slot for slot in closed if 0 <= slot < slots]] = 1
        return found.ravel()

    parts[GBUSY] = busy(names.groups, problem.group_busy)
    parts[TBUSY] = busy(names.trainers, problem.trainer_busy)
    parts[RBUSY] = busy(names.rooms, problem.room_busy)
    parts[TAB] = day_costs(problem)
    of_class: list[list[int]] = [[] for _ in range(n_classes)]
    of_series: list[list[int]] = [[] for _ in range(n_series)]
    of_group: list[list[int]] = [[] for _ in range(n_groups)]
    for e, event in enumerate(events):
        of_class[names.classes[event.cls]].append(e)
        of_series[series[e]].append(e)
        for group in event.groups:
            of_group[names.groups[group]].append(e)
    rows(CP, CL, of_class)
    rows(SEP, SEL, of_series)
    rows(GEP, GEL, of_group)
    later: list[list[int]] = [[] for _ in range(n_classes)]
    earlier: list[list[int]] = [[] for _ in range(n_classes)]
    for before, after in dict.fromkeys(problem.arcs):
        if before in names.classes and after in names.classes:
            later[names.classes[before]].append(names.classes[after])
            earlier[names.classes[after]].append(names.classes[before])
    rows(AP, AL, later)
    rows(IP, IL, earlier)
    parts[MIN] = np.array([problem.class_days.get(cls, 0) for cls in names.classes])
    kempe = kempe and n_series <= 2000 and all(event.duration == 1 for event in events)
    parts[KC] = _conflicts(events, names).ravel() if kempe else np.zeros(1, dtype=np.int64)
    before_plan = np.full((n_events, 3), -2, dtype=np.int64)
    change = np.zeros((n_events, 3), dtype=np.int64)
    for e, event in enumerate(events):
        if event.id in problem.before:
            before_plan[e] = names.numbered(problem.before[event.id])
            change[e] = np.array(problem.change_costs.get(event.id, (0, 0, 0))) * SCALE
    parts[FOCUS] = np.array([*focus, 0])
    parts[BEF], parts[CHG] = before_plan.ravel(), change.ravel()

    state = {
        ST: 3 * n_events, GOCC: n_groups * slots, GMASK: n_groups * problem.days, GDAY: n_groups * problem.days,
        TOCC: n_trainers * slots, TDAY: n_trainers * problem.days, TLOAD: n_trainers, ROCC: n_rooms * slots,
        CT: n_series * n_trainers, CR: n_series * n_rooms, CD: n_classes * problem.days, CDN: n_classes,
        AT: slots * n_events if kempe else 1, NAT: slots, POS: n_events, BST: 3 * n_events,
        MV: n_events, MS: n_events, MT: n_events, MR: n_events, MARK: 4 * n_events,
    }  # fmt: skip
    parts |= {name: np.zeros(max(1, size), dtype=np.int32) for name, size in state.items()}
    parts[ST] = np.full(3 * n_events, -1, dtype=np.int64)
    length = 0
    for name, values in parts.items():
        o[name] = length
        length += len(values)
    o[TR], o[RM] = o[ST] + n_events, o[ST] + 2 * n_events
    o[BTR], o[BRM] = o[BST] + n_events, o[BST] + 2 * n_events
    numbers = (
        n_events, slots, problem.slots_per_day, problem.days, n_groups, n_trainers, n_rooms, n_series, n_classes,
        n_events, int(kempe), problem.trainer_day_cap, SCALE * weights.trainer, SCALE * weights.room,
        SCALE * weights.days, weights.balance, SCALE * hard, int(bool(problem.before)),
    )  # fmt: skip
    o[list(_SCALARS)] = numbers
    o[FOCUSED] = len(focus)
    return np.concatenate([values.astype(np.int32) for values in parts.values()]), o


def _sets(candidates: Sequence[Sequence[int]], size: int) -> tuple[np.ndarray, np.ndarray]:
    """For each event the number of its set of candidates, and for each set which of so many things are in it."""
    known: dict[tuple[int, ...], int] = {}
    numbers = np.array([known.setdefault(tuple(one), len(known)) for one in candidates])
    within = np.zeros((max(1, len(known)), size), dtype=np.int64)
    for one, number in known.items():
        within[number, list(one)] = 1
    return numbers, within.ravel()


def _narrowed(candidates: tuple[Any, ...], pin: Any, part: str) -> tuple[Any, ...]:
    """The candidates, or the one that is pinned."""
    fixed = None if pin is None else getattr(pin, part)
    return candidates if fixed is None else (fixed,)


def _conflicts(events: Any, names: _Names) -> np.ndarray:
    """Which series may not be held at once: they share a group, or the one trainer that each has."""
    holders: dict[tuple[str, str], set[int]] = {}
    for event in events:
        number = names.series[event.cls, event.groups]
        for group in event.groups:
            holders.setdefault(("group", group), set()).add(number)
        if len(event.trainers) == 1:
            holders.setdefault(("trainer", event.trainers[0]), set()).add(number)
    found = np.zeros((len(names.series), len(names.series)), dtype=np.int64)
    for sharing in holders.values():
        listed = sorted(sharing)
        found[np.ix_(listed, listed)] = 1
    return found
