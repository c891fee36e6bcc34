"""SipHash-1-3 in numba: the one hash of every table, sketch and partition, keyed with the secret seed.

Keys that meet in a table are chosen by whoever sends the traffic, so the hash has to be a keyed one whose collisions
cannot be computed without the seed. SipHash-1-3 costs 6 to 9 ns for two words on the machine of docs/benchmarks.md;
multiplicative hashes are faster and have collisions that hold for every seed.

Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012; the 128-bit output as in the reference code.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from schemas.compiled import inlined
from schemas.decoding.machine import byte_at, word_at

U64 = np.uint64

_C0 = U64(0x736F6D6570736575)
_C1 = U64(0x646F72616E646F6D)
_C2 = U64(0x6C7967656E657261)
_C3 = U64(0x7465646279746573)
_FF = U64(0xFF)
_EE = U64(0xEE)
_DD = U64(0xDD)
_S13, _S51 = U64(13), U64(51)
_S16, _S48 = U64(16), U64(48)
_S17, _S47 = U64(17), U64(47)
_S21, _S43 = U64(21), U64(43)
_S32 = U64(32)
_S56 = U64(56)


@inlined
def _round(v0: Any, v1: Any, v2: Any, v3: Any) -> Any:
    v0 = v0 + v1
    v1 = ((v1 << _S13) | (v1 >> _S51)) ^ v0
    v0 = (v0 << _S32) | (v0 >> _S32)
    v2 = v2 + v3
    v3 = ((v3 << _S16) | (v3 >> _S48)) ^ v2
    v0 = v0 + v3
    v3 = ((v3 << _S21) | (v3 >> _S43)) ^ v0
    v2 = v2 + v1
    v1 = ((v1 << _S17) | (v1 >> _S47)) ^ v2
    v2 = (v2 << _S32) | (v2 >> _S32)
    return v0, v1, v2, v3


@inlined
def hash_words_kernel(seed_0: Any, seed_1: Any, a: Any, b: Any, c: Any) -> Any:
    """u64 of three u64 words under the seed (two u64 words)."""
    v0 = seed_0 ^ _C0
    v1 = seed_1 ^ _C1
    v2 = seed_0 ^ _C2
    v3 = seed_1 ^ _C3
    v3 ^= a
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0 ^= a
    v3 ^= b
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0 ^= b
    v3 ^= c
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0 ^= c
    v2 ^= _FF
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3


@inlined
def hash_bytes_kernel(seed_0: Any, seed_1: Any, data: Any, start: Any, length: Any) -> Any:
    """(u64, u64) of ``data[start:start + length]`` (u8[]): SipHash-1-3 with its 128-bit output."""
    v0 = seed_0 ^ _C0
    v1 = seed_1 ^ _C1 ^ _EE
    v2 = seed_0 ^ _C2
    v3 = seed_1 ^ _C3
    whole = start + (length & ~7)
    at = start
    while at < whole:
        word = word_at(data, at)
        v3 ^= word
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        v0 ^= word
        at += 8
    word = U64(length) << _S56
    shift = U64(0)
    while at < start + length:
        word |= U64(byte_at(data, at)) << shift
        shift += U64(8)
        at += 1
    v3 ^= word
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0 ^= word
    v2 ^= _EE
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    first = v0 ^ v1 ^ v2 ^ v3
    v1 ^= _DD
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return first, v0 ^ v1 ^ v2 ^ v3
