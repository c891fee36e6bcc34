"""What `surge` finds in seeded series of counts per minute, and how often honest weeks make it cry.

Each series has a day and a week in it. Attacks are planted in its fourth week or later, at random minutes, and are to be
found while they last. Alarms of the first week are counted apart: it holds everything that is new.

With a folder that holds ``nasa_jul_aug95_req_per_sec.tbz2``, 58 days of a space agency's site by the second, it is asked how
often those make it cry instead. Nothing of them is kept.
"""

from __future__ import annotations

import statistics
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detectors.surge import Surge, SurgeConfig

Floats = npt.NDArray[np.float64]

REAL = "nasa_jul_aug95_req_per_sec.tbz2"
REAL_START_S = 804_571_200
"""1 July 1995, midnight in Florida."""
REAL_STEPS_S = (60, 10, 1)
"""The first is the engine's own."""
ALARMS_A_WEEK_MAX = 1
WEEK_S = 7 * 86_400

WEEK = 7 * 1440
WEEKS = 6
START_S = 1_767_571_200
"""A Monday."""


@dataclass(frozen=True, slots=True)
class Kind:
    """An honest series: its mean per minute, how much it wanders for half an hour or so, and how bursty each minute is."""

    mean: float
    wander: float = 0.0
    burst: float = 0.0


KINDS = {
    "5 a minute, Poisson": Kind(5),
    "600 a minute, Poisson": Kind(600),
    "60,000 a minute, Poisson": Kind(60_000),
    "600 a minute, wanders by 10 %": Kind(600, wander=0.1),
    "600 a minute, wanders by 20 %": Kind(600, wander=0.2),
    "60 a minute, wanders by 30 %, bursts of 70 %": Kind(60, wander=0.3, burst=0.5),
}


def honest_series(kind: Kind, seed: int, weeks: int = WEEKS) -> tuple[npt.NDArray[np.int64], Floats]:
    """Times (i64[n]) and counts (f64[n]) of quiet weeks."""
    random = np.random.default_rng(seed)
    minutes = np.arange(weeks * WEEK)
    angle = minutes / 1440 * 2 * np.pi
    weekend = np.convolve(minutes // 1440 % 7 >= 5, np.full(360, 1 / 360), mode="same")
    level = kind.mean * (1 + 0.6 * np.sin(angle - 2) + 0.15 * np.sin(2 * angle)) * (1 - 0.3 * weekend)
    if kind.wander:
        keep, noise = 0.97, random.standard_normal(len(minutes))
        wander = np.zeros(len(minutes))
        for i in range(1, len(minutes)):
            wander[i] = keep * wander[i - 1] + np.sqrt(1 - keep * keep) * noise[i]
        level = level * np.exp(kind.wander * wander - kind.wander**2 / 2)
    if kind.burst:
        level = level * random.gamma(1 / kind.burst, kind.burst, len(minutes))
    return START_S + 60 * minutes, random.poisson(level).astype(np.float64)


Planter = Callable[[Floats, float, np.random.Generator], Floats]


def added(share: float) -> Planter:
    """So much of the series' mean on top, at once."""
    return lambda counts, mean, random: counts + random.poisson(share * mean, len(counts))


def grown(share: float) -> Planter:
    """The same, reached little by little."""
    return lambda counts, mean, random: counts + random.poisson(share * mean * np.linspace(0, 1, len(counts)))


def thinned(share: float) -> Planter:
    """So much of the series is left."""
    return lambda counts, mean, random: random.binomial(counts.astype(np.int64), share).astype(np.float64)


ATTACKS: dict[str, tuple[int, Planter]] = {
    "+ 30 %, 30 min": (30, added(0.3)),
    "+ 100 %, 30 min": (30, added(1.0)),
    "+ 400 %, 30 min": (30, added(4.0)),
    "up to + 100 %, 4 h": (240, grown(1.0)),
    "up to + 100 %, 24 h": (1440, grown(1.0)),
    "half is left, 30 min": (30, thinned(0.5)),
    "outage, 30 min": (30, thinned(0.0)),
}


def run(seeds: int) -> None:
    """Print both tables."""
    config = SurgeConfig()
    print(f"\nalarms (a score of {config.alarm_at} or more) over {seeds} x {WEEKS} honest weeks of minutes,")
    print(f"and in how many of {seeds} an attack is told while it lasts")
    for label, kind in KINDS.items():
        first, later, taken = 0, 0, 0.0
        for seed in range(seeds):
            times, counts = honest_series(kind, seed)
            began = time.perf_counter()
            alarms = Surge(config).observe(times, counts).alarm
            taken += time.perf_counter() - began
            first, later = first + int(alarms[:WEEK].sum()), later + int(alarms[WEEK:].sum())
        steps_us = taken / seeds / WEEKS / WEEK * 1e6
        print(
            f"  {label}: {first} in {seeds} first weeks, {later} in {seeds * (WEEKS - 1)} later ones; {steps_us:.1f} us a step"
        )
        for attack, (minutes, plant) in ATTACKS.items():
            waits = [_minutes_to_alarm(config, kind, seed, minutes, plant) for seed in range(seeds)]
            found = [wait for wait in waits if wait is not None]
            after = f", median {statistics.median(found):.0f} min after its start" if found else ""
            print(f"    {attack}: {len(found)}{after}")


def _minutes_to_alarm(config: SurgeConfig, kind: Kind, seed: int, minutes: int, plant: Planter) -> int | None:
    times, counts = honest_series(kind, 1000 + seed)
    random = np.random.default_rng(2000 + seed)
    at = int(random.integers(3 * WEEK, WEEKS * WEEK - minutes))
    counts[at : at + minutes] = plant(counts[at : at + minutes], kind.mean, random)
    hits = np.flatnonzero(Surge(config).observe(times[: at + minutes], counts[: at + minutes]).alarm[at:])
    return int(hits[0]) + 1 if len(hits) else None


def load_seconds(folder: Path) -> npt.NDArray[np.int64]:
    """Requests in each second (i64[n]).

    Raises:
        SystemExit: the folder does not hold them.
    """
    path = folder / REAL
    if not path.is_file():
        raise SystemExit(f"expected a folder with {REAL} in --data, got {folder}")
    with tarfile.open(path) as archive:
        member = next(entry for entry in archive if entry.isfile())
        content = archive.extractfile(member)
        assert content is not None
        return np.array(content.read().split(), np.int64)


def alarms_by_week(seconds: npt.NDArray[np.int64], step_s: int) -> tuple[list[int], list[str]]:
    """Of each week how many steps are alarms, and each alarm in words."""
    counts = seconds[: len(seconds) // step_s * step_s].reshape(-1, step_s).sum(axis=1).astype(np.float64)
    times = REAL_START_S + step_s * np.arange(len(counts))
    outcome = Surge(SurgeConfig()).observe(times, counts)
    hits = np.flatnonzero(outcome.alarm)
    weeks = np.bincount((times[hits] - REAL_START_S) // WEEK_S, minlength=-(-len(seconds) // WEEK_S))
    told = [
        f"{datetime.fromtimestamp(int(times[at]), UTC):%d %B %H:%M} UTC: {counts[at]:,.0f}, where about "
        f"{outcome.expected[at]:,.0f} were expected"
        for at in hits
    ]
    return weeks.tolist(), told


def run_real(folder: Path) -> None:
    """Print how many alarms each week has, by the length of a step.

    Raises:
        SystemExit: there are more than one a week in steps of the engine's length.
    """
    seconds = load_seconds(folder)
    print(f"\nsurge: alarms (a score of {SurgeConfig().alarm_at} or more) in {len(seconds) / 86_400:.1f} real days, "
          f"{len(seconds):,} seconds, {seconds.sum():,} requests")  # fmt: skip
    for step_s in REAL_STEPS_S:
        weeks, told = alarms_by_week(seconds, step_s)
        print(f"  steps of {step_s} s: {sum(weeks)}, by week {weeks}")
        if step_s == REAL_STEPS_S[0]:
            for text in told:
                print(f"    {text}")
            if max(weeks) > ALARMS_A_WEEK_MAX:
                raise SystemExit(f"expected at most {ALARMS_A_WEEK_MAX} alarm in each week in steps of {step_s} s, got {weeks}")
