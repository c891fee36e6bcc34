"""Files that others read while we write them: they see the old one or the new one, never half of one."""

from __future__ import annotations

import os
from pathlib import Path


def put_whole(path: Path, data: bytes, mode: int) -> None:
    """Put a file in the place of the old one, whole, and on the disk.

    Raises:
        OSError: it cannot be written; the old one is as it was.
    """
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
