"""What a run is worth: each attack found or not, how soon, how much of it was covered, and who honest paid for it.

A target *names* an attack if its type is one of those that may be stopped for it (``stops``) and it has events of the
attack in it; it counts from the attack's first event on. An event is *covered* if anything is in force on any of its names
when it comes. Whoever is in force without naming an attack is *wronged*: an honest source, or a victim of a trap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from drills.columns import I64
from drills.scoring.exposure import ADDRESSES, Exposure, Mask
from engine.in_force import InForce, Named, Span, in_force_of
from schemas.labels import may_stop
from schemas.mitigation import Finding, Mitigation

ALERT_SHARE = 0.1
"""A note is about an attack if at least so much of what its target did in its window is the attack's."""
SOURCES = (*ADDRESSES, "api_key", "account")
"""Types of targets that are somebody; the others are what many have in common."""


@dataclass(slots=True)
class AttackScore:
    """What became of one attack."""

    label: int
    name: str
    strength: str
    trap: bool
    first_ms: int
    sources: int = 0
    sources_mitigated: int = 0
    """Addresses of which at least one event has a name that was mitigated, whenever"""
    events: int = 0
    events_covered: int = 0
    seconds: float | None = None
    """From its first event until the first mitigation that names it; none: it was not found."""
    alert_seconds: float | None = None
    """Until people were told of it, if nothing was stopped: a service, a route, a note about a key."""
    by: Counter[str] = field(default_factory=Counter)
    """Detector -> targets that name it"""
    alerts: Counter[str] = field(default_factory=Counter)
    """Detector and type of target -> notes about it"""
    victims: list[Named] = field(default_factory=list)
    """Who is honest, was framed, and was mitigated"""
    findings: Counter[str] = field(default_factory=Counter)
    """Outcome -> final findings that name it"""

    @property
    def found(self) -> bool:
        """Something of its own was stopped."""
        return self.seconds is not None

    @property
    def alerted(self) -> bool:
        """People were told, and nothing of its own was stopped."""
        return not self.found and self.alert_seconds is not None

    @property
    def share_mitigated(self) -> float:
        """Of its sources."""
        return self.sources_mitigated / self.sources if self.sources else 0.0

    @property
    def share_covered(self) -> float:
        """Of its events."""
        return self.events_covered / self.events if self.events else 0.0


@dataclass(frozen=True, slots=True)
class Wronged:
    """A target in force that names no attack."""

    type: str
    value: str
    detector: str
    action: str
    reason: str
    since_s: int
    honest_events: int
    """Of the drill's, in the target, whether in force then or not"""


@dataclass(slots=True)
class Scorecard:
    """A run against its labels."""

    attacks: list[AttackScore]
    honest_events: int = 0
    honest_covered: int = 0
    source_days: float = 0.0
    """Distinct honest addresses, keys and accounts, of each day, times the share of the day that there was"""
    wronged: list[Wronged] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    """Types of targets that scoring does not know -> how many; they cover nothing here"""

    @property
    def honest_sources(self) -> list[Wronged]:
        """Those wronged that are somebody."""
        return [one for one in self.wronged if one.type in SOURCES and one.honest_events]

    @property
    def false_blocks(self) -> str:
        """As the rule of three has it."""
        return false_blocks_text(len(self.honest_sources), self.source_days)


def false_blocks_text(blocks: int, source_days: float) -> str:
    """How often honest sources were mitigated; none in N is below 3/N with 95 % confidence.

    >>> false_blocks_text(0, 6000.2)
    '0 of 6,000 source-days (below 0.0005 a source-day)'
    >>> false_blocks_text(2, 6000)
    '2 of 6,000 source-days'
    """
    text = f"{blocks:,} of {source_days:,.0f} source-days"
    return text if blocks or source_days < 1 else f"{text} (below {3 / source_days:.2g} a source-day)"


class Scorer:
    """Scores one run.

    Args:
        parts: its events, each once; several are as good as one.
        attacks: the records of kind ``attack`` of labels.ndjson.
        normal: notes that people were sent without any attack: (detector, type, value), and no attack is found by them.
    """

    def __init__(
        self, parts: Sequence[Exposure], attacks: Sequence[dict[str, Any]],
        normal: frozenset[tuple[str, str, str]] = frozenset(),
    ) -> None:  # fmt: skip
        self._parts = parts
        self._records = {record["label"]: record for record in attacks}
        self._normal = normal

    def score(self, mitigations: Sequence[Mitigation], findings: Sequence[Finding] = ()) -> Scorecard:
        """Against what was decided."""
        standing = in_force_of(mitigations)
        scores = {label: self._blank(label) for label in self._records}
        card = Scorecard(list(scores.values()))
        covered = [np.zeros(len(part), np.bool_) for part in self._parts]
        named = [np.zeros(len(part), np.bool_) for part in self._parts]
        for target, spans in standing.enforced.items():
            self._enforce(target, spans, scores, card, covered, named)
        self._tell(standing, scores)
        for finding in findings:
            if finding.stage == "final":
                for label in self._labels_of((finding.target.type, finding.target.value), None):
                    if label in scores and self._may_stop(label, finding.target.type):
                        scores[label].findings[finding.outcome] += 1
        for part, covers, names in zip(self._parts, covered, named, strict=True):
            self._count(part, covers, names, scores, card)
        card.wronged.sort(key=lambda one: (one.since_s, one.type, one.value))
        return card

    def _may_stop(self, label: int, kind: str) -> bool:
        """A signature may always."""
        return may_stop(self._records[label], kind)

    def _blank(self, label: int) -> AttackScore:
        record = self._records[label]
        first = [int(part.time_ms[part.label == label].min()) for part in self._parts if (part.label == label).any()]
        return AttackScore(
            label, record["name"], record["strength"], record["trap"], min(first, default=record["start"] * 1000)
        )  # fmt: skip

    def _enforce(
        self, target: Named, spans: list[Span], scores: dict[int, AttackScore], card: Scorecard, covered: list[Mask],
        named: list[Mask],
    ) -> None:  # fmt: skip
        kind = target[0]
        names: set[int] = set()
        honest = 0
        for part, covers, marks in zip(self._parts, covered, named, strict=True):
            rows = part.rows_of(target)
            if rows is None:
                card.unknown[kind] += 1
                return
            labels = part.label[rows]
            honest += int((labels == 0).sum())
            times = part.time_ms[rows]
            now = np.zeros(len(rows), np.bool_)
            for span in spans:
                now |= (times >= span.from_ms) & (times < span.until_ms)
            covers[rows[now]] = True
            for label in np.unique(labels[labels > 0]).tolist():
                since = next((span for span in spans if span.until_ms > scores[label].first_ms), None)
                if self._may_stop(label, kind) and since is not None:
                    names.add(label)
                    marks[rows[labels == label]] = True
        for label in names:
            self._credit(scores[label], spans)
        for label, record in self._records.items():
            # Where another attack holds the same key in its hands, stopping that is right.
            if target[1] in record["victims"].get(kind, ()) and not names - {label}:
                scores[label].victims.append(target)
        if not names:
            first = spans[0].record
            card.wronged.append(
                Wronged(*target, first.detector, first.action, first.reason, spans[0].from_ms // 1000, honest)
            )  # fmt: skip

    @staticmethod
    def _credit(score: AttackScore, spans: list[Span]) -> None:
        """A target that names an attack is in force."""
        mine = [span for span in spans if span.until_ms > score.first_ms]
        seconds = max(0.0, (mine[0].from_ms - score.first_ms) / 1000)
        score.seconds = seconds if score.seconds is None else min(score.seconds, seconds)
        score.by.update({span.record.detector for span in mine})

    def _tell(self, standing: InForce, scores: dict[int, AttackScore]) -> None:
        """Of notes to people, those that are about an attack."""
        for record in standing.told:
            kind, value = record.target.type, record.target.value
            if (record.detector, kind, value) in self._normal:
                continue
            for label in self._labels_of((kind, value), (record.window.start, record.issued_at)):
                score = scores[label]
                score.alerts[f"{record.detector} {kind}"] += 1
                seconds = max(0.0, record.issued_at - score.first_ms / 1000)
                score.alert_seconds = seconds if score.alert_seconds is None else min(score.alert_seconds, seconds)

    def _labels_of(self, target: Named, window: tuple[int, int] | None) -> list[int]:
        """Attacks that have enough of what a target did, in a window of seconds or at all."""
        counts: Counter[int] = Counter()
        for part in self._parts:
            rows = part.rows_of(target)
            if rows is None:
                continue
            if window is not None:
                times = part.time_ms[rows]
                rows = rows[(times >= window[0] * 1000) & (times < window[1] * 1000)]
            labels, many = np.unique(part.label[rows], return_counts=True)
            counts.update(dict(zip(labels.tolist(), many.tolist(), strict=True)))
        whole = counts.total()
        return [label for label, count in counts.items() if label in self._records and count >= ALERT_SHARE * whole]

    @staticmethod
    def _count(part: Exposure, covered: Mask, named: Mask, scores: dict[int, AttackScore], card: Scorecard) -> None:
        honest = part.label == 0
        card.honest_events += int(honest.sum())
        card.honest_covered += int((honest & covered).sum())
        card.source_days += part.source_days()
        addresses: I64 = part.columns["ip"].codes
        for label, score in scores.items():
            mine = part.label == label
            score.events += int(mine.sum())
            score.events_covered += int((mine & covered).sum())
            score.sources += len(np.unique(addresses[mine]))
            score.sources_mitigated += len(np.unique(addresses[mine & named]))
