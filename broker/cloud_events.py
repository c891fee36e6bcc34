"""The attributes of CloudEvents that every decision carries in its headers (binary mode of the Kafka binding)."""

from __future__ import annotations

from datetime import UTC, datetime

SPEC_VERSION = b"1.0"

Headers = tuple[tuple[str, bytes], ...]


def event_headers(kind: str, identifier: str, source: str, at_s: int) -> Headers:
    """Headers of a message.

    Args:
        kind: ``mitigation`` or ``finding``.
        identifier: of the decision.
        source: who says it.
        at_s: Unix seconds.
    """
    moment = datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")
    return (
        ("ce_specversion", SPEC_VERSION), ("ce_id", identifier.encode()), ("ce_source", source.encode()),
        ("ce_type", f"floodwall.{kind}".encode()), ("ce_time", moment.encode()), ("content-type", b"application/json"),
    )  # fmt: skip
