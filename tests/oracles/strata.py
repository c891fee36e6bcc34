"""Cells of the last half minute, as plain Python says what their windows and steps hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from detectors.entropy import ADDRESSES_MIN, RouteWindow, routes_of
from detectors.kernels.strata import IS_MORE, ROUTES_MORE
from detectors.surplus import ADDRESS, PRIORITY, ROW_WORDS, WHO, WINDOW_S, rows_of
from engine.strata import ROUTE_LEARNED_SHARE, ROUTED, STEP_KEPT, Cell, Gathered, count_accounts, gather
from schemas.columns import I64
from schemas.sample import Stratum
from tests.oracles import alike
from tests.oracles.sampling import Plain, as_arrays

Service = tuple[int, int]
Bounds = tuple[float, float, float]


@dataclass
class PlainLog:
    """As `engine.cell_log.CellLog`."""

    places: dict[Service, int] = field(default_factory=dict)
    bounds: dict[int, Bounds] = field(default_factory=dict)
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
            more, routes, least = self.bounds[series]
            if sum(one.total for one in self.of(series) if one.tick <= tick) <= least:
                continue
            gathered = gather(self.window(series, tick))
            counted = count_accounts(gathered) if stratum == Stratum.ACCOUNTS else gathered.total
            what = IS_MORE * (gathered.total > more and counted > more)
            what |= ROUTES_MORE * (tick % WINDOW_S == WINDOW_S - 1 and gathered.total > routes)
            if what:
                looks.append((series, tick, gathered.total, what))
        self.walked = until
        return looks

    def end_step(self, end: int, series: int) -> tuple[tuple[int, ...], I64, list[RouteWindow]]:
        """(cells, events, level, even rows, different words, pairs of the same one), rows that stand for it, and its routes."""
        due = [cell for cell in self.of(series) if end - WINDOW_S <= cell.tick < end]
        gathered: Gathered = gather(due)
        stratum, even = Stratum(series % len(Stratum)), gathered.even().reshape(-1, ROW_WORDS)
        words = even[:, WHO if stratum == Stratum.ACCOUNTS else ADDRESS]
        numbers = (
            len(due), gathered.total, gathered.level, len(even), len(set(words.tolist())), alike.alike(words)[0]
        )  # fmt: skip
        lowest = alike.lowest(even, STEP_KEPT)
        assert len(lowest) < STEP_KEPT or lowest[:, PRIORITY].size == STEP_KEPT
        routes = []
        if stratum in ROUTED and len(gathered.rows) >= ADDRESSES_MIN:
            routes = routes_of(gathered.rows, gathered.estimates(), ROUTE_LEARNED_SHARE)
        return numbers, lowest, routes

    def drop(self, end: int) -> None:
        """Forget what is of seconds before one."""
        self.cells = [one for one in self.cells if one[2].tick >= end]
