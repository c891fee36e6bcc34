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
from detectors.surge import SurgeSection
from engine.crossing import Crossing, unsigned
from engine.service import SILENT_MINUTES_MAX, Step, alarms_of, make_series, numbers_of, surge_rule, take_numbers
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
        self._surge = make_series(section, SERIES * len(windows.busy))
        """Of each partition, by its place."""
        self._windows = windows
        self._series: list[list[_Route | None]] = [[None] * SERIES for _ in windows.busy]
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
        windows, scalars = self._windows, self._windows.scalars
        closed = scalars[:, CLOSED].tolist()
        over = {
            partition: (closed[partition] + 1) // MINUTE_S
            for partition, counted in enumerate(scalars[:, BUSY].tolist())
            if counted and closed[partition] % MINUTE_S == MINUTE_S - 1
        }
        if not over:
            return []
        found = self._pass({partition: end - 1 for partition, end in over.items()})
        totals = windows.busy[:, :, B_TOTAL].tolist()
        found += self._judge(over, totals)
        for partition, end in over.items():
            self._test(partition, end - 1, totals[partition])
            self._next[partition] = end
        due = np.array(list(over))
        end_minute_kernel(windows.busy, windows.busy_names, due)
        scalars[due, BUSY] = 0
        return found

    def close_silent(self) -> list[Crossing]:
        """Judge the minutes that are over and in which nothing was counted."""
        over = (int(self._windows.scalars[0, CLOSED]) + 1) // MINUTE_S
        if over == self._silent_to or not self._windows.busy[:, :, B_USED].any():
            return []
        self._silent_to = over
        behind = [partition for partition, following in enumerate(self._next) if following < over]
        return self._pass({partition: over for partition in behind if self._windows.busy[partition, :, B_USED].any()})

    def _pass(self, over: dict[int, int]) -> list[Crossing]:
        """Minutes before ``over`` (by partition) had nothing: noughts for series, and nobody is tested any more."""
        behind = {partition: end for partition, end in over.items() if self._next[partition] < end}
        if not behind:
            return []
        for partition, end in behind.items():
            self._next[partition] = end
            self._retire(partition, range(SERIES, NEW_FROM))
        return self._judge(behind, None)

    def _test(self, partition: int, minute: int, totals: list[int]) -> None:
        """Series for those who were busy for the whole minute."""
        least = 0 if self._section is None else self._section.route_least
        tested = [place for place in range(SERIES, NEW_FROM) if totals[place] >= least]
        if tested:
            busy = self._windows.busy[partition].tolist()
            for place in sorted(tested, key=lambda place: (-totals[place], busy[place][B_A], busy[place][B_B])):
                self._begin(partition, place, minute)

    def _begin(self, partition: int, place: int, minute: int) -> None:
        """A series for a route that was busy for a whole minute, unless others are busier."""
        series = self._series[partition]
        free = [at for at in range(SERIES) if series[at] is None]
        at = free[0] if free else min(range(SERIES), key=lambda at: _latest(series[at]))
        total = int(self._windows.busy[partition, place, B_TOTAL])
        if not free and total < IN_PLACE_OF * _latest(series[at]):
            return
        self._surge.forget(SERIES * partition + at)
        alarms_of(self._surge, [(SERIES * partition + at, minute, total)])
        series[at] = _Route(minute + 1, total, minute, total)
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

    def _judge(self, over: dict[int, int], totals: list[list[int]] | None) -> list[Crossing]:
        """Minutes before ``over`` (by partition) that were not judged yet. The last has ``totals``; without, it was silent."""
        steps, largest, ended = list[Step](), list[int](), list[tuple[int, int]]()
        for partition, end in over.items():
            for place, route in enumerate(self._series[partition]):
                if route is None:
                    continue
                total = 0 if totals is None else totals[partition][place]
                if total:
                    route.heard = end - 1
                last = min(end, route.heard + SILENT_MINUTES_MAX)
                for minute in range(route.next, last):
                    route.latest = total if minute == end - 1 else 0
                    steps.append((SERIES * partition + place, minute, route.latest))
                    largest.append(route.largest)
                    route.largest = max(route.latest, route.largest - (route.largest >> FADING))
                route.next = max(route.next, last)
                if last < end:
                    ended.append((partition, place))
        found = self._observe(steps, largest)
        for partition, place in ended:
            self._series[partition][place] = None
            self._retire(partition, range(place, place + 1))
        return found

    def _observe(self, steps: list[Step], largest: list[int]) -> list[Crossing]:
        """``largest``: of each step, the largest minute that its route had before."""
        found = []
        for index, expected, score in alarms_of(self._surge, steps):
            at, minute, observed = steps[index]
            partition, place = divmod(at, SERIES)
            tick, route = MINUTE_S * (minute + 1) - 1, self._series[partition][place]
            assert self._section is not None
            assert route is not None
            if abs(observed - expected) < self._section.least or tick - MINUTE_S < self._windows.scalars[partition, MUTED]:
                continue
            known = self._surge.steps(at) - (route.next - minute)
            if observed > expected and not self._is_new(known, observed, largest[index]):
                continue
            rule = surge_rule(self._section, Dimension.ROUTE, Measure.REQUESTS, expected, score)
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
                [self._saved(SERIES * partition + place, route) for place, route in enumerate(self._series[partition])],
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
            routes = [
                None if one is None else self._restored(SERIES * partition + place, *one) for place, one in enumerate(series)
            ]
            if busy.shape != self._windows.busy[partition].shape or names.shape != self._windows.busy_names[partition].shape:
                raise ValueError(f"busy routes have the shapes {busy.shape} and {names.shape}")
            if any((one is None) != (route is None) for one, route in zip(series, routes, strict=True)):
                continue
            self._next[partition], self._windows.scalars[partition, BUSY] = following, counted
            self._windows.busy[partition], self._windows.busy_names[partition] = busy, names
            self._series[partition] = routes

    def _saved(self, at: int, route: _Route | None) -> list[Any] | None:
        return None if route is None else [route.next, route.latest, route.heard, route.largest, numbers_of(self._surge, at)]

    def _restored(
        self, at: int, following: int, latest: int, heard: int, largest: int, numbers: list[Any]
    ) -> _Route | None:  # fmt: skip
        return _Route(following, latest, heard, largest) if take_numbers(self._surge, at, numbers) else None

    def _name(self, partition: int, place: int) -> bytes:
        start = place * NAME_BYTES_MAX
        length = int(self._windows.busy[partition, place, B_NAME_LENGTH])
        return self._windows.busy_names[partition, start : start + length].tobytes()


def _latest(route: _Route | None) -> int:
    """How much a route was asked for in its last minute; nought where there is none."""
    return 0 if route is None else route.latest
