"""What is on the enforcement topic now, for people: read to its end once, or followed."""

from __future__ import annotations

from collections.abc import Callable

import orjson

from broker.connection import Connection
from broker.signing import Verifier
from edge.reader import Reader, Record
from edge.topic import EnforcementTopic, Tell
from engine.clock import Clock
from schemas.errors import BrokerError
from schemas.prefixes import Prefixes

READ_S_MAX = 60
"""A topic of a million records is read in about 15 s; one that takes longer than this has stopped."""
WAIT_S = 0.2


def read_topic(
    connection: Connection, topic: str, core: Prefixes, clock: Clock, taken: Callable[[Record | None, bytes | None], None],
    verifier: Verifier | None = None,
) -> Reader:  # fmt: skip
    """A reader that supports every action and has read the topic to its end; ``taken`` is called for each record.

    Raises:
        BrokerError: the topic cannot be read, or not within a minute.
    """
    reader = Reader(core, lambda subject, action: True, verifier=verifier)
    source = EnforcementTopic(connection, topic, clock, lambda event, fields: None)
    try:
        source.open(reader)
        until_ms = clock.now_ms() + READ_S_MAX * 1000
        while not reader.ready:
            source.feed(reader, WAIT_S, taken)
            if clock.now_ms() > until_ms:
                raise BrokerError(f"expected to read {topic} to its end within {READ_S_MAX} s, got {dict(reader.counts)}")
    finally:
        source.close()
    reader.changes(clock.now_ms())
    return reader


def follow_topic(
    connection: Connection, topic: str, core: Prefixes, clock: Clock, heard: Callable[[Record, bytes], None],
    stop: Callable[[], bool], tell: Tell, *, from_start: bool, verifier: Verifier | None = None,
) -> None:  # fmt: skip
    """Call ``heard`` for each record that comes from now on, or from the topic's beginning on, until told to stop.

    ``tell`` is told when the brokers go and come back.

    Raises:
        BrokerError: the topic cannot be read at the start, or may not be read any longer.
    """
    reader = Reader(core, lambda subject, action: True, verifier=verifier)
    source = EnforcementTopic(connection, topic, clock, tell)

    def taken(record: Record | None, value: bytes | None) -> None:
        if record is not None and value is not None and (from_start or reader.ready):
            heard(record, value)

    try:
        source.open(reader)
        while not stop():
            source.feed(reader, WAIT_S, taken)
            reader.changes(clock.now_ms())  # so that what has expired is forgotten
    finally:
        source.close()


def records_of(
    connection: Connection, topic: str, core: Prefixes, clock: Clock, identifier: str, verifier: Verifier | None = None
) -> list[dict[str, object]]:
    """Every record that the topic still has of one mitigation, whole, the oldest first.

    Raises:
        BrokerError: as `read_topic`.
    """
    found: list[dict[str, object]] = []

    def taken(record: Record | None, value: bytes | None) -> None:
        if record is not None and value is not None and record.id == identifier:
            found.append(orjson.loads(value))

    read_topic(connection, topic, core, clock, taken, verifier)
    return found
