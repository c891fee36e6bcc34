"""One judge partition in a worker: bytes of tallies in, decisions out, and the record that lets another go on."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from detectors.kernels.windows import NEVER
from engine.config_chain import Accepted, ConfigChain
from engine.intake import ANY_OFFSET
from engine.judge import Judge
from engine.leaked import LeakedList
from engine.model_state import Fresh, Snapshots
from engine.outbox import Decisions, Outbox
from engine.record import Record, begin_judge, encode_record, end_judge
from engine.seeds import Seeds
from engine.shipping import receive_tally
from engine.standing import Standing
from schemas.config import Config
from schemas.tally import Tally


class JudgePost:
    """A judge and where it stands in its partition of tallies.

    Args:
        config: everything that can be set.
        seeds: of observers and judges alike.
        partition: which judge partition.
        sources: every source partition there is, so that none is overtaken before it has spoken.
        early: also decide inside the tick.
        leaked: the keys that have been reported, which all judges of a process share.
        history: changes of the configuration so far.
    """

    def __init__(
        self, config: Config, seeds: Seeds, partition: int, sources: list[str], *, early: bool,
        leaked: LeakedList | None = None, history: ConfigChain | None = None,
    ) -> None:  # fmt: skip
        self.partition = partition
        self.position = 0
        """The next offset of the tallies."""
        self._config, self._seeds, self._hash = config, seeds, seeds.hash
        self._partitions = config.engine.judge_partitions
        self._sources = sources
        self._outbox = Outbox()
        self._history, self._leaked, self._early = history, leaked, early
        self._known_to: int | None = None
        self._sit_down(NEVER)
        self._needed: deque[tuple[int, int]] = deque()
        self._ends: dict[str, int] = {}
        self._open_sources()

    def _sit_down(self, closed: int) -> None:
        """A judge that has decided up to a second, and the snapshots of what it will learn."""
        self.judge = self._make_judge(closed)
        self.snapshots = Snapshots(self.judge.learned, self._seeds, (self.partition, self._partitions))
        self._follow_snapshots()

    def _make_judge(self, closed: int) -> Judge:
        """With what stands after a second, and what will from later ones on."""
        standing = self._config if self._history is None else self._history.standing_at(closed + 1)
        judge = Judge(
            standing, self._seeds, self._outbox.publish, early=self._early, partition=self.partition, leaked=self._leaked,
            decided=closed,
        )  # fmt: skip
        for accepted in () if self._history is None else self._history.after(closed + 1):
            judge.reconfigure(accepted.standing, accepted.change.effective_tick)
        self._heard = 0 if self._history is None else len(self._history.accepted)
        judge.changes.known_to = self._known_to
        return judge

    def _open_sources(self) -> None:
        intake = self.judge.intake
        for name in self._sources:
            if name not in intake.sources:
                intake.open(name, ANY_OFFSET)
            intake.sources[name].open = True
        for name in intake.sources.keys() - set(self._sources):
            intake.close(name)  # its topic is read no more

    def begin(self, record: Record) -> None:
        """Take over a record; then `Snapshots.restore` what it names, then `reread` the tallies of [record.rebuild_from,
        record.position), then `end`."""
        if self._history is not None and self._history.accepted:
            self._sit_down(record.closed)
        begin_judge(self.judge, record)
        self.snapshots.load(record.state["models"])
        self._follow_snapshots()
        self._open_sources()

    def _follow_snapshots(self) -> None:
        self.judge.covered = self.snapshots.covered if self.judge.learned.detectors else None

    def reread(self, offset: int, data: bytes) -> None:
        """Take in a tally that was judged before the record was written."""
        tally = self._receive(data)
        if tally.start < tally.end <= self._ends.get(tally.source, 0):
            return  # sent twice, and dropped then as now
        self._ends[tally.source] = tally.end
        learned_to = self.snapshots.position
        self.judge.rebuild_from(tally, learn=learned_to is None or offset >= learned_to)
        self._need(offset, tally)

    def end(self, record: Record) -> None:
        """Everything has been read again."""
        end_judge(self.judge, record, self._seeds)
        if record.closed != NEVER:
            self.judge.learn_again(self.snapshots.covered, record.closed)
        self.position = record.position
        self._ends.clear()

    def accept(self, offset: int, data: bytes) -> None:
        """Judge one tally."""
        tally = self._receive(data)
        self.judge.accept(tally)
        self._need(offset, tally)
        self.position = offset + 1

    def _receive(self, data: bytes) -> Tally:
        tally = receive_tally(data, self._hash, self.partition, self._partitions)
        if tally.source not in self.judge.intake.sources:  # a partition that was added to a topic since we asked
            self.judge.intake.open(tally.source, ANY_OFFSET)
        return tally

    def _need(self, offset: int, tally: Tally) -> None:
        if tally.rows:
            self._needed.append((offset, tally.tick_max))

    def hear(self, known_to: int) -> list[tuple[Accepted, int]]:
        """Take in what the history has gained.

        Args:
            known_to: no other change can hold from this second on or before.

        Returns:
            the changes, and from when on each holds here; see `Judge.reconfigure`.
        """
        assert self._history is not None
        new, self._heard = self._history.accepted[self._heard :], len(self._history.accepted)
        self._known_to = self.judge.changes.known_to = max(known_to, self._known_to or known_to)
        return [(one, self.judge.reconfigure(one.standing, one.change.effective_tick)) for one in new]

    def take_applied(self) -> list[tuple[int, Standing]]:
        """Changes that have come to hold since the last call, and since when."""
        applied, self.judge.applied = self.judge.applied, []
        return applied

    def take(self) -> Decisions:
        """What was decided since the last call."""
        return self._outbox.take()

    def models_due(self) -> list[Fresh]:
        """Snapshots of models to be written before the next `record`; tell `models_written` when they have arrived."""
        return self.snapshots.due(self.position, self.judge.closed)

    def models_written(self, fresh: Sequence[tuple[Fresh, list[int]]]) -> None:
        """What `models_due` gave lies at these offsets."""
        if self.snapshots.is_due(self.judge.closed):
            self.snapshots.cover(fresh, self.position, self.judge.closed)
            self._follow_snapshots()

    def record(self) -> bytes:
        """Where it stands. Take the decisions first and see that they arrive: the record says that they have.

        Models that are due are written before it, so that it names those.
        """
        before = self.judge.closed - self.judge.span_s
        while self._needed and self.judge.closed != NEVER and self._needed[0][1] <= before:
            self._needed.popleft()
        rebuild_from = self._needed[0][0] if self._needed else self.position
        if self.snapshots.position is not None:
            rebuild_from = min(rebuild_from, self.snapshots.position)
        return encode_record(
            self.judge, self._config, self._seeds, self.partition, self.position, rebuild_from, self.snapshots.save()
        )
