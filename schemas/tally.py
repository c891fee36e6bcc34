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
    dimension: npt.NDArray[np.uint8]
    key_a: npt.NDArray[np.uint64]
    key_b: npt.NDArray[np.uint64]
    tick: npt.NDArray[np.int64]
    measures: npt.NDArray[np.int64]
    """i64[rows, MEASURES]"""
    name_start: npt.NDArray[np.int32]
    name_length: npt.NDArray[np.int32]
    names: npt.NDArray[np.uint8]
    partition_start: npt.NDArray[np.int64]
    """i64[J + 1]: partition p has the rows ``partition_start[p]:partition_start[p + 1]``."""

    @property
    def rows(self) -> int:
        """How many rows the tally holds."""
        return len(self.tick)


UNKNOWN_MS = -(2**62)
"""A newest time that is not known yet."""


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
    part = slice(low, high)
    base = tally.tick_min
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
            (tally.tick[part] - base).astype("<i4").tobytes(),
            lengths.astype("<u1").tobytes(),
            *blocks,
            names,
        ]
    )
    return zlib.crc32(body).to_bytes(4, "little") + body


def decode_tally(data: bytes) -> Tally:
    """Read what `encode_tally` wrote; the result has one partition with all rows.

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
    np.cumsum(lengths[:-1], out=starts[1:]) if rows > 1 else None
    return Tally(
        head.source, head.start, head.end, head.newest_ms, head.tick_min, head.tick_max, head.truncated,
        dimension, key_a, key_b, tick, measures, starts, lengths, names, np.array([0, rows], np.int64),
    )  # fmt: skip
