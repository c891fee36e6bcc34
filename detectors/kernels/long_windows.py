"""Windows of minutes to an hour: a table apart from the rows, of keys that did something they may not do much of.

Rows, one for each key and second, would be too many to keep for an hour. So when a second closes, what a rule of a long
window counts is added to the key's bucket of that minute. A window is made of whole minutes and the one under way, up to the
second that closes: of ``window_s`` seconds at most and one minute less at least, so that nobody is held to more than the
window allows. Sums are exact integers over exactly those minutes, made anew from the buckets whenever they are compared.

Only the *part* of a rule brings a key in: failures, registrations. A key without any costs one look at the table's tags for
each of its rows and no memory. The *whole* that a share is of is counted from the key's first part on; after the longest
window without a part, the key is forgotten. A rule is compared when something was added to its part.

Bounds: the table probes `PROBES` entries and, where all are taken, gives up the one with the fewest parts, of those the oldest:
counted in `AGED_OUT`, and in the evidence of whatever a window says that it touches.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.kernels.machine import LINE_WORDS, allocate_lines, prefetch
from detectors.kernels.windows import (
    AGED_OUT,
    AGED_TICK,
    EMPTY,
    K_A,
    K_B,
    MUTED,
    PROBES,
    R_VALUES,
    WORD_BYTES,
    I64Array,
    Windows,
    emit_kernel,
    part_kernel,
)
from schemas.compiled import entry, inlined, part

MINUTE_S = 60
SECONDS_MIN, SECONDS_MAX = 120, 3600
"""Windows of sums and shares that are longer than the one are kept here, up to the other."""
NO_WHOLE = -1
_NO_ENTRY = -1
E_A, E_B, E_DIMENSION, E_NEWEST, E_LAST, E_TICK, E_PARTS, E_CELLS = range(8)
"""Of an entry: the key's words and dimension; the newest minute that its buckets know, the minute and the second of its last
part, how many seconds had one; then for each rule 1 + the cell in which it fired last, and the buckets."""


class LongRules(NamedTuple):
    """What is summed over minutes and compared, by dimension."""

    minutes: I64Array  # i64[D]: the longest window; 0: a dimension has none
    part_count: I64Array  # i64[D]: columns of buckets that bring a key in; they come first
    column_count: I64Array  # i64[D]: with those that are only a whole
    column: I64Array  # i64[D, M]: the row's column that each adds up
    column_at: I64Array  # i64[D, M]: where its buckets begin in an entry …
    column_minutes: I64Array  # i64[D, M]: … and how many there are: minute m is in bucket m modulo this
    rule_count: I64Array  # i64[D]
    rule_first: I64Array  # i64[D]: how many rules of the dimension come before, those of short windows
    rule_part: I64Array  # i64[D, R]: index of its column
    rule_whole: I64Array  # i64[D, R]: of a share, that of the whole; NO_WHOLE of a sum
    rule_minutes: I64Array  # i64[D, R]: the window
    rule_limit: I64Array  # i64[D, R]
    rule_share: I64Array  # i64[D, R], in thousandths
    words: I64Array  # i64[1]: of an entry


class LongWindows(NamedTuple):
    """The table of the judge partitions. Every array has them as its first axis, left out in these comments."""

    tag: npt.NDArray[np.uint32]  # u32[C + PROBES]: the tag that the key has in `Windows`; EMPTY: never taken
    entries: I64Array  # i64[C + PROBES, words]: the columns E_…
    now: I64Array  # i64[D, M], scratch: the bucket that each column adds to in the minute at hand …
    minute: I64Array  # i64[D]: … which is this; -1: none


def allocate_long_windows(rules: LongRules, *, partitions: int, entries: int) -> LongWindows:
    """An empty table; ``entries``: capacity of each partition, a power of two. Without rules it takes no memory."""
    slots = entries + PROBES if rules.minutes.any() else PROBES + 1
    return LongWindows(
        tag=np.zeros((partitions, slots), np.uint32),
        entries=allocate_lines((partitions, slots, -(-int(rules.words[0]) // LINE_WORDS) * LINE_WORDS), np.int64),
        now=np.zeros((partitions, *rules.column.shape), np.int64),
        minute=np.full((partitions, len(rules.minutes)), -1, np.int64),
    )


@inlined
def long_part_kernel(g: Any, p: Any) -> Any:
    """The table of partition ``p`` (views)."""
    return LongWindows(g.tag[p], g.entries[p], g.now[p], g.minute[p])


@inlined
def find_entry_kernel(g: Any, tag: Any, a: Any, b: Any, dimension: Any) -> Any:
    """The entry of a key, or -1. Entries are taken over and never emptied, so that an empty one ends the search."""
    home = np.int64(tag) & np.int64(len(g.tag) - PROBES - 1)
    for at in range(home, home + PROBES):
        found = g.tag[at]
        if found == tag:
            if g.entries[at, E_A] == a and g.entries[at, E_B] == b and g.entries[at, E_DIMENSION] == dimension:
                return at
        elif found == EMPTY:
            return np.int64(_NO_ENTRY)
    return np.int64(_NO_ENTRY)


@inlined
def is_over_kernel(g: Any, long: Any, at: Any, minute: Any) -> Any:
    """Has an entry had no part for the longest window of its dimension?"""
    return minute - g.entries[at, E_LAST] >= long.minutes[g.entries[at, E_DIMENSION]]


@part
def claim_entry_kernel(g: Any, long: Any, scalars: Any, tag: Any, a: Any, b: Any, dimension: Any, minute: Any) -> Any:
    """An entry of zeros for a key that has none: an empty one, one that is over, or that of who has the fewest parts."""
    home = np.int64(tag) & np.int64(len(g.tag) - PROBES - 1)
    chosen: Any = np.int64(home)
    for at in range(home, home + PROBES):
        if g.tag[at] == EMPTY or is_over_kernel(g, long, at, minute):
            chosen = at
            break
        fewer = g.entries[at, E_PARTS] - g.entries[chosen, E_PARTS]
        if fewer < 0 or (fewer == 0 and g.entries[at, E_TICK] < g.entries[chosen, E_TICK]):
            chosen = at
    if g.tag[chosen] != EMPTY and not is_over_kernel(g, long, chosen, minute):
        scalars[AGED_OUT] += 1
        scalars[AGED_TICK] = max(scalars[AGED_TICK], g.entries[chosen, E_TICK])
    g.tag[chosen] = tag
    g.entries[chosen, :] = 0
    g.entries[chosen, E_A], g.entries[chosen, E_B], g.entries[chosen, E_DIMENSION] = a, b, dimension
    g.entries[chosen, E_NEWEST] = minute
    g.entries[chosen, E_LAST] = minute
    return chosen


@inlined
def move_on_kernel(g: Any, long: Any, at: Any, dimension: Any, minute: Any) -> None:
    """Empty the buckets of the minutes since the newest, from that of ``minute`` (see `begin_long_kernel`) backwards."""
    passed = minute - g.entries[at, E_NEWEST]
    for c in range(long.column_count[dimension]):
        minutes, first = long.column_minutes[dimension, c], long.column_at[dimension, c]
        bucket = g.now[dimension, c]
        for _ in range(min(passed, minutes)):
            g.entries[at, bucket] = 0
            bucket = bucket - 1 if bucket > first else first + minutes - 1
    g.entries[at, E_NEWEST] = minute


@inlined
def begin_long_kernel(g: Any, long: Any, dimension: Any, tick: Any) -> None:
    """Say which buckets rows of a tick are added to, once a minute: dividing for each of them would cost more than the rest."""
    minute = tick // MINUTE_S
    if g.minute[dimension] == minute:
        return
    g.minute[dimension] = minute
    for c in range(long.column_count[dimension]):
        g.now[dimension, c] = long.column_at[dimension, c] + minute % long.column_minutes[dimension, c]


@inlined
def fetch_long_kernel(w: Any, g: Any, long: Any, slot: Any, dimension: Any) -> None:
    """Fetch what a key's entry needs for nearly all of its rows, if it has one where it is sought first."""
    if slot >= 0:
        home = np.int64(w.tag[slot]) & np.int64(len(g.tag) - PROBES - 1)
        if g.tag[home] == w.tag[slot]:
            prefetch(g.entries, home, 0)
            prefetch(g.entries, home, WORD_BYTES * g.now[dimension, long.column_count[dimension] - 1])


@inlined
def concerns_long_kernel(w: Any, g: Any, long: Any, slot: Any, dimension: Any, row: Any) -> Any:
    """May a row that closes add something to an entry? Most do not, and this is all that they cost.

    Once a table has been full for a while no entry is empty: then all tags that are a key's are compared, many at once.
    """
    tag = w.tag[slot]
    home, is_known = np.int64(tag) & np.int64(len(g.tag) - PROBES - 1), False
    if g.tag[home] != EMPTY:
        for at in range(home, home + PROBES):
            is_known |= g.tag[at] == tag
    return is_known or parts_kernel(w, long, dimension, row) != 0


@inlined
def parts_kernel(w: Any, long: Any, dimension: Any, row: Any) -> Any:
    """0 if a row has no part of any rule."""
    bits = np.int64(0)
    for c in range(long.part_count[dimension]):
        bits |= w.rows[row, R_VALUES + long.column[dimension, c]]
    return bits


@inlined
def add_long_kernel(w: Any, g: Any, long: Any, slot: Any, dimension: Any, row: Any, tick: Any) -> Any:
    """Add a row that closes to its key's entry; returns it if the row has a part, else -1."""
    bits = parts_kernel(w, long, dimension, row)
    tag, a, b = w.tag[slot], w.keys[slot, K_A], w.keys[slot, K_B]
    at = find_entry_kernel(g, tag, a, b, dimension)
    minute = tick // MINUTE_S
    if at >= 0 and is_over_kernel(g, long, at, minute):
        if bits == 0:
            return np.int64(_NO_ENTRY)
        g.entries[at, E_CELLS:] = 0
        g.entries[at, E_PARTS] = 0
        g.entries[at, E_NEWEST] = minute
    elif at < 0:
        if bits == 0:
            return np.int64(_NO_ENTRY)
        at = claim_entry_kernel(g, long, w.scalars, tag, a, b, dimension, minute)
    if g.entries[at, E_NEWEST] < minute:
        move_on_kernel(g, long, at, dimension, minute)
    first = np.int64(0) if bits != 0 else long.part_count[dimension]  # without a part, only the wholes have anything
    for c in range(first, long.column_count[dimension]):
        g.entries[at, g.now[dimension, c]] += w.rows[row, R_VALUES + long.column[dimension, c]]
    if bits == 0:
        return np.int64(_NO_ENTRY)
    g.entries[at, E_LAST], g.entries[at, E_TICK] = minute, tick
    g.entries[at, E_PARTS] += 1
    return at


@inlined
def sum_long_kernel(g: Any, long: Any, at: Any, dimension: Any, c: Any, many: Any) -> Any:
    """The sum of a column over ``many`` minutes, of which the one at hand is the last."""
    minutes, first = long.column_minutes[dimension, c], long.column_at[dimension, c]
    behind = g.now[dimension, c] + 1
    total = np.int64(0)
    for bucket in range(max(behind - many, first), behind):
        total += g.entries[at, bucket]
    for bucket in range(min(behind - many, first) + minutes, first + minutes):  # those before the first of all
        total += g.entries[at, bucket]
    return total


@part
def judge_long_kernel(
    w: Any, g: Any, long: Any, slot: Any, dimension: Any, row: Any, tick: Any, cell: Any, out: Any, out_at: Any
) -> Any:
    """Add a row that closes, and compare the rules that it adds a part to; returns the new count of crossings."""
    at = add_long_kernel(w, g, long, slot, dimension, row, tick)
    if at < 0:
        return out_at
    minute = tick // MINUTE_S
    for r in range(long.rule_count[dimension]):
        c = long.rule_part[dimension, r]
        if w.rows[row, R_VALUES + long.column[dimension, c]] == 0 or g.entries[at, E_CELLS + r] == cell:
            continue
        many = long.rule_minutes[dimension, r]
        observed = sum_long_kernel(g, long, at, dimension, c, many)
        if observed <= long.rule_limit[dimension, r] or (minute - many + 1) * MINUTE_S <= w.scalars[MUTED]:
            continue
        if long.rule_whole[dimension, r] != NO_WHOLE:
            whole = sum_long_kernel(g, long, at, dimension, long.rule_whole[dimension, r], many)
            if 1000 * observed < long.rule_share[dimension, r] * whole:
                continue
        g.entries[at, E_CELLS + r] = cell
        emit_kernel(w, out, out_at, slot, long.rule_first[dimension] + r, tick, observed, w.rows[row, R_VALUES])
        out_at += 1
    return out_at


@entry
def all_claim_entry_kernel(
    windows: Any, long_windows: Any, plan: Any, p: Any, tag: Any, a: Any, b: Any, dimension: Any, minute: Any
) -> Any:
    """An entry of zeros in partition ``p``, for one that was saved; arguments as plain tuples."""
    w, g = part_kernel(Windows(*windows), p), long_part_kernel(LongWindows(*long_windows), p)
    return claim_entry_kernel(g, LongRules(*plan), w.scalars, tag, a, b, dimension, minute)
