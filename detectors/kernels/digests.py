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
_ZERO, _ONE, _S3 = np.uint64(0), np.uint64(1), np.uint64(3)
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
def _cut_word(data: Any, at: Any, end: Any) -> Any:
    """The word at ``at``, zeros from ``end`` on."""
    if at >= end:
        return _ZERO
    return word_at(data, at) & ((_ONE << (np.uint64(end - at) << _S3)) - _ONE)


@inlined
def _absorb(v0: Any, v1: Any, v2: Any, v3: Any, word: Any) -> Any:
    v0, v1, v2, v3 = _round(v0, v1, v2, v3 ^ word)
    return v0 ^ word, v1, v2, v3


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
        low, high, word = _ZERO, _ZERO, 2
        while block_end - at >= 16:
            low, high = _add_product(low, high, word_at(data, at) + key[word], word_at(data, at + 8) + key[word + 1])
            at += 16
            word += 2
        if at < block_end:
            first = word_at(data, at) if block_end - at >= 8 else _cut_word(data, at, block_end)
            second = _cut_word(data, at + 8, block_end)
            low, high = _add_product(low, high, first + key[word], second + key[word + 1])
            at = block_end
        v0, v1, v2, v3 = _absorb(v0, v1, v2, v3, low)
        v0, v1, v2, v3 = _absorb(v0, v1, v2, v3, high)
    v2 ^= _FF
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3


@entry
def digest_records_kernel(key: Any, data: Any, starts: Any, ends: Any, offsets: Any, times_ms: Any, out: Any) -> None:
    """Add to ``out[0]`` (u64[1]) the digests of records of ``data`` (u8[]); ``starts`` … ``times_ms`` are i64[n]."""
    total = _ZERO
    for k in range(len(starts)):
        total += digest_record(key, data, starts[k], ends[k], offsets[k], times_ms[k])
    out[0] += total


@entry
def digest_lines_kernel(key: Any, data: Any, start: Any, end: Any, base: Any, out: Any) -> None:
    """Add to ``out[0]`` the digests of the lines of ``data[start:end]``, with their newlines; an offset is ``base`` more than
    where its line lies in ``data``, and there are no times."""
    total, at = _ZERO, start
    while at < end:
        stop = min(find_newline(data, at, end) + 1, end)
        total += digest_record(key, data, at, stop, base + at, 0)
        at = stop
    out[0] += total
