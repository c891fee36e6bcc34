"""What is learned of API keys, window by window: what is kept of each, and what a window is compared with it.

Of each window of a key there are eleven features (`FEATURES`); each is compared with the key's own level, drawn to that of all
keys of its judge partition while it is young. The positive distances are added up. Some keys are wild by nature, so that this
sum is compared with what it usually is for the key. That is the *score*; what it has above a reference, window after window,
is its *sum* (CUSUM).

Partitions learn each for itself (`detectors.learning.key_abuse`), but lie side by side here, so that a step of all of them is
judged and learned in one go: of one alone it would cost nearly as much.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.kernels.key_features import (
    F_REQUESTS,
    FEATURES,
    ITEMS,
    S_THIS,
    SETS,
    V_NETS,
    judge_keys_kernel,
)
from detectors.kernels.windows import NEVER
from detectors.learning.calibration import DAY_S
from detectors.learning.levels import HOUR_S, HOURS, SEASONS, Levels, LevelsConfig, LevelStack, season_of
from schemas.columns import I64

F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

WINDOW_S = 300
FEATURE_NAMES = (
    "requests", "new networks", "new countries", "new user agents", "new models", "unusual hour", "errors",
    "input tokens a request", "output tokens a request", "networks", "busy windows",
)  # fmt: skip
FLOORS = (1.0, 0.7, 0.4, 0.5, 0.5, 1.0, 1.0, 0.4, 0.4, 0.35, 0.15)
"""Of each feature: what is never more than one standard deviation."""
RAMPED = (F_REQUESTS,)
"""What can be raised a little every day, and is capped, as the sum of distances is. The others change when a customer does."""
TOTAL_SLOWER = 5.0
"""What the sum of distances usually is moves so many times slower: else it would follow what a capped level does not."""
ACTS_FROM = 3.0
"""Only who asks for so many standard deviations more than usual is slowed down."""
WOKEN = 1.0
"""What speaks against a key that was not used for a month, in standard deviations. With more, its owner is told of so much more
often than thieves that it does not pay (`drills.quality.study_key_waking`). It counts …"""
WOKEN_WINDOWS = 12
"""… in the windows of its first hour."""


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


class Limits(NamedTuple):
    """From where on a key is told of and slowed down: numbers, or f64[n] with those of each key's partition."""

    score_notify: F64
    score_act: F64
    sum_notify: F64
    sum_act: F64


@dataclass(slots=True)
class KeyState:
    """The keys of so many judge partitions: of each ``config.keys`` places, one partition after the other."""

    config: KeyAbuseConfig
    partitions: int
    levels: LevelStack = field(init=False)
    totals: LevelStack = field(init=False)
    seen: I64 = field(init=False)
    """i64[places, ITEMS, SETS]"""
    hours: F64 = field(init=False)
    """f64[places, SEASONS + 1]: shares of windows with anything"""
    active: I64 = field(init=False)
    """i64[places]: windows of the hour at hand with anything"""
    busy: F64 = field(init=False)
    last: I64 = field(init=False)
    """i64[places]: the last window with anything"""
    woke: I64 = field(init=False)
    """i64[places, 2]: the window in which a key woke last, and how many it had slept; never: 0"""
    born: I64 = field(init=False)
    held: F64 = field(init=False)
    peaks: F64 = field(init=False)
    """f64[places, 2]: of score and sum the highest in the cell at hand; 0: none"""
    peaks_before: F64 = field(init=False)
    """… and those of the day before"""
    suspect_since: I64 = field(init=False)
    frozen: npt.NDArray[np.uint8] = field(init=False)
    """u8[places, 24]: windows of each hour, in the last day, that were not learned"""
    told: I64 = field(init=False)

    def __post_init__(self) -> None:
        config, places = self.config, self.partitions * self.config.keys
        memory = config.memory_windows
        capped = tuple(config.change_max if f in RAMPED else 0.0 for f in range(FEATURES))
        of_features = LevelsConfig(config.keys, config.floors, memory, change_max=capped, settled_steps=memory)
        total, slower = (config.score_floor,), config.change_max / TOTAL_SLOWER
        of_totals = LevelsConfig(config.keys, total, memory, change_max=slower, settled_steps=memory)
        self.levels, self.totals = LevelStack(of_features, self.partitions), LevelStack(of_totals, self.partitions)
        self.seen = np.zeros((places, ITEMS, SETS), np.int64)
        self.hours = np.zeros((places, SEASONS + 1))
        self.active, self.busy, self.held = np.zeros(places, np.int64), np.zeros(places), np.zeros(places)
        self.last, self.born, self.suspect_since, self.told = (np.full(places, NEVER, np.int64) for _ in range(4))
        self.woke = np.zeros((places, 2), np.int64)
        self.peaks, self.peaks_before = np.zeros((places, 2)), np.zeros((places, 2))
        self.frozen = np.zeros((places, HOURS), np.uint8)

    def judge(self, window: int, ids: I64, values: I64, *, whole: bool = True, last: I64 | None = None) -> Judged:
        """Compare what keys did in a window with what is usual; nothing changes.

        Args:
            window: its number: Unix seconds divided by `WINDOW_S`.
            ids: i64[n], places of keys, rising; values: i64[n, VALUES], what each did, with at least one request.
            whole: False: of a window that is not over. Then no feature counts that could still become less.
            last: i64[n], the window in which each was used last, of which the place does not know; `NEVER`: not known.
        """
        many, config = len(ids), self.config
        features, z = np.empty((many, FEATURES)), np.empty((many, FEATURES))
        total, score, held, slept = np.empty(many), np.empty(many), np.empty(many), np.empty(many, np.int64)
        judge_keys_kernel(
            ids, values, whole, window, config.keys, self.seen, self.hours, self.busy, self.last, self.woke, self.held,
            config.young_windows, season_of(window * WINDOW_S), config.z_most, config.leak, config.reference,
            config.wakes_windows, WOKEN, WOKEN_WINDOWS, tuple(self.levels.tables), tuple(self.totals.tables),
            np.full(many, NEVER) if last is None else last, features, z, total, score, held, slept,
        )  # fmt: skip
        return Judged(ids, features, z, total, score, held, slept)

    def learn(self, window: int, values: I64, judged: Judged, weights: F64) -> None:
        """Learn a window that is over, after `begin_step`.

        Args:
            values: i64[n, VALUES], as they were judged.
            weights: f64[n], 0 to 1: of keys under suspicion nothing is learned.
        """
        ids, tick = judged.ids, window * WINDOW_S
        partitions, places = np.divmod(ids, self.config.keys)
        self.levels.learn(tick, partitions, places, judged.features, weights)
        self.totals.learn(tick, partitions, places, judged.total[:, None], weights)
        self.busy[ids] = self._busy_now(window, ids)
        woke = ids[window - self.last[ids] == judged.slept]
        self.woke[woke, 0], self.woke[woke, 1] = window, window - self.last[woke]
        self.born[ids] = np.where(self.born[ids] == NEVER, window, self.born[ids])
        self.last[ids] = window
        self.active[ids] += 1
        self.held[ids] = judged.held
        self.frozen[ids[weights == 0], (tick // HOUR_S) % HOURS] += 1
        taken = ids[weights > 0]
        self.seen[taken, :, S_THIS] |= values[weights > 0, V_NETS:]

    def _busy_now(self, window: int, ids: I64) -> F64:
        gap = np.minimum(np.maximum(window - self.last[ids] - 1, 0), 1000)
        found: F64 = self.busy[ids] * (11 / 12) ** gap * (11 / 12) + 1 / 12
        return found

    def weights(self, window: int, judged: Judged, limits: Limits, found: Bools | None = None) -> F64:
        """f64[n]: 0 for keys under suspicion, as this window leaves them.

        Args:
            found: bool[n], of which keys other detectors found something in the window. None: of none.
        """
        tick, ids, doubt = window * WINDOW_S, judged.ids, self.config.doubt
        doubtful = (judged.score >= doubt * limits.score_notify) | (judged.held >= doubt * limits.sum_notify)
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

    def decide(self, window: int, judged: Judged, limits: Limits) -> tuple[Bools, Bools]:
        """(bool[n], bool[n]): of which keys people are told, and which may be slowed down."""
        tick, ids = window * WINDOW_S, judged.ids
        over = (judged.score >= limits.score_notify) | (judged.held >= limits.sum_notify)
        told = over & (tick - self.told[ids] >= self.config.quiet_s)
        self.told[ids[told]] = tick
        rare = (judged.score >= limits.score_act) | (judged.held >= limits.sum_act)
        # A customer who moves is new everywhere and asks for what he always did: there is nothing to slow down.
        acts = rare & (judged.z[:, F_REQUESTS] >= ACTS_FROM)
        return told, acts

    def arrays(self) -> dict[str, tuple[npt.NDArray[Any], float | int]]:
        """What is kept of each place beside its levels, and what it begins with."""
        return {
            "seen": (self.seen, 0), "hours": (self.hours, 0.0), "active": (self.active, 0), "busy": (self.busy, 0.0),
            "last": (self.last, NEVER), "born": (self.born, NEVER), "held": (self.held, 0.0), "peaks": (self.peaks, 0.0),
            "peaks_before": (self.peaks_before, 0.0), "woke": (self.woke, 0), "suspect_since": (self.suspect_since, NEVER),
            "told": (self.told, NEVER), "frozen": (self.frozen, 0),
        }  # fmt: skip

    def partition(self, at: int) -> tuple[slice, Levels, Levels]:
        """Where the places of a partition lie, and its levels."""
        keys = self.config.keys
        own = slice(at * keys, (at + 1) * keys)
        return own, Levels(self.levels.config, self.levels, at), Levels(self.totals.config, self.totals, at)
