"""What a report knows of the traffic, gathered while it is replayed: a series in time, and who talked when.

It looks at tallies, which are grouped already, so that it costs a few per cent of a replay; nothing is decided by it. The
series has `BUCKETS` parts, of a second at first; when the time that was read no longer fits, neighbours are added up. The table
of keys is bounded: when it is full, the lightest of each dimension are forgotten, and what comes back begins at nothing. So a
count of a key is exact or too low, and `pruned` says whether it can be too low.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from engine.crossing import target_value
from replay.report.talking import (
    BINS,
    BLOCKS,
    BUCKETS,
    COHORT,
    PER_BLOCK,
    SERIES,
    T_A,
    T_B,
    T_C,
    T_COST_MICRO,
    T_DIMENSION,
    T_ERRORS,
    T_HASH,
    T_NAME_LENGTH,
    T_REGISTRATIONS,
    T_REQUESTS,
    T_TOKENS,
    TALKER_WORDS,
    V_REQUESTS,
    add_rows_kernel,
    add_sample_kernel,
    index_kernel,
)
from schemas.fields import Dimension
from schemas.tally import C_TICK, NAME_BYTES_MAX, UNKNOWN_MS, Tally

WIDTHS_S = (1, 5, 10, 30, 60, 300, 900, 3600, 21_600, 86_400, 864_000, 8_640_000)
"""Each divides the next; with the last, `BUCKETS` of them are longer than time is."""
TALKERS = 1 << 16
"""27 MB; nobody reads the ten-thousandth talker of a dimension, but a flood of new keys must not push out old ones."""
KEPT_OF_DIMENSION = 4096
"""When the table is full. At most nine dimensions and the cohorts: well below `TALKERS`."""
HELD_ROWS_MAX = 100_000
"""Rows whose time is not confirmed yet, and may be a wrong clock's."""
_WORD = (1 << 64) - 1
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
Count = TypeVar("Count", np.int64, np.uint32)


@dataclass(frozen=True, slots=True)
class Talker:
    """One key of one dimension."""

    value: str
    """As traffic has it: not to be shown as it is."""
    requests: int
    errors: int
    tokens: int
    cost_micro: int
    registrations: int
    blocks: U32
    """u32[BLOCKS]: its requests (of cohorts: registrations) over time."""


class Gathering:
    """Looks on.

    Args:
        lateness_s: how far ahead of the newest confirmed time a tick is still believed.
        talkers: keys that the table holds.
        kept: keys of each dimension that stay when it is full.
    """

    def __init__(self, lateness_s: int, talkers: int = TALKERS, kept: int = KEPT_OF_DIMENSION) -> None:
        self._kept = kept
        self._lateness_s = lateness_s
        self._width_at = 0
        self.origin = 0
        """The tick at which the series begins; a multiple of the length of a block."""
        self.series: I64 = np.zeros((BUCKETS, SERIES), np.int64)
        self._bins: U32 = np.zeros((BUCKETS, BINS), np.uint32)
        self._slots = np.zeros(1 << (2 * talkers).bit_length(), np.int32)
        self._talkers = np.zeros((talkers, TALKER_WORDS), np.int64)
        self._names = np.zeros((talkers, NAME_BYTES_MAX), np.uint8)
        self._blocks: U32 = np.zeros((talkers, BLOCKS), np.uint32)
        self._used = np.zeros(1, np.int64)
        self._first, self._last = 0, -1
        self._held: list[Tally] = []
        self._held_rows = 0
        self.pruned = 0
        """How often keys were forgotten."""
        self.unplaced = 0
        """Rows with times that nothing else confirmed."""

    @property
    def width_s(self) -> int:
        """Seconds of a bucket."""
        return WIDTHS_S[self._width_at]

    @property
    def span(self) -> tuple[int, int]:
        """The first tick that was seen, and the one after the last; equal: nothing was."""
        return self._first, self._last + 1

    def see(self, tally: Tally) -> None:
        """Take in a tally, whose memory may be used again afterwards."""
        if tally.tick_min > tally.tick_max:
            return
        confirmed = UNKNOWN_MS if tally.newest_ms == UNKNOWN_MS else tally.newest_ms // 1000 + self._lateness_s
        held, self._held, self._held_rows = self._held, [], 0
        for one in (*held, tally):
            self._place(one, confirmed)

    def finish(self) -> None:
        """All has been seen. What nothing confirmed is taken in where it belongs to the time that was."""
        held, self._held = self._held, []
        most = self._last + BUCKETS * self.width_s // 2 if self._last >= self._first else None
        for one in held:
            self._place(one, one.tick_max if most is None else most, last=True)

    def _place(self, tally: Tally, confirmed: int, *, last: bool = False) -> None:
        if tally.tick_max > confirmed:
            ticks = tally.column(C_TICK)
            ahead = np.flatnonzero(ticks > confirmed)
            if last or self._held_rows + len(ahead) > HELD_ROWS_MAX:
                self.unplaced += len(ahead)
            else:
                self._held.append(tally.take(ahead))
                self._held_rows += len(ahead)
            within = np.flatnonzero(ticks <= confirmed)
            sample = tally.sample
            tally = tally.take(within)
            tally.sample = sample
            if not len(within):
                return
        self._make_room(tally.tick_min, tally.tick_max)
        table = (self._slots, self._talkers, self._names, self._blocks, self._used)
        records, at = tally.records, 0
        while True:
            at = add_rows_kernel(records, tally.names, at, self.origin, self.width_s, self.series, self._bins, *table)
            if at == len(records):
                break
            self._prune()
        sample, at = tally.sample, 0
        while len(sample.entries):
            at = add_sample_kernel(
                sample.cells,
                sample.entries,
                sample.words,
                sample.text_start,
                sample.text,
                at,
                self.origin,
                self.width_s,
                *table,
            )
            if at == len(sample.entries):
                break
            self._prune()

    def _make_room(self, first: int, last: int) -> None:
        """Let the series reach over these ticks, too."""
        if self._last < self._first:
            self._first, self._last = first, last
            self.origin = first - first % (PER_BLOCK * self.width_s)
        self._first, self._last = min(self._first, first), max(self._last, last)
        at = self._width_at
        while True:
            block = PER_BLOCK * WIDTHS_S[at]
            origin = self._first - self._first % block
            if self._last < origin + BLOCKS * block:
                break
            at += 1
        if (origin, at) != (self.origin, self._width_at):
            old, new = self.width_s, WIDTHS_S[at]
            to = (np.arange(BUCKETS) * old + self.origin - origin) // new
            self.series, self._bins = _moved(self.series, to, 0), _moved(self._bins, to, 0)
            used = int(self._used[0])
            self._blocks[:used] = _moved(self._blocks[:used], to[::PER_BLOCK] // PER_BLOCK, 1)
            self.origin, self._width_at = origin, at

    def _prune(self) -> None:
        """Forget the lightest keys of each dimension."""
        self.pruned += 1
        used = int(self._used[0])
        talkers = self._talkers[:used]
        keep = np.zeros(used, np.bool_)
        for dimension in np.unique(talkers[:, T_DIMENSION]).tolist():
            rows = np.flatnonzero(talkers[:, T_DIMENSION] == dimension)
            order = np.argsort(-talkers[rows, T_REQUESTS], kind="stable")
            keep[rows[order[: self._kept]]] = True
        kept = np.flatnonzero(keep)
        for array in (self._talkers, self._names, self._blocks):
            array[: len(kept)] = array[kept]
        self._blocks[len(kept) : used] = 0
        self._used[0] = len(kept)
        self._slots[:] = 0
        index_kernel(self._talkers, len(kept), self._slots)

    def entropy(self) -> npt.NDArray[np.float64]:
        """f64[BUCKETS]: how evenly each bucket's requests are spread over addresses, in bits; NaN: there were none."""
        counts = self._bins.astype(np.float64)
        total = counts.sum(axis=1)
        weighted = np.where(counts > 0, counts * np.log2(np.maximum(counts, 1)), 0).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            bits: npt.NDArray[np.float64] = np.where(total > 0, np.log2(total) - weighted / total, np.nan)
        return bits

    def dimensions(self) -> list[Dimension]:
        """Those that there are keys of, most telling first."""
        seen = set(np.unique(self._talkers[: int(self._used[0]), T_DIMENSION]).tolist())
        order = (
            Dimension.IP, Dimension.NET, Dimension.API_KEY, Dimension.ROUTE, Dimension.USER_AGENT, Dimension.COUNTRY,
            Dimension.EMAIL_DOMAIN, Dimension.FINGERPRINT, Dimension.SERVICE,
        )  # fmt: skip
        return [one for one in order if one in seen]

    def talkers(self, dimension: int, weights: npt.NDArray[np.float64], most: int) -> Iterator[Talker]:
        """The heaviest keys of a dimension, when each block counts as much as ``weights`` (f64[BLOCKS]) says."""
        yield from self._top(dimension, weights, most, T_REQUESTS)

    def registering(self, dimension: int, most: int) -> Iterator[Talker]:
        """The keys of a dimension with the most registrations."""
        for one in self._top(dimension, None, most, T_REGISTRATIONS):
            if one.registrations:
                yield one

    def cohorts(self, weights: npt.NDArray[np.float64], most: int) -> Iterator[tuple[dict[str, str], Talker]]:
        """Registrations that are alike: (what they have in common, how many there were and when)."""
        used = int(self._used[0])
        talkers = self._talkers[:used]
        names = {
            (int(dimension), int(word)): index
            for index, (word, dimension) in enumerate(talkers[:, [T_HASH, T_DIMENSION]].tolist())
            if dimension in (Dimension.EMAIL_DOMAIN, Dimension.USER_AGENT, Dimension.COUNTRY)
        }
        for index in self._order(COHORT, weights, most, T_REQUESTS):
            alike = {}
            for column, dimension in (
                (T_A, Dimension.EMAIL_DOMAIN), (T_B, Dimension.USER_AGENT), (T_C, Dimension.COUNTRY)
            ):  # fmt: skip
                named = names.get((int(dimension), int(talkers[index, column])))
                if named is not None:
                    alike[dimension.label] = self._value(named)
            yield alike, self._talker(index)

    def keys(self, dimension: int) -> dict[str, I64]:
        """Every key of a dimension that is in the table, with its requests in each block (i64[BLOCKS])."""
        talkers = self._talkers[: int(self._used[0])]
        rows = np.flatnonzero(talkers[:, T_DIMENSION] == dimension).tolist()
        return {self._value(index): self._blocks[index].astype(np.int64) for index in rows}

    def count(self, dimension: int) -> int:
        """How many keys of a dimension are in the table."""
        return int((self._talkers[: int(self._used[0]), T_DIMENSION] == dimension).sum())

    def total_blocks(self) -> npt.NDArray[np.int64]:
        """i64[BLOCKS]: everybody's requests."""
        total: npt.NDArray[np.int64] = self.series[:, V_REQUESTS].reshape(BLOCKS, PER_BLOCK).sum(axis=1)
        return total

    def _top(self, dimension: int, weights: npt.NDArray[np.float64] | None, most: int, column: int) -> Iterator[Talker]:
        for index in self._order(dimension, weights, most, column):
            yield self._talker(index)

    def _order(self, dimension: int, weights: npt.NDArray[np.float64] | None, most: int, column: int) -> list[int]:
        talkers = self._talkers[: int(self._used[0])]
        rows = np.flatnonzero(talkers[:, T_DIMENSION] == dimension)
        by = talkers[rows, column] if weights is None else self._blocks[rows] @ weights
        some = rows[by > 0]
        # Equal ones by their hash: the same whatever order they came in.
        order = np.lexsort((talkers[some, T_HASH], -by[by > 0]))[:most]
        return [int(index) for index in some[order]]

    def _talker(self, index: int) -> Talker:
        record = self._talkers[index]
        return Talker(
            self._value(index), int(record[T_REQUESTS]), int(record[T_ERRORS]), int(record[T_TOKENS]),
            int(record[T_COST_MICRO]), int(record[T_REGISTRATIONS]), self._blocks[index].copy(),
        )  # fmt: skip

    def _value(self, index: int) -> str:
        record = self._talkers[index]
        if record[T_DIMENSION] == COHORT:
            return ""
        name = self._names[index, : int(record[T_NAME_LENGTH])].tobytes()
        return target_value(Dimension(int(record[T_DIMENSION])), int(record[T_A]) & _WORD, int(record[T_B]) & _WORD, name)


def _moved(values: npt.NDArray[Count], to: I64, axis: int) -> npt.NDArray[Count]:
    """Added up in other places; what has nowhere to go is nothing."""
    moved = np.zeros_like(values)
    inside = np.flatnonzero((to >= 0) & (to < values.shape[axis]))
    if axis == 0:
        np.add.at(moved, to[inside], values[inside])
    else:
        np.add.at(moved.T, to[inside], values[:, inside].T)
    return moved
