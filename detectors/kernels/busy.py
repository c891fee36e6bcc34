"""Which routes are busy, and how often each was asked for in the minute at hand: counted as seconds close.

A judge partition keeps series of its busiest routes (`engine.busy`), and this has to know what their minutes sum up to without
looking at every route of every second in Python. So a partition has a few *places*. Those of series and of routes that are
being tested count all there is of their route. The others are for newcomers: of the routes that were asked for so often in one
second that their minute may be busy, those with the highest such second. They are tested in the next minute, which is then
counted from its beginning. Rows come as seconds have been closed, whole, and the highest are the same in any order: so no cut
and no order of arrival changes who is there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from schemas.compiled import entry, inlined, part
from schemas.tally import NAME_BYTES_MAX

SERIES, TESTED, NEW = 2, 4, 4
"""Places of a judge partition for routes that have a series, that are tested in this minute, and that may be in the next."""
NEW_FROM = SERIES + TESTED
PLACES = NEW_FROM + NEW
B_USED, B_A, B_B, B_TOTAL, B_PEAK, B_NAME_LENGTH, BUSY_WORDS = range(7)
"""Of a place: whether it is taken, the words of the route's key, its requests in the minute, the most in one second, its name's
bytes."""


@part
def count_route_kernel(
    busy: Any, busy_names: Any, peak_min: Any, a: Any, b: Any, requests: Any, names: Any, name: Any, name_length: Any
) -> Any:
    """Count what a route was asked for in a second; returns 1 if it has a place, else 0.

    Args:
        busy, busy_names: i64[PLACES, BUSY_WORDS], u8[PLACES * NAME_BYTES_MAX]: the partition's, brought up to date.
        peak_min: newcomers have at least so many in a second.
        a, b: i64, the words of the key.
        names, name, name_length: the key's name is ``names[name:name + name_length]``.
    """
    lowest: Any = np.int64(NEW_FROM)
    for place in range(PLACES):
        if busy[place, B_USED] != 0 and busy[place, B_A] == a and busy[place, B_B] == b:
            busy[place, B_TOTAL] += requests
            busy[place, B_PEAK] = max(busy[place, B_PEAK], requests)
            return np.int64(1)
        if place > NEW_FROM and is_lower_kernel(busy, place, busy[lowest, B_PEAK], busy[lowest, B_A], busy[lowest, B_B]):
            lowest = place
    if requests < peak_min or not is_lower_kernel(busy, lowest, requests, a, b):
        return np.int64(0)
    busy[lowest, B_USED], busy[lowest, B_A], busy[lowest, B_B] = 1, a, b
    busy[lowest, B_TOTAL], busy[lowest, B_PEAK] = requests, requests
    busy[lowest, B_NAME_LENGTH] = name_length
    for k in range(name_length):
        busy_names[lowest * NAME_BYTES_MAX + k] = names[name + k]
    return np.int64(1)


@inlined
def bits_of_places_kernel(busy: Any) -> Any:
    """u64: the bits (`bit_of_route_kernel`) of the routes that have a place. A route without its bit has none."""
    bits = np.uint64(0)
    for place in range(PLACES):
        if busy[place, B_USED] != 0:
            bits |= bit_of_route_kernel(busy[place, B_A])
    return bits


@inlined
def bit_of_route_kernel(a: Any) -> Any:
    """u64: one of 64 bits, for the first word of a route's key."""
    return np.uint64(1) << (np.uint64(a) & np.uint64(63))


@inlined
def is_lower_kernel(busy: Any, place: Any, peak: Any, a: Any, b: Any) -> Any:
    """Has a place a lower second than ``peak``? Of equal ones the lesser key. One that is free has none."""
    if busy[place, B_PEAK] != peak:
        return busy[place, B_PEAK] < peak
    return busy[place, B_A] < a or (busy[place, B_A] == a and busy[place, B_B] < b)


@entry
def end_minute_kernel(busy: Any, busy_names: Any, partitions: Any) -> None:
    """In some partitions newcomers take the places of those that were tested, and all count from nothing.

    Args:
        busy, busy_names: of all partitions.
    """
    for p in partitions:
        for place in range(SERIES, PLACES):
            source = place - SERIES + NEW_FROM
            for word in range(BUSY_WORDS):
                busy[p, place, word] = busy[p, source, word] if source < PLACES else 0
            if source < PLACES:
                for byte in range(NAME_BYTES_MAX):
                    busy_names[p, place * NAME_BYTES_MAX + byte] = busy_names[p, source * NAME_BYTES_MAX + byte]
        for place in range(PLACES):
            busy[p, place, B_TOTAL], busy[p, place, B_PEAK] = 0, 0
