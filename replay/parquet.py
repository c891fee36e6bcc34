"""Parquet as a source: rows become the JSON that a producer would have sent, and go the way of every event.

Columns are named as the fields of JSON events are (docs/events.md, docs/formats.md, ``input.fields``); fields within structs
have their names joined by dots. Other columns are not read. There is no second meaning of a field: what a row says is what
its JSON would say. A position is the number of a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.clock import Clock
from replay.parquet_rows import rows_as_json
from replay.reading import Feeds, Peek
from replay.sources import bound_of
from schemas.columns import I64, U8
from schemas.config import Config
from schemas.decoding.layout import Slot
from schemas.decoding.paths import meanings
from schemas.errors import SourceError

if TYPE_CHECKING:
    import pyarrow as pa

MAGIC = b"PAR1"
ROWS = 8192
"""Of one step: few enough that several sources stay in step of event time."""
AHEAD_FILES_MAX = 8
"""Of more files no rows are laid out ahead: each would hold some 10 MB until its turn comes."""
_Rows = tuple[U8, I64, I64]
_READ_BYTES = 1 << 20
"""Of each column at a time."""
_NAMES_SHOWN = 300
_HASHED_BYTES = 1 << 20
_NUMBERS = frozenset(
    {
        Slot.DURATION, Slot.STATUS, Slot.BYTES, Slot.TOKENS_IN, Slot.TOKENS_OUT, Slot.TOKENS_CACHED, Slot.MAX_TOKENS, Slot.COST,
        Slot.ASN,
    }
)  # fmt: skip
_TIMES = frozenset({Slot.TIME, Slot.START_TIME})
_FLAGS = frozenset({Slot.AUTH_FAILED, Slot.DENIED, Slot.CANCELLED})


def is_parquet(name: str) -> bool:
    """By its first bytes. Raises `SourceError` when a file has the name of one and is none."""
    try:
        with Path(name).open("rb") as file:
            head = file.read(len(MAGIC))
    except OSError:
        return False  # whoever opens it says why
    if head == MAGIC:
        return True
    if name.endswith(".parquet"):
        raise SourceError(f"expected Parquet data in {name}, got a file that begins with {head!r}")
    return False


class ParquetReading:
    """A Parquet file on its way into the engine.

    ``ahead``: rows are unpacked and laid out in a thread of their own while those before them are decoded.

    Raises:
        SourceError: it is cut off, or its columns are no events.
    """

    def __init__(
        self, config: Config, name: str, start: int, clock: Clock, *, digest: bool = False, ahead: bool = True
    ) -> None:  # fmt: skip
        self.name, self.missing = name, list[str]()
        self.ended = False
        self.error: str | None = None
        self._config, self._clock, self._digest, self._ahead = config, clock, digest, ahead
        self._start = self._at = start
        self._file = _open(name)
        self._rows = int(self._file.metadata.num_rows)
        self._columns = _columns_of(name, self._file.schema_arrow, config)
        self._batches: Iterator[Any] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._pending: Future[_Rows | None] | None = None

    @property
    def share(self) -> tuple[int, int]:
        """In rows."""
        return self._at - self._start, self._rows - self._start

    def begins_ms(self) -> int | None:
        """By its first rows."""
        if self._start:
            return None
        try:
            batch = next(iter(self._file.iter_batches(ROWS, columns=self._columns)), None)
        except (OSError, ValueError):
            return None  # said when it is read
        if batch is None:
            return None
        chunk, _, ends = rows_as_json(batch)
        return Peek(self._config).earliest_ms(chunk, int(ends[-1]), self._bound_ms()) if len(ends) else None

    def open(self, engine: Feeds) -> None:
        """Begin, or go on."""
        engine.open(self.name, 0, self._start)
        if self._start > self._rows:
            raise SourceError(f"expected {self._start} rows in {self.name}, where the saved state stands, got {self._rows}")

    def advance(self, engine: Feeds) -> int:
        """Read some rows and feed them; returns the bytes of their JSON."""
        try:
            rows_read = self._take()
        except (OSError, ValueError):  # its words may quote what lies in the file
            self.ended, self.error = True, f"what lies behind row {self._at} of {self._rows} cannot be read"
            self.missing.append(f"rows {self._at} to {self._rows - 1}")
            return 0
        if rows_read is None:
            self.ended = True
            return 0
        buffer, starts, ends = rows_read
        bounds = np.full(len(starts), self._bound_ms(), np.int64)
        rows = np.arange(self._at, self._at + len(starts), dtype=np.int64)
        engine.feed_records(self.name, buffer, starts, ends, bounds, rows)
        self._at += len(starts)
        self.ended = self._at >= self._rows
        return int(ends[-1])

    def close(self) -> None:
        """Let the file go."""
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)
        self._thread = self._pending = self._batches = None
        self._file.close()

    def origin(self) -> dict[str, Any]:
        """``sha256`` is that of the file."""
        found = {"kind": "parquet", "path": self.name, "unit": "rows", "from": self._start, "end": self._rows}
        sha256 = _sha256(self.name) if self._digest else None
        return {**found, "columns": self._columns, "file_bytes": Path(self.name).stat().st_size, "sha256": sha256}

    def _take(self) -> _Rows | None:
        if self._batches is None:
            self._batches = _from_row(self._file.iter_batches(ROWS, columns=self._columns), self._start)
            if self._ahead:
                self._thread = ThreadPoolExecutor(1, "rows")
        if self._thread is None:
            return self._next_rows()
        found = self._next_rows() if self._pending is None else self._pending.result()
        self._pending = self._thread.submit(self._next_rows)
        return found

    def _next_rows(self) -> _Rows | None:
        """Unpacked and laid out while the rows before are decoded; None: there are no more."""
        assert self._batches is not None
        batch = next(self._batches, None)
        return None if batch is None else rows_as_json(batch)

    def _bound_ms(self) -> int:
        return bound_of(self.name, self._clock.now_ms())


def _open(name: str) -> Any:
    try:
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise SourceError(f"expected pyarrow for {name}, it is not installed: pip install 'floodwall[parquet]'") from None
    try:
        # Without these a column of a row group is read whole, and a file may be one row group.
        return parquet.ParquetFile(name, pre_buffer=False, buffer_size=_READ_BYTES)
    except (OSError, ValueError) as error:
        why = str(error).partition("\n")[0][:150]
        raise SourceError(f"expected a whole Parquet file at {name}, got: {why}") from None


def _columns_of(name: str, schema: pa.Schema, config: Config) -> list[str]:
    """The columns that mean something, as paths.

    Raises:
        SourceError: there is none for the time or none to count by, or one is of a type that cannot say what it should.
    """
    known = meanings(config.input.fields)
    leaves = dict(_leaves(schema, ""))
    found = {path: known[path][0] for path in leaves if path in known}
    got = ", ".join(ascii(path)[1:-1] for path in leaves)[:_NAMES_SHOWN] or "none"
    slots = set(found.values())
    if not slots & {Slot.TIME, Slot.START_TIME, Slot.MESSAGE}:
        raise SourceError(f"expected a column for the time (`time`, `timestamp` …) in {name}, got the columns {got}")
    if slots <= _TIMES | _NUMBERS | _FLAGS:
        wanted = "`client_ip`, `path`, `api_key_hash` or `account`"
        raise SourceError(f"expected a column to count by ({wanted}, say) beside the time in {name}, got the columns {got}")
    for path, slot in found.items():
        misfit = _misfit(leaves[path], slot)
        if misfit is not None:
            raise SourceError(f"expected {misfit} in the column `{path}` of {name}, got {str(leaves[path])[:80]}")
    return list(found)


def _misfit(kind: pa.DataType, slot: Slot) -> str | None:
    """What the column should hold, if it cannot."""
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    is_number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    if slot in _TIMES:
        return None if is_text or is_number or types.is_timestamp(kind) else "a time (timestamp, number or text)"
    if slot in _NUMBERS:
        return None if is_text or is_number else "a number"
    if slot in _FLAGS:
        return None if is_text or is_number or types.is_boolean(kind) else "true or false"
    return None if is_text or is_number or types.is_boolean(kind) or types.is_null(kind) else "text"


def _leaves(fields: Any, above: str) -> Iterator[tuple[str, Any]]:
    from pyarrow import types

    for field in fields:
        path = above + field.name
        if types.is_struct(field.type):
            yield from _leaves(list(field.type), path + ".")
        else:
            yield path, field.type


def _from_row(batches: Iterator[Any], start: int) -> Iterator[Any]:
    """What is left of batches when the first rows were taken before."""
    at = 0
    for batch in batches:
        behind = at + batch.num_rows
        if behind > start:
            yield batch.slice(max(start - at, 0))
        at = behind


def _sha256(name: str) -> str | None:
    digest = hashlib.sha256()
    try:
        with Path(name).open("rb") as file:
            while data := file.read(_HASHED_BYTES):
                digest.update(data)
    except OSError:
        return None
    return digest.hexdigest()
