"""What was not counted, and which seconds lack it, so that evidence says so of whatever rests on them.

Which events are late hangs on what had been read before them, on the clock where a source was silent, and on who was waited
for; what a bound leaves out hangs on the cut. So these are the decisions that another reading of the same records may not come
to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from schemas.fields import Measure
from schemas.tally import C_DIMENSION, C_TICK, Tally

TOO_LATE, LEFT_OUT = "too_late", "left_out"
"""Features of evidence: events that came when their seconds had been decided; rows and events that a bound had no room for."""
NOT_COUNTED = (TOO_LATE, LEFT_OUT)
SPANS_MAX = 256
"""Of each kind. Where there are more, the two oldest become one, which says too much and never too little."""
Span = tuple[int, int, int]
"""(first second, last second, how many)"""


@dataclass(slots=True)
class _Kind:
    total: int = 0
    """Since the judge began: what is learned rests on all of it."""
    spans: list[Span] = field(default_factory=list)


class NotCounted:
    """Of one judge."""

    def __init__(self) -> None:
        self._kinds = {kind: _Kind() for kind in NOT_COUNTED}
        self.windowed: set[str] = set()
        """Detectors whose decisions rest on nothing but the seconds that they name"""

    def behind(self, detector: str, start: int, end: int) -> dict[str, int]:
        """What a decision about the seconds ``start <= t < end`` may lack; whoever learns rests on all that came before."""
        return self.within(start, end) if detector in self.windowed else self.ever()

    def note(self, kind: str, first: int, last: int, many: int) -> None:
        """So many, somewhere in the seconds ``first`` to ``last``."""
        if many <= 0:
            return
        held = self._kinds[kind]
        held.total += many
        held.spans.append((first, last, many))
        if len(held.spans) > SPANS_MAX:
            one, other, *rest = held.spans
            held.spans = [(min(one[0], other[0]), max(one[1], other[1]), one[2] + other[2]), *rest]

    def note_tally(self, tally: Tally, closed: int) -> None:
        """What observers did not count of it, and its events of seconds that are closed."""
        self.note(TOO_LATE, *tally.late)
        self.note(LEFT_OUT, tally.tick_min, tally.tick_max, tally.truncated)
        if tally.rows and tally.tick_min <= closed:
            self.note(TOO_LATE, tally.tick_min, min(tally.tick_max, closed), _events_up_to(tally, closed))

    def forget(self, before: int) -> None:
        """No window reaches back to these seconds."""
        for held in self._kinds.values():
            if held.spans and held.spans[0][1] < before:
                held.spans = [span for span in held.spans if span[1] >= before]

    def within(self, start: int, end: int) -> dict[str, int]:
        """How many may be missing from the seconds ``start <= t < end``, at most; only kinds of which there are any."""
        found = {}
        for kind, held in self._kinds.items():
            if many := sum([span[2] for span in held.spans if span[0] < end and span[1] >= start]):
                found[kind] = many
        return found

    def ever(self) -> dict[str, int]:
        """How many since the judge began; only kinds of which there are any."""
        return {kind: held.total for kind, held in self._kinds.items() if held.total}

    def save(self) -> dict[str, Any]:
        """Plain data for `load`."""
        return {kind: [held.total, [list(span) for span in held.spans]] for kind, held in self._kinds.items()}

    def load(self, data: dict[str, Any]) -> None:
        """Take over what `save` gave."""
        for kind, (total, spans) in data.items():
            self._kinds[kind] = _Kind(total, [(first, last, many) for first, last, many in spans])


def _events_up_to(tally: Tally, closed: int) -> int:
    """Each event has at most one row of each dimension; in one judge partition it may have rows of any."""
    rows = tally.order[tally.column(C_TICK)[tally.order] <= closed]
    requests = np.bincount(tally.column(C_DIMENSION)[rows], weights=tally.measures[rows, Measure.REQUESTS])
    return max(int(requests.max(initial=0)), min(len(rows), 1))
