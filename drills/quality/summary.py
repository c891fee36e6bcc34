"""Trials of several seeds as one line, and the strength at which half or nine tenths are found."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from drills.attacks.strengths import STRENGTH_NAMES, StrengthName
from drills.quality.trial import Trial, Trials
from drills.scoring.score import Wronged
from drills.scoring.tell import seconds_text, share_text

RANKS = ("missed", "alerted", "barely", "found")
BARELY_SHARE = 0.1
"""Who stops less of an attack's events, and of its sources, has found a few of them and not the attack."""


@dataclass(frozen=True, slots=True)
class Summary:
    """An attack at one strength, by one system, over all seeds."""

    seeds: int
    word: str
    """Of `RANKS`: the worst of the seeds"""
    seconds: float | None
    """Until it was found, or people were told: the median of the seeds where it was"""
    sources: float
    """Share that was mitigated, on average"""
    covered: float
    """Share of its events, on average"""
    honest_covered: int
    honest_events: int
    wronged: tuple[Wronged, ...]
    victims: tuple[str, ...]
    by: tuple[str, ...]

    @property
    def when(self) -> str:
        """After how long; nothing, where a seed missed it."""
        return "" if self.seconds is None or self.word == "missed" else seconds_text(self.seconds)

    @property
    def cell(self) -> str:
        """What of it stands in a table with others."""
        if self.word == "missed":
            return "missed"
        return f"{self.word} {self.when}" + (f", {share_text(self.covered)}" if self.word in ("barely", "found") else "")


def word_of(trial: Trial) -> str:
    """What became of it, in a word of `RANKS`."""
    score = trial.score
    if score.found:
        return "found" if max(score.share_covered, score.share_mitigated) >= BARELY_SHARE else "barely"
    return "alerted" if score.alerted else "missed"


def summary(trials: Sequence[Trial]) -> Summary | None:
    """Of trials that differ in their seed alone; none: there are none."""
    if not trials:
        return None
    scores = [trial.score for trial in trials]
    when = [score.seconds if score.found else score.alert_seconds for score in scores]
    known = [seconds for seconds in when if seconds is not None]
    by = Counter[str]()
    for score in scores:
        by.update(score.by if score.found else score.alerts)
    return Summary(
        len(trials), min(map(word_of, trials), key=RANKS.index), median(known) if known else None,
        _mean([score.share_mitigated for score in scores]), _mean([score.share_covered for score in scores]),
        sum(trial.honest_covered for trial in trials), sum(trial.honest_events for trial in trials),
        tuple(one for trial in trials for one in trial.wronged),
        tuple(f"{kind} {value}" for score in scores for kind, value in score.victims),
        tuple(name for name, _ in sorted(by.items(), key=lambda item: (-item[1], item[0]))),
    )  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def strength_at(share: float, trials: Trials, attack: str) -> str:
    """At how many times its ordinary rate this share of an attack's sources is mitigated.

    Between two strengths of the table a straight line over the logarithm of the rate; beyond them only a bound is known.
    """
    points = []
    ordinary = _rate(trials.of(attack))
    for strength in STRENGTH_NAMES:
        some = trials.of(attack, strength)
        found = summary(some)
        if found is None or ordinary is None:
            return ""
        points.append((math.log(_rate(some) or 1) - math.log(ordinary), found.sources))
    if points[0][1] >= share:
        return f"≤ {_times(points[0][0])}"
    for (x, low), (x_next, high) in itertools.pairwise(points):
        if low < share <= high:
            return _times(x + (x_next - x) * (share - low) / (high - low))
    return f"> {_times(points[-1][0])}"


def _rate(trials: Sequence[Trial]) -> float | None:
    return _mean([trial.per_second for trial in trials]) if trials else None


def _times(log_rate: float) -> str:
    return f"{math.exp(log_rate):.2g} ×"


def strengths_run(trials: Trials) -> list[StrengthName]:
    """Those of the table that there are trials of, in its order."""
    present = {trial.strength for trial in trials.found}
    return [strength for strength in STRENGTH_NAMES if strength in present]
