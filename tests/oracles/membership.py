"""Rows of keys on a list, in plain Python."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from schemas.tally import C_DIMENSION, C_KEY_A, C_KEY_B, C_TICK

I64 = npt.NDArray[np.int64]


def listed_rows(records: I64, order: I64, dimension: int, closed: int, words: I64) -> list[tuple[int, int]]:
    """(row, entry) of the rows ``order`` that are of the dimension, later than ``closed``, and of a key among ``words``."""
    entries = {(a, b): index for index, (a, b) in enumerate(words.tolist())}
    found = []
    for row in order.tolist():
        key = int(records[row, C_KEY_A]), int(records[row, C_KEY_B])
        if records[row, C_DIMENSION] == dimension and records[row, C_TICK] > closed and key in entries:
            found.append((row, entries[key]))
    return found
