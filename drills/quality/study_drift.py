"""What ADWIN would add: levels that begin anew where a service's registrations grow by half and stay so.

    python -m drills.quality.study_drift [--days 35] [--seeds N] [--first SEED] [--growth 0.5] [--delta 1e-6]

Weeks of people, of whom there are half as many again from one day of the third week on: a marketing campaign that stays. The
product's slow model, with its share of the alarms, as it is; and the same model beside River's ADWIN, which hears how far the
count of each ten minutes is from what is usual. Where it says that the mean has changed, the level of the rate becomes what its
window has, and what is usual is learned as quickly as of a new stream. Campaigns of a day are set into copies of both, on each
day after the change. Recall is compared at equal false alarms: the limit of whoever has more is raised until he has no more.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from river.drift import ADWIN as ADWIN_

from detectors.learning.calibration import Calibration, CalibrationConfig
from detectors.learning.floods import COLUMNS, FloodModel
from detectors.learning.hours import Hours
from detectors.learning.levels import F64
from detectors.learning.marks import Rows, joined
from detectors.registrations import RegistrationsSection
from drills.columns import generator
from drills.quality.registration_weeks import DAY_STEPS, FIRST_STEP, honest
from drills.quality.study_page import Attack, Result, gain
from drills.quality.study_slow import COLD_DAYS, DAILY, GAP, HOURLY, STRENGTHS, World, from_its_first_step, traffic
from engine.registrants import SLOW_SHARE, SUSPECT, slow_config

SEEDS = (7401, 7402, 7403, 7404, 7405)
GROWS_ON_DAY = 15
"""A Tuesday's campaign is on day 1, 8, 15 … of the weeks as well, for two hours: this is the Tuesday that stays."""
SHIPPED, ANEW = "as it ships", "levels begin anew where ADWIN says so"
YOUNG_BLOCKS, YOUNG_SEASON_BLOCKS = 36.0, 3.0
"""What a level that begins anew is believed to rest on: a quarter of a day; of each hour of the day, half an hour."""
ADWIN: Any = ADWIN_
"""River says no types."""
DELTA = 1e-6
"""On two other seeds (11 and 12) better than River's default of 0.002, with which ADWIN tells of a change every other day."""
WORLD = World("days differ by 3 points")


def grown(seed: int, days: int, growth: float) -> Rows:
    """Weeks that grow within a day, and stay so."""
    rows, more = honest(seed, days), honest(seed + 500, days)
    day = (more.step - FIRST_STEP) / DAY_STEPS - GROWS_ON_DAY
    more = more.take(generator(seed, 9980, 0).random(len(more.step)) < growth * np.clip(day, 0.0, 1.0))
    both = joined([rows, more])
    return both.take(np.argsort(both.step, kind="stable"))


@dataclass(slots=True)
class System:
    """A model with its limits, and what became of it."""

    name: str
    model: FloodModel
    limits: Calibration
    adwin: Any
    hours: Hours = field(default_factory=lambda: Hours(1))
    drifts: list[int] = field(default_factory=list)
    """Steps in which ADWIN told of a change"""
    ratios: list[float] = field(default_factory=list)
    """Of each step after the growth has begun: the score by its limit"""
    probes: list[list[float]] = field(default_factory=list)
    """Of each campaign the highest of them within a day"""

    @staticmethod
    def of(name: str, delta: float) -> System:
        """It knows nothing yet."""
        section = RegistrationsSection()
        limits = CalibrationConfig(
            SLOW_SHARE * section.notify_per_day, SLOW_SHARE * section.act_per_day, section.start_score
        )  # fmt: skip
        return System(name, FloodModel(slow_config(section.change_max)), Calibration(limits), adwin=ADWIN(delta))

    def step(self, step: int, sums: F64) -> float:
        """Ten minutes: judged, learned. The score by its limit."""
        tick = 10 * FIRST_STEP + 600 * (step + 1) - 1
        self.limits.begin(tick)
        scored = self.model.step(tick, sums[None])
        score = float(scored.score[0])
        if self.name == ANEW:
            self.adwin.update(float(scored.z[0, 0, 0]))
            if self.adwin.drift_detected and step >= COLD_DAYS * DAILY:
                self.drifts.append(step)
                self._begin_anew(min(int(self.adwin.width), DAILY))
        self.model.learn(np.array([score >= SUSPECT * self.limits.notify]))
        self.hours.see(0, score, self.limits.notify)
        if step % HOURLY == HOURLY - 1:
            self.hours.end(tick, [self.limits])
        return score / self.limits.notify

    def _begin_anew(self, steps: int) -> None:
        """What is usual is what ADWIN's window has."""
        model = self.model
        window = model.running[-1, 0] - model.running[-1 - steps, 0]
        model.rates.mean[0, :, 0] *= window[0] / max(window[COLUMNS], 1.0)
        for levels in (model.rates, model.pivots, model.spreads):
            levels.count[0, 0] = np.minimum(levels.count[0, 0], YOUNG_BLOCKS)
            levels.count[0, 1:] = np.minimum(levels.count[0, 1:], YOUNG_SEASON_BLOCKS)
        model.suspect[:] = steps + model.config.windows[-1]  # calm: what was suspicious is what has changed

    def probe(self, step: int, sums: F64) -> float:
        """The highest score by its limit that a campaign has within a day."""
        copy = self.model.fork(np.zeros(1, np.int64))
        ticks = 10 * FIRST_STEP + 600 * (np.arange(step, step + len(sums)) + 1) - 1
        scores = [float(copy.step(int(tick), one[None]).score[0]) for tick, one in zip(ticks, sums, strict=True)]
        return max(scores) / self.limits.notify


def study(seed: int, days: int, growth: float, delta: float) -> list[System]:
    """Both systems under one seed."""
    calm, more = traffic(seed, days, WORLD, grown(seed, days, growth))
    systems = [System.of(SHIPPED, delta), System.of(ANEW, delta)]
    for step, sums in enumerate(calm):
        if step >= (GROWS_ON_DAY + 1) * DAILY and step % DAILY == 48 and step + DAILY <= len(calm):
            both = [calm[step : step + DAILY] + from_its_first_step(more[index], step) for index in range(len(STRENGTHS))]
            for system in systems:
                system.probes.append([system.probe(step, one) for one in both])
        for system in systems:
            ratio = system.step(step, sums)
            if step >= GROWS_ON_DAY * DAILY:
                system.ratios.append(ratio)
    return systems


def alarms(ratios: Sequence[float], factor: float) -> int:
    """How often people are told, where limits are so many times higher."""
    at = np.flatnonzero(np.array(ratios) >= factor)
    return 0 if not len(at) else 1 + int((np.diff(at) > GAP).sum())


def even(results: Sequence[Sequence[System]]) -> list[float]:
    """Of each system, how many times higher its limits have to be so that it has no more alarms than the other."""

    def told(which: int, factor: float) -> int:
        return sum(alarms(systems[which].ratios, factor) for systems in results)

    least = min(told(0, 1.0), told(1, 1.0))
    return [next(f for f in np.arange(1.0, 50.0, 0.01).tolist() if told(which, f) <= least) for which in (0, 1)]


def main(words: Sequence[str] | None = None) -> int:
    """Run it and print a table."""
    parser = argparse.ArgumentParser(prog="python -m drills.quality.study_drift", description=__doc__)
    parser.add_argument("--days", type=int, default=35)
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--first", type=int, help="seeds from this one on, for tuning")
    parser.add_argument("--growth", type=float, default=0.5)
    parser.add_argument("--delta", type=float, default=DELTA, help="how sure ADWIN has to be")
    options = parser.parse_args(words)
    seeds = SEEDS[: options.seeds] if options.first is None else range(options.first, options.first + options.seeds)
    results = [study(seed, options.days, options.growth, options.delta) for seed in seeds]
    factors, days = even(results), options.days - GROWS_ON_DAY
    titles = " | ".join(f"{strength:g} ×" for strength in STRENGTHS)
    print(f"| after the growth | false alarms a day | changes told of | recall: {titles} | the same at equal false alarms |")
    print("|---|---|---|---|---|---|---|")
    for which, name in enumerate((SHIPPED, ANEW)):
        mine = [systems[which] for systems in results]
        false = sum(alarms(one.ratios, 1.0) for one in mine) / days / len(mine)
        rows = np.array(list(itertools.chain(*(one.probes for one in mine))))
        recall, fair = ((rows >= f).mean(axis=0) for f in (1.0, factors[which]))
        told = " | ".join(f"{one:.2f}" for one in recall)
        drifts = ", ".join(str(len(one.drifts)) for one in mine)
        print(f"| {name} | {false:.2f} | {drifts} | {told} | {fair.mean():.3f} (limits {factors[which]:.2f} times as high) |")
    mean, low, high = gain(_as_result(results, factors, days), ANEW, SHIPPED)
    print(f"\ngain of beginning anew at equal false alarms: {mean:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}")
    return 0


def _as_result(results: Sequence[Sequence[System]], factors: Sequence[float], days: int) -> Result:
    """As the other study has it, for its interval: what was found is a step of 0 or more."""
    attacks = [
        Attack(series, probe, "mimic", strength, {
            system.name: (0 if system.probes[probe][index] >= factor else -1,)
            for system, factor in zip(systems, factors, strict=True)
        })
        for series, systems in enumerate(results)
        for probe in range(len(systems[0].probes))
        for index, strength in enumerate(STRENGTHS)
    ]  # fmt: skip
    none = {name: np.zeros(len(results)) for name in (SHIPPED, ANEW)}
    return Result(attacks, none, none, none, len(results), days, 0.0)


if __name__ == "__main__":
    sys.exit(main())
