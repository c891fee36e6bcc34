"""`make quality`, or `python -m drills.quality [--days 28] [--seeds N] [--only NAME ...] [--jobs 2] [--accept]`.

Prints each result as it comes, writes the page, and ends with 1 when something is found less than it was, or somebody
honest was stopped who was not: what was kept stands in quality.json, and ``--accept`` keeps what this run found instead.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import get_args

from drills.attacks.strengths import STRENGTH_NAMES, StrengthName
from drills.quality import kept
from drills.quality.page import page
from drills.quality.quiet import Quiet, busy_hours, quiet, quiet_weeks
from drills.quality.scenes import QUIET_DAYS, SCORING_SEEDS
from drills.quality.summary import word_of
from drills.quality.systems import OURS
from drills.quality.trial import Trial, Trials, attack_names, run_work, works
from drills.scoring.tell import seconds_text, share_text
from schemas.errors import FloodwallError, UsageError


def main(words: Sequence[str] | None = None) -> int:
    """Run it; the exit code."""
    options = _parser().parse_args(words)
    unknown = [name for name in options.only if name not in attack_names()]
    if unknown:
        raise UsageError(f"expected attacks of `floodwall drill list`, got {unknown[0][:60]!r}")
    began = time.perf_counter()

    def say(text: str) -> None:
        print(f"{time.perf_counter() - began:6.0f} s  {text}", flush=True)

    seeds = SCORING_SEEDS[: options.seeds]
    trials, times = _run(options, seeds, say)
    now = kept.document(trials, times)
    worse = kept.regressions(now, kept.load(options.kept))
    if options.out is not None:
        options.out.write_text(page(trials, times, seeds), encoding="utf-8")
        say(f"written to {options.out}")
    if options.accept:
        kept.save(now, options.kept)
        say(f"kept in {options.kept}")
    for sentence in worse:
        say(f"worse: {sentence}")
    return 1 if worse and not options.accept else 0


def _run(options: argparse.Namespace, seeds: Sequence[int], say: Callable[[str], None]) -> tuple[Trials, dict[str, Quiet]]:
    """Everything that was asked for, in as many processes as may be; the order of results is that of the plan."""
    attacks = works(seeds, options.only or attack_names(), options.strength or STRENGTH_NAMES)
    plans = [("quiet weeks", plan) for plan in quiet_weeks(options.days)]
    plans += [("busy hours", plan) for plan in (busy_hours() if options.days else ())]
    trials, times = Trials(), {name: Quiet() for name in ("busy hours", "quiet weeks") if options.days}
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        # What takes longest begins first.
        quiets = [(name, pool.submit(quiet, plan)) for name, plan in plans]
        found: list[Future[list[Trial]]] = [pool.submit(run_work, work) for work in attacks]
        for future in found:
            for trial in future.result():
                trials.found.append(trial)
                _tell(trial, say)
        for name, one in quiets:
            times[name].add(one.result())
            say(f"{name}: {times[name].events:,} events")
    return trials, times


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m drills.quality", description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="only these attacks")
    parser.add_argument("--strength", nargs="*", choices=get_args(StrengthName), help="only these strengths")
    parser.add_argument("--seeds", type=int, default=len(SCORING_SEEDS), help="so many of the scoring seeds")
    parser.add_argument("--days", type=int, default=QUIET_DAYS, help="quiet days; 0: none, nor busy hours; 28: four weeks")
    parser.add_argument("--jobs", type=int, default=1, help="processes; each takes up to 2 GB")
    parser.add_argument("--out", type=Path, help="write the page here")
    parser.add_argument("--kept", type=Path, default=kept.KEPT, help="what to compare with")
    parser.add_argument("--accept", action="store_true", help="keep this run's results as those to compare with")
    return parser


def _tell(trial: Trial, say: Callable[[str], None]) -> None:
    if trial.system != OURS:
        return
    score = trial.score
    when = score.seconds if score.found else score.alert_seconds
    say(
        f"{trial.seed} {trial.attack:22} {trial.strength:9} {word_of(trial):8} {'' if when is None else seconds_text(when):>7} "
        f"{score.sources_mitigated:7,} of {score.sources:7,} sources, {share_text(score.share_covered):>6} of its events, "
        f"{trial.honest_covered:,} honest ones, {len(trial.wronged)} honest sources, {len(score.victims)} victims"
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FloodwallError as error:
        print(f"quality: {error}", file=sys.stderr)
        sys.exit(2)
