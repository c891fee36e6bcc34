"""What was worked out about texts seen lately: the key of a text, and the route and kind of a path.

Traffic repeats its paths, keys and agents. An entry is found by a cheap mark of the text and is good only if the whole
text is equal, so that a wrong hit is impossible; texts made to share marks cost what texts without a memo cost. Texts
longer than `MEMO_BYTES` are worked out each time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.kernels.hashing import hash_bytes_kernel
from detectors.kernels.listed import holds_word_kernel
from detectors.kernels.machine import LINE_BYTES, allocate_lines, copy_bytes, equal_bytes, prefetch
from detectors.kernels.routes import ROUTE_BYTES_MAX, fold_route_kernel, is_asset_kernel, path_end_kernel
from schemas.compiled import inlined, part
from schemas.decoding.machine import word_at

U64 = np.uint64
I64Array = npt.NDArray[np.int64]

MEMO_ENTRIES, ROUTE_ENTRIES = 2048, 8192
"""Paths name things by the thousand: where 3,400 came in turn, a fifth of events had theirs worked out again with 2,048 places,
with 8,192 a tenth; half of those were new."""
MEMO_BYTES = 184
"""The user agents of browsers are up to 160 bytes long."""
_ROOM = 192
_ROUTE_ROOM = ROUTE_BYTES_MAX + 64
_METHOD_BYTES = 8
_LINE = int(LINE_BYTES)
_SHIFT, _ROUTE_SHIFT = U64(53), U64(51)
"""64 bits less log2 of MEMO_ENTRIES and of ROUTE_ENTRIES."""
_A, _B, _C = U64(0x9E3779B97F4A7C15), U64(0xC2B2AE3D27D4EB4F), U64(0x165667B19E3779F9)
_ONE, _S3 = U64(1), U64(3)
L_TEXT, L_METHOD, L_ROUTE, L_ASSET = range(4)
L_LISTED = L_ASSET


class Memo(NamedTuple):
    """Texts and their keys; of paths also their routes. Empty entries have the length -1."""

    length: I64Array  # i64[n, 4]: the columns L_…; a method is kept as a word; n is MEMO_ENTRIES, of routes ROUTE_ENTRIES
    text: npt.NDArray[np.uint8]  # u8[n * _ROOM]
    key: npt.NDArray[np.uint64]  # u64[n, 2]
    route: npt.NDArray[np.uint8]  # u8[n * _ROUTE_ROOM]; of other texts nothing


def allocate_memo(*, routes: bool) -> Memo:
    """An empty memo: 490 kB, and 3.8 MB with routes, of which only what is used is touched."""
    entries = ROUTE_ENTRIES if routes else MEMO_ENTRIES
    length = np.full((entries, 4), -1, np.int64)
    text = allocate_lines((entries * _ROOM + 64,), np.uint8)
    route = np.zeros((entries if routes else 0) * _ROUTE_ROOM + 64, np.uint8)
    return Memo(length, text, np.zeros((entries, 2), np.uint64), route)


@inlined
def _tail(buffer: Any, at: Any, length: Any) -> Any:
    """u64: the ``length`` < 8 bytes from ``at``."""
    return word_at(buffer, at) & ((_ONE << (U64(length) << _S3)) - _ONE)


@inlined
def _method_word(buffer: Any, start: Any, length: Any) -> Any:
    """u64: a method of at most eight bytes."""
    return word_at(buffer, start) if length == 8 else _tail(buffer, start, length)


@inlined
def mark_kernel(buffer: Any, start: Any, length: Any) -> Any:
    """u64: a cheap mark of a text: its length, its first eight and its last eight bytes."""
    if length >= 8:
        first, last = word_at(buffer, start), word_at(buffer, start + length - 8)
    else:
        first, last = _tail(buffer, start, length), U64(0)
    return (first * _A) ^ ((last ^ U64(length)) * _B)


@inlined
def text_key_kernel(memo: Any, seeds: Any, buffer: Any, start: Any, length: Any) -> Any:
    """(u64, u64): the key of a text."""
    if length > MEMO_BYTES:
        return _hash(seeds, buffer, start, length)
    entry = np.int64((mark_kernel(buffer, start, length) * _C) >> _SHIFT)
    if memo.length[entry, L_TEXT] != length or not equal_bytes(buffer, start, memo.text, entry * _ROOM, length):
        a, b = _hash(seeds, buffer, start, length)
        memo.length[entry, L_TEXT] = length
        copy_bytes(memo.text, entry * _ROOM, buffer, start, length)
        memo.key[entry, 0], memo.key[entry, 1] = a, b
    return memo.key[entry, 0], memo.key[entry, 1]


@inlined
def agent_kernel(memo: Any, seeds: Any, words: Any, buffer: Any, start: Any, length: Any) -> Any:
    """(u64, i64): the first word of a user agent's key, and 1 if the agent holds one of ``words``, else 0."""
    if length > MEMO_BYTES:
        return _hash(seeds, buffer, start, length)[0], holds_word_kernel(words, buffer, start, length)
    entry = np.int64((mark_kernel(buffer, start, length) * _C) >> _SHIFT)
    if memo.length[entry, L_TEXT] != length or not equal_bytes(buffer, start, memo.text, entry * _ROOM, length):
        a, b = _hash(seeds, buffer, start, length)
        memo.length[entry, L_TEXT] = length
        memo.length[entry, L_LISTED] = holds_word_kernel(words, buffer, start, length)
        copy_bytes(memo.text, entry * _ROOM, buffer, start, length)
        memo.key[entry, 0], memo.key[entry, 1] = a, b
    return memo.key[entry, 0], memo.length[entry, L_LISTED]


@inlined
def fetch_text_kernel(memo: Any, buffer: Any, start: Any, length: Any) -> None:
    """Begin to bring what a memo knows of a text: memos are too large for the nearest caches, and many texts come together."""
    if 0 < length <= MEMO_BYTES:
        _fetch(memo, np.int64((mark_kernel(buffer, start, length) * _C) >> _SHIFT), length)


@inlined
def fetch_route_kernel(
    memo: Any, buffer: Any, method_start: Any, method_length: Any, path_start: Any, path_length: Any
) -> None:  # fmt: skip
    """The same of a method and a path."""
    if 0 < path_length <= MEMO_BYTES and 0 < method_length <= _METHOD_BYTES:
        method = _method_word(buffer, method_start, method_length)
        _fetch(memo, np.int64(((mark_kernel(buffer, path_start, path_length) ^ method) * _C) >> _ROUTE_SHIFT), path_length)


@inlined
def _fetch(memo: Any, entry: Any, length: Any) -> None:
    prefetch(memo.length, entry, 0)
    prefetch(memo.key, entry, 0)
    prefetch(memo.text, entry * _ROOM, 0)
    if length > _LINE:
        prefetch(memo.text, entry * _ROOM, _LINE)
        prefetch(memo.text, entry * _ROOM, 2 * _LINE)


@part
def _hash(seeds: Any, buffer: Any, start: Any, length: Any) -> Any:
    return hash_bytes_kernel(seeds, buffer, start, length)


@inlined
def route_entry_kernel(
    memo: Any, seeds: Any, buffer: Any, method_start: Any, method_length: Any, path_start: Any, path_length: Any
) -> Any:
    """The entry that holds what is known of a method and a path: found, or made. Entry 0 is for those too long to keep."""
    if path_length > MEMO_BYTES or method_length > _METHOD_BYTES:
        entry = np.int64(0)
    else:
        method = _method_word(buffer, method_start, method_length)
        entry = np.int64(((mark_kernel(buffer, path_start, path_length) ^ method) * _C) >> _ROUTE_SHIFT)
        same = memo.length[entry, L_TEXT] == path_length and memo.length[entry, L_METHOD] == np.int64(method)
        if same and equal_bytes(buffer, path_start, memo.text, entry * _ROOM, path_length):
            return entry
    _fill_route(memo, seeds, buffer, method_start, method_length, path_start, path_length, entry)
    return entry


@part
def _fill_route(
    memo: Any, seeds: Any, buffer: Any, method_start: Any, method_length: Any, path_start: Any, path_length: Any, entry: Any
) -> None:
    """Work a path out and write it down."""
    if path_length > MEMO_BYTES or method_length > _METHOD_BYTES:
        memo.length[entry, L_TEXT] = -1
    else:
        memo.length[entry, L_TEXT] = path_length
        memo.length[entry, L_METHOD] = np.int64(_method_word(buffer, method_start, method_length))
        copy_bytes(memo.text, entry * _ROOM, buffer, path_start, path_length)
    end = path_end_kernel(buffer, path_start, path_length)
    memo.length[entry, L_ASSET] = is_asset_kernel(buffer, path_start, end)
    route = memo.route
    begin = entry * _ROUTE_ROOM
    length = fold_route_kernel(buffer, method_start, method_length, path_start, end, route, begin)
    memo.length[entry, L_ROUTE] = length
    memo.key[entry, 0], memo.key[entry, 1] = hash_bytes_kernel(seeds, route, begin, length)


@inlined
def route_start_kernel(entry: Any) -> Any:
    """Where an entry's route begins in ``memo.route``."""
    return entry * _ROUTE_ROOM
