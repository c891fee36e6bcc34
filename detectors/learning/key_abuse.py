"""The keys of one judge partition: when its hours, days and generations end, its limits, and what is saved of it.

What is kept of each key and how a window is judged is in `detectors.learning.key_state`. Each score and each sum has limits
from the past of the partition (`detectors.learning.calibration`). Pure: who has which place is the caller's.

Nothing is learned of a key under suspicion by its own scores, for up to six hours: then it is its new normal, as fast as the
cap allows. Nothing is learned of windows in which other detectors found something of it, however long that lasts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.kernels.key_features import S_OLD, S_THIS, V_NETS
from detectors.kernels.windows import NEVER
from detectors.learning.calibration import DAY_S, Calibration, CalibrationConfig
from detectors.learning.key_state import F64, WINDOW_S, Bools, Judged, KeyAbuseConfig, KeyState, Limits
from detectors.learning.levels import HOUR_S, HOURS, SEASONS, Levels, season_of
from schemas.columns import I64
from schemas.errors import StateError

SHAPE_SCORE, SHAPE_SUM = 0.05, 0.22
"""The shapes of the tails of scores, which are nearly exponential, and of sums, which are Pareto's: what lasts, lasts long. So
in the study with any number of keys, where a partition alone sees too little to know …"""
SHAPE_WEIGHT = 240.0
"""… so that these count for four times as much as the 60 highest scores of its own past."""
ACCEPTED = 12
"""A window that people say was honest is learned so many times."""


@dataclass(slots=True)
class KeyAbuse:
    """The keys of one judge partition.

    Args:
        config: how they are learned.
        state: where they lie, if beside those of other partitions …
        at: … and as which of them.
    """

    config: KeyAbuseConfig
    state: KeyState | None = None
    at: int = 0
    levels: Levels = field(init=False)
    totals: Levels = field(init=False)
    by_score: Calibration = field(init=False)
    by_sum: Calibration = field(init=False)
    seen: I64 = field(init=False)
    """Of these places what `KeyState` has, as all up to …"""
    hours: F64 = field(init=False)
    frozen: npt.NDArray[np.uint8] = field(init=False)
    peaks: F64 = field(init=False)
    peaks_before: F64 = field(init=False)
    _active: I64 = field(init=False)
    _born: I64 = field(init=False)
    """… this."""
    _arrays: dict[str, tuple[npt.NDArray[Any], float | int]] = field(init=False)
    """All of it, and what a place begins with."""
    _home: KeyState = field(init=False)
    _window: int = field(init=False, default=NEVER)
    """The last window that is over"""

    def __post_init__(self) -> None:
        config = self.config
        self._home = self.state or KeyState(config, 1)
        own, self.levels, self.totals = self._home.partition(self.at)
        self._arrays = {name: (array[own], blank) for name, (array, blank) in self._home.arrays().items()}
        home = self._home
        self.seen, self.hours, self.frozen = home.seen[own], home.hours[own], home.frozen[own]
        self.peaks, self.peaks_before = home.peaks[own], home.peaks_before[own]
        self._active, self._born = home.active[own], home.born[own]
        half = CalibrationConfig(
            notify_per_day=config.notify_per_day / 2, act_per_day=config.act_per_day / 2, start=config.start,
            shape=SHAPE_SCORE, shape_scores=SHAPE_WEIGHT, margin=1.0,
        )  # fmt: skip
        self.by_score = Calibration(half)
        self.by_sum = Calibration(replace(half, start=config.start_sum, shape=SHAPE_SUM))

    @property
    def limits(self) -> tuple[float, float, float, float]:
        """As `Limits` has them."""
        return self.by_score.notify, self.by_score.act, self.by_sum.notify, self.by_sum.act

    def begin(self, window: int) -> None:
        """Before a window is judged: what hours, cells and generations end with is done."""
        if self._window == NEVER:
            self._window = window - 1
        if window != self._window:
            self._turn(window)
        for calibration in (self.by_score, self.by_sum):
            calibration.begin(window * WINDOW_S)

    def _turn(self, window: int) -> None:
        units = (HOUR_S, self._end_hour), (DAY_S, self._end_day), (self.config.generation_s, self._end_generation)
        for unit, turn in units:
            before, now = (self._window * WINDOW_S) // unit, (window * WINDOW_S) // unit
            for passed in range(max(before, now - 200) + 1, now + 1):
                turn(passed * unit)
        self._window = max(self._window, window)

    def _end_hour(self, tick: int) -> None:
        """Write down in which hours keys do anything."""
        self.frozen[:, (tick // HOUR_S) % HOURS] = 0
        known = np.flatnonzero(self._born != NEVER)
        if not len(known):
            return
        share = self._active[known] / (HOUR_S // WINDOW_S)
        slot = season_of(tick - HOUR_S)
        age_days = np.maximum((tick // WINDOW_S - self._born[known]) / 288, 0.0)
        for place, memory_days in ((slot, 20.0 if slot < 24 else 8.0), (SEASONS, 20.0)):
            factor = 1 / np.clip(
                age_days * (1 if place != SEASONS else 24) + 1, 1.0, memory_days * (1 if place != SEASONS else 24)
            )
            self.hours[known, place] += factor * (share - self.hours[known, place])
        self._active[:] = 0

    def _end_generation(self, _: int) -> None:
        """Who was not seen in it keeps what he was seen with: who comes back after months comes from where he always did."""
        used = self.seen[:, :, S_THIS].any(axis=1)
        self.seen[used, :, S_OLD] = self.seen[used, :, S_THIS]
        self.seen[:, :, S_THIS] = 0

    def _end_day(self, tick: int) -> None:
        """Of each key the highest scores of the cell become part of the past that limits are read off."""
        for place, calibration in enumerate((self.by_score, self.by_sum)):
            peaks = self.peaks[:, place]
            calibration.observe(tick - 1, DAY_S, peaks[peaks > 0])
        self.peaks_before[:], self.peaks[:] = self.peaks, 0.0

    def _limits(self) -> Limits:
        return Limits(*(np.array(limit) for limit in self.limits))

    def judge(self, window: int, ids: I64, values: I64, *, whole: bool = True, last: I64 | None = None) -> Judged:
        """`KeyState.judge`, of a partition that lies alone."""
        return self._home.judge(window, ids, values, whole=whole, last=last)

    def begin_step(self, window: int) -> None:
        """Before anything of a window is learned."""
        self.levels.begin(window * WINDOW_S)
        self.totals.begin(window * WINDOW_S)

    def learn(self, window: int, values: I64, judged: Judged, weights: F64) -> None:
        """`KeyState.learn`, of a partition that lies alone."""
        self.begin_step(window)
        self._home.learn(window, values, judged, weights)

    def weights(self, window: int, judged: Judged, found: Bools | None = None) -> F64:
        """`KeyState.weights`, of a partition that lies alone."""
        return self._home.weights(window, judged, self._limits(), found)

    def note_peaks(self, judged: Judged) -> None:
        """`KeyState.note_peaks`, of a partition that lies alone."""
        self._home.note_peaks(judged)

    def decide(self, window: int, judged: Judged) -> tuple[Bools, Bools]:
        """`KeyState.decide`, of a partition that lies alone."""
        return self._home.decide(window, judged, self._limits())

    def forget(self, places: list[int], last: I64 | None = None) -> None:
        """These places are somebody else's now.

        Args:
            last: i64[n], the window in which whoever has the place now was used last; `NEVER`: not known.
        """
        self.levels.forget(places)
        self.totals.forget(places)
        for array, blank in self._arrays.values():
            array[places] = blank
        if last is not None:
            self._arrays["last"][0][places] = last

    @property
    def memory_bytes(self) -> int:
        """What the state takes; it never grows."""
        own = sum(array.nbytes for array, _ in self._arrays.values())
        return own + self.levels.memory_bytes + self.totals.memory_bytes

    def save(self, ids: I64) -> dict[str, Any]:
        """Plain data and arrays for `load`: of these places."""
        return {
            "window": self._window, "levels": self.levels.save(ids), "totals": self.totals.save(ids),
            "by_score": self.by_score.save(), "by_sum": self.by_sum.save(),
            **{name: array[ids].copy() for name, (array, _) in self._arrays.items()},
        }  # fmt: skip

    def load(self, data: dict[str, Any], ids: I64) -> None:
        """Take over what `save` gave, for as many places.

        Raises:
            StateError: it is of other features, or damaged. The object is of no use then.
        """
        self._window = int(data["window"])
        self.levels.load(data["levels"], ids)
        self.totals.load(data["totals"], ids)
        self.by_score.load(data["by_score"])
        self.by_sum.load(data["by_sum"])
        for name, (array, _) in self._arrays.items():
            came, shape = data[name], (len(ids), *array.shape[1:])
            if not isinstance(came, np.ndarray) or came.dtype != array.dtype or came.shape != shape:
                raise StateError(f"expected numbers of the shape {shape} in the saved {name} of keys, got others")
            if came.dtype == np.float64 and not np.isfinite(came).all():
                raise StateError(f"expected finite numbers in the saved {name} of keys, got others")
            array[ids] = came

    def accept(self, window: int, place: int, features: F64, values: I64) -> None:
        """This was honest: it becomes usual of the key, by more than one window's weight."""
        ids, tick = np.array([place]), window * WINDOW_S
        for _ in range(ACCEPTED):
            self.levels.learn(tick, ids, features)
        # What is left of it is usual; what it was before would make the key one of whom nothing is odd.
        total = np.clip(self.levels.z(tick, ids, features), 0.0, self.config.z_most).sum(axis=1)
        self.totals.learn(tick, ids, total[:, None])
        self.seen[ids, :, S_THIS] |= values[:, V_NETS:]
        for name in ("suspect_since", "held"):
            array, blank = self._arrays[name]
            array[place] = blank

    def disown(self, place: int) -> None:
        """This was an attack: its scores are no part of the past."""
        for at, calibration in enumerate((self.by_score, self.by_sum)):
            if self.peaks_before[place, at] > 0:
                calibration.withdraw(float(self.peaks_before[place, at]))
        self.peaks[place] = self.peaks_before[place] = 0.0

    def follow(self, other: KeyAbuse) -> None:
        """What is usual of all, and the limits, are those of another: for trying out what would have been said."""
        self._window, self.by_score, self.by_sum = other._window, other.by_score, other.by_sum
        self.levels.follow(other.levels)
        self.totals.follow(other.totals)
