"""How long it took: to see an attack, to be sure, and to stop it.

Of each mitigation three clocks are compared: the second of event time in which the limit was crossed, the times at which its
first and its final record came to the enforcement topic, and the times at which edges say that it was applied. The first two
are counted from the beginning of that second, so a number may be up to one second too high, never too low. Where the clocks
of machines differ by more than a time is long, it is nought.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

import msgspec

from edge.reader import Record
from schemas.acknowledgement import Acknowledgement
from schemas.mitigation import OPERATOR

KEPT_MAX = 100_000
"""Mitigations whose times are remembered, the latest."""
Stretch = Literal["detect", "decide", "enforce"]
"""``detect``: to the first record. ``decide``: to the final one. ``enforce``: from the first record to the edge."""
Heard = Callable[[Stretch, str, float], None]
"""(stretch, edge or empty, seconds): told once of each."""


class Times(msgspec.Struct):
    """Of one mitigation, in milliseconds; None: not yet."""

    crossed_ms: int
    published_ms: int
    confirmed_ms: int | None = None
    answers: dict[str, Acknowledgement] = {}
    """By edge: its first word."""

    @property
    def detect_s(self) -> float:
        """To the first record."""
        return _seconds(self.crossed_ms, self.published_ms)

    @property
    def decide_s(self) -> float | None:
        """To the final record."""
        return None if self.confirmed_ms is None else _seconds(self.crossed_ms, self.confirmed_ms)

    def enforce_s(self, edge: str) -> float | None:
        """From the first record to the edge; None: the edge has not applied it."""
        answer = self.answers.get(edge)
        applied = answer is not None and answer.outcome in ("applied", "partial")
        return _seconds(self.published_ms, answer.applied_at_ms) if applied and answer is not None else None


class Timings:
    """Gathers them.

    Args:
        since_ms: what came earlier is not measured: whoever reads a topic from its beginning hears old records.
        heard: told of each time once it is known.
    """

    def __init__(self, since_ms: int, heard: Heard = lambda stretch, edge, seconds: None) -> None:
        self._since_ms, self._heard = since_ms, heard
        self.known: OrderedDict[str, Times] = OrderedDict()
        self._early: dict[str, list[Acknowledgement]] = {}

    def record(self, record: Record, at_ms: int) -> None:
        """A record came to the topic."""
        if record.detector == OPERATOR or record.state not in ("active", "held") or at_ms < self._since_ms:
            return
        times = self.known.get(record.id)
        if times is None:
            times = self.known[record.id] = Times(1000 * record.tick, at_ms, answers={})
            self._heard("detect", "", times.detect_s)
            if len(self.known) > KEPT_MAX:
                self.known.popitem(last=False)
        if record.stage == "final" and times.confirmed_ms is None:
            times.confirmed_ms = at_ms
            self._heard("decide", "", _seconds(times.crossed_ms, at_ms))
        for answer in self._early.pop(record.id, ()):
            self.acknowledged(answer)

    def acknowledged(self, answer: Acknowledgement) -> None:
        """An edge has answered. Topics are read side by side: an answer may be read before its record."""
        times = self.known.get(answer.id)
        if times is None:
            if answer.applied_at_ms >= self._since_ms and len(self._early) < KEPT_MAX:
                self._early.setdefault(answer.id, []).append(answer)
            return
        if answer.edge in times.answers:
            return
        times.answers[answer.edge] = answer
        seconds = times.enforce_s(answer.edge)
        if seconds is not None:
            self._heard("enforce", answer.edge, seconds)


def _seconds(first_ms: int, last_ms: int) -> float:
    return max(0, last_ms - first_ms) / 1000


def at_share(values: list[float], share: float) -> float:
    """The value below which a share of them lies (nearest rank).

    >>> [at_share([0.1, 0.2, 0.3, 0.4], share) for share in (0.5, 0.99)]
    [0.2, 0.4]
    """
    ordered = sorted(values)
    return ordered[max(0, -(-int(1000 * share) * len(ordered) // 1000) - 1)]
