"""What a path says: is it a static asset, and which route is it once the ids in it are folded."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_EXTENSIONS = (
    "css", "js", "mjs", "map", "png", "jpg", "jpeg", "gif", "svg", "ico", "webp", "avif", "bmp", "xbm", "woff", "woff2",
    "ttf", "otf", "eot", "mp3", "mp4", "webm", "wav", "mpg", "avi", "pdf",
)  # fmt: skip


def _packed(extension: str) -> int:
    return int.from_bytes(extension.encode(), "big")


ASSETS = np.array(sorted(_packed(extension) for extension in _EXTENSIONS), np.int64)
ROUTE_BYTES_MAX = 160
"""Longer routes are cut: two routes that differ only past this are one."""
SEGMENT_OPAQUE = 24
"""A segment this long with a digit in it is an id: no route that people name is."""


@njit(cache=True, nogil=True)
def is_asset_kernel(buffer: Any, start: Any, length: Any) -> Any:
    """True when the path (before any query) ends in the extension of a static asset."""
    end = start + length
    for at in range(start, start + length):
        if buffer[at] == 63 or buffer[at] == 35:  # ? #
            end = at
            break
    packed = np.int64(0)
    shift = np.int64(0)
    at = end - 1
    while at >= start and shift < 48:
        c = buffer[at]
        if c == 46:  # .
            if shift == 0:
                return False
            position = np.searchsorted(ASSETS, packed)
            return position < len(ASSETS) and ASSETS[position] == packed
        if c == 47:  # /
            return False
        if 65 <= c <= 90:
            c += 32
        packed |= np.int64(c) << shift
        shift += 8
        at -= 1
    return False


@njit(cache=True, nogil=True)
def fold_route_kernel(
    buffer: Any, method_start: Any, method_length: Any, path_start: Any, path_length: Any, out: Any
) -> Any:
    """Write ``METHOD /path/{id}`` to ``out`` (u8[>= ROUTE_BYTES_MAX + 8]); returns its length.

    The query is cut. A segment is an id when it is all digits, has at least eight characters that are all hexadecimal
    or hyphens with a digit among them (hashes, UUIDs), or is long with a digit in it.
    """
    at = 0
    for k in range(min(method_length, 16)):
        out[at] = buffer[method_start + k]
        at += 1
    out[at] = 32
    at += 1
    position = path_start
    end = path_start + path_length
    while position < end and at < ROUTE_BYTES_MAX:
        segment = position
        digits = 0
        others = 0  # neither digit, hexadecimal letter nor hyphen
        hexadecimal = 0
        while position < end:
            c = buffer[position]
            if c == 47 or c == 63 or c == 35:
                break
            if 48 <= c <= 57:
                digits += 1
            elif 97 <= c <= 102 or 65 <= c <= 70 or c == 45:
                hexadecimal += 1
            else:
                others += 1
            position += 1
        length = position - segment
        is_id = length > 0 and digits > 0 and (
            digits == length or (length >= 8 and others == 0) or (length >= SEGMENT_OPAQUE and digits > 0)
        )
        if is_id:
            out[at] = 123
            out[at + 1] = 105
            out[at + 2] = 100
            out[at + 3] = 125
            at += 4
        else:
            kept = min(length, ROUTE_BYTES_MAX - at)
            for k in range(kept):
                out[at + k] = buffer[segment + k]
            at += kept
        if position >= end or buffer[position] != 47:
            break
        if at < ROUTE_BYTES_MAX:
            out[at] = 47
            at += 1
        position += 1
    return np.int64(at)
