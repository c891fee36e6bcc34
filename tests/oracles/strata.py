"""Cells of the last half minute, as plain Python says what their windows and steps hold, and what is learned from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from detectors.entropy import ADDRESSES_MIN, EntropySection, repeats_of, routes_of
from detectors.kernels.strata import IS_MORE, ROUTES_MORE
from detectors.kernels.usual import HELD_STEPS_MAX, NOTHING, SLUMP, SLUMP_FROM, STEPS, WARM_STEPS
from detectors.signature import SignatureSection
from detectors.surplus import ROW_WORDS, WINDOW_S, rows_of
from engine.strata import ROUTE_LEARNED_SHARE, ROUTED, STEP_KEPT, Cell, count_accounts, gather
from schemas.sample import Stratum
from tests.oracles import alike
from tests.oracles.sampling import Plain, as_arrays

Service = tuple[int, int]
Route = list[int]


@dataclass
class PlainStep:
    """Ten seconds of a reference."""

    total: int
    rows: list[list[int]]
    repeats: int
    routes: list[Route]


@dataclass
class PlainSeries:
    """As `engine.strata.Series`."""

    stratum: Stratum
    reference: list[PlainStep] = field(default_factory=list)
    held: int = 0
    suspect: int = -1
    routes: dict[int, int] = field(default_factory=dict)
    """Those under suspicion, each with the last step in which it was seen"""

    @property
    def mean(self) -> float:
        """Of a step."""
        return sum(step.total for step in self.reference) / len(self.reference) if self.reference else 0.0

    @property
    def largest(self) -> int:
        """What no step exceeded."""
        return max((step.total for step in self.reference), default=0)

    def end_step(self, number: int, cells: list[Cell], *, suspect: bool) -> None:
        """What was held in a step becomes usual, or not."""
        gathered = gather(cells)
        even = gathered.even().reshape(-1, ROW_WORDS)
        total = count_accounts(gathered) if self.stratum == Stratum.ACCOUNTS else gathered.total
        slump = len(self.reference) >= WARM_STEPS and self.mean >= SLUMP_FROM and total < SLUMP * self.mean
        self.held = self.held + 1 if suspect or slump else 0
        if 0 < self.held <= HELD_STEPS_MAX and (cells or self.largest > 0):
            return
        repeats = repeats_of(self.stratum, even, gathered.total, total)
        found: list[Route] = []
        if self.stratum in ROUTED and len(gathered.rows) >= ADDRESSES_MIN:
            known = routes_of(gathered.rows, gathered.estimates(), ROUTE_LEARNED_SHARE)
            suspects = {route for route, seen in self.routes.items() if seen >= number - 1}
            found = [[one.route, round(one.total), one.repeats] for one in known if one.route not in suspects]
        step = PlainStep(total, alike.lowest(even, STEP_KEPT).tolist(), NOTHING if repeats is None else repeats, found)
        self.reference = [*self.reference, step][-STEPS:]


@dataclass
class PlainLog:
    """As `engine.cell_log.CellLog`."""

    signature: SignatureSection
    entropy: EntropySection
    places: dict[Service, int] = field(default_factory=dict)
    series: dict[int, PlainSeries] = field(default_factory=dict)
    cells: list[tuple[Service, Stratum, Cell]] = field(default_factory=list)
    walked: int = -(1 << 62)

    def take(self, plain: Plain, closed: int) -> None:
        """What is of seconds up to one."""
        sample = as_arrays(plain)
        rows = rows_of(sample.entries)
        for number, (tick, a, b, stratum, level, total) in enumerate(sample.cells.tolist()):
            if tick <= closed:
                self.cells.append(((a, b), Stratum(stratum), Cell(tick, level, total, rows[sample.entries[:, 0] == number])))

    def window(self, series: int, tick: int) -> list[Cell]:
        """Of a series, the ten seconds that end with one."""
        return [cell for cell in self.of(series) if tick - WINDOW_S < cell.tick <= tick]

    def of(self, series: int) -> Iterable[Cell]:
        """All of a series."""
        return [cell for service, stratum, cell in self.cells if self.series_of(service, stratum) == series]

    def series_of(self, service: Service, stratum: Stratum) -> int:
        """Its number, or -1."""
        return len(Stratum) * self.places[service] + stratum if service in self.places else -1

    def walk(self, until: int, judged_from: int) -> list[tuple[int, int, int, int]]:
        """(series, second, events of its window, what there is to see) before a second."""
        looks = []
        for service, stratum, cell in self.cells:
            series, tick = self.series_of(service, stratum), cell.tick
            if series < 0 or not max(self.walked, judged_from) <= tick < until:
                continue
            usual, gathered = self.series[series], gather(self.window(series, tick))
            if len(usual.reference) < WARM_STEPS:
                continue
            counted = count_accounts(gathered) if stratum == Stratum.ACCOUNTS else gathered.total
            what = IS_MORE * (self._exceeds(usual, gathered.total) and self._exceeds(usual, counted))
            more = stratum in ROUTED and gathered.total > usual.mean + self.entropy.least(stratum)
            what |= ROUTES_MORE * (tick % WINDOW_S == WINDOW_S - 1 and more)
            if what:
                looks.append((series, tick, gathered.total, what))
        self.walked = until
        return looks

    def _exceeds(self, usual: PlainSeries, observed: int) -> bool:
        sections = self.signature, self.entropy
        return observed > usual.largest and any(one.exceeds(usual.stratum, observed, usual.mean) for one in sections)

    def end_step(self, step: int) -> None:
        """Learn from the step before one, and drop its cells."""
        suspects = {number // len(Stratum) for number, one in self.series.items() if one.suspect >= step - 1}
        for number, one in self.series.items():
            due = [cell for cell in self.of(number) if (step - 1) * WINDOW_S <= cell.tick < step * WINDOW_S]
            one.end_step(step, due, suspect=number // len(Stratum) in suspects)
        self.cells = [one for one in self.cells if one[2].tick >= step * WINDOW_S]
