"""Feedback from a file: one record to a line, read as far as whole lines go, and again as it grows."""

from __future__ import annotations

import os
from pathlib import Path

from engine.embedded import Embedded
from schemas.errors import SourceError
from schemas.feedback import FEEDBACK_BYTES_MAX, Feedback, decode_feedback, encode_feedback

FILE_BYTES_MAX = 64 << 20
"""A file of feedback is given by people: this is a hundred thousand records."""


class FeedbackFile:
    """A file that may not be there yet, if it is followed.

    Raises:
        SourceError: it is not there and is not followed, or is too large.
    """

    def __init__(self, path: Path, *, follow: bool) -> None:
        self._path, self._follow, self._at = path, follow, 0
        self.lines = 0
        """Read so far."""

    def give(self, engine: Embedded) -> int:
        """Hand over what is new; how many lines that was. Records that do not count are the engine's to refuse.

        Raises:
            SourceError: it cannot be read.
        """
        lines = self._read()
        for line in lines:
            engine.receive(line)
        self.lines += len(lines)
        return len(lines)

    def _read(self) -> list[bytes]:
        try:
            size = os.stat(self._path).st_size
            if size == self._at:
                return []
            if size > FILE_BYTES_MAX:
                raise SourceError(f"expected at most {FILE_BYTES_MAX} bytes of feedback in {self._path}, got {size}")
            if size < self._at:
                self._at = 0  # written anew: what was received before counts once
            with self._path.open("rb") as file:
                file.seek(self._at)
                data = file.read(size - self._at)
        except FileNotFoundError:
            if self._follow:
                return []
            raise SourceError(f"expected a file of feedback at {self._path}, got nothing there") from None
        except OSError as error:
            raise SourceError(f"expected a readable file of feedback at {self._path}, got: {error.strerror}") from None
        # The last line may still be being written; a file that is read once is whole.
        end = data.rfind(b"\n") + 1 if self._follow else len(data)
        self._at += end
        return [line for line in data[:end].split(b"\n") if line.strip()]


def feedback_lines(path: Path) -> list[bytes]:
    """Every record of a file, as it lies there. Raises `SourceError` as `FeedbackFile`."""
    return FeedbackFile(path, follow=False)._read()


def read_records(path: Path) -> list[Feedback]:
    """Every record of a file, which may not be there.

    Raises:
        SourceError: a line is none.
    """
    lines = FeedbackFile(path, follow=True)._read()
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(decode_feedback(line))
        except ValueError as error:
            raise SourceError(f"expected a record of feedback in {path}, line {number}, got: {error}") from None
    return found


def append_record(path: Path, record: Feedback) -> None:
    """Write a record at the end of a file.

    Raises:
        SourceError: it cannot be written.
    """
    line = encode_feedback(record) + b"\n"
    assert len(line) <= FEEDBACK_BYTES_MAX
    try:
        with path.open("ab") as file:
            file.write(line)
    except OSError as error:
        raise SourceError(f"expected to write feedback to {path}, got: {error.strerror or error}") from None
