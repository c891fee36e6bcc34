"""A small topic that a worker follows beside its work: read to its end before the work begins, and from then on as it grows.

It is read in no group and by every worker, from its beginning at each start: what is in it now is all that counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer, TopicPartition

from broker.settings import aiokafka_settings
from schemas.config import Config
from streams.leaving import leave
from streams.logs import say
from streams.transport import FETCH_BYTES_MAX

READ_MS = 1000
WAIT_MS = 500
"""How long a broker holds an empty fetch."""


class SideTopic:
    """One partition of one topic.

    Args:
        take: called with the offset and value of each message, in order; empty where there is none.
    """

    def __init__(self, config: Config, topic: str, take: Callable[[int, bytes], None]) -> None:
        self._config, self._tp, self._take = config, TopicPartition(topic, 0), take
        self._consumer: AIOKafkaConsumer | None = None
        self._is_read = asyncio.Event()

    async def read_to_end(self) -> None:
        """Take in everything that is there now; once, later calls return at once."""
        if self._consumer is not None:
            await self._is_read.wait()
            return
        self._consumer = AIOKafkaConsumer(
            **aiokafka_settings(self._config.kafka), isolation_level="read_committed", enable_auto_commit=False,
            auto_offset_reset="earliest", max_partition_fetch_bytes=FETCH_BYTES_MAX, fetch_max_wait_ms=WAIT_MS,
        )  # fmt: skip
        await self._consumer.start()
        self._consumer.assign([self._tp])
        await self._consumer.seek_to_beginning(self._tp)
        end = (await self._consumer.end_offsets([self._tp]))[self._tp]
        while await self._consumer.position(self._tp) < end:
            await self._read()
        say("side_topic_read", topic=self._tp.topic, end=end)
        self._is_read.set()

    async def run(self) -> None:
        """Follow it, for ever."""
        await self._is_read.wait()
        while True:
            try:
                await self._read()
            except Exception as error:
                leave(error, f"following {self._tp.topic}")

    async def _read(self) -> None:
        assert self._consumer is not None
        for batches in (await self._consumer.getmany(self._tp, timeout_ms=READ_MS)).values():
            for batch in batches:  # `streams.records.RecordBatch`, as for every consumer of a worker
                for offset, value in zip(batch.offsets, batch.values, strict=True):
                    self._take(offset, value)
                await asyncio.sleep(0)

    async def stop(self) -> None:
        """Leave the brokers."""
        if self._consumer is not None:
            await self._consumer.stop()
