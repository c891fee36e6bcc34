"""doctor for Kafka: can we get in, is everything there, does somebody read it, are clocks right, what do messages hold."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import msgspec
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from broker.connection import Cluster, Connection
from broker.offsets import partitions_of
from broker.rights import observers_group
from broker.status import broker_status, group_status, message_at, tail_messages
from broker.topics import check_judge_partitions, describe_topics
from engine.clock import Clock
from replay.doctor import Diagnosis, examine_lines
from replay.kafka import split_url
from schemas.config import Config
from schemas.errors import BrokerError

Verdict = Literal["fine", "look", "wrong"]
LAG_S_MAX = 60
"""An observer that is further behind is late with everything it finds."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    verdict: Verdict
    text: str


@dataclass(frozen=True, slots=True)
class KafkaDiagnosis:
    """What was found at one ``kafka://`` address."""

    source: str
    checks: tuple[Check, ...]
    topics: tuple[Diagnosis, ...]
    """What a sample of each topic's newest messages holds."""


def examine_kafka(config: Config, url: str, clock: Clock, *, sample: int = 1000) -> KafkaDiagnosis:
    """Look at the brokers of ``kafka://host:port/topic`` and at the newest ``sample`` messages of its topics.

    Raises:
        UsageError, ConfigError: the address or the settings are wrong. BrokerError: no broker lets us in.
    """
    brokers, topics = split_url(url)
    if brokers:
        config = msgspec.structs.replace(config, kafka=msgspec.structs.replace(config.kafka, brokers=brokers))
    connection = Connection(config.kafka)
    cluster = connection.check()
    checks = [*_check_brokers(connection), *_check_deployment(config, connection, cluster)]
    diagnoses = []
    for topic in topics:
        partitions = partitions_of(connection, topic)
        each = max(1, sample // max(len(partitions), 1))
        messages = [m for some in tail_messages(connection, partitions, each).values() for m in some]
        now_ms = clock.now_ms()
        checks += _check_topic(topic, len(partitions), messages, now_ms, config)
        diagnoses.append(examine_lines(config, f"{url.split('/')[2]}/{topic}", _as_lines(messages), now_ms, sample=sample))
    checks += _check_lag(config, connection, cluster, topics, clock)
    return KafkaDiagnosis(url, tuple(checks), tuple(diagnoses))


def _check_brokers(connection: Connection) -> list[Check]:
    access = connection.access
    who = "as nobody" if access.username is None else f"as {access.username} ({access.mechanism})"
    found = [Check("credentials", "fine" if access.encrypted else "look", f"let in {who} over {access.protocol}")]
    for broker in broker_status(connection):
        found.append(Check(f"broker {broker.address}", "fine" if broker.reachable else "wrong", broker.error or "reachable"))
    return found


def _check_deployment(config: Config, connection: Connection, cluster: Cluster) -> list[Check]:
    """Our own topics. None at all is no fault: the topics may only be replayed."""
    reports = [report for report in describe_topics(config, connection, cluster) if report.name not in config.kafka.topics]
    if all(report.state == "missing" for report in reports):
        return [Check("own topics", "look", "there are none; floodwall topics create makes them, replay does not need them")]
    found = []
    try:
        check_judge_partitions(config, cluster)
    except BrokerError as error:
        found.append(Check("judge partitions", "wrong", str(error)))
    for report in reports:
        if report.state != "there":
            text = "; ".join(report.differences) or "missing: floodwall topics create makes it"
            found.append(Check(f"topic {report.name}", "wrong", text))
    return found or [Check("own topics", "fine", f"all {len(reports)} are there as they should be")]


def _check_topic(topic: str, partitions: int, messages: list[Message], now_ms: int, config: Config) -> list[Check]:
    if not messages:
        return [Check(f"topic {topic}", "look", f"{partitions} partitions, and nothing in them")]
    stamps = [message.timestamp() for message in messages]
    times = [ms for kind, ms in stamps if kind != TIMESTAMP_NOT_AVAILABLE]
    if not times:
        return [Check(f"topic {topic}", "look", "messages carry no time, so a wrong clock of a client cannot be noticed")]
    newest = max(times)
    said = datetime.fromtimestamp(newest / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    ahead_s = (newest - now_ms) / 1000
    if ahead_s > config.time.ahead_s:
        text = f"the newest message says {said}, {ahead_s:.0f} s after this machine's clock: one of the two is wrong"
        return [Check(f"clock of {topic}", "wrong", text)]
    return [Check(f"topic {topic}", "fine", f"{partitions} partitions, newest message {-ahead_s:,.0f} s ago ({said})")]


def _check_lag(config: Config, connection: Connection, cluster: Cluster, topics: tuple[str, ...], clock: Clock) -> list[Check]:
    group = observers_group(config)
    status = group_status(connection, group, topics, cluster)
    name = f"group {group}"
    if status.members == 0:
        return [Check(name, "look", f"no observer reads these topics ({status.state})")]
    behind = [lag for lag in status.partitions if lag.lag]
    if not behind:
        return [Check(name, "fine", f"{status.members} observer(s), nothing to catch up with")]
    worst = max(behind, key=lambda lag: lag.lag)
    text = f"{status.members} observer(s), {status.lag:,} behind, most in {worst.topic}-{worst.partition} ({worst.lag:,})"
    oldest = _waiting_s(connection, worst.topic, worst.partition, worst.committed, clock)
    if oldest is not None and oldest > LAG_S_MAX:
        return [Check(name, "wrong", f"{text}: what it reads next is {oldest:,.0f} s old")]
    return [Check(name, "fine", text)]


def _waiting_s(connection: Connection, topic: str, partition: int, committed: int | None, clock: Clock) -> float | None:
    """How long the message that a group reads next has been waiting; None: it cannot be told."""
    message = None if committed is None else message_at(connection, (topic, partition), committed)
    if message is None or message.timestamp()[0] == TIMESTAMP_NOT_AVAILABLE:
        return None
    return (clock.now_ms() - message.timestamp()[1]) / 1000


def _as_lines(messages: list[Message]) -> bytes:
    """One record a line: JSON over several lines becomes one, and a message of several lines stays several records."""
    lines = []
    for message in messages:
        value = (message.value() or b"").strip()
        lines.append(value.replace(b"\n", b" ") if value[:1] in (b"{", b"[") else value)
    return b"\n".join(lines) + b"\n" if lines else b""
