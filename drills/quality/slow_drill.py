"""The drill `registrations_slow` from end to end: lines through the whole engine, after days of honest sign-ups.

    python -m drills.quality.slow_drill [--first SEED] [--seeds N]

What docs/models-registrations.md says of the drill, for any seeds: sign-ups alone, 380 an hour, on a site that is said to be
one service with the API that the accounts use. The campaign has a tenth of that, and begins on the tenth day; limits were
learned in the days before. A seed takes two minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from detectors.learning.floods import STEP_S
from detectors.registrations import NAME
from detectors.registry import registered
from drills.render import lines
from drills.run import START_S, Drill, Plan
from drills.scoring.decide import decided
from engine.registrants import SLOW_STEPS
from schemas.config import Config, parse_config
from schemas.mitigation import Finding

ATTACK, PER_SECOND = "registrations_slow", 70.0
BEFORE_S, AFTER_S = 806_400, 92_400
"""Nine days and a third; a day and an hour and a half."""
BLOCK_S = 3600
DAY_S, HOUR_S = 86_400, 3600


@dataclass(frozen=True, slots=True)
class Told:
    """What the slow model said in one drill: hours since the campaign began, those before it below 0."""

    seed: int
    before: tuple[float, ...]
    since: tuple[float, ...]
    fast_before: int
    """Notices of the model of minutes, of those days"""
    fast_since: int
    first: Finding | None

    @property
    def hours(self) -> float:
        """Until the first notice; infinite where there was none within a day."""
        return self.since[0] if self.since and self.since[0] <= DAY_S / HOUR_S else np.inf


def play(seed: int) -> Told:
    """One drill."""
    span_s = BEFORE_S + AFTER_S
    plan = Plan(
        seed=seed, start_s=START_S, span_s=span_s, attacks=(ATTACK,), at_s=(BEFORE_S,), events_per_second=PER_SECOND,
        only=frozenset({"sign_ups"}), storms="none",
    )  # fmt: skip
    notices = [
        one for one in decided(_config(), _written(Drill(plan)), early=False).findings
        if one.detector == NAME and one.target.type == "service"
    ]  # fmt: skip
    slow = [one for one in notices if one.window.end - one.window.start > STEP_S * SLOW_STEPS]
    at = {one.id: (one.tick - START_S - BEFORE_S) / HOUR_S for one in notices}
    since = [one for one in slow if at[one.id] >= 0]
    fast = [one for one in notices if one not in slow]
    return Told(
        seed, tuple(at[one.id] for one in slow if at[one.id] < 0), tuple(at[one.id] for one in since),
        sum(at[one.id] < 0 for one in fast), sum(at[one.id] >= 0 for one in fast), since[0] if since else None,
    )  # fmt: skip


def _config() -> Config:
    off = {detector.name: {"enabled": False} for detector in registered() if detector.name != NAME}
    return parse_config({
        "profile": "api", "engine": {"seed": "for studies only"}, "detectors": off,
        "input": {"services": {"example": ["www.example.com", "api.example.com"]}},
    })  # fmt: skip


def _written(drill: Drill) -> Iterator[bytes]:
    for events in drill.blocks(BLOCK_S):
        yield b"".join(lines(events, drill.world.actors, "events"))


def main(words: Sequence[str] | None = None) -> int:
    """Run it and print a line for each seed."""
    parser = argparse.ArgumentParser(prog="python -m drills.quality.slow_drill", description=__doc__)
    parser.add_argument("--first", type=int, default=11)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args(words)
    print("| seed | told after | slow notices before, hours | fast notices before, after | what was said first |")
    print("|---|---|---|---|---|")
    told = []
    for seed in range(options.first, options.first + options.seeds):
        one = play(seed)
        told.append(one)
        before = ", ".join(f"{hours:.1f}" for hours in one.before) or "none"
        said = one.first.reason.rpartition("stands out: ")[2] if one.first else ""
        print(f"| {seed} | {one.hours:.1f} h | {before} | {one.fast_before}, {one.fast_since} | {said} |", flush=True)
    within = [one.hours for one in told if np.isfinite(one.hours)]
    median = f", half of them within {np.median(within):.1f} h" if within else ""
    print(f"\n{len(within)} of {len(told)} within a day{median}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
