"""A source partition on its way into the engine, and files as such: opened when their turn comes, in the order of their times.

A folder may hold a year of rotated logs. What orders them is when their first events happened, not how they are named; each
is held back until the others are that far, so that neither files are open nor seconds are waited for by the hundred.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.clock import Clock
from replay.sources import STDIN, ByteStream, LineSource, bound_of, is_plain_file, make_buffer, open_source
from schemas.columns import I64, U8
from schemas.config import Config
from schemas.decode import Decoder
from schemas.fields import Number, Poison

PEEK_BYTES = 1 << 16
"""Looked at to learn when a file begins."""
HELD_MAX = 128
"""Of more files, each is opened when its turn comes: systems allow a process 256 to 1,024."""


class Feeds(Protocol):
    """What a source partition is read into: the engine, or whoever only looks at events. See `engine.embedded.Embedded`."""

    def open(self, name: str, bound_ms: int, start: int = 0) -> None: ...

    def set_bound(self, name: str, bound_ms: int) -> None: ...

    def feed(self, name: str, chunk: U8, length: int, base: int) -> None: ...

    def feed_records(self, name: str, buffer: U8, starts: I64, ends: I64, times_ms: I64, offsets: I64) -> None: ...

    def refuse(self, name: str, start: int, length: int, reason: Poison, at: int = 0, excerpt: bytes = b"") -> None: ...

    def newest_ms(self, name: str) -> int: ...

    def skip(self, name: str, position: int) -> None: ...


class Reading(Protocol):
    """A source partition on its way into the engine."""

    name: str
    missing: list[str]
    """What was asked for and is not there, or could not be read, in words."""

    @property
    def ended(self) -> bool:
        """All has been read."""
        ...

    @property
    def error(self) -> str | None:
        """Why it ended before its end, if it did."""
        ...

    @property
    def share(self) -> tuple[int, int]:
        """How much has been read, of how much (0: nobody knows), both in the same unit."""
        ...

    def begins_ms(self) -> int | None:
        """No event that counts is earlier; None: nobody knows, and it has to be read at once."""
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

    def origin(self) -> dict[str, Any]:
        """What was read, for the manifest: kind, place, range, digest."""
        ...


class Peek:
    """Learns from the first bytes of a source when it begins."""

    def __init__(self, config: Config) -> None:
        # The key of fingerprints does not matter: nothing but times is looked at.
        self._decoder = Decoder(config.input, key_seed=(0, 0), ahead_ms=config.time.ahead_s * 1000)

    def earliest_ms(self, chunk: U8, length: int, bound_ms: int) -> int | None:
        """The least time of the events in whole lines; None: there are none."""
        at, found = 0, None
        while at < length:
            at = self._decoder.decode_lines(chunk, length, at, bound_ms=bound_ms, events_max=self._decoder.capacity)
            columns = self._decoder.columns
            if columns.n:
                least = int(columns.number(Number.TIME_MS).min())
                found = least if found is None else min(found, least)
        return found


class Hashed:
    """A stream whose bytes are hashed as they are read, and counted."""

    def __init__(self, stream: ByteStream, *, digest: bool) -> None:
        self._stream = stream
        self._hash = hashlib.sha256() if digest else None
        self.length = 0

    def read(self, size: int = -1) -> bytes | None:
        """As that of the stream."""
        data = self._stream.read(size)
        if data:
            self.length += len(data)
            if self._hash is not None:
                self._hash.update(data)
        return data

    @property
    def sha256(self) -> str | None:
        """Of what was read."""
        return None if self._hash is None else self._hash.hexdigest()


@dataclass(slots=True)
class FileReading:
    """A file, an archive or standard input.

    Raises:
        SourceError: it cannot be opened.
    """

    config: Config
    name: str
    start: int
    clock: Clock
    buffer: U8
    chunk_bytes: int
    digest: bool = False
    held: bool = True
    """Keep the file open until its turn comes."""
    missing: list[str] = field(default_factory=list)
    ended: bool = False
    error: str | None = None
    _source: LineSource | None = None
    _raw: Hashed | None = None
    _identity: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.name == STDIN:
            self.start = 0
        self._begin()
        if not self.held and is_plain_file(self.name):
            self._source = self._raw = None  # its turn comes later; that it can be opened is known

    def _begin(self) -> LineSource:
        raws: list[Hashed] = []

        def wrap(stream: ByteStream) -> ByteStream:
            raws.append(Hashed(stream, digest=self.digest))
            return raws[0]

        source = open_source(
            self.name, start=self.start, line_max=self.config.input.record_bytes_max, chunk_bytes=self.chunk_bytes, wrap=wrap
        )
        self._source, self._raw = source, raws[0]
        if is_plain_file(self.name):
            status = os.stat(self.name)
            identity = status.st_dev, status.st_ino
            if self._identity is not None and identity != self._identity:
                self.ended, self.error = True, "another file has taken its place since the run began"
            self._identity = identity
        return source

    @property
    def share(self) -> tuple[int, int]:
        """In bytes of the file, packed or not."""
        done = 0 if self._raw is None else self._raw.length
        return done, os.path.getsize(self.name) if is_plain_file(self.name) else 0

    def begins_ms(self) -> int | None:
        """By its first bytes: events that are earlier and come later in it are late."""
        if not is_plain_file(self.name) or self.start:
            return None
        source = open_source(self.name, start=0, line_max=self.config.input.record_bytes_max, chunk_bytes=PEEK_BYTES)
        room = make_buffer(self.config.input.record_bytes_max, PEEK_BYTES)
        length = source.read(room)
        return Peek(self.config).earliest_ms(room, length, bound_of(self.name, self.clock.now_ms())) if length else None

    def open(self, engine: Feeds) -> None:
        """Begin, or go on."""
        engine.open(self.name, bound_of(self.name, self.clock.now_ms()), self.start)

    def advance(self, engine: Feeds) -> int:
        """Read on and feed what came; returns its bytes."""
        source = self._begin() if self._source is None else self._source
        if self.ended:
            return 0
        length = source.read(self.buffer)
        if self.name == STDIN:
            engine.set_bound(STDIN, self.clock.now_ms())
        refused = source.refusal
        if refused is not None:
            engine.refuse(self.name, refused.start, refused.length, refused.reason, excerpt=refused.excerpt)
        if length:
            engine.feed(self.name, self.buffer, length, source.base)
        self.ended, self.error = source.ended, source.error
        return length

    def close(self) -> None:
        """Its stream closes with it."""
        self._source = None

    def origin(self) -> dict[str, Any]:
        """``sha256`` is that of the file's own bytes, packed or not, as ``sha256sum`` has it, where all of it was read."""
        read, size = self.share
        kind = "standard input" if self.name == STDIN else "file"
        found: dict[str, Any] = {"kind": kind, "path": self.name, "unit": "bytes of the content", "from": self.start}
        if is_plain_file(self.name):
            found["file_bytes"] = size
        return {**found, "file_bytes_read": read, "sha256": None if self._raw is None else self._raw.sha256}
