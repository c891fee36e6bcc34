"""Digests of raw records: what lets anybody who holds the seed say later whether a record still is what was read.

A record's digest is SipHash-1-3, under the secret seed, of its offset, its time, its length, and what NH makes of each KiB of
it: NH adds up products of two words of the text with two words of the key added, modulo 2^128, which costs a third of
SipHash. For two texts that were chosen without knowing the key the chance that NH does not tell them apart is 2^-64. A digest
of many records is the sum of theirs modulo 2^64. So it does not matter where segments were cut: sums add, and the sum up to
one offset less the sum up to another is the digest of what lies between.

It is keyed because it travels: from an unkeyed digest of one record whoever receives a mitigation could try which address,
name or password the record holds. It is a check and no proof against those who know the seed: they can make records that
have a given digest. What other hashes cost is in docs/decisions/2026-11-27-digests-of-evidence.md.

Sources: Black, Halevi, Krawczyk, Krovetz, Rogaway, "UMAC: fast and secure message authentication", 1999 (NH, and hashing
before a pseudorandom function); Bellare, Goldreich, Goldwasser, "Incremental cryptography", 1994 (sums of them).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from detectors.kernels.hashing import _C0, _C1, _C2, _C3, _round
from schemas.compiled import entry, inlined
from schemas.decoding.machine import find_newline, word_at

BLOCK_WORDS = 128
"""NH takes a KiB at a time: two words for SipHash instead of 128."""
DIGEST_KEY_WORDS = 2 + BLOCK_WORDS
"""Two for SipHash, then NH's."""
WORDS = 5
"""Of a record of one block: offset, time, length, and the two of NH."""
HELD_WORDS = 4 * WORDS
"""Records of one block are put through SipHash four at a time."""
_ZERO, _ONE, _S3, _S63 = np.uint64(0), np.uint64(1), np.uint64(3), np.uint64(63)
_FF = np.uint64(0xFF)
_I128 = ir.IntType(128)
_PAIR = cast(Any, types.UniTuple)(types.uint64, 2)


def _intrinsic(function: Callable[..., Any]) -> Any:
    """numba's, without its types: they describe the generator, and not the function that kernels call."""
    return cast(Any, intrinsic)(function)


@_intrinsic
def _add_product(typing_context: Any, low: Any, high: Any, a: Any, b: Any) -> Any:
    """(u64, u64): the 128-bit number (low, high) plus the product of two words."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        low, high, a, b = (builder.zext(word, _I128) for word in arguments)
        by = ir.Constant(_I128, 64)
        total = builder.add(builder.or_(low, builder.shl(high, by)), builder.mul(a, b))
        words = [builder.trunc(part, ir.IntType(64)) for part in (total, builder.lshr(total, by))]
        return context.make_tuple(builder, signature.return_type, words)

    return _PAIR(types.uint64, types.uint64, types.uint64, types.uint64), generate


@inlined
def _low_bytes(count: Any) -> Any:
    """u64 with the bits of the ``count`` < 16 lowest bytes set; none of fewer than one."""
    some = (_ONE << (np.uint64(max(count, 0)) << _S3 & _S63)) - _ONE
    return ~_ZERO if count >= 8 else some


@inlined
def _absorb(v0: Any, v1: Any, v2: Any, v3: Any, word: Any) -> Any:
    v0, v1, v2, v3 = _round(v0, v1, v2, v3 ^ word)
    return v0 ^ word, v1, v2, v3


@inlined
def _finish(v0: Any, v1: Any, v2: Any, v3: Any) -> Any:
    v2 ^= _FF
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3


@_intrinsic
def _finish_four(typing_context: Any, key: Any, words: Any) -> Any:
    """u64: the sum of SipHash-1-3 of four records of five words each, side by side in vectors: rounds wait for each other,
    those of four records do not.

    ``words`` is u64[5 * 4]: the first word of each, the second of each, and so on.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lane, four = ir.IntType(64), ir.VectorType(ir.IntType(64), 4)

        def spread(value: Any) -> Any:
            one = builder.insert_element(ir.Constant(four, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), 4), [0] * 4)
            return builder.shuffle_vector(one, ir.Constant(four, ir.Undefined), zeros)

        def constant(number: Any) -> Any:
            return ir.Constant(four, [int(number)] * 4)

        def turned(value: Any, by: int) -> Any:
            return builder.or_(builder.shl(value, constant(by)), builder.lshr(value, constant(64 - by)))

        def sip_round(v0: Any, v1: Any, v2: Any, v3: Any) -> Any:
            v0, v2 = builder.add(v0, v1), builder.add(v2, v3)
            v1, v3 = builder.xor(turned(v1, 13), v0), builder.xor(turned(v3, 16), v2)
            v0, v2 = builder.add(turned(v0, 32), v3), builder.add(v2, v1)
            v3, v1 = builder.xor(turned(v3, 21), v0), builder.xor(turned(v1, 17), v2)
            return v0, v1, turned(v2, 32), v3

        keys, data = (context.make_array(signature.args[k])(context, builder, arguments[k]).data for k in (0, 1))
        seeds = [spread(builder.load(builder.gep(keys, [ir.Constant(lane, k)]))) for k in (0, 1)]
        v = [builder.xor(seeds[k & 1], constant(start)) for k, start in enumerate((_C0, _C1, _C2, _C3))]
        for k in range(WORDS):
            pointer = builder.bitcast(builder.gep(data, [ir.Constant(lane, 4 * k)]), four.as_pointer())
            word = builder.load(pointer, align=8)
            v[3] = builder.xor(v[3], word)
            v = list(sip_round(*v))
            v[0] = builder.xor(v[0], word)
        v[2] = builder.xor(v[2], constant(_FF))
        for _ in range(3):
            v = list(sip_round(*v))
        found = builder.xor(builder.xor(v[0], v[1]), builder.xor(v[2], v[3]))
        lanes = [builder.extract_element(found, ir.Constant(ir.IntType(32), k)) for k in range(4)]
        return builder.add(builder.add(lanes[0], lanes[1]), builder.add(lanes[2], lanes[3]))

    return types.uint64(key, words), generate


@inlined
def _sum_block(key: Any, data: Any, at: Any, end: Any) -> Any:
    """(u64, u64): NH of a block of at most `BLOCK_WORDS` words."""
    low, high, word = _ZERO, _ZERO, 2
    while end - at >= 16:
        low, high = _add_product(low, high, word_at(data, at) + key[word], word_at(data, at + 8) + key[word + 1])
        at += 16
        word += 2
    if at < end:  # what is chosen below is chosen without a branch: half of all guesses would be wrong
        left = end - at
        first = word_at(data, at) & _low_bytes(left)
        second = word_at(data, at + 8 if left > 8 else at) & _low_bytes(left - 8)
        low, high = _add_product(low, high, first + key[word], second + key[word + 1])
    return low, high


@inlined
def digest_record(key: Any, data: Any, start: Any, end: Any, offset: Any, time_ms: Any) -> Any:
    """u64 of the record ``data[start:end]`` (u8[]; 8 bytes of room behind it) at ``offset``."""
    v0, v1, v2, v3 = key[0] ^ _C0, key[1] ^ _C1, key[0] ^ _C2, key[1] ^ _C3
    v0, v1, v2, v3 = _absorb(v0, v1, v2, v3, np.uint64(offset))
    v0, v1, v2, v3 = _absorb(v0, v1, v2, v3, np.uint64(time_ms))
    v0, v1, v2, v3 = _absorb(v0, v1, v2, v3, np.uint64(end - start))
    at = start
    while at < end:
        block_end = min(at + 8 * BLOCK_WORDS, end)
        low, high = _sum_block(key, data, at, block_end)
        at = block_end
        v0, v1, v2, v3 = _absorb(v0, v1, v2, v3, low)
        v0, v1, v2, v3 = _absorb(v0, v1, v2, v3, high)
    return _finish(v0, v1, v2, v3)


@inlined
def _hold(words: Any, held: Any, key: Any, data: Any, start: Any, end: Any, offset: Any, time_ms: Any) -> None:
    """Write the words of a record of one block down as number ``held`` of four."""
    words[held], words[held + 4], words[held + 8] = np.uint64(offset), np.uint64(time_ms), np.uint64(end - start)
    words[held + 12], words[held + 16] = _sum_block(key, data, start, end)


@inlined
def _finish_held(words: Any, held: Any, key: Any) -> Any:
    """u64: the sum of the digests of the ``held`` < 4 records that are left."""
    total = _ZERO
    for k in range(held):
        v0, v1, v2, v3 = key[0] ^ _C0, key[1] ^ _C1, key[0] ^ _C2, key[1] ^ _C3
        for word in range(WORDS):
            v0, v1, v2, v3 = _absorb(v0, v1, v2, v3, words[4 * word + k])
        total += _finish(v0, v1, v2, v3)
    return total


@entry
def digest_records_kernel(
    key: Any, data: Any, starts: Any, ends: Any, offsets: Any, times_ms: Any, words: Any, out: Any
) -> None:
    """Add to ``out[0]`` (u64[1]) the digests of records of ``data`` (u8[]); ``starts`` … ``times_ms`` are i64[n].

    ``words`` is u64[HELD_WORDS], scratch.
    """
    total, held = _ZERO, 0
    for k in range(len(starts)):
        if 0 < ends[k] - starts[k] <= 8 * BLOCK_WORDS:
            _hold(words, held, key, data, starts[k], ends[k], offsets[k], times_ms[k])
            held += 1
            if held == 4:
                total += _finish_four(key, words)
                held = 0
        else:
            total += digest_record(key, data, starts[k], ends[k], offsets[k], times_ms[k])
    out[0] += total + _finish_held(words, held, key)


@entry
def digest_lines_kernel(key: Any, data: Any, start: Any, end: Any, base: Any, words: Any, out: Any) -> None:
    """Add to ``out[0]`` the digests of the lines of ``data[start:end]``, with their newlines; an offset is ``base`` more than
    where its line lies in ``data``, and there are no times. ``words`` as above."""
    total, at, held = _ZERO, start, 0
    while at < end:
        stop = min(find_newline(data, at, end) + 1, end)
        if stop - at <= 8 * BLOCK_WORDS:
            _hold(words, held, key, data, at, stop, base + at, 0)
            held += 1
            if held == 4:
                total += _finish_four(key, words)
                held = 0
        else:
            total += digest_record(key, data, at, stop, base + at, 0)
        at = stop
    out[0] += total + _finish_held(words, held, key)
