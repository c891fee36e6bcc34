"""observe: columns in, tallies out. It holds no windows, only each source partition's clock and place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detectors.kernels.blocks import TEXT_OF_DIMENSION, WANT_SAMPLE, allocate_block
from detectors.kernels.clock import CLOCK_CANDIDATE, CLOCK_CONFIRMED, CLOCK_NEWEST, CLOCK_WORDS
from detectors.kernels.grouping import (
    MASK_START,
    P_LATE,
    P_MASK,
    P_NAMES,
    P_NEWEST,
    P_OLDEST,
    P_OUTSIDE,
    P_ROWS,
    P_TICK_MAX,
    P_TICK_MIN,
    PROGRESS,
    Table,
    finish_rows_kernel,
    group_kernel,
    start_progress,
)
from detectors.kernels.listed import make_words
from detectors.kernels.machine import allocate_lines
from detectors.kernels.memo import allocate_memo
from detectors.kernels.ordering import order_kernel
from detectors.kernels.sample_order import allocate_sample_out, finish_sample
from detectors.kernels.sample_table import Q_LEFT_OUT, allocate_sample, start_sample
from detectors.windowed import WindowPlan
from schemas.columns import I64, U64, Columns
from schemas.config import Config
from schemas.fields import Dimension
from schemas.tally import C_TICK, NAME_BYTES_MAX, RECORD_WORDS, SILENT_MS, TICK_MAX, UNKNOWN_MS, Late, Tally

_COUNTED = np.zeros(0, np.int64)
_TICKS_COUNTED = 512
"""Rows over so many ticks are ordered by counting; over more, which only replays of sparse logs see, by sorting."""


@dataclass(frozen=True, slots=True)
class Observed:
    """A tally, and what became of the events that were offered for it."""

    tally: Tally
    events: int
    late: int
    outside: int
    """Not within the range of time that was asked for."""
    oldest_ms: int
    """Of all events, late ones included; `TICK_MAX` without events …"""
    newest_ms: int
    """… and ``-TICK_MAX``."""


class Rows:
    """Room for the rows of one tally. The memory is only touched as far as rows come."""

    def __init__(self, events: int, dimensions: tuple[Dimension, ...], partitions: int, *, samples: bool) -> None:
        rows = events * len(dimensions)
        named = sum(1 for d in dimensions if TEXT_OF_DIMENSION[d] >= 0 or d == Dimension.ROUTE)
        self.table = Table(
            slots=np.zeros(1 << (4 * rows + 1024 * len(dimensions)).bit_length(), np.uint64),
            records=allocate_lines((rows, RECORD_WORDS), np.int64),
            names=np.empty(events * named * NAME_BYTES_MAX + NAME_BYTES_MAX, np.uint8),
        )
        self.order = np.empty(rows, np.int64)
        self.partition_start = np.zeros(partitions + 1, np.int64)
        self.progress = np.zeros(PROGRESS, np.int64)
        self.sample = allocate_sample(events if samples else 0)
        self.sample_out = allocate_sample_out(events if samples else 0)
        self.events_max = events
        self.clear()

    def clear(self) -> None:
        """Begin another tally, which will be about as large as the last one."""
        self.events = 0
        start_progress(self.progress, max(int(self.progress[P_MASK]) // 2, MASK_START))
        start_sample(self.sample)


class SourceClock:
    """One source partition's event time: the newest confirmed, and how silence moves it on."""

    def __init__(self, words: I64 | None = None) -> None:
        if words is None:
            words = np.zeros(CLOCK_WORDS, np.int64)
            words[CLOCK_NEWEST] = UNKNOWN_MS
        self.words = words
        self._arrived_ms: int | None = None
        self._advanced_ms = 0
        self._seen = -1

    @property
    def newest_ms(self) -> int:
        """The newest confirmed event time; `UNKNOWN_MS` before the first."""
        return int(self.words[CLOCK_NEWEST])

    def silence(self, now_ms: int, position: int) -> int | None:
        """What the newest time is when nothing came since ``position``; None: no news.

        Once a second of silence has passed, event time goes on with the clock. A source whose few records could not be
        confirmed yet is taken at its word then; one that never said anything holds nobody back.
        """
        if self._arrived_ms is None or position != self._seen:
            self._seen, self._arrived_ms, self._advanced_ms = position, now_ms, now_ms
            return None
        if now_ms - self._advanced_ms < 1000:
            return None
        passed, self._advanced_ms = now_ms - self._advanced_ms, now_ms
        if self.words[CLOCK_NEWEST] == UNKNOWN_MS:
            if self.words[CLOCK_CONFIRMED] == 0:
                return SILENT_MS
            self.words[CLOCK_NEWEST] = self.words[CLOCK_CANDIDATE]
        self.words[CLOCK_CONFIRMED] = 0
        self.words[CLOCK_NEWEST] += passed
        return self.newest_ms


class Observer:
    """Groups columns into tallies by every dimension that some detector judges, and by service."""

    def __init__(
        self,
        config: Config,
        plan: WindowPlan,
        hash_seeds: U64,
        events_max: int,
        between_ms: tuple[int | None, int | None] = (None, None),
    ) -> None:
        self.dimensions = tuple(sorted({Dimension.SERVICE, *plan.dimensions}))
        self._wanted, self._words = plan.wanted, make_words(plan.words)
        self._samples = plan.wanted & 1 << WANT_SAMPLE != 0
        self._events_max = events_max
        self._dimensions: I64 = np.array(self.dimensions, np.int64)
        self._partitions = config.engine.judge_partitions
        self._is_api = config.profile == "api"
        self._lateness_ms = config.time.lateness_s * 1000
        self._seeds = hash_seeds
        self._from_ms = -TICK_MAX if between_ms[0] is None else between_ms[0]
        self._to_ms = TICK_MAX if between_ms[1] is None else between_ms[1]
        self._service = np.frombuffer(config.input.service.encode() + bytes(64), np.uint8).copy()
        self._block = allocate_block()
        self._texts, self._agents, self._routes = (allocate_memo(routes=routes) for routes in (False, False, True))
        self._bins = np.zeros(self._partitions * _TICKS_COUNTED + 1, np.int64)

    def make_rows(self) -> Rows:
        """Room for the largest tally."""
        return Rows(self._events_max, self.dimensions, self._partitions, samples=self._samples)

    def add(self, columns: Columns, clock: SourceClock, rows: Rows) -> None:
        """Group one batch of one source partition, in offset order, into the tally in the making."""
        if rows.events + columns.n > rows.events_max:
            raise ValueError(f"expected at most {rows.events_max} events in a tally, got {rows.events + columns.n}")
        rows.events += columns.n
        group_kernel(
            self._dimensions, columns.numbers, columns.ip_high, columns.ip_low, columns.text_start, columns.text_length,
            columns.buffer, columns.n, columns.present, self._is_api, self._lateness_ms, self._from_ms, self._to_ms,
            clock.words, self._seeds, self._service, self._wanted, tuple(self._words), tuple(self._block), tuple(self._texts),
            tuple(self._agents), tuple(self._routes), tuple(rows.table), rows.progress, tuple(rows.sample),
        )  # fmt: skip

    def finish(self, clock: SourceClock, rows: Rows, source: str, start: int, end: int) -> Observed:
        """The tally of what was added since the last one. It is made of views of ``rows``: good until those are used again."""
        table, progress = rows.table, rows.progress
        finish_rows_kernel(self._dimensions, self._seeds, self._wanted, tuple(table), progress)
        count, tick_min, tick_max = int(progress[P_ROWS]), int(progress[P_TICK_MIN]), int(progress[P_TICK_MAX])
        ticks, by_tick = max(tick_max - tick_min + 1, 1), _COUNTED
        if ticks > _TICKS_COUNTED:
            ticks, by_tick = 1, np.argsort(table.records[:count, C_TICK], kind="stable")
        of_keys = order_kernel(
            table.records, count, by_tick, tick_min, ticks, self._partitions, rows.order, rows.partition_start, self._bins
        )
        tally = Tally(
            source, start, end, clock.newest_ms, tick_min, tick_max, int(rows.sample.progress[Q_LEFT_OUT]),
            table.records[:count], table.names[: progress[P_NAMES] + 8], rows.order[:count], rows.partition_start,
        )  # fmt: skip
        tally.key_rows = int(of_keys)
        if self._samples:
            tally.sample = finish_sample(rows.sample, rows.sample_out)
        if late := int(progress[P_LATE]):
            tally.late = Late(int(progress[P_OLDEST]) // 1000, (clock.newest_ms - self._lateness_ms) // 1000, late)
        observed = Observed(
            tally,
            rows.events,
            int(progress[P_LATE]),
            int(progress[P_OUTSIDE]),
            int(progress[P_OLDEST]),
            int(progress[P_NEWEST]),
        )
        rows.clear()
        return observed
