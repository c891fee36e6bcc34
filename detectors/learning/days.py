"""Whether a day is like others in what a slow campaign cannot hide: accounts that nobody uses, and more of them all day.

A campaign of a tenth that mimics people in everything but does not use its accounts raises the share of unused ones by six
points, where days differ by three. Shared out over many marks and windows that is nothing; looked at alone it is told within
the day. So two numbers of the last 24 hours are compared, at the end of each hour, with those of the 24 hours that ended at
the same time one day, two days … before, by a prediction limit (`detectors.learning.prediction`):

- the **share of unused accounts**, of those that became an hour old (`detectors.learning.uses`);
- the **number of registrations** all day long: of the logarithms of how many times the usual each hour has, the mean of the
  middle half. What brings many at once, a marketing mail or a lecture hall, is in few hours and does not move it; who wants
  a thousand accounts a day without an hour that stands out has to have a few in every hour.

Both are added up as z (Stouffer), the number for `NUMBER_MOST` at most, so that growth alone is not taken for a campaign of
unused accounts. Days follow each other too closely for hours to be looks of their own: a day's highest z exceeds the one of
a chance of 0.17 about every sixth day, which was measured (docs/models-registrations.md), so that the limit needs no past.

What is usual moves slowly, whoever pushes: a day is one of 21, and of the share counts as no further from their median than
`FAR` spreads, so that days of a campaign neither become usual nor hide the next one behind a spread that they made. Of the
number they count as they are, and 14 of them: a service that has grown is not told to have grown for months.

>>> days = Days()
>>> for hour in range(24 * 10):
...     share = 0.36 + 0.02 * (hour // 24 % 2)
...     days.add(360.0, 360.0, 360.0 * share, learned=True, parts=6)
...     days.end_hour()
>>> day = days.judge(3600 * hour)
>>> round(day.unused.value, 2), round(day.unused.usual, 2), day.score < 1
(0.38, 0.37, True)
>>> for hour in range(24 * 10, 24 * 11):
...     days.add(396.0, 396.0, 36 + 360.0 * 0.36, learned=True, parts=6)
...     days.end_hour()
>>> day = days.judge(3600 * hour)
>>> round(day.unused.value, 2), round(day.number.value, 2), day.score > 2
(0.42, 1.1, True)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.learning.levels import F64, HOUR_S, HOURS, MONDAY_DAY
from detectors.learning.prediction import Believed, predicted, within
from schemas.errors import StateError

DAYS = 21
"""With so many others a day is compared."""
NUMBER_DAYS = 14
"""With so many its number: what has grown is usual soon."""
DAYS_MIN = 5
ACCOUNTS_MIN = 100
"""Fewer accounts are no day."""
HOURS_MIN = 12
"""Nor are fewer hours of which the number may be learned."""
PARTS = 6
"""Of an hour, ten minutes each"""
UNUSED_BELIEVED, NUMBER_BELIEVED = Believed(0.03, 0.05), Believed(0.06, 0.4, 0.05)
FAR, SPREAD_LEAST = 3.0, 0.01
"""No day's share counts as further than so many spreads, and no spread as less."""
NUMBER_MOST, NUMBER_ALONE = 2.0, 0.75
"""The number's z counts as no more than this, and where it is not seen what accounts do for so much of itself."""
LOOKS = 1.8
"""Days that end an hour apart are much alike, and not the same: what is told is so many times what one look a day would
tell of. Measured."""
SAID_Z = 0.5
"""What has less is not worth a word."""
MADE, AGED, UNUSED, AGED_LEARNED, UNUSED_LEARNED, PARTS_LEARNED, COLUMNS = range(7)
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Compared:
    """A number of the last 24 hours with what is usual."""

    z: float
    """How far above it is, as the z that is as rare"""
    value: float
    usual: float


@dataclass(frozen=True, slots=True)
class Day:
    """What the last 24 hours are like."""

    unused: Compared | None
    """Of the accounts that became an hour old, the share that nobody used"""
    number: Compared | None
    """So many times the usual number"""

    @property
    def score(self) -> float:
        """How unlike others the day is, as a z."""
        if self.unused and self.number:
            return (self.unused.z + min(self.number.z, NUMBER_MOST)) / math.sqrt(2)
        return self.unused.z if self.unused else NUMBER_ALONE * self.number.z if self.number else 0.0

    @property
    def per_day(self) -> float:
        """How often a day people are told of what is like that."""
        return LOOKS * (1 - NormalDist().cdf(self.score))

    @property
    def said(self) -> str:
        """For people."""
        found = []
        if self.unused and self.unused.z >= SAID_Z:
            share, usual = (f"{one:.0%}".replace("%", " %") for one in (self.unused.value, self.unused.usual))
            found.append(f"accounts of a day that nobody uses: {share} where {usual} are usual")
        if self.number and self.number.z >= SAID_Z:
            found.append(f"{self.number.value / self.number.usual - 1:.0%}".replace("%", " %") + " more all day long")
        return ", ".join(found)

    @property
    def features(self) -> list[tuple[str, float]]:
        """For the evidence."""
        found = []
        for name, one in (("unused", self.unused), ("number", self.number)):
            if one is not None:
                found += [(f"z day_{name}", round(one.z, 2)), (f"day_{name}", round(one.value, 4))]
                found += [(f"day_{name}_usual", round(one.usual, 4))]
        return found


def day_limit(per_day: float) -> float:
    """The score that people are told from so often a day.

    >>> round(day_limit(0.18), 2), round(day_limit(0.06), 2)
    (1.28, 1.83)
    """
    return NormalDist().inv_cdf(1 - min(per_day / LOOKS, 0.5))


class Days:
    """Of one service, the hours of the last three weeks and a day."""

    def __init__(self) -> None:
        self.hours: F64 = np.zeros(((DAYS + 1) * HOURS, COLUMNS))
        """Registrations, accounts that grew an hour old, those of them that nobody used, the last two of what may be learned,
        and how many parts of the hour that is; newest last"""
        self._here: F64 = np.zeros(COLUMNS)

    def add(self, made: float, aged: float, unused: float, *, learned: bool, parts: int = 1) -> None:
        """Take in a part of an hour."""
        self._here += np.array([made, aged, unused, aged * learned, unused * learned, parts * learned])

    def end_hour(self) -> None:
        """The hour is over."""
        self.hours[:-1] = self.hours[1:]
        self.hours[-1], self._here = self._here, np.zeros(COLUMNS)

    def judge(self, tick: int) -> Day | None:
        """The 24 hours that end with ``tick``; None: too little is known of the accounts' use."""
        by_day = self.hours.reshape(DAYS + 1, HOURS, COLUMNS)
        hour = tick // HOUR_S - np.arange(self.hours.shape[0])[::-1].reshape(DAYS + 1, HOURS)
        weekend = (hour // HOURS - MONDAY_DAY) % 7 >= 5
        unused = _unused(by_day, weekend)
        number = _number(by_day, weekend)
        return None if unused is None and number is None else Day(unused, number)

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
            raise StateError(f"expected {COLUMNS} numbers of {len(self.hours)} hours, got {hours.shape}")
        self.hours, self._here = hours.copy(), here.copy()


def _unused(by_day: F64, weekend: Mask) -> Compared | None:
    """The share of unused accounts (f64[days, HOURS, COLUMNS], the last the one that is judged; bool[days, HOURS])."""
    accounts = by_day[:-1, :, AGED_LEARNED].sum(axis=1)
    now = float(by_day[-1, :, AGED].sum())
    known = accounts >= ACCOUNTS_MIN
    if known.sum() < DAYS_MIN or now < ACCOUNTS_MIN:
        return None
    accounts, before = accounts[known], by_day[:-1][known]
    shares = before[:, :, UNUSED_LEARNED].sum(axis=1) / accounts
    off = (before[:, :, AGED_LEARNED] * weekend[:-1][known]).sum(axis=1) / accounts
    off_now = float((by_day[-1, :, AGED] * weekend[-1]).sum()) / now
    usual = predicted(within(shares, FAR, SPREAD_LEAST), off, off_now, UNUSED_BELIEVED)
    # Of few accounts chance alone makes more, which is not in the spread of days that had many.
    fewer = max(0.0, 1 / now - float((1 / accounts).mean()))
    share = float(by_day[-1, :, UNUSED].sum()) / now
    return Compared(usual.z(share, fewer * usual.mean * (1 - usual.mean)), share, usual.mean)


def _number(by_day: F64, weekend: Mask) -> Compared | None:
    """How many times the usual number of registrations all of the day's hours have, and what days usually have."""
    made, whole = by_day[:, :, MADE], by_day[:, :, PARTS_LEARNED] >= PARTS
    whole[-1], whole[: DAYS - NUMBER_DAYS] = True, False
    known = (whole.sum(axis=1) >= HOURS_MIN) & ((made * whole).sum(axis=1) >= ACCOUNTS_MIN)
    if not known[-1] or known.sum() <= DAYS_MIN:
        return None
    made, whole, off = made[known], whole[known], weekend[known].mean(axis=1)
    days = whole[:-1].sum(axis=0)
    usual = (made[:-1] * whole[:-1]).sum(axis=0) / np.maximum(days, 1)
    times = np.log((made + 1) / (usual + 1))
    levels = np.array([_middle(of_day[counts]) for of_day, counts in zip(times, whole & (days > 0), strict=True)])
    same = (DAYS - np.flatnonzero(known)[:-1]) % 7 == 0
    expected = predicted(levels[:-1], off[:-1], float(off[-1]), NUMBER_BELIEVED, same)
    return Compared(expected.z(float(levels[-1])), math.exp(levels[-1]), math.exp(expected.mean))


def _middle(values: F64) -> float:
    """The mean of the middle half."""
    cut = len(values) // 4
    return float(np.sort(values)[cut : len(values) - cut].mean())
