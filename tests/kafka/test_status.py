"""status and doctor say what is there, and what is wrong with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from broker.connection import Connection
from broker.status import tail_messages, take_status
from broker.topics import create_topics
from drills.traffic import combined_lines
from engine.clock import SystemClock
from engine.snapshot import pack
from replay.doctor_kafka import KafkaDiagnosis, examine_kafka
from schemas.config import Config, parse_config

FLOODWALL = [str(Path(sys.executable).parent / "floodwall")]
LINES = combined_lines(seed=5, events=200).lines()
HOUR_MS = 3_600_000


def config_of(broker: str, name: str) -> Config:
    section = {
        "brokers": [broker, "127.0.0.1:1"], "development": True, "topic_prefix": f"{name}.", "topics": [f"{name}.log"],
        "group_prefix": name,
    }  # fmt: skip
    return parse_config({"kafka": section, "engine": {"judge_partitions": 2, "seed": "for tests only"}})


@pytest.fixture
def deployed(broker: str, unique: Callable[[str], str]) -> Config:
    config = config_of(broker, unique("status"))
    create_topics(config, Connection(config.kafka), raw_partitions=2)
    return config


def produce(broker: str, topic: str, *values: bytes, partition: int = 0, timestamp: int = 0) -> None:
    producer = Producer({"bootstrap.servers": broker, "enable.idempotence": True, "log_level": 0})
    errors = []
    for value in values:  # with a key, or a compacted topic refuses them
        producer.produce(topic, value, b"key", partition, lambda error, _: errors.append(error), timestamp=timestamp)
    assert producer.flush(20) == 0
    assert not any(errors)


def commit(broker: str, config: Config, offset: int) -> Consumer:
    """A member of the observers' group that has read so far and is still there."""
    group, topic = f"{config.kafka.group_prefix}-observers", config.kafka.topics[0]
    consumer = Consumer({"bootstrap.servers": broker, "group.id": group, "auto.offset.reset": "earliest", "log_level": 0})
    consumer.subscribe([topic])
    while not consumer.assignment():
        consumer.poll(0.2)
    found = [place for place in consumer.assignment() if place.partition == 0]
    found[0].offset = offset
    consumer.commit(offsets=found, asynchronous=False)
    return consumer


def test_status_of_what_nobody_has_used_yet(deployed: Config) -> None:
    found = take_status(deployed, Connection(deployed.kafka))
    assert [broker.reachable for broker in found.brokers] == [True, False]
    assert "nothing listens there" in (found.brokers[1].error or "")
    assert {topic.state for topic in found.topics} == {"there"}
    assert [(group.members, group.lag) for group in found.groups] == [(0, 0), (0, 0)]
    assert found.judges == ()


def test_status_knows_lag_and_where_judges_stand(broker: str, deployed: Config) -> None:
    topic, prefix = deployed.kafka.topics[0], deployed.kafka.topic_prefix
    produce(broker, topic, *LINES[:50])
    produce(broker, topic, *LINES[50:60], partition=1)
    sources = {f"{topic}-0": [41, 1_795_000_020_000, True, False], f"{topic}-1": [9, 1_795_000_010_000, True, False]}
    record = {"position": 3, "closed": 1_795_000_000, "intake": {"sources": sources}, "models": {"refused": {}}}
    produce(broker, f"{prefix}floodwall.tallies.2", *[b"a tally"] * 5)
    produce(broker, f"{prefix}floodwall.state", pack({**record, "position": 1}), pack(record))
    produce(broker, f"{prefix}floodwall.state", b"of another version", partition=1)
    consumer = commit(broker, deployed, 40)
    try:
        found = take_status(deployed, Connection(deployed.kafka))
    finally:
        consumer.close()
    observers = found.groups[0]
    assert (observers.state, observers.members, observers.lag) == ("stable", 1, 20)
    assert [(lag.partition, lag.committed, lag.end, lag.lag) for lag in observers.partitions] == [
        (0, 40, 50, 10),
        (1, None, 10, 10),
    ]
    assert len(found.judges) == 1
    judge = found.judges[0]
    assert (judge.partition, judge.position, judge.behind, judge.closed_tick) == (0, 3, 2, 1_795_000_000)
    assert judge.newest_ms == 1_795_000_010_000
    assert judge.sources == {f"{topic}-0": 41, f"{topic}-1": 9}


def test_the_last_messages_of_each_partition(broker: str, deployed: Config) -> None:
    topic = deployed.kafka.topics[0]
    produce(broker, topic, *LINES[:50])
    found = tail_messages(Connection(deployed.kafka), [(topic, 0), (topic, 1)], 3)
    assert [message.value() for message in found[topic, 0]] == LINES[47:50]
    assert (topic, 1) not in found


def verdicts(found: KafkaDiagnosis) -> dict[str, tuple[str, str]]:
    return {check.name: (check.verdict, check.text) for check in found.checks}


def test_doctor_finds_nothing_wrong_where_nothing_is(broker: str, deployed: Config) -> None:
    topic = deployed.kafka.topics[0]
    produce(broker, topic, *LINES)
    found = examine_kafka(deployed, f"kafka://{broker}/{topic}", SystemClock(), sample=100)
    said = verdicts(found)
    assert said[f"broker {broker}"] == ("fine", "reachable")
    assert said["credentials"] == ("look", "let in as nobody over PLAINTEXT")
    assert said["own topics"][0] == "fine"
    assert said[f"topic {topic}"][0] == "fine"
    assert said[f"group {deployed.kafka.group_prefix}-observers"] == ("look", "no observer reads these topics (dead)")
    assert (found.topics[0].records, found.topics[0].events) == (50, 50)
    assert found.topics[0].fields["status"] == 1.0


def test_doctor_sees_a_clock_that_is_ahead_and_an_observer_that_is_behind(broker: str, deployed: Config) -> None:
    topic = deployed.kafka.topics[0]
    now = SystemClock().now_ms()
    produce(broker, topic, *LINES[:10], timestamp=now - HOUR_MS)
    produce(broker, topic, LINES[10], timestamp=now + HOUR_MS)
    consumer = commit(broker, deployed, 5)
    try:
        said = verdicts(examine_kafka(deployed, f"kafka://{broker}/{topic}", SystemClock()))
    finally:
        consumer.close()
    assert said[f"clock of {topic}"][0] == "wrong"
    assert "s after this machine's clock" in said[f"clock of {topic}"][1]
    verdict, text = said[f"group {deployed.kafka.group_prefix}-observers"]
    assert verdict == "wrong"
    assert "6 behind" in text
    assert "s old" in text


def test_doctor_names_a_topic_that_is_not_as_it_should_be(broker: str, unique: Callable[[str], str]) -> None:
    config = config_of(broker, unique("odd"))
    admin = AdminClient({"bootstrap.servers": broker, "log_level": 0})
    for name in (f"{config.kafka.topic_prefix}mitigations", config.kafka.topics[0]):
        admin.create_topics([NewTopic(name, 2)])[name].result(timeout=10)
    said = verdicts(examine_kafka(config, f"kafka://{broker}/{config.kafka.topics[0]}", SystemClock()))
    verdict, text = said[f"topic {config.kafka.topic_prefix}mitigations"]
    assert verdict == "wrong"
    assert "expected 1 partitions, got 2" in text
    assert said[f"topic {config.kafka.topics[0]}"] == ("look", "2 partitions, and nothing in them")


def test_the_command_line_prints_tables_or_json(broker: str, deployed: Config, tmp_path: Path) -> None:
    path = tmp_path / "kafka.toml"
    kafka = deployed.kafka
    path.write_text(
        f'[kafka]\nbrokers = ["{broker}"]\ndevelopment = true\ntopic_prefix = "{kafka.topic_prefix}"\n'
        f'topics = ["{kafka.topics[0]}"]\ngroup_prefix = "{kafka.group_prefix}"\n[engine]\njudge_partitions = 2\n'
    )
    words = ["--config", str(path)]
    shown = subprocess.run([*FLOODWALL, "status", *words], capture_output=True, check=True, text=True)
    assert "No judge has written down where it stands." in shown.stdout
    said = msgspec.json.decode(subprocess.run([*FLOODWALL, "status", "--json", *words], capture_output=True, check=True).stdout)
    assert {"brokers", "topics", "groups", "judges", "mitigations"} == set(said)
    url = f"kafka://{broker}/{kafka.topics[0]}"
    doctor = subprocess.run([*FLOODWALL, "doctor", url, *words], capture_output=True, check=True, text=True)
    assert "fine: own topics" in doctor.stdout
    as_json = subprocess.run([*FLOODWALL, "doctor", url, "--json", *words], capture_output=True, check=True)
    assert msgspec.json.decode(as_json.stdout)[0]["source"] == url
