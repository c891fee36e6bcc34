"""Which mitigations are to be verified, from a file or the enforcement topic."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from replay.sources import lines_of
from schemas.config import Config
from schemas.errors import BrokerError, SourceError
from schemas.mitigation import Mitigation, decode_mitigation
from schemas.topics import FEEDBACK, MITIGATIONS

RECORDS_MAX = 200_000
"""Some 2 kB each."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An id, or a range of event time in milliseconds; None: no bound."""

    identifier: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None

    def has(self, one: Mitigation) -> bool:
        """Is this record wanted?"""
        if self.identifier is not None:
            return one.id == self.identifier
        at_ms = 1000 * one.tick
        return (self.from_ms is None or at_ms >= self.from_ms) and (self.to_ms is None or at_ms < self.to_ms)


@dataclass(slots=True)
class Found:
    """What was read."""

    records: list[Mitigation] = field(default_factory=list)
    sources: set[str] = field(default_factory=set)
    """Every source partition that some evidence names, be it of others: what a model learned may lie there."""
    unread: int = 0
    """Records that are no mitigations."""
    feedback: list[bytes] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def records_of_file(path: Path, wanted: Wanted) -> Found:
    """Of a file that replay or watch wrote with ``--out``.

    Raises:
        SourceError: it cannot be read, or holds nothing that is wanted.
    """
    return _gathered(lines_of(str(path)), wanted, str(path))


def records_of_topic(config: Config, wanted: Wanted) -> Found:
    """Of the enforcement topic, with what operators have said.

    Raises:
        BrokerError: Kafka cannot be reached, or the topic not be read. SourceError: it holds nothing that is wanted.
    """
    from broker.connection import Connection
    from broker.reading import read_values

    connection, prefix = Connection(config.kafka), config.kafka.topic_prefix
    connection.check()
    found = _gathered(read_values(connection, prefix + MITIGATIONS), wanted, prefix + MITIGATIONS)
    try:
        found.feedback = list(read_values(connection, prefix + FEEDBACK))
    except BrokerError as error:
        found.missing.append(f"what operators said was not read: {error}")
    return found


def _gathered(values: Iterable[bytes], wanted: Wanted, where: str) -> Found:
    found = Found()
    for value in values:
        try:
            one = decode_mitigation(value)
        except (ValueError, RecursionError):
            found.unread += bool(value.strip())
            continue
        found.sources.update(one.evidence.offsets)
        if wanted.has(one):
            if len(found.records) >= RECORDS_MAX:
                raise SourceError(f"expected at most {RECORDS_MAX} records to verify in {where}, got more: use --from and --to")
            found.records.append(one)
    if not found.records:
        what = "in that time" if wanted.identifier is None else ascii(wanted.identifier)[:66]
        raise SourceError(f"expected a mitigation {what} in {where}, found none")
    return found
