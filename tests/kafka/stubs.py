"""Collaborators of Faust's consumer that need no broker, so that one step of upstream's code, or of ours, runs by itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import faust
from faust.transport.drivers.aiokafka import Consumer
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from streams.records import RecordBatch
from streams.transport import Chunk, ChunkConsumer, WorkerApp, make_app
from tests.engines import config_of

SOURCE = TP("requests", 0)
NOWHERE = "127.0.0.1:1"


def stock_app(folder: Path, **settings: Any) -> faust.App:
    """A plain Faust app; nothing of it is started."""
    options: dict[str, Any] = {"broker": f"kafka://{NOWHERE}", "autodiscover": False, "web_enabled": False, "datadir": folder}
    app = faust.App("stock", **{**options, **settings})
    app.finalize()
    cast(Any, app.topics).acks_enabled_for = lambda topic: True
    return app


def stock_consumer(folder: Path) -> Consumer:
    return cast(Consumer, stock_app(folder).consumer)


class StubStation:
    """Whoever works on the partitions: says where to go on, and takes whatever comes."""

    def __init__(self, positions: Mapping[TP, int]) -> None:
        self.positions = positions
        self.told: list[str] = []

    async def take_over(self, partitions: set[TP], generation: int) -> Mapping[TP, int]:
        self.told.append("take_over")
        return self.positions

    def begin(self, epoch: int) -> None:
        self.told.append(f"begin {epoch}")

    def revoke(self) -> None:
        self.told.append("revoke")

    def expect(self, tp: TP, chunk: Chunk) -> bool:
        return True

    async def room(self) -> None:
        """There is room."""


def our_app(station: Any, **kafka: Any) -> WorkerApp:
    """Our app, not started."""
    config = config_of({"kafka": {"brokers": [NOWHERE], "development": True, "session_ms": 6000, **kafka}})
    app = make_app(config, "ours", station, None)
    app.finalize()
    cast(Any, app.topics).acks_enabled_for = lambda topic: True
    return app


def our_consumer(station: Any) -> ChunkConsumer:
    return our_app(station).chunks


class StubFetcher:
    """An aiokafka consumer with one partition, whose fetch ends when it is told to."""

    def __init__(self, records: int = 3, committed: int = 10) -> None:
        self._closed = False
        self._records, self._committed = records, committed
        self._fetcher = SimpleNamespace(
            _closed=False, _subscriptions=SimpleNamespace(fetch_context=contextlib.nullcontext), fetched_records=self._fetched
        )
        self._subscription = SimpleNamespace(subscription=None)
        self._max_poll_records = None
        self.go_on = asyncio.Event()
        self.positions: dict[TP, int] = {SOURCE: committed}
        self.outside: list[TP] = []
        """What was sought from another thread than the consumer's."""
        self.in_thread = False
        self.whole_batches = False
        """Of a fetch comes one object for each batch, as in our workers' processes, not one for each record."""

    async def _fetched(self, active: set[TP], timeout: float, max_records: int | None) -> Any:
        first = self.positions[SOURCE]
        self.positions[SOURCE] += self._records
        await self.go_on.wait()
        offsets = list(range(first, first + self._records))
        if self.whole_batches:
            return {SOURCE: [RecordBatch([b"an event"] * len(offsets), offsets, [1_000 + offset for offset in offsets])]}
        return {SOURCE: [_record(offset) for offset in offsets]}

    def seek(self, tp: TP, offset: int) -> None:
        self.positions[tp] = offset
        if not self.in_thread:
            self.outside.append(tp)

    async def seek_to_committed(self, *partitions: TP) -> dict[TP, int]:
        self.positions[SOURCE] = self._committed
        return {SOURCE: self._committed}

    async def position(self, tp: TP) -> int:
        return self.positions[tp]

    def highwater(self, tp: TP) -> int:
        return self.positions[tp]

    def assignment(self) -> set[TP]:
        return {SOURCE}


def _record(offset: int) -> Any:
    return SimpleNamespace(
        topic=SOURCE.topic, partition=SOURCE.partition, offset=offset, timestamp=1_000 + offset, timestamp_type=0, headers=(),
        key=None, value=b"an event", checksum=None, serialized_key_size=0, serialized_value_size=8,
    )  # fmt: skip


def attach(consumer: Consumer, fetcher: StubFetcher) -> None:
    """Let ``fetcher`` stand for aiokafka's consumer; what is called in its thread is called here, and marked."""
    thread = cast(Any, consumer)._thread
    thread._consumer = fetcher
    fetcher.whole_batches = isinstance(consumer, ChunkConsumer)

    async def call_thread(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        fetcher.in_thread = True
        try:
            result = function(*args, **options)
            return await result if isinstance(result, Awaitable) else result
        finally:
            fetcher.in_thread = False

    thread.call_thread = call_thread
    consumer._set_active_tps({SOURCE})


def message_at(offset: int, value: Any = b"an event") -> ConsumerMessage:
    return ConsumerMessage(SOURCE.topic, SOURCE.partition, offset, 1.0, 0, [], None, value, None, 0, 8, SOURCE)


async def drain(consumer: Consumer, fetches: Iterable[list[ConsumerMessage]]) -> list[int]:
    """Faust's own loop over what these fetches bring; the offsets that reach an agent."""
    fetcher = SimpleNamespace(_stopped=asyncio.Event())
    left, seen = list(fetches), []

    async def getmany(timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        for message in left.pop(0):
            yield message.tp, message
        if not left:
            fetcher._stopped.set()

    async def callback(message: ConsumerMessage) -> None:
        seen.append(message.offset)

    cast(Any, consumer).getmany, cast(Any, consumer).callback = getmany, callback
    await consumer._drain_messages(cast(Any, fetcher))
    return seen
