"""Calibration: from which score on one is told, from past scores only.

A limit that is chosen on the traffic it is tried on is a promise that nobody keeps. Here the highest scores of each day of the
past are remembered, a tail is fitted to the highest of them (peaks over a threshold: a generalised Pareto tail by
probability-weighted moments, its shape drawn to the one that such scores are known to have), and read off at two rates:
``notify``, so many a day that people can look at, and ``act``, far rarer than what has been seen, which is what a tail is for.
It goes on for ever: days that are older than ``days`` are forgotten, and there are never more than a score a target and *cell*
(`CELL_S`), because what lasts is one alarm. It holds what was told, too: without it every alarm would make the next one
likelier. What an operator confirms as an attack is taken out again (`withdraw`).

Where it fails: what comes once in 90 days over 16 partitions comes once in four years in each, and nobody can read that off 28
days. There the shape is what is trusted, not the past: it is an assumption, and of other scores another one.

Before ``known_days`` it is *cold*: it notifies from ``start`` on and never acts. Before ``whole_days`` it does not act, and
does not notify below ``start``.

>>> random = np.random.default_rng(3)
>>> calibration = Calibration(CalibrationConfig(notify_per_day=1.0, act_per_day=1 / 90, start=20.0))
>>> calibration.cold, calibration.notify, calibration.act
(True, 20.0, inf)
>>> for cell in range(4 * 28):
...     calibration.observe(CELL_S * cell, CELL_S, random.exponential(2.0, 250))
>>> calibration.cold, round(calibration.notify, 1), round(calibration.act, 1)
(False, 13.8, 24.0)

The truth is 2 ln(1000) = 13.8 and 2 ln(90,000) = 22.8.

References: Pickands, Statistical inference using extreme order statistics (1975); Hosking and Wallis, Parameter and quantile
estimation for the generalized Pareto distribution (1987); Siffer et al., Anomaly Detection in Streams with Extreme Value
Theory (2017); Patel, Prediction intervals – a review (1989); Page, Continuous Inspection Schemes (1954).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.columns import I64
from schemas.errors import StateError

F64 = npt.NDArray[np.float64]

HOUR_S, DAY_S = 3600, 86_400
CELL_S = 6 * HOUR_S
"""Of a target one score counts in each cell of this length, its highest: what lasts longer is told again."""
TAIL_SCORES = 60
"""The tail is fitted to at most so many of the highest scores, and to at most a quarter of all."""
TAIL_SCORES_MIN = 8
"""Fewer say nothing of a tail."""
SHAPE_SCORES = 60.0
"""The shape of a tail is halfway between what so many scores say and the one that was expected …"""
SHAPE_RANGE = (-0.1, 0.3)
"""… of which what they say counts for no more than this below and above."""
MOST = 1e300
"""Stands for an infinite limit where numbers are saved."""
NOTHING = -1.0
"""Where no score is kept."""


@dataclass(frozen=True, slots=True)
class CalibrationConfig:
    """What is asked of scores."""

    notify_per_day: float
    """So many alarms of one judge partition: the service's divided by the number of partitions."""
    act_per_day: float
    start: float
    """The limit before anything is known."""
    least: float = 0.0
    """No limit is ever lower."""
    days: int = 28
    """So many days of the past count."""
    day_scores: int = 32
    """Of each day so many of the highest scores are kept: an afternoon of attacks is no month's normal."""
    known_days: float = 1.0
    whole_days: float = 7.0
    shape: float = 0.0
    """The shape that tails of such scores are known to have; 0: exponential."""
    shape_scores: float = SHAPE_SCORES
    """It counts for so many scores."""
    margin: float = 0.0
    """1: limits lie higher by what is not known of the scale (see `fit_tail`), so that alarms are no more than was asked for
    *on average over many partitions*, of which each has little to go by; 0: they lie where they are likeliest."""

    def __post_init__(self) -> None:
        assert 0 < self.act_per_day <= self.notify_per_day
        assert self.day_scores >= TAIL_SCORES_MIN
        assert 0 < self.known_days <= self.whole_days < self.days


@dataclass(frozen=True, slots=True)
class Tail:
    """How often a score is exceeded, as far out as one asks."""

    scores: int
    """So many …"""
    days: float
    """… in so long are above …"""
    above: float
    """… this."""
    scale: float
    shape: float

    def limit(self, per_day: float) -> float:
        """The score that is exceeded so often."""
        ratio = self.scores / (self.days * per_day)
        if abs(self.shape) < 1e-6:
            return self.above + self.scale * math.log(ratio)
        return self.above + self.scale * (math.pow(ratio, self.shape) - 1) / self.shape

    def per_day(self, score: float) -> float:
        """How often a score is exceeded; below ``above`` at least so often."""
        over = max(0.0, score - self.above) / self.scale
        if abs(self.shape) < 1e-6:
            return self.scores / self.days * math.exp(-over)
        inner = 1 + self.shape * over
        return 0.0 if inner <= 0 else self.scores / self.days * math.pow(inner, -1 / self.shape)


def fit_tail(
    scores: F64, days: float, expected: float = 0.0, weight: float = SHAPE_SCORES, margin: float = 0.0
) -> Tail | None:  # fmt: skip
    """A tail through the highest of some scores, seen in so many days; None: they are too few, or all the same.

    A limit far beyond what was seen follows the scale, which few scores tell badly: as many limits lie too low as too high, but
    one that is too low lets through far more than one too high holds back. Where ``n`` exponential excesses were seen, the next
    one is distributed as a Pareto tail of shape 1/n and of the mean of those. That is the margin: a tail is heavier by 1/n.

    Args:
        expected: the shape that counts for ``weight`` scores.
        margin: how much of the 1/n is added.
    """
    count = min(TAIL_SCORES, len(scores) // 4)
    if count < TAIL_SCORES_MIN:
        return None
    highest = np.sort(scores)[::-1][: count + 1]
    above, excess = float(highest[count]), highest[:count][::-1] - highest[count]
    mean = float(excess.mean())
    if mean <= 0:
        return None
    # The mean of the excess, weighed by the chance to be exceeded (Hosking and Wallis), of which shape and scale follow.
    exceeded = 1 - (np.arange(1, count + 1) - 0.35) / count
    weighed = float((exceeded * excess).mean())
    low, high = (expected + apart for apart in SHAPE_RANGE)
    shape = 2 - mean / (mean - 2 * weighed) if mean > 2 * weighed else high
    shape = (count * min(max(shape, low), high) + weight * expected) / (count + weight)
    return Tail(count, days, above, mean * (1 - shape), shape + margin / count)


def cusum(before: F64, scores: F64, reference: float, most: float = 1e6) -> F64:
    """f64[n]: the sums of what scores had above a reference, which never fall below nought (Page 1954).

    Args:
        before: f64[n], the sums so far.
        most: they never grow above it, so that what is over is over.

    >>> cusum(np.array([0.0, 2.0, 9.0]), np.array([1.0, 3.0, 5.0]), 2.0, 10.0).tolist()
    [0.0, 3.0, 10.0]
    """
    found: F64 = np.clip(before + scores - reference, 0.0, most)
    return found


@dataclass(slots=True)
class Calibration:
    """The limits of one score in one judge partition."""

    config: CalibrationConfig
    notify: float = field(init=False)
    """From here on people are told."""
    act: float = field(init=False)
    """From here on something may be done by itself; infinite before enough is known."""
    tail: Tail | None = field(init=False, default=None)
    _scores: F64 = field(init=False)
    """f64[days, day_scores]: of each day the highest, falling"""
    _day: I64 = field(init=False)
    """i64[days]: which day; -1: none"""
    _seconds: I64 = field(init=False)
    """i64[days]: how much of it was seen"""
    _hour: int = field(init=False, default=-1)

    def __post_init__(self) -> None:
        config = self.config
        self.notify, self.act = config.start, math.inf
        self._scores = np.full((config.days, config.day_scores), NOTHING)
        self._day = np.full(config.days, -1, np.int64)
        self._seconds = np.zeros(config.days, np.int64)

    @property
    def days(self) -> float:
        """How much of the past it knows."""
        return float(self._seconds.sum()) / DAY_S

    @property
    def cold(self) -> bool:
        """It does not know enough to say how rare a score is."""
        return self.tail is None or self.days < self.config.known_days

    @property
    def whole(self) -> bool:
        """It knows enough to act."""
        return not self.cold and self.days >= self.config.whole_days

    def begin(self, tick: int) -> None:
        """Before scores of a step that ends at ``tick`` are judged: once an hour the limits are read off anew, of what was
        observed before."""
        if tick // HOUR_S == self._hour:
            return
        self._hour = tick // HOUR_S
        self._forget(tick // DAY_S)
        self._read_off()

    def observe(self, tick: int, seconds: int, scores: F64) -> None:
        """Take in scores after so many more seconds were seen: of each target its highest of a cell that ended at ``tick``."""
        self.begin(tick)
        place = self._place(tick // DAY_S)
        self._seconds[place] += seconds
        row = self._scores[place]
        above = scores[scores > row[-1]]
        if len(above):
            row[:] = np.sort(np.concatenate([row, above]))[::-1][: len(row)]

    def withdraw(self, score: float) -> bool:
        """Take a score out again: it was an attack's. Whether it was there."""
        where = np.argwhere(self._scores == score)
        if not len(where):
            return False
        place, at = where[0].tolist()
        row = self._scores[place]
        row[at:-1], row[-1] = row[at + 1 :].copy(), NOTHING
        self._hour = -1
        return True

    def per_day(self, score: float) -> float | None:
        """How often such a score is usual in this partition; None: not known."""
        return None if self.tail is None else self.tail.per_day(score)

    def _place(self, day: int) -> int:
        place = day % self.config.days
        if self._day[place] != day:
            self._day[place], self._seconds[place] = day, 0
            self._scores[place] = NOTHING
        return place

    def _forget(self, day: int) -> None:
        old = (self._day >= 0) & (self._day <= day - self.config.days)
        self._day[old], self._seconds[old] = -1, 0
        self._scores[old] = NOTHING

    def _read_off(self) -> None:
        config = self.config
        self.tail = None
        if self.days:
            scores = self._scores[self._scores > NOTHING]
            self.tail = fit_tail(scores, self.days, config.shape, config.shape_scores, config.margin)
        if self.tail is None or self.days < config.known_days:
            self.notify, self.act = config.start, math.inf
            return
        least = config.least if self.whole else config.start
        self.notify = max(self.tail.limit(config.notify_per_day), least)
        self.act = max(self.tail.limit(config.act_per_day), self.notify) if self.whole else math.inf

    def save(self) -> dict[str, Any]:
        """Arrays for `load`."""
        tail = self.tail
        limits = [self.notify, min(self.act, MOST)]
        limits += [] if tail is None else [tail.scores, tail.days, tail.above, tail.scale, tail.shape]
        return {
            "scores": self._scores.copy(), "day": self._day.copy(), "seconds": self._seconds.copy(), "hour": self._hour,
            "limits": np.array(limits, np.float64),
        }  # fmt: skip

    def load(self, data: dict[str, Any]) -> None:
        """Take over what `save` gave.

        Raises:
            StateError: it is of another length, or not of numbers; nothing of it was taken.
        """
        for name, array in (("scores", self._scores), ("day", self._day), ("seconds", self._seconds)):
            came = data.get(name)
            if not isinstance(came, np.ndarray) or came.dtype != array.dtype or came.shape != array.shape:
                raise StateError(
                    f"expected numbers of the shape {array.shape} in the saved {name} of a calibration, got others"
                )
        limits = data.get("limits")
        if not isinstance(limits, np.ndarray) or limits.dtype != np.float64 or limits.shape not in ((2,), (7,)):
            raise StateError("expected 2 or 7 limits in a saved calibration, got others")
        if not np.isfinite(data["scores"]).all() or not np.isfinite(limits).all() or not isinstance(data.get("hour"), int):
            raise StateError("expected finite scores, limits and an hour in a saved calibration, got others")
        self._scores, self._day, self._seconds = (data[name].copy() for name in ("scores", "day", "seconds"))
        self._hour = data["hour"]
        notify, act, *tail = limits.tolist()
        self.notify, self.act = notify, math.inf if act == MOST else act
        self.tail = Tail(int(tail[0]), *tail[1:]) if tail else None
