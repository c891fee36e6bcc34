"""replay: recorded traffic, of files and topics, through the engine, as fast as it goes, in step of event time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.account import Account
from engine.clock import Clock
from engine.config_chain import ConfigChain
from engine.embedded import Embedded
from replay.feedback import FeedbackFile
from replay.moments import Offsets
from replay.pace import CHUNK_BYTES as PACED_BYTES
from replay.pace import Pace
from replay.parquet import AHEAD_FILES_MAX, ParquetReading, is_parquet
from replay.reading import HELD_MAX, FileReading, Reading
from replay.redact import Redaction
from replay.sink import TakesDecisions
from replay.sources import KAFKA_SCHEME, expand, is_plain_file, make_buffer
from replay.state import load_state, save_state
from schemas.config import Config
from schemas.errors import SourceError, UsageError
from schemas.tally import UNKNOWN_MS, Tally

TELL_EVERY_S = 0.2
BYTES_OF_AN_OFFSET = 300
"""For the share that has been read where files and topics, or rows, are read together."""


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
    missing: dict[str, list[str]] = field(default_factory=dict)
    """What of sources was not there to be read, in words: gone from a topic, say."""
    manifest: dict[str, Any] | None = None
    """What was read, if it was asked for (`replay.manifest`)."""
    config_history: dict[str, Any] | None = None
    """Where changes of the configuration came from, and how many; none: there were none to hold to."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is."""

    bytes: int
    events: int
    newest_ms: int
    """Of the source that is furthest behind; `schemas.tally.UNKNOWN_MS` before its first event."""
    share: float | None
    """Read, of all there is; None where nobody knows how much that is."""
    seconds: float


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
    history: ConfigChain | None = None,
    feedback: Path | None = None,
    onlooker: Callable[[Tally], None] | None = None,
    offsets: Offsets | None = None,
    speed: float | None = None,
    manifest: bool = False,
    stop: Callable[[], bool] = lambda: False,
    tell: Callable[[Progress], None] | None = None,
) -> Outcome:
    """Read all sources to their end and decide.

    With ``state``, an interrupted run leaves one, and a run that finds one goes on from it. With ``history``, each second is
    decided by the configuration that held then. ``feedback``: a file of records, each of which holds from the second that it
    names. ``offsets``: of partitions, the part to read. ``speed``: so many seconds of event time in one of the clock; none: as
    fast as it goes. ``stop``: asked between two chunks; what has been read until then is decided. ``tell`` is told of progress.
    ``onlooker`` is shown what was counted (`Embedded.onlooker`).

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
    if speed is not None:
        chunk_bytes = min(chunk_bytes, PACED_BYTES)
    readings = open_readings(
        config, paths, clock, between_ms, engine.positions(), chunk_bytes=chunk_bytes, offsets=offsets, digest=manifest
    )
    outcome = Outcome(Account(), 0.0, len(readings), 0)
    redaction = Redaction(config.input.fields)
    order = _Order(engine, readings)
    pace = None if speed is None else Pace(speed, clock, stop)
    told_s = 0.0
    try:
        while (reading := order.next()) is not None and not stop():
            length = 0 if reading.ended else reading.advance(engine)
            outcome.bytes += length
            newest_ms = engine.newest_ms(reading.name)
            if reading.ended:
                if reading.error is not None:
                    outcome.ended_early[reading.name] = reading.error
                order.leave(reading)
            sink.write(engine.take())
            seconds = time.perf_counter() - began
            if tell is not None and seconds - told_s > TELL_EVERY_S:
                told_s = seconds
                tell(Progress(outcome.bytes, engine.events, newest_ms, _share(readings), seconds))
            if pace is not None and newest_ms != UNKNOWN_MS:
                pace.keep(newest_ms)
        outcome.interrupted = reading is not None
    except KeyboardInterrupt:
        outcome.interrupted = True
    finally:
        for one in readings:
            one.close()
    if outcome.interrupted and state is not None:
        redaction.account(engine.account())
        sink.write(engine.take())
        save_state(state, engine.snapshot())
    else:
        engine.finish()
    outcome.account = engine.account()
    redaction.account(outcome.account)
    sink.write(engine.take())
    outcome.feedback = None if feedback is None else engine.feedback_counts()
    outcome.missing = {one.name: one.missing for one in readings if one.missing}
    if manifest:
        from replay.manifest import make_manifest

        outcome.manifest = make_manifest(config, engine, readings, between_ms, history, interrupted=outcome.interrupted)
    engine.stop()
    if not outcome.interrupted and state is not None:
        save_state(state, engine.snapshot())
    outcome.seconds = time.perf_counter() - began
    return outcome


def open_readings(
    config: Config, paths: list[str], clock: Clock, between_ms: tuple[int | None, int | None], known: dict[str, int], *,
    chunk_bytes: int = 1 << 20, offsets: Offsets | None = None, digest: bool = False,
) -> list[Reading]:  # fmt: skip
    """Every source partition that paths and addresses name, from where ``known`` says on.

    What can be known to be wrong with one is said before any is read.

    Raises:
        SourceError: a source cannot be opened. BrokerError: Kafka cannot be read.
    """
    names = expand([path for path in paths if not path.startswith(KAFKA_SCHEME)])
    buffer = make_buffer(config.input.record_bytes_max, chunk_bytes)
    readings: list[Reading] = []
    for name in names:
        start = known.get(name, 0)
        if is_plain_file(name) and is_parquet(name):
            ahead = len(names) <= AHEAD_FILES_MAX
            readings.append(ParquetReading(config, name, start, clock, digest=digest, ahead=ahead))
        else:
            held = len(names) <= HELD_MAX
            readings.append(FileReading(config, name, start, clock, buffer, chunk_bytes, digest=digest, held=held))
    urls = list(dict.fromkeys(path for path in paths if path.startswith(KAFKA_SCHEME)))
    if offsets and not urls:
        raise UsageError("expected a kafka:// source with --offsets, got files only")
    for url in urls:
        from replay.kafka import open_partitions

        readings += open_partitions(config, url, between_ms, known, offsets, digest=digest)
    unread = set(offsets or {}) - {reading.name for reading in readings}
    if unread:
        raise SourceError(f"expected offsets of a partition that is read, got {sorted(unread)[0]}")
    return readings


class _Order:
    """Which source is read next: the one that is furthest behind in event time."""

    def __init__(self, engine: Embedded, readings: list[Reading]) -> None:
        self._engine, self._unread = engine, list(readings)
        self._begins: dict[str, int] = {}
        for reading in readings:
            reading.open(engine)
        for reading in readings if len(readings) > 1 else ():
            begins_ms = reading.begins_ms()
            if begins_ms is not None:
                self._begins[reading.name] = begins_ms
                engine.foretell(reading.name, begins_ms)

    def next(self) -> Reading | None:
        """None: all have been read."""
        return min(self._unread, key=self._time) if self._unread else None

    def leave(self, reading: Reading) -> None:
        """It has ended."""
        self._engine.close(reading.name)
        self._unread.remove(reading)
        reading.close()

    def _time(self, reading: Reading) -> int:
        newest_ms = self._engine.newest_ms(reading.name)
        return newest_ms if newest_ms != UNKNOWN_MS else self._begins.get(reading.name, -(2**63))


def _share(readings: list[Reading]) -> float | None:
    """How much has been read of all."""
    done = total = 0.0
    mixed = len({type(reading) for reading in readings}) > 1
    for reading in readings:
        read, whole = reading.share
        if whole == 0 and not reading.ended:
            return None
        weight = BYTES_OF_AN_OFFSET if mixed and not isinstance(reading, FileReading) else 1
        done, total = done + weight * (whole if reading.ended else read), total + weight * whole
    return done / total if total else None
