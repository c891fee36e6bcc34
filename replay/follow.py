"""watch: a growing file, followed through rotation, or standard input, decided as it comes.

Every generation of the file is a source partition of its own, named by path and inode. So after a restart each goes on
where it stood, and a generation that was moved away in the meantime is read to its end first.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from pathlib import Path

from engine.clock import Clock
from engine.embedded import Embedded
from replay.feedback import FeedbackFile
from replay.history import HistoryFile
from replay.redact import Redaction
from replay.sink import Sink
from replay.sources import STDIN, LineSource, make_buffer, standard_input
from replay.state import load_state, save_state
from schemas.columns import U8
from schemas.config import Config
from schemas.errors import SourceError

POLL_S = 0.1
SAVE_MS = 2000


class FollowedFile:
    """One path and the generations of the file at it."""

    def __init__(self, path: str, engine: Embedded, clock: Clock, *, line_max: int, from_start: bool) -> None:
        self._path, self._engine, self._clock, self._line_max = path, engine, clock, line_max
        try:
            status = os.stat(path)
        except OSError as error:
            raise SourceError(f"expected a file to follow at {path}, got: {error.strerror or error}") from None
        if not os.path.isfile(path):
            raise SourceError(f"expected a file to follow at {path}, got a folder or device (use - for standard input)")
        self._source: LineSource | None = None
        self._inode = -1
        self._waiting: list[str] = []
        known = {name: at for name, at in engine.positions().items() if name.startswith(path + "#")}
        current = f"{path}#{status.st_ino}"
        for name, at in known.items():
            moved = self._find(int(name.rsplit("#", 1)[1])) if name != current else None
            if moved is not None and os.stat(moved).st_size > at:
                self._read_moved(name, moved, at)
        start = known.get(current, 0 if from_start else status.st_size)
        self._open(path, status.st_ino, start if start <= status.st_size else 0)

    def _find(self, inode: int) -> str | None:
        folder = os.path.dirname(self._path) or "."
        for entry in os.scandir(folder):
            if entry.inode() == inode and entry.is_file():
                return entry.path
        return None

    def _open(self, path: str, inode: int, start: int) -> None:
        try:
            file = Path(path).open("rb")  # noqa: SIM115 – followed for longer than this call
        except OSError as error:
            raise SourceError(f"expected a readable file to follow at {path}, got: {error.strerror or error}") from None
        file.seek(start)
        name = f"{self._path}#{inode}"
        self._engine.open(name, self._clock.now_ms(), start)
        self._source, self._inode, self._file = LineSource(name, file, start=start, line_max=self._line_max), inode, file

    def _read_moved(self, name: str, path: str, start: int) -> None:
        """Take the rest of a generation that was moved away while nobody looked."""
        with Path(path).open("rb") as file:
            file.seek(start)
            self._engine.open(name, self._clock.now_ms(), start)
            source = LineSource(name, file, start=start, line_max=self._line_max)
            buffer = make_buffer(self._line_max)
            while not source.ended:
                self._take(source, buffer, last=True)
        self._engine.close(name)

    def _take(self, source: LineSource, buffer: U8, *, last: bool) -> int:
        length = source.read(buffer, last=last)
        if source.refusal is not None:
            refused = source.refusal
            self._engine.refuse(source.name, refused.start, refused.length, refused.reason, excerpt=refused.excerpt)
        if length:
            self._engine.set_bound(source.name, self._clock.now_ms())
            self._engine.feed(source.name, buffer, length, source.base)
        return length

    def poll(self, buffer: U8) -> int:
        """Read what has been written since; returns the bytes of whole lines."""
        assert self._source is not None
        length = self._take(self._source, buffer, last=False)
        if length:
            return length
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return 0  # between rename and create
        if status.st_ino != self._inode:
            length = self._take(self._source, buffer, last=False)  # what was written between the last read and the rename
            if length:
                return length
            length = self._take(self._source, buffer, last=True)
            self._engine.close(self._source.name)
            self._file.close()
            self._open(self._path, status.st_ino, 0)
        elif status.st_size < self._file.tell():
            self._file.close()  # truncated in place: the same file begins again
            self._open(self._path, status.st_ino, 0)
        return length


class _Pipe:
    """Standard input without waiting: None when nothing is there."""

    def __init__(self) -> None:
        self._descriptor = standard_input().fileno()

    def read(self, size: int = 1 << 18) -> bytes | None:
        ready, _, _ = select.select([self._descriptor], [], [], POLL_S)
        return os.read(self._descriptor, size) if ready else None


def watch(
    config: Config,
    path: str,
    sink: Sink,
    clock: Clock,
    *,
    from_start: bool = False,
    state: Path | None = None,
    threads: int = 1,
    history: HistoryFile | None = None,
    stop: Callable[[], bool] = lambda: False,
    tell: Callable[[Embedded], None] | None = None,
    feedback: Path | None = None,
) -> Embedded:
    """Follow a file (or ``-``) until it is interrupted, standard input ends, or ``stop`` says so; returns the engine.

    ``feedback``: a file of records that may come and grow meanwhile.

    Raises:
        SourceError: the file cannot be followed. StateError: the state cannot be used or written.
    """
    saved = load_state(state)
    if history is not None:
        history.read()
    chain = None if history is None else history.chain
    if saved is None:
        engine = Embedded(config, early=True, threads=threads, history=chain)
    else:
        engine = Embedded.restore(config, saved, early=True, threads=threads, history=chain)
    line_max = config.input.record_bytes_max
    redaction = Redaction(config.input.fields)
    buffer = make_buffer(line_max)
    pipe = LineSource(STDIN, _Pipe(), line_max=line_max) if path == STDIN else None
    followed = None
    if pipe is None:
        followed = FollowedFile(path, engine, clock, line_max=line_max, from_start=from_start)
    else:
        engine.open(STDIN, clock.now_ms())
    saved_ms = clock.now_ms()
    said = None if feedback is None else FeedbackFile(feedback, follow=True)
    try:
        while not stop():
            for accepted in () if history is None else history.read():
                engine.reconfigure(accepted.standing, accepted.change.effective_tick)
            if said is not None:
                said.give(engine)
            length = followed.poll(buffer) if followed is not None else _read_pipe(pipe, engine, buffer, clock)
            now_ms = clock.now_ms()
            engine.idle(now_ms)
            sink.write(engine.take())
            if tell is not None:
                tell(engine)
            if pipe is not None and pipe.ended:
                engine.finish()
                break
            if state is not None and now_ms - saved_ms >= SAVE_MS:
                redaction.account(engine.account())
                data = engine.snapshot()
                sink.write(engine.take())
                save_state(state, data)
                saved_ms = now_ms
            if not length and pipe is None:
                clock.wait(POLL_S)
    finally:
        redaction.account(engine.account())
        sink.write(engine.take())
        if state is not None:
            save_state(state, engine.snapshot())
        engine.stop()
    return engine


def _read_pipe(pipe: LineSource | None, engine: Embedded, buffer: U8, clock: Clock) -> int:
    assert pipe is not None
    length = pipe.read(buffer)
    if pipe.refusal is not None:
        engine.refuse(STDIN, pipe.refusal.start, pipe.refusal.length, pipe.refusal.reason, excerpt=pipe.refusal.excerpt)
    if length:
        engine.set_bound(STDIN, clock.now_ms())
        engine.feed(STDIN, buffer, length, pipe.base)
    return length
