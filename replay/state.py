"""A saved state on disk: written beside the old one and put in its place, readable by its owner only."""

from __future__ import annotations

import os
from pathlib import Path

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
