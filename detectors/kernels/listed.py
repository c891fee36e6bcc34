"""What is on a list. Does a text hold one of many words, whatever the case of its ASCII letters? Asked once for each new user
agent. Is an address in one of many ranges? Asked once for each address and cell in which it is over a limit.

Words are looked for only where two bytes stand that some word begins with, so that a flood of agents made up at random
costs a look at each of their bytes and little more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled import inlined, part

U64 = np.uint64
_ONE, _SIX, _LOW = U64(1), U64(6), U64(63)


class Words(NamedTuple):
    """Words in lower case, each of at least two bytes."""

    begins: npt.NDArray[np.uint64]  # u64[1024]: a bit for each pair of first bytes
    text: npt.NDArray[np.uint8]  # u8[...]: one word after the other
    start: npt.NDArray[np.int64]  # i64[words + 1]


def make_words(words: Sequence[str]) -> Words:
    """Lay words out for `holds_word_kernel`."""
    plain = [word.lower().encode() for word in words]
    begins = np.zeros(1024, np.uint64)
    for word in plain:
        pair = word[0] << 8 | word[1]
        begins[pair >> 6] |= U64(1 << (pair & 63))
    return Words(
        begins,
        np.frombuffer(b"".join(plain) + b"\0", np.uint8).copy(),
        np.cumsum([0, *map(len, plain)]).astype(np.int64),
    )


@inlined
def _lower(byte: Any) -> Any:
    """i64: an ASCII letter in lower case, any other byte as it is."""
    value = np.int64(byte)
    return value + 32 if 65 <= value <= 90 else value


@part
def holds_word_kernel(words: Any, buffer: Any, start: Any, length: Any) -> Any:
    """i64: 1 if ``buffer[start:start + length]`` holds a word, else 0."""
    end = start + length
    for at in range(start, end - 1):
        pair = U64(_lower(buffer[at]) << 8 | _lower(buffer[at + 1]))
        if (words.begins[np.int64(pair >> _SIX)] >> (pair & _LOW)) & _ONE == U64(0):
            continue
        for word in range(len(words.start) - 1):
            size = words.start[word + 1] - words.start[word]
            if size > end - at:
                continue
            same = np.int64(0)
            while same < size and _lower(buffer[at + same]) == np.int64(words.text[words.start[word] + same]):
                same += 1
            if same == size:
                return np.int64(1)
    return np.int64(0)


@part
def holds_address_kernel(start: Any, low: Any, high: Any, which: Any, a: Any, b: Any) -> Any:
    """Is an address on list ``which``? See `detectors.lists.Ranges` for the arrays.

    Args:
        a, b: u64, the words of a key of dimension ``ip``.
    """
    family, value = np.int64(1), a
    if a == U64(0) and b >> U64(32) == U64(0xFFFF):
        family, value = np.int64(0), b & U64(0xFFFFFFFF)
    begin = start[2 * which + family]
    at, end = begin, start[2 * which + family + 1]
    while at < end:
        middle = (at + end) >> 1
        if low[middle] <= value:
            at = middle + 1
        else:
            end = middle
    return at > begin and high[at - 1] >= value
