"""The share of a day's accounts that nobody uses: what is told of it, how often for no reason, and that it cannot be pushed."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.learning.levels import F64, HOURS
from detectors.learning.unused_days import AGED, DAYS, UnusedDays, day_limit
from drills.run import START_S
from engine.crossing import Crossing
from engine.registrants import DAY_SHARE, EPISODE_STEPS
from schemas.errors import StateError
from tests.test_registrations import arm, flat, play, stream

LIMIT = day_limit(DAY_SHARE)
PER_HOUR, USED, SPREAD = 360, 0.64, 0.03


def weeks(seed: int, days: int, hostile: F64 | None = None) -> list[float]:
    """The score of each hour of days that differ as people's do; ``hostile``: of each hour, accounts that nobody uses."""
    chance, unused, scores = np.random.default_rng(seed), UnusedDays(), []
    for hour in range(HOURS * days):
        if hour % HOURS == 0:
            share = USED + SPREAD * float(chance.standard_normal()) - 0.04 * (hour // HOURS % 7 >= 5)
        count, more = int(chance.poisson(PER_HOUR)), 0.0 if hostile is None else float(hostile[hour])
        unused.add(count + more, count - chance.binomial(count, share) + more, learned=True)
        unused.end_hour()
        day = unused.judge(START_S + 3600 * hour + 3599)
        scores.append(-9.0 if day is None else day.score)
    return scores


def episodes(scores: list[float]) -> int:
    """How often people are told: what comes again within six hours is the same."""
    over = np.flatnonzero(np.array(scores) >= LIMIT)
    return int(len(over) > 0) + int((np.diff(over) > 6).sum())


def test_a_tenth_more_that_nobody_uses_is_told_within_a_day_and_days_alone_are_told_as_often_as_was_allowed() -> None:
    first, days = 10, 24
    alarms = sum(episodes(weeks(seed, days)[HOURS * first :]) for seed in range(12)) / (12 * (days - first))
    assert 0.08 <= alarms <= 0.25
    found = 0
    for seed in range(100, 140):
        hostile = np.zeros(HOURS * (first + 1))
        hostile[HOURS * first :] = 0.1 * PER_HOUR
        found += max(weeks(seed, first + 1, hostile)[HOURS * first :]) >= LIMIT
    assert found >= 28


def test_nothing_is_said_before_five_days_are_known() -> None:
    scores = weeks(1, 7)
    assert max(scores[: HOURS * 5]) == -9.0
    assert min(scores[HOURS * 6 :]) > -9.0


def test_who_adds_one_percent_a_day_is_told_all_the_time_and_does_not_hide_an_attack() -> None:
    first, days = 20, 80
    ramp = PER_HOUR * 0.01 * np.maximum(0, np.arange(HOURS * days) // HOURS - first)
    ramp[HOURS * (days - 1) :] += 0.4 * PER_HOUR
    for seed in range(2):
        over = np.array(weeks(seed, days, ramp)[HOURS * first :]) >= LIMIT
        assert over.mean() >= 0.4
        assert over[-1]


def test_days_of_a_campaign_do_not_hide_the_next_one() -> None:
    hostile = np.zeros(HOURS * 24)
    hostile[HOURS * 14 : HOURS * 17], hostile[HOURS * 23 :] = PER_HOUR, 0.3 * PER_HOUR
    for seed in range(5):
        scores = weeks(seed, 24, hostile)
        assert max(scores[HOURS * 14 : HOURS * 15]) > 3 * LIMIT
        assert max(scores[HOURS * 23 :]) >= LIMIT


def test_hours_that_may_not_be_learned_are_judged_and_left_out_of_what_is_usual() -> None:
    unused = UnusedDays()
    for hour in range(HOURS * 12):
        frozen = hour // HOURS == 8
        unused.add(100.0, 90.0 if frozen else 36.0, learned=not frozen)
        unused.end_hour()
        day = unused.judge(3600 * hour)
        if hour == HOURS * 9 - 1:
            assert day is not None
            assert (day.share, round(day.usual, 6)) == (0.9, 0.36)
    assert day is not None
    assert (day.share, round(day.usual, 6)) == (0.36, 0.36)


def history(days: UnusedDays, share: float, last: float) -> None:
    """As if there had been three weeks, and a day but for an hour."""
    days.hours[:] = (400.0, 400.0 * share, 400.0, 400.0 * share)
    days.hours[::48, 1::2] += 3.0
    days.hours[-HOURS + 1 :] = (440.0, 440.0 * last, 440.0, 440.0 * last)


def told_at(share: float) -> list[Crossing]:
    """What is told after hours at whose end so many of a day's accounts are unused."""
    one, random = stream(), np.random.default_rng(3)
    arm(one)
    history(one.days, 0.36, share)
    return play(one, random, 2 * EPISODE_STEPS)


def test_people_are_told_once_and_of_what() -> None:
    assert told_at(0.36) == []
    (told,) = told_at(0.4)
    assert told.rule.action == "notify"
    assert told.rule.window_s == 86_400
    assert told.reason.endswith("what stands out: accounts of a day that nobody uses: 40 % where 36 % are usual")
    said = dict(told.features)
    assert float(said["score"]) >= float(said["notify_limit"]) == round(LIMIT, 2)
    assert (said["day_unused"], said["cold"]) == (0.4, 1)
    assert 0 < float(said["per_day"]) < DAY_SHARE


def test_wherever_it_is_saved_it_goes_on_the_same_and_limits_are_shared_out_alike() -> None:
    one, other = stream(), stream()
    history(one.days, 0.36, 0.43)
    play(one, np.random.default_rng(4), EPISODE_STEPS + 7)
    other.load(one.save())
    assert other.limits[1].config == one.limits[1].config != stream().limits[1].config
    random, again = np.random.default_rng(5), np.random.default_rng(5)
    assert play(one, random, EPISODE_STEPS) == play(other, again, EPISODE_STEPS)
    assert flat(one.save()) == flat(other.save())


def test_days_of_other_lengths_are_refused() -> None:
    saved = UnusedDays().save()
    assert saved[0].shape == (HOURS * (DAYS + 1), AGED + 4)
    with pytest.raises(StateError, match="expected accounts of 528 hours, got"):
        UnusedDays().load([saved[0][1:], saved[1]])
