"""The feedback topic in a worker: read to its end at the start, then followed, in no group: every judge reads all of it."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition

from broker.settings import aiokafka_settings
from engine.feedback import Admission
from schemas.config import Config
from schemas.feedback import FEEDBACK_BYTES_MAX, Feedback
from schemas.topics import FEEDBACK
from streams.logs import say
from streams.transport import FETCH_WAIT_MS

LOOK_MS = 1000
FETCH_BYTES_MAX = 64 * FEEDBACK_BYTES_MAX


class FeedbackTopic:
    """The records that count, by their offsets. One to a process."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._partition = TopicPartition(config.kafka.topic_prefix + FEEDBACK, 0)
        self._admission = Admission(config.policy)
        self._consumer: AIOKafkaConsumer | None = None
        self._opened = asyncio.Event()
        self.records: list[tuple[int, Feedback]] = []

    async def open(self) -> None:
        """Read what there is; at once, when that has been done."""
        if self._opened.is_set():
            return
        if self._consumer is None:
            self._consumer = AIOKafkaConsumer(
                **aiokafka_settings(self._config.kafka), isolation_level="read_committed", enable_auto_commit=False,
                auto_offset_reset="earliest", max_partition_fetch_bytes=FETCH_BYTES_MAX, fetch_max_wait_ms=FETCH_WAIT_MS,
            )  # fmt: skip
            await self._consumer.start()
        self._consumer.assign([self._partition])
        self.records.clear()
        self._admission = Admission(self._config.policy)
        end = (await self._consumer.end_offsets([self._partition]))[self._partition]
        await self._consumer.seek_to_beginning(self._partition)
        while await self._consumer.position(self._partition) < end:
            await self._take()
        say("read_feedback", records=len(self.records), refused=self._admission.refused.total())
        self._opened.set()

    async def follow(self) -> None:
        """Go on reading, until cancelled."""
        await self._opened.wait()
        while True:
            await self._take()

    async def _take(self) -> None:
        assert self._consumer is not None
        found = await self._consumer.getmany(self._partition, timeout_ms=LOOK_MS)
        for batch in found.get(self._partition, ()):  # `streams.records.RecordBatch`, as for every consumer of a worker
            for offset, value in zip(batch.offsets, batch.values, strict=True):
                record = self._admission.read(value)
                if record is not None:
                    self.records.append((offset, record))
                else:
                    say("feedback_refused", offset=offset, so_far=dict(self._admission.refused))

    async def close(self) -> None:
        """End reading."""
        if self._consumer is not None:
            await self._consumer.stop()
