"""Busy routes with more than usual that is not made like the usual, and how that is told.

A route is looked at when a step of ten seconds ends (`engine.distributed`), so that a window is just what a step of the
reference was. An episode of a route begins with its first step of a surplus, can be told from the next on, and is over when a
minute passes without one. What is under suspicion is not learned: after four minutes too few steps are left that know the
route, it is nobody's suspect any more, and what has lasted so long becomes usual.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from detectors import entropy as shifted
from detectors.entropy import ROUTE_USUAL_MIN, STEPS_MIN, EntropySection, RouteWindow, Shift, routes_of
from detectors.kernels.alike import N_REPEATS, N_TOTAL
from detectors.surplus import ROUTE, WINDOW_S
from engine.crossing import Crossing, unsigned
from engine.episodes import Episodes, Found, shifted_crossing
from engine.naming import Texts, key_of
from engine.strata import ROUTE_LEARNED_SHARE, RouteStanding, Series
from schemas.columns import I64
from schemas.fields import Dimension
from schemas.tally import NAME_BYTES_MAX


@dataclass(frozen=True, slots=True)
class _Route:
    """A route that is known, in a step that ends."""

    window: RouteWindow
    usual: I64
    """i64[k, ROUTE_WORDS] of the steps that know it"""

    @property
    def mean(self) -> float:
        """Requests in a usual step."""
        return float(self.usual[:, N_TOTAL].mean())

    def exceeds(self, series: Series, section: EntropySection) -> bool:
        """Whether it is busy and has more than usual, as a service has to, whatever its sample left out."""
        if self.mean < section.route_share * series.mean:
            return False
        surely = self.window.surely
        return surely > section.growth * int(self.usual[:, N_TOTAL].max()) and section.exceeds(
            series.stratum, surely, self.mean
        )

    def is_told(self, found: Found, series: Series, episodes: Episodes, section: EntropySection) -> bool:
        """Whether the service's own alarm or signatures tell of the same."""
        if episodes.is_told(series, found.tick):
            return True
        rows = found.gathered.rows
        signed = (rows[:, ROUTE] == self.window.route) & episodes.signed(found.stratum, found.tick, rows)
        return float(found.gathered.estimates()[signed].sum()) >= section.explained_max * (self.window.total - self.mean)

    def shifts(self, found: Found, series: Series, section: EntropySection) -> list[Shift]:
        """How it differs from itself."""
        even, before = found.gathered.even(), series.usual().rows
        now, usual = (rows[rows[:, ROUTE] == self.window.route] for rows in (even, before))
        shifts = shifted.shifts(now, usual, section.shift_bits, ROUTE_USUAL_MIN)
        again = self.window.repeats_shift(found.stratum, self.usual[:, N_REPEATS].tolist())
        return shifts if again is None else [*shifts, again]


def judge_routes(
    found: Found, series: Series, episodes: Episodes, section: EntropySection, texts: Texts
) -> list[Crossing]:  # fmt: skip
    """What is to be told now of the busy routes of a step that ends."""
    crossings = []
    for window in routes_of(found.gathered.rows, found.gathered.estimates(), ROUTE_LEARNED_SHARE):
        usual = series.usual_of(window.route)
        if len(usual) < STEPS_MIN:
            continue
        route = _Route(window, usual)
        if not route.exceeds(series, section):
            continue
        standing = _note(window.route, series, found.tick)
        if standing.told or found.tick == standing.since:
            continue
        told = route.is_told(found, series, episodes, section)
        shifts = [] if told else route.shifts(found, series, section)
        name = texts.find(window.route) if shifts else None
        if name:
            told_of = _told(route, found, section, name[:NAME_BYTES_MAX], episodes.service, shifts)
            crossings.append(replace(told_of, service=unsigned(episodes.key)))
        if told or name:
            series.routes[window.route] = standing._replace(told=True)
    return crossings


def _note(route: int, series: Series, tick: int) -> RouteStanding:
    """A surplus of a route, decided. Episodes that are over were dropped as steps ended."""
    before = series.routes.get(route, RouteStanding(tick, 0, False))
    series.routes[route] = before._replace(suspect=tick // WINDOW_S)
    return series.routes[route]


def _told(
    route: _Route, found: Found, section: EntropySection, name: bytes, service: bytes, shifts: list[Shift]
) -> Crossing:  # fmt: skip
    path, host = (text.decode("utf-8", "backslashreplace") for text in (name, service))
    observed, where = round(route.window.total), f"route {path} of service {host}"
    whom = Dimension.ROUTE, key_of(name), name
    return shifted_crossing(whom, found, section, observed, route.mean, where, shifts, observed, ("service", host))
