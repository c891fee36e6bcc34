"""The scorer of the Numenta Anomaly Benchmark, written from its paper (Lavin and Ahmad, 2015, section III).

Inside a window only the earliest detection counts, and the earlier it is the more: a sigmoid from nearly 1 at the window's
left edge to 0 just past its right edge, scaled so that the first row of a window is worth 1. A window without a detection costs
the weight of a false negative. A detection outside costs up to the weight of a false positive, less if it is only just past
a window. The first 15 % of a series (of its first 5,000 rows) are probation: nothing there counts. The threshold is one for
the whole corpus, the best for the profile. The sum is scaled so that a detector that says nothing has 0 and a perfect one 100.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

PROBATION_SHARE = 0.15
PROBATION_ROWS_BASE = 5_000
STEEPNESS = 5.0
FAR_BEHIND = 3.0
"""So many widths behind a window, a false positive costs all it can."""
OUTSIDE = -1


@dataclass(frozen=True, slots=True)
class Profile:
    """What a detection, a false alarm and a miss weigh."""

    true_positive: float
    false_positive: float
    false_negative: float


PROFILES: dict[str, Profile] = {
    "standard": Profile(1.0, 0.11, 1.0),
    "reward_low_FP": Profile(1.0, 0.22, 1.0),
    "reward_low_FN": Profile(1.0, 0.11, 2.0),
}


@dataclass(frozen=True, slots=True)
class Truth:
    """The anomaly windows of one series, as rows: first and last of each, both inside."""

    rows: int
    windows: tuple[tuple[int, int], ...]

    @property
    def probation(self) -> int:
        """How many rows at the start do not count."""
        return int(PROBATION_SHARE * min(self.rows, PROBATION_ROWS_BASE))


@dataclass(frozen=True, slots=True)
class Scored:
    """What one detector reached on some series with one threshold; scores are normalised, 100 is perfect."""

    threshold: float
    total: float
    raw: dict[str, float]
    """Per series, before scaling: at best its number of windows times the weight of a true positive."""
    found: dict[str, int]
    """Windows with at least one detection, per series."""
    false: dict[str, int]
    """Rows outside every window at or over the threshold, per series."""


def scaled_sigmoid(position: Floats) -> Floats:
    """Nearly 1 at -1, the left edge of a window; 0 at 0; nearly -1 one width behind it."""
    return np.where(position >= FAR_BEHIND, -1.0, 2.0 / (1.0 + np.exp(STEEPNESS * np.minimum(position, FAR_BEHIND))) - 1.0)


def worth_of(truth: Truth) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Per row, what a detection there is worth (f64[n], unweighted), and its window (i64[n], `OUTSIDE` if none)."""
    rows = np.arange(truth.rows)
    position = np.full(truth.rows, FAR_BEHIND)
    window = np.full(truth.rows, OUTSIDE, np.int64)
    for first, last in truth.windows:
        behind = rows > last
        position[behind] = (rows[behind] - last) / max(1, last - first)
    worth = scaled_sigmoid(position)
    for index, (first, last) in enumerate(truth.windows):
        inside = rows[first : last + 1]
        window[inside] = index
        width = last - first + 1
        worth[inside] = scaled_sigmoid((inside - last - 1) / width) / scaled_sigmoid(np.array([-1.0]))[0]
    return worth, window


def score(
    scores: Mapping[str, Floats], truths: Mapping[str, Truth], profile: Profile, threshold: float | None = None
) -> Scored:
    """The corpus with one threshold: the one given, or the best.

    ``scores`` holds, per series, how anomalous each row is (f64[n]); a row is detected from the threshold on.
    """
    if threshold is None:
        threshold = best_threshold(scores, truths, profile)
    raw, found, false = {}, {}, {}
    for name, truth in truths.items():
        worth, window = worth_of(truth)
        detected = scores[name] >= threshold
        detected[: truth.probation] = False
        outside = detected & (window == OUTSIDE)
        hits = [worth[detected & (window == index)] for index in range(len(truth.windows))]
        found[name] = sum(bool(len(hit)) for hit in hits)
        false[name] = int(outside.sum())
        raw[name] = profile.false_positive * float(worth[outside].sum()) + sum(
            profile.true_positive * float(hit.max()) if len(hit) else -profile.false_negative for hit in hits
        )
    windows = sum(len(truth.windows) for truth in truths.values())
    return Scored(threshold, normalised(sum(raw.values()), windows, profile), raw, found, false)


def normalised(raw: float, windows: int, profile: Profile) -> float:
    """0 for a detector that says nothing, 100 for one that finds the first row of every window and nothing else."""
    silent = -profile.false_negative * windows
    perfect = profile.true_positive * windows
    return 100.0 * (raw - silent) / (perfect - silent)


def best_threshold(scores: Mapping[str, Floats], truths: Mapping[str, Truth], profile: Profile) -> float:
    """The threshold with the highest sum over all series; infinite when silence is best."""
    values, gains = [], []
    for name, truth in truths.items():
        worth, window = worth_of(truth)
        counted = np.arange(truth.rows) >= truth.probation
        outside = counted & (window == OUTSIDE)
        values.append(scores[name][outside])
        gains.append(profile.false_positive * worth[outside])
        for index in range(len(truth.windows)):
            inside = np.flatnonzero(counted & (window == index))
            order = inside[np.argsort(-scores[name][inside], kind="stable")]
            reached = np.maximum.accumulate(profile.true_positive * worth[order])
            values.append(scores[name][order])
            gains.append(np.diff(reached, prepend=-profile.false_negative))
    return _best_cut(values, gains)


def _best_cut(values: Sequence[Floats], gains: Sequence[Floats]) -> float:
    """The value down to which the sum of the gains is highest; equal values go together."""
    if sum(map(len, values)) == 0:
        return float("inf")
    value, gain = np.concatenate(values), np.concatenate(gains)
    order = np.argsort(-value, kind="stable")
    value, total = value[order], np.cumsum(gain[order])
    last_of_equal = np.append(np.flatnonzero(np.diff(value)), len(value) - 1)
    best = last_of_equal[np.argmax(total[last_of_equal])]
    return float(value[best]) if total[best] > 0 else float("inf")
