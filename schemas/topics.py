"""The topics: their names, what they are keyed by, and how long they keep.

Raw topics are created by whoever owns them as often as by us; the rest is created by ``floodwall topics create``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

RAW = ("requests", "registrations", "access-log")
"""One event per message, or an envelope of many, in any format of docs/formats.md."""
STATE = "floodwall.state"
MITIGATIONS = "mitigations"
"""The enforcement topic."""
FINDINGS = "findings"
CONFIG = "config"
CONFIG_STATUS = "config-status"
FEEDBACK = "feedback"
LEAKED_KEYS = "leaked-keys"
"""Fingerprints of keys that somebody has found in the open, and never a key (`schemas.leaked`)."""
MODEL_STATE = "model-state"
"""Snapshots of learned models, which the records in `STATE` name."""
ENFORCEMENT_ACKS = "enforcement-acks"
DEAD_LETTERS = "dead-letters"

DAY_MS = 86_400_000


TALLIES = "floodwall.tallies."
"""The beginning of the topic between observers and judges."""


def tallies_topic(judge_partitions: int, prefix: str = "") -> str:
    """The topic between observers and judges; the number of judge partitions is part of its name."""
    return f"{prefix}{TALLIES}{judge_partitions}"


@dataclass(frozen=True, slots=True)
class Topic:
    """How a topic is made."""

    name: str
    partitions: int
    key: str
    """What messages are keyed by, for people."""
    settings: dict[str, str]
    """Kafka's own topic settings."""
    writers: tuple[str, ...]
    """Principals by role: shippers, observer, judge, edge, operator, replay, intake."""
    readers: tuple[str, ...]
    raw: bool = False
    """Made by whoever ships into it as often as by us, with as many partitions as they like."""


def all_topics(
    judge_partitions: int, raw_partitions: int, ttl_s_max: int, *, raw: Sequence[str] = RAW, prefix: str = ""
) -> tuple[Topic, ...]:
    """Every topic of a deployment.

    Args:
        judge_partitions: of the tallies and the judges' state.
        raw_partitions: of raw topics that are not there yet.
        ttl_s_max: the longest time to live of a mitigation.
        raw: the raw topics' names, as they are.
        prefix: of all other names (``kafka.topic_prefix``).
    """
    seven_days = {"retention.ms": str(7 * DAY_MS)}
    for_ever = {"retention.ms": "-1"}
    # A change counts by the brokers' clock: whoever writes it cannot say when that was.
    history = {"retention.ms": "-1", "message.timestamp.type": "LogAppendTime"}
    # By the brokers' own time edges tell a record that somebody kept and wrote again (`broker.signing`).
    kept = {
        "cleanup.policy": "compact,delete", "retention.ms": str(ttl_s_max * 1000 + DAY_MS),
        "message.timestamp.type": "LogAppendTime",
    }  # fmt: skip
    incoming = tuple(
        Topic(
            name,
            raw_partitions,
            "the client where possible",
            {"retention.ms": str(DAY_MS)},
            ("shippers",),
            ("observer", "replay"),
            raw=True,
        )
        for name in raw
    )
    own = (
        Topic(
            tallies_topic(judge_partitions), judge_partitions, "none: explicit partition",
            {"retention.ms": str(DAY_MS), "max.message.bytes": str(16 << 20)}, ("observer",), ("judge",),
        ),
        Topic(
            STATE, judge_partitions, "judge partition",
            {"cleanup.policy": "compact", "max.message.bytes": str(16 << 20)}, ("judge",), ("judge", "operator"),
        ),
        Topic(MITIGATIONS, 1, "type:value:detector", kept, ("judge", "operator"), ("edge", "operator")),
        Topic(FINDINGS, 1, "dimension:key", seven_days, ("judge",), ("operator",)),
        Topic(CONFIG, 1, "section", history, ("operator",), ("judge", "operator", "replay")),
        Topic(CONFIG_STATUS, 1, "section", for_ever, ("judge",), ("operator",)),
        Topic(
            LEAKED_KEYS, 1, "fingerprint; operator:fingerprint", {"cleanup.policy": "compact"}, ("intake", "operator"),
            ("judge", "operator"),
        ),
        Topic(FEEDBACK, 1, "mitigation id", for_ever, ("operator",), ("judge", "operator", "replay")),
        Topic(
            MODEL_STATE, judge_partitions, "model:partition:slot",
            # Small segments, because the one that is being written is never compacted.
            {"cleanup.policy": "compact", "max.message.bytes": str(16 << 20), "segment.bytes": str(64 << 20)},
            ("judge",), ("judge", "operator"),
        ),
        Topic(ENFORCEMENT_ACKS, 1, "edge id", seven_days, ("edge",), ("operator",)),
        Topic(DEAD_LETTERS, 1, "none", seven_days, ("observer",), ("operator",)),
    )  # fmt: skip
    return (*incoming, *(replace(topic, name=prefix + topic.name) for topic in own))
