"""What is known of recorded traffic beside what was decided: labels of a drill, and what operators said."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.in_force import InForce, Named
from replay.coverage import Covered
from replay.event_pass import Labels
from replay.feedback import read_records
from replay.sources import KAFKA_SCHEME, expand
from schemas.errors import SourceError
from schemas.labels import LABELS, labels_beside, may_stop, read_attacks

ATTACK, HONEST, NOBODY = "attack", "honest", "nobody"
CONFIRMED, FALSE_POSITIVE = "confirmed", "false positive"
WRONG = (HONEST, FALSE_POSITIVE)


@dataclass(slots=True)
class Truth:
    """All of it may be missing."""

    labels: dict[str, Labels] = field(default_factory=dict)
    """Of every source, or of none"""
    attacks: dict[int, dict[str, Any]] = field(default_factory=dict)
    """By label"""
    confirmed: set[Named] = field(default_factory=set)
    false_positives: set[Named] = field(default_factory=set)
    said: list[str] = field(default_factory=list)

    @property
    def kinds(self) -> int:
        """How many labels there may be, 0 among them; 0: there are none."""
        return max(self.attacks, default=0) + 1 if self.labels else 0

    def names(self, target: Named, number: int, covered: Covered, until_ms: int) -> list[str]:
        """Attacks that a target names which was in force until then: those that it may be stopped for and has events of."""
        return [
            str(attack["name"]) for label, attack in self.attacks.items()
            if covered.of_target[number, label] and may_stop(attack, target[0]) and until_ms > covered.first_ms[label]
        ]  # fmt: skip

    def verdict(self, target: Named, number: int, covered: Covered, until_ms: int) -> tuple[str | None, list[str]]:
        """In a word, and the attacks; none: nothing is known of it. What operators said counts before labels."""
        names = self.names(target, number, covered, until_ms) if self.labels else []
        if target in self.false_positives:
            return FALSE_POSITIVE, names
        if target in self.confirmed:
            return CONFIRMED, names
        if not self.labels:
            return None, []
        if names:
            return ATTACK, names
        return (HONEST if covered.of_target[number, 0] else NOBODY), []

    def attacks_of(self, run: InForce, covered: Covered) -> set[str]:
        """Every attack that something in force names."""
        found: set[str] = set()
        if self.labels:
            for target, spans in run.enforced.items():
                found.update(self.names(target, covered.targets[target], covered, max(span.until_ms for span in spans)))
        return found


def truth_of(paths: Sequence[str], feedback: Path | None, *, use_labels: bool = True) -> Truth:
    """Look for labels beside the sources, and read a file of feedback.

    Raises:
        SourceError: labels or feedback cannot be read.
    """
    truth = Truth()
    if feedback is not None:
        if not feedback.exists():
            raise SourceError(f"expected a file of feedback at {feedback}, got nothing there")
        for record in read_records(feedback):
            target = record.target.type, record.target.value
            if record.verdict == "confirmed":
                truth.confirmed.add(target)
                truth.false_positives.discard(target)
            elif record.verdict == "false_positive":
                truth.false_positives.add(target)
                truth.confirmed.discard(target)
    if not use_labels or any(path.startswith(KAFKA_SCHEME) for path in paths):
        return truth
    names = expand(paths)
    found = {name: labels for name in names if (labels := labels_beside(name)) is not None}
    if not found:
        return truth
    folders = {os.path.dirname(os.path.abspath(name)) for name in names}
    described = Path(next(iter(folders))) / LABELS
    if len(found) < len(names) or len(folders) > 1 or not described.is_file():
        truth.said.append(f"labels are not used: {len(found)} of {len(names)} files have them, in {len(folders)} folders")
        return truth
    truth.labels = found
    truth.attacks = {int(attack["label"]): attack for attack in read_attacks(described)}
    return truth
