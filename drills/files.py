"""A drill into a folder: its streams, and its labels beside them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import orjson

from drills.labels import Truth, labels_of
from drills.render import lines
from drills.run import Drill
from schemas.errors import SourceError
from schemas.labels import LABELS


def file_of(stream: str, access_format: str) -> str:
    """Under which name a stream is written."""
    if stream == "access-log":
        return "access.log" if access_format == "combined" else "access.ndjson"
    return f"{stream}.ndjson"


def write_drill(
    drill: Drill, folder: Path, streams: Sequence[str], access_format: str, progress: Callable[[int], None] | None = None
) -> Truth:
    """Write each stream and its labels; what happened.

    Raises:
        SourceError: something cannot be written.
    """
    truth = Truth(drill)
    with contextlib.ExitStack() as stack:
        files = {}
        for stream in streams:
            name = file_of(stream, access_format)
            files[stream] = stack.enter_context(writing(folder / name)), stack.enter_context(writing(folder / f"{name}.labels"))
        for events in drill.blocks():
            truth.note(events)
            for stream, (file, labels) in files.items():
                with explained(folder):
                    file.write(b"".join(lines(events, drill.world.actors, stream, access_format)))
                    labels.write(labels_of(events, stream).tobytes())
            if progress is not None:
                progress(len(events))
    write_labels(truth, folder)
    return truth


def write_labels(truth: Truth, folder: Path) -> None:
    """Write ``labels.ndjson``.

    Raises:
        SourceError: it cannot be written.
    """
    with writing(folder / LABELS) as file, explained(folder):
        for record in truth.records():
            file.write(orjson.dumps(record) + b"\n")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A new file, in a folder that is made if there is none."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("wb")
    try:
        yield file
    finally:
        with explained(path):
            file.close()


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """What the system refuses, as one line."""
    try:
        yield
    except OSError as error:
        raise SourceError(f"expected to write the drill to {path}, got: {error.strerror or error}") from None
