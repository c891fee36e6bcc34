"""What it adds that `keys` looks at the models that keys ask for, on the same keys and the same attacks.

    python -m drills.quality.study_key_models [--keys 120 1000] [--first 1] [--seeds 3]

As `drills.quality.study_keys`, twice at once: with the models and without them. Of owners it is said, too, how many were told
of by mistake in the three days after a launch, when most go over to a model that they never asked for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from detectors.kernels.key_features import V_MODELS, V_REQUESTS
from drills.columns import I64
from drills.quality.key_world import ATTACK_KINDS, DAY, LAUNCHES, START, KeyAttack, KeyWorld, attacks
from drills.quality.study_key_partitions import Part, row_of
from drills.quality.study_keys import ATTACKS, DAYS, FIRST_DAY, Study, interval

LAUNCH_DAYS = 3
SYSTEMS = ("keys", "keys, throttle")


def run(seed: int, keys: int, days: int = DAYS) -> tuple[Study, Study]:
    """One seed: (with the models, without them)."""
    world = KeyWorld(seed, keys, days)
    chosen = attacks(world, seed, ATTACKS, FIRST_DAY)
    studies = Study(seed, keys, attacks=chosen), Study(seed, keys, attacks=chosen)
    parts, waiting, live = (Part(keys, 1), Part(keys, 1)), list(reversed(chosen)), list[KeyAttack]()
    for relative in range(days * DAY):
        ids, values = world.draw(relative)
        for part in parts:
            part.model.begin(START + relative)
        while waiting and waiting[-1].begin <= relative:
            live.append(waiting.pop())
            for part in parts:
                part.guest.load(part.model.save(np.array([live[-1].key])), np.array([live[-1].number]))
        live = sorted((one for one in live if one.end > relative), key=lambda one: one.number)
        rows = [(one.number, row_of(one, world, relative, ids, values, seed)) for one in live]
        busy = [(number, row) for number, row in rows if row[V_REQUESTS] > 0]
        for part, study, looks in zip(parts, studies, (True, False), strict=True):
            part.judge(study, relative, ids, _looked_at(values, looks=looks))
            if busy:
                numbers = np.array([number for number, _ in busy])
                part.attack(study, relative, numbers, _looked_at(np.stack([row for _, row in busy]), looks=looks))
    return studies


def _looked_at(values: I64, *, looks: bool) -> I64:
    if looks:
        return values
    found = values.copy()
    found[:, V_MODELS] = 0
    return found


def launch_false(study: Study, system: str) -> int:
    """Honest keys that were told of in the days after a launch."""
    after = {START // DAY + day + n for day in LAUNCHES for n in range(LAUNCH_DAYS)}
    return sum(day in after for _, day in study.false[system])


def gain(pairs: Sequence[tuple[Study, Study]], system: str, kinds: Sequence[str] = ATTACK_KINDS) -> tuple[float, float, float]:
    """(mean, low, high) of what looking at models adds to recall, on the same attacks."""
    each = [
        float(one.number in seen.found[system]) - float(one.number in blind.found[system])
        for seen, blind in pairs
        for one in seen.attacks
        if one.kind in kinds
    ]
    return interval(np.array(each))


def table(pairs: Sequence[tuple[Study, Study]]) -> str:
    """The results as Markdown."""
    lines = [
        "| keys | system | recall with, without | gain | 95 % interval | false a day | in the 3 days after launches |",
        "|--:|---|---|--:|---|---|---|",
    ]
    for keys in sorted({seen.keys for seen, _ in pairs}):
        mine = [pair for pair in pairs if pair[0].keys == keys]
        for system in SYSTEMS:
            mean, low, high = gain(mine, system)
            recall = " ".join(f"{np.mean([pair[which].recall(system) for pair in mine]):.3f}" for which in (0, 1))
            false = " ".join(f"{np.mean([pair[which].false_per_day(system) for pair in mine]):.2f}" for which in (0, 1))
            launched = " ".join(str(sum(launch_false(pair[which], system) for pair in mine)) for which in (0, 1))
            lines.append(f"| {keys:,} | {system} | {recall} | {mean:+.3f} | {low:+.3f} to {high:+.3f} | {false} | {launched} |")
    lines += ["", "| attack | gain | 95 % interval |", "|---|--:|---|"]
    for kind in ATTACK_KINDS:
        mean, low, high = gain(pairs, "keys", (kind,))
        lines.append(f"| {kind} | {mean:+.3f} | {low:+.3f} to {high:+.3f} |")
    return "\n".join(lines) + "\n"


def main(words: Sequence[str] | None = None) -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m drills.quality.study_key_models", description=__doc__)
    parser.add_argument("--keys", type=int, nargs="*", default=[120, 1000], help="sizes of the service")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(words)
    pairs = []
    for keys in options.keys:
        for seed in range(options.first, options.first + options.seeds):
            seen, blind = run(seed, keys)
            pairs.append((seen, blind))
            said = ", ".join(
                f"{name} {one.recall('keys'):.2f} at {one.false_per_day('keys'):.2f}"
                for name, one in (("with", seen), ("without", blind))
            )
            print(f"{keys:,} keys, seed {seed}: {said}", flush=True)
    print(table(pairs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
