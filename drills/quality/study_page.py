"""A study's results as tables: recall beside the false alarms that came with it, and gains with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detectors.learning.levels import F64
from drills.columns import generator

FALSE_MAX = 1.5
"""With more false alarms a day, recall does not count."""
RESAMPLES = 2000
STEP_S = 10


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack, and the step in which each system told of it, or would have acted; -1: never."""

    series: int
    probe: int
    kind: str
    strength: float
    steps: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a study."""

    attacks: list[Attack]
    false: dict[str, F64]
    """System -> f64[series]: false alarms a day"""
    acts: dict[str, F64]
    campaigns: dict[str, F64]
    """Of the false alarms, those in honest campaigns"""
    series: int
    days: int
    seconds: float


def found(result: Result, name: str, point: int) -> F64:
    """f64[attacks]: 1 where a system found it; where the false alarms of its seed were too many, nothing counts."""
    counts = result.false[name] <= FALSE_MAX
    return np.array([float(one.steps[name][point] >= 0 and counts[one.series]) for one in result.attacks])


def gain(result: Result, name: str, other: str, point: int = 0) -> tuple[float, float, float]:
    """(mean, low, high): of a system over another on the same attacks; a 95 % interval by drawing whole probes anew."""
    apart = found(result, name, point) - found(result, other, point)
    clusters = np.array([one.series * 100_000 + one.probe for one in result.attacks])
    _, which = np.unique(clusters, return_inverse=True)
    sums, sizes = np.bincount(which, apart), np.bincount(which)
    random = generator(len(apart), 9950, point)
    drawn = random.integers(0, len(sums), (RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975)).tolist()
    return float(apart.mean()), low, high


def page(result: Result, names: Sequence[str]) -> str:
    """Markdown."""
    lines = [
        f"{len(result.attacks):,} attacks on {result.series} seeds over {result.days} days after a week of learning; "
        f"{result.seconds:.0f} s.",
        "",
        "| system | recall at `notify` | false alarms a day (worst seed; of them in campaigns) | median seconds | "
        "recall at `act` | at `act` for no reason in 90 days, out of campaigns |",
        "|---|---|---|---|---|---|",
    ]
    for name in names:
        told = found(result, name, 0)
        steps = [one.steps[name][0] for one in result.attacks if one.steps[name][0] >= 0]
        median = STEP_S * (float(np.median(steps)) + 1) if steps else float("nan")
        false = result.false[name]
        lines.append(
            f"| {name} | **{told.mean():.3f}** | {false.mean():.2f} ({false.max():.2f}; {result.campaigns[name].mean():.2f}) | "
            f"{median:.0f} | {found(result, name, 1).mean():.3f} | {90 * result.acts[name].mean():.1f} |"
        )
    lines += [
        "",
        "| gain on the same attacks | at `notify` | 95 % interval | at `act` | 95 % interval |",
        "|---|---|---|---|---|",
    ]
    pairs = [(names[0], names[1]), *((name, names[0]) for name in names[2:])]
    for name, other in pairs:
        cells = []
        for point in (0, 1):
            mean, low, high = gain(result, name, other, point)
            cells.append(f"{mean:+.3f} | {low:+.3f} to {high:+.3f}")
        lines.append(f"| {name}, over {other} | " + " | ".join(cells) + " |")
    kinds = list(dict.fromkeys(one.kind for one in result.attacks))
    strengths = sorted({one.strength for one in result.attacks})
    times = " / ".join(f"{strength:g}" for strength in strengths)
    heads = " | ".join(f"{name}: {times} ×" for name in names)
    lines += ["", f"| attack (recall at `notify`) | {heads} |"]
    lines.append("|---|" + "---|" * len(names))
    told_by = {name: found(result, name, 0) for name in names}
    for kind in kinds:
        cells = []
        for name in names:
            shares = []
            for strength in strengths:
                chosen = [i for i, one in enumerate(result.attacks) if one.kind == kind and one.strength == strength]
                shares.append(f"{told_by[name][chosen].mean():.2f}")
            cells.append(" / ".join(shares))
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
