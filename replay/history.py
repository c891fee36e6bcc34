"""A history of the configuration in a file: one change a line, as on the topic ``config``; without Kafka its only place."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from engine.config_chain import Accepted, ConfigChain
from schemas.config import Config
from schemas.config_change import CHANGE_BYTES_MAX, ConfigChange, encode_change
from schemas.errors import ConfigError, SourceError


@dataclass(slots=True)
class HistoryFile:
    """A file that may grow.

    Args:
        config: the configuration that the first change changes.
        path: of the file; it need not be there yet if nothing has been changed.
    """

    config: Config
    path: Path
    chain: ConfigChain = field(init=False)
    refused: list[tuple[int, str]] = field(default_factory=list)
    """The numbers of lines that do not count, and why."""
    _at: int = 0
    _lines: int = 0

    def __post_init__(self) -> None:
        self.chain = ConfigChain(self.config)

    def read(self) -> list[Accepted]:
        """The whole lines that have been written since the last call, as far as they count.

        Raises:
            SourceError: it cannot be read, or a line is longer than any change.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self._at)
                data = file.read()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SourceError(f"expected a readable history at {self.path}, got: {error.strerror or error}") from None
        whole, _, rest = data.rpartition(b"\n")
        if len(rest) > CHANGE_BYTES_MAX:
            raise SourceError(f"expected one change a line in {self.path}, got {len(rest)} bytes without an end of line")
        if not whole:
            return []
        self._at += len(whole) + 1
        accepted = []
        for line in whole.split(b"\n"):
            self._lines += 1
            if not line.strip():
                continue
            try:
                accepted.append(self.chain.offer(line, offset=self._lines))
            except ConfigError as error:
                self.refused.append((self._lines, str(error)))
        return accepted

    def append(self, change: ConfigChange) -> None:
        """Write a change behind the others.

        Raises:
            SourceError: it cannot be written.
        """
        try:
            with self.path.open("ab") as file:
                file.write(encode_change(change) + b"\n")
        except OSError as error:
            raise SourceError(f"expected a writable history at {self.path}, got: {error.strerror or error}") from None
