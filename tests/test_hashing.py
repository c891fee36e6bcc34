"""The keyed hashes against plain Python, and what must hold of them for whoever chooses keys."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.kernels.hashing import hash_bytes_kernel, hash_keys, partitions_of
from engine.seeds import Seeds
from schemas.compiled import entry
from schemas.decoding.machine import SLACK
from tests.oracles.hashing import hash_words, siphash_1_3_128

SEEDS = Seeds("for tests only", configured=True)


@entry
def hash_text_kernel(seeds: Any, data: Any, length: Any) -> Any:
    return hash_bytes_kernel(seeds, data, np.int64(0), length)


def hash_text(text: bytes) -> tuple[int, int]:
    a, b = hash_text_kernel(SEEDS.hash, np.frombuffer(text + bytes(SLACK), np.uint8), len(text))
    return int(a), int(b)


words = st.integers(0, (1 << 64) - 1)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=70))
def test_texts_are_hashed_by_siphash(text: bytes) -> None:
    assert hash_text(text) == siphash_1_3_128((int(SEEDS.hash[0]), int(SEEDS.hash[1])), text)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(words, words, st.integers(0, 10)), min_size=1, max_size=20))
def test_keys_are_hashed_by_multiplication(keys: list[tuple[int, int, int]]) -> None:
    a, b, dimension = (np.array(column, np.uint64) for column in zip(*keys, strict=True))
    seeds = [int(word) for word in SEEDS.hash]
    expected = [hash_words(seeds, *key) for key in keys]
    assert hash_keys(SEEDS.hash, a, b, dimension.astype(np.uint8)).tolist() == expected


def test_keys_that_follow_each_other_spread_over_partitions_and_slots() -> None:
    n = 1 << 16
    b = (np.uint64(0xFFFF) << np.uint64(32)) + np.arange(n, dtype=np.uint64)
    for step in (1, 256, 65536):
        h = hash_keys(SEEDS.hash, np.zeros(n, np.uint64), b * np.uint64(step), np.ones(n, np.uint8))
        for part in (partitions_of(h, 16), h & np.uint64(15), (h >> np.uint64(40)) & np.uint64(15)):
            sizes = Counter(part.tolist()).values()
            assert len(sizes) == 16
            assert max(sizes) < 1.1 * n / 16
        assert len(set(h.tolist())) == n


def test_another_secret_gives_other_hashes() -> None:
    other = Seeds("another", configured=True)
    one = np.arange(100, dtype=np.uint64)
    same = hash_keys(SEEDS.hash, one, one, one.astype(np.uint8)) == hash_keys(other.hash, one, one, one.astype(np.uint8))
    assert not same.any()
