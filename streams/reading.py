"""Ranges of topics read in no group: what a judge begins with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition

from broker.settings import aiokafka_settings
from schemas.config import Config
from streams.producers import REQUEST_BYTES_MAX
from streams.transport import FETCH_WAIT_MS

READ_MS = 1000


class Reader:
    """Reads what is committed in given ranges of partitions, in no group."""

    def __init__(self, config: Config) -> None:
        self._consumer = AIOKafkaConsumer(
            **aiokafka_settings(config.kafka), isolation_level="read_committed", enable_auto_commit=False,
            auto_offset_reset="earliest", max_partition_fetch_bytes=REQUEST_BYTES_MAX, fetch_max_wait_ms=FETCH_WAIT_MS,
        )  # fmt: skip

    async def __aenter__(self) -> Reader:
        await self._consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def first_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Of what the topics still have."""
        return dict(await self._consumer.beginning_offsets(list(partitions)))

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """After what is committed."""
        return dict(await self._consumer.end_offsets(list(partitions)))

    async def read(self, spans: Mapping[TopicPartition, tuple[int, int]]) -> AsyncIterator[tuple[TopicPartition, int, bytes]]:
        """(partition, offset, value) of everything in ``spans``, [start, end) of each; in order within a partition."""
        open_spans = {tp: span for tp, span in spans.items() if span[0] < span[1]}
        self._consumer.assign(list(open_spans))
        for tp, (start, _) in open_spans.items():
            self._consumer.seek(tp, start)
        while open_spans:
            found = await self._consumer.getmany(*open_spans, timeout_ms=READ_MS)
            for tp, batches in found.items():
                for batch in batches:  # `streams.records.RecordBatch`, as for every consumer of a worker
                    for offset, value in zip(batch.offsets, batch.values, strict=True):
                        if offset < open_spans[tp][1]:
                            yield tp, offset, value
            for tp in [tp for tp, (_, end) in open_spans.items() if await self._consumer.position(tp) >= end]:
                del open_spans[tp]
                self._consumer.pause(tp)
