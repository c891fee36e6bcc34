"""Observers on Kafka: source partitions taken over, flushed and handed on, one transaction per flush and partition.

A flush: decode and group everything that has come, begin, send the tallies for all judge partitions and the dead letters, wait
until every send has arrived, send the offset with the note that holds clock and accounting, commit. So tallies, dead letters
and the offset that says so are there together or not at all. A take-over: start the partition's producer, which fences the
predecessor and settles its transaction; then fetch the offset; then seek.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka.errors import ProducerFenced
from faust.types import TP

from engine.clock import Clock
from engine.seeds import Seeds
from engine.source_post import Bench, DeadLetter, Ledger, Messages, Shipment, SourcePost, is_known
from schemas.config import Config
from schemas.errors import BrokerError
from schemas.topics import DEAD_LETTERS, tallies_topic
from streams.failpoints import Failpoints
from streams.leaving import leave
from streams.logs import say
from streams.metrics import Metrics
from streams.producers import Outgoing, PartitionProducer
from streams.transport import Chunk, Place, WorkerApp, make_app

ROOM_BYTES = 64 << 20
"""Messages that wait for a flush: at 360 MB/s (1.5 million events a second) 100 ms are 36 MB."""
DEAD_LETTER_BYTES_MAX = 512 << 10
"""Longer ones are cut, so that one fits into any topic's default limit of 1 MiB together with its headers."""
FENCED_SESSIONS_MAX = 3
"""A worker that was fenced and sees no rebalance for so many sessions is not what the group believes it is, and leaves."""
MINUTE_MS = 60_000
ANSWER_MS = 1000
"""An answer of the broker that is older says nothing about now; they come every 20 ms."""


def _make_set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass(slots=True)
class _Held:
    """A source partition while it is ours."""

    post: SourcePost
    producer: PartitionProducer
    epoch: int = -1
    alive: bool = True
    messages: Messages = field(default_factory=Messages)
    coming: int = 0
    """Chunks that Faust has and we have not seen."""
    fenced: bool = False
    shipped: Ledger = field(default_factory=Ledger)
    """The ledger as the metrics know it."""
    idle: asyncio.Event = field(default_factory=_make_set_event)
    """No transaction is under way."""


class Observers:
    """The source partitions of one worker. It is the `streams.transport.Station` of its app."""

    group_suffix = "observers"

    def __init__(self, config: Config, clock: Clock, seeds: Seeds, metrics: Metrics, failpoints: Failpoints) -> None:
        self.config, self._clock, self._metrics, self._failpoints = config, clock, metrics, failpoints
        self.app: WorkerApp
        self._bench = Bench(config, seeds)
        self._bench_free = asyncio.Lock()
        self._group = f"{config.kafka.group_prefix}-{self.group_suffix}"
        self._tallies = tallies_topic(config.engine.judge_partitions, config.kafka.topic_prefix)
        self._dead_letters = config.kafka.topic_prefix + DEAD_LETTERS
        self._held: dict[TP, _Held] = {}
        self._epoch = -1
        self._waiting_bytes = 0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._paused: set[TP] = set()
        self._minute, self._letters = 0, 0
        self._leaving: asyncio.TimerHandle | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    # What the transport asks.

    async def take_over(self, partitions: set[TP], generation: int) -> Mapping[TP, int]:
        """Every partition anew, those that stay too: their state travels in the note, so nothing is kept that could be old."""
        began = asyncio.get_running_loop().time()
        self._failpoints.passing("observe.taking_over")
        held: dict[TP, _Held] = {}
        producers = {
            tp: PartitionProducer(self.config.kafka, self._group, tp.topic, tp.partition, self._failpoints) for tp in partitions
        }
        try:
            await asyncio.gather(*(producer.start() for producer in producers.values()))
            self._failpoints.passing("observe.fenced_predecessor")
            committed = await self.app.chunks.thread.fetch_committed(partitions)
            first = await self.app.chunks.earliest_offsets(*partitions)
        except BaseException:
            for producer in producers.values():
                self._in_background(producer.stop())
            raise
        for tp, producer in producers.items():
            offset, note = committed.get(tp, (-1, ""))
            post = SourcePost(f"{tp.topic}-{tp.partition}", max(offset, 0), note, self._bench)
            if offset < 0:
                post.position = first[tp]
            elif offset < first[tp]:
                post.skip_to(first[tp])
                say("offsets_missing", logging.WARNING, source=post.name, expected=offset, first=first[tp])
            held[tp] = _Held(post, producer, shipped=_copy(post.ledger))
        self._retire()
        self._held = held
        took = asyncio.get_running_loop().time() - began
        self._metrics.take_over_seconds.observe(took)
        say("took_over", partitions=len(held), generation=generation, milliseconds=round(1000 * took))
        return {tp: entry.post.position for tp, entry in held.items()}

    def begin(self, epoch: int) -> None:
        """Chunks of this epoch are ours."""
        self._epoch = epoch
        self._paused.clear()
        for entry in self._held.values():
            entry.epoch = epoch

    def revoke(self) -> None:
        """What is in the middle of a transaction ends it or is fenced; the rest is dropped: its next owner reads it again."""
        self._retire()
        self._held = {}
        self._waiting_bytes = 0
        self._has_room.set()
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    def expect(self, tp: TP, chunk: Chunk) -> bool:
        """Only what was read after the last seek."""
        entry = self._held.get(tp)
        if entry is None or chunk.epoch != entry.epoch:
            return False
        entry.coming += 1
        self._waiting_bytes += chunk.size
        if self._waiting_bytes > ROOM_BYTES:
            self._has_room.clear()
        return True

    async def room(self) -> None:
        """Wait until a flush has taken enough away."""
        await self._has_room.wait()

    def _retire(self) -> None:
        for entry in self._held.values():
            entry.alive = False
            self._in_background(self._stop_when_idle(entry))

    async def _stop_when_idle(self, entry: _Held) -> None:
        await entry.idle.wait()
        await entry.producer.stop()

    def _in_background(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    # What the agent and the clock do.

    async def work(self, tp: TP, chunk: Chunk) -> None:
        """Take a chunk in; it is flushed with the others."""
        entry = self._held.get(tp)
        if entry is None or chunk.epoch != entry.epoch:
            return
        entry.coming -= 1
        entry.messages.add(chunk.values, chunk.offsets, chunk.times_ms, chunk.size)

    async def run(self) -> None:
        """Flush every ``flush_ms``, for ever."""
        loop, pause = asyncio.get_running_loop(), self.config.kafka.flush_ms / 1000
        while True:
            began = loop.time()
            try:
                await asyncio.gather(*(self._flush(tp, entry) for tp, entry in self._held.items()))
                self._pause_those_ahead()
            except Exception as error:
                leave(error, "flushing")
            await asyncio.sleep(max(0.0, began + pause - loop.time()))

    async def _flush(self, tp: TP, entry: _Held) -> None:
        if entry.fenced:
            return
        entry.idle.clear()
        try:
            shipment = await self._shipment(tp, entry)
            if shipment is None or not entry.alive:
                return  # nothing to say, or its next owner reads it again
            with self._metrics.flush_seconds.time():
                await asyncio.wait_for(
                    entry.producer.ship(self._outgoing(entry, shipment), shipment.offset, shipment.note),
                    2 * self.config.kafka.transaction_ms / 1000,
                )
        except ProducerFenced:
            self._fence(entry)
        except TimeoutError:
            if entry.alive:
                limit = 2 * self.config.kafka.transaction_ms
                raise BrokerError(f"expected a transaction of {entry.post.name} to end in {limit} ms, it did not") from None
        except Exception:
            if entry.alive:
                raise
        else:
            after = _copy(entry.post.ledger)
            self._metrics.follow(tp.topic, entry.shipped, after)
            entry.shipped = after
            self._metrics.position.labels(tp.topic, str(tp.partition)).set(shipment.offset)
        finally:
            entry.idle.set()

    async def _shipment(self, tp: TP, entry: _Held) -> Shipment | None:
        if not entry.messages.values:
            return entry.post.silence(self._clock.now_ms()) if self._is_silent(tp, entry) else None
        # In a thread, because this one has to fetch meanwhile: the kernels hold no GIL.
        async with self._bench_free:
            messages, entry.messages = entry.messages, Messages()
            now_ms = self._clock.now_ms()
            with self._metrics.decode_seconds.time():
                shipment = await asyncio.to_thread(entry.post.ship, messages, now_ms, self._letters_left(now_ms))
            self._letters += len(shipment.dead_letters)
        self._failpoints.passing("observe.decoded")
        if entry.alive:
            self._waiting_bytes = max(0, self._waiting_bytes - messages.size)
            if self._waiting_bytes <= ROOM_BYTES:
                self._has_room.set()
        return shipment

    def _is_silent(self, tp: TP, entry: _Held) -> bool:
        """Nothing is left to read, and nothing is on its way to us: else time would go on past what is about to be read."""
        place = self.app.chunks.thread.places.get(tp)
        if place is None or tp in self._paused or entry.coming:
            return False
        now = self.app.chunks.thread.place(tp)  # whoever stood still for a while has yet to hear what came meanwhile
        if now.heard_ms is None or self._clock.now_ms() - now.heard_ms > ANSWER_MS or now.position != place.position:
            return False
        return now.at_end and place.at_end and place.drained <= entry.post.position

    def _letters_left(self, now_ms: int) -> int:
        if now_ms // MINUTE_MS != self._minute:
            self._minute, self._letters = now_ms // MINUTE_MS, 0
        return self.config.kafka.dead_letters_max - self._letters

    def _outgoing(self, entry: _Held, shipment: Shipment) -> list[Outgoing]:
        messages = [
            Outgoing(self._tallies, value, partition=partition)
            for partition, part in enumerate(shipment.parts)
            for value in part
        ]
        for letter in shipment.dead_letters:
            self._metrics.poison.labels(letter.reason.name.lower()).inc()
            messages.append(_dead_letter(self._dead_letters, entry.post.name, letter))
        return messages

    def _fence(self, entry: _Held) -> None:
        if not entry.alive:
            return
        entry.fenced = True
        self._metrics.fenced.inc()
        say("fenced", logging.WARNING, source=entry.post.name)
        if self._leaving is None:
            after = FENCED_SESSIONS_MAX * self.config.kafka.session_ms / 1000
            error = BrokerError(f"expected the group to say who has {entry.post.name}, it did not for {after:.0f} s")
            self._leaving = asyncio.get_running_loop().call_later(after, leave, error, "being fenced")

    def _pause_those_ahead(self) -> None:
        """Stop reading partitions further ahead of the slowest than ``skew_s``, so that judges need not hold their tallies."""
        if len(self._held) < 2:
            return
        newest = {tp: entry.post.newest_ms for tp, entry in self._held.items()}
        unheard = any(not is_known(ms) and not self._is_silent(tp, self._held[tp]) for tp, ms in newest.items())
        known = [ms for ms in newest.values() if is_known(ms)]
        limit = min(known, default=0) + 1000 * self.config.time.skew_s
        ahead = {tp for tp, ms in newest.items() if is_known(ms) and (ms > limit or unheard)}
        if ahead != self._paused:
            self.app.chunks.resume_partitions(self._paused - ahead)
            self.app.chunks.pause_partitions(ahead - self._paused)
            self._paused = ahead
            self._metrics.paused.set(len(ahead))

    # What health and metrics ask.

    def place(self, tp: TP) -> Place:
        """Where the consumer stands in a partition."""
        return self.app.chunks.thread.place(tp)

    def held(self) -> dict[TP, bool]:
        """The partitions that are ours, and whether each is being read now."""
        return {tp: tp not in self._paused and not entry.fenced for tp, entry in self._held.items()}

    def settled(self) -> bool:
        """The group has said what is ours, be it nothing, and it has been taken over."""
        return bool(self._held) or self.app.stands_by

    async def close(self) -> None:
        """End what is under way."""
        self.revoke()
        await asyncio.gather(*self._retiring, return_exceptions=True)


def _copy(ledger: Ledger) -> Ledger:
    return Ledger(*(getattr(ledger, name) for name in ledger.__struct_fields__))


def _dead_letter(topic: str, source: str, letter: DeadLetter) -> Outgoing:
    name, _, partition = source.rpartition("-")
    headers = (
        ("topic", name.encode()), ("partition", partition.encode()), ("offset", str(letter.offset).encode()),
        ("reason", letter.reason.name.lower().encode()), ("at", str(letter.at).encode()),
        ("length", str(len(letter.value)).encode()),
    )  # fmt: skip
    return Outgoing(topic, letter.value[:DEAD_LETTER_BYTES_MAX], headers=headers)


def build_observer_app(config: Config, station: Observers, instance: str | None = None) -> WorkerApp:
    """The app of observers: one agent that hands every chunk to the station."""
    app = make_app(config, f"{config.kafka.group_prefix}-{station.group_suffix}", station, instance)
    station.app = app

    async def observe(stream: Any) -> None:
        async for event in stream.events():
            try:
                await station.work(event.message.tp, event.value)
            except Exception as error:
                leave(error, "observing")

    topic = app.topic(*config.kafka.topics, key_serializer="raw", value_serializer="raw", internal=True)
    app.agent(topic, name="observe", concurrency=1)(observe)
    return app
