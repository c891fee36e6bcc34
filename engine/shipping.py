"""Tallies between observers and judges in different processes: how many rows are sent, and how they are received."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from detectors.kernels.hashing import hash_keys, partitions_of
from schemas.columns import U64
from schemas.errors import StateError
from schemas.fields import Dimension, Measure
from schemas.sample import S_SERVICE_A, S_SERVICE_B
from schemas.tally import C_DIMENSION, C_HASH, C_KEY_A, C_KEY_B, C_TICK, Tally, decode_tally


def bound_rows(tally: Tally, rows_max: int) -> Tally:
    """At most ``rows_max`` rows of each tick, the heaviest; what is left out is counted as truncated.

    Rows of the service stay: they carry the totals, and say where its sample goes, which is bounded by itself. The bound
    is on each tick, not on the tally, because a live flush spans one or two ticks, while one that catches up spans minutes:
    more ticks are more work, but no flood.
    """
    if tally.rows <= rows_max:
        return tally
    order = tally.order
    tick, requests = tally.column(C_TICK)[order], tally.measures[order, Measure.REQUESTS]
    by_weight = np.lexsort((-requests, tick))
    sorted_tick = tick[by_weight]
    first = np.searchsorted(sorted_tick, sorted_tick)
    rank = np.empty(len(order), np.int64)
    rank[by_weight] = np.arange(len(order)) - first
    kept = (rank < rows_max) | (tally.column(C_DIMENSION)[order] == Dimension.SERVICE)
    before = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    return replace(
        tally,
        truncated=tally.truncated + int(len(order) - kept.sum()),
        order=order[kept],
        partition_start=before[tally.partition_start],
    )


def receive_tally(data: bytes, seeds: U64, partition: int, partitions: int) -> Tally:
    """A tally as judge partition ``partition`` of ``partitions`` gets it, with its hashes.

    Raises:
        StateError: the bytes are damaged, or come from an observer with another seed.
    """
    tally = decode_tally(data)
    key_a, key_b = tally.column(C_KEY_A).astype(np.uint64), tally.column(C_KEY_B).astype(np.uint64)
    hashes = hash_keys(seeds, key_a, key_b, tally.column(C_DIMENSION).astype(np.uint8))
    tally.records[:, C_HASH] = hashes.view(np.int64)
    _refuse_others("rows", hashes, partition, partitions)
    cells = tally.sample.cells
    services = np.full(len(cells), Dimension.SERVICE, np.uint8)
    key_a, key_b = cells[:, S_SERVICE_A].astype(np.uint64), cells[:, S_SERVICE_B].astype(np.uint64)
    _refuse_others("samples", hash_keys(seeds, key_a, key_b, services), partition, partitions)
    return tally


def _refuse_others(what: str, hashes: U64, partition: int, partitions: int) -> None:
    others = np.flatnonzero(partitions_of(hashes, partitions) != partition)
    if len(others):
        raise StateError(
            f"expected {what} of judge partition {partition} of {partitions}, got {len(others)} of others: "
            "observers and judges need the same FLOODWALL_SEED and engine.judge_partitions"
        )
