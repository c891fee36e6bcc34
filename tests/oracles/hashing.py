"""The keyed hashes in plain Python: SipHash-1-3 with its 128-bit output, and the multiplication of `hash_words_kernel`."""

from __future__ import annotations

MASK = (1 << 64) - 1


def _rotate(word: int, by: int) -> int:
    return ((word << by) | (word >> (64 - by))) & MASK


def _round(v: list[int]) -> None:
    v[0] = (v[0] + v[1]) & MASK
    v[2] = (v[2] + v[3]) & MASK
    v[1] = _rotate(v[1], 13) ^ v[0]
    v[3] = _rotate(v[3], 16) ^ v[2]
    v[0] = _rotate(v[0], 32)
    v[2] = (v[2] + v[1]) & MASK
    v[0] = (v[0] + v[3]) & MASK
    v[1] = _rotate(v[1], 17) ^ v[2]
    v[3] = _rotate(v[3], 21) ^ v[0]
    v[2] = _rotate(v[2], 32)


def siphash_1_3_128(key: tuple[int, int], text: bytes) -> tuple[int, int]:
    """The reference algorithm, one compression and three finalisation rounds."""
    v = [
        key[0] ^ 0x736F6D6570736575, key[1] ^ 0x646F72616E646F6D ^ 0xEE, key[0] ^ 0x6C7967656E657261,
        key[1] ^ 0x7465646279746573,
    ]  # fmt: skip
    whole = len(text) - len(text) % 8
    words = [int.from_bytes(text[k : k + 8], "little") for k in range(0, whole, 8)]
    words.append(int.from_bytes(text[whole:], "little") | (len(text) & 0xFF) << 56)
    for word in words:
        v[3] ^= word
        _round(v)
        v[0] ^= word
    v[2] ^= 0xEE
    for _ in range(3):
        _round(v)
    first = v[0] ^ v[1] ^ v[2] ^ v[3]
    v[1] ^= 0xDD
    for _ in range(3):
        _round(v)
    return first, v[0] ^ v[1] ^ v[2] ^ v[3]


def hash_words(seeds: list[int], a: int, b: int, dimension: int) -> int:
    """The upper half of a sum of products with 128-bit factors, mixed."""
    k = [seeds[2 + 2 * i] | seeds[3 + 2 * i] << 64 for i in range(4)]
    h = ((k[0] * a + k[1] * b + k[2] * dimension + k[3]) % (1 << 128)) >> 64
    h = ((h ^ (h >> 32)) * 0xD6E8FEB86659FD93) & MASK
    return h ^ (h >> 29)
