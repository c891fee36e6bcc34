"""Events as columns: the one form in which an event exists after decoding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.fields import NUMBERS, TEXTS, Flag, Number, Text

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]


COUNTRY_CODES = b"".join(bytes((first, second)) for first in range(65, 91) for second in range(65, 91))
"""All words of two letters, one after the other."""


@dataclass(slots=True)
class Columns:
    """A batch of events, structure of arrays. Rows ``0..n-1`` are valid.

    The arrays are allocated once and reused from batch to batch; whoever needs a value later copies it.
    Text cells are spans of ``buffer``, which holds the raw chunk followed by an arena for unescaped and derived text.
    """

    capacity: int
    n: int
    numbers: I64  # i64[NUMBERS, capacity]
    ip_high: U64  # u64[capacity]: the upper half of the IPv6 address; 0 for IPv4
    ip_low: U64  # u64[capacity]: the lower half; IPv4 as ::ffff:a.b.c.d
    text_start: I32  # i32[TEXTS, capacity]
    text_length: I32  # i32[TEXTS, capacity]
    buffer: U8  # u8[...]
    present: int = -1
    """Bits: which columns have a value in some row (numbers from bit 0, texts from bit NUMBERS); -1: any may have."""
    spare: int = 0
    """From here on the buffer is free for `COUNTRY_CODES`, where `Input.geo` names files that know countries."""

    @classmethod
    def allocate(cls, capacity: int) -> Columns:
        """Columns for up to ``capacity`` events, all empty."""
        return cls(
            capacity=capacity,
            n=0,
            numbers=np.zeros((NUMBERS, capacity), np.int64),
            ip_high=np.zeros(capacity, np.uint64),
            ip_low=np.zeros(capacity, np.uint64),
            text_start=np.zeros((TEXTS, capacity), np.int32),
            text_length=np.zeros((TEXTS, capacity), np.int32),
            buffer=np.zeros(0, np.uint8),
        )

    def number(self, column: Number) -> I64:
        """The valid rows of an integer column (a view)."""
        return self.numbers[column, : self.n]

    def are_requests(self, rows: I64) -> npt.NDArray[np.bool_]:
        """bool[n]: which of these rows are somebody's request. That an account was verified is nobody's, and no measure counts
        it."""
        found: npt.NDArray[np.bool_] = self.numbers[Number.FLAGS, rows] & Flag.VERIFICATION == 0
        return found

    def text(self, column: Text, row: int) -> bytes:
        """One text cell, copied; empty when missing."""
        start = int(self.text_start[column, row])
        return self.buffer[start : start + int(self.text_length[column, row])].tobytes()
