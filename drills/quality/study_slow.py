"""How soon a registration campaign is told that goes on for days: the slow part of docs/models-registrations.md.

    python -m drills.quality.study_slow [--days 28] [--seeds N] [--first SEED]

People's registrations, and a tenth, three tenths or once as many more that mimic them for a day, judged in windows of ten
minutes, an hour and a day by the product's slow model with its share of the alarms. As in the other study attacks are set
into copies, and limits come from the past alone. Of people's accounts two in three are used, more or fewer by the day, hour,
weekend and campaign; of the campaign's none, or as many as of people's, which is then what it costs the attacker. Samples show
what some accounts do and not others: of a busy service one in four.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.learning.calibration import Calibration, CalibrationConfig
from detectors.learning.floods import BASES, COLUMNS, MARKS, STEP_S, FloodModel
from detectors.learning.hours import Hours
from detectors.learning.levels import F64
from detectors.learning.marks import Rows, Usual, sums_of
from detectors.registrations import RegistrationsSection
from drills.columns import generator
from drills.quality.registration_weeks import FIRST_STEP, PER_STEP, first_uses, honest, people, shares_used
from engine.registrants import AGED, SLOW_SHARE, SLOW_STEPS, SUSPECT, slow_config

I64 = npt.NDArray[np.int64]

SEEDS = (7301, 7302, 7303, 7304, 7305)
"""Not those that marks and spreads were tried on (11 and 12)."""
STRENGTHS = (0.1, 0.3, 1.0)
COLD_DAYS, HOUR_STEPS, HOURLY, DAILY = 8, 360, 6, 144
GAP = 6
"""An hour: what comes again within it is the same alarm."""


@dataclass(frozen=True, slots=True)
class World:
    """How accounts are used, and how much of that is seen."""

    said: str
    spread: float = 0.03
    """The standard deviation, from day to day, of the share of people's accounts that are used; of hours, half of that"""
    followed: float = 1.0
    """Of so many accounts a sample shows what they do"""
    linked: bool = True
    """False: registrations and requests name different services, as before"""
    used: bool = False
    """The campaign's accounts are used as people's are"""


WORLDS = (
    World("not linked to use", linked=False),
    World("days differ by 1.5 points", 0.015),
    World("days differ by 3 points"),
    World("by 3 points, one account in four followed", followed=0.25),
    World("by 5 points", 0.05),
    World("by 3 points, its accounts are used", used=True),
)


def traffic(seed: int, days: int, world: World, rows: Rows | None = None) -> tuple[F64, F64]:
    """(f64[slow steps, COLUMNS] of people, f64[strengths, slow steps, COLUMNS] of campaigns that never end).

    ``rows``: of these people.
    """
    rows = honest(seed, days) if rows is None else rows
    usual, random = Usual(), generator(seed, 9960, 0)
    edges = np.searchsorted(rows.step, FIRST_STEP + HOUR_STEPS * np.arange(24 * days + 1))
    made: list[list[I64]] = [[] for _ in STRENGTHS]
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
            made[index].append(hostile.step[~hostile.failed])
        usual.learn(part, 1.0)
    if world.linked:
        chance, shares = generator(seed, 9970, 0), shares_used(seed, days, world.spread)
        for sums, steps in ((calm, rows.step[~rows.failed]), *zip(more, map(np.concatenate, made), strict=True)):
            used = shares[steps - FIRST_STEP] * (sums is calm or world.used)
            _grow_old(sums, steps, first_uses(chance, used), chance.random(len(steps)) < world.followed)
    return calm, more


def _grow_old(sums: F64, steps: I64, lag_s: F64, followed: npt.NDArray[np.bool_]) -> None:
    """Add accounts that became an hour and six hours old to the steps in which they did."""
    for base, mark, age_steps in AGED:
        at = (steps - FIRST_STEP + age_steps) // SLOW_STEPS
        here = followed & (at < len(sums))
        unseen = np.bincount(at[here], lag_s[here] > STEP_S * age_steps, len(sums))
        sums[:, base] += np.bincount(at[here], minlength=len(sums))
        sums[:, BASES + mark] += unseen
        sums[:, BASES + MARKS + mark] += unseen


def from_its_first_step(more: F64, first: int) -> F64:
    """A campaign's steps from its first on: nobody of it has grown old by then."""
    found = more[first : first + DAILY].copy()
    for base, mark, age_steps in AGED:
        found[: age_steps // SLOW_STEPS, [base, BASES + mark, BASES + MARKS + mark]] = 0.0
    return found


def _slow(rows: Rows, marks: F64, first: int, known: bool) -> F64:
    coarse = rows.take(slice(None))
    coarse.step = rows.step // SLOW_STEPS
    return sums_of(coarse, marks, first // SLOW_STEPS, HOURLY, known=known)


def study(seed: int, days: int, world: World) -> tuple[list[list[float]], float]:
    """(of each strength the hours until each campaign was told, infinite where none of a day's was; false alarms a day)"""
    section = RegistrationsSection()
    config = slow_config(section.change_max)
    limits = Calibration(
        CalibrationConfig(SLOW_SHARE * section.notify_per_day, SLOW_SHARE * section.act_per_day, section.start_score)
    )
    model, hours = FloodModel(config), Hours(1)
    calm, more = traffic(seed, days, world)
    found: list[list[float]] = [[] for _ in STRENGTHS]
    alarms, last = 0, -GAP - 1
    for step, sums in enumerate(calm):
        tick = 10 * FIRST_STEP + 600 * (step + 1) - 1
        if step >= COLD_DAYS * DAILY and step % DAILY == 48 and step + DAILY <= len(calm):
            for index in range(len(STRENGTHS)):
                copy = model.fork(np.zeros(1, np.int64))
                both = calm[step : step + DAILY] + from_its_first_step(more[index], step)
                found[index].append(_until(copy, step, both, limits.notify))
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
    for step, one in enumerate(sums, first):
        if float(copy.step(10 * FIRST_STEP + 600 * (step + 1) - 1, one[None]).score[0]) >= limit:
            return (step - first + 1) / HOURLY
    return float("inf")


def main(words: Sequence[str] | None = None) -> int:
    """Run it and print a table."""
    parser = argparse.ArgumentParser(prog="python -m drills.quality.study_slow", description=__doc__)
    parser.add_argument("--days", type=int, default=28)
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--first", type=int, help="seeds from this one on, for tuning")
    options = parser.parse_args(words)
    seeds = SEEDS[: options.seeds] if options.first is None else range(options.first, options.first + options.seeds)
    titles = " | ".join(f"{strength:g} × the usual" for strength in STRENGTHS)
    print(f"| how accounts are used | {titles} | false alarms a day (worst seed) |\n|---|---|---|---|---|")
    for world in WORLDS:
        results = [study(seed, options.days, world) for seed in seeds]
        cells = [_cell(list(itertools.chain(*(found[index] for found, _ in results)))) for index in range(len(STRENGTHS))]
        false = [one for _, one in results]
        print(f"| {world.said} | {' | '.join(cells)} | {np.mean(false):.2f} ({max(false):.2f}) |", flush=True)
    return 0


def _cell(hours: list[float]) -> str:
    """How many campaigns were told, and after how many hours half of those."""
    told = [one for one in hours if np.isfinite(one)]
    return f"{len(told) / len(hours):.2f}, {np.median(told):.1f} h" if told else "0"


if __name__ == "__main__":
    sys.exit(main())
