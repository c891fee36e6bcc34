"""Reports of leaked keys, and operators' lifts, to the topic ``leaked-keys``: written is what the brokers have acknowledged."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from broker.connection import Connection
from schemas.config import Config
from schemas.errors import BrokerError
from schemas.leaked import LeakLift, LeakRecord, encode_leak, leak_key
from schemas.topics import LEAKED_KEYS

SLACK_S = 5
"""A record holds from when it came, and the lateness and this later: by then every judge has it."""
PUBLISH_S_MAX = 8.0
"""GitHub waits for 30 seconds at most, for some of its partners less."""
WAIT_S = 0.05


def holds_from(now: int, lateness_s: int) -> int:
    """The tick from which a record of now holds."""
    return now + lateness_s + SLACK_S


def leak_lift(fingerprint: str, now: int, lateness_s: int, owner: str, reason: str) -> LeakLift:
    """An operator's word that a key may be used after all."""
    tick = holds_from(now, lateness_s)
    return LeakLift(fingerprint=fingerprint, tick=tick, owner=owner[:128], reason=reason[:256])


def lift_leaked(
    config: Config, connection: Connection, fingerprints: Sequence[str], owner: str, reason: str, now: int
) -> None:  # fmt: skip
    """Tell judges that these keys may be used after all: what has no end by itself would else be back when an allow is over.

    Raises:
        BrokerError: the brokers have not taken it.
    """
    if not fingerprints:
        return
    topic = LeaksTopic(connection, config.kafka.topic_prefix + LEAKED_KEYS)
    try:
        topic.publish([leak_lift(one, now, config.time.lateness_s, owner, reason) for one in fingerprints])
    finally:
        topic.close()


class _Delivery:
    """What became of one call's messages."""

    def __init__(self) -> None:
        self.left = 0
        self.error: KafkaError | None = None

    def delivered(self, error: KafkaError | None, message: Message) -> None:
        self.left -= 1
        self.error = error or self.error


class LeaksTopic:
    """Writes records, from any thread."""

    def __init__(self, connection: Connection, topic: str, publish_s_max: float = PUBLISH_S_MAX) -> None:
        self._connection, self._topic, self._seconds = connection, topic, publish_s_max
        self._lock = threading.Lock()
        self._producer = Producer(
            connection.settings(
                acks="all", linger_ms=5, message_timeout_ms=int(publish_s_max * 1000),
                reconnect_backoff_max_ms=1000,
            )
        )  # fmt: skip

    def publish(self, records: Sequence[LeakRecord]) -> None:
        """Write all, and wait until the brokers have them.

        One caller at a time: another's wait is bounded by this one's.

        Raises:
            BrokerError: they do not have all of them. Some may have arrived, or arrive yet.
        """
        if not records:
            return
        if not self._lock.acquire(timeout=self._seconds):
            raise BrokerError(f"expected {self._topic} to take what came before within {self._seconds:.0f} s, it did not")
        try:
            self._publish(records)
        finally:
            self._lock.release()

    def _publish(self, records: Sequence[LeakRecord]) -> None:
        delivery = _Delivery()
        try:
            for record in records:
                delivery.left += 1
                self._producer.produce(self._topic, encode_leak(record), key=leak_key(record), on_delivery=delivery.delivered)
                self._producer.poll(0)
        except BufferError:
            raise BrokerError(f"expected room for what is written to {self._topic}, the brokers are too slow") from None
        except KafkaException as error:
            raise self._connection.explain(error, self._topic) from None
        deadline = time.monotonic() + self._seconds + 1
        while delivery.left and time.monotonic() < deadline:
            self._producer.poll(WAIT_S)
        if delivery.error is not None:
            raise self._connection.explain(delivery.error, self._topic)
        if delivery.left:
            raise BrokerError(f"expected {self._topic} to take what is written within {self._seconds:.0f} s, it did not")

    def close(self) -> None:
        """Nothing is queued that somebody has not been told about."""
        self._producer.flush(1.0)
