"""The configuration as it was when traffic came: of a file of changes, or of the topic ``config`` of its brokers."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import BrokerError, SourceError

if TYPE_CHECKING:
    from engine.config_chain import ConfigChain
    from replay.history import HistoryFile
    from schemas.config import Config, Loaded

ALONE = "none"
"""In place of a file: the given configuration decides alone."""


@dataclass(frozen=True, slots=True)
class Then:
    """What is known of it."""

    chain: ConfigChain | None = None
    """The changes; none: the given configuration decides alone."""
    source: str = ""
    """Where they were read; empty: nowhere."""
    refused: int = 0
    """Records that do not count, for judges neither."""
    not_read: str = ""
    """Why the topic was not."""
    times_ms: dict[int, int] = field(default_factory=dict)
    """By offset, the brokers' time of a record."""

    def plain(self) -> dict[str, Any] | None:
        """For manifests and ``--json``; none: nothing was looked for."""
        if not self.source:
            return None
        changes = 0 if self.chain is None else len(self.chain.accepted)
        return {"source": self.source, "changes": changes, "refused": self.refused, "not_read": self.not_read or None}

    def lines(self) -> list[str] | None:
        """The changes that count, with the times by which they do; as `engine.config_chain.ConfigChain.offer` takes them."""
        import msgspec

        from schemas.config_change import encode_change

        if self.chain is None:
            return None
        changes = [
            msgspec.structs.replace(one.change, at_ms=self.times_ms.get(one.offset, one.change.at_ms))
            for one in self.chain.accepted
        ]
        return [encode_change(one).decode() for one in changes]


def file_history(config: Config, path: Path, *, may_come: bool = False) -> HistoryFile:
    """The changes so far; lines that do not count are told of."""
    from replay.history import HistoryFile

    history = HistoryFile(config, path)
    if not may_come and not path.exists():
        raise SourceError(f"expected a history of the configuration at {path}, got no file")
    history.read()
    for line, why in history.refused:
        print(f"floodwall: line {line} of {path} does not count: {why}", file=sys.stderr)
    return history


def config_then(loaded: Loaded, given: Path | None, sources: list[str]) -> Then:
    """Of ``--config-history``; without it of the topic, where traffic comes from topics and ``--config`` names brokers.

    Raises:
        SourceError: the file cannot be read.
    """
    from replay.sources import KAFKA_SCHEME

    config = loaded.config
    if given is not None:
        if str(given) == ALONE:
            return Then()
        history = file_history(config, given)
        return Then(history.chain, str(given), len(history.refused))
    if not any(source.startswith(KAFKA_SCHEME) for source in sources) or not loaded.says("kafka", "brokers"):
        return Then()
    from broker.config_topic import read_history, topic_of
    from broker.connection import Connection

    source = f"the topic {topic_of(config)}"
    try:
        chain, written = read_history(config, Connection(config.kafka))
    except BrokerError as error:  # whoever may not read it replays under the file
        alone = f"{loaded.file} decides alone"
        print(f"floodwall: the history of the configuration was not read, {alone}: {error}", file=sys.stderr)
        return Then(source=source, not_read=str(error))
    return Then(chain, source, sum(one.accepted is None for one in written), times_ms={w.offset: w.at_ms for w in written})
