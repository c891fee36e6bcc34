"""Busy routes, minute by minute, handed to `surge`: the same as `engine.service` does for services as a whole.

A judge sees all of a route in one of its partitions. The kernel counts the few that matter as seconds close
(`detectors.kernels.busy`) and stops at the end of each minute in which there were any; a route that made enough of a whole
minute gets a series. Each partition decides for itself, so that it does not matter whether one process has all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from detectors.kernels.busy import B_A, B_B, B_NAME_LENGTH, B_PEAK, B_TOTAL, B_USED, NEW_FROM, PLACES, SERIES, end_minute_kernel
from detectors.kernels.long_windows import MINUTE_S
from detectors.kernels.windows import BUSY, CLOSED, MUTED, NEVER, Windows
from detectors.surge import Surge, SurgeConfig, SurgeSection
from engine.crossing import Crossing, unsigned
from engine.service import SILENT_MINUTES_MAX, numbers_of, surge_rule, take_numbers
from schemas.fields import Dimension, Measure
from schemas.tally import NAME_BYTES_MAX

IN_PLACE_OF = 2
"""A route takes the series of another only with so many times its requests: two of a kind would else learn in turns, and
neither would ever be judged."""
FADING = 14
"""In each minute the largest one known loses a 2^14th of itself: half of it in eight days."""


@dataclass(slots=True)
class _Route:
    """A series."""

    surge: Surge
    next: int
    """The minute to be judged next."""
    latest: int
    """Requests in the one before."""
    heard: int
    """The last minute in which anything came."""
    largest: int
    """Requests in the largest minute that it had, fading."""


class BusyRoutes:
    """The busy routes of a judge's partitions.

    Args:
        section: of ``surge``; None: nothing is kept.
        windows: of the judge; its places for routes are ours.
    """

    def __init__(self, section: SurgeSection | None, windows: Windows) -> None:
        self._section = section
        self._config = SurgeConfig() if section is None else SurgeConfig(alarm_at=section.alarm_at)
        self._windows = windows
        self._series: list[list[_Route | None]] = [[None] * SERIES for _ in windows.busy]
        """Of each partition, by its place."""
        self._next = [0] * len(windows.busy)
        """The minute that places count next."""
        self._silent_to = NEVER
        """Minutes before this one have been looked at for silence: what is counted since says nothing about them."""

    @property
    def peak_min(self) -> int:
        """A minute of ``route_least`` has a second with so many; 0: no route is looked at."""
        return 0 if self._section is None else -(-self._section.route_least // MINUTE_S)

    def close(self) -> list[Crossing]:
        """Judge the minutes at whose end the kernel has stopped."""
        found: list[Crossing] = []
        windows, scalars = self._windows, self._windows.scalars
        due = np.flatnonzero((scalars[:, BUSY] != 0) & (scalars[:, CLOSED] % MINUTE_S == MINUTE_S - 1))
        if not len(due):
            return found
        totals = windows.busy[:, :, B_TOTAL].tolist()
        for partition, closed in zip(due.tolist(), scalars[due, CLOSED].tolist(), strict=True):
            found += self._end(partition, closed // MINUTE_S, totals[partition])
        end_minute_kernel(windows.busy, windows.busy_names, due)
        scalars[due, BUSY] = 0
        return found

    def close_silent(self) -> list[Crossing]:
        """Judge the minutes that are over and in which nothing was counted."""
        found: list[Crossing] = []
        over = (int(self._windows.scalars[0, CLOSED]) + 1) // MINUTE_S
        if over == self._silent_to or not self._windows.busy[:, :, B_USED].any():
            return found
        self._silent_to = over
        for partition, scalars in enumerate(self._windows.scalars):
            over = (int(scalars[CLOSED]) + 1) // MINUTE_S
            if self._next[partition] < over and self._windows.busy[partition, :, B_USED].any():
                found += self._pass(partition, over)
        return found

    def _pass(self, partition: int, over: int) -> list[Crossing]:
        """Minutes before ``over`` had nothing: noughts for series, and nobody is tested any more."""
        found = []
        if self._next[partition] < over:
            self._next[partition] = over
            self._retire(partition, range(SERIES, NEW_FROM))
            for place, route in enumerate(self._series[partition]):
                if route is not None:
                    found += self._judge(partition, place, route, over, {})
        return found

    def _end(self, partition: int, minute: int, totals: list[int]) -> list[Crossing]:
        """A minute is over in which something was counted."""
        found = list[Crossing]()
        if self._next[partition] < minute:
            found += self._pass(partition, minute)
            totals = self._windows.busy[partition, :, B_TOTAL].tolist()
        for place, route in enumerate(self._series[partition]):
            if route is not None:
                if totals[place]:
                    route.heard = minute
                found += self._judge(partition, place, route, minute + 1, {minute: totals[place]})
        least = 0 if self._section is None else self._section.route_least
        tested = [place for place in range(SERIES, NEW_FROM) if totals[place] >= least]
        if tested:
            busy = self._windows.busy[partition].tolist()
            for place in sorted(tested, key=lambda place: (-totals[place], busy[place][B_A], busy[place][B_B])):
                self._begin(partition, place, minute)
        self._next[partition] = minute + 1
        return found

    def _begin(self, partition: int, place: int, minute: int) -> None:
        """A series for a route that was busy for a whole minute, unless others are busier."""
        series = self._series[partition]
        free = [at for at in range(SERIES) if series[at] is None]
        at = free[0] if free else min(range(SERIES), key=lambda at: _latest(series[at]))
        total = int(self._windows.busy[partition, place, B_TOTAL])
        if not free and total < IN_PLACE_OF * _latest(series[at]):
            return
        surge = Surge(self._config)
        surge.observe(np.array([MINUTE_S * minute], np.int64), np.array([total], np.float64))
        series[at] = _Route(surge, minute + 1, total, minute, total)
        self._move(partition, range(place, place + 1), at)

    def _move(self, partition: int, places: range, to: int) -> None:
        """What stands in some places stands in others from ``to`` on instead."""
        busy, names = self._windows.busy[partition], self._windows.busy_names[partition].reshape(PLACES, NAME_BYTES_MAX)
        from_, into = slice(places.start, places.stop), slice(to, to + len(places))
        busy[into], names[into] = busy[from_], names[from_]
        busy[from_] = 0

    def _retire(self, partition: int, which: range) -> None:
        """Free places that were counted for longer than they had a right to.

        Had they been freed in time, as they are in another cut of the same events, who is there might be a newcomer by now.
        """
        busy = self._windows.busy[partition]

        def rank(place: int) -> tuple[int, int, int]:
            peak, a, b = busy[place, [B_PEAK, B_A, B_B]].tolist()
            return peak, a, b

        for place in which:
            lowest = min(range(NEW_FROM, PLACES), key=rank)
            if busy[place, B_PEAK] >= max(self.peak_min, 1) and rank(place) > rank(lowest):
                self._move(partition, range(place, place + 1), lowest)
            busy[place] = 0

    def _judge(self, partition: int, place: int, route: _Route, over: int, totals: dict[int, int]) -> list[Crossing]:
        """Minutes before ``over`` that were not judged yet; those without a total were silent."""
        ends = min(over, route.heard + SILENT_MINUTES_MAX)
        found = self._observe(partition, place, route, ends, totals)
        if ends < over:
            self._series[partition][place] = None
            self._retire(partition, range(place, place + 1))
        return found

    def _observe(self, partition: int, place: int, route: _Route, ends: int, totals: dict[int, int]) -> list[Crossing]:
        first = route.next
        if ends <= first:
            return []
        counts = [totals.get(minute, 0) for minute in range(first, ends)]
        route.next, route.latest = ends, counts[-1]
        known, largest = route.surge.steps, _fading(route, counts)
        times = np.arange(MINUTE_S * first, MINUTE_S * ends, MINUTE_S, dtype=np.int64)
        outcome = route.surge.observe(times, np.array(counts, np.float64))
        found = []
        for index in np.flatnonzero(outcome.alarm).tolist():
            tick, observed = MINUTE_S * (first + index + 1) - 1, counts[index]
            expected = round(float(outcome.expected[index]))
            assert self._section is not None
            if abs(observed - expected) < self._section.least or tick - MINUTE_S < self._windows.scalars[partition, MUTED]:
                continue
            if observed > expected and not self._is_new(known + index, observed, largest[index]):
                continue
            rule = surge_rule(self._section, Dimension.ROUTE, Measure.REQUESTS, expected, float(outcome.score[index]))
            a, b = self._windows.busy[partition, place, [B_A, B_B]].tolist()
            key, name = unsigned((a, b)), self._name(partition, place)
            found.append(Crossing(partition, Dimension.ROUTE, *key, name, rule, tick, observed, observed, 1, False))
        return found

    def _is_new(self, minutes: int, observed: int, largest: int) -> bool:
        """Whether a route is known for long enough, and never was asked for like that: batch jobs come and go."""
        assert self._section is not None
        return minutes >= self._section.route_warmup_minutes and observed > self._section.route_growth * largest

    def save(self) -> list[Any]:
        """Plain data and arrays for `load`, of each partition."""
        windows = self._windows
        return [
            [
                self._next[partition],
                int(windows.scalars[partition, BUSY]),
                windows.busy[partition].copy(),
                windows.busy_names[partition].copy(),
                [
                    None if route is None else [route.next, route.latest, route.heard, route.largest, numbers_of(route.surge)]
                    for route in self._series[partition]
                ],
            ]
            for partition in range(len(windows.busy))
        ]

    def load(self, data: list[Any]) -> None:
        """Take over what `save` gave, from the same number of partitions; what is of other parameters begins anew.

        Raises:
            StateError: it is damaged.
        """
        if self._section is None:
            return
        self._silent_to = NEVER
        for partition, (following, counted, busy, names, series) in enumerate(data):
            routes = [None if one is None else self._restored(*one) for one in series]
            if busy.shape != self._windows.busy[partition].shape or names.shape != self._windows.busy_names[partition].shape:
                raise ValueError(f"busy routes have the shapes {busy.shape} and {names.shape}")
            if any((one is None) != (route is None) for one, route in zip(series, routes, strict=True)):
                continue
            self._next[partition], self._windows.scalars[partition, BUSY] = following, counted
            self._windows.busy[partition], self._windows.busy_names[partition] = busy, names
            self._series[partition] = routes

    def _restored(self, following: int, latest: int, heard: int, largest: int, numbers: list[Any]) -> _Route | None:
        surge = take_numbers(self._config, numbers)
        return None if surge is None else _Route(surge, following, latest, heard, largest)

    def _name(self, partition: int, place: int) -> bytes:
        start = place * NAME_BYTES_MAX
        length = int(self._windows.busy[partition, place, B_NAME_LENGTH])
        return self._windows.busy_names[partition, start : start + length].tobytes()


def _fading(route: _Route, counts: list[int]) -> list[int]:
    """Before each minute the largest one that the route had."""
    before = []
    for count in counts:
        before.append(route.largest)
        route.largest = max(count, route.largest - (route.largest >> FADING))
    return before


def _latest(route: _Route | None) -> int:
    """How much a route was asked for in its last minute; nought where there is none."""
    return 0 if route is None else route.latest
