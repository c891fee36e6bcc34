"""The enforcement topic in Kafka, read by offset and without a group: every edge reads all of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from edge.reader import Reader, Record
from engine.clock import Clock
from schemas.errors import BrokerError

START_S_MAX = 15.0
"""A broker that says nothing for so long at the start is not there."""
CONTACT_S = 2.0
"""How often the broker is asked for the topic's end, which also tells whether it is still there."""
CONTACT_S_MAX = 1.0
"""How long it may take to answer that."""
BATCH_MAX = 20_000
"""Records handed over at once; what is in force is looked at between batches."""

Tell = Callable[[str, dict[str, object]], None]
"""Told an event's constant name and its fields."""
Settings = dict[str, str | int | float | bool]
"""Of librdkafka."""


class TakesRecords(Protocol):
    """Called for each record that a reader took, or None for a malformed one, with its value."""

    def __call__(self, record: Record | None, value: bytes | None, /) -> None: ...


class EnforcementTopic:
    """Feeds a reader from Kafka; keeps going when the brokers are away, and says since when what it has is stale.

    Args:
        settings: how to reach the brokers (`broker.settings`).
        topic: its name.
        clock: tells the time.
        tell: told when the brokers go and come back.
    """

    def __init__(self, settings: Settings, topic: str, clock: Clock, tell: Tell) -> None:
        self._topic = topic
        self._where = str(settings["bootstrap.servers"])
        self._clock = clock
        self._tell = tell
        self._complaint = ""
        self._partitions: list[int] = []
        self._asked_at_ms = 0
        self.stale_since_ms: int | None = None
        """When the brokers were last heard of, if they are away; None: they are there."""
        # The group is never joined and nothing is committed, but librdkafka wants a name.
        self._consumer = Consumer(
            {
                **settings,
                "group.id": "floodwall-edge",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "fetch.queue.backoff.ms": 5,
                "queued.max.messages.kbytes": 65_536,
                "log_level": 0,
                "error_cb": self._hear,
            }
        )

    def open(self, reader: Reader) -> None:
        """Find the topic, note its end, and begin at its beginning.

        Raises:
            BrokerError: no broker, no topic, or no right to read it.
        """
        try:
            found = self._consumer.list_topics(self._topic, timeout=START_S_MAX).topics[self._topic]
            if found.error is not None:
                raise KafkaException(found.error)
            self._partitions = sorted(found.partitions)
            self._begin(reader, START_S_MAX)
        except KafkaException as error:
            self._consumer.poll(0)  # hear what librdkafka complained of: it says more than a timeout
            raise BrokerError(self._explain(_error_of(error))) from None
        self._asked_at_ms = self._clock.now_ms()

    def feed(self, reader: Reader, wait_s: float, taken: TakesRecords | None = None) -> int:
        """Hand over what has arrived, waiting up to ``wait_s`` for the first; how many records."""
        first = self._consumer.poll(wait_s)
        if first is None:
            self._keep_contact()
            return 0
        count = 0
        for message in [first, *self._consumer.consume(BATCH_MAX, timeout=0)]:
            error = message.error()
            if error is not None:
                self._handle(error, message, reader)
                continue
            value = message.value()
            record = reader.take(message.key(), value)
            count += 1
            if taken is not None:
                taken(record, value)
            reader.reached(message.partition() or 0, (message.offset() or 0) + 1)
        self._keep_contact()
        return count

    def close(self) -> None:
        """Leave the brokers."""
        self._consumer.close()

    def _begin(self, reader: Reader, timeout_s: float) -> None:
        """Note where each partition ends now, and read from the beginning."""
        ends = {}
        for partition in self._partitions:
            low, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=timeout_s)
            ends[partition] = high if high > low else 0
        reader.begin(ends)
        self._consumer.assign([TopicPartition(self._topic, partition, OFFSET_BEGINNING) for partition in self._partitions])

    def _handle(self, error: KafkaError, message: Message, reader: Reader) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            reader.reached(message.partition() or 0, message.offset() or 0)
        elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            self._tell("topic_started_over", {"topic": self._topic, "why": error.str()[:200]})
            try:
                self._begin(reader, CONTACT_S_MAX)
            except KafkaException:  # away again: the next fetch says the same, and it is tried again then
                self._lose()
        else:
            self._hear(error)

    def _hear(self, error: KafkaError) -> None:
        self._complaint = f"{error.name()}: {error.str()}"[:300]

    def _keep_contact(self) -> None:
        now_ms = self._clock.now_ms()
        if now_ms - self._asked_at_ms < CONTACT_S * 1000:
            return
        try:
            self._consumer.get_watermark_offsets(TopicPartition(self._topic, self._partitions[0]), timeout=CONTACT_S_MAX)
        except KafkaException as error:
            self._complaint = self._complaint or _error_of(error).str()
            self._lose()
        else:
            if self.stale_since_ms is not None:
                self._tell("topic_back", {"topic": self._topic, "away_s": (now_ms - self.stale_since_ms) // 1000})
            self.stale_since_ms, self._complaint = None, ""
        self._asked_at_ms = self._clock.now_ms()

    def _lose(self) -> None:
        if self.stale_since_ms is None:
            self.stale_since_ms = self._asked_at_ms
            fields = {"topic": self._topic, "since_ms": self.stale_since_ms, "why": self._complaint}
            self._tell("topic_stale", {**fields, "then": "what is in force stays, and ends on time"})

    def _explain(self, error: KafkaError) -> str:
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return f"expected the topic {self._topic} at {self._where}, found none: floodwall topics create"
        if error.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED):
            return f"expected the right to read {self._topic} at {self._where}, got none: grant READ and DESCRIBE on it"
        return f"expected a Kafka broker at {self._where}, got: {self._complaint or error.str()}"


def _error_of(error: KafkaException) -> KafkaError:
    """What librdkafka said inside of an exception."""
    found = error.args[0]
    assert isinstance(found, KafkaError)
    return found
