"""The whole product in one process: decode, observe, judge and policy, one after the other, without Kafka.

With ``threads=2`` judging runs in a thread of its own beside decoding and grouping; the kernels hold no lock, and the
decisions are the same.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from detectors.kernels.windows import NEVER
from detectors.registry import plan_windows
from engine.account import EXCERPT_BYTES, Account, PoisonSample, SourceCount
from engine.config_chain import ConfigChain
from engine.digesting import Digester
from engine.feedback import Admission
from engine.geo import make_geo
from engine.judge import Judge
from engine.leaked import reported_keys
from engine.observe import Observed, Observer, Rows, SourceClock
from engine.outbox import Decisions, Outbox
from engine.seeds import Seeds, make_seeds
from engine.snapshot import load_judge, pack, refuse_mixing, refusing_misfits, save_judge, unpack
from engine.standing import Standing, standing_of
from schemas.columns import I64, U8
from schemas.config import Config
from schemas.decode import ADDRESS_SOURCE_NAMES, FIELD_NAMES, Decoder
from schemas.errors import StateError
from schemas.fields import Poison
from schemas.tally import Tally, empty_tally

_NEW_CHAIN = 1 << 60
"""Beyond every offset: the sum of digests begins again where a source does."""


@dataclass(slots=True)
class _Source:
    clock: SourceClock
    position: int
    bound_ms: int
    digester: Digester
    open: bool = True
    count: SourceCount = field(default_factory=SourceCount)


class _Worker:
    """Runs tasks in order in one thread; what one of them raises comes out at the next call."""

    def __init__(self, depth: int) -> None:
        self._tasks: queue.Queue[Callable[[], None] | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="judge", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                if self._error is None:
                    task()
            except BaseException as error:
                self._error = error
            finally:
                self._tasks.task_done()
        self._tasks.task_done()

    def submit(self, task: Callable[[], None]) -> None:
        self._raise()
        self._tasks.put(task)

    def drain(self) -> None:
        self._tasks.join()
        self._raise()

    def stop(self) -> None:
        self._tasks.put(None)
        self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error


class Embedded:
    """Feed it bytes or messages, take decisions.

    Args:
        config: everything that can be set.
        early: also publish early records, for an edge that acts at once.
        threads: 1, or 2 to judge beside decoding.
        seeds: none: the configured ones, else drawn.
        between_ms: only events in this range of time are counted (from inclusive, to exclusive).
        history: changes of the configuration, each of which holds from its second on.
    """

    def __init__(
        self,
        config: Config,
        *,
        early: bool = False,
        threads: int = 1,
        seeds: Seeds | None = None,
        between_ms: tuple[int | None, int | None] = (None, None),
        history: ConfigChain | None = None,
        decided: int = NEVER,
    ) -> None:
        self.config = config
        self.seeds = make_seeds(config) if seeds is None else seeds
        self._decoder = Decoder(
            config.input, key_seed=self.seeds.key, ahead_ms=config.time.ahead_s * 1000, events_max=config.engine.chunk_events
        )
        self._geo = make_geo(config.input.geo)
        # The last record of a chunk may hold as many events as a decoder can take.
        events_max = config.engine.chunk_events + self._decoder.capacity
        self._observer = Observer(config, plan_windows(config), self.seeds.hash, events_max, between_ms)
        self._outbox = Outbox()
        standing = standing_of(config) if history is None else history.standing_at(decided + 1)
        listed = reported_keys(config, self.seeds)
        self._judge = Judge(standing, self.seeds, self._outbox.publish, early=early, leaked=listed, decided=decided)
        for accepted in () if history is None else history.after(decided + 1):
            self._judge.reconfigure(accepted.standing, accepted.change.effective_tick)
        self.admission = Admission(config.policy)
        """Which records of feedback count."""
        self.onlooker: Callable[[Tally], None] | None = None
        """Is shown each tally before it is judged, whose memory is used again afterwards."""
        self._sources: dict[str, _Source] = {}
        self._digest_key = self.seeds.digest
        self._account = Account()
        self._address_source = np.zeros(len(ADDRESS_SOURCE_NAMES), np.int64)
        self._field_seen = np.zeros(len(FIELD_NAMES), np.int64)
        self._worker = _Worker(1) if threads > 1 else None
        self._free: queue.SimpleQueue[Rows] = queue.SimpleQueue()
        for _ in range(1 if self._worker is None else 3):
            self._free.put(self._observer.make_rows())

    def open(self, name: str, bound_ms: int, start: int = 0) -> None:
        """Begin a source partition (a file, standard input), or begin it again, at byte ``start``.

        ``bound_ms`` is the time that no event of it may be ahead of by more than ``time.ahead_s``.
        """
        source = self._sources.get(name)
        if source is None:
            self._sources[name] = _Source(SourceClock(), start, bound_ms, Digester(self._digest_key, start))
        else:
            if source.position != start:
                chain = 1 + max(_NEW_CHAIN, *(one.digester.chain for one in self._sources.values()))
                source.digester = Digester(self._digest_key, chain)
            source.position, source.bound_ms, source.open = start, bound_ms, True
        self._run(lambda: self._judge.intake.open(name, start))

    def foretell(self, name: str, time_ms: int) -> None:
        """An open source has nothing before this time: the others may go on to there before it is read."""
        position = self._sources[name].position
        self._submit(self._silent_tally(name, position, position, time_ms), None)

    def skip(self, name: str, position: int) -> None:
        """What lay before ``position`` is lost: a gap, and windows that touch it decide nothing."""
        self._sources[name].position = position

    def set_bound(self, name: str, bound_ms: int) -> None:
        """The file was modified since."""
        self._sources[name].bound_ms = bound_ms

    def feed(self, name: str, chunk: U8, length: int, base: int) -> None:
        """Take in whole lines ``chunk[:length]``, whose first byte is byte ``base`` of the source.

        The chunk should hold 2 * length + 8192 bytes: text that has to be rewritten goes behind ``length``.
        """
        source, decoder, most = self._sources[name], self._decoder, self.config.engine.chunk_events
        at = 0
        while at < length:
            rows, start = self._free.get(), at
            while at < length and rows.events < most:
                at = decoder.decode_lines(
                    chunk, length, at, bound_ms=source.bound_ms, events_max=min(decoder.capacity, most - rows.events)
                )
                if self._geo is not None:
                    self._geo.fill(decoder.columns)
                self._observer.add(decoder.columns, source.clock, rows)
                self._count_records(source.count)
                for index in range(decoder.poison):
                    self._count_poison(name, chunk, index, base + int(decoder.poison_start[index]), None)
            source.digester.add_lines(chunk, start, at, base)
            observed = self._observer.finish(source.clock, rows, name, base + start, base + at)
            observed.tally.digest = source.digester.cut()
            self._count_events(observed, source.count)
            self._submit(observed.tally, rows)
        source.position = base + length

    def feed_records(self, name: str, buffer: U8, starts: I64, ends: I64, times_ms: I64, offsets: I64) -> None:
        """Take in messages of one partition, in the order of their offsets.

        Message i is ``buffer[starts[i]:ends[i]]`` at the offset ``offsets[i]``, one behind the other in the buffer, and no
        event of it may be ahead of its own time ``times_ms[i]`` (0: none) by more than ``time.ahead_s``. Positions of such a
        source are offsets. One that is left out belongs to the segment of the next message: it was compacted away, or a
        transaction's marker, and is no gap. The room behind the last message is used as in `feed`.
        """
        source, decoder, most = self._sources[name], self._decoder, self.config.engine.chunk_events
        at = 0
        while at < len(starts):
            rows, first = self._free.get(), at
            while at < len(starts) and rows.events < most:
                at = decoder.decode_records(
                    buffer, starts, ends, times_ms, at, events_max=min(decoder.capacity, most - rows.events)
                )
                if self._geo is not None:
                    self._geo.fill(decoder.columns)
                self._observer.add(decoder.columns, source.clock, rows)
                self._count_records(source.count)
                for index in range(decoder.poison):
                    message = int(np.searchsorted(starts, decoder.poison_start[index], "right")) - 1
                    self._count_poison(name, buffer, index, 0, int(offsets[message]))
            position = int(offsets[at - 1]) + 1
            some = slice(first, at)
            source.digester.add_records(buffer, starts[some], ends[some], offsets[some], times_ms[some])
            observed = self._observer.finish(source.clock, rows, name, source.position, position)
            observed.tally.digest = source.digester.cut()
            self._count_events(observed, source.count)
            self._submit(observed.tally, rows)
            source.position = position

    def refuse(self, name: str, start: int, length: int, reason: Poison, at: int = 0, excerpt: bytes = b"") -> None:
        """Count a stretch of bytes that never became a line: too long, binary, or the tail of a half-written archive."""
        source = self._sources[name]
        self._account.records += 1
        source.count.records += 1
        self._add_poison(source.count, _sample(name, start, length, reason, at, excerpt))
        source.position = start + length
        self._submit(self._silent_tally(name, start, start + length, source.clock.newest_ms), None)

    def newest_ms(self, name: str) -> int:
        """The newest confirmed event time of a source; `schemas.tally.UNKNOWN_MS` before the first."""
        return self._sources[name].clock.newest_ms

    def close(self, name: str) -> None:
        """The source has ended: it holds the watermark back no more."""
        self._sources[name].open = False

        def leave() -> None:
            self._judge.intake.close(name)
            self._judge.advance()

        self._run(leave)

    def receive(self, data: bytes) -> None:
        """A record of feedback, as it lies on the topic or in a file. What was received before counts once."""
        record = self.admission.read(data)
        if record is not None:
            self._run(lambda: self._judge.receive(record))

    def feedback_counts(self) -> dict[str, int]:
        """What became of the records: taken, learned from, come late, still waiting for their second, and refused by reason."""
        self._drain()
        feedback = self._judge.feedback
        waiting = feedback.waiting(self._judge.closed)
        held = {"taken": self.admission.taken, "learned": feedback.learned, "late": feedback.late, "waiting": waiting}
        return {**held, **self.admission.refused}

    def models(self) -> dict[str, dict[str, Any]]:
        """What the learned detectors know, by their names; see `engine.learned.Learned.save`."""
        self._drain()
        return self._judge.learned.save()

    def reconfigure(self, standing: Standing, tick: int) -> None:
        """From ``tick`` on another configuration holds."""

        def plan() -> None:
            self._judge.reconfigure(standing, tick)

        self._run(plan)

    def idle(self, now_ms: int) -> None:
        """Move silent sources on with the clock, and decide what that closes. Call it a few times a second when live."""
        for name, source in self._sources.items():
            if not source.open:
                continue
            newest_ms = source.clock.silence(now_ms, source.position)
            if newest_ms is not None:
                self._submit(self._silent_tally(name, source.position, source.position, newest_ms), None)

    def finish(self) -> None:
        """All has been fed: decide everything that is left."""
        self._run(self._judge.finish)
        self._drain()

    def stop(self) -> None:
        """End the thread, if there is one. The object is of no use afterwards."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def take(self) -> Decisions:
        """What was decided since the last call."""
        return self._outbox.take()

    def account(self) -> Account:
        """The accounting so far."""
        self._drain()
        account, judge = self._account, self._judge
        for totals, names, counts in (
            (account.addresses, ADDRESS_SOURCE_NAMES, self._address_source), (account.fields, FIELD_NAMES, self._field_seen)
        ):  # fmt: skip
            _add(totals, names, counts)
            counts[:] = 0
        account.stragglers = judge.stragglers
        account.aged_out = judge.aged_out
        account.truncated = judge.truncated
        account.held = judge.policy.held
        account.left_behind = judge.intake.left_behind
        account.duplicates, account.gaps = judge.intake.duplicates, judge.intake.gaps
        return account

    @property
    def events(self) -> int:
        """How many were read so far; the judge is not waited for."""
        return self._account.events

    def source_counts(self) -> dict[str, SourceCount]:
        """What became of each source since this object was made."""
        return {name: source.count for name, source in self._sources.items()}

    def positions(self) -> dict[str, int]:
        """The next byte of each source."""
        return {name: source.position for name, source in self._sources.items()}

    def snapshot(self) -> bytes:
        """Everything that decides what comes next. Take the decisions first: they are not part of it."""
        account = self.account()
        state = {
            "seed": [self.seeds.fingerprint, None if self.seeds.configured else self.seeds.secret],
            "drill": self.config.policy.drill,
            "sources": {
                name: [source.position, source.bound_ms, source.open, source.clock.words, source.digester.saved()]
                for name, source in self._sources.items()
            },
            "account": account.save(),
            "admission": self.admission.save(),
            "judge": save_judge(self._judge),
        }
        return pack(state)

    @classmethod
    def restore(
        cls,
        config: Config,
        data: bytes,
        *,
        early: bool = False,
        threads: int = 1,
        between_ms: tuple[int | None, int | None] = (None, None),
        history: ConfigChain | None = None,
    ) -> Embedded:
        """Go on from a snapshot.

        Raises:
            StateError: it is damaged, of another version, of another seed, or of other capacities.
        """
        with refusing_misfits():
            return cls._restored(config, unpack(data), early, threads, between_ms, history)

    @classmethod
    def _restored(
        cls, config: Config, state: dict[str, Any], early: bool, threads: int, between_ms: tuple[int | None, int | None],
        history: ConfigChain | None,
    ) -> Embedded:  # fmt: skip
        fingerprint, drawn = state["seed"]
        seeds = make_seeds(config)
        if not seeds.configured and drawn is not None:
            seeds = Seeds(drawn, configured=False)
        if seeds.fingerprint != fingerprint:
            raise StateError(f"expected a state of the seed {seeds.fingerprint}, got one of the seed {fingerprint}")
        refuse_mixing(config, drill=bool(state["drill"]))
        decided = int(state["judge"]["closed"])
        restored = cls(
            config, early=early, threads=threads, seeds=seeds, between_ms=between_ms, history=history, decided=decided
        )  # fmt: skip
        for name, (position, bound_ms, is_open, clock, *digest) in state["sources"].items():
            digester = Digester(restored._digest_key, *(digest[0] if digest else (position,)))  # older states have none
            restored._sources[name] = _Source(SourceClock(clock), position, bound_ms, digester, is_open)
        restored._account = Account.load(state["account"])
        restored.admission.load(state["admission"])
        load_judge(restored._judge, state["judge"], seeds.hash)
        return restored

    def _silent_tally(self, name: str, start: int, end: int, newest_ms: int) -> Tally:
        return empty_tally(name, start, end, newest_ms, self.config.engine.judge_partitions)

    def _submit(self, tally: Tally, rows: Rows | None) -> None:
        def judge() -> None:
            try:
                self._judge.accept(tally)
            finally:
                if rows is not None:
                    self._free.put(rows)

        self._run(judge)

    def _run(self, task: Callable[[], None]) -> None:
        if self._worker is None:
            task()
        else:
            self._worker.submit(task)

    def _drain(self) -> None:
        if self._worker is not None:
            self._worker.drain()

    def _count_records(self, count: SourceCount) -> None:
        decoder = self._decoder
        for total in (self._account, count):
            total.records += decoder.records
            total.empty += decoder.empty
            total.time_replaced += decoder.time_replaced
        self._address_source += decoder.address_source
        self._field_seen += decoder.field_seen

    def _count_poison(self, name: str, buffer: U8, index: int, start: int, offset: int | None) -> None:
        """Poison number ``index`` of the last call of the decoder; ``start`` and ``offset`` are where the record lies."""
        decoder = self._decoder
        at, length = int(decoder.poison_start[index]), int(decoder.poison_length[index])
        excerpt = buffer[at : at + min(length, EXCERPT_BYTES)].tobytes()
        reason = Poison(int(decoder.poison_reason[index]))
        sample = _sample(name, start, length, reason, int(decoder.poison_at[index]), excerpt)
        sample.offset = offset
        self._add_poison(self._sources[name].count, sample)

    def _add_poison(self, count: SourceCount, sample: PoisonSample) -> None:
        self._account.add_poison(sample)
        count.poison[sample.reason] = count.poison.get(sample.reason, 0) + 1

    def _count_events(self, observed: Observed, count: SourceCount) -> None:
        for total in (self._account, count):
            if observed.events:
                first = total.events == 0
                total.newest_ms = observed.newest_ms if first else max(total.newest_ms, observed.newest_ms)
                total.oldest_ms = observed.oldest_ms if first else min(total.oldest_ms, observed.oldest_ms)
            total.events += observed.events
            total.late += observed.late
            total.outside += observed.outside
            total.counted += observed.events - observed.late - observed.outside
        if self.onlooker is not None:
            self.onlooker(observed.tally)


def _sample(name: str, start: int, length: int, reason: Poison, at: int, excerpt: bytes) -> PoisonSample:
    text = excerpt[:EXCERPT_BYTES].decode("utf-8", "backslashreplace")
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return PoisonSample(name, start, length, reason.name.lower(), at, shown)


def _add(totals: dict[str, int], names: tuple[str, ...], counts: Any) -> None:
    for index in np.flatnonzero(counts).tolist():
        name = names[index]
        totals[name] = totals.get(name, 0) + int(counts[index])
