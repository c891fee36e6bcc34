"""Columns of integers as bytes, little-endian, in the narrowest type that holds them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from schemas.errors import StateError

TYPES = ("|u1", "<u2", "<u4", "<i4", "<i8")
"""What columns are written as; of these `narrow` takes no ``<i4``: everything below zero takes the widest."""


def narrow(values: npt.NDArray[np.int64]) -> npt.NDArray[np.generic]:
    """A column in its narrowest type; ``dtype.str`` is what `Reader` needs to know."""
    top, least = int(values.max(initial=0)), int(values.min(initial=0))
    if least < 0:  # a set whose highest bin is taken, or a hash
        return values.astype("<i8")
    for code, limit in (("<u1", 1 << 8), ("<u2", 1 << 16), ("<u4", 1 << 32)):
        if top < limit:
            return values.astype(code)
    return values.astype("<i8")


class Reader:
    """Reads columns one after the other from bytes that may be damaged.

    Args:
        data: all the bytes.
        at: where the first column begins.
    """

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at

    def take(self, code: str, count: int) -> npt.NDArray[np.generic]:
        """The next column of ``count`` numbers.

        Raises:
            StateError: there are not so many bytes left, or the type is none of `TYPES`.
        """
        if code not in TYPES:
            raise StateError(f"expected a column type of {TYPES}, got {code!r:.20}")
        width, left = np.dtype(code).itemsize, len(self._data) - self._at
        if not 0 <= count <= left // width:
            raise StateError(f"expected a column of {count} numbers of {width} bytes, got {left} bytes")
        column: npt.NDArray[np.generic] = np.frombuffer(self._data, code, count, self._at)
        self._at += count * width
        return column

    def wide(self, code: str, count: int) -> npt.NDArray[np.int64]:
        """The same as i64[count]."""
        return self.take(code, count).astype(np.int64)
