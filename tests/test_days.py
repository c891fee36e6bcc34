"""What days are like: what is told of that, how often for no reason, and that it cannot be pushed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detectors.learning.days import COLUMNS, DAYS, Days, day_limit
from detectors.learning.episodes import RARER, Episode
from detectors.learning.levels import F64, HOURS
from drills.run import START_S
from engine.crossing import Crossing
from engine.registrants import DAY_SHARE, EPISODE_STEPS
from schemas.errors import StateError
from tests.test_registrations import arm, flat, known, play, stream

LIMIT = day_limit(DAY_SHARE)
PER_HOUR, USED, SPREAD, DRIFT = 360, 0.64, 0.03, 0.08


def weeks(
    seed: int,
    days: int,
    hostile: F64 | None = None,
    *,
    people: F64 | None = None,
    linked: bool = True,
    used: float = 0.0,
    first: int = 0,
) -> list[float]:
    """The score of each hour of days that differ as people's do.

    Args:
        hostile: of each hour, accounts beside people's, of which a share of ``used`` is used.
        people: of each hour, how many times the usual number come.
        linked: whether it is seen what accounts do.
        first: nobody looks before this day.
    """
    chance, days_seen, scores = np.random.default_rng(seed), Days(), []
    for hour in range(HOURS * days):
        if hour % HOURS == 0:
            share = USED + SPREAD * float(chance.standard_normal()) - 0.04 * (hour // HOURS % 7 >= 5)
        busy = PER_HOUR * (1 - 0.4 * (hour // HOURS % 7 >= 5)) * float(np.exp(DRIFT * chance.standard_normal()))
        count = int(chance.poisson(busy * (1.0 if people is None else people[hour])))
        more = 0.0 if hostile is None else float(hostile[hour])
        unused = count - chance.binomial(count, share) + more * (1 - used)
        days_seen.add(count + more, (count + more) * linked, unused * linked, learned=True, parts=6)
        days_seen.end_hour()
        day = days_seen.judge(START_S + 3600 * hour + 3599) if hour >= HOURS * first else None
        scores.append(-9.0 if day is None else day.score)
    return scores


def episodes(scores: list[float]) -> int:
    """How often people are told: what comes again within six hours is the same."""
    over = np.flatnonzero(np.array(scores) >= LIMIT)
    return int(len(over) > 0) + int((np.diff(over) > 6).sum())


def found(first: int, *, share: float = 0.1, **how: Any) -> float:
    """Of campaigns of a day, so many are at the limit within it."""
    hostile = np.zeros(HOURS * (first + 1))
    hostile[HOURS * first :] = share * PER_HOUR
    return float(
        np.mean(
            [max(weeks(seed, first + 1, hostile, first=first, **how)[HOURS * first :]) >= LIMIT for seed in range(100, 130)]
        )
    )


def test_a_tenth_more_that_nobody_uses_is_told_within_a_day_and_days_alone_are_told_as_often_as_was_allowed() -> None:
    first, days = 10, 24
    for linked, least, most in ((True, 0.04, 0.2), (False, 0.01, 0.2)):
        alarms = sum(episodes(weeks(seed, days, linked=linked, first=first)[HOURS * first :]) for seed in range(8)) / (
            8 * (days - first)
        )
        assert least <= alarms <= most
    assert found(first) >= 0.9
    assert found(first, used=USED) >= 0.4, "by its number alone, if its accounts are used as people's are"
    assert found(first, linked=False) >= 0.5


def test_many_at_once_are_no_campaign() -> None:
    """A mailing brings twelve times the usual number for an hour, a conference twice as many for five hours."""
    for at, hours, times in ((9, 1, 12.0), (13, 5, 2.0)):
        people = np.ones(HOURS * 12)
        people[HOURS * 10 + at : HOURS * 10 + at + hours] = times
        calm = [episodes(weeks(seed, 12, first=10)[HOURS * 10 :]) for seed in range(16)]
        busy = [episodes(weeks(seed, 12, people=people, first=10)[HOURS * 10 :]) for seed in range(16)]
        assert sum(busy) <= sum(calm) + 2


def test_a_service_that_has_grown_is_told_as_often_as_others_two_weeks_later() -> None:
    people = np.ones(HOURS * 40)
    people[HOURS * 14 :] = 1.5
    assert episodes(weeks(1, 17, people=people, first=14)[HOURS * 14 :]) >= 1
    assert sum(episodes(weeks(seed, 38, people=people, first=28)[HOURS * 28 :]) for seed in range(10)) / (10 * 10) <= 0.25


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
    days = Days()
    for hour in range(HOURS * 12):
        frozen = hour // HOURS == 8
        count = 150.0 if frozen else 100.0
        days.add(count, count, (0.9 if frozen else 0.36) * count, learned=not frozen, parts=6)
        days.end_hour()
        day = days.judge(3600 * hour)
        if hour == HOURS * 9 - 1:
            assert day is not None
            assert day.unused is not None
            assert day.number is not None
            assert (day.unused.value, round(day.unused.usual, 6)) == (0.9, 0.36)
            assert (round(day.number.value, 2), round(day.number.usual, 6)) == (1.5, 1.0)
    assert day is not None
    assert day.unused is not None
    assert day.number is not None
    assert (day.unused.value, round(day.unused.usual, 6)) == (0.36, 0.36)
    assert (day.number.value, day.number.usual) == (1.0, 1.0)


def test_who_goes_on_after_hours_that_are_missing_is_not_told_to_be_more() -> None:
    days = Days()
    for hour in range(HOURS * 12):
        missing = HOURS * 10 < hour < HOURS * 10 + 6
        days.add(*(3 * [0.0] if missing else [100.0, 100.0, 36.0]), learned=True, parts=6)
        days.end_hour()
        day = days.judge(3600 * hour)
        assert day is None or abs(day.score) < 0.5


def test_what_has_become_ten_times_rarer_is_told_again_within_an_episode() -> None:
    episode = Episode(36)
    assert episode.tells(100, 0.1)
    assert not episode.tells(106, 0.1 / (RARER - 1))
    assert episode.tells(112, 0.1 / RARER)
    saved = Episode(36)
    saved.load(episode.save())
    assert saved == episode
    assert not saved.tells(118, 0.1 / RARER)
    assert saved.tells(118 + 37, 0.1)
    once = Episode(36, again=False)
    assert [once.tells(100 + step, 10.0**-step) for step in range(3)] == [True, False, False]
    assert [Episode(36).tells(100, None), episode.tells(300, None), episode.tells(301, 1e-9)] == [True, True, False]


def history(days: Days, share: float, last: float, *, number: float = 400.0) -> None:
    """As if there had been three weeks, and a day but for an hour."""
    days.hours[:] = (400.0, 400.0, 400.0 * share, 400.0, 400.0 * share, 6)
    days.hours[::48, [2, 4]] += 3.0
    days.hours[-HOURS + 1 :] = (number, 440.0, 440.0 * last, 440.0, 440.0 * last, 6)


def told_at(share: float, number: float = 400.0) -> list[Crossing]:
    """What is told after hours at whose end so many of a day's accounts are unused."""
    one, random = stream(), np.random.default_rng(3)
    arm(one)
    history(one.days, 0.36, share, number=number)
    return play(one, random, 2 * EPISODE_STEPS)


def test_people_are_told_once_and_of_what() -> None:
    assert told_at(0.36) == []
    (told,) = told_at(0.41)
    assert told.rule.action == "notify"
    assert told.rule.window_s == 86_400
    assert told.reason.endswith("what stands out: accounts of a day that nobody uses: 41 % where 36 % are usual")
    said = dict(told.features)
    assert float(said["score"]) >= float(said["notify_limit"]) == round(LIMIT, 2)
    assert (said["day_unused"], said["cold"]) == (0.41, 1)
    assert 0 < float(said["per_day"]) < DAY_SHARE
    (told,) = told_at(0.38, 440.0)
    assert told.reason.endswith(
        "what stands out: accounts of a day that nobody uses: 38 % where 36 % are usual, 10 % more all day long"
    )
    said = dict(told.features)
    assert (round(float(said["day_number"]), 2), said["day_number_usual"]) == (1.1, 1.0)
    assert float(said["z day_number"]) > float(said["z day_unused"]) > 0


def test_a_day_that_becomes_far_rarer_is_told_again_and_one_that_goes_on_is_not() -> None:
    one, random = stream(), np.random.default_rng(3)
    arm(one)
    history(one.days, 0.36, 0.41)
    assert len(play(one, random, 2 * EPISODE_STEPS)) == 1
    one.days.hours[-HOURS:, [2, 4]] = 440.0 * 0.5
    (again,) = play(one, random, 2 * EPISODE_STEPS)
    assert "that nobody uses: 55 % where 36 % are usual" in again.reason


def test_what_the_slow_model_does_not_tell_because_it_goes_on_does_not_keep_the_day_from_being_told() -> None:
    one, random = stream(), np.random.default_rng(3)
    arm(one)
    history(one.days, 0.36, 0.41)
    one.limits[1] = known(-100.0, 100.0)
    one._episodes[1].tells(one.step - 1, None)
    (told,) = [notice for notice in play(one, random, EPISODE_STEPS) if notice.rule.window_s == 86_400]
    assert "accounts of a day that nobody uses" in told.reason


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
    saved = Days().save()
    assert saved[0].shape == (HOURS * (DAYS + 1), COLUMNS)
    with pytest.raises(StateError, match="expected 6 numbers of 528 hours, got"):
        Days().load([saved[0][1:], saved[1]])
