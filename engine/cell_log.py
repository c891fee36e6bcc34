"""The cells of the last half minute, of all services: what `detectors.kernels.strata` keeps, and what is asked of it.

A step ends for all series in one call, and so does walking through the seconds of a step: where traffic is sparse, calls of
numpy for each second and stratum were most of what a judge did.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from detectors.entropy import ADDRESSES_MIN, ROUTES_MAX, EntropySection
from detectors.kernels.alike import ROUTE_VALUES
from detectors.kernels.strata import (
    H_LAST,
    K_STATE,
    KNOWN,
    KNOWN_WORDS,
    L_A,
    L_B,
    L_FROM,
    L_LEVEL,
    L_SERIES,
    L_TICK,
    L_TO,
    L_TOTAL,
    LOG_WORDS,
    NOBODY,
    SERIES_WORDS,
    SILENT,
    STRANGER,
    U_CELLS,
    U_FIRST,
    U_ROWS,
    U_STRANGERS,
    U_WALKED,
    USED,
    end_step_kernel,
    join_kernel,
    take_cells_kernel,
    walk_kernel,
)
from detectors.kernels.usual import STRATA
from detectors.kernels.windows import NEVER
from detectors.signature import SignatureSection
from detectors.surplus import ROW_WORDS, WINDOW_S
from engine.sampling import Held
from engine.strata import ROUTE_LEARNED_SHARE, ROUTED, STEP_KEPT, Cell, Series, allocate_reference
from schemas.sample import CELL_WORDS, ENTRY_WORDS, KEPT, Stratum, empty_sample

CELLS, ROWS = 512, 4096
"""Room to begin with: half a minute of two services with 350 events a second."""
NOTHING = empty_sample()
Service = tuple[int, int]


class Look(NamedTuple):
    """A second of a series that is to be looked at."""

    series: int
    tick: int
    total: int
    """Events of its window"""
    what: int


class CellLog:
    """The table.

    Args:
        services: so many can be known at once.
        signature, entropy: their sections, which say what is more than usual; None: off.
    """

    def __init__(self, services: int, signature: SignatureSection | None, entropy: EntropySection | None) -> None:
        many = services * STRATA
        limits = [[one.growth, *[one.least(stratum) for stratum in Stratum]] for one in (signature, entropy) if one is not None]
        self._limits = np.array(limits, np.float64).reshape(-1, 1 + STRATA)
        self._routes_least = np.full(STRATA, np.inf)
        if entropy is not None:
            self._routes_least[list(ROUTED)] = [entropy.least(stratum) for stratum in ROUTED]
        self._reference = allocate_reference(many)
        self._used = np.zeros(USED, np.int64)
        self._known = np.zeros((services, KNOWN_WORDS), np.int64)
        self._series = np.zeros((many, SERIES_WORDS), np.int64)
        self._series[:, H_LAST] = NEVER
        self._united = np.empty((1, CELL_WORDS), np.int64), np.empty((KEPT, ENTRY_WORDS), np.int64)
        self._heaviest, self._values = np.empty(ROUTES_MAX, np.int64), np.empty((ROUTES_MAX, ROUTE_VALUES))
        self._places = np.empty(STEP_KEPT, np.int64)
        self._cells, self._rows = np.empty((0, LOG_WORDS), np.int64), np.empty((0, ROW_WORDS), np.int64)
        self._reserve(CELLS, ROWS)

    def _reserve(self, cells: int, rows: int) -> None:
        """Make room for so many more, be it by moving what is kept to the front."""
        used = self._used
        first, end, rows_end = (int(used[at]) for at in (U_FIRST, U_CELLS, U_ROWS))
        if end + cells <= len(self._cells) and rows_end + rows <= len(self._rows):
            return
        kept = self._cells[first:end]
        from_row = int(kept[0, L_FROM]) if len(kept) else rows_end
        kept_rows = self._rows[from_row:rows_end]
        if 2 * (len(kept) + cells) > len(self._cells) or 2 * (len(kept_rows) + rows) > len(self._rows):
            many_rows = max(len(self._rows), 4 * (len(kept_rows) + rows))
            self._cells = np.empty((max(len(self._cells), 4 * (len(kept) + cells)), LOG_WORDS), np.int64)
            self._rows = np.empty((many_rows, ROW_WORDS), np.int64)
            self._found = np.empty((len(self._cells), 3), np.int64)
            self._slots, self._pair_slots = np.empty((2, 1 << (2 * many_rows + 1).bit_length()), np.int32)
            self._gathered, self._numbers = np.empty((many_rows, ROW_WORDS), np.int64), np.empty((many_rows, 4), np.int64)
            self._weights, self._sums = np.empty(many_rows), np.empty((many_rows, 6))
        self._cells[: len(kept)], self._rows[: len(kept_rows)] = kept, kept_rows
        self._cells[: len(kept), L_FROM : L_TO + 1] -= from_row
        used[U_FIRST], used[U_CELLS], used[U_ROWS] = 0, len(kept), len(kept_rows)
        used[U_WALKED] -= first

    def take(self, one: Held, other: Held | None, closed: int) -> None:
        """The cells of one or two samples up to a second, which are not in the table yet."""
        more = NOTHING if other is None else other.sample
        self._reserve(len(one.sample.cells) + len(more.cells), len(one.sample.entries) + len(more.entries))
        at, other_at = take_cells_kernel(
            one.sample.cells, one.sample.entries, one.at, more.cells, more.entries, 0 if other is None else other.at, closed,
            self._cells, self._rows, self._used, *self._united,
        )  # fmt: skip
        one.at = at
        if other is not None:
            other.at = other_at

    @property
    def next_tick(self) -> int | None:
        """The first second that nobody has gone through."""
        at = int(self._used[U_WALKED])
        return int(self._cells[at, L_TICK]) if at < self._used[U_CELLS] else None

    def walk(self, until: int, judged_from: int) -> list[Look]:
        """Go through the seconds before one: those from ``judged_from`` on that are to be looked at."""
        count = walk_kernel(
            self._cells, self._rows, self._used, self._known, self._series, self._reference.learned, self._limits,
            self._routes_least, until, judged_from, self._slots, self._found,
        )  # fmt: skip
        if not count:
            return []
        cells = self._cells
        return [
            Look(int(cells[at, L_SERIES]), int(cells[at, L_TICK]), total, what)
            for at, total, what in self._found[:count].tolist()
        ]

    def window(self, series: int, tick: int) -> list[Cell]:
        """The cells of a series in the ten seconds that end with one. Their rows are good until the next call of `take`."""
        cells = self._cells[self._used[U_FIRST] : self._used[U_WALKED]]
        ticks = cells[:, L_TICK]
        chosen = cells[(cells[:, L_SERIES] == series) & (ticks > tick - WINDOW_S) & (ticks <= tick)]
        columns = chosen[:, [L_TICK, L_LEVEL, L_TOTAL, L_FROM, L_TO]].tolist()
        return [Cell(at, level, total, self._rows[start:end]) for at, level, total, start, end in columns]

    def is_silent(self, place: int) -> bool:
        """Whether nothing was known of a service but noughts when a step ended."""
        return bool(self._known[place, K_STATE] == SILENT)

    def strangers(self) -> dict[Service, int]:
        """Services that are not known and had something since a step ended: how much."""
        totals: dict[Service, int] = {}
        if self._used[U_STRANGERS]:
            cells = self._cells[self._used[U_FIRST] : self._used[U_WALKED]]
            for a, b, total in cells[cells[:, L_SERIES] == STRANGER][:, [L_A, L_B, L_TOTAL]].tolist():
                totals[a, b] = totals.get((a, b), 0) + total
        return totals

    def join(self, service: Service, place: int) -> list[Series]:
        """A service is known from now on, by a place; what came of it since a step ended is its own."""
        self._known[place] = *service, KNOWN
        join_kernel(self._cells, self._used, *service, place, self._series)
        return [Series(stratum, self._reference.begin(place * STRATA + stratum)) for stratum in Stratum]

    def leave(self, place: int) -> None:
        """A service is known no more."""
        low, high = place * STRATA, (place + 1) * STRATA
        cells = self._cells[self._used[U_FIRST] : self._used[U_WALKED], L_SERIES]
        cells[(cells >= low) & (cells < high)] = NOBODY
        self._known[place] = 0
        self._series[low:high] = 0
        self._series[low:high, H_LAST] = NEVER

    def forget_strangers(self, before: int | None = None) -> None:
        """Cells of services that are not known stay nobody's: all, or those of seconds before one."""
        if not self._used[U_STRANGERS]:
            return
        cells = self._cells[self._used[U_FIRST] : self._used[U_WALKED]]
        chosen = cells[:, L_SERIES] == STRANGER
        if before is None:
            self._used[U_STRANGERS] = 0
        else:
            chosen &= cells[:, L_TICK] < before
        cells[chosen, L_SERIES] = NOBODY

    def end_step(self, step: int) -> bool:
        """Learn from the step before one, and drop its cells; whether services are to be taken in or forgotten."""
        to_change = end_step_kernel(
            self._cells, self._rows, self._used, step * WINDOW_S, self._known, self._series, *self._reference,
            ROUTE_LEARNED_SHARE, ADDRESSES_MIN, self._slots, self._pair_slots, self._gathered, self._numbers, self._weights,
            self._sums, self._places, self._heaviest, self._values,
        )  # fmt: skip
        return bool(to_change)
