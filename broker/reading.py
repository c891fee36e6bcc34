"""Topics read from offsets to where they end, without a group: for whoever wants to know what they say, and then leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from broker.connection import Connection, is_about_no_group
from broker.offsets import Partition, asked, end_offsets, first_offsets, offsets_at, partitions_of
from schemas.errors import BrokerError

MESSAGES = 10_000
"""Of one call."""
WAIT_S = 0.2
SILENCE_S_MAX = 10.0
"""A broker that says nothing for so long has stopped."""
Span = tuple[int, int]
"""The first offset, and the one after the last."""


def read_values(connection: Connection, topic: str) -> Iterator[bytes]:
    """Every value of a topic up to where it ends now, in the order of each partition; what has none is left out.

    Raises:
        BrokerError: as `read_spans`; or the topic is not there.
    """
    partitions = partitions_of(connection, topic)
    for messages in read_spans(connection, spans_of(connection, partitions)):
        for message in messages:
            value = message.value()
            if value is not None:
                yield value


def read_topic_from(connection: Connection, topic: str, from_ms: int | None) -> Iterator[Message]:
    """Every committed message of a topic from a time on (None: from its beginning) to where it ends now, by partition.

    Raises:
        BrokerError: it is not there, or may not be read.
    """
    partitions = partitions_of(connection, topic)
    spans = spans_of(connection, partitions)
    if from_ms is not None:
        found = offsets_at(connection, partitions, from_ms)
        spans = {key: (found[key] if found[key] >= 0 else end, end) for key, (_, end) in spans.items()}
    for key, span in spans.items():
        for messages in read_spans(connection, {key: span}):
            yield from messages


def spans_of(connection: Connection, partitions: list[Partition]) -> dict[Partition, Span]:
    """What partitions hold now."""
    firsts, ends = first_offsets(connection, partitions), end_offsets(connection, partitions)
    return {key: (firsts[key], ends[key]) for key in partitions}


def read_spans(connection: Connection, spans: Mapping[Partition, Span]) -> Iterator[list[Message]]:
    """The committed messages of some spans, some at a time, in the order of each partition.

    Raises:
        BrokerError: a topic may not be read, or the brokers say nothing for `SILENCE_S_MAX`.
    """
    left = {key for key, (first, end) in spans.items() if first < end}
    if not left:
        return
    topics = ", ".join(sorted({topic for topic, _ in left}))
    consumer = Consumer(
        connection.settings(
            group_id="floodwall-reading",  # named because it has to be; it is asked for nothing and told nothing
            enable_auto_commit=False,
            enable_auto_offset_store=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            enable_partition_eof=True,
            fetch_queue_backoff_ms=5,
        )
    )
    try:
        consumer.assign([TopicPartition(*key, spans[key][0]) for key in sorted(left)])
        silent = 0
        while left:
            came = asked(connection, topics, lambda: consumer.consume(MESSAGES, WAIT_S))
            silent = 0 if came else silent + 1
            if silent * WAIT_S > SILENCE_S_MAX:
                raise BrokerError(f"expected to read {topics} to its end, the brokers say nothing for {SILENCE_S_MAX:.0f} s")
            messages = []
            for message in came:
                key = (message.topic() or "", message.partition() or 0)
                error, offset = message.error(), message.offset() or 0
                if error is not None and is_about_no_group(error):
                    continue
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise connection.explain(error, key[0])
                if error is None and offset < spans[key][1]:
                    messages.append(message)
                if error is not None or offset + 1 >= spans[key][1]:
                    left.discard(key)
            if messages:
                yield messages
    finally:
        consumer.close()
