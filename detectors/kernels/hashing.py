"""The keyed hashes: of texts into 128-bit keys, and of keys into tables, partitions and sketches.

Keys that meet in a table are chosen by whoever sends the traffic, so both hashes are keyed with the secret seed.

- A text becomes a 128-bit key by SipHash-1-3. That key is the text's identity from then on.
- A key (two words and a dimension) becomes the 64-bit hash of every table by a multiplication with secret 128-bit factors,
  of which the upper half counts. For any two keys that were chosen without knowing the seed, the chance that their
  hashes are equal is 2^-64 over the seeds, and none leaves the process. It costs a third of SipHash. The mixing after it
  loses nothing (it is a bijection) and spreads keys that follow each other.

Sources: Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012, the 128-bit output as in the reference code;
Dietzfelbinger, "Universal hashing and k-wise independent random variables via integer arithmetic without primes", 1996.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.kernels.machine import multiply_add_high
from schemas.compiled import entry, inlined
from schemas.decoding.machine import word_at

U64 = np.uint64
U64Array = npt.NDArray[np.uint64]
HASH_SEED_WORDS = 10
"""Two for SipHash, then four 128-bit factors, low words first."""

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
_S3, _S29, _ONE = U64(3), U64(29), U64(1)
_MIX = U64(0xD6E8FEB86659FD93)


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
def hash_words_kernel(seeds: Any, a: Any, b: Any, dimension: Any) -> Any:
    """u64 of a key (two u64 words) of a dimension (u64), under the seed's multipliers ``seeds[2:10]``."""
    h = multiply_add_high(seeds, a, b, dimension)
    h = (h ^ (h >> _S32)) * _MIX
    return h ^ (h >> _S29)


@inlined
def partition_kernel(h: Any, partitions: Any) -> Any:
    """i64: which of ``partitions`` (u64) judge partitions the hash of a key falls to."""
    return np.int64((h >> _S32) % partitions)


def partitions_of(hashes: U64Array, partitions: int) -> npt.NDArray[np.int64]:
    """i64[n]: the judge partitions of n hashes, as `partition_kernel` computes them."""
    return ((hashes >> _S32) % U64(partitions)).astype(np.int64)


@inlined
def hash_bytes_kernel(seeds: Any, data: Any, start: Any, length: Any) -> Any:
    """(u64, u64) of ``data[start:start + length]`` (u8[]): SipHash-1-3 with its 128-bit output, keyed by ``seeds[:2]``."""
    seed_0, seed_1 = seeds[0], seeds[1]
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
    left = U64(start + length - at)
    word = (U64(length) << _S56) | (word_at(data, at) & ((_ONE << (left << _S3)) - _ONE))
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


@entry
def _hash_keys_kernel(seeds: Any, a: Any, b: Any, dimension: Any, out: Any) -> None:
    for k in range(len(out)):
        out[k] = hash_words_kernel(seeds, a[k], b[k], U64(dimension[k]))


def hash_keys(seeds: U64Array, a: U64Array, b: U64Array, dimension: npt.NDArray[np.uint8]) -> U64Array:
    """u64[n]: the hashes of n keys, as `hash_words_kernel` computes them."""
    out = np.empty(len(a), np.uint64)
    _hash_keys_kernel(seeds, np.ascontiguousarray(a), np.ascontiguousarray(b), np.ascontiguousarray(dimension), out)
    return out
