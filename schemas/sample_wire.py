"""The sample on the wire: little-endian columns in their narrowest type, and each text once.

Services and attributes are places in a table of words, so that an entry takes about 25 bytes. Of a tally a judge partition
gets the cells of those services whose rows it gets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.errors import StateError
from schemas.narrow import Reader, narrow
from schemas.sample import (
    CELL_WORDS,
    E_ATTRIBUTES,
    E_CELL,
    E_IP_HIGH,
    E_IP_LOW,
    E_PRIORITY,
    E_WEIGHT,
    ENTRY_WORDS,
    I64,
    KEPT,
    S_LEVEL,
    S_SERVICE_A,
    S_SERVICE_B,
    S_STRATUM,
    S_TICK,
    S_TOTAL,
    TEXT_BYTES_MAX,
    VERIFIED,
    Attribute,
    Sample,
    empty_sample,
)

LEVEL_MAX = 64
NOTES_MAX = 2**63
TOTAL_MAX = 2**53
"""More events than any second has, and sums of a thousand of them are still whole."""
_FOUR = 0xFFFF << 32
"""What the lower half of every IPv4 address has in front: without it, a column of them takes four bytes each."""
_TEXTS = slice(E_ATTRIBUTES, E_ATTRIBUTES + int(Attribute.WHO))
_TEXT_COLUMNS = int(Attribute.WHO)
_WHO = E_ATTRIBUTES + int(Attribute.WHO)
_NOTES = E_ATTRIBUTES + int(Attribute.NOTES)
_COLUMNS = 15 + _TEXT_COLUMNS


class SampleHead(msgspec.Struct, array_like=True, frozen=True):
    """What stands in the head of a tally about its sample."""

    cells: int = 0
    entries: int = 0
    words: int = 0
    text_bytes: int = 0
    types: tuple[str, ...] = ()
    """Of the columns, in their order."""


def sample_of(sample: Sample, services: I64) -> Sample:
    """What a sample has of some services, given by the first words of their keys."""
    if not len(sample.cells):
        return sample
    chosen = np.isin(sample.cells[:, S_SERVICE_A], services)
    if chosen.all():
        return sample
    if not chosen.any():
        return empty_sample()
    became = np.cumsum(chosen) - 1
    entries = sample.entries[chosen[sample.entries[:, E_CELL]]]
    entries[:, E_CELL] = became[entries[:, E_CELL]]
    cells = sample.cells[chosen]
    named = np.isin(sample.words, np.concatenate([cells[:, S_SERVICE_A], entries[:, _TEXTS].ravel()]))
    starts, lengths = sample.text_start[:-1][named], np.diff(sample.text_start)[named]
    return Sample(cells, entries, *cut_texts(sample.words[named], starts, lengths, sample.text))


def cut_texts(words: I64, starts: I64, lengths: I64, text: npt.NDArray[np.uint8]) -> tuple[I64, I64, npt.NDArray[np.uint8]]:
    """Words with their texts, ``text[starts[i]:starts[i] + lengths[i]]``, one behind the other: (words, text_start, text)."""
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    from_byte = np.repeat(starts - ends[:-1], lengths) + np.arange(int(ends[-1]))
    return words, ends, text[from_byte]


def encode_sample(sample: Sample) -> tuple[SampleHead, list[bytes]]:
    """A sample as what `decode_sample` needs to know first, and blocks of bytes."""
    if not len(sample.cells):
        return SampleHead(), []
    cells, entries = sample.cells, sample.entries
    words, places = _places(sample.words, np.concatenate([cells[:, S_SERVICE_A], entries[:, _TEXTS].ravel()]))
    lengths = np.zeros(len(words), np.int64)
    lengths[np.searchsorted(words, sample.words)] = np.diff(sample.text_start)
    columns = [
        words,
        lengths,
        cells[:, S_TICK] - cells[0, S_TICK],
        places[: len(cells)],
        cells[:, S_SERVICE_B],
        cells[:, S_STRATUM],
        cells[:, S_LEVEL],
        cells[:, S_TOTAL],
        np.bincount(entries[:, E_CELL], minlength=len(cells)),
        entries[:, E_PRIORITY],
        entries[:, E_WEIGHT],
        entries[:, E_IP_HIGH],
        entries[:, E_IP_LOW] ^ _FOUR,
        *places[len(cells) :].reshape(-1, _TEXT_COLUMNS).T,
        entries[:, _WHO],
        entries[:, _NOTES],
    ]
    written = [narrow(column) for column in columns]
    head = SampleHead(
        len(cells), len(entries), len(words), len(sample.text), tuple(column.dtype.str for column in written)
    )  # fmt: skip
    return head, [np.int64(cells[0, S_TICK]).tobytes(), *(column.tobytes() for column in written), sample.text.tobytes()]


def _places(words: I64, values: I64) -> tuple[I64, I64]:
    """(words in order, with those that have no text; the place of each value among them, counted from 1, 0 for none)"""
    at = np.searchsorted(words, values)
    known = np.zeros(len(values), np.bool_) if not len(words) else words[np.minimum(at, len(words) - 1)] == values
    unknown = values[~known & (values != 0)]
    if len(unknown):
        words = np.union1d(words, unknown)
        at = np.searchsorted(words, values)
    return words, np.where(values == 0, 0, at + 1)


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of a sample, one after the other."""

    reader: Reader
    types: Iterator[str]

    def next(self, count: int) -> I64:
        """i64[count]: the next one."""
        return self.reader.wide(next(self.types), count)


def decode_sample(head: SampleHead, reader: Reader) -> Sample:
    """Read what `encode_sample` wrote. Kernels trust their arrays, so that everything is looked at.

    Raises:
        StateError: it cannot be a sample.
    """
    if head.cells == 0:
        return empty_sample()
    if len(head.types) != _COLUMNS:
        raise StateError(f"expected a sample of {_COLUMNS} columns, got {len(head.types)}")
    first_tick = int(reader.wide("<i8", 1)[0])
    columns = _Columns(reader, iter(head.types))
    words, lengths = columns.next(head.words), columns.next(head.words)
    _expect("words in order", bool((words[1:] > words[:-1]).all()) and bool((words != 0).all()))
    _expect("texts of their lengths", _within(lengths, 0, TEXT_BYTES_MAX) and int(lengths.sum()) == head.text_bytes)
    with_none = np.concatenate([[0], words]).astype(np.int64)
    cells, counts = _read_cells(columns, head.cells, with_none, first_tick)
    _expect("entries for all cells", int(counts.sum()) == head.entries)
    entries = _read_entries(columns, cells, counts, with_none)
    text = reader.take("|u1", head.text_bytes).astype(np.uint8)
    told = lengths > 0
    return Sample(cells, entries, words[told], np.concatenate([[0], np.cumsum(lengths[told])]).astype(np.int64), text)


def _read_cells(columns: _Columns, count: int, words: I64, first_tick: int) -> tuple[I64, I64]:
    """(cells, how many entries each has)"""
    cells = np.empty((count, CELL_WORDS), np.int64)
    ahead = columns.next(count)
    _expect("ticks", _within(ahead, 0, 2**32) and 0 <= first_tick < 2**62)
    cells[:, S_TICK] = ahead + first_tick
    cells[:, S_SERVICE_A] = _words_at(words, columns.next(count))
    for column, most in ((S_SERVICE_B, None), (S_STRATUM, VERIFIED), (S_LEVEL, LEVEL_MAX), (S_TOTAL, TOTAL_MAX)):
        cells[:, column] = columns.next(count)
        _expect("strata, levels and totals", most is None or _within(cells[:, column], 0, most))
    counts = columns.next(count)
    _expect(f"at most {KEPT} entries in a cell", _within(counts, 0, KEPT))
    _expect("cells in order", _ascend([cells[:, column] for column in (S_TICK, S_SERVICE_A, S_SERVICE_B, S_STRATUM)]))
    return cells, counts


def _read_entries(columns: _Columns, cells: I64, counts: I64, words: I64) -> I64:
    count = int(counts.sum())
    entries = np.empty((count, ENTRY_WORDS), np.int64)
    entries[:, E_CELL] = np.repeat(np.arange(len(cells)), counts)
    for column in (E_PRIORITY, E_WEIGHT, E_IP_HIGH, E_IP_LOW):
        entries[:, column] = columns.next(count)
    entries[:, E_IP_LOW] ^= _FOUR
    for attribute in range(_TEXT_COLUMNS):
        entries[:, E_ATTRIBUTES + attribute] = _words_at(words, columns.next(count))
    entries[:, _WHO] = columns.next(count)
    entries[:, _NOTES] = columns.next(count)
    _expect("notes", _within(entries[:, _NOTES], 0, NOTES_MAX))
    priority = np.ascontiguousarray(entries[:, E_PRIORITY]).view(np.uint64)
    _expect("weights", _within(entries[:, E_WEIGHT], 1, TOTAL_MAX))
    _expect("entries in order", _ascend([entries[:, E_CELL], priority]))
    level = cells[entries[:, E_CELL], S_LEVEL]
    upper = priority >> np.minimum(64 - level, 63).astype(np.uint64)
    _expect("priorities below the bound of their level", bool(((upper == 0) | (level == 0)).all()))
    return entries


def _words_at(words: I64, places: I64) -> I64:
    _expect("known words", _within(places, 0, len(words) - 1))
    return words[places]


def _within(values: I64, least: int, most: int) -> bool:
    return bool(((values >= least) & (values <= most)).all())


def _ascend(columns: list[npt.NDArray[np.int64] | npt.NDArray[np.uint64]]) -> bool:
    """Do the rows of the columns ascend, none like the one before it?"""
    tied = np.ones(max(len(columns[0]) - 1, 0), np.bool_)
    for column in columns:
        if (tied & (column[1:] < column[:-1])).any():
            return False
        tied &= column[1:] == column[:-1]
    return not tied.any()


def _expect(what: str, holds: bool) -> None:
    if not holds:
        raise StateError(f"expected the sample of a tally with {what}, got others: it is damaged, or none of ours")
