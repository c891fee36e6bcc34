"""Recorded lines into a topic: what a shipper does, for trying things and for tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, Producer

from broker.connection import Connection
from broker.offsets import partitions_of
from replay.sources import expand, make_buffer, open_source
from schemas.config import Config
from schemas.errors import BrokerError, UsageError

FLUSH_S_MAX = 60.0


@dataclass(slots=True)
class Shipped:
    """What went into the topic."""

    records: int = 0
    messages: int = 0
    bytes: int = 0
    refused: int = 0
    """Stretches of the sources that are no lines: too long, or half-written."""


class Shipper:
    """Messages of up to ``lines`` lines each, in order within their partition; what goes in is counted in ``shipped``.

    Partitions get messages in turn, so that all of them end at the same event time. Where the client chooses, one may end
    many minutes of a recorded log before the others, and judges then wait for so long until it can be taken for silent.

    Raises:
        BrokerError: Kafka cannot be reached, or lacks the topic.
    """

    def __init__(self, connection: Connection, topic: str, lines: int, shipped: Shipped) -> None:
        connection.check()
        self._partitions = itertools.cycle(number for _, number in partitions_of(connection, topic))
        self._connection, self._topic, self._lines, self._shipped = connection, topic, lines, shipped
        # Idempotent: else a batch that is tried again overtakes later ones, and its events are late.
        self._producer = Producer(connection.settings(enable_idempotence=True, linger_ms=20, message_timeout_ms=30_000))
        self._error: KafkaError | None = None
        self._waiting: list[bytes] = []

    def add(self, line: bytes) -> None:
        """Take in one line.

        Raises:
            BrokerError: as `send`.
        """
        self._waiting.append(line)
        if len(self._waiting) >= self._lines:
            self.send()

    def send(self) -> None:
        """Send the lines that wait for others, without waiting for the brokers.

        Raises:
            BrokerError: the brokers refuse, or an earlier message did not arrive.
        """
        if not self._waiting:
            return
        value = b"\n".join(self._waiting)
        partition = next(self._partitions)
        while True:
            try:
                self._producer.produce(self._topic, value, partition=partition, on_delivery=self._noted)
                break
            except BufferError:  # as much is under way as there is room for
                self._producer.poll(0.1)
            except KafkaException as error:
                raise self._connection.explain(error, self._topic) from None
            self._check()
        self._producer.poll(0)
        self._check()
        self._shipped.messages += 1
        self._shipped.records += len(self._waiting)
        self._shipped.bytes += len(value)
        self._waiting = []

    def finish(self) -> None:
        """Send what waits, and return when all of it has arrived.

        Raises:
            BrokerError: as `send`, or it takes too long.
        """
        self.send()
        left = self._producer.flush(FLUSH_S_MAX)
        self._check()
        if left:
            raise BrokerError(f"expected {self._topic} to take everything within {FLUSH_S_MAX:.0f} s, {left} messages are left")

    def _noted(self, error: KafkaError | None, message: object) -> None:
        self._error = self._error or error

    def _check(self) -> None:
        if self._error is not None:
            raise self._connection.explain(self._error, self._topic)


def produce(
    config: Config, paths: list[str], topic: str, *, lines: int = 1, progress: Callable[[int], None] | None = None
) -> Shipped:
    """Send every line of the sources, one source after the other; a message holds up to ``lines`` lines of one source.

    Raises:
        SourceError: a source cannot be opened. BrokerError: Kafka cannot be reached, lacks the topic, or refuses.
        UsageError: a message could grow longer than one may be.
    """
    longest = config.input.record_bytes_max
    if lines > 1 and lines * 512 > longest:
        raise UsageError(f"expected at most {longest // 512} lines in a message of {longest} bytes, got {lines}")
    shipped = Shipped()
    shipper = Shipper(Connection(config.kafka), topic, lines, shipped)
    buffer = make_buffer(longest)
    for name in expand(paths):
        source = open_source(name, start=0, line_max=longest)
        while not source.ended:
            length = source.read(buffer)
            shipped.refused += source.refusal is not None
            for line in buffer[:length].tobytes().split(b"\n"):
                if line:
                    shipper.add(line)
            if progress is not None:
                progress(length)
        shipper.send()
    shipper.finish()
    return shipped
