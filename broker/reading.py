"""Topics read by offsets from start to end, without a group: for whoever wants to know what they say, and then leaves."""

from __future__ import annotations

import time
from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from broker.connection import Connection, is_about_no_group
from broker.offsets import Partition, end_offsets, first_offsets, offsets_at, partitions_of
from schemas.errors import BrokerError

MESSAGES = 10_000
"""Of one call."""
_WAIT_S = 0.2
_SILENCE_S_MAX = 10.0


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
