"""The windows of a judge: rows of tallies in, crossings of limits out. Nothing is decided here, and nobody is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.kernels.judging import MINUTE_OVER, all_close_kernel, all_insert_kernel
from detectors.kernels.long_windows import MINUTE_S, LongWindows, allocate_long_windows
from detectors.kernels.windows import (
    AGED_OUT,
    AGED_TICK,
    CLOSED,
    MUTED,
    ROWS_USED,
    STRAGGLERS,
    Crossings,
    Windows,
    allocate_crossings,
    allocate_windows,
)
from detectors.windowed import WindowPlan
from engine.busy import BusyRoutes
from engine.crossing import Crossing
from engine.service import surge_of
from engine.standing import Standing
from schemas.columns import I64
from schemas.config import Config
from schemas.fields import Dimension
from schemas.tally import C_TICK, Tally, empty_tally

HORIZON_S = 1024
"""Rows up to this far behind the last closed tick lie in the log at once; those of later ticks wait."""
LONG_SHARE = 32
"""For one of so many keys there is room in long windows: a busy service has 9,000 addresses in an hour that failed once or
registered, of 500,000 keys."""
_CROSSINGS = 1024


@dataclass(slots=True)
class Waiting:
    """A tally and how far each partition has taken it in."""

    tally: Tally
    cursors: I64

    @property
    def left(self) -> int:
        """So many rows are not taken in yet."""
        return int(sum(self.tally.partition_start[1:].tolist()) - sum(self.cursors.tolist()))

    def least_tick(self) -> int:
        """The earliest tick that is left."""
        ends = self.tally.partition_start[1:]
        first = self.cursors[self.cursors < ends]
        return int(self.tally.column(C_TICK)[self.tally.order[first]].min())

    def keep(self) -> Waiting:
        """The same with rows of its own, only those that are left."""
        starts, ends = self.cursors, self.tally.partition_start[1:]
        chosen = np.concatenate([self.tally.order[low:high] for low, high in zip(starts, ends, strict=True)])
        tally = self.tally.take(chosen)
        tally.partition_start = np.concatenate([[0], np.cumsum(ends - starts)]).astype(np.int64)
        return Waiting(tally, tally.partition_start[:-1].copy())


class JudgeWindows:
    """Of judge partitions that close their ticks together.

    Args:
        standing: the configuration in force, with the capacities.
        owned: of so many judge partitions.
        plan: the rules that are in force first.
    """

    def __init__(self, standing: Standing, owned: int, plan: WindowPlan) -> None:
        self.standing, self._owned = standing, owned
        self.plan: WindowPlan
        self.windows: Windows
        self.long: LongWindows
        self.routes: BusyRoutes
        self.allocate(plan)
        self._nothing = Waiting(empty_tally("", 0, 0, 0, owned), np.zeros(owned, np.int64))
        """Nothing to be taken in"""
        self._out: Crossings = allocate_crossings(_CROSSINGS)

    def allocate(self, plan: WindowPlan) -> None:
        """Empty windows for a plan, and what looks into them."""
        engine = self.standing.config.engine
        self.span_s = max(plan.span_s, MINUTE_S)
        self.windows = allocate_windows(
            plan.arrays,
            partitions=self._owned,
            keys=1 << max(6, (engine.keys_max // engine.judge_partitions - 1).bit_length()),
            rows=max(64, engine.rows_max // engine.judge_partitions),
            ticks=1 << (plan.span_s + HORIZON_S).bit_length(),
        )
        self.long = allocate_long_windows(
            plan.long,
            partitions=self._owned,
            entries=1 << max(6, (engine.keys_max // LONG_SHARE // engine.judge_partitions - 1).bit_length()),
        )
        self.routes = BusyRoutes(surge_of(self.standing.config), self.windows)
        self.take_plan(plan)

    def take_plan(self, plan: WindowPlan) -> None:
        """Another plan for the windows that there are."""
        self.plan = plan
        plan.arrays.busy_least[0] = self.routes.peak_min

    def make_routes(self, config: Config) -> None:
        """What learns of busy routes, knowing nothing yet."""
        self.routes = BusyRoutes(surge_of(config), self.windows)
        self.take_plan(self.plan)

    @property
    def closed(self) -> int:
        """The last closed tick; `NEVER` before the first."""
        return int(self.windows.scalars[0, CLOSED])

    @property
    def rows(self) -> int:
        """Rows in the log."""
        return int(self.windows.scalars[:, ROWS_USED].sum())

    @property
    def stragglers(self) -> int:
        """Events whose tick had been closed."""
        return int(self.windows.scalars[:, STRAGGLERS].sum())

    @property
    def aged_out(self) -> int:
        """Keys given up because a table was full."""
        return int(self.windows.scalars[:, AGED_OUT].sum())

    @property
    def muted(self) -> int:
        """The last tick of which something is missing."""
        return int(self.windows.scalars[:, MUTED].max())

    def mute(self, tick: int) -> None:
        """Something up to ``tick`` is missing: windows that touch it decide nothing."""
        muted = self.windows.scalars[:, MUTED]
        np.maximum(muted, tick, out=muted)

    def _take_rows(
        self, waiting: Waiting, limit: int, plan: WindowPlan, services: I64, *, early: bool
    ) -> tuple[list[Crossing], bool]:  # fmt: skip
        """Take in rows up to ``limit``, as far as there is room for what crosses a limit of ``plan``.

        Returns:
            what has crossed one, if that is wanted (``early``), and whether they are all taken in. ``services`` (i64[rows + 1])
            holds how many of the rows are of services, and which.
        """
        tally = waiting.tally
        services[0] = 0
        count, done = all_insert_kernel(
            tuple(self.windows), tuple(plan.arrays), tally.order, waiting.cursors, tally.partition_start, limit, early,
            tally.records, tally.names, services, tuple(self._out), 0,
        )  # fmt: skip
        return self._crossings(int(count), plan), bool(done or count == 0)

    def _close_ticks(self, target: int, services: I64, waiting: Waiting, limit: int, *, emit: bool) -> list[Crossing]:
        """Take in rows up to ``limit`` and close ticks up to ``target``; what has crossed a limit, of whole seconds (if
        ``emit``) and of minutes of routes. ``services`` as of `_take_rows`."""
        count, told, tally = 0, list[Crossing](), waiting.tally
        services[0] = 0
        while True:
            count, needed = all_close_kernel(
                tuple(self.windows), tuple(self.plan.arrays), tally.order, waiting.cursors, tally.partition_start, limit,
                tally.records, tally.names, services, tuple(self.long), tuple(self.plan.long), target, emit,
                tuple(self._out), count,
            )  # fmt: skip
            if needed == 0:
                break
            told += self.routes.close()  # where there is no room, others may have come to the end of a minute
            if needed != MINUTE_OVER:
                self._grow(int(count), int(needed))  # partitions that were closed stay so, the others go on
        if emit:
            told += self.routes.close_silent()
        return [*self._crossings(int(count), self.plan), *told]

    def _grow(self, count: int, needed: int) -> None:
        larger = allocate_crossings(max(2 * len(self._out.rule), count + needed))
        pairs: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = list(zip(self._out, larger, strict=True))
        for old, new in pairs:
            new[:count] = old[:count]
        self._out = larger

    def _crossings(self, count: int, plan: WindowPlan) -> list[Crossing]:
        if count == 0:
            return []
        out = self._out
        columns = zip(
            out.partition[:count].tolist(), out.dimension[:count].tolist(), out.key_a[:count].tolist(),
            out.key_b[:count].tolist(), out.rule[:count].tolist(), out.tick[:count].tolist(),
            out.observed[:count].tolist(), out.requests[:count].tolist(), out.active[:count].tolist(),
            out.name_length[:count].tolist(), strict=True,
        )  # fmt: skip
        aged = self.windows.scalars[:, AGED_TICK].tolist()
        found = []
        for at, (partition, dimension, a, b, rule, tick, observed, requests, active, length) in enumerate(columns):
            chosen = plan.rules[dimension][rule]
            found.append(
                Crossing(
                    partition, Dimension(dimension), a, b, out.names[at, :length].tobytes(), chosen, tick,
                    chosen.observed(observed), requests, active, aged[partition] >= chosen.first_tick(tick),
                )
            )  # fmt: skip
        return found
