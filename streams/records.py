"""What a fetch brought, one object per record batch instead of one per record.

aiokafka's loop over records is Python that runs several times per message. So it is given batches that look as if they held one
record, the whole batch, which is read in one step by its C parser; what aiokafka knows of transactions, control records and
checksums stays in use. aiokafka has no place to say so for one consumer: it holds for every consumer of a worker's process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aiokafka.consumer import fetcher


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """The records of one batch that had not been read before."""

    values: list[bytes]
    offsets: list[int]
    times_ms: list[int]

    @property
    def offset(self) -> int:
        """Of the last record: aiokafka goes on behind it."""
        return self.offsets[-1]


class _WholeBatch:
    """A batch of aiokafka's that is iterated in one step. A fetch may begin in its middle: what lies before is left out."""

    def __init__(self, batch: Any, first_offset: int) -> None:
        self._batch, self._first_offset = batch, first_offset

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[RecordBatch]:
        records = list(self._batch)
        if records and records[0].offset < self._first_offset:
            records = [record for record in records if record.offset >= self._first_offset]
        if records:
            yield RecordBatch(
                [record.value or b"" for record in records],
                [record.offset for record in records],
                [max(0, record.timestamp or 0) for record in records],
            )


class _WholeBatches:
    """The batches of one fetch; control batches stay as they are, because aiokafka reads the marker in them."""

    def __init__(self, batches: Any, first_offset: int) -> None:
        self._batches, self._first_offset = batches, first_offset

    def has_next(self) -> bool:
        return bool(self._batches.has_next())

    def next_batch(self) -> Any:
        batch = self._batches.next_batch()
        return batch if batch.is_control_batch else _WholeBatch(batch, self._first_offset)


class BatchRecords(fetcher.PartitionRecords):  # type: ignore[misc]  # aiokafka ships no types
    """The records of a fetch, as `RecordBatch`es."""

    def __init__(self, tp: Any, records: Any, aborted: Any, fetch_offset: int, *options: Any) -> None:
        super().__init__(tp, _WholeBatches(records, fetch_offset), aborted, fetch_offset, *options)

    def _consumer_record(self, tp: Any, record: Any) -> Any:
        return record
