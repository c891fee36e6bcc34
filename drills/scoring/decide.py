"""The engine over bytes in memory, as a live run would have decided: early records too."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from drills.scoring.exposure import LATER_MS
from engine.embedded import Embedded
from engine.outbox import Decisions
from schemas.config import Config

_SOURCE = "drill"


class Decider:
    """Takes blocks of whole lines in the order of their times."""

    def __init__(self, config: Config) -> None:
        self._engine = Embedded(config, early=True)
        self._engine.open(_SOURCE, LATER_MS)
        self._buffer = np.zeros(1 << 21, np.uint8)
        self._base = 0

    def take(self, data: bytes) -> None:
        """Whole lines."""
        if 2 * len(data) + 16_384 > len(self._buffer):
            self._buffer = np.zeros(4 * len(data) + 16_384, np.uint8)
        self._buffer[: len(data)] = np.frombuffer(data, np.uint8)
        self._engine.feed(_SOURCE, self._buffer, len(data), self._base)
        self._base += len(data)

    def finish(self) -> Decisions:
        """All decisions; the engine is of no use afterwards."""
        self._engine.close(_SOURCE)
        self._engine.finish()
        self._engine.stop()
        return self._engine.take()


def decided(config: Config, blocks: Iterable[bytes]) -> Decisions:
    """What is decided about these lines."""
    decider = Decider(config)
    for block in blocks:
        decider.take(block)
    return decider.finish()
