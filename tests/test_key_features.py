"""The loops that judge keys and look up their places beside their twins in plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.kernels.key_features import FEATURES, ITEMS, S_OLD, S_THIS, SETS, V_NETS, VALUES, judge_keys_kernel
from detectors.kernels.windows import NEVER
from detectors.learning.key_state import FLOORS
from detectors.learning.levels import Levels, LevelsConfig, LevelStack
from engine.key_book import KeyBook, KeyBooks
from tests.key_books import take_in
from tests.oracles.key_features import Doings, Known, judge, slept_windows
from tests.oracles.key_places import Book
from tests.oracles.levels import Levels as Twin

PARTITIONS, KEYS, WINDOW, SLOT, YOUNG, WAKES, ROOM = 2, 3, 5000, 7, 4, 400, 4
PLACES = PARTITIONS * KEYS
BINS = st.frozensets(st.integers(0, 63), max_size=5)
COUNT = st.one_of(st.just(0), st.integers(1, 2000))
DOINGS = st.builds(
    Doings, requests=st.integers(0, 5000), errors=COUNT, tokens_in=COUNT, tokens_out=COUNT, sets=st.tuples(*[BINS] * ITEMS)
)
KNOWN = st.builds(
    Known, seen=st.tuples(*[BINS] * ITEMS), hour=st.floats(0, 1), overall=st.floats(0, 1), busy=st.floats(0, 1),
    silent=st.sampled_from([0, 1, 7, 300, 1500]), held=st.floats(0, 500),
    woke=st.sampled_from([(0, 0), (WINDOW - 3, 700), (WINDOW - 12, 700)]),
)  # fmt: skip
STEP = st.lists(st.tuples(*[st.floats(-3, 8)] * (FEATURES + 1), st.sampled_from([0.0, 0.5, 1.0])), min_size=KEYS, max_size=KEYS)


def word(bins: frozenset[int]) -> int:
    return int(np.uint64(sum(1 << one for one in bins)).astype(np.int64))


def taught(floors: tuple[float, ...], rows: list[Any], columns: slice) -> tuple[LevelStack, list[Twin]]:
    """Levels of some partitions and their twins, of the same past: of each partition another part of it."""
    config = LevelsConfig(KEYS, floors, memory_steps=12.0, settled_steps=6.0)
    stack, twins = LevelStack(config, PARTITIONS), [Twin(config) for _ in range(PARTITIONS)]
    for step, three in enumerate(rows):
        values, weights = np.array([row[columns] for row in three]), np.array([row[-1] for row in three])
        taking = [partition for partition in range(PARTITIONS) if step % (partition + 1) == 0]
        for partition in taking:
            Levels(config, stack, partition).begin(300 * step)
            twins[partition].learn(300 * step, [(key, values[key].tolist(), float(weights[key])) for key in range(KEYS)])
        groups, ids = np.repeat(taking, KEYS), np.tile(np.arange(KEYS), len(taking))
        stack.learn(300 * step, groups, ids, np.tile(values, (len(taking), 1)), np.tile(weights, len(taking)))
    return stack, twins


@settings(max_examples=80, deadline=None)
@given(
    past=st.lists(STEP, max_size=12),
    known=st.lists(KNOWN, min_size=PLACES, max_size=PLACES),
    doings=st.lists(st.tuples(st.integers(0, PLACES - 1), DOINGS), min_size=1, max_size=PLACES, unique_by=lambda one: one[0]),
    whole=st.booleans(),
)
def test_what_is_judged_of_keys_is_what_their_twin_says(
    past: list[Any], known: list[Known], doings: list[tuple[int, Doings]], whole: bool
) -> None:
    doings.sort(key=lambda one: one[0])
    levels, twins = taught(FLOORS, past, slice(0, FEATURES))
    totals, twin_totals = taught((1.0,), past, slice(FEATURES, FEATURES + 1))
    seen, hours = np.zeros((PLACES, ITEMS, SETS), np.int64), np.zeros((PLACES, SLOT + 4))
    for place, one in enumerate(known):
        hours[place, [SLOT, -1]] = one.hour, one.overall
        for item, bins in enumerate(one.seen):
            # Which generation a bin is of does not matter.
            seen[place, item, S_OLD], seen[place, item, S_THIS] = word(frozenset(b for b in bins if b % 2)), word(bins)
    ids, values = np.array([place for place, _ in doings]), np.zeros((len(doings), VALUES), np.int64)
    for row, (_, doing) in zip(values, doings, strict=True):
        row[:V_NETS] = doing.requests, doing.errors, doing.tokens_in, doing.tokens_out
        row[V_NETS:] = [word(bins) for bins in doing.sets]
    features, z = np.empty((len(ids), FEATURES)), np.empty((len(ids), FEATURES))
    total, score, held, slept = np.empty(len(ids)), np.empty(len(ids)), np.empty(len(ids)), np.empty(len(ids), np.int64)
    last = np.array([WINDOW - 1 - one.silent for one in known])
    woke = np.array([one.woke for one in known])
    before = np.array([one.busy for one in known]), np.array([one.held for one in known])
    elsewhere = np.array([WINDOW - 900 if place % 4 == 3 else NEVER for place in ids.tolist()])
    judge_keys_kernel(
        ids, values, whole, WINDOW, KEYS, seen, hours, before[0], last, woke, before[1], YOUNG, SLOT, 8.0, 0.9, 0.5, WAKES, 3.0,
        12, tuple(levels.tables), tuple(totals.tables), elsewhere, features, z, total, score, held, slept,
    )  # fmt: skip
    for index, (place, doing) in enumerate(doings):
        partition, key = divmod(place, KEYS)
        expected_slept = slept_windows(WINDOW, max(int(last[place]), int(elsewhere[index])), known[place].woke, WAKES)
        expected = judge(
            key, doing, known[place], twins[partition], twin_totals[partition], whole=whole, young=YOUNG,
            more=3.0 if expected_slept else 0.0, z_most=8.0, leak=0.9, reference=0.5,
        )  # fmt: skip
        assert features[index].tolist() == pytest.approx(expected[0], rel=1e-6, abs=1e-6, nan_ok=True)
        assert z[index].tolist() == pytest.approx(expected[1], rel=1e-6, abs=1e-6)
        assert [total[index], score[index], held[index]] == pytest.approx(expected[2:], rel=1e-6, abs=1e-6)
        assert slept[index] == expected_slept


WORD = st.sampled_from([0, 1, -1, 7, 2**63 - 1, -(2**63), 64, 128])
KEY = st.tuples(WORD, WORD)


@settings(max_examples=80, deadline=None)
@given(
    windows=st.lists(st.dictionaries(st.tuples(st.integers(0, 1), KEY), st.integers(1, 9), max_size=9), min_size=1, max_size=8)
)
def test_places_of_keys_are_those_of_their_twin(windows: list[dict[tuple[int, tuple[int, int]], int]]) -> None:
    books, twins = KeyBooks(2, ROOM), [Book(ROOM), Book(ROOM)]
    each = [KeyBook(books, partition) for partition in range(2)]
    for window, asked in enumerate(windows):
        for partition, book in enumerate(each):
            mine = sorted((key, many) for (of, key), many in asked.items() if of == partition)
            assert take_in(book, window, mine) == twins[partition].take_in(window, mine)
    every = [(partition, (a, b)) for partition in range(2) for a in (0, 1, -1, 7) for b in (0, 1, -1, 64)]
    places, lasts = books.find(np.array([of for of, _ in every]), np.array([key for _, key in every]))
    expected = [twins[of].places.get(key, ROOM) for of, key in every]
    assert places.tolist() == expected
    for index, (of, key) in enumerate(every):
        # Beds are few, so that some of those who sleep are forgotten; nobody else is taken for one of them.
        remembered = twins[of].slept.get(key, NEVER)
        assert lasts[index] in ((NEVER,) if expected[index] < ROOM else (NEVER, remembered))
        assert lasts[index] == (NEVER if expected[index] < ROOM else each[of].sleepers.recall(np.array([key]))[0])
