"""Rows of keys that are on a list: a table of 128-bit keys that is asked for every row of a dimension.

The words of a key are a keyed hash already (`detectors.kernels.hashing`), so that the first one says where it lies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.kernels.hashing import hash_bytes_kernel
from schemas.compiled import entry, inlined
from schemas.decoding.machine import SLACK
from schemas.tally import C_DIMENSION, C_KEY_A, C_KEY_B, C_TICK

NOT_LISTED = -1
U64 = np.uint64
I64Array = npt.NDArray[np.int64]


@inlined
def find_listed_kernel(places: Any, words: Any, a: Any, b: Any) -> Any:
    """Which entry a key is, or NOT_LISTED. ``places`` (i32[power of two], entry + 1 or 0) is at most half full."""
    mask = np.int64(len(places) - 1)
    at = np.int64(U64(a) & U64(mask))
    while places[at] != 0:
        found = np.int64(places[at]) - 1
        if words[found, 0] == a and words[found, 1] == b:
            return found
        at = (at + 1) & mask
    return np.int64(NOT_LISTED)


@entry
def listed_rows_kernel(
    records: Any, order: Any, dimension: Any, closed: Any, places: Any, words: Any, rows: Any, entries: Any
) -> Any:
    """Write down which of the rows ``order`` are of ``dimension``, later than ``closed``, and of a key on the list; how many.

    Args:
        words: i64[n, 2]: the keys on the list.
        rows, entries: i64[rows or more]: the rows found, and which entry each is.
    """
    found = np.int64(0)
    for k in range(len(order)):
        r = order[k]
        if records[r, C_DIMENSION] != dimension or records[r, C_TICK] <= closed:
            continue
        which = find_listed_kernel(places, words, records[r, C_KEY_A], records[r, C_KEY_B])
        if which != NOT_LISTED:
            rows[found], entries[found] = r, which
            found += 1
    return found


@entry
def place_keys_kernel(places: Any, words: Any, first: Any, end: Any) -> None:
    """Enter the keys ``words[first:end]``, none of which is there."""
    mask = np.int64(len(places) - 1)
    for k in range(first, end):
        at = np.int64(U64(words[k, 0]) & U64(mask))
        while places[at] != 0:
            at = (at + 1) & mask
        places[at] = k + 1


@entry
def _find_kernel(places: Any, words: Any, a: Any, b: Any) -> Any:
    return find_listed_kernel(places, words, a, b)


@entry
def _hash_text_kernel(seeds: Any, data: Any, length: Any, out: Any) -> None:
    a, b = hash_bytes_kernel(seeds, data, np.int64(0), length)
    out[0], out[1] = np.int64(a), np.int64(b)


def find_listed(places: npt.NDArray[np.int32], words: I64Array, a: int, b: int) -> int:
    """Which entry a key (its words as signed numbers) is, or NOT_LISTED."""
    return int(_find_kernel(places, words, np.int64(a), np.int64(b)))


def words_of_text(seeds: npt.NDArray[np.uint64], text: bytes) -> tuple[int, int]:
    """The words, as signed numbers, that grouping gives to a key with this text."""
    out = np.zeros(2, np.int64)
    _hash_text_kernel(seeds, np.frombuffer(text + bytes(SLACK), np.uint8), np.int64(len(text)), out)
    return int(out[0]), int(out[1])
