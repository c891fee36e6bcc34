"""What numba has no words for: 128-bit products, fetching ahead, and eight bytes stored at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from schemas.compiled import inlined
from schemas.decoding.machine import CHECKED, _touch, word_at
from schemas.fields import COMMON, MEASURES, VALUES, Measure

LINE_BYTES, LINE_WORDS = 64, 8
_I64, _I128 = ir.IntType(64), ir.IntType(128)


def allocate_lines(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Zeros that begin at a cache line, so that records of whole lines take no more of them than they must. Memory goes on for
    a line behind them: vectors may be read beyond the end."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.zeros(size + 2 * LINE_BYTES, np.uint8)
    start = -room.ctypes.data % LINE_BYTES
    return room[start : start + size].view(dtype).reshape(shape)


def _intrinsic(function: Callable[..., Any]) -> Any:
    """numba's, without its types: they describe the generator, and not the function that kernels call."""
    return cast(Any, intrinsic)(function)


@_intrinsic
def multiply_add_high(typing_context: Any, seeds: Any, a: Any, b: Any, c: Any) -> Any:
    """u64: the upper half of ``K0 * a + K1 * b + K2 * c + K3`` modulo 2^128; ``seeds[2:10]`` holds the K, low words first."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        words = [builder.load(builder.gep(data, [ir.Constant(_I64, index)])) for index in range(2, 10)]
        factors = [
            builder.or_(builder.zext(low, _I128), builder.shl(builder.zext(high, _I128), ir.Constant(_I128, 64)))
            for low, high in zip(words[::2], words[1::2], strict=True)
        ]
        total = factors[3]
        for factor, word in zip(factors, arguments[1:], strict=False):
            total = builder.add(total, builder.mul(factor, builder.zext(word, _I128)))
        return builder.trunc(builder.lshr(total, ir.Constant(_I128, 64)), _I64)

    return types.uint64(seeds, types.uint64, types.uint64, types.uint64), generate


@_intrinsic
def store_word(typing_context: Any, buffer: Any, at: Any, word: Any) -> Any:
    """Write a u64 to the eight bytes from ``at`` of a u8[], without a check."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), _I64.as_pointer())
        builder.store(arguments[2], pointer, align=1)
        return context.get_dummy_value()

    return types.void(buffer, types.int64, types.uint64), generate


@_intrinsic
def prefetch(typing_context: Any, array: Any, at: Any, byte: Any) -> Any:
    """Begin to bring the cache line with byte ``byte`` of item ``at`` (along the first axis) of an array; no other effect."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        stride = builder.extract_value(view.strides, 0)
        byte_type = ir.IntType(8)
        base = builder.bitcast(view.data, byte_type.as_pointer())
        pointer = builder.gep(base, [builder.add(builder.mul(arguments[1], stride), arguments[2])])
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte_type.as_pointer(), flag, flag, flag])
        function = builder.module.declare_intrinsic("llvm.prefetch", (byte_type.as_pointer(),), kind)
        builder.call(function, [pointer, ir.Constant(flag, 0), ir.Constant(flag, 3), ir.Constant(flag, 1)])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), generate


def _words(context: Any, builder: Any, signature: Any, arguments: Any, array: int, word: int, many: int) -> Any:
    """A pointer to ``many`` words that begin at word ``arguments[word]`` of a contiguous i64 array."""
    data = context.make_array(signature.args[array])(context, builder, arguments[array]).data
    pointer = builder.gep(data, [arguments[word]])
    return builder.bitcast(pointer, ir.VectorType(_I64, many).as_pointer())


def _put_measures(adding: bool) -> Any:
    @_intrinsic
    def put(typing_context: Any, to: Any, at: Any, measures: Any, source: Any, evidence: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            target = _words(context, builder, signature, arguments, 0, 1, COMMON)
            words = builder.load(_words(context, builder, signature, arguments, 2, 3, COMMON), align=8)
            lane = ir.Constant(ir.IntType(32), int(Measure.EVIDENCE))
            words = builder.insert_element(words, arguments[4], lane)
            if adding:
                words = builder.add(builder.load(target, align=8), words)
            builder.store(words, target, align=8)
            return context.get_dummy_value()

        return types.void(to, types.int64, measures, types.int64, types.int64), generate

    return put


def _put_rest(adding: bool) -> Any:
    @_intrinsic
    def put(typing_context: Any, to: Any, at: Any, measures: Any, source: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            many = VALUES - COMMON
            target = _words(context, builder, signature, arguments, 0, 1, many)
            words = builder.load(_words(context, builder, signature, arguments, 2, 3, many), align=8)
            if adding:
                before = builder.load(target, align=8)
                # Measures are added, sets united: the first lanes of the one, the last of the other.
                lanes = [lane if lane < MEASURES - COMMON else many + lane for lane in range(many)]
                choice = ir.Constant(ir.VectorType(ir.IntType(32), many), [ir.Constant(ir.IntType(32), lane) for lane in lanes])
                words = builder.shuffle_vector(builder.add(before, words), builder.or_(before, words), choice)
            builder.store(words, target, align=8)
            return context.get_dummy_value()

        return types.void(to, types.int64, measures, types.int64), generate

    return put


set_measures = _put_measures(adding=False)
"""(to, at, measures, source, evidence): the first `COMMON` measures from word ``source`` on are written to word ``at`` on of
``to``, with ``evidence`` in its place. One vector in and out: words written one by one and read as a vector would wait for
each other."""
add_measures = _put_measures(adding=True)
"""The same, added."""
set_rest = _put_rest(adding=False)
"""(to, at, measures, source): the values behind those, which are one more cache line of a row, and often not wanted."""
add_rest = _put_rest(adding=True)
"""The same: measures are added, sets united."""


LANES = 4
"""Words that the next two work on at once, of which a table says by -1 or 0 whether each is meant. The others are written as
they were, be they of the next record."""


def _meant(context: Any, builder: Any, signature: Any, arguments: Any, words: int, table: int) -> Any:
    """The words of an array, with those that a table does not mean as zeros."""
    held = builder.load(_words(context, builder, signature, arguments, words, words + 1, LANES), align=8)
    return builder.and_(held, builder.load(_words(context, builder, signature, arguments, table, table + 1, LANES), align=8))


@_intrinsic
def add_lanes(
    typing_context: Any, sums: Any, at: Any, values: Any, value_at: Any, table: Any, table_at: Any, least: Any
) -> Any:  # fmt: skip
    """i64: those of `LANES` sums from word ``at`` on, as bits, that are over ``least[table_at]`` and so on once the values from
    word ``value_at`` on have been added to them."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target = _words(context, builder, signature, arguments, 0, 1, LANES)
        total = builder.add(builder.load(target, align=8), _meant(context, builder, signature, arguments, 2, 4))
        builder.store(total, target, align=8)
        bounds = builder.load(_words(context, builder, signature, arguments, 6, 5, LANES), align=8)
        return builder.zext(builder.bitcast(builder.icmp_signed(">", total, bounds), ir.IntType(LANES)), _I64)

    return types.int64(sums, types.int64, values, types.int64, table, types.int64, least), generate


@_intrinsic
def subtract_lanes(typing_context: Any, sums: Any, at: Any, values: Any, value_at: Any, table: Any, table_at: Any) -> Any:
    """Take the values from word ``value_at`` on off `LANES` sums from word ``at`` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target = _words(context, builder, signature, arguments, 0, 1, LANES)
        left = builder.sub(builder.load(target, align=8), _meant(context, builder, signature, arguments, 2, 4))
        builder.store(left, target, align=8)
        return context.get_dummy_value()

    return types.void(sums, types.int64, values, types.int64, table, types.int64), generate


@_intrinsic
def count_bits(typing_context: Any, word: Any) -> Any:
    """i64: how many bits of an i64 are set."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.int64), generate


@_intrinsic
def leading_zeros(typing_context: Any, word: Any) -> Any:
    """i64: how many bits of a u64 are zero before the first that is set."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@_intrinsic
def _differing(typing_context: Any, one: Any, at: Any, other: Any, other_at: Any) -> Any:
    """i64 whose bit i says whether bytes ``one[at + i]`` and ``other[other_at + i]`` differ, for 32 of them."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.IntType(8), 32)
        loaded = []
        for array in (0, 2):
            data = context.make_array(signature.args[array])(context, builder, arguments[array]).data
            pointer = builder.bitcast(builder.gep(data, [arguments[array + 1]]), vector.as_pointer())
            loaded.append(builder.load(pointer, align=1))
        unequal = builder.icmp_unsigned("!=", *loaded)
        return builder.zext(builder.bitcast(unequal, ir.IntType(32)), _I64)

    return types.int64(one, types.int64, other, types.int64), generate


@inlined
def equal_bytes(one: Any, start: Any, other: Any, other_start: Any, length: Any) -> Any:
    """Are two texts of one length equal? 32 bytes at a time: both sides need as many behind them."""
    if CHECKED:
        _touch(one, start, (length + 31) // 32 * 32)
        _touch(other, other_start, (length + 31) // 32 * 32)
    k = np.int64(0)
    while length - k > 32:
        if _differing(one, start + k, other, other_start + k) != 0:
            return False
        k += 32
    return _differing(one, start + k, other, other_start + k) & ((np.int64(1) << (length - k)) - 1) == 0


@inlined
def copy_bytes(to: Any, to_start: Any, buffer: Any, start: Any, length: Any) -> None:
    """Copy a text, eight bytes at a time: both sides need eight bytes of room behind it."""
    k = np.int64(0)
    while k < length:
        if CHECKED:
            to[to_start + k + 7] = to[to_start + k + 7]
        store_word(to, to_start + k, word_at(buffer, start + k))
        k += 8
