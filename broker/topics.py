"""Topics as they should be and as they are: made where they are missing, never changed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Literal

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin._config import ConfigResource  # the package itself does not export it to type checkers
from confluent_kafka.cimpl import NewTopic

from broker.connection import Cluster, Connection
from broker.offsets import ANSWER_S_MAX, wait_for
from schemas.config import Config
from schemas.errors import BrokerError
from schemas.topics import MODEL_STATE, STATE, TALLIES, Topic, all_topics, tallies_topic

RAW_PARTITIONS = 4
"""Of a raw topic that we make: the most observers that can share it."""
State = Literal["created", "there", "missing", "differs"]


@dataclass(frozen=True, slots=True)
class TopicReport:
    """One topic as it is beside what it should be."""

    name: str
    state: State
    partitions: int
    settings: dict[str, str]
    """As they are for a topic that is there, else as they would be."""
    key: str
    differences: tuple[str, ...] = ()


def wanted_topics(config: Config, raw_partitions: int = RAW_PARTITIONS) -> tuple[Topic, ...]:
    """The topics that this configuration needs."""
    return all_topics(
        config.engine.judge_partitions, raw_partitions, config.policy.ttl_s_max, raw=config.kafka.topics,
        prefix=config.kafka.topic_prefix,
    )  # fmt: skip


def check_judge_partitions(config: Config, cluster: Cluster) -> None:
    """The number of judge partitions is fixed when the tallies' topic is made: another number is another deployment.

    Raises:
        BrokerError: there is a tallies' topic for another number, or one of ours has not as many partitions.
    """
    wanted, prefix = config.engine.judge_partitions, config.kafka.topic_prefix
    begin = prefix + TALLIES
    others = [name for name in cluster.topics if name.startswith(begin) and name != tallies_topic(wanted, prefix)]
    others = [name for name in others if name[len(begin) :].isdigit()]
    if others:
        raise BrokerError(
            f"expected engine.judge_partitions = {others[0][len(begin) :]} as the topic {others[0]} says, got {wanted}; "
            "another number needs a deployment of its own (kafka.topic_prefix), or that topic deleted"
        )
    for name in (tallies_topic(wanted, prefix), prefix + STATE, prefix + MODEL_STATE):
        found = cluster.topics.get(name, wanted)
        if found != wanted:
            raise BrokerError(f"expected {wanted} partitions of {name} (engine.judge_partitions), got {found}")


def check_topics(config: Config, cluster: Cluster) -> None:
    """What a worker asks at its start.

    Raises:
        BrokerError: a topic is missing, or the judge partitions do not fit.
    """
    check_judge_partitions(config, cluster)
    missing = [topic.name for topic in wanted_topics(config) if topic.name not in cluster.topics]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise BrokerError(f"expected the topic {missing[0]}{more}, got nothing of that name; make it: floodwall topics create")


def describe_topics(config: Config, connection: Connection, cluster: Cluster) -> list[TopicReport]:
    """Each topic beside what it should be.

    Raises:
        BrokerError: the brokers do not answer, or do not let us look.
    """
    wanted = wanted_topics(config)
    there = {topic.name for topic in wanted if topic.name in cluster.topics}
    resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in sorted(there)]
    found: Mapping[ConfigResource, Future[Any]] = connection.admin().describe_configs(resources) if resources else {}
    settings = {}
    for resource, future in found.items():
        entries = wait_for(connection, resource.name, future)
        settings[resource.name] = {entry.name: entry.value for entry in entries.values()}
    return [_compare(topic, cluster.topics.get(topic.name), settings.get(topic.name, {})) for topic in wanted]


def create_topics(
    config: Config,
    connection: Connection,
    *,
    raw_partitions: int = RAW_PARTITIONS,
    replication: int | None = None,
) -> list[TopicReport]:
    """Make what is missing; what is there is compared, and never changed.

    Raises:
        BrokerError: the brokers do not answer or refuse, or the judge partitions do not fit.
    """
    cluster = connection.check()
    check_judge_partitions(config, cluster)
    missing = {topic.name: topic for topic in wanted_topics(config, raw_partitions) if topic.name not in cluster.topics}
    asked = connection.admin().create_topics([_new(topic, replication) for topic in missing.values()]) if missing else {}
    for name, future in asked.items():
        try:
            future.result(timeout=ANSWER_S_MAX)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # somebody else was quicker
                raise connection.explain(error, name) from None
            del missing[name]
    cluster = _wait_for(connection, set(asked))
    return [
        replace(report, state="created") if report.name in missing and report.state == "there" else report
        for report in describe_topics(config, connection, cluster)
    ]


def _wait_for(connection: Connection, names: set[str]) -> Cluster:
    """A broker answers that a topic is made before all brokers know it: whoever uses it next should find it."""
    deadline = time.monotonic() + ANSWER_S_MAX
    while not names <= set((cluster := connection.check()).topics):
        if time.monotonic() >= deadline:
            raise BrokerError(f"expected the brokers to know the new topics within {ANSWER_S_MAX:.0f} s, they do not")
        connection.admin().poll(0.1)
    return cluster


def _new(topic: Topic, replication: int | None) -> NewTopic:
    # -1 leaves the number of replicas to the cluster's own default.
    return NewTopic(topic.name, topic.partitions, -1 if replication is None else replication, config=topic.settings)


def _compare(topic: Topic, partitions: int | None, settings: Mapping[str, str]) -> TopicReport:
    if partitions is None:
        return TopicReport(topic.name, "missing", topic.partitions, topic.settings, topic.key)
    differences = []
    if not topic.raw and partitions != topic.partitions:
        differences.append(f"expected {topic.partitions} partitions, got {partitions}")
    # How long raw topics keep is for those who ship into them.
    for name, value in () if topic.raw else topic.settings.items():
        came = settings.get(name, "")
        if sorted(came.split(",")) != sorted(value.split(",")):
            differences.append(f"expected {name} = {value}, got {came or 'nothing'}")
    shown = {name: settings.get(name, "") for name in topic.settings}
    state: State = "differs" if differences else "there"
    return TopicReport(topic.name, state, partitions, shown, topic.key, tuple(differences))
