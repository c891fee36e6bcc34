"""Samples of several tallies as one: what a judge keeps, the same whatever the order and wherever they were cut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from schemas.columns import I64, U64
from schemas.sample import (
    E_ATTRIBUTES,
    E_CELL,
    E_IP_HIGH,
    E_PRIORITY,
    E_WEIGHT,
    KEPT,
    S_LEVEL,
    S_SERVICE_A,
    S_SERVICE_B,
    S_STRATUM,
    S_TICK,
    S_TOTAL,
    Attribute,
    Sample,
    empty_sample,
)
from schemas.sample_wire import cut_texts

TEXTS = slice(E_ATTRIBUTES, E_ATTRIBUTES + int(Attribute.WHO))
"""Columns of attributes that have a text: who it was is only told apart."""


def merge_samples(samples: Sequence[Sample]) -> Sample:
    """What all of them say together: entries united, totals added, and the level as high as their number needs. The result
    has arrays of its own."""
    some = [sample for sample in samples if len(sample.cells)]
    if not some:
        return empty_sample()
    cells, cell_of = _merge_cells(np.concatenate([sample.cells for sample in some]))
    entries = np.concatenate([sample.entries for sample in some])
    offsets = np.cumsum([0, *(len(sample.cells) for sample in some[:-1])])
    entries[:, E_CELL] += np.repeat(offsets, [len(sample.entries) for sample in some])
    entries[:, E_CELL] = cell_of[entries[:, E_CELL]]
    entries = _merge_entries(entries[_kept(cells, entries)])
    _raise_levels(cells, entries)
    entries = entries[_kept(cells, entries)]
    return Sample(cells, entries, *_merge_words(some, cells, entries))


def _merge_cells(cells: I64) -> tuple[I64, I64]:
    """(cells, each once; which of them each one became)."""
    order = np.lexsort([cells[:, column] for column in (S_STRATUM, S_SERVICE_B, S_SERVICE_A, S_TICK)])
    ordered = cells[order]
    first = np.ones(len(ordered), np.bool_)
    first[1:] = (ordered[1:, :S_LEVEL] != ordered[:-1, :S_LEVEL]).any(axis=1)
    starts = np.flatnonzero(first)
    merged = ordered[starts]
    merged[:, S_LEVEL] = np.maximum.reduceat(ordered[:, S_LEVEL], starts)
    merged[:, S_TOTAL] = np.add.reduceat(ordered[:, S_TOTAL], starts)
    cell_of = np.empty(len(cells), np.int64)
    cell_of[order] = np.cumsum(first) - 1
    return merged, cell_of


def _priorities(entries: I64) -> U64:
    return np.ascontiguousarray(entries[:, E_PRIORITY]).view(np.uint64)


def _kept(cells: I64, entries: I64) -> npt.NDArray[np.bool_]:
    """bool[e]: whose priority is below the bound of their cell's level."""
    level = cells[entries[:, E_CELL], S_LEVEL]
    # A word cannot be shifted by all of its bits: level 0 keeps everything.
    upper = _priorities(entries) >> np.minimum(64 - level, 63).astype(np.uint64)
    return np.asarray((upper == 0) | (level == 0))


def _merge_entries(entries: I64) -> I64:
    """Entries by cell and priority, equal ones as one: the smallest attributes stand for all of them."""
    order = np.lexsort((_priorities(entries), entries[:, E_CELL]))
    entries = entries[order]
    same = (entries[1:, E_CELL] == entries[:-1, E_CELL]) & (entries[1:, E_PRIORITY] == entries[:-1, E_PRIORITY])
    if not same.any():
        return entries
    first = np.concatenate([[True], ~same])
    starts = np.flatnonzero(first)
    group = np.cumsum(first) - 1
    weights = np.add.reduceat(entries[:, E_WEIGHT], starts)
    said = [entries[:, column] for column in range(entries.shape[1] - 1, E_IP_HIGH - 1, -1)]
    merged = entries[np.lexsort((*said, group))[starts]]
    merged[:, E_WEIGHT] = weights
    return merged


def _raise_levels(cells: I64, entries: I64) -> None:
    """Where more than `KEPT` entries are left, the level becomes the first that leaves the next one out."""
    starts = np.searchsorted(entries[:, E_CELL], np.arange(len(cells) + 1))
    for cell in np.flatnonzero(np.diff(starts) > KEPT).tolist():
        too_much = int(entries[starts[cell] + KEPT, E_PRIORITY]) & (1 << 64) - 1
        cells[cell, S_LEVEL] = max(int(cells[cell, S_LEVEL]), 65 - too_much.bit_length())


def _merge_words(samples: Sequence[Sample], cells: I64, entries: I64) -> tuple[I64, I64, npt.NDArray[np.uint8]]:
    """Words that are named, and their texts."""
    words = np.concatenate([sample.words for sample in samples])
    lengths = np.concatenate([np.diff(sample.text_start) for sample in samples])
    moved = np.cumsum([0, *(len(sample.text) for sample in samples[:-1])])
    starts = np.concatenate([sample.text_start[:-1] + at for sample, at in zip(samples, moved, strict=True)])
    text = np.concatenate([sample.text for sample in samples])
    known, chosen = np.unique(words, return_index=True)
    named = np.zeros(len(known), np.bool_)
    for some in (cells[:, S_SERVICE_A], entries[:, TEXTS].ravel()) if len(known) else ():
        at = np.minimum(np.searchsorted(known, some), len(known) - 1)
        named[at[known[at] == some]] = True
    chosen = chosen[named]
    return cut_texts(words[chosen], starts[chosen], lengths[chosen], text)
