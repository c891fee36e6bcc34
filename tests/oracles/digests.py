"""Digests of raw records in plain Python: NH of each KiB, then SipHash-1-3."""

from __future__ import annotations

from tests.oracles.hashing import MASK, _round

BLOCK_BYTES = 1024


def nh(key: list[int], block: bytes) -> int:
    """The sum of products of neighbouring words with the key added, modulo 2^128."""
    padded = block + bytes(-len(block) % 16)
    words = [int.from_bytes(padded[k : k + 8], "little") for k in range(0, len(padded), 8)]
    pairs = zip(words[::2], words[1::2], key[::2], key[1::2], strict=False)
    return sum(((a + k) & MASK) * ((b + m) & MASK) for a, b, k, m in pairs) % (1 << 128)


def digest_record(key: list[int], record: bytes, offset: int, time_ms: int) -> int:
    """Of one record; ``key`` is SipHash's two words and then NH's."""
    v = [
        key[0] ^ 0x736F6D6570736575, key[1] ^ 0x646F72616E646F6D, key[0] ^ 0x6C7967656E657261, key[1] ^ 0x7465646279746573,
    ]  # fmt: skip
    words = [offset, time_ms, len(record)]
    for at in range(0, len(record), BLOCK_BYTES):
        low_and_high = nh(key[2:], record[at : at + BLOCK_BYTES])
        words += [low_and_high & MASK, low_and_high >> 64]
    for word in words:
        v[3] ^= word
        _round(v)
        v[0] ^= word
    v[2] ^= 0xFF
    for _ in range(3):
        _round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]
