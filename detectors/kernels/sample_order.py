"""The sample of a tally in its order, from what `detectors.kernels.sample_table` has kept."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.kernels.machine import LINE_BYTES, copy_bytes, prefetch
from detectors.kernels.sample_table import (
    AHEAD,
    G_COUNT,
    G_TEXT,
    Q_CELLS,
    Q_WORDS,
    ROOM,
    TEXT_ROOM_BYTES,
    TEXTS,
    W_LENGTH,
    W_START,
    W_WORD,
    I64Array,
    SampleTable,
    cell_slot_kernel,
)
from schemas.compiled import entry, inlined, part
from schemas.sample import (
    CELL_WORDS,
    E_CELL,
    ENTRY_WORDS,
    S_LEVEL,
    S_SERVICE_A,
    S_STRATUM,
    S_TICK,
    Sample,
)

U64 = np.uint64
BUCKETS = 64
FEW = 8
"""So many are put in order faster without buckets."""
_CELL_KEY = S_STRATUM + 1
"""The first so many columns say which cell it is."""


class SampleOut(NamedTuple):
    """Room for a sample as it is in a tally."""

    cells: I64Array  # i64[events, CELL_WORDS]
    entries: I64Array  # i64[events, ENTRY_WORDS]
    words: I64Array  # i64[2 * events]
    text_start: I64Array  # i64[2 * events + 1]
    text: npt.NDArray[np.uint8]
    order: I64Array  # i64[2 * events], scratch
    scratch: I64Array  # i64[2 * events]
    named: npt.NDArray[np.uint8]  # u8[2 * events], scratch
    places: I64Array  # i64[ROOM], scratch: the entries of a cell in their order …
    buckets: I64Array  # i64[BUCKETS + 1], scratch: … by the first bits of their priorities
    counts: I64Array  # i64[3]: how many cells, entries and words there are


def allocate_sample_out(events: int) -> SampleOut:
    """Room for the sample of so many events; memory is only touched as far as it comes."""
    return SampleOut(
        cells=np.zeros((events, CELL_WORDS), np.int64),
        entries=np.zeros((events, ENTRY_WORDS), np.int64),
        words=np.zeros(2 * events, np.int64),
        text_start=np.zeros(2 * events + 1, np.int64),
        text=np.zeros(TEXT_ROOM_BYTES if events else 0, np.uint8),
        order=np.zeros(2 * events, np.int64),
        scratch=np.zeros(2 * events, np.int64),
        named=np.zeros(2 * events, np.uint8),
        places=np.zeros(ROOM, np.int64),
        buckets=np.zeros(BUCKETS + 1, np.int64),
        counts=np.zeros(3, np.int64),
    )


def finish_sample(table: SampleTable, out: SampleOut) -> Sample:
    """The sample of what was offered, as views of ``out``; the slots of the table are empty afterwards."""
    finish_sample_kernel(tuple(table), tuple(out))
    cells, entries, words = out.counts.tolist()
    starts = out.text_start[: words + 1]
    return Sample(out.cells[:cells], out.entries[:entries], out.words[:words], starts, out.text[: starts[-1]])


@entry
def finish_sample_kernel(table_parts: Any, out_parts: Any) -> None:
    """Order cells, the entries of each, and the words that they name."""
    table, out = SampleTable(*table_parts), SampleOut(*out_parts)
    cells, words = table.progress[Q_CELLS], table.progress[Q_WORDS]
    out.named[:words] = 0
    order_rows_kernel(table.cells, cells, _CELL_KEY, out.order, out.scratch)
    entries = np.int64(0)
    for rank in range(cells):
        cell = out.order[rank]
        for column in range(CELL_WORDS):
            out.cells[rank, column] = table.cells[cell, column]
        if table.cells[cell, G_TEXT] >= 0:
            out.named[table.cells[cell, G_TEXT]] = 1
        entries = put_entries_kernel(table, out, cell, rank, entries)
    order_rows_kernel(table.words, words, 1, out.order, out.scratch)
    out.counts[0], out.counts[1], out.counts[2] = cells, entries, put_words_kernel(table, out, words)
    clear_slots_kernel(table)


@inlined
def put_entries_kernel(table: Any, out: Any, cell: Any, rank: Any, at: Any) -> Any:
    """Write the entries of a cell from entry ``at`` on, by their priorities; returns where the next ones go."""
    count, places = table.cells[cell, G_COUNT], out.places
    order_entries_kernel(table.priority, cell, count, table.cells[cell, S_LEVEL], places, out.buckets)
    for index in range(count):
        if index + AHEAD < count:
            following = np.int64(table.place[cell, places[index + AHEAD]])
            prefetch(table.entries, following, 0)
            prefetch(table.entries, following, LINE_BYTES)
            prefetch(table.entry_text, following, 0)
        kept, to = np.int64(table.place[cell, places[index]]), at + index
        for column in range(ENTRY_WORDS):
            out.entries[to, column] = table.entries[kept, column]
        out.entries[to, E_CELL] = rank
        for attribute in range(TEXTS):
            if table.entry_text[kept, attribute] >= 0:
                out.named[table.entry_text[kept, attribute]] = 1
    return at + count


@inlined
def order_entries_kernel(priority: Any, cell: Any, count: Any, level: Any, places: Any, buckets: Any) -> None:
    """Write the entries of a cell into ``places`` by their priorities.

    These are hashes below 2^64 / 2^level, so that their first bits tell nearly all of them apart.
    """
    if count > FEW:
        shift, mask = U64(max(58 - level, 0)), U64(BUCKETS - 1)
        buckets[:] = 0
        for index in range(count):
            buckets[np.int64(priority[cell, index] >> shift & mask) + 1] += 1
        for bucket in range(1, BUCKETS):
            buckets[bucket] += buckets[bucket - 1]
        for index in range(count):
            mine = np.int64(priority[cell, index] >> shift & mask)
            places[buckets[mine]] = index
            buckets[mine] += 1
    else:
        for index in range(count):
            places[index] = index
    for index in range(1, count):
        place, to = places[index], index
        while to > 0 and priority[cell, places[to - 1]] > priority[cell, place]:
            places[to] = places[to - 1]
            to -= 1
        places[to] = place


@inlined
def put_words_kernel(table: Any, out: Any, words: Any) -> Any:
    """Write the words that are named, in ``out.order``, and their texts; returns how many there are."""
    count, at = np.int64(0), np.int64(0)
    for rank in range(words):
        word = out.order[rank]
        if out.named[word] == 0:
            continue
        length = table.words[word, W_LENGTH]
        out.words[count], out.text_start[count] = table.words[word, W_WORD], at
        copy_bytes(out.text, at, table.text, table.words[word, W_START], length)
        at += length
        count += 1
    out.text_start[count] = at
    return count


@part
def order_rows_kernel(rows: Any, count: Any, width: Any, order: Any, scratch: Any) -> None:
    """Order rows by their first ``width`` columns: indices into ``order``, by merging. What comes in order costs little."""
    for k in range(count):
        order[k] = k
    run = np.int64(1)
    while run < count:
        low = np.int64(0)
        while low + run < count:
            middle, high = low + run, min(low + 2 * run, count)
            if is_less_kernel(rows, order[middle], order[middle - 1], width):
                for k in range(low, middle):
                    scratch[k] = order[k]
                left, right, to = low, middle, low
                while left < middle:  # what is left over on the right is in its place
                    if right < high and is_less_kernel(rows, order[right], scratch[left], width):
                        order[to] = order[right]
                        right += 1
                    else:
                        order[to] = scratch[left]
                        left += 1
                    to += 1
            low = high
        run *= 2


@inlined
def is_less_kernel(rows: Any, one: Any, other: Any, width: Any) -> Any:
    """Does a row come before another?"""
    for column in range(width):
        if rows[one, column] != rows[other, column]:
            return rows[one, column] < rows[other, column]
    return False


@inlined
def clear_slots_kernel(table: Any) -> None:
    """Empty the indices again, where something was put."""
    cells, words = table.progress[Q_CELLS], table.progress[Q_WORDS]
    for cell in range(cells):
        slot = cell_slot_kernel(
            table.cells[cell, S_TICK], table.cells[cell, S_SERVICE_A], table.cells[cell, S_STRATUM], len(table.cell_slots)
        )
        clear_from_kernel(table.cell_slots, slot)
    for word in range(words):
        clear_from_kernel(table.word_slots, table.words[word, W_WORD] & (len(table.word_slots) - 1))


@inlined
def clear_from_kernel(slots: Any, slot: Any) -> None:
    """Empty the slots from one on, up to the first that is empty."""
    while slots[slot] != 0:
        slots[slot] = 0
        slot = (slot + 1) & (len(slots) - 1)
