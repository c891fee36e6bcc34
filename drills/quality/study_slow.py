"""How soon a registration campaign is told that goes on for days: the slow part of docs/models-registrations.md.

    python -m drills.quality.study_slow [--days 28] [--seeds N]

People's registrations, and a tenth, three tenths or once as many more that mimic them for a day, judged in windows of ten
minutes, an hour and a day by the product's slow model with its share of the alarms. As in the other study attacks are set
into copies, and limits come from the past alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from detectors.learning.calibration import Calibration, CalibrationConfig
from detectors.learning.floods import COLUMNS, FloodModel
from detectors.learning.hours import Hours
from detectors.learning.levels import F64
from detectors.learning.marks import Rows, Usual, sums_of
from detectors.registrations import RegistrationsSection
from drills.columns import generator
from drills.quality.registration_weeks import FIRST_STEP, PER_STEP, honest, people
from engine.registrants import SLOW_SHARE, SLOW_STEPS, SUSPECT, slow_config

SEEDS = (7301, 7302, 7303, 7304, 7305)
STRENGTHS = (0.1, 0.3, 1.0)
COLD_DAYS, HOUR_STEPS, HOURLY, DAILY = 8, 360, 6, 144
GAP = 6
"""An hour: what comes again within it is the same alarm."""


def traffic(seed: int, days: int) -> tuple[F64, F64]:
    """(f64[slow steps, COLUMNS] of people, f64[strengths, slow steps, COLUMNS] of campaigns that never end)."""
    rows, usual, random = honest(seed, days), Usual(), generator(seed, 9960, 0)
    edges = np.searchsorted(rows.step, FIRST_STEP + HOUR_STEPS * np.arange(24 * days + 1))
    calm, more = np.zeros((days * DAILY, COLUMNS)), np.zeros((len(STRENGTHS), days * DAILY, COLUMNS))
    for hour in range(24 * days):
        first, at = FIRST_STEP + HOUR_STEPS * hour, slice(HOURLY * hour, HOURLY * (hour + 1))
        part, known = rows.take(slice(edges[hour], edges[hour + 1])), usual.is_known
        calm[at] = _slow(part, usual.marks(part), first, known)
        for index, strength in enumerate(STRENGTHS):
            counts = random.poisson(strength * PER_STEP, HOUR_STEPS)
            hostile = people(random, np.repeat(np.arange(HOUR_STEPS) + first, counts))
            alone = Usual()
            alone.of = usual.of
            more[index, at] = _slow(hostile, alone.marks(hostile), first, known)
        usual.learn(part, 1.0)
    return calm, more


def _slow(rows: Rows, marks: F64, first: int, known: bool) -> F64:
    coarse = rows.take(slice(None))
    coarse.step = rows.step // SLOW_STEPS
    return sums_of(coarse, marks, first // SLOW_STEPS, HOURLY, known=known)


def study(seed: int, days: int) -> tuple[list[list[float]], float]:
    """(of each strength the hours until each campaign was told, infinite where none of a day's was; false alarms a day)"""
    section = RegistrationsSection()
    config = slow_config(section.change_max)
    limits = Calibration(
        CalibrationConfig(SLOW_SHARE * section.notify_per_day, SLOW_SHARE * section.act_per_day, section.start_score)
    )
    model, hours = FloodModel(config), Hours(1)
    calm, more = traffic(seed, days)
    found: list[list[float]] = [[] for _ in STRENGTHS]
    alarms, last = 0, -GAP - 1
    for step, sums in enumerate(calm):
        tick = 10 * FIRST_STEP + 600 * (step + 1) - 1
        if step >= COLD_DAYS * DAILY and step % DAILY == 48 and step + DAILY <= len(calm):
            for index in range(len(STRENGTHS)):
                copy = model.fork(np.zeros(1, np.int64))
                found[index].append(_until(copy, step, calm + more[index], limits.notify))
        limits.begin(tick)
        score = float(model.step(tick, sums[None]).score[0])
        model.learn(np.array([score >= SUSPECT * limits.notify]))
        hours.see(0, score, limits.notify)
        if step >= COLD_DAYS * DAILY and score >= limits.notify:
            alarms += step - last > GAP
            last = step
        if step % HOURLY == HOURLY - 1:
            hours.end(tick, [limits])
    return found, alarms / (days - COLD_DAYS)


def _until(copy: FloodModel, first: int, sums: F64, limit: float) -> float:
    """Hours until the score is at the limit."""
    for step in range(first, first + DAILY):
        if float(copy.step(10 * FIRST_STEP + 600 * (step + 1) - 1, sums[step][None]).score[0]) >= limit:
            return (step - first + 1) / HOURLY
    return float("inf")


def main(words: Sequence[str] | None = None) -> int:
    """Run it and print a table."""
    parser = argparse.ArgumentParser(prog="python -m drills.quality.study_slow", description=__doc__)
    parser.add_argument("--days", type=int, default=28)
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    options = parser.parse_args(words)
    results = [study(seed, options.days) for seed in SEEDS[: options.seeds]]
    false = [one for _, one in results]
    print(f"False alarms of the slow model a day: {np.mean(false):.2f} (worst seed {max(false):.2f})\n")
    print("| a campaign of | told within its first day | median hours |\n|---|---|---|")
    for index, strength in enumerate(STRENGTHS):
        hours = [one for found, _ in results for one in found[index]]
        told = [one for one in hours if np.isfinite(one)]
        median = f"{np.median(told):.1f}" if told else "–"
        print(f"| {strength:g} × the usual ({len(hours)} campaigns) | {len(told) / len(hours):.2f} | {median} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
