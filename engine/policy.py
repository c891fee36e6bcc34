"""policy: what turns findings into mitigations. It reads no clock: everything follows from ticks.

Each judge partition has a policy of its own, whose budgets are the service's divided by the number of partitions. Only
finals change its state; an early record says what the final will say, and ends soon unless that comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from detectors.kernels.windows import NEVER
from engine.corroborate import Corroboration, Together
from engine.crossing import ADDRESSES, Crossing, address_range, finding_id, identify, target_value, window_of
from engine.feedback import FeedbackRecords
from engine.policy_state import Entry, PolicyState
from engine.standing import Standing, standing_of
from engine.terms import Terms
from schemas.config import Config
from schemas.config import Policy as PolicySection
from schemas.feedback import Feedback
from schemas.fields import Dimension
from schemas.mitigation import Evidence, Finding, Mitigation, Stage, Target, Window

FOR_EVER = 253_402_300_799
"""When what does not end by itself expires: with the year 9999. Readers that know nothing of it hold it all the same."""
DAY_S = 86_400
ACTION_RANKS = {"notify": 0, "challenge": 1, "throttle": 2, "restrict_registration": 3, "block": 4, "disable_key": 5}
Digests = dict[str, tuple[tuple[int, str], ...]]


class Policy:
    """Decides about crossings, in the order they are given.

    Args:
        owned: of how many judge partitions; the budgets of each are the service's divided by ``engine.judge_partitions``.
        feedback: what operators have said.
    """

    def __init__(
        self, config: Config | Standing, fingerprint: str, offsets: Callable[[int, int], dict[str, tuple[int, int]]],
        owned: int, feedback: FeedbackRecords | None = None,
    ) -> None:  # fmt: skip
        standing = standing_of(config) if isinstance(config, Config) else config
        config = standing.config
        self._feedback = feedback or FeedbackRecords(config.policy.feedback_allow_s)
        self._terms = [(NEVER, Terms(standing))]
        """From which second on."""
        self._renew_s, self._drill = config.policy.renew_s, config.policy.drill
        self._lateness_s = config.time.lateness_s
        self._fingerprint = fingerprint
        self._offsets = offsets
        self._offsets_of: dict[tuple[int, int], dict[str, tuple[int, int]]] = {}
        self.digests: Callable[[int, int], Digests] = lambda start, end: {}
        """What the bytes of some seconds were."""
        self.digested: Literal["", "seeded", "unseeded"] = ""
        self.not_counted: Callable[[str, int, int], dict[str, int]] = lambda detector, start, end: {}
        """Of what a detector says about some seconds: what it may lack."""
        self._digests_of: dict[tuple[int, int], Digests] = {}
        self._partitions = [PolicyState(config.policy, config.engine.judge_partitions) for _ in range(owned)]
        self.held = 0

    def plan_terms(self, standing: Standing, tick: int) -> None:
        """What decides from ``tick`` on, also for early records of seconds that are not closed."""
        while self._terms[-1][0] >= tick:
            self._terms.pop()
        self._terms.append((tick, Terms(standing)))

    def take_terms(self, tick: int) -> None:
        """All seconds before ``tick`` are decided: budgets and voices go by what holds from here on."""
        terms = self._terms_at(tick)
        self._terms = [(NEVER, terms), *(one for one in self._terms if one[0] > tick)]
        for state in self._partitions:
            state.take(terms.section)

    def _terms_at(self, tick: int) -> Terms:
        return next(terms for since, terms in reversed(self._terms) if since <= tick)

    def begin(self) -> None:
        """A new batch of crossings: what was looked up for the last one may have changed."""
        self._offsets_of.clear()
        self._digests_of.clear()

    def decide(self, crossing: Crossing, stage: Stage) -> tuple[Finding, Mitigation | None]:
        """The finding as published, and the mitigation that comes of it, if any."""
        rule, tick, terms = crossing.rule, crossing.tick, self._terms_at(crossing.tick)
        value = target_value(crossing.dimension, crossing.key_a, crossing.key_b, crossing.name)
        identifier = finding_id(crossing, value)
        outcome, mitigation = self._mitigate(crossing, value, identifier, stage, terms)
        finding = Finding(
            id=identifier,
            tick=tick,
            stage=stage,
            detector=rule.detector.name,
            detector_version=rule.detector.version,
            target=Target(type=crossing.dimension.label, value=value),
            measure=rule.measure,
            window=window_of(crossing),
            observed=crossing.observed,
            limit=rule.told_limit,
            severity=rule.severity,
            confidence=rule.confidence,
            action=rule.action,
            reason=crossing.told(value),
            dry_run=rule.dry_run,
            outcome=outcome,
            evidence=self._evidence(crossing),
            config_version=terms.version,
        )
        return finding, mitigation

    def spares(self, crossing: Crossing) -> bool:
        """Whether nothing may be done about a target: it is allowlisted, or was called a false positive lately."""
        value = target_value(crossing.dimension, crossing.key_a, crossing.key_b, crossing.name)
        name, label = crossing.rule.detector.name, crossing.dimension.label
        is_allowed = _is_allowed(crossing, value, self._terms_at(crossing.tick))
        return is_allowed or self._feedback.rejection(name, label, value, crossing.tick) is not None

    def act(self, crossing: Crossing, finding: str) -> Mitigation | None:
        """What a step of a playbook comes to, under allowlists, feedback and budgets as everything; ``finding``: that it rests
        on."""
        value = target_value(crossing.dimension, crossing.key_a, crossing.key_b, crossing.name)
        return self._mitigate(crossing, value, finding, "final", self._terms_at(crossing.tick))[1]

    def _mitigate(
        self, crossing: Crossing, value: str, finding: str, stage: Stage, terms: Terms
    ) -> tuple[str, Mitigation | None]:  # fmt: skip
        state = self._partitions[crossing.partition]
        early = stage == "early"
        issued_at = crossing.tick + 1 + (0 if early else self._lateness_s)
        if not early:
            state.budgets.expire(issued_at)
        if crossing.lifts:
            state.for_ever.discard(crossing.key)
            return "lifted", self._given_back(crossing, value, finding, issued_at, terms)
        if _is_allowed(crossing, value, terms):
            return "allowlisted", None
        rule = crossing.rule
        if self._feedback.rejection(rule.detector.name, crossing.dimension.label, value, crossing.tick) is not None:
            return "false_positive", None
        if not early and not rule.alone and not rule.trial:
            state.corroboration.hear(crossing.whom, rule.detector.name, crossing.tick, rule.confidence)
        together = Together((), rule.confidence)
        if not rule.alone:
            together = state.corroboration.together(crossing.whom, rule.detector.name, crossing.tick, rule.confidence)
        entry = state.entries.get(crossing.key)
        cell = crossing.tick // self._renew_s
        version = terms.version_of(rule.detector.name)
        level, outcome = _level(entry, crossing.tick, cell, terms.section)
        action = _action(crossing, level, state.corroboration, together, terms)
        made = cell, version
        if entry is not None and entry.made == made and ACTION_RANKS[action] <= ACTION_RANKS[entry.action]:
            return "merged", None
        if early and not state.is_first_early(crossing.key, made, ACTION_RANKS[action]):
            return "merged", None
        identifier = identify(rule.detector.name, rule.detector.version, crossing.dimension, value, *made)
        counted = action != "notify" and not rule.dry_run
        stands = rule.for_ever and crossing.key in state.for_ever
        minute = (crossing.tick + 1 + self._lateness_s) // 60
        held = crossing.held  # renewed or made stronger, it is in the budgets already
        if counted and not held and not stands and crossing.key not in state.budgets:
            held = state.budgets.exceeded(crossing.whom, crossing.active_keys, minute, early=early)
        end = max(crossing.tick + 1, issued_at)
        if early:
            expires_at = end + max(30, 3 * self._lateness_s)
        elif rule.for_ever:
            # It would fill the budgets for ever, so that it counts in the minute in which it is new.
            expires_at = FOR_EVER
            if stands:
                outcome = "renewed"
            elif counted and not held:
                state.for_ever.add(crossing.key)
                state.budgets.issued += 1
            self.held += held != ""
        else:
            section = terms.section
            ttl_s = rule.ttl_s or min(section.ttl_s * section.escalation_factor ** min(level, 64), section.ttl_s_max)
            expires_at = end + ttl_s
            remembered = Entry(cell, version, identifier, action, "held" if held else "active", level, expires_at)
            state.remember(crossing.key, remembered, issued_at, section, spent=counted and not held)
            self.held += held != ""
        if rule.dry_run:
            outcome = "dry_run"
        elif held:
            outcome = "held"
        elif action == "notify":
            outcome = "notified"
        mitigation = self._mitigation(
            crossing, value, finding, stage, identifier, action, held, issued_at, expires_at, together, terms
        )  # fmt: skip
        return outcome, mitigation

    def lift(self, record: Feedback, tick: int) -> list[Mitigation]:
        """End what stands because of a decision that was wrong, from a second on; it is forgotten, and so is no return."""
        try:
            dimension = Dimension[record.target.type.upper()]
        except KeyError:
            return []
        lifted = []
        for state in self._partitions:
            key = state.standing(record, dimension)
            if key is None:
                continue
            entry = state.entries.pop(key)
            state.budgets.release(key)
            state.corroboration.forget(key[:3], record.detector)
            if entry.expires_at > tick:
                lifted.append(_lifted(record, entry, tick, drill=self._drill, version=self._terms_at(tick).version))
        return lifted

    def revert(self, targets: Sequence[tuple[Dimension, int, int, str, str]], record: Feedback, tick: int) -> list[Mitigation]:
        """End what a run of a playbook has published, each (dimension, key, value, step)."""
        lifted = []
        for dimension, a, b, value, step in targets:
            key = (int(dimension), a, b, step)
            for state in self._partitions:
                entry = state.entries.pop(key, None)
                if entry is None:
                    continue
                state.budgets.release(key)
                if entry.expires_at > tick:
                    about = msgspec.structs.replace(record, detector=step, target=Target(type=dimension.label, value=value))
                    version = self._terms_at(tick).version
                    lifted.append(_lifted(about, entry, tick, drill=self._drill, version=version))
        return lifted

    def _given_back(self, crossing: Crossing, value: str, finding: str, issued_at: int, terms: Terms) -> Mitigation:
        """The record that ends one without an end. It lives for as long as the topic can have kept that one.

        Its id is its own, and no entry has to be found for it: so the version of its second is the right one.
        """
        name, version = crossing.rule.detector.name, crossing.rule.detector.version
        cell = crossing.tick // self._renew_s
        identifier = identify(name, version, crossing.dimension, value, cell, terms.version_of(name))
        expires_at = issued_at + terms.kept_s + DAY_S
        together = Together((), crossing.rule.confidence)
        made = self._mitigation(
            crossing, value, finding, "final", identifier, crossing.rule.action, "", issued_at, expires_at, together, terms
        )  # fmt: skip
        return msgspec.structs.replace(made, state="lifted")

    def _digested_evidence(self, crossing: Crossing, held: str) -> Evidence:
        """Of a mitigation: findings are many, and name theirs."""
        window = window_of(crossing)
        span = (window.start, window.end)
        if span not in self._digests_of:
            self._digests_of[span] = self.digests(*span)
        found = self._digests_of[span]
        evidence = self._evidence(crossing, held)
        return msgspec.structs.replace(evidence, digests=found, digested=self.digested) if found else evidence

    def _evidence(self, crossing: Crossing, held: str = "") -> Evidence:
        window = window_of(crossing)
        span = (window.start, window.end)
        if span not in self._offsets_of:
            self._offsets_of[span] = self._offsets(*span)
        features: dict[str, int | float | str | bool] = {"requests": crossing.requests, "seed": self._fingerprint}
        features |= crossing.features
        features.update(crossing.rule.evidence)
        if crossing.rule.whole_from:
            features["judged_from"] = crossing.rule.whole_from
        if crossing.aged_out:
            features["aged_out"] = True
        features |= self.not_counted(crossing.rule.detector.name, *span)
        if held:
            features["held"] = held
        return Evidence(offsets=self._offsets_of[span], features=features)

    def _mitigation(
        self, crossing: Crossing, value: str, finding: str, stage: Stage, identifier: str, action: str, held: str,
        issued_at: int, expires_at: int, together: Together, terms: Terms,
    ) -> Mitigation:  # fmt: skip
        rule = crossing.rule
        return Mitigation(
            id=identifier,
            tick=crossing.tick,
            stage=stage,
            state="held" if held else "active",
            action=action,
            target=Target(type=crossing.dimension.label, value=value),
            detector=rule.detector.name,
            detector_version=rule.detector.version,
            reason=crossing.told(value)
            + together.sentence
            + (f"; held by {held if '.' in held else f'policy.{held}'}" if held else ""),
            severity=rule.severity,
            confidence=round(together.confidence, 4),
            window=window_of(crossing),
            observed=crossing.observed,
            limit=rule.told_limit,
            issued_at=issued_at,
            expires_at=expires_at,
            dry_run=rule.dry_run,
            drill=self._drill,
            config_version=terms.version,
            evidence=self._digested_evidence(crossing, held),
            finding=finding,
        )

    def save(self) -> list[Any]:
        """Plain data for `load`."""
        return [*(state.save() for state in self._partitions), self.held]

    def load(self, data: list[Any]) -> None:
        """Take over what `save` gave, from the same number of partitions."""
        *partitions, self.held = data
        for state, saved in zip(self._partitions, partitions, strict=True):
            state.load(saved)


def _lifted(record: Feedback, entry: Entry, tick: int, *, drill: bool, version: int) -> Mitigation:
    """It lives as long as what it lifts, so that no reader forgets it earlier."""
    what = f"run {record.id} was reverted by" if record.verdict == "reverted" else "a false positive, says"
    reason = f"lifted: {what} {record.who}" + (f": {record.reason}" if record.reason else "")
    return Mitigation(
        id=entry.id, tick=tick, stage="final", state="lifted", action=entry.action, target=record.target,
        detector=record.detector, detector_version=record.detector_version, reason=reason, severity=0, confidence=1.0,
        window=Window(start=tick, end=tick + 1), observed=0, limit=0, issued_at=tick, expires_at=entry.expires_at,
        drill=drill, config_version=version, evidence=Evidence(features={"who": record.who, "feedback": record.id}),
        finding=record.finding,
    )  # fmt: skip


def _level(entry: Entry | None, tick: int, cell: int, section: PolicySection) -> tuple[int, str]:
    """How often the key has come back, and whether this mitigation is new or goes on."""
    if entry is None:
        return 0, "mitigated"
    if entry.cell == cell:
        return entry.level, "mitigated"
    if tick < entry.expires_at:
        return entry.level, "renewed"
    if entry.action != "notify" and tick - entry.expires_at < section.escalation_memory_s:
        return entry.level + 1, "mitigated"
    return 0, "mitigated"


def _action(crossing: Crossing, level: int, corroboration: Corroboration, together: Together, terms: Terms) -> str:
    shared = crossing.dimension in ADDRESSES and terms.shared.touches(
        *address_range(crossing.dimension, crossing.key_a, crossing.key_b)
    )
    if crossing.rule.exact and not shared:
        return crossing.rule.action
    action = corroboration.raised(crossing.rule.action, crossing.dimension, together, shared=shared)
    if shared and ACTION_RANKS[action] > ACTION_RANKS["throttle"]:
        return "throttle"
    single = crossing.dimension == Dimension.IP and not shared
    level += corroboration.shortens(together)
    return "block" if action == "throttle" and single and level >= terms.section.block_from_level else action


def _is_allowed(crossing: Crossing, value: str, terms: Terms) -> bool:
    if crossing.dimension in ADDRESSES:
        low, high = address_range(crossing.dimension, crossing.key_a, crossing.key_b)
        return terms.allows(low, high, crossing.tick)
    if any(terms.allows(low, high, crossing.tick) for low, high in crossing.spans):
        return True
    return terms.allows_name(crossing.dimension.label, value, crossing.tick)
