"""The engine over bytes in memory, as a live run would have decided: early records too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from drills.scoring.exposure import LATER_MS
from engine.embedded import Embedded
from engine.outbox import Decisions
from schemas.config import Config
from schemas.decode import Decoder
from schemas.fields import Number

_SOURCE = "drill"
_NEWLINE = 10


class Decider:
    """Takes blocks of whole lines in the order of their times.

    Early records hang on how much a judge is told of at a time. Live it hears of each second before the next one begins; of a
    quiet log a block is hours, and what is usual would be known only after them. So it is given second by second.

    Args:
        early: also decide early. Without, blocks go in as they are: final decisions are the same however they are cut.
    """

    def __init__(self, config: Config, *, early: bool = True) -> None:
        self._engine = Embedded(config, early=early)
        self._engine.open(_SOURCE, LATER_MS)
        self._seconds = Seconds(config) if early else None
        self._second: list[bytes] = []
        """What came of the second that is not over"""
        self._buffer = np.zeros(1 << 21, np.uint8)
        self._base = 0

    def take(self, data: bytes) -> None:
        """Whole lines."""
        if self._seconds is None:
            self._feed(data)
            return
        at = 0
        for start in self._seconds.starts(data):
            self._end_second(data[at:start])
            at = start
        self._second.append(data[at:])

    def _end_second(self, data: bytes) -> None:
        """Nothing newer will be of it."""
        self._feed(b"".join([*self._second, data]))
        self._second = []

    def _feed(self, data: bytes) -> None:
        if not data:
            return
        if 2 * len(data) + 16_384 > len(self._buffer):
            self._buffer = np.zeros(4 * len(data) + 16_384, np.uint8)
        self._buffer[: len(data)] = np.frombuffer(data, np.uint8)
        self._engine.feed(_SOURCE, self._buffer, len(data), self._base)
        self._base += len(data)

    def finish(self) -> Decisions:
        """All decisions; the engine is of no use afterwards."""
        self._end_second(b"")
        self._engine.close(_SOURCE)
        self._engine.finish()
        self._engine.stop()
        return self._engine.take()


class Seconds:
    """Where in a log seconds begin that nothing before was of."""

    def __init__(self, config: Config) -> None:
        self._decoder = Decoder(config.input, key_seed=(1, 2), ahead_ms=0)
        self._buffer = np.zeros(0, np.uint8)
        self._newest_s = -1

    def starts(self, data: bytes) -> list[int]:
        """First bytes of the lines that are newer by a second than all before them."""
        found = []
        for start, time_s in self._lines(data):
            if time_s > self._newest_s:
                found.append(start)
                self._newest_s = time_s
        return found

    def _lines(self, data: bytes) -> Iterator[tuple[int, int]]:
        """(its first byte, its newest second) of each line with an event that is newer than those before it here."""
        if 2 * len(data) + 16_384 > len(self._buffer):
            self._buffer = np.zeros(4 * len(data) + 16_384, np.uint8)
        self._buffer[: len(data)] = np.frombuffer(data, np.uint8)
        begins = np.concatenate([[0], np.flatnonzero(self._buffer[: len(data)] == _NEWLINE) + 1])
        at = before = 0
        while at < len(data):
            at = self._decoder.decode_lines(self._buffer, len(data), at, bound_ms=LATER_MS, events_max=self._decoder.capacity)
            columns = self._decoder.columns
            time_s = columns.number(Number.TIME_MS) // 1000
            newer = np.flatnonzero(np.diff(np.maximum.accumulate(time_s), prepend=-1) > 0)
            lines = begins[columns.number(Number.RECORD)[newer] + before]
            yield from zip(lines.tolist(), time_s[newer].tolist(), strict=True)
            before += self._decoder.records


def decided(config: Config, blocks: Iterable[bytes]) -> Decisions:
    """What is decided about these lines."""
    decider = Decider(config)
    for block in blocks:
        decider.take(block)
    return decider.finish()
