"""judge: tallies in, findings and mitigations out. It owns the windows and reads no clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from detectors.entropy import NAME as ENTROPY
from detectors.entropy import EntropySection
from detectors.kernels.long_windows import MINUTE_S
from detectors.kernels.windows import CLOSED, NEVER
from detectors.registry import settings
from detectors.signature import NAME as SIGNATURE
from detectors.signature import SignatureSection
from detectors.windowed import WindowPlan
from engine.crossing import Crossing
from engine.distributed import Distributed
from engine.feedback import FeedbackRecords
from engine.intake import Intake
from engine.judge_windows import HORIZON_S, JudgeWindows, Waiting
from engine.leaked import LeakedList, LeakedWatch, leaked_section
from engine.learned import Learned
from engine.not_counted import LEFT_OUT, NotCounted
from engine.planned import PlannedChanges
from engine.playbooks import Playbooks
from engine.policy import Policy
from engine.reconfigure import carry_over, exchange_rules, is_laid_out_alike, lay_out_again
from engine.seeds import Seeds
from engine.service import ServiceSeries, surge_of
from engine.standing import Standing, standing_of
from schemas.config import Config
from schemas.feedback import Feedback
from schemas.mitigation import Finding, Mitigation, Stage
from schemas.tally import Tally

Publish = Callable[[list[Mitigation], list[Finding]], None]


class Judge(JudgeWindows):
    """Judge partitions that close their ticks together: all of them in one process, or one of them in a worker.

    Args:
        config: the rules, capacities and policy, be it after changes.
        seeds: of every tally that comes.
        publish: called with what was decided, in order.
        early: also decide inside the tick, from what has arrived.
        partition: the one that it judges, with its share of the capacities; none: all. Tallies have as many parts.
        leaked: the keys that have been reported.
        decided: up to this second it was decided before; what is told about that comes afterwards.
    """

    def __init__(
        self, config: Config | Standing, seeds: Seeds, publish: Publish, *, early: bool = False, partition: int | None = None,
        leaked: LeakedList | None = None, decided: int = NEVER,
    ) -> None:  # fmt: skip
        standing = standing_of(config) if isinstance(config, Config) else config
        config, partitions = standing.config, standing.config.engine.judge_partitions
        owned = partitions if partition is None else 1
        super().__init__(standing, owned, standing.plan(decided + 1))
        self.seeds = seeds
        self.changes = PlannedChanges()
        self.applied: list[tuple[int, Standing]] = []
        """Changes that have come to hold since somebody looked, and since when."""
        self.services: ServiceSeries
        self.distributed: Distributed
        self.intake = Intake(config.time.lateness_s * 1000)
        self.not_counted = NotCounted()
        self.feedback = FeedbackRecords(config.policy.feedback_allow_s)
        self.policy = Policy(standing, seeds.fingerprint, self.intake.offsets, owned, self.feedback)
        self.policy.digests, self.policy.digested = self.intake.digests, "seeded" if seeds.configured else "unseeded"
        self.policy.not_counted = self.not_counted.behind
        # Of these two only playbooks change anything on the way (`engine.config_chain`), and none makes them forget.
        self.leaked = LeakedWatch(leaked_section(config), leaked, partition, config.policy.renew_s)
        self.leaked.take(config)
        self.learned = Learned(config, owned)
        self.playbooks = Playbooks(standing)
        self.covered: int | None = None
        """The last second that is in the learned detectors' snapshots; None: they are in every saved state, whole."""
        self._publish = publish
        self._early, self._silent = early, False
        self._rebuilt_to = NEVER
        self._rows_max = config.engine.rows_max * owned // partitions
        self.make_distributed(config)
        self.changes.add_steps(standing, standing.steps(decided + 1))
        self.make_surge(config)
        self._note_windowed()
        self.waiting: list[Waiting] = []
        self.truncated = 0

    def make_surge(self, config: Config) -> None:
        """What learns of services and busy routes, knowing nothing yet."""
        self.services = ServiceSeries(surge_of(config))
        self.make_routes(config)

    def make_distributed(self, config: Config) -> None:
        """What explains surpluses, knowing nothing yet."""
        sections = settings(config)
        signature, entropy = sections[SIGNATURE], sections[ENTROPY]
        assert isinstance(signature, SignatureSection)
        assert isinstance(entropy, EntropySection)
        self.distributed = Distributed(
            signature if signature.enabled else None, entropy if entropy.enabled else None, config.policy.renew_s
        )

    def _note_windowed(self) -> None:
        self.not_counted.windowed = {rule.detector.name for rules in self.plan.rules for rule in rules}

    def accept(self, tally: Tally) -> None:
        """Take in one tally and decide what it closes. Its arrays may be used again when this returns."""
        taken, gap = self.intake.accept(tally)
        if not taken:
            return
        self.truncated += tally.truncated
        if gap:
            self.mute(max(tally.tick_max, tally.newest_ms // 1000))
        self.not_counted.note_tally(tally, self.closed)
        new = Waiting(tally, tally.partition_start[:-1].copy()) if tally.rows else None
        self._leave_out(self.closed + 1, tally.tick_max, self.distributed.add(tally.sample))
        self.leaked.add(tally, self.closed)
        self.learned.add(tally)
        if self._early and (hints := self.distributed.early(self.closed, self.muted)):
            self._tell(hints, "early")
        self._advance(new)
        if new is not None and new.left:
            self.waiting.append(new.keep())
            self._bound_waiting()

    def _leave_out(self, first: int, last: int, many: int) -> None:
        self.truncated += many
        self.not_counted.note(LEFT_OUT, first, last, many)

    def advance(self) -> None:
        """Decide what can be decided: a source partition has been closed."""
        self._advance(None)

    def finish(self) -> None:
        """Close every tick there is."""
        self.intake.finish()
        self._advance(None)

    def receive(self, record: Feedback) -> None:
        """What an operator says; it holds from the second that it names."""
        self.feedback.forget(self.closed, self.closed if self.covered is None else self.covered)
        self.feedback.receive(record, self.closed)

    def reconfigure(self, standing: Standing, tick: int) -> int:
        """From ``tick`` on another configuration holds; changes come in the order of their ticks.

        Returns:
            from when on it does: ``tick``, or the second after the last closed one if that is later.
        """
        since = max(tick, self.closed + 1)
        self.changes.add(standing, since)
        self.policy.plan_terms(standing, since)
        return since

    def _change_rules(self) -> None:
        """Take over what holds from the next second on."""
        while (change := self.changes.take_due(self.closed)) is not None:
            self._judge_services()
            before, self.standing = self.standing, change.standing
            (exchange_rules if is_laid_out_alike(self.plan, change.plan) else lay_out_again)(self, change.plan)
            self._note_windowed()
            if before is not change.standing:
                carry_over(self, before.config, change.standing.config)
                self.policy.take_terms(change.tick)
                self.playbooks.take(change.standing)
                self.leaked.take(change.standing.config)
                self.applied.append((change.tick, change.standing))

    def _advance(self, new: Waiting | None) -> None:
        target = self.intake.target()
        if target is not None and self.changes.known_to is not None:
            target = min(target, self.changes.known_to)
        queue = [*self.waiting, new] if new is not None else list(self.waiting)
        if self.closed == NEVER:
            if not self._anchor(target, queue):
                return
            self._change_rules()
            self._hear(NEVER, self.closed)  # what was said before time began
        while target is not None and (tick := self.feedback.next_tick(self.closed)) is not None and tick <= target:
            # Rules of the same second have been exchanged when this returns: they come first, so that what is lifted says the
            # version that decides from this second on, whichever of the two was heard of earlier.
            self._advance_to(tick - 1, new)
            self._hear(tick - 1, tick)
            self._advance_to(tick, new)
        self._advance_to(target, new)

    def _hear(self, after: int, upto: int) -> None:
        """Act on what holds from these seconds on."""
        for tick, record in self.feedback.due(after, upto):
            if record.verdict == "reverted":
                if lifted := self.policy.revert(self.playbooks.revert(record.id, tick), record, tick):
                    self._publish(lifted, [])
                continue
            self.feedback.learned += self.learned.feedback(record)
            if record.verdict == "false_positive" and (lifted := self.policy.lift(record, tick)):
                self._publish(lifted, [])

    def _advance_to(self, target: int | None, new: Waiting | None) -> None:
        queue = [*self.waiting, new] if new is not None else list(self.waiting)
        while True:
            self._change_rules()
            limit = self.changes.reach(self.plan, self.closed + HORIZON_S)
            until = None if target is None or self.closed >= target else self.changes.last_tick(target)
            # One is taken in as ticks close, partition by partition; not where what crosses a limit early is told first.
            last = queue[-1] if queue and until is not None and not self._early else None
            for waiting in queue:
                if waiting is not last:
                    self._insert(waiting, limit)
            if last is not None and until is not None:
                self._close(min(until, limit), emit=True, waiting=last, limit=limit)
            queue = [waiting for waiting in queue if waiting.left]
            if target is None or until is None:
                break
            end = min(until, limit) if queue else until
            if last is None or self.closed < end:
                self._close(end, emit=True)
            if self.closed >= target and not queue and not self.changes.is_due(self.closed):
                break
            if queue and self.rows == 0:  # nothing until then: a gap of any length costs one step
                ahead = min(min(waiting.least_tick() for waiting in queue) - 1, until)
                if ahead > self.closed:
                    self._close(ahead, emit=True)
        self.waiting = [waiting for waiting in queue if waiting is not new]
        self._judge_services()
        if target is not None:
            self.intake.forget(self.closed - self.span_s - 1, self.closed - self.plan.long_span_s - 1)
            self.not_counted.forget(self.closed - max(self.span_s, self.plan.long_span_s) - 1)

    def _judge_services(self) -> None:
        told = [found for found in self.services.close(self.closed) if found.tick - MINUTE_S >= self.muted]
        told += self.distributed.close(self.closed, self.muted)
        told += self.leaked.close(self.closed)
        self.learned.note(told)
        told += self.learned.close(self.closed, self.muted)
        self.learned.suspicions.heard(self.closed, self.closed if self.covered is None else self.covered)
        if told:
            self._tell(told, "final")
        self.playbooks.hear_load(self.services.take_minutes())
        steps = [self.policy.act(step, finding) for step, finding in self.playbooks.close()]
        if steps:
            self._publish([mitigation for mitigation in steps if mitigation is not None], [])

    def _anchor(self, target: int | None, queue: list[Waiting]) -> bool:
        """Say where time begins, once that is known."""
        if target is None or not queue:
            return False
        self.windows.scalars[:, CLOSED] = min(target, min(waiting.least_tick() for waiting in queue) - 1)
        return True

    def _insert(self, waiting: Waiting, limit: int) -> None:
        """Rows up to ``limit``; those of seconds for which a change is known are compared with its limits at once."""
        for last, plan in self.changes.spans(self.plan, limit) if self._early else [(limit, self.plan)]:
            self._insert_under(waiting, last, plan)

    def _insert_under(self, waiting: Waiting, limit: int, plan: WindowPlan) -> None:
        services, done = np.empty(waiting.tally.rows + 1, np.int64), False
        while not done:
            crossed, done = self._take_rows(waiting, limit, plan, services, early=self._early)
            if not self._silent:
                self.services.add(waiting.tally, services)
            if crossed:
                self._tell(crossed, "early")

    def _close(self, target: int, *, emit: bool, waiting: Waiting | None = None, limit: int = NEVER) -> None:
        """Close ticks up to ``target``, after rows of a tally up to ``limit`` have been taken in."""
        taken = self._nothing if waiting is None else waiting
        services = np.empty(taken.tally.rows + 1, np.int64)
        told = self._close_ticks(target, services, taken, limit, emit=emit)
        if not self._silent:
            self.services.add(taken.tally, services)
        if told:
            self.learned.note(told)
            self._tell(told, "final")

    def _tell(self, crossings: list[Crossing], stage: Stage) -> None:
        """Turn crossings into decisions, in the order that the policy walks them."""
        if stage == "final":
            crossings.sort(
                key=lambda c: (
                    c.tick, -c.rule.severity, c.rule.detector.name, c.dimension, c.key_a, c.key_b, c.rule.window_s,
                    c.rule.measure,
                )
            )  # fmt: skip
        self.policy.begin()
        mitigations, findings = [], []
        for crossing in crossings:
            if crossing.goes_on:
                if stage == "final" and not self.policy.spares(crossing):
                    self.playbooks.hear(crossing, None)
                continue
            finding, mitigation = self.policy.decide(crossing, stage)
            if stage == "final":
                self.playbooks.hear(crossing, finding)
            findings.append(finding)
            if mitigation is not None:
                mitigations.append(mitigation)
        self._publish(mitigations, findings)

    def _bound_waiting(self) -> None:
        """What waits is bounded too: first the slowest source partition is left behind, then the furthest rows go."""
        while sum(waiting.left for waiting in self.waiting) > self._rows_max:
            if self.intake.leave_slowest():
                self._advance(None)
                continue
            furthest = max(self.waiting, key=lambda waiting: waiting.tally.tick_max)
            self._leave_out(furthest.tally.tick_min, furthest.tally.tick_max, furthest.left)
            self.waiting.remove(furthest)

    def rebuild(self, tally: Tally, closed: int) -> None:
        """Take rows whose ticks up to ``closed`` were decided before: the windows become what they were, nothing is told."""
        waiting = Waiting(tally, tally.partition_start[:-1].copy())
        if closed == NEVER:
            if tally.rows:
                self.waiting.append(waiting.keep())
            return
        self.windows.scalars[:, CLOSED] = min(closed, waiting.least_tick() - 1) if tally.rows else closed
        early, self._early, self._silent = self._early, False, True
        while True:
            self._insert(waiting, self.changes.reach(self.plan, self.closed + HORIZON_S, closed))
            self._close(min(closed, self.closed + HORIZON_S), emit=False)
            if self.closed >= closed:
                self._insert(waiting, self.changes.reach(self.plan, closed + HORIZON_S, closed))
                break
            if self.rows == 0:
                ahead = min(waiting.least_tick() - 1, closed) if waiting.left else closed
                self.windows.scalars[:, CLOSED] = max(self.closed, ahead)
        self._early, self._silent = early, False
        if waiting.left:
            self.waiting.append(waiting.keep())

    def begin_rebuild(self, closed: int) -> None:
        """Before tallies are read again: ticks up to ``closed`` were decided, and no row of one past is in a window."""
        self._rebuilt_to = closed
        if closed != NEVER:
            self.windows.scalars[:, CLOSED] = closed - self.span_s - 1

    def rebuild_from(self, tally: Tally, *, learn: bool) -> None:
        """Take in a tally that was accepted before, in any order; nothing is decided.

        ``learn``: no snapshot of a learned detector holds it.
        """
        if learn:
            self.learned.add(tally)
        if tally.rows:
            self.intake.remember(tally)
            self.distributed.add(tally.sample)
            waiting = Waiting(tally, tally.partition_start[:-1].copy())
            if self.closed != NEVER:
                self._insert_silently([waiting])
            if waiting.left:
                self.waiting.append(waiting.keep())

    def end_rebuild(self, closed: int) -> None:
        """All has been read again: the windows become what they were when ``closed`` had been decided."""
        while self.closed < closed:
            self._close(min(closed, self.closed + HORIZON_S), emit=False)
            self._insert_silently(self.waiting)
        self.waiting = [waiting for waiting in self.waiting if waiting.left]
        self.distributed.resume()

    def learn_again(self, covered: int, closed: int) -> None:
        """Snapshots of the learned detectors cover the seconds up to ``covered``: what was decided since is learned again."""
        for tick, record in self.feedback.due(covered, closed):
            self.learned.close(tick - 1, self.muted)
            self.learned.feedback(record)
        self.learned.close(closed, self.muted)

    def _insert_silently(self, queue: list[Waiting]) -> None:
        early, self._early, self._silent = self._early, False, True
        for waiting in queue:
            self._insert(waiting, self.changes.reach(self.plan, self.closed + HORIZON_S, self._rebuilt_to))
        self._early, self._silent = early, False

    def save(self) -> dict[str, Any]:
        """Plain data beside the rows: see `engine.snapshot`."""
        return {
            "intake": self.intake.save(),
            "services": self.services.save(),
            "distributed": self.distributed.save(cells=True),
            "routes": self.routes.save(),
            "leaked": self.leaked.save(),
            "policy": self.policy.save(),
            "feedback": self.feedback.save(rejected=True),
            "learned": self.learned.save(),
            "suspicions": self.learned.suspicions.save(),
            "playbooks": self.playbooks.save(),
            "truncated": self.truncated,
            "not_counted": self.not_counted.save(),
            "closed": self.closed,
            "scalars": self.windows.scalars.tolist(),
        }
