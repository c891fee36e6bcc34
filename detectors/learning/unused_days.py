"""Whether more of a day's accounts are unused than of other days: one number, with a share of the alarms that is its own.

A campaign of a tenth that mimics people in everything but does not use its accounts raises the share of unused ones by six
points, where days differ by three. Shared out over many marks and windows that is nothing; looked at alone it is told within
the day. So the share of the accounts that became an hour old in the last 24 hours (`detectors.learning.uses`) is compared, at
the end of each hour, with that of the 24 hours that ended at the same time one day, two days … before.

Days are alike but for weekends, of whose own level is believed what they show and no more (a ridge). The distance of the day
from what is usual is that of a *new* value in the spread of so few (Student's t, and from there to the z that is as rare), to
which a binomial error is added where fewer accounts grew old than usual. Days follow each other too closely for hours to be
looks of their own: a day's highest z exceeds the one of a chance of 0.17 about every sixth day, which was measured
(docs/models-registrations.md), so that the limit needs no past.

What is usual moves slowly, whoever pushes: a day is one of 21, and counts as no further from their median than `FAR` spreads,
so that days of a campaign neither become usual nor hide the next one behind a spread that they made.

References: Patel, Prediction intervals – a review (1989); Wallace, Bounds on normal approximations to Student's and the
chi-square distributions (1959); Hampel, The influence curve and its role in robust estimation (1974).

>>> days = UnusedDays()
>>> for hour in range(24 * 10):
...     share = 0.36 + 0.02 * (hour // 24 % 2)
...     days.add(360.0, 360.0 * share, learned=True)
...     days.end_hour()
>>> day = days.judge(3600 * hour)
>>> round(day.share, 2), round(day.usual, 2), day.score < 1
(0.38, 0.37, True)
>>> for hour in range(24 * 10, 24 * 11):
...     days.add(396.0, 36 + 360.0 * 0.36, learned=True)
...     days.end_hour()
>>> day = days.judge(3600 * hour)
>>> round(day.share, 2), day.score > 1
(0.42, True)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from detectors.learning.levels import F64, HOUR_S, HOURS, MONDAY_DAY
from schemas.errors import StateError

DAYS = 21
"""With so many others a day is compared."""
DAYS_MIN = 5
ACCOUNTS_MIN = 100
"""Fewer accounts are no day."""
SPREAD, SPREAD_DAYS = 0.03, 3.0
"""Believed of the standard deviation from day to day, as if so many days had shown it."""
WEEKEND = 0.05
"""The standard deviation of how much weekends of services differ from their working days."""
FAR = 3.0
"""No day counts as further than so many spreads from the median of days …"""
SPREAD_LEAST = 0.01
"""… whose spread is not taken for less than this."""
_NORMAL_MAD = 1.4826
AGED, UNUSED, AGED_LEARNED, UNUSED_LEARNED = range(4)


@dataclass(frozen=True, slots=True)
class Day:
    """What the last 24 hours are like."""

    score: float
    """How far more are unused than usual, as the z that is as rare"""
    share: float
    """Of the accounts that became an hour old, so many nobody used"""
    usual: float

    @property
    def per_day(self) -> float:
        """How often a day is like that."""
        return 1 - NormalDist().cdf(self.score)

    @property
    def said(self) -> str:
        """For people."""
        return f"accounts of a day that nobody uses: {self.share:.0%} where {self.usual:.0%} are usual".replace("%", " %")


def day_limit(per_day: float) -> float:
    """The score that is exceeded on so many days.

    >>> round(day_limit(0.15), 2), round(day_limit(0.05), 2)
    (1.04, 1.64)
    """
    return NormalDist().inv_cdf(1 - min(per_day, 0.5))


class UnusedDays:
    """Of one service, the accounts of each hour of the last three weeks and a day."""

    def __init__(self) -> None:
        self.hours: F64 = np.zeros(((DAYS + 1) * HOURS, 4))
        """Accounts that grew an hour old, those of them that nobody used, and the same of what may be learned; newest last"""
        self._here: F64 = np.zeros(4)

    def add(self, aged: float, unused: float, *, learned: bool) -> None:
        """Take in a part of an hour."""
        self._here += np.array([aged, unused, aged * learned, unused * learned])

    def end_hour(self) -> None:
        """The hour is over."""
        self.hours[:-1] = self.hours[1:]
        self.hours[-1], self._here = self._here, np.zeros(4)

    def judge(self, tick: int) -> Day | None:
        """The 24 hours that end with ``tick``; None: too little is known."""
        by_day = self.hours.reshape(DAYS + 1, HOURS, 4)
        hour = tick // HOUR_S - np.arange(self.hours.shape[0])[::-1].reshape(DAYS + 1, HOURS)
        weekend = (hour // HOURS - MONDAY_DAY) % 7 >= 5
        accounts = by_day[:-1, :, AGED_LEARNED].sum(axis=1)
        now = float(by_day[-1, :, AGED].sum())
        known = accounts >= ACCOUNTS_MIN
        if known.sum() < DAYS_MIN or now < ACCOUNTS_MIN:
            return None
        accounts, before = accounts[known], by_day[:-1][known]
        shares = before[:, :, UNUSED_LEARNED].sum(axis=1) / accounts
        off = (before[:, :, AGED_LEARNED] * weekend[:-1][known]).sum(axis=1) / accounts
        off_now = float((by_day[-1, :, AGED] * weekend[-1]).sum()) / now
        usual, variance, freedom = _predicted(_within(shares), off, off_now)
        # Of few accounts chance alone makes more, which is not in the spread of days that had many.
        fewer = 1 / now - float((1 / accounts).mean())
        variance += max(0.0, fewer) * usual * (1 - usual)
        share = float(by_day[-1, :, UNUSED].sum()) / now
        return Day(_as_rare((share - usual) / math.sqrt(variance), freedom), share, usual)

    def save(self) -> list[Any]:
        """Arrays for `load`."""
        return [self.hours.copy(), self._here.copy()]

    def load(self, data: list[Any]) -> None:
        """Take over what `save` gave.

        Raises:
            StateError: it is of other days.
        """
        hours, here = data
        if hours.shape != self.hours.shape or here.shape != self._here.shape:
            raise StateError(f"expected accounts of {len(self.hours)} hours, got {hours.shape}")
        self.hours, self._here = hours.copy(), here.copy()


def _within(shares: F64) -> F64:
    """What is further from the median than `FAR` spreads counts as so far."""
    middle = float(np.median(shares))
    spread = max(_NORMAL_MAD * float(np.median(np.abs(shares - middle))), SPREAD_LEAST)
    return np.clip(shares, middle - FAR * spread, middle + FAR * spread)


def _predicted(shares: F64, off: F64, off_now: float) -> tuple[float, float, float]:
    """What a new day is expected to be like, the variance of that, and its degrees of freedom.

    Args:
        shares: f64[days]
        off: f64[days], how much of each was weekend.
        off_now: the same of the new one.
    """
    days = len(shares)
    middle, mean = float(off.mean()), float(shares.mean())
    apart, spread = off - middle, SPREAD * SPREAD
    freedom = days - 1 + SPREAD_DAYS
    # How far weekends are believed hangs on the spread, and the spread on that; it settles at once.
    for _ in range(3):
        precision = float((apart * apart).sum()) + spread / WEEKEND**2
        slope = float((apart * (shares - mean)).sum()) / precision
        left = shares - mean - slope * apart
        spread = (float((left * left).sum()) + SPREAD_DAYS * SPREAD**2) / freedom
    variance = spread * (1 + 1 / days + (off_now - middle) ** 2 / precision)
    return mean + slope * (off_now - middle), variance, freedom


def _as_rare(distance: float, freedom: float) -> float:
    """The z that is as rare as Student's t (Wallace)."""
    length = math.sqrt(freedom * math.log1p(distance * distance / freedom)) * (8 * freedom + 1) / (8 * freedom + 3)
    return math.copysign(length, distance)
