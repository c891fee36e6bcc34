"""What the raw bytes of a source partition come to, so that evidence can say later whether they still are what was read."""

from __future__ import annotations

import numpy as np

from detectors.kernels.digests import HELD_WORDS, digest_lines_kernel, digest_records_kernel
from schemas.columns import I64, U8, U64
from schemas.tally import Digest

_WORD = (1 << 64) - 1


class Digester:
    """The sum of the digests of all records of one source partition, from where it was begun.

    Args:
        key: u64[DIGEST_KEY_WORDS].
        chain: see `schemas.tally.Digest`.
        total: of what came before.
    """

    def __init__(self, key: U64, chain: int, total: int = 0) -> None:
        self._key, self.chain, self.total = key, chain, total
        self._cut_at = total
        self._out, self._words = np.zeros(1, np.uint64), np.zeros(HELD_WORDS, np.uint64)

    def add_records(self, buffer: U8, starts: I64, ends: I64, offsets: I64, times_ms: I64) -> None:
        """Messages ``buffer[starts[i]:ends[i]]`` at ``offsets[i]``, each with its time."""
        self._out[0] = self.total
        digest_records_kernel(self._key, buffer, starts, ends, offsets, times_ms, self._words, self._out)
        self.total = int(self._out[0])

    def add_lines(self, chunk: U8, start: int, end: int, base: int) -> None:
        """Whole lines ``chunk[start:end]``; byte 0 of the chunk is byte ``base`` of the source."""
        self._out[0] = self.total
        digest_lines_kernel(self._key, chunk, start, end, base, self._words, self._out)
        self.total = int(self._out[0])

    def saved(self) -> tuple[int, int]:
        """With what another goes on."""
        return self.chain, self.total

    def cut(self) -> Digest:
        """Of what came since the last cut."""
        before, self._cut_at = self._cut_at, self.total
        return Digest(self.chain, before, self.total)


def digest_between(before: int, after: int) -> str:
    """As it stands in evidence: of what lies between two totals of one chain."""
    return f"{(after - before) & _WORD:016x}"
