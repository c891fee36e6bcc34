"""Topics are made where they are missing and never changed; another number of judge partitions is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from broker.connection import Connection
from broker.topics import check_judge_partitions, check_topics, create_topics, describe_topics, wanted_topics
from schemas.config import Config, load_config, parse_config
from schemas.errors import BrokerError

FLOODWALL = [str(Path(sys.executable).parent / "floodwall")]


def config_of(broker: str, prefix: str, partitions: int = 4, **kafka: Any) -> Config:
    section = {"brokers": [broker], "development": True, "topic_prefix": prefix, "topics": [f"{prefix}requests"], **kafka}
    return parse_config({"kafka": section, "engine": {"judge_partitions": partitions}})


def test_what_is_missing_is_made_and_the_second_time_all_is_there(broker: str) -> None:
    config = config_of(broker, "made.")
    connection = Connection(config.kafka)
    with pytest.raises(BrokerError, match="floodwall topics create"):
        check_topics(config, connection.check())
    assert {report.state for report in create_topics(config, connection, raw_partitions=3)} == {"created"}
    reports = {report.name: report for report in create_topics(config, connection)}
    assert {report.state for report in reports.values()} == {"there"}
    assert reports["made.requests"].partitions == 3
    assert reports["made.floodwall.tallies.4"].partitions == 4
    assert reports["made.mitigations"].settings["cleanup.policy"] in ("compact,delete", "delete,compact")
    check_topics(config, connection.check())


def test_one_that_is_there_is_compared_and_left_as_it_is(broker: str) -> None:
    config = config_of(broker, "other.")
    admin = AdminClient({"bootstrap.servers": broker, "log_level": 0})
    topic = NewTopic("other.mitigations", 3, config={"cleanup.policy": "delete"})
    admin.create_topics([topic])["other.mitigations"].result(timeout=10)
    connection = Connection(config.kafka)
    create_topics(config, connection)
    found = {report.name: report for report in describe_topics(config, connection, connection.check())}
    assert found["other.mitigations"].state == "differs"
    assert "expected 1 partitions, got 3" in found["other.mitigations"].differences
    assert "expected cleanup.policy = compact,delete, got delete" in found["other.mitigations"].differences
    assert found["other.mitigations"].partitions == 3


def test_another_number_of_judge_partitions_is_refused(broker: str) -> None:
    create_topics(config_of(broker, "fixed."), Connection(config_of(broker, "fixed.").kafka))
    config = config_of(broker, "fixed.", partitions=8)
    connection = Connection(config.kafka)
    with pytest.raises(BrokerError, match=r"expected engine.judge_partitions = 4 as the topic fixed.floodwall.tallies.4 says"):
        create_topics(config, connection)
    with pytest.raises(BrokerError, match="got 8"):
        check_judge_partitions(config, connection.check())
    assert "fixed.floodwall.tallies.8" not in connection.check().topics


def test_the_command_line_prints_topics_and_rights(broker: str, tmp_path: Path) -> None:
    path = tmp_path / "kafka.toml"
    path.write_text(f'[kafka]\nbrokers = ["{broker}"]\ndevelopment = true\ntopic_prefix = "line."\ntopics = ["line.log"]\n')
    words = ["topics", "create", "--config", str(path)]
    done = subprocess.run([*FLOODWALL, *words, "--json"], capture_output=True, check=True)
    said = msgspec.json.decode(done.stdout)
    assert {topic["name"] for topic in said["topics"]} == {topic.name for topic in wanted_topics(load_config(path))}
    rows = {(right["principal"], right["resource"], right["name"]): set(right["operations"]) for right in said["rights"]}
    assert rows["judge", "topic", "line.mitigations"] == {"write", "describe"}
    assert rows["edge", "topic", "line.mitigations"] == {"read", "describe"}
    assert rows["observer", "transactional_id", "floodwall-observers-"] == {"write", "describe"}
    made = subprocess.run([*FLOODWALL, *words], capture_output=True, check=True)
    assert "line.floodwall.tallies.16" in made.stdout.decode()
    assert "principal" in made.stdout.decode()
    table = subprocess.run([*FLOODWALL, "topics", "describe", "--config", str(path)], capture_output=True, check=True)
    assert "line.floodwall.tallies.16" in table.stdout.decode()
    assert "principal" in table.stdout.decode()
