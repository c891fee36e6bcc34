"""replay: recorded traffic, of files and topics, through the engine, as fast as it goes, in step of event time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from engine.account import Account
from engine.clock import Clock
from engine.config_chain import ConfigChain
from engine.embedded import Embedded
from replay.feedback import FeedbackFile
from replay.sink import TakesDecisions
from replay.sources import KAFKA_SCHEME, STDIN, bound_of, expand, make_buffer, open_source
from replay.state import load_state, save_state
from schemas.columns import I64, U8
from schemas.config import Config
from schemas.fields import Poison
from schemas.tally import UNKNOWN_MS, Tally

Progress = Callable[[int, Account | None], None]
"""Called with the bytes read since the last call, compressed or not."""


@dataclass(slots=True)
class Outcome:
    """What a run came to."""

    account: Account
    seconds: float
    sources: int
    bytes: int
    interrupted: bool = False
    ended_early: dict[str, str] = field(default_factory=dict)
    """Sources that broke off, and why."""
    feedback: dict[str, int] | None = None
    """What became of the records of feedback, if there was a file of them."""


class Feeds(Protocol):
    """What a source partition is read into: the engine, or whoever only looks at events. See `engine.embedded.Embedded`."""

    def open(self, name: str, bound_ms: int, start: int = 0) -> None: ...

    def set_bound(self, name: str, bound_ms: int) -> None: ...

    def feed(self, name: str, chunk: U8, length: int, base: int) -> None: ...

    def feed_records(self, name: str, buffer: U8, starts: I64, ends: I64, times_ms: I64, offsets: I64) -> None: ...

    def refuse(self, name: str, start: int, length: int, reason: Poison, at: int = 0, excerpt: bytes = b"") -> None: ...

    def newest_ms(self, name: str) -> int: ...


class Reading(Protocol):
    """A source partition on its way into the engine."""

    name: str

    @property
    def ended(self) -> bool:
        """All has been read."""
        ...

    @property
    def error(self) -> str | None:
        """Why it ended before its end, if it did."""
        ...

    def open(self, engine: Feeds) -> None:
        """Begin, or go on."""
        ...

    def advance(self, engine: Feeds) -> int:
        """Read on and feed what came; returns its bytes."""
        ...

    def close(self) -> None:
        """Nothing more is read."""
        ...


class FileReading:
    """A file, an archive or standard input.

    Raises:
        SourceError: it cannot be opened.
    """

    def __init__(self, config: Config, name: str, known: dict[str, int], clock: Clock, buffer: U8, chunk_bytes: int) -> None:
        self.name = name
        self._start = 0 if name == STDIN else known.get(name, 0)
        self._source = open_source(name, start=self._start, line_max=config.input.record_bytes_max, chunk_bytes=chunk_bytes)
        self._clock, self._buffer = clock, buffer

    @property
    def ended(self) -> bool:
        """All has been read."""
        return self._source.ended

    @property
    def error(self) -> str | None:
        """Why it ended before its end, if it did."""
        return self._source.error

    def open(self, engine: Feeds) -> None:
        """Begin, or go on."""
        engine.open(self.name, bound_of(self.name, self._clock.now_ms()), self._start)

    def advance(self, engine: Feeds) -> int:
        """Read on and feed what came; returns its bytes."""
        length = self._source.read(self._buffer)
        if self.name == STDIN:
            engine.set_bound(STDIN, self._clock.now_ms())
        refused = self._source.refusal
        if refused is not None:
            engine.refuse(self.name, refused.start, refused.length, refused.reason, excerpt=refused.excerpt)
        if length:
            engine.feed(self.name, self._buffer, length, self._source.base)
        return length

    def close(self) -> None:
        """Its stream closes with it."""


def replay(
    config: Config,
    paths: list[str],
    sink: TakesDecisions,
    clock: Clock,
    *,
    between_ms: tuple[int | None, int | None] = (None, None),
    state: Path | None = None,
    early: bool = False,
    threads: int = 1,
    chunk_bytes: int = 1 << 20,
    progress: Callable[[int], None] | None = None,
    history: ConfigChain | None = None,
    feedback: Path | None = None,
    onlooker: Callable[[Tally], None] | None = None,
) -> Outcome:
    """Read all sources to their end and decide.

    With ``state``, an interrupted run leaves one, and a run that finds one goes on from it. With ``history``, each second is
    decided by the configuration that held then. ``feedback``: a file of records, each of which holds from the second that it
    names. ``onlooker`` is shown what was counted (`Embedded.onlooker`).

    Raises:
        SourceError: a source cannot be opened. StateError: the state cannot be used. BrokerError: Kafka cannot be read.
    """
    began = time.perf_counter()
    saved = load_state(state)
    if saved is None:
        engine = Embedded(config, early=early, threads=threads, between_ms=between_ms, history=history)
    else:
        engine = Embedded.restore(config, saved, early=early, threads=threads, between_ms=between_ms, history=history)
    engine.onlooker = onlooker
    if feedback is not None:
        FeedbackFile(feedback, follow=False).give(engine)
    known = engine.positions()
    readings = open_readings(config, paths, clock, between_ms, known, chunk_bytes)
    outcome = Outcome(Account(), 0.0, len(readings), 0)
    for reading in readings:
        reading.open(engine)
    unread = list(readings)
    try:
        while unread:
            reading = min(unread, key=lambda r: _order(engine.newest_ms(r.name)))
            length = 0 if reading.ended else reading.advance(engine)
            outcome.bytes += length
            if reading.ended:
                if reading.error is not None:
                    outcome.ended_early[reading.name] = reading.error
                engine.close(reading.name)
                unread.remove(reading)
            sink.write(engine.take())
            if progress is not None:
                progress(length)
        engine.finish()
    except KeyboardInterrupt:
        outcome.interrupted = True
        if state is not None:
            engine.account()
            sink.write(engine.take())
            save_state(state, engine.snapshot())
        else:
            engine.finish()
    finally:
        for reading in readings:
            reading.close()
    outcome.account = engine.account()
    sink.write(engine.take())
    outcome.feedback = None if feedback is None else engine.feedback_counts()
    engine.stop()
    if not outcome.interrupted and state is not None:
        save_state(state, engine.snapshot())
    outcome.seconds = time.perf_counter() - began
    return outcome


def open_readings(
    config: Config,
    paths: list[str],
    clock: Clock,
    between_ms: tuple[int | None, int | None],
    known: dict[str, int],
    chunk_bytes: int = 1 << 20,
) -> list[Reading]:
    """Every source partition that paths and addresses name, from where ``known`` says on.

    Raises:
        SourceError: a source cannot be opened. BrokerError: Kafka cannot be read.
    """
    names = expand([path for path in paths if not path.startswith(KAFKA_SCHEME)])
    buffer = make_buffer(config.input.record_bytes_max, chunk_bytes)
    readings: list[Reading] = [FileReading(config, name, known, clock, buffer, chunk_bytes) for name in names]
    for url in dict.fromkeys(path for path in paths if path.startswith(KAFKA_SCHEME)):
        from replay.kafka import open_partitions

        readings += open_partitions(config, url, between_ms, known)
    return readings


def _order(newest_ms: int) -> int:
    return newest_ms if newest_ms != UNKNOWN_MS else -(2**63)
