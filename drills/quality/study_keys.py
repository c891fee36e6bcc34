"""What `keys` finds of stolen, shared and misused keys, at what cost; a part of `make quality`.

    python -m drills.quality.study_keys [--keys 120 1000 10000] [--seeds 7] [--out FILE]

Honest keys for four weeks (`drills.quality.key_world`), judged and learned by the product's own class. Limits come from the
past only: every window is judged before it is learned. Attacks are put onto copies of the keys that they hit, so that each is
alone and none teaches the service; from the ninth day on. Against it stands the volume of each key alone, by the same levels
and the same calibration, on the same attacks.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from detectors.kernels.key_features import F_REQUESTS, V_REQUESTS, VALUES
from detectors.learning.calibration import DAY_S, Calibration, CalibrationConfig
from detectors.learning.key_abuse import KeyAbuse
from detectors.learning.key_state import WINDOW_S, Bools, Judged, KeyAbuseConfig
from drills.columns import F64, I64
from drills.quality.key_votes import Votes
from drills.quality.key_world import ATTACK_KINDS, DAY, START, KeyAttack, KeyWorld, attacks

DAYS, FIRST_DAY, ATTACKS = 28, 8, 128
FRESH_SEED = 6
"""Nothing was changed after seeds from this one on were looked at; constants were tried on the first three."""
NOTIFY_PER_DAY, ACT_PER_DAY = 1.0, 1 / 90
FALSE_MAX = 1.5
"""A recall counts only with at most so many false alarms a day."""
VOTED_KEYS_MAX = 120
"""With more keys River takes longer than the rest together."""
HEAD = """# Keys: the study

Written by `python -m drills.quality.study_keys` ([what it is about](models-keys.md)): nobody writes here by hand.
{seeds} seeds, 28 days each; 128 attacks from the ninth day on, of eight kinds at three strengths; limits from the past only.
Constants were tried on seeds 1 to 3; *fresh* are those from 6 on, looked at once, after all: recall at false alarms a day.
A recall counts where honest keys have at most 1.5 false alarms a day. `keys` notifies; *throttle* would slow the key down.
`volume` is each key's requests alone, against its own level, with limits of the same making. *z sum* is `keys` without its
quiet time, half the alarms by scores and half by their sums; *+ trees*, *+ labels*: a third each, and a third by River's model.
The gain is the mean of the differences on the same attacks, with the bootstrap's 95 % interval.

"""
SYSTEMS = ("keys", "keys, throttle", "volume", "volume, throttle", "z sum", "z sum + trees", "z sum + labels")


@dataclass(slots=True)
class Study:
    """What came out of one seed and size."""

    seed: int
    keys: int
    false: dict[str, set[tuple[int, int]]] = field(default_factory=lambda: {name: set() for name in SYSTEMS})
    """System -> (key, day) of honest keys that were told of"""
    found: dict[str, dict[int, int]] = field(default_factory=lambda: {name: {} for name in SYSTEMS})
    """System -> attack -> the window in which it was found first"""
    attacks: list[KeyAttack] = field(default_factory=list)
    seconds: float = 0.0
    rows: int = 0
    learning_s: float = 0.0

    def recall(self, system: str, *, which: Sequence[KeyAttack] | None = None) -> float:
        """The share of attacks that a system has found."""
        chosen = self.attacks if which is None else which
        return sum(one.number in self.found[system] for one in chosen) / max(1, len(chosen))

    def false_per_day(self, system: str) -> float:
        """False alarms a day."""
        return len(self.false[system]) / (DAYS - FIRST_DAY)


class _Runner:
    """One seed."""

    def __init__(self, seed: int, keys: int, many: int) -> None:
        self.world = KeyWorld(seed, keys, DAYS)
        config = KeyAbuseConfig(keys=keys, notify_per_day=NOTIFY_PER_DAY, act_per_day=ACT_PER_DAY)
        self.model = KeyAbuse(config)
        self.guest = KeyAbuse(KeyAbuseConfig(keys=many, notify_per_day=NOTIFY_PER_DAY, act_per_day=ACT_PER_DAY))
        self.volume = Calibration(CalibrationConfig(notify_per_day=NOTIFY_PER_DAY, act_per_day=ACT_PER_DAY, start=12.0))
        self.peaks = np.zeros(keys)
        self.study = Study(seed, keys, attacks=attacks(self.world, seed, many, FIRST_DAY))
        self.waiting = list(reversed(self.study.attacks))
        self.live: list[KeyAttack] = []
        self.votes = Votes(seed, keys) if keys <= VOTED_KEYS_MAX else None

    def step(self, relative: int) -> None:
        """One window."""
        window, tick = START + relative, (START + relative) * WINDOW_S
        ids, values = self.world.draw(relative)
        began = time.process_time()
        if tick % DAY_S == 0 and relative:
            self.volume.observe(tick - 1, DAY_S, self.peaks[self.peaks > 0])
            self.peaks[:] = 0
        self.volume.begin(tick)
        self.model.begin(window)
        if self.votes is not None:
            self.votes.begin(tick)
        self._copy(relative)
        judged = self.model.judge(window, ids, values)
        self.model.note_peaks(judged)
        self.model.learn(window, values, judged, self.model.weights(window, judged))
        told, acts = self.model.decide(window, judged)
        self.study.rows += len(ids)
        self.study.learning_s += time.process_time() - began
        if relative >= FIRST_DAY * DAY:
            self._count(judged, told, acts, tick // DAY_S)
        self.peaks[ids] = np.maximum(self.peaks[ids], judged.z[:, F_REQUESTS])
        if self.votes is not None:
            self.votes.learn(tick, judged)
        self._attack(relative, window, ids, values)

    def _count(self, judged: Judged, told: Bools, acts: Bools, day: int) -> None:
        for system, hit in self._systems(judged, told, acts).items():
            self.study.false[system].update((int(key), day) for key in judged.ids[hit])

    def _systems(
        self, judged: Judged, told: Bools, acts: Bools, kinds: Sequence[str] | None = None
    ) -> dict[str, Bools]:  # fmt: skip
        """Of each system, bool[n]: who is told of."""
        volume = judged.z[:, F_REQUESTS]
        found = {"keys": told, "keys, throttle": acts, "volume": volume >= self.volume.notify}
        found["volume, throttle"] = volume >= self.volume.act
        by_score, by_sum = self.model.by_score.tail, self.model.by_sum.tail
        if self.votes is not None and by_score is not None and by_sum is not None:

            def over(share: float) -> Bools:
                limits = by_score.limit(share * NOTIFY_PER_DAY), by_sum.limit(share * NOTIFY_PER_DAY)
                return (judged.score >= limits[0]) | (judged.held >= limits[1])

            found["z sum"] = over(1 / 2)
            for name, vote in self.votes.over(judged, NOTIFY_PER_DAY / 3, kinds).items():
                found[f"z sum + {name}"] = over(1 / 3) | vote
        return found

    def _copy(self, relative: int) -> None:
        """Keys that an attack begins on are copied as they are."""
        while self.waiting and self.waiting[-1].begin <= relative:
            attack = self.waiting.pop()
            self.live.append(attack)
            self.guest.load(self.model.save(np.array([attack.key])), np.array([attack.number]))

    def _attack(self, relative: int, window: int, ids: I64, values: I64) -> None:
        """What the copies do: what their keys do, and the attack."""
        self.live = sorted((one for one in self.live if one.end > relative), key=lambda one: one.number)
        rows = np.zeros((len(self.live), VALUES), np.int64)
        place = {int(key): index for index, key in enumerate(ids)}
        for row, attack in zip(rows, self.live, strict=True):
            if attack.key in place:
                row[:] = values[place[attack.key]]
            attack.add(self.world, relative, row, self.study.seed)
        busy = rows[:, V_REQUESTS] > 0
        numbers, rows = np.array([one.number for one in self.live], np.int64)[busy], rows[busy]
        if not len(numbers):
            return
        self.guest.follow(self.model)
        judged = self.guest.judge(window, numbers, rows)
        self.guest.learn(window, rows, judged, self.guest.weights(window, judged))
        told, acts = self.guest.decide(window, judged)
        every = {one.number: one.kind for one in self.live}
        kinds = [every[number] for number in numbers.tolist()]
        for system, hit in self._systems(judged, told, acts, kinds).items():
            for number in numbers[hit].tolist():
                self.study.found[system].setdefault(number, relative)
        if self.votes is not None:
            self.votes.label(window * WINDOW_S, judged, kinds)


def run(seed: int, keys: int, many: int = ATTACKS, days: int = DAYS) -> Study:
    """One seed and size."""
    runner, began = _Runner(seed, keys, many), time.perf_counter()
    for relative in range(days * DAY):
        runner.step(relative)
    runner.study.seconds = time.perf_counter() - began
    return runner.study


def interval(differences: F64, seed: int = 1) -> tuple[float, float, float]:
    """(mean, low, high): the bootstrap's 95 % interval of the mean of paired differences."""
    chance = np.random.default_rng(seed)
    means = differences[chance.integers(0, len(differences), (2000, len(differences)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975)).tolist()
    return float(differences.mean()), low, high


def differences(studies: Sequence[Study], one: str, other: str, kinds: Sequence[str] = ATTACK_KINDS) -> F64:
    """f64[attacks]: found by one and not by the other, on the same attacks."""
    return np.array(
        [
            float(attack.number in study.found[one]) - float(attack.number in study.found[other])
            for study in studies
            for attack in study.attacks
            if attack.kind in kinds
        ]
    )


def table(studies: Sequence[Study]) -> str:
    """The results as Markdown."""
    lines = [
        "| keys | system | recall, seed by seed | recall | false alarms a day | counts | fresh |",
        "|--:|---|---|--:|--:|---|---|",
    ]
    sizes = sorted({study.keys for study in studies})
    for keys in sizes:
        mine = [study for study in studies if study.keys == keys]
        for system in SYSTEMS:
            if system.startswith("z sum") and keys > VOTED_KEYS_MAX:
                continue
            false = float(np.mean([study.false_per_day(system) for study in mine]))
            each = [study.recall(system) for study in mine]
            fresh = [study for study in mine if study.seed >= FRESH_SEED]
            of_fresh = np.mean([[one.recall(system), one.false_per_day(system)] for one in fresh] or [[np.nan] * 2], axis=0)
            lines.append(
                f"| {keys:,} | {system} | {' '.join(f'{one:.2f}' for one in each)} | **{np.mean(each):.2f}** | {false:.2f} | "
                f"{'yes' if false <= FALSE_MAX else 'no'} | {of_fresh[0]:.2f} at {of_fresh[1]:.2f} |"
            )
    lines += ["", "| keys | gain | mean | 95 % interval |", "|--:|---|--:|---|"]
    for keys in sizes:
        mine = [study for study in studies if study.keys == keys]
        pairs = [("keys", "volume"), ("keys, throttle", "volume, throttle")]
        pairs += [("z sum + trees", "z sum"), ("z sum + labels", "z sum")] if keys <= VOTED_KEYS_MAX else []
        for one, other in pairs:
            mean, low, high = interval(differences(mine, one, other))
            lines.append(f"| {keys:,} | {one} over {other} | {mean:+.3f} | {low:+.3f} to {high:+.3f} |")
    lines += ["", "| attack | " + " | ".join(f"{keys:,}: weak, ordinary, strong; volume" for keys in sizes) + " |"]
    lines += ["|---|" + "---|" * len(sizes)]
    for kind in ATTACK_KINDS:
        cells = []
        for keys in sizes:
            mine = [study for study in studies if study.keys == keys]
            said = []
            for strength in range(3):
                chosen = [(s, one) for s in mine for one in s.attacks if one.kind == kind and one.strength == strength]
                said.append(f"{np.mean([float(one.number in s.found['keys']) for s, one in chosen] or [0.0]):.2f}")
            every = [(s, one) for s in mine for one in s.attacks if one.kind == kind]
            volume = np.mean([float(one.number in s.found["volume"]) for s, one in every] or [0.0])
            cells.append(f"{' '.join(said)}; {volume:.2f}")
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(words: Sequence[str] | None = None) -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m drills.quality.study_keys", description=__doc__)
    parser.add_argument("--keys", type=int, nargs="*", default=[120, 1000, 10_000], help="sizes of the service")
    parser.add_argument("--seeds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="write the tables here")
    options = parser.parse_args(words)
    studies = []
    for keys in options.keys:
        for seed in range(1, options.seeds + 1):
            study = run(seed, keys)
            studies.append(study)
            said = ", ".join(f"{s} {study.recall(s):.2f} at {study.false_per_day(s):.2f}" for s in SYSTEMS if study.found[s])
            rate = study.learning_s / max(1, study.rows) * 1e6
            print(f"{keys:,} keys, seed {seed}: {said}; {study.seconds:.0f} s, {rate:.2f} µs a key and window", flush=True)
    text = table(studies)
    print(text)
    if options.out is not None:
        options.out.write_text(HEAD.format(seeds=options.seeds) + text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
