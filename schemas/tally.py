"""The tally: what one flush of observe says about one segment of one source partition.

Tallies are additive: every measure is an integer, and two tallies of neighbouring segments say together what one tally
of both would have said. So the cut between flushes never changes a result.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.errors import StateError
from schemas.fields import MEASURES

TALLY_SCHEMA = 1
UNKNOWN_MS = -(2**62)
"""A newest time that is not known yet."""
SILENT_MS = UNKNOWN_MS + 1
"""The newest time of a live source that has never said anything: it holds nobody back."""
TICK_MAX = 2**62
NAME_BYTES_MAX = 96
"""Names of keys are cut to this many bytes: they are for people, identity is the 128-bit key."""


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
    """Rows that the bound on a flush left out."""
    hash: npt.NDArray[np.uint64]
    """The keyed hash of (dimension, key); not on the wire, the judge computes it again."""
    dimension: npt.NDArray[np.uint8]
    key_a: npt.NDArray[np.uint64]
    key_b: npt.NDArray[np.uint64]
    tick: npt.NDArray[np.int64]
    measures: npt.NDArray[np.int64]
    """i64[rows, MEASURES]"""
    name_start: npt.NDArray[np.int32]
    name_length: npt.NDArray[np.int32]
    names: npt.NDArray[np.uint8]
    order: npt.NDArray[np.int64]
    """Indices of the rows by judge partition, and by tick within one."""
    partition_start: npt.NDArray[np.int64]
    """i64[J + 1]: partition p has the rows ``order[partition_start[p]:partition_start[p + 1]]``."""

    @property
    def rows(self) -> int:
        """How many rows the tally holds."""
        return len(self.order)

    def take(self, chosen: npt.NDArray[np.int64]) -> Tally:
        """A tally of its own with only the rows ``chosen``, in that order and in one partition."""
        lengths = self.name_length[chosen]
        starts = np.zeros(len(chosen), np.int32)
        np.cumsum(lengths[:-1], out=starts[1:])
        total = int(lengths.sum())
        # Byte k of the new names comes from where its row's name began, by as much as k is into that name.
        from_byte = np.repeat(self.name_start[chosen] - starts, lengths) + np.arange(total)
        tick = self.tick[chosen]
        return Tally(
            self.source, self.start, self.end, self.newest_ms, int(tick.min(initial=TICK_MAX)),
            int(tick.max(initial=-TICK_MAX)), self.truncated, self.hash[chosen], self.dimension[chosen],
            self.key_a[chosen], self.key_b[chosen], tick, self.measures[chosen], starts, lengths, self.names[from_byte],
            np.arange(len(chosen)), np.array([0, len(chosen)], np.int64),
        )  # fmt: skip


def empty_tally(source: str, start: int, end: int, newest_ms: int, partitions: int) -> Tally:
    """A tally without rows: it moves a source partition's offset and its newest time."""
    none = np.zeros(0, np.int64)
    return Tally(
        source, start, end, newest_ms, TICK_MAX, -TICK_MAX, 0, none.astype(np.uint64), none.astype(np.uint8),
        none.astype(np.uint64), none.astype(np.uint64), none, np.zeros((0, MEASURES), np.int64), none.astype(np.int32),
        none.astype(np.int32), none.astype(np.uint8), none, np.zeros(partitions + 1, np.int64),
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


_head_encoder = msgspec.msgpack.Encoder()
_head_decoder = msgspec.msgpack.Decoder(_Head)
_TYPES = ("<u1", "<u2", "<u4", "<i8")


def _narrow(values: npt.NDArray[np.int64]) -> npt.NDArray[np.generic]:
    top = int(values.max(initial=0))
    for code, limit in (("<u1", 1 << 8), ("<u2", 1 << 16), ("<u4", 1 << 32)):
        if top < limit:
            return values.astype(code)
    return values.astype("<i8")


def encode_tally(tally: Tally, partition: int) -> bytes:
    """The part of a tally that one judge partition gets, as bytes: little-endian columns in their narrowest type, columns
    of zeros left out, a CRC-32 in front."""
    low, high = int(tally.partition_start[partition]), int(tally.partition_start[partition + 1])
    part = tally.order[low:high]
    columns: list[tuple[int, str]] = []
    blocks: list[bytes] = []
    for index in range(MEASURES):
        column = tally.measures[part, index]
        if column.any():
            narrow = _narrow(column)
            columns.append((index, narrow.dtype.str))
            blocks.append(narrow.tobytes())
    lengths = tally.name_length[part]
    names = b"".join(
        tally.names[start : start + length].tobytes()
        for start, length in zip(tally.name_start[part].tolist(), lengths.tolist(), strict=True)
    )
    head = _Head(
        TALLY_SCHEMA, tally.source, tally.start, tally.end, tally.newest_ms, tally.tick_min, tally.tick_max,
        tally.truncated, high - low, tuple(columns), len(names),
    )  # fmt: skip
    head_bytes = _head_encoder.encode(head)
    body = b"".join(
        [
            len(head_bytes).to_bytes(4, "little"),
            head_bytes,
            tally.dimension[part].tobytes(),
            tally.key_a[part].astype("<u8").tobytes(),
            tally.key_b[part].astype("<u8").tobytes(),
            (tally.tick[part] - tally.tick_min).astype("<i4").tobytes(),
            lengths.astype("<u1").tobytes(),
            *blocks,
            names,
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
    except msgspec.MsgspecError as error:
        raise StateError(f"expected a tally of schema {TALLY_SCHEMA}, got a head that cannot be read: {error}") from None
    if head.schema != TALLY_SCHEMA:
        raise StateError(f"expected a tally of schema {TALLY_SCHEMA}, got schema {head.schema}")
    at = 8 + head_length
    rows = head.rows

    def take(code: str) -> npt.NDArray[np.generic]:
        nonlocal at
        width = np.dtype(code).itemsize * rows
        block = np.frombuffer(data, dtype=code, count=rows, offset=at)
        at += width
        return block

    try:
        dimension = take("<u1").astype(np.uint8)
        key_a, key_b = take("<u8").astype(np.uint64), take("<u8").astype(np.uint64)
        tick = take("<i4").astype(np.int64) + head.tick_min
        lengths = take("<u1").astype(np.int32)
        measures = np.zeros((rows, MEASURES), np.int64)
        for index, code in head.columns:
            if code not in _TYPES and code not in ("|u1",):
                raise StateError(f"expected a column type of {_TYPES}, got {code!r}")
            measures[:, index] = take(code).astype(np.int64)
        names = np.frombuffer(data, np.uint8, count=head.names_bytes, offset=at)
    except ValueError as error:
        raise StateError(f"expected a whole tally of {rows} rows, got {len(data)} bytes: {error}") from None
    starts = np.zeros(rows, np.int32)
    np.cumsum(lengths[:-1], out=starts[1:])
    return Tally(
        head.source, head.start, head.end, head.newest_ms, head.tick_min, head.tick_max, head.truncated,
        np.zeros(rows, np.uint64), dimension, key_a, key_b, tick, measures, starts, lengths, names,
        np.arange(rows), np.array([0, rows], np.int64),
    )  # fmt: skip
