"""policy: what turns findings into mitigations. It reads no clock: everything follows from ticks.

Each judge partition has a policy of its own, whose budgets are the service's divided by the number of partitions. Only
finals change its state; an early record says what the final will say, and ends soon unless that comes.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from detectors.windowed import WindowRule
from engine.budgets import Budgets, Key
from engine.corroborate import Corroboration, Together, Whom
from engine.feedback import FeedbackRecords
from schemas.config import Config, parse_prefixes
from schemas.feedback import Feedback
from schemas.fields import Dimension
from schemas.mitigation import Evidence, Finding, Mitigation, Stage, State, Target, Window
from schemas.prefixes import Prefixes

CONFIG_VERSION = 1
"""Of a configuration that comes from a file."""
_RANK = {"notify": 0, "challenge": 1, "throttle": 2, "restrict_registration": 3, "block": 4, "disable_key": 5}
_ADDRESSES = (Dimension.IP, Dimension.NET)
_MEMORY_FACTOR = 4
"""A partition remembers the returns of so many times its share of ``active_max``."""


def unsigned(words: tuple[int, int]) -> tuple[int, int]:
    """A key's words as a `Crossing` has them; records hold them as signed numbers."""
    a, b = (word & (1 << 64) - 1 for word in words)
    return a, b


@dataclass(frozen=True, slots=True)
class Crossing:
    """One rule over its limit for one key at one tick."""

    partition: int
    dimension: Dimension
    key_a: int
    key_b: int
    name: bytes
    rule: WindowRule
    tick: int
    observed: int
    requests: int
    active_keys: int
    aged_out: bool
    """The partition gave up keys within the window: the sum may be too low."""
    reason: str = ""
    """The sentence, where the rule and the number do not make it"""
    features: tuple[tuple[str, int | float | str], ...] = ()
    """More numbers, for the evidence"""
    spans: tuple[tuple[int, int], ...] = ()
    """Addresses that a signature matches now or usually: none of them may be on an allowlist."""

    def told(self, value: str) -> str:
        """The sentence."""
        return self.reason or self.rule.detector.describe(self.rule, value, self.observed)

    @property
    def whom(self) -> Whom:
        """Whom it is about."""
        return int(self.dimension), self.key_a, self.key_b

    @property
    def key(self) -> Key:
        """Whom it is about, and who says so."""
        return (*self.whom, self.rule.detector.name)


def target_value(dimension: Dimension, a: int, b: int, name: bytes) -> str:
    """How a key is written: an address, a prefix, or its name."""
    if dimension in _ADDRESSES:
        if a == 0 and b >> 32 == 0xFFFF:
            text = f"{b >> 24 & 255}.{b >> 16 & 255}.{b >> 8 & 255}.{b & 255}"
            return text if dimension == Dimension.IP else text + "/24"
        return f"{ipaddress.IPv6Address(a << 64)}/{64 if dimension == Dimension.IP else 48}"
    if dimension == Dimension.ASN:
        return str(a)
    return name.decode("utf-8", "backslashreplace")


def address_range(dimension: Dimension, a: int, b: int) -> tuple[int, int]:
    """First and last IPv6 address (IPv4 mapped) of an `ip` or `net` key."""
    if a == 0 and b >> 32 == 0xFFFF:
        return b, b + (0 if dimension == Dimension.IP else 255)
    return a << 64, (a << 64) + (1 << (64 if dimension == Dimension.IP else 80)) - 1


@dataclass(slots=True)
class _Entry:
    """What the policy remembers of one key."""

    cell: int
    id: str
    action: str
    state: State
    level: int
    expires_at: int


class _Partition:
    """The state of one judge partition's policy."""

    def __init__(self, budgets: Budgets, corroboration: Corroboration) -> None:
        self.budgets, self.corroboration = budgets, corroboration
        self.entries: dict[Key, _Entry] = {}
        self.early: dict[Key, tuple[int, str]] = {}
        self.early_minute = -1

    def forget(self, now: int, memory_s: int, most: int) -> None:
        """Keep at most ``most`` entries: first those go that no return can refer to, then the oldest that have expired."""
        if len(self.entries) <= most:
            return
        for horizon in (now - memory_s, now):
            gone = [key for key, entry in self.entries.items() if entry.expires_at < horizon and key not in self.budgets]
            for key in gone:
                if len(self.entries) <= most // 2:
                    return
                del self.entries[key]


class Policy:
    """Decides about crossings, in the order they are given.

    Args:
        owned: of how many judge partitions; the budgets of each are the service's divided by ``engine.judge_partitions``.
        feedback: what operators have said.
    """

    def __init__(
        self, config: Config, fingerprint: str, offsets: Callable[[int, int], dict[str, tuple[int, int]]], owned: int,
        feedback: FeedbackRecords | None = None,
    ) -> None:  # fmt: skip
        self._feedback = feedback or FeedbackRecords(config.policy.feedback_allow_s)
        self._config = config.policy
        self._lateness_s = config.time.lateness_s
        self._fingerprint = fingerprint
        self._offsets = offsets
        self._offsets_of: dict[tuple[int, int], dict[str, tuple[int, int]]] = {}
        partitions = config.engine.judge_partitions
        self._entries_max = 1024 + _MEMORY_FACTOR * -(-self._config.active_max // partitions)
        self._partitions = [_Partition(Budgets(self._config, partitions), Corroboration(self._config)) for _ in range(owned)]
        core = list(parse_prefixes(self._config.allowlist_core, "policy.allowlist_core"))
        self._passing: list[tuple[int, Prefixes]] = []
        self._allowed_names: dict[tuple[str, str], int | None] = {}
        for allow in self._config.allow:
            if allow.dimension not in ("ip", "net"):
                self._allowed_names[allow.dimension, allow.value] = allow.expires_tick
                continue
            networks = parse_prefixes((allow.value,), "policy.allow")
            if allow.expires_tick is None:
                core += networks
            else:
                self._passing.append((allow.expires_tick, Prefixes(networks)))
        self._allowed = Prefixes(core)
        self._shared = Prefixes(parse_prefixes(self._config.shared_networks, "policy.shared_networks"))
        self.held = 0

    def begin(self) -> None:
        """A new batch of crossings: what was looked up for the last one may have changed."""
        self._offsets_of.clear()

    def decide(self, crossing: Crossing, stage: Stage) -> tuple[Finding, Mitigation | None]:
        """The finding as published, and the mitigation that comes of it, if any."""
        rule, tick = crossing.rule, crossing.tick
        value = target_value(crossing.dimension, crossing.key_a, crossing.key_b, crossing.name)
        identifier = finding_id(crossing, value)
        outcome, mitigation = self._mitigate(crossing, value, identifier, stage)
        finding = Finding(
            id=identifier,
            tick=tick,
            stage=stage,
            detector=rule.detector.name,
            detector_version=rule.detector.version,
            target=Target(type=crossing.dimension.label, value=value),
            measure=rule.measure,
            window=_window(crossing),
            observed=crossing.observed,
            limit=rule.told_limit,
            severity=rule.severity,
            confidence=rule.confidence,
            action=rule.action,
            reason=crossing.told(value),
            dry_run=rule.dry_run,
            outcome=outcome,
            evidence=self._evidence(crossing),
            config_version=CONFIG_VERSION,
        )
        return finding, mitigation

    def _mitigate(
        self, crossing: Crossing, value: str, finding: str, stage: Stage
    ) -> tuple[str, Mitigation | None]:  # fmt: skip
        state = self._partitions[crossing.partition]
        early = stage == "early"
        issued_at = crossing.tick + 1 + (0 if early else self._lateness_s)
        if not early:
            state.budgets.expire(issued_at)
        if self._is_allowed(crossing, value):
            return "allowlisted", None
        rule = crossing.rule
        if self._feedback.rejection(rule.detector.name, crossing.dimension.label, value, crossing.tick) is not None:
            return "false_positive", None
        if not early:
            state.corroboration.hear(crossing.whom, rule.detector.name, crossing.tick, rule.confidence)
        together = state.corroboration.together(crossing.whom, rule.detector.name, crossing.tick, rule.confidence)
        entry = state.entries.get(crossing.key)
        cell = crossing.tick // self._config.renew_s
        level, outcome = self._level(entry, crossing.tick, cell)
        action = self._action(crossing, level, state.corroboration, together)
        if entry is not None and entry.cell == cell and _RANK[action] <= _RANK[entry.action]:
            return "merged", None
        if early and not self._is_first_early(state, crossing.key, cell, action):
            return "merged", None
        identifier = _identify(rule.detector.name, rule.detector.version, crossing.dimension, value, cell, CONFIG_VERSION)
        counted = action != "notify" and not rule.dry_run
        minute = (crossing.tick + 1 + self._lateness_s) // 60
        held = (
            counted  # renewed or made stronger, it is in the budgets already
            and crossing.key not in state.budgets
            and state.budgets.is_exceeded(crossing.whom, crossing.active_keys, minute, early=early)
        )
        end = max(crossing.tick + 1, issued_at)
        if early:
            expires_at = end + max(30, 3 * self._lateness_s)
        else:
            ttl_s = rule.ttl_s or min(
                self._config.ttl_s * self._config.escalation_factor ** min(level, 64), self._config.ttl_s_max
            )
            expires_at = end + ttl_s
            remembered = _Entry(cell, identifier, action, "held" if held else "active", level, expires_at)
            self._remember(state, crossing.key, remembered, issued_at, spent=counted and not held)
            self.held += held
        if rule.dry_run:
            outcome = "dry_run"
        elif held:
            outcome = "held"
        elif action == "notify":
            outcome = "notified"
        mitigation = self._mitigation(
            crossing, value, finding, stage, identifier, action, held, issued_at, expires_at, together
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
            key = self._standing(state, record, dimension)
            if key is None:
                continue
            entry = state.entries.pop(key)
            state.budgets.release(key)
            state.corroboration.forget(key[:3], record.detector)
            if entry.expires_at > tick:
                lifted.append(_lifted(record, entry, tick, drill=self._config.drill))
        return lifted

    @staticmethod
    def _standing(state: _Partition, record: Feedback, dimension: Dimension) -> Key | None:
        """The key of the entry that a record is about: its id follows from what the record says and from its cell."""
        ids: dict[int, str] = {}
        for key, entry in state.entries.items():
            if key[0] != dimension or key[3] != record.detector:
                continue
            if entry.cell not in ids:
                words = record.detector, record.detector_version, dimension, record.target.value, entry.cell, CONFIG_VERSION
                ids[entry.cell] = _identify(*words)
            if ids[entry.cell] == entry.id:
                return key
        return None

    def _level(self, entry: _Entry | None, tick: int, cell: int) -> tuple[int, str]:
        """How often the key has come back, and whether this mitigation is new or goes on."""
        if entry is None:
            return 0, "mitigated"
        if entry.cell == cell:
            return entry.level, "mitigated"
        if tick < entry.expires_at:
            return entry.level, "renewed"
        if entry.action != "notify" and tick - entry.expires_at < self._config.escalation_memory_s:
            return entry.level + 1, "mitigated"
        return 0, "mitigated"

    def _action(self, crossing: Crossing, level: int, corroboration: Corroboration, together: Together) -> str:
        shared = crossing.dimension in _ADDRESSES and self._shared.touches(
            *address_range(crossing.dimension, crossing.key_a, crossing.key_b)
        )
        action = corroboration.raised(crossing.rule.action, crossing.dimension, together, shared=shared)
        if shared and _RANK[action] > _RANK["throttle"]:
            return "throttle"
        single = crossing.dimension == Dimension.IP and not shared
        level += corroboration.shortens(together)
        return "block" if action == "throttle" and single and level >= self._config.block_from_level else action

    def _is_allowed(self, crossing: Crossing, value: str) -> bool:
        if crossing.dimension in _ADDRESSES:
            low, high = address_range(crossing.dimension, crossing.key_a, crossing.key_b)
            return self._is_passing(low, high, crossing.tick)
        if any(self._is_passing(low, high, crossing.tick) for low, high in crossing.spans):
            return True
        name = crossing.dimension.label, value
        if name not in self._allowed_names:
            return False
        until = self._allowed_names[name]
        return until is None or crossing.tick < until

    def _is_passing(self, low: int, high: int, tick: int) -> bool:
        return self._allowed.touches(low, high) or any(
            tick < until and prefixes.touches(low, high) for until, prefixes in self._passing
        )

    def _is_first_early(self, state: _Partition, key: Key, cell: int, action: str) -> bool:
        """One early record per key and cell, unless the action grows."""
        if state.early_minute != cell:
            state.early = {k: entry for k, entry in state.early.items() if entry[0] >= cell - 1}
            state.early_minute = cell
        known = state.early.get(key)
        if known is not None and known[0] == cell and _RANK[known[1]] >= _RANK[action]:
            return False
        state.early[key] = (cell, action)
        return True

    def _remember(self, state: _Partition, key: Key, entry: _Entry, now: int, *, spent: bool) -> None:
        state.entries.pop(key, None)
        state.entries[key] = entry
        if spent:
            state.budgets.spend(key, entry.expires_at)
        else:
            state.budgets.release(key)
        state.forget(now, self._config.escalation_memory_s, self._entries_max)

    def _evidence(self, crossing: Crossing) -> Evidence:
        window = _window(crossing)
        span = (window.start, window.end)
        if span not in self._offsets_of:
            self._offsets_of[span] = self._offsets(*span)
        features: dict[str, int | float | str | bool] = {"requests": crossing.requests, "seed": self._fingerprint}
        features |= crossing.features
        features.update(crossing.rule.evidence)
        if crossing.aged_out:
            features["aged_out"] = True
        return Evidence(offsets=self._offsets_of[span], features=features)

    def _mitigation(
        self, crossing: Crossing, value: str, finding: str, stage: Stage, identifier: str, action: str, held: bool,
        issued_at: int, expires_at: int, together: Together,
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
            reason=crossing.told(value) + together.sentence,
            severity=rule.severity,
            confidence=round(together.confidence, 4),
            window=_window(crossing),
            observed=crossing.observed,
            limit=rule.told_limit,
            issued_at=issued_at,
            expires_at=expires_at,
            dry_run=rule.dry_run,
            drill=self._config.drill,
            config_version=CONFIG_VERSION,
            evidence=self._evidence(crossing),
            finding=finding,
        )

    def save(self) -> list[Any]:
        """Plain data for `load`."""
        return [
            [
                [
                    [*key, e.cell, e.id, e.action, e.state, e.level, e.expires_at, key in state.budgets]
                    for key, e in state.entries.items()
                ],
                state.budgets.minute,
                state.budgets.issued,
                state.corroboration.save(),
            ]
            for state in self._partitions
        ] + [self.held]

    def load(self, data: list[Any]) -> None:
        """Take over what `save` gave, from the same number of partitions."""
        *partitions, self.held = data
        for state, (entries, minute, issued, heard) in zip(self._partitions, partitions, strict=True):
            state.budgets.minute, state.budgets.issued = minute, issued
            state.corroboration.load(heard)
            for dimension, a, b, detector, cell, identifier, action, condition, level, expires_at, counted in entries:
                key = (dimension, a, b, detector)
                state.entries[key] = _Entry(cell, identifier, action, condition, level, expires_at)
                if counted:
                    state.budgets.restore(key, expires_at)


def finding_id(crossing: Crossing, value: str) -> str:
    """Of the finding that a crossing becomes; ``value`` is its target's."""
    rule = crossing.rule
    return _identify(
        "finding", rule.detector.name, crossing.dimension, value, rule.measure, rule.window_s, rule.limit, crossing.tick
    )


def _lifted(record: Feedback, entry: _Entry, tick: int, *, drill: bool) -> Mitigation:
    """It lives as long as what it lifts, so that no reader forgets it earlier."""
    reason = f"lifted: a false positive, says {record.who}" + (f": {record.reason}" if record.reason else "")
    return Mitigation(
        id=entry.id, tick=tick, stage="final", state="lifted", action=entry.action, target=record.target,
        detector=record.detector, detector_version=record.detector_version, reason=reason, severity=0, confidence=1.0,
        window=Window(start=tick, end=tick + 1), observed=0, limit=0, issued_at=tick, expires_at=entry.expires_at,
        drill=drill, config_version=CONFIG_VERSION, evidence=Evidence(features={"who": record.who, "feedback": record.id}),
        finding=record.finding,
    )  # fmt: skip


def _window(crossing: Crossing) -> Window:
    return Window(start=crossing.rule.first_tick(crossing.tick), end=crossing.tick + 1)


def _identify(*parts: Any) -> str:
    words = "|".join(part.label if isinstance(part, Dimension) else str(part) for part in parts)
    return hashlib.blake2b(words.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()
