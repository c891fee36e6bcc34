"""A sample in the making (`schemas.sample`): its cells, what their entries say, the words and texts of that.

`detectors.kernels.sampling` offers events to it, `detectors.kernels.sample_keeping` puts down what those say that are kept, and
`detectors.kernels.sample_order` makes a `Sample` of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.kernels.blocks import T_HOST
from detectors.kernels.machine import copy_bytes, leading_zeros
from schemas.compiled import inlined, part
from schemas.sample import (
    CELL_WORDS,
    E_IP_HIGH,
    ENTRY_WORDS,
    KEPT,
    S_LEVEL,
    S_SERVICE_A,
    S_SERVICE_B,
    S_STRATUM,
    S_TICK,
    S_TOTAL,
    TEXT_BYTES_MAX,
    Attribute,
    Stratum,
)

U64 = np.uint64
I64Array = npt.NDArray[np.int64]
I32Array = npt.NDArray[np.int32]
TICK_MIX, _STRATUM_MIX, _S32 = U64(0x9E3779B97F4A7C15), U64(0xC2B2AE3D27D4EB4F), U64(32)
KEPT_MAX, TEXT_MAX = int(KEPT), int(TEXT_BYTES_MAX)
CELLS_PER_SECOND = 64 * len(Stratum)
"""64 services in each second that a tally spans: whoever invents more with Host headers of his own gets no cell for them."""
TEXT_ROOM_BYTES = 2 << 20
"""All texts of a tally together: 50,000 of 40 bytes. So its part for one judge partition stays far below the 16 MiB that a
broker takes, even if every event had five texts that nobody else has."""

AHEAD = 8
"""So many events or entries ahead, what is sought in memory is fetched."""
SEEN_WORDS, RANKS = 8, 32
G_COUNT, G_TEXT, G_SEEN = range(CELL_WORDS, CELL_WORDS + 3)
G_BELOW = G_SEEN + SEEN_WORDS
G_RANKS = G_BELOW + 1
CELL_COLUMNS = G_RANKS + RANKS
"""Behind the columns of a cell: how many entries it has, the text of its service, and bits of the priorities of its candidates:
one whose bit was not set has no equal there, and nobody looks for it. Those are counted: how many are below the bound of the
cell's level, and of each level those that are below no higher one's. So many entries at least there will be, and the level
rises before any of them is put down."""
ROOM = KEPT + 1
"""Entries of a cell before the one too many has gone."""
TEXTS = int(Attribute.WHO)
SAYS = ENTRY_WORDS - E_IP_HIGH
W_WORD, W_START, W_LENGTH, WORD_COLUMNS = range(4)
O_CELL, O_EVENT, O_PRIORITY, O_SEEN, O_WHO, O_ROUTE, O_AGENT, CANDIDATE = range(8)
"""Of an event that was offered and became a candidate: its cell, its index in the batch, its priority, whether the bit of that
was set, and the first words of its account, its route and (where agents are wanted) its user agent."""
Q_CELLS, Q_ENTRIES, Q_FREE, Q_WORDS, Q_TEXT, Q_LEFT_OUT, Q_CANDIDATES, Q_LAST = range(8)
"""How far a sample has come: cells, entries, how many of those are free again, words, bytes of text, what did not fit, the
candidates of the batch; then each stratum's last cell."""
SAMPLE_PROGRESS = Q_LAST + len(Stratum)


class SampleTable(NamedTuple):
    """A sample in the making. Slots hold a number + 1; 0 is empty."""

    progress: I64Array  # i64[SAMPLE_PROGRESS]
    cells: I64Array  # i64[events, CELL_COLUMNS]
    cell_slots: I32Array  # i32[power of two]
    priority: npt.NDArray[np.uint64]  # u64[events, ROOM]: of the entries of each cell, in any order …
    place: I32Array  # i32[events, ROOM]: … and where those entries are
    candidates: I64Array  # i64[events + 1, CANDIDATE], scratch of a batch: the columns O_…
    left: I64Array  # i64[events + 1], scratch: candidates that are left when the batch has been looked at
    entries: I64Array  # i64[events, ENTRY_WORDS]
    entry_text: I32Array  # i32[events, TEXTS]: which of the words each attribute is; -1: none
    free: I32Array  # i32[events]: entries that were dropped, the last one first to be taken
    words: I64Array  # i64[2 * events, WORD_COLUMNS]
    word_slots: I32Array
    text: npt.NDArray[np.uint8]
    says: I64Array  # i64[SAYS], scratch: the columns of an entry from E_IP_HIGH on


def allocate_sample(events: int) -> SampleTable:
    """Room for the sample of so many events; memory is only touched as far as entries come."""
    slots = 1 << (2 * max(events, 1)).bit_length()
    table = SampleTable(
        progress=np.zeros(SAMPLE_PROGRESS, np.int64),
        cells=np.zeros((events, CELL_COLUMNS), np.int64),
        cell_slots=np.zeros(slots, np.int32),
        priority=np.zeros((events, ROOM), np.uint64),
        place=np.zeros((events, ROOM), np.int32),
        candidates=np.zeros((events + 1, CANDIDATE), np.int64),
        left=np.zeros(events + 1, np.int64),
        entries=np.zeros((events, ENTRY_WORDS), np.int64),
        entry_text=np.zeros((events, TEXTS), np.int32),
        free=np.zeros(events, np.int32),
        words=np.zeros((2 * events, WORD_COLUMNS), np.int64),
        word_slots=np.zeros(2 * slots, np.int32),
        text=np.zeros(TEXT_ROOM_BYTES if events else 0, np.uint8),
        says=np.zeros(SAYS, np.int64),
    )
    start_sample(table)
    return table


def start_sample(table: SampleTable) -> None:
    """Begin a tally's; the slots are empty already."""
    table.progress[:Q_LAST] = 0
    table.progress[Q_LAST:] = -1


@inlined
def is_below_kernel(priority: Any, level: Any) -> Any:
    """Is a priority below 2^64 / 2^level?"""
    return leading_zeros(priority) >= level


@part
def cell_kernel(
    sample: Any, t: Any, a: Any, b: Any, stratum: Any, seconds: Any, text_start: Any, text_length: Any, buffer: Any,
    service: Any, i: Any,
) -> Any:  # fmt: skip
    """The cell of a tick, service and stratum, found or made; -1: there are too many already."""
    cells, slots = sample.cells, sample.cell_slots
    slot = cell_slot_kernel(t, a, stratum, len(slots))
    while slots[slot] != 0:
        cell = np.int64(slots[slot]) - 1
        if cells[cell, S_TICK] == t and cells[cell, S_SERVICE_A] == a:
            if cells[cell, S_SERVICE_B] == b and cells[cell, S_STRATUM] == stratum:
                return cell
        slot = (slot + 1) & (len(slots) - 1)
    cell = sample.progress[Q_CELLS]
    if cell >= CELLS_PER_SECOND * seconds:
        return np.int64(-1)
    sample.progress[Q_CELLS] += 1
    slots[slot] = np.int32(cell + 1)
    cells[cell, S_TICK], cells[cell, S_SERVICE_A], cells[cell, S_SERVICE_B] = t, a, b
    cells[cell, S_STRATUM], cells[cell, S_LEVEL], cells[cell, S_TOTAL] = stratum, 0, 0
    cells[cell, G_COUNT] = 0
    cells[cell, G_SEEN:] = 0
    found, length = find_word_kernel(sample, a), np.int64(text_length[T_HOST, i])
    cells[cell, G_TEXT] = found
    if found < 0 and length > 0:
        cells[cell, G_TEXT] = new_word_kernel(sample, a, -1 - found, buffer, np.int64(text_start[T_HOST, i]), length)
    elif found < 0:
        cells[cell, G_TEXT] = new_word_kernel(sample, a, -1 - found, service, np.int64(0), np.int64(len(service) - 64))
    return cell


@inlined
def cell_slot_kernel(t: Any, a: Any, stratum: Any, slots: Any) -> Any:
    """Where a cell is sought first."""
    mixed = U64(a) ^ (U64(t) * TICK_MIX) ^ (U64(stratum) * _STRATUM_MIX)
    return np.int64((mixed ^ (mixed >> _S32)) & U64(slots - 1))


@inlined
def raise_level_kernel(sample: Any, cell: Any) -> None:
    """Halve what a cell keeps: entries that are not below its bound any more are left out."""
    cells, priority, place, free = sample.cells, sample.priority, sample.place, sample.free
    cells[cell, G_BELOW] -= cells[cell, G_RANKS + min(cells[cell, S_LEVEL], RANKS - 1)]
    cells[cell, S_LEVEL] += 1
    level, kept, freed = cells[cell, S_LEVEL], np.int64(0), sample.progress[Q_FREE]
    for at in range(cells[cell, G_COUNT]):
        stays, entry = np.int64(is_below_kernel(priority[cell, at], level)), place[cell, at]
        priority[cell, kept], place[cell, kept], free[freed] = priority[cell, at], entry, entry
        kept += stays
        freed += 1 - stays
    cells[cell, G_COUNT], sample.progress[Q_FREE] = kept, freed


@inlined
def find_word_kernel(sample: Any, word: Any) -> Any:
    """i64: which of the sample's words this is, else -1 - the slot where it belongs."""
    words, slots = sample.words, sample.word_slots
    slot = word & (len(slots) - 1)
    while slots[slot] != 0:
        known = np.int64(slots[slot]) - 1
        if words[known, W_WORD] == word:
            return known
        slot = (slot + 1) & (len(slots) - 1)
    return -1 - slot


@part
def new_word_kernel(sample: Any, word: Any, slot: Any, buffer: Any, start: Any, length: Any) -> Any:
    """i32: the number of a new word, which is put down with its text; -1: there is no room for it, which is counted."""
    progress, words = sample.progress, sample.words
    known, at = progress[Q_WORDS], progress[Q_TEXT]
    length = min(length, TEXT_MAX)
    if known >= len(words) or at + length + 8 > len(sample.text):
        progress[Q_LEFT_OUT] += 1
        return np.int32(-1)
    sample.word_slots[slot] = np.int32(known + 1)
    words[known, W_WORD], words[known, W_START], words[known, W_LENGTH] = word, at, length
    copy_bytes(sample.text, at, buffer, start, length)
    progress[Q_WORDS], progress[Q_TEXT] = known + 1, at + length
    return np.int32(known)
