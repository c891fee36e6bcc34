"""Calibration: the limits give the rates that were asked for, from the past only, and what is saved goes on as it was."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from detectors.learning.calibration import CELL_S, DAY_S, Calibration, CalibrationConfig, cusum, fit_tail
from schemas.errors import StateError

ONE_A_DAY = CalibrationConfig(notify_per_day=1.0, act_per_day=1 / 90, start=20.0)


def realised(draw: str, seed: int, config: CalibrationConfig = ONE_A_DAY) -> tuple[float, float]:
    """Alarms a day at both limits, in the eight weeks after four of learning; each score is judged before it is learned."""
    calibration, chance = Calibration(config), np.random.default_rng(seed)
    alarms = [0, 0]
    for cell in range(4 * 84):
        scores = getattr(chance, draw)(*{"exponential": (2.0, 300), "pareto": (6.0, 300), "gamma": (3.0, 1.0, 300)}[draw])
        calibration.begin(cell * CELL_S)
        if cell >= 4 * 28:
            alarms[0] += int((scores > calibration.notify).sum())
            alarms[1] += int((scores > calibration.act).sum())
        calibration.observe(cell * CELL_S, CELL_S, scores)
    return alarms[0] / 56, alarms[1] / 56


@pytest.mark.parametrize("draw", ["exponential", "pareto", "gamma"])
def test_both_rates_are_what_was_asked_for_whatever_the_tail(draw: str) -> None:
    rates = np.array([realised(draw, seed) for seed in range(6)]).mean(axis=0)
    assert 0.6 < rates[0] < 1.5
    assert rates[1] < 0.06


def rates_of_partitions(partitions: int, seed: int) -> tuple[float, float]:
    """Alarms a day at both limits over all partitions, each of which learns alone from what falls to it."""
    share = replace(ONE_A_DAY, notify_per_day=1 / partitions, act_per_day=1 / 90 / partitions, shape_scores=240.0, margin=1.0)
    parts, chance, alarms = [Calibration(share) for _ in range(partitions)], np.random.default_rng(seed), [0, 0]
    for day in range(8 + 60):
        for calibration in parts:
            scores = chance.exponential(2.0, 960 // partitions)
            calibration.begin(day * DAY_S)
            if day >= 8:
                alarms[0] += int((scores > calibration.notify).sum())
                alarms[1] += int((scores > calibration.act).sum())
            calibration.observe(day * DAY_S, DAY_S, scores)
    return alarms[0] / 60, alarms[1] / 60


@pytest.mark.parametrize("partitions", [1, 16])
def test_partitions_that_learn_alone_give_together_what_was_asked_for(partitions: int) -> None:
    rates = np.array([rates_of_partitions(partitions, seed) for seed in range(4)]).mean(axis=0)
    assert 0.5 < rates[0] < 1.2
    assert rates[1] <= 4 / 90


def test_it_is_cold_then_only_notifies_and_acts_when_it_has_seen_a_week() -> None:
    calibration, chance = Calibration(ONE_A_DAY), np.random.default_rng(1)
    for cell in range(4 * 8):
        calibration.begin(cell * CELL_S)
        days = cell / 4
        assert calibration.cold == (days < 1)
        assert calibration.whole == (days >= 7)
        assert math.isinf(calibration.act) == (days < 7)
        assert calibration.notify >= (20.0 if days < 7 else 0.0)
        calibration.observe(cell * CELL_S, CELL_S, chance.exponential(1.0, 100))
    assert calibration.notify < 15


def test_a_day_of_attacks_is_no_normal_for_a_month_and_what_was_confirmed_is_taken_out() -> None:
    calibration, chance = Calibration(ONE_A_DAY), np.random.default_rng(1)
    for cell in range(4 * 20):
        calibration.observe(cell * CELL_S, CELL_S, chance.exponential(2.0, 200))
    before = (calibration.notify, calibration.act)
    calibration.observe(80 * CELL_S, CELL_S, np.full(5, 500.0))
    for _ in range(5):
        assert calibration.withdraw(500.0)
    assert not calibration.withdraw(500.0)
    calibration.begin(81 * CELL_S)
    assert (calibration.notify, calibration.act) == pytest.approx(before, rel=0.05)


def test_what_is_older_than_its_memory_is_forgotten() -> None:
    calibration = Calibration(replace(ONE_A_DAY, days=8))
    for cell in range(4 * 8):
        calibration.observe(cell * CELL_S, CELL_S, np.random.default_rng(cell).exponential(9.0, 100))
    high = calibration.notify
    for cell in range(4 * 8, 4 * 17):
        calibration.observe(cell * CELL_S, CELL_S, np.random.default_rng(cell).exponential(1.0, 100))
    assert calibration.notify < high / 3
    calibration.begin(100 * DAY_S)
    assert calibration.cold
    assert calibration.notify == 20.0


def test_what_is_saved_goes_on_as_it_was_and_what_does_not_fit_is_refused() -> None:
    one, other, chance = Calibration(ONE_A_DAY), Calibration(ONE_A_DAY), np.random.default_rng(5)
    scores = chance.gamma(2.0, 2.0, (4000, 3))
    for step, some in enumerate(scores):
        one.begin(1200 * step)
        if step == 2500:
            other.load(one.save())
        if step >= 2500:
            other.begin(1200 * step)
            assert (one.notify, one.act, one.tail) == (other.notify, other.act, other.tail)
            other.observe(1200 * step, 1200, some)
        one.observe(1200 * step, 1200, some)
    for broken in ({"scores": np.zeros((2, 2))}, {"limits": np.zeros(3)}, {"hour": None}):
        with pytest.raises(StateError, match="calibration"):
            other.load({**one.save(), **broken})


def test_a_tail_needs_scores_that_differ_and_tells_how_rare_one_is() -> None:
    assert fit_tail(np.ones(200), 10.0) is None
    assert fit_tail(np.arange(20.0), 10.0) is None
    tail = fit_tail(np.random.default_rng(1).exponential(1.0, 20_000), 100.0)
    assert tail is not None
    for rate in (0.5, 0.05, 0.005):
        assert tail.per_day(tail.limit(rate)) == pytest.approx(rate)


def test_sums_of_what_is_above_a_reference_find_what_is_small_and_lasts() -> None:
    held = np.zeros(1)
    for _ in range(30):
        held = cusum(held, np.array([1.5]), 1.0)
    assert held[0] == pytest.approx(15.0)
    for _ in range(100):
        held = cusum(held, np.array([0.2]), 1.0)
    assert held[0] == 0
