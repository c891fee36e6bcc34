"""Samples of several tallies as one: what a judge keeps, the same whatever the order and wherever they were cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detectors.kernels.sample_merge import merge_kernel, merge_words_kernel
from schemas.sample import CELL_WORDS, E_CELL, ENTRY_WORDS, S_TICK, Sample, empty_sample


def merge_samples(samples: Sequence[Sample]) -> Sample:
    """What all of them say together: entries united, totals added, and the level as high as their number needs.

    The result has arrays of its own. Many samples are merged in pairs, so that none is gone over more often than needed.
    """
    left = [sample for sample in samples if len(sample.cells)]
    if len(left) == 1:
        left.append(empty_sample())
    while len(left) > 1:
        pairs = [_merge_two(one, other) for one, other in zip(left[::2], left[1::2], strict=False)]
        left = pairs + left[2 * len(pairs) :]
    return left[0] if left else empty_sample()


def part_of(sample: Sample, low: int, high: int) -> Sample:
    """The cells ``low`` to ``high - 1`` with their entries, in arrays of their own, and all texts."""
    from_entry, to_entry = np.searchsorted(sample.entries[:, E_CELL], (low, high))
    entries = sample.entries[from_entry:to_entry].copy()
    entries[:, E_CELL] -= low
    return Sample(sample.cells[low:high].copy(), entries, sample.words, sample.text_start, sample.text)


@dataclass(slots=True)
class Held:
    """A sample that came, and the first of its cells whose second is not closed."""

    sample: Sample
    at: int = 0

    @property
    def newest(self) -> int:
        """Its last second."""
        return int(self.sample.cells[-1, S_TICK])

    @property
    def waits_from(self) -> int | None:
        """The first second that is not closed; None: all are."""
        return int(self.sample.cells[self.at, S_TICK]) if self.at < len(self.sample.cells) else None

    @property
    def left(self) -> Sample:
        """What is of seconds that are not closed."""
        return part_of(self.sample, self.at, len(self.sample.cells)) if self.at else self.sample


def _merge_two(one: Sample, other: Sample) -> Sample:
    cells = np.empty((len(one.cells) + len(other.cells), CELL_WORDS), np.int64)
    entries = np.empty((len(one.entries) + len(other.entries), ENTRY_WORDS), np.int64)
    counts = np.empty(2, np.int64)
    merge_kernel(one.cells, one.entries, other.cells, other.entries, cells, entries, counts)
    cells, entries = cells[: counts[0]], entries[: counts[1]]
    most = len(one.words) + len(other.words)
    words, text_start = np.empty(most, np.int64), np.empty(most + 1, np.int64)
    text = np.empty(len(one.text) + len(other.text), np.uint8)
    known = merge_words_kernel(
        cells, entries, one.words, one.text_start, one.text, other.words, other.text_start, other.text,
        np.zeros(1 << (2 * most + 1).bit_length(), np.int32), np.zeros(most, np.uint8), words, text_start, text,
    )  # fmt: skip
    return Sample(cells, entries, words[:known], text_start[: known + 1], text[: text_start[known]])
