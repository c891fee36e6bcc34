"""What gateways have been told and may hold, on disk: after a death that, and nothing else, is ended again.

Written down before a call begins something, and struck out after a call has ended it. So whatever a gateway may have of ours
stands here, and whatever somebody else has done there does not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from edge.files import put_whole
from schemas.errors import EdgeError, StateError
from schemas.mitigation import Target

HELD_MAX = 20_000
"""Entries; each is about 300 bytes. What comes when it is full waits until something has ended."""
LINE_BYTES_MAX = 1 << 16
_SLACK_LINES = 1000


class Held(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """What a hook has been told."""

    hook: str
    target: Target
    id: str
    action: str
    detector: str
    reason: str
    issued_at: int
    until: int
    gone: bool = False
    """In the file: struck out."""

    @property
    def place(self) -> tuple[str, Target]:
        """One hook holds one thing about one target."""
        return self.hook, self.target


class HookBook:
    """A journal: one line for each change, written anew when it has become long.

    Raises:
        StateError: the file is damaged elsewhere than at its end.
        EdgeError: it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: dict[tuple[str, Target], Held] = {}
        self._encoder = msgspec.json.Encoder()
        try:
            data = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise EdgeError(f"expected to read {path}, got: {error.strerror}") from None
        lines = data.split(b"\n")
        for number, line in enumerate(lines, 1):
            self._take_line(line, number, is_last=number == len(lines))
        self._lines = 0
        self._write_anew()

    def get(self, hook: str, target: Target) -> Held | None:
        """What a hook may hold about a target."""
        return self._held.get((hook, target))

    def of(self, hook: str) -> Iterator[Held]:
        """Everything that a hook may hold."""
        return (held for held in list(self._held.values()) if held.hook == hook)

    def hooks(self) -> set[str]:
        """Whose entries there are."""
        return {held.hook for held in self._held.values()}

    @property
    def is_full(self) -> bool:
        """There is no room for another."""
        return len(self._held) >= HELD_MAX

    def write(self, begun: Sequence[Held], ended: Sequence[Held]) -> None:
        """Note these, and wait until they are on the disk.

        Raises:
            EdgeError: the disk does not take it.
        """
        if not begun and not ended:
            return
        for held in begun:
            self._held[held.place] = held
        for held in ended:
            self._held.pop(held.place, None)
        changes = [*begun, *(msgspec.structs.replace(held, gone=True) for held in ended)]
        if self._lines + len(changes) > 2 * len(self._held) + _SLACK_LINES:
            self._write_anew()
            return
        try:
            with self._path.open("ab") as file:
                file.write(self._encoder.encode_lines(changes))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise EdgeError(f"expected to write to {self._path}, got: {error.strerror}") from None
        self._lines += len(changes)

    def _take_line(self, line: bytes, number: int, *, is_last: bool) -> None:
        if not line:
            return
        try:
            held = msgspec.json.decode(line, type=Held)
        except (msgspec.MsgspecError, ValueError) as error:
            if is_last:  # cut short by a death: what it would have noted has not been done
                return
            raise StateError(f"{self._path}: expected what this edge has written in line {number}, got: {error}") from None
        if held.gone:
            self._held.pop(held.place, None)
        else:
            self._held[held.place] = held

    def _write_anew(self) -> None:
        try:
            put_whole(self._path, self._encoder.encode_lines(list(self._held.values())), 0o600)
        except OSError as error:
            raise EdgeError(f"expected to write to {self._path}, got: {error.strerror}") from None
        self._lines = len(self._held)
