"""What other detectors found of a judge's keys and services, second by second: learned detectors do not learn from it.

A judge has decided everything about a second before learned detectors hear that it is closed, so that nothing has to wait. Only
what is told in time is kept: who learns of a second looks at what was found up to it, however many seconds are closed at once,
and a judge that takes over finds in the saved state what it would have found again, had it not been decided already.

Keys and services lie in one judge partition with what is found about themselves. What is found about an address that
registered at a service may lie in another, and no partition asks another: it keeps nobody from learning.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from detectors.kernels.windows import NEVER
from engine.crossing import Crossing
from schemas.columns import I64
from schemas.errors import StateError
from schemas.fields import Dimension

Words = tuple[int, int]
STEP_S = 10
"""The shortest that a learned detector learns at once; longer ones are whole multiples of it."""
KEPT_S = 310
"""A window of the longest, five minutes, has begun so long ago, and the step before it."""
ENTRIES_MAX = 1 << 16
"""Of all steps that are kept, two megabytes: the oldest step goes first, and is counted."""


class Suspicions:
    """Those of one judge."""

    def __init__(self) -> None:
        self._steps: dict[int, set[tuple[int, int, int]]] = {}
        """Step -> [dimension, words of the key], as rows have them"""
        self._heard = NEVER
        """What is told of seconds up to this one comes too late."""
        self._entries = self.lost = 0

    def note(self, crossings: Iterable[Crossing], own: Collection[str]) -> None:
        """Final decisions, of whichever detector; what learned ones (``own``) say they know themselves."""
        for one in crossings:
            if one.lifts or one.tick <= self._heard or one.rule.detector.name in own:
                continue
            if one.dimension in (Dimension.API_KEY, Dimension.SERVICE):
                self._add(one.tick, int(one.dimension), one.key_a, one.key_b)
            if one.service is not None:
                self._add(one.tick, int(Dimension.SERVICE), *one.service)

    def _add(self, tick: int, dimension: int, a: int, b: int) -> None:
        here = self._steps.setdefault(tick // STEP_S, set())
        before = len(here)
        here.add((dimension, *_signed(a, b)))
        self._entries += len(here) - before
        while self._entries > ENTRIES_MAX:
            gone = len(self._steps.pop(min(self._steps)))
            self._entries -= gone
            self.lost += gone

    def heard(self, closed: int, covered: int) -> None:
        """Seconds up to ``closed`` were learned of; up to ``covered`` nobody learns of them again."""
        self._heard = max(self._heard, closed)
        if not self._steps or covered == NEVER:
            return
        before = (min(closed, covered) - KEPT_S) // STEP_S
        for step in [step for step in self._steps if step < before]:
            self._entries -= len(self._steps.pop(step))

    def keys(self, first: int, end: int) -> set[Words]:
        """API keys of which something was found in the seconds ``first`` ≤ second < ``end``, whole steps."""
        return self._within(first, end, Dimension.API_KEY)

    def has_service(self, service: Words, first: int, end: int) -> bool:
        """Whether something was found of a service in these seconds."""
        return bool(self._steps) and service in self._within(first, end, Dimension.SERVICE)

    def _within(self, first: int, end: int, dimension: Dimension) -> set[Words]:
        assert first % STEP_S == 0
        assert end % STEP_S == 0
        if not self._steps:
            return set()
        steps = [self._steps[step] for step in range(first // STEP_S, end // STEP_S) if step in self._steps]
        return {(a, b) for some in steps for of, a, b in some if of == dimension}

    def save(self) -> list[object]:
        """Plain data and an array for `load`."""
        rows = [[step, *one] for step, some in sorted(self._steps.items()) for one in sorted(some)]
        return [self._heard, self.lost, np.array(rows, np.int64).reshape(-1, 4)]

    def load(self, data: list[object]) -> None:
        """Take over what `save` gave.

        Raises:
            StateError: it is damaged.
        """
        heard, lost, rows = data
        if not (isinstance(heard, int) and isinstance(lost, int) and _are_rows(rows)):
            raise StateError("expected what was heard last and suspicions of four numbers in a saved judge, got others")
        assert isinstance(rows, np.ndarray)
        self._heard, self.lost, self._steps = heard, lost, {}
        taken: I64 = rows
        for step, *one in taken.tolist():
            self._steps.setdefault(step, set()).add((one[0], one[1], one[2]))
        self._entries = len(taken)


def _are_rows(rows: object) -> bool:
    return isinstance(rows, np.ndarray) and rows.dtype == np.int64 and rows.shape == (len(rows), 4)


def _signed(a: int, b: int) -> Words:
    """A key's words as rows have them; a `Crossing` has them unsigned."""
    return a - (a >> 63 << 64), b - (b >> 63 << 64)


NOTHING = Suspicions()
"""For who is asked by nobody else."""
