"""Rows of API keys, gathered by steps of half a minute as tallies come, before their seconds are closed.

What is gathered adds up (sums) or unites (sets), so that neither the cut of tallies nor their order changes it. A key has one
entry for each step that is not over.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.kernels.hashing import partition_kernel
from detectors.kernels.key_features import V_NETS, VALUES
from detectors.kernels.machine import LINE_BYTES, copy_bytes, prefetch
from schemas.columns import I64
from schemas.compiled import entry
from schemas.fields import Dimension, Item, Measure
from schemas.tally import (
    C_DIMENSION,
    C_HASH,
    C_KEY_A,
    C_KEY_B,
    C_MEASURES,
    C_MODELS,
    C_NAME,
    C_NAME_LENGTH,
    C_SETS,
    C_TICK,
    NAME_BYTES_MAX,
)

U64 = np.uint64
STEP_S = 30
G_STEP, G_A, G_B, G_PARTITION, G_HASH, G_NAME_LENGTH, G_VALUES = range(7)
"""Of an entry; then its values (`detectors.kernels.key_features`)."""
ENTRY_WORDS = G_VALUES + VALUES
D_API_KEY = int(Dimension.API_KEY)
C_EVIDENCE, C_ERRORS = C_MEASURES + int(Measure.EVIDENCE), C_MEASURES + int(Measure.CLIENT_ERRORS)
C_DENIALS = C_MEASURES + int(Measure.OWN_DENIALS)
C_TOKENS_IN, C_TOKENS_OUT = C_MEASURES + int(Measure.TOKENS_IN), C_MEASURES + int(Measure.TOKENS_OUT)
C_NETS, C_COUNTRIES, C_AGENTS = C_SETS + int(Item.NET), C_SETS + int(Item.COUNTRY), C_SETS + int(Item.USER_AGENT)
STEP_MIX = U64(0x9E3779B97F4A7C15)
NAME_BYTES = int(NAME_BYTES_MAX)
FAR, NEAR, LINE = 16, 8, int(LINE_BYTES)
"""So many rows ahead a row is fetched, and what it says if it is a key's."""


class KeyRows(NamedTuple):
    """Entries in order of appearance, and the index that finds them."""

    slots: npt.NDArray[np.int32]  # i32[power of two]: 1 + the entry; 0: free
    entries: I64  # i64[n, ENTRY_WORDS]
    names: npt.NDArray[np.uint8]  # u8[n * NAME_BYTES_MAX + 8]
    used: I64  # i64[2]: entries; requests that found no room


def allocate_key_rows(entries: int, indexed: int) -> KeyRows:
    """Room for so many entries, whose memory is only touched as far as they come, and an index of some (`index_room`)."""
    return KeyRows(
        index_room(indexed), np.zeros((entries, ENTRY_WORDS), np.int64), np.zeros(entries * NAME_BYTES_MAX + 8, np.uint8),
        np.zeros(2, np.int64),
    )  # fmt: skip


def index_room(entries: int) -> npt.NDArray[np.int32]:
    """An empty index for so many entries: half of it stays free."""
    return np.zeros(1 << (2 * entries - 1).bit_length(), np.int32)


@entry
def gather_keys_kernel(
    slots: Any, entries: Any, names: Any, used: Any, records: Any, order: Any, starts: Any, tally_names: Any, closed: Any
) -> None:  # fmt: skip
    """Add what a tally says of API keys.

    Rows of seconds in which nothing counts as evidence (our own denials) are left out, and those of closed seconds; of seconds
    with any denial tokens and sets are.

    Args:
        slots, entries, names, used: a `KeyRows`, brought up to date.
        records, order, starts, tally_names: of a tally.
        closed: the last second that is.
    """
    mask = len(slots) - 1
    partitions = U64(len(starts) - 1)
    for r in range(len(order)):  # as they lie: most are not of keys, and not worth a load from memory in another order
        if r + FAR < len(order):
            prefetch(records, r + FAR, 0)
        if r + NEAR < len(order) and records[r + NEAR, C_DIMENSION] == D_API_KEY:
            for line in range(1, 4):
                prefetch(records, r + NEAR, line * LINE)
            mixed = U64(records[r + NEAR, C_HASH]) ^ (U64(records[r + NEAR, C_TICK] // STEP_S) * STEP_MIX)
            prefetch(slots, np.int64(mixed & U64(mask)), 0)
        if records[r, C_DIMENSION] != D_API_KEY or records[r, C_EVIDENCE] == 0 or records[r, C_TICK] <= closed:
            continue
        step, a, b = records[r, C_TICK] // STEP_S, records[r, C_KEY_A], records[r, C_KEY_B]
        place = np.int64((U64(records[r, C_HASH]) ^ (U64(step) * STEP_MIX)) & U64(mask))
        found = np.int64(-1)
        while slots[place] != 0:
            e = np.int64(slots[place]) - 1
            if entries[e, G_A] == a and entries[e, G_B] == b and entries[e, G_STEP] == step:
                found = e
                break
            place = (place + 1) & mask
        if found < 0:
            if used[0] == len(entries):
                used[1] += records[r, C_EVIDENCE]
                continue
            found = used[0]
            used[0] += 1
            slots[place] = np.int32(found + 1)
            entries[found, G_STEP], entries[found, G_A], entries[found, G_B] = step, a, b
            entries[found, G_PARTITION] = partition_kernel(U64(records[r, C_HASH]), partitions)
            entries[found, G_HASH] = records[r, C_HASH]
            length = records[r, C_NAME_LENGTH]
            entries[found, G_NAME_LENGTH] = length
            copy_bytes(names, found * NAME_BYTES, tally_names, records[r, C_NAME], length)
            for v in range(VALUES):
                entries[found, G_VALUES + v] = 0
        entries[found, G_VALUES + 0] += records[r, C_EVIDENCE]
        entries[found, G_VALUES + 1] += records[r, C_ERRORS]
        if records[r, C_DENIALS] != 0:
            continue  # what was denied is in what follows, too
        entries[found, G_VALUES + 2] += records[r, C_TOKENS_IN]
        entries[found, G_VALUES + 3] += records[r, C_TOKENS_OUT]
        entries[found, G_VALUES + 4] |= records[r, C_NETS]
        entries[found, G_VALUES + 5] |= records[r, C_COUNTRIES]
        entries[found, G_VALUES + 6] |= records[r, C_AGENTS]
        entries[found, G_VALUES + 7] |= records[r, C_MODELS]


@entry
def windows_kernel(entries: Any, used: Any, over: Any, steps: Any, windows: Any) -> Any:
    """Which windows have entries of steps before ``over``; returns how many were written, some more than once.

    Args:
        entries, used: of a `KeyRows`.
        steps: of a window.
        windows: i64[entries], out.
    """
    count = np.int64(0)
    for e in range(used[0]):
        window = entries[e, G_STEP] // steps
        if entries[e, G_STEP] < over and (count == 0 or windows[count - 1] != window):
            windows[count] = window
            count += 1
    return count


@entry
def index_keys_kernel(slots: Any, entries: Any, used: Any) -> None:
    """Make the index of entries again."""
    mask = len(slots) - 1
    slots[:] = 0
    for e in range(used[0]):
        place = np.int64((U64(entries[e, G_HASH]) ^ (U64(entries[e, G_STEP]) * STEP_MIX)) & U64(mask))
        while slots[place] != 0:
            place = (place + 1) & mask
        slots[place] = np.int32(e + 1)


@entry
def sum_keys_kernel(entries: Any, used: Any, first: Any, last: Any, slots: Any, which: Any, values: Any) -> Any:
    """Add up what each key did in some steps; returns how many keys there are, in the order in which they came.

    Args:
        entries, used: of a `KeyRows`.
        first, last: the steps.
        slots: i32[power of two, at least twice as many as there are entries], zeros; scratch.
        which: i64[entries], out: an entry of each key, the first.
        values: i64[entries, VALUES], out.
    """
    mask, count = len(slots) - 1, np.int64(0)
    for e in range(used[0]):
        if entries[e, G_STEP] < first or entries[e, G_STEP] > last:
            continue
        place = entries[e, G_HASH] & mask
        while slots[place] != 0:
            known = which[slots[place] - 1]
            if entries[known, G_A] == entries[e, G_A] and entries[known, G_B] == entries[e, G_B]:
                break
            place = (place + 1) & mask
        if slots[place] == 0:
            which[count] = e
            for v in range(VALUES):
                values[count, v] = entries[e, G_VALUES + v]
            count += 1
            slots[place] = np.int32(count)
            continue
        at = np.int64(slots[place]) - 1
        for v in range(V_NETS):
            values[at, v] += entries[e, G_VALUES + v]
        for v in range(V_NETS, VALUES):
            values[at, v] |= entries[e, G_VALUES + v]
    return count
