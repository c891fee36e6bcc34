"""What windows are made of: the kernels say what numpy says, to the last bit."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.entropy import routes_of
from detectors.kernels.alike import alike_kernel, allocate_slots
from detectors.surplus import ADDRESS, PRIORITY, ROUTE, ROW_WORDS, WEIGHT
from schemas.columns import I64
from tests.oracles import alike as oracle

WORDS = np.array([0, 1, -1, 2**60, 2**62, 2**48, -(2**63), 2**63 - 1, *range(3, 30)], np.int64)


@st.composite
def windows(draw: st.DrawFn) -> I64:
    """Rows of few routes, addresses and priorities, some of them the ends of what a word holds."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, routes, addresses = draw(st.integers(1, 640)), draw(st.integers(1, 20)), draw(st.integers(1, len(WORDS)))
    rows = np.zeros((count, ROW_WORDS), np.int64)
    rows[:, PRIORITY] = random.choice(WORDS, count)
    rows[:, WEIGHT] = random.integers(1, 5, count)
    rows[:, ROUTE] = random.choice(WORDS[:routes], count)
    rows[:, ADDRESS] = random.choice(WORDS[:addresses], count)
    return rows


@settings(max_examples=100, deadline=None)
@given(windows(), st.integers(0, 4), st.sampled_from((0.01, 0.05, 0.1, 0.5)))
def test_routes_are_the_heaviest_with_enough_of_a_window(rows: I64, level: int, share: float) -> None:
    weights = rows[:, WEIGHT] * np.where(rows[:, PRIORITY] % 2, 1.0, float(1 << level))
    assert routes_of(rows, weights, share) == oracle.routes(rows, weights, share)


@settings(max_examples=100, deadline=None)
@given(windows())
def test_pairs_and_triples_are_those_of_numpy(rows: I64) -> None:
    words, count = rows[:, ADDRESS], len(rows)
    scratch = np.empty((2, count), np.int64)
    assert alike_kernel(words, allocate_slots(count), *scratch) == oracle.alike(words)
