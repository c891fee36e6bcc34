"""The enforcement topic of a real broker: read to its end, followed, lost and found again."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from broker.connection import Connection
from broker.local import LocalBroker
from broker.rights import needed_rights
from broker.settings import PASSWORD
from broker.topics import wanted_topics
from edge.acknowledge import Acknowledger
from edge.reader import Reader
from edge.topic import EnforcementTopic
from engine.clock import SystemClock
from schemas.acknowledgement import Acknowledgement
from schemas.config import parse_config
from schemas.errors import BrokerError
from schemas.topics import ENFORCEMENT_ACKS
from tests.kafka.certificates import Certificates
from tests.kafka.edges import Deployment, deploy, running, said, wait_until
from tests.mitigations import CORE, everything, on_topic

SECRET = "correct-horse"
DOCS = Path(__file__).resolve().parents[2] / "docs" / "edges.md"


@pytest.fixture
def deployment(broker: str, tmp_path: Path, unique: Callable[[str], str]) -> Deployment:
    return deploy(tmp_path, broker, unique("")[-60:] + ".")


class Follower:
    """A reader fed from the topic, and what was told on the way."""

    def __init__(self, deployment: Deployment) -> None:
        self.told: list[str] = []
        self.reader = Reader(CORE, everything)
        clock = SystemClock()
        self.topic = EnforcementTopic(
            deployment.connection(), deployment.topic, clock, lambda event, fields: self.told.append(event)
        )
        self.topic.open(self.reader)

    def step(self) -> None:
        self.topic.feed(self.reader, 0.05)
        self.reader.changes(SystemClock().now_ms())

    def in_force(self) -> dict[str, str]:
        self.step()
        return {subject.text: standing.action for subject, standing in self.reader.table.items()}

    def until(self, expected: dict[str, str]) -> None:
        wait_until(lambda: self.in_force() == expected, f"{expected} to be in force")


@pytest.fixture
def follow(deployment: Deployment) -> Iterator[Callable[[], Follower]]:
    made: list[Follower] = []

    def begin() -> Follower:
        made.append(Follower(deployment))
        return made[-1]

    yield begin
    for one in made:
        one.topic.close()


def test_an_empty_topic_is_read_to_its_end_at_once(follow: Callable[[], Follower]) -> None:
    assert follow().reader.ready


def test_all_of_it_is_read_before_anything_is_in_force_and_then_it_is_followed(
    deployment: Deployment, follow: Callable[[], Follower]
) -> None:
    deployment.say(*(said(f"203.0.113.{last}") for last in range(200)), said("203.0.113.7", state="lifted"))
    deployment.say_raw((b"nonsense", b"nonsense"), (b"gone", None))
    follower = follow()
    seen = {}
    while not follower.reader.ready:
        assert not follower.reader.table
        seen = follower.in_force()
    assert len(seen or follower.in_force()) == 199
    assert follower.reader.counts["malformed_no_json"] == follower.reader.counts["malformed_no_value"] == 1
    deployment.say(said("203.0.113.7", tick=SystemClock().now_ms() // 1000 + 1))
    wait_until(lambda: len(follower.in_force()) == 200, "the new record")


def test_a_transaction_counts_when_it_is_committed_and_one_that_was_aborted_never_does(
    deployment: Deployment, follow: Callable[[], Follower], unique: Callable[[str], str]
) -> None:
    producer = Producer(deployment.connection().settings(transactional_id=unique("judge")))
    producer.init_transactions()
    for last, is_kept in ((1, True), (2, False)):
        producer.begin_transaction()
        key, value = on_topic(said(f"203.0.113.{last}"))
        producer.produce(deployment.topic, value, key=key)
        producer.flush()
        (producer.commit_transaction if is_kept else producer.abort_transaction)()
    # The topic now ends with markers that no reader is given: it is at the end all the same.
    follower = follow()
    follower.until({"203.0.113.1": "block"})
    assert follower.reader.ready


def test_an_offset_that_is_no_longer_there_starts_it_over(deployment: Deployment, follow: Callable[[], Follower]) -> None:
    deployment.say(said("203.0.113.1"), said("203.0.113.2"))
    follower = follow()
    follower.until({"203.0.113.1": "block", "203.0.113.2": "block"})
    deployment.say(said("203.0.113.1", tick=SystemClock().now_ms() // 1000 + 1, state="lifted"))
    follower.topic._consumer.seek(TopicPartition(deployment.topic, 0, 1_000_000))
    follower.until({"203.0.113.2": "block"})
    assert "topic_started_over" in follower.told


def test_without_the_broker_it_keeps_what_it_has_says_so_once_and_goes_on_when_it_is_back(
    local_broker: LocalBroker, deployment: Deployment, follow: Callable[[], Follower]
) -> None:
    deployment.say(said("203.0.113.1"), said("203.0.113.2", seconds=8))
    follower = follow()
    follower.until({"203.0.113.1": "block", "203.0.113.2": "block"})
    local_broker.kill()
    try:
        wait_until(lambda: follower.in_force() == {"203.0.113.1": "block"}, "what has expired to fall out")
        assert follower.topic.stale_since_ms is not None
        assert follower.told == ["topic_stale"]
    finally:
        local_broker.start()
    deployment.say(said("203.0.113.3"))
    follower.until({"203.0.113.1": "block", "203.0.113.3": "block"})
    wait_until(lambda: follower.step() is None and follower.told == ["topic_stale", "topic_back"], "word of the return")
    assert follower.topic.stale_since_ms is None


ALLOWED = {"read": AclOperation.READ, "write": AclOperation.WRITE, "describe": AclOperation.DESCRIBE}


def as_edge(
    deployment: Deployment, local_broker: LocalBroker, certificates: Certificates, user: str, rights: list[tuple[str, str]]
) -> Connection:
    """A connection to the secured listener as a user with just these rights (topic, operation)."""
    admin = deployment.connection().admin()
    scram = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    admin.alter_user_scram_credentials([UserScramCredentialUpsertion(user, scram, SECRET.encode())])[user].result(timeout=10)
    access = [
        AclBinding(
            ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, f"User:{user}", "*", ALLOWED[operation],
            AclPermissionType.ALLOW,
        )
        for topic, operation in rights
    ]  # fmt: skip
    for future in admin.create_acls(access).values() if access else ():
        future.result(timeout=10)
    section = {
        "brokers": [local_broker.secured_bootstrap], "ca_file": str(certificates.ca), "sasl_mechanism": "SCRAM-SHA-512",
        "username": user, "topic_prefix": deployment.config.kafka.topic_prefix,
    }  # fmt: skip
    return Connection(parse_config({"kafka": section}).kafka, {PASSWORD: SECRET})


def test_the_rights_that_topics_describe_prints_for_an_edge_are_enough(
    deployment: Deployment, local_broker: LocalBroker, certificates: Certificates
) -> None:
    needed = needed_rights(deployment.config, wanted_topics(deployment.config, 1))
    rights = [(one.name, operation) for one in needed if one.principal == "edge" for operation in one.operations]
    connection = as_edge(deployment, local_broker, certificates, "edge", rights)
    deployment.say(said("203.0.113.1"))
    told: list[str] = []
    source = EnforcementTopic(connection, deployment.topic, SystemClock(), lambda event, fields: told.append(event))
    acknowledger = Acknowledger(
        connection, deployment.config.kafka.topic_prefix + ENFORCEMENT_ACKS, "e", lambda event, fields: told.append(event)
    )
    reader = Reader(CORE, everything)
    source.open(reader)
    wait_until(lambda: source.feed(reader, 0.05) >= 0 and reader.ready, "the end of the topic")
    source.close()
    acknowledger.send(
        [Acknowledgement(edge="e", id="a", target=said().target, action="block", outcome="applied", applied_at_ms=1)]
    )
    acknowledger.close()
    assert (acknowledger.sent, acknowledger.lost, told) == (1, 0, [])


@pytest.mark.parametrize("operation", ["none", "describe"])
def test_a_missing_right_is_one_line_and_the_end(
    deployment: Deployment, local_broker: LocalBroker, certificates: Certificates, operation: str
) -> None:
    rights = [(deployment.topic, operation)] if operation != "none" else []
    connection = as_edge(deployment, local_broker, certificates, f"edge-with-{operation}", rights)
    source = EnforcementTopic(connection, deployment.topic, SystemClock(), lambda event, fields: None)
    reader = Reader(CORE, everything)

    def read() -> None:
        source.open(reader)
        wait_until(lambda: source.feed(reader, 0.05) >= 0 and reader.ready, "a refusal")

    deployment.say(said("203.0.113.1"))
    with pytest.raises(BrokerError, match=rf"its right to the topic {re.escape(deployment.topic)}"):
        read()
    source.close()


def test_a_topic_that_is_not_there_is_one_line_that_says_what_makes_it(broker: str) -> None:
    config = parse_config({"kafka": {"brokers": [broker], "development": True}})
    source = EnforcementTopic(Connection(config.kafka), "nowhere.mitigations", SystemClock(), lambda event, fields: None)
    with pytest.raises(BrokerError, match=r"expected the topic nowhere.mitigations.*floodwall topics create"):
        source.open(Reader(CORE, everything))
    source.close()


def test_no_broker_is_one_line_that_says_where_none_is() -> None:
    config = parse_config({"kafka": {"brokers": ["127.0.0.1:1"], "development": True}})
    source = EnforcementTopic(Connection(config.kafka), "mitigations", SystemClock(), lambda event, fields: None)
    with pytest.raises(BrokerError, match=r"expected a broker on 127.0.0.1:1"):
        source.open(Reader(CORE, everything))
    source.close()


def test_the_subscriber_of_the_docs_runs_as_it_stands_there(deployment: Deployment, tmp_path: Path) -> None:
    code = DOCS.read_text().split("<!-- subscriber")[1].split("```python\n")[1].split("```")[0]
    assert len([line for line in code.splitlines() if line.strip()]) == 20
    script = tmp_path / "subscriber.py"
    script.write_text(code)
    now = SystemClock().now_ms() // 1000
    deployment.say(
        said("203.0.113.1"), said("203.0.113.2", dry_run=True), said("203.0.113.3", seconds=-1),
        said("203.0.113.4", tick=now + 5, state="lifted"), said("203.0.113.4"),
        said("203.0.113.5", action="throttle", detector="other"), said("203.0.113.5", detector="operator", action="allow"),
        said("203.0.113.5"), said("203.0.113.6", action="challenge"), said("203.0.113.7", seconds=4),
    )  # fmt: skip
    output = tmp_path / "output"
    bootstrap = deployment.config.kafka.brokers[0]
    with running((sys.executable, str(script), bootstrap, deployment.topic), output):
        first = {"203.0.113.1 None -> block", "203.0.113.5 None -> allow", "203.0.113.7 None -> block"}
        wait_until(lambda: set(output.read_text().splitlines()) >= first, "the first table")
        assert set(output.read_text().splitlines()) - {"203.0.113.7 block -> None"} == first
        deployment.say(said("203.0.113.1", tick=now + 5, state="lifted"), said("2001:db8::/64"))
        later = first | {"203.0.113.1 block -> None", "2001:db8::/64 None -> block", "203.0.113.7 block -> None"}
        wait_until(lambda: set(output.read_text().splitlines()) == later, "a lift, a new one and one that expired")
