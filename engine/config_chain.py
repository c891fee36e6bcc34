"""The history of the configuration: changes one after the other, each looked at before it counts.

What comes of a record follows from the deployment's file, the records before it and its own time, and from nothing else. So
everybody who reads the history accepts the same changes and refuses the same: judges, a replay, and the command that wrote one.
What was refused changes nothing: the last good configuration stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from detectors.entropy import NAME as ENTROPY
from detectors.registry import playbooks, registered, settings, window_rules
from detectors.signature import NAME as SIGNATURE
from detectors.surge import NAME as SURGE
from detectors.windowed import Detector, DetectorSection, WindowRule
from engine.standing import TRIAL_SUFFIX, Standing, Trial, changed, standing_of
from engine.widening import widens_detector, widens_playbook, widens_policy, without_state, without_switches
from schemas.config import Config, Policy, parse_config
from schemas.config_change import AHEAD_S_MAX, DELAY_S_MIN, TRIAL_S, ConfigChange, decode_change
from schemas.errors import ConfigError
from schemas.playbooks import SECTION as PLAYBOOKS
from schemas.playbooks import Playbook, documents_of

POLICY = "policy"
_DETECTORS = "detectors."
POLICY_LIVE = (
    "allow", "shared_networks", "ttl_s", "ttl_s_max", "escalation_factor", "escalation_memory_s", "block_from_level",
    "active_max", "new_per_minute_max", "share_max", "share_from_keys", "corroborate_s", "raise_address_at",
    "raise_customer_at", "shorten_at",
)  # fmt: skip
"""Settings of the policy that can be changed on the way. The core of the allowlist is the deployment's alone."""
LEARNING_LIVE = (SURGE, SIGNATURE, ENTROPY)
"""Detectors without rules over windows whose section can be changed on the way (`engine.reconfigure`)."""


class WideningError(ConfigError):
    """A change that may mitigate more than before, and was neither tried nor forced."""

    def __init__(self, what: str, message: str) -> None:
        super().__init__(message)
        self.what = what


@dataclass(frozen=True, slots=True)
class Accepted:
    """A change that counts."""

    change: ConfigChange
    offset: int
    standing: Standing
    """What stands from ``change.effective_tick`` on."""


class ConfigChain:
    """The history so far.

    Args:
        config: the deployment's file, which the first change changes.
    """

    def __init__(self, config: Config) -> None:
        self.first = standing_of(config)
        self._observed = self.first.plan()
        self.accepted: list[Accepted] = []

    @property
    def last(self) -> Standing:
        """What stands in the end, be it from a later second on."""
        return self.accepted[-1].standing if self.accepted else self.first

    @property
    def last_tick(self) -> int:
        """From when on; nothing can be changed before it."""
        return self.accepted[-1].change.effective_tick if self.accepted else 0

    def standing_at(self, tick: int) -> Standing:
        """What decides about a second."""
        for one in reversed(self.accepted):
            if one.change.effective_tick <= tick:
                return one.standing
        return self.first

    def after(self, tick: int) -> list[Accepted]:
        """What holds from later seconds on."""
        return [one for one in self.accepted if one.change.effective_tick > tick]

    def standing_of_version(self, version: int) -> Standing:
        """What stood as a version.

        Raises:
            ConfigError: there was none.
        """
        for standing in (self.first, *(one.standing for one in self.accepted)):
            if standing.version == version:
                return standing
        raise ConfigError(f"expected a version from {self.first.version} to {self.last.version}, got {version}")

    def offer(self, data: bytes, *, offset: int, at_ms: int | None = None) -> Accepted:
        """Look at the next record.

        Args:
            data: as it lies on the topic, or a line of a file.
            offset: where it lies.
            at_ms: the brokers' time of the record; none: what it says itself counts.

        Raises:
            ConfigError: it is refused, with the path, the bound and what came.
        """
        change = decode_change(data)
        try:
            standing = self.judge(change, change.at_ms if at_ms is None else at_ms)
        except RecursionError:
            raise ConfigError("expected values that are not nested so deep, got some that are") from None
        accepted = Accepted(change, offset, standing)
        self.accepted.append(accepted)
        return accepted

    def judge(self, change: ConfigChange, at_ms: int) -> Standing:
        """What would stand after a change; nothing is kept.

        Raises:
            ConfigError: it is refused.
        """
        before = self.last
        if change.base != before.version:
            is_old = change.base < before.version
            stale = "somebody else has changed it meanwhile: look again" if is_old else "there is none yet"
            raise ConfigError(f"expected `$.base` {before.version}, the version in force, got {change.base}: {stale}")
        self._check_tick(change, at_ms)
        if change.arms is not None and change.section.startswith(_DETECTORS):
            return self._arm(change, before)
        if not change.values and not change.unset:
            raise ConfigError("expected something in `$.values` or `$.unset`, got nothing to change")
        if change.section == POLICY:
            return self._change_policy(change, before)
        if change.section.startswith(PLAYBOOKS):
            return self._change_playbook(change, before)
        return self._change_detector(change, before)

    def _check_tick(self, change: ConfigChange, at_ms: int) -> None:
        seconds = at_ms // 1000
        earliest = max(seconds + self.first.config.time.lateness_s + DELAY_S_MIN, self.last_tick)
        if not earliest <= change.effective_tick <= seconds + AHEAD_S_MAX:
            raise ConfigError(
                f"expected `$.effective_tick` from {earliest} (the record's time + lateness_s + {DELAY_S_MIN}, and no earlier "
                f"than the change before) to {seconds + AHEAD_S_MAX}, got {change.effective_tick}"
            )

    def _change_policy(self, change: ConfigChange, before: Standing) -> Standing:
        if change.trial_s is not None:
            raise ConfigError("expected no `$.trial_s` for the policy, which cannot decide twice, got one: it has to be forced")
        document = msgspec.to_builtins(before.config.policy)
        self._overlay(change, document, msgspec.to_builtins(self.first.config.policy), POLICY_LIVE, _names_of(Policy))
        config = _parse(before.config, {"policy": document})
        allowed = self.first.config.policy.ttl_s_max
        if config.policy.ttl_s_max > allowed:
            raise ConfigError(
                f"expected `$.policy.ttl_s_max` <= {allowed} as in the deployment's file, by which the enforcement topic "
                f"forgets, got {config.policy.ttl_s_max}"
            )
        wider = widens_policy(before.config.policy, config.policy, change.effective_tick)
        if wider is not None and not change.forced:
            raise WideningError(wider, f"expected `$.forced` for what may mitigate more ({wider}), got false")
        return changed(before, config, change.effective_tick, before.sections, before.trials)

    def _change_detector(self, change: ConfigChange, before: Standing) -> Standing:
        name, detector = change.section.removeprefix(_DETECTORS), self._detector_of(change.section)
        document = dict(before.config.detectors.get(name, {}))
        live = tuple(known for known in _names_of(detector.section) if known not in detector.fixed)
        self._overlay(change, document, self.first.config.detectors.get(name, {}), live, _names_of(detector.section))
        config = _parse(before.config, {"detectors": {**before.config.detectors, name: document}})
        old, new = _section(before.config, detector), _section(config, detector)
        if not old[1] and not new[1] and name not in LEARNING_LIVE:
            raise ConfigError(
                f"expected a section that can be changed on the way, got `$.{change.section}`: it holds from the start"
            )
        trials = {key: trial for key, trial in before.trials.items() if key != name}
        versions = {key: version for key, version in before.sections.items() if key != name + TRIAL_SUFFIX}
        version = before.version + 1
        if change.trial_s is not None:
            if not new[1]:
                raise ConfigError(
                    f"expected rules to be tried, got none in `$.{change.section}`: set dry_run = true with the change, and "
                    "false when its findings are as they should be"
                )
            trials[name] = Trial(version, change.effective_tick, change.trial_s, document)
            versions[name + TRIAL_SUFFIX] = version
            config = before.config
        else:
            wider = widens_detector(name, old, new)
            if wider is not None and not change.forced and not self._was_in_dry_run(name, old[0], new[0], change):
                raise WideningError(
                    wider,
                    f"expected `$.trial_s` or `$.forced` for what may mitigate more ({wider}), got neither; what has stood in "
                    f"dry run for {TRIAL_S} s may be armed by dry_run = false alone",
                )
            versions[name] = version
        return self._checked(changed(before, config, change.effective_tick, versions, trials))

    def _change_playbook(self, change: ConfigChange, before: Standing) -> Standing:
        if change.trial_s is not None:
            raise ConfigError('expected no `$.trial_s` for a playbook, got one: it is tried with state = "simulated"')
        name, known = change.section.removeprefix(PLAYBOOKS), _names_of(Playbook)
        old = playbooks(before.config).get(name)
        document = documents_of(before.config.playbooks).get(name, {})
        file = documents_of(self.first.config.playbooks).get(name, {})
        self._overlay(change, document, file, known, known)
        config = _parse(before.config, {"playbooks": {**before.config.playbooks, name: document}})
        new = playbooks(config)[name]
        wider = widens_playbook(name, old, new)
        if wider is not None and not change.forced and not self._was_simulated(change, old, new):
            raise WideningError(
                wider,
                f"expected `$.forced` for what may do more ({wider}), got false; what has stood simulated for {TRIAL_S} s may "
                'be armed by state = "armed" alone',
            )
        versions = {**before.sections, change.section: before.version + 1}
        return changed(before, config, change.effective_tick, versions, before.trials)

    def _was_simulated(self, change: ConfigChange, old: Playbook | None, new: Playbook) -> bool:
        """Whether only its state and who answers for it are new, and it has been simulated for long enough."""
        if old is None or old.state != "simulated" or without_state(old) != without_state(new):
            return False
        since = [
            one.change.effective_tick for one in self.accepted if one.standing.version == self.last.sections.get(change.section)
        ]
        return not since or change.effective_tick - since[0] >= TRIAL_S

    def _arm(self, change: ConfigChange, before: Standing) -> Standing:
        if change.values or change.unset or change.trial_s is not None:
            raise ConfigError("expected nothing beside `$.arms`, got more: what was tried is meant as it was")
        name = change.section.removeprefix(_DETECTORS)
        trial = before.trials.get(name)
        if trial is None or trial.version != change.arms:
            known = "nothing is" if trial is None else f"version {trial.version} is"
            raise ConfigError(f"expected `$.arms` to be what is tried of `$.{change.section}` ({known}), got {change.arms}")
        if change.effective_tick < trial.since + trial.trial_s and not change.forced:
            raise ConfigError(
                f"expected `$.effective_tick` >= {trial.since + trial.trial_s}, when the trial of {trial.trial_s} s is over, "
                f"or `$.forced`, got {change.effective_tick}"
            )
        config = _parse(before.config, {"detectors": {**before.config.detectors, name: trial.section}})
        trials = {key: one for key, one in before.trials.items() if key != name}
        versions = {key: version for key, version in before.sections.items() if key != name + TRIAL_SUFFIX}
        versions[name] = before.version + 1
        return self._checked(changed(before, config, change.effective_tick, versions, trials))

    def _was_in_dry_run(self, name: str, old: DetectorSection, new: DetectorSection, change: ConfigChange) -> bool:
        """Whether only ``dry_run`` is new, and the section has decided in dry run for long enough."""
        if not (old.enabled and old.dry_run and new.enabled) or without_switches(old) != without_switches(new):
            return False
        since = [one.change.effective_tick for one in self.accepted if one.standing.version == self.last.sections.get(name)]
        return not since or change.effective_tick - since[0] >= TRIAL_S

    @staticmethod
    def _overlay(
        change: ConfigChange, document: dict[str, Any], file: dict[str, Any], live: tuple[str, ...], known: tuple[str, ...]
    ) -> None:
        """Set and unset in ``document``. Raises `ConfigError` for what is unknown or holds from the start."""
        for key in (*change.values, *change.unset):
            if key not in known:
                raise ConfigError(f"expected a setting ({', '.join(known)}) in `$.{change.section}`, got {key!r:.80}")
            if key not in live:
                raise ConfigError(
                    f"expected a setting that can be changed on the way in `$.{change.section}` ({', '.join(live)}), got "
                    f"{key}: it stands in the deployment's file alone"
                )
            if key in change.values and key in change.unset:
                raise ConfigError(f"expected `$.{change.section}.{key}` to be set or unset, got both")
        for key in change.unset:
            document.pop(key, None)
            if key in file:
                document[key] = file[key]
        document |= change.values

    @staticmethod
    def _detector_of(section: str) -> Detector:
        known = {detector.name: detector for detector in registered()}
        name = section.removeprefix(_DETECTORS)
        if name not in known or not section.startswith(_DETECTORS):
            raise ConfigError(
                f"expected `$.section` to be policy, playbooks.NAME or detectors.NAME ({', '.join(known)}), got {section!r:.80}"
            )
        return known[name]

    def _checked(self, standing: Standing) -> Standing:
        """Observers count what the deployment's file asks them for, and are not asked for more on the way."""
        plan, observed = standing.plan(), self._observed
        for dimension in plan.dimensions:
            if dimension not in observed.dimensions:
                raise ConfigError(
                    f"expected a dimension that observers count ({', '.join(one.label for one in observed.dimensions)}), got "
                    f"{dimension.label}: a rule of the deployment's file has to name it, with a limit that nobody reaches"
                )
        if plan.wanted & ~observed.wanted or (plan.words and plan.words != observed.words):
            raise ConfigError(
                "expected measures, items and agents that observers look for, got more: a rule of the deployment's file has to "
                "name them, with a limit that nobody reaches"
            )
        return standing


def _names_of(section: type[Any]) -> tuple[str, ...]:
    return tuple(field.encode_name for field in msgspec.structs.fields(section))


def _parse(config: Config, changes: dict[str, Any]) -> Config:
    """The configuration with other sections, all of it looked at."""
    document: dict[str, Any] = msgspec.to_builtins(config)
    parsed = parse_config({**document, **changes}, "the change")
    settings(parsed)
    return parsed


def _section(config: Config, detector: Detector) -> tuple[DetectorSection, list[WindowRule]]:
    """A detector's section, and its rules if it is on."""
    rules = [rule for rule in window_rules(config) if rule.detector is detector]
    return settings(config)[detector.name], rules
