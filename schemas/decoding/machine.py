"""Bytes taken 8 and 32 at a time: loads and byte searches that numba has no words for.

The loads do not check bounds: whoever holds a buffer keeps `SLACK` bytes behind the last one it scans, and every search
below cuts its answer at ``end``. With NUMBA_BOUNDSCHECK=1 each load first touches its last byte through a checked index,
so that a fuzzer finds a read past the buffer. Words are little-endian; big-endian machines are refused at import.
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

from schemas.compiled import inlined, kernel

if sys.byteorder != "little":  # pragma: no cover
    raise ImportError("expected a little-endian machine, got a big-endian one")

SLACK = 64
"""Bytes that must follow whatever is scanned: two loads of 32."""
CHECKED = os.environ.get("NUMBA_BOUNDSCHECK", "0") == "1"

_WIDTH = 32
_VECTOR = ir.VectorType(ir.IntType(8), _WIDTH)
QUOTE, BACKSLASH, NEWLINE, SPACE, COMMA = 34, 92, 10, 32, 44


def _intrinsic(function: Callable[..., Any]) -> Any:
    """numba's, without its types: they describe the generator, and not the function that kernels call."""
    return cast(Any, intrinsic)(function)


def _pointer(context: Any, builder: Any, signature: Any, arguments: Any, array: int, index: int) -> Any:
    view = context.make_array(signature.args[array])(context, builder, arguments[array])
    return builder.gep(view.data, [arguments[index]])


def _vector(builder: Any, pointer: Any) -> Any:
    return builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()), align=1)


def _splat(byte: int) -> Any:
    return ir.Constant(_VECTOR, [byte] * _WIDTH)


def _equal(builder: Any, vector: Any, byte: int) -> Any:
    return builder.icmp_unsigned("==", vector, _splat(byte))


def _mask(builder: Any, hits: Any) -> Any:
    return builder.zext(builder.bitcast(hits, ir.IntType(_WIDTH)), ir.IntType(64))


def _mask_intrinsic(test: Callable[[Any, Any], Any]) -> Any:
    """An intrinsic (buffer, at) -> i64 whose bit i says whether byte ``at + i`` passes the test."""

    @_intrinsic
    def mask(typing_context: Any, buffer: Any, at: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vector = _vector(builder, _pointer(context, builder, signature, arguments, 0, 1))
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
    close = _equal(builder, builder.or_(vector, _splat(0x20)), 0x7D)
    blank = builder.icmp_unsigned("<=", vector, _splat(SPACE))
    return builder.or_(builder.or_(close, blank), _equal(builder, vector, COMMA))


def _is_structure(builder: Any, vector: Any) -> Any:
    lower = builder.or_(vector, _splat(0x20))
    brackets = builder.or_(_equal(builder, lower, 0x7B), _equal(builder, lower, 0x7D))
    return builder.or_(brackets, _equal(builder, vector, QUOTE))


def _is_newline(builder: Any, vector: Any) -> Any:
    return _equal(builder, vector, NEWLINE)


_newline_mask = _mask_intrinsic(_is_newline)
_quote_mask = _mask_intrinsic(_is_quote)
_line_end_mask = _mask_intrinsic(_is_line_end)
_space_mask = _mask_intrinsic(_is_space)
_raw_quote_mask = _mask_intrinsic(_is_raw_quote)
_zero_mask = _mask_intrinsic(_is_zero)
_token_end_mask = _mask_intrinsic(_is_token_end)
_structure_mask = _mask_intrinsic(_is_structure)


@_intrinsic
def _load_u64(typing_context: Any, buffer: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature, arguments, 0, 1)
        return builder.load(builder.bitcast(pointer, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(buffer, types.int64), generate


@_intrinsic
def _load_u8(typing_context: Any, buffer: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.zext(builder.load(_pointer(context, builder, signature, arguments, 0, 1)), ir.IntType(64))

    return types.int64(buffer, types.int64), generate


@_intrinsic
def _masked_equal(typing_context: Any, buffer: Any, at: Any, keys: Any, key: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        words = ir.VectorType(ir.IntType(64), 4)
        text = _vector(builder, _pointer(context, builder, signature, arguments, 0, 1))
        pointer = _pointer(context, builder, signature, arguments, 2, 3)
        wanted = _vector(builder, pointer)
        mask = _vector(builder, builder.gep(pointer, [ir.Constant(ir.IntType(64), _WIDTH)]))
        difference = builder.bitcast(builder.xor(builder.and_(text, mask), wanted), words)
        unequal = builder.icmp_unsigned("!=", difference, ir.Constant(words, [0] * 4))
        return builder.icmp_unsigned("==", builder.bitcast(unequal, ir.IntType(4)), ir.Constant(ir.IntType(4), 0))

    return types.boolean(buffer, types.int64, keys, types.int64), generate


@_intrinsic
def _trailing_zeros(typing_context: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.int64), generate


@inlined
def byte_at(buffer: Any, at: Any) -> Any:
    """i64: the byte at ``at``, without a check."""
    if CHECKED:
        return np.int64(buffer[at])
    return _load_u8(buffer, at)


@inlined
def word_at(buffer: Any, at: Any) -> Any:
    """u64: the eight bytes from ``at``, the first one lowest."""
    if CHECKED:
        _touch(buffer, at, 8)
    return _load_u64(buffer, at)


@kernel
def _touch(buffer: Any, at: Any, width: Any) -> None:
    if at < 0 or at + width > len(buffer):
        raise IndexError("a load past the buffer")


@inlined
def equals_masked(buffer: Any, at: Any, keys: Any, key: Any) -> Any:
    """Do the 32 bytes from ``at``, under the mask at ``keys[key + 32:key + 64]``, equal ``keys[key:key + 32]``?"""
    if CHECKED:
        _touch(buffer, at, 32)
        _touch(keys, key, 64)
    return _masked_equal(buffer, at, keys, key)


def _search(mask_of: Any) -> Any:
    """A search (buffer, at, end) -> position of the first byte that passes, or ``end``."""

    @inlined
    def search(buffer: Any, at: Any, end: Any) -> Any:
        while at < end:
            if CHECKED:
                _touch(buffer, at, 32)
            mask = mask_of(buffer, at)
            if mask != 0:
                hit = at + _trailing_zeros(mask)
                return hit if hit < end else end
            at += 32
        return end

    return search


find_quote = _search(_quote_mask)
"""The next quote or backslash."""
find_raw_quote = _search(_raw_quote_mask)
"""The next quote."""
find_line_end = _search(_line_end_mask)
"""The next newline or NUL."""
find_newline = _search(_newline_mask)
find_space = _search(_space_mask)
find_zero = _search(_zero_mask)
find_token_end = _search(_token_end_mask)
"""The next comma, closing bracket, blank or control character."""
find_structure = _search(_structure_mask)
"""The next quote, bracket or brace."""
