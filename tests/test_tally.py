"""A tally on the wire: what a judge reads is what the observer counted."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.fields import ITEMS, MEASURES, VALUES
from schemas.tally import (
    C_DIMENSION,
    C_KEY_A,
    C_KEY_B,
    C_MEASURES,
    C_MODELS,
    C_NAME,
    C_NAME_LENGTH,
    C_TICK,
    RECORD_WORDS,
    Tally,
    decode_tally,
    encode_tally,
)

CARRIED = [C_DIMENSION, C_KEY_A, C_KEY_B, C_TICK, C_NAME_LENGTH, *range(C_MODELS, C_MEASURES + VALUES)]
"""The columns that travel; hashes are computed again, and names lie elsewhere."""
ROWS = st.tuples(
    st.binary(max_size=96), st.integers(0, 255), st.integers(-(2**63), 2**63 - 1), st.integers(0, 5000),
    st.lists(
        st.sampled_from([0, 0, 1, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**62]), min_size=MEASURES, max_size=MEASURES
    ),
    st.lists(st.sampled_from([0, 0, 1, 1 << 40, -(2**63), -1]), min_size=1 + ITEMS, max_size=1 + ITEMS),
)  # fmt: skip


@settings(deadline=None)  # the first case loads the kernel
@given(st.lists(ROWS, max_size=12), st.randoms(use_true_random=False), st.integers(0, 12))
def test_each_judge_partition_gets_its_rows_in_order_with_their_names(
    rows: list[tuple[bytes, int, int, int, list[int], list[int]]], chance: random.Random, cut: int
) -> None:
    names = b"".join(name for name, *_ in rows)
    records = np.zeros((len(rows), RECORD_WORDS), np.int64)
    at = 0
    for index, (name, dimension, key, tick, measures, sets) in enumerate(rows):
        records[index, [C_NAME, C_NAME_LENGTH, C_DIMENSION, C_KEY_A, C_KEY_B, C_TICK]] = (
            at,
            len(name),
            dimension,
            key,
            ~key,
            tick,
        )
        records[index, C_MODELS:] = [sets[0], *measures, *sets[1:]]
        at += len(name)
    order = np.array(chance.sample(range(len(rows)), len(rows)), np.int64)
    cut = min(cut, len(rows))
    tally = Tally(
        "requests-0", 7, 9, 1000, 0, 5000, 3, records, np.frombuffer(names + bytes(8), np.uint8), order,
        np.array([0, cut, len(rows)], np.int64),
    )  # fmt: skip
    for partition, part in enumerate((order[:cut], order[cut:])):
        got = decode_tally(encode_tally(tally, partition))
        assert (got.source, got.start, got.end, got.newest_ms, got.truncated) == ("requests-0", 7, 9, 1000, 3)
        assert got.records[:, CARRIED].tolist() == records[part][:, CARRIED].tolist()
        spans = zip(got.records[:, C_NAME].tolist(), got.records[:, C_NAME_LENGTH].tolist(), strict=True)
        assert [got.names[start : start + length].tobytes() for start, length in spans] == [rows[i][0] for i in part]
