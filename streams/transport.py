"""Faust's transport, with one chunk of messages per partition and fetch instead of one event per message.

Faust keeps what it is good at: membership, assignment, rebalance, flow, lifecycle. What it does per message (four asyncio
tasks) it does per chunk here. It commits nothing: offsets travel in our transactions (streams/observers.py) or stand in our
records (streams/judges.py). This rests on private methods of the pinned versions; docs/faust.md lists what each fault is
worked around for, and the tests that fail the day one changes.

A chunk belongs to the *epoch* in which it was drained: each seek begins a new one, in the same thread that drains. So what a
fetch that began before a rebalance returns after it is told from what was read after the seek, and dropped.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Protocol, cast

import aiokafka
import faust
from aiokafka import conn
from aiokafka.consumer import fetcher
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import IllegalStateError
from faust.app.base import BootStrategy
from faust.tables import TableManager
from faust.transport.consumer import ensure_TP
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage, Message

from broker.settings import aiokafka_settings
from schemas.config import Config
from schemas.errors import BrokerError
from streams.leaving import leave
from streams.records import BatchRecords, RecordBatch

FETCH_WAIT_MS = 20
"""How long a broker holds an empty fetch. With Faust's 1500 ms the latency under load was 1.3 s …"""
PREFETCH_BACKOFF_S = 0.005
"""… and with aiokafka's 0.1 s too: only both together bring it down."""
FETCH_BYTES_MAX = 4 << 20
"""Of one partition in one fetch. aiokafka asks for the next when this one has been taken, so each costs a way to the broker and
back: 1 MiB holds the messages of 4 ms at 250 MB/s (1.5 million events a second), less than that way takes on a busy machine."""
READ_BYTES = 4 << 20
"""aiokafka stops reading from a socket when twice this waits: with its own 64 KiB it stops and starts again for each piece that
comes."""
BUFFER_CHUNKS_MAX = 4096
"""Faust's own bound on what waits for an agent; a small one makes it sleep. Bytes are bounded by `Station.room`."""
TAKE_OVER_S_MAX = 60.0
"""Faust gives up silently after ``broker_request_timeout`` (90 s); we leave before that."""
TWIN_RESETS_MAX = 3
"""So often in a few sessions the group may say that it does not know a static member."""
EMPTY_S = 0.1
"""Pause of the fetch loop when every partition is paused."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one fetch brought of one partition."""

    epoch: int
    values: list[bytes]
    offsets: list[int]
    times_ms: list[int]
    size: int
    """Bytes of all values."""


class Station(Protocol):
    """Whoever works on the partitions of a worker."""

    async def take_over(self, partitions: set[TP], generation: int) -> Mapping[TP, int]:
        """Get ready for a new assignment; the offset to go on from for each."""
        ...

    def begin(self, epoch: int) -> None:
        """The partitions have been sought; chunks of this epoch will come."""
        ...

    def revoke(self) -> None:
        """The assignment is over: nothing of it may be sent any more."""
        ...

    def expect(self, tp: TP, chunk: Chunk) -> bool:
        """A chunk is about to be queued; False: it is none of ours."""
        ...

    async def room(self) -> None:
        """Return when there is room for more bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where a consumer stands in one partition."""

    position: int | None
    """The next offset to hand out."""
    end: int | None
    """Where readers of what is committed come to an end."""
    heard_ms: int | None
    """Wall time of the broker's last answer."""
    drained: int = -1
    """The offset after the last message that was handed out."""

    @property
    def at_end(self) -> bool:
        """Nothing is left to read, as far as is known."""
        return self.position is not None and self.end is not None and self.position >= self.end


class ChunkThread(driver.AIOKafkaConsumerThread):
    """The thread that owns aiokafka's consumer."""

    epoch = 0
    flowing = 0
    """The epoch whose chunks may be handed out: the one in which Faust has let messages flow again."""
    places: Mapping[TP, Place] = MappingProxyType({})
    """As of the last fetch; replaced as a whole, so that another thread sees what was handed out together with the position."""

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        app = cast("WorkerApp", self.app)
        session_ms = app.floodwall.kafka.session_ms
        self._assignor = RoundRobinPartitionAssignor
        return aiokafka.AIOKafkaConsumer(
            **aiokafka_settings(app.floodwall.kafka),
            group_id=app.conf.id,
            group_instance_id=app.conf.consumer_group_instance_id,
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_records=None,
            max_partition_fetch_bytes=FETCH_BYTES_MAX,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=min(1000, session_ms // 4),
            rebalance_timeout_ms=session_ms,
            max_poll_interval_ms=600_000,
            isolation_level="read_committed",
            metadata_max_age_ms=30_000,
        )

    async def on_start(self) -> None:
        """Connect; then lower the back-off that aiokafka's consumer takes no argument for."""
        conn.READER_LIMIT = READ_BYTES  # aiokafka takes no argument for it
        try:
            await super().on_start()
        except Exception as error:
            leave(error, "connecting")
        fetcher.PartitionRecords = BatchRecords  # aiokafka has no place to say so
        consumer = self._ensure_consumer()
        consumer._fetcher._prefetch_backoff = PREFETCH_BACKOFF_S
        self._watch_for_a_twin(consumer._coordinator)

    def _watch_for_a_twin(self, coordinator: Any) -> None:
        """Two static members of one id throw each other out for ever, and aiokafka joins again for ever."""
        instance = cast("str | None", self.app.conf.consumer_group_instance_id)
        if instance is None:
            return
        session_s = cast("WorkerApp", self.app).floodwall.kafka.session_ms / 1000
        thrown_out: deque[float] = deque(maxlen=TWIN_RESETS_MAX)
        reset_generation = coordinator.reset_generation

        def reset() -> None:
            thrown_out.append(time.monotonic())
            if len(thrown_out) == TWIN_RESETS_MAX and thrown_out[-1] - thrown_out[0] < 2 * TWIN_RESETS_MAX * session_s:
                leave(
                    BrokerError(
                        f"expected to be the only worker with --instance {instance} in the group {self.app.conf.id}, another "
                        "one throws us out again and again: give each its own"
                    ),
                    "being a member",
                )
            reset_generation()

        coordinator.reset_generation = reset

    async def _fetch_records(
        self, consumer: Any, active_partitions: set[TP], timeout: float | None = None, max_records: int | None = None
    ) -> Any:
        records = await super()._fetch_records(consumer, active_partitions, timeout, max_records)
        epoch = self.epoch  # nothing has been awaited since they were drained, so no seek lies between
        if epoch != self.flowing:
            # A fetch that began before a rebalance ends after the seek, while nobody may take what it brings: Faust would drop
            # it, and the position would be past it. Nothing has been read.
            for tp, some in records.items():
                consumer.seek(tp, some[0].offsets[0])
            return {}
        chunks = {ensure_TP(tp): _chunk(epoch, some) for tp, some in records.items()}
        places = {tp: replace(self.place(tp), drained=self._drained(tp)) for tp in active_partitions}
        for tp, chunk in chunks.items():
            if chunk.offsets and tp in places:
                places[tp] = replace(places[tp], drained=chunk.offsets[-1] + 1)
        self.places = places
        return chunks

    def _drained(self, tp: TP) -> int:
        known = self.places.get(tp)
        return -1 if known is None else known.drained

    async def _seek_wait(self, consumer: Any, partitions: Mapping[TP, int]) -> None:
        self.epoch += 1
        self.places = {}
        await super()._seek_wait(consumer, partitions)

    def place(self, tp: TP) -> Place:
        """Where the consumer stands; read from another thread, so a snapshot of plain attributes."""
        subscription = self._ensure_consumer()._subscription.subscription
        assignment = None if subscription is None else subscription.assignment
        if assignment is None or tp not in assignment.tps:
            return Place(None, None, None)
        state = assignment.state_value(tp)
        return Place(state._position, state.lso, state.timestamp)

    async def fetch_committed(self, partitions: Iterable[TP]) -> dict[TP, tuple[int, str]]:
        """Offset and metadata as committed; -1 where nothing is."""
        coordinator = self._ensure_consumer()._coordinator
        found = await self.call_thread(coordinator.fetch_committed_offsets, list(partitions))
        return {ensure_TP(tp): (entry.offset, entry.metadata or "") for tp, entry in found.items()}

    async def commit_position(self, tp: TP, offset: int) -> None:
        """Tell the group how far we are, for people who look at lag; nothing rests on it."""
        await self.call_thread(self._ensure_consumer().commit, {driver.ensure_aiokafka_TP(tp): offset})


def _chunk(epoch: int, batches: list[RecordBatch]) -> Chunk:
    values = [value for batch in batches for value in batch.values]
    return Chunk(
        epoch, values, [offset for batch in batches for offset in batch.offsets],
        [time_ms for batch in batches for time_ms in batch.times_ms], sum(map(len, values)),
    )  # fmt: skip


class _NoOffsets(defaultdict[TP, None]):
    """What Faust remembers of offsets read: nothing. A chunk that ends late would set it past what is read after a seek, and
    Faust drops what lies before."""

    def __init__(self) -> None:
        super().__init__(lambda: None)

    def __setitem__(self, tp: TP, offset: object) -> None:
        """Forgotten at once."""


class ChunkConsumer(driver.Consumer):
    """Faust's consumer, handing over, seeking and acknowledging as the engine needs it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._read_offset = cast(Any, _NoOffsets())

    def _new_consumer_thread(self) -> ChunkThread:
        return ChunkThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def thread(self) -> ChunkThread:
        """The consumer's thread."""
        return cast(ChunkThread, self._thread)

    @property
    def _station(self) -> Station:
        return cast("WorkerApp", self.app).station

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Faust waits for agents afterwards; what they hold is dead already."""
        self._station.revoke()
        await super().on_partitions_revoked(revoked)

    async def perform_seek(self) -> None:
        """Take the whole assignment over, then seek. Faust calls this last before it lets messages flow, and would seek
        everything to what is committed: what is done earlier is undone here."""
        assignment, generation = self.assignment(), self.app.consumer_generation_id
        try:
            async with asyncio.timeout(TAKE_OVER_S_MAX):
                positions = await self._station.take_over(assignment, generation)
                await self.seek_wait(positions)
        except (asyncio.CancelledError, IllegalStateError):
            raise  # another rebalance has begun, which takes over anew
        except Exception as error:
            leave(error, "taking over")
        for tp in positions:
            self._committed_offset[tp] = None
        self._station.begin(self.thread.epoch)

    def resume_flow(self) -> None:
        """Faust's last step of a rebalance: from here on chunks are handed out."""
        super().resume_flow()
        self.thread.flowing = self.thread.epoch

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:
        """One message per partition, whose value is its chunk."""
        if not self.flow_active:
            await self.wait(cast(Any, self.can_resume_flow))
        await self._station.room()
        active = self._get_active_partitions()
        if self.should_stop:
            return
        if not active:
            await self.sleep(EMPTY_S)
            return
        chunks = await self._getmany(active, timeout)
        for tp, chunk in cast(Mapping[TP, Chunk], chunks).items():
            if self.flow_active and chunk.values and self._station.expect(tp, chunk):
                yield tp, cast(Message, self._to_message(tp, chunk))

    def _to_message(self, tp: TP, record: Chunk) -> ConsumerMessage:
        return ConsumerMessage(
            tp.topic, tp.partition, record.offsets[0], record.times_ms[-1] / 1000, 0, [], None, cast(Any, record), None, 0,
            record.size, tp, generation_id=self.app.consumer_generation_id,
        )  # fmt: skip

    def ack(self, message: Message) -> bool:
        """The agent is done with a chunk. Nothing is kept for Faust's commit, which would count offsets between as done."""
        message.acked = True
        self._unacked_messages.discard(message)
        return False

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """The offsets within a chunk are no gap."""

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Faust's own commit would move offsets back; it commits nothing."""
        return False

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Progress is watched by streams/health.py, which leaves when there is none."""


class ChunkTransport(driver.Transport):
    """The transport with the consumer above."""

    Consumer = ChunkConsumer


class _NoTables(TableManager):
    """What Faust needs of its tables without any: the recovery service, which its rebalances go through."""

    async def on_start(self) -> None:
        """Begin at once: Faust waits a second for tables to be registered, which is a second of every restart."""
        await self._update_channels()
        await self.recovery.start()


class _Boot(BootStrategy):
    """No web server, and no producer of Faust's: ours are idempotent or transactional, and one per partition."""

    enable_web = False
    enable_kafka_producer = False


class WorkerApp(faust.App):
    """A Faust app that knows its station."""

    BootStrategy = _Boot
    station: Station
    floodwall: Config

    def _new_transport(self) -> ChunkTransport:
        return ChunkTransport(self.conf.broker_consumer, self)

    def _crash(self, reason: BaseException) -> None:
        leave(reason, "faust")

    def _create_directories(self) -> None:
        """No tables, so no folders; Faust would make three where it was started, be that read-only or not."""

    @property
    def stands_by(self) -> bool:
        """The group has said that nothing is ours."""
        return self.consumer_generation_id > 0 and self.unassigned

    @property
    def chunks(self) -> ChunkConsumer:
        """The consumer."""
        return cast(ChunkConsumer, self.consumer)


def make_app(config: Config, group: str, station: Station, instance: str | None) -> WorkerApp:
    """An app without agents. It must be made while its event loop runs.

    Args:
        config: everything that can be set.
        group: the consumer group.
        station: who works on its partitions.
        instance: the id of a static member: restarted within the session it gets its partitions back at once.
    """
    app = WorkerApp(
        group,
        broker=[f"kafka://{address}" for address in config.kafka.brokers],
        autodiscover=False,
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        stream_buffer_maxsize=BUFFER_CHUNKS_MAX,
        stream_wait_empty=False,
        worker_redirect_stdouts=False,
        broker_session_timeout=config.kafka.session_ms / 1000,
        broker_request_timeout=90.0,
        consumer_group_instance_id=instance,
        TableManager=_NoTables,
    )
    app.station = station
    app.floodwall = config
    return app
