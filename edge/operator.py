"""An operator's own records: a block, or an allow that keeps every detector away from a target for a while."""

from __future__ import annotations

import hashlib

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from broker.connection import Connection
from edge.reader import ALLOW, OPERATOR, Record
from edge.subject import parse_prefix
from schemas.errors import UsageError
from schemas.mitigation import Evidence, Mitigation, State, Target, Window, encode_line, topic_key

ACTIONS = (ALLOW, "block")
ADDRESS_LENGTHS = {"ip4": {32: "ip", 24: "net"}, "ip6": {128: "ip", 64: "ip", 48: "net"}}
"""Prefix lengths that our edges look up, and the type of target that each is."""
SEND_S_MAX = 10.0
_SEVERITY = 10
_VERSION = 1


def target_of(text: str, kind: str | None) -> Target:
    """The target that an operator means: an address or prefix, or a value of another ``kind`` (``api_key``, ``account``, …).

    Raises:
        UsageError: it is no address or prefix, or its length is none that edges look up.
    """
    if kind not in (None, "ip", "net"):
        return Target(type=kind, value=text)
    try:
        subject = parse_prefix(text)
    except ValueError as error:
        raise UsageError(f"expected an address or prefix, got {text[:64]!r}: {error}") from None
    kinds = ADDRESS_LENGTHS[subject.kind]
    if subject.length not in kinds:
        lengths = ", ".join(f"/{length}" for length in kinds)
        raise UsageError(f"expected a prefix length that edges look up ({lengths}), got {subject.text}")
    return Target(type=kinds[subject.length], value=subject.text)


def operator_record(
    target: Target, action: str, *, now: int, ttl_s: int, ttl_s_max: int, owner: str, reason: str, lifts: Record | None = None
) -> Mitigation:
    """A record by an operator. Its evidence is who says so; one that ``lifts`` another takes over its id.

    Raises:
        UsageError: the action is none for operators, the TTL is longer than the topic keeps, or a word is missing.
    """
    if action not in ACTIONS:
        raise UsageError(f"expected one of {', '.join(ACTIONS)}, got {action[:64]!r}")
    if not 1 <= ttl_s <= ttl_s_max:
        raise UsageError(f"expected a TTL of 1 to {ttl_s_max} s (policy.ttl_s_max: the topic forgets later), got {ttl_s}")
    if not owner.strip() or not reason.strip():
        raise UsageError("expected an owner and a reason, got nothing: whoever reads this later wants to know")
    state: State = "active" if lifts is None else "lifted"
    words = f"{OPERATOR}|{target.type}|{target.value}|{action}|{now}"
    identifier = hashlib.blake2b(words.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()
    return Mitigation(
        id=identifier if lifts is None else lifts.id, tick=now, stage="final", state=state, action=action, target=target,
        detector=OPERATOR, detector_version=_VERSION, reason=reason[:256], severity=_SEVERITY, confidence=1.0,
        window=Window(start=now, end=now + 1), observed=0, limit=0, issued_at=now, expires_at=now + ttl_s,
        evidence=Evidence(features={"owner": owner[:128]}),
    )  # fmt: skip


def lift_record(
    target: Target, standing: list[Record], *, now: int, ttl_s: int, ttl_s_max: int, owner: str, reason: str
) -> Mitigation:
    """What ends ``standing`` on a target.

    An operator's own record is lifted. A detector's cannot be, its key has one writer: it is kept away by an allow, which
    also holds against the renewals that come.
    """
    own = [record for record in standing if record.detector == OPERATOR]
    if not own:
        return operator_record(target, ALLOW, now=now, ttl_s=ttl_s, ttl_s_max=ttl_s_max, owner=owner, reason=reason)
    # A lift lives as long as what it lifts, so that no reader forgets it earlier.
    left_s = max(min(own[0].expires_at - now, ttl_s_max), 1)
    return operator_record(
        target, own[0].action, now=max(now, own[0].tick), ttl_s=left_s, ttl_s_max=ttl_s_max, owner=owner, reason=reason,
        lifts=own[0],
    )  # fmt: skip


def publish(connection: Connection, topic: str, mitigation: Mitigation) -> None:
    """Write a record to the enforcement topic, and wait until the brokers have it.

    Raises:
        BrokerError: they do not take it.
    """
    key = topic_key(mitigation.target, mitigation.detector)
    publish_value(connection, topic, key, encode_line(mitigation).rstrip())


def publish_value(connection: Connection, topic: str, key: bytes, value: bytes) -> None:
    """Write one message, and wait until the brokers have it.

    Raises:
        BrokerError: they do not take it.
    """
    connection.check()
    refused: list[KafkaError] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            refused.append(error)

    producer = Producer(connection.settings(acks="all", message_timeout_ms=int(SEND_S_MAX * 1000)))
    try:
        producer.produce(topic, value, key=key, on_delivery=delivered)
    except KafkaException as error:
        raise connection.explain(error, topic) from None
    producer.flush(SEND_S_MAX + 1)
    if refused:
        raise connection.explain(refused[0], topic)
