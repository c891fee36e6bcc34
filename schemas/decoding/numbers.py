"""Decimal numbers as integers: no float is ever made, so 2.417 s is 2417 ms and not 2416.

A number is a mantissa and a power of ten; `scale_kernel` brings it to the unit that is wanted and cuts what is smaller.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from schemas.compiled import part
from schemas.decoding.machine import byte_at, digit_run, digits_value, word_at

NUMBER_MAX = 2**53
"""Larger values are refused: they would not survive a JSON reader that uses doubles, and nothing honest is that large."""
BAD, NEGATIVE, HUGE = -1, -2, -3
"""What `scale_kernel` answers instead of a value."""
_MANTISSA_MAX = 10**17
"""A mantissa takes 18 digits; more cannot change a value that is cut to an integer below 2**63 by more than its last digit."""
_EXPONENT_MAX = 9999
POWERS = np.array([10**power for power in range(19)], np.int64)


@part
def parse_decimal_kernel(buffer: Any, start: Any, end: Any) -> Any:
    """(ok, mantissa, exponent, negative) of ``[+-]digits[.digits][e[+-]digits]`` in ``buffer[start:end]`` (u8[]).

    ``mantissa`` is i64 >= 0 with at most 18 digits; digits past those are cut. NaN, infinities and words are not ok.
    """
    at = start
    negative = False
    if at < end and (byte_at(buffer, at) == 45 or byte_at(buffer, at) == 43):
        negative = byte_at(buffer, at) == 45
        at += 1
    mantissa = np.int64(0)
    exponent = np.int64(0)
    digits = 0
    point = False
    while at < end:
        digit = byte_at(buffer, at) - 48
        if 0 <= digit <= 9:
            digits += 1
            if mantissa < _MANTISSA_MAX:
                mantissa = mantissa * 10 + digit
                exponent -= 1 if point else 0
            elif not point:
                exponent += 1
        elif digit == -2 and not point:
            point = True
        else:
            break
        at += 1
    if digits == 0:
        return False, mantissa, exponent, negative
    if at < end:
        byte = byte_at(buffer, at) | 0x20
        if byte != 101:
            return False, mantissa, exponent, negative
        at += 1
        down = False
        if at < end and (byte_at(buffer, at) == 45 or byte_at(buffer, at) == 43):
            down = byte_at(buffer, at) == 45
            at += 1
        if at >= end:
            return False, mantissa, exponent, negative
        power: Any = np.int64(0)
        while at < end:
            digit = byte_at(buffer, at) - 48
            if digit < 0 or digit > 9:
                return False, mantissa, exponent, negative
            power = min(power * 10 + digit, _EXPONENT_MAX)
            at += 1
        exponent += -power if down else power
    return True, mantissa, exponent, negative


@part
def scale_kernel(mantissa: Any, exponent: Any, shift: Any, limit: Any) -> Any:
    """``floor(mantissa * 10 ** (exponent + shift))`` as i64, or `HUGE` when that is more than ``limit`` (at most 2**63 - 1)."""
    power = exponent + shift
    if power == 0:
        return mantissa if mantissa <= limit else np.int64(HUGE)
    if mantissa == 0:
        return np.int64(0)
    if power >= 0:
        if power > 18 or mantissa > limit // POWERS[power]:
            return np.int64(HUGE)
        return mantissa * POWERS[power]
    if power < -18:
        return np.int64(0)
    value = mantissa // POWERS[-power]
    return value if value <= limit else np.int64(HUGE)


@part
def parse_number_kernel(buffer: Any, start: Any, end: Any, shift: Any) -> Any:
    """i64 value of ``buffer[start:end]`` times ``10 ** shift``, cut; else `BAD`, `NEGATIVE` or `HUGE` (over `NUMBER_MAX`)."""
    length = end - start
    word = word_at(buffer, start)
    run = digit_run(word)
    if 0 < length <= run and shift == 0:
        return digits_value(word, length)
    if 0 < run <= length - 2 and length - 1 - run <= 8 and byte_at(buffer, start + run) == 46:
        # Digits, a point, digits: 0.012 s.
        behind = length - 1 - run
        fraction = word_at(buffer, start + run + 1)
        if digit_run(fraction) >= behind:
            mantissa = digits_value(word, run) * POWERS[behind] + digits_value(fraction, behind)
            return scale_kernel(mantissa, -behind, shift, np.int64(NUMBER_MAX))
    ok, mantissa, exponent, negative = parse_decimal_kernel(buffer, start, end)
    if not ok:
        return np.int64(BAD)
    if negative and mantissa != 0:
        return np.int64(NEGATIVE)
    return scale_kernel(mantissa, exponent, shift, np.int64(NUMBER_MAX))
