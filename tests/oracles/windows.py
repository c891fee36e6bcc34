"""What the windows hold, in plain Python: every row for ever, and sums made anew each time they are asked for."""

from __future__ import annotations

from collections import Counter, defaultdict

from detectors.rate import RateRule

Key = tuple[str, int]
"""(dimension, number of the key)"""


class WindowsOracle:
    """Windows without a capacity."""

    def __init__(self, rules: tuple[RateRule, ...], renew_s: int) -> None:
        self._rules, self._renew_s = rules, renew_s
        self._rows: dict[tuple[Key, str], Counter[int]] = defaultdict(Counter)
        self._seen: dict[int, set[Key]] = defaultdict(set)
        self._fired: dict[tuple[Key, int], int] = {}
        self.closed: int | None = None

    def insert(self, key: Key, tick: int, measures: dict[str, int]) -> None:
        """Add a row; one of a closed tick is too late."""
        if self.closed is not None and tick <= self.closed:
            return
        self._seen[tick].add(key)
        for measure, value in measures.items():
            self._rows[key, measure][tick] += value

    def sum(self, key: Key, rule: RateRule, tick: int) -> int:
        """Of the rule's window that ends with ``tick``."""
        ticks = self._rows[key, rule.measure]
        return sum(value for at, value in ticks.items() if tick - rule.window_s < at <= tick)

    def close(self, tick: int) -> set[tuple[Key, int, int, int]]:
        """(key, index of the rule, observed, tick) of every first crossing in a cell."""
        self.closed = tick
        found = set()
        for key in self._seen[tick]:
            for index, rule in enumerate(self._rules):
                if rule.dimension != key[0]:
                    continue
                observed, cell = self.sum(key, rule, tick), tick // self._renew_s
                if observed > rule.limit and self._fired.get((key, index)) != cell:
                    self._fired[key, index] = cell
                    found.add((key, index, observed, tick))
        return found
