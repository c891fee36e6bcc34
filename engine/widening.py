"""Whether a change of the configuration may mitigate somebody who was left alone before, or for longer, or harsher."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from detectors.windowed import DetectorSection, WindowRule
from engine.policy import ACTION_RANKS
from schemas.config import Allow, Policy
from schemas.playbooks import Playbook, Step

_MORE_IS_WIDER = (
    "ttl_s", "ttl_s_max", "escalation_factor", "escalation_memory_s", "active_max", "new_per_minute_max", "share_max",
    "share_from_keys", "corroborate_s",
)  # fmt: skip
_LESS_IS_WIDER = ("block_from_level", "raise_address_at", "raise_customer_at", "shorten_at")


def widens_policy(before: Policy, after: Policy, tick: int) -> str | None:
    """What of the policy is wider after ``tick``, as a sentence's part; None: nothing."""
    for name in (*_MORE_IS_WIDER, *_LESS_IS_WIDER):
        old, new = getattr(before, name), getattr(after, name)
        if (new > old) if name in _MORE_IS_WIDER else (new < old):
            return f"policy.{name} from {old} to {new}"
    for network in before.shared_networks:
        if network not in after.shared_networks:
            return f"policy.shared_networks without {network}"
    for allow in before.allow:
        if not _is_over(allow, tick) and not any(_covers(other, allow) for other in after.allow):
            return f"policy.allow without {allow.dimension} {allow.value:.80}, or for a shorter time"
    return None


def _is_over(allow: Allow, tick: int) -> bool:
    return allow.expires_tick is not None and allow.expires_tick <= tick


def _covers(other: Allow, allow: Allow) -> bool:
    if (other.dimension, other.value) != (allow.dimension, allow.value):
        return False
    return other.expires_tick is None or (allow.expires_tick is not None and other.expires_tick >= allow.expires_tick)


def widens_detector(
    name: str, before: tuple[DetectorSection, Sequence[WindowRule]], after: tuple[DetectorSection, Sequence[WindowRule]]
) -> str | None:
    """The same of a detector, of which the section and its rules are given."""
    section, rules = after
    if not section.enabled or section.dry_run:
        return None
    old = [rule for rule in before[1] if not rule.dry_run]
    for rule in rules:
        if not any(_is_as_strict(other, rule) for other in old):
            what = f"more than {rule.told_limit:,} of {rule.measure} of one {rule.dimension.label} in {rule.window_s} s"
            return f"detectors.{name}: {rule.action} for {what}"
    if before[1] or rules:
        return None
    if before[0].enabled and not before[0].dry_run and without_switches(before[0]) == without_switches(section):
        return None
    return f"detectors.{name}, which then may mitigate otherwise than now"


def without_switches(section: DetectorSection) -> dict[str, object]:
    """All settings but whether it decides and whether that is in dry run."""
    return {key: value for key, value in msgspec.structs.asdict(section).items() if key not in ("enabled", "dry_run")}


def _is_as_strict(other: WindowRule, rule: WindowRule) -> bool:
    """Does ``other`` say at least as much of everybody whom ``rule`` crosses?"""
    same = (
        other.dimension is rule.dimension
        and other.value is rule.value
        and other.of is rule.of
        and other.window_s == rule.window_s
        and other.listed is rule.listed
        and set(other.words) >= set(rule.words)
    )
    return (
        same
        and other.limit <= rule.limit
        and other.share <= rule.share
        and ACTION_RANKS[other.action] >= ACTION_RANKS[rule.action]
        and other.confidence >= rule.confidence
        and _holds_as_long(other.ttl_s, rule.ttl_s)
    )


def _holds_as_long(other: int | None, own: int | None) -> bool:
    return other == own or (other is not None and own is not None and other >= own)


def widens_playbook(name: str, before: Playbook | None, after: Playbook) -> str | None:
    """The same of a playbook. Only what is armed does anything; and an armed one may be given less to do, or for shorter."""
    if after.state != "armed":
        return None
    if before is None or before.state != "armed":
        return f"playbooks.{name}, armed"
    if without_state(before) == without_state(after):
        return None
    narrower = (
        msgspec.structs.replace(
            after, steps=(), run_s_max=0, collateral_max=0, targets_max=0, cool_down_s=0, owner="", reason="", state="armed",
        )
        == msgspec.structs.replace(
            before, steps=(), run_s_max=0, collateral_max=0, targets_max=0, cool_down_s=0, owner="", reason="", state="armed",
        )
        and after.run_s_max <= before.run_s_max
        and after.targets_max <= before.targets_max
        and after.cool_down_s >= before.cool_down_s
        and all(any(_does_as_much(before, other, after, step) for other in before.steps) for step in after.steps)
    )  # fmt: skip
    return None if narrower else f"playbooks.{name}, which is armed and may then do otherwise than now"


def _does_as_much(before: Playbook, other: Step, after: Playbook, step: Step) -> bool:
    """Does a step of the one before do at least as much, and as long, as one of the one after?"""
    return (
        (other.action, other.target, other.types) == (step.action, step.target, step.types)
        and set(other.never) <= set(step.never)
        and set(other.values) >= set(step.values)
        and _holds_as_long(other.ttl_s, step.ttl_s)
        and other.after_s <= step.after_s
        and before.bound(other) >= after.bound(step)
    )


def without_state(playbook: Playbook) -> Playbook:
    """All but whether it is armed, and who answers for it and why."""
    return msgspec.structs.replace(playbook, state="off", owner="", reason="")
