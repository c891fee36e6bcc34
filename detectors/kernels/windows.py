"""Sliding windows over keys, of fixed capacity: the table, the log of rows and the clock that each judge partition owns.

The log is the truth: one row per key and tick with its measures. A key's running sums per window are a cache of it, moved
on as ticks close. Every row is touched when it arrives, when its tick closes and once per window that it leaves, so the
cost does not depend on how long windows are, and nothing is estimated.

Bounds: the table of keys probes a window of PROBES slots and, where all are taken, gives up the lightest of them; the log
gives up the lightest keys when it is full. Either way a whole key goes, with all its rows, and its return starts from
nothing: a sum is exact or a lower bound, never more. `AGED_OUT` counts them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from schemas.fields import Dimension
from schemas.tally import NAME_BYTES_MAX

U64 = np.uint64
I64Array = npt.NDArray[np.int64]

PROBES = 32
"""Slots that a key may lie in: two cache lines of tags. At 50 % load the chance that all are taken is below 1e-9."""
EMPTY, TOMBSTONE = np.uint32(0), np.uint32(1)
TAG_BIT = np.uint32(1 << 31)
NO_ROW = -1
FREE, DEAD = -1, -2
"""Values of ``row_slot``: on the free list, and in a tick's chain while its key is gone."""
NEVER = -(2**62)

CLOSED, FREE_HEAD, ROWS_USED, KEYS_USED, AGED_OUT, AGED_TICK, STRAGGLERS, MUTED, SCALARS = range(9)
D_SERVICE = int(Dimension.SERVICE)


class Rules(NamedTuple):
    """What is summed and compared, by dimension. ``spec``: a measure over a window longer than a tick."""

    tracked: I64Array  # i64[M]: measures that the log keeps; the first is REQUESTS
    span: I64Array  # i64[D]: the longest window of a dimension; 0: the dimension is not judged
    spec_count: I64Array  # i64[D]
    spec_column: I64Array  # i64[D, S]: column of ``tracked``
    spec_window: I64Array  # i64[D, S], seconds
    rule_count: I64Array  # i64[D]
    rule_column: I64Array  # i64[D, R]
    rule_spec: I64Array  # i64[D, R]: index of its spec; -1: the tick itself is the window
    rule_window: I64Array  # i64[D, R], seconds
    rule_limit: I64Array  # i64[D, R]
    renew_s: I64Array  # i64[1]


class Windows(NamedTuple):
    """The state of the judge partitions. Every array has them as its first axis, left out in these comments: the kernels
    below take one partition's part (`part_kernel`), those whose names begin with ``all_`` take the whole."""

    tag: npt.NDArray[np.uint32]  # u32[C + PROBES + 1]
    key_hash: npt.NDArray[np.uint64]  # u64[C + PROBES]
    key_a: npt.NDArray[np.uint64]
    key_b: npt.NDArray[np.uint64]
    key_dimension: npt.NDArray[np.uint8]
    weight: I64Array  # requests in the log
    newest: npt.NDArray[np.int32]  # its newest row
    row_count: npt.NDArray[np.int32]
    sums: I64Array  # i64[C + PROBES, S + 1]: over closed ticks; the last counts the key's closed rows
    fired: I64Array  # i64[C + PROBES, R]: the cell in which a rule last fired
    fired_early: I64Array
    names: npt.NDArray[np.uint8]  # u8[C + PROBES, NAME_BYTES_MAX]
    name_length: npt.NDArray[np.uint8]
    row_slot: npt.NDArray[np.int32]  # i32[N]
    row_tick: I64Array
    row_next: npt.NDArray[np.int32]  # in its tick's chain, or in the free list
    row_older: npt.NDArray[np.int32]  # the key's row before it; see `older_kernel`
    row_values: I64Array  # i64[N, M]
    heads: npt.NDArray[np.int32]  # i32[D, T]: the chain of a dimension and tick
    counts: npt.NDArray[np.int32]  # i32[D, T]: its length, rows of dead keys included
    active: I64Array  # i64[D]: keys with a closed row
    scalars: I64Array  # i64[SCALARS]


class Crossings(NamedTuple):
    """What ticks had over a limit; the caller owns the arrays."""

    partition: I64Array
    dimension: I64Array
    key_a: npt.NDArray[np.uint64]
    key_b: npt.NDArray[np.uint64]
    rule: I64Array
    tick: I64Array
    observed: I64Array
    requests: I64Array  # of the key in the tick
    active: I64Array  # keys of its dimension with a closed row, in its partition, once the tick is closed
    name_length: I64Array
    names: npt.NDArray[np.uint8]  # u8[n, NAME_BYTES_MAX]


def allocate_windows(rules: Rules, *, partitions: int, keys: int, rows: int, ticks: int) -> Windows:
    """Empty windows.

    Args:
        keys: capacity of each partition's table, a power of two.
        rows: capacity of each partition's log.
        ticks: capacity of the ring of ticks, a power of two, at least the longest window and the horizon together.
    """
    slots = keys + PROBES
    specs = rules.spec_column.shape[1]
    dimensions, many_rules = rules.rule_column.shape
    free = np.arange(1, rows + 1, dtype=np.int32)
    free[-1] = NO_ROW
    scalars = np.zeros((partitions, SCALARS), np.int64)
    scalars[:, [CLOSED, AGED_TICK, MUTED]] = NEVER
    return Windows(
        tag=np.zeros((partitions, slots + 1), np.uint32),
        key_hash=np.zeros((partitions, slots), np.uint64),
        key_a=np.zeros((partitions, slots), np.uint64),
        key_b=np.zeros((partitions, slots), np.uint64),
        key_dimension=np.zeros((partitions, slots), np.uint8),
        weight=np.zeros((partitions, slots), np.int64),
        newest=np.zeros((partitions, slots), np.int32),
        row_count=np.zeros((partitions, slots), np.int32),
        sums=np.zeros((partitions, slots, specs + 1), np.int64),
        fired=np.zeros((partitions, slots, many_rules), np.int64),
        fired_early=np.zeros((partitions, slots, many_rules), np.int64),
        names=np.zeros((partitions, slots, NAME_BYTES_MAX), np.uint8),
        name_length=np.zeros((partitions, slots), np.uint8),
        row_slot=np.full((partitions, rows), FREE, np.int32),
        row_tick=np.full((partitions, rows), NEVER, np.int64),
        row_next=np.tile(free, (partitions, 1)),
        row_older=np.full((partitions, rows), NO_ROW, np.int32),
        row_values=np.zeros((partitions, rows, len(rules.tracked)), np.int64),
        heads=np.full((partitions, dimensions, ticks), NO_ROW, np.int32),
        counts=np.zeros((partitions, dimensions, ticks), np.int32),
        active=np.zeros((partitions, dimensions), np.int64),
        scalars=scalars,
    )


def allocate_crossings(capacity: int) -> Crossings:
    """Room for ``capacity`` crossings."""
    return Crossings(
        partition=np.zeros(capacity, np.int64),
        dimension=np.zeros(capacity, np.int64),
        key_a=np.zeros(capacity, np.uint64),
        key_b=np.zeros(capacity, np.uint64),
        rule=np.zeros(capacity, np.int64),
        tick=np.zeros(capacity, np.int64),
        observed=np.zeros(capacity, np.int64),
        requests=np.zeros(capacity, np.int64),
        active=np.zeros(capacity, np.int64),
        name_length=np.zeros(capacity, np.int64),
        names=np.zeros((capacity, NAME_BYTES_MAX), np.uint8),
    )


@njit(cache=True, nogil=True)
def part_kernel(w: Any, p: Any) -> Any:
    """The windows of partition ``p`` (views)."""
    return Windows(
        w.tag[p], w.key_hash[p], w.key_a[p], w.key_b[p], w.key_dimension[p], w.weight[p], w.newest[p], w.row_count[p],
        w.sums[p], w.fired[p], w.fired_early[p], w.names[p], w.name_length[p], w.row_slot[p], w.row_tick[p],
        w.row_next[p], w.row_older[p], w.row_values[p], w.heads[p], w.counts[p], w.active[p], w.scalars[p],
    )  # fmt: skip


@njit(cache=True, nogil=True)
def older_kernel(w: Any, row: Any) -> Any:
    """The row of the same key before ``row``, or NO_ROW.

    Links are not mended when the older row is freed: one is good only while it leads to an older tick of the same key.
    """
    older = w.row_older[row]
    if older >= 0 and w.row_slot[older] == w.row_slot[row] and w.row_tick[older] < w.row_tick[row]:
        return older
    return np.int32(NO_ROW)


@njit(cache=True, nogil=True)
def find_key_kernel(w: Any, h: Any, a: Any, b: Any, dimension: Any) -> Any:
    """The slot of a key, or -1."""
    home = np.int64(h & U64(len(w.key_a) - PROBES - 1))
    tag = np.uint32(h >> U64(40)) | TAG_BIT
    for slot in range(home, home + PROBES):
        found = w.tag[slot]
        if found == tag:
            if w.key_a[slot] == a and w.key_b[slot] == b and w.key_dimension[slot] == dimension:
                return slot
        elif found == EMPTY:
            return np.int64(-1)
    return np.int64(-1)


@njit(cache=True, nogil=True)
def delete_key_kernel(w: Any, slot: Any) -> None:
    """Take a key without rows out of the table."""
    closed_rows = w.sums.shape[1] - 1
    if w.sums[slot, closed_rows] > 0:
        w.sums[slot, closed_rows] = 0
        w.active[w.key_dimension[slot]] -= 1
    w.scalars[KEYS_USED] -= 1
    w.row_count[slot] = 0
    w.newest[slot] = NO_ROW
    w.weight[slot] = 0
    if w.tag[slot + 1] != EMPTY:
        w.tag[slot] = TOMBSTONE
        return
    w.tag[slot] = EMPTY
    before = slot - 1
    while before >= 0 and w.tag[before] == TOMBSTONE:  # they only kept a way open that now ends here
        w.tag[before] = EMPTY
        before -= 1


@njit(cache=True, nogil=True)
def give_up_key_kernel(w: Any, slot: Any) -> None:
    """Drop a key with all its rows, because a bound was reached; counted."""
    row = w.newest[slot]
    while row >= 0:
        older = older_kernel(w, row)
        w.row_slot[row] = DEAD
        row = older
    w.scalars[AGED_OUT] += 1
    w.scalars[AGED_TICK] = max(w.scalars[AGED_TICK], w.row_tick[w.newest[slot]])
    delete_key_kernel(w, slot)


@njit(cache=True, nogil=True)
def claim_key_kernel(w: Any, h: Any, a: Any, b: Any, dimension: Any, names: Any, name_start: Any, name_length: Any) -> Any:
    """A slot for a key that is not in the table; where all its slots are taken, the lightest gives way."""
    home = np.int64(h & U64(len(w.key_a) - PROBES - 1))
    chosen: Any = np.int64(-1)
    lightest: Any = home
    for slot in range(home, home + PROBES):
        if w.tag[slot] <= TOMBSTONE:
            chosen = slot
            break
        if w.weight[slot] < w.weight[lightest]:
            lightest = slot
    if chosen < 0:
        chosen = lightest
        give_up_key_kernel(w, chosen)
    w.tag[chosen] = np.uint32(h >> U64(40)) | TAG_BIT
    w.key_hash[chosen] = h
    w.key_a[chosen] = a
    w.key_b[chosen] = b
    w.key_dimension[chosen] = dimension
    w.weight[chosen] = 0
    w.newest[chosen] = NO_ROW
    w.row_count[chosen] = 0
    for s in range(w.sums.shape[1]):
        w.sums[chosen, s] = 0
    for r in range(w.fired.shape[1]):
        w.fired[chosen, r] = NEVER
        w.fired_early[chosen, r] = NEVER
    w.name_length[chosen] = name_length
    for k in range(name_length):
        w.names[chosen, k] = names[name_start + k]
    w.scalars[KEYS_USED] += 1
    return chosen


@njit(cache=True, nogil=True)
def sweep_kernel(w: Any) -> None:
    """Put the rows of dead keys back on the free list."""
    dimensions, ticks = w.heads.shape
    for d in range(dimensions):
        for k in range(ticks):
            row = w.heads[d, k]
            if row < 0:
                continue
            kept = np.int32(NO_ROW)
            count = 0
            while row >= 0:
                following = w.row_next[row]
                if w.row_slot[row] == DEAD:
                    free_row_kernel(w, row)
                else:
                    w.row_next[row] = kept
                    kept = row
                    count += 1
                row = following
            w.heads[d, k] = kept
            w.counts[d, k] = count


@njit(cache=True, nogil=True)
def free_row_kernel(w: Any, row: Any) -> None:
    """Put one row, already out of its chain, on the free list."""
    w.row_slot[row] = FREE
    w.row_tick[row] = NEVER
    w.row_next[row] = np.int32(w.scalars[FREE_HEAD])
    w.scalars[FREE_HEAD] = row
    w.scalars[ROWS_USED] -= 1


@njit(cache=True, nogil=True)
def make_room_kernel(w: Any) -> None:
    """The log is full: free at least a quarter of it, dead rows first, then the lightest keys, heaviest last."""
    wanted = len(w.row_slot) // 4
    sweep_kernel(w)
    if len(w.row_slot) - w.scalars[ROWS_USED] >= wanted:
        return
    buckets = np.zeros(1024, np.int64)
    for slot in range(len(w.key_a)):
        if w.tag[slot] > TOMBSTONE:
            buckets[min(w.weight[slot], 1023)] += w.row_count[slot]
    missing = wanted - (len(w.row_slot) - w.scalars[ROWS_USED])
    threshold = np.int64(0)
    freed = buckets[0]
    while freed < missing and threshold < 1023:
        threshold += 1
        freed += buckets[threshold]
    given = np.int64(0)
    for slot in range(len(w.key_a)):
        if given >= missing:
            break
        if w.tag[slot] > TOMBSTONE and min(w.weight[slot], 1023) <= threshold:
            given += w.row_count[slot]
            give_up_key_kernel(w, slot)
    sweep_kernel(w)


@njit(cache=True, nogil=True)
def add_row_kernel(w: Any, slot: Any, dimension: Any, tick: Any) -> Any:
    """The row of a key at a tick: the one that is there, or a new one of zeros. A free row must exist."""
    newer = np.int32(NO_ROW)
    row = w.newest[slot]
    while row >= 0 and w.row_tick[row] > tick:
        newer = row
        row = older_kernel(w, row)
    if row >= 0 and w.row_tick[row] == tick:
        return row
    fresh = np.int32(w.scalars[FREE_HEAD])
    w.scalars[FREE_HEAD] = w.row_next[fresh]
    w.scalars[ROWS_USED] += 1
    w.row_slot[fresh] = slot
    w.row_tick[fresh] = tick
    w.row_older[fresh] = row
    if newer >= 0:
        w.row_older[newer] = fresh
    else:
        w.newest[slot] = fresh
    for m in range(w.row_values.shape[1]):
        w.row_values[fresh, m] = 0
    position = tick & (w.heads.shape[1] - 1)
    w.row_next[fresh] = w.heads[dimension, position]
    w.heads[dimension, position] = fresh
    w.counts[dimension, position] += 1
    w.row_count[slot] += 1
    return fresh


@njit(cache=True, nogil=True)
def emit_kernel(w: Any, out: Any, at: Any, slot: Any, rule: Any, tick: Any, observed: Any, requests: Any) -> None:
    """Write one crossing down."""
    out.dimension[at] = w.key_dimension[slot]
    out.key_a[at] = w.key_a[slot]
    out.key_b[at] = w.key_b[slot]
    out.rule[at] = rule
    out.tick[at] = tick
    out.observed[at] = observed
    out.requests[at] = requests
    out.active[at] = w.active[w.key_dimension[slot]]
    length = np.int64(w.name_length[slot])
    out.name_length[at] = length
    for k in range(length):
        out.names[at, k] = w.names[slot, k]


@njit(cache=True, nogil=True)
def early_kernel(w: Any, rules: Any, out: Any, at: Any, slot: Any, dimension: Any, row: Any, tick: Any) -> Any:
    """Compare what has arrived of the windows that end at ``tick``; returns the new count of crossings."""
    cell = tick // rules.renew_s[0]
    for r in range(rules.rule_count[dimension]):
        if w.fired[slot, r] == cell or w.fired_early[slot, r] == cell:
            continue
        column = rules.rule_column[dimension, r]
        since = tick - rules.rule_window[dimension, r]
        observed = np.int64(0)
        at_row = row
        while at_row >= 0 and w.row_tick[at_row] > since:
            observed += w.row_values[at_row, column]
            at_row = older_kernel(w, at_row)
        if observed > rules.rule_limit[dimension, r] and since >= w.scalars[MUTED]:
            w.fired_early[slot, r] = cell
            emit_kernel(w, out, at, slot, r, tick, observed, w.row_values[row, 0])
            at += 1
    return at


@njit(cache=True, nogil=True)
def insert_kernel(
    w: Any, rules: Any, order: Any, at: Any, end: Any, tick_limit: Any, early: Any, row_hash: Any, row_dimension: Any,
    row_a: Any, row_b: Any, row_tick: Any, row_measures: Any, name_start: Any, name_length: Any, names: Any,
    out: Any, out_at: Any,
) -> Any:  # fmt: skip
    """Take rows of a tally into the log.

    Args:
        order: i64[...]: rows ``order[at:end]`` of the tally, by tick.
        tick_limit: rows of later ticks wait.
        early: compare windows at once, for early findings.

    Returns:
        (the position of the first row not taken, the count of crossings). It stops before ``out`` overflows.
    """
    closed = w.scalars[CLOSED]
    many_rules = w.fired.shape[1]
    room = len(out.rule)
    while at < end:
        r = order[at]
        tick = row_tick[r]
        if tick > tick_limit or (early and out_at + many_rules > room):
            break
        at += 1
        dimension = np.int64(row_dimension[r])
        if tick <= closed:
            if dimension == D_SERVICE:
                w.scalars[STRAGGLERS] += row_measures[r, 0]
            continue
        if rules.rule_count[dimension] == 0:
            continue
        if w.scalars[FREE_HEAD] < 0:
            make_room_kernel(w)
        h, a, b = row_hash[r], row_a[r], row_b[r]
        slot = find_key_kernel(w, h, a, b, dimension)
        if slot < 0:
            slot = claim_key_kernel(w, h, a, b, dimension, names, name_start[r], np.int64(name_length[r]))
        row = add_row_kernel(w, slot, dimension, tick)
        for m in range(len(rules.tracked)):
            w.row_values[row, m] += row_measures[r, rules.tracked[m]]
        w.weight[slot] += row_measures[r, 0]
        if early:
            out_at = early_kernel(w, rules, out, out_at, slot, dimension, row, tick)
    return at, out_at


@njit(cache=True, nogil=True)
def expire_kernel(w: Any, rules: Any, dimension: Any, tick: Any) -> None:
    """Let the windows that end at ``tick`` lose what lies before them; rows past the longest are freed."""
    mask = w.heads.shape[1] - 1
    span = rules.span[dimension]
    closed_rows = w.sums.shape[1] - 1
    for s in range(rules.spec_count[dimension]):
        window = rules.spec_window[dimension, s]
        column = rules.spec_column[dimension, s]
        row = w.heads[dimension, (tick - window) & mask]
        while row >= 0:
            slot = w.row_slot[row]
            if slot >= 0:
                w.sums[slot, s] -= w.row_values[row, column]
            row = w.row_next[row]
    position = (tick - span) & mask
    row = w.heads[dimension, position]
    while row >= 0:
        following = w.row_next[row]
        slot = np.int64(w.row_slot[row])
        if slot >= 0:
            w.weight[slot] -= w.row_values[row, 0]
            w.row_count[slot] -= 1
            w.sums[slot, closed_rows] -= 1
            if w.sums[slot, closed_rows] == 0:
                w.active[dimension] -= 1
            if w.row_count[slot] == 0:
                delete_key_kernel(w, slot)
        free_row_kernel(w, row)
        row = following
    w.heads[dimension, position] = NO_ROW
    w.counts[dimension, position] = 0


@njit(cache=True, nogil=True)
def judge_tick_kernel(w: Any, rules: Any, dimension: Any, tick: Any, emit: Any, out: Any, out_at: Any) -> Any:
    """Add the rows of a tick to their keys' sums and compare them; returns the new count of crossings.

    Without ``emit`` what crosses is remembered as decided, and not told.
    """
    first = out_at
    closed_rows = w.sums.shape[1] - 1
    cell = tick // rules.renew_s[0]
    row = w.heads[dimension, tick & (w.heads.shape[1] - 1)]
    many_specs = rules.spec_count[dimension]
    many_rules = rules.rule_count[dimension]
    while row >= 0:
        slot = np.int64(w.row_slot[row])
        if slot >= 0:
            for s in range(many_specs):
                w.sums[slot, s] += w.row_values[row, rules.spec_column[dimension, s]]
            if w.sums[slot, closed_rows] == 0:
                w.active[dimension] += 1
            w.sums[slot, closed_rows] += 1
            for r in range(many_rules):
                spec = rules.rule_spec[dimension, r]
                observed = w.sums[slot, spec] if spec >= 0 else w.row_values[row, rules.rule_column[dimension, r]]
                if observed > rules.rule_limit[dimension, r] and w.fired[slot, r] != cell:
                    if tick - rules.rule_window[dimension, r] < w.scalars[MUTED]:
                        continue
                    w.fired[slot, r] = cell
                    if emit:
                        emit_kernel(w, out, out_at, slot, r, tick, observed, w.row_values[row, 0])
                        out_at += 1
        row = w.row_next[row]
    for k in range(first, out_at):
        out.active[k] = w.active[dimension]
    return out_at


@njit(cache=True, nogil=True)
def close_kernel(w: Any, rules: Any, target: Any, emit: Any, out: Any, out_at: Any) -> Any:
    """Close ticks in order up to ``target``.

    Returns:
        (how many crossings ``out`` holds, how many the next tick needs room for: 0 when the target was reached).
    """
    dimensions, ticks = w.heads.shape
    while w.scalars[CLOSED] < target:
        tick = w.scalars[CLOSED] + 1
        if w.scalars[ROWS_USED] == 0:
            w.scalars[CLOSED] = target
            break
        needed = np.int64(0)
        for d in range(dimensions):
            needed += np.int64(w.counts[d, tick & (ticks - 1)]) * rules.rule_count[d]
        if emit and out_at + needed > len(out.rule):
            return out_at, needed
        for d in range(dimensions):
            if rules.rule_count[d] > 0:
                expire_kernel(w, rules, d, tick)
                out_at = judge_tick_kernel(w, rules, d, tick, emit, out, out_at)
        w.scalars[CLOSED] = tick
    return out_at, np.int64(0)


@njit(cache=True, nogil=True)
def all_insert_kernel(
    w: Any, rules: Any, order: Any, cursors: Any, starts: Any, tick_limit: Any, early: Any, row_hash: Any,
    row_dimension: Any, row_a: Any, row_b: Any, row_tick: Any, row_measures: Any, name_start: Any, name_length: Any,
    names: Any, out: Any, out_at: Any,
) -> Any:  # fmt: skip
    """Take a tally into every partition; see `insert_kernel`.

    Args:
        cursors: i64[J]: the next row of each partition, advanced.
        starts: i64[J + 1]: partition p has ``order[starts[p]:starts[p + 1]]``.

    Returns:
        (the count of crossings, whether ``out`` has room: else grow it and call again).
    """
    many_rules = w.fired.shape[2]
    for p in range(len(cursors)):
        if cursors[p] >= starts[p + 1]:
            continue
        before = out_at
        cursors[p], out_at = insert_kernel(
            part_kernel(w, p), rules, order, cursors[p], starts[p + 1], tick_limit, early, row_hash, row_dimension, row_a,
            row_b, row_tick, row_measures, name_start, name_length, names, out, out_at,
        )  # fmt: skip
        for k in range(before, out_at):
            out.partition[k] = p
        if early and out_at + many_rules > len(out.rule):
            return out_at, False
    return out_at, True


@njit(cache=True, nogil=True)
def all_close_kernel(w: Any, rules: Any, target: Any, emit: Any, out: Any, out_at: Any) -> Any:
    """Close ticks up to ``target`` in every partition; see `close_kernel` for what it returns."""
    for p in range(len(w.tag)):
        before = out_at
        out_at, needed = close_kernel(part_kernel(w, p), rules, target, emit, out, out_at)
        for k in range(before, out_at):
            out.partition[k] = p
        if needed > 0:
            return out_at, needed
    return out_at, np.int64(0)


@njit(cache=True, nogil=True)
def all_rows_kernel(w: Any) -> Any:
    """How many rows all partitions hold."""
    total = np.int64(0)
    for p in range(len(w.tag)):
        total += w.scalars[p, ROWS_USED]
    return total
