"""Judges on Kafka: judge partitions taken over from their records, judged, and written down again.

Decisions are sent and have arrived before a record says so; the record is written before the group's position is committed;
and the record is the truth. So after a death what lies between the record and the death is judged again, and the same
decisions come out under the same ids.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError
from faust.types import TP

from broker.connection import Connection
from broker.settings import aiokafka_settings
from engine.clock import Clock
from engine.post import JudgePost
from engine.record import Record, decode_record
from engine.seeds import Seeds
from schemas.config import Config
from schemas.errors import BrokerError, StateError
from schemas.topics import STATE, tallies_topic
from streams.config_topic import ConfigTopic
from streams.failpoints import Failpoints
from streams.leaving import leave
from streams.logs import say
from streams.metrics import Metrics
from streams.producers import REQUEST_BYTES_MAX, Outgoing, send_all, start_idempotent
from streams.published import finding_message, mitigation_message
from streams.transport import FETCH_WAIT_MS, Chunk, Place, WorkerApp, make_app

ROOM_BYTES = 32 << 20
"""Tallies that wait for the agent."""
YIELD_TALLIES = 64
"""Tallies judged between two looks at the event loop: about 20 ms."""
READ_MS = 1000


@dataclass(slots=True)
class _Seat:
    """A judge partition while it is ours."""

    post: JudgePost
    recorded_ms: int
    epoch: int = -1
    recorded: int = -1
    """The position of the last record."""


class Judges:
    """The judge partitions of one worker. It is the `streams.transport.Station` of its app."""

    group_suffix = "judges"

    def __init__(self, config: Config, clock: Clock, seeds: Seeds, metrics: Metrics, failpoints: Failpoints) -> None:
        self.config, self._clock, self._seeds = config, clock, seeds
        self._metrics, self._failpoints = metrics, failpoints
        self.app: WorkerApp
        self._tallies = tallies_topic(config.engine.judge_partitions, config.kafka.topic_prefix)
        self._state = config.kafka.topic_prefix + STATE
        self._changes = ConfigTopic(config, clock, metrics)
        self._seats: dict[TP, _Seat] = {}
        self._producer: AIOKafkaProducer | None = None
        self._waiting_bytes = 0
        self._has_room = asyncio.Event()
        self._has_room.set()

    # What the transport asks.

    async def take_over(self, partitions: set[TP], generation: int) -> Mapping[TP, int]:
        """Every judge partition from its record."""
        began = asyncio.get_running_loop().time()
        self._failpoints.passing("judge.taking_over")
        if self._producer is None:
            self._producer = await start_idempotent(self.config.kafka)
        await self._changes.read_to_end()
        sources = await asyncio.to_thread(self._list_sources)
        committed = await self.app.chunks.thread.fetch_committed(partitions)
        seats = {tp: self._sit_down(tp, sources) for tp in sorted(partitions)}
        async with _Reader(self.config) as reader:
            await self._rebuild(reader, seats, {tp: committed.get(tp, (-1, ""))[0] for tp in seats})
        self._failpoints.passing("judge.rebuilt")
        self._seats = seats
        took = asyncio.get_running_loop().time() - began
        self._metrics.take_over_seconds.observe(took)
        say("took_over", partitions=len(seats), generation=generation, milliseconds=round(1000 * took))
        return {tp: seat.post.position for tp, seat in seats.items()}

    def _list_sources(self) -> list[str]:
        """Every partition of every raw topic: one that is not known would be overtaken before it has spoken."""
        topics = Connection(self.config.kafka).check().topics
        missing = [name for name in self.config.kafka.topics if name not in topics]
        if missing:
            raise BrokerError(
                f"expected to see the topic {missing[0]} (kafka.topics), got nothing of that name: judges need the right to "
                "describe the raw topics"
            )
        return [f"{name}-{partition}" for name in self.config.kafka.topics for partition in range(topics[name])]

    def _sit_down(self, tp: TP, sources: list[str]) -> _Seat:
        post = JudgePost(self.config, self._seeds, tp.partition, sources, early=True, history=self._changes.chain)
        self._changes.hear(post)
        return _Seat(post, self._clock.now_ms())

    async def _rebuild(self, reader: _Reader, seats: Mapping[TP, _Seat], committed: Mapping[TP, int]) -> None:
        """All of them side by side: a way to the broker costs more than most of what comes back."""
        records = await self._read_records(reader, [tp.partition for tp in seats])
        firsts = await reader.first_offsets(TopicPartition(tp.topic, tp.partition) for tp in seats)
        spans: dict[TopicPartition, tuple[int, int]] = {}
        begun: dict[TopicPartition, _Seat] = {}
        for tp, seat in seats.items():
            tallies, record = TopicPartition(tp.topic, tp.partition), records[tp.partition]
            first = firsts[tallies]
            if record is None:
                self._metrics.cold_starts.inc()
                seat.post.position = max(first, committed[tp])
                say("cold_start", logging.WARNING, partition=tp.partition, position=seat.post.position)
                continue
            if record.position < first:
                raise StateError(
                    f"expected the tallies of judge partition {tp.partition} from offset {record.position} on, the topic "
                    f"begins at {first}: judges were away for longer than it keeps; delete {self._state} to start cold"
                )
            seat.post.begin(record)
            begun[tallies] = seat
            spans[tallies] = max(first, record.rebuild_from), record.position
        async for tallies, offset, value in reader.read(spans):
            begun[tallies].post.reread(offset, value)
        for tallies, seat in begun.items():
            record = records[tallies.partition]
            assert record is not None
            seat.post.end(record)
            seat.recorded = record.position
            say("rebuilt", partition=tallies.partition, position=record.position, reread_from=spans[tallies][0],
                closed=record.closed)  # fmt: skip

    async def _read_records(self, reader: _Reader, partitions: Sequence[int]) -> dict[int, Record | None]:
        """The newest record of each: the last message, unless what follows it is not readable."""
        states = [TopicPartition(self._state, partition) for partition in partitions]
        ends, firsts = await reader.end_offsets(states), await reader.first_offsets(states)
        last: dict[TopicPartition, bytes] = {}
        for from_end in (True, False):
            spans = {
                state: (max(firsts[state], ends[state] - 1) if from_end else firsts[state], ends[state])
                for state in states
                if state not in last
            }
            async for state, _, value in reader.read(spans):
                last[state] = value or last.get(state, b"")
            last = {state: value for state, value in last.items() if value}
        return {
            state.partition: decode_record(last[state], self.config, self._seeds, state.partition) if state in last else None
            for state in states
        }

    def begin(self, epoch: int) -> None:
        """Chunks of this epoch are ours."""
        for seat in self._seats.values():
            seat.epoch = epoch

    def revoke(self) -> None:
        """What the agent holds is judged to its end, which changes nothing that the next owner would not say too."""
        self._seats = {}
        self._waiting_bytes = 0
        self._has_room.set()

    def expect(self, tp: TP, chunk: Chunk) -> bool:
        """Only what was read after the last seek."""
        seat = self._seats.get(tp)
        if seat is None or chunk.epoch != seat.epoch:
            return False
        self._waiting_bytes += chunk.size
        if self._waiting_bytes > ROOM_BYTES:
            self._has_room.clear()
        return True

    async def room(self) -> None:
        """Wait until the agent has taken enough away."""
        await self._has_room.wait()

    # What the agent does.

    async def work(self, tp: TP, chunk: Chunk) -> None:
        """Judge a chunk of tallies, publish, and now and then write down where the partition stands."""
        seat = self._seats.get(tp)
        if seat is None or chunk.epoch != seat.epoch:
            return
        self._waiting_bytes = max(0, self._waiting_bytes - chunk.size)
        if self._waiting_bytes <= ROOM_BYTES:
            self._has_room.set()
        self._changes.hear(seat.post)
        for index, (offset, value) in enumerate(zip(chunk.offsets, chunk.values, strict=True)):
            seat.post.accept(offset, value)
            if index % YIELD_TALLIES == YIELD_TALLIES - 1:
                await self._publish(seat)
                await asyncio.sleep(0)
        self._failpoints.passing("judge.judged")
        await self._publish(seat)
        self._failpoints.passing("judge.sent")
        self._metrics.tallies.inc(len(chunk.values))
        if self._clock.now_ms() - seat.recorded_ms >= self.config.kafka.state_ms:
            await self._write_record(tp, seat)

    async def _publish(self, seat: _Seat) -> None:
        decided = seat.post.take()
        mitigations, findings = decided.mitigations, decided.findings
        statuses = self._changes.messages(seat.post)
        if not mitigations and not findings and not statuses:
            return
        assert self._producer is not None
        source = f"floodwall/judges/{seat.post.partition}"
        await send_all(
            self._producer,
            [finding_message(self.config, finding, source) for finding in findings]
            + [mitigation_message(self.config, mitigation, source) for mitigation in mitigations]
            + statuses,
        )
        for kind, decisions in (("mitigation", mitigations), ("finding", findings)):
            for decision in decisions:
                self._metrics.decisions.labels(kind, decision.stage).inc()

    async def _write_record(self, tp: TP, seat: _Seat) -> None:
        assert self._producer is not None
        seat.recorded_ms = self._clock.now_ms()
        record = Outgoing(self._state, seat.post.record(), str(tp.partition).encode(), tp.partition)
        position = seat.post.position
        self._failpoints.passing("judge.before_state")
        if self._seats.get(tp) is not seat:
            return  # revoked meanwhile: the next owner writes
        await send_all(self._producer, [record])
        self._failpoints.passing("judge.after_state")
        seat.recorded = position
        self._metrics.records_written.inc()
        self._metrics.judged(tp.partition, seat.post.judge)
        self._metrics.position.labels(tp.topic, str(tp.partition)).set(position)
        try:
            await self.app.chunks.thread.commit_position(tp, position)
        except (CommitFailedError, IllegalStateError):
            say("position_not_committed", partition=tp.partition)  # a rebalance came first; nothing rests on it

    async def run(self) -> None:
        """Nothing to do by the clock: judges read none. Changes of the configuration come meanwhile."""
        await self._changes.run()

    # What health and metrics ask.

    def place(self, tp: TP) -> Place:
        """Where the consumer stands in a partition."""
        return self.app.chunks.thread.place(tp)

    def held(self) -> dict[TP, bool]:
        """The partitions that are ours, all of them being read."""
        return dict.fromkeys(self._seats, True)

    def settled(self) -> bool:
        """The group has said what is ours, be it nothing, and it has been taken over."""
        return bool(self._seats) or self.app.stands_by

    async def close(self) -> None:
        """End what is under way."""
        self.revoke()
        if self._producer is not None:
            await self._producer.stop()
        await self._changes.stop()


class _Reader:
    """Reads what is committed in given ranges of partitions, in no group."""

    def __init__(self, config: Config) -> None:
        self._consumer = AIOKafkaConsumer(
            **aiokafka_settings(config.kafka), isolation_level="read_committed", enable_auto_commit=False,
            auto_offset_reset="earliest", max_partition_fetch_bytes=REQUEST_BYTES_MAX, fetch_max_wait_ms=FETCH_WAIT_MS,
        )  # fmt: skip

    async def __aenter__(self) -> _Reader:
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


def build_judge_app(config: Config, station: Judges, instance: str | None = None) -> WorkerApp:
    """The app of judges: one agent that hands every chunk to the station."""
    app = make_app(config, f"{config.kafka.group_prefix}-{station.group_suffix}", station, instance)
    station.app = app

    async def judge(stream: Any) -> None:
        async for event in stream.events():
            try:
                await station.work(event.message.tp, event.value)
            except Exception as error:
                leave(error, "judging")

    name = tallies_topic(config.engine.judge_partitions, config.kafka.topic_prefix)
    topic = app.topic(name, key_serializer="raw", value_serializer="raw", internal=True)
    app.agent(topic, name="judge", concurrency=1)(judge)
    return app
