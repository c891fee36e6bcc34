"""What both kinds of records share: writing a row, undoing escapes, request lines, and what a status says."""

from __future__ import annotations

from typing import Any

import numpy as np

from schemas.compiled import inlined, part
from schemas.decoding.escapes import unescape_kernel
from schemas.decoding.layout import AHEAD_MS, ARENA, ARENA_END
from schemas.decoding.machine import SPACE, byte_at, no_method_mask, trailing_zeros
from schemas.fields import NUMBERS, TEXTS, Flag, Poison

OK, TOO_LONG, BAD_ESCAPE = int(Poison.OK), int(Poison.TOO_LONG), int(Poison.BAD_ESCAPE)
F_AUTH_FAILED, F_CANCELLED, F_OWN_DENIAL = int(Flag.AUTH_FAILED), int(Flag.CANCELLED), int(Flag.OWN_DENIAL)
METHOD_BYTES_MAX = 24
"""A longer first word of a request line is garbage and no method."""
TEXT_BIT = NUMBERS
"""In a row's mask, text column t is bit ``TEXT_BIT + t``; number column n is bit n."""
SOURCE_SHIFT, REPLACED_SHIFT = 40, 48
"""In a row's mask: where the address came from, and whether its time was replaced."""


@inlined
def put_number(cells: Any, row: Any, column: Any, value: Any) -> Any:
    """Write an integer cell unless it is missing; the column's bit, or 0."""
    if value < 0:
        return np.int64(0)
    cells[column, row] = value
    return np.int64(1) << column


@inlined
def put_text(spans: Any, row: Any, column: Any, start: Any, end: Any) -> Any:
    """Write a text cell unless it is missing; the column's bit, or 0."""
    if end <= start:
        return np.int64(0)
    spans[column, row] = start
    spans[TEXTS + column, row] = end - start
    return np.int64(1) << (TEXT_BIT + column)


@part
def unescape_value_kernel(buffer: Any, start: Any, end: Any, state: Any, kind: Any) -> Any:
    """Undo the escapes of a value in the arena; (start, end, reason) of the text there."""
    out = state[ARENA]
    if out + (end - start) > state[ARENA_END]:
        return start, end, TOO_LONG
    after, bad = unescape_kernel(buffer, start, end, out, kind)
    if bad >= 0:
        return bad, end, BAD_ESCAPE
    state[ARENA] = after
    return out, after, OK


@inlined
def status_flags(status: Any) -> Any:
    """The flags that a status alone sets; a missing one sets none."""
    if status < 401:
        return np.int64(0)
    if status == 401 or status == 403:
        return np.int64(F_AUTH_FAILED)
    if status == 429 or status == 503:
        return np.int64(F_OWN_DENIAL)
    return np.int64(F_CANCELLED if status == 499 else 0)


@inlined
def bounded_time(time_ms: Any, bound_ms: Any, state: Any) -> Any:
    """(time, was it replaced): a time too far ahead of the record's becomes the record's. A bound of 0 is none."""
    if bound_ms > 0 and time_ms > bound_ms + state[AHEAD_MS]:
        return bound_ms, True
    return time_ms, False


@part
def path_kernel(buffer: Any, start: Any, end: Any) -> Any:
    """(path start, host start, host end) of a request target; for ``http://host/path`` the path begins after the host.

    So a client cannot spread one route over many by naming hosts. Without a path the target is left as it is.
    """
    if byte_at(buffer, start) == 47 or end - start < 9:
        return start, start, start
    at = start
    while at < end and at < start + 8 and byte_at(buffer, at) != 58:
        at += 1
    scheme = at - start
    if scheme < 4 or scheme > 5 or byte_at(buffer, start) | 0x20 != 104 or byte_at(buffer, start + 3) | 0x20 != 112:
        return start, start, start
    if byte_at(buffer, at + 1) != 47 or byte_at(buffer, at + 2) != 47:
        return start, start, start
    host = at + 3
    slash = host
    while slash < end and byte_at(buffer, slash) != 47:
        slash += 1
    if slash >= end:
        return start, start, start
    return slash, host, slash


@inlined
def split_request(buffer: Any, start: Any, end: Any) -> Any:
    """(method end, path start, path end) of ``METHOD target[ HTTP/x]`` from ``start``.

    What is no request line (a TLS greeting, an empty one) has neither method nor path: the three are ``start``.
    """
    width = trailing_zeros(no_method_mask(buffer, start))
    space = start + width
    if space >= end or width == 0 or width > METHOD_BYTES_MAX or byte_at(buffer, space) != SPACE:
        return start, start, start
    stop = end
    if end - space > 9 and byte_at(buffer, end - 9) == 32 and byte_at(buffer, end - 8) == 72 and byte_at(buffer, end - 4) == 47:
        stop = end - 9
    elif (
        end - space > 7 and byte_at(buffer, end - 7) == 32 and byte_at(buffer, end - 6) == 72 and byte_at(buffer, end - 2) == 47
    ):
        stop = end - 7
    return space, space + 1, max(stop, space + 1)


@part
def without_port(buffer: Any, start: Any, end: Any) -> Any:
    """The end of a host without its ``:port``."""
    at = end
    while at > start and end - at < 6 and 48 <= byte_at(buffer, at - 1) <= 57:
        at -= 1
    if at > start + 1 and at < end and byte_at(buffer, at - 1) == 58:
        return at - 1
    return end
