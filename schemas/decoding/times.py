"""Clock readings to Unix milliseconds: ISO 8601, the common log's form, and Unix time in s, ms, µs or ns.

Neighbouring events share their date, so the days since 1970 are remembered under the bytes of the date as it was written.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from schemas.compiled import inlined, part
from schemas.decoding.layout import (
    CLF_A,
    CLF_B,
    CLF_MS,
    CLF_TEXT,
    CLF_TEXT_MS,
    CLF_ZONE,
    ISO_A,
    ISO_B,
    ISO_MS,
    ISO_TEXT,
    ISO_TEXT_MS,
)
from schemas.decoding.machine import byte_at, digit_run, digits_value, word_at
from schemas.decoding.numbers import parse_decimal_kernel, scale_kernel

BAD_TIME_MS = -1
"""The answer for what is no time, or none of 1970..2200."""
TIME_MS_MAX = 7_258_118_400_000
"""2200-01-01T00:00:00Z."""
DAY_MS = 86_400_000
_INT64_MAX = 2**63 - 1
_SECONDS_BELOW, _MILLISECONDS_BELOW, _MICROSECONDS_BELOW = 10**11, 10**14, 10**17
"""Unix times are told apart by size: up to the year 2200 the four units do not overlap after 3 March 1973."""
_CLOCK = np.uint64(0x30303A30303A3030)  # 00:00:00
_COLONS = np.uint64(0x0000FF0000FF0000)
_HIGH = np.uint64(0xF0F0F0F0F0F0F0F0)
_SIX = np.uint64(0x0606060606060606)
_SIX_BYTES, _UTC = np.uint64(0xFFFFFFFFFFFF), np.uint64(int.from_bytes(b"+00:00", "little"))
_MONTH_DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], np.int64)
_MONTHS = np.array(
    [int.from_bytes("janfebmaraprmayjunjulaugsepoctnovdec"[at : at + 3].encode(), "big") for at in range(0, 36, 3)], np.int64
)


@part
def days_kernel(year: Any, month: Any, day: Any) -> Any:
    """Days since 1970-01-01 of a Gregorian date, or -1 when there is no such day from 1970 to 2200."""
    if year < 1970 or year > 2200 or month < 1 or month > 12 or day < 1:
        return np.int64(-1)
    leap = (year % 4 == 0 and year % 100 != 0) or year % 400 == 0
    longest = _MONTH_DAYS[month - 1] + (1 if leap and month == 2 else 0)
    if day > longest:
        return np.int64(-1)
    # Years begin in March here, so that the leap day is the last of its year.
    shifted = year - (1 if month <= 2 else 0)
    in_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return np.int64(365 * shifted + shifted // 4 - shifted // 100 + shifted // 400 + in_year - 719468)


@part
def clock_ms(buffer: Any, at: Any) -> Any:
    """Milliseconds into the day of ``HH:MM:SS`` at ``at``; -1 when it is none. A leap second counts as the next second."""
    word = word_at(buffer, at) ^ _CLOCK
    if word & _COLONS != 0 or (word | (word + _SIX)) & _HIGH != 0:
        return np.int64(-1)
    bits = np.int64(word)
    hour = (bits & 15) * 10 + ((bits >> 8) & 15)
    minute = ((bits >> 24) & 15) * 10 + ((bits >> 32) & 15)
    second = ((bits >> 48) & 15) * 10 + ((bits >> 56) & 15)
    if hour > 23 or minute > 59 or second > 60:
        return np.int64(-1)
    return ((hour * 60 + minute) * 60 + second) * 1000


@part
def digits_at(buffer: Any, at: Any, count: Any) -> Any:
    """The number of exactly ``count`` digits at ``at``, or -1."""
    value = np.int64(0)
    for index in range(count):
        digit = byte_at(buffer, at + index) - 48
        if digit < 0 or digit > 9:
            return np.int64(-1)
        value = value * 10 + digit
    return value


@part
def zone_kernel(buffer: Any, start: Any, end: Any) -> Any:
    """(ok, offset in ms) of ``Z``, ``+hh``, ``+hhmm``, ``+hh:mm``, with or without a blank before, or nothing (UTC)."""
    at = start
    if at < end and byte_at(buffer, at) == 32:
        at += 1
    length = end - at
    if length == 0:
        return True, np.int64(0)
    sign = byte_at(buffer, at)
    if length == 1:
        return sign | 0x20 == 122, np.int64(0)
    if length == 3 and (sign | 0x20 == 117 or sign | 0x20 == 103):
        # UTC and GMT, as some writers spell it.
        second, third = byte_at(buffer, at + 1) | 0x20, byte_at(buffer, at + 2) | 0x20
        utc = sign | 0x20 == 117 and second == 116 and third == 99
        return utc or (sign | 0x20 == 103 and second == 109 and third == 116), np.int64(0)
    if sign != 43 and sign != 45:
        return False, np.int64(0)
    hours = digits_at(buffer, at + 1, 2)
    minutes = np.int64(0)
    if length == 5:
        minutes = digits_at(buffer, at + 3, 2)
    elif length == 6 and byte_at(buffer, at + 3) == 58:
        minutes = digits_at(buffer, at + 4, 2)
    elif length != 3:
        return False, np.int64(0)
    if hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
        return False, np.int64(0)
    offset = (hours * 60 + minutes) * 60_000
    return True, -offset if sign == 45 else offset


@part
def _clf_day_kernel(buffer: Any, at: Any, state: Any) -> Any:
    """Read ``23/Nov/2026`` at ``at`` and ``+0000`` at ``at + 21`` into the memory of `clf_ms`; False when they are none."""
    name = np.int64(0)
    for index in range(3, 6):
        name = (name << 8) | (byte_at(buffer, at + index) | 0x20)
    month = 0
    for index in range(12):
        if _MONTHS[index] == name:
            month = index + 1
    slashes = byte_at(buffer, at + 2) == 47 and byte_at(buffer, at + 6) == 47
    days = days_kernel(digits_at(buffer, at + 7, 4), month, digits_at(buffer, at, 2))
    ok, offset = zone_kernel(buffer, at + 21, at + 26)
    if days < 0 or not ok or not slashes:
        return False
    state[CLF_A] = np.int64(word_at(buffer, at))
    state[CLF_B] = np.int64(word_at(buffer, at + 3))
    state[CLF_ZONE] = np.int64(word_at(buffer, at + 18) >> np.uint64(16))
    state[CLF_MS] = days * DAY_MS - offset
    return True


@part
def _new_clf_second_kernel(buffer: Any, at: Any, state: Any) -> Any:
    """`clf_ms` without the memory of the last second."""
    zone = np.int64(word_at(buffer, at + 18) >> np.uint64(16))
    if (
        np.int64(word_at(buffer, at)) != state[CLF_A]
        or np.int64(word_at(buffer, at + 3)) != state[CLF_B]
        or zone != state[CLF_ZONE]
    ) and not _clf_day_kernel(buffer, at, state):
        return np.int64(BAD_TIME_MS)
    clock = clock_ms(buffer, at + 12)
    if clock < 0 or byte_at(buffer, at + 11) != 58 or byte_at(buffer, at + 20) != 32:
        return np.int64(BAD_TIME_MS)
    moment = state[CLF_MS] + clock
    return moment if 0 <= moment < TIME_MS_MAX else np.int64(BAD_TIME_MS)


@inlined
def clf_ms(buffer: Any, at: Any, state: Any) -> Any:
    """Unix ms of the 26 bytes ``23/Nov/2026:18:29:55 +0000`` at ``at``, or `BAD_TIME_MS`."""
    first, second = np.int64(word_at(buffer, at)), np.int64(word_at(buffer, at + 8))
    third, last = np.int64(word_at(buffer, at + 16)), np.int64(word_at(buffer, at + 18))
    difference = (first ^ state[CLF_TEXT]) | (second ^ state[CLF_TEXT + 1])
    difference |= (third ^ state[CLF_TEXT + 2]) | (last ^ state[CLF_TEXT + 3])
    if difference == 0:
        return state[CLF_TEXT_MS]
    moment = _new_clf_second_kernel(buffer, at, state)
    if moment >= 0:
        state[CLF_TEXT], state[CLF_TEXT + 1], state[CLF_TEXT + 2], state[CLF_TEXT + 3] = first, second, third, last
        state[CLF_TEXT_MS] = moment
    return moment


@part
def _iso_day_kernel(buffer: Any, at: Any, state: Any) -> Any:
    """Read ``2026-11-23`` at ``at`` into the memory of `iso_kernel`; False when it is none."""
    if byte_at(buffer, at + 4) != 45 or byte_at(buffer, at + 7) != 45:
        return False
    days = days_kernel(digits_at(buffer, at, 4), digits_at(buffer, at + 5, 2), digits_at(buffer, at + 8, 2))
    if days < 0:
        return False
    state[ISO_A] = np.int64(word_at(buffer, at))
    state[ISO_B] = np.int64(word_at(buffer, at + 2))
    state[ISO_MS] = days * DAY_MS
    return True


@part
def _new_iso_second_kernel(buffer: Any, start: Any, state: Any) -> Any:
    """Unix ms of ``2026-11-23T18:29:55`` at ``start`` as if it were UTC, or `BAD_TIME_MS`."""
    if (
        np.int64(word_at(buffer, start)) != state[ISO_A] or np.int64(word_at(buffer, start + 2)) != state[ISO_B]
    ) and not _iso_day_kernel(buffer, start, state):
        return np.int64(BAD_TIME_MS)
    between = byte_at(buffer, start + 10)
    clock = clock_ms(buffer, start + 11)
    if clock < 0 or (between | 0x20 != 116 and between != 32):
        return np.int64(BAD_TIME_MS)
    return state[ISO_MS] + clock


@part
def _fraction_kernel(buffer: Any, at: Any, end: Any) -> Any:
    """(milliseconds, position after them) of the digits behind a decimal point; -1 when they are none or more than 12."""
    weight = np.int64(100)
    fraction = np.int64(0)
    first = at
    while at < end:
        digit = byte_at(buffer, at) - 48
        if digit < 0 or digit > 9:
            break
        fraction += digit * weight
        weight //= 10
        at += 1
    return (fraction if 0 < at - first <= 12 else np.int64(BAD_TIME_MS)), at


@part
def iso_kernel(buffer: Any, start: Any, end: Any, state: Any) -> Any:
    """Unix ms of ``2026-11-23T18:29:55[.fraction][zone]`` (the T may be a blank), or `BAD_TIME_MS`."""
    if end - start < 19:
        return np.int64(BAD_TIME_MS)
    first, second, third = word_at(buffer, start), word_at(buffer, start + 8), word_at(buffer, start + 11)
    difference = np.int64(first) ^ state[ISO_TEXT]
    difference |= (np.int64(second) ^ state[ISO_TEXT + 1]) | (np.int64(third) ^ state[ISO_TEXT + 2])
    if difference == 0:
        moment = state[ISO_TEXT_MS]
    else:
        moment = _new_iso_second_kernel(buffer, start, state)
        if moment < 0:
            return np.int64(BAD_TIME_MS)
        state[ISO_TEXT], state[ISO_TEXT + 1], state[ISO_TEXT + 2] = np.int64(first), np.int64(second), np.int64(third)
        state[ISO_TEXT_MS] = moment
    at = start + 19
    if at < end and (byte_at(buffer, at) == 46 or byte_at(buffer, at) == 44):
        at += 1
        word = word_at(buffer, at)
        digits = digit_run(word)
        if digits == 3 and at + 3 <= end:
            moment += digits_value(word, 3)
            at += 3
        else:
            fraction, at = _fraction_kernel(buffer, at, end)
            if fraction < 0:
                return np.int64(BAD_TIME_MS)
            moment += fraction
    offset = np.int64(0)
    utc = end - at == 6 and word_at(buffer, at) & _SIX_BYTES == _UTC
    if not utc and (end - at != 1 or byte_at(buffer, at) != 90):
        ok, offset = zone_kernel(buffer, at, end)
        if not ok:
            return np.int64(BAD_TIME_MS)
    moment -= offset
    return moment if 0 <= moment < TIME_MS_MAX else np.int64(BAD_TIME_MS)


@part
def unix_kernel(buffer: Any, start: Any, end: Any) -> Any:
    """Unix ms of a decimal number in s, ms, µs or ns, told apart by size, or `BAD_TIME_MS`."""
    ok, mantissa, exponent, negative = parse_decimal_kernel(buffer, start, end)
    if not ok or (negative and mantissa != 0):
        return np.int64(BAD_TIME_MS)
    whole = scale_kernel(mantissa, exponent, np.int64(0), np.int64(_INT64_MAX))
    if whole < 0:
        return np.int64(BAD_TIME_MS)
    if whole < _SECONDS_BELOW:
        moment = scale_kernel(mantissa, exponent, np.int64(3), np.int64(_INT64_MAX))
    elif whole < _MILLISECONDS_BELOW:
        moment = whole
    elif whole < _MICROSECONDS_BELOW:
        moment = whole // 1000
    else:
        moment = whole // 1_000_000
    return moment if 0 <= moment < TIME_MS_MAX else np.int64(BAD_TIME_MS)


@part
def parse_time_kernel(buffer: Any, start: Any, end: Any, state: Any) -> Any:
    """Unix ms of a time in any form we read, or `BAD_TIME_MS`. ``state`` (i64[]) remembers the last day."""
    if end - start >= 19 and byte_at(buffer, start + 4) == 45:
        return iso_kernel(buffer, start, end, state)
    if end - start >= 20 and byte_at(buffer, start + 2) == 47:
        if end - start == 26:
            return clf_ms(buffer, start, state)
        return _short_clf_kernel(buffer, start, end, state)
    return unix_kernel(buffer, start, end)


@part
def _short_clf_kernel(buffer: Any, start: Any, end: Any, state: Any) -> Any:
    """``23/Nov/2026 18:29:55`` as Python's http.server writes it: a blank or a colon, and no zone."""
    if end - start != 20 or (byte_at(buffer, start + 11) != 32 and byte_at(buffer, start + 11) != 58):
        return np.int64(BAD_TIME_MS)
    name = np.int64(0)
    for index in range(3, 6):
        name = (name << 8) | (byte_at(buffer, start + index) | 0x20)
    month = 0
    for index in range(12):
        if _MONTHS[index] == name:
            month = index + 1
    days = days_kernel(digits_at(buffer, start + 7, 4), month, digits_at(buffer, start, 2))
    clock = clock_ms(buffer, start + 12)
    if days < 0 or clock < 0 or byte_at(buffer, start + 6) != 47:
        return np.int64(BAD_TIME_MS)
    return days * DAY_MS + clock
