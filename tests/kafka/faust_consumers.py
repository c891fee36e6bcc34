"""Faust's own consumer and ours, each on a stand-in for aiokafka's, so that both can be given the same provocation."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import Any

import faust
from aiokafka import TopicPartition
from aiokafka.structs import ConsumerRecord
from faust.transport.consumer import Consumer
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from schemas.config import Config
from streams.transport import Chunk, ChunkConsumer, WorkerApp, make_app
from tests.engines import config_of

TOPIC = "requests"
SOURCE = TP(TOPIC, 0)
LIMIT_S = 60.0
CONFIG = config_of({"kafka": {"development": True}})


def record(offset: int) -> ConsumerRecord:
    """As aiokafka hands it to Faust; ours is handed the plain one, which has the same three fields that we read."""
    return ConsumerRecord(TOPIC, 0, offset, 1000, 0, None, b"x", None, -1, 1, ())


class FakeKafka:
    """What Faust asks of an AIOKafkaConsumer, over a log of ``end`` messages in one partition."""

    _closed = False
    _max_poll_records = None
    _prefetch_backoff = 0.1

    def __init__(self, end: int = 0, committed: int = 0) -> None:
        self.end, self.committed, self.at = end, committed, 0
        self.commits: list[Any] = []
        self.seeks_in: list[int] = []
        """The threads in which `seek` was called."""
        self.hold: asyncio.Event | None = None
        """A fetch takes its records only once this is set, as one does whose answer is on its way."""
        self._fetcher = self._subscriptions = self._subscription = self
        self.subscription = self._coordinator = None

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    @contextlib.contextmanager
    def fetch_context(self) -> Iterator[None]:
        yield

    async def fetched_records(self, tps: set[TP], **_: Any) -> dict[TopicPartition, list[ConsumerRecord]]:
        if self.hold is not None:
            await self.hold.wait()
        found = [record(offset) for offset in range(self.at, self.end)]
        self.at = self.end
        return {TopicPartition(TOPIC, 0): found} if found else {}

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition(TOPIC, 0)}

    def highwater(self, tp: Any) -> int:
        return self.end

    def seek(self, tp: Any, offset: int) -> None:
        self.seeks_in.append(threading.get_ident())
        self.at = offset

    async def position(self, tp: Any) -> int:
        return self.at

    async def seek_to_committed(self) -> dict[TopicPartition, int]:
        self.at = self.committed
        return {TopicPartition(TOPIC, 0): self.committed}

    async def commit(self, offsets: Mapping[Any, Any]) -> None:
        self.commits.append(offsets)


class NotingStation:
    """A station that takes everything over from ``position`` and says yes to every chunk."""

    def __init__(self, position: int = 0) -> None:
        self.position = position
        self.began: list[int] = []

    async def take_over(self, partitions: set[TP], generation: int) -> Mapping[TP, int]:
        return dict.fromkeys(partitions, self.position)

    def begin(self, epoch: int) -> None:
        self.began.append(epoch)

    def revoke(self) -> None:
        pass

    def expect(self, tp: TP, chunk: Chunk) -> bool:
        return True

    async def room(self) -> None:
        pass


def stock_app(name: str = "stock", **settings: Any) -> faust.App:
    """An app as anyone would write it, without folders and web server."""
    plain = {"autodiscover": False, "web_enabled": False, "topic_disable_leader": True, "topic_allow_declare": False}
    return faust.App(name, **{"broker": "kafka://127.0.0.1:1", **plain, **settings})


def our_app(station: Any, config: Config = CONFIG) -> WorkerApp:
    return make_app(config, "ours", station, None)


async def _nothing(*_: Any, **__: Any) -> None:
    pass


async def _here(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """In place of the consumer's thread."""
    found = function(*arguments, **options)
    return await found if isinstance(found, Awaitable) else found


def consumer_of(app: faust.App, kafka: FakeKafka, callback: Callable[..., Any] = _nothing) -> Any:
    """The app's real consumer and its real thread object, which is not started: what it would do is done in the test's."""
    made: Any = app.transport.create_consumer(
        callback=callback, on_partitions_revoked=_nothing, on_partitions_assigned=_nothing
    )
    assert type(made) is ChunkConsumer or type(made).__module__.startswith("faust.")
    made._thread._consumer = kafka
    made._thread.call_thread = _here
    made._set_active_tps({SOURCE})
    app._consumer = made
    app.topics._acking_topics.add(TOPIC)
    return made


def message(offset: int) -> ConsumerMessage:
    return ConsumerMessage(TOPIC, 0, offset, 1.0, 0, [], None, b"x", None, 0, 1, SOURCE)


async def drain(consumer: Consumer, *offsets: int) -> None:
    """Faust's own loop over what a fetch brings, for messages at these offsets."""
    fetcher = faust.Service()

    async def getmany(timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        for offset in offsets:
            yield SOURCE, message(offset)
        fetcher._stopped.set()

    consumer.getmany = getmany  # type: ignore[method-assign]  # the real one needs a broker
    await consumer._drain_messages(fetcher)


def run(work: Coroutine[Any, Any, None]) -> None:
    """To its end, within the limit."""
    asyncio.run(asyncio.wait_for(work, LIMIT_S))


class LeftError(Exception):
    """In place of the end of the process."""
