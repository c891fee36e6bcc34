"""What long windows hold, as plain arrays: whole in a snapshot and in every record of a judge.

Only buckets with something in them are written, under their measure and minute, so that a state can be read under other rules.
What the table covers is said by the last closed second that is saved beside it: rows of later seconds have not been added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from detectors.kernels.hashing import hash_keys, partitions_of
from detectors.kernels.long_windows import (
    E_A,
    E_B,
    E_CELLS,
    E_DIMENSION,
    E_LAST,
    E_NEWEST,
    E_PARTS,
    E_TICK,
    MINUTE_S,
    all_claim_entry_kernel,
)
from detectors.kernels.windows import AGED_OUT, AGED_TICK, EMPTY, NEVER, TAG_BIT
from schemas.columns import I64, U64
from schemas.fields import DIMENSIONS, MEASURES

if TYPE_CHECKING:
    from engine.judge import Judge

_NUMBERS = ("newest", "last", "tick", "parts")
_COLUMNS = (E_NEWEST, E_LAST, E_TICK, E_PARTS)


def save_long(judge: Judge) -> dict[str, Any]:
    """The entries that are not over, and their buckets that are not empty."""
    plan, table = judge.plan.long, judge.long
    cells = plan.rule_part.shape[1]
    minute = 0 if judge.closed == NEVER else judge.closed // MINUTE_S
    dimension = table.entries[:, :, E_DIMENSION]
    alive = (table.tag != EMPTY) & (minute - table.entries[:, :, E_LAST] < plan.minutes[dimension])
    entries = table.entries[alive]
    dimension = entries[:, E_DIMENSION]
    places, measures, minutes = _buckets(judge)
    which, word = np.nonzero(entries[:, E_CELLS + cells :])
    place = places[dimension[which], word]
    kept = place >= 0
    which, word, place = which[kept], word[kept] + E_CELLS + cells, place[kept]
    many = minutes[dimension[which], place]
    newest = entries[which, E_NEWEST]
    # The bucket of minute m is number m modulo the buckets of its column; none is of a minute after the newest.
    at = word - plan.column_at[dimension[which], place]
    return {
        "a": entries[:, E_A].view(np.uint64), "b": entries[:, E_B].view(np.uint64), "dimension": dimension.astype(np.uint8),
        **{name: entries[:, column] for name, column in zip(_NUMBERS, _COLUMNS, strict=True)},
        "cells": entries[:, E_CELLS : E_CELLS + cells].astype(np.int32),
        "buckets": {
            "entry": which.astype(np.int32), "measure": measures[dimension[which], place].astype(np.uint8),
            "ago": ((newest - at) % many).astype(np.uint8), "value": entries[which, word],
        },
    }  # fmt: skip


def load_long(judge: Judge, state: dict[str, Any], seeds: U64, partitions: int, *, same_rules: bool) -> None:
    """Fill the empty table of a judge; under other rules, a cell that has begun is not decided again.

    Raises:
        TypeError, ValueError: kernels could not bear what it says.
    """
    _check(judge, state)
    plan, table = judge.plan.long, judge.long
    cells = plan.rule_part.shape[1]
    hashes = hash_keys(seeds, state["a"], state["b"], state["dimension"])
    tags = (hashes >> np.uint64(40)).astype(np.uint32) | TAG_BIT
    partition = partitions_of(hashes, partitions) if len(table.tag) > 1 else np.zeros(len(hashes), np.int64)
    a, b = state["a"].view(np.int64), state["b"].view(np.int64)
    aged = judge.windows.scalars[:, [AGED_OUT, AGED_TICK]].copy()
    slots = np.full(len(hashes), -1, np.int64)
    home = tags & np.uint32(table.tag.shape[1] - 1)
    for index in np.argsort(home, kind="stable").tolist():  # in this order each finds a place, as it did
        dimension = int(state["dimension"][index])
        if plan.minutes[dimension] == 0:
            continue
        p = int(partition[index])
        at = all_claim_entry_kernel(
            tuple(judge.windows), tuple(table), tuple(plan), p, tags[index], a[index], b[index], dimension,
            int(state["last"][index]),
        )  # fmt: skip
        slots[index] = at
        for name, column in zip(_NUMBERS, _COLUMNS, strict=True):
            table.entries[p, at, column] = state[name][index]
        if same_rules:
            table.entries[p, at, E_CELLS : E_CELLS + cells] = state["cells"][index]
    judge.windows.scalars[:, [AGED_OUT, AGED_TICK]] = aged
    _fill(judge, state, partition, slots)


def _fill(judge: Judge, state: dict[str, Any], partition: I64, slots: I64) -> None:
    """Write the buckets of the entries that have found a place."""
    plan, entries, buckets = judge.plan.long, judge.long.entries, state["buckets"]
    column_of = np.full((DIMENSIONS, MEASURES), -1, np.int64)
    _, measures, _ = _buckets(judge)
    for dimension in range(DIMENSIONS):
        for index in range(plan.column_count[dimension]):
            column_of[dimension, measures[dimension, index]] = index
    which = buckets["entry"]
    dimension_of = state["dimension"][which]
    column = column_of[dimension_of, buckets["measure"]]
    known = (column >= 0) & (slots[which] >= 0)
    known &= buckets["ago"] < np.where(column >= 0, plan.column_minutes[dimension_of, column], 0)
    which, column, dimension_of = which[known], column[known], dimension_of[known]
    minute = state["newest"][which] - buckets["ago"][known]
    word = plan.column_at[dimension_of, column] + minute % plan.column_minutes[dimension_of, column]
    entries[partition[which], slots[which], word] = buckets["value"][known]


def _buckets(judge: Judge) -> tuple[I64, I64, I64]:
    """By dimension: the column that each word of buckets belongs to (-1: none), and the measure and buckets of each column."""
    plan, tracked = judge.plan.long, judge.plan.arrays.tracked
    first = E_CELLS + plan.rule_part.shape[1]
    places = np.full((DIMENSIONS, max(1, int(plan.words[0]) - first)), -1, np.int64)
    measures = np.zeros(plan.column.shape, np.int64)
    for dimension in range(DIMENSIONS):
        for index in range(plan.column_count[dimension]):
            start = int(plan.column_at[dimension, index]) - first
            places[dimension, start : start + int(plan.column_minutes[dimension, index])] = index
            measures[dimension, index] = tracked[dimension, plan.column[dimension, index]]
    return places, measures, plan.column_minutes


def _check(judge: Judge, state: dict[str, Any]) -> None:
    """Kernels trust their arrays, so that what comes from a file is looked at before."""
    count, buckets = len(state["a"]), state["buckets"]
    kinds = {"a": np.uint64, "b": np.uint64, "dimension": np.uint8, **dict.fromkeys(_NUMBERS, np.int64), "cells": np.int32}
    for arrays, types, rows in (
        (state, kinds, count),
        (buckets, {"entry": np.int32, "measure": np.uint8, "ago": np.uint8, "value": np.int64}, len(buckets["entry"])),
    ):
        for name, kind in types.items():
            array = arrays[name]
            if not isinstance(array, np.ndarray) or array.dtype != kind or len(array) != rows:
                raise TypeError(f"{name} of long windows is no array of {rows} {kind.__name__}")
            if array.ndim != (2 if name == "cells" else 1):
                raise ValueError(f"{name} of long windows has the shape {list(array.shape)}")
    if (state["dimension"] >= DIMENSIONS).any() or (buckets["measure"] >= MEASURES).any():
        raise ValueError("long windows have unknown dimensions or measures")
    if (buckets["entry"] < 0).any() or (buckets["entry"] >= count).any() or (buckets["value"] < 0).any():
        raise ValueError("long windows have buckets of no entry, or that measure less than nothing")
    closed_minute = 0 if judge.closed == NEVER else judge.closed // MINUTE_S
    for name in ("newest", "last"):
        if (state[name] < 0).any() or (state[name] > closed_minute).any():
            raise ValueError("long windows hold minutes that are not closed")
