"""One source partition in a worker: messages in, tallies as bytes out, and the note that lets another go on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from detectors.kernels.clock import CLOCK_WORDS
from detectors.registry import plan_windows
from engine.digesting import Digester
from engine.geo import make_geo
from engine.observe import Observer, SourceClock
from engine.seeds import Seeds
from engine.shipping import bound_rows
from schemas.columns import I64, U8
from schemas.config import Config
from schemas.decode import Decoder
from schemas.errors import StateError
from schemas.fields import Poison
from schemas.tally import UNKNOWN_MS, Tally, empty_tally, encode_tally

NOTE_BYTES_MAX = 4096
"""What a broker accepts as the metadata of an offset, by default. A note takes about 250."""
BACKLOG_MS = 60_000
"""A record older than this was waiting to be read; a younger one may come from a machine whose clock is behind."""
LAY_OUT_BYTES = 1 << 20
"""Messages are laid out and decoded in pieces of so many bytes, which are still in the cache when the decoder comes; a message
that is longer is a piece of its own."""
_ROOM = 16384
"""Beside a copy of the messages: what the decoder needs to rewrite text."""


class Ledger(msgspec.Struct, array_like=True):
    """The accounting of one source partition since its beginning, exact across crashes because it is committed with the
    offset. ``records`` = those with events + ``empty`` + ``poison``; ``events`` = ``counted`` + ``late``; ``poison`` =
    ``dead_letters`` + ``dead_letters_dropped``."""

    records: int = 0
    events: int = 0
    counted: int = 0
    late: int = 0
    empty: int = 0
    poison: int = 0
    dead_letters: int = 0
    dead_letters_dropped: int = 0
    """Poison past the bound on dead letters a minute: counted only."""
    truncated: int = 0
    """Rows that the bound on a flush left out, and what was too much for its sample."""
    time_replaced: int = 0
    missing: int = 0
    """Offsets that the topic had thrown away before they were read."""


class _Note(msgspec.Struct, array_like=True):
    version: int
    clock: tuple[int, ...]
    arrived_ms: int
    """When the last message arrived, or up to when silence has been counted; -1: there was neither."""
    ledger: Ledger
    digest: tuple[int, int] | None = None
    """Chain and sum; workers of before have none."""


NOTE_VERSION = 1


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be read."""

    offset: int
    reason: Poison
    at: int
    """Bytes into the message where reading stopped."""
    value: bytes


@dataclass(slots=True)
class Shipment:
    """What one flush of a source partition sends, in one transaction with its offset."""

    offset: int
    """The next offset to read."""
    note: str
    parts: list[list[bytes]]
    """Per judge partition, its messages in order."""
    dead_letters: list[DeadLetter] = field(default_factory=list)


@dataclass(slots=True)
class Messages:
    """Messages of one source partition in offset order."""

    values: list[bytes] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    times_ms: list[int] = field(default_factory=list)
    size: int = 0
    """Bytes of all values."""

    def add(self, values: Sequence[bytes], offsets: Sequence[int], times_ms: Sequence[int], size: int) -> None:
        """Append what came next."""
        self.values += values
        self.offsets += offsets
        self.times_ms += times_ms
        self.size += size

    def pieces(self, bytes_max: int) -> Iterator[tuple[int, int]]:
        """Cut into [start, stop) of at most ``bytes_max`` bytes, or of one message."""
        ends = np.cumsum(np.fromiter(map(len, self.values), np.int64, len(self.values)))
        start, before = 0, 0
        while start < len(ends):
            stop = max(start + 1, int(np.searchsorted(ends, before + bytes_max, side="right")))
            yield start, stop
            start, before = stop, int(ends[stop - 1])


class Bench:
    """The decoder, the observer and their memory, shared by all source partitions of a process."""

    def __init__(self, config: Config, seeds: Seeds) -> None:
        self.config = config
        self.partitions = config.engine.judge_partitions
        self.decoder = Decoder(
            config.input, key_seed=seeds.key, ahead_ms=config.time.ahead_s * 1000, events_max=config.engine.chunk_events
        )
        self.geo = make_geo(config.input.geo)
        # The last message of a tally may hold as many events as a decoder can take.
        events_max = config.engine.chunk_events + self.decoder.capacity
        self.observer = Observer(config, plan_windows(config), seeds.hash, events_max)
        self.rows = self.observer.make_rows()
        self.digest_key = seeds.digest
        self._buffer: U8 = np.zeros(_ROOM, np.uint8)

    def lay_out(self, values: list[bytes]) -> U8:
        """All messages one after the other, with room behind them."""
        joined = b"".join(values)
        if len(self._buffer) < 2 * len(joined) + _ROOM:
            self._buffer = np.zeros(3 * len(joined) + _ROOM, np.uint8)
        self._buffer[: len(joined)] = np.frombuffer(joined, np.uint8)
        return self._buffer


class SourcePost:
    """Where one source partition stands.

    Args:
        name: the source partition, ``topic-partition``.
        position: the next offset.
        note: what was committed with it; empty: it is read for the first time.

    Raises:
        StateError: the note is not one of ours.
    """

    def __init__(self, name: str, position: int, note: str, bench: Bench) -> None:
        self.name, self.position, self._bench = name, position, bench
        self.ledger = Ledger()
        self.clock = SourceClock()
        self._arrived_ms = -1
        self._digester = Digester(bench.digest_key, position)
        if note:
            read = _read_note(name, note)
            self.ledger = read.ledger
            self.clock = SourceClock(np.array(read.clock, np.int64))
            self._arrived_ms = read.arrived_ms
            if read.arrived_ms >= 0:
                self.clock.silence(read.arrived_ms, position)
            if read.digest is not None:
                self._digester = Digester(bench.digest_key, *read.digest)

    @property
    def newest_ms(self) -> int:
        """The newest confirmed event time."""
        return self.clock.newest_ms

    def skip_to(self, offset: int) -> None:
        """The topic has thrown away what lies before ``offset``: judges see a gap and do not judge across it."""
        self.ledger.missing += offset - self.position
        self.position = offset

    def ship(self, messages: Messages, now_ms: int, dead_letters_max: int) -> Shipment:
        """Make tallies of all messages.

        Args:
            now_ms: wall time. A message whose record is older than any clock should be wrong by arrived when the record says:
                a partition that is read after an outage has been silent for longer than we have.
            dead_letters_max: more poison is counted only.
        """
        shipment = Shipment(0, "", [[] for _ in range(self._bench.partitions)])
        for start, stop in messages.pieces(LAY_OUT_BYTES):
            self._take_in(messages, start, stop, shipment, dead_letters_max)
        if self.position <= messages.offsets[-1]:
            self._end_tally(shipment, messages.offsets[-1] + 1)
        recorded_ms = messages.times_ms[-1]
        self._arrived_ms = recorded_ms if 0 < recorded_ms < now_ms - BACKLOG_MS else now_ms
        self.clock.silence(self._arrived_ms, self.position)
        return self._close(shipment)

    def _take_in(self, messages: Messages, start: int, stop: int, shipment: Shipment, dead_letters_max: int) -> None:
        """Decode and group the messages [start, stop); a tally ends whenever it is full."""
        bench, decoder = self._bench, self._bench.decoder
        values = messages.values[start:stop]
        buffer = bench.lay_out(values)
        ends = np.cumsum(np.fromiter(map(len, values), np.int64, len(values)))
        starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        times, offsets = (np.array(column[start:stop], np.int64) for column in (messages.times_ms, messages.offsets))
        at, most = 0, bench.config.engine.chunk_events
        while at < len(values):
            first = at
            events_max = min(decoder.capacity, most - bench.rows.events)
            at = decoder.decode_records(buffer, starts, ends, times, at, events_max=events_max)
            if bench.geo is not None:
                bench.geo.fill(decoder.columns)
            bench.observer.add(decoder.columns, self.clock, bench.rows)
            self._count_records()
            some = slice(first, at)
            self._digester.add_records(buffer, starts[some], ends[some], offsets[some], times[some])
            shipment.dead_letters += self._poison(messages, start, starts, dead_letters_max - len(shipment.dead_letters))
            if bench.rows.events >= most:
                self._end_tally(shipment, messages.offsets[start + at - 1] + 1)

    def _end_tally(self, shipment: Shipment, end: int) -> None:
        """What was taken in since the last one becomes the tally of the segment up to ``end``."""
        bench = self._bench
        observed = bench.observer.finish(self.clock, bench.rows, self.name, self.position, end)
        observed.tally.digest = self._digester.cut()
        tally = bound_rows(observed.tally, bench.config.kafka.rows_max)
        self.ledger.events += observed.events
        self.ledger.late += observed.late
        self.ledger.counted += observed.events - observed.late
        self.ledger.truncated += tally.truncated
        self._append(shipment, tally)
        self.position = end

    def silence(self, now_ms: int) -> Shipment | None:
        """The tally without rows that moves a partition on which is at its end; None: there is nothing to say yet."""
        newest_ms = self.clock.silence(now_ms, self.position)
        if newest_ms is None:
            return None
        self._arrived_ms = now_ms
        shipment = Shipment(0, "", [[] for _ in range(self._bench.partitions)])
        self._append(shipment, empty_tally(self.name, self.position, self.position, newest_ms, self._bench.partitions))
        return self._close(shipment)

    def _append(self, shipment: Shipment, tally: Tally) -> None:
        for partition, part in enumerate(shipment.parts):
            part.append(encode_tally(tally, partition))

    def _close(self, shipment: Shipment) -> Shipment:
        shipment.offset = self.position
        words = tuple(int(word) for word in self.clock.words)
        digest = self._digester.saved()
        shipment.note = msgspec.json.encode(_Note(NOTE_VERSION, words, self._arrived_ms, self.ledger, digest)).decode()
        return shipment

    def _count_records(self) -> None:
        ledger, decoder = self.ledger, self._bench.decoder
        ledger.records += decoder.records
        ledger.empty += decoder.empty
        ledger.poison += decoder.poison
        ledger.time_replaced += decoder.time_replaced

    def _poison(self, messages: Messages, first: int, starts: I64, most: int) -> Iterator[DeadLetter]:
        decoder, ledger = self._bench.decoder, self.ledger
        found = decoder.poison_start[: decoder.poison]
        written = min(len(found), max(0, most))
        ledger.dead_letters += written
        ledger.dead_letters_dropped += len(found) - written
        for index, record in enumerate((first + np.searchsorted(starts, found[:written], side="right") - 1).tolist()):
            reason = Poison(int(decoder.poison_reason[index]))
            yield DeadLetter(messages.offsets[record], reason, int(decoder.poison_at[index]), messages.values[record])


def _read_note(name: str, note: str) -> _Note:
    try:
        read = msgspec.json.decode(note, type=_Note)
    except msgspec.MsgspecError as error:
        raise StateError(f"expected a note of ours with the committed offset of {name}, got {note[:80]!r}: {error}") from None
    if read.version != NOTE_VERSION or len(read.clock) != CLOCK_WORDS:
        raise StateError(f"expected a note of version {NOTE_VERSION} with the offset of {name}, got version {read.version}")
    return read


def is_known(newest_ms: int) -> bool:
    """Whether a newest time says something."""
    return newest_ms > UNKNOWN_MS + 1


def read_ledger(name: str, note: str) -> Ledger:
    """The accounting that was committed with an offset.

    Raises:
        StateError: the note is not one of ours.
    """
    return _read_note(name, note).ledger
