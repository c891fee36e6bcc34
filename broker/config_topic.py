"""The topic ``config`` for people: its whole history read, and a change written."""

from __future__ import annotations

from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from broker.connection import Connection
from broker.reading import read_spans, spans_of
from engine.config_chain import Accepted, ConfigChain
from schemas.config import Config
from schemas.config_change import ConfigChange, encode_change
from schemas.errors import ConfigError
from schemas.topics import CONFIG

SEND_S_MAX = 10.0


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
    topic = topic_of(config)
    if topic not in connection.check().topics:
        raise connection.explain(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), topic)
    chain, found = ConfigChain(config), list[Written]()
    for messages in read_spans(connection, spans_of(connection, [(topic, 0)])):
        for message in messages:
            offset, at_ms = message.offset() or 0, message.timestamp()[1]
            try:
                found.append(Written(offset, at_ms, chain.offer(message.value() or b"", offset=offset, at_ms=at_ms)))
            except ConfigError as error:
                found.append(Written(offset, at_ms, None, str(error)))
    return chain, found


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
