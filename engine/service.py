"""The service as a whole, minute by minute: what it was asked for, handed to `surge` when the minute is over.

A judge sees all of a service, because its rows carry the totals and fall to one judge partition. The rows of a minute are
added up as the windows take them in; what is too late for the windows is too late here. A minute in which nothing came is a
nought. Like everything in a judge it reads no clock, so the same events give the same alarms for any cut, live or replayed.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from detectors.kernels.long_windows import MINUTE_S
from detectors.kernels.minutes import M_SUMS, sum_minutes_kernel
from detectors.registry import settings
from detectors.surge import DETECTOR, NAME, Surge, SurgeConfig, SurgeSection
from detectors.windowed import WindowRule
from engine.crossing import Crossing, unsigned
from schemas.columns import I64
from schemas.config import Action, Config, measure_of
from schemas.fields import Dimension, Measure
from schemas.tally import C_MEASURES, C_NAME, C_NAME_LENGTH, Tally

SERVICES_MAX = 4
"""Of one judge partition, each 35 kB for each measure. Hosts are the clients' own words: the busiest are kept."""
SILENT_MINUTES_MAX = 7 * 24 * 60
"""After so long a silence a series ends, and the next begins anew: a recorded log may have gaps of years."""
ACTION: Action = "notify"

Service = tuple[int, int]
"""The words of its key."""
Step = tuple[int, int, int]
"""(series, minute, how many); those of one series lie together, in order."""


@dataclass(slots=True)
class _Series:
    """One service."""

    name: bytes
    place: int
    """Whose series are those of its measures"""
    next: int
    """The minute to be judged next."""
    latest: int = 0
    """Requests in the one before."""
    heard: int = 0
    """The last minute in which anything came."""
    totals: dict[int, list[int]] = field(default_factory=dict)
    """Of minutes that are over and not judged yet."""


class ServiceSeries:
    """The services of a judge.

    Args:
        section: of ``surge``; None: nothing is kept.
    """

    def __init__(self, section: SurgeSection | None) -> None:
        self._section = section
        self._measures = () if section is None else tuple(dict.fromkeys(map(measure_of, section.measures)))
        values = (Measure.REQUESTS, *self._measures, Measure.TOKENS_IN, Measure.TOKENS_OUT)
        self._columns: I64 = C_MEASURES + np.array(values, np.int64)
        self._surge = make_series(section, SERVICES_MAX * len(self._measures))
        self._waiting: dict[tuple[int, Service], list[int]] = {}
        """Totals of minutes that are not over, by minute and service: requests, the measures, then tokens."""
        self._names: dict[Service, bytes] = {}
        self._series: dict[Service, _Series] = {}
        self._minutes: list[tuple[int, int, bytes, int, int]] = []
        self._judged_to: int | None = None
        """Minutes before this one have been judged."""

    def take_minutes(self) -> list[tuple[int, int, bytes, int, int]]:
        """Minutes that were over since it was asked last: (judge partition, minute, service, requests, tokens)."""
        taken, self._minutes = self._minutes, []
        return taken

    def add(self, tally: Tally, chosen: I64) -> None:
        """Take in the rows ``chosen[1:1 + chosen[0]]``, which are of services, as the windows do."""
        if self._section is None or not chosen[0]:
            return
        minutes = np.empty((chosen[0], M_SUMS + len(self._columns)), np.int64)
        many = sum_minutes_kernel(tally.records, chosen, self._columns, minutes)
        for minute, a, b, row, *sums, tokens_in, tokens_out in minutes[:many].tolist():
            service = a, b
            if service not in self._names:
                start, length = tally.records[row, C_NAME : C_NAME_LENGTH + 1].tolist()
                self._names[service] = tally.names[start : start + length].tobytes()
            sums.append(tokens_in + tokens_out)
            before = self._waiting.get((minute, service))
            self._waiting[minute, service] = sums if before is None else [x + y for x, y in zip(before, sums, strict=True)]

    def close(self, closed: int) -> list[Crossing]:
        """Judge the minutes that are over once the second ``closed`` is.

        Minute by minute, so that it does not matter how many are judged at once.
        """
        over = (closed + 1) // MINUTE_S
        if over == self._judged_to:
            return []
        self._judged_to = over
        ended = sorted(key for key in self._waiting if key[0] < over)
        found: list[Crossing] = []
        for minute, some in itertools.groupby(ended, key=lambda key: key[0]):
            found += self._judge_to(minute)
            for _, service in some:
                self._note(service, minute, self._waiting.pop((minute, service)))
        found += self._judge_to(over)
        if ended:
            waiting = {service for _, service in self._waiting}
            self._names = {
                service: name for service, name in self._names.items() if service in self._series or service in waiting
            }
        return found

    def _judge_to(self, over: int) -> list[Crossing]:
        return [crossing for service in sorted(self._series) for crossing in self._judge(self._series[service], service, over)]

    def _note(self, service: Service, minute: int, totals: list[int]) -> None:
        series = self._series.get(service) or self._begin(service, minute, totals[0])
        if series is not None:
            series.totals[minute], series.heard = totals, minute
            self._minutes.append((0, minute, series.name, totals[0], totals[-1]))

    def _begin(self, service: Service, minute: int, requests: int) -> _Series | None:
        """A new series, in place of the least busy one where there are too many; None: it is the least busy itself."""
        if len(self._series) >= SERVICES_MAX:
            least = min(self._series, key=lambda other: (self._series[other].latest, other))
            if self._series[least].latest >= requests:
                return None
            del self._series[least]
        series = self._series[service] = _Series(self._names[service], self._free(), minute)
        for at in self._measured(series):
            self._surge.forget(at)
        return series

    def _free(self) -> int:
        """A place that no service has."""
        return min(set(range(SERVICES_MAX)) - {series.place for series in self._series.values()})

    def _measured(self, series: _Series) -> range:
        """Which series are those of its measures."""
        many = len(self._measures)
        return range(many * series.place, many * (series.place + 1))

    def _judge(self, series: _Series, service: Service, over: int) -> list[Crossing]:
        ends = min(over, series.heard + SILENT_MINUTES_MAX)
        if ends < over:
            del self._series[service]
        minutes = range(series.next, ends)
        if not minutes:
            return []
        nothing = [0] * (2 + len(self._measures))
        totals = {minute: series.totals.pop(minute, nothing) for minute in minutes}
        series.next, series.latest = ends, totals[minutes[-1]][0]
        places = self._measured(series)
        steps = [(at, minute, row[place]) for place, at in enumerate(places, start=1) for minute, row in totals.items()]
        found = []
        for index, expected, score in alarms_of(self._surge, steps):
            at, minute, observed = steps[index]
            measure = self._measures[at - places.start]
            if not self._matters(measure, observed, expected):
                continue
            assert self._section is not None
            rule = surge_rule(self._section, Dimension.SERVICE, measure, expected, score)
            tick, requests, key = MINUTE_S * (minute + 1) - 1, totals[minute][0], unsigned(service)
            found.append(Crossing(0, Dimension.SERVICE, *key, series.name, rule, tick, observed, requests, 1, False))
        return found

    def _matters(self, measure: Measure, observed: int, expected: int) -> bool:
        """Enough of a difference; that less of something fails or registers than usual is nobody's attack."""
        assert self._section is not None
        return observed - expected >= self._section.least or (
            measure == Measure.REQUESTS and expected - observed >= self._section.least
        )

    def save(self) -> dict[str, Any]:
        """Plain data and arrays for `load`."""
        return {
            "measures": [measure.label for measure in self._measures],
            "waiting": [[minute, *service, totals] for (minute, service), totals in self._waiting.items()],
            "names": [[*service, name] for service, name in self._names.items()],
            "series": [
                [
                    *service,
                    series.name,
                    series.next,
                    series.latest,
                    series.heard,
                    [numbers_of(self._surge, at) for at in self._measured(series)],
                ]
                for service, series in self._series.items()
            ],
        }

    def load(self, data: dict[str, Any]) -> None:
        """Take over what `save` gave; what is of other measures or parameters begins anew.

        Raises:
            StateError: it is damaged.
        """
        if data["measures"] != [measure.label for measure in self._measures]:
            return
        self._judged_to = None
        self._waiting = {(minute, (a, b)): list(totals) for minute, a, b, totals in data["waiting"]}
        self._names = {(a, b): name for a, b, name in data["names"]}
        for a, b, name, following, latest, heard, numbers in data["series"]:
            series = _Series(name, self._free(), following, latest, heard)
            for at, of_surge in zip(self._measured(series), numbers, strict=True):
                if not take_numbers(self._surge, at, of_surge):
                    return
            self._series[a, b] = series


def surge_of(config: Config) -> SurgeSection | None:
    """The section of ``surge``, if it is on."""
    section = settings(config)[NAME]
    assert isinstance(section, SurgeSection)
    return section if section.enabled else None


def surge_rule(section: SurgeSection, dimension: Dimension, measure: Measure, expected: int, score: float) -> WindowRule:
    """What an alarm is told by: what was expected stands for a limit."""
    return WindowRule(
        DETECTOR, section, section.dry_run, dimension, measure, MINUTE_S, expected, ACTION, section.severity,
        1 - 10 ** -min(score, 6.0),
    )  # fmt: skip


def make_series(section: SurgeSection | None, many: int) -> Surge:
    """So many series that know nothing."""
    return Surge(SurgeConfig() if section is None else SurgeConfig(alarm_at=section.alarm_at), many)


def alarms_of(surge: Surge, steps: list[Step]) -> list[tuple[int, int, float]]:
    """Hand minutes to their series; (index, what was expected, score) of those that are alarms."""
    if not steps:
        return []
    series, minutes, counts = np.array(steps, np.int64).T.copy()
    outcome = surge.observe(MINUTE_S * minutes, counts.astype(np.float64), series)
    return [
        (index, round(float(outcome.expected[index])), float(outcome.score[index]))
        for index in np.flatnonzero(outcome.alarm).tolist()
    ]


def take_numbers(surge: Surge, series: int, numbers: list[Any]) -> bool:
    """Have a series go on from what `numbers_of` gave; False: it is of other parameters.

    Raises:
        StateError: it is damaged.
    """
    parameters, arrays = numbers
    blank = surge.snapshot(series)
    if parameters != _parameters(blank):
        return False
    surge.restore({**blank, "state": {name: words.view(np.float64) for name, words in arrays.items()}}, series)
    return True


def _parameters(snapshot: dict[str, Any]) -> list[Any]:
    return [snapshot["version"], *snapshot["config"].values()]


def numbers_of(surge: Surge, series: int) -> list[Any]:
    """The parameters and the arrays of a series, as words: what is saved holds integers only."""
    snapshot = surge.snapshot(series)
    arrays = {name: np.array(values, np.float64).view(np.int64) for name, values in snapshot["state"].items()}
    return [_parameters(snapshot), arrays]
