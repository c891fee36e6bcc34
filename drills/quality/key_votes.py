"""What River's models add to the sum of distances: HalfSpaceTrees on z, and a LogisticRegression that is told a day late.

They look at windows whose score is above `CANDIDATE_FROM`, as they would in the product: tens of microseconds for every window
of every key are more than all the rest. The labelled model is trained on one half of the kinds of attack and tried on the
other, and the other way round; its labels come a day late, and one in twenty is wrong.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from river.anomaly import HalfSpaceTrees
from river.linear_model import LogisticRegression
from river.preprocessing import StandardScaler

from detectors.learning.calibration import DAY_S, Calibration, CalibrationConfig
from detectors.learning.key_state import FEATURE_NAMES, Judged
from drills.columns import F64
from drills.quality.key_world import ATTACK_KINDS

CANDIDATE_FROM = 1.5
Z_MOST = 8.0
TREES_ONE_IN = 20
"""Of windows so many are learned by the trees."""
WRONG = 0.05
HALVES = (ATTACK_KINDS[::2], ATTACK_KINDS[1::2])


def _plain(z: F64) -> dict[str, float]:
    clipped = np.clip(z, -Z_MOST, Z_MOST)
    return dict(zip(FEATURE_NAMES, clipped.tolist(), strict=True))


class Votes:
    """Of one service."""

    def __init__(self, seed: int, keys: int) -> None:
        self._chance = np.random.default_rng([seed, 17])
        limits = dict.fromkeys(FEATURE_NAMES, (-Z_MOST, Z_MOST))
        self._trees: Any = cast(Any, HalfSpaceTrees)(n_trees=25, height=8, window_size=250, limits=limits, seed=seed)
        self._models: list[Any] = [StandardScaler() | LogisticRegression() for _ in HALVES]
        """The first has learned the first half of the kinds, and judges the second."""
        config = CalibrationConfig(notify_per_day=1.0, act_per_day=1 / 90, start=1e9)
        self._limits = {"trees": Calibration(config), "labels": Calibration(config)}
        self._other = Calibration(config)
        self._peaks = {name: np.zeros(keys) for name in ("trees", "labels", "other")}
        self._late: deque[tuple[int, dict[str, float], int, bool]] = deque()
        self._day = -1
        self._kinds: dict[int, int] = {}

    def begin(self, tick: int) -> None:
        """Before a window: yesterday's labels are learned, and the day's highest votes become part of the past."""
        day = tick // DAY_S
        if day != self._day and self._day >= 0:
            for name, calibration in (*self._limits.items(), ("other", self._other)):
                peaks = self._peaks[name]
                calibration.observe(tick - 1, DAY_S, peaks[peaks > 0])
                peaks[:] = 0
        self._day = day
        for calibration in (*self._limits.values(), self._other):
            calibration.begin(tick)
        while self._late and self._late[0][0] <= tick - DAY_S:
            _, z, half, attack = self._late.popleft()
            said = attack != (self._chance.random() < WRONG)
            for index, model in enumerate(self._models):
                if half in (index, -1):
                    model.learn_one(z, said)

    def learn(self, tick: int, judged: Judged) -> None:
        """Honest windows, after they were judged."""
        for index in np.flatnonzero(self._chance.random(len(judged.ids)) < 1 / TREES_ONE_IN).tolist():
            self._trees.learn_one(_plain(judged.z[index]))
        for index in np.flatnonzero(judged.score >= CANDIDATE_FROM).tolist():
            key, z = int(judged.ids[index]), _plain(judged.z[index])
            self._note("trees", key, self._trees.score_one(z))
            for name, model in zip(("labels", "other"), self._models, strict=True):
                self._note(name, key, _strength(model, z))
            if self._chance.random() < 0.1:
                self._late.append((tick, z, -1, False))

    def _note(self, name: str, key: int, vote: float) -> None:
        self._peaks[name][key] = max(self._peaks[name][key], vote)

    def label(self, tick: int, judged: Judged, kinds: Sequence[str]) -> None:
        """Windows of attacks, which people will tell of tomorrow."""
        for index in np.flatnonzero(judged.score >= CANDIDATE_FROM).tolist():
            half = 0 if kinds[index] in HALVES[0] else 1
            self._late.append((tick, _plain(judged.z[index]), half, True))

    def over(self, judged: Judged, per_day: float, kinds: Sequence[str] | None = None) -> dict[str, Any]:
        """Of each model, bool[n]: whom it votes to tell of, if it may so often a day."""
        found = {name: np.zeros(len(judged.ids), np.bool_) for name in self._limits}
        tails = {**{name: one.tail for name, one in self._limits.items()}, "other": self._other.tail}
        candidates = np.flatnonzero(judged.score >= CANDIDATE_FROM).tolist()
        for index in candidates:
            z = _plain(judged.z[index])
            tail = tails["trees"]
            found["trees"][index] = tail is not None and self._trees.score_one(z) >= tail.limit(per_day)
            # Of honest keys both halves' models count; an attack is judged by the one that never saw its kind.
            unseen = (0, 1) if kinds is None else (1,) if kinds[index] in HALVES[0] else (0,)
            for which in unseen:
                tail = tails["labels" if which == 0 else "other"]
                share = per_day / len(HALVES)
                if tail is not None and _strength(self._models[which], z) >= tail.limit(share):
                    found["labels"][index] = True
        return found


def _strength(model: Any, z: dict[str, float]) -> float:
    """A positive number that rises with the odds."""
    chance = min(max(float(model.predict_proba_one(z).get(True, 0.0)), 1e-12), 1 - 1e-12)
    return max(0.0, float(np.log(chance / (1 - chance))) + 20.0)
