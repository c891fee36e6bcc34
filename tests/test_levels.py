"""Levels: River's recurrence, a twin in plain Python, what a cap is worth, and that what is saved goes on as it was."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river.stats import EWMean, EWVar

from detectors.learning.levels import DAY_S, SEASONS, Levels, LevelsConfig
from schemas.errors import StateError
from tests.oracles.levels import Levels as Twin

STEP_S = 300


def test_the_recurrence_is_that_of_river() -> None:
    levels = Levels(LevelsConfig(series=2, floors=(0.1, 0.1), memory_steps=20, young_steps=1))
    chance = np.random.default_rng(1)
    means, variances = [EWMean(1 / 20) for _ in range(2)], [EWVar(1 / 20) for _ in range(2)]
    for step in range(300):
        values = chance.normal(5, 2, 2)
        levels.learn(STEP_S * step, np.array([1]), values[None, :])
        for value, mean, variance in zip(values.tolist(), means, variances, strict=True):
            mean.update(value)
            variance.update(value)
        np.testing.assert_allclose(levels.mean[1, 0], [mean.get() for mean in means], rtol=1e-12)
        np.testing.assert_allclose(levels.variance[1, 0], [variance.get() for variance in variances], rtol=1e-7, atol=1e-9)


VALUE = st.one_of(st.floats(-50, 50), st.just(math.nan))
STEP = st.lists(st.tuples(VALUE, VALUE, st.sampled_from([0.0, 0.3, 1.0])), min_size=3, max_size=3)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(1, 8000), STEP), min_size=1, max_size=25),
    seasons=st.sampled_from([0, SEASONS]),
    change=st.sampled_from([0.0, 0.05]),
    young=st.sampled_from([None, 1]),
)
def test_levels_are_those_of_their_twin(steps: list[Any], seasons: int, change: float, young: float | None) -> None:
    config = LevelsConfig(
        series=3, floors=(0.5, 2.0), memory_steps=12, memory_season_steps=5, seasons=seasons, change_max=change,
        young_steps=young, settled_steps=6,
    )  # fmt: skip
    levels, twin, tick = Levels(config), Twin(config), 0
    for passed, rows in steps:
        tick += passed
        values, weights = np.array([row[:2] for row in rows]), np.array([row[2] for row in rows])
        found = levels.z(tick, np.arange(3), values)
        for series in range(3):
            for f in range(2):
                value = float(values[series, f])
                expected = 0.0 if math.isnan(value) else twin.z(tick, series, f, value)
                assert found[series, f] == pytest.approx(expected, rel=1e-6, abs=1e-6)
        levels.learn(tick, np.arange(3), values, weights)
        twin.learn(tick, [(series, values[series].tolist(), float(weights[series])) for series in range(3)])


def ramped(change_max: float) -> float:
    """How far off ten times the traffic is from what a level learned that rose to it by one percent a day."""
    levels = Levels(LevelsConfig(series=1, floors=(0.05,), memory_steps=168, settled_steps=168, change_max=change_max))
    chance, tick = np.random.default_rng(2), 0
    for day in range(14 + 232):
        for _ in range(24):
            rate = 200 * 1.01 ** max(0, day - 14)
            levels.learn(tick, np.array([0]), np.log1p(chance.poisson(rate, (1, 1))))
            tick += 3600
    return float(levels.z(tick, np.array([0]), np.log1p([[2000.0]]))[0, 0])


def test_with_a_cap_a_level_that_is_taught_slowly_still_finds_the_attack_and_without_one_it_does_not() -> None:
    assert ramped(0.0) < 3
    assert ramped(0.001) > 8


def test_what_never_varied_is_far_off_by_the_floor_alone() -> None:
    levels = Levels(LevelsConfig(series=1, floors=(0.35,)))
    for step in range(300):
        levels.learn(STEP_S * step, np.array([0]), np.array([[math.log(2)]]))
    assert levels.z(0, np.array([0]), np.array([[math.log(2) + 0.7]]))[0, 0] == pytest.approx(2.0)


def test_nothing_is_learned_under_suspicion_and_a_place_that_is_given_away_begins_anew() -> None:
    levels = Levels(LevelsConfig(series=2, floors=(1.0,)))
    for step in range(20):
        levels.learn(STEP_S * step, np.array([0, 1]), np.array([[5.0], [7.0]]), np.array([1.0, 0.0]))
    assert levels.steps(np.array([0, 1])).tolist() == [20.0, 0.0]
    assert levels.mean[:, 0, 0].tolist() == [5.0, 0.0, 5.0]
    levels.forget([0])
    assert levels.steps(np.array([0])).tolist() == [0.0]


def test_a_young_series_is_judged_by_what_is_usual_of_all_and_an_old_one_by_its_own() -> None:
    levels = Levels(LevelsConfig(series=21, floors=(0.1,)))
    chance, every = np.random.default_rng(4), np.arange(20)
    usual = np.linspace(0, 10, 20)
    for step in range(400):
        levels.learn(STEP_S * step, every, (usual + chance.normal(0, 0.3, 20))[:, None])
    tick, far = 400 * STEP_S, np.array([[9.0]])
    assert levels.z(tick, np.array([0]), far)[0, 0] > 20
    assert 0 < levels.z(tick, np.array([20]), far)[0, 0] < 2


def test_hours_and_weekends_are_told_apart() -> None:
    levels = Levels(LevelsConfig(series=1, floors=(0.2,), seasons=SEASONS, shrink_season_steps=4))
    for hour in range(24 * 28):
        day = hour // 24 + 4
        busy = 5.0 if 8 <= hour % 24 < 18 and day % 7 not in (2, 3) else 1.0
        levels.learn(3600 * hour + 4 * DAY_S, np.array([0]), np.array([[busy]]))
    noon, night, sunday = 4 * DAY_S + 12 * 3600, 4 * DAY_S + 3 * 3600, 10 * DAY_S + 12 * 3600
    seen = [float(levels.z(tick, np.array([0]), np.array([[5.0]]))[0, 0]) for tick in (noon, night, sunday)]
    assert seen[0] < 1.5
    assert min(seen[1:]) > 2.5


def test_what_is_saved_goes_on_as_it_was_and_what_does_not_fit_is_refused() -> None:
    config = LevelsConfig(series=4, floors=(0.5, 1.0), seasons=SEASONS, change_max=0.02, settled_steps=10)
    one, other = Levels(config), Levels(config)
    chance = np.random.default_rng(3)
    rows = chance.normal(0, 1, (60, 4, 2))
    for step, row in enumerate(rows):
        one.learn(1000 * step, np.arange(4), row)
        if step == 30:
            other.load(one.save())
        if step > 30:
            other.learn(1000 * step, np.arange(4), row)
    for name, array in one.save().items():
        np.testing.assert_array_equal(array, other.save()[name])
    part = Levels(config)
    part.load(one.save(np.array([2])), np.array([0]))
    np.testing.assert_array_equal(part.mean[0], one.mean[2])
    for broken in ({"mean": one.mean[:2]}, {"variance": np.full_like(one.variance, np.nan)}, {"hour": "x"}):
        with pytest.raises(StateError, match="levels"):
            other.load({**one.save(), **broken})
    assert replace(config, series=3) != config
