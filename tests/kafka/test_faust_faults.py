"""What Faust and aiokafka do that we had to work around, and the private parts that the work-arounds rest on.

A test that fails here after an upgrade is the reason to read `streams/transport.py` again.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiokafka
import faust
import pytest
from aiokafka.consumer.fetcher import Fetcher, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import TopicPartitionState
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.producer.sender import Sender
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from faust.app.base import App
from faust.tables.recovery import Recovery
from faust.transport.consumer import Consumer
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, ConsumerRebalanceListener
from faust.types import TP

from streams.logs import RateLimit

PINS = {
    "faust.transport.consumer": (
        Consumer, "868622e091f8", ("getmany", "perform_seek", "ack", "_add_gap", "_drain_messages", "on_partitions_revoked")
    ),
    "faust.recovery": (Recovery, "d986a6710c1a", ("_resume_streams",)),
    "faust.app": (App, "8e73826da1c5", ("_on_partitions_revoked", "_on_partitions_assigned", "_new_transport")),
    "faust.thread": (
        AIOKafkaConsumerThread, "001b05435938",
        ("_fetch_records", "_seek_wait", "_create_worker_consumer", "on_start", "getmany"),
    ),
    "faust.listener": (ConsumerRebalanceListener, "d442302833f5", ("on_partitions_revoked", "on_partitions_assigned")),
    "aiokafka.fetcher": (Fetcher, "76010ff9e26f", ("fetched_records", "_get_actions_per_node", "_proc_fetch_request")),
    "aiokafka.records": (PartitionRecords, "a643fa5a721b", ("_unpack_records", "_consumer_record")),
    "aiokafka.coordinator": (
        GroupCoordinator, "72be5b5cead6", ("fetch_committed_offsets", "_do_heartbeat", "reset_generation")
    ),
    "aiokafka.sender": (Sender, "6f352c523882", ("start", "_maybe_wait_for_pid")),
}  # fmt: skip


def fingerprint(owner: Any, names: tuple[str, ...]) -> str:
    """Of the source text of methods."""
    text = "".join(inspect.getsource(getattr(owner, name)) for name in names)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@pytest.mark.parametrize("name", PINS)
def test_what_we_override_or_rest_on_is_as_it_was(name: str) -> None:
    owner, expected, names = PINS[name]
    assert fingerprint(owner, names) == expected, f"{names} of {owner.__name__} have changed: read streams/transport.py again"


def test_the_versions_are_those_that_were_measured() -> None:
    found = {name: importlib.metadata.version(name) for name in ("faust-streaming", "aiokafka")}
    assert found == {"faust-streaming": "0.15.3", "aiokafka": "0.14.0"}


def test_the_plain_attributes_that_are_read_exist() -> None:
    source = inspect.getsource(TopicPartitionState.__init__)
    assert all(f"self.{name} =" in source for name in ("lso", "timestamp", "_position"))
    assert "self._prefetch_backoff = prefetch_backoff" in inspect.getsource(Fetcher.__init__)
    assert "prefetch_backoff=" not in inspect.getsource(aiokafka.AIOKafkaConsumer.start), "it takes an argument for it now"


def make_topic(broker: str, name: str, **settings: str) -> str:
    admin = AdminClient({"bootstrap.servers": broker, "log_level": 0})
    admin.create_topics([NewTopic(name, 1, config=settings)])[name].result(10)
    return name


def test_stock_faust_acknowledges_what_its_agent_refused(broker: str, unique: Callable[[str], str], tmp_path: Path) -> None:
    """So no exception may leave an agent of ours: `streams.leaving.leave` ends the process instead."""
    topic, group = make_topic(broker, unique("raises")), unique("group-raises")
    producer = Producer({"bootstrap.servers": broker, "log_level": 0})
    for _ in range(3):
        producer.produce(topic, b"x")
    assert producer.flush(10) == 0

    async def run() -> int:
        app = faust.App(
            group, broker=f"kafka://{broker}", autodiscover=False, web_enabled=False, topic_disable_leader=True,
            broker_commit_interval=0.2, datadir=tmp_path, topic_allow_declare=False,
        )  # fmt: skip
        seen = 0

        async def refuse(stream: Any) -> None:
            nonlocal seen
            async for _ in stream:
                seen += 1
                raise ValueError("an agent that fails")

        app.agent(app.topic(topic, value_serializer="raw", internal=True), name="refuse")(refuse)
        app.finalize()
        logging.disable(logging.CRITICAL)
        await app.start()
        committed = 0
        for _ in range(300):
            await asyncio.sleep(0.1)
            committed = dict(app.consumer._committed_offset).get(TP(topic, 0)) or 0
            if seen == 3 and committed == 3:
                break
        await app.stop()
        logging.disable(logging.NOTSET)
        return committed

    assert asyncio.run(run()) == 3


def test_aiokafka_commits_a_transaction_although_a_send_of_it_failed(broker: str, unique: Callable[[str], str]) -> None:
    """So `streams.producers.send_all` awaits every send before the offset is sent."""
    topic = make_topic(broker, unique("small"), **{"max.message.bytes": "2000"})

    async def run() -> type[BaseException] | None:
        producer = aiokafka.AIOKafkaProducer(bootstrap_servers=broker, transactional_id=unique("id"), acks="all")
        await producer.start()
        await producer.begin_transaction()
        sent = await producer.send(topic, bytes(100_000), partition=0)
        await asyncio.wait([sent])
        try:
            await producer.commit_transaction()
        finally:
            await producer.stop()
        error = sent.exception()
        return None if error is None else type(error)

    assert asyncio.run(run()) is MessageSizeTooLargeError


class _SteppedClock:
    """A clock that stands."""

    now = 5_000

    def now_ms(self) -> int:
        return self.now

    def wait(self, seconds: float) -> None:
        raise AssertionError("nothing waits here")


def test_a_storm_of_log_lines_is_cut_and_counted() -> None:
    """aiokafka was seen to write 36,000 lines in the 12 s that a broker was away."""
    clock = _SteppedClock()
    limit = RateLimit(clock)
    records = [logging.LogRecord("aiokafka", logging.ERROR, "", 0, "connection refused", (), None) for _ in range(101)]
    assert sum(limit.filter(record) for record in records[:100]) == 5
    clock.now = 6_000
    assert limit.filter(records[100])
    assert "95 lines left out" in records[100].getMessage()
