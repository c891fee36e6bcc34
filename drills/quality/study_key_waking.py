"""What it adds that a key was not used for six weeks: a part of docs/models-keys.md.

    python -m drills.quality.study_key_waking [--keys 500] [--seeds N]

Two weeks of `drills.quality.key_world` are learned; then all keys sleep for six weeks, in which customers move, upgrade and
change their networks as they do. Some are used again by their owners for a day; others, on copies, by somebody else alone. How
many of each are told of in that day, with limits as they were read off before, if waking counts for nothing and for more; and
in the first row, if what keys were seen with were forgotten in their sleep.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np

from detectors.kernels.key_features import V_REQUESTS, VALUES
from detectors.learning import key_state
from detectors.learning.key_abuse import KeyAbuse
from detectors.learning.key_state import KeyAbuseConfig
from drills.columns import I64
from drills.quality.key_world import DAY, START, KeyAttack, KeyWorld
from drills.quality.study_keys import ACT_PER_DAY, NOTIFY_PER_DAY

KNOWN_DAYS, SLEEP_DAYS = 14, 42
HOURS_MEMORY_DAYS = 20
"""So fast the usual hours of a key fade (`KeyAbuse._end_hour`)."""
KINDS = ("leaked_quiet", "leaked_loud", "shared", "resale", "night", "probing")
COUNTED = (0.0, 1.0, 2.0, 3.0, 6.0)
"""What waking may count for, in standard deviations."""


@dataclass(frozen=True, slots=True)
class Woken:
    """Of one seed: shares of those who were told of."""

    honest: float
    honest_throttled: float
    thieves: float
    by_kind: tuple[float, ...]


@dataclass(slots=True)
class _Seed:
    """What was learned, and what is done with the keys when they wake."""

    model: KeyAbuse
    honest: list[tuple[I64, I64]]
    """Of each window of a day: who does what"""
    thieves: list[tuple[I64, I64]]
    attacks: list[KeyAttack]


def prepare(seed: int, keys: int) -> _Seed:
    """Learn, sleep, and draw the day after."""
    world = KeyWorld(seed, keys, KNOWN_DAYS + SLEEP_DAYS + 1)
    model = KeyAbuse(KeyAbuseConfig(keys, NOTIFY_PER_DAY, ACT_PER_DAY))
    for relative in range(KNOWN_DAYS * DAY):
        window, (ids, values) = START + relative, world.draw(relative)
        model.begin(window)
        judged = model.judge(window, ids, values)
        model.note_peaks(judged)
        model.learn(window, values, judged, model.weights(window, judged))
        model.decide(window, judged)
    first = (KNOWN_DAYS + SLEEP_DAYS) * DAY
    for relative in range(KNOWN_DAYS * DAY, first):
        world.pass_by(relative)
    known = np.flatnonzero(model.levels.steps(np.arange(keys)) >= DAY)
    chance = np.random.default_rng([seed, 17])
    attacks = [
        KeyAttack(KINDS[n % len(KINDS)], n // len(KINDS) % 3, int(key), first, first + DAY, int(key))
        for n, key in enumerate(chance.permutation(known))
    ]
    honest, thieves = [], []
    for relative in range(first, first + DAY):
        ids, values = world.draw(relative)
        old = np.isin(ids, known)
        honest.append((ids[old], values[old]))
        rows = np.zeros((keys, VALUES), np.int64)
        for attack in attacks:
            attack.add(world, relative, rows[attack.key], seed)
        busy = np.flatnonzero(rows[:, V_REQUESTS])
        thieves.append((busy, rows[busy]))
    return _Seed(model, honest, thieves, attacks)


def asleep(model: KeyAbuse, *, forgotten: bool) -> KeyAbuse:
    """A copy whose keys have not been used for `SLEEP_DAYS`, with its limits, as of now: weeks fit, so do their hours."""
    ids = np.arange(model.config.keys)
    data = model.save(ids)
    for name in ("last", "born", "told", "suspect_since"):
        data[name] -= SLEEP_DAYS * DAY * (1 if name in ("last", "born") else key_state.WINDOW_S)
    data["hours"] *= np.exp(-SLEEP_DAYS / HOURS_MEMORY_DAYS)
    if forgotten:
        data["seen"][:] = 0
    copy = KeyAbuse(model.config)
    copy.load(data, ids)
    return copy


def told_of(seed: _Seed, day: Sequence[tuple[I64, I64]], *, forgotten: bool) -> tuple[set[int], set[int], set[int]]:
    """Which keys did anything, which of them people were told of, and which were slowed down."""
    model, did, told, acts = asleep(seed.model, forgotten=forgotten), set[int](), set[int](), set[int]()
    for number, (ids, values) in enumerate(day):
        window = START + KNOWN_DAYS * DAY + number
        judged = model.judge(window, ids, values)
        model.learn(window, values, judged, model.weights(window, judged))
        for found, hit in zip((told, acts), model.decide(window, judged), strict=True):
            found.update(ids[hit].tolist())
        did.update(ids.tolist())
    return did, told, acts


def measure(seed: _Seed, counted: float, *, forgotten: bool = False) -> Woken:
    """If waking counts for so much; ``forgotten``: and if nobody remembers what the keys were seen with."""
    with patch.object(key_state, "WOKEN", counted):
        owners, told, slowed = told_of(seed, seed.honest, forgotten=forgotten)
        _, found, _ = told_of(seed, seed.thieves, forgotten=forgotten)
    by_kind = [[one.key in found for one in seed.attacks if one.kind == kind] for kind in KINDS]
    return Woken(
        len(told) / len(owners), len(slowed) / len(owners), sum(map(sum, by_kind)) / len(seed.attacks),
        tuple(float(np.mean(hits)) for hits in by_kind),
    )  # fmt: skip


def main(words: Sequence[str] | None = None) -> int:
    """Run it and print a table."""
    parser = argparse.ArgumentParser(prog="python -m drills.quality.study_key_waking", description=__doc__)
    parser.add_argument("--keys", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    options = parser.parse_args(words)
    seeds = [prepare(seed, options.keys) for seed in options.seeds]
    heads = ["waking counts for", "owners told of", "slowed down", "thieves", *KINDS]
    print(f"| {' | '.join(heads)} |\n|{'--:|' * len(heads)}")
    for counted, forgotten in [(0.0, True), *((counted, False) for counted in COUNTED)]:
        found = [measure(seed, counted, forgotten=forgotten) for seed in seeds]
        shares = [np.mean([getattr(one, name) for one in found]) for name in ("honest", "honest_throttled", "thieves")]
        kinds = np.mean([one.by_kind for one in found], axis=0)
        print(
            f"| {counted}{', forgotten' if forgotten else ''} | {' | '.join(f'{share:.3f}' for share in [*shares, *kinds])} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
