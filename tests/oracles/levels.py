"""Levels in plain Python: one series and feature at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from detectors.kernels.levels import VARIANCE_SLOWER
from detectors.learning.levels import SEEN_MIN, LevelsConfig, season_of


@dataclass
class Level:
    mean: float = 0.0
    variance: float = 0.0
    count: float = 0.0
    anchor: tuple[float, float] = (0.0, 0.0)

    def learn(self, value: float, weight: float, fading: float, young: float, floor: float, cap: tuple[float, float]) -> None:
        change, settled = cap
        n = self.count + weight
        factor = 1.0 if self.count == 0 else weight * (1 / n if n < young else fading)
        difference = value - self.mean
        mean = self.mean + factor * difference
        variance = (1 - factor) * (self.variance + factor * difference * difference)
        if change and self.count >= settled:
            start, spread = self.anchor
            reach = change * math.sqrt(spread + floor * floor)
            mean = min(max(mean, start - reach), start + reach)
            slower = VARIANCE_SLOWER * change
            variance = min(max(variance, spread * (1 - slower)), spread + (spread + floor * floor) * slower)
        self.mean, self.variance, self.count = mean, variance, n


@dataclass
class Levels:
    config: LevelsConfig
    own: dict[tuple[int, int, int], Level] = field(default_factory=dict)
    shared: dict[int, Level] = field(default_factory=dict)
    within: dict[int, tuple[float, int]] = field(default_factory=dict)
    hour: int = -1

    def at(self, series: int, place: int, f: int) -> Level:
        return self.own.setdefault((series, place, f), Level())

    def z(self, tick: int, series: int, f: int, value: float) -> float:
        floor = self.config.floors[f]
        own, common = self.at(series, -1, f), self.shared.get(f, Level())
        mean, variance = own.mean, own.variance
        if common.count >= SEEN_MIN:
            inside, steps = self.within.get(f, (0.0, 0))
            inside = inside if steps >= SEEN_MIN else common.variance
            between = max(common.variance - inside, 0.0)
            n, k = own.count, self.config.shrink_steps
            variance = math.exp((n * math.log(variance + floor**2) + k * math.log(inside + floor**2)) / (n + k)) - floor**2
            evidence = n * max(between, (mean - common.mean) ** 2)
            share = evidence / (evidence + variance + floor**2)
            mean = share * mean + (1 - share) * common.mean
            variance += (1 - share) * between
        elif own.count < SEEN_MIN:
            return 0.0
        if self.config.seasons:
            season = self.at(series, season_of(tick), f)
            share = season.count / (season.count + self.config.shrink_season_steps)
            apart = season.mean - mean
            variance = share * season.variance + (1 - share) * (variance + share * apart**2)
            mean += share * apart
        return (value - mean) / math.sqrt(variance + floor**2)

    def learn(self, tick: int, values: Sequence[tuple[int, Sequence[float], float]]) -> None:
        config = self.config
        if tick // 3600 != self.hour:
            self.hour = tick // 3600
            for level in self.own.values():
                level.anchor = (level.mean, level.variance)
        young = config.young_steps or config.memory_steps
        for f, floor in enumerate(config.floors):
            seen = [(series, row[f], weight) for series, row, weight in values if weight > 0 and math.isfinite(row[f])]
            inside = [
                (weight * (value - level.mean) ** 2, weight)
                for series, value, weight in seen
                if (level := self.at(series, -1, f)).count >= SEEN_MIN
            ]
            for series, value, weight in seen:
                cap = config.change_max, config.settled_steps
                self.at(series, -1, f).learn(value, weight, 1 / config.memory_steps, young, floor, cap)
                if config.seasons:
                    season = config.young_steps or config.memory_season_steps
                    self.at(series, season_of(tick), f).learn(
                        value, weight, 1 / config.memory_season_steps, season, floor, (24 * cap[0], cap[1] / 24)
                    )
            if seen:
                total = sum(weight for *_, weight in seen)
                mean = sum(weight * value for _, value, weight in seen) / total
                spread = max(0.0, sum(weight * value**2 for _, value, weight in seen) / total - mean**2)
                shared = self.shared.setdefault(f, Level())
                shared.count += 1
                factor = 1 / shared.count if shared.count < young else 1 / config.memory_steps
                apart = mean - shared.mean
                shared.mean += factor * apart
                shared.variance = (1 - factor) * (shared.variance + factor * apart**2) + factor * spread
            if inside:
                known, steps = self.within.get(f, (0.0, 0))
                steps += 1
                factor = max(1 / steps if steps < young else 0.0, 1 / config.memory_steps)
                now = sum(square for square, _ in inside) / sum(weight for _, weight in inside)
                self.within[f] = known + factor * (now - known), steps
