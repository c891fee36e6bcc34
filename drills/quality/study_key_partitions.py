"""What judge partitions that each learn and calibrate alone do to `keys`: a part of docs/models-keys.md.

    python -m drills.quality.study_key_partitions [--keys 1000] [--partitions 1 4 16] [--first 1] [--seeds N]

The world, the attacks and the counting of `drills.quality.study_keys`; keys are dealt out to partitions, and each partition has
a model of its own with its part of the alarms, as judges have. Nothing is shared between them: not what is usual of young keys,
and not the past that limits are read off.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from detectors.kernels.key_features import V_REQUESTS, VALUES
from detectors.learning.calibration import DAY_S
from detectors.learning.key_abuse import KeyAbuse
from detectors.learning.key_state import WINDOW_S, KeyAbuseConfig
from drills.columns import I64
from drills.quality.key_world import DAY, START, KeyAttack, KeyWorld, attacks
from drills.quality.study_keys import ACT_PER_DAY, ATTACKS, DAYS, FIRST_DAY, NOTIFY_PER_DAY, Study

SYSTEMS = ("keys", "keys, throttle")


class Part:
    """One judge partition: its model, and room for the copies that attacks are put onto."""

    def __init__(self, keys: int, partitions: int) -> None:
        share = NOTIFY_PER_DAY / partitions, ACT_PER_DAY / partitions
        self.model, self.guest = (KeyAbuse(KeyAbuseConfig(many, *share)) for many in (keys, ATTACKS))

    def judge(self, study: Study, relative: int, ids: I64, values: I64) -> None:
        """What honest keys did in a window."""
        model, window = self.model, START + relative
        judged = model.judge(window, ids, values)
        model.note_peaks(judged)
        model.learn(window, values, judged, model.weights(window, judged))
        decided, day = model.decide(window, judged), window * WINDOW_S // DAY_S
        if relative >= FIRST_DAY * DAY:
            for system, hit in zip(SYSTEMS, decided, strict=True):
                study.false[system].update((int(key), day) for key in ids[hit])

    def attack(self, study: Study, relative: int, numbers: I64, rows: I64) -> None:
        """What the copies did."""
        window = START + relative
        self.guest.follow(self.model)
        judged = self.guest.judge(window, numbers, rows)
        self.guest.learn(window, rows, judged, self.guest.weights(window, judged))
        for system, hit in zip(SYSTEMS, self.guest.decide(window, judged), strict=True):
            for number in numbers[hit].tolist():
                study.found[system].setdefault(number, relative)


def run(seed: int, keys: int, partitions: int, days: int = DAYS) -> Study:
    """One seed."""
    world = KeyWorld(seed, keys, days)
    study = Study(seed, keys, attacks=attacks(world, seed, ATTACKS, FIRST_DAY))
    parts, place_of = [Part(keys, partitions) for _ in range(partitions)], np.arange(keys) % partitions
    waiting, live = list(reversed(study.attacks)), list[KeyAttack]()
    for relative in range(days * DAY):
        ids, values = world.draw(relative)
        for part in parts:
            part.model.begin(START + relative)
        while waiting and waiting[-1].begin <= relative:
            live.append(waiting.pop())
            part = parts[place_of[live[-1].key]]
            part.guest.load(part.model.save(np.array([live[-1].key])), np.array([live[-1].number]))
        live = sorted((one for one in live if one.end > relative), key=lambda one: one.number)
        for place, part in enumerate(parts):
            mine = place_of[ids] == place
            if mine.any():
                part.judge(study, relative, ids[mine], values[mine])
            rows = [(one.number, row_of(one, world, relative, ids, values, seed)) for one in live if place_of[one.key] == place]
            busy = [(number, row) for number, row in rows if row[V_REQUESTS] > 0]
            if busy:
                part.attack(study, relative, np.array([number for number, _ in busy]), np.stack([row for _, row in busy]))
    return study


def row_of(attack: KeyAttack, world: KeyWorld, relative: int, ids: I64, values: I64, seed: int) -> I64:
    """i64[VALUES]: what the key does, and the attack."""
    row = np.zeros(VALUES, np.int64)
    at = int(np.searchsorted(ids, attack.key))
    if at < len(ids) and ids[at] == attack.key:
        row[:] = values[at]
    attack.add(world, relative, row, seed)
    return row


def main(words: Sequence[str] | None = None) -> int:
    """Run it and print a table."""
    parser = argparse.ArgumentParser(prog="python -m drills.quality.study_key_partitions", description=__doc__)
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--partitions", type=int, nargs="*", default=[1, 4, 16])
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(words)
    print("| keys | partitions | seeds | recall | false alarms a day | throttle | wrong a day |\n|--:|--:|--:|--:|--:|--:|--:|")
    for partitions in options.partitions:
        studies = [run(seed, options.keys, partitions) for seed in range(options.first, options.first + options.seeds)]
        means = [(np.mean([s.recall(x) for s in studies]), np.mean([s.false_per_day(x) for s in studies])) for x in SYSTEMS]
        said = [f"{recall:.2f} | {false:.2f}" for recall, false in means]
        print(f"| {options.keys:,} | {partitions} | {len(studies)} | {' | '.join(said)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
