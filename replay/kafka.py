"""Topics as sources: every partition from an offset to where it ended when the run began, without joining a group.

Nothing is committed and no group is touched, so a replay disturbs no worker. Each partition has a consumer of its own: the
run reads the partition that is furthest behind in event time, and a consumer that is not asked holds what fits its queue and
stops fetching by itself.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from broker.connection import Connection, is_about_no_group
from broker.offsets import Partition, end_offsets, first_offsets, offsets_at, partitions_of
from replay.kafka_ahead import AHEAD_BYTES_MAX, PIECE_BYTES, Ahead, Piece
from replay.moments import Offsets
from replay.reading import Feeds
from replay.sources import KAFKA_SCHEME
from schemas.config import Config
from schemas.errors import SourceError, UsageError

QUEUE_KB_MAX = 256 << 10
"""Fetched ahead over all partitions."""
QUEUE_KB_OF_ONE_MAX = 16 << 10
"""Of one partition: a second of one core. Of 64 MB nothing is in any cache any more when its turn comes (4 to 8 % of all)."""
PARTITIONS_MAX = 256
"""Each consumer has three threads, a fourth that lays its messages out, and a connection to each broker that it reads from."""
SILENCE_S_MAX = 30.0
"""A partition that has not ended and sends nothing for so long is given up: its broker has vanished."""


@dataclass(frozen=True, slots=True)
class Span:
    """What is to be read of one partition."""

    topic: str
    partition: int
    start: int
    end: int
    """The offset after the last: where the partition ended when the run began."""
    missing: tuple[str, ...] = ()
    """What was asked for and is not there, in words."""

    @property
    def name(self) -> str:
        """Of the source partition."""
        return f"{self.topic}-{self.partition}"


def split_url(url: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(brokers, topics) of ``kafka://host:port[,host:port]/topic[,topic]``; no brokers: those of the configuration.

    Raises:
        UsageError: it has another form.
    """
    brokers, slash, topics = url.removeprefix(KAFKA_SCHEME).partition("/")
    if "@" in url:  # it is not printed: what stands before it is a password
        raise UsageError(
            "expected kafka://host:port/topic without a name and a password, got an address with @: they are `kafka.username` "
            "and FLOODWALL_KAFKA_PASSWORD"
        )
    names = tuple(topics.split(","))
    if not slash or not all(names) or len(set(names)) < len(names):
        raise UsageError(f"expected kafka://host:port/topic or kafka://host:port/topic,other, got {ascii(url)[:100]}")
    return tuple(brokers.split(",")) if brokers else (), names


def plan_spans(
    connection: Connection, topics: tuple[str, ...], from_ms: int | None, known: dict[str, int], offsets: Offsets | None = None
) -> list[Span]:
    """What each partition holds now, from the first message not older than ``from_ms`` on, or from where a saved state stands.

    The end is that of what is committed: a transaction that is still open is not waited for. Of a topic that ``offsets`` name
    a partition of, only those that they name.

    Raises:
        BrokerError: a topic is not there or may not be read. SourceError: a saved position is no longer kept, or ``offsets``
        name a partition that is none.
    """
    connection.check()
    partitions = [partition for topic in topics for partition in partitions_of(connection, topic)]
    offsets = offsets or {}
    partitions = _chosen(partitions, offsets)
    if len(partitions) > PARTITIONS_MAX:
        raise SourceError(
            f"expected at most {PARTITIONS_MAX} partitions in one replay, got {len(partitions)}: name fewer topics"
        )
    ends = end_offsets(connection, partitions)
    starts = oldest = first_offsets(connection, partitions)
    if from_ms is not None:
        found = offsets_at(connection, partitions, from_ms)
        starts = {key: offset if offset >= 0 else ends[key] for key, offset in found.items()}
    spans = []
    for key in partitions:
        span = _within(Span(*key, starts[key], ends[key]), oldest[key], from_ms, offsets)
        if span.name in known:
            if known[span.name] < oldest[key]:
                raise SourceError(
                    f"expected offset {known[span.name]} of {span.name}, where the saved state stands, the oldest kept is "
                    f"{oldest[key]}"
                )
            span = Span(*key, known[span.name], max(span.end, known[span.name]))
        spans.append(span)
    return spans


def _chosen(partitions: list[Partition], offsets: Offsets) -> list[Partition]:
    """Those that are to be read."""
    names = {f"{topic}-{number}": (topic, number) for topic, number in partitions}
    for name in offsets:
        if name not in names:
            raise SourceError(
                f"expected offsets of a partition that is read, got {name}, which is none of {', '.join(names)[:300]}"
            )
    topics = {names[name][0] for name in offsets}
    return [key for name, key in names.items() if name in offsets or key[0] not in topics]


def _within(span: Span, oldest: int, from_ms: int | None, offsets: Offsets) -> Span:
    """The part that was asked for, and what of it is not there. What retention has deleted is said, whoever needs it or not."""
    missing = []
    start, end = span.start, span.end
    first, behind = offsets.get(span.name, (None, None))
    if first is not None:
        if first < oldest:
            missing.append(f"offsets {first} to {min(oldest, end if behind is None else behind) - 1} are no longer kept")
        start = max(first, oldest, start) if from_ms is not None else max(first, oldest)
    elif oldest > 0 and start == oldest:
        unknown = "" if from_ms is None else "; what they held of the time that was asked for, nobody knows"
        missing.append(f"offsets 0 to {oldest - 1} are no longer kept{unknown}")
    if behind is not None:
        if behind > end:
            missing.append(f"offsets {max(end, first or 0)} to {behind - 1} are not there yet")
        end = min(behind, end)
    return Span(span.topic, span.partition, start, max(end, start), tuple(missing))


class PartitionReading:
    """One partition on its way into the engine."""

    error: str | None = None

    def __init__(
        self, connection: Connection, config: Config, span: Span, to_ms: int | None, partitions: int,
        *, digest: bool = False,
    ) -> None:  # fmt: skip
        self.name = span.name
        self.missing = list(span.missing)
        self._at = span.start
        self._messages = 0
        self._values_hash = hashlib.sha256() if digest else None
        self._offsets_hash = hashlib.sha256() if digest else None
        self.ended = span.start >= span.end
        self._connection, self._span = connection, span
        # An event before ``to_ms`` that comes when its partition is further on than this is late, and would not count.
        self._stop_ms = None if to_ms is None else to_ms + config.time.lateness_s * 1000
        self._consumer: Consumer | None = None
        self._ahead: Ahead | None = None
        self._queue_kb = min(QUEUE_KB_OF_ONE_MAX, QUEUE_KB_MAX // partitions)
        self._piece_bytes = min(PIECE_BYTES, AHEAD_BYTES_MAX // (2 * partitions))

    @property
    def share(self) -> tuple[int, int]:
        """In offsets."""
        return self._at - self._span.start, self._span.end - self._span.start

    def begins_ms(self) -> int | None:
        """Partitions are read beside each other."""
        return None

    def origin(self) -> dict[str, Any]:
        """``sha256`` is that of all values one behind the other, ``sha256_offsets`` of (offset, bytes of the value) as pairs of
        big-endian 64-bit numbers."""
        found: dict[str, Any] = {
            "kind": "kafka", "topic": self._span.topic, "partition": self._span.partition, "unit": "offsets",
            "from": self._span.start, "end": self._span.end, "messages": self._messages,
            "sha256": None if self._values_hash is None else self._values_hash.hexdigest(),
            "sha256_offsets": None if self._offsets_hash is None else self._offsets_hash.hexdigest(),
        }  # fmt: skip
        return found

    def open(self, engine: Feeds) -> None:
        """Begin, or go on."""
        engine.open(self.name, 0, self._span.start)
        if not self.ended:
            self._consumer = Consumer(
                self._connection.settings(
                    # A consumer has to name a group; this one asks it for nothing and tells it nothing.
                    group_id="floodwall-replay",
                    enable_auto_commit=False,
                    enable_auto_offset_store=False,
                    auto_offset_reset="error",
                    isolation_level="read_committed",
                    enable_partition_eof=True,
                    # The defaults let consume() wait for a second whenever its queue has run full or empty.
                    queued_min_messages=1_000_000,
                    fetch_queue_backoff_ms=5,
                    queued_max_messages_kbytes=self._queue_kb,
                )
            )
            self._consumer.assign([TopicPartition(self._span.topic, self._span.partition, self._span.start)])
            self._ahead = Ahead(self._consumer, self._span.start, self._span.end, self._piece_bytes)
            self._ahead.ask()

    def advance(self, engine: Feeds) -> int:
        """Read some messages and feed them; returns their bytes.

        Raises:
            BrokerError: the broker refuses, or says nothing for `SILENCE_S_MAX`.
        """
        if self._ahead is None or self.ended:
            return 0
        piece = self._ahead.take()
        self.ended = piece.passed
        if not piece.errors and not self.ended:
            self._ahead.ask()
        if len(piece.starts):
            self._feed(engine, piece)
        for message in piece.errors:
            self._hear(engine, message)
        if self._at >= self._span.end or (self._stop_ms is not None and engine.newest_ms(self.name) >= self._stop_ms):
            self.ended = True
        if not self.ended and self._ahead.silent_s >= SILENCE_S_MAX:
            raise self._connection.explain(KafkaError(KafkaError._TRANSPORT), self._span.topic)
        return piece.length

    def close(self) -> None:
        """Let the consumer go."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _hear(self, engine: Feeds, message: Message) -> None:
        """Something that is no message."""
        error = message.error()
        assert error is not None
        if error.code() == KafkaError._PARTITION_EOF:
            self.ended = self.ended or (message.offset() or 0) >= self._span.end
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._go_on_at_the_oldest(engine)
        elif not is_about_no_group(error):
            raise self._connection.explain(error, self._span.topic)

    def _go_on_at_the_oldest(self, engine: Feeds) -> None:
        """Retention was quicker than we: what it took is said, and leaves a gap that nothing is decided across."""
        assert self._consumer is not None
        assert self._ahead is not None
        key = self._span.topic, self._span.partition
        oldest = first_offsets(self._connection, [key])[key]
        lost = min(oldest, self._span.end)
        if lost <= self._at:
            raise self._connection.explain(KafkaError(KafkaError._AUTO_OFFSET_RESET), self._span.topic)
        self.missing.append(f"offsets {self._at} to {lost - 1} were deleted before they could be read")
        self._at = lost
        engine.skip(self.name, lost)
        if lost >= self._span.end:
            self.ended = True
        else:
            self._consumer.assign([TopicPartition(*key, lost)])
            self._ahead.seek(lost)

    def _feed(self, engine: Feeds, piece: Piece) -> None:
        self._messages += len(piece.starts)
        self._at = int(piece.offsets[-1]) + 1
        if self._values_hash is not None and self._offsets_hash is not None:
            self._values_hash.update(piece.buffer[: piece.length].data)
            self._offsets_hash.update(np.column_stack([piece.offsets, piece.ends - piece.starts]).astype(">i8").tobytes())
        engine.feed_records(self.name, piece.buffer, piece.starts, piece.ends, piece.times_ms, piece.offsets)


def open_partitions(
    config: Config, url: str, between_ms: tuple[int | None, int | None], known: dict[str, int],
    offsets: Offsets | None = None, *, digest: bool = False,
) -> list[PartitionReading]:  # fmt: skip
    """Every partition of the topics that a ``kafka://`` address names.

    Raises:
        UsageError, ConfigError: the address or the settings are wrong. BrokerError: Kafka cannot be reached or refuses.
    """
    brokers, topics = split_url(url)
    kafka = msgspec.structs.replace(config.kafka, brokers=brokers) if brokers else config.kafka
    connection = Connection(kafka)
    from_ms, to_ms = between_ms
    if from_ms is not None:
        # No event is more than `ahead_s` after its message's time. The lateness before that sets the partition's clock.
        from_ms -= (config.time.ahead_s + config.time.lateness_s) * 1000
    if offsets:
        offsets = {name: span for name, span in offsets.items() if name.rpartition("-")[0] in topics}
    spans = plan_spans(connection, topics, from_ms, known, offsets)
    return [PartitionReading(connection, config, span, to_ms, len(spans), digest=digest) for span in spans]
