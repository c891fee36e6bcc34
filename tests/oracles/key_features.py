"""What a key did in a window against what is usual of it, in plain Python: one key at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tests.oracles.levels import Levels

FEATURES = 11


@dataclass(frozen=True)
class Doings:
    """Of a window."""

    requests: int
    errors: int
    tokens_in: int
    tokens_out: int
    sets: Sequence[frozenset[int]]
    """Bins of networks, countries, user agents and models"""


@dataclass(frozen=True)
class Known:
    """Of a key, before the window."""

    seen: Sequence[frozenset[int]]
    hour: float
    """The share of windows with anything, in such an hour …"""
    overall: float
    """… and in any"""
    busy: float
    silent: int
    """Whole windows without anything before this one"""
    held: float
    woke: tuple[int, int]
    """The window in which it woke last, and how many it had slept"""


def slept_windows(window: int, last: int, woke: tuple[int, int], wakes: int) -> int:
    """How long a key slept that wakes now, or did within the last hour."""
    if window - last >= wakes:
        return window - last
    return woke[1] if window - woke[0] < 12 else 0


def feature_values(doings: Doings, known: Known, grown: bool) -> list[float]:
    """Eleven numbers; NaN: not known."""
    requests, (nets, *_) = doings.requests, doings.sets
    new = [float(len(now - before)) if grown else math.nan for now, before in zip(doings.sets, known.seen, strict=True)]
    rare = max(math.log2((known.overall + 0.02) / (known.hour + 0.02)), 0.0)
    tokens = [math.log((many + 100) / requests) if requests else math.nan for many in (doings.tokens_in, doings.tokens_out)]
    busy = known.busy
    for _ in range(min(known.silent, 1000) + 1):
        busy *= 11 / 12
    return [
        8 * math.asinh(math.sqrt(requests) / 4), *new, rare if grown else math.nan,
        4 * math.asinh(math.sqrt(doings.errors) / 2), *tokens, math.log(1 + len(nets)), busy + 1 / 12,
    ]  # fmt: skip


def judge(
    series: int, doings: Doings, known: Known, levels: Levels, totals: Levels, *, whole: bool, young: int, more: float,
    z_most: float, leak: float, reference: float,
) -> tuple[list[float], list[float], float, float, float]:  # fmt: skip
    """(features, their distances, the sum of the positive ones, how far off that is, the sum of what scores had above the
    reference)."""
    features = feature_values(doings, known, levels.at(series, -1, 0).count >= young)
    if not whole:
        features[7] = features[8] = math.nan
    z = [0.0 if math.isnan(value) else levels.z(0, series, f, value) for f, value in enumerate(features)]
    total = more + sum(min(max(one, 0.0), z_most) for one in z)
    score = totals.z(0, series, 0, total)
    held = known.held
    for _ in range(known.silent + 1):
        held *= leak
    return features, z, total, score, max(held + score - reference, 0.0)
