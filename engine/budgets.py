"""The blast radius: how much of a judge partition may be mitigated at once, and in one minute."""

from __future__ import annotations

import heapq
from collections import Counter

from engine.corroborate import Whom
from schemas.config import Policy as Section

Key = tuple[int, int, int, str]
"""Whom it is about (dimension, both words of the key), and the detector that says so."""


class Budgets:
    """What one judge partition has spent of them.

    Args:
        section: those of the service.
        partitions: they are divided by how many.
    """

    def __init__(self, section: Section, partitions: int) -> None:
        self.take(section, partitions)
        self._ends: dict[Key, int] = {}
        self._expiries: list[tuple[int, Key]] = []
        self._detectors: Counter[Whom] = Counter()
        """How many have somebody mitigated: whoever is once, is no less so by a second."""
        self._targets: Counter[int] = Counter()
        self.minute, self.issued = -1, 0

    def take(self, section: Section, partitions: int) -> None:
        """Go by another section from here on; what is spent stays spent."""
        self._active_max = -(-section.active_max // partitions)
        self._per_minute_max = -(-section.new_per_minute_max // partitions)
        self._share_max, self._share_from_keys = section.share_max, section.share_from_keys

    def __contains__(self, key: Key) -> bool:
        return key in self._ends

    def expire(self, now: int) -> None:
        """Give back what has expired."""
        while self._expiries and self._expiries[0][0] <= now:
            _, key = heapq.heappop(self._expiries)
            if self._ends.get(key, now + 1) <= now:
                self.release(key)

    def exceeded(self, whom: Whom, active_keys: int, minute: int, *, early: bool) -> str:
        """The budget for which one more mitigation of this target, in this minute of event time, is too much; empty: none.

        Args:
            active_keys: how many there are of its dimension now.
            early: it is not spent, and the minute does not begin with it.
        """
        if minute != self.minute and not early:
            self.minute, self.issued = minute, 0
        if len(self._ends) >= self._active_max:
            return "active_max"
        if minute == self.minute and self.issued >= self._per_minute_max:
            return "new_per_minute_max"
        if whom in self._detectors or active_keys < self._share_from_keys:
            return ""
        return "share_max" if self._targets[whom[0]] + 1 > self._share_max * active_keys else ""

    def spend(self, key: Key, expires_at: int) -> None:
        """A mitigation is in force until then; again, if it was."""
        self.issued += key not in self._ends
        self.restore(key, expires_at)

    def restore(self, key: Key, expires_at: int) -> None:
        """The same of one that is not of this minute."""
        if key not in self._ends:
            whom = key[:3]
            self._targets[whom[0]] += not self._detectors[whom]
            self._detectors[whom] += 1
        self._ends[key] = expires_at
        heapq.heappush(self._expiries, (expires_at, key))

    def release(self, key: Key) -> None:
        """It is not in force any more."""
        if self._ends.pop(key, None) is None:
            return
        whom = key[:3]
        self._detectors[whom] -= 1
        if not self._detectors[whom]:
            del self._detectors[whom]
            self._targets[whom[0]] -= 1
