"""Levels: what is usual of many series at once, as exponentially weighted means and variances.

A *series* is a key or a cohort; each has several *features*, one value of each a step (a window). The recurrence is that of
River's `stats.EWMean` and `stats.EWVar`, over arrays: a step of ten thousand series takes a millisecond. While a series is
young its values weigh alike (a mean, not a first value that fades), and what it has too little of is filled in from the
*shared* level of all series, by how much series differ from each other and how much each does within itself (empirical Bayes;
spreads by their logarithms). *Seasons* of a series (hours of the day, weekends apart) are shrunk to its own level.

What is learned can be trusted as far as it is bounded: a value weighs nothing while its series is under suspicion (weight 0),
and a settled level moves by at most ``change_max`` standard deviations in an hour, however hard it is pushed. So what rises
by one percent a day, day after day, is not followed all the way by a level that is that steady.

>>> levels = Levels(LevelsConfig(series=2, floors=(1.0,)))
>>> for step in range(200):
...     levels.learn(300 * step, np.array([0, 1]), np.array([[4.0 + step % 2], [40.0]]))
>>> levels.z(300 * 200, np.array([0, 1]), np.array([[9.0], [41.0]])).round(1).tolist()
[[4.0], [1.0]]
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.kernels.levels import Tables, learn_kernel, score_kernel
from schemas.columns import I64
from schemas.errors import StateError

F64 = npt.NDArray[np.float64]

HOUR_S, DAY_S = 3600, 86_400
HOURS = 24
SEASONS = 2 * HOURS
"""Hours of a working day, then hours of a day of the weekend (UTC)."""
MONDAY_DAY = 4
"""The day 1970-01-05."""
SEEN_MIN = 3.0
"""A level of fewer values says nothing."""


def season_of(tick: int) -> int:
    """The hour of the day, weekends apart: 0 to 47.

    >>> season_of(0), season_of(2 * 86_400 + 3600 * 5)
    (0, 29)
    """
    day, second = divmod(tick, DAY_S)
    return second // HOUR_S + (HOURS if (day - MONDAY_DAY) % 7 >= 5 else 0)


@dataclass(frozen=True, slots=True)
class LevelsConfig:
    """How levels learn."""

    series: int
    """Room for so many."""
    floors: tuple[float, ...]
    """Of each feature: a deviation of so much is never more than one standard deviation."""
    memory_steps: float = 2016.0
    """A value weighs 1/e of a new one after so many; River's fading factor is its inverse. A week of five minutes."""
    seasons: int = 0
    """0, or `SEASONS`."""
    memory_season_steps: float = 240.0
    """The same of a season: twenty days of twelve five minutes each."""
    young_steps: float | None = None
    """Before so many, all values weigh alike; 1: River's recurrence from the first on. None: as long as the memory."""
    shrink_steps: float = 24.0
    """A series' own level counts for half beside the shared one after so many."""
    shrink_season_steps: float = 24.0
    """The same of a season beside its series."""
    change_max: float | tuple[float, ...] = 0.0
    """Standard deviations a settled level may move in an hour, of all or of each feature; 0: no cap. Of a season, which
    comes once a day, 24 times."""
    settled_steps: float = 2016.0
    """From so many values on the cap holds: before, a level has to find its place."""

    def __post_init__(self) -> None:
        assert self.series >= 1
        assert min(self.floors, default=0.0) > 0
        assert min(self.memory_steps, self.memory_season_steps) >= 1
        assert self.seasons in (0, SEASONS)

    def season(self, tick: int) -> int:
        """The season of a second; -1: there are none."""
        return season_of(tick) if self.seasons else -1


@dataclass(slots=True)
class LevelStack:
    """Levels of several groups of series that have nothing in common, by the same configuration: learned in one go.

    Args:
        config: of each.
        groups: so many.
    """

    config: LevelsConfig
    groups: int
    mean: F64 = field(init=False)
    """f64[groups, series + 1, 1 + seasons, features], as the others: of each group what `Levels` has."""
    variance: F64 = field(init=False)
    count: F64 = field(init=False)
    anchor_mean: F64 = field(init=False)
    anchor_variance: F64 = field(init=False)
    within: F64 = field(init=False)
    """f64[groups, 2, features]"""
    floor: F64 = field(init=False)
    change: F64 = field(init=False)

    def __post_init__(self) -> None:
        config = self.config
        shape = (self.groups, config.series + 1, 1 + config.seasons, len(config.floors))
        self.mean, self.variance, self.count = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self.anchor_mean, self.anchor_variance = np.zeros(shape), np.zeros(shape)
        self.within = np.zeros((self.groups, 2, shape[3]))
        self.floor = np.array(config.floors, np.float64)
        self.change = np.ascontiguousarray(np.broadcast_to(np.asarray(config.change_max, np.float64), shape[3:]))

    @property
    def tables(self) -> Tables:
        """What kernels read distances off, with groups in front."""
        config = self.config
        return Tables(
            self.mean, self.variance, self.count, self.within, SEEN_MIN, config.series, self.floor, config.shrink_steps,
            config.shrink_season_steps,
        )  # fmt: skip

    def learn(self, tick: int, groups: I64, ids: I64, values: F64, weights: F64) -> None:
        """Learn a step of several groups, as `Levels.learn` does of one.

        Args:
            groups: i64[n], rising: in which each series is; ids: i64[n], its place in there.
            values: f64[n, features], contiguous; weights: f64[n].
        """
        config = self.config
        learn_kernel(
            self.mean, self.variance, self.count, self.within, self.anchor_mean, self.anchor_variance, SEEN_MIN, config.series,
            1 / config.memory_steps, 1 / config.memory_season_steps, config.young_steps or config.memory_steps,
            config.young_steps or config.memory_season_steps, self.floor, self.change, HOURS * self.change,
            config.settled_steps, config.settled_steps / HOURS, groups, ids, config.season(tick), values, weights,
        )  # fmt: skip


@dataclass(slots=True)
class Levels:
    """The levels of ``config.series`` series; the caller says which of them is which.

    Args:
        config: how they learn.
        _stack: where they lie, if beside those of other groups …
        _at: … and as which of them.
    """

    config: LevelsConfig
    _stack: LevelStack | None = None
    _at: int = 0
    mean: F64 = field(init=False)
    """f64[series + 1, 1 + seasons, features]; the last series is the shared one."""
    variance: F64 = field(init=False)
    count: F64 = field(init=False)
    """Weights learned."""
    _anchor_mean: F64 = field(init=False)
    _anchor_variance: F64 = field(init=False)
    _within: F64 = field(init=False)
    """f64[2, features]: the variance of series within themselves, and how many steps it was learned from."""
    _hour: int = field(init=False, default=-1)

    def __post_init__(self) -> None:
        stack, at = self._stack or LevelStack(self.config, 1), self._at
        self._stack = stack
        self.mean, self.variance, self.count = stack.mean[at], stack.variance[at], stack.count[at]
        self._anchor_mean, self._anchor_variance = stack.anchor_mean[at], stack.anchor_variance[at]
        self._within = stack.within[at]

    @property
    def memory_bytes(self) -> int:
        """What the state takes; it never grows."""
        return sum(array.nbytes for array in self._arrays().values())

    @property
    def shared(self) -> int:
        """The place of the shared series."""
        return self.config.series

    def steps(self, ids: I64) -> F64:
        """f64[n]: how many values of its first feature each series has learned."""
        found: F64 = self.count[ids, 0, 0]
        return found

    def z(self, tick: int, ids: I64, values: F64) -> F64:
        """f64[n, features]: signed distance from what is usual, in standard deviations.

        Args:
            tick: Unix seconds, for the season.
            ids: i64[n], which series.
            values: f64[n, features]; NaN: not seen, whose distance is 0.
        """
        found = np.zeros(values.shape)
        tables = self._of().tables._replace(mean=self.mean, variance=self.variance, counts=self.count, within=self._within)
        score_kernel(*tables, ids, self.config.season(tick), np.ascontiguousarray(values, np.float64), found)
        return found

    def _of(self) -> LevelStack:
        assert self._stack is not None
        return self._stack

    def begin(self, tick: int) -> None:
        """Before a step is learned: where an hour begins, a settled level may move by so much from where it is now."""
        hour = tick // HOUR_S
        if hour != self._hour and self._of().change.any():
            self._hour = hour
            self._anchor_mean[:], self._anchor_variance[:] = self.mean, self.variance

    def learn(self, tick: int, ids: I64, values: F64, weights: F64 | None = None) -> None:
        """Learn a step. Every series comes once in ``ids``, in an order that does not hang on how the events were cut.

        Args:
            weights: f64[n], 0 to 1: 0 while a series is under suspicion. None: 1.
        """
        self.begin(tick)
        weighed = np.ones(len(ids)) if weights is None else np.ascontiguousarray(weights, np.float64)
        groups = np.full(len(ids), self._at)
        self._of().learn(tick, groups, ids, np.ascontiguousarray(values, np.float64), weighed)

    def forget(self, ids: I64 | list[int]) -> None:
        """These series begin anew: their place is somebody else's."""
        for array in self._arrays().values():
            array[ids] = 0

    def follow(self, other: Levels) -> None:
        """The shared level is that of another from here on."""
        for name, array in self._arrays().items():
            array[self.shared] = other._arrays()[name][other.shared]
        self._within[:] = other._within

    def _arrays(self) -> dict[str, F64]:
        return {
            "mean": self.mean, "variance": self.variance, "count": self.count, "anchor_mean": self._anchor_mean,
            "anchor_variance": self._anchor_variance,
        }  # fmt: skip

    def save(self, ids: I64 | None = None) -> dict[str, Any]:
        """Arrays for `load`: of the series ``ids`` (the shared one is always added), else of all."""
        places = slice(None) if ids is None else np.append(ids, self.shared)
        saved = {"hour": self._hour, "within": self._within.copy()}
        return {**saved, **{name: array[places].copy() for name, array in self._arrays().items()}}

    def load(self, data: dict[str, Any], ids: I64 | None = None) -> None:
        """Take over what `save` gave, for the same ``ids``.

        Raises:
            StateError: it is of other series, seasons or features, or not of finite numbers; nothing of it was taken.
        """
        places = slice(None) if ids is None else np.append(ids, self.shared)
        taken = {}
        for name, expected in [("within", self._within.shape), *((n, a[places].shape) for n, a in self._arrays().items())]:
            came = data.get(name)
            if not isinstance(came, np.ndarray) or came.dtype != np.float64 or came.shape != expected:
                raise StateError(f"expected numbers of the shape {expected} in the saved {name} of levels, got {_shape(came)}")
            if not np.isfinite(came).all() or (name != "mean" and name != "anchor_mean" and (came < 0).any()):
                raise StateError(f"expected finite numbers in the saved {name} of levels, got others")
            taken[name] = came
        hour = data.get("hour")
        if not isinstance(hour, int):
            raise StateError(f"expected an hour in saved levels, got {hour!r:.40}")
        for name, array in self._arrays().items():
            array[places] = taken[name]
        self._hour, self._within[:] = hour, taken["within"]


def _shape(came: object) -> str:
    return f"{came.dtype} {came.shape}" if isinstance(came, np.ndarray) else type(came).__name__
