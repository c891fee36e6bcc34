"""What Faust and aiokafka do on a real broker, and what our workers do under the same; docs/faust.md has the list."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiokafka
import faust
import pytest
from aiokafka.errors import MessageSizeTooLargeError, ProducerFenced
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from faust.types import TP

from schemas.config import Kafka
from schemas.topics import tallies_topic
from streams.failpoints import Failpoints
from streams.producers import Outgoing, PartitionProducer
from tests.engines import config_of
from tests.kafka.deployment import JUDGE_PARTITIONS, POLL_S, deploy
from tests.kafka.test_workers import split

SMALL_BYTES = 2_000
"""`max.message.bytes` of a topic …"""
TOO_LARGE = bytes(100_000)
"""… and what it refuses."""
LIMIT_S = 40.0
NOTHING = -1001
"""What librdkafka says of a group that has committed nothing."""
LISTENING = "0A"
"""The state in /proc/net/tcp."""


def make_topic(broker: str, name: str, **settings: str) -> str:
    admin = AdminClient({"bootstrap.servers": broker, "log_level": 0})
    admin.create_topics([NewTopic(name, 1, config=settings)])[name].result(10)
    return name


def produce(broker: str, topic: str, values: list[bytes], **settings: str) -> None:
    producer = Producer({"bootstrap.servers": broker, "log_level": 0, **settings})
    for value in values:
        producer.produce(topic, value, partition=0)
    assert producer.flush(10) == 0


def committed_offset(broker: str, group: str, topic: str, partition: int = 0) -> int:
    """`NOTHING` where nothing is committed."""
    consumer = Consumer({"bootstrap.servers": broker, "group.id": group, "log_level": 0})
    try:
        return int(consumer.committed([TopicPartition(topic, partition)], timeout=10)[0].offset)
    finally:
        consumer.close()


def kafka_of(broker: str) -> Kafka:
    return config_of({"kafka": {"brokers": [broker], "development": True}}).kafka


def test_stock_faust_acknowledges_what_its_agent_refused(broker: str, unique: Callable[[str], str], tmp_path: Path) -> None:
    """So no exception may leave an agent of ours: `streams.leaving.leave` ends the process instead."""
    topic, group = make_topic(broker, unique("raises")), unique("group-raises")
    produce(broker, topic, [b"x"] * 3)

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


def listening(pid: int) -> set[str]:
    """The addresses on which a process listens, IPv4 as /proc writes them."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(descriptor))
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]]
    return {line[1].split(":")[0] for line in lines if line[3] == LISTENING and f"socket:[{line[9]}]" in inodes}


def test_our_workers_leave_without_acknowledging_and_listen_on_the_loopback_only(
    broker: str, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    """A judge that is given what no observer writes ends with a fault, as often as it is started, and the offset stays."""
    with deploy(broker, tmp_path, unique("leaves")[-40:], 1) as deployment:
        observer = deployment.start("observe")
        tallies = tallies_topic(JUDGE_PARTITIONS, deployment.prefix)
        produce(broker, tallies, [b"no tally"])
        for _ in range(2):
            judge = deployment.start("judge")
            assert judge.wait(LIMIT_S) > 0, deployment.logs()
        assert "leaving during=judging" in deployment.logs()
        assert committed_offset(broker, f"{deployment.config.kafka.group_prefix}-judges", tallies) == NOTHING
        deployment.wait_joined()
        assert listening(observer.pid) == {"0100007F"}


STOCK_WORKER = """
import faust
app = faust.App("{group}", broker="kafka://{broker}", web_enabled=False, datadir="{folder}", topic_disable_leader=True)
@app.task
async def speak():
    print("said by the app")
"""


def test_the_stock_worker_opens_a_port_everywhere_and_takes_standard_output(
    broker: str, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    """Although the app says `web_enabled=False`. We start no `faust worker`: streams/worker.py runs the app itself."""
    (tmp_path / "stock_worker.py").write_text(
        STOCK_WORKER.format(group=unique("web"), broker=broker, folder=tmp_path)
        + f"@app.agent(app.topic('{make_topic(broker, unique('web'))}', value_serializer='raw', internal=True))\n"
        "async def agent(stream):\n    async for _ in stream: pass\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "stock.log"
    words = [sys.executable, "-m", "faust", "-A", "stock_worker", "worker", "-l", "warn", "--web-port", str(port)]
    with log.open("wb") as written:
        worker = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=written, stderr=written, cwd=tmp_path)
    try:
        deadline = time.monotonic() + LIMIT_S
        while not ("said by the app" in log.read_text() and listening(worker.pid)):
            assert worker.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(POLL_S)
        assert "00000000" in listening(worker.pid), log.read_text()
        assert any("WARNING" in line and "said by the app" in line for line in log.read_text().splitlines())
    finally:
        worker.kill()
        worker.wait()


def test_aiokafka_commits_a_transaction_although_a_send_of_it_failed(broker: str, unique: Callable[[str], str]) -> None:
    """So `streams.producers.send_all` awaits every send before the offset is sent."""
    topic = make_topic(broker, unique("small"), **{"max.message.bytes": str(SMALL_BYTES)})

    async def run() -> type[BaseException] | None:
        producer = aiokafka.AIOKafkaProducer(bootstrap_servers=broker, transactional_id=unique("id"), acks="all")
        await producer.start()
        await producer.begin_transaction()
        sent = await producer.send(topic, TOO_LARGE, partition=0)
        await asyncio.wait([sent])
        try:
            await producer.commit_transaction()
        finally:
            await producer.stop()
        error = sent.exception()
        return None if error is None else type(error)

    assert asyncio.run(run()) is MessageSizeTooLargeError


def test_our_flush_commits_no_offset_when_a_send_of_it_failed(broker: str, unique: Callable[[str], str]) -> None:
    topic = make_topic(broker, unique("small"), **{"max.message.bytes": str(SMALL_BYTES)})
    group = unique("group-small")

    async def run() -> None:
        producer = PartitionProducer(kafka_of(broker), group, topic, 0, Failpoints(None))
        await producer.start()
        try:
            await producer.ship([Outgoing(topic, b"small", partition=0)], 1, "note")
            with pytest.raises(MessageSizeTooLargeError):
                await producer.ship([Outgoing(topic, TOO_LARGE, partition=0)], 2, "note")
        finally:
            await producer.stop()

    asyncio.run(run())
    assert committed_offset(broker, group, topic) == 1


async def last_stable_offset(broker: str, topic: str) -> int:
    reader = aiokafka.AIOKafkaConsumer(bootstrap_servers=broker, isolation_level="read_committed")
    await reader.start()
    try:
        partition = aiokafka.TopicPartition(topic, 0)
        return int((await reader.end_offsets([partition]))[partition])
    finally:
        await reader.stop()


def test_aiokafka_leaves_a_transaction_open_when_stopped_and_our_successor_settles_it(
    broker: str, unique: Callable[[str], str]
) -> None:
    """Readers of what is committed stand before it, until the producer of the same partition is started again."""
    topic, group = make_topic(broker, unique("open")), unique("group-open")

    async def run() -> None:
        old = PartitionProducer(kafka_of(broker), group, topic, 0, Failpoints(None))
        await old.start()
        await old._producer.begin_transaction()
        await old._producer.send_and_wait(topic, b"never committed", partition=0)
        await old.stop()
        assert await last_stable_offset(broker, topic) == 0
        new = PartitionProducer(kafka_of(broker), group, topic, 0, Failpoints(None))
        await new.start()
        assert await last_stable_offset(broker, topic) == 2, "the message and the mark that it was aborted"
        await new.stop()

    asyncio.run(run())


def test_a_predecessor_that_lives_on_is_fenced(broker: str, unique: Callable[[str], str]) -> None:
    topic, group = make_topic(broker, unique("fenced")), unique("group-fenced")

    async def run() -> None:
        old, new = (PartitionProducer(kafka_of(broker), group, topic, 0, Failpoints(None)) for _ in range(2))
        await old.start()
        await new.start()
        await new.ship([Outgoing(topic, b"new", partition=0)], 5, "new")
        with pytest.raises(ProducerFenced):
            await old.ship([Outgoing(topic, b"old", partition=0)], 3, "old")
        for producer in (old, new):
            await producer.stop()

    asyncio.run(run())
    assert committed_offset(broker, group, topic) == 5


def test_a_static_member_that_is_restarted_gets_the_same_generation(broker: str, unique: Callable[[str], str]) -> None:
    """So a generation is no epoch; ours are seeks (test_a_chunk_of_another_epoch_is_not_ours…)."""
    topic, group = make_topic(broker, unique("static")), unique("group-static")

    async def generation() -> int:
        member = aiokafka.AIOKafkaConsumer(
            topic, bootstrap_servers=broker, group_id=group, group_instance_id="one", enable_auto_commit=False,
        )  # fmt: skip
        await member.start()
        try:
            await member.seek_to_committed()
            return int(member._coordinator.generation)
        finally:
            await member.stop()

    first = asyncio.run(generation())
    assert first > 0
    assert asyncio.run(generation()) == first


def test_an_observer_reads_what_shippers_compress(broker: str, tmp_path: Path, unique: Callable[[str], str]) -> None:
    """aiokafka refuses such batches without cramjam (test_faust_left_off.py)."""
    codecs = ("gzip", "lz4", "snappy", "zstd")
    lines = split(1)[0][:400]
    with deploy(broker, tmp_path, unique("packed")[-40:], 1) as deployment:
        for index, name in enumerate(codecs):
            produce(broker, deployment.raw, lines[100 * index : 100 * (index + 1)], **{"compression.type": name})
        deployment.start("observe")
        deployment.wait_joined()

        def counted() -> int:
            return sum(ledger.counted for ledger in deployment.ledgers().values())

        deployment.wait(lambda: counted() == len(lines), LIMIT_S, "every line to be counted")
