"""The fingerprint of an API key that came in the clear: SipHash-2-4 with its 128-bit output, keyed with a secret.

The key itself stays in the chunk it came in. Without the secret nobody can test a guessed key against a fingerprint.

Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012; the 128-bit output as in the reference code.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from schemas.compiled import entry, part
from schemas.decoding.machine import SLACK, byte_at

FINGERPRINT_BYTES = 35
"""``fp:`` and 32 hexadecimal digits."""
U64 = np.uint64
_C0, _C1 = U64(0x736F6D6570736575), U64(0x646F72616E646F6D)
_C2, _C3 = U64(0x6C7967656E657261), U64(0x7465646279746573)
_S13, _S51, _S16, _S48, _S17, _S47 = U64(13), U64(51), U64(16), U64(48), U64(17), U64(47)
_S21, _S43, _S32, _S56 = U64(21), U64(43), U64(32), U64(56)


@part
def _round_kernel(v0: Any, v1: Any, v2: Any, v3: Any) -> Any:
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


@part
def siphash_kernel(seed_0: Any, seed_1: Any, data: Any, start: Any, end: Any) -> Any:
    """(u64, u64): SipHash-2-4-128 of ``data[start:end]`` (u8[]) under two u64 words."""
    v0, v1, v2, v3 = seed_0 ^ _C0, seed_1 ^ _C1 ^ U64(0xEE), seed_0 ^ _C2, seed_1 ^ _C3
    length = end - start
    whole = start + (length & ~7)
    at = start
    while at <= whole:
        word = U64(0)
        if at < whole:
            for index in range(8):
                word |= U64(byte_at(data, at + index)) << U64(8 * index)
        else:
            word = U64(length & 0xFF) << _S56
            for index in range(end - whole):
                word |= U64(byte_at(data, at + index)) << U64(8 * index)
        v3 ^= word
        for _ in range(2):
            v0, v1, v2, v3 = _round_kernel(v0, v1, v2, v3)
        v0 ^= word
        at += 8
    v2 ^= U64(0xEE)
    for _ in range(4):
        v0, v1, v2, v3 = _round_kernel(v0, v1, v2, v3)
    first = v0 ^ v1 ^ v2 ^ v3
    v1 ^= U64(0xDD)
    for _ in range(4):
        v0, v1, v2, v3 = _round_kernel(v0, v1, v2, v3)
    return first, v0 ^ v1 ^ v2 ^ v3


@part
def write_fingerprint_kernel(seed_0: Any, seed_1: Any, buffer: Any, start: Any, end: Any, out: Any) -> None:
    """Write `FINGERPRINT_BYTES` bytes at ``buffer[out:]``: ``fp:`` and the hash of ``buffer[start:end]`` in hexadecimal."""
    first, second = siphash_kernel(seed_0, seed_1, buffer, start, end)
    buffer[out], buffer[out + 1], buffer[out + 2] = 102, 112, 58
    for index in range(16):
        word = first if index < 8 else second
        byte = np.int64((word >> U64(8 * (index & 7))) & U64(0xFF))
        for half in range(2):
            digit = (byte >> 4) if half == 0 else (byte & 15)
            buffer[out + 3 + 2 * index + half] = 48 + digit if digit < 10 else 87 + digit


@entry
def _fingerprint_kernel(seed_0: Any, seed_1: Any, buffer: Any, length: Any) -> None:
    write_fingerprint_kernel(seed_0, seed_1, buffer, np.int64(0), length, length)


def keyed_fingerprint(key_seed: tuple[int, int], key: bytes) -> str:
    """What decoding makes of a key that comes in the clear (`engine.seeds.Seeds.key`)."""
    buffer = np.zeros(len(key) + FINGERPRINT_BYTES + SLACK, np.uint8)
    buffer[: len(key)] = np.frombuffer(key, np.uint8)
    _fingerprint_kernel(U64(key_seed[0]), U64(key_seed[1]), buffer, np.int64(len(key)))
    return buffer[len(key) : len(key) + FINGERPRINT_BYTES].tobytes().decode()
