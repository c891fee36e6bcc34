"""How soon a registration campaign is told that goes on for days: the slow part of docs/models-registrations.md.

    python -m drills.quality.study_slow [--days 28] [--seeds N] [--first SEED] [--world N] [--alone]

People's registrations, and a tenth, three tenths or once as many more that mimic them for a day, judged in windows of ten
minutes, an hour and a day by the product's slow model with its share of the alarms. As in the other study attacks are set
into copies, and limits come from the past alone. Of people's accounts two in three are used, more or fewer by the day, hour,
weekend and campaign; of the campaign's none, or as many as of people's, which is then what it costs the attacker. Samples show
what some accounts do and not others: of a busy service one in four.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from detectors.learning.calibration import Calibration
from detectors.learning.days import Days
from detectors.learning.episodes import Episode
from detectors.learning.floods import BASES, COLUMNS, MARKS, STEP_S, Base, FloodModel, Mark
from detectors.learning.hours import Hours
from detectors.learning.levels import F64
from detectors.learning.marks import Rows, Usual, sums_of
from detectors.registrations import RegistrationsSection
from drills.columns import generator
from drills.quality.registration_weeks import FIRST_STEP, PER_STEP, first_uses, honest, people, shares_used, verifications
from engine.registrants import (
    AGED,
    SLOW_EPISODE_STEPS,
    SLOW_STEPS,
    SUSPECT,
    VERIFIED,
    add_day,
    end_hour,
    limits_of,
    slow_config,
    slow_share,
)

I64 = npt.NDArray[np.int64]

SEEDS = (7301, 7302, 7303, 7304, 7305)
"""Not those that marks and spreads were tried on (11 and 12)."""
STRENGTHS = (0.1, 0.3, 1.0)
VERIFIED_SPREAD = 0.03
COLD_DAYS, HOUR_STEPS, HOURLY, DAILY = 8, 360, 6, 144
GAP = 6
"""An hour: what comes again within it is the same alarm."""
SECTION = RegistrationsSection()


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
    verified: bool = False
    """Of people's accounts 85 in 100 are verified, by three points more or fewer from day to day; of the campaign's none"""
    numbers: float = 0.0
    """The standard deviation of a day's number, beside what drills have: hours that differ by 8 % without a reason"""


WORLDS = (
    World("not linked to use", linked=False),
    World("not linked, and people's are verified", linked=False, verified=True),
    World("days differ by 1.5 points", 0.015),
    World("days differ by 3 points"),
    World("by 3 points, and people's are verified", verified=True),
    World("by 3 points, one account in four followed", followed=0.25),
    World("by 5 points", 0.05),
    World("by 3 points, its accounts are used", used=True),
    World("by 3 points, its accounts are used, and people's are verified", used=True, verified=True),
    World("by 3 points, and days' numbers by 10 %", numbers=0.1),
)


def traffic(seed: int, days: int, world: World, rows: Rows | None = None) -> tuple[F64, F64]:
    """(f64[slow steps, COLUMNS] of people, f64[strengths, slow steps, COLUMNS] of campaigns that never end).

    ``rows``: of these people.
    """
    rows = honest(seed, days, world.numbers) if rows is None else rows
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
            _grow_old(AGED, sums, steps, first_uses(chance, used), chance.random(len(steps)) < world.followed)
    if world.verified:
        chance = generator(seed, 9980, 0)
        for sums, steps in ((calm, rows.step[~rows.failed]), *zip(more, map(np.concatenate, made), strict=True)):
            lag_s = verifications(chance, seed, days, VERIFIED_SPREAD, steps) if sums is calm else np.full(len(steps), np.inf)
            _grow_old((VERIFIED,), sums, steps, lag_s, np.ones(len(steps), np.bool_))
    return calm, more


def _grow_old(
    ages: Sequence[tuple[Base, Mark, int]], sums: F64, steps: I64, lag_s: F64, followed: npt.NDArray[np.bool_]
) -> None:
    """Add accounts that became so old to the steps in which they did."""
    for base, mark, age_steps in ages:
        at = (steps - FIRST_STEP + age_steps) // SLOW_STEPS
        here = followed & (at < len(sums))
        unseen = np.bincount(at[here], lag_s[here] > STEP_S * age_steps, len(sums))
        sums[:, base] += np.bincount(at[here], minlength=len(sums))
        sums[:, BASES + mark] += unseen
        sums[:, BASES + MARKS + mark] += unseen


def from_its_first_step(more: F64, first: int) -> F64:
    """A campaign's steps from its first on: nobody of it has grown old by then."""
    found = more[first : first + DAILY].copy()
    for base, mark, age_steps in (*AGED, VERIFIED):
        found[: age_steps // SLOW_STEPS, [base, BASES + mark, BASES + MARKS + mark]] = 0.0
    return found


def _slow(rows: Rows, marks: F64, first: int, known: bool) -> F64:
    coarse = rows.take(slice(None))
    coarse.step = rows.step // SLOW_STEPS
    return sums_of(coarse, marks, first // SLOW_STEPS, HOURLY, known=known)


@dataclass(slots=True)
class Judged:
    """The product's slow model with its limits, and the verdict on what days are like."""

    alone: bool
    """Without that verdict, with all of the alarms"""
    model: FloodModel = field(default_factory=lambda: FloodModel(slow_config(SECTION.change_max)))
    days: Days = field(default_factory=Days)
    limits: Calibration = field(default_factory=lambda: Calibration(limits_of(SECTION, slow_share(False))))
    hours: Hours = field(default_factory=lambda: Hours(1))
    episodes: tuple[Episode, Episode] = field(default_factory=lambda: (_episode(), _episode()))

    def step(self, step: int, sums: F64) -> int:
        """Ten minutes: judged and learned. How many notices they make."""
        tick = _tick(step)
        self.limits.begin(tick)
        score = float(self.model.step(tick, sums[None]).score[0])
        self.model.learn(np.array([score >= SUSPECT * self.limits.notify]))
        self.hours.see(0, score, self.limits.notify)
        add_day(self.days, sums[None], learned=True)
        told = self._told(step, score)
        if step % HOURLY == HOURLY - 1:
            self.hours.end(tick, [self.limits])
        return told

    def _told(self, step: int, score: float) -> int:
        """One notice at most, whichever of the two it is of."""
        slow, of_day = False, False
        if score >= self.limits.notify:
            slow = self.episodes[0].tells(step, self.limits.per_day(score))
        if step % HOURLY == HOURLY - 1 and not self.alone:
            looked_at = end_hour(SECTION, self.days, self.limits, _tick(step))
            of_day = looked_at is not None and self.episodes[1].tells(step, looked_at.day.per_day)
        return int(slow or of_day)

    def until(self, first: int, sums: F64) -> tuple[float, float]:
        """Hours until something is at its limit, and until people are told, if what follows is this."""
        model, limits = self.model.fork(np.zeros(1, np.int64)), self.limits.config
        rest = Judged(self.alone, model, copy.deepcopy(self.days), self.limits, self.hours, copy.deepcopy(self.episodes))
        over = float("inf")
        for step, one in enumerate(sums, first):
            score = float(model.step(_tick(step), one[None]).score[0])
            add_day(rest.days, one[None], learned=True)
            told = rest._told(step, score)
            if any(episode.last == step for episode in rest.episodes):
                over = min(over, (step - first + 1) / HOURLY)
            if told:
                self.limits.config = limits
                return over, (step - first + 1) / HOURLY
        self.limits.config = limits
        return over, float("inf")


def _episode() -> Episode:
    return Episode(SLOW_EPISODE_STEPS // SLOW_STEPS)


def _tick(step: int) -> int:
    """The last second of a step."""
    return 10 * FIRST_STEP + 600 * (step + 1) - 1


def study(seed: int, days: int, world: World, *, alone: bool = False) -> tuple[list[list[tuple[float, float]]], float]:
    """(of each strength what `Judged.until` says of each campaign; notices a day for no reason)"""
    judged = Judged(alone)
    calm, more = traffic(seed, days, world)
    found: list[list[tuple[float, float]]] = [[] for _ in STRENGTHS]
    notices = 0
    for step, sums in enumerate(calm):
        if step >= COLD_DAYS * DAILY and step % DAILY == 48 and step + DAILY <= len(calm):
            for index in range(len(STRENGTHS)):
                both = calm[step : step + DAILY] + from_its_first_step(more[index], step)
                found[index].append(judged.until(step, both))
        notices += judged.step(step, sums) * (step >= COLD_DAYS * DAILY)
    return found, notices / (days - COLD_DAYS)


def main(words: Sequence[str] | None = None) -> int:
    """Run it and print a table."""
    parser = argparse.ArgumentParser(prog="python -m drills.quality.study_slow", description=__doc__)
    parser.add_argument("--days", type=int, default=28)
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--first", type=int, help="seeds from this one on, for tuning")
    parser.add_argument("--alone", action="store_true", help="without the verdict on what days are like")
    parser.add_argument("--world", type=int, help="one of them, from 0")
    options = parser.parse_args(words)
    seeds = SEEDS[: options.seeds] if options.first is None else range(options.first, options.first + options.seeds)
    titles = " | ".join(f"{strength:g} × the usual" for strength in STRENGTHS)
    print(f"| how accounts are used | {titles} | false alarms a day (worst seed) |\n|---|---|---|---|---|")
    for world in WORLDS if options.world is None else WORLDS[options.world :][:1]:
        results = [study(seed, options.days, world, alone=options.alone) for seed in seeds]
        cells = [_cell(list(itertools.chain(*(found[index] for found, _ in results)))) for index in range(len(STRENGTHS))]
        false = [one for _, one in results]
        print(f"| {world.said} | {' | '.join(cells)} | {np.mean(false):.2f} ({max(false):.2f}) |", flush=True)
    return 0


def _cell(hours: list[tuple[float, float]]) -> str:
    """How many campaigns were at a limit, and after how many hours half of those; and how many made a notice of their own."""
    over = [one for one, _ in hours if np.isfinite(one)]
    told = sum(np.isfinite(one) for _, one in hours) / len(hours)
    return f"{len(over) / len(hours):.2f}, {np.median(over):.1f} h; {told:.2f}" if over else "0"


if __name__ == "__main__":
    sys.exit(main())
