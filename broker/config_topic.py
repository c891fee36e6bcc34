"""The topic ``config`` for people: its whole history read, and a change written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from broker.connection import Connection, is_about_no_group
from broker.offsets import asked, end_offsets, first_offsets
from engine.config_chain import Accepted, ConfigChain
from schemas.config import Config
from schemas.config_change import ConfigChange, encode_change
from schemas.errors import BrokerError, ConfigError
from schemas.topics import CONFIG

SEND_S_MAX = 10.0
WAIT_S = 0.2
SILENCE_S_MAX = 15.0
"""A broker that says nothing for so long has stopped."""
BATCH = 10_000


@dataclass(frozen=True, slots=True)
class Written:
    """A record of the topic, and what became of it."""

    offset: int
    at_ms: int
    """By the brokers' clock."""
    accepted: Accepted | None
    refused: str = ""
    """Why it was."""


def topic_of(config: Config) -> str:
    """Its name."""
    return config.kafka.topic_prefix + CONFIG


def read_history(config: Config, connection: Connection) -> tuple[ConfigChain, list[Written]]:
    """All that was written until now, as judges take it that have this configuration as their file.

    Raises:
        BrokerError: the topic is not there, or may not be read, or the brokers have gone.
    """
    chain, found = ConfigChain(config), []
    for message in _messages(connection, topic_of(config)):
        offset, at_ms = message.offset() or 0, message.timestamp()[1]
        try:
            found.append(Written(offset, at_ms, chain.offer(message.value() or b"", offset=offset, at_ms=at_ms)))
        except ConfigError as error:
            found.append(Written(offset, at_ms, None, str(error)))
    return chain, found


def _messages(connection: Connection, topic: str) -> Iterator[Message]:
    """In order, read without a group."""
    connection.check()
    place = (topic, 0)
    first, end = first_offsets(connection, [place])[place], end_offsets(connection, [place])[place]
    if first >= end:
        return
    consumer = Consumer(
        connection.settings(
            group_id="floodwall-config",  # named because it has to be; it is asked for nothing and told nothing
            enable_auto_commit=False, isolation_level="read_committed", enable_partition_eof=True, fetch_queue_backoff_ms=5,
        )
    )  # fmt: skip
    try:
        consumer.assign([TopicPartition(topic, 0, first)])
        silent, at = 0, first
        while at < end:
            messages = asked(connection, topic, lambda: consumer.consume(BATCH, WAIT_S))
            silent = 0 if messages else silent + 1
            if silent * WAIT_S > SILENCE_S_MAX:
                raise BrokerError(f"expected to read {topic} to its end, the brokers say nothing for {SILENCE_S_MAX:.0f} s")
            for message in messages:
                error = message.error()
                if error is None:
                    at = (message.offset() or 0) + 1
                    if at <= end:
                        yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    at = max(at, message.offset() or 0)
                elif not is_about_no_group(error):
                    raise connection.explain(error, topic)
    finally:
        consumer.close()


def write_change(config: Config, connection: Connection, change: ConfigChange) -> int:
    """Write a change and wait until the brokers have it; its offset. Whether it counts, the history says.

    Raises:
        BrokerError: they do not take it.
    """
    topic, delivered = topic_of(config), list[Message]()
    refused: list[KafkaError] = []

    def on_delivery(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            refused.append(error)
        else:
            delivered.append(message)

    producer = Producer(
        connection.settings(acks="all", enable_idempotence=True, message_timeout_ms=int(SEND_S_MAX * 1000))
    )  # fmt: skip
    try:
        producer.produce(topic, encode_change(change), key=change.section.encode(), on_delivery=on_delivery)
    except KafkaException as error:
        raise connection.explain(error, topic) from None
    producer.flush(SEND_S_MAX + 1)
    if refused or not delivered:
        raise connection.explain(refused[0] if refused else KafkaError(KafkaError._TIMED_OUT), topic)
    return delivered[0].offset() or 0
