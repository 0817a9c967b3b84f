"""The annealing kernel: every move of it compiled, whole numbers only, the same on every machine for the same seed.

All that a search needs lies in one flat buffer of 32-bit numbers, found by a table of offsets: compiled code that is
handed many arrays spends more on counting their references than on the search. A move takes some events away, puts them
elsewhere, and puts them back when the change is not accepted; `_place` alone knows what an event costs where it is.
"""

from __future__ import annotations

from collections.abc import Callable
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

# Where what lies in the buffer.
(
    DUR, CLS, SER, SET, GP, GL, SP, SL, TP, TL, RP, RL, RC, OK, CAP, GBUSY, TBUSY, RBUSY, TAB,
    CP, CL, SEP, SEL, AP, AL, IP, IL, MIN, KC, GEP, GEL,
    ST, TR, RM, GOCC, GMASK, GDAY, TOCC, TDAY, TLOAD, ROCC, CT, CR, CD, CDN, AT, NAT, POS,
    BST, BTR, BRM, MV, MS, MT, MR, MARK, BEF, CHG,
    E, S, P, D, G, T, R, N, C, M, KEMPE, TCAP, W_TRAINER, W_ROOM, W_DAYS, W_BALANCE, HARD, CHANGED, END,
) = range(77)  # fmt: skip
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
    """So many tries at one temperature. `cost`: clashes and cost now, then those of the best. Returns those accepted."""
    accepted = 0
    delta = np.zeros(2, dtype=np.int64)
    events = o[E]
    for _ in range(steps):
        e = _below(x, events)
        s = m[o[ST] + e]
        t = m[o[TR] + e]
        r = m[o[RM] + e]
        draw = _below(x, 1024)
        n = 0
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
                            if m[o[OK] + m[o[SET] + f] * o[S] + s] == 0:
                                n = 0
                            else:
                                m[o[MV] + 1] = f
                                m[o[MS] + 1] = s
                                m[o[MT] + 1] = m[o[TR] + f]
                                m[o[MR] + 1] = m[o[RM] + e]
                                n = 2
                            break
        if n == 0:
            continue
        delta[0] = 0
        delta[1] = 0
        for phase in range(2):
            for i in range(n):
                f = m[o[MV] + i]
                if phase == 0:
                    a = m[o[ST] + f]
                    b = m[o[TR] + f]
                    c = m[o[RM] + f]
                    d = m[o[MS] + i]
                    sign = -1
                else:
                    d = m[o[MV] + i]
                    a = m[o[MS] + i]
                    b = m[o[MT] + i]
                    c = m[o[MR] + i]
                    if c == -2:
                        c = _free_room(m, o, x, f, a, m[o[RM] + f])
                    sign = 1
                # Where it was lies in the marks' second half until the change is accepted.
                if phase == 0:
                    m[o[MARK] + events + 3 * i] = a
                    m[o[MARK] + events + 3 * i + 1] = b
                    m[o[MARK] + events + 3 * i + 2] = c
                _place(m, o, f, a, b, c, sign, delta)
        change = delta[0] * o[HARD] + delta[1]
        if change <= 0 or (change << (_LN_BITS + _T_BITS)) <= heat * ln[_below(x, ln.size)]:
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
                    if phase == 0:
                        _a = m[o[ST] + f]
                        _b = m[o[TR] + f]
                        _c = m[o[RM] + f]
                        sign = -1
                    else:
                        _a = m[o[MARK] + events + 3 * i]
                        _b = m[o[MARK] + events + 3 * i + 1]
                        _c = m[o[MARK] + events + 3 * i + 2]
                        sign = 1
                    _place(m, o, f, _a, _b, _c, sign, delta)
    return accepted


@njit(nogil=True, cache=True)
def _put(m: Any, o: Any, e: Any, s: Any, t: Any, r: Any, cost: Any) -> None:
    """Put one event that lies nowhere yet."""
    _place(m, o, e, s, t, r, 1, cost)
