"""Bytes taken 8 to 64 at a time: loads and byte searches that numba has no words for.

The loads do not check bounds: whoever holds a buffer keeps `SLACK` bytes behind the last one it scans, and every search
below cuts its answer at ``end``. With NUMBA_BOUNDSCHECK=1 each load first looks where it begins and ends, so that a fuzzer
finds a read past the buffer. Words are little-endian; big-endian machines are refused at import.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from schemas.compiled import inlined, part

if sys.byteorder != "little":  # pragma: no cover
    raise ImportError("expected a little-endian machine, got a big-endian one")

SLACK = 64
"""Bytes that must follow whatever is scanned: one step of a search."""
CHECKED = os.environ.get("NUMBA_BOUNDSCHECK", "0") == "1"

_WIDTH = 32
_STEP = 64
"""Bytes that a search looks at together: most fields end within one step, so that its branch is guessed right."""
QUOTE, BACKSLASH, NEWLINE, SPACE, COMMA = 34, 92, 10, 32, 44


def _intrinsic(function: Callable[..., Any]) -> Any:
    """numba's, without its types: they describe the generator, and not the function that kernels call."""
    return cast(Any, intrinsic)(function)


def _pointer(context: Any, builder: Any, signature: Any, arguments: Any, array: int, index: int) -> Any:
    position = context.data_model_manager[signature.args[array]].get_field_position("data")
    return builder.gep(builder.extract_value(arguments[array], position), [arguments[index]])


def _vector(builder: Any, pointer: Any, width: int) -> Any:
    return builder.load(builder.bitcast(pointer, ir.VectorType(ir.IntType(8), width).as_pointer()), align=1)


def _splat(vector: Any, byte: int) -> Any:
    return ir.Constant(vector.type, [byte] * vector.type.count)


def _equal(builder: Any, vector: Any, byte: int) -> Any:
    return builder.icmp_unsigned("==", vector, _splat(vector, byte))


def _mask(builder: Any, hits: Any) -> Any:
    mask = builder.bitcast(hits, ir.IntType(hits.type.count))
    return mask if hits.type.count == 64 else builder.zext(mask, ir.IntType(64))


def _mask_intrinsic(test: Callable[[Any, Any], Any], width: int = _STEP) -> Any:
    """An intrinsic (buffer, at) -> i64 whose bit i says whether byte ``at + i`` passes the test."""

    @_intrinsic
    def mask(typing_context: Any, buffer: Any, at: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vector = _vector(builder, _pointer(context, builder, signature, arguments, 0, 1), width)
            return _mask(builder, test(builder, vector))

        return types.int64(buffer, types.int64), generate

    return mask


def _is_quote(builder: Any, vector: Any) -> Any:
    return builder.or_(_equal(builder, vector, QUOTE), _equal(builder, vector, BACKSLASH))


def _is_line_end(builder: Any, vector: Any) -> Any:
    return builder.or_(_equal(builder, vector, NEWLINE), _equal(builder, vector, 0))


def _is_space(builder: Any, vector: Any) -> Any:
    return _equal(builder, vector, SPACE)


def _is_raw_quote(builder: Any, vector: Any) -> Any:
    return _equal(builder, vector, QUOTE)


def _is_zero(builder: Any, vector: Any) -> Any:
    return _equal(builder, vector, 0)


def _is_token_end(builder: Any, vector: Any) -> Any:
    # } and ] differ in one bit, which is set before the comparison.
    close = _equal(builder, builder.or_(vector, _splat(vector, 0x20)), 0x7D)
    blank = builder.icmp_unsigned("<=", vector, _splat(vector, SPACE))
    return builder.or_(builder.or_(close, blank), _equal(builder, vector, COMMA))


def _is_structure(builder: Any, vector: Any) -> Any:
    lower = builder.or_(vector, _splat(vector, 0x20))
    brackets = builder.or_(_equal(builder, lower, 0x7B), _equal(builder, lower, 0x7D))
    return builder.or_(brackets, _equal(builder, vector, QUOTE))


def _is_newline(builder: Any, vector: Any) -> Any:
    return _equal(builder, vector, NEWLINE)


def _is_no_method(builder: Any, vector: Any) -> Any:
    beyond = builder.icmp_unsigned(">", builder.sub(vector, _splat(vector, 65)), _splat(vector, 25))
    mark = builder.or_(_equal(builder, vector, 45), _equal(builder, vector, 95))
    return builder.and_(beyond, builder.not_(mark))


_no_method_mask = _mask_intrinsic(_is_no_method, _WIDTH)


@_intrinsic
def _load_u64(typing_context: Any, buffer: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature, arguments, 0, 1)
        return builder.load(builder.bitcast(pointer, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(buffer, types.int64), generate


@_intrinsic
def _load_item(typing_context: Any, items: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_pointer(context, builder, signature, arguments, 0, 1))

    return types.int64(items, types.int64), generate


@_intrinsic
def _load_u8(typing_context: Any, buffer: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.zext(builder.load(_pointer(context, builder, signature, arguments, 0, 1)), ir.IntType(64))

    return types.int64(buffer, types.int64), generate


@_intrinsic
def _masked_equal(typing_context: Any, buffer: Any, at: Any, keys: Any, key: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        words = ir.VectorType(ir.IntType(64), 4)
        text = _vector(builder, _pointer(context, builder, signature, arguments, 0, 1), _WIDTH)
        pointer = _pointer(context, builder, signature, arguments, 2, 3)
        wanted = _vector(builder, pointer, _WIDTH)
        mask = _vector(builder, builder.gep(pointer, [ir.Constant(ir.IntType(64), _WIDTH)]), _WIDTH)
        difference = builder.bitcast(builder.xor(builder.and_(text, mask), wanted), words)
        unequal = builder.icmp_unsigned("!=", difference, ir.Constant(words, [0] * 4))
        return builder.icmp_unsigned("==", builder.bitcast(unequal, ir.IntType(4)), ir.Constant(ir.IntType(4), 0))

    return types.boolean(buffer, types.int64, keys, types.int64), generate


@_intrinsic
def trailing_zeros(typing_context: Any, word: Any) -> Any:
    """i64: how many of the lowest bits of a word are not set; 64 for 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.int64), generate


@part
def _touch(buffer: Any, at: Any, width: Any) -> None:
    if at < 0 or at + width > len(buffer):
        raise IndexError("a load past the buffer")


@inlined
def _checked_byte(buffer: Any, at: Any) -> Any:
    _touch(buffer, at, 1)
    return np.int64(buffer[at])


@inlined
def _checked_item(items: Any, at: Any) -> Any:
    _touch(items, at, 1)
    return items[at]


@inlined
def _checked_word(buffer: Any, at: Any) -> Any:
    _touch(buffer, at, 8)
    return _load_u64(buffer, at)


@inlined
def _checked_equal(buffer: Any, at: Any, keys: Any, key: Any) -> Any:
    _touch(buffer, at, _WIDTH)
    _touch(keys, key, 2 * _WIDTH)
    return _masked_equal(buffer, at, keys, key)


@inlined
def _checked_no_method(buffer: Any, at: Any) -> Any:
    _touch(buffer, at, _WIDTH)
    return _no_method_mask(buffer, at)


byte_at = _checked_byte if CHECKED else _load_u8
"""(buffer, at) -> i64: the byte at ``at``, without a check."""
word_at = _checked_word if CHECKED else _load_u64
"""(buffer, at) -> u64: the eight bytes from ``at``, the first one lowest."""
item = _checked_item if CHECKED else _load_item
"""(items, at) -> i64: ``items[at]`` of an i64[], without a check and without a negative index's meaning."""
equals_masked = _checked_equal if CHECKED else _masked_equal
"""(buffer, at, keys, key): do the 32 bytes from ``at``, under the mask ``keys[key + 32:key + 64]``, equal those at ``key``?"""
no_method_mask = _checked_no_method if CHECKED else _no_method_mask
"""(buffer, at) -> i64 whose bit i says that byte ``at + i`` (of 32) is no capital, ``-`` or ``_``."""


def _checked_search(test: Callable[[Any, Any], Any]) -> Any:
    mask_of = _mask_intrinsic(test)

    @inlined
    def search(buffer: Any, at: Any, end: Any) -> Any:
        while at < end:
            _touch(buffer, at, _STEP)
            mask = mask_of(buffer, at)
            if mask != 0:
                return min(at + trailing_zeros(mask), end)
            at += _STEP
        return end

    return search


def _search(test: Callable[[Any, Any], Any]) -> Any:
    """A search (buffer, at, end) -> position of the first byte that passes, or ``end``.

    Its loop is written in LLVM's words, as numba would compile `_checked_search`: a tenth of the work for the compiler.
    """
    if CHECKED:
        return _checked_search(test)

    @_intrinsic
    def search(typing_context: Any, buffer: Any, at: Any, end: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _, start, end = arguments
            entry = builder.block
            step, look, hit, done = (builder.append_basic_block(name) for name in ("step", "look", "hit", "done"))
            builder.branch(step)
            builder.position_at_end(step)
            at = builder.phi(start.type)
            at.add_incoming(start, entry)
            builder.cbranch(builder.icmp_signed("<", at, end), look, done)
            builder.position_at_end(look)
            pointer = _pointer(context, builder, signature, (arguments[0], at), 0, 1)
            mask = _mask(builder, test(builder, _vector(builder, pointer, _STEP)))
            at.add_incoming(builder.add(at, ir.Constant(at.type, _STEP)), look)
            builder.cbranch(builder.icmp_unsigned("!=", mask, ir.Constant(mask.type, 0)), hit, step)
            builder.position_at_end(hit)
            found = builder.add(at, builder.cttz(mask, ir.Constant(ir.IntType(1), 1)))
            found = builder.select(builder.icmp_signed("<", found, end), found, end)
            builder.branch(done)
            builder.position_at_end(done)
            result = builder.phi(start.type)
            result.add_incoming(end, step)
            result.add_incoming(found, hit)
            return result

        return types.int64(buffer, types.int64, types.int64), generate

    return search


find_quote = _search(_is_quote)
"""The next quote or backslash."""
find_raw_quote = _search(_is_raw_quote)
"""The next quote."""
find_line_end = _search(_is_line_end)
"""The next newline or NUL."""
find_newline = _search(_is_newline)
find_space = _search(_is_space)
find_zero = _search(_is_zero)
find_token_end = _search(_is_token_end)
"""The next comma, closing bracket, blank or control character."""
find_structure = _search(_is_structure)
"""The next quote, bracket or brace."""

_ZEROS, _PAST_NINE = np.uint64(0x3030303030303030), np.uint64(0x7676767676767676)
_HIGH_BITS, _BYTE = np.uint64(0x8080808080808080), np.uint64(0xFF)
_EVEN, _EVEN_PAIRS = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF)
_TENS, _HUNDREDS, _MYRIADS = np.uint64(2561), np.uint64(6553601), np.uint64(42949672960001)
_S8, _S16, _S32 = np.uint64(8), np.uint64(16), np.uint64(32)


@inlined
def digit_run(word: Any) -> Any:
    """i64: how many of the eight bytes of a word, from the first on, are decimal digits."""
    digits = word ^ _ZEROS
    # A byte that is no digit may carry into the next one, but never into one before it.
    return trailing_zeros(np.int64(((digits + _PAST_NINE) | digits) & _HIGH_BITS)) >> 3


@inlined
def digits_value(word: Any, count: Any) -> Any:
    """i64: the decimal number of the first ``count`` (1 to 8) bytes of a word, which are digits."""
    value = (word ^ _ZEROS) << np.uint64(64 - 8 * count)
    value = ((value * _TENS) >> _S8) & _EVEN
    value = ((value * _HUNDREDS) >> _S16) & _EVEN_PAIRS
    return np.int64((value * _MYRIADS) >> _S32)
