"""What tests of edges on a real broker share: a deployment of its own, records onto its topic, processes that follow it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from broker.connection import Connection
from broker.topics import create_topics
from edge.topic import EnforcementTopic, Tell
from engine.clock import SystemClock
from schemas.acknowledgement import Acknowledgement
from schemas.config import Config, load_config
from schemas.mitigation import Mitigation
from schemas.topics import ENFORCEMENT_ACKS, MITIGATIONS
from tests.mitigations import on_topic, record

FLOODWALL = (str(Path(sys.executable).parent / "floodwall"),)
PATIENCE_S = 20.0
"""How long a test waits for what should come at once, on a machine that does other things too."""


@dataclass
class Deployment:
    """Topics under a prefix of their own."""

    config: Config
    file: Path

    @property
    def topic(self) -> str:
        return self.config.kafka.topic_prefix + MITIGATIONS

    def connection(self) -> Connection:
        return Connection(self.config.kafka)

    def say(self, *records: Mitigation) -> None:
        """Onto the topic, and wait until the broker has them."""
        self.say_raw(*map(on_topic, records))

    def say_raw(self, *records: tuple[bytes | None, bytes | None]) -> None:
        producer = Producer(self.connection().settings(acks="all", linger_ms=0, queue_buffering_max_messages=1_000_000))
        for key, value in records:
            producer.produce(self.topic, value, key=key)
        assert producer.flush(PATIENCE_S) == 0

    def acknowledgements(self, at_least: int) -> list[Acknowledgement]:
        """Those on the topic, once there are so many."""
        found: list[Acknowledgement] = []
        consumer = Consumer(self.connection().settings(group_id="test", enable_auto_commit=False))
        consumer.assign([TopicPartition(self.config.kafka.topic_prefix + ENFORCEMENT_ACKS, 0, OFFSET_BEGINNING)])
        try:
            until = time.monotonic() + PATIENCE_S
            while len(found) < at_least and time.monotonic() < until:
                for message in consumer.consume(1000, timeout=0.2):
                    assert message.error() is None
                    found.append(msgspec.json.decode(message.value() or b"", type=Acknowledgement))
        finally:
            consumer.close()
        return found

    def source(self, tell: Tell = lambda event, fields: None) -> EnforcementTopic:
        return EnforcementTopic(self.connection(), self.topic, SystemClock(), tell)


def deploy(folder: Path, bootstrap: str, prefix: str, **sections: dict[str, object]) -> Deployment:
    """A configuration, its file, and its topics on the broker."""
    sections = {
        "kafka": {"brokers": [bootstrap], "development": True, "topic_prefix": prefix, "topics": [f"{prefix}requests"]},
        "engine": {"judge_partitions": 1},
        **sections,
    }
    lines = []
    for name, section in sections.items():
        lines += [f"[{name}]", *(f"{key} = {orjson.dumps(value).decode()}" for key, value in section.items())]
    file = folder / "floodwall.toml"
    file.write_text("\n".join(lines) + "\n")
    config = load_config(file)
    create_topics(config, Connection(config.kafka), raw_partitions=1, replication=1)
    return Deployment(config, file)


def said(value: str = "203.0.113.7", *, seconds: int = 60, **changes: object) -> Mitigation:
    """A final block from now on."""
    now = SystemClock().now_ms() // 1000
    return record(value, **{"tick": now, "stage": "final", "action": "block", "expires_at": now + seconds, **changes})


def wait_until(is_so: Callable[[], bool], what: str) -> float:
    """How many seconds it took; an assertion says ``what`` did not come."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < PATIENCE_S, f"expected {what} within {PATIENCE_S} s"
        time.sleep(0.02)
    return time.monotonic() - began


def floodwall(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run((*FLOODWALL, *words), capture_output=True, text=True, check=False, timeout=60)


@contextlib.contextmanager
def running(words: tuple[str, ...], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose output goes to a file; ended in any case."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with (
        output.open("wb") as file,
        subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment) as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(PATIENCE_S)
