"""What a path says: is it a static asset, and which route is it once the ids in it are folded."""

from __future__ import annotations

from typing import Any

import numpy as np

from schemas.compiled import part
from schemas.decoding.machine import byte_at

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


_DIGIT, _HEXADECIMAL, _OTHER, _END = 1, 1 << 16, 1 << 32, -1
_CLASSES = np.full(256, _OTHER, np.int64)
"""What a byte adds to a segment's counts of digits, of hexadecimal letters and hyphens, and of others; -1 ends it."""
_CLASSES[48:58] = _DIGIT
_CLASSES[[*range(97, 103), *range(65, 71), 45]] = _HEXADECIMAL
_CLASSES[[47, 63, 35]] = _END


@part
def path_end_kernel(buffer: Any, start: Any, length: Any) -> Any:
    """Where the path ends and its query or fragment begins."""
    for at in range(start, start + length):
        c = byte_at(buffer, at)
        if c == 63 or c == 35:  # ? #
            return np.int64(at)
    return np.int64(start + length)


@part
def is_asset_kernel(buffer: Any, start: Any, end: Any) -> Any:
    """True when the path ``buffer[start:end]`` (without query) ends in the extension of a static asset."""
    packed = np.int64(0)
    shift = np.int64(0)
    at = end - 1
    while at >= start and shift < 48:
        c = byte_at(buffer, at)
        if c == 46:  # .
            for k in range(len(ASSETS)):
                if ASSETS[k] == packed:
                    return shift > 0
            return False
        if c == 47:  # /
            return False
        if 65 <= c <= 90:
            c += 32
        packed |= c << shift
        shift += 8
        at -= 1
    return False


@part
def fold_route_kernel(
    buffer: Any, method_start: Any, method_length: Any, path_start: Any, end: Any, out: Any, out_start: Any
) -> Any:
    """Write ``METHOD /path/{id}`` of the path ``buffer[path_start:end]`` (without query) to ``out``; returns its length.

    ``out`` (u8[]) needs ROUTE_BYTES_MAX + 64 bytes from ``out_start``. A segment is an id when it is all digits, has at
    least eight characters that are all hexadecimal or hyphens with a digit among them (hashes, UUIDs), or is long with a
    digit in it.
    """
    at = out_start
    out_end = out_start + ROUTE_BYTES_MAX
    for k in range(min(method_length, 16)):
        out[at] = byte_at(buffer, method_start + k)
        at += 1
    out[at] = 32
    at += 1
    position = path_start
    while position < end and at < out_end:
        begin = at
        segment = position
        counts = np.int64(0)
        while position < end:
            c = byte_at(buffer, position)
            kind = _CLASSES[c]
            if kind < 0:
                break
            counts += kind
            if at < out_end:
                out[at] = c
                at += 1
            position += 1
        length = position - segment
        if counts & 0xFFFF:
            digits = counts & 0xFFFF
            if digits == length or (length >= 8 and counts < _OTHER) or length >= SEGMENT_OPAQUE:
                out[begin] = 123
                out[begin + 1] = 105
                out[begin + 2] = 100
                out[begin + 3] = 125
                at = begin + 4
        if position >= end or byte_at(buffer, position) != 47:
            break
        if at < out_end:
            out[at] = 47
            at += 1
        position += 1
    return at - out_start
