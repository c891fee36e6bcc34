"""When people are told of what goes on: once as it begins, and again when it has become far rarer than what they were told.

>>> episode = Episode(quiet_steps=36)
>>> [episode.tells(step, 0.1) for step in (100, 101, 136, 173)]
[True, False, False, True]
>>> [episode.tells(step, per_day) for step, per_day in ((174, 0.02), (175, 0.009), (176, 0.005), (177, 0.0005))]
[False, True, False, True]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from schemas.columns import I64

RARER = 10.0
"""Told again is what is so many times rarer than what was told."""


@dataclass(slots=True)
class Episode:
    """Steps at a limit, one after the other: those of the last one, however long ago."""

    quiet_steps: int
    """So many steps without one end it."""
    again: bool = True
    """Whether anything is told again."""
    since: int = -1
    last: int = -1
    rarest: float = 0.0
    """How often a day what was told is usual; 0: that is not known, and nothing is told again"""

    def tells(self, step: int, per_day: float | None) -> bool:
        """A step at the limit, whose like comes so often a day: whether people are told of it."""
        begins = self.last < step - self.quiet_steps
        self.last = step
        if begins:
            self.since = step
        elif not self.again or per_day is None or per_day * RARER > self.rarest:
            return False
        self.rarest = per_day or 0.0
        return True

    def save(self) -> list[I64]:
        """An array for `load`."""
        return [np.array([self.since, self.last], np.int64), np.array([self.rarest]).view(np.int64)]

    def load(self, data: list[I64]) -> None:
        """Take over what `save` gave."""
        steps, rarest = data
        self.since, self.last = steps.tolist()
        self.rarest = float(rarest.view(np.float64)[0])
