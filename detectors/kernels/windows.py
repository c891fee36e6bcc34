"""Sliding windows over keys, of fixed capacity: the table, the log of rows and the clock that each judge partition owns.

The log is the truth: one row per key and tick with its measures. A key's running sums over the longest window are a cache of
it, moved on as ticks close: every row is touched when it arrives, when its tick closes and when it leaves that window. No
shorter window can hold more, so one of those is added up from the key's rows only where the longest is over its limit.
Nothing is estimated.

Bounds: the table of keys probes a window of PROBES slots and, where all are taken, gives up the lightest of them; the log
gives up the lightest keys when it is full. Either way a whole key goes, with all its rows, and its return starts from
nothing: a sum is exact or a lower bound, never more. `AGED_OUT` counts them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.kernels.busy import BUSY_WORDS, PLACES
from detectors.kernels.machine import LINE_WORDS, allocate_lines, copy_bytes, prefetch
from schemas.compiled import entry, inlined, part
from schemas.tally import (
    NAME_BYTES_MAX,
)

U64 = np.uint64
I64Array = npt.NDArray[np.int64]

PROBES = 32
"""Slots that a key may lie in: two cache lines of tags. At 50 % load the chance that all are taken is below 1e-9."""
EMPTY, TOMBSTONE = np.uint32(0), np.uint32(1)
TAG_BIT = np.uint32(1 << 31)
NO_ROW = -1
FREE, DEAD = -1, -2
"""Values of `L_SLOT`: on the free list, and in a tick's chain while its key is gone."""
NEVER, NO_LIMIT = -(2**62), 2**62
NO_CELL = 0
"""Cells are kept as numbers from 1 on, so that memory which no rule has fired in is never touched, and looked at for keys only
of which some rule has …"""
FIRED, LENGTH_MASK = np.uint8(1 << 7), np.uint8((1 << 7) - 1)
"""… which the highest bit of the length of its name says."""
assert int(LENGTH_MASK) >= NAME_BYTES_MAX
SUM, RATIO, DISTINCT = range(3)
BINS_SHIFT = 8
HEAD, LENGTH = 0, 1
WORD_BYTES = 8

K_A, K_B, K_DIMENSION, K_WEIGHT, K_NEWEST, K_TICK, K_ROWS, K_SUMS = range(8)
"""Of a key: its words, dimension, requests in the log, newest row and that one's tick, its rows, of which those that are closed
are counted in the upper half of the word; then its sums, and its unions: of each rule about a set the bins that its window
held when they were counted last, and those that came since. With 7 sums and 2 sets a key is two cache lines."""
SPARE_WORDS = 2
"""So many more words are given to a key to make it whole cache lines; more would cost memory."""
ROWS_MASK, CLOSED_SHIFT, ONE_CLOSED = (1 << 32) - 1, 32, 1 << 32
R_TICK, R_OLDER, R_VALUES = range(3)
"""Of a row: its tick and the row of the same key before it (see `older_kernel`); then its values."""
L_NEXT, L_SLOT = range(2)
"""Of a row too, apart from it: the next row of its tick's chain or of the free list, and its key's slot (or FREE, DEAD). Chains
are walked here, in little memory, so that a row and its key can be fetched before they are needed."""

CLOSED, FREE_HEAD, ROWS_USED, KEYS_USED, AGED_OUT, AGED_TICK, STRAGGLERS, MUTED, FRESH, BUSY, SCALARS = range(11)
"""The last: whether anything has been counted for busy routes in the minute at hand."""


class Rules(NamedTuple):
    """What is summed and compared, by dimension. ``spec``: a measure over the longest window, if any is longer than a tick."""

    column_count: I64Array  # i64[D]: columns of a row that a dimension uses; the first is REQUESTS
    sum_count: I64Array  # i64[D]: of them, those that are added; the others are sets, which are united
    tracked: I64Array  # i64[D, M]: which of a tally's values each column holds
    span: I64Array  # i64[D]: the longest window of a dimension; 0: the dimension is not judged
    spec_count: I64Array  # i64[D]
    spec_first: I64Array  # i64[D]: the column of the first; the others follow
    spec_lanes: I64Array  # i64[D, S]: -1 for each that there is, behind them 0 (`detectors.kernels.machine`); S in whole lanes
    spec_least: I64Array  # i64[D, S]: the least limit of a rule about it, in any window; none of them is over before
    tick_count: I64Array  # i64[D]
    tick_column: I64Array  # i64[D, R]: columns that rules about one second compare …
    tick_least: I64Array  # i64[D, R]: … with this at least
    rule_count: I64Array  # i64[D]
    union_count: I64Array  # i64[D]: rules about sets, of each of which a key keeps a union
    union_column: I64Array  # i64[D, R]
    union_limit: I64Array  # i64[D, R]: in bins
    rule_kind: I64Array  # i64[D, R]: SUM, RATIO or DISTINCT
    rule_column: I64Array  # i64[D, R]
    rule_spec: I64Array  # i64[D, R]: index of its spec; -1: the tick itself is the window
    rule_window: I64Array  # i64[D, R], seconds
    rule_limit: I64Array  # i64[D, R]: of DISTINCT in bins …
    rule_items: I64Array  # i64[D, R]: … and in items: so many requests have no more of them, whatever bins say
    rule_of_column: I64Array  # i64[D, R]: of RATIO, what the sum is a share of …
    rule_of_spec: I64Array  # i64[D, R]
    rule_share: I64Array  # i64[D, R]: … and which, at least, in thousandths
    rule_union: I64Array  # i64[D, R]: of DISTINCT, which of a key's unions is the rule's
    rule_list: I64Array  # i64[D, R]: the list that a key must be on for the rule to be about it; -1: about all
    list_start: I64Array  # i64[2 * lists + 1]: as in `detectors.lists.Ranges`, as are the next two
    list_low: npt.NDArray[np.uint64]
    list_high: npt.NDArray[np.uint64]
    busy_least: I64Array  # i64[1]: requests of a route in one second from which its minute may be busy; 0: none are looked for
    unions: I64Array  # i64[1]: of a key, at most
    renew_s: I64Array  # i64[1]


class Windows(NamedTuple):
    """The state of the judge partitions. Every array has them as its first axis, left out in these comments: the kernels
    below take one partition's part (`part_kernel`), those whose names begin with ``all_`` take the whole.

    A key and a row are one record each, so that what is needed together lies together.
    """

    tag: npt.NDArray[np.uint32]  # u32[C + PROBES + 1]
    keys: I64Array  # i64[C + PROBES, K]: the columns K_…, sums over closed ticks, then unions …
    union_at: int  # … from this column on
    cells: npt.NDArray[np.int32]  # i32[C + PROBES, 2 * R]: 1 + the cell in which a rule fired last; then the same of early ones
    names: npt.NDArray[np.uint8]  # u8[(C + PROBES) * NAME_BYTES_MAX + 8]
    name_length: npt.NDArray[np.uint8]  # u8[C + PROBES]: and FIRED where cells may be others than NO_CELL
    rows: I64Array  # i64[N, R_VALUES + M]: the columns R_…, then the values that the key's dimension tracks
    links: npt.NDArray[np.int32]  # i32[N, 2]: the columns L_…
    chains: npt.NDArray[np.int32]  # i32[T, D, 2]: of a tick and dimension the first row, and the length with dead rows
    active: I64Array  # i64[D]: keys with a closed row
    scalars: I64Array  # i64[SCALARS]
    buckets: I64Array  # i64[1024]: scratch of `make_room_kernel`
    busy: I64Array  # i64[PLACES, BUSY_WORDS]: routes that are counted by the minute (`detectors.kernels.busy`)
    busy_names: npt.NDArray[np.uint8]  # u8[PLACES * NAME_BYTES_MAX]


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
    specs = int(rules.spec_count.max())
    dimensions, many_rules = rules.rule_column.shape
    scalars = np.zeros((partitions, SCALARS), np.int64)
    scalars[:, [CLOSED, AGED_TICK, MUTED]] = NEVER
    scalars[:, FREE_HEAD] = NO_ROW
    width = K_SUMS + specs + int(rules.unions[0])
    left = -width % LINE_WORDS
    keys_of = allocate_lines((partitions, slots, width + (left if left <= SPARE_WORDS else 0)), np.int64)
    return Windows(
        tag=np.zeros((partitions, slots + 1), np.uint32),
        keys=keys_of,
        union_at=K_SUMS + specs,
        cells=np.zeros((partitions, slots, 2 * many_rules), np.int32),
        names=np.zeros((partitions, slots * NAME_BYTES_MAX + 8), np.uint8),
        name_length=np.zeros((partitions, slots), np.uint8),
        rows=allocate_lines((partitions, rows, R_VALUES + rules.tracked.shape[1]), np.int64),
        links=allocate_lines((partitions, rows, 2), np.int32),
        chains=np.tile(np.array([NO_ROW, 0], np.int32), (partitions, ticks, dimensions, 1)),
        active=np.zeros((partitions, dimensions), np.int64),
        scalars=scalars,
        buckets=np.zeros((partitions, 1024), np.int64),
        busy=np.zeros((partitions, PLACES, BUSY_WORDS), np.int64),
        busy_names=np.zeros((partitions, PLACES * NAME_BYTES_MAX), np.uint8),
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


def remember_cells(windows: Windows, partition: int, slot: int, cells: npt.NDArray[np.int32]) -> None:
    """Of a key that was judged before, the cells in which rules fired; those behind them stay as they are."""
    windows.cells[partition, slot, : len(cells)] = cells
    windows.name_length[partition, slot] |= FIRED


@inlined
def part_kernel(w: Any, p: Any) -> Any:
    """The windows of partition ``p`` (views)."""
    return Windows(
        w.tag[p], w.keys[p], w.union_at, w.cells[p], w.names[p], w.name_length[p], w.rows[p], w.links[p],
        w.chains[p], w.active[p], w.scalars[p], w.buckets[p], w.busy[p], w.busy_names[p],
    )  # fmt: skip


@inlined
def some_of_kernel(requests: Any, bins: Any) -> Any:
    """i64: what is observed of a set, as one number: the bins it takes and the requests they come from, which are as many or
    more. See `detectors.windowed.WindowRule.observed`."""
    return requests << BINS_SHIFT | bins


@inlined
def name_length_kernel(w: Any, slot: Any) -> Any:
    """i64: of the name of a key, in bytes."""
    return np.int64(w.name_length[slot] & LENGTH_MASK)


@inlined
def fire_kernel(w: Any, slot: Any, place: Any, cell: Any) -> None:
    """A rule has fired for a key in a cell."""
    w.cells[slot, place] = cell
    w.name_length[slot] |= FIRED


@inlined
def emit_kernel(w: Any, out: Any, at: Any, slot: Any, rule: Any, tick: Any, observed: Any, requests: Any) -> None:
    """Write one crossing down."""
    out.dimension[at] = w.keys[slot, K_DIMENSION]
    out.key_a[at] = U64(w.keys[slot, K_A])
    out.key_b[at] = U64(w.keys[slot, K_B])
    out.rule[at] = rule
    out.tick[at] = tick
    out.observed[at] = observed
    out.requests[at] = requests
    out.active[at] = w.active[w.keys[slot, K_DIMENSION]]
    length = name_length_kernel(w, slot)
    out.name_length[at] = length
    for k in range(length):
        out.names[at, k] = w.names[slot * NAME_BYTES_MAX + k]


@inlined
def older_kernel(w: Any, row: Any) -> Any:
    """The row of the same key before ``row``, or NO_ROW.

    Links are not mended when the older row is freed: one is good only while it leads to an older tick of the same key.
    """
    older = w.rows[row, R_OLDER]
    if older >= 0 and w.links[older, L_SLOT] == w.links[row, L_SLOT] and w.rows[older, R_TICK] < w.rows[row, R_TICK]:
        return older
    return np.int64(NO_ROW)


@inlined
def find_key_kernel(w: Any, h: Any, a: Any, b: Any, dimension: Any) -> Any:
    """The slot of a key, or -1."""
    home = np.int64(h & U64(len(w.keys) - PROBES - 1))
    tag = np.uint32(h >> U64(40)) | TAG_BIT
    for slot in range(home, home + PROBES):
        found = w.tag[slot]
        if found == tag:
            if w.keys[slot, K_A] == a and w.keys[slot, K_B] == b and w.keys[slot, K_DIMENSION] == dimension:
                return slot
        elif found == EMPTY:
            return np.int64(-1)
    return np.int64(-1)


@inlined
def delete_key_kernel(w: Any, slot: Any) -> None:
    """Take a key without rows out of the table."""
    if w.keys[slot, K_ROWS] >= ONE_CLOSED:
        w.active[w.keys[slot, K_DIMENSION]] -= 1
    w.scalars[KEYS_USED] -= 1
    w.keys[slot, K_ROWS] = 0
    w.keys[slot, K_NEWEST] = NO_ROW
    w.keys[slot, K_WEIGHT] = 0
    if w.tag[slot + 1] != EMPTY:
        w.tag[slot] = TOMBSTONE
        return
    w.tag[slot] = EMPTY
    before = slot - 1
    while before >= 0 and w.tag[before] == TOMBSTONE:  # they only kept a way open that now ends here
        w.tag[before] = EMPTY
        before -= 1


@part
def give_up_key_kernel(w: Any, slot: Any) -> None:
    """Drop a key with all its rows, because a bound was reached; counted."""
    row = w.keys[slot, K_NEWEST]
    while row >= 0:
        older = older_kernel(w, row)
        w.links[row, L_SLOT] = DEAD
        row = older
    w.scalars[AGED_OUT] += 1
    w.scalars[AGED_TICK] = max(w.scalars[AGED_TICK], w.keys[slot, K_TICK])
    delete_key_kernel(w, slot)


@inlined
def claim_key_kernel(w: Any, h: Any, a: Any, b: Any, dimension: Any, names: Any, name_start: Any, name_length: Any) -> Any:
    """A slot for a key that is not in the table; where all its slots are taken, the lightest gives way."""
    home = np.int64(h & U64(len(w.keys) - PROBES - 1))
    chosen: Any = np.int64(-1)
    for slot in range(home, home + PROBES):
        if w.tag[slot] <= TOMBSTONE:
            chosen = slot
            break
    if chosen < 0:
        chosen = home
        for slot in range(home + 1, home + PROBES):
            if w.keys[chosen, K_WEIGHT] <= 1:
                break  # none is lighter: a flood of spoofed sources costs no search
            if w.keys[slot, K_WEIGHT] < w.keys[chosen, K_WEIGHT]:
                chosen = slot
        give_up_key_kernel(w, chosen)
    w.tag[chosen] = np.uint32(h >> U64(40)) | TAG_BIT
    w.keys[chosen, K_A] = a
    w.keys[chosen, K_B] = b
    w.keys[chosen, K_DIMENSION] = dimension
    w.keys[chosen, K_WEIGHT] = 0
    w.keys[chosen, K_NEWEST] = NO_ROW
    w.keys[chosen, K_ROWS] = 0
    for column in range(K_SUMS, w.keys.shape[1]):
        w.keys[chosen, column] = 0
    if w.name_length[chosen] & FIRED != 0:
        for r in range(w.cells.shape[1]):
            w.cells[chosen, r] = NO_CELL
    w.name_length[chosen] = name_length
    copy_bytes(w.names, chosen * NAME_BYTES_MAX, names, name_start, name_length)
    w.scalars[KEYS_USED] += 1
    return chosen


@part
def sweep_kernel(w: Any) -> None:
    """Put the rows of dead keys back on the free list."""
    ticks, dimensions, _ = w.chains.shape
    for k in range(ticks):
        for d in range(dimensions):
            row = np.int64(w.chains[k, d, HEAD])
            if row < 0:
                continue
            kept = np.int64(NO_ROW)
            count = 0
            while row >= 0:
                following = np.int64(w.links[row, L_NEXT])
                if w.links[row, L_SLOT] == DEAD:
                    free_row_kernel(w, row)
                else:
                    w.links[row, L_NEXT] = kept
                    kept = row
                    count += 1
                row = following
            w.chains[k, d, HEAD] = kept
            w.chains[k, d, LENGTH] = count


@inlined
def free_row_kernel(w: Any, row: Any) -> None:
    """Put one row, already out of its chain, on the free list."""
    w.links[row, L_SLOT] = FREE
    w.links[row, L_NEXT] = w.scalars[FREE_HEAD]
    w.scalars[FREE_HEAD] = row
    w.scalars[ROWS_USED] -= 1


@part
def make_room_kernel(w: Any) -> None:
    """The log is full: free at least a quarter of it, dead rows first, then the lightest keys, heaviest last."""
    wanted = len(w.rows) // 4
    sweep_kernel(w)
    if len(w.rows) - w.scalars[ROWS_USED] >= wanted:
        return
    buckets = w.buckets
    buckets[:] = 0
    for slot in range(len(w.keys)):
        if w.tag[slot] > TOMBSTONE:
            buckets[min(w.keys[slot, K_WEIGHT], 1023)] += w.keys[slot, K_ROWS] & ROWS_MASK
    missing = wanted - (len(w.rows) - w.scalars[ROWS_USED])
    threshold = np.int64(0)
    freed = buckets[0]
    while freed < missing and threshold < 1023:
        threshold += 1
        freed += buckets[threshold]
    given = np.int64(0)
    for slot in range(len(w.keys)):
        if given >= missing:
            break
        if w.tag[slot] > TOMBSTONE and min(w.keys[slot, K_WEIGHT], 1023) <= threshold:
            given += w.keys[slot, K_ROWS] & ROWS_MASK
            give_up_key_kernel(w, slot)
    sweep_kernel(w)


@inlined
def add_row_kernel(w: Any, slot: Any, dimension: Any, columns: Any, tick: Any) -> Any:
    """The row of a key at a tick: the one that is there, or a new one with ``columns`` of zeros: nobody reads what lies behind
    them, in another cache line. A free row must exist."""
    newer, row = np.int64(NO_ROW), w.keys[slot, K_NEWEST]
    if row >= 0 and w.keys[slot, K_TICK] >= tick:  # else it is new, and no other row has to be looked at
        while row >= 0 and w.rows[row, R_TICK] > tick:
            newer = row
            row = older_kernel(w, row)
        if row >= 0 and w.rows[row, R_TICK] == tick:
            return row
    fresh = w.scalars[FREE_HEAD]
    if fresh >= 0:
        following = np.int64(w.links[fresh, L_NEXT])
        w.scalars[FREE_HEAD] = following
        prefetch(w.links, following, 0)  # for the row after this one
        prefetch(w.rows, following, 0)
    else:
        fresh = w.scalars[FRESH]
        w.scalars[FRESH] += 1
    w.scalars[ROWS_USED] += 1
    w.rows[fresh, R_TICK] = tick
    w.rows[fresh, R_OLDER] = row
    if newer >= 0:
        w.rows[newer, R_OLDER] = fresh
    else:
        w.keys[slot, K_NEWEST], w.keys[slot, K_TICK] = fresh, tick
    for m in range(columns):
        w.rows[fresh, R_VALUES + m] = 0
    position = tick & (len(w.chains) - 1)
    w.links[fresh, L_NEXT], w.links[fresh, L_SLOT] = w.chains[position, dimension, HEAD], slot
    w.chains[position, dimension, HEAD] = fresh
    w.chains[position, dimension, LENGTH] += 1
    w.keys[slot, K_ROWS] += 1
    return fresh


@entry
def all_find_kernel(windows: Any, p: Any, h: Any, a: Any, b: Any, dimension: Any) -> Any:
    """The slot of a key in partition ``p``, or -1."""
    return find_key_kernel(part_kernel(Windows(*windows), p), h, a, b, dimension)
