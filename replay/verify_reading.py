"""What verify reads again: source partitions as files or topics, from one offset on, with what is not there any more said."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from engine.digesting import Digester
from engine.embedded import Embedded
from replay.reread import find_file
from replay.sources import KAFKA_SCHEME, Refusal, bound_of, read_between
from schemas.columns import I64, U8
from schemas.config import Config
from schemas.errors import SourceError, UsageError


class Portion(Protocol):
    """Some records of a source, in order."""

    @property
    def end(self) -> int:
        """The offset after the last."""
        ...

    def feed(self, engine: Embedded, name: str) -> None:
        """Have them decided."""
        ...

    def digest(self, digester: Digester, low: int, high: int) -> None:
        """Add up those at offsets of [low, high)."""
        ...

    def records(self, low: int, high: int) -> Iterator[tuple[int, int, bytes]]:
        """(offset, time, bytes) of those at offsets of [low, high)."""
        ...


class Source(Protocol):
    """One source partition."""

    # No `replay.reading.Reading`, which feeds an engine while it reads, from where a run left off to the end, under the name
    # that the file has now. Here pieces are asked for, between two offsets, under the names that evidence has for them: their
    # bytes are added up before the engine has them, no more is read than somebody asks about, and two copies are read side by
    # side.

    name: str
    first: int
    """The first offset that is kept."""
    begins_at: int
    """The first there ever was, as far as can be known."""

    def bound_ms(self) -> int:
        """See `Embedded.open`."""
        ...

    def portions(self, start: int, end: int) -> Iterator[Portion]:
        """What is there of offsets [start, end)."""
        ...


@dataclass(slots=True)
class Lines:
    """Whole lines of a file."""

    buffer: U8
    length: int
    base: int

    @property
    def end(self) -> int:
        """See `Portion`."""
        return self.base + self.length

    def feed(self, engine: Embedded, name: str) -> None:
        """See `Portion`."""
        engine.feed(name, self.buffer, self.length, self.base)

    def digest(self, digester: Digester, low: int, high: int) -> None:
        """See `Portion`."""
        start, end = max(low - self.base, 0), min(high - self.base, self.length)
        if start < end:
            digester.add_lines(self.buffer, start, end, self.base)

    def records(self, low: int, high: int) -> Iterator[tuple[int, int, bytes]]:
        """See `Portion`."""
        at = max(low - self.base, 0)
        for line in self.buffer[at : max(at, min(high - self.base, self.length))].tobytes().splitlines(keepends=True):
            yield self.base + at, 0, line
            at += len(line)


@dataclass(slots=True)
class Refused:
    """Bytes that never became a line: no digest holds them."""

    refusal: Refusal

    @property
    def end(self) -> int:
        """See `Portion`."""
        return self.refusal.start + self.refusal.length

    def feed(self, engine: Embedded, name: str) -> None:
        """See `Portion`."""
        engine.refuse(name, self.refusal.start, self.refusal.length, self.refusal.reason)

    def digest(self, digester: Digester, low: int, high: int) -> None:
        """Nothing."""

    def records(self, low: int, high: int) -> Iterator[tuple[int, int, bytes]]:
        """None."""
        yield from ()


@dataclass(slots=True)
class Messages:
    """Messages of a partition."""

    buffer: U8
    starts: I64
    ends: I64
    times_ms: I64
    offsets: I64

    @property
    def end(self) -> int:
        """See `Portion`."""
        return int(self.offsets[-1]) + 1

    def feed(self, engine: Embedded, name: str) -> None:
        """See `Portion`."""
        engine.feed_records(name, self.buffer, self.starts, self.ends, self.times_ms, self.offsets)

    def digest(self, digester: Digester, low: int, high: int) -> None:
        """See `Portion`."""
        some = slice(*np.searchsorted(self.offsets, (low, high)).tolist())
        digester.add_records(self.buffer, self.starts[some], self.ends[some], self.offsets[some], self.times_ms[some])

    def records(self, low: int, high: int) -> Iterator[tuple[int, int, bytes]]:
        """See `Portion`."""
        first, last = np.searchsorted(self.offsets, (low, high)).tolist()
        for k in range(first, last):
            yield int(self.offsets[k]), int(self.times_ms[k]), self.buffer[self.starts[k] : self.ends[k]].tobytes()


class FileSource:
    """A file or archive.

    Raises:
        SourceError: there is none.
    """

    begins_at = 0
    first = 0

    def __init__(self, name: str, path: str, line_max: int) -> None:
        if not os.path.isfile(path):
            raise SourceError(f"expected a log file at {path}, got none")
        self.name, self._path, self._line_max = name, path, line_max

    def bound_ms(self) -> int:
        """See `Source`."""
        return bound_of(self._path, 0)

    def portions(self, start: int, end: int) -> Iterator[Portion]:
        """See `Source`. Raises `SourceError` when it cannot be opened, or is an archive that ends before ``start``."""
        if start > 0 and start >= os.path.getsize(self._path) and not self._path.endswith((".gz", ".zst")):
            return
        for refusal, buffer, length, base in read_between(self._path, start, end, self._line_max):
            if refusal is not None:
                yield Refused(refusal)
            if length:
                yield Lines(buffer, length, base)


def open_sources(config: Config, names: set[str], given: list[str], *, live: bool) -> tuple[dict[str, Source], list[str]]:
    """(source partitions by the names that evidence has for them, and further ones; what is not here, a sentence each).

    Args:
        names: that evidence has.
        given: where the traffic is, if not where it was: files, or ``kafka://host/topic`` for a copy of a topic.
        live: what is no file is a topic of the configured brokers.

    Raises:
        SourceError: a file is not there. UsageError: it is not clear which of several is meant. BrokerError: Kafka cannot be
            reached.
    """
    urls, files = [one for one in given if one.startswith(KAFKA_SCHEME)], [one for one in given if KAFKA_SCHEME not in one]
    found: dict[str, Source] = {}
    left, used = [], set[str]()
    for name in sorted(names):
        path = None if _partition_of(name) is not None and (live or urls) else find_file(name, files)
        if path is None:
            left.append(name)
        else:
            used.add(path)
            found[name] = FileSource(name, path, config.input.record_bytes_max)
    for path in files:
        if path not in used:
            found[path] = FileSource(path, path, config.input.record_bytes_max)
    if not urls and not live:
        return found, [f"{name} is not here: name where it is" for name in left]
    if len(urls) > 1:
        raise UsageError(f"expected one kafka:// source, with all its topics in it, got {len(urls)}")
    partitions = {name: split for name in left if (split := _partition_of(name)) is not None}
    missing = [f"{name} is not here: name the file" for name in left if name not in partitions]
    if partitions:
        from replay.verify_kafka import open_partitions

        kept, gone = open_partitions(config, partitions, urls[0] if urls else None)
        found.update(kept)
        missing += gone
    return found, missing


def _partition_of(name: str) -> tuple[str, int] | None:
    topic, _, number = name.rpartition("-")
    return (topic, int(number)) if topic and number.isdigit() and "/" not in topic else None
