"""What aiokafka's clients do on a real broker, each fault beside what ours do under the same provocation. docs/faust.md has
the table."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiokafka.client
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, ProducerFenced
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from faust.types import TP

from broker.local import LocalBroker
from engine.clock import SystemClock
from schemas.config import Kafka
from streams.failpoints import Failpoints
from streams.logs import RateLimit
from streams.producers import Outgoing, PartitionProducer, start_idempotent
from tests.kafka.faust_consumers import run, stock_app


def make_topic(broker: str, name: str, **settings: str) -> str:
    admin = AdminClient({"bootstrap.servers": broker, "log_level": 0})
    admin.create_topics([NewTopic(name, 1, config=settings)])[name].result(10)
    return name


def kafka_of(broker: str, **more: Any) -> Kafka:
    return Kafka(brokers=(broker,), development=True, **more)


async def read(broker: str, topic: str, isolation: str) -> list[bytes]:
    """All that readers of this isolation level get to see now."""
    consumer = AIOKafkaConsumer(bootstrap_servers=broker, isolation_level=isolation, enable_auto_commit=False)
    await consumer.start()
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        found: list[bytes] = []
        while came := await consumer.getmany(partition, timeout_ms=500):
            found += [message.value for message in came[partition]]
        return found
    finally:
        await consumer.stop()


async def committed(broker: str, group: str) -> list[int]:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    try:
        return [entry.offset for entry in (await admin.list_consumer_group_offsets(group)).values()]
    finally:
        await admin.close()


@asynccontextmanager
async def started(client: Any) -> AsyncIterator[Any]:
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


async def until(done: Callable[[], bool]) -> None:
    while not done():
        await asyncio.sleep(0.02)


def test_faust_acknowledges_what_its_agent_refused(broker: str, unique: Callable[[str], str], tmp_path: Path) -> None:
    """So no exception may leave an agent of ours: test_faust_workers.py shows that it leaves the process instead."""
    topic, group = make_topic(broker, unique("raises")), unique("group-raises")
    producer = Producer({"bootstrap.servers": broker, "log_level": 0})
    for _ in range(3):
        producer.produce(topic, b"x")
    assert producer.flush(10) == 0

    async def refuse_all() -> None:
        app = stock_app(group, broker=f"kafka://{broker}", broker_commit_interval=0.2, datadir=tmp_path)
        seen = 0

        async def refuse(stream: Any) -> None:
            nonlocal seen
            async for _ in stream:
                seen += 1
                raise ValueError("an agent that fails")

        app.agent(app.topic(topic, value_serializer="raw", internal=True), name="refuse")(refuse)
        app.finalize()
        logging.disable(logging.CRITICAL)
        try:
            await app.start()
            await until(lambda: dict(app.consumer._committed_offset).get(TP(topic, 0)) == 3)
            assert seen == 3
            await app.stop()
        finally:
            logging.disable(logging.NOTSET)

    run(refuse_all())


def test_faust_crashes_when_its_agents_have_channels_only(broker: str, unique: Callable[[str], str], tmp_path: Path) -> None:
    """With ``topic_disable_leader`` there is then no topic to subscribe to. Our agents have the configuration's topics, of
    which there is at least one."""

    async def listen() -> None:
        app = stock_app(unique("channels"), broker=f"kafka://{broker}", datadir=tmp_path)

        async def wait(stream: Any) -> None:
            async for _ in stream:
                pass

        app.agent(app.channel(), name="wait")(wait)
        app.finalize()
        logging.disable(logging.CRITICAL)
        try:
            await app.start()
            await until(lambda: bool(app.crashed))
            assert isinstance(app.crash_reason, TypeError)
            await app.stop()
        finally:
            logging.disable(logging.NOTSET)

    run(listen())


def test_aiokafka_commits_a_transaction_of_which_a_send_failed_and_ours_does_not(
    broker: str, unique: Callable[[str], str]
) -> None:
    """`streams.producers.send_all` awaits every send before the offset is sent."""
    topic, group = make_topic(broker, unique("small"), **{"max.message.bytes": "2000"}), unique("group")

    async def commit() -> None:
        async with started(AIOKafkaProducer(bootstrap_servers=broker, transactional_id=unique("stock"), acks="all")) as stock:
            await stock.begin_transaction()
            sent = await stock.send(topic, bytes(100_000), partition=0)
            await asyncio.wait([sent])
            await stock.send_offsets_to_transaction({TopicPartition(topic, 0): 1}, unique("stock-group"))
            await stock.commit_transaction()
            assert isinstance(sent.exception(), MessageSizeTooLargeError)
        while await committed(broker, unique("stock-group")) != [1]:  # it shows a moment after the commit
            await asyncio.sleep(0.02)
        async with started(PartitionProducer(kafka_of(broker), group, topic, 0, Failpoints(None))) as ours:
            with pytest.raises(MessageSizeTooLargeError):
                await ours.ship([Outgoing(topic, bytes(100_000), partition=0)], 1, "")
        assert await committed(broker, group) == []

    run(commit())


def test_stopping_a_producer_leaves_its_transaction_open_and_our_next_owner_settles_it(
    broker: str, unique: Callable[[str], str]
) -> None:
    """Faust's consumers read what is not committed, so they would count the half; readers of what is committed see nothing
    until somebody settles it. The next owner does, before it asks for the offset."""
    topic, group = make_topic(broker, unique("half")), unique("group")

    def producer() -> PartitionProducer:
        return PartitionProducer(kafka_of(broker), group, topic, 0, Failpoints(None))

    async def take_over() -> None:
        async with started(producer()) as first:
            await first._producer.begin_transaction()
            await first._producer.send_and_wait(topic, b"half", partition=0)
        assert await read(broker, topic, "read_uncommitted") == [b"half"]
        assert await read(broker, topic, "read_committed") == []
        async with started(producer()) as second:
            await second.ship([Outgoing(topic, b"whole", partition=0)], 1, "")
        assert await read(broker, topic, "read_committed") == [b"whole"]
        assert await committed(broker, group) == [1]

    run(take_over())


def test_a_generation_is_no_epoch_and_our_producers_are_fenced_without_one(broker: str, unique: Callable[[str], str]) -> None:
    """A static member that starts again gets the generation that its predecessor has; so the transactional id decides."""
    topic, group = make_topic(broker, unique("fenced")), unique("group")

    def member() -> AIOKafkaConsumer:
        return AIOKafkaConsumer(topic, bootstrap_servers=broker, group_id=unique("static"), group_instance_id="one")

    async def start_again() -> None:
        generations = []
        for _ in range(2):
            async with started(member()) as consumer:
                await until(lambda consumer=consumer: bool(consumer.assignment()))
                generations.append(consumer._coordinator.generation)
        assert generations[0] == generations[1]
        first, second = (PartitionProducer(kafka_of(broker), group, topic, 0, Failpoints(None)) for _ in range(2))
        async with started(first), started(second):
            await second.ship([Outgoing(topic, b"new", partition=0)], 5, "")
            with pytest.raises(ProducerFenced):
                await first.ship([Outgoing(topic, b"old", partition=0)], 3, "")
        assert await read(broker, topic, "read_committed") == [b"new"]
        assert await committed(broker, group) == [5]

    run(start_again())


def test_two_static_members_of_one_id_throw_each_other_out_for_ever(broker: str, unique: Callable[[str], str]) -> None:
    """Ours leaves: see the test on twins in test_crash.py, and the one without a broker in test_faust_apps.py."""
    topic = make_topic(broker, unique("twins"))
    thrown_out = [0, 0]

    async def fight() -> None:
        logging.disable(logging.CRITICAL)
        twins = [
            AIOKafkaConsumer(
                topic, bootstrap_servers=broker, group_id=unique("group"), group_instance_id="one", heartbeat_interval_ms=100
            )
            for _ in range(2)
        ]
        try:
            async with started(twins[0]), started(twins[1]):
                for index, twin in enumerate(twins):
                    reset = twin._coordinator.reset_generation

                    def count(index: int = index, reset: Callable[[], None] = reset) -> None:
                        thrown_out[index] += 1
                        reset()

                    twin._coordinator.reset_generation = count
                await until(lambda: min(thrown_out) >= 3)
        finally:
            logging.disable(logging.NOTSET)

    run(fight())


def test_a_broker_outage_is_a_storm_of_log_lines_and_ours_a_few(
    broker: str, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faust's aiokafka wrote 36,000 lines in 12 s. `streams.logs.RateLimit` lets five a second of each logger through."""
    topic = make_topic(broker, unique("storm"))
    limit, lines, written = RateLimit(SystemClock()), [0], [0]

    class Count(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines[0] += 1
            written[0] += bool(limit.filter(record))

    async def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionRefusedError(111, "Connect call failed")

    async def outage() -> None:
        async with started(
            AIOKafkaConsumer(topic, bootstrap_servers=broker, group_id=unique("group"), heartbeat_interval_ms=100)
        ) as consumer:
            await until(lambda: bool(consumer.assignment()))
            with monkeypatch.context() as away:
                away.setattr(aiokafka.client, "create_conn", refuse)
                for connection in list(consumer._client._conns.values()):
                    connection.close()
                await asyncio.sleep(2)

    handler, logger = Count(), logging.getLogger("aiokafka")
    logger.addHandler(handler)
    monkeypatch.setattr(logger, "propagate", False)
    try:
        run(outage())
    finally:
        logger.removeHandler(handler)
    assert lines[0] > written[0]
    assert written[0] <= 5 * 3 * 5  # five a second, in at most three seconds, of at most five loggers


def test_fausts_producer_writes_twice_or_says_wrongly_that_it_did_not_and_ours_once(
    local_broker: LocalBroker, unique: Callable[[str], str]
) -> None:
    """The broker stands still for longer than a request may take, with the requests in its hands."""
    broker = local_broker.bootstrap
    topics = {name: make_topic(broker, unique(name)) for name in ("stock", "ours")}

    async def stand_still() -> None:
        settings = dict(stock_app(broker=f"kafka://{broker}", producer_request_timeout=1.0).producer._settings_default())
        ours = await start_idempotent(kafka_of(broker, transaction_ms=1000))
        assert not AIOKafkaProducer(**settings)._txn_manager
        async with started(AIOKafkaProducer(**settings)) as stock, started_already(ours):
            for name, producer in (("stock", stock), ("ours", ours)):
                await producer.send_and_wait(topics[name], b"before", partition=0)
            pid = local_broker.pid
            assert pid is not None
            logging.disable(logging.CRITICAL)
            os.kill(pid, signal.SIGSTOP)
            try:
                sent = [
                    await producer.send(topics[name], b"once", partition=0)
                    for name, producer in (("stock", stock), ("ours", ours))
                ]
                await asyncio.sleep(3.5)
            finally:
                os.kill(pid, signal.SIGCONT)
                logging.disable(logging.NOTSET)
            outcomes = await asyncio.gather(*sent, return_exceptions=True)
        written = [(await read(broker, topic, "read_uncommitted")).count(b"once") for topic in topics.values()]
        failed = [isinstance(outcome, KafkaError) for outcome in outcomes]
        assert written[0] > 1 or (failed[0] and written[0] == 1), (written, failed)
        assert written[1] == 1

    run(stand_still())


@asynccontextmanager
async def started_already(client: Any) -> AsyncIterator[Any]:
    try:
        yield client
    finally:
        await client.stop()


def test_a_held_gil_costs_the_membership(broker: str, unique: Callable[[str], str]) -> None:
    """Heartbeats come from another thread, but not while this one holds the GIL. Our kernels let it go
    and are compiled before the group is joined (test_faust_apps.py)."""
    topic = make_topic(broker, unique("gil"))
    holding = ctypes.PyDLL(None)  # calls through it keep the GIL, as a compiler does

    async def hold() -> None:
        logging.disable(logging.CRITICAL)
        group = unique("group")
        try:
            async with started(
                AIOKafkaConsumer(
                    topic, bootstrap_servers=broker, group_id=group, session_timeout_ms=1000, heartbeat_interval_ms=100
                )
            ) as consumer:
                await until(lambda: bool(consumer.assignment()))
                before = consumer._coordinator.member_id
                thread = asyncio.to_thread(holding.usleep, 900_000)
                await asyncio.gather(
                    thread, asyncio.to_thread(holding.usleep, 900_000), asyncio.to_thread(holding.usleep, 900_000)
                )
                await until(lambda: consumer._coordinator.member_id not in ("", before))
        finally:
            logging.disable(logging.NOTSET)

    run(hold())
