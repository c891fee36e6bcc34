"""What is in force, what is held and why, how long everything took, and which edges have stopped answering.

Made of the enforcement topic and the acknowledgements alone; nothing is enforced and no group is joined.
"""

from __future__ import annotations

from collections import Counter

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from broker.connection import Connection
from broker.offsets import Partition, end_offsets, offsets_at, partitions_of
from broker.signing import Verifier
from edge.reader import Reader, Record
from edge.timing import Heard, Timings, at_share
from engine.clock import Clock
from schemas.acknowledgement import Acknowledgement
from schemas.errors import BrokerError
from schemas.prefixes import Prefixes

ACKNOWLEDGED_S = 86_400
"""Edges that have said nothing for so long are not missed."""
TIMED_S = 3600
"""Of so long the times are told."""
ANSWER_S_MAX = 30
"""An edge that has not answered about what is in force for so long is behind, or away."""
HELD_SHOWN = 1000
EDGES_MAX = 64
"""More are counted together as ``other``."""
READ_S_MAX = 60
_BATCH = 20_000


class Held(msgspec.Struct, frozen=True):
    """A mitigation that a budget holds back."""

    id: str
    type: str
    value: str
    action: str
    detector: str
    since: int
    until: int
    why: str
    """The budget's name in ``[policy]``; empty: not said."""


class Stretches(msgspec.Struct, frozen=True):
    """How long something took, in seconds."""

    count: int
    median_s: float
    p99_s: float
    most_s: float


class EdgeState(msgspec.Struct, frozen=True):
    """What an edge has said lately."""

    edge: str
    last_ms: int
    outcomes: dict[str, int]
    unanswered: int
    """Targets with something in force for longer than `ANSWER_S_MAX` about which it has said nothing."""
    enforce: Stretches | None


class Summary(msgspec.Struct, frozen=True):
    """Everything, at one moment."""

    in_force: dict[str, int]
    """By action."""
    dry_run: int
    drills: int
    held: dict[str, int]
    """By the budget that holds them."""
    held_shown: list[Held]
    detect: Stretches | None
    """Of the last hour, as the rest."""
    decide: Stretches | None
    edges: list[EdgeState]


class _Evidence(msgspec.Struct, frozen=True, gc=False):
    features: dict[str, object] = {}


class _Why(msgspec.Struct, frozen=True, gc=False):
    evidence: _Evidence = _Evidence()


class Overview:
    """Takes in records and answers.

    Args:
        core: the allowlist core, as edges have it.
        since_ms: see `edge.timing.Timings`.
        verifier: as edges have it.
    """

    def __init__(
        self, core: Prefixes, since_ms: int, heard: Heard = lambda stretch, edge, seconds: None,
        verifier: Verifier | None = None,
    ) -> None:  # fmt: skip
        self.reader = Reader(core, lambda subject, action: True, verifier=verifier)
        self.timings = Timings(since_ms, heard)
        self.answers: dict[str, Counter[str]] = {}
        """By edge and outcome."""
        self.last_ms: dict[str, int] = {}
        self._idle: dict[bytes, tuple[Record, str]] = {}
        """What is held, dry run or a drill, by its key on the topic, and why it is held."""

    def take(self, key: bytes | None, value: bytes | None, at_ms: int) -> None:
        """A record of the enforcement topic, and when it came there."""
        record = self.reader.take(key, value)
        if record is None or key is None or value is None:
            return
        self.timings.record(record, at_ms)
        self._idle.pop(key, None)
        if record.state == "held" or ((record.dry_run or record.drill) and record.state == "active"):
            self._idle[key] = record, why_held(value) if record.state == "held" else ""

    def take_answer(self, value: bytes | None) -> None:
        """An acknowledgement; what is none is skipped."""
        try:
            answer = msgspec.json.decode(value or b"", type=Acknowledgement)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return
        edge = answer.edge if answer.edge in self.answers or len(self.answers) < EDGES_MAX else "other"
        if edge != answer.edge:
            answer = msgspec.structs.replace(answer, edge=edge)
        self.answers.setdefault(edge, Counter())[answer.outcome] += 1
        self.last_ms[edge] = max(self.last_ms.get(edge, 0), answer.applied_at_ms)
        self.timings.acknowledged(answer)

    def unanswered(self, now_ms: int) -> Counter[str]:
        """By edge: see `EdgeState.unanswered`."""
        found: Counter[str] = Counter(dict.fromkeys(self.answers, 0))
        for standing in self.reader.table.values():
            times = self.timings.known.get(standing.record.id)
            if times is None or standing.action == "notify" or now_ms - times.published_ms < 1000 * ANSWER_S_MAX:
                continue
            found.update(edge for edge in self.answers if edge not in times.answers)
        return found

    def summary(self, now_ms: int) -> Summary:
        """How everything stands."""
        self.reader.changes(now_ms)
        for key in [key for key, (record, _) in self._idle.items() if 1000 * record.expires_at <= now_ms]:
            del self._idle[key]
        idle = list(self._idle.values())
        held = [(record, why) for record, why in idle if record.state == "held"]
        times = list(self.timings.known.values())
        unanswered = self.unanswered(now_ms)
        return Summary(
            in_force=dict(Counter(one.action for one in self.reader.table.values()).most_common()),
            dry_run=sum(record.dry_run for record, _ in idle if record.state == "active"),
            drills=sum(record.drill and not record.dry_run for record, _ in idle if record.state == "active"),
            held=dict(Counter(why or "not said" for _, why in held).most_common()),
            held_shown=[_held(record, why) for record, why in held[:HELD_SHOWN]],
            detect=_stretches([one.detect_s for one in times]),
            decide=_stretches([one.decide_s for one in times if one.decide_s is not None]),
            edges=[
                EdgeState(
                    edge, self.last_ms[edge], dict(counts), unanswered[edge],
                    _stretches([s for one in times if (s := one.enforce_s(edge)) is not None]),
                )
                for edge, counts in sorted(self.answers.items())
            ],
        )  # fmt: skip


def why_held(value: bytes) -> str:
    """The budget that a record says it is held by; empty: it does not say."""
    try:
        return str(msgspec.json.decode(value, type=_Why).evidence.features.get("held", ""))[:64]
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ""


def _held(record: Record, why: str) -> Held:
    return Held(
        record.id, record.target.type, record.target.value, record.action, record.detector, record.tick, record.expires_at, why
    )


def _stretches(values: list[float]) -> Stretches | None:
    if not values:
        return None
    return Stretches(len(values), at_share(values, 0.5), at_share(values, 0.99), max(values))


class OverviewTopics:
    """The two topics, read from where it matters and followed.

    Args:
        mitigations, acknowledgements: their names.
    """

    def __init__(self, connection: Connection, mitigations: str, acknowledgements: str, clock: Clock) -> None:
        self._connection, self._clock = connection, clock
        self._mitigations, self._acknowledgements = mitigations, acknowledgements
        self._left: set[Partition] = set()
        self._consumer = Consumer(
            connection.settings(
                group_id="floodwall-overview",  # named because it has to be; it is asked for nothing and told nothing
                enable_auto_commit=False,
                enable_auto_offset_store=False,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
                enable_partition_eof=True,
                fetch_queue_backoff_ms=5,
                reconnect_backoff_max_ms=1000,
            )
        )
        self.heard_ms = 0
        """When the brokers were last heard of."""

    def open(self, overview: Overview) -> None:
        """Begin.

        Raises:
            BrokerError: no broker, no topic, or no right to read it.
        """
        self._connection.check()
        records = partitions_of(self._connection, self._mitigations)
        answers = partitions_of(self._connection, self._acknowledgements)
        ends = end_offsets(self._connection, [*records, *answers])
        from_ms = self._clock.now_ms() - 1000 * ACKNOWLEDGED_S
        begun = offsets_at(self._connection, answers, from_ms)
        overview.reader.begin({})
        starts = dict.fromkeys(records, OFFSET_BEGINNING)
        starts |= {key: begun[key] if begun[key] >= 0 else ends[key] for key in answers}
        self._left = {key for key in starts if ends[key] > 0}
        self._consumer.assign([TopicPartition(*key, start) for key, start in starts.items()])
        self.heard_ms = self._clock.now_ms()

    @property
    def is_read(self) -> bool:
        """Both have been read to where they end."""
        return not self._left

    def feed(self, overview: Overview, wait_s: float) -> None:
        """Hand over what has arrived.

        Raises:
            BrokerError: a right to read was taken away. Brokers may come and go.
        """
        try:
            messages = self._consumer.consume(_BATCH, wait_s)
        except KafkaException as error:
            raise self._connection.explain(error, self._mitigations) from None
        for message in messages:
            fault, key = message.error(), (message.topic() or "", message.partition() or 0)
            if fault is None:
                self._take(overview, message)
            elif fault.code() == KafkaError._PARTITION_EOF:
                self._left.discard(key)
            elif fault.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise self._connection.explain(fault, key[0])
            else:  # librdkafka tries again by itself; that nothing is heard shows in `heard_ms`
                continue
            self.heard_ms = self._clock.now_ms()

    def _take(self, overview: Overview, message: Message) -> None:
        if message.topic() == self._mitigations:
            overview.take(message.key(), message.value(), message.timestamp()[1])
        else:
            overview.take_answer(message.value())

    def close(self) -> None:
        """Leave the brokers."""
        self._consumer.close()


def read_overview(
    connection: Connection, mitigations: str, acknowledgements: str, core: Prefixes, clock: Clock,
    verifier: Verifier | None = None,
) -> Overview:  # fmt: skip
    """Read both topics to their ends, once.

    Raises:
        BrokerError: one cannot be read, or not within a minute.
    """
    overview = Overview(core, clock.now_ms() - 1000 * TIMED_S, verifier=verifier)
    topics = OverviewTopics(connection, mitigations, acknowledgements, clock)
    until_ms = clock.now_ms() + 1000 * READ_S_MAX
    try:
        topics.open(overview)
        while not topics.is_read:
            topics.feed(overview, 0.2)
            if clock.now_ms() > until_ms:
                raise BrokerError(f"expected to read {mitigations} to its end within {READ_S_MAX} s")
    finally:
        topics.close()
    return overview
