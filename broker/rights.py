"""The access rights that each principal needs, in the words of Kafka's ACLs: the least that works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from schemas.config import Config
from schemas.topics import Topic

ROLES = ("shippers", "observer", "judge", "edge", "operator", "replay", "intake", "admin")
"""``intake`` writes what others report of leaked keys, and reads nothing; ``admin`` runs ``floodwall topics create``, once."""
_OF_EVERY_TOPIC = {"operator": ("describe_configs",), "admin": ("create", "describe_configs")}


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
    """By principal, then by resource. Edges and replay read without a group, so they need no right to one."""
    rights = []
    for role in ROLES:
        for topic in topics:
            reads = ("read",) if role in topic.readers else ()
            writes = ("write",) if role in topic.writers else ()
            operations = (*reads, *writes, *_OF_EVERY_TOPIC.get(role, ()))
            # A worker looks at its start whether all is there; a judge has to know every partition of the raw topics.
            if operations or role in ("observer", "judge"):
                rights.append(Right(role, "topic", topic.name, "literal", (*operations, "describe")))
        rights += _group_rights(config, role)
    return rights


def _group_rights(config: Config, role: str) -> list[Right]:
    observers, judges = observers_group(config), judges_group(config)
    if role == "observer":
        # One transactional producer for each source partition, named after the group, topic and partition.
        transactions = Right(role, "transactional_id", f"{observers}-", "prefixed", ("write", "describe"))
        return [Right(role, "group", observers, "literal", ("read", "describe")), transactions]
    if role == "judge":
        return [Right(role, "group", judges, "literal", ("read", "describe"))]
    if role == "operator":  # floodwall status
        return [Right(role, "group", group, "literal", ("describe",)) for group in (observers, judges)]
    return []
