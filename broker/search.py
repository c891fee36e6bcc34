"""Every value of a topic, up to where it ended: for people who look for one record."""

from __future__ import annotations

from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaError, TopicPartition

from broker.connection import Connection, is_about_no_group
from broker.offsets import asked, end_offsets, first_offsets, partitions_of
from schemas.errors import BrokerError

BATCH = 10_000
WAIT_S = 0.2
SILENCE_S_MAX = 15.0
"""A broker that says nothing for so long has stopped."""


def read_values(connection: Connection, topic: str) -> Iterator[bytes]:
    """In the order of each partition, read without a group; what has no value is left out.

    Raises:
        BrokerError: the topic is not there, or may not be read, or the brokers have gone.
    """
    partitions = partitions_of(connection, topic)
    firsts, ends = first_offsets(connection, partitions), end_offsets(connection, partitions)
    wanted = {key for key in partitions if firsts[key] < ends[key]}
    if not wanted:
        return
    consumer = Consumer(
        connection.settings(
            group_id="floodwall-search",  # named because it has to be; it is asked for nothing and told nothing
            enable_auto_commit=False, isolation_level="read_committed", enable_partition_eof=True, fetch_queue_backoff_ms=5,
        )
    )  # fmt: skip
    try:
        consumer.assign([TopicPartition(*key, firsts[key]) for key in sorted(wanted)])
        silent = 0
        while wanted:
            messages = asked(connection, topic, lambda: consumer.consume(BATCH, WAIT_S))
            silent = 0 if messages else silent + 1
            if silent * WAIT_S > SILENCE_S_MAX:
                raise BrokerError(f"expected to read {topic} to its end, the brokers say nothing for {SILENCE_S_MAX:.0f} s")
            for message in messages:
                key = (message.topic() or "", message.partition() or 0)
                error, value, offset = message.error(), message.value(), message.offset() or 0
                if error is not None and is_about_no_group(error):
                    continue
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise connection.explain(error, topic)
                if error is None and value is not None and offset < ends[key]:
                    yield value
                if error is not None or offset + 1 >= ends[key]:
                    wanted.discard(key)
    finally:
        consumer.close()
