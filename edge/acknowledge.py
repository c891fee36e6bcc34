"""Acknowledgements to Kafka. Enforcement never waits for them: what cannot be sent is counted and left out."""

from __future__ import annotations

from collections import Counter

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from broker.connection import Connection
from edge.topic import Tell
from schemas.acknowledgement import Acknowledgement, encode_acknowledgement

QUEUE_MAX = 200_000
"""Acknowledgements that wait for the brokers; 60 MB, and a whole table of the default ``policy.active_max``."""
DELIVERY_MS_MAX = 30_000
STOP_S_MAX = 2.0


class Acknowledger:
    """Sends what an edge did to the topic of acknowledgements, keyed by the edge."""

    def __init__(self, connection: Connection, topic: str, edge: str, tell: Tell) -> None:
        self._topic = topic
        self._edge = edge
        self._tell = tell
        self.sent = 0
        self.lost = 0
        self.outcomes: Counter[str] = Counter()
        """What was said, whether or not it arrived."""
        self._producer = Producer(
            connection.settings(
                linger_ms=20, message_timeout_ms=DELIVERY_MS_MAX, queue_buffering_max_messages=QUEUE_MAX, acks="all"
            )
        )

    def send(self, acknowledgements: list[Acknowledgement]) -> None:
        """Queue them, and hear what became of earlier ones."""
        for one in acknowledgements:
            self.outcomes[one.outcome] += 1
            try:
                self._producer.produce(
                    self._topic, encode_acknowledgement(one), key=self._edge.encode(), on_delivery=self._delivered
                )
            except (BufferError, KafkaException) as error:
                self._lose(str(error))
        self._producer.poll(0)

    def close(self) -> None:
        """Wait a moment for what is queued."""
        left = self._producer.flush(STOP_S_MAX)
        if left:
            self._lose("the brokers are away", left)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.sent += 1
        else:
            self._lose(error.str())

    def _lose(self, why: str, count: int = 1) -> None:
        if self.lost == 0:  # once: the count is told at the end
            self._tell("acknowledgements_lost", {"topic": self._topic, "why": why[:200]})
        self.lost += count
