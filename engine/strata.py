"""What usual traffic is made of, stratum by stratum, and the seconds in which there is more of it.

A `Series` is one stratum of one service: a *reference* of what is usual (the cells are in `engine.cell_log`): thirty steps of
ten seconds, each with its total and the sixteen events of lowest priority. A step enters it after the next one has passed and
neither held a surplus, of this or another stratum of the service: what is under suspicion is not learned. A step with less
than half of the usual does not either, for after an outage everybody comes back. Whatever lasts an hour becomes usual all the
same. `detectors.kernels.strata` learns, of all series at once; here is what is asked of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.entropy import ROUTES_MAX
from detectors.kernels.alike import N_ROUTE, ROUTE_WORDS
from detectors.kernels.usual import (
    NOTHING,
    R_HELD,
    R_LARGEST,
    R_LEARNED,
    R_NEWEST,
    R_SUSPECT,
    R_TOTAL,
    REFERENCE_WORDS,
    STEP_WORDS,
    STEPS,
    T_KEPT,
    T_REPEATS,
    T_ROUTES,
    T_TOTAL,
    WARM_STEPS,
)
from detectors.signature import Usual
from detectors.surplus import F64, ROW_WORDS, WEIGHT, WHO, thinned
from schemas.columns import I64
from schemas.sample import Stratum

STEP_KEPT = 16
OVER_STEPS = 6
"""After so many without a surplus an episode is over."""
NO_ROWS = np.zeros((0, ROW_WORDS), np.int64)
ROUTED = (Stratum.PAGES, Stratum.REGISTERED, Stratum.FAILED)
"""An entry of an account does not say for which of its routes it is, and assets come with pages."""
ROUTE_LEARNED_SHARE = 0.05
"""Of a step: half of what a busy route has at least (`detectors.entropy`), for some steps have less."""


class Cell(NamedTuple):
    """One second of a stratum."""

    tick: int
    level: int
    total: int
    rows: I64


class Reference(NamedTuple):
    """What is usual: the arrays that `detectors.kernels.strata.end_step_kernel` keeps, of all series or of one."""

    learned: I64
    """i64[REFERENCE_WORDS]"""
    steps: I64
    """i64[STEPS, STEP_WORDS]"""
    rows: I64
    """i64[STEPS, STEP_KEPT, ROW_WORDS]: those that stand for each step"""
    routes: I64
    """i64[STEPS, ROUTES_MAX, ROUTE_WORDS]: those with much of it, but for those that are under suspicion"""

    def begin(self, series: int) -> Reference:
        """The part of one series, of which nothing is known from now on."""
        own = Reference(*(part[series] for part in self))
        own.learned[:] = 0
        own.learned[[R_SUSPECT, R_NEWEST]] = -1
        return own


def allocate_reference(series: int) -> Reference:
    """Room for what is usual of so many series."""
    return Reference(
        np.zeros((series, REFERENCE_WORDS), np.int64), np.zeros((series, STEPS, STEP_WORDS), np.int64),
        np.zeros((series, STEPS, STEP_KEPT, ROW_WORDS), np.int64), np.zeros((series, STEPS, ROUTES_MAX, ROUTE_WORDS), np.int64),
    )  # fmt: skip


class RouteStanding(NamedTuple):
    """A route with more than usual."""

    since: int
    """The second in which that was seen first"""
    suspect: int
    """The last step in which it was seen"""
    told: bool


class Gathered(NamedTuple):
    """The cells of a window together."""

    cells: list[Cell]
    total: int
    rows: I64
    level: int

    def even(self) -> I64:
        """Rows that stand for equally many, 2^level each."""
        return thinned(self.rows, self.level)

    def estimates(self) -> F64:
        """f64[n]: how many events each row stands for, whatever the others do: together about all."""
        levels, counts = [float(1 << cell.level) for cell in self.cells], [len(cell.rows) for cell in self.cells]
        if levels and min(levels) == max(levels):
            alike: F64 = np.multiply(self.rows[:, WEIGHT], levels[0], dtype=np.float64)
            return alike
        weights: F64 = np.repeat(levels, counts) * self.rows[:, WEIGHT]
        return weights

    def weights(self) -> F64:
        """f64[n]: how many events each row stands for, together all."""
        weights = self.estimates()
        weights *= self.total / max(1.0, float(weights.sum()))
        return weights


def gather(cells: list[Cell]) -> Gathered:
    """Cells as one table."""
    if len(cells) < 2:
        return Gathered(cells, cells[0].total, cells[0].rows, cells[0].level) if cells else NOBODY
    total, level = sum([cell.total for cell in cells]), max([cell.level for cell in cells])
    return Gathered(cells, total, np.concatenate([cell.rows for cell in cells]), level)


NOBODY = Gathered([], 0, NO_ROWS, 0)


def count_accounts(gathered: Gathered) -> int:
    """Distinct ones: each is chosen or not, in whatever second."""
    return len(set(gathered.even()[:, WHO].tolist())) << gathered.level


@dataclass(slots=True)
class Series:
    """One stratum of one service."""

    stratum: Stratum
    reference: Reference
    since: int = -1
    """The second in which the surplus began."""
    routes: dict[int, RouteStanding] = field(default_factory=dict)
    """Of which there was more than usual in the last minute"""
    _usual: tuple[int, Usual] | None = None
    """With what was learned until then"""

    @property
    def suspect(self) -> int:
        """The last step with a surplus."""
        return int(self.reference.learned[R_SUSPECT])

    @suspect.setter
    def suspect(self, step: int) -> None:
        self.reference.learned[R_SUSPECT] = step

    @property
    def is_warm(self) -> bool:
        """Enough was learned to judge by."""
        return bool(self.reference.learned[R_LEARNED] >= WARM_STEPS)

    @property
    def mean(self) -> float:
        """Of a step."""
        return int(self.reference.learned[R_TOTAL]) / max(1, min(int(self.reference.learned[R_LEARNED]), STEPS))

    @property
    def largest(self) -> int:
        """What no step exceeded."""
        return int(self.reference.learned[R_LARGEST])

    def count(self, gathered: Gathered) -> int:
        """What is compared with what is usual."""
        return count_accounts(gathered) if self.stratum == Stratum.ACCOUNTS else gathered.total

    def _steps(self) -> tuple[I64, I64, I64]:
        """The steps of the reference, the oldest first, with the rows and routes of each."""
        many = int(self.reference.learned[R_LEARNED])
        order = np.arange(max(0, many - STEPS), many) % STEPS
        return self.reference.steps[order], self.reference.rows[order], self.reference.routes[order]

    def usual(self) -> Usual:
        """What the reference says, as if it were one window."""
        learned = int(self.reference.learned[R_LEARNED])
        if self._usual is None or self._usual[0] != learned:
            steps, rows, _ = self._steps()
            kept = _first(steps[:, T_KEPT], STEP_KEPT)
            weights = np.where(kept, rows[:, :, WEIGHT], 0.0)
            weights *= (steps[:, T_TOTAL] / (len(steps) * np.maximum(1.0, weights.sum(axis=1))))[:, np.newaxis]
            self._usual = learned, Usual(rows[kept], weights[kept], self.mean)
        return self._usual[1]

    def repeats(self) -> list[int]:
        """How often one came again, in the steps that know."""
        return [one for one in self._steps()[0][:, T_REPEATS].tolist() if one != NOTHING]

    def usual_of(self, route: int) -> I64:
        """i64[k, ROUTE_WORDS]: what is usual of one route, in the steps that know."""
        steps, _, routes = self._steps()
        of_route: I64 = routes[_first(steps[:, T_ROUTES], ROUTES_MAX) & (routes[:, :, N_ROUTE] == route)]
        return of_route

    def end_step(self, step: int) -> None:
        """What was learned as a step began says nothing of routes under suspicion, until too little is known of them."""
        self.routes = {route: one for route, one in self.routes.items() if one.suspect >= step - OVER_STEPS}
        learned, steps, _, routes = self.reference
        if learned[R_NEWEST] != step:
            return
        at = (learned[R_LEARNED] - 1) % STEPS
        known, suspects = routes[at, : steps[at, T_ROUTES]], [r for r, one in self.routes.items() if one.suspect >= step - 1]
        kept = known[~np.isin(known[:, N_ROUTE], suspects)]
        routes[at, : len(kept)], steps[at, T_ROUTES] = kept, len(kept)

    def save(self) -> dict[str, Any]:
        """Plain data and arrays; the cells come again with the tallies."""
        steps, rows, routes = self._steps()
        standing = [[route, *one] for route, one in self.routes.items()]
        return {
            "totals": steps[:, T_TOTAL].copy(),
            "counts": steps[:, T_KEPT].copy(),
            "rows": rows[_first(steps[:, T_KEPT], STEP_KEPT)],
            "repeats": steps[:, T_REPEATS].copy(),
            "route_counts": steps[:, T_ROUTES].copy(),
            "routes": routes[_first(steps[:, T_ROUTES], ROUTES_MAX)],
            "standing": [int(self.reference.learned[R_HELD]), self.suspect, self.since, standing],
        }

    def load(self, data: dict[str, Any]) -> None:
        """Take over what `save` gave."""
        learned, steps, rows, routes = self.reference
        learned[R_HELD], learned[R_SUSPECT], self.since, standing = data["standing"]
        self.routes = {route: RouteStanding(*one) for route, *one in standing}
        many, totals = len(data["totals"]), data["totals"]
        learned[R_LEARNED], learned[R_TOTAL], learned[R_LARGEST] = many, totals.sum(), totals.max(initial=0)
        steps[:many, T_TOTAL], steps[:many, T_KEPT] = totals, data["counts"]
        steps[:many, T_REPEATS], steps[:many, T_ROUTES] = data["repeats"], data["route_counts"]
        _put(data["rows"], data["counts"], rows[:many])
        _put(data["routes"], data["route_counts"], routes[:many])


def _first(counts: I64, most: int) -> npt.NDArray[np.bool_]:
    """bool[n, most]: the first so many of each row."""
    first: npt.NDArray[np.bool_] = np.arange(most) < counts[:, np.newaxis]
    return first


def _put(table: I64, counts: I64, room: I64) -> None:
    """Write the parts that a table was put together of, each to its own room."""
    places = _first(counts, room.shape[1])
    if (places.sum(axis=1) != counts).any() or table.shape != (counts.sum(), room.shape[2]):
        raise ValueError("a reference with other rows than it says")
    room[places] = table
