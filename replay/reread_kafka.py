"""The evidence of a mitigation in topics."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from confluent_kafka import Message

from broker.connection import Connection
from broker.offsets import Partition, first_offsets, offsets_at, partitions_of
from broker.reading import read_spans
from replay.kafka_ahead import offsets_of, times_of, values_of
from replay.reread import Batch, Range
from schemas.columns import I64, U8

BEFORE_MESSAGES = 50_000
"""Read before the evidence begins, at most."""


def packed(messages: list[Message]) -> tuple[U8, I64, I64, I64, I64]:
    """Messages one behind the other, with room for text that is rewritten: their bytes, starts, ends, times and offsets."""
    values = values_of(messages)
    data = b"".join(values)
    buffer = np.zeros(2 * len(data) + 16384, np.uint8)
    buffer[: len(data)] = np.frombuffer(data, np.uint8)
    ends = np.cumsum(np.fromiter(map(len, values), np.int64, len(values)))
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    return buffer, starts, ends, times_of(messages), offsets_of(messages)


class KafkaRange:
    """Messages of one partition."""

    def __init__(self, connection: Connection, partition: Partition, first: int, end: int, *, is_whole: bool) -> None:
        self.name = f"{partition[0]}-{partition[1]}"
        self.is_whole = is_whole
        self._connection, self._partition, self._first, self._end = connection, partition, first, end

    def batches(self) -> Iterator[Batch]:
        """See `replay.reread.Range`."""
        for messages in read_spans(self._connection, {self._partition: (self._first, self._end)}):
            yield Batch(*packed(messages))


def kafka_ranges(connection: Connection, offsets: dict[str, tuple[int, int]], from_ms: int) -> tuple[list[Range], list[str]]:
    """(what is read again of partitions, what of it is not kept any more, a sentence each).

    ``from_ms`` is the time from which traffic is shown: what lies before the evidence is read from there on.
    """
    partitions: dict[Partition, tuple[int, int]] = {}
    for name, span in offsets.items():
        topic, _, number = name.rpartition("-")
        if topic and number.isdigit():
            partitions[topic, int(number)] = span
    known = {key for topic in sorted({topic for topic, _ in partitions}) for key in partitions_of(connection, topic)}
    missing = [f"there is no partition {topic}-{number}" for topic, number in partitions if (topic, number) not in known]
    wanted = [key for key in partitions if key in known]
    oldest, begun = first_offsets(connection, wanted), offsets_at(connection, wanted, from_ms)
    ranges: list[Range] = []
    for key in wanted:
        first, end = partitions[key]
        if first < oldest[key]:
            missing.append(
                f"{key[0]}-{key[1]} keeps offsets from {oldest[key]} on, the evidence begins at {first}: the rest is gone"
            )
        before = begun[key] if 0 <= begun[key] < first else first
        begin = max(oldest[key], before, first - BEFORE_MESSAGES)
        if begin < end:
            ranges.append(KafkaRange(connection, key, begin, end, is_whole=begin == 0))
    return ranges, missing
