"""Where partitions begin and end, and where they stood at a time; read without a group."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin._listoffsets import OffsetSpec  # the package itself does not export it to type checkers

from broker.connection import Connection
from schemas.errors import BrokerError

ANSWER_S_MAX = 20.0
Partition = tuple[str, int]
"""Topic and number."""
LEADER_S_MAX = 10.0
RETRY_S = 0.2
_NO_LEADER = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
Answer = TypeVar("Answer")
_SPEC: Any = OffsetSpec  # its methods carry no types


def partitions_of(connection: Connection, topic: str) -> list[Partition]:
    """The topic's partitions, in order.

    Raises:
        BrokerError: it is not there, or may not be seen.
    """
    admin = connection.admin()
    found = asked(connection, topic, lambda: admin.list_topics(topic, timeout=ANSWER_S_MAX)).topics[topic]
    if found.error is not None:
        raise connection.explain(found.error, topic)
    return [(topic, number) for number in sorted(found.partitions)]


def first_offsets(connection: Connection, partitions: list[Partition]) -> dict[Partition, int]:
    """The oldest that is kept of each."""
    return _offsets(connection, partitions, _SPEC.earliest())


def end_offsets(connection: Connection, partitions: list[Partition]) -> dict[Partition, int]:
    """The one after the last that is committed; a transaction that is open is not waited for."""
    return _offsets(connection, partitions, _SPEC.latest())


def offsets_at(connection: Connection, partitions: list[Partition], time_ms: int) -> dict[Partition, int]:
    """The first that is not older than a time; -1: all are."""
    return _offsets(connection, partitions, _SPEC.for_timestamp(max(time_ms, 0)))


def _offsets(connection: Connection, partitions: list[Partition], spec: Any) -> dict[Partition, int]:
    if not partitions:
        return {}
    request = {TopicPartition(topic, number): spec for topic, number in partitions}
    until_s = time.monotonic() + LEADER_S_MAX
    while True:
        try:
            return _offsets_now(connection, request)
        except _NoLeader as error:
            if time.monotonic() >= until_s:
                raise error.explained from None
            connection.admin().poll(RETRY_S)


class _NoLeader(Exception):
    """A topic that has just been made has none for a moment, and one whose broker went away for a while."""

    def __init__(self, explained: BrokerError) -> None:
        super().__init__()
        self.explained = explained


def _offsets_now(connection: Connection, request: dict[TopicPartition, Any]) -> dict[Partition, int]:
    answers = connection.admin().list_offsets(request, isolation_level=IsolationLevel.READ_COMMITTED)
    found = {}
    for key, future in answers.items():
        try:
            found[key.topic, key.partition] = int(future.result(timeout=ANSWER_S_MAX).offset)
        except KafkaException as error:
            explained = connection.explain(error, key.topic)
            raise _NoLeader(explained) if error.args[0].code() in _NO_LEADER else explained from None
        except TimeoutError:
            raise BrokerError(f"expected an answer about {key.topic} within {ANSWER_S_MAX:.0f} s, got none") from None
    return found


def wait_for(connection: Connection, subject: str, future: Future[Any]) -> Any:
    """What the brokers answered.

    Raises:
        BrokerError: an error, explained, or nothing in time.
    """
    return asked(connection, subject, lambda: future.result(timeout=ANSWER_S_MAX))


def asked(connection: Connection, subject: str, call: Callable[[], Answer]) -> Answer:
    """The result of a call to a client; its errors are explained."""
    try:
        return call()
    except KafkaException as error:
        raise connection.explain(error, subject) from None
    except TimeoutError:
        raise BrokerError(f"expected an answer about {subject} within {ANSWER_S_MAX:.0f} s, got none") from None
