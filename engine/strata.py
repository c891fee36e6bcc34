"""What usual traffic is made of, stratum by stratum, and the seconds in which there is more of it.

A `Series` is one stratum of one service: a *reference* of what is usual (the cells are in `engine.cell_log`): thirty steps of
ten seconds, each with its total and the sixteen events of lowest priority. A step enters it after the next one has passed and
neither held a surplus, of this or another stratum of the service: what is under suspicion is not learned. A step with less
than half of the usual does not either, for after an outage everybody comes back. Whatever lasts an hour becomes usual all the
same.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from detectors.entropy import repeats_from
from detectors.kernels.alike import N_ROUTE, ROUTE_WORDS
from detectors.signature import Usual
from detectors.surplus import F64, ROW_WORDS, WEIGHT, WHO, thinned
from schemas.columns import I64
from schemas.sample import Stratum

STEPS, STEP_KEPT = 30, 16
WARM_STEPS = 12
"""Two minutes are learned from before any second is judged."""
HELD_STEPS_MAX = 360
OVER_STEPS = 6
"""After so many without a surplus an episode is over."""
SLUMP, SLUMP_FROM = 0.5, 30.0
"""Half of the usual, once that is so much in ten seconds."""
NO_ROWS = np.zeros((0, ROW_WORDS), np.int64)
ROUTED = (Stratum.PAGES, Stratum.REGISTERED, Stratum.FAILED)
"""An entry of an account does not say for which of its routes it is, and assets come with pages."""
ROUTE_LEARNED_SHARE = 0.05
"""Of a step: half of what a busy route has at least (`detectors.entropy`), for some steps have less."""
NO_ROUTES = np.zeros((0, ROUTE_WORDS), np.int64)


class Cell(NamedTuple):
    """One second of a stratum."""

    tick: int
    level: int
    total: int
    rows: I64


class Step(NamedTuple):
    """Ten seconds of the reference."""

    total: int
    """Of ACCOUNTS: how many"""
    rows: I64
    repeats: int | None
    """How often one came again (`detectors.entropy`)"""
    routes: I64
    """i64[r, ROUTE_WORDS]: those with much of it, but for those that are under suspicion"""


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


class Ended(NamedTuple):
    """What a series held in a step (`engine.cell_log`)."""

    cells: int
    total: int
    level: int
    left: int
    """Of the rows that stand for equally many, how many there are …"""
    different: int
    """… different words among them, of accounts who it is, else the address …"""
    alike: int
    """… ordered pairs of them with the same one …"""
    lowest: I64
    """… and those that stand for the step"""
    routes: I64
    """i64[r, ROUTE_WORDS]: what is to be remembered of routes. Of ACCOUNTS and ASSETS none: an entry of an account does not say
    for which of its routes it is, and assets come with pages"""


NOBODY = Gathered([], 0, NO_ROWS, 0)
NOTHING_ENDED = Ended(0, 0, 0, 0, 0, 0, NO_ROWS, NO_ROUTES)
SILENCE = Step(0, NO_ROWS, None, NO_ROUTES)


def count_accounts(gathered: Gathered) -> int:
    """Distinct ones: each is chosen or not, in whatever second."""
    return len(set(gathered.even()[:, WHO].tolist())) << gathered.level


@dataclass(slots=True)
class Series:
    """One stratum of one service."""

    stratum: Stratum
    reference: deque[Step] = field(default_factory=lambda: deque(maxlen=STEPS))
    held: int = 0
    """Steps in a row that did not enter the reference."""
    suspect: int = -1
    """The last step with a surplus."""
    since: int = -1
    """The second in which the surplus began."""
    routes: dict[int, RouteStanding] = field(default_factory=dict)
    """Of which there was more than usual in the last minute"""
    mean: float = 0.0
    largest: int = 0
    _total: int = 0
    """Of the whole reference"""
    _usual: Usual | None = None

    @property
    def is_warm(self) -> bool:
        """Enough was learned to judge by."""
        return len(self.reference) >= WARM_STEPS

    def count(self, gathered: Gathered) -> int:
        """What is compared with what is usual."""
        return count_accounts(gathered) if self.stratum == Stratum.ACCOUNTS else gathered.total

    def usual(self) -> Usual:
        """What the reference says, as if it were one window."""
        if self._usual is None:
            steps = [step for step in self.reference if len(step.rows)]
            rows = np.concatenate([step.rows for step in steps]) if steps else NO_ROWS
            weights = np.zeros(len(rows))
            at = 0
            for step in steps:
                own = step.rows[:, WEIGHT].astype(np.float64)
                weights[at : at + len(own)] = own * (step.total / (len(self.reference) * float(own.sum())))
                at += len(own)
            self._usual = Usual(rows, weights, self.mean)
        return self._usual

    def usual_of(self, route: int) -> I64:
        """i64[k, ROUTE_WORDS]: what is usual of one route, in the steps that know."""
        every = np.concatenate([NO_ROUTES, *(step.routes for step in self.reference)])
        of_route: I64 = every[every[:, N_ROUTE] == route]
        return of_route

    def end_step(self, step: int, ended: Ended, *, suspect: bool) -> None:
        """A step is over: the one before it may become part of what is usual, unless either is suspect."""
        if self.routes:
            self.routes = {route: one for route, one in self.routes.items() if one.suspect >= step - OVER_STEPS}
        if ended.cells == 0 and self.largest == 0:
            self.held = self.held + 1 if suspect else 0
            self.reference.append(SILENCE)
            return
        total = ended.different << ended.level if self.stratum == Stratum.ACCOUNTS else ended.total
        slump = self.is_warm and self.mean >= SLUMP_FROM and total < SLUMP * self.mean
        self.held = self.held + 1 if suspect or slump else 0
        if 0 < self.held <= HELD_STEPS_MAX:
            return
        repeats = repeats_from(self.stratum, ended.left, ended.alike, ended.total, total)
        self.learn(Step(total, ended.lowest, repeats, self._routes_of(ended, step)))

    def _routes_of(self, ended: Ended, step: int) -> I64:
        """What the step before one says of routes. Those under suspicion are left out, until too little is known of them."""
        suspects = [route for route, one in self.routes.items() if one.suspect >= step - 1]
        return ended.routes[~np.isin(ended.routes[:, N_ROUTE], suspects)] if suspects else ended.routes

    def learn(self, *steps: Step) -> None:
        """Take steps into the reference."""
        reference = self.reference
        for step in steps:
            gone = reference[0].total if len(reference) == STEPS else 0
            reference.append(step)
            self._total += step.total - gone
            # What was the largest goes once in five minutes; only then the others have to be looked at.
            self.largest = max([one.total for one in reference]) if gone >= self.largest else max(self.largest, step.total)
        self.mean = self._total / len(reference) if reference else 0.0
        self._usual = None

    def save(self) -> dict[str, Any]:
        """Plain data and arrays; the cells come again with the tallies."""
        steps = list(self.reference)
        return {
            "totals": np.array([step.total for step in steps], np.int64),
            "counts": np.array([len(step.rows) for step in steps], np.int64),
            "rows": np.concatenate([step.rows for step in steps]) if steps else NO_ROWS,
            "repeats": np.array([NOTHING if step.repeats is None else step.repeats for step in steps], np.int64),
            "route_counts": np.array([len(step.routes) for step in steps], np.int64),
            "routes": np.concatenate([step.routes for step in steps]) if steps else NO_ROUTES,
            "standing": [self.held, self.suspect, self.since, [[route, *one] for route, one in self.routes.items()]],
        }

    def load(self, data: dict[str, Any]) -> None:
        """Take over what `save` gave."""
        self.held, self.suspect, self.since, routes = data["standing"]
        self.routes = {route: RouteStanding(*one) for route, *one in routes}
        rows = _parts(data["rows"], data["counts"], ROW_WORDS)
        of_routes = _parts(data["routes"], data["route_counts"], ROUTE_WORDS)
        repeats = [None if one == NOTHING else one for one in data["repeats"].tolist()]
        self.reference.clear()
        self._total = self.largest = 0
        self.learn(*(Step(*one) for one in zip(data["totals"].tolist(), rows, repeats, of_routes, strict=True)))


NOTHING = -(1 << 62)
"""In the place of a number that a step does not have."""


def _parts(table: I64, counts: I64, columns: int) -> list[I64]:
    """A table as the parts it was put together of."""
    if int(counts.sum()) != len(table) or table.shape[1:] != (columns,) or counts.min(initial=0) < 0:
        raise ValueError("a reference with other rows than it says")
    return np.split(table, np.cumsum(counts)[:-1]) if len(counts) else []
