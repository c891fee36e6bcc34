"""The access rights that each principal needs, in the words of Kafka's ACLs: the least that works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from schemas.config import Config
from schemas.topics import Topic

ROLES = ("shippers", "observer", "judge", "edge", "operator", "replay")


@dataclass(frozen=True, slots=True)
class Right:
    """One row of an access list, to allow."""

    principal: str
    """A role; several principals may hold it, and one may hold several."""
    resource: Literal["topic", "group", "transactional_id"]
    name: str
    pattern: Literal["literal", "prefixed"]
    operations: tuple[str, ...]


def observers_group(config: Config) -> str:
    """The observers' consumer group."""
    return f"{config.kafka.group_prefix}-observers"


def judges_group(config: Config) -> str:
    """The judges' consumer group."""
    return f"{config.kafka.group_prefix}-judges"


def needed_rights(config: Config, topics: tuple[Topic, ...]) -> list[Right]:
    """By principal, then by resource. Edges, operators and replay read without a group, so they need none."""
    rights = []
    for role in ROLES:
        for topic in topics:
            operations = [
                name for name, roles in (("read", topic.readers), ("write", topic.writers)) if role in roles
            ]  # fmt: skip
            # A worker looks at its start whether all is there; a judge has to know every partition of the raw topics.
            if operations or role in ("observer", "judge"):
                rights.append(Right(role, "topic", topic.name, "literal", (*operations, "describe")))
        rights += _group_rights(config, role)
    return rights


def _group_rights(config: Config, role: str) -> list[Right]:
    groups = {"observer": observers_group(config), "judge": judges_group(config)}
    if role not in groups:
        return []
    group = groups[role]
    rights = [Right(role, "group", group, "literal", ("read", "describe"))]
    if role == "observer":
        # One transactional producer for each source partition, named after the group, topic and partition.
        rights.append(Right(role, "transactional_id", f"{group}-", "prefixed", ("write", "describe")))
    return rights
