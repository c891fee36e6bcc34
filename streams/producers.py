"""Producers of our own: transactional ones per source partition, and an idempotent one for what judges say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from broker.settings import aiokafka_settings
from schemas.config import Kafka
from streams.failpoints import Failpoints

REQUEST_BYTES_MAX = 16 << 20
"""As ``max.message.bytes`` of the internal topics."""
BATCH_BYTES_MAX = 1 << 20
"""Of one partition in one request. With aiokafka's 16 KiB the tallies of a flush that catches up went one by one, each after
the answer to the one before."""
RETRY_BACKOFF_MS = 10
"""The first produce of a transaction is often refused once; aiokafka's 100 ms would be the latency of it."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send."""

    topic: str
    value: bytes
    key: bytes | None = None
    partition: int | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


def _producer(kafka: Kafka, **more: Any) -> AIOKafkaProducer:
    return AIOKafkaProducer(
        **aiokafka_settings(kafka), acks="all", enable_idempotence=True, max_request_size=REQUEST_BYTES_MAX,
        max_batch_size=BATCH_BYTES_MAX, retry_backoff_ms=RETRY_BACKOFF_MS, request_timeout_ms=2 * kafka.transaction_ms, **more,
    )  # fmt: skip


async def send_all(
    producer: AIOKafkaProducer, messages: Sequence[Outgoing], between: Callable[[], None] = lambda: None
) -> list[int]:
    """Send in one burst and wait until every one has arrived; their offsets. ``between`` is called while they are on their way.

    Every future is awaited: aiokafka's commit succeeds although a send of the transaction failed.
    """
    sent = []
    for message in messages:
        sent.append(
            await producer.send(
                message.topic, message.value, key=message.key, partition=message.partition, headers=list(message.headers)
            )
        )
        between()
    offsets = []
    for arrived in await asyncio.gather(*sent, return_exceptions=True):
        if isinstance(arrived, BaseException):
            raise arrived
        offsets.append(int(arrived.offset))
    return offsets


async def start_idempotent(kafka: Kafka) -> AIOKafkaProducer:
    """A producer whose retries make no duplicates and leave no outcome unknown."""
    producer = _producer(kafka)
    await producer.start()
    return producer


class PartitionProducer:
    """The transactional producer of one source partition.

    Its id is the partition's, so that starting it fences whoever had the partition before, and waits until the last
    transaction of that one is settled: only then is the committed offset the truth.
    """

    def __init__(self, kafka: Kafka, group: str, topic: str, partition: int, failpoints: Failpoints) -> None:
        self._group, self._failpoints = group, failpoints
        self._source = TopicPartition(topic, partition)
        self._producer = _producer(
            kafka, transactional_id=f"{group}-{topic}-{partition}", transaction_timeout_ms=kafka.transaction_ms
        )

    async def start(self) -> None:
        """Fence the predecessor."""
        await self._producer.start()

    async def stop(self) -> None:
        """Close the connection; a transaction that is open stays so until it is fenced or times out."""
        await self._producer.stop()

    async def ship(self, messages: Sequence[Outgoing], offset: int, note: str) -> None:
        """One transaction with all messages and the next offset of the source partition.

        Raises:
            ProducerFenced: another worker has the partition.
        """
        passing = self._failpoints.passing
        await self._producer.begin_transaction()
        passing("observe.begun")
        await send_all(self._producer, messages, between=lambda: passing("observe.sending"))
        passing("observe.sent")
        await self._producer.send_offsets_to_transaction({self._source: OffsetAndMetadata(offset, note)}, self._group)
        passing("observe.offsets")
        committing = asyncio.ensure_future(self._producer.commit_transaction())
        await asyncio.sleep(0)
        passing("observe.committing")
        await committing
        passing("observe.committed")
