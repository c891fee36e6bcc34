"""Rows of a Parquet batch as the JSON of events, laid out column by column.

What comes is, byte for byte, what ``orjson`` makes of each row as a dict (tests/oracles/rows.py), without an object of Python
for each value: that cost four times what everything after it costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from schemas.columns import I64, U8
from schemas.compiled import entry

ROOM = 16384
"""Beside as much room as there are bytes: what decoding wants behind them."""
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_NOTHING = np.zeros(0, np.uint8)


def _make_escapes() -> U8:
    """For each byte: 0, it stands for itself; 1, as six, ``\\u00..``; else the letter behind a backslash."""
    escapes = np.zeros(256, np.uint8)
    escapes[:32] = 1
    for byte, letter in zip(b'\b\t\n\f\r"\\', b'btnfr"\\', strict=True):
        escapes[byte] = letter
    return escapes


_ESCAPES = _make_escapes()


@dataclass(frozen=True, slots=True)
class _Values:
    """One column: the value of row i is ``data[starts[i]:ends[i]]``, or null."""

    data: U8
    starts: I64
    ends: I64
    valid: U8
    quoted: bool
    """Text, which wants quotes and escapes; the others are JSON already."""

    def __post_init__(self) -> None:
        self.data.flags.writeable = False  # as pyarrow's: for each kind of array the kernels are compiled once more


@entry
def measure_values_kernel(data: U8, starts: I64, ends: I64, valid: U8, quoted: bool, escapes: U8, lengths: I64) -> None:
    """Add to ``lengths`` (i64[rows]) what the values of one column take as JSON."""
    for row in range(len(starts)):
        if valid[row] == 0:
            lengths[row] += 4
            continue
        lengths[row] += ends[row] - starts[row]
        if quoted:
            more = 2
            for at in range(starts[row], ends[row]):
                escape = escapes[data[at]]
                if escape != 0:
                    more += 5 if escape == 1 else 1
            lengths[row] += more


@entry
def write_values_kernel(
    name: U8, data: U8, starts: I64, ends: I64, valid: U8, quoted: bool, escapes: U8, digits: U8, out: U8, places: I64
) -> None:
    """Write ``name`` and the value of each row at its place in ``out``, and move the place on behind it."""
    for row in range(len(starts)):
        at = places[row]
        for index in range(len(name)):
            out[at + index] = name[index]
        at += len(name)
        if valid[row] == 0:
            out[at], out[at + 1], out[at + 2], out[at + 3] = 110, 117, 108, 108  # null
            places[row] = at + 4
            continue
        if quoted:
            out[at] = 34
            at += 1
        for place in range(starts[row], ends[row]):
            byte = data[place]
            escape = escapes[byte] if quoted else 0
            if escape == 0:
                out[at] = byte
                at += 1
            elif escape == 1:
                out[at], out[at + 1], out[at + 2], out[at + 3] = 92, 117, 48, 48  # \u00
                out[at + 4], out[at + 5] = digits[byte >> 4], digits[byte & 15]
                at += 6
            else:
                out[at], out[at + 1] = 92, escape
                at += 2
        if quoted:
            out[at] = 34
            at += 1
        places[row] = at


def rows_as_json(batch: Any) -> tuple[U8, I64, I64]:
    """(buffer with the room that decoding wants, starts, ends) of rows as JSON, each with an end of line behind it."""
    names = [
        np.frombuffer((b"," if index else b"{") + orjson.dumps(name) + b":", np.uint8)
        for index, name in enumerate(batch.schema.names)
    ]
    columns = [_values_of(column) for column in batch.columns]
    lengths = np.full(batch.num_rows, sum(map(len, names)) + 2, np.int64)
    for values in columns:
        measure_values_kernel(values.data, values.starts, values.ends, values.valid, values.quoted, _ESCAPES, lengths)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    total = int(lengths.sum())
    buffer = np.empty(2 * total + ROOM, np.uint8)
    places = starts.copy()
    for name, values in zip(names, columns, strict=True):
        write_values_kernel(
            name, values.data, values.starts, values.ends, values.valid, values.quoted, _ESCAPES, _HEX, buffer, places
        )
    buffer[places], buffer[places + 1] = ord("}"), ord("\n")
    return buffer, starts, ends


def _values_of(column: Any) -> _Values:
    """The values in a type that JSON has: times in milliseconds, decimals as numbers."""
    import pyarrow as pa
    from pyarrow import types

    column = plain(column)
    kind, rows = column.type, len(column)
    if types.is_null(kind):
        nothing = np.zeros(rows, np.int64)
        return _Values(_NOTHING, nothing, nothing, np.zeros(rows, np.uint8), quoted=False)
    quoted = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    if types.is_floating(kind):  # how a number is written has to be as in the JSON of a producer
        return _parts_of(orjson.dumps(column.to_pylist()), rows)
    if types.is_integer(kind) or types.is_boolean(kind) or types.is_string_view(kind):
        column = column.cast(pa.string())
    elif not quoted:
        return _joined([orjson.dumps(value) for value in column.to_pylist()])
    _, offsets, data = column.buffers()
    width = np.dtype(np.int64 if types.is_large_string(column.type) else np.int32)
    bounds = np.frombuffer(offsets, width, rows + 1, column.offset * width.itemsize).astype(np.int64)
    valid = column.is_valid().to_numpy(zero_copy_only=False).astype(np.uint8)
    text = _NOTHING if data is None else np.frombuffer(data, np.uint8)
    return _Values(text, bounds[:-1], bounds[1:], valid, quoted)


def _parts_of(dumped: bytes, rows: int) -> _Values:
    """Of a JSON array of numbers and nulls."""
    data = np.frombuffer(dumped, np.uint8)
    commas = np.flatnonzero(data == ord(",")).astype(np.int64)
    starts = np.concatenate([np.ones(1, np.int64), commas + 1])[:rows]
    ends = np.concatenate([commas, np.full(1, len(data) - 1, np.int64)])[:rows]
    return _Values(data, starts, ends, np.ones(rows, np.uint8), quoted=False)


def _joined(values: list[bytes]) -> _Values:
    ends = np.cumsum(np.fromiter(map(len, values), np.int64, len(values)))
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: len(values)]
    return _Values(np.frombuffer(b"".join(values), np.uint8), starts, ends, np.ones(len(values), np.uint8), quoted=False)


def plain(column: Any) -> Any:
    """The same values in a type that JSON has: times in milliseconds, decimals as numbers."""
    import pyarrow as pa
    from pyarrow import types

    kind = column.type
    if types.is_dictionary(kind):
        return plain(column.dictionary_decode())
    if types.is_struct(kind):
        parts = [plain(part) for part in column.flatten()]
        names = [field.name for field in kind]
        return pa.StructArray.from_arrays(parts, names=names, mask=column.is_null()) if parts else column
    if types.is_timestamp(kind):
        return column.cast(pa.timestamp("ms", kind.tz), safe=False).cast(pa.int64())
    if types.is_decimal(kind):
        return column.cast(pa.float64())
    return column
