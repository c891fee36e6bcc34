"""Decisions as messages: keys, CloudEvents headers, JSON and signatures."""

from __future__ import annotations

from broker.cloud_events import event_headers
from broker.signing import Signer
from schemas.config import Config
from schemas.mitigation import Finding, Mitigation, encode_line, topic_key
from schemas.topics import FINDINGS, MITIGATIONS
from streams.producers import Outgoing


def mitigation_message(config: Config, signer: Signer, mitigation: Mitigation, source: str) -> Outgoing:
    """For the enforcement topic: keyed by target and detector, so that the newest record of each stays."""
    headers = event_headers("mitigation", mitigation.id, source, mitigation.issued_at)
    key = topic_key(mitigation.target, mitigation.detector)
    return Outgoing(config.kafka.topic_prefix + MITIGATIONS, signer.value(mitigation), key, headers=headers)


def finding_message(config: Config, finding: Finding, source: str) -> Outgoing:
    """For the findings topic: keyed by dimension and key."""
    key = f"{finding.target.type}:{finding.target.value}"
    headers = event_headers("finding", finding.id, source, finding.tick + 1)
    return Outgoing(config.kafka.topic_prefix + FINDINGS, encode_line(finding).rstrip(b"\n"), key.encode(), headers=headers)
