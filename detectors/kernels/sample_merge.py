"""Two samples as one: both are in order, so that one pass over each is enough."""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.kernels.sample_table import KEPT_MAX, SAYS, TEXTS, is_below_kernel
from schemas.compiled import entry, inlined
from schemas.sample import (
    CELL_WORDS,
    E_ATTRIBUTES,
    E_CELL,
    E_IP_HIGH,
    E_PRIORITY,
    E_WEIGHT,
    ENTRY_WORDS,
    S_LEVEL,
    S_SERVICE_A,
    S_TOTAL,
)

U64 = np.uint64


@entry
def merge_kernel(
    one_cells: Any, one_entries: Any, other_cells: Any, other_entries: Any, cells: Any, entries: Any, counts: Any
) -> None:
    """Unite cells and their entries.

    Args:
        one_cells, one_entries, other_cells, other_entries: of two samples.
        cells, entries: out, with room for those of both.
        counts: i64[2] out: how many cells and entries there are.
    """
    i, j, p, q = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    count, at = np.int64(0), np.int64(0)
    while i < len(one_cells) or j < len(other_cells):
        order = compare_kernel(one_cells, i, other_cells, j)
        source, row = (one_cells, i) if order <= 0 else (other_cells, j)
        for column in range(CELL_WORDS):
            cells[count, column] = source[row, column]
        if order == 0:
            cells[count, S_TOTAL] += other_cells[j, S_TOTAL]
            cells[count, S_LEVEL] = max(cells[count, S_LEVEL], other_cells[j, S_LEVEL])
        p_end, q_end = p, q
        if order <= 0:
            p_end = end_kernel(one_entries, p, i)
            i += 1
        if order >= 0:
            q_end = end_kernel(other_entries, q, j)
            j += 1
        at = unite_kernel(one_entries, p, p_end, other_entries, q, q_end, cells, count, entries, at)
        p, q = p_end, q_end
        count += 1
    counts[0], counts[1] = count, at


@inlined
def compare_kernel(one_cells: Any, i: Any, other_cells: Any, j: Any) -> Any:
    """-1, 0 or 1: which of two cells comes first; one that does not exist comes last."""
    if i >= len(one_cells):
        return 1
    if j >= len(other_cells):
        return -1
    for column in range(S_LEVEL):  # what stands in front of it says which cell it is
        if one_cells[i, column] != other_cells[j, column]:
            return -1 if one_cells[i, column] < other_cells[j, column] else 1
    return 0


@inlined
def end_kernel(entries: Any, at: Any, cell: Any) -> Any:
    """Where the entries of a cell end that begin at ``at``."""
    while at < len(entries) and entries[at, E_CELL] == cell:
        at += 1
    return at


@inlined
def unite_kernel(
    one: Any, p: Any, p_end: Any, other: Any, q: Any, q_end: Any, cells: Any, cell: Any, entries: Any, at: Any
) -> Any:
    """Write the entries ``one[p:p_end]`` and ``other[q:q_end]`` of one cell from ``at`` on, by priority, as far as they stay;
    returns where the next ones go."""
    first = at
    while p < p_end or q < q_end:
        one_first = q >= q_end or (p < p_end and U64(one[p, E_PRIORITY]) <= U64(other[q, E_PRIORITY]))
        source, row = (one, p) if one_first else (other, q)
        priority = U64(source[row, E_PRIORITY])
        if not is_below_kernel(priority, cells[cell, S_LEVEL]):
            return at
        if at - first == KEPT_MAX:  # the first one too many says how high the level has to be
            while is_below_kernel(priority, cells[cell, S_LEVEL]):
                cells[cell, S_LEVEL] += 1
            while at > first and not is_below_kernel(U64(entries[at - 1, E_PRIORITY]), cells[cell, S_LEVEL]):
                at -= 1
            return at
        for column in range(ENTRY_WORDS):
            entries[at, column] = source[row, column]
        entries[at, E_CELL] = cell
        if one_first:
            p += 1
            if q < q_end and U64(other[q, E_PRIORITY]) == priority:
                add_equal_kernel(entries, at, other, q)
                q += 1
        else:
            q += 1
        at += 1
    return at


@inlined
def add_equal_kernel(entries: Any, at: Any, other: Any, row: Any) -> None:
    """Weights add, and the smaller of both stands for them."""
    entries[at, E_WEIGHT] += other[row, E_WEIGHT]
    for column in range(E_IP_HIGH, E_IP_HIGH + SAYS):
        if other[row, column] != entries[at, column]:
            if other[row, column] < entries[at, column]:
                for rest in range(column, E_IP_HIGH + SAYS):
                    entries[at, rest] = other[row, rest]
            return


@entry
def merge_words_kernel(
    cells: Any, entries: Any, one_words: Any, one_start: Any, one_text: Any, other_words: Any, other_start: Any,
    other_text: Any, slots: Any, named: Any, words: Any, text_start: Any, text: Any,
) -> Any:  # fmt: skip
    """Unite words as far as cells and entries name them; returns how many there are.

    Args:
        cells, entries: which may name them.
        slots: i32[power of two], zeros, scratch: at least twice the words of both.
        named: u8[words of both], zeros, scratch.
        words, text_start, text: out, with room for those of both.
    """
    i, j, count = np.int64(0), np.int64(0), np.int64(0)
    while i < len(one_words) or j < len(other_words):
        if j >= len(other_words) or (i < len(one_words) and one_words[i] <= other_words[j]):
            word = one_words[i]
            j += np.int64(j < len(other_words) and other_words[j] == word)
            i += 1
        else:
            word = other_words[j]
            j += 1
        words[count] = word
        slot = word & (len(slots) - 1)
        while slots[slot] != 0:
            slot = (slot + 1) & (len(slots) - 1)
        count += 1
        slots[slot] = np.int32(count)
    for cell in range(len(cells)):
        name_kernel(words, slots, named, cells[cell, S_SERVICE_A])
    for one in range(len(entries)):
        for column in range(E_ATTRIBUTES, E_ATTRIBUTES + TEXTS):
            if entries[one, column] != 0:
                name_kernel(words, slots, named, entries[one, column])
    return put_texts_kernel(
        count, one_words, one_start, one_text, other_words, other_start, other_text, named, words, text_start, text
    )


@inlined
def name_kernel(words: Any, slots: Any, named: Any, word: Any) -> None:
    """Note that a word is named, if it is known: one that had no room for its text is not."""
    slot = word & (len(slots) - 1)
    while slots[slot] != 0:
        known = np.int64(slots[slot]) - 1
        if words[known] == word:
            named[known] = 1
            return
        slot = (slot + 1) & (len(slots) - 1)


@inlined
def put_texts_kernel(
    many: Any, one_words: Any, one_start: Any, one_text: Any, other_words: Any, other_start: Any, other_text: Any, named: Any,
    words: Any, text_start: Any, text: Any,
) -> Any:  # fmt: skip
    """Close the gaps between the words that are named, and write their texts; returns how many there are."""
    i, j, count, at = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    for known in range(many):
        word = words[known]
        in_one = i < len(one_words) and one_words[i] == word
        in_other = j < len(other_words) and other_words[j] == word
        if named[known] != 0:
            words[count], text_start[count] = word, at
            count += 1
            source, start, end = (
                (one_text, one_start[i], one_start[i + 1]) if in_one else (other_text, other_start[j], other_start[j + 1])
            )
            for byte in range(start, end):
                text[at] = source[byte]
                at += 1
        i += np.int64(in_one)
        j += np.int64(in_other)
    text_start[count] = at
    return count
