"""Which rows of a window are alike: of one address, of one route, of both. What entropies and busy routes are made of.

A window has at most 640 rows. Their words are numbered through a small index, as sorting them would take ten times as long.
Addresses are their owners' choice and the index is not keyed: whoever chooses them so that all fall to one slot makes 640 rows
cost what 200,000 steps do, once in ten seconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.kernels.sample_table import is_below_kernel
from schemas.compiled import entry, inlined, part

U64 = np.uint64
_MIX, _S32 = U64(0x9E3779B97F4A7C15), U64(32)
V_TOTAL, V_ERROR, V_OFTEN, V_OFTEN_ERROR, ROUTE_VALUES = range(5)
"""What `routes_kernel` says of a route: see `detectors.entropy.RouteWindow`."""
N_ROUTE, N_TOTAL, N_REPEATS, ROUTE_WORDS = range(4)
"""What is remembered of a route in a step: which, how many requests, and how often one address came, in thousandths of bits."""
MILLI = 1000


def allocate_slots(rows: int) -> npt.NDArray[np.int32]:
    """An empty index of so many words: a number + 1; 0 is empty."""
    return np.zeros(1 << (2 * rows + 1).bit_length(), np.int32)


@inlined
def mix_kernel(word: Any) -> Any:
    """u64: a word with its bits spread."""
    mixed = U64(word) * _MIX
    return mixed ^ (mixed >> _S32)


@entry
def alike_kernel(words: Any, slots: Any, firsts: Any, counts: Any) -> Any:
    """(pairs, triples): in how many ordered ways two, and three, of ``words`` (i64[n]) can be chosen that are the same.

    Args:
        slots: i32[power of two above n], zeros, scratch; firsts, counts: i64[n], scratch.
    """
    many = np.int64(0)
    mask = np.int64(len(slots) - 1)
    for at in range(len(words)):
        slot = np.int64(mix_kernel(words[at])) & mask
        while slots[slot] != 0 and words[firsts[slots[slot] - 1]] != words[at]:
            slot = (slot + 1) & mask
        if slots[slot] == 0:
            firsts[many], counts[many] = at, 0
            many += 1
            slots[slot] = np.int32(many)
        counts[slots[slot] - 1] += 1
    pairs, triples = np.int64(0), np.int64(0)
    for k in range(many):
        pairs += counts[k] * (counts[k] - 1)
        triples += counts[k] * (counts[k] - 1) * (counts[k] - 2)
    return pairs, triples


@part
def even_kernel(priorities: Any, words: Any, level: Any, slots: Any, numbers: Any, places: Any) -> Any:
    """What the rows of a window are like that are left at a level: those whose priority is below 2^64 / 2^level.

    Args:
        priorities, words: i64[n] of each row: its priority (an unsigned number), and what is compared.
        slots: i32[power of two above n], zeros, scratch; numbers: i64[n, 2], scratch.
        places: i64[k] out: where the k rows of lowest priority are, in order, of equal ones the first; or all, as they come.

    Returns:
        (how many rows are left, different words, ordered pairs of the same word, places).
    """
    left, many, pairs = np.int64(0), np.int64(0), np.int64(0)
    mask = np.int64(len(slots) - 1)
    for at in range(len(words)):
        if not is_below_kernel(U64(priorities[at]), level):
            continue
        left += 1
        if left <= len(places):
            places[left - 1] = at
        slot = np.int64(mix_kernel(words[at])) & mask
        while slots[slot] != 0 and words[numbers[slots[slot] - 1, 0]] != words[at]:
            slot = (slot + 1) & mask
        if slots[slot] == 0:
            numbers[many, 0], numbers[many, 1] = at, 0
            many += 1
            slots[slot] = np.int32(many)
        pairs += 2 * numbers[slots[slot] - 1, 1]
        numbers[slots[slot] - 1, 1] += 1
    if left <= len(places):
        return left, many, pairs, left
    put_lowest_kernel(priorities, places)
    return left, many, pairs, np.int64(len(places))


@inlined
def put_lowest_kernel(priorities: Any, places: Any) -> None:
    """Write where the lowest priorities are; there are as many at least. They are below any bound that so many are below."""
    kept = np.int64(0)
    for at in range(len(priorities)):
        if kept == len(places):
            if U64(priorities[at]) >= U64(priorities[places[kept - 1]]):
                continue
            kept -= 1
        to = kept
        while to > 0 and U64(priorities[places[to - 1]]) > U64(priorities[at]):
            places[to] = places[to - 1]
            to -= 1
        places[to] = at
        kept += 1


@part
def routes_kernel(
    routes: Any, addresses: Any, equals: Any, weights: Any, share: Any, least: Any, slots: Any, pair_slots: Any,
    numbers: Any, sums: Any, found: Any, values: Any,
) -> Any:  # fmt: skip
    """The heaviest routes of a window, and how often one address comes to each; returns how many.

    Args:
        routes, addresses, equals: i64[n], of each row; ``equals``: how many events lie in it.
        weights: f64[n], how many events it stands for.
        share, least: a route with less of all, or of fewer rows, is left out; so is what has no route (0).
        slots, pair_slots: i32[power of two above n], zeros, scratch.
        numbers: i64[n, 4], scratch: of rows the route's and the pair's number, of numbers their first row and their rows.
        sums: f64[n, 6], scratch.
        found: i64[k] out, the heaviest first, of equal ones the lesser word; ``values``: f64[k, ROUTE_VALUES] out.
    """
    many = number_routes_kernel(routes, addresses, slots, pair_slots, numbers)
    sums[:] = 0.0
    whole = 0.0
    for at in range(len(routes)):
        route, pair, weight = numbers[at, 0], numbers[at, 1], weights[at]
        whole += weight
        sums[route, 0] += weight
        sums[pair, 1] += weight
        sums[pair, 2] += weight * weight
    for at in range(len(routes)):
        route, pair, weight = numbers[at, 0], numbers[at, 1], weights[at]
        sums[route, 3] += weight * (sums[pair, 1] - weight + equals[at] - 1)
    for at in range(len(routes)):
        route, pair, weight = numbers[at, 0], numbers[at, 1], weights[at]
        left_out, others = 1 - equals[at] / weight, sums[pair, 1] - weight
        linear = 2 * others + equals[at] - 1 - sums[route, 3] / sums[route, 0]
        spread = linear * linear - 2 * left_out * (sums[pair, 2] - weight * weight)
        sums[route, 4] += left_out * (weight * weight)
        sums[route, 5] += left_out * (weight * weight) * max(0.0, spread)
    return put_heaviest_kernel(routes, numbers, sums, many, share * whole, least, found, values)


@entry
def all_routes_kernel(
    routes: Any, addresses: Any, equals: Any, weights: Any, share: Any, least: Any, slots: Any, pair_slots: Any,
    numbers: Any, sums: Any, found: Any, values: Any,
) -> Any:  # fmt: skip
    """`routes_kernel`, for whoever asks for one window."""
    return routes_kernel(
        routes, addresses, equals, weights, share, least, slots, pair_slots, numbers, sums, found, values
    )  # fmt: skip


@inlined
def number_routes_kernel(routes: Any, addresses: Any, slots: Any, pair_slots: Any, numbers: Any) -> Any:
    """Number the routes, and the pairs of route and address, as they come; returns how many routes there are."""
    many, pairs = np.int64(0), np.int64(0)
    mask = np.int64(len(slots) - 1)
    for at in range(len(routes)):
        slot = np.int64(mix_kernel(routes[at])) & mask
        while slots[slot] != 0 and routes[numbers[slots[slot] - 1, 2]] != routes[at]:
            slot = (slot + 1) & mask
        if slots[slot] == 0:
            numbers[many, 2], numbers[many, 3] = at, 0
            many += 1
            slots[slot] = np.int32(many)
        route = np.int64(slots[slot]) - 1
        numbers[at, 0] = route
        numbers[route, 3] += 1
        slot = np.int64(mix_kernel(U64(addresses[at]) ^ (U64(route) << _S32))) & mask
        # A slot holds a row of the pair: it says which route and address they are.
        first = np.int64(pair_slots[slot]) - 1
        while first >= 0 and (numbers[first, 0] != route or addresses[first] != addresses[at]):
            slot = (slot + 1) & mask
            first = np.int64(pair_slots[slot]) - 1
        if first < 0:
            pair_slots[slot] = np.int32(at + 1)
            numbers[at, 1] = pairs
            pairs += 1
        else:
            numbers[at, 1] = numbers[first, 1]
    return many


@inlined
def put_heaviest_kernel(
    routes: Any, numbers: Any, sums: Any, many: Any, total_min: Any, least: Any, found: Any, values: Any
) -> Any:
    """Write down those of the heaviest routes that have enough of a window; returns how many."""
    kept: Any = np.int64(0)
    for route in range(many):
        word, total = routes[numbers[route, 2]], sums[route, 0]
        to = kept
        while to > 0 and is_heavier_kernel(total, word, sums[found[to - 1], 0], routes[numbers[found[to - 1], 2]]):
            to -= 1
        if to == len(found):
            continue
        kept = min(kept + 1, len(found))
        for k in range(kept - 1, to, -1):
            found[k] = found[k - 1]
        found[to] = route
    count = np.int64(0)
    for k in range(kept):
        route = found[k]
        word, total = routes[numbers[route, 2]], sums[route, 0]
        if word == 0 or numbers[route, 3] < least or total < total_min:
            continue
        found[count], values[count, V_TOTAL] = word, total
        values[count, V_ERROR] = np.sqrt(sums[route, 4])
        values[count, V_OFTEN] = 1 + sums[route, 3] / total
        values[count, V_OFTEN_ERROR] = np.sqrt(sums[route, 5]) / total
        count += 1
    return count


@inlined
def is_heavier_kernel(total: Any, word: Any, other_total: Any, other_word: Any) -> Any:
    """Does a route come before another? Of equal ones the lesser word."""
    return total > other_total or (total == other_total and word < other_word)
