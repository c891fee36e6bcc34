"""Cells of the last half minute as one table, and of each series what its window holds: where somebody has to look.

A *series* is one stratum of one service (``stratum + STRATA * place of the service``). Cells come in the order of their
seconds. Nearly all of them are only added to what their series holds; those of seconds with more than usual are written down
for `engine.distributed`, which explains them. What is usual is learned as steps of ten seconds end (`engine.strata`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.kernels.alike import (
    N_REPEATS,
    N_ROUTE,
    N_TOTAL,
    V_OFTEN,
    V_TOTAL,
    even_kernel,
    mix_kernel,
    routes_kernel,
)
from detectors.kernels.sample_merge import compare_kernel, end_kernel, unite_kernel
from detectors.kernels.sample_table import is_below_kernel
from detectors.kernels.usual import (
    ACCOUNTS,
    NOTHING,
    R_LEARNED,
    R_NEWEST,
    R_TOTAL,
    STEPS,
    STRATA,
    T_KEPT,
    T_REPEATS,
    T_ROUTES,
    T_TOTAL,
    WARM_STEPS,
    exceeds_kernel,
    is_usual_kernel,
    mean_kernel,
    milli_bits_kernel,
    repeats_kernel,
    sum_up_kernel,
)
from detectors.surplus import ADDRESS, PRIORITY, ROUTE, ROW_WORDS, WEIGHT, WHO, WINDOW_S
from schemas.compiled import entry, inlined, part
from schemas.sample import (
    CELL_WORDS,
    E_ATTRIBUTES,
    E_CELL,
    E_IP_HIGH,
    E_IP_LOW,
    E_PRIORITY,
    E_WEIGHT,
    S_LEVEL,
    S_SERVICE_A,
    S_SERVICE_B,
    S_STRATUM,
    S_TICK,
    S_TOTAL,
    Attribute,
    Stratum,
)

U64 = np.uint64
L_TICK, L_A, L_B, L_STRATUM, L_LEVEL, L_TOTAL, L_SERIES, L_FROM, L_TO, LOG_WORDS = range(10)
"""Of a cell in the table: what it says, its series, and where its rows are."""
STRANGER, NOBODY = -1, -2
"""In the place of a series: of a service that is not known (yet), and of one that will not be."""
U_FIRST, U_CELLS, U_ROWS, U_WALKED, U_STRANGERS, USED = range(6)
"""The first cell that is kept, the ends of cells and rows, the first cell that was not gone through; strangers' cells."""
K_A, K_B, K_STATE, KNOWN_WORDS = range(4)
"""Of a place: the words of the service that has it, and whether that is KNOWN or SILENT (nothing is left of it); 0: nobody."""
KNOWN, SILENT = 1, 2
H_CELLS, H_LAST, H_RING = range(3)
"""Of a series: its cells that are kept, its newest second, and then the events of seconds by their number modulo `RING`."""
RING = 16
SERIES_WORDS = H_RING + RING
IS_MORE, ROUTES_MORE = 1, 2
ASSETS = int(Stratum.ASSETS)
E_WHO, ATTRIBUTES = E_ATTRIBUTES + int(Attribute.WHO), WHO - ROUTE
MANY = np.int64(1 << 62)


@inlined
def first_entry_kernel(entries: Any, cell: Any) -> Any:
    """Where the entries of a cell begin."""
    low, high = np.int64(0), np.int64(len(entries))
    while low < high:
        middle = (low + high) // 2
        if entries[middle, E_CELL] < cell:
            low = middle + 1
        else:
            high = middle
    return low


@inlined
def closed_kernel(cells: Any, at: Any, closed: Any) -> Any:
    """The first cell from ``at`` on that is of a later second."""
    while at < len(cells) and cells[at, S_TICK] <= closed:
        at += 1
    return at


@part
def put_cell_kernel(cells: Any, rows: Any, used: Any, came: Any, row: Any, entries: Any, start: Any, end: Any) -> None:
    """Write down a cell, ``came[row]``, with its entries."""
    at, to = used[U_CELLS], used[U_ROWS]
    cells[at, L_TICK], cells[at, L_STRATUM] = came[row, S_TICK], came[row, S_STRATUM]
    cells[at, L_A], cells[at, L_B] = came[row, S_SERVICE_A], came[row, S_SERVICE_B]
    cells[at, L_LEVEL], cells[at, L_TOTAL] = came[row, S_LEVEL], came[row, S_TOTAL]
    cells[at, L_SERIES], cells[at, L_FROM] = NOBODY, to
    for k in range(start, end):
        rows[to, PRIORITY], rows[to, WEIGHT] = entries[k, E_PRIORITY], entries[k, E_WEIGHT]
        rows[to, ADDRESS] = entries[k, E_IP_LOW] if entries[k, E_IP_HIGH] == 0 else entries[k, E_IP_HIGH]
        for attribute in range(ATTRIBUTES):
            rows[to, ROUTE + attribute] = entries[k, E_ATTRIBUTES + attribute]
        rows[to, WHO] = entries[k, E_WHO]
        to += 1
    cells[at, L_TO] = to
    used[U_CELLS], used[U_ROWS] = at + 1, to


@entry
def take_cells_kernel(
    one_cells: Any, one_entries: Any, i: Any, other_cells: Any, other_entries: Any, j: Any, closed: Any, cells: Any, rows: Any,
    used: Any, united_cell: Any, united: Any,
) -> Any:  # fmt: skip
    """Take in the cells of two samples up to a second, united where they are of the same.

    Args:
        i, j: the first cells that count.
        cells, rows, used: the table, with room for all of them.
        united_cell, united: i64[1, CELL_WORDS], i64[KEPT, ENTRY_WORDS], scratch.

    Returns:
        (the first cells that are later).
    """
    i_end, j_end = closed_kernel(one_cells, i, closed), closed_kernel(other_cells, j, closed)
    one_closed, other_closed = one_cells[:i_end], other_cells[:j_end]
    p, q = first_entry_kernel(one_entries, i), first_entry_kernel(other_entries, j)
    while i < i_end or j < j_end:
        order = compare_kernel(one_closed, i, other_closed, j)
        p_end, q_end = p, q
        if order <= 0:
            p_end = end_kernel(one_entries, p, i)
        if order >= 0:
            q_end = end_kernel(other_entries, q, j)
        if order < 0:
            put_cell_kernel(cells, rows, used, one_cells, i, one_entries, p, p_end)
        elif order > 0:
            put_cell_kernel(cells, rows, used, other_cells, j, other_entries, q, q_end)
        else:
            for column in range(CELL_WORDS):
                united_cell[0, column] = one_cells[i, column]
            united_cell[0, S_TOTAL] += other_cells[j, S_TOTAL]
            united_cell[0, S_LEVEL] = max(one_cells[i, S_LEVEL], other_cells[j, S_LEVEL])
            many = unite_kernel(one_entries, p, p_end, other_entries, q, q_end, united_cell, 0, united, np.int64(0))
            put_cell_kernel(cells, rows, used, united_cell, 0, united, np.int64(0), many)
        if order <= 0:
            i += 1
        if order >= 0:
            j += 1
        p, q = p_end, q_end
    return i_end, j_end


@inlined
def add_kernel(series: Any, s: Any, tick: Any, total: Any) -> Any:
    """Add a second to a series; returns the events of the window that ends with it."""
    last = series[s, H_LAST]
    if tick > last:
        for passed in range(max(last + 1, tick - RING + 1), tick + 1):
            series[s, H_RING + (passed & (RING - 1))] = 0
        series[s, H_LAST] = tick
    series[s, H_RING + (tick & (RING - 1))] += total
    series[s, H_CELLS] += 1
    recent = np.int64(0)
    for second in range(tick - WINDOW_S + 1, tick + 1):
        recent += series[s, H_RING + (second & (RING - 1))]
    return recent


@inlined
def series_kernel(known: Any, a: Any, b: Any, stratum: Any) -> Any:
    """The series of a cell, or STRANGER."""
    for place in range(len(known)):
        if known[place, K_STATE] != 0 and known[place, K_A] == a and known[place, K_B] == b:
            return place * STRATA + stratum
    return np.int64(STRANGER)


@part
def count_accounts_kernel(cells: Any, rows: Any, first: Any, at: Any, slots: Any) -> Any:
    """Accounts of the window of a series that ends with the cell ``at``; MANY: there is no room to count them."""
    s, since = cells[at, L_SERIES], cells[at, L_TICK] - WINDOW_S
    level, many = np.int64(0), np.int64(0)
    start = at
    while start >= first and cells[start, L_TICK] > since:
        if cells[start, L_SERIES] == s:
            level = max(level, cells[start, L_LEVEL])
            many += cells[start, L_TO] - cells[start, L_FROM]
        start -= 1
    if 2 * many > len(slots):
        return MANY
    size = np.int64(2)
    while size < 2 * many:
        size *= 2
    for k in range(size):
        slots[k] = 0
    different = np.int64(0)
    for cell in range(start + 1, at + 1):
        if cells[cell, L_SERIES] != s:
            continue
        for row in range(cells[cell, L_FROM], cells[cell, L_TO]):
            if not is_below_kernel(U64(rows[row, PRIORITY]), level):
                continue
            slot = np.int64(mix_kernel(rows[row, WHO])) & (size - 1)
            while slots[slot] != 0 and rows[slots[slot] - 1, WHO] != rows[row, WHO]:
                slot = (slot + 1) & (size - 1)
            if slots[slot] == 0:
                slots[slot] = np.int32(row + 1)
                different += 1
    return different << level


@entry
def walk_kernel(
    cells: Any, rows: Any, used: Any, known: Any, series: Any, learned: Any, limits: Any, routes_least: Any, until: Any,
    judged_from: Any, slots: Any, found: Any,
) -> Any:  # fmt: skip
    """Go through the cells before a second that nobody has gone through; returns how many are to be looked at.

    Args:
        known: i64[services, KNOWN_WORDS].
        series: i64[services * STRATA, SERIES_WORDS].
        learned: i64[services * STRATA, REFERENCE_WORDS].
        limits: f64[sections, 1 + STRATA], of each section its growth and the least of each stratum.
        routes_least: f64[STRATA], with so much more than usual, as a step ends, a busy route may have more.
        judged_from: of earlier seconds nothing is looked at.
        slots: i32[power of two], scratch.
        found: i64[as many cells, 3] out: the cell, the events of its window, and what there is to see.
    """
    count, at = np.int64(0), used[U_WALKED]
    while at < used[U_CELLS] and cells[at, L_TICK] < until:
        tick, stratum = cells[at, L_TICK], cells[at, L_STRATUM]
        s = series_kernel(known, cells[at, L_A], cells[at, L_B], stratum)
        cells[at, L_SERIES] = s
        if s < 0:
            used[U_STRANGERS] += 1
            at += 1
            continue
        total = add_kernel(series, s, tick, cells[at, L_TOTAL])
        if tick >= judged_from and learned[s, R_LEARNED] >= WARM_STEPS:
            what = np.int64(0)
            if exceeds_kernel(learned, s, limits, total) and (
                stratum != ACCOUNTS
                or exceeds_kernel(learned, s, limits, count_accounts_kernel(cells, rows, used[U_FIRST], at, slots))
            ):
                what = np.int64(IS_MORE)
            # What a busy route has too much is a part of what the service has: with less, nobody looks.
            if tick % WINDOW_S == WINDOW_S - 1 and total > mean_kernel(learned, s) + routes_least[stratum]:
                what |= ROUTES_MORE
            if what != 0:
                found[count, 0], found[count, 1], found[count, 2] = at, total, what
                count += 1
        at += 1
    used[U_WALKED] = at
    return count


@entry
def join_kernel(cells: Any, used: Any, a: Any, b: Any, place: Any, series: Any) -> None:
    """A service has become known: its cells, of strangers until now, are of its series."""
    for at in range(used[U_FIRST], used[U_WALKED]):
        if cells[at, L_SERIES] == STRANGER and cells[at, L_A] == a and cells[at, L_B] == b:
            s = place * STRATA + cells[at, L_STRATUM]
            cells[at, L_SERIES] = s
            add_kernel(series, s, cells[at, L_TICK], cells[at, L_TOTAL])


@entry
def end_step_kernel(
    cells: Any, rows: Any, used: Any, end: Any, known: Any, series: Any, learned: Any, steps: Any, lowest: Any, routes: Any,
    share: Any, least: Any, slots: Any, pair_slots: Any, gathered: Any, numbers: Any, weights: Any, sums: Any, places: Any,
    found: Any, values: Any,
) -> Any:  # fmt: skip
    """Learn from each series what it held in the step before ``end``; then cells before ``end`` are dropped.

    Args:
        learned: i64[services * STRATA, REFERENCE_WORDS].
        steps, lowest, routes: i64[services * STRATA, STEPS, …], by the number of each step that was learned, modulo STEPS:
            …, STEP_WORDS; …, K, ROW_WORDS, the rows that stand for it; …, R, ROUTE_WORDS, its heaviest routes.
        share, least: see `routes_kernel`.
        slots, pair_slots: i32[power of two above twice the rows], scratch, as are gathered, i64[rows, ROW_WORDS],
            numbers, i64[rows, 4], weights, f64[rows], sums, f64[rows, 6], places, i64[K], found, i64[R], and values,
            f64[R, ROUTE_VALUES].

    Returns:
        (whether there are strangers, or services of which nothing is known but noughts).
    """
    for s in range(len(series)):
        if known[s // STRATA, K_STATE] == 0:
            continue
        stratum, step = s % STRATA, end // WINDOW_S
        many, came, events, level = gather_kernel(cells, rows, used, s, end, gathered, weights)
        some, size = gathered[:many], np.int64(2)
        while size < 2 * many:
            size *= 2
        slots[:size] = 0
        words = some[:, WHO if stratum == ACCOUNTS else ADDRESS]
        left, different, alike, kept = even_kernel(some[:, PRIORITY], words, level, slots[:size], numbers, places)
        total = different << level if stratum == ACCOUNTS else events
        if not is_usual_kernel(learned, s, step, came, total):
            continue
        at = learned[s, R_LEARNED] % STEPS
        steps[s, at, T_TOTAL], steps[s, at, T_KEPT], steps[s, at, T_ROUTES] = total, kept, 0
        steps[s, at, T_REPEATS] = repeats_kernel(stratum, left, alike, events, total) if left >= least else NOTHING
        for k in range(kept):
            for column in range(ROW_WORDS):
                lowest[s, at, k, column] = some[places[k], column]
        if stratum != ACCOUNTS and stratum != ASSETS and many > 0:
            slots[:size], pair_slots[:size] = 0, 0
            steps[s, at, T_ROUTES] = routes_kernel(
                some[:, ROUTE], some[:, ADDRESS], some[:, WEIGHT], weights[:many], share, least, slots[:size],
                pair_slots[:size], numbers, sums[:many], found, values,
            )  # fmt: skip
        for k in range(steps[s, at, T_ROUTES]):
            routes[s, at, k, N_ROUTE], routes[s, at, k, N_TOTAL] = found[k], np.int64(np.rint(values[k, V_TOTAL]))
            routes[s, at, k, N_REPEATS] = milli_bits_kernel(values[k, V_OFTEN])
        learned[s, R_LEARNED] += 1
        learned[s, R_NEWEST] = step
        sum_up_kernel(learned, steps, s)
    drop_kernel(cells, used, end, series)
    return note_silent_kernel(known, series, learned) or used[U_STRANGERS] > 0


@part
def gather_kernel(cells: Any, rows: Any, used: Any, s: Any, end: Any, gathered: Any, weights: Any) -> Any:
    """Put the rows of a series in the step before ``end`` one behind the other.

    Returns:
        (how many there are, how many cells, their events, their highest level).
    """
    many, came, events, level = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    for at in range(used[U_FIRST], used[U_WALKED]):
        if cells[at, L_TICK] >= end:
            break
        if cells[at, L_SERIES] != s or cells[at, L_TICK] < end - WINDOW_S:
            continue
        came += 1
        events += cells[at, L_TOTAL]
        level = max(level, cells[at, L_LEVEL])
        each = np.float64(1 << cells[at, L_LEVEL])
        for row in range(cells[at, L_FROM], cells[at, L_TO]):
            for column in range(ROW_WORDS):
                gathered[many, column] = rows[row, column]
            weights[many] = each * rows[row, WEIGHT]
            many += 1
    return many, came, events, level


@inlined
def drop_kernel(cells: Any, used: Any, end: Any, series: Any) -> None:
    """Keep no cells before a second."""
    at = used[U_FIRST]
    while at < used[U_WALKED] and cells[at, L_TICK] < end:
        if cells[at, L_SERIES] >= 0:
            series[cells[at, L_SERIES], H_CELLS] -= 1
        at += 1
    used[U_FIRST] = at


@inlined
def note_silent_kernel(known: Any, series: Any, learned: Any) -> Any:
    """Write down of which services nothing is known but noughts; returns whether there are any."""
    some = False
    for place in range(len(known)):
        heard = known[place, K_STATE] == 0
        for s in range(place * STRATA, (place + 1) * STRATA):
            heard |= learned[s, R_TOTAL] > 0 or series[s, H_CELLS] > 0
        if not heard:
            known[place, K_STATE], some = SILENT, True
    return some
