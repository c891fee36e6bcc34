"""What happens to the windows: rows come in, seconds close, and what is over a limit is written down.

See `detectors.kernels.windows` for the state. Every row is touched when it arrives, when its second closes and when
it leaves the longest window.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.kernels.busy import bit_of_route_kernel, bits_of_places_kernel, count_route_kernel
from detectors.kernels.listed import holds_address_kernel
from detectors.kernels.long_windows import (
    MINUTE_S,
    LongRules,
    LongWindows,
    begin_long_kernel,
    concerns_long_kernel,
    fetch_long_kernel,
    judge_long_kernel,
    long_part_kernel,
)
from detectors.kernels.machine import LANES, add_lanes, count_bits, prefetch, subtract_lanes
from detectors.kernels.windows import (
    BUSY,
    CLOSED,
    DISTINCT,
    FREE_HEAD,
    FRESH,
    HEAD,
    K_A,
    K_B,
    K_ROWS,
    K_SUMS,
    K_WEIGHT,
    L_NEXT,
    L_SLOT,
    LENGTH,
    MUTED,
    NO_ROW,
    ONE_CLOSED,
    PROBES,
    R_TICK,
    R_VALUES,
    RATIO,
    ROWS_USED,
    STRAGGLERS,
    WORD_BYTES,
    Crossings,
    Rules,
    Windows,
    add_row_kernel,
    claim_key_kernel,
    delete_key_kernel,
    emit_kernel,
    find_key_kernel,
    fire_kernel,
    free_row_kernel,
    make_room_kernel,
    name_length_kernel,
    older_kernel,
    part_kernel,
    some_of_kernel,
)
from schemas.compiled import entry, inlined, part
from schemas.fields import Dimension
from schemas.tally import C_DIMENSION, C_HASH, C_KEY_A, C_KEY_B, C_MEASURES, C_NAME, C_NAME_LENGTH, C_TICK, NAME_BYTES_MAX

U64 = np.uint64
FAR, NEAR = 12, 6
"""So many rows ahead a tally's row is fetched, and its key's place: a load from memory costs as much as several rows."""
D_SERVICE, D_ROUTE = int(Dimension.SERVICE), int(Dimension.ROUTE)
MINUTE_OVER = -1


@inlined
def early_kernel(w: Any, rules: Any, out: Any, at: Any, slot: Any, dimension: Any, row: Any, tick: Any) -> Any:
    """Compare what has arrived of the windows that end at ``tick``; returns the new count of crossings."""
    cell = tick // rules.renew_s[0] + 1
    early_at = w.cells.shape[1] // 2
    for r in range(rules.rule_count[dimension]):
        kind = rules.rule_kind[dimension, r]
        if kind == RATIO or w.cells[slot, r] == cell or w.cells[slot, early_at + r] == cell:
            continue  # a share may fall again until the second is whole
        column = rules.rule_column[dimension, r]
        since = tick - rules.rule_window[dimension, r]
        if kind == DISTINCT:
            observed = distinct_kernel(w, rules, dimension, row, r, count_bits(unite_items_kernel(w, row, column, since)))
        else:
            observed = add_up_kernel(w, row, column, since)
            observed = observed if observed > rules.rule_limit[dimension, r] else np.int64(-1)
        if observed >= 0 and since >= w.scalars[MUTED]:
            fire_kernel(w, slot, early_at + r, cell)
            if not is_meant_kernel(w, rules, slot, dimension, r):
                continue
            emit_kernel(w, out, at, slot, r, tick, observed, w.rows[row, R_VALUES + 0])
            at += 1
    return at


@inlined
def is_meant_kernel(w: Any, rules: Any, slot: Any, dimension: Any, r: Any) -> Any:
    """Is a rule about this key? One with a list is about those on it."""
    which = rules.rule_list[dimension, r]
    return which < 0 or holds_address_kernel(
        rules.list_start, rules.list_low, rules.list_high, which, U64(w.keys[slot, K_A]), U64(w.keys[slot, K_B])
    )


@inlined
def unite_items_kernel(w: Any, row: Any, column: Any, since: Any) -> Any:
    """i64: the bins that the sets of a key hold together, from ``row`` back to the ticks after ``since``."""
    united = np.int64(0)
    while row >= 0 and w.rows[row, R_TICK] > since:
        united |= w.rows[row, R_VALUES + column]
        row = older_kernel(w, row)
    return united


@part
def insert_kernel(
    w: Any, rules: Any, order: Any, at: Any, end: Any, tick_limit: Any, early: Any, records: Any, names: Any, services: Any,
    out: Any, out_at: Any,
) -> Any:  # fmt: skip
    """Take rows of a tally into the log.

    Args:
        order: i64[...]: rows ``order[at:end]`` of the tally, by tick.
        tick_limit: rows of later ticks wait.
        early: compare windows at once, for early findings.
        services: i64[1 + rows or more]: how many of the rows taken are a service's, and which.

    Returns:
        (the position of the first row not taken, the count of crossings). It stops before ``out`` overflows.
    """
    closed = w.scalars[CLOSED]
    many_rules = w.cells.shape[1] // 2
    room = len(out.rule)
    home_mask = U64(len(w.keys) - PROBES - 1)
    is_wide = w.rows.shape[1] > 8
    while at < end:
        if at + FAR < end:  # rows are fetched first, and where their keys lie once the rows are there; most keys are known
            prefetch(records, order[at + FAR], 0)
            prefetch(records, order[at + FAR], 64)
            if is_wide:
                prefetch(records, order[at + FAR], 128)
                prefetch(records, order[at + FAR], 192)
        if at + NEAR < end:
            home = np.int64(U64(records[order[at + NEAR], C_HASH]) & home_mask)
            prefetch(w.tag, home, 0)
            prefetch(w.keys, home, 0)
            prefetch(w.keys, home, 64)
        r = order[at]
        tick = records[r, C_TICK]
        if tick > tick_limit or (early and out_at + many_rules > room):
            break
        at += 1
        dimension = records[r, C_DIMENSION]
        if tick <= closed:
            if dimension == D_SERVICE:
                w.scalars[STRAGGLERS] += records[r, C_MEASURES]
            continue
        if dimension == D_SERVICE:
            services[0] += 1
            services[services[0]] = r
        if rules.span[dimension] == 0:
            continue
        if w.scalars[FREE_HEAD] < 0 and w.scalars[FRESH] == len(w.rows):
            make_room_kernel(w)
        h, a, b = U64(records[r, C_HASH]), records[r, C_KEY_A], records[r, C_KEY_B]
        slot = find_key_kernel(w, h, a, b, dimension)
        if slot < 0:
            slot = claim_key_kernel(w, h, a, b, dimension, names, records[r, C_NAME], records[r, C_NAME_LENGTH])
        row = add_row_kernel(w, slot, dimension, rules.column_count[dimension], tick)
        sums = rules.sum_count[dimension]
        for m in range(sums):
            w.rows[row, R_VALUES + m] += records[r, C_MEASURES + rules.tracked[dimension, m]]
        for m in range(sums, rules.column_count[dimension]):
            w.rows[row, R_VALUES + m] |= records[r, C_MEASURES + rules.tracked[dimension, m]]
        w.keys[slot, K_WEIGHT] += records[r, C_MEASURES]
        if early:
            out_at = early_kernel(w, rules, out, out_at, slot, dimension, row, tick)
    return at, out_at


@inlined
def fetch_row_kernel(w: Any, row: Any, columns: Any, first_byte: Any) -> None:
    """Fetch a row of so many columns, and its key from ``first_byte`` on: 0, or 64 where only its sums are needed."""
    key = np.int64(w.links[row, L_SLOT])
    prefetch(w.rows, row, 0)
    prefetch(w.rows, row, (R_VALUES + columns - 1) * WORD_BYTES)
    if first_byte == 0:
        prefetch(w.keys, key, 0)
        prefetch(w.tag, key, 0)
    prefetch(w.keys, key, 64)


@inlined
def follow_kernel(w: Any, row: Any, columns: Any, first_byte: Any) -> Any:
    """(slot of the row's key, next row of the chain); the row after that and its key's lines are fetched."""
    following = np.int64(w.links[row, L_NEXT])
    if following >= 0:
        after = np.int64(w.links[following, L_NEXT])
        if after >= 0:
            fetch_row_kernel(w, after, columns, first_byte)
    return np.int64(w.links[row, L_SLOT]), following


@inlined
def fetch_kernel(w: Any, dimension: Any, columns: Any, tick: Any) -> None:
    """Fetch the first two rows of a chain and their keys: `follow_kernel` comes too late for them."""
    row = np.int64(w.chains[tick & (len(w.chains) - 1), dimension, HEAD])
    for _ in range(2):
        if row < 0:
            break
        fetch_row_kernel(w, row, columns, 0)
        row = np.int64(w.links[row, L_NEXT])


@inlined
def expire_kernel(w: Any, rules: Any, dimension: Any, tick: Any) -> None:
    """Let the longest window, which ends at ``tick``, lose what lies before it; its rows are freed."""
    columns, many_specs = rules.column_count[dimension], rules.spec_count[dimension]
    first, table = R_VALUES + rules.spec_first[dimension], dimension * rules.spec_lanes.shape[1]
    position = (tick - rules.span[dimension]) & (len(w.chains) - 1)
    row = np.int64(w.chains[position, dimension, HEAD])
    if row < 0:
        return
    while row >= 0:
        slot, following = follow_kernel(w, row, columns, 0)
        if slot >= 0:
            sums, values = slot * w.keys.shape[1] + K_SUMS, row * w.rows.shape[1] + first
            for s in range(0, many_specs, LANES):
                subtract_lanes(w.keys, sums + s, w.rows, values + s, rules.spec_lanes, table + s)
            w.keys[slot, K_WEIGHT] -= w.rows[row, R_VALUES + 0]
            left = w.keys[slot, K_ROWS] - (ONE_CLOSED + 1)
            w.keys[slot, K_ROWS] = left
            if left < ONE_CLOSED:
                w.active[dimension] -= 1
            if left == 0:
                delete_key_kernel(w, slot)
        free_row_kernel(w, row)
        row = following
    w.chains[position, dimension, HEAD] = NO_ROW
    w.chains[position, dimension, LENGTH] = 0


@inlined
def sum_window_kernel(w: Any, rules: Any, slot: Any, dimension: Any, row: Any, column: Any, spec: Any, window: Any) -> Any:
    """The sum of a column over the window that ends with ``row``: it is kept of the longest, and made of the others' rows."""
    if spec < 0:
        return w.rows[row, R_VALUES + column]
    if window == rules.span[dimension]:
        return w.keys[slot, K_SUMS + spec]
    return add_up_kernel(w, row, column, w.rows[row, R_TICK] - window)


@inlined
def add_up_kernel(w: Any, row: Any, column: Any, since: Any) -> Any:
    """i64: the sum of a column over a key's rows from ``row`` back to the ticks after ``since``."""
    total = np.int64(0)
    while row >= 0 and w.rows[row, R_TICK] > since:
        total += w.rows[row, R_VALUES + column]
        row = older_kernel(w, row)
    return total


@inlined
def distinct_kernel(w: Any, rules: Any, dimension: Any, row: Any, r: Any, bins: Any) -> Any:
    """What was observed of a set that takes so many bins, where that is over a rule's limit; else -1. Bins are an estimate, and
    the requests that fill them are counted: a request has one item."""
    if bins <= rules.rule_limit[dimension, r]:
        return np.int64(-1)
    requests = add_up_kernel(w, row, 0, w.rows[row, R_TICK] - rules.rule_window[dimension, r])
    return some_of_kernel(requests, bins) if requests > rules.rule_items[dimension, r] else np.int64(-1)


@inlined
def compare_kernel(w: Any, rules: Any, slot: Any, dimension: Any, row: Any, r: Any, cell: Any) -> Any:
    """What was observed where a rule is over its limit and has not fired in this cell; else -1.

    The rows of a set are united anew only when it can have outgrown its limit: what they held when that was done last and what
    came since are more bins together. That changes when work is done, and never what is found.
    """
    kind, column, limit = rules.rule_kind[dimension, r], rules.rule_column[dimension, r], rules.rule_limit[dimension, r]
    if kind == DISTINCT:
        place = w.union_at + rules.rule_union[dimension, r]
        if count_bits(w.keys[slot, place]) <= limit or w.cells[slot, r] == cell:
            return np.int64(-1)
        united = unite_items_kernel(w, row, column, w.rows[row, R_TICK] - rules.rule_window[dimension, r])
        w.keys[slot, place] = united
        return distinct_kernel(w, rules, dimension, row, r, count_bits(united))
    spec, window = rules.rule_spec[dimension, r], rules.rule_window[dimension, r]
    if (spec >= 0 and w.keys[slot, K_SUMS + spec] <= limit) or w.cells[slot, r] == cell:
        return np.int64(-1)
    observed = sum_window_kernel(w, rules, slot, dimension, row, column, spec, window)
    if observed <= limit:
        return np.int64(-1)
    if kind == RATIO:
        column, spec = rules.rule_of_column[dimension, r], rules.rule_of_spec[dimension, r]
        whole = sum_window_kernel(w, rules, slot, dimension, row, column, spec, window)
        if 1000 * observed < rules.rule_share[dimension, r] * whole:
            return np.int64(-1)
    return observed


@inlined
def add_sums_kernel(w: Any, rules: Any, slot: Any, dimension: Any, row: Any) -> Any:
    """Add a row that closes to its key's sums and unions; may one of them, or the row itself, be over a limit? Mostly not, and
    then no rule is looked at.
    """
    sums, values = slot * w.keys.shape[1] + K_SUMS, row * w.rows.shape[1] + R_VALUES
    first, table = values + rules.spec_first[dimension], dimension * rules.spec_lanes.shape[1]
    over = np.int64(0)
    for s in range(0, rules.spec_count[dimension], LANES):
        over |= add_lanes(w.keys, sums + s, w.rows, first + s, rules.spec_lanes, table + s, rules.spec_least)
    for k in range(rules.tick_count[dimension]):
        over |= np.int64(w.rows[row, R_VALUES + rules.tick_column[dimension, k]] > rules.tick_least[dimension, k])
    for u in range(rules.union_count[dimension]):
        united = w.keys[slot, w.union_at + u] | w.rows[row, R_VALUES + rules.union_column[dimension, u]]
        w.keys[slot, w.union_at + u] = united
        over |= np.int64(count_bits(united) > rules.union_limit[dimension, u])
    return over != 0


@inlined
def judge_tick_kernel(
    w: Any, rules: Any, g: Any, long: Any, dimension: Any, tick: Any, emit: Any, out: Any, out_at: Any
) -> Any:
    """Add the rows of a tick to their keys' sums and compare them; returns the new count of crossings.

    Without ``emit`` what crosses is remembered as decided, and not told; long windows, which are saved whole, hold the rows.
    """
    row = np.int64(w.chains[tick & (len(w.chains) - 1), dimension, HEAD])
    if row < 0:
        return out_at
    first = out_at
    cell = tick // rules.renew_s[0] + 1
    many_rules, columns = rules.rule_count[dimension], rules.column_count[dimension]
    looks_for_busy = emit and dimension == D_ROUTE and rules.busy_least[0] > 0
    placed = bits_of_places_kernel(w.busy) if looks_for_busy else U64(0)
    is_long = emit and long.minutes[dimension] > 0
    if is_long:
        begin_long_kernel(g, long, dimension, tick)
    while row >= 0:
        slot, following = follow_kernel(w, row, columns, 0)
        if is_long and following >= 0:
            fetch_long_kernel(w, g, long, np.int64(w.links[following, L_SLOT]), dimension)
        if slot >= 0:
            is_over = add_sums_kernel(w, rules, slot, dimension, row)
            if w.keys[slot, K_ROWS] < ONE_CLOSED:
                w.active[dimension] += 1
            w.keys[slot, K_ROWS] += ONE_CLOSED
            if looks_for_busy:
                bit, requests = bit_of_route_kernel(w.keys[slot, K_A]), w.rows[row, R_VALUES + 0]
                if requests >= rules.busy_least[0] or placed & bit != 0:  # else it has no place, and gets none
                    w.scalars[BUSY] |= count_route_kernel(
                        w.busy, w.busy_names, rules.busy_least[0], w.keys[slot, K_A], w.keys[slot, K_B], requests,
                        w.names, slot * NAME_BYTES_MAX, name_length_kernel(w, slot),
                    )  # fmt: skip
                    placed |= bit
            for r in range(many_rules if is_over else 0):
                observed = compare_kernel(w, rules, slot, dimension, row, r, cell)
                if observed >= 0:
                    if tick - rules.rule_window[dimension, r] < w.scalars[MUTED]:
                        continue
                    fire_kernel(w, slot, r, cell)
                    if emit and is_meant_kernel(w, rules, slot, dimension, r):
                        emit_kernel(w, out, out_at, slot, r, tick, observed, w.rows[row, R_VALUES + 0])
                        out_at += 1
            if is_long and concerns_long_kernel(w, g, long, slot, dimension, row):
                out_at = judge_long_kernel(w, g, long, slot, dimension, row, tick, cell, out, out_at)
        row = following
    for k in range(first, out_at):
        out.active[k] = w.active[dimension]
    return out_at


@part
def close_kernel(w: Any, rules: Any, g: Any, long: Any, target: Any, emit: Any, out: Any, out_at: Any) -> Any:
    """Close ticks in order up to ``target``.

    Returns:
        (how many crossings ``out`` holds, how many the next tick needs room for: 0 when the target was reached, `MINUTE_OVER`
        when a minute is over in which something was counted for busy routes).
    """
    ticks, dimensions, _ = w.chains.shape
    while w.scalars[CLOSED] < target:
        tick = w.scalars[CLOSED] + 1
        if w.scalars[ROWS_USED] == 0:
            minute_end = tick - tick % MINUTE_S + MINUTE_S - 1
            if emit and w.scalars[BUSY] != 0 and minute_end <= target:
                w.scalars[CLOSED] = minute_end
                return out_at, np.int64(MINUTE_OVER)
            w.scalars[CLOSED] = target
            break
        needed = np.int64(0)
        for d in range(dimensions):
            needed += np.int64(w.chains[tick & (ticks - 1), d, LENGTH]) * (rules.rule_count[d] + long.rule_count[d])
        if emit and out_at + needed > len(out.rule):
            return out_at, needed
        for d in range(dimensions):
            if rules.span[d] > 0:
                fetch_kernel(w, d, rules.column_count[d], tick - rules.span[d])
                fetch_kernel(w, d, rules.column_count[d], tick)
        for d in range(dimensions):
            if rules.span[d] > 0:
                expire_kernel(w, rules, d, tick)
                out_at = judge_tick_kernel(w, rules, g, long, d, tick, emit, out, out_at)
        w.scalars[CLOSED] = tick
        if emit and w.scalars[BUSY] != 0 and tick % MINUTE_S == MINUTE_S - 1:
            return out_at, np.int64(MINUTE_OVER)
    return out_at, np.int64(0)


# The kernels below are called from Python, with plain tuples in place of the named ones: numba looks up the type of a named
# tuple in Python at every call, which cost 30 µs.


@entry
def all_insert_kernel(
    windows: Any, plan: Any, order: Any, cursors: Any, starts: Any, tick_limit: Any, early: Any, records: Any, names: Any,
    services: Any, crossings: Any, out_at: Any,
) -> Any:  # fmt: skip
    """Take a tally into every partition; see `insert_kernel`.

    Args:
        windows, plan, crossings: `Windows`, `Rules` and `Crossings` as plain tuples.
        cursors: i64[J]: the next row of each partition, advanced.
        starts: i64[J + 1]: partition p has ``order[starts[p]:starts[p + 1]]``.

    Returns:
        (the count of crossings, whether ``out`` has room: else grow it and call again).
    """
    w, rules, out = Windows(*windows), Rules(*plan), Crossings(*crossings)
    many_rules = w.cells.shape[2] // 2
    for p in range(len(cursors)):
        if cursors[p] >= starts[p + 1]:
            continue
        before = out_at
        cursors[p], out_at = insert_kernel(
            part_kernel(w, p), rules, order, cursors[p], starts[p + 1], tick_limit, early, records, names, services,
            out, out_at,
        )  # fmt: skip
        for k in range(before, out_at):
            out.partition[k] = p
        if early and out_at + many_rules > len(out.rule):
            return out_at, False
    return out_at, True


@entry
def all_close_kernel(
    windows: Any, plan: Any, order: Any, cursors: Any, starts: Any, tick_limit: Any, records: Any, names: Any, services: Any,
    long_windows: Any, long_plan: Any, target: Any, emit: Any, crossings: Any, out_at: Any,
) -> Any:  # fmt: skip
    """Take a tally in, which may be empty, and close ticks up to ``target``, in every partition; see `all_insert_kernel` and
    `close_kernel` for what it is given and returns. ``services[0]`` goes on from what it was.

    Of each partition both is done before the next one has its turn: what was written is in the caches still when it closes.
    But partitions stop at the end of a minute one and all, so that those in which something was counted are looked at together.
    """
    w, rules, out = Windows(*windows), Rules(*plan), Crossings(*crossings)
    g, long = LongWindows(*long_windows), LongRules(*long_plan)
    minute_over = np.int64(0)
    for p in range(len(w.tag)):
        before = out_at
        if cursors[p] < starts[p + 1]:
            cursors[p], _ = insert_kernel(
                part_kernel(w, p), rules, order, cursors[p], starts[p + 1], tick_limit, False, records, names, services, out, 0
            )
        out_at, needed = close_kernel(part_kernel(w, p), rules, long_part_kernel(g, p), long, target, emit, out, out_at)
        for k in range(before, out_at):
            out.partition[k] = p
        if needed > 0:
            return out_at, needed
        minute_over = min(minute_over, needed)
    return out_at, minute_over
