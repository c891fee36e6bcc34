"""Files, folders, archives and standard input as whole lines of bytes with their offsets; nothing is lost on the way.

Offsets count bytes of the decompressed stream. A stretch that never becomes a line (longer than any record may be, or the
tail of a half-written archive) is handed on as a `Refusal`, so that it is counted.
"""

from __future__ import annotations

import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

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
_GZIP_WBITS = 16 + zlib.MAX_WBITS
"""zlib's word for: expect the header and the checksum of gzip."""
_BLOCK_BYTES = 1 << 16
_PIECE_BYTES = 1 << 10
"""Packed bytes unpacked at a time, so that damage costs little of what lies before it. A zstd frame made to harm grows
32,768-fold: 32 MB."""
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
        except (EOFError, zlib.error, zstandard.ZstdError) as error:
            self.error = str(error) or type(error).__name__
        except OSError as error:
            self.error = error.strerror or str(error)
        return b""


class _Frame(Protocol):
    """One compressed stream; an archive may hold several, one after the other."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class _Archive:
    """Frames one after the other. Unlike the libraries' readers it gives everything that can be unpacked of a file that
    breaks off or is damaged, and only then says so.
    """

    def __init__(self, file: ByteStream, frame: Callable[[], _Frame], kind: str) -> None:
        self._file, self._new_frame, self._kind = file, frame, kind
        self._frame = frame()
        self._begun = False
        self._error: Exception | None = None
        self._block, self._at = b"", 0
        self._ready = bytearray()

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        ready = self._ready
        while len(ready) < size and self._error is None and (packed := self._next()):
            self._unpack(packed)
        if not ready and self._error is not None:
            raise self._error
        piece = bytes(ready[:size])
        del ready[:size]
        return piece

    def _next(self) -> bytes:
        """The next packed bytes; empty at the end of the file, or when there is an error."""
        if self._at == len(self._block):
            try:
                self._block, self._at = self._file.read(_BLOCK_BYTES) or b"", 0
            except OSError as error:
                self._error = error
                return b""
            if not self._block and self._begun:
                self._error = EOFError(f"the {self._kind} data has no end")
        piece = self._block[self._at : self._at + _PIECE_BYTES]
        self._at += len(piece)
        return piece

    def _unpack(self, packed: bytes) -> None:
        while packed and self._error is None:
            if not self._begun and not (packed := packed.lstrip(b"\0")):
                return  # tapes and pre-allocated files are padded with zeros
            self._begun = True
            try:
                self._ready += self._frame.decompress(packed)
            except (zlib.error, zstandard.ZstdError) as error:
                self._error = error
            packed = b""
            if self._frame.eof:
                packed = self._frame.unused_data
                self._frame, self._begun = self._new_frame(), False


def _gzip_frame() -> _Frame:
    return zlib.decompressobj(wbits=_GZIP_WBITS)


def _zstd_frame() -> _Frame:
    frame: _Frame = zstandard.ZstdDecompressor().decompressobj()
    return frame


def standard_input() -> BinaryIO:
    """The bytes of standard input. Raises `SourceError` when it was closed before we began."""
    if sys.stdin is None:
        raise SourceError("expected an open standard input for -, got a closed one")
    return sys.stdin.buffer


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
            continue
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            raise SourceError(f"expected a file or folder at {given}, got nothing there") from None
        except (OSError, ValueError) as error:
            raise SourceError(f"expected a readable file or folder at {given}, got: {_why(error)}") from None
        if not stat.S_ISDIR(mode):
            found.append(given)
            continue
        files = sorted(_files_of(path))
        if not files:
            raise SourceError(f"expected log files in the folder {given}, got none")
        found += files
    for name in found:
        if not name.isprintable() and any("\ud800" <= character <= "\udfff" for character in name):
            raise SourceError(f"expected a file whose name is UTF-8, got {os.fsencode(name)!r}")
    twice = {name for name in found if found.count(name) > 1} if len(found) < 10_000 else set()
    if twice:
        raise SourceError(f"expected every source once, got {sorted(twice)[0]} more than once")
    return found


def _files_of(folder: Path) -> Iterator[str]:
    """Regular files anywhere below, without those whose own or folder's name begins with a dot.

    Raises:
        SourceError: a folder below may not be read; what it holds would be missing without a word.
    """

    def refuse(error: OSError) -> None:
        raise SourceError(f"expected a readable folder at {error.filename}, got: {_why(error)}")

    for at, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = os.path.join(at, name)
            if not name.startswith(".") and os.path.isfile(path):
                yield path


def _why(error: OSError | ValueError) -> str:
    """The system's reason in its own words, without the name, which is said already."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def bound_of(name: str, now_ms: int) -> int:
    """The time that no event of a source may be ahead of: a file's last modification, else the clock."""
    if name == STDIN:
        return now_ms
    try:
        status = os.stat(name)
    except OSError:
        return now_ms
    return status.st_mtime_ns // 1_000_000 if os.path.isfile(name) else now_ms


def is_plain_file(name: str) -> bool:
    """Not standard input, nor a pipe or a device, which can be read once."""
    return name != STDIN and os.path.isfile(name)


def _as_it_is(stream: ByteStream) -> ByteStream:
    return stream


def open_source(
    name: str, *, start: int, line_max: int, chunk_bytes: int = CHUNK_BYTES,
    wrap: Callable[[ByteStream], ByteStream] = _as_it_is,
) -> LineSource:  # fmt: skip
    """A file, archive or standard input, from byte ``start`` of its content on.

    ``wrap``: gets the stream of bytes as they lie on the disk, before they are unpacked, and gives the one to read.

    Raises:
        SourceError: it cannot be opened, or is not what its name says.
    """
    if name == STDIN:
        return LineSource(name, wrap(standard_input()), start=start, line_max=line_max, chunk_bytes=chunk_bytes)
    try:
        file = Path(name).open("rb")  # noqa: SIM115 – its reader closes it
        head = file.read(4) if os.path.isfile(name) else b""
    except OSError as error:
        raise SourceError(f"expected a readable file at {name}, got: {_why(error)}") from None
    if not os.path.isfile(name):
        return LineSource(name, wrap(file), line_max=line_max, chunk_bytes=chunk_bytes)
    file.seek(0)
    for suffix, (magic, kind) in _SUFFIXES.items():
        if name.endswith(suffix) and not head.startswith(magic):
            raise SourceError(f"expected {kind} data in {name}, got a file that begins with {head!r}")
    stream: ByteStream
    if head.startswith(_GZIP):
        stream = _Archive(wrap(file), _gzip_frame, "gzip")
    elif head.startswith(_ZSTD):
        stream = _Archive(wrap(file), _zstd_frame, "zstd")
    else:
        file.seek(start)
        return LineSource(name, wrap(file), start=start, line_max=line_max, chunk_bytes=chunk_bytes)
    left = start
    while left > 0:
        skipped = len(stream.read(min(left, CHUNK_BYTES)) or b"")
        if not skipped:
            raise SourceError(f"expected at least {start} bytes in {name}, where the saved state stands, got {start - left}")
        left -= skipped
    return LineSource(name, stream, start=start, line_max=line_max, chunk_bytes=chunk_bytes)


class Piece(NamedTuple):
    """What was read in one go: lines, after what never became one."""

    refusal: Refusal | None
    buffer: U8
    """Its first ``length`` bytes, until the next piece is read"""
    length: int
    base: int
    """The offset of the first of them"""


def read_between(name: str, start: int, end: int, line_max: int) -> Iterator[Piece]:
    """A file or archive at offsets of [start, end), in order. Lines are cut where these begin and end.

    Raises:
        SourceError: it cannot be opened, or is an archive that ends before ``start``.
    """
    source, buffer = open_source(name, start=start, line_max=line_max), make_buffer(line_max)
    while not source.ended and source.base < end:
        length = source.read(buffer)
        yield Piece(source.refusal, buffer, max(0, min(length, end - source.base)), source.base)


LINE_BYTES_MAX = 16 << 20
"""Of a line that is only copied."""


def lines_of(name: str) -> Iterator[bytes]:
    """Every line of a file or archive as it is, with its newline; the last may have none.

    Raises:
        SourceError: it cannot be opened, is not what its name says, breaks off, or a line is longer than 16 MiB.
    """
    source = open_source(name, start=0, line_max=LINE_BYTES_MAX)
    buffer = make_buffer(LINE_BYTES_MAX)
    while not source.ended:
        length = source.read(buffer)
        if source.refusal is not None or source.error is not None:
            why = source.error or f"a line of more than {LINE_BYTES_MAX >> 20} MiB at byte {source.base}"
            raise SourceError(f"expected {name} to be whole, got: {why}")
        *whole, rest = buffer[:length].tobytes().split(b"\n")
        yield from (line + b"\n" for line in whole)
        if rest:
            yield rest
