"""Lines into a topic: of a growing file once and whole, and spread over the partitions so that none ends early."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka.cimpl import NewTopic

from broker.connection import Connection
from broker.offsets import wait_for
from broker.status import tail_messages
from replay.produce import Shipped, produce
from replay.ship import ship
from schemas.config import Config, Kafka
from schemas.errors import BrokerError, SourceError


class StillClock:
    """Nobody waits."""

    def now_ms(self) -> int:
        return 1_000_000

    def wait(self, seconds: float) -> None:
        pass


def config_of(broker: str) -> Config:
    return Config(kafka=Kafka(brokers=(broker,), development=True))


def made(config: Config, topic: str, partitions: int = 1) -> str:
    connection = Connection(config.kafka)
    wait_for(connection, topic, connection.admin().create_topics([NewTopic(topic, partitions)])[topic])
    return topic


def test_lines_are_shipped_as_the_file_grows_and_a_half_written_one_waits(
    broker: str, unique: Callable[[str], str], tmp_path: Path
) -> None:
    config, log = config_of(broker), tmp_path / "access.log"
    topic = made(config, unique("lines"))
    connection = Connection(config.kafka)
    log.write_bytes(b"one\ntwo")
    appended = [b"", b"!\n\nthree\n", b"", b"half"]

    def grow(shipped: Shipped) -> None:
        with log.open("ab") as file:
            file.write(appended.pop(0))

    shipped = ship(config, log, topic, StillClock(), lambda: not appended, grow)
    messages = tail_messages(connection, [(topic, 0)], 10)[topic, 0]
    assert [message.value() for message in messages] == [b"one", b"two!", b"three"]
    assert (shipped.records, shipped.messages, shipped.refused) == (3, 3, 0)


def test_produced_lines_go_to_all_partitions_in_turn(broker: str, unique: Callable[[str], str], tmp_path: Path) -> None:
    config, log = config_of(broker), tmp_path / "access.log"
    topic = made(config, unique("turns"), 3)
    log.write_bytes(b"".join(b"%d\n" % number for number in range(10)))
    produce(config, [str(log)], topic)
    found = tail_messages(Connection(config.kafka), [(topic, number) for number in range(3)], 10)
    assert [[int(message.value() or b"") for message in found[topic, number]] for number in range(3)] == [
        [0, 3, 6, 9], [1, 4, 7], [2, 5, 8],
    ]  # fmt: skip


def test_what_cannot_be_shipped_is_said_at_once(broker: str, unique: Callable[[str], str], tmp_path: Path) -> None:
    config = config_of(broker)
    with pytest.raises(BrokerError, match="expected the topic"):
        ship(config, tmp_path / "access.log", unique("missing"), StillClock(), lambda: True)
    with pytest.raises(SourceError, match="expected a readable file"):
        ship(config, tmp_path / "none.log", made(config, unique("empty")), StillClock(), lambda: True)
