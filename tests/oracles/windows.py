"""What the windows hold, in plain Python: every row for ever, and sums and sets made anew each time they are asked for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from detectors.windowed import WindowRule, bins_of, estimate
from schemas.fields import Item

Key = tuple[str, int]
"""(dimension, number of the key)"""


class WindowsOracle:
    """Windows without a capacity."""

    def __init__(self, rules: tuple[WindowRule, ...], renew_s: int) -> None:
        self._rules, self._renew_s = rules, renew_s
        self._rows: dict[tuple[Key, str], Counter[int]] = defaultdict(Counter)
        self._bins: dict[tuple[Key, str], dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
        self._seen: dict[int, set[Key]] = defaultdict(set)
        self._fired: dict[tuple[Key, int], int] = {}
        self._long: dict[Key, tuple[int, int]] = {}
        """Of a key that long windows know: since which tick, and the minute of its last part."""
        self.closed: int | None = None

    def insert(self, key: Key, tick: int, measures: Mapping[str, int], bins: Mapping[str, int] | None = None) -> None:
        """Add a row; one of a closed tick is too late. ``bins``: of each item the bin that it takes."""
        if self.closed is not None and tick <= self.closed:
            return
        self._seen[tick].add(key)
        for measure, value in measures.items():
            self._rows[key, measure][tick] += value
        for item, place in (bins or {}).items():
            self._bins[key, item][tick].add(place)

    def sum(self, key: Key, measure: str, window_s: int, tick: int) -> int:
        """Of the window that ends with ``tick``."""
        return sum(value for at, value in self._rows[key, measure].items() if tick - window_s < at <= tick)

    def taken(self, key: Key, item: str, window_s: int, tick: int) -> int:
        """Bins of an item in the window that ends with ``tick``."""
        ticks = self._bins[key, item]
        return len({place for at, places in ticks.items() if tick - window_s < at <= tick for place in places})

    def observed(self, key: Key, rule: WindowRule, tick: int) -> int | None:
        """What a rule observes, if it is over its limit."""
        if isinstance(rule.value, Item):
            taken = self.taken(key, rule.value.label, rule.window_s, tick)
            items = min(estimate(taken), self.sum(key, "requests", rule.window_s, tick))
            return items if taken > bins_of(rule.limit) and items > rule.limit else None
        observed = self.sum(key, rule.value.label, rule.window_s, tick)
        whole = 0 if rule.of is None else self.sum(key, rule.of.label, rule.window_s, tick)
        return observed // rule.scale if observed > rule.limit and 1000 * observed >= round(1000 * rule.share) * whole else None

    def observed_long(self, key: Key, rule: WindowRule, tick: int) -> int | None:
        """The same of a window of minutes: whole ones and the one under way, and a whole only since the key is known."""
        part, since = rule.value.label, max(rule.first_tick(tick), self._long[key][0])
        if not self._rows[key, part][tick]:
            return None
        observed = self.sum(key, part, tick + 1 - since, tick)
        whole = 0 if rule.of is None else self.sum(key, rule.of.label, tick + 1 - since, tick)
        return observed // rule.scale if observed > rule.limit and 1000 * observed >= round(1000 * rule.share) * whole else None

    def add_long(self, key: Key, tick: int) -> None:
        """A part makes a key known; without one for the longest window it is forgotten."""
        rules = [rule for rule in self._rules if rule.dimension.label == key[0] and rule.is_long]
        if not any(self._rows[key, rule.value.label][tick] for rule in rules):
            return
        since, last = self._long.get(key, (tick, -(10**9)))
        if tick // 60 - last >= max(rule.window_s for rule in rules) // 60:
            since = tick
        self._long[key] = since, tick // 60

    def close(self, tick: int) -> set[tuple[Key, int, int, int]]:
        """(key, index of the rule, observed, tick) of every first crossing in a cell."""
        self.closed = tick
        found = set()
        for key in self._seen[tick]:
            self.add_long(key, tick)
            for index, rule in enumerate(self._rules):
                if rule.dimension.label != key[0]:
                    continue
                if rule.is_long and key not in self._long:
                    continue
                observe = self.observed_long if rule.is_long else self.observed
                observed, cell = observe(key, rule, tick), tick // self._renew_s
                if observed is not None and self._fired.get((key, index)) != cell:
                    self._fired[key, index] = cell
                    found.add((key, index, observed, tick))
        return found
