"""The tally: what one flush of observe says about one segment of one source partition.

Tallies are additive: every measure is an integer, and two tallies of neighbouring segments say together what one tally
of both would have said. So the cut between flushes never changes a result.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.compiled import entry
from schemas.errors import StateError
from schemas.fields import MEASURES, VALUES, Dimension
from schemas.narrow import Reader, narrow
from schemas.sample import Sample, empty_sample
from schemas.sample_wire import SampleHead, decode_sample, encode_sample, sample_of

TALLY_SCHEMA = 6
SCHEMAS_READ = (4, 5, TALLY_SCHEMA)
"""Those of schema 4 have no digest, those of 5 no models and nobody who was verified: observers may be exchanged after
judges."""
UNKNOWN_MS = -(2**62)
"""A newest time that is not known yet."""
SILENT_MS = UNKNOWN_MS + 1
"""The newest time of a live source that has never said anything: it holds nobody back."""
TICK_MAX = 2**62
NAME_BYTES_MAX = 96
"""Names of keys are cut to this many bytes: they are for people, identity is the 128-bit key."""

C_HASH, C_KEY_A, C_KEY_B, C_TICK, C_DIMENSION, C_NAME, C_NAME_LENGTH, C_MODELS, C_MEASURES = range(9)
"""Columns of a row's record; of rows of API keys one holds a set of models, as sets of items are. The measures stand from
C_MEASURES on, and the sets of items behind them."""
C_SETS = C_MEASURES + MEASURES
RECORD_WORDS = C_MEASURES + VALUES
"""A record is 32 words: four cache lines, and all of a row lies in them."""


class Digest(NamedTuple):
    """What the raw records of a source partition come to (`detectors.kernels.digests`): a running sum modulo 2^64."""

    chain: int
    """Names the run of tallies in which the sum goes on: where it was begun; -1: there is no digest."""
    before: int
    """The sum before this segment …"""
    after: int
    """… and after it."""

    def joined(self, following: Digest) -> Digest:
        """Of this and what follows."""
        if self.chain < 0 or self.chain != following.chain:
            return NO_DIGEST
        return Digest(self.chain, self.before, following.after)


NO_DIGEST = Digest(-1, 0, 0)


class Late(NamedTuple):
    """Events that were not counted because they came too late, and the seconds among which theirs are."""

    first: int
    last: int
    events: int


NONE_LATE = Late(0, 0, 0)


@dataclass(slots=True)
class Tally:
    """Rows per (tick, dimension, key), grouped by judge partition, and the segment they cover."""

    source: str
    """The source partition: a topic-partition, or a file."""
    start: int
    """The segment's first offset …"""
    end: int
    """… and the one after its last."""
    newest_ms: int
    """The partition's newest confirmed event time after this segment; `UNKNOWN_MS` before the first."""
    tick_min: int
    """Ticks of the rows; ``tick_min > tick_max`` when there are none."""
    tick_max: int
    truncated: int
    """Rows that the bound on a flush left out, and events and texts that were too many for the sample."""
    records: npt.NDArray[np.int64]
    """i64[rows or more, RECORD_WORDS]: the columns C_…. The hash of (dimension, key) is not on the wire, the judge computes
    it again."""
    names: npt.NDArray[np.uint8]
    """u8[bytes of all names + 8]: they are copied eight bytes at a time."""
    order: npt.NDArray[np.int64]
    """Indices of the rows by judge partition, and by tick within one."""
    partition_start: npt.NDArray[np.int64]
    """i64[J + 1]: partition p has the rows ``order[partition_start[p]:partition_start[p + 1]]``."""
    sample: Sample = field(default_factory=empty_sample)
    """Some of the events, whole, where a detector wants them."""
    digest: Digest = NO_DIGEST
    """Of the segment's raw records."""
    late: Late = NONE_LATE
    """Events of the segment that came too late to be in its rows."""
    key_rows: int | None = None
    """How many rows are of API keys, where the observer is at hand; None: nobody has counted."""

    @property
    def rows(self) -> int:
        """How many rows the tally holds."""
        return len(self.order)

    def column(self, index: int) -> npt.NDArray[np.int64]:
        """i64[rows or more]: one of the columns C_… of the records (a view)."""
        return self.records[:, index]

    @property
    def measures(self) -> npt.NDArray[np.int64]:
        """i64[rows or more, MEASURES] (a view)."""
        return self.records[:, C_MEASURES:C_SETS]

    def take(self, chosen: npt.NDArray[np.int64]) -> Tally:
        """A tally of its own with only the rows ``chosen``, in that order and in one partition; its sample is not taken."""
        records = self.records[chosen]
        lengths = records[:, C_NAME_LENGTH]
        starts = np.zeros(len(chosen), np.int64)
        np.cumsum(lengths[:-1], out=starts[1:])
        # Byte k of the new names comes from where its row's name began, by as much as k is into that name.
        from_byte = np.repeat(records[:, C_NAME] - starts, lengths) + np.arange(int(lengths.sum()))
        records[:, C_NAME] = starts
        tick = records[:, C_TICK]
        return Tally(
            self.source, self.start, self.end, self.newest_ms, int(tick.min(initial=TICK_MAX)),
            int(tick.max(initial=-TICK_MAX)), self.truncated, records, _with_room(self.names[from_byte]),
            np.arange(len(chosen)), np.array([0, len(chosen)], np.int64),
        )  # fmt: skip


def _with_room(names: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.concatenate([names, np.zeros(8, np.uint8)])


def empty_tally(source: str, start: int, end: int, newest_ms: int, partitions: int) -> Tally:
    """A tally without rows: it moves a source partition's offset and its newest time."""
    return Tally(
        source, start, end, newest_ms, TICK_MAX, -TICK_MAX, 0, np.zeros((0, RECORD_WORDS), np.int64), np.zeros(0, np.uint8),
        np.zeros(0, np.int64), np.zeros(partitions + 1, np.int64),
    )  # fmt: skip


class _Head(msgspec.Struct, array_like=True, frozen=True):
    schema: int
    source: str
    start: int
    end: int
    newest_ms: int
    tick_min: int
    tick_max: int
    truncated: int
    rows: int
    columns: tuple[tuple[int, str], ...]
    names_bytes: int
    sample: SampleHead
    digest: Digest = NO_DIGEST
    late: Late = NONE_LATE


_head_encoder = msgspec.msgpack.Encoder()
_head_decoder = msgspec.msgpack.Decoder(_Head)


@entry
def lay_out_rows_kernel(
    records: npt.NDArray[np.int64],
    order: npt.NDArray[np.int64],
    names: npt.NDArray[np.uint8],
    columns: npt.NDArray[np.int64],
    laid_out: npt.NDArray[np.uint8],
) -> int:
    """The rows ``order`` as columns (i64[RECORD_WORDS, rows]) and their names one after the other; returns the names' bytes.

    ``laid_out`` has NAME_BYTES_MAX bytes for each row.
    """
    at = 0
    for row in range(len(order)):
        record = order[row]
        for word in range(RECORD_WORDS):
            columns[word, row] = records[record, word]
        start = records[record, C_NAME]
        for byte in range(start, start + records[record, C_NAME_LENGTH]):
            laid_out[at] = names[byte]
            at += 1
    return at


def encode_tally(tally: Tally, partition: int) -> bytes:
    """The part of a tally that one judge partition gets, as bytes: little-endian columns in their narrowest type, columns
    of zeros left out, then the sample of those services whose rows it gets; a CRC-32 in front."""
    low, high = int(tally.partition_start[partition]), int(tally.partition_start[partition + 1])
    part = np.empty((RECORD_WORDS, high - low), np.int64)
    room = np.empty((high - low) * NAME_BYTES_MAX, np.uint8)
    names = room[: lay_out_rows_kernel(tally.records, tally.order[low:high], tally.names, part, room)]
    columns: list[tuple[int, str]] = []
    blocks: list[bytes] = []
    for index in np.flatnonzero(part[C_MODELS:].any(axis=1)).tolist():
        column = narrow(part[C_MODELS + index])
        columns.append((index - 1, column.dtype.str))
        blocks.append(column.tobytes())
    services = part[C_KEY_A, part[C_DIMENSION] == Dimension.SERVICE]
    sample_head, sample_blocks = encode_sample(sample_of(tally.sample, services))
    head = _Head(
        TALLY_SCHEMA, tally.source, tally.start, tally.end, tally.newest_ms, tally.tick_min, tally.tick_max,
        tally.truncated, high - low, tuple(columns), len(names),
        sample_head, tally.digest, tally.late,
    )  # fmt: skip
    head_bytes = _head_encoder.encode(head)
    body = b"".join(
        [
            len(head_bytes).to_bytes(4, "little"),
            head_bytes,
            part[C_DIMENSION].astype("<u1").tobytes(),
            part[C_KEY_A].astype("<i8").tobytes(),
            part[C_KEY_B].astype("<i8").tobytes(),
            (part[C_TICK] - tally.tick_min).astype("<i4").tobytes(),
            part[C_NAME_LENGTH].astype("<u1").tobytes(),
            *blocks,
            names.tobytes(),
            *sample_blocks,
        ]
    )
    return zlib.crc32(body).to_bytes(4, "little") + body


def decode_tally(data: bytes) -> Tally:
    """Read what `encode_tally` wrote; the result has one partition with all rows, and hashes still to be computed.

    Raises:
        StateError: the bytes are damaged, cut, or of another schema.
    """
    if len(data) < 8 or zlib.crc32(data[4:]) != int.from_bytes(data[:4], "little"):
        raise StateError(f"expected a tally of schema {TALLY_SCHEMA}, got {len(data)} bytes whose checksum does not hold")
    head_length = int.from_bytes(data[4:8], "little")
    try:
        head = _head_decoder.decode(data[8 : 8 + head_length])
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise StateError(f"expected a tally of schema {TALLY_SCHEMA}, got a head that cannot be read: {error}") from None
    if head.schema not in SCHEMAS_READ:
        raise StateError(f"expected a tally of schema {TALLY_SCHEMA}, got schema {head.schema}")
    numbers = (head.start, head.end, head.newest_ms, head.tick_min, head.tick_max, head.truncated, *head.late)
    if max(map(abs, numbers)) > TICK_MAX:
        raise StateError(f"expected times, ticks and offsets up to {TICK_MAX}, got {numbers}")
    rows, reader = head.rows, Reader(data, 8 + head_length)
    if not 0 <= rows <= len(data):
        raise StateError(f"expected a whole tally of {rows} rows, got {len(data)} bytes")
    records = np.zeros((rows, RECORD_WORDS), np.int64)
    records[:, C_DIMENSION] = reader.take("|u1", rows)
    records[:, C_KEY_A], records[:, C_KEY_B] = reader.take("<i8", rows), reader.take("<i8", rows)
    records[:, C_TICK] = reader.wide("<i4", rows) + head.tick_min
    records[:, C_NAME_LENGTH] = reader.take("|u1", rows)
    for index, code in head.columns:
        if not C_MODELS - C_MEASURES <= index < VALUES:
            raise StateError(f"expected one of {VALUES} columns of values or -1, that of models, got number {index}")
        records[:, C_MEASURES + index] = reader.take(code, rows)
    lengths = records[:, C_NAME_LENGTH]
    if int(lengths.max(initial=0)) > NAME_BYTES_MAX or int(lengths.sum()) != head.names_bytes:
        raise StateError(f"expected names of at most {NAME_BYTES_MAX} bytes, {head.names_bytes} together, got others")
    names = _with_room(reader.take("|u1", head.names_bytes).astype(np.uint8))
    np.cumsum(records[:-1, C_NAME_LENGTH], out=records[1:, C_NAME])
    return Tally(
        head.source, head.start, head.end, head.newest_ms, head.tick_min, head.tick_max, head.truncated, records, names,
        np.arange(rows), np.array([0, rows], np.int64), decode_sample(head.sample, reader), head.digest,
        head.late,
    )  # fmt: skip
