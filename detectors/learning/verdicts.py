"""What operators said of findings, as patterns: what looks like many false alarms is no alarm any more.

A finding is a direction in the space of its z features. The last verdicts are kept. A new one is *muted* when at least
`ALIKE` false positives point the same way (a cosine of `COSINE`), more than confirmed ones do, and it is not far stronger than
any of them. So an honest campaign stops being told, and an attack that merely comes at the same time is still seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from detectors.learning.levels import F64
from schemas.errors import StateError

KEPT = 128
"""Verdicts, the newest: 30 kB."""
ALIKE = 5
COSINE = 0.85
STRONGER = 1.5


@dataclass(slots=True)
class Verdicts:
    """Of one service."""

    features: int
    directions: F64 = field(init=False)
    """f64[n, features], of length 1"""
    scores: F64 = field(init=False)
    confirmed: F64 = field(init=False)
    """1 or 0"""

    def __post_init__(self) -> None:
        self.directions, self.scores, self.confirmed = np.zeros((0, self.features)), np.zeros(0), np.zeros(0)

    def add(self, z: F64, score: float, *, confirmed: bool) -> None:
        """A verdict."""
        self.directions = np.concatenate([self.directions, _direction(z)[None]])[-KEPT:]
        self.scores = np.append(self.scores, score)[-KEPT:]
        self.confirmed = np.append(self.confirmed, float(confirmed))[-KEPT:]

    def mutes(self, z: F64, score: float) -> bool:
        """Whether people have said often enough that such a thing is none."""
        if len(self.scores) < ALIKE:
            return False
        alike = self.directions @ _direction(z) >= COSINE
        false = alike & (self.confirmed == 0)
        if false.sum() < ALIKE or (alike & (self.confirmed == 1)).sum() >= false.sum():
            return False
        return bool(score <= STRONGER * float(self.scores[false].max()))

    def save(self) -> dict[str, Any]:
        """Arrays for `load`."""
        return {"directions": self.directions.copy(), "scores": self.scores.copy(), "confirmed": self.confirmed.copy()}

    def load(self, data: dict[str, Any]) -> None:
        """Take over what `save` gave."""
        directions, scores, confirmed = (data[name] for name in ("directions", "scores", "confirmed"))
        if directions.shape != (len(scores), self.features) or confirmed.shape != scores.shape or len(scores) > KEPT:
            raise StateError(f"expected up to {KEPT} verdicts of {self.features} features, got {directions.shape}")
        self.directions, self.scores, self.confirmed = directions.copy(), scores.copy(), confirmed.copy()


def _direction(z: F64) -> F64:
    kept = np.clip(z, -2.0, 20.0)
    length = float(np.sqrt((kept * kept).sum()))
    direction: F64 = kept / length if length > 0 else kept
    return direction
