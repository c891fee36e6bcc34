"""Cells of the last half minute as one table, and of each series what its window holds: where somebody has to look.

A *series* is one stratum of one service (``stratum + STRATA * place of the service``). Cells come in the order of their
seconds. Nearly all of them are only added to what their series holds; those of seconds with more than usual are written down
for `engine.distributed`, which explains them.
"""

from __future__ import annotations

from math import log2
from typing import Any

import numpy as np

from detectors.kernels.alike import (
    MILLI,
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
STRATA = len(Stratum)
L_TICK, L_A, L_B, L_STRATUM, L_LEVEL, L_TOTAL, L_SERIES, L_FROM, L_TO, LOG_WORDS = range(10)
"""Of a cell in the table: what it says, its series, and where its rows are."""
STRANGER, NOBODY = -1, -2
"""In the place of a series: of a service that is not known (yet), and of one that will not be."""
U_FIRST, U_CELLS, U_ROWS, U_WALKED, U_STRANGERS, USED = range(6)
"""The first cell that is kept, the ends of cells and rows, the first cell that was not gone through; strangers' cells."""
H_CELLS, H_HEARD, H_LAST, H_RING = range(4)
"""Of a series: its cells that are kept and their events, its newest second, and then the events of seconds by their number
modulo `RING`."""
RING = 16
SERIES_WORDS = H_RING + RING
M_MORE, M_ROUTES, M_HEARD, BOUNDS = range(4)
"""Of a series: a window with more events is to be explained; one with more, as a step ends, may have a busy route with more;
and neither while no more has been heard of it."""
IS_MORE, ROUTES_MORE = 1, 2
T_CELLS, T_TOTAL, T_LEVEL, T_LEFT, T_DIFFERENT, T_ALIKE, T_KEPT, T_ROUTES, STEP_WORDS = range(9)
"""Of a series in a step: cells, events, the highest level; of the rows that are left at that level how many, different words,
pairs of the same one, those that stand for the step; and its routes."""
ACCOUNTS, ASSETS = int(Stratum.ACCOUNTS), int(Stratum.ASSETS)
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
    series[s, H_HEARD] += total
    recent = np.int64(0)
    for second in range(tick - WINDOW_S + 1, tick + 1):
        recent += series[s, H_RING + (second & (RING - 1))]
    return recent


@inlined
def series_kernel(known: Any, a: Any, b: Any, stratum: Any) -> Any:
    """The series of a cell, or STRANGER."""
    for place in range(len(known)):
        if known[place, 2] != 0 and known[place, 0] == a and known[place, 1] == b:
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
    cells: Any, rows: Any, used: Any, known: Any, series: Any, bounds: Any, until: Any, judged_from: Any, slots: Any, found: Any
) -> Any:
    """Go through the cells before a second that nobody has gone through; returns how many are to be looked at.

    Args:
        known: i64[services, 3], the words of each that is known, then 1.
        series: i64[services * STRATA, SERIES_WORDS].
        bounds: f64[services * STRATA, BOUNDS].
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
        if tick >= judged_from and series[s, H_HEARD] > bounds[s, M_HEARD]:
            what = np.int64(0)
            if total > bounds[s, M_MORE] and (
                stratum != ACCOUNTS or count_accounts_kernel(cells, rows, used[U_FIRST], at, slots) > bounds[s, M_MORE]
            ):
                what = np.int64(IS_MORE)
            if tick % WINDOW_S == WINDOW_S - 1 and total > bounds[s, M_ROUTES]:
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
    cells: Any, rows: Any, used: Any, end: Any, series: Any, share: Any, least: Any, slots: Any, pair_slots: Any,
    gathered: Any, numbers: Any, weights: Any, sums: Any, steps: Any, lowest: Any, places: Any, found: Any, values: Any,
    routes: Any,
) -> None:  # fmt: skip
    """What each series held in the step before ``end``; then cells before ``end`` are dropped.

    Args:
        share, least: see `routes_kernel`.
        slots, pair_slots: i32[power of two above twice the rows], scratch, as are gathered, i64[rows, ROW_WORDS],
        numbers, i64[rows, 4], weights, f64[rows], sums, f64[rows, 6], places, i64[K], found, i64[R], and values,
        f64[R, ROUTE_VALUES].
        steps: i64[services * STRATA, STEP_WORDS] out.
        lowest: i64[services * STRATA, K, ROW_WORDS] out: the rows that stand for the step.
        routes: i64[services * STRATA, R, ROUTE_WORDS] out: what is to be remembered of the heaviest routes.
    """
    for s in range(len(steps)):
        steps[s, :] = 0
        if series[s, H_CELLS] == 0:
            continue
        stratum = s % STRATA
        many = gather_kernel(cells, rows, used, s, end, gathered, weights, steps)
        size = np.int64(2)
        while size < 2 * many:
            size *= 2
        for k in range(size):
            slots[k] = 0
        some = gathered[:many]
        left, different, alike, kept = even_kernel(
            some[:, PRIORITY],
            some[:, WHO if stratum == ACCOUNTS else ADDRESS],
            steps[s, T_LEVEL],
            slots[:size],
            numbers,
            places,
        )
        steps[s, T_LEFT], steps[s, T_DIFFERENT], steps[s, T_ALIKE], steps[s, T_KEPT] = left, different, alike, kept
        for k in range(kept):
            for column in range(ROW_WORDS):
                lowest[s, k, column] = some[places[k], column]
        if stratum == ACCOUNTS or stratum == ASSETS or many == 0:
            continue
        for k in range(size):
            slots[k] = 0
            pair_slots[k] = 0
        steps[s, T_ROUTES] = routes_kernel(
            some[:, ROUTE], some[:, ADDRESS], some[:, WEIGHT], weights[:many], share, least, slots[:size], pair_slots[:size],
            numbers, sums[:many], found, values,
        )  # fmt: skip
        for k in range(steps[s, T_ROUTES]):
            routes[s, k, N_ROUTE], routes[s, k, N_TOTAL] = found[k], np.int64(np.rint(values[k, V_TOTAL]))
            routes[s, k, N_REPEATS] = np.int64(np.rint(MILLI * log2(values[k, V_OFTEN])))
    at = used[U_FIRST]
    while at < used[U_WALKED] and cells[at, L_TICK] < end:
        if cells[at, L_SERIES] >= 0:
            series[cells[at, L_SERIES], H_CELLS] -= 1
            series[cells[at, L_SERIES], H_HEARD] -= cells[at, L_TOTAL]
        at += 1
    used[U_FIRST] = at


@part
def gather_kernel(cells: Any, rows: Any, used: Any, s: Any, end: Any, gathered: Any, weights: Any, steps: Any) -> Any:
    """Put the rows of a series in the step before ``end`` one behind the other; returns how many there are."""
    many = np.int64(0)
    for at in range(used[U_FIRST], used[U_WALKED]):
        if cells[at, L_TICK] >= end:
            break
        if cells[at, L_SERIES] != s or cells[at, L_TICK] < end - WINDOW_S:
            continue
        steps[s, T_CELLS] += 1
        steps[s, T_TOTAL] += cells[at, L_TOTAL]
        steps[s, T_LEVEL] = max(steps[s, T_LEVEL], cells[at, L_LEVEL])
        each = np.float64(1 << cells[at, L_LEVEL])
        for row in range(cells[at, L_FROM], cells[at, L_TO]):
            for column in range(ROW_WORDS):
                gathered[many, column] = rows[row, column]
            weights[many] = each * rows[row, WEIGHT]
            many += 1
    return many
