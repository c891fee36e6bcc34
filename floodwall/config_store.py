"""Where the history of the configuration lies: on the topic, or in a file."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import ConfigError

if TYPE_CHECKING:
    from engine.config_chain import Accepted, ConfigChain
    from schemas.config import Config
    from schemas.config_change import ConfigChange


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that does not count."""

    place: str
    why: str


class Store:
    """A history that can be read and written.

    Args:
        config: the deployment's file.
        path: of a file with the history; none: the topic.
    """

    def __init__(self, config: Config, path: Path | None) -> None:
        self._config, self._path = config, path
        self.chain: ConfigChain
        self.refused: list[Refused]
        self.times_ms: dict[int, int] = {}
        """By offset, the brokers' time of a record."""
        self.read()

    def read(self) -> None:
        """All of it, as judges read it."""
        if self._path is not None:
            from replay.history import HistoryFile

            file = HistoryFile(self._config, self._path)
            file.read()
            self.chain, self.refused = file.chain, [Refused(f"line {line}", why) for line, why in file.refused]
            return
        from broker.config_topic import read_history
        from broker.connection import Connection

        self.chain, written = read_history(self._config, Connection(self._config.kafka))
        self.refused = [Refused(f"offset {one.offset}", one.refused) for one in written if one.accepted is None]
        self.times_ms = {one.offset: one.at_ms for one in written}

    def write(self, change: ConfigChange) -> Accepted:
        """Write a change, and see what became of it.

        Raises:
            ConfigError: it is refused; it may have been written all the same, because somebody else was quicker.
        """
        self.chain.judge(change, change.at_ms)  # what is wrong already is not written
        if self._path is not None:
            from replay.history import HistoryFile
            from schemas.config_change import encode_change

            HistoryFile(self._config, self._path).append(change)
            self.read()
            with contextlib.suppress(IndexError):
                if encode_change(self.chain.accepted[-1].change) == encode_change(change):
                    return self.chain.accepted[-1]
            raise ConfigError(self.refused[-1].why if self.refused else "expected the change in its history, it is not there")
        from broker.config_topic import write_change
        from broker.connection import Connection

        offset = write_change(self._config, Connection(self._config.kafka), change)
        self.read()
        for accepted in self.chain.accepted:
            if accepted.offset == offset:
                return accepted
        raise ConfigError(next((one.why for one in self.refused if one.place == f"offset {offset}"), "it is not there"))
