"""How unlike itself a stream of registrations is at the moment: many streams at once, ten seconds a step. Pure arithmetic.

A step is a row of sums: how many registered, how many tried, and for each *mark* of a registration its sum and the sum of its
squares. Nothing is a share before windows are closed, so that windows of 10 s, 60 s and 10 min are differences of running
sums. Of each window and mark this makes a *pivot*, (sum - n * mean) / sqrt(n * variance + 1): how far the mark is from what
this stream's registrations usually have, measured by what chance makes of so many. Of the count it is the same for the square
root, against a seasonal rate that the last hours correct. Pivots become signed z by `Levels`, which knows what they usually
do at this hour. Signed z are added up over marks; what is small and steady shows in a CUSUM of them, with the rest of each
step left out that chance explains. The score is the largest of the sums over windows and the CUSUM, each in its own usual
spread.

What is learned is learned ten minutes late, and not at all from minutes that were suspicious by then, or in which others found
something.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np

from detectors.learning.calibration import cusum
from detectors.learning.levels import F64, HOUR_S, SEASONS, Levels, LevelsConfig, season_of
from schemas.columns import I64
from schemas.errors import StateError

STEP_S = 10
DAY_S = 86_400


class Base(IntEnum):
    """What a mark is a property of: sums of it are divided by so many."""

    MADE = 0
    """Registrations that made an account"""
    TRIED = 1
    """Those that failed, too"""
    NAMED = 2
    """Those with a name"""
    KNOWN = 3
    """Those since it is known what is new …"""
    KNOWN_MAILED = 4
    """… with a mail domain"""
    AGED_HOUR = 5
    """Accounts that became an hour old, of those that samples of requests would show (`detectors.learning.uses`) …"""
    AGED_LONG = 6
    """… and six hours"""
    ASKED = 7
    """Accounts of services that say who was verified, once there was time for it (`detectors.learning.verifications`)"""


class Mark(IntEnum):
    """What may be unusual about registrations, each so that an attack has more of it."""

    NEW_AGENT = 0
    HOSTED = 1
    DISPOSABLE = 2
    FOREIGN = 3
    SURPRISE = 4
    DIGITS = 5
    RARE_DOMAIN = 6
    SAME_NETWORK = 7
    FAILED = 8
    UNUSED = 9
    """Nobody used the account within an hour …"""
    IDLE = 10
    """… and within six"""
    UNVERIFIED = 11
    """Its mail address, phone or means of payment was not confirmed"""


BASE_OF = np.array([3, 0, 0, 3, 2, 2, 4, 0, 1, 5, 6, 7], np.int64)
"""`Base` of each mark."""
MARKS, BASES = len(Mark), len(Base)
COLUMNS = BASES + 2 * MARKS
"""Of a step: the bases, the marks' sums, and the sums of their squares."""
FEATURES = 1 + MARKS
"""Of a window: the count, then the marks."""
NAMES = ("count", *(mark.name.lower() for mark in Mark))
_SUMS, _SQUARES = slice(BASES, BASES + MARKS), slice(BASES + MARKS, COLUMNS)
Z_LOW, Z_HIGH = -2.0, 8.0
"""A z beyond these counts as one of these: one feature alone is never everything."""
SPREAD_MIN = 0.02
"""No mark is less spread than this: what nobody ever had is not a miracle the first time."""
PRIOR_MEAN, PRIOR_SQUARE = 0.1, 0.1
"""Of a mark of which nothing is known …"""
PRIOR_WEIGHT = 5.0
"""… as if it had been seen for so many minutes."""
TREND_MAX = 1.5
"""So much the last hour may correct the season."""
RATE_FLOOR = 0.02
YOUNG_SPREAD, YOUNG_LENGTH, YOUNG_BLOCKS = 3.0, 2.5, 20.0
"""Of a sum, and of the length of what is positive, before so many were seen."""
HEIGHT, YOUNG_HEIGHTS = 5.0, (7.5, 5.0, 4.5)
"""A statistic at what its highest of a day usually is counts as so much; and what is believed of that at first."""
HEIGHT_RANGE = 1.5
"""They stay within so many times of it: what nobody could have is no measure."""
YOUNG_DAYS, HEIGHT_DAYS = 2.0, 14.0
BLOCKS_MIN = 8
"""Before so many a feature is not judged: what began to be counted just now is new to everybody."""
SLACK = 0.5
"""Of a step's sum, in its usual spread: so much is chance, and is not added up. It is right for what shifts the sum by 1."""
CUSUM_MAX = 20.0
"""So that what is over is over, two minutes later."""
_MINUTES_OF_DAY, _MINUTES_OF_SEASON = 24 * 60.0, 60.0


@dataclass(frozen=True, slots=True)
class FloodConfig:
    """How streams of registrations are judged."""

    series: int
    step_s: int = STEP_S
    block_steps: int = 6
    """So many steps are learned from together."""
    windows: tuple[int, ...] = (1, 6, 60)
    """In steps: ten seconds, a minute, ten minutes. Blocks become part of what is usual when they leave the longest."""
    trend_steps: float = 360.0
    """What the last hour says of the rate corrects the season; 0: nothing does, so that what is slow is not followed."""
    held_steps_max: int = 3 * 360
    """What lasts for longer than three hours is learned all the same, slowly: a stream that has changed is not suspect for
    ever."""
    change_max: float = 0.02
    """See `LevelsConfig`"""
    cusums: bool = True
    """Whether what is small and steady is added up. Steps of ten minutes follow each other too closely for that: an hour that
    is busier than others would be added up for a day."""
    marks: tuple[bool, ...] = (True,) * MARKS
    """Which of them count."""


@dataclass(slots=True)
class Scored:
    """What a step is like."""

    z: F64
    """f64[series, windows, FEATURES]"""
    sums: F64
    """f64[series, windows]"""
    statistics: F64
    """f64[series, windows + 2]: the sums of the shorter windows and the length of what is positive in the longest, each in its
    own usual spread; and the CUSUMs of the sum and of the count alone, as the z that is as rare"""
    score: F64
    """f64[series]: the largest of them"""
    expected: F64
    """f64[series, windows]: registrations"""
    observed: F64
    """f64[series, windows, COLUMNS]"""

    @property
    def window(self) -> int:
        """Which window of the first series to show: where the most stands out, of those that last a minute or more."""
        strongest: int = int(np.argmax(np.clip(self.z[0, 1:], 0.0, None).sum(axis=1))) + 1
        return strongest


class FloodModel:
    """The streams of ``config.series`` services (or cohorts)."""

    def __init__(self, config: FloodConfig) -> None:
        self.config = config
        n, change, blocks = config.series, config.change_max, config.step_s * config.block_steps / 60
        self._ids: I64 = np.arange(n)
        self._delay = config.windows[-1]
        self._ring = self._delay + config.block_steps + 1
        day, hour = _MINUTES_OF_DAY / blocks, _MINUTES_OF_SEASON / blocks

        def levels(floor: float, many: int, days: float, seasons: int, slow: float = 1.0) -> Levels:
            return Levels(
                LevelsConfig(
                    n, (floor,) * many, days * day, seasons, 15 * hour, shrink_steps=1.0, shrink_season_steps=4 * hour,
                    change_max=slow * change, settled_steps=7 * day,
                )
            )  # fmt: skip

        self.marks = levels(1e-3, 2 * MARKS, 7, 0)
        self.rates = levels(1e-3, 1, 7, SEASONS, 10.0)
        self.pivots = levels(0.7, len(config.windows) * FEATURES, 3, SEASONS)
        self.spreads = levels(0.5, len(config.windows) + 1, 7, 0)
        self.running: F64 = np.zeros((self._ring, n, COLUMNS + 1))
        """Running sums of the last steps, the newest last; the last column is what was expected."""
        self.trend: F64 = np.ones(n)
        self.cusum: F64 = np.zeros((n, 2))
        """Of the sum, and of the count alone"""
        self.suspect: I64 = np.full(n, self._delay + 1, np.int64)
        """So many steps ago each stream was suspicious last; 0: now"""
        self.held: I64 = np.zeros(n, np.int64)
        """Steps since something was learned"""
        self.peaks: F64 = np.zeros((n, len(config.windows) + 2))
        """The highest of each statistic in the day so far …"""
        self.heights: F64 = np.tile(np.array([*YOUNG_HEIGHTS, HEIGHT, HEIGHT]), (n, 1))
        """… and what that usually is"""
        self.days: F64 = np.zeros(n)
        """Of which that was learned"""
        self._latest: F64 = np.zeros_like(self.peaks)
        self.steps = 0
        self._waiting: list[tuple[int, F64, F64, I64]] = []
        """Of blocks that are not learned yet: when they ended, with the pivots and sums at their ends, and 1 where frozen"""
        self._frozen: I64 = np.zeros(n, np.int64)
        """The same of the block at hand"""

    def step(self, tick: int, sums: F64) -> Scored:
        """Take in a step that ends with ``tick`` (f64[series, COLUMNS]); how unusual the windows are that end with it."""
        newest = self.running[-1].copy()
        newest[:, :COLUMNS] += sums
        newest[:, COLUMNS] += self._rate(tick) * self.trend
        self.running[:-1] = self.running[1:]
        self.running[-1] = newest
        self.steps += 1
        spans = np.minimum(np.array(self.config.windows), self.steps)
        windows = newest[:, None, :] - self.running[self._ring - 1 - spans].transpose(1, 0, 2)
        pivots = self._pivots(windows)
        flat = pivots.reshape(len(pivots), -1)
        z = self.pivots.z(tick, self._ids, flat)
        z[self.pivots.count[self._ids, 0] < BLOCKS_MIN] = 0.0
        z = z.reshape(pivots.shape)
        counted = z * np.array([True, *self.config.marks])
        added = np.clip(counted, Z_LOW, Z_HIGH).sum(axis=2)
        added[:, -1] = np.sqrt((np.clip(counted[:, -1], 0.0, 1.5 * Z_HIGH) ** 2).sum(axis=1))
        own = self._in_spreads(added)
        rises = np.stack([own[:, 0], self._of_count(z[:, 0, 0])], axis=1)
        self.cusum = cusum(self.cusum, rises, SLACK, CUSUM_MAX)
        # A CUSUM of normal steps exceeds c as often as exp(-2 * slack * c) says (Siegmund), a normal z exceeds x as exp(-x²/2).
        statistics = np.concatenate([own, np.sqrt(4 * SLACK * self.cusum)], axis=1)
        if not self.config.cusums:
            statistics[:, len(self.config.windows) :] = 0.0
        if self.steps % self.config.block_steps == 0:
            self._waiting.append((tick, flat, np.concatenate([added, z[:, 0, :1]], axis=1), np.zeros_like(self._frozen)))
        self._latest = statistics
        score = (statistics * (HEIGHT / self.heights)).max(axis=1)
        return Scored(z, added, statistics, score, windows[:, :, COLUMNS], windows[:, :, :COLUMNS])

    def learn(self, suspicious: Any, frozen: Any = False) -> I64:
        """After `step`: learn the block that has become old enough.

        Args:
            suspicious: bool[series]: nothing is learned of the longest window before the step and after it, unless that lasts.
            frozen: bool[series]: nothing is ever learned of the step's own block.

        Returns:
            i64[series]: of how many steps nothing was learned.
        """
        self._frozen |= frozen
        if self._waiting and self.steps % self.config.block_steps == 0:
            self._waiting[-1][3][:] = self._frozen
            self._frozen = np.zeros_like(self._frozen)
        self.suspect = np.where(suspicious, 0, np.minimum(self.suspect + 1, self._delay + 1))
        self.peaks = np.maximum(self.peaks, np.where(np.asarray(suspicious)[:, None], 0.0, self._latest))
        if self.steps % (DAY_S // self.config.step_s) == 0:
            self._end_day()
        block = self.config.block_steps
        delay = self._delay if self.steps > 2 * self._delay else 0  # at first, everything is learned at once
        left_out = np.zeros_like(self._frozen)
        while len(self._waiting) * block > delay:
            tick, pivots, added, here = self._waiting.pop(0)
            calm = self.suspect > self._delay
            free = (calm | (self.held >= self.config.held_steps_max) | (delay == 0)) & (here == 0)
            self.held = np.where(calm, 0, self.held + block)
            at = self._ring - 1 - delay
            left_out += block * ~free
            self._learn_block(tick, pivots, added, self.running[at] - self.running[at - block], free.astype(np.float64))
        return left_out

    def _end_day(self) -> None:
        """What the highest statistics of a day are, so that none of them is the score more often than others."""
        self.days += 1.0
        factor = 1.0 / np.minimum(self.days + YOUNG_DAYS, HEIGHT_DAYS)[:, None]
        kept = np.clip(self.peaks, 0.5 * self.heights, 1.5 * self.heights)
        believed = np.array([*YOUNG_HEIGHTS, HEIGHT, HEIGHT])
        moved = (1 - factor) * self.heights + factor * kept
        self.heights = np.clip(moved, believed / HEIGHT_RANGE, believed * HEIGHT_RANGE)
        self.peaks = np.zeros_like(self.peaks)

    def _learn_block(self, tick: int, pivots: F64, added: F64, block: F64, weights: F64) -> None:
        steps = self.config.block_steps
        self.pivots.learn(tick, self._ids, pivots, weights)
        self.spreads.learn(tick, self._ids, added, weights)
        base = block[:, BASE_OF]
        with np.errstate(invalid="ignore", divide="ignore"):
            means = np.where(base > 0, block[:, _SUMS] / base, np.nan)
            squares = np.where(base > 0, block[:, _SQUARES] / base, np.nan)
        self.marks.learn(tick, self._ids, np.concatenate([means, squares], axis=1), weights)
        count = block[:, :1] / steps
        self.rates.learn(tick, self._ids, count, weights)
        if self.config.trend_steps:
            usual = block[:, COLUMNS] / steps / self.trend
            factor = weights * (steps / self.config.trend_steps)
            ratio = count[:, 0] / np.maximum(usual, RATE_FLOOR)
            self.trend = np.clip((1 - factor) * self.trend + factor * ratio, 1 / TREND_MAX, TREND_MAX)

    def _rate(self, tick: int) -> F64:
        """f64[series]: registrations in a step of this hour, between the middles of hours on a straight line."""
        place = (tick % HOUR_S) / HOUR_S - 0.5
        other = tick + (HOUR_S if place > 0 else -HOUR_S)
        here, there = self._rate_of(season_of(tick)), self._rate_of(season_of(other))
        return np.maximum((1 - abs(place)) * here + abs(place) * there, RATE_FLOOR)

    def _rate_of(self, season: int) -> F64:
        mean, count = self.rates.mean[: len(self._ids), :, 0], self.rates.count[: len(self._ids), :, 0]
        known = count[:, 1 + season]
        own = known / (known + 20.0 / (self.config.step_s * self.config.block_steps / 60))
        rate: F64 = own * mean[:, 1 + season] + (1 - own) * mean[:, 0]
        return rate

    def _means(self) -> tuple[F64, F64]:
        """(f64[series, MARKS], the same): mean and variance of each mark of one registration."""
        n = len(self._ids)
        seen = self.marks.count[:n, 0]
        level = (seen * self.marks.mean[:n, 0] + PRIOR_WEIGHT * PRIOR_MEAN) / (seen + PRIOR_WEIGHT)
        mean, square = level[:, :MARKS], level[:, MARKS:]
        return mean, np.maximum(square - mean * mean, SPREAD_MIN)

    def _in_spreads(self, added: F64) -> F64:
        """f64[series, windows]: sums in their own usual spread, about which something is believed before much was seen."""
        n = len(self._ids)
        known = self.spreads.count, self.spreads.mean, self.spreads.variance
        seen, mean, variance = (array[:n, 0, :-1] for array in known)
        usual = np.zeros(added.shape[1]), np.full(added.shape[1], YOUNG_SPREAD**2)
        usual[0][-1], usual[1][-1] = YOUNG_LENGTH, 1.0
        level = (seen * mean + YOUNG_BLOCKS * usual[0]) / (seen + YOUNG_BLOCKS)
        spread = (seen * variance + YOUNG_BLOCKS * usual[1]) / (seen + YOUNG_BLOCKS)
        found: F64 = (added - level) / np.sqrt(spread + 0.25)
        return found

    def _of_count(self, z: F64) -> F64:
        """f64[series]: the count's z of a step in its own usual spread."""
        n = len(self._ids)
        seen, mean, variance = (a[:n, 0, -1] for a in (self.spreads.count, self.spreads.mean, self.spreads.variance))
        level, spread = seen * mean / (seen + YOUNG_BLOCKS), (seen * variance + YOUNG_BLOCKS) / (seen + YOUNG_BLOCKS)
        found: F64 = (z - level) / np.sqrt(spread + 0.01)
        return found

    def _pivots(self, windows: F64) -> F64:
        """f64[series, windows, FEATURES]; NaN where a window has none of what a mark is a property of."""
        mean, variance = self._means()
        base = windows[:, :, BASE_OF]
        pivots = np.empty((*windows.shape[:2], FEATURES))
        count, usual = windows[:, :, Base.MADE], windows[:, :, COLUMNS]
        pivots[:, :, 0] = 2 * (np.sqrt(count + 0.375) - np.sqrt(usual + 0.375))
        apart = windows[:, :, _SUMS] - base * mean[:, None, :]
        pivots[:, :, 1:] = np.where(base > 0, apart / np.sqrt(base * variance[:, None, :] + variance[:, None, :]), np.nan)
        return pivots

    def fork(self, ids: I64) -> FloodModel:
        """Copies of some streams (each as often as it is named), to see what would come of them; they do not learn."""
        other = FloodModel(replace(self.config, series=len(ids)))
        for name in _LEVELS:
            getattr(other, name).load(getattr(self, name).save(ids), np.arange(len(ids)))
        other.running, other.trend, other.cusum = self.running[:, ids].copy(), self.trend[ids].copy(), self.cusum[ids].copy()
        other.peaks, other.heights, other.days = self.peaks[ids].copy(), self.heights[ids].copy(), self.days[ids].copy()
        other.suspect, other.held, other.steps = self.suspect[ids].copy(), self.held[ids].copy(), self.steps
        return other

    def forget(self, series: int) -> None:
        """A series begins anew: its place is somebody else's."""
        for name in _LEVELS:
            getattr(self, name).forget([series])
        self.running[:, series], self.trend[series], self.cusum[series] = 0.0, 1.0, 0.0
        self.suspect[series], self.held[series] = self._delay + 1, 0
        self.peaks[series], self.days[series], self.heights[series] = 0.0, 0.0, [*YOUNG_HEIGHTS, HEIGHT, HEIGHT]
        self._frozen[series] = 0
        for _, pivots, added, frozen in self._waiting:
            pivots[series], added[series], frozen[series] = np.nan, np.nan, 0

    def save(self) -> dict[str, Any]:
        """Arrays for `load`."""
        waiting = [[tick, *(array.copy() for array in arrays)] for tick, *arrays in self._waiting]
        arrays = {name: getattr(self, name).copy() for name in _STATE}
        return {"levels": [getattr(self, name).save() for name in _LEVELS], **arrays, "steps": self.steps, "waiting": waiting}

    def load(self, data: dict[str, Any]) -> None:
        """Take over what `save` gave.

        Raises:
            StateError: it is of other streams or windows.
        """
        for name in _STATE:
            mine, came = getattr(self, name), data[name]
            if not isinstance(came, np.ndarray) or came.dtype != mine.dtype or came.shape != mine.shape:
                raise StateError(f"expected numbers of the shape {mine.shape} in the saved {name} of a flood model, got others")
        width = len(self.config.windows) * FEATURES
        if any(pivots.shape != (len(self._ids), width) for _, pivots, _, _ in data["waiting"]):
            raise StateError("expected blocks of these windows in a saved flood model, got others")
        for name, saved in zip(_LEVELS, data["levels"], strict=True):
            getattr(self, name).load(saved)
        for name in _STATE:
            setattr(self, name, data[name].copy())
        self.steps = data["steps"]
        self._waiting = [(tick, pivots.copy(), added.copy(), frozen.copy()) for tick, pivots, added, frozen in data["waiting"]]


_LEVELS = ("marks", "rates", "pivots", "spreads")
_STATE = ("running", "trend", "cusum", "suspect", "held", "peaks", "heights", "days", "_frozen")
