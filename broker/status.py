"""Where everything stands: brokers, topics, how far the groups are behind, and the judges' own records."""

from __future__ import annotations

from dataclasses import dataclass, replace

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, Message, TopicPartition

from broker.connection import Cluster, Connection, is_about_no_group
from broker.offsets import Partition, asked, end_offsets, first_offsets, wait_for
from broker.probe import probe
from broker.rights import judges_group, observers_group
from broker.topics import TopicReport, describe_topics
from engine.snapshot import unpack
from schemas.config import Config
from schemas.errors import StateError
from schemas.tally import SILENT_MS
from schemas.topics import STATE, tallies_topic

_LAST = 8
"""Offsets at the end that are looked at for the last message: some may be transactions' markers."""
_READ_S_MAX = 10.0
_WAIT_S = 0.2


@dataclass(frozen=True, slots=True)
class BrokerStatus:
    """One configured address."""

    address: str
    reachable: bool
    error: str | None


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """How far a group is behind in one partition."""

    topic: str
    partition: int
    committed: int | None
    """None: nothing was committed yet."""
    end: int
    lag: int
    """Messages, holes counted as such."""


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """A consumer group."""

    name: str
    state: str
    """Kafka's word: stable, empty, dead (there is none), preparing_rebalance, …"""
    members: int
    lag: int
    partitions: tuple[PartitionLag, ...]


@dataclass(frozen=True, slots=True)
class JudgePlace:
    """What a judge wrote down last about one judge partition."""

    partition: int
    written_ms: int
    position: int
    """The next offset of the tallies."""
    behind: int
    """Messages of tallies after it."""
    closed_tick: int | None
    """The last second that was decided."""
    sources: dict[str, int]
    """Where it stands in each source partition: the next offset."""
    newest_ms: int | None
    """The slowest source partition's newest event time."""
    models_refused: dict[str, str]
    """Learned detectors that began anew because what they knew could not be used, and why, until they are warm."""


@dataclass(frozen=True, slots=True)
class DeploymentStatus:
    """Everything, at one moment."""

    brokers: tuple[BrokerStatus, ...]
    topics: tuple[TopicReport, ...]
    groups: tuple[GroupStatus, ...]
    judges: tuple[JudgePlace, ...]


def take_status(config: Config, connection: Connection) -> DeploymentStatus:
    """Look at everything once.

    Raises:
        BrokerError: no broker can be reached, or they do not let us look.
    """
    cluster = connection.check()
    tallies = tallies_topic(config.engine.judge_partitions, config.kafka.topic_prefix)
    groups = (
        group_status(connection, observers_group(config), config.kafka.topics, cluster),
        group_status(connection, judges_group(config), (tallies,), cluster),
    )
    return DeploymentStatus(
        broker_status(connection),
        tuple(describe_topics(config, connection, cluster)),
        groups,
        tuple(judge_places(config, connection, cluster)),
    )


def broker_status(connection: Connection) -> tuple[BrokerStatus, ...]:
    """Each configured address, tried by itself."""
    found = []
    for address in connection.access.brokers:
        error = probe(replace(connection.access, brokers=(address,)))
        found.append(BrokerStatus(address, error is None, None if error is None else str(error)))
    return tuple(found)


def _partitions(cluster: Cluster, topics: tuple[str, ...]) -> list[Partition]:
    return [(topic, number) for topic in topics for number in range(cluster.topics.get(topic, 0))]


def group_status(connection: Connection, group: str, topics: tuple[str, ...], cluster: Cluster) -> GroupStatus:
    """How far a group is behind in some topics; those that are not there are left out."""
    admin = connection.admin()
    state, members = "dead", 0
    # Asked first, because a cluster that never had a group has no coordinator that could describe one.
    if group in {listed.group_id for listed in wait_for(connection, group, admin.list_consumer_groups()).valid}:
        described = wait_for(connection, group, admin.describe_consumer_groups([group])[group])
        state, members = described.state.name.lower(), len(described.members)
    partitions = _partitions(cluster, topics)
    ends, firsts = end_offsets(connection, partitions), first_offsets(connection, partitions)
    committed: dict[Partition, int] = {}
    if partitions and state != "dead":
        request = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, number) for topic, number in partitions])
        answer = wait_for(connection, group, admin.list_consumer_group_offsets([request])[group])
        committed = {(p.topic, p.partition): p.offset for p in answer.topic_partitions if p.offset >= 0}
    lags = []
    for key in partitions:
        at = committed.get(key)
        lags.append(PartitionLag(*key, at, ends[key], max(0, ends[key] - (firsts[key] if at is None else at))))
    return GroupStatus(group, state, members, sum(lag.lag for lag in lags), tuple(lags))


def judge_places(config: Config, connection: Connection, cluster: Cluster) -> list[JudgePlace]:
    """The last record of each judge partition that has one and can be read."""
    prefix, wanted = config.kafka.topic_prefix, config.engine.judge_partitions
    state, tallies = prefix + STATE, tallies_topic(wanted, prefix)
    if state not in cluster.topics or tallies not in cluster.topics:
        return []
    ends = end_offsets(connection, _partitions(cluster, (tallies,)))
    places = []
    for (_, partition), message in sorted(last_messages(connection, _partitions(cluster, (state,))).items()):
        place = _place(partition, message, ends.get((tallies, partition), 0))
        if place is not None:
            places.append(place)
    return places


def _place(partition: int, message: Message, end: int) -> JudgePlace | None:
    try:
        record = unpack(message.value() or b"")
        position, closed, sources = record["position"], record["closed"], record["intake"]["sources"]
        refused = {str(model): str(why) for model, why in record["models"]["refused"].items()}
    except (StateError, AttributeError, KeyError, TypeError):  # of another version, say: there is nothing to show
        return None
    times = [newest for _, newest, is_open, *_ in sources.values() if is_open and newest > SILENT_MS]
    return JudgePlace(
        partition,
        message.timestamp()[1],
        position,
        max(0, end - position),
        closed if closed > 0 else None,
        {name: source[0] for name, source in sorted(sources.items())},
        min(times, default=None),
        refused,
    )


def last_messages(connection: Connection, partitions: list[Partition], count: int = 1) -> dict[Partition, Message]:
    """The last committed message of each partition that has one."""
    return {key: messages[-1] for key, messages in tail_messages(connection, partitions, count).items() if messages}


def tail_messages(connection: Connection, partitions: list[Partition], count: int) -> dict[Partition, list[Message]]:
    """At most the ``count`` last committed messages of each partition, read without a group.

    Raises:
        BrokerError: a topic may not be read.
    """
    firsts, ends = first_offsets(connection, partitions), end_offsets(connection, partitions)
    starts = {key: max(firsts[key], ends[key] - count - _LAST) for key in partitions if ends[key] > firsts[key]}
    return {key: messages[-count:] for key, messages in read_ranges(connection, starts, ends).items()}


def message_at(connection: Connection, partition: Partition, offset: int) -> Message | None:
    """The first committed message from an offset on; None: there is none."""
    ends = end_offsets(connection, [partition])
    messages = read_ranges(connection, {partition: offset}, {partition: min(ends[partition], offset + _LAST)})[partition]
    return messages[0] if messages else None


def read_ranges(
    connection: Connection, starts: dict[Partition, int], ends: dict[Partition, int]
) -> dict[Partition, list[Message]]:
    """Every committed message of each partition from its start to before its end, read without a group.

    Raises:
        BrokerError: a topic may not be read.
    """
    found: dict[Partition, list[Message]] = {key: [] for key in starts}
    wanted = {key for key in starts if starts[key] < ends[key]}
    if not wanted:
        return found
    consumer = Consumer(
        connection.settings(
            group_id="floodwall-status",  # named because it has to be; it is asked for nothing and told nothing
            enable_auto_commit=False,
            isolation_level="read_committed",
            enable_partition_eof=True,
        )
    )
    try:
        consumer.assign([TopicPartition(*key, starts[key]) for key in sorted(wanted)])
        rounds = int(_READ_S_MAX / _WAIT_S)
        while wanted and rounds:
            messages = asked(connection, "", lambda: consumer.consume(1000, _WAIT_S))
            rounds -= not messages
            for message in messages:
                key = (message.topic() or "", message.partition() or 0)
                error, offset = message.error(), message.offset() or 0
                if error is not None and is_about_no_group(error):
                    continue
                if error is None:
                    if offset < ends[key]:
                        found[key].append(message)
                elif error.code() != KafkaError._PARTITION_EOF:
                    raise connection.explain(error, key[0])
                if error is not None or offset + 1 >= ends[key]:
                    wanted.discard(key)
    finally:
        consumer.close()
    return found
