"""A small topic that a worker follows beside its work: read to its end before the work begins, and from then on as it grows.

It is read in no group and by every worker, from its beginning at each start: what is in it now is all that counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer, TopicPartition

from broker.settings import aiokafka_settings
from engine.clock import Clock
from schemas.config import Config
from streams.leaving import leave
from streams.logs import say
from streams.transport import FETCH_BYTES_MAX

READ_MS = 500
WAIT_MS = 500
"""How long a broker holds an empty fetch."""


class SideTopic:
    """One partition of one topic.

    Args:
        take: called with the offset and value of each message, in order, and its time by the brokers or whoever wrote it; the
            value is empty where there is none.
        clock: if it is to be known up to when it has been read; see `known_ms`.
    """

    def __init__(
        self, config: Config, topic: str, take: Callable[[int, bytes, int], None], clock: Clock | None = None
    ) -> None:  # fmt: skip
        self._config, self._tp, self._take, self._clock = config, TopicPartition(topic, 0), take, clock
        self.known_ms = 0
        """Everything that was written before has been taken."""
        self._consumer: AIOKafkaConsumer | None = None
        self._reading: asyncio.Task[None] | None = None
        self._is_read = asyncio.Event()

    @property
    def is_read(self) -> bool:
        """What was there at the start has been taken."""
        return self._is_read.is_set()

    async def read_to_end(self) -> None:
        """Take in everything that is there now; once, later calls return when that is done.

        Whoever asks may be called off, as a take-over is by the next rebalance: the reading goes on for who asks then.
        """
        if self._reading is None:
            self._reading = asyncio.create_task(self._begin())
        await asyncio.shield(self._reading)

    async def _begin(self) -> None:
        self._consumer = AIOKafkaConsumer(
            **aiokafka_settings(self._config.kafka), isolation_level="read_committed", enable_auto_commit=False,
            auto_offset_reset="earliest", max_partition_fetch_bytes=FETCH_BYTES_MAX, fetch_max_wait_ms=WAIT_MS,
        )  # fmt: skip
        await self._consumer.start()
        self._consumer.assign([self._tp])
        await self._consumer.seek_to_beginning(self._tp)
        say("side_topic_read", topic=self._tp.topic, end=await self._read_on())
        self._is_read.set()

    async def run(self) -> None:
        """Follow it, for ever."""
        await self._is_read.wait()
        while True:
            try:
                await self._read()
                if self._clock is not None:
                    await self._read_on()
            except Exception as error:
                leave(error, f"following {self._tp.topic}")

    async def _read_on(self) -> int:
        """Up to where it ends now."""
        assert self._consumer is not None
        now_ms = 0 if self._clock is None else self._clock.now_ms()
        end = (await self._consumer.end_offsets([self._tp]))[self._tp]
        while await self._consumer.position(self._tp) < end:
            await self._read()
        self.known_ms = now_ms
        return int(end)

    async def _read(self) -> None:
        assert self._consumer is not None
        for batches in (await self._consumer.getmany(self._tp, timeout_ms=READ_MS)).values():
            for batch in batches:  # `streams.records.RecordBatch`, as for every consumer of a worker
                for offset, value, at_ms in zip(batch.offsets, batch.values, batch.times_ms, strict=True):
                    self._take(offset, value, at_ms)
                await asyncio.sleep(0)

    async def stop(self) -> None:
        """Leave the brokers."""
        if self._reading is not None:
            self._reading.cancel()
        if self._consumer is not None:
            await self._consumer.stop()
