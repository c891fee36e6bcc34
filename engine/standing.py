"""A configuration as it stands from one second on: with its versions, its rules, and what is tried beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from detectors.kernels.long_windows import MINUTE_S
from detectors.kernels.windows import NEVER
from detectors.registry import plan_windows, registered, settings, window_rules
from detectors.windowed import Detector, DetectorSection, WindowPlan, WindowRule
from schemas.config import Config
from schemas.fields import DIMENSIONS, MEASURES, Measure
from schemas.playbooks import section_of_step

TRIAL_SUFFIX = "-trial"
"""Of the detector as which rules are tried: so they are no renewal of what is in force, and no edge mistakes them for it."""
Held = tuple[int, str, int]
"""A value that windows hold: its dimension, in which kind of windows, and its number."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A section that decides in dry run beside the one in force."""

    version: int
    since: int
    """The first second that it decides about."""
    trial_s: int
    section: dict[str, Any]
    """As it would stand in a file."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is in force, and of which versions it is."""

    config: Config
    rules: tuple[WindowRule, ...]
    version: int
    sections: Mapping[str, int] = field(default_factory=dict)
    """By detector, the version of its last change …"""
    first_version: int = 1
    """… and of those that were never changed."""
    trials: Mapping[str, Trial] = field(default_factory=dict)
    """By detector."""
    held: Mapping[Held, int] = field(default_factory=dict)
    """From which second on windows hold each value."""
    kept_s: int = 0
    """``policy.ttl_s_max`` of the deployment's file, by which the enforcement topic forgets, whatever it is by now."""

    def version_of(self, detector: str) -> int:
        """The version of a detector's section: part of every id."""
        return self.sections.get(section_of_step(detector) or detector, self.first_version)

    def plan(self, tick: int | None = None) -> WindowPlan:
        """The rules laid out for the kernels, as they are from ``tick`` on."""
        return plan_windows(self.config, self.rules, None if tick is None else max(tick, 0))

    def steps(self, after: int) -> list[int]:
        """The later seconds from which another rule is whole."""
        return sorted({rule.whole_from for rule in self.rules if rule.whole_from > max(after, 0)})


def standing_of(config: Config) -> Standing:
    """A configuration of a file, before any change.

    Raises:
        ConfigError: a section is wrong.
    """
    rules = tuple(window_rules(config))
    held = dict.fromkeys(_spans(plan_windows(config, rules)), NEVER)
    return Standing(config, rules, config.version, first_version=config.version, held=held, kept_s=config.policy.ttl_s_max)


def trial_rules(detector: Detector, section: DetectorSection, config: Config) -> list[WindowRule]:
    """The rules of a section as they are tried."""
    name = detector.name + TRIAL_SUFFIX
    if not section.enabled:
        return []
    return [
        replace(rule, detector=replace(detector, name=name), dry_run=True, trial=True)
        for rule in detector.rules(section, config.profile)
    ]


def changed(before: Standing, config: Config, tick: int, versions: Mapping[str, int], trials: Mapping[str, Trial]) -> Standing:
    """What follows a standing from ``tick`` on.

    A window holds what its rows or buckets have; a rule that reaches further back waits until its own window is whole.

    Raises:
        ConfigError: a section is wrong.
    """
    detectors = {detector.name: detector for detector in registered()}
    rules = window_rules(config)
    for name, trial in sorted(trials.items()):
        tried = settings(_with(config, name, trial.section))[name]
        rules += trial_rules(detectors[name], tried, config)
    spans, kept = _spans(plan_windows(config, rules)), _spans(plan_windows(before.config, before.rules))
    held = {what: max(before.held[what], _first_kept(what, kept[what], tick)) if what in kept else tick for what in spans}
    return Standing(
        config,
        tuple(_waiting(rule, held, tick) for rule in rules),
        before.version + 1,
        versions,
        before.first_version,
        trials,
        held,
        before.kept_s,
    )


def _with(config: Config, name: str, section: dict[str, Any]) -> Config:
    return msgspec.structs.replace(config, detectors={**config.detectors, name: section})


def _spans(plan: WindowPlan) -> dict[Held, int]:
    """For how many seconds (of long windows: whole minutes) each value is held."""
    found: dict[Held, int] = {}
    arrays, long = plan.arrays, plan.long
    for dimension in range(DIMENSIONS):
        if not arrays.span[dimension]:
            continue
        for value in arrays.tracked[dimension, : arrays.column_count[dimension]].tolist():
            found[dimension, "rows", value] = int(arrays.span[dimension])
        for index in range(int(long.column_count[dimension])):
            value = int(arrays.tracked[dimension, long.column[dimension, index]])
            minutes_s = MINUTE_S * int(long.column_minutes[dimension, index])
            found[dimension, "minutes", value] = minutes_s
            if index < long.part_count[dimension]:  # only a part brings a key in
                found[dimension, "parts", value] = minutes_s
    return found


def _first_kept(what: Held, span_s: int, tick: int) -> int:
    """The first second that windows still hold when ``tick`` is the next to close."""
    if what[1] == "rows":
        return tick - span_s
    return ((tick - 1) // MINUTE_S + 1) * MINUTE_S - span_s


def _waiting(rule: WindowRule, held: Mapping[Held, int], tick: int) -> WindowRule:
    """A rule with the second from which its window is whole."""
    kinds = ("parts", "minutes") if rule.is_long else ("rows", "rows")
    values = [(kind, value) for kind, value in zip(kinds, (rule.value, rule.of), strict=True) if value is not None]
    since = max(
        held[int(rule.dimension), kind, int(value) if isinstance(value, Measure) else MEASURES + value]
        for kind, value in values
    )
    if since == NEVER:
        return replace(rule, whole_from=0)
    whole_from = since + rule.window_s - 1
    if rule.is_long:
        whole_from = (-(-(since + rule.window_s) // MINUTE_S) - 1) * MINUTE_S
    return replace(rule, whole_from=whole_from if whole_from > tick else 0)
