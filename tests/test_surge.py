"""`surge`: what it finds, what it leaves alone, and that nothing but its steps decides."""

from __future__ import annotations

import copy
import doctest
import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.surge import alarms_by_week
from detectors import surge
from detectors.surge import Outcome, Surge, SurgeConfig
from schemas.errors import ConfigError, StateError
from tests.oracles.surge import SurgeOracle

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]

DAY = 1440
WEEK = 7 * DAY
START_S = 1_767_571_200
QUICK = SurgeConfig(warmup_steps=20, quiet_steps=15, memory_steps=200.0, delay_steps=5, slot_s=3600, suspect=2.0, alarm_at=2.5)
"""Everything happens soon, so that short series reach every branch."""


def honest(seed: int, days: int, mean: float = 600.0) -> tuple[Times, Floats]:
    """Minutes of a service with a day in it."""
    minutes = np.arange(days * DAY)
    level = mean * (1 + 0.6 * np.sin(minutes / DAY * 2 * np.pi))
    return START_S + 60 * minutes, np.random.default_rng(seed).poisson(level).astype(np.float64)


def same(a: Outcome, b: Outcome) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def alarms(outcome: Outcome) -> list[int]:
    return [int(step) for step in np.flatnonzero(outcome.alarm)]


@pytest.mark.parametrize("mean", [5.0, 600.0, 60_000.0])
def test_two_honest_weeks_from_a_cold_start_bring_no_more_than_one_alarm_a_week(mean: float) -> None:
    for seed in range(3):
        found = alarms(Surge(SurgeConfig()).observe(*honest(seed, 14, mean)))
        assert len([step for step in found if step < WEEK]) <= 1
        assert len([step for step in found if step >= WEEK]) <= 1


PLANTED = {
    "a step": (lambda counts: counts + 400, 30, 3, 1),
    "a surge of five times the mean": (lambda counts: counts + 3000, 5, 1, 1),
    "a drop to a third": (lambda counts: np.floor(counts / 3), 30, 3, -1),
    "an outage": (lambda counts: counts * 0, 10, 2, -1),
    "a ramp to the double within an hour": (lambda counts: np.floor(counts * np.linspace(1, 2, len(counts))), 60, 45, 1),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found_with_its_direction(name: str) -> None:
    plant, minutes, within, side = PLANTED[name]
    for seed in range(3):
        times, counts = honest(seed, 15)
        at = 14 * DAY + 200 + 97 * seed
        counts[at : at + minutes] = plant(counts[at : at + minutes])
        outcome = Surge(SurgeConfig()).observe(times[: at + minutes], counts[: at + minutes])
        found = [step for step in alarms(outcome) if step >= at]
        assert found
        assert found[0] - at < within
        assert outcome.side[found[0]] == side


def test_an_episode_is_told_once_unless_it_becomes_worse() -> None:
    times, counts = honest(5, 15)
    at = 14 * DAY + 300
    counts[at : at + 60] += 500
    outcome = Surge(SurgeConfig()).observe(times, counts)
    told = [outcome.score[step] for step in alarms(outcome) if step >= at]
    assert 1 <= len(told) <= 6
    assert all(later >= earlier + 1 for earlier, later in pairwise(told))


def test_an_attack_does_not_become_normal_while_it_lasts() -> None:
    times, counts = honest(6, 15)
    at = 14 * DAY + 300
    counts[at : at + 30] += 1500
    counts[at + 200 : at + 230] += 1500
    outcome = Surge(SurgeConfig()).observe(times, counts)
    assert outcome.score[at : at + 30].max() >= SurgeConfig().alarm_at
    assert outcome.score[at + 200 : at + 230].max() >= SurgeConfig().alarm_at
    assert outcome.expected[at + 29] < counts[at + 29] / 2


def test_the_weekend_is_expected_once_it_was_seen_twice() -> None:
    times, counts = honest(7, 28)
    weekend = np.arange(len(counts)) // DAY % 7 >= 5
    counts[weekend] = np.floor(counts[weekend] / 3)
    outcome = Surge(SurgeConfig()).observe(times, counts)
    assert [step for step in alarms(outcome) if step < WEEK]
    assert not [step for step in alarms(outcome) if step >= 3 * WEEK]


STEP = st.tuples(st.sampled_from([0, 60, 600, 3600, 3600, 3600, 90_000]), st.sampled_from([0.0, 0.0, 1.0, 5.0, 9.0, 1e6]))


@settings(max_examples=40, deadline=None)
@given(st.lists(STEP, max_size=400), st.integers(0, 99), st.floats(0, 50), st.sampled_from([0.0, 0.01, 0.2]))
def test_the_kernel_says_what_its_plain_twin_says(
    steps: list[tuple[int, float]], seed: int, mean: float, change_min: float
) -> None:
    config = replace(QUICK, change_min=change_min)
    noise = np.random.default_rng(seed).poisson(mean, len(steps)).astype(np.float64)
    times = START_S + np.cumsum([gap for gap, _ in steps] or [0])[: len(steps)].astype(np.int64)
    values = noise + np.array([value for _, value in steps])
    outcome = Surge(config).observe(times, values)
    oracle = SurgeOracle(config)
    for i in range(len(steps)):
        expected = oracle.step(int(times[i]), float(values[i]))
        said = (outcome.score[i], outcome.expected[i])
        assert said == pytest.approx((expected[0], expected[3]), rel=1e-6, abs=1e-6)
        if abs(expected[0] - oracle.peak) > 1e-6:
            assert outcome.fresh[i] == pytest.approx(expected[1], rel=1e-6, abs=1e-6)


def test_the_kernel_says_what_its_plain_twin_says_for_weeks_with_a_flood() -> None:
    minutes = np.arange(0, 30 * DAY, 60)
    values = np.random.default_rng(3).poisson(50 + 30 * np.sin(minutes / DAY * 2 * np.pi)).astype(np.float64)
    values[600:620] *= 5
    outcome = Surge(QUICK).observe(START_S + 60 * minutes, values)
    oracle = SurgeOracle(QUICK)
    expected = np.array([oracle.step(START_S + 60 * int(m), float(v)) for m, v in zip(minutes, values, strict=True)])
    assert np.allclose(np.column_stack(outcome), expected, rtol=1e-6, atol=1e-6)
    assert outcome.score[600] > 4


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 2000), max_size=6))
def test_any_cut_and_any_snapshot_between_gives_the_same(seed: int, cuts: list[int]) -> None:
    times, counts = honest(seed, 2)
    times, counts = times[:2000], counts[:2000]
    whole = Surge(SurgeConfig()).observe(times, counts)
    parts, detector = [], Surge(SurgeConfig())
    for first, last in zip([0, *sorted(cuts)], [*sorted(cuts), 2000], strict=True):
        parts.append(detector.observe(times[first:last], counts[first:last]))
        kept = json.loads(json.dumps(detector.snapshot()))
        detector = Surge(SurgeConfig())
        detector.restore(kept)
    assert same(whole, Outcome(*(np.concatenate(columns) for columns in zip(*parts, strict=True))))


def test_series_that_are_judged_together_are_what_each_is_alone() -> None:
    (times, one), (_, other) = honest(1, 2), honest(2, 2)
    together, alone = Surge(SurgeConfig(), 3), [Surge(SurgeConfig()) for _ in range(2)]
    together.observe(times, one[::-1], np.full(len(times), 2))
    together.forget(2)
    for low, high in ((0, 1), (1, 700), (700, len(times))):
        which = np.repeat([2, 0], high - low)
        both = together.observe(np.tile(times[low:high], 2), np.concatenate([one[low:high], other[low:high]]), which)
        apart = [surge.observe(times[low:high], some[low:high]) for surge, some in zip(alone, (one, other), strict=True)]
        assert same(both, Outcome(*(np.concatenate(columns) for columns in zip(*apart, strict=True))))
    assert [together.snapshot(2), together.snapshot(0)] == [surge.snapshot() for surge in alone]
    assert (together.steps(2), together.steps(1)) == (len(times), 0)
    before = together.snapshot(0), together.snapshot(2)
    with pytest.raises(ValueError, match="do not go back"):
        together.observe(times[[-1, 0]], np.ones(2), np.array([2, 0]))
    assert (together.snapshot(0), together.snapshot(2)) == before


def test_the_same_steps_give_the_same_scores_and_are_left_as_they_were() -> None:
    times, counts = honest(1, 3)
    before = times.copy(), counts.copy()
    first, second = (Surge(SurgeConfig()).observe(times, counts) for _ in range(2))
    assert same(first, second)
    assert np.array_equal(times, before[0])
    assert np.array_equal(counts, before[1])


def test_integers_are_taken_as_they_are() -> None:
    times, counts = honest(1, 2)
    assert same(Surge(SurgeConfig()).observe(times, counts), Surge(SurgeConfig()).observe(times, counts.astype(np.int64)))


def test_the_unit_of_a_series_changes_no_score() -> None:
    times, counts = honest(2, 4)
    counts[-5:] *= 3
    one, million = (Surge(SurgeConfig()).observe(times, counts * unit).score for unit in (1.0, 2.0**20))
    assert np.allclose(one, million, atol=0.01)  # a magnitude on the edge of two bins may fall into the other by rounding


def test_a_state_takes_what_it_takes_whatever_it_is_fed() -> None:
    detector = Surge(SurgeConfig())
    empty = detector.memory_bytes
    random = np.random.default_rng(1)
    detector.observe(START_S + np.arange(50_000) * 977, random.pareto(0.5, 50_000) * 1e9)
    assert detector.memory_bytes == empty <= 40_000
    kept = len(json.dumps(detector.snapshot()))
    detector.observe(START_S + np.arange(50_000, 100_000) * 977, random.pareto(0.5, 50_000) * 1e9)
    assert len(json.dumps(detector.snapshot())) < 1.2 * kept


def test_years_of_steps_overflow_nothing() -> None:
    config = SurgeConfig(memory_steps=10.0)
    detector = Surge(config)
    outcome = detector.observe(START_S + np.arange(20_000) * 60, np.random.default_rng(1).poisson(9, 20_000).astype(np.float64))
    assert np.isfinite(np.column_stack(outcome)).all()
    assert 0 < detector.snapshot()["state"]["scalars"][1] < 1e101


def test_nothing_at_all_and_always_the_same_are_never_odd() -> None:
    times, _ = honest(0, 3)
    for value in (0.0, 7.0):
        assert not Surge(SurgeConfig()).observe(times, np.full(len(times), value)).score.any()


@pytest.mark.parametrize(
    ("times", "values", "told"),
    [
        ([60, 0], [1.0, 1.0], "do not go back, got 0 s"),
        ([-60, 0], [1.0, 1.0], "do not go back, got -60 s"),
        ([60, 120], [1.0, np.nan], "finite values, got nan at 120 s"),
        ([60, 120], [np.inf, 1.0], "finite values, got inf at 60 s"),
        ([60], [1.0, 2.0], "as many times as values"),
    ],
)
def test_steps_that_make_no_sense_are_refused_and_nothing_is_learned(times: list[int], values: list[float], told: str) -> None:
    detector = Surge(SurgeConfig())
    detector.observe(np.array([0]), np.array([3.0]))
    before = copy.deepcopy(detector.snapshot())
    with pytest.raises(ValueError, match=told):
        detector.observe(np.array(times), np.array(values))
    assert detector.snapshot() == before


def test_steps_of_which_not_each_has_a_series_are_refused() -> None:
    detector = Surge(SurgeConfig(), 2)
    with pytest.raises(ValueError, match="and a series of each"):
        detector.observe(np.array([60, 60]), np.array([1.0, 2.0]), np.array([1]))
    assert detector.steps(0) == detector.steps(1) == 0


def test_a_snapshot_of_something_else_is_refused_whole() -> None:
    detector = Surge(SurgeConfig())
    detector.observe(*honest(1, 1))
    kept = detector.snapshot()
    damaged = copy.deepcopy(kept)
    damaged["state"]["tails"] = damaged["state"]["tails"][:1]
    missing = copy.deepcopy(kept)
    del missing["state"]["levels"]
    fresh = Surge(SurgeConfig())
    before = fresh.snapshot()
    for snapshot, told in (
        ({**kept, "version": 99}, "version 1, got 99"),
        ({**kept, "detector": "rate"}, "detector surge, got rate"),
        (Surge(SurgeConfig(delay_steps=21)).snapshot(), "config"),
        (damaged, "shape"),
        (missing, "levels"),
    ):
        with pytest.raises(StateError, match=told):
            fresh.restore(snapshot)
        assert fresh.snapshot() == before


def test_a_setting_out_of_its_bounds_names_its_path() -> None:
    with pytest.raises(ConfigError, match=r"300 to 86400, got 60 in detectors\.surge\.slot_s"):
        SurgeConfig(slot_s=60)
    with pytest.raises(ConfigError, match=r"a divisor of 86400, got 700 in detectors\.surge\.slot_s"):
        SurgeConfig(slot_s=700)
    with pytest.raises(ConfigError, match=r"detectors\.surge\.memory_steps"):
        SurgeConfig(memory_steps=float("nan"))


def test_the_example_in_the_docstring_prints_what_it_says() -> None:
    assert doctest.testmod(surge).failed == 0


def test_alarms_of_a_real_series_are_counted_in_the_week_they_fall_into() -> None:
    seconds = np.random.default_rng(3).poisson(2.0, 10 * 86_400)
    seconds[9 * 86_400 : 9 * 86_400 + 600] = 40
    weeks, told = alarms_by_week(seconds, 60)
    assert weeks == [0, len(told)]
    assert told[0].startswith("10 July 04:00 UTC: 2,400, where about 1")
