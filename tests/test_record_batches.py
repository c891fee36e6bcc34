"""Records of a fetch are read batch by batch: the same records, in the same places, as one by one."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from streams.records import BatchRecords

SOURCE = TopicPartition("requests", 0)
PER_BATCH = 5
ABORTED_PRODUCER = 7


def _batch(base: int, producer: int = -1) -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=producer >= 0, producer_id=producer, producer_epoch=0, base_sequence=0,
        batch_size=1 << 16,
    )  # fmt: skip
    for index in range(PER_BATCH):
        value = None if index == 1 else b"%d" % (base + index)
        assert builder.append(index, 1000 + base + index, None, value, []) is not None
    data = bytearray(builder.build())
    data[:8] = base.to_bytes(8, "big")  # the base offset, which the broker sets and the checksum leaves out
    return bytes(data)


def _read(kind: type[Any], data: bytes, fetch_offset: int, aborted: list[tuple[int, int]]) -> Any:
    return kind(SOURCE, MemoryRecords(data), aborted, fetch_offset, None, None, True, READ_COMMITTED)


@pytest.mark.parametrize("fetch_offset", [0, 3, 5, 9])
def test_batches_hold_the_records_that_aiokafka_reads_one_by_one_from_any_offset(fetch_offset: int) -> None:
    data, aborted = _batch(0) + _batch(5, ABORTED_PRODUCER) + _batch(10), [(ABORTED_PRODUCER, 5)]
    single, whole = _read(PartitionRecords, data, fetch_offset, aborted), _read(BatchRecords, data, fetch_offset, aborted)
    expected = [(record.offset, record.value or b"", record.timestamp) for record in single]
    batches = list(whole)
    found = [entry for batch in batches for entry in zip(batch.offsets, batch.values, batch.times_ms, strict=True)]
    assert found == expected
    assert [offset for offset, _, _ in found] == [*range(fetch_offset, 5), *range(10, 15)]
    assert whole.next_fetch_offset == single.next_fetch_offset == 15
