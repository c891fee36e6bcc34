"""Whatever keeps us out is one line that names what was expected, what came and what to do, within seconds."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from broker.connection import Connection
from broker.local import LocalBroker
from broker.rights import Right, needed_rights
from broker.settings import PASSWORD
from broker.signing import signer_of
from broker.status import take_status
from broker.topics import create_topics, wanted_topics
from drills.traffic import combined_lines
from edge.operator import operator_record, publish
from edge.overview import read_overview
from engine.clock import SystemClock
from replay.explain import explain_topics
from replay.run import replay
from replay.sink import Sink
from schemas.config import Config, Kafka, parse_config
from schemas.errors import BrokerError
from schemas.mitigation import Evidence, Target
from schemas.prefixes import Prefixes
from schemas.topics import ENFORCEMENT_ACKS, MITIGATIONS
from tests.kafka.certificates import Certificates

FLOODWALL = [str(Path(sys.executable).parent / "floodwall")]
SECRET = "correct-horse"


@pytest.fixture(scope="session")
def user(local_broker: LocalBroker) -> str:
    """May read nothing and write nothing until a test says so."""
    admin = AdminClient({"bootstrap.servers": local_broker.bootstrap, "log_level": 0})
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    change = UserScramCredentialUpsertion("observer", info, SECRET.encode())
    admin.alter_user_scram_credentials([change])["observer"].result(timeout=10)
    return "observer"


@pytest.fixture
def secured(local_broker: LocalBroker, certificates: Certificates, user: str) -> Callable[..., Kafka]:
    """The kafka section for the secured listener; settings given are changed."""

    def make(**settings: Any) -> Kafka:
        section = {
            "brokers": [local_broker.secured_bootstrap], "ca_file": str(certificates.ca),
            "sasl_mechanism": "SCRAM-SHA-512", "username": user,
        }  # fmt: skip
        return parse_config({"kafka": {name: value for name, value in {**section, **settings}.items() if value}}).kafka

    return make


def refused(kafka: Kafka, password: str = SECRET) -> str:
    with pytest.raises(BrokerError) as caught:
        Connection(kafka, {PASSWORD: password}).check(timeout_s=8)
    text = str(caught.value)
    assert "\n" not in text
    assert password not in text
    return text


def test_with_the_right_password_and_authority_we_are_let_in(secured: Callable[..., Kafka]) -> None:
    assert Connection(secured(), {PASSWORD: SECRET}).check().brokers


def test_a_wrong_password(secured: Callable[..., Kafka]) -> None:
    text = refused(secured(), "wrong")
    assert "to take the password of observer (SCRAM-SHA-512), they refused it" in text
    assert PASSWORD in text


def test_a_mechanism_that_the_broker_does_not_take(secured: Callable[..., Kafka]) -> None:
    assert "kafka.sasl_mechanism" in refused(secured(sasl_mechanism="SCRAM-SHA-256"))


def test_an_authority_that_did_not_sign(secured: Callable[..., Kafka], certificates: Certificates) -> None:
    text = refused(secured(ca_file=str(certificates.other_ca)))
    assert f"to be signed by {certificates.other_ca}" in text


def test_a_host_that_the_certificate_is_not_for(secured: Callable[..., Kafka], local_broker: LocalBroker) -> None:
    port = local_broker.secured_bootstrap.rsplit(":", 1)[1]
    assert "to be for localhost, it is not" in refused(secured(brokers=[f"localhost:{port}"]))


@pytest.fixture
def expired(certificates: Certificates) -> Iterator[str]:
    """A server whose certificate is no longer in force."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.expired, certificates.key)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    try:
                        context.wrap_socket(connection, server_side=True).close()
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(timeout=5)


def test_an_expired_certificate(secured: Callable[..., Kafka], expired: str) -> None:
    text = refused(secured(brokers=[expired]))
    assert f"expected a certificate in force on {expired}" in text
    assert "expired" in text


def test_tls_asked_of_a_plaintext_broker(secured: Callable[..., Kafka], broker: str) -> None:
    text = refused(secured(brokers=[broker]))
    assert f"expected {broker} to speak TLS" in text
    assert "kafka.development = true" in text


def test_plaintext_asked_of_a_tls_broker(local_broker: LocalBroker) -> None:
    address = local_broker.secured_bootstrap
    kafka = parse_config({"kafka": {"brokers": [address], "development": True}}).kafka
    assert f"expected plaintext on {address}, it speaks TLS" in refused(kafka)


def test_a_missing_right_and_then_the_right(
    secured: Callable[..., Kafka], local_broker: LocalBroker, user: str, unique: Callable[[str], str]
) -> None:
    topic = unique("secret")
    admin = AdminClient({"bootstrap.servers": local_broker.bootstrap, "log_level": 0})
    admin.create_topics([NewTopic(topic, 1)])[topic].result(timeout=10)
    connection = Connection(secured(), {PASSWORD: SECRET})
    with pytest.raises(KafkaException) as caught:
        connection.admin().create_topics([NewTopic(unique("forbidden"), 1)])[unique("forbidden")].result(timeout=10)
    text = str(connection.explain(caught.value))
    assert "expected observer to have its right to the" in text
    assert "floodwall topics describe" in text
    said = []
    producer = Producer(connection.settings())
    producer.produce(topic, b"x", on_delivery=lambda error, _: said.append(error))
    producer.flush(10)
    text = str(connection.explain(said[0], topic))
    assert f"expected observer to have its right to the topic {topic}" in text
    allowed = AclBinding(
        ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, f"User:{user}", "*", AclOperation.WRITE, AclPermissionType.ALLOW
    )
    admin.create_acls([allowed])[allowed].result(timeout=10)
    for _ in range(20):  # brokers obey a new right a moment after it was granted, and a client remembers a refusal
        producer = Producer(connection.settings())
        producer.produce(topic, b"x", on_delivery=lambda error, _: said.append(error))
        producer.flush(10)
        if said[-1] is None:
            break
    assert said[-1] is None


@pytest.mark.parametrize(
    ("brokers", "said"),
    [
        ("127.0.0.1:1", "expected a broker on 127.0.0.1:1, nothing listens there; start one"),
        ("does-not-exist.invalid:9092", "expected the name does-not-exist.invalid of a broker to resolve"),
        ("127.0.0.1:port", "expected host:port in kafka.brokers"),
    ],
)
def test_no_broker_there(brokers: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "kafka.toml"
    path.write_text(f'[kafka]\nbrokers = ["{brokers}"]\ndevelopment = true\n')
    words = [*FLOODWALL, "topics", "describe", "--config", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 6
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_nothing_but_the_one_line_is_printed_and_no_secret(
    local_broker: LocalBroker, certificates: Certificates, user: str, tmp_path: Path
) -> None:
    path = tmp_path / "kafka.toml"
    path.write_text(
        f'[kafka]\nbrokers = ["{local_broker.secured_bootstrap}"]\nca_file = "{certificates.ca}"\n'
        f'sasl_mechanism = "SCRAM-SHA-512"\nusername = "{user}"\n'
    )
    words = [*FLOODWALL, "topics", "describe", "--config", str(path)]
    environment = {**os.environ, PASSWORD: "not-the-one"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30, env=environment)
    assert (done.returncode, done.stdout) == (6, "")
    assert len(done.stderr.strip().splitlines()) == 1
    assert "not-the-one" not in done.stderr


@pytest.fixture
def grant(local_broker: LocalBroker, user: str) -> Callable[[list[Right]], None]:
    """Give the user of the secured listener exactly these rights."""
    admin = AdminClient({"bootstrap.servers": local_broker.bootstrap, "log_level": 0})
    resources = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "transactional_id": ResourceType.TRANSACTIONAL_ID}

    def give(rights: list[Right]) -> None:
        rows = [
            AclBinding(
                resources[right.resource], right.name, ResourcePatternType[right.pattern.upper()], f"User:{user}", "*",
                AclOperation[operation.upper()], AclPermissionType.ALLOW,
            )
            for right in rights for operation in right.operations
        ]  # fmt: skip
        for future in admin.create_acls(rows).values():
            future.result(timeout=10)

    return give


@pytest.mark.parametrize("role", ["replay", "operator", "admin"])
def test_the_rights_that_are_printed_are_enough(
    role: str,
    broker: str,
    secured: Callable[..., Kafka],
    grant: Callable[[list[Right]], None],
    unique: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = unique(role)
    own = {"topic_prefix": f"{name}.", "topics": [f"{name}.log"], "group_prefix": name}
    document = {"engine": {"judge_partitions": 2, "seed": "for tests only"}}
    plain = parse_config({"kafka": {"brokers": [broker], "development": True, **own}, **document})
    config = msgspec.structs.replace(plain, kafka=secured(**own))
    if role != "admin":
        create_topics(plain, Connection(plain.kafka), raw_partitions=1)
    producer = Producer({"bootstrap.servers": broker, "log_level": 0})
    if role == "replay":
        producer.produce(f"{name}.log", combined_lines(seed=1, events=1).data)
        producer.flush(10)
    grant([right for right in needed_rights(config, wanted_topics(config)) if right.principal == role])
    monkeypatch.setenv(PASSWORD, SECRET)
    connection = Connection(config.kafka)
    for attempt in range(10):  # brokers obey a new right a moment after it was granted, and hide what may not be seen
        try:
            if role == "replay":
                assert replay(config, [f"kafka:///{name}.log"], Sink(), SystemClock()).account.events == 1
            elif role == "operator":
                assert {topic.state for topic in take_status(config, connection).topics} == {"there"}
                explain_as_operator(config, connection, name)
            else:
                assert {topic.state for topic in create_topics(config, connection)} == {"created"}
            break
        except (BrokerError, AssertionError):
            if attempt == 9:
                raise


def explain_as_operator(config: Config, connection: Connection, prefix: str) -> None:
    """All that an operator reads and writes; the traffic needs the rights of `replay`, and is told to be missing without."""
    topic, now = f"{prefix}.{MITIGATIONS}", SystemClock().now_ms() // 1000
    target = Target(type="ip", value="203.0.113.7")
    own = operator_record(target, "block", now=now, ttl_s=60, ttl_s_max=3600, owner="ana", reason="a test")
    evidence = Evidence(offsets={f"{prefix}.log-0": (0, 1)})
    publish(connection, topic, msgspec.structs.replace(own, evidence=evidence), signer_of(config, topic, SystemClock()))
    overview = read_overview(connection, topic, f"{prefix}.{ENFORCEMENT_ACKS}", Prefixes([]), SystemClock())
    assert list(overview.summary(1000 * now).in_force) == ["block"]
    told = explain_topics(config, own.id, [], now, lambda records, at: None)
    assert told.traffic is not None
    assert told.traffic.events == 0
