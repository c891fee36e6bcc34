"""Judges on Kafka: judge partitions taken over from their records, judged, and written down again.

Decisions are sent and have arrived before a record says so; the record is written before the group's position is committed;
and the record is the truth. So after a death what lies between the record and the death is judged again, and the same
decisions come out under the same ids.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError
from faust.types import TP

from broker.connection import Connection
from broker.signing import signer_of
from engine.clock import Clock
from engine.post import JudgePost
from engine.record import Record, decode_record
from engine.seeds import Seeds
from schemas.config import Config
from schemas.errors import BrokerError, StateError
from schemas.topics import MITIGATIONS, MODEL_STATE, STATE, tallies_topic
from streams.config_topic import ConfigTopic
from streams.failpoints import Failpoints
from streams.feedback import FeedbackTopic
from streams.leaked_topic import LeakedTopic
from streams.leaving import leave
from streams.logs import say
from streams.metrics import Metrics
from streams.producers import Outgoing, send_all, start_idempotent
from streams.published import finding_message, mitigation_message
from streams.reading import Reader
from streams.transport import Chunk, Place, WorkerApp, make_app

ROOM_BYTES = 32 << 20
"""Tallies that wait for the agent."""
YIELD_TALLIES = 64
"""Tallies judged between two looks at the event loop: about 20 ms."""


@dataclass(slots=True)
class _Seat:
    """A judge partition while it is ours."""

    post: JudgePost
    recorded_ms: int
    epoch: int = -1
    recorded: int = -1
    """The position of the last record."""
    heard: int = 0
    """How many of the records of feedback it has been told of."""


class Judges:
    """The judge partitions of one worker. It is the `streams.transport.Station` of its app."""

    group_suffix = "judges"

    def __init__(self, config: Config, clock: Clock, seeds: Seeds, metrics: Metrics, failpoints: Failpoints) -> None:
        self.config, self._clock, self._seeds = config, clock, seeds
        self._metrics, self._failpoints = metrics, failpoints
        self.app: WorkerApp
        self._tallies = tallies_topic(config.engine.judge_partitions, config.kafka.topic_prefix)
        self._state, self._models = config.kafka.topic_prefix + STATE, config.kafka.topic_prefix + MODEL_STATE
        self._changes = ConfigTopic(config, clock, metrics)
        self._feedback = FeedbackTopic(config, metrics)
        self._signer = signer_of(config, config.kafka.topic_prefix + MITIGATIONS, clock)
        self._seats: dict[TP, _Seat] = {}
        self._producer: AIOKafkaProducer | None = None
        self._leaked = LeakedTopic(config, seeds, metrics)
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
        await asyncio.gather(self._changes.read_to_end(), self._leaked.read_to_end(), self._feedback.read_to_end())
        sources = await asyncio.to_thread(self._list_sources)
        committed = await self.app.chunks.thread.fetch_committed(partitions)
        seats = {tp: self._sit_down(tp, sources) for tp in sorted(partitions)}
        async with Reader(self.config) as reader:
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
        post = JudgePost(
            self.config, self._seeds, tp.partition, sources, early=True, leaked=self._leaked.list, history=self._changes.chain
        )
        self._changes.hear(post)
        return _Seat(post, self._clock.now_ms())

    async def _rebuild(self, reader: Reader, seats: Mapping[TP, _Seat], committed: Mapping[TP, int]) -> None:
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
            self._feedback.remind(seat.post.judge.feedback)
            spans[tallies] = max(first, record.rebuild_from), record.position
        await self._restore_models(reader, [seat.post for seat in begun.values()])
        async for tallies, offset, value in reader.read(spans):
            begun[tallies].post.reread(offset, value)
        for tallies, seat in begun.items():
            record = records[tallies.partition]
            assert record is not None
            seat.post.end(record)
            seat.recorded = record.position
            say("rebuilt", partition=tallies.partition, position=record.position, reread_from=spans[tallies][0],
                closed=record.closed)  # fmt: skip

    async def _restore_models(self, reader: Reader, posts: Sequence[JudgePost]) -> None:
        """The snapshots that records name, model by model: their offsets may lie far apart."""
        partitions = {post.partition: TopicPartition(self._models, post.partition) for post in posts}
        if not any(post.snapshots.named for post in posts):
            return
        firsts, ends = await reader.first_offsets(partitions.values()), await reader.end_offsets(partitions.values())
        for name in sorted({name for post in posts for name in post.snapshots.named}):
            some = [post for post in posts if name in post.snapshots.named]
            pieces: dict[int, dict[int, bytes | None]] = {
                post.partition: dict.fromkeys(post.snapshots.named[name].offsets) for post in some
            }
            spans = {}
            for partition, wanted in pieces.items():
                models = partitions[partition]
                spans[models] = max(min(wanted, default=0), firsts[models]), min(max(wanted, default=-1) + 1, ends[models])
            async for models, offset, value in reader.read(spans):
                if offset in pieces[models.partition]:
                    pieces[models.partition][offset] = value
            for post in some:
                post.snapshots.restore(name, list(pieces[post.partition].values()))
                if name in post.judge.learned.refused:
                    why = post.judge.learned.refused[name]
                    say("model_refused", logging.WARNING, model=name, partition=post.partition, why=why)

    async def _read_records(self, reader: Reader, partitions: Sequence[int]) -> dict[int, Record | None]:
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
        self._tell_feedback(seat)
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

    def _tell_feedback(self, seat: _Seat) -> None:
        """What operators have said since it was told last."""
        judge = seat.post.judge
        for offset, record in self._feedback.records[seat.heard :]:
            if offset >= judge.feedback.next:
                judge.receive(record)
                judge.feedback.next = offset + 1
        seat.heard = len(self._feedback.records)

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
            + [mitigation_message(self.config, self._signer, mitigation, source) for mitigation in mitigations]
            + statuses,
        )
        for kind, decisions in (("mitigation", mitigations), ("finding", findings)):
            for decision in decisions:
                self._metrics.decisions.labels(kind, decision.stage).inc()

    async def _write_record(self, tp: TP, seat: _Seat) -> None:
        assert self._producer is not None
        seat.recorded_ms = self._clock.now_ms()
        if not await self._write_models(tp, seat):
            return
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

    async def _write_models(self, tp: TP, seat: _Seat) -> bool:
        """Snapshots that are due, so that the record can name them; False: the partition was revoked meanwhile."""
        assert self._producer is not None
        fresh = seat.post.models_due()
        written = []
        for one in fresh:
            messages = [Outgoing(self._models, value, key, tp.partition) for key, value in one.pieces]
            self._failpoints.passing("judge.before_model")
            if self._seats.get(tp) is not seat:
                return False
            written.append((one, await send_all(self._producer, messages)))
            self._failpoints.passing("judge.after_model")
        seat.post.models_written(written)
        return True

    async def run(self) -> None:
        """Nothing to do by the clock, judges read none: only what is followed beside the tallies."""
        await asyncio.gather(self._changes.run(), self._leaked.run(), self._feedback.run())

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
        for topic in (self._changes, self._leaked, self._feedback):
            await topic.stop()
        if self._producer is not None:
            await self._producer.stop()


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
