"""What finds floods of registrations, and what it is worth: the study of docs/models-registrations.md.

    python -m drills.quality.study_registrations [--days 28] [--seeds N] [--out FILE]

Weeks of registrations are judged step by step by the product's own model. Now and then its state is copied and an attack of
ten minutes is set into the copy, of every kind and strength: so all systems see the same attacks, and no attack changes what
comes later. Limits come from the past alone (`detectors.learning.calibration`), and false alarms are those of the weeks
themselves, campaigns included. A system's recall counts where its false alarms stayed at 1.5 a day or fewer.

Labelled models learn a day later: of attacks that the sums of z found, one in twenty labelled wrongly, and of quiet minutes.
Each is tried on a kind of attack that it never had a label of.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.learning.calibration import Calibration, CalibrationConfig, cusum
from detectors.learning.floods import FEATURES, SLACK, STEP_S, FloodConfig, FloodModel, Scored
from detectors.learning.hours import Hours
from detectors.learning.levels import F64
from detectors.learning.marks import Rows, Usual, joined, sums_of
from detectors.learning.votes import Classifier, Trees
from detectors.registrations import RegistrationsSection
from drills.columns import generator
from drills.quality.registration_weeks import (
    ATTACK_STEPS,
    CAMPAIGN_AT,
    CAMPAIGN_STEPS,
    DAY_STEPS,
    FIRST_STEP,
    KINDS,
    STRENGTHS,
    attack,
    honest,
)
from drills.quality.study_page import Attack, Result, page
from engine.registrants import EPISODE_STEPS, SLOW_SHARE, SUSPECT

SEEDS = (7301, 7302, 7303, 7304, 7305, 7306)
"""Not those that limits and constants were tried on (1 to 3)."""
COLD_DAYS = 7
PROBES_A_DAY = 2
HOUR_STEPS = 360
AFTER_STEPS = 6
"""An attack may still be found a minute after it."""
LOOK_BACK_STEPS = 60
WRONG_SHARE = 0.05
QUIET_EVERY = 60
"""One in so many quiet steps is a label, too."""
GAP_STEPS = EPISODE_STEPS
"""What comes again within an hour is the same alarm, as people are told of it."""
Z_FEATURES = 2 * FEATURES
CUSUM_MAX = 20.0
VOTE = 0.5
"""What a vote in its usual spread adds to the score."""
SPAN = ATTACK_STEPS + AFTER_STEPS
SUMS, COUNT, LABELLED, TREES = (
    "sums of signed z, with CUSUM",
    "seasonal count, CUSUM",
    "the sums and LogisticRegression",
    "the sums and HalfSpaceTrees",
)


@dataclass(slots=True)
class Spread:
    """The usual mean and spread of numbers that are learned minute by minute."""

    mean: F64
    variance: F64
    seen: float = 0.0

    @staticmethod
    def of(*shape: int) -> Spread:
        """Nothing is known."""
        return Spread(np.zeros(shape), np.ones(shape))

    def z(self, values: F64) -> F64:
        """In spreads from the mean."""
        found: F64 = (values - self.mean) / np.sqrt(self.variance + 1e-6)
        return found

    def learn(self, values: F64, weights: Any) -> None:
        """Take them in, those that weigh anything."""
        self.seen += 1
        factor = max(1 / self.seen, 1 / 10_080) * np.asarray(weights, np.float64)
        apart = values - self.mean
        self.mean = self.mean + factor * apart
        self.variance = (1 - factor) * (self.variance + factor * apart * apart)


@dataclass(slots=True)
class Rivals:
    """What stands beside the product's score: state of each stream, to be copied into attacks."""

    count: F64
    """f64[series]: CUSUM of the count's z"""
    logits: F64
    """f64[series, kinds]: CUSUM of the logits of each classifier that does not know a kind"""

    def copied(self, ids: Any) -> Rivals:
        """As often as they are named."""
        return Rivals(self.count[ids].copy(), self.logits[ids].copy())


class Study:
    """All seeds at once: each is a series of the same model."""

    def __init__(self, seeds: Sequence[int], days: int) -> None:
        self.seeds, self.days = seeds, days
        many, kinds = len(seeds), len(KINDS)
        section = RegistrationsSection()
        self.model = FloodModel(FloodConfig(many, change_max=section.change_max))
        self.usual = [Usual() for _ in seeds]
        share = 1 - SLOW_SHARE
        config = CalibrationConfig(share * section.notify_per_day, share * section.act_per_day, section.start_score)
        columns = {SUMS: 1, COUNT: 1, LABELLED: kinds, TREES: 1}
        self.limits = {name: [[Calibration(config) for _ in range(n)] for _ in seeds] for name, n in columns.items()}
        self.hours = {name: [Hours(n) for _ in seeds] for name, n in columns.items()}
        self._limits_of = {
            name: {"notify": np.full((many, n), section.start_score), "act": np.full((many, n), np.inf)}
            for name, n in columns.items()
        }
        self.rivals = Rivals(np.zeros(many), np.zeros((many, kinds)))
        self.classifiers = [[Classifier(Z_FEATURES) for _ in KINDS] for _ in seeds]
        self.trees = [Trees(Z_FEATURES, seed) for seed in seeds]
        self.of_count, self.of_logits, self.of_trees = Spread.of(many), Spread.of(many, kinds), Spread.of(many)
        self.tree_scores: F64 = np.zeros(many)
        self.labels: deque[tuple[int, int, int, F64, bool]] = deque()
        """(step, seed, kind or -1, z, attack): heard of a day later"""
        self.chance = generator(seeds[0], 9900, 0)
        self.attacks: list[Attack] = []
        self.above: dict[str, list[npt.NDArray[np.bool_]]] = {name: [] for name in columns}
        """Of each step after the cold days: bool[series, columns], above the limit"""
        self.acted: dict[str, list[npt.NDArray[np.bool_]]] = {name: [] for name in columns}
        self.probes = 0
        self.seconds = 0.0

    def run(self) -> Result:
        """The weeks, hour by hour."""
        weeks = [honest(seed, self.days) for seed in self.seeds]
        edges = [np.searchsorted(rows.step, FIRST_STEP + HOUR_STEPS * np.arange(24 * self.days + 1)) for rows in weeks]
        began = time.perf_counter()
        for hour in range(24 * self.days):
            self._hour(hour, [rows.take(slice(edge[hour], edge[hour + 1])) for rows, edge in zip(weeks, edges, strict=True)])
        self.seconds = time.perf_counter() - began
        return self._result()

    def _hour(self, hour: int, rows: list[Rows]) -> None:
        first = FIRST_STEP + HOUR_STEPS * hour
        made = []
        for one, usual in zip(rows, self.usual, strict=True):
            known = usual.is_known
            made.append(sums_of(one, usual.marks(one), first, HOUR_STEPS, known=known))
        sums = np.stack(made, axis=1)
        is_probed = hour >= 24 * COLD_DAYS and self.chance.random() < PROBES_A_DAY / 24
        probe = int(self.chance.integers(LOOK_BACK_STEPS, HOUR_STEPS - SPAN)) if is_probed else -1
        calm = np.ones((HOUR_STEPS, len(self.seeds)), np.bool_)
        for at in range(HOUR_STEPS):
            step = HOUR_STEPS * hour + at
            self._hear(step)
            if at == probe:
                self._probe(step, rows)
            calm[at] = ~self._step(step, sums[at])
        for series, (one, usual) in enumerate(zip(rows, self.usual, strict=True)):
            usual.learn(one.take(calm[one.step - first, series]), 1.0)
        self._calibrate(STEP_S * (first + HOUR_STEPS) - 1)

    def _step(self, step: int, sums: F64) -> npt.NDArray[np.bool_]:
        """One step of the weeks; which streams were suspicious."""
        tick = STEP_S * (FIRST_STEP + step + 1) - 1
        scored = self.model.step(tick, sums)
        scores = self._scores(scored, self.rivals, np.arange(len(self.seeds)), look=step % 6 == 5)
        for name, score in scores.items():
            notify = self._limits(name, "notify")
            for series, hours in enumerate(self.hours[name]):
                for column in range(score.shape[1]):
                    hours.see(column, float(score[series, column]), float(notify[series, column]))
            if step >= COLD_DAYS * DAY_STEPS:
                self.above[name].append(score >= notify)
                self.acted[name].append(score >= self._limits(name, "act"))
        suspicious: npt.NDArray[np.bool_] = scores[SUMS][:, 0] >= SUSPECT * self._limits(SUMS, "notify")[:, 0]
        self.model.learn(suspicious)
        if step % 6 == 5:
            self._learn(scored, suspicious)
        if step % QUIET_EVERY == 0:
            for series in np.flatnonzero(~suspicious).tolist():
                self.labels.append((step, series, -1, _features(scored, series), False))
        alarms = self.above[SUMS]
        if len(alarms) > 1:
            for series in np.flatnonzero(alarms[-1][:, 0] & ~alarms[-2][:, 0]).tolist():
                self.labels.append((step, series, -1, _features(scored, series), False))
        return suspicious

    def _learn(self, scored: Scored, suspicious: npt.NDArray[np.bool_]) -> None:
        """What the rivals learn of quiet minutes."""
        self.of_count.learn(scored.z[:, 0, 0], ~suspicious)
        z = _all_features(scored)
        logits = np.stack([[c.logits(z[s : s + 1])[0] for c in some] for s, some in enumerate(self.classifiers)])
        self.of_logits.learn(logits, ~suspicious[:, None])
        self.of_trees.learn(self.tree_scores, ~suspicious)
        for series in np.flatnonzero(~suspicious).tolist():
            self.trees[series].learn(z[series])

    def _scores(self, scored: Scored, rivals: Rivals, ids: Any, *, look: bool) -> dict[str, F64]:
        """Name -> f64[rows, columns]: the score of each system; ``ids`` says of which stream each row is.

        Args:
            look: half-space trees are asked, which costs too much for every step.
        """
        spread = np.sqrt(self.of_count.variance + 0.01)[ids]
        rivals.count = cusum(rivals.count, (scored.z[:, 0, 0] - self.of_count.mean[ids]) / spread, SLACK, CUSUM_MAX)
        z = _all_features(scored)
        logits = np.zeros((len(ids), len(KINDS)))
        for series in np.unique(ids).tolist():
            mine = np.flatnonzero(ids == series)
            for kind, classifier in enumerate(self.classifiers[series]):
                logits[mine, kind] = classifier.logits(z[mine])
        own = (logits - self.of_logits.mean[ids]) / np.sqrt(self.of_logits.variance[ids] + 1e-6)
        rivals.logits = cusum(rivals.logits, np.clip(own, -3.0, 6.0), 1.0, CUSUM_MAX)
        said_so = np.clip(np.maximum(own, np.sqrt(4 * rivals.logits)), 0.0, 6.0)
        labelled = scored.score[:, None] + VOTE * said_so
        trees = scored.score.copy()
        if look:
            said = np.array([self.trees[series].score(row) for series, row in zip(ids.tolist(), z, strict=True)])
            if len(said) == len(self.seeds):
                self.tree_scores = said
            own_trees = (said - self.of_trees.mean[ids]) / np.sqrt(self.of_trees.variance[ids] + 1e-6)
            trees = trees + VOTE * np.clip(own_trees, 0.0, 6.0)
        return {SUMS: scored.score[:, None], COUNT: rivals.count[:, None], LABELLED: labelled, TREES: trees[:, None]}

    def _limits(self, name: str, point: str) -> F64:
        """f64[series, columns]"""
        return self._limits_of[name][point]

    def _calibrate(self, tick: int) -> None:
        for name, some in self.limits.items():
            for hours, limits in zip(self.hours[name], some, strict=True):
                hours.end(tick, limits)
                for one in limits:
                    one.begin(tick + 1)
            self._limits_of[name] = {
                point: np.array([[getattr(one, point) for one in limits] for limits in some]) for point in ("notify", "act")
            }

    def _probe(self, step: int, rows: list[Rows]) -> None:
        """Attacks of every kind and strength on copies of every stream."""
        first = FIRST_STEP + step
        ids, made, about = [], [], []
        for series, one in enumerate(rows):
            around = one.take((one.step >= first - LOOK_BACK_STEPS) & (one.step < first + SPAN))
            for kind in KINDS:
                for strength in STRENGTHS:
                    hostile = attack(kind, self.seeds[series], self.probes, strength, first)
                    both = joined([around, hostile])
                    both = both.take(np.argsort(both.step, kind="stable"))
                    usual = Usual()
                    usual.of = self.usual[series].of
                    sums = sums_of(both, usual.marks(both), first - LOOK_BACK_STEPS, LOOK_BACK_STEPS + SPAN, known=True)
                    ids.append(series)
                    made.append(sums[LOOK_BACK_STEPS:])
                    about.append((series, kind, strength))
        self.probes += 1
        self._play(step, np.array(ids), np.stack(made, axis=1), about)

    def _play(self, step: int, ids: Any, sums: F64, about: list[Any]) -> None:
        model, rivals = self.model.fork(ids), self.rivals.copied(ids)
        kinds = np.array([KINDS.index(kind) for _, kind, _ in about])
        found: dict[str, Any] = {name: np.full((len(ids), 2), -1) for name in self.limits}
        limits = {
            name: (self._limits(name, "notify")[ids], self._limits(name, "act")[ids]) for name in self.limits
        }  # fmt: skip
        heard: list[list[F64]] = [[] for _ in ids]
        for at in range(SPAN):
            scored = model.step(STEP_S * (FIRST_STEP + step + at + 1) - 1, sums[at])
            for name, score in self._scores(scored, rivals, ids, look=at % 6 == 5).items():
                column = kinds if score.shape[1] > 1 else np.zeros(len(ids), np.int64)
                own = score[np.arange(len(ids)), column]
                for point in (0, 1):
                    over = own >= limits[name][point][np.arange(len(ids)), column]
                    fresh = over & (found[name][:, point] < 0)
                    found[name][fresh, point] = at
                if name == SUMS and at % 6 == 5:
                    for row in np.flatnonzero(found[SUMS][:, 0] >= 0).tolist():
                        heard[row].append(_features(scored, row))
        for row, (series, kind, strength) in enumerate(about):
            seconds = {name: tuple(int(one) for one in found[name][row]) for name in found}
            self.attacks.append(Attack(series, self.probes, kind.name, strength, seconds))
            for z in heard[row][:3]:
                right = bool(self.chance.random() >= WRONG_SHARE)
                self.labels.append((step, series, kinds[row], z, right))

    def _hear(self, step: int) -> None:
        """Labels of a day ago."""
        while self.labels and self.labels[0][0] + DAY_STEPS <= step:
            _, series, kind, z, is_attack = self.labels.popleft()
            for number, classifier in enumerate(self.classifiers[series]):
                if kind != number:
                    classifier.learn(z, attack=is_attack)

    def _result(self) -> Result:
        days = self.days - COLD_DAYS
        of_week = np.arange(self.days * DAY_STEPS) % (7 * DAY_STEPS)
        campaign = (of_week >= CAMPAIGN_AT) & (of_week < CAMPAIGN_AT + CAMPAIGN_STEPS + HOUR_STEPS)
        campaign = campaign[COLD_DAYS * DAY_STEPS :]
        false, acts, campaigns = {}, {}, {}
        out = ~campaign[:, None, None]
        for name in self.limits:
            above, acted = np.stack(self.above[name]), np.stack(self.acted[name])
            false[name] = _episodes(above) / days
            acts[name] = _episodes(acted & out) / days
            campaigns[name] = _episodes(above & campaign[:, None, None]) / days
        return Result(self.attacks, false, acts, campaigns, len(self.seeds), days, self.seconds)


def _episodes(above: npt.NDArray[np.bool_]) -> F64:
    """f64[series]: alarms, those within an hour as one; the mean over columns."""
    found = np.zeros(above.shape[1:])
    for index in np.ndindex(*found.shape):
        at = np.flatnonzero(above[:, *index])
        found[index] = 0 if not len(at) else 1 + int((np.diff(at) > GAP_STEPS).sum())
    mean: F64 = found.mean(axis=1)
    return mean


def _all_features(scored: Scored) -> F64:
    return scored.z[:, 1:].reshape(len(scored.z), -1)


def _features(scored: Scored, series: int) -> F64:
    features: F64 = scored.z[series, 1:].ravel().copy()
    return features


def main(words: Sequence[str] | None = None) -> int:
    """Run it and print the page."""
    parser = argparse.ArgumentParser(prog="python -m drills.quality.study_registrations", description=__doc__)
    parser.add_argument("--days", type=int, default=28)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, help="seeds from this one on, for tuning")
    parser.add_argument("--out", type=Path, help="write the tables into this file, between its marks")
    options = parser.parse_args(words)
    seeds = SEEDS[: options.seeds] if options.first is None else range(options.first, options.first + options.seeds)
    study = Study(tuple(seeds), options.days)
    text = page(study.run(), (SUMS, COUNT, LABELLED, TREES))
    print(text)
    if options.out is not None:
        before, _, rest = options.out.read_text(encoding="utf-8").partition("<!-- study -->\n")
        _, _, after = rest.partition("<!-- end of study -->")
        options.out.write_text(f"{before}<!-- study -->\n{text}<!-- end of study -->{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
