"""Rows of a batch in the order in which judges take them: by judge partition, and by tick within one."""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.kernels.hashing import partition_kernel
from schemas.compiled import entry, inlined
from schemas.fields import Dimension
from schemas.tally import C_DIMENSION, C_HASH, C_TICK

U64 = np.uint64
D_API_KEY = int(Dimension.API_KEY)


@entry
def order_kernel(
    records: Any, rows: Any, by_tick: Any, tick_min: Any, ticks: Any, partitions: Any, order: Any, starts: Any, bins: Any
) -> Any:
    """Order rows by judge partition, then by tick: a stable counting sort. Returns how many of them are of API keys.

    Args:
        records: i64[rows or more, RECORD_WORDS].
        by_tick: i64[rows]: indices of the rows by tick where they span too many ticks to count; empty: they are counted.
        tick_min, ticks: the least tick, and how many from it on are counted; 1 with ``by_tick``.
        order: i64[rows] out.
        starts: i64[partitions + 1] out.
        bins: i64[>= partitions * ticks + 1], scratch.
    """
    many = U64(partitions)
    sorted_before = len(by_tick) > 0
    last = partitions * ticks
    bins[: last + 1] = 0
    of_keys = np.int64(0)
    for k in range(rows):
        of_keys += np.int64(records[k, C_DIMENSION] == D_API_KEY)
        bins[place_kernel(records, k, sorted_before, tick_min, ticks, many) + 1] += 1
    for k in range(last):
        bins[k + 1] += bins[k]
    for p in range(partitions + 1):
        starts[p] = bins[p * ticks]
    for k in range(rows):
        r = by_tick[k] if sorted_before else np.int64(k)
        place = place_kernel(records, r, sorted_before, tick_min, ticks, many)
        order[bins[place]] = r
        bins[place] += 1
    return of_keys


@inlined
def place_kernel(records: Any, row: Any, sorted_before: Any, tick_min: Any, ticks: Any, many: Any) -> Any:
    """Which bin a row belongs to."""
    partition = partition_kernel(U64(records[row, C_HASH]), many)
    return partition * ticks + (np.int64(0) if sorted_before else records[row, C_TICK] - tick_min)
