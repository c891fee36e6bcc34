"""Files, folders, archives and standard input as whole lines of bytes with their offsets; nothing is lost on the way.

Offsets count bytes of the decompressed stream. A stretch that never becomes a line (longer than any record may be, or the
tail of a half-written archive) is handed on as a `Refusal`, so that it is counted.
"""

from __future__ import annotations

import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import zstandard

from schemas.columns import U8
from schemas.errors import SourceError
from schemas.fields import Poison

CHUNK_BYTES = 1 << 20
STDIN = "-"
KAFKA_SCHEME = "kafka://"
"""What a source begins with that is no file (`replay.kafka`)."""
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_SUFFIXES = {".gz": (_GZIP, "gzip"), ".zst": (_ZSTD, "zstd")}
_EXCERPT = 200


class ByteStream(Protocol):
    """What a source is read from."""

    def read(self, size: int = ..., /) -> bytes | None:
        """Up to ``size`` bytes; empty at the end; None: nothing for now."""
        ...


@dataclass(slots=True)
class Refusal:
    """Bytes that never became a line."""

    start: int
    length: int
    reason: Poison
    excerpt: bytes


def make_buffer(record_bytes_max: int, chunk_bytes: int = CHUNK_BYTES) -> U8:
    """Room for the longest chunk and for what decoding writes behind it."""
    return np.zeros(2 * (chunk_bytes + record_bytes_max) + 16384, np.uint8)


class LineSource:
    """Whole lines of one stream.

    Args:
        name: of the source partition.
        stream: decompressed bytes.
        start: how many bytes were read before; the stream begins after them.
        line_max: a longer line is refused.
    """

    def __init__(self, name: str, stream: ByteStream, *, start: int = 0, line_max: int, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.name = name
        self.base = start
        self.ended = False
        self.error: str | None = None
        """Why the stream ended before its end, if it did."""
        self.refusal: Refusal | None = None
        self._stream = stream
        self._carry = b""
        self._chunk_bytes = max(chunk_bytes, 1)
        self._line_max = line_max
        self._skipping: Refusal | None = None
        self._length = 0

    def read(self, buffer: U8, *, last: bool = True) -> int:
        """Fill ``buffer`` with whole lines that begin at ``base``; returns their bytes.

        0 means: nothing for now (`refusal` may be set), or the end (`ended`). With ``last`` the end of the stream ends a
        line too; without, its beginning is kept for later.
        """
        self.base += self._length
        self._length, self.refusal = 0, None
        data = self._next()
        at_end = data == b""
        if data:
            data = self._carry + data
        elif at_end and last:
            data = self._carry
        else:
            return 0
        if self._skipping is not None:
            data = self._skip(data, at_end)
        cut = len(data) if at_end else data.rfind(b"\n") + 1
        if at_end:
            self.ended = True
            if self.error is not None and data:
                self.refusal = Refusal(self.base, len(data), Poison.TRUNCATED, data[:_EXCERPT])
                self._carry = b""
                self.base += len(data)
                return 0
        self._carry = data[cut:]
        if len(self._carry) > self._line_max:
            self._skipping = Refusal(self.base + cut, len(self._carry), Poison.TOO_LONG, self._carry[:_EXCERPT])
            self._carry = b""
        buffer[:cut] = np.frombuffer(data, np.uint8, cut)
        self._length = cut
        return cut

    def _skip(self, data: bytes, at_end: bool) -> bytes:
        """Drop the rest of an over-long line; what follows its newline."""
        assert self._skipping is not None
        cut = data.find(b"\n") + 1
        self._skipping.length += cut if cut else len(data)
        if cut or at_end:
            self.refusal, self._skipping = self._skipping, None
            self.base = self.refusal.start + self.refusal.length
        return data[cut:] if cut else b""

    def _next(self) -> bytes | None:
        try:
            return self._stream.read(self._chunk_bytes)
        except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
            self.error = str(error) or type(error).__name__
        except OSError as error:
            self.error = error.strerror or str(error)
        return b""


class _ZstdStream:
    """Frames one after the other; unlike the library's reader it notices a frame without its end."""

    def __init__(self, file: ByteStream) -> None:
        self._file = file
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._begun = False
        self._out = io.BytesIO()

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        while True:
            piece = self._out.read(size)
            if piece:
                return piece
            data = self._file.read(1 << 18) or b""
            if not data:
                if self._begun:
                    raise EOFError("the zstd frame has no end")
                return b""
            parts = []
            while data:
                self._begun = True
                parts.append(self._frame.decompress(data))
                data = self._frame.unused_data if self._frame.eof else b""
                if self._frame.eof:
                    self._frame, self._begun = zstandard.ZstdDecompressor().decompressobj(), False
            self._out = io.BytesIO(b"".join(parts))


def expand(paths: Iterable[str]) -> list[str]:
    """Files of the given files and folders, in order; hidden ones in folders are left out.

    Raises:
        SourceError: one does not exist, is empty of files, or was named twice.
    """
    found: list[str] = []
    for given in paths:
        path = Path(given)
        if given == STDIN:
            found.append(given)
        elif path.is_dir():
            files = sorted(
                str(p) for p in path.rglob("*") if p.is_file() and not any(s.startswith(".") for s in p.relative_to(path).parts)
            )
            if not files:
                raise SourceError(f"expected log files in the folder {given}, got none")
            found += files
        elif path.exists():
            found.append(given)
        else:
            raise SourceError(f"expected a file or folder at {given}, got nothing there")
    twice = {name for name in found if found.count(name) > 1} if len(found) < 10_000 else set()
    if twice:
        raise SourceError(f"expected every source once, got {sorted(twice)[0]} more than once")
    return found


def bound_of(name: str, now_ms: int) -> int:
    """The time that no event of a source may be ahead of: a file's last modification, else the clock."""
    if name == STDIN:
        return now_ms
    try:
        status = os.stat(name)
    except OSError:
        return now_ms
    return status.st_mtime_ns // 1_000_000 if os.path.isfile(name) else now_ms


def open_source(name: str, *, start: int, line_max: int, chunk_bytes: int = CHUNK_BYTES) -> LineSource:
    """A file, archive or standard input, from byte ``start`` of its content on.

    Raises:
        SourceError: it cannot be opened, or is not what its name says.
    """
    if name == STDIN:
        return LineSource(name, sys.stdin.buffer, start=start, line_max=line_max, chunk_bytes=chunk_bytes)
    try:
        file = Path(name).open("rb")  # noqa: SIM115 – its reader closes it
    except OSError as error:
        raise SourceError(f"expected a readable file at {name}, got: {error.strerror or error}") from None
    if not os.path.isfile(name):
        return LineSource(name, file, line_max=line_max, chunk_bytes=chunk_bytes)
    head = file.read(4)
    file.seek(0)
    for suffix, (magic, kind) in _SUFFIXES.items():
        if name.endswith(suffix) and not head.startswith(magic):
            raise SourceError(f"expected {kind} data in {name}, got a file that begins with {head!r}")
    stream: ByteStream = file
    if head.startswith(_GZIP):
        stream = gzip.GzipFile(fileobj=file)
    elif head.startswith(_ZSTD):
        stream = _ZstdStream(file)
    else:
        file.seek(start)
        return LineSource(name, file, start=start, line_max=line_max, chunk_bytes=chunk_bytes)
    left = start
    while left > 0:
        skipped = len(stream.read(min(left, CHUNK_BYTES)) or b"")
        if not skipped:
            raise SourceError(f"expected at least {start} bytes in {name}, where the saved state stands, got {start - left}")
        left -= skipped
    return LineSource(name, stream, start=start, line_max=line_max, chunk_bytes=chunk_bytes)
