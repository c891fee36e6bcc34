"""Escapes in JSON strings and in log lines, undone into the arena behind the chunk.

Only values that are kept come here. Bytes that are not UTF-8 pass through, and half a surrogate pair becomes U+FFFD: if a
client's odd bytes made a record unreadable, sending them would be a way to stay unseen.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from schemas.compiled import part
from schemas.decoding.machine import BACKSLASH, byte_at, find_quote

LOG_ESCAPES, JSON_ESCAPES = np.int64(0), np.int64(1)
"""Whose escapes: in a JSON string a backslash before anything else is bad, in a log line it stands for itself."""


@part
def _hex_digit(byte: Any) -> Any:
    if 48 <= byte <= 57:
        return byte - 48
    lower = byte | 0x20
    if 97 <= lower <= 102:
        return lower - 87
    return np.int64(-1)


@part
def hex_kernel(buffer: Any, at: Any, end: Any, count: Any) -> Any:
    """The number of ``count`` hexadecimal digits at ``at``, or -1 when they are not all there before ``end``."""
    if at + count > end:
        return np.int64(-1)
    value = np.int64(0)
    for index in range(count):
        digit = _hex_digit(byte_at(buffer, at + index))
        if digit < 0:
            return np.int64(-1)
        value = (value << 4) | digit
    return value


@part
def _write_rune_kernel(buffer: Any, out: Any, rune: Any) -> Any:
    """Write one code point as UTF-8; the position after it. It never takes more bytes than its escape did."""
    if rune < 0x80:
        buffer[out] = rune
        return out + 1
    if rune < 0x800:
        buffer[out], buffer[out + 1] = 0xC0 | (rune >> 6), 0x80 | (rune & 63)
        return out + 2
    if rune < 0x10000:
        buffer[out], buffer[out + 1], buffer[out + 2] = 0xE0 | (rune >> 12), 0x80 | ((rune >> 6) & 63), 0x80 | (rune & 63)
        return out + 3
    buffer[out], buffer[out + 1] = 0xF0 | (rune >> 18), 0x80 | ((rune >> 12) & 63)
    buffer[out + 2], buffer[out + 3] = 0x80 | ((rune >> 6) & 63), 0x80 | (rune & 63)
    return out + 4


@part
def _plain_escape_kernel(byte: Any) -> Any:
    """The byte that a one-letter escape stands for, or -1."""
    if byte == 34 or byte == 92 or byte == 47 or byte == 39:
        return byte
    if byte == 110:
        return np.int64(10)
    if byte == 116:
        return np.int64(9)
    if byte == 114:
        return np.int64(13)
    if byte == 98:
        return np.int64(8)
    if byte == 102:
        return np.int64(12)
    if byte == 118:
        return np.int64(11)
    if byte == 97:
        return np.int64(7)
    return np.int64(-1)


@part
def _rune_kernel(buffer: Any, at: Any, end: Any) -> Any:
    """(code point, position after it) of ``XXXX`` at ``at``, the digits of a ``\\u``; -1 when they are none."""
    rune = hex_kernel(buffer, at, end, 4)
    at += 4
    if rune < 0xD800 or rune > 0xDFFF:
        return rune, at
    if rune <= 0xDBFF and at + 6 <= end and byte_at(buffer, at) == BACKSLASH and byte_at(buffer, at + 1) == 117:
        low = hex_kernel(buffer, at + 2, end, 4)
        if 0xDC00 <= low <= 0xDFFF:
            return 0x10000 + ((rune - 0xD800) << 10) + (low - 0xDC00), at + 6
    return np.int64(0xFFFD), at


@part
def unescape_kernel(buffer: Any, start: Any, end: Any, out: Any, kind: Any) -> Any:
    """Undo the escapes of ``buffer[start:end]`` into ``buffer[out:]``; (position after it, position of a bad escape or -1).

    ``kind`` is `LOG_ESCAPES` or `JSON_ESCAPES`. ``\\xHH`` is read in JSON too, because nginx writes it there when its format
    lacks ``escape=json``.
    ``out <= start`` is allowed: the text is never longer than it was.
    """
    at = start
    strict = kind == JSON_ESCAPES
    while at < end:
        if byte_at(buffer, at) != BACKSLASH:
            # Quotes stop the search too; inside a value they are text.
            stop = find_quote(buffer, at + 1, end)
            for index in range(at, stop):
                buffer[out] = buffer[index]
                out += 1
            at = stop
            continue
        letter = byte_at(buffer, at + 1) if at + 1 < end else np.int64(0)
        plain = _plain_escape_kernel(letter)
        if plain >= 0:
            buffer[out] = plain
            out += 1
            at += 2
            continue
        if letter == 120:
            value = hex_kernel(buffer, at + 2, end, 2)
            if value >= 0:
                buffer[out] = value
                out += 1
                at += 4
                continue
        elif letter == 117 and strict:
            rune, after = _rune_kernel(buffer, at + 2, end)
            if rune >= 0:
                out = _write_rune_kernel(buffer, out, rune)
                at = after
                continue
        if strict:
            return out, at
        buffer[out] = BACKSLASH
        out += 1
        at += 1
    return out, np.int64(-1)
