"""Mitigations for tests of edges."""

from __future__ import annotations

from typing import Any

from edge.reader import Reader, Supports
from schemas.config import DEFAULT_ALLOWLIST_CORE, parse_prefixes
from schemas.mitigation import Evidence, Mitigation, Target, Window, encode_line, topic_key
from schemas.prefixes import Prefixes

CORE = Prefixes(parse_prefixes(DEFAULT_ALLOWLIST_CORE, "policy.allowlist_core"))


def record(value: str = "203.0.113.7", **changes: Any) -> Mitigation:
    """A throttle of an address from tick 990, until 1100; ``kind`` is the type of another target."""
    kind = changes.pop("kind", "net" if value.endswith(("/24", "/48")) else "ip")
    fields: dict[str, Any] = {
        "id": "x", "tick": 990, "stage": "early", "state": "active", "action": "throttle",
        "target": Target(type=kind, value=value), "detector": "rate", "detector_version": 1,
        "reason": "301 requests in 10 s, limit 300", "severity": 5, "confidence": 0.9, "window": Window(start=989, end=991),
        "observed": 2, "limit": 1, "issued_at": 991, "expires_at": 1100, "evidence": Evidence(),
    }  # fmt: skip
    return Mitigation(**{**fields, **changes})


def on_topic(mitigation: Mitigation) -> tuple[bytes, bytes]:
    """Key and value as they lie on the topic."""
    return topic_key(mitigation.target, mitigation.detector), encode_line(mitigation).rstrip()


def everything(subject: object, action: str) -> bool:
    """An edge that can do anything."""
    return True


def ready_reader(*records: Mitigation, supports: Supports = everything, **options: Any) -> Reader:
    """A reader at the end of a topic that holds ``records``."""
    reader = Reader(CORE, supports, **options)
    reader.begin({0: len(records)})
    for one in records:
        reader.take(*on_topic(one))
    reader.reached(0, len(records))
    return reader


def in_force(reader: Reader, now: int) -> dict[str, str]:
    """The action on each target at ``now`` (seconds)."""
    reader.changes(now * 1000)
    return {subject.text: standing.action for subject, standing in reader.table.items()}
