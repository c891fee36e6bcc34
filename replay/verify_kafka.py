"""Partitions of topics that verify reads again, or those of a copy."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from broker.connection import Connection
from broker.offsets import Partition, end_offsets, first_offsets, partitions_of
from broker.reading import read_spans
from replay.kafka import split_url
from replay.reread_kafka import packed
from replay.verify_reading import Messages, Portion, Source
from schemas.config import Config
from schemas.errors import UsageError


class PartitionSource:
    """One partition of a topic."""

    begins_at = 0

    def __init__(self, connection: Connection, name: str, partition: Partition, first: int, end: int) -> None:
        self.name, self.first = name, first
        self._connection, self._partition, self._end = connection, partition, end

    def bound_ms(self) -> int:
        """Messages have times of their own."""
        return 0

    def portions(self, start: int, end: int) -> Iterator[Portion]:
        """See `replay.verify_reading.Source`."""
        span = max(start, self.first), min(end, self._end)
        if span[0] >= span[1]:
            return
        for messages in read_spans(self._connection, {self._partition: span}):
            yield Messages(*packed(messages))


def open_partitions(config: Config, names: dict[str, Partition], url: str | None) -> tuple[dict[str, Source], list[str]]:
    """(partitions that are there, by the names that evidence has for them; what is not, a sentence each).

    Raises:
        UsageError: a copy has another number of topics, so that it is not known which stands for which.
        BrokerError: Kafka cannot be reached, or a topic is not there.
    """
    copies = {topic: topic for topic, _ in names.values()}
    settings = config.kafka
    if url is not None:
        brokers, topics = split_url(url)
        settings = msgspec.structs.replace(settings, brokers=brokers) if brokers else settings
        if set(topics) < set(copies) or len(topics) != len(copies):
            raise UsageError(f"expected {len(copies)} topics in {url[:100]}, one for each of {', '.join(sorted(copies))}")
        if set(topics) != set(copies):
            if len(topics) > 1:
                raise UsageError(f"expected topics of the same names as {', '.join(sorted(copies))}, got {', '.join(topics)}")
            copies = {next(iter(copies)): topics[0]}
    connection = Connection(settings)
    connection.check()
    known = {key for topic in sorted(set(copies.values())) for key in partitions_of(connection, topic)}
    # All partitions of the topics: what a model has learned may come from one that no evidence names.
    original = {copy: topic for topic, copy in copies.items()}
    wanted = {f"{original[topic]}-{number}": (topic, number) for topic, number in sorted(known)}
    wanted |= {name: (copies[topic], number) for name, (topic, number) in names.items()}
    missing = [f"there is no partition {topic}-{number}" for topic, number in wanted.values() if (topic, number) not in known]
    wanted = {name: key for name, key in wanted.items() if key in known}
    firsts, ends = (ask(connection, list(wanted.values())) for ask in (first_offsets, end_offsets))
    return {name: PartitionSource(connection, name, key, firsts[key], ends[key]) for name, key in wanted.items()}, missing
