"""Events of sources read for themselves: decoded exactly as the engine decodes them, and nothing is decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engine.clock import Clock
from engine.geo import make_geo
from engine.seeds import Seeds
from replay.run import open_readings
from schemas.columns import I64, U8, Columns
from schemas.config import Config
from schemas.decode import Decoder
from schemas.errors import SourceError
from schemas.fields import Number, Poison
from schemas.tally import UNKNOWN_MS

Labels = npt.NDArray[np.uint16]


class TakesEvents(Protocol):
    """Called for each batch of decoded events."""

    def take(self, columns: Columns, labels: I64 | None = None) -> None:
        """``labels``: i64[n], if all sources have labels. What is needed later is copied."""
        ...


class EventPass:
    """What sources are read into; see `replay.reading.Feeds`.

    Args:
        labels: of each source, one for each line; empty: there are none.
    """

    def __init__(self, config: Config, seeds: Seeds, to: TakesEvents, labels: Mapping[str, Labels]) -> None:
        self._decoder = Decoder(
            config.input, key_seed=seeds.key, ahead_ms=config.time.ahead_s * 1000, events_max=config.engine.chunk_events
        )
        self._geo = make_geo(config.input.geo)
        self._to, self._labels = to, labels
        self._bounds: dict[str, int] = {}
        self.lines: dict[str, int] = {}
        """Of each source, read so far."""

    def open(self, name: str, bound_ms: int, start: int = 0) -> None:
        """Begin a source; nothing of it has been read."""
        self._bounds[name], self.lines[name] = bound_ms, 0

    def set_bound(self, name: str, bound_ms: int) -> None:
        """The file was modified since."""
        self._bounds[name] = bound_ms

    def feed(self, name: str, chunk: U8, length: int, base: int) -> None:
        """Whole lines."""
        decoder, at = self._decoder, 0
        while at < length:
            at = decoder.decode_lines(chunk, length, at, bound_ms=self._bounds[name], events_max=decoder.capacity)
            self._hand_on(name)

    def feed_records(self, name: str, buffer: U8, starts: I64, ends: I64, times_ms: I64, offsets: I64) -> None:
        """Messages of one partition."""
        decoder, at = self._decoder, 0
        while at < len(starts):
            at = decoder.decode_records(buffer, starts, ends, times_ms, at, events_max=decoder.capacity)
            self._hand_on(name)

    def refuse(self, name: str, start: int, length: int, reason: Poison, at: int = 0, excerpt: bytes = b"") -> None:
        """A line that is no event."""
        self.lines[name] += 1

    def skip(self, name: str, position: int) -> None:
        """What lay before is gone, and said by whoever reads."""

    def newest_ms(self, name: str) -> int:
        """Nobody asks what is newest: each source is read to its end, one after the other."""
        return UNKNOWN_MS

    def _hand_on(self, name: str) -> None:
        decoder = self._decoder
        columns, before = decoder.columns, self.lines[name]
        self.lines[name] = before + decoder.records
        if not columns.n:
            return
        if self._geo is not None:
            self._geo.fill(columns)
        if not self._labels:
            self._to.take(columns)
            return
        lines = columns.number(Number.RECORD) + before
        labels = self._labels[name]
        if int(lines[-1]) >= len(labels):
            raise SourceError(f"expected a label for each line of {name}, got {len(labels):,} labels and more lines")
        self._to.take(columns, labels[lines].astype(np.int64))


def pass_over(
    config: Config,
    paths: list[str],
    clock: Clock,
    seeds: Seeds,
    to: TakesEvents,
    *,
    between_ms: tuple[int | None, int | None] = (None, None),
    labels: Mapping[str, Labels] | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Read all sources to their end, one after the other. What is outside ``between_ms`` may be among it.

    Raises:
        SourceError: a source cannot be opened, or has not as many lines as labels. BrokerError: Kafka cannot be read.
    """
    events = EventPass(config, seeds, to, labels or {})
    readings = open_readings(config, paths, clock, between_ms, {})
    try:
        for reading in readings:
            reading.open(events)
            while not reading.ended:
                length = reading.advance(events)
                if progress is not None:
                    progress(length)
            if labels and reading.error is None and events.lines[reading.name] != len(labels[reading.name]):
                raise SourceError(
                    f"expected a label for each line of {reading.name}, got {len(labels[reading.name]):,} labels and "
                    f"{events.lines[reading.name]:,} lines"
                )
    finally:
        for reading in readings:
            reading.close()
