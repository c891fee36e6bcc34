"""Hours of scores on their way into a calibration: of each hour the highest, and of what lasts only that of its first hour.

A campaign of two hours is one alarm, not three hours of a normal life.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from detectors.learning.calibration import Calibration
from detectors.learning.levels import F64, HOUR_S
from schemas.errors import StateError


class Hours:
    """Of several scores, each with a calibration of its own."""

    def __init__(self, scores: int) -> None:
        self.peaks: F64 = np.zeros(scores)
        """The highest of the hour"""
        self._over: F64 = np.zeros((2, scores))
        """1 where the last hour and this one held a score at its limit"""

    def see(self, place: int, score: float, limit: float) -> None:
        """A step's."""
        self.peaks[place] = max(self.peaks[place], score)
        if score >= limit:
            self._over[1, place] = 1.0

    def end(self, tick: int, limits: Sequence[Calibration]) -> None:
        """The hour is over with ``tick``."""
        for place, one in enumerate(limits):
            lasts = self._over[0, place] and self._over[1, place]
            one.observe(tick, HOUR_S, np.zeros(0) if lasts else self.peaks[place : place + 1])
        self._over[0], self._over[1] = self._over[1].copy(), 0.0
        self.peaks = np.zeros_like(self.peaks)

    def save(self) -> list[Any]:
        """Arrays for `load`."""
        return [self.peaks.copy(), self._over.copy()]

    def load(self, data: list[Any]) -> None:
        """Take over what `save` gave."""
        peaks, over = data
        if peaks.shape != self.peaks.shape or over.shape != self._over.shape:
            raise StateError(f"expected hours of {len(self.peaks)} scores, got {peaks.shape}")
        self.peaks, self._over = peaks.copy(), over.copy()
