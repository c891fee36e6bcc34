"""A saved state on disk: written beside the old one and put in its place, readable by its owner only."""

from __future__ import annotations

import os
from pathlib import Path

from detectors.kernels.windows import NEVER
from engine.model_state import ModelPlace, place_of
from engine.snapshot import pack, unpack
from schemas.errors import StateError


def save_state(path: Path, data: bytes) -> None:
    """Replace the file at once. Raises `StateError` when it cannot be written."""
    fresh = path.with_name(path.name + ".new")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError as error:
        raise StateError(f"expected a place to write the state to at {path}, got: {error.strerror or error}") from None


def load_state(path: Path | None) -> bytes | None:
    """The file's bytes; None when there is none yet. Raises `StateError` when it cannot be read."""
    if path is None:
        return None
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"expected a readable state at {path}, got: {error.strerror or error}") from None


def read_saved_models(path: Path) -> list[ModelPlace]:
    """The learned detectors in a saved state.

    Raises:
        StateError: there is none, or it cannot be used.
    """
    data = load_state(path)
    if data is None:
        raise StateError(f"expected a saved state at {path}, got nothing there")
    try:
        judge = unpack(data)["judge"]
        closed = None if judge["closed"] == NEVER else int(judge["closed"])
        saved = dict(judge["learned"])
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(f"expected a saved state with learned detectors at {path}, got one without ({error})") from None
    return [place_of(name, None, one, closed, len(pack(one))) for name, one in sorted(saved.items())]
