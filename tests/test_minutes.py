"""Rows of services are added up by minute as plain Python adds them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.kernels.minutes import M_A, M_B, M_MINUTE, M_ROW, M_SUMS, sum_minutes_kernel
from schemas.tally import C_KEY_A, C_KEY_B, C_MEASURES, C_TICK, RECORD_WORDS


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60), st.sampled_from((1, 3, 30)), st.sampled_from((1, 200, 5000)))
def test_minutes_hold_what_their_rows_do(seed: int, many: int, services: int, span_s: int) -> None:
    random = np.random.default_rng(seed)
    records = random.integers(0, 50, (many, RECORD_WORDS))
    records[:, C_TICK] = random.integers(0, span_s, many)
    records[:, C_KEY_A], records[:, C_KEY_B] = random.integers(0, services, many), 7
    rows = np.flatnonzero(random.random(many) < 0.8)
    chosen, columns = np.array([len(rows), *rows, 99]), C_MEASURES + np.array([0, 3, 1])
    minutes = np.empty((max(1, len(rows)), M_SUMS + len(columns)), np.int64)
    count = sum_minutes_kernel(records, chosen, columns, minutes)

    expected: dict[tuple[int, int, int], np.ndarray] = {}
    for row in rows.tolist():
        minute, a, b = (int(one) for one in (records[row, C_TICK] // 60, records[row, C_KEY_A], records[row, C_KEY_B]))
        expected[minute, a, b] = expected.get((minute, a, b), 0) + records[row, columns]
    found: dict[tuple[int, int, int], np.ndarray] = {}
    for one in minutes[:count]:
        where = int(one[M_MINUTE]), int(one[M_A]), int(one[M_B])
        found[where] = found.get(where, 0) + one[M_SUMS:]
        assert records[one[M_ROW], C_KEY_A] == one[M_A]
    assert {where: sums.tolist() for where, sums in found.items()} == {w: sums.tolist() for w, sums in expected.items()}
    assert services > 1 or span_s > 1 or count <= 1
