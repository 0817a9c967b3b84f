"""The annealing kernel: compiled loops over flat integer buffers; no floating point, no clock, no allocation.

Costs are whole hundredths. A buffer is a stretch of one of two int32 arrays (what the problem says, what the plan is),
reached through bare pointers: an array in a tuple would be reference-counted inside the loop, which costs three
quarters of the speed. A proposal is first priced by reading alone; only what is accepted is written.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

from numba import njit, types
from numba.extending import intrinsic

GIVEN = {
    "dur": "event: slots", "prof": "event: profile", "sset": "event: set of starts", "tset": "event: set of trainers",
    "rset": "event: set of rooms", "cls": "event: class", "ser": "event: series, a class and its groups",
    "old_s": "event: start before, or -1", "old_t": "", "old_r": "",
    "ch_s": "event: price of another start", "ch_t": "", "ch_r": "",
    "pg_at": "profile: its groups in pg", "pg": "group", "pn_at": "profile: profiles that clash with it", "pn": "",
    "clash": "profile × profile: 1 if they share a group", "own": "profile: 1 if it has a group",
    "ss_at": "set of starts", "ss": "start", "s_may": "set × slot: 1 if it is in the set",
    "ts_at": "set of trainers", "ts": "trainer", "t_may": "set × trainer: 1 if it is in the set",
    "rs_at": "set of rooms", "rs": "room", "r_cost": "set × room: cost, -1 if it is not in the set",
    "paid": "group: 1 if its days have a cost", "table": "mask of busy slots: cost of the day",
    "target": "group × week: slots wanted, or -1", "gcap": "group × day: most slots", "least": "class: least days",
    "ab_at": "class: classes before", "ab": "class", "aa_at": "class: classes after", "aa": "class",
    "ce_at": "class: its events", "ce": "event", "se_at": "series: its events", "se": "event",
    "c_busy": "profile × slot: groups away", "t_busy": "trainer × slot", "r_busy": "room × slot",
    "log": "-ln of a mantissa", "mv": "event that may move", "focus": "event that is tried more often",
}  # fmt: skip
"""What a problem says. A profile is a set of groups that events have in common; a set, the candidates of events."""
STATE = {
    "start": "event", "trainer": "event, -1 none", "room": "event, -1 none",
    "conf": "profile × slot: events there that share a group, and absences", "gocc": "group × slot: events",
    "gwho": "group × slot: sum of event + 1", "gmask": "group × day: busy slots",
    "gexc": "group × day: events beyond one in a slot", "gload": "group × day: slots", "gweek": "group × week: slots",
    "tocc": "trainer × slot: events and absences", "twho": "", "tday": "trainer × day: slots", "tweek": "",
    "tload": "trainer: slots", "rocc": "room × slot: events and absences", "rwho": "",
    "ser_t": "series × trainer: events", "ser_tn": "series: trainers", "ser_r": "series × room", "ser_rn": "",
    "cday": "class × day: events", "cdays": "class: days",
}  # fmt: skip
"""What a plan is, and everything that is counted of it."""
SCRATCH = ("mark", "le", "ls", "lt", "lr", "os", "ot", "orr")
SCALARS = (
    "events", "slots", "per_day", "days", "week", "weeks", "profiles", "groups", "trainers", "rooms", "series",
    "classes", "has_caps", "has_arcs", "has_targets", "has_costs", "has_least", "t_cap", "tw_cap", "single", "movable",
    "focused", "w_trainer", "w_room", "w_balance", "w_spread", "spread_free", "w_least", "halving",
)  # fmt: skip
MOVES = (
    "start", "start_room", "room", "trainer", "start_trainer", "free", "kempe", "periods", "all_trainer", "all_room",
)  # fmt: skip
"""What is proposed: another start; that and another room; …; start with free trainer and room; a Kempe chain; two
periods exchanged; all events of a series to one trainer, or room. A room that is taken makes an exchange."""
(
    START, START_ROOM, ROOM, TRAINER, START_TRAINER, FREE, KEMPE, PERIODS, ALL_TRAINER, ALL_ROOM,
) = range(len(MOVES))  # fmt: skip
LONGEST = 64
"""Events in one proposal at most."""

K = namedtuple("K", (*GIVEN, *STATE, *SCRATCH, *SCALARS))  # type: ignore[misc]


@intrinsic
def _unpack(typing: Any, given: Any, state: Any, scratch: Any, at: Any) -> Any:
    """Every stretch as a bare pointer and every scalar, from the table of offsets."""
    pointer = types.CPointer(types.int32)
    stretches = len(GIVEN) + len(STATE) + len(SCRATCH)
    bundle = types.NamedTuple((pointer,) * stretches + (types.int64,) * len(SCALARS), K)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made = [context.make_array(t)(context, builder, a) for t, a in zip(signature.args, arguments, strict=True)]
        word = context.get_constant
        told = [builder.load(builder.gep(made[3].data, [word(types.intp, i)])) for i in range(len(K._fields))]
        owner = [made[0]] * len(GIVEN) + [made[1]] * len(STATE) + [made[2]] * len(SCRATCH)
        pointers = [builder.gep(array.data, [offset]) for array, offset in zip(owner, told, strict=False)]
        return context.make_tuple(builder, signature.return_type, pointers + told[stretches:])

    return bundle(given, state, scratch, at), code


_inline = njit(forceinline=True)


def _compiled(function: Callable[..., Any]) -> Any:
    """Compiled without the interpreter's lock, and kept on disk where there is a place for it."""
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # neither the tree nor the user's cache can be written
        return njit(nogil=True)(function)


@_inline
def _put_time(k: Any, e: int, s: int, sign: int) -> None:
    """Add an event's time to the counts, or take it away."""
    d, p, c = k.dur[e], k.prof[e], k.cls[e]
    day = s // k.per_day
    for i in range(k.pn_at[p], k.pn_at[p + 1]):
        row = k.pn[i] * k.slots + s
        for j in range(row, row + d):
            k.conf[j] += sign
    for i in range(k.pg_at[p], k.pg_at[p + 1]):
        g = k.pg[i]
        row = g * k.slots + s
        cell = g * k.days + day
        for j in range(d):
            before = k.gocc[row + j]
            k.gocc[row + j] = before + sign
            k.gwho[row + j] += sign * (e + 1)
            bit = 1 << (s - day * k.per_day + j)
            if sign > 0:
                if before == 0:
                    k.gmask[cell] |= bit
                else:
                    k.gexc[cell] += 1
            elif before == 1:
                k.gmask[cell] &= ~bit
            else:
                k.gexc[cell] -= 1
        k.gload[cell] += sign * d
        k.gweek[g * k.weeks + day // k.week] += sign * d
    if k.has_least != 0:
        cell = c * k.days + day
        before = k.cday[cell]
        k.cday[cell] = before + sign
        if before + sign == 0:
            k.cdays[c] -= 1
        elif before == 0:
            k.cdays[c] += 1


@_inline
def _put_trainer(k: Any, e: int, s: int, t: int, sign: int) -> None:
    d = k.dur[e]
    row = t * k.slots + s
    for j in range(row, row + d):
        k.tocc[j] += sign
        k.twho[j] += sign * (e + 1)
    day = s // k.per_day
    k.tday[t * k.days + day] += sign * d
    k.tweek[t * k.weeks + day // k.week] += sign * d
    k.tload[t] += sign * d
    cell = k.ser[e] * k.trainers + t
    before = k.ser_t[cell]
    k.ser_t[cell] = before + sign
    if before + sign == 0:
        k.ser_tn[k.ser[e]] -= 1
    elif before == 0:
        k.ser_tn[k.ser[e]] += 1


@_inline
def _put_room(k: Any, e: int, s: int, r: int, sign: int) -> None:
    row = r * k.slots + s
    for j in range(row, row + k.dur[e]):
        k.rocc[j] += sign
        k.rwho[j] += sign * (e + 1)
    cell = k.ser[e] * k.rooms + r
    before = k.ser_r[cell]
    k.ser_r[cell] = before + sign
    if before + sign == 0:
        k.ser_rn[k.ser[e]] -= 1
    elif before == 0:
        k.ser_rn[k.ser[e]] += 1


@_inline
def _set(k: Any, e: int, s: int, t: int, r: int) -> None:
    """Move an event and keep every count."""
    s1, t1, r1 = k.start[e], k.trainer[e], k.room[e]
    if t1 >= 0 and (s != s1 or t != t1):
        _put_trainer(k, e, s1, t1, -1)
        _put_trainer(k, e, s, t, 1)
    if r1 >= 0 and (s != s1 or r != r1):
        _put_room(k, e, s1, r1, -1)
        _put_room(k, e, s, r, 1)
    if s != s1:
        _put_time(k, e, s1, -1)
        _put_time(k, e, s, 1)
    k.start[e] = s
    k.trainer[e] = t
    k.room[e] = r


@_inline
def _over(load: int, cap: int) -> int:
    return load - cap if load > cap else 0


@_inline
def _hard_time(k: Any, e: int, s: int) -> int:
    """Change of clashes within groups if the event began at s (rules H2, H7, H8)."""
    s1, d, p = k.start[e], k.dur[e], k.prof[e]
    row = p * k.slots
    found = 0
    for i in range(d):
        found += k.conf[row + s + i] - k.conf[row + s1 + i]
    apart = s - s1 if s > s1 else s1 - s
    found += k.own[p] * (apart if apart < d else d)
    if k.has_caps != 0:
        day1, day = s1 // k.per_day, s // k.per_day
        if day1 != day:
            for i in range(k.pg_at[p], k.pg_at[p + 1]):
                a, b = k.pg[i] * k.days + day1, k.pg[i] * k.days + day
                found += _over(k.gload[a] - d, k.gcap[a]) - _over(k.gload[a], k.gcap[a])
                found += _over(k.gload[b] + d, k.gcap[b]) - _over(k.gload[b], k.gcap[b])
    if k.has_arcs != 0:
        c = k.cls[e]
        for i in range(k.ab_at[c], k.ab_at[c + 1]):
            for j in range(k.ce_at[k.ab[i]], k.ce_at[k.ab[i] + 1]):
                end = k.start[k.ce[j]] + k.dur[k.ce[j]]
                found += (end > s) - (end > s1)
        for i in range(k.aa_at[c], k.aa_at[c + 1]):
            for j in range(k.ce_at[k.aa[i]], k.ce_at[k.aa[i] + 1]):
                begin = k.start[k.ce[j]]
                found += (s + d > begin) - (s1 + d > begin)
    return found


@_inline
def _hard_rest(k: Any, e: int, s: int, t: int, r: int) -> int:
    """Change of clashes and excesses of trainers and rooms (rules H3 to H6)."""
    s1, t1, r1, d = k.start[e], k.trainer[e], k.room[e], k.dur[e]
    apart = s - s1 if s > s1 else s1 - s
    overlap = d - apart if apart < d else 0
    found = 0
    if t1 >= 0 and (s != s1 or t != t1):
        a, b = t1 * k.slots + s1, t * k.slots + s
        for i in range(d):
            found += k.tocc[b + i] - k.tocc[a + i] + 1
        if t == t1:
            found -= overlap
        day1, day = s1 // k.per_day, s // k.per_day
        if t != t1 or day != day1:
            a, b = k.tday[t1 * k.days + day1], k.tday[t * k.days + day]
            found += _over(a - d, k.t_cap) - _over(a, k.t_cap) + _over(b + d, k.t_cap) - _over(b, k.t_cap)
            if t != t1 or day // k.week != day1 // k.week:
                a, b = k.tweek[t1 * k.weeks + day1 // k.week], k.tweek[t * k.weeks + day // k.week]
                found += _over(a - d, k.tw_cap) - _over(a, k.tw_cap) + _over(b + d, k.tw_cap) - _over(b, k.tw_cap)
    if r1 >= 0 and (s != s1 or r != r1):
        a, b = r1 * k.slots + s1, r * k.slots + s
        for i in range(d):
            found += k.rocc[b + i] - k.rocc[a + i] + 1
        if r == r1:
            found -= overlap
    return found


@_inline
def _slow_day(k: Any, g: int, day: int, taken: int, added: int) -> int:
    """The cost of a group's day on which events overlap, once some bits are taken away and some added."""
    mask = 0
    row = g * k.slots + day * k.per_day
    for i in range(k.per_day):
        if k.gocc[row + i] - ((taken >> i) & 1) + ((added >> i) & 1) > 0:
            mask |= 1 << i
    return k.table[mask]


@_inline
def _day_change(k: Any, g: int, day: int, taken: int, added: int) -> int:
    """Change of the cost of a group's day when an event leaves some of its slots and comes into others."""
    cell = g * k.days + day
    mask = k.gmask[cell]
    if k.gexc[cell] == 0:
        return k.table[(mask & ~taken) | added] - k.table[mask]
    return _slow_day(k, g, day, taken, added) - k.table[mask]


@_inline
def _off_target(k: Any, load: int, target: int) -> int:
    apart = load - target if load > target else target - load
    return k.w_spread * (apart - k.spread_free) if apart > k.spread_free else 0


@_inline
def _soft(k: Any, e: int, s: int, t: int, r: int) -> int:
    """Change of the soft cost if the event were so placed."""
    s1, t1, r1, d = k.start[e], k.trainer[e], k.room[e], k.dur[e]
    found = 0
    if s != s1:
        day1, day = s1 // k.per_day, s // k.per_day
        p = k.prof[e]
        if k.has_costs != 0:
            bits = (1 << d) - 1
            bits1, bits2 = bits << (s1 - day1 * k.per_day), bits << (s - day * k.per_day)
            for i in range(k.pg_at[p], k.pg_at[p + 1]):
                g = k.pg[i]
                if k.paid[g] != 0:
                    # one call in a loop: inlined once
                    for part in range(1 if day == day1 else 2):
                        taken = bits1 if part == 0 else 0
                        added = bits2 if part == 1 or day == day1 else 0
                        found += _day_change(k, g, day1 if part == 0 else day, taken, added)
        if k.ch_s[e] != 0:
            found += k.ch_s[e] * ((s != k.old_s[e]) - (s1 != k.old_s[e]))
        if day != day1:
            if k.has_least != 0:
                c = k.cls[e]
                n = k.cdays[c]
                m = n - (k.cday[c * k.days + day1] == 1) + (k.cday[c * k.days + day] == 0)
                found += k.w_least * (_over(k.least[c], m) - _over(k.least[c], n))
            week1, week = day1 // k.week, day // k.week
            if k.has_targets != 0 and week1 != week:
                for i in range(k.pg_at[p], k.pg_at[p + 1]):
                    a, b = k.pg[i] * k.weeks + week1, k.pg[i] * k.weeks + week
                    if k.target[a] >= 0:
                        found += _off_target(k, k.gweek[a] - d, k.target[a]) - _off_target(k, k.gweek[a], k.target[a])
                    if k.target[b] >= 0:
                        found += _off_target(k, k.gweek[b] + d, k.target[b]) - _off_target(k, k.gweek[b], k.target[b])
    if t != t1:
        row = k.ser[e] * k.trainers
        found += k.w_trainer * ((k.ser_t[row + t] == 0) - (k.ser_t[row + t1] == 1))
        found += k.w_balance * 2 * d * (k.tload[t] - k.tload[t1] + d)
        if k.ch_t[e] != 0:
            found += k.ch_t[e] * ((t != k.old_t[e]) - (t1 != k.old_t[e]))
    if r != r1:
        row = k.ser[e] * k.rooms
        found += k.w_room * ((k.ser_r[row + r] == 0) - (k.ser_r[row + r1] == 1))
        row = k.rset[e] * k.rooms
        found += k.r_cost[row + r] - k.r_cost[row + r1]
        if k.ch_r[e] != 0:
            found += k.ch_r[e] * ((r != k.old_r[e]) - (r1 != k.old_r[e]))
    return found


@_inline
def _join(k: Any, size: int, stamp: int, e: int, s: int) -> int:
    """Let an event be the next in the proposal; -1 where it cannot begin there."""
    if size >= LONGEST or s < 0 or s >= k.slots or k.s_may[k.sset[e] * k.slots + s] == 0:
        return -1
    k.mark[e] = stamp
    k.le[size] = e
    k.ls[size] = s
    k.lt[size] = k.trainer[e]
    k.lr[size] = k.room[e]
    return size + 1


@_inline
def _chain(k: Any, e: int, s: int, stamp: int) -> int:
    """A Kempe chain: the event goes to s, and whatever clashes with it there goes the other way, and so on.

    Events of another length keep their distance in time. Returns the number of events, or -1.
    """
    size = _join(k, 0, stamp, e, s)
    at = 0
    while 0 <= at < size:
        x, to = k.le[at], k.ls[at]
        by = to - k.start[x]
        p, d = k.prof[x], k.dur[x]
        groups = k.pg_at[p + 1] - k.pg_at[p]
        holders = groups + (1 if k.trainer[x] >= 0 else 0)
        clashing = groups > 0
        if clashing:
            clashing = False
            row = p * k.slots + to
            for i in range(d):
                if k.conf[row + i] > 0:
                    clashing = True
        for h in range(0 if clashing else groups, holders):
            if size < 0:
                break
            mine = h < groups
            row = (k.pg[k.pg_at[p] + h] if mine else k.trainer[x]) * k.slots + to
            for i in range(d):
                n = k.gocc[row + i] if mine else k.tocc[row + i]
                y = (k.gwho[row + i] if mine else k.twho[row + i]) - 1
                if n == 1 and y >= 0:
                    if at == 0 and k.ser[y] == k.ser[e] and k.dur[y] == d and k.start[y] == to:
                        size = -1  # the two would only change names
                        break
                    if k.mark[y] != stamp:
                        size = _join(k, size, stamp, y, k.start[y] - by)
                        if size < 0:
                            break
                elif n > 0:
                    size = -1
                    break
        at += 1
    return size


@_inline
def _exchange(k: Any, s1: int, s2: int, stamp: int) -> int:
    """Everything in two slots changes sides, rooms kept; only where every event has one slot and a room."""
    size = 0
    for r in range(k.rooms):
        for side in range(2):
            at, to = (s1, s2) if side == 0 else (s2, s1)
            if k.rocc[r * k.slots + at] == 1 and k.rwho[r * k.slots + at] > 0 and size >= 0:
                size = _join(k, size, stamp, k.rwho[r * k.slots + at] - 1, to)
    return size


@_inline
def _house(k: Any, size: int, stamp: int) -> int:
    """Give each event of a chain a room that will be free: its own if it can, else the cheapest; -1 where none is."""
    for j in range(size):
        e, s = k.le[j], k.ls[j]
        if k.room[e] < 0:
            continue
        d, p = k.dur[e], k.rset[e]
        best, price = -1, 1 << 60
        low, high = k.rs_at[p], k.rs_at[p + 1]
        for i in range(low - 1, high):
            r = k.room[e] if i < low else k.rs[i]
            cost = k.r_cost[p * k.rooms + r]
            if i >= low:
                cost += k.w_room * (k.ser_r[k.ser[e] * k.rooms + r] == 0)
            if cost >= price:
                continue
            free = True
            row = r * k.slots + s
            for n in range(d):
                if k.rocc[row + n] > 0:
                    y = k.rwho[row + n] - 1
                    if k.rocc[row + n] > 1 or y < 0 or k.mark[y] != stamp:
                        free = False
            if free:
                for n in range(j):
                    f = k.le[n]
                    if k.lr[n] == r and k.ls[n] < s + d and s < k.ls[n] + k.dur[f]:
                        free = False
            if free:
                best, price = r, cost
                if i < low and cost == 0:
                    break
        if best < 0:
            return -1
        k.lr[j] = best
    return size


@_inline
def _may(k: Any, e: int, s: int, r: int) -> bool:
    """Whether an event may begin at a slot and be in a room."""
    return k.s_may[k.sset[e] * k.slots + s] != 0 and k.r_cost[k.rset[e] * k.rooms + r] >= 0


@_inline
def _taken(occupied: Any, row: int, d: int) -> int:
    found = 0
    for i in range(row, row + d):
        found += occupied[i]
    return found


@_inline
def _next(x: Any) -> Any:
    """The next state of a 64-bit xorshift generator."""
    x ^= x << types.uint64(13)
    x ^= x >> types.uint64(7)
    x ^= x << types.uint64(17)
    return x


@_inline
def _below(x: Any, n: int) -> int:
    """A number below n, from the state's upper half."""
    return types.int64(((x >> types.uint64(32)) * types.uint64(n)) >> types.uint64(32))


@_inline
def _draw(k: Any, x: Any, temperature: int) -> int:
    """How much worse a move may be: -T ln u in hundredths, T in 1/256 of a hundredth."""
    u = types.int64(x >> types.uint64(32)) | 1
    found = 0
    while u < 0x80000000:
        u <<= 1
        found += k.halving
    return ((found + k.log[(u >> 23) & 255]) * temperature) >> 24


@_compiled
def fill(given: Any, state: Any, scratch: Any, at: Any) -> None:
    """Count everything anew from where the events are."""
    k = _unpack(given, state, scratch, at)
    for i in range(k.profiles * k.slots):
        k.conf[i] = k.c_busy[i]
    for i in range(k.groups * k.slots):
        k.gocc[i] = 0
        k.gwho[i] = 0
    for i in range(k.groups * k.days):
        k.gmask[i] = 0
        k.gexc[i] = 0
        k.gload[i] = 0
    for i in range(k.groups * k.weeks):
        k.gweek[i] = 0
    for i in range(k.trainers * k.slots):
        k.tocc[i] = k.t_busy[i]
        k.twho[i] = 0
    for i in range(k.trainers * k.days):
        k.tday[i] = 0
    for i in range(k.trainers * k.weeks):
        k.tweek[i] = 0
    for i in range(k.trainers):
        k.tload[i] = 0
    for i in range(k.rooms * k.slots):
        k.rocc[i] = k.r_busy[i]
        k.rwho[i] = 0
    for i in range(k.series):
        k.ser_tn[i] = 0
        k.ser_rn[i] = 0
        for j in range(k.trainers):
            k.ser_t[i * k.trainers + j] = 0
        for j in range(k.rooms):
            k.ser_r[i * k.rooms + j] = 0
    for i in range(k.classes):
        k.cdays[i] = 0
        for j in range(k.days):
            k.cday[i * k.days + j] = 0
    for e in range(k.events):
        _put_time(k, e, k.start[e], 1)
        if k.trainer[e] >= 0:
            _put_trainer(k, e, k.start[e], k.trainer[e], 1)
        if k.room[e] >= 0:
            _put_room(k, e, k.start[e], k.room[e], 1)


@_compiled
def counted(given: Any, state: Any, scratch: Any, at: Any, out: Any) -> None:
    """Violations, and cost, read from the counts."""
    k = _unpack(given, state, scratch, at)
    hard = soft = pairs = 0
    for e in range(k.events):
        s, t, r, d, p = k.start[e], k.trainer[e], k.room[e], k.dur[e], k.prof[e]
        for i in range(d):  # a clash of two is seen from both, an absence from one
            busy = k.c_busy[p * k.slots + s + i]
            pairs += k.conf[p * k.slots + s + i] - k.own[p] + busy
            if t >= 0:
                pairs += k.tocc[t * k.slots + s + i] - 1 + k.t_busy[t * k.slots + s + i]
            if r >= 0:
                pairs += k.rocc[r * k.slots + s + i] - 1 + k.r_busy[r * k.slots + s + i]
        c = k.cls[e]
        for i in range(k.ab_at[c], k.ab_at[c + 1]):
            for j in range(k.ce_at[k.ab[i]], k.ce_at[k.ab[i] + 1]):
                hard += k.start[k.ce[j]] + k.dur[k.ce[j]] > s
        soft += k.ch_s[e] * (s != k.old_s[e])
        if t >= 0:
            soft += k.ch_t[e] * (t != k.old_t[e])
        if r >= 0:
            soft += k.r_cost[k.rset[e] * k.rooms + r] + k.ch_r[e] * (r != k.old_r[e])
    for t in range(k.trainers):
        soft += k.w_balance * k.tload[t] * k.tload[t]
        for i in range(k.days):
            hard += _over(k.tday[t * k.days + i], k.t_cap)
        for i in range(k.weeks):
            hard += _over(k.tweek[t * k.weeks + i], k.tw_cap)
    for g in range(k.groups):
        for i in range(k.days):
            hard += _over(k.gload[g * k.days + i], k.gcap[g * k.days + i])
            if k.paid[g] != 0:
                soft += k.table[k.gmask[g * k.days + i]]
        for i in range(k.weeks):
            if k.target[g * k.weeks + i] >= 0:
                soft += _off_target(k, k.gweek[g * k.weeks + i], k.target[g * k.weeks + i])
    for i in range(k.series):
        soft += k.w_trainer * _over(k.ser_tn[i], 1) + k.w_room * _over(k.ser_rn[i], 1)
    for c in range(k.classes):
        soft += k.w_least * _over(k.least[c], k.cdays[c])
    out[0], out[1] = hard + pairs // 2, soft


@_compiled
def chunk(given: Any, state: Any, scratch: Any, best: Any, at: Any, seed: Any, run: Any, out: Any) -> None:
    """So many proposals at one temperature.

    run: proposals, temperature (1/256 of a hundredth), price of a violation, slack of the early refusal, upper bounds
    of MOVES in 1/1024. out: violations and cost now, the least found, proposals and accepted ones so far, stamp.
    """
    k = _unpack(given, state, scratch, at)
    x = seed[0]
    temperature, weight, slack = run[1], run[2], run[3]
    hard, soft, best_hard, best_soft = out[0], out[1], out[2], out[3]
    accepted, stamp = out[5], out[6]
    if stamp > 1 << 30:  # marks are 32 bits wide, and an hour makes more chains than that
        stamp = 0
        for e in range(k.events):
            k.mark[e] = 0
    for _ in range(run[0]):
        x = _next(x)
        pick = types.int64(x & types.uint64(2047))
        e = k.focus[_below(x, k.focused)] if pick > 1023 and k.focused != 0 else k.mv[_below(x, k.movable)]
        pick &= 1023
        x = _next(x)
        limit = _draw(k, x, temperature)
        move = 0
        while pick >= run[4 + move]:
            move += 1
        s, t, r = k.start[e], k.trainer[e], k.room[e]
        d = k.dur[e]
        s1 = s
        if move <= START_ROOM or START_TRAINER <= move <= PERIODS:
            x = _next(x)
            p = k.sset[e]
            s = k.ss[k.ss_at[p] + _below(x, k.ss_at[p + 1] - k.ss_at[p])]
        if START_ROOM <= move <= ROOM and r >= 0:
            x = _next(x)
            p = k.rset[e]
            r = k.rs[k.rs_at[p] + _below(x, k.rs_at[p + 1] - k.rs_at[p])]
        if TRAINER <= move <= START_TRAINER and t >= 0:
            x = _next(x)
            p = k.tset[e]
            t = k.ts[k.ts_at[p] + _below(x, k.ts_at[p + 1] - k.ts_at[p])]
        size = 1
        if move == FREE:
            for _try in range(6):
                if r < 0 or _taken(k.rocc, r * k.slots + s, d) == 0:
                    break
                x = _next(x)
                p = k.rset[e]
                r = k.rs[k.rs_at[p] + _below(x, k.rs_at[p + 1] - k.rs_at[p])]
            for _try in range(6):
                if t < 0 or _taken(k.tocc, t * k.slots + s, d) == 0:
                    break
                x = _next(x)
                p = k.tset[e]
                t = k.ts[k.ts_at[p] + _below(x, k.ts_at[p + 1] - k.ts_at[p])]
        elif move == KEMPE:
            if s == s1:
                continue
            stamp += 1
            size = _chain(k, e, s, stamp)
            if size > 0:
                size = _house(k, size, stamp)
        elif move == PERIODS:
            if s == s1 or k.single == 0:
                continue
            stamp += 1
            size = _exchange(k, s1, s, stamp)
        elif move >= ALL_TRAINER:
            x = _next(x)
            series = k.ser[e]
            if move == ALL_TRAINER:
                if t < 0:
                    continue
                p = k.tset[e]
                t = k.ts[k.ts_at[p] + _below(x, k.ts_at[p + 1] - k.ts_at[p])]
            else:
                if r < 0:
                    continue
                p = k.rset[e]
                r = k.rs[k.rs_at[p] + _below(x, k.rs_at[p + 1] - k.rs_at[p])]
            size = 0
            for i in range(k.se_at[series], k.se_at[series + 1]):
                f = k.se[i]
                if size >= LONGEST or size < 0:
                    size = -1
                elif move == ALL_TRAINER and k.trainer[f] != t:
                    if k.t_may[k.tset[f] * k.trainers + t] == 0:
                        size = -1
                    else:
                        k.le[size], k.ls[size], k.lt[size], k.lr[size] = f, k.start[f], t, k.room[f]
                        size += 1
                elif move == ALL_ROOM and k.room[f] != r:
                    if k.r_cost[k.rset[f] * k.rooms + r] < 0:
                        size = -1
                    else:
                        k.le[size], k.ls[size], k.lt[size], k.lr[size] = f, k.start[f], k.trainer[f], r
                        size += 1
        if size <= 0:
            continue
        if move <= FREE:
            if s == s1 and t == k.trainer[e] and r == k.room[e]:
                continue
            change = _hard_time(k, e, s) if s != s1 else 0
            f = -1
            if r >= 0 and move <= ROOM and k.rocc[r * k.slots + s] == 1:
                f = k.rwho[r * k.slots + s] - 1
                if f < 0 or f == e or k.dur[f] != d or k.start[f] != s or not _may(k, f, s1, k.room[e]):
                    f = -1
            k.le[0], k.ls[0], k.lt[0], k.lr[0] = e, s, t, r
            if f >= 0:
                k.le[1], k.ls[1], k.lt[1], k.lr[1] = f, s1, k.trainer[f], k.room[e]
                size = 2
                if s != s1:
                    if k.clash[k.prof[e] * k.profiles + k.prof[f]] != 0:
                        change -= 2 * d
                    p = k.prof[f] * k.slots
                    for i in range(d):
                        change += k.conf[p + s1 + i] - k.conf[p + s + i]
                    change += k.own[k.prof[f]] * d
            if weight * change > limit + slack:
                continue
        more_hard = more_soft = 0
        done = 0
        taken = True
        for j in range(size):
            f, s, t, r = k.le[j], k.ls[j], k.lt[j], k.lr[j]
            if s != k.start[f]:
                more_hard += _hard_time(k, f, s)
            more_hard += _hard_rest(k, f, s, t, r)
            if j == size - 1 and weight * more_hard + more_soft > limit + slack:
                taken = False
                break
            more_soft += _soft(k, f, s, t, r)
            if j == size - 1 and weight * more_hard + more_soft > limit:
                taken = False
                break
            k.os[j], k.ot[j], k.orr[j] = k.start[f], k.trainer[f], k.room[f]
            _set(k, f, s, t, r)
            done += 1
        if not taken:
            while done > 0:
                done -= 1
                _set(k, k.le[done], k.os[done], k.ot[done], k.orr[done])
            continue
        accepted += 1
        hard += more_hard
        soft += more_soft
        if hard < best_hard or (hard == best_hard and soft < best_soft):
            best_hard, best_soft = hard, soft
            for i in range(3 * k.events):
                best[i] = k.start[i]
    seed[0] = x
    out[0], out[1], out[2], out[3] = hard, soft, best_hard, best_soft
    out[4] += run[0]
    out[5], out[6] = accepted, stamp
