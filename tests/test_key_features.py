"""The loop that judges keys beside its twin in plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.kernels.key_features import FEATURES, ITEMS, S_OLD, S_THIS, SETS, V_NETS, VALUES, judge_keys_kernel
from detectors.learning.key_abuse import FLOORS
from detectors.learning.levels import Levels, LevelsConfig
from tests.oracles.key_features import Doings, Known, judge
from tests.oracles.levels import Levels as Twin

KEYS, WINDOW, SLOT, YOUNG = 3, 5000, 7, 4
BINS = st.frozensets(st.integers(0, 63), max_size=5)
COUNT = st.one_of(st.just(0), st.integers(1, 2000))
DOINGS = st.builds(
    Doings, requests=st.integers(0, 5000), errors=COUNT, tokens_in=COUNT, tokens_out=COUNT, sets=st.tuples(BINS, BINS, BINS)
)
KNOWN = st.builds(
    Known, seen=st.tuples(BINS, BINS, BINS), hour=st.floats(0, 1), overall=st.floats(0, 1), busy=st.floats(0, 1),
    silent=st.sampled_from([0, 1, 7, 300, 1500]), held=st.floats(0, 500),
)  # fmt: skip
STEP = st.lists(st.tuples(*[st.floats(-3, 8)] * (FEATURES + 1), st.sampled_from([0.0, 0.5, 1.0])), min_size=KEYS, max_size=KEYS)


def word(bins: frozenset[int]) -> int:
    return int(np.uint64(sum(1 << one for one in bins)).astype(np.int64))


def taught(floors: tuple[float, ...], rows: list[Any], columns: slice) -> tuple[Levels, Twin]:
    """Levels and their twin, of the same past."""
    config = LevelsConfig(KEYS, floors, memory_steps=12.0, settled_steps=6.0)
    levels, twin = Levels(config), Twin(config)
    for step, three in enumerate(rows):
        values, weights = np.array([row[columns] for row in three]), np.array([row[-1] for row in three])
        levels.learn(300 * step, np.arange(KEYS), values, weights)
        twin.learn(300 * step, [(key, values[key].tolist(), float(weights[key])) for key in range(KEYS)])
    return levels, twin


@settings(max_examples=80, deadline=None)
@given(
    past=st.lists(STEP, max_size=12),
    known=st.lists(KNOWN, min_size=KEYS, max_size=KEYS),
    doings=st.lists(st.tuples(st.integers(0, KEYS - 1), DOINGS), min_size=1, max_size=KEYS, unique_by=lambda one: one[0]),
    whole=st.booleans(),
)
def test_what_is_judged_of_keys_is_what_their_twin_says(
    past: list[Any], known: list[Known], doings: list[tuple[int, Doings]], whole: bool
) -> None:
    levels, twin = taught(FLOORS, past, slice(0, FEATURES))
    totals, twin_totals = taught((1.0,), past, slice(FEATURES, FEATURES + 1))
    seen, hours = np.zeros((KEYS, ITEMS, SETS), np.int64), np.zeros((KEYS, SLOT + 4))
    for key, one in enumerate(known):
        hours[key, [SLOT, -1]] = one.hour, one.overall
        for item, bins in enumerate(one.seen):
            # Which generation a bin is of does not matter.
            seen[key, item, S_OLD], seen[key, item, S_THIS] = word(frozenset(b for b in bins if b % 2)), word(bins)
    ids, values = np.array([key for key, _ in doings]), np.zeros((len(doings), VALUES), np.int64)
    for row, (_, doing) in zip(values, doings, strict=True):
        row[:V_NETS] = doing.requests, doing.errors, doing.tokens_in, doing.tokens_out
        row[V_NETS:] = [word(bins) for bins in doing.sets]
    features, z = np.empty((len(ids), FEATURES)), np.empty((len(ids), FEATURES))
    total, score, held = np.empty(len(ids)), np.empty(len(ids)), np.empty(len(ids))
    last = np.array([WINDOW - 1 - one.silent for one in known])
    before = np.array([one.busy for one in known]), np.array([one.held for one in known])
    more = np.array([3.0 * (key % 2) for key in ids.tolist()])
    judge_keys_kernel(
        ids, values, whole, WINDOW, seen, hours, before[0], last, before[1], YOUNG, SLOT, 8.0, 0.9, 0.5,
        tuple(levels.tables), tuple(totals.tables), more, features, z, total, score, held,
    )  # fmt: skip
    for index, (key, doing) in enumerate(doings):
        expected = judge(
            key, doing, known[key], twin, twin_totals, whole=whole, young=YOUNG, more=3.0 * (key % 2), z_most=8.0, leak=0.9,
            reference=0.5,
        )  # fmt: skip
        assert features[index].tolist() == pytest.approx(expected[0], rel=1e-6, abs=1e-6, nan_ok=True)
        assert z[index].tolist() == pytest.approx(expected[1], rel=1e-6, abs=1e-6)
        assert [total[index], score[index], held[index]] == pytest.approx(expected[2:], rel=1e-6, abs=1e-6)
