"""Decisions as messages: keys, CloudEvents headers and JSON."""

from __future__ import annotations

from datetime import UTC, datetime

from schemas.config import Config
from schemas.mitigation import Finding, Mitigation, encode_line
from schemas.topics import FINDINGS, MITIGATIONS
from streams.producers import Outgoing

SPEC_VERSION = b"1.0"


def _headers(kind: str, identifier: str, source: str, at_s: int) -> tuple[tuple[str, bytes], ...]:
    moment = datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")
    return (
        ("ce_specversion", SPEC_VERSION), ("ce_id", identifier.encode()), ("ce_source", source.encode()),
        ("ce_type", f"floodwall.{kind}".encode()), ("ce_time", moment.encode()), ("content-type", b"application/json"),
    )  # fmt: skip


def mitigation_message(config: Config, mitigation: Mitigation, source: str) -> Outgoing:
    """For the enforcement topic: keyed by target and detector, so that the newest record of each stays."""
    key = f"{mitigation.target.type}:{mitigation.target.value}:{mitigation.detector}"
    headers = _headers("mitigation", mitigation.id, source, mitigation.issued_at)
    return Outgoing(
        config.kafka.topic_prefix + MITIGATIONS, encode_line(mitigation).rstrip(b"\n"), key.encode(), headers=headers
    )


def finding_message(config: Config, finding: Finding, source: str) -> Outgoing:
    """For the findings topic: keyed by dimension and key."""
    key = f"{finding.target.type}:{finding.target.value}"
    headers = _headers("finding", finding.id, source, finding.tick + 1)
    return Outgoing(config.kafka.topic_prefix + FINDINGS, encode_line(finding).rstrip(b"\n"), key.encode(), headers=headers)
