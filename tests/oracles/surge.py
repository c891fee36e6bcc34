"""What `surge` must say of each step, in plain Python: histograms are dictionaries, and nothing is laid out for a machine."""

from __future__ import annotations

from collections import defaultdict
from math import copysign, log, log2, log10, sqrt

from detectors.surge import SurgeConfig

DAY_S = 86_400
BINS = 256


def clip(value: float, limit: float) -> float:
    return copysign(min(abs(value), limit), value)


def bin_of(magnitude: float) -> float:
    """Four bins to a doubling, one in the middle."""
    return min(max(4 * log2(magnitude) + 128, 0.0), BINS - 0.001) if magnitude > 0 else 0.0


class Tail:
    """How far one view went on one side."""

    def __init__(self, config: SurgeConfig) -> None:
        self.counts: defaultdict[int, float] = defaultdict(float)
        self.config = config

    def decay(self) -> None:
        for key in self.counts:
            self.counts[key] *= 2 ** (-1 / self.config.memory_steps)

    def surprise(self, magnitude: float, total: float) -> float:
        if magnitude <= 0:
            return 0.0
        at, rows, need = bin_of(magnitude), [], self.config.tail_rows
        start = 1.0  # where nothing else is known, the tail begins above the first bin, or inside it
        for key in sorted((key for key in self.counts if self.counts[key] > 0), reverse=True):
            part = min(self.counts[key], need)
            whole = part == self.counts[key]
            low = float(key) if whole else key + 1 - part / self.counts[key]
            if key > 0 and whole and part < need:
                rows.append((part, key + 0.5))
            else:
                start = low
                rows.append((part, (low + key + 1) / 2))
            need -= part
            if need <= 0:
                break
        if at < start:
            reached = sum(count for key, count in self.counts.items() if key > int(at))
            reached += self.counts.get(int(at), 0.0) * (int(at) + 1 - at)
            return max(0.0, -log10((reached + 0.5) / (total + 1)))
        seen = sum(count for count, _ in rows)
        width = log(2) / 4
        excess = sum(count * (centre - start) for count, centre in rows) * width
        prior = self.config.tail_index_rows
        index = (excess + self.config.tail_index * prior) / (seen + prior)
        return max(0.0, -log10((seen + 0.5) / (total + 1)) + (at - start) * width / index / log(10))


class SurgeOracle:
    """One series, one step at a time."""

    def __init__(self, config: SurgeConfig) -> None:
        self.config = config
        self.speeds = (config.speed_fast, config.speed_middle, config.speed_slow)
        self.profile: defaultdict[tuple[str, int], float] = defaultdict(float)
        self.visits: defaultdict[tuple[str, int], int] = defaultdict(int)
        self.visiting: dict[str, tuple[int, list[float]]] = {}
        self.levels: defaultdict[tuple[str, int], float] = defaultdict(float)
        self.records: defaultdict[tuple[str, int], float] = defaultdict(float)
        self.record_steps: defaultdict[str, float] = defaultdict(float)
        self.spread = self.drift_spread = self.spread_steps = 0.0
        self.error_smooth = self.drift_smooth = self.rise = self.fall = 0.0
        self.tails = {(view, up): Tail(config) for view in range(5) for up in (True, False)}
        self.total = 0.0
        self.waiting: list[tuple[list[float], float]] = []
        self.peak, self.peak_step = 0.0, -(10**9)
        self.alarm, self.alarm_step = 0.0, -(10**9)
        self.steps, self.first_s = 0, 0

    def bases(self) -> dict[str, float]:
        """What each baseline that knows this time says of it."""
        found = {"none": 0.0}
        for name in ("day", "week"):
            key = (name, self.visiting[name][0])
            if self.visits[key] >= 2:
                found[name] = self.profile[key]
        return found

    def visit(self, time_s: int) -> None:
        number = time_s // self.config.slot_s
        slots = DAY_S // self.config.slot_s
        for name, now in (("week", number % (7 * slots)), ("day", number % slots)):
            at, seen = self.visiting.get(name, (-1, []))
            if at == now:
                continue
            if seen:
                key = (name, at)
                error = sum(seen) / len(seen) - self.profile[key]
                if self.visits[key] >= 3:
                    error = clip(error, 4 * self.spread / max(self.spread_steps, 1))
                self.profile[key] += max(1 / (self.visits[key] + 1), 0.15) * error
                self.visits[key] += 1
            self.visiting[name] = (now, [])

    def forecast(self, speeds: tuple[int, ...]) -> float:
        bases = self.bases()
        errors = {
            (base, speed): self.records[base, speed] / self.record_steps[base]
            for base in bases for speed in range(3) if self.record_steps[base] > 0
        }  # fmt: skip
        best = min(errors.values(), default=-1.0)
        total = weights = 0.0
        for base, baseline in bases.items():
            for speed in speeds:
                weight = 1e-6
                if self.record_steps[base] >= 1:
                    weight = ((best + 1e-12) / (errors[base, speed] + 1e-12)) ** self.config.sharpness
                total += weight * (baseline + self.levels[base, speed])
                weights += weight
        return total / weights

    def step(self, time_s: int, value: float) -> tuple[float, float, float, float, float]:
        """Score, fresh score, alarm, expected, side."""
        config, root = self.config, copysign(sqrt(abs(value)), value)
        self.visit(time_s)
        if self.steps == 0:
            self.first_s, expected, settled = time_s, root, root
        else:
            expected, settled = self.forecast((0, 1, 2)), self.forecast((2,))
        error, drift = root - expected, root - settled
        views = self.see(error, drift)
        odd_from = config.change_min / 2 * abs(settled)
        surprises = []
        for view, value_seen in enumerate(views):
            change = abs(self.drift_smooth if view == 4 else value_seen)
            ignored = change < odd_from or (view >= 2 and time_s - self.first_s < DAY_S)
            surprise = 0.0 if ignored else self.tails[view, value_seen > 0].surprise(abs(value_seen), self.total)
            surprises.append(copysign(surprise, 1 if value_seen > 0 else -1))
        score = sum(abs(surprise) for surprise in surprises) / 5
        weight = config.suspect_weight if score >= config.suspect else 1.0
        score = score if self.steps >= config.warmup_steps else 0.0
        if self.steps - self.peak_step >= config.quiet_steps:
            self.peak = 0.0
        fresh = score if score > self.peak else 0.0
        if fresh:
            self.peak, self.peak_step = score, self.steps
        if self.steps - self.alarm_step >= config.quiet_steps:
            self.alarm = 0.0
        alarm = score >= config.alarm_at and (self.alarm == 0 or score >= self.alarm + 1)
        if alarm:
            self.alarm = score
        if score >= config.alarm_at:
            self.alarm_step = self.steps
        self.learn(views, weight, root, error, drift)
        side = sum(surprises)
        return score, fresh, float(alarm), settled * abs(settled), (side > 0) - (side < 0)

    def see(self, error: float, drift: float) -> list[float]:
        deviation = clip(drift * self.spread_steps / self.drift_spread, 4) if self.drift_spread > 0 else 0.0
        self.rise = min(max(0.0, self.rise + deviation - 1), 50)
        self.fall = min(max(0.0, self.fall - deviation - 1), 50)
        self.error_smooth += self.config.smoothing_error * (error - self.error_smooth)
        self.drift_smooth += self.config.smoothing_drift * (drift - self.drift_smooth)
        return [error, self.error_smooth, drift, self.drift_smooth, self.rise if self.rise > self.fall else -self.fall]

    def learn(self, views: list[float], weight: float, root: float, error: float, drift: float) -> None:
        self.waiting.append((views, weight))
        if len(self.waiting) > self.config.delay_steps:
            old, old_weight = self.waiting.pop(0)
            for tail in self.tails.values():
                tail.decay()
            self.total = self.total * 2 ** (-1 / self.config.memory_steps) + old_weight
            for view, value in enumerate(old):
                self.tails[view, value > 0].counts[int(bin_of(abs(value)))] += old_weight
        known = self.spread_steps > 50
        steps = max(self.spread_steps, 1.0)
        spread, drift_spread = self.spread / steps, self.drift_spread / steps
        bases = self.bases()
        self.spread = 0.998 * self.spread + (min(abs(error), 6 * spread) if known else abs(error))
        self.drift_spread = 0.998 * self.drift_spread + (min(abs(drift), 6 * drift_spread) if known else abs(drift))
        self.spread_steps = 0.998 * self.spread_steps + 1
        for base, baseline in bases.items():
            self.record_steps[base] = 0.998 * self.record_steps[base] + 1
            for speed in range(3):
                off = root - baseline - self.levels[base, speed]
                record = min(abs(off), 8 * spread) if known else abs(off)
                self.records[base, speed] = 0.998 * self.records[base, speed] + record
                if known and speed == 2:
                    off = clip(off, 6 * spread)
                self.levels[base, speed] += max(self.speeds[speed], 1 / self.record_steps[base]) * off
        for name in ("day", "week"):
            self.visiting[name][1].append(root)
        self.steps += 1
