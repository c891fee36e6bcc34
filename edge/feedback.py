"""Verdicts on Kafka: where decisions and earlier verdicts are, and an allow until judges have lifted."""

from __future__ import annotations

from collections.abc import Iterable

from broker.connection import Connection
from broker.reading import read_values
from broker.signing import verifier_of
from edge.operator import operator_record
from edge.reader import ALLOW, Reader, Record
from edge.snapshot import read_topic
from edge.subject import parse_subject
from edge.verdict import decision_in
from engine.clock import Clock
from schemas.config import Config
from schemas.feedback import Feedback
from schemas.mitigation import OPERATOR, Mitigation
from schemas.prefixes import Prefixes
from schemas.topics import FEEDBACK, FINDINGS, MITIGATIONS

BRIDGE_S = 30
"""An allow that keeps a target free until judges have lifted lasts so much longer than they should take."""


def decision_on_topics(config: Config, connection: Connection, identifier: str) -> dict[str, object] | None:
    """The same on the topics of mitigations and of findings.

    Raises:
        BrokerError: they cannot be read.
    """
    for name in (MITIGATIONS, FINDINGS):
        found = decision_in(read_values(connection, config.kafka.topic_prefix + name), identifier)
        if found is not None:
            return found
    return None


def given_on_topic(config: Config, connection: Connection) -> Iterable[bytes]:
    """Every record that was ever given.

    Raises:
        BrokerError: the topic cannot be read.
    """
    return read_values(connection, config.kafka.topic_prefix + FEEDBACK)


def bridge_of(
    config: Config, connection: Connection, core: Prefixes, clock: Clock, record: Feedback
) -> Mitigation | None:  # fmt: skip
    """An allow until the judges' lift is there, if what was wrong is in force: edges take a second, judges half a minute.

    None: nothing is in force, or an operator has said something about the target, which stands.

    Raises:
        BrokerError: the enforcement topic cannot be read.
    """
    topic = config.kafka.topic_prefix + MITIGATIONS
    reader = read_topic(connection, topic, core, clock, lambda one, value: None, verifier_of(config, topic))
    return bridge_from(config, reader, clock, record)


def bridge_from(config: Config, reader: Reader, clock: Clock, record: Feedback) -> Mitigation | None:
    """The same, of a topic that has been read."""
    try:
        subject = parse_subject(record.target)
    except ValueError:
        return None
    standing: list[Record] = reader.standing(subject, clock.now_ms())
    detectors = {one.detector for one in standing}
    if OPERATOR in detectors or record.detector not in detectors:
        return None
    ttl_s = max(record.tick - record.when, 0) + config.time.lateness_s + BRIDGE_S
    what = "reverted" if record.verdict == "reverted" else "a false positive"
    reason = f"until judges lift {record.id}: {what}" + (f": {record.reason}" if record.reason else "")
    return operator_record(
        record.target, ALLOW, now=clock.now_ms() // 1000, ttl_s=min(ttl_s, config.policy.ttl_s_max),
        ttl_s_max=config.policy.ttl_s_max, owner=record.who, reason=reason,
    )  # fmt: skip
