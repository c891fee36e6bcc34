"""The evidence of a mitigation in topics, and everything else that topics say about it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, Message, TopicPartition

from broker.connection import Connection, is_about_no_group
from broker.offsets import Partition, end_offsets, first_offsets, offsets_at, partitions_of
from replay.reread import Batch, Range
from schemas.errors import BrokerError

MESSAGES = 10_000
"""Of one call."""
BEFORE_MESSAGES = 50_000
"""Read before the evidence begins, at most."""
_WAIT_S = 0.2
_SILENCE_S_MAX = 10.0


class KafkaRange:
    """Messages of one partition."""

    def __init__(self, connection: Connection, partition: Partition, first: int, end: int, *, is_whole: bool) -> None:
        self.name = f"{partition[0]}-{partition[1]}"
        self.is_whole = is_whole
        self._connection, self._partition, self._first, self._end = connection, partition, first, end

    def batches(self) -> Iterator[Batch]:
        """See `replay.reread.Range`."""
        for messages in read_span(self._connection, self._partition, self._first, self._end):
            values = [message.value() or b"" for message in messages]
            data = b"".join(values)
            buffer = np.zeros(2 * len(data) + 16384, np.uint8)
            buffer[: len(data)] = np.frombuffer(data, np.uint8)
            ends = np.cumsum(np.fromiter(map(len, values), np.int64, len(values)))
            starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
            stamps = (message.timestamp() for message in messages)
            times_ms = np.fromiter((0 if kind == TIMESTAMP_NOT_AVAILABLE else ms for kind, ms in stamps), np.int64, len(values))
            offsets = np.fromiter((message.offset() or 0 for message in messages), np.int64, len(values))
            yield Batch(buffer, starts, ends, times_ms, offsets)


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


def read_topic_from(connection: Connection, topic: str, from_ms: int | None) -> Iterator[Message]:
    """Every committed message of a topic from a time on (None: from its beginning) to where it ends now.

    Raises:
        BrokerError: it is not there, or may not be read.
    """
    partitions = partitions_of(connection, topic)
    starts, ends = first_offsets(connection, partitions), end_offsets(connection, partitions)
    if from_ms is not None:
        found = offsets_at(connection, partitions, from_ms)
        starts = {key: offset if offset >= 0 else ends[key] for key, offset in found.items()}
    for key in partitions:
        for messages in read_span(connection, key, starts[key], ends[key]):
            yield from messages


def read_span(connection: Connection, partition: Partition, first: int, end: int) -> Iterator[list[Message]]:
    """The committed messages of ``[first, end)``, some at a time.

    Raises:
        BrokerError: the topic may not be read, or its broker says nothing for ten seconds.
    """
    if first >= end:
        return
    consumer = Consumer(
        connection.settings(
            group_id="floodwall-explain",  # named because it has to be; it is asked for nothing and told nothing
            enable_auto_commit=False,
            enable_auto_offset_store=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            enable_partition_eof=True,
            fetch_queue_backoff_ms=5,
        )
    )
    try:
        consumer.assign([TopicPartition(*partition, first)])
        heard_s = time.monotonic()
        while True:
            came, is_over = consumer.consume(MESSAGES, _WAIT_S), False
            messages = []
            for message in came:
                error, offset = message.error(), message.offset() or 0
                if error is None:
                    if offset < end:
                        messages.append(message)
                    is_over = is_over or offset + 1 >= end
                elif error.code() == KafkaError._PARTITION_EOF:
                    is_over = True
                elif not is_about_no_group(error):
                    raise connection.explain(error, partition[0])
            if messages:
                heard_s = time.monotonic()
                yield messages
            if is_over:
                return
            if time.monotonic() - heard_s > _SILENCE_S_MAX:
                raise BrokerError(f"expected {partition[0]}-{partition[1]} to be readable to {end}, nothing came for 10 s")
    finally:
        consumer.close()
