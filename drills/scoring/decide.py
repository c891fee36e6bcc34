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
        step_s: so many seconds at a time, where days of next to nothing are not worth a tally each.
    """

    def __init__(self, config: Config, *, early: bool = True, step_s: int = 1) -> None:
        self._engine = Embedded(config, early=early)
        self._engine.open(_SOURCE, LATER_MS)
        self._steps = Steps(config, step_s) if early else None
        self._step: list[bytes] = []
        """What came of the step that is not over"""
        self._buffer = np.zeros(1 << 21, np.uint8)
        self._base = 0

    def take(self, data: bytes) -> None:
        """Whole lines."""
        if self._steps is None:
            self._feed(data)
            return
        at = 0
        for start in self._steps.starts(data):
            self._end_step(data[at:start])
            at = start
        self._step.append(data[at:])

    def _end_step(self, data: bytes) -> None:
        """Nothing newer will be of it."""
        self._feed(b"".join([*self._step, data]))
        self._step = []

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
        self._end_step(b"")
        self._engine.close(_SOURCE)
        self._engine.finish()
        self._engine.stop()
        return self._engine.take()


class Steps:
    """Where in a log steps of ``step_s`` seconds begin that nothing before was of."""

    def __init__(self, config: Config, step_s: int) -> None:
        self._step_ms = 1000 * step_s
        self._decoder = Decoder(config.input, key_seed=(1, 2), ahead_ms=0)
        self._buffer = np.zeros(0, np.uint8)
        self._newest = -1

    def starts(self, data: bytes) -> list[int]:
        """First bytes of the lines that are of a later step than all before them."""
        found = []
        for start, step in self._lines(data):
            if step > self._newest:
                found.append(start)
                self._newest = step
        return found

    def _lines(self, data: bytes) -> Iterator[tuple[int, int]]:
        """(its first byte, its step) of each line with an event of a later step than those before it here."""
        if 2 * len(data) + 16_384 > len(self._buffer):
            self._buffer = np.zeros(4 * len(data) + 16_384, np.uint8)
        self._buffer[: len(data)] = np.frombuffer(data, np.uint8)
        begins = np.concatenate([[0], np.flatnonzero(self._buffer[: len(data)] == _NEWLINE) + 1])
        at = before = 0
        while at < len(data):
            at = self._decoder.decode_lines(self._buffer, len(data), at, bound_ms=LATER_MS, events_max=self._decoder.capacity)
            columns = self._decoder.columns
            steps = columns.number(Number.TIME_MS) // self._step_ms
            newer = np.flatnonzero(np.diff(np.maximum.accumulate(steps), prepend=-1) > 0)
            lines = begins[columns.number(Number.RECORD)[newer] + before]
            yield from zip(lines.tolist(), steps[newer].tolist(), strict=True)
            before += self._decoder.records


def decided(config: Config, blocks: Iterable[bytes], step_s: int = 1, *, early: bool = True) -> Decisions:
    """What is decided about these lines; see `Decider`."""
    decider = Decider(config, early=early, step_s=step_s)
    for block in blocks:
        decider.take(block)
    return decider.finish()
