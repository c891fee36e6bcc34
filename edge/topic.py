"""The enforcement topic in Kafka, read by offset and without a group: every edge reads all of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from broker.connection import Connection
from edge.reader import Reader, Record
from engine.clock import Clock

START_S_MAX = 15.0
"""A broker that says nothing for so long at the start is not there."""
RETRY_S = 0.2
_NO_LEADER = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART)
CONTACT_S = 2.0
"""How often the broker is asked for the topic's end, which also tells whether it is still there."""
CONTACT_S_MAX = 1.0
"""How long it may take to answer that."""
QUEUE_KIBIBYTES_MAX = 65_536
"""Records that have arrived and wait; 64 MB are about 100,000 of them."""
RECONNECT_MS_MAX = 1000
"""A broker that comes back is found within this time; librdkafka's own choice is ten seconds."""
BATCH_MAX = 20_000
"""Records handed over at once; what is in force is looked at between batches."""

Tell = Callable[[str, dict[str, object]], None]
"""Told an event's constant name and its fields."""


class TakesRecords(Protocol):
    """Called for each record that a reader took, or None for a malformed one, with its value."""

    def __call__(self, record: Record | None, value: bytes | None, /) -> None: ...


class EnforcementTopic:
    """Feeds a reader from Kafka; keeps going when the brokers are away, and says since when what it has is stale.

    Args:
        connection: the way to the brokers.
        topic: its name.
        clock: tells the time.
        tell: told when the brokers go and come back.
    """

    def __init__(self, connection: Connection, topic: str, clock: Clock, tell: Tell) -> None:
        self._connection = connection
        self._topic = topic
        self._clock = clock
        self._tell = tell
        self._partitions: list[int] = []
        self._asked_at_ms = 0
        """When the brokers were last heard of."""
        self._must_start_over = False
        self.stale_since_ms: int | None = None
        """When the brokers were last heard of, if they are away; None: they are there."""
        # The group is never joined and nothing is committed, but librdkafka wants a name.
        self._consumer = Consumer(
            connection.settings(
                group_id="floodwall-edge",
                enable_auto_commit=False,
                enable_auto_offset_store=False,
                enable_partition_eof=True,
                isolation_level="read_committed",
                auto_offset_reset="error",
                fetch_queue_backoff_ms=5,
                queued_max_messages_kbytes=QUEUE_KIBIBYTES_MAX,
                reconnect_backoff_max_ms=RECONNECT_MS_MAX,
            )
        )

    def open(self, reader: Reader) -> None:
        """Find the topic, note its end, and begin at its beginning.

        Raises:
            BrokerError: no broker, no topic, or no right to read it.
        """
        self._connection.check()
        try:
            found = self._consumer.list_topics(self._topic, timeout=START_S_MAX).topics[self._topic]
            if found.error is not None:
                raise KafkaException(found.error)
            self._partitions = sorted(found.partitions)
            self._begin_patiently(reader)
        except KafkaException as error:
            raise self._connection.explain(error, self._topic) from None
        self._asked_at_ms = self._clock.now_ms()

    def feed(self, reader: Reader, wait_s: float, taken: TakesRecords | None = None) -> int:
        """Hand over what has arrived, waiting up to ``wait_s`` for the first; how many records.

        Raises:
            BrokerError: the right to read is missing, or has been taken away.
        """
        if self._must_start_over:
            self._start_over(reader)
        first = self._consumer.poll(wait_s)
        if first is None:
            self._ask()
            return 0
        count = 0
        for message in [first, *self._consumer.consume(BATCH_MAX, timeout=0)]:
            error = message.error()
            if error is None:
                value = message.value()
                record = reader.take(message.key(), value, _taken_in_at_ms(message))
                count += 1
                if taken is not None:
                    taken(record, value)
                reader.reached(message.partition() or 0, (message.offset() or 0) + 1)
            elif error.code() == KafkaError._PARTITION_EOF:
                reader.reached(message.partition() or 0, message.offset() or 0)
            elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                self._tell("topic_started_over", {"topic": self._topic, "why": error.str()[:200]})
                self._start_over(reader)
                return count  # the rest of the batch is read again
            elif error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                # An edge that may not read must not look alive. What is in force ends on time.
                raise self._connection.explain(error, self._topic)
            else:
                # librdkafka tries again by itself, and looks for the group's coordinator although nobody joins: a right to
                # the group that is missing does no harm. Whether the brokers are away, `_ask` finds out.
                continue
            self._asked_at_ms = self._clock.now_ms()
        self._ask()
        return count

    def close(self) -> None:
        """Leave the brokers."""
        self._consumer.close()

    def _begin_patiently(self, reader: Reader) -> None:
        """A topic that has just been made has no leader for a moment; that is no reason to give up."""
        until_ms = self._clock.now_ms() + START_S_MAX * 1000
        while True:
            try:
                self._begin(reader, START_S_MAX)
                return
            except KafkaException as error:
                if not _is_passing(error) or self._clock.now_ms() >= until_ms:
                    raise
                self._clock.wait(RETRY_S)

    def _begin(self, reader: Reader, timeout_s: float) -> None:
        """Note where each partition ends now, and read from the beginning."""
        ends = {}
        for partition in self._partitions:
            low, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=timeout_s)
            ends[partition] = high if high > low else 0
        reader.begin(ends)
        self._consumer.assign([TopicPartition(self._topic, partition, OFFSET_BEGINNING) for partition in self._partitions])

    def _start_over(self, reader: Reader) -> None:
        """What is in force stays so until the topic has been read again."""
        try:
            self._begin(reader, CONTACT_S_MAX)
            self._must_start_over = False
        except KafkaException as error:  # away again: tried again at the next call, librdkafka has stopped reading
            self._must_start_over = True
            self._lose(error)

    def _ask(self) -> None:
        """Whether the brokers are there, if nothing has come from them for a while."""
        now_ms = self._clock.now_ms()
        if now_ms - self._asked_at_ms < CONTACT_S * 1000 and self.stale_since_ms is None:
            return
        try:
            self._consumer.get_watermark_offsets(TopicPartition(self._topic, self._partitions[0]), timeout=CONTACT_S_MAX)
        except KafkaException as error:
            self._lose(error)
        else:
            if self.stale_since_ms is not None:
                self._tell("topic_back", {"topic": self._topic, "away_s": (now_ms - self.stale_since_ms) // 1000})
            self.stale_since_ms = None
            self._asked_at_ms = self._clock.now_ms()

    def _lose(self, error: KafkaException) -> None:
        if self.stale_since_ms is None:
            self.stale_since_ms = self._asked_at_ms
            why = {"why": str(error)[:300], "then": "what is in force stays, and ends on time"}
            self._tell("topic_stale", {"topic": self._topic, "since_ms": self.stale_since_ms, **why})


def _taken_in_at_ms(message: Message) -> int | None:
    """When the brokers took it in; None: the topic has the time that whoever wrote it chose."""
    kind, at_ms = message.timestamp()
    return int(at_ms) if kind == TIMESTAMP_LOG_APPEND_TIME else None


def _is_passing(error: KafkaException) -> bool:
    """Whether brokers say so only until they have agreed on a leader."""
    found = error.args[0]
    return isinstance(found, KafkaError) and found.code() in _NO_LEADER
