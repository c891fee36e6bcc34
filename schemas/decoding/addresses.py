"""IPv4 and IPv6 addresses as two 64-bit words, with the ports, brackets and zones that logs put around them.

Sources: RFC 4291 section 2.2 for the text of IPv6; octets with leading zeros are refused, because readers disagree
whether they are octal (CVE-2021-29921).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from schemas.compiled import inlined, part
from schemas.decoding.machine import byte_at, digit_run, digits_value, word_at

V4_PREFIX = np.uint64(0x0000FFFF00000000)
ADDRESS_BYTES_MAX = 96
"""The longest we look at: 45 characters, brackets, a port and a zone of at most 40."""
_ZERO = np.uint64(0)
_LOW_BYTE, _ZERO_DIGIT = np.uint64(0xFF), np.uint64(0x30)


@inlined
def parse_v4(buffer: Any, start: Any, end: Any) -> Any:
    """(value, position after it) of four octets at ``start``; value -1 when they are none."""
    value = np.int64(0)
    at = start
    for index in range(4):
        word = word_at(buffer, at)
        run = min(digit_run(word), end - at)
        width = min(run, 3)
        if width <= 0:
            return np.int64(-1), at
        octet = digits_value(word, width)
        if octet > 255 or (width > 1 and word & _LOW_BYTE == _ZERO_DIGIT):
            return np.int64(-1), at
        value = (value << 8) | octet
        at += width
        if index < 3:
            if at >= end or byte_at(buffer, at) != 46:
                return np.int64(-1), at
            at += 1
    return value, at


@part
def _hex_digit(byte: Any) -> Any:
    if 48 <= byte <= 57:
        return byte - 48
    lower = byte | 0x20
    if 97 <= lower <= 102:
        return lower - 87
    return np.int64(-1)


@part
def parse_v6_kernel(buffer: Any, start: Any, end: Any) -> Any:
    """(ok, high, low) of the IPv6 address that fills ``buffer[start:end]``; a zone (``%eth0``) is dropped."""
    high = low = _ZERO
    tail_high = tail_low = _ZERO
    groups = 0
    tail = -1  # groups since the "::", or -1 before it
    at = start
    if end - at < 2:
        return False, high, low
    if byte_at(buffer, at) == 58:
        if byte_at(buffer, at + 1) != 58:
            return False, high, low
        tail = 0
        at += 2
    while at < end:
        if byte_at(buffer, at) == 37:
            if at + 1 >= end or (tail != 0 and byte_at(buffer, at - 1) == 58):
                return False, high, low
            break
        count = groups + max(tail, 0)
        if count >= 8:
            return False, high, low
        value = np.int64(0)
        first = at
        while at < end and at - first < 5:
            digit = _hex_digit(byte_at(buffer, at))
            if digit < 0:
                break
            value = (value << 4) | digit
            at += 1
        width = at - first
        dotted = at < end and byte_at(buffer, at) == 46
        if dotted:
            if count > 6:
                return False, high, low
            value, at = parse_v4(buffer, first, end)
            if value < 0 or (at < end and byte_at(buffer, at) != 37):
                return False, high, low
        elif width == 0 or width > 4:
            return False, high, low
        words = 2 if dotted else 1
        shift = np.uint64(16 * words)
        if tail < 0:
            high = (high << shift) | (low >> np.uint64(64 - 16 * words))
            low = (low << shift) | np.uint64(value)
            groups += words
        else:
            tail_high = (tail_high << shift) | (tail_low >> np.uint64(64 - 16 * words))
            tail_low = (tail_low << shift) | np.uint64(value)
            tail += words
        if at >= end or dotted:
            continue
        if byte_at(buffer, at) == 37:
            continue
        if byte_at(buffer, at) != 58:
            return False, high, low
        at += 1
        if at >= end:
            return False, high, low
        if byte_at(buffer, at) == 58:
            if tail >= 0:
                return False, high, low
            tail = 0
            at += 1
    if tail < 0:
        return groups == 8, high, low
    if groups + tail > 7:
        return False, high, low
    # The groups before the "::" move to the top, those after it are the bottom.
    empty = 16 * (8 - groups)
    if empty >= 128:
        high = low = _ZERO
    elif empty >= 64:
        high = low << np.uint64(empty - 64)
        low = _ZERO
    elif empty > 0:
        high = (high << np.uint64(empty)) | (low >> np.uint64(64 - empty))
        low = low << np.uint64(empty)
    return True, high | tail_high, low | tail_low


@part
def _is_port(buffer: Any, at: Any, end: Any) -> Any:
    """Is ``buffer[at:end]`` a colon and one to five digits?"""
    if end - at < 2 or end - at > 6 or byte_at(buffer, at) != 58:
        return False
    for index in range(at + 1, end):
        digit = byte_at(buffer, index) - 48
        if digit < 0 or digit > 9:
            return False
    return True


@part
def parse_address_kernel(buffer: Any, start: Any, end: Any) -> Any:
    """(ok, high, low) as two u64 of the address in ``buffer[start:end]`` (u8[]).

    Read: ``1.2.3.4``, ``1.2.3.4:80``, IPv6 in every form, ``[v6]``, ``[v6]:80``, quotes and blanks around them. IPv4 is
    ``(0, 0xffff << 32 | value)``, which ``::ffff:1.2.3.4`` is by itself.
    """
    while start < end and (byte_at(buffer, start) <= 32 or byte_at(buffer, start) == 34 or byte_at(buffer, start) == 39):
        start += 1
    while start < end and (byte_at(buffer, end - 1) <= 32 or byte_at(buffer, end - 1) == 34 or byte_at(buffer, end - 1) == 39):
        end -= 1
    if start >= end or end - start > ADDRESS_BYTES_MAX:
        return False, _ZERO, _ZERO
    value, at = parse_v4(buffer, start, end)
    if value >= 0:
        if at == end or _is_port(buffer, at, end):
            return True, _ZERO, V4_PREFIX | np.uint64(value)
        return False, _ZERO, _ZERO
    if byte_at(buffer, start) != 91:
        return parse_v6_kernel(buffer, start, end)
    close = start + 1
    while close < end and byte_at(buffer, close) != 93:
        close += 1
    if close >= end or (close + 1 < end and not _is_port(buffer, close + 1, end)):
        return False, _ZERO, _ZERO
    return parse_v6_kernel(buffer, start + 1, close)


@part
def parse_peer_kernel(buffer: Any, start: Any, end: Any) -> Any:
    """The same for ``host:port`` as uvicorn writes it: IPv6 without brackets, so the last colon parts the two."""
    colon = end - 1
    while colon > start and byte_at(buffer, colon) != 58:
        colon -= 1
    if colon > start and _is_port(buffer, colon, end):
        return parse_address_kernel(buffer, start, colon)
    return parse_address_kernel(buffer, start, end)


@part
def forwarded_address_kernel(buffer: Any, start: Any, end: Any, depth: Any) -> Any:
    """(ok, high, low) of the ``depth``-th entry from the right (1 is the last) of an X-Forwarded-For list.

    Not ok when there are fewer entries or that one is no address: what stands further left is the client's own word.
    """
    last = end
    for _ in range(depth - 1):
        comma = last - 1
        while comma >= start and byte_at(buffer, comma) != 44:
            comma -= 1
        if comma < start:
            return False, _ZERO, _ZERO
        last = comma
    first = last
    while first > start and byte_at(buffer, first - 1) != 44:
        first -= 1
    return parse_address_kernel(buffer, first, last)


@part
def is_host_name_kernel(buffer: Any, start: Any, end: Any) -> Any:
    """Could ``buffer[start:end]`` be a host name, or ``unix:``? Then it is an event without address and not garbage."""
    if end - start >= 5 and byte_at(buffer, start) == 117 and byte_at(buffer, start + 4) == 58:
        return byte_at(buffer, start + 1) == 110 and byte_at(buffer, start + 2) == 105 and byte_at(buffer, start + 3) == 120
    if start >= end or end - start > 255:
        return False
    letters = False  # of the last label: a name never ends in a label of digits only
    for at in range(start, end):
        byte = byte_at(buffer, at)
        lower = byte | 0x20
        if byte == 46:
            letters = letters and at == end - 1
        elif (97 <= lower <= 122 and byte != 64) or byte == 95 or byte == 45:
            letters = True
        elif byte < 48 or byte > 57:
            return False
    return letters
