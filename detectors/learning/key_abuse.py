"""What is learned of API keys, window by window: features, levels, scores, limits. Pure: who has which place is the caller's.

Of each window of a key there are ten features (`FEATURES`); each is compared with the key's own level, drawn to that of all
keys while it is young. The positive distances are added up. Some keys are wild by nature, so that this sum is compared
with what it usually is for the key. That is the *score*; what it has above a reference, window after window, is its *sum*
(CUSUM). Each has limits from its own past (`detectors.learning.calibration`).

Nothing is learned of a key under suspicion by its own scores, for up to six hours: then it is its new normal, as fast as the
cap allows. Nothing is learned of windows in which other detectors found something of it, however long that lasts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.kernels.key_features import (
    F_REQUESTS,
    FEATURES,
    ITEMS,
    S_OLD,
    S_THIS,
    SETS,
    V_NETS,
    judge_keys_kernel,
)
from detectors.kernels.windows import NEVER
from detectors.learning.calibration import DAY_S, Calibration, CalibrationConfig
from detectors.learning.levels import HOUR_S, HOURS, SEASONS, Levels, LevelsConfig, season_of
from schemas.columns import I64
from schemas.errors import StateError

F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

WINDOW_S = 300
FEATURE_NAMES = (
    "requests", "new networks", "new countries", "new user agents", "unusual hour", "errors", "input tokens a request",
    "output tokens a request", "networks", "busy windows",
)  # fmt: skip
FLOORS = (1.0, 0.7, 0.4, 0.5, 1.0, 1.0, 0.4, 0.4, 0.35, 0.15)
"""Of each feature: what is never more than one standard deviation."""
RAMPED = (F_REQUESTS,)
"""What can be raised a little every day, and is capped, as the sum of distances is. The others change when a customer does."""
TOTAL_SLOWER = 5.0
"""What the sum of distances usually is moves so many times slower: else it would follow what a capped level does not."""
ACTS_FROM = 3.0
"""Only who asks for so many standard deviations more than usual is slowed down."""
SHAPE_SCORE, SHAPE_SUM = 0.05, 0.22
"""The shapes of the tails of scores, which are nearly exponential, and of sums, which are Pareto's: what lasts, lasts long. So
in the study with any number of keys, where a partition alone sees too little to know …"""
SHAPE_WEIGHT = 240.0
"""… so that these count for four times as much as the 60 highest scores of its own past."""
WOKEN = 1.0
"""What speaks against a key that was not used for a month, in standard deviations. With more, its owner is told of so much more
often than thieves that it does not pay (`drills.quality.study_key_waking`). It counts …"""
WOKEN_WINDOWS = 12
"""… in the windows of its first hour."""
ACCEPTED = 12
"""A window that people say was honest is learned so many times."""


@dataclass(frozen=True, slots=True)
class KeyAbuseConfig:
    """How keys are learned."""

    keys: int
    """Places."""
    notify_per_day: float
    act_per_day: float
    start: float = 12.0
    """A limit of scores before enough is known …"""
    start_sum: float = 60.0
    """… and of sums."""
    z_most: float = 8.0
    """One feature alone counts for no more."""
    young_windows: int = 12
    """Windows with requests before something may be new to a key."""
    memory_windows: float = 2016.0
    wakes_windows: int = 30 * DAY_S // WINDOW_S
    """A key that was not used for so long wakes."""
    change_max: float = 0.0005
    generation_s: int = 7 * 86_400
    suspect_s: int = 21_600
    """A key is under suspicion for no longer."""
    quiet_s: int = 86_400
    """Of a key people are told once in so long."""
    doubt: float = 0.7
    leak: float = 0.9
    reference: float = 0.5
    floors: tuple[float, ...] = FLOORS
    score_floor: float = 1.0


class Judged(NamedTuple):
    """What became of the keys of a window."""

    ids: I64
    features: F64  # f64[n, FEATURES]
    z: F64  # f64[n, FEATURES]
    total: F64  # f64[n]: positive z, added up
    score: F64  # f64[n]: how far that is from what it usually is for the key
    held: F64  # f64[n]: the sum of what scores had above the reference
    slept: I64  # i64[n]: windows without anything before it woke, if that was in the last hour, else 0


@dataclass(slots=True)
class KeyAbuse:
    """The keys of one judge partition."""

    config: KeyAbuseConfig
    levels: Levels = field(init=False)
    totals: Levels = field(init=False)
    by_score: Calibration = field(init=False)
    by_sum: Calibration = field(init=False)
    seen: I64 = field(init=False)
    hours: F64 = field(init=False)
    _active: I64 = field(init=False)
    """i64[keys]: windows of the hour at hand with anything"""
    _busy: F64 = field(init=False)
    _last: I64 = field(init=False)
    """i64[keys]: the last window with anything"""
    _woke: I64 = field(init=False)
    """i64[keys, 2]: the window in which a key woke last, and how many it had slept; never: 0"""
    _born: I64 = field(init=False)
    held: F64 = field(init=False)
    peaks: F64 = field(init=False)
    """f64[keys, 2]: of score and sum the highest in the cell at hand; 0: none"""
    peaks_before: F64 = field(init=False)
    """… and those of the day before"""
    suspect_since: I64 = field(init=False)
    frozen: npt.NDArray[np.uint8] = field(init=False)
    """u8[keys, 24]: windows of each hour, in the last day, that were not learned"""
    told: I64 = field(init=False)
    _window: int = field(init=False, default=NEVER)
    """The last window that is over"""

    def __post_init__(self) -> None:
        config, keys = self.config, self.config.keys
        memory = config.memory_windows
        capped = tuple(config.change_max if f in RAMPED else 0.0 for f in range(FEATURES))
        self.levels = Levels(LevelsConfig(keys, config.floors, memory, change_max=capped, settled_steps=memory))
        total = (config.score_floor,)
        slower = config.change_max / TOTAL_SLOWER
        self.totals = Levels(LevelsConfig(keys, total, memory, change_max=slower, settled_steps=memory))
        half = CalibrationConfig(
            notify_per_day=config.notify_per_day / 2, act_per_day=config.act_per_day / 2, start=config.start,
            shape=SHAPE_SCORE, shape_scores=SHAPE_WEIGHT, margin=1.0,
        )  # fmt: skip
        self.by_score = Calibration(half)
        self.by_sum = Calibration(replace(half, start=config.start_sum, shape=SHAPE_SUM))
        self.seen = np.zeros((keys, ITEMS, SETS), np.int64)
        self.hours = np.zeros((keys, SEASONS + 1))
        self._active, self._last = np.zeros(keys, np.int64), np.full(keys, NEVER, np.int64)
        self._born = np.full(keys, NEVER, np.int64)
        self._woke = np.zeros((keys, 2), np.int64)
        self._busy, self.held = np.zeros(keys), np.zeros(keys)
        self.peaks, self.peaks_before = np.zeros((keys, 2)), np.zeros((keys, 2))
        self.suspect_since = np.full(keys, NEVER, np.int64)
        self.frozen = np.zeros((keys, HOURS), np.uint8)
        self.told = np.full(keys, NEVER, np.int64)

    def judge(self, window: int, ids: I64, values: I64, *, whole: bool = True, last: I64 | None = None) -> Judged:
        """Compare what keys did in a window with what is usual; nothing changes.

        Args:
            window: its number: Unix seconds divided by `WINDOW_S`.
            ids: i64[n], places of keys, rising; values: i64[n, VALUES], what each did, with at least one request.
            whole: False: of a window that is not over. Then no feature counts that could still become less.
            last: i64[n], the window in which each was used last, of which the place does not know; `NEVER`: not known.
        """
        tick = window * WINDOW_S
        features, z = np.empty((len(ids), FEATURES)), np.empty((len(ids), FEATURES))
        total, score, held = np.empty(len(ids)), np.empty(len(ids)), np.empty(len(ids))
        slept = self._slept(window, ids, self._last[ids] if last is None else np.maximum(self._last[ids], last))
        judge_keys_kernel(
            ids, values, whole, window, self.seen, self.hours, self._busy, self._last, self.held, self.config.young_windows,
            season_of(tick), self.config.z_most, self.config.leak, self.config.reference, tuple(self.levels.tables),
            tuple(self.totals.tables), np.where(slept > 0, WOKEN, 0.0), features, z, total, score, held,
        )  # fmt: skip
        return Judged(ids, features, z, total, score, held, slept)

    def _slept(self, window: int, ids: I64, last: I64) -> I64:
        """i64[n]: how many windows keys slept that wake in this one, or did within the last hour; else 0."""
        silent = window - last
        before = np.where(window - self._woke[ids, 0] < WOKEN_WINDOWS, self._woke[ids, 1], 0)
        found: I64 = np.where((last != NEVER) & (silent >= self.config.wakes_windows), silent, before)
        return found

    def is_over(self, judged: Judged) -> bool:
        """Whether there is anything to `decide`: most windows that are not over have nothing."""
        by_score, by_sum = self.by_score, self.by_sum
        return bool(len(judged.ids)) and (
            float(judged.score.max()) >= min(by_score.notify, by_score.act)
            or float(judged.held.max()) >= min(by_sum.notify, by_sum.act)
        )

    def _busy_now(self, window: int, ids: I64) -> F64:
        gap = np.minimum(np.maximum(window - self._last[ids] - 1, 0), 1000)
        found: F64 = self._busy[ids] * (11 / 12) ** gap * (11 / 12) + 1 / 12
        return found

    def begin(self, window: int) -> None:
        """Before a window is judged: what hours, cells and generations end with is done."""
        if self._window == NEVER:
            self._window = window - 1
        units = (HOUR_S, self._end_hour), (DAY_S, self._end_day), (self.config.generation_s, self._end_generation)
        for unit, turn in units if window != self._window else ():
            before, now = (self._window * WINDOW_S) // unit, (window * WINDOW_S) // unit
            for passed in range(max(before, now - 200) + 1, now + 1):
                turn(passed * unit)
        self._window = max(self._window, window)
        for calibration in (self.by_score, self.by_sum):
            calibration.begin(window * WINDOW_S)

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

    def learn(self, window: int, values: I64, judged: Judged, weights: F64) -> None:
        """Learn a window that is over.

        Args:
            values: i64[n, VALUES], as they were judged.
            weights: f64[n], 0 to 1: of keys under suspicion nothing is learned.
        """
        ids, tick = judged.ids, window * WINDOW_S
        self.levels.learn(tick, ids, judged.features, weights)
        self.totals.learn(tick, ids, judged.total[:, None], weights)
        self._busy[ids] = self._busy_now(window, ids)
        woke = ids[window - self._last[ids] == judged.slept]
        self._woke[woke, 0], self._woke[woke, 1] = window, window - self._last[woke]
        self._born[ids] = np.where(self._born[ids] == NEVER, window, self._born[ids])
        self._last[ids] = window
        self._active[ids] += 1
        self.held[ids] = judged.held
        self.frozen[ids[weights == 0], (tick // HOUR_S) % HOURS] += 1
        taken = ids[weights > 0]
        sets = values[weights > 0, V_NETS:]
        self.seen[taken, :, S_THIS] |= sets

    def weights(self, window: int, judged: Judged, found: Bools | None = None) -> F64:
        """f64[n]: 0 for keys under suspicion, as this window leaves them.

        Args:
            found: bool[n], of which keys other detectors found something in the window. None: of none.
        """
        tick, ids = window * WINDOW_S, judged.ids
        doubtful = (judged.score >= self.config.doubt * self.by_score.notify) | (
            judged.held >= self.config.doubt * self.by_sum.notify
        )
        since = self.suspect_since[ids]
        since = np.where(doubtful & (since == NEVER), tick, np.where(doubtful, since, NEVER))
        self.suspect_since[ids] = since
        suspect = (since != NEVER) & (tick - since < self.config.suspect_s)
        return np.where(suspect if found is None else suspect | found, 0.0, 1.0)

    def note_peaks(self, judged: Judged) -> None:
        """Remember the highest scores of the cell."""
        ids = judged.ids
        self.peaks[ids, 0] = np.maximum(self.peaks[ids, 0], judged.score)
        self.peaks[ids, 1] = np.maximum(self.peaks[ids, 1], judged.held)

    def decide(self, window: int, judged: Judged) -> tuple[Bools, Bools]:
        """(bool[n], bool[n]): of which keys people are told, and which may be slowed down."""
        tick, ids = window * WINDOW_S, judged.ids
        over = (judged.score >= self.by_score.notify) | (judged.held >= self.by_sum.notify)
        told = over & (tick - self.told[ids] >= self.config.quiet_s)
        self.told[ids[told]] = tick
        rare = (judged.score >= self.by_score.act) | (judged.held >= self.by_sum.act)
        # A customer who moves is new everywhere and asks for what he always did: there is nothing to slow down.
        acts = rare & (judged.z[:, F_REQUESTS] >= ACTS_FROM)
        return told, acts

    def forget(self, places: list[int], last: I64 | None = None) -> None:
        """These places are somebody else's now.

        Args:
            last: i64[n], the window in which whoever has the place now was used last; `NEVER`: not known.
        """
        self.levels.forget(places)
        self.totals.forget(places)
        for array, blank in self._arrays().values():
            array[places] = blank
        if last is not None:
            self._last[places] = last

    def _arrays(self) -> dict[str, tuple[npt.NDArray[Any], float | int]]:
        """What is kept of each place beside its levels, and what it begins with."""
        return {
            "seen": (self.seen, 0), "hours": (self.hours, 0.0), "active": (self._active, 0), "busy": (self._busy, 0.0),
            "last": (self._last, NEVER), "born": (self._born, NEVER), "held": (self.held, 0.0), "peaks": (self.peaks, 0.0),
            "peaks_before": (self.peaks_before, 0.0),
            "woke": (self._woke, 0), "suspect_since": (self.suspect_since, NEVER), "told": (self.told, NEVER),
            "frozen": (self.frozen, 0),
        }  # fmt: skip

    @property
    def memory_bytes(self) -> int:
        """What the state takes; it never grows."""
        own = sum(array.nbytes for array, _ in self._arrays().values())
        return own + self.levels.memory_bytes + self.totals.memory_bytes

    def save(self, ids: I64) -> dict[str, Any]:
        """Plain data and arrays for `load`: of these places."""
        return {
            "window": self._window, "levels": self.levels.save(ids), "totals": self.totals.save(ids),
            "by_score": self.by_score.save(), "by_sum": self.by_sum.save(),
            **{name: array[ids].copy() for name, (array, _) in self._arrays().items()},
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
        for name, (array, _) in self._arrays().items():
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
        self.suspect_since[place], self.held[place] = NEVER, 0.0

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
