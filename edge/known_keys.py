"""The keys that a gateway has, as an operator exports them: hashes, and the ids that the gateway names them by."""

from __future__ import annotations

import re
from pathlib import Path

from schemas.errors import ConfigError
from schemas.leaked import FINGERPRINT_BYTES_MAX

KEYS_MAX = 1_000_000
_LINE = re.compile(rb"([0-9a-fA-F]{64})(?:[ \t,]+([!-~]{1,%d}))?" % FINGERPRINT_BYTES_MAX)


class KnownKeys:
    """A file with a line for each key: its SHA-256 in hexadecimal, and the gateway's id for it, if traffic has that.

    Read again when it was modified. About 150 bytes of memory a key.

    Raises:
        ConfigError: it cannot be read, or a line is something else. It is not repeated: it might be a key.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._stamp = (0, 0)
        self._ids: dict[bytes, bytes] = {}
        self.refresh()

    def __len__(self) -> int:
        return len(self._ids)

    def find(self, digest: bytes) -> str | None:
        """The gateway's id for the key with this SHA-256, empty where the file names none; None: no such key."""
        found = self._ids.get(digest)
        return None if found is None else found.decode()

    def refresh(self) -> None:
        """Look whether the file has changed."""
        try:
            status = self._path.stat()
            stamp = status.st_mtime_ns, status.st_size
            if stamp == self._stamp:
                return
            ids: dict[bytes, bytes] = {}
            with self._path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    text = line.strip()
                    if not text or text.startswith(b"#"):
                        continue
                    match = _LINE.fullmatch(text)
                    if match is None:
                        where = f"line {number} of {self._path}"
                        raise ConfigError(f"expected a SHA-256 in hexadecimal, and maybe an id, in {where}, got something else")
                    ids[bytes.fromhex(match[1].decode())] = match[2] or b""
                    if len(ids) > KEYS_MAX:
                        raise ConfigError(f"expected at most {KEYS_MAX} keys in {self._path}, got more")
        except OSError as error:
            raise ConfigError(f"expected a file of keys at {self._path}, got: {error.strerror or error}") from None
        self._ids, self._stamp = ids, stamp
