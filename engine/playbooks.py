"""Playbooks in a judge: conditions that findings make true, and the runs that are made of them.

A condition is about one service, or about one target where the finding names no service. All that is said of a service is said
in the judge partition that holds it, so that one judge decides, and no other is asked. What findings of a second say is taken
in once that second is closed, in the order of seconds, so that the same findings make the same runs for any cut, partitioning
and restart. Nothing here has a timer: a run publishes in each cell of renewal in which its condition is seen, what it published
ends by its time to live, and a second in which nothing is heard costs nothing.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Sequence
from typing import Any

import msgspec

from detectors.registry import playbooks as playbooks_in
from detectors.windowed import Detector, DetectorSection, Profile, WindowRule
from engine.crossing import Crossing
from engine.playbook_parts import Heard, Load, StepTarget, condition_text, counts, heard_of, run_id, sentence_of, targets_of
from engine.standing import TRIAL_SUFFIX, Standing
from schemas.fields import Dimension, Measure
from schemas.mitigation import Finding
from schemas.playbooks import PREFIX, SECTION, Playbook, Step, disables_leaked, step_name

CONDITIONS_MAX = 256
"""Of one judge partition, each a few kB. More are not begun, and counted."""
COOLING_MAX = 4096
"""Of which it is known that they have to cool down; those that have nearly done so go first."""
SERVICES_MAX = 16
"""Of one judge partition whose load is known: four by what `surge` looks at, and those before."""
HOUR_MINUTES = 60
"""Of which the load is known."""
VERSION = 1
_UNHEARD = ("allowlisted", "false_positive", "lifted")
"""Outcomes of findings that are no reason for anything."""
_ROUNDING = 1e-9
_NEVER = 1 << 62
_OF_REQUESTS = ("pages", "requests", "accounts")
"""Measures of findings that say of how many requests they are."""
Whom = tuple[int, str, str]
"""(judge partition, playbook, the service or target that it is about)"""


class _Published(msgspec.Struct, array_like=True):
    """A target of a step, in a run."""

    step: str
    """As what it is known"""
    dimension: int
    key_a: int
    key_b: int
    value: str
    cell: int
    """In which it was published last"""
    collateral: float
    held: bool


class _Run(msgspec.Struct, array_like=True):
    """What is done while a condition holds."""

    id: str
    since: int
    published: list[_Published] = []
    left_out: int = 0


class _Condition(msgspec.Struct, array_like=True):
    """What has been heard of one whom."""

    first: int
    last: int
    voices: dict[str, int]
    """By detector, when it spoke last"""
    found: list[Heard]
    """What was named lately, each target once: the last word on it"""
    finding: str
    """The last one that was published"""
    reason: str
    run: _Run | None = None
    blocked_until: int = 0
    """No run begins before: it has cooled down by then. While a run that was reverted would go on, for ever."""


class Playbooks:
    """The playbooks of a judge.

    Args:
        standing: with their sections.
    """

    def __init__(self, standing: Standing) -> None:
        self._conditions: dict[Whom, _Condition] = {}
        self._cooling: dict[Whom, int] = {}
        """Until when no run begins about whom."""
        self._pending: list[tuple[int, int, Any]] = []
        """(tick, kind, what was heard) of the seconds that were closed just now."""
        self._minutes: dict[tuple[int, str], list[list[int]]] = {}
        """By judge partition and service: [minute, requests, tokens] of the last hour."""
        self.refused = 0
        """Conditions for which there was no room."""
        self.take(standing)

    def take(self, standing: Standing) -> None:
        """Go by other sections from here on; runs of a playbook that is off, or another than it was, are over."""
        before: dict[str, Playbook] = getattr(self, "_playbooks", {})
        config = standing.config
        every = playbooks_in(config)
        self._playbooks = {name: one for name, one in every.items() if one.state != "off"}
        self._standing, self._renew_s = standing, config.policy.renew_s
        self._shortest, self._longest = config.policy.renew_s + config.time.lateness_s + 1, standing.kept_s
        self._longest = min(self._longest, config.policy.ttl_s_max)
        self._watched = disables_leaked(every)
        self._hearing: dict[str, list[str]] = {}
        for name, one in self._playbooks.items():
            for detector in one.when.detectors:
                self._hearing.setdefault(detector, []).append(name)
        changed = {name for name, one in before.items() if self._playbooks.get(name) != one}
        self._conditions = {whom: one for whom, one in self._conditions.items() if whom[1] not in changed}

    def hear(self, crossing: Crossing, finding: Finding | None) -> None:
        """What was decided; none: what was said before goes on, and is not said again."""
        detector = crossing.rule.detector.name
        if detector not in self._hearing or crossing.rule.trial or detector.endswith(TRIAL_SUFFIX):
            return
        if finding is not None and finding.outcome in _UNHEARD:
            return
        self._pending.append((crossing.tick, 1, heard_of(crossing, finding)))

    def hear_load(self, minutes: Sequence[tuple[int, int, bytes, int, int]]) -> None:
        """Minutes that are over: (judge partition, minute, service, requests, tokens)."""
        for partition, minute, name, requests, tokens in minutes:
            service = name.decode("utf-8", "backslashreplace")
            self._pending.append((60 * (minute + 1) - 1, 0, [partition, minute, service, requests, tokens]))

    def close(self) -> list[tuple[Crossing, str]]:
        """What comes of all that was heard: steps, each with the finding that it rests on."""
        if not self._pending:
            return []
        pending, self._pending = sorted(self._pending, key=_order), []
        made: list[tuple[Crossing, str]] = []
        for _, kind, what in pending:
            if kind == 0:
                self._note_load(*what)
                continue
            for name in self._hearing.get(what.detector, ()):
                made += self._listen(name, self._playbooks[name], what)
        return made

    def _note_load(self, partition: int, minute: int, service: str, requests: int, tokens: int) -> None:
        known = self._minutes.pop((partition, service), [])
        self._minutes[partition, service] = [*known, [minute, requests, tokens]][-HOUR_MINUTES:]
        mine = [key for key in self._minutes if key[0] == partition]
        if len(mine) > SERVICES_MAX:
            del self._minutes[min(mine, key=lambda key: (self._minutes[key][-1][0], key))]

    def _listen(self, name: str, playbook: Playbook, heard: Heard) -> list[tuple[Crossing, str]]:
        if not counts(playbook, heard):
            return []
        about = heard.service or f"{Dimension(heard.dimension).label} {heard.value}"
        whom = heard.partition, name, about
        condition = self._conditions.get(whom)
        if condition is not None and heard.tick - condition.last > playbook.quiet_s:
            self._end(whom, condition, playbook)
            condition = None
        if condition is None:
            condition = self._begin(whom, heard)
            if condition is None:
                return []
        _note(condition, heard, playbook)
        if condition.run is None and self._may_run(condition, playbook, heard.tick):
            condition.run = _Run(self._run_id(whom, heard.tick), heard.tick)
            return [
                made
                for one in sorted(condition.found, key=lambda one: (one.tick, one.dimension, one.value))
                for made in self._steps(name, playbook, condition, condition.run, one, heard.tick)
            ]
        if condition.run is None or heard.tick - condition.run.since > playbook.run_s_max:
            return []
        return self._steps(name, playbook, condition, condition.run, heard, heard.tick)

    def _begin(self, whom: Whom, heard: Heard) -> _Condition | None:
        mine = [key for key in self._conditions if key[0] == whom[0]]
        if len(mine) >= CONDITIONS_MAX:
            for key in mine:
                one, playbook = self._conditions[key], self._playbooks[key[1]]
                if heard.tick - one.last > playbook.quiet_s:
                    self._end(key, one, playbook)
            if sum(key[0] == whom[0] for key in self._conditions) >= CONDITIONS_MAX:
                self.refused += 1
                return None
        condition = _Condition(heard.tick, heard.tick, {}, [], "", heard.reason, None, self._cooling.pop(whom, 0))
        self._conditions[whom] = condition
        return condition

    def _end(self, whom: Whom, condition: _Condition, playbook: Playbook) -> None:
        """It was quiet for so long that the condition is over."""
        del self._conditions[whom]
        over = condition.last + playbook.quiet_s
        if condition.run is not None or condition.blocked_until == _NEVER:
            self._cooling[whom] = over + playbook.cool_down_s
        elif condition.blocked_until > over:
            self._cooling[whom] = condition.blocked_until
        self._cooling = {key: until for key, until in self._cooling.items() if until > over}
        while len(self._cooling) > COOLING_MAX:
            del self._cooling[min(self._cooling, key=lambda key: (self._cooling[key], key))]

    @staticmethod
    def _may_run(condition: _Condition, playbook: Playbook, tick: int) -> bool:
        spoken = sum(at > tick - max(playbook.when.for_s, playbook.quiet_s) for at in condition.voices.values())
        since = max(condition.first, condition.blocked_until)
        return tick >= since + playbook.when.for_s and spoken >= playbook.when.agree

    def _run_id(self, whom: Whom, tick: int) -> str:
        """The same for the same run on every judge and in every replay."""
        _, name, about = whom
        return run_id(name, self._standing.version_of(f"{PREFIX}{name}-notify"), about, tick)

    def _steps(
        self, name: str, playbook: Playbook, condition: _Condition, run: _Run, heard: Heard, tick: int
    ) -> list[tuple[Crossing, str]]:  # fmt: skip
        """What a finding makes a run do."""
        made: list[tuple[Crossing, str]] = []
        for number, step in enumerate(playbook.steps, start=1):
            if tick < run.since + step.after_s or self._is_watched(name, step):
                continue
            for target in targets_of(step, heard):
                crossing = self._step(name, playbook, step, number, condition, run, heard, target, tick)
                if crossing is not None:
                    made.append((crossing, condition.finding))
        return made

    def _is_watched(self, name: str, step: Step) -> bool:
        """Whether `engine.leaked` does it: what does not end by itself is in its keeping."""
        return step.action == "disable_key" and self._watched is not None and self._watched[0] == name

    def _step(
        self, name: str, playbook: Playbook, step: Step, number: int, condition: _Condition, run: _Run, heard: Heard,
        target: StepTarget, tick: int,
    ) -> Crossing | None:  # fmt: skip
        dimension, a, b, value, collateral = target
        cell, known_as = tick // self._renew_s, step_name(name, step)
        mine = [one for one in run.published if one.step == known_as]
        before = next((one for one in mine if (one.dimension, one.value) == (dimension, value)), None)
        if before is not None and before.cell == cell:
            return None
        if before is None:
            if len(mine) >= playbook.targets_max:
                run.left_out += 1
                return None
            before = _Published(known_as, int(dimension), a, b, value, cell, collateral, True)
            run.published.append(before)
        # Whoever has room keeps it; what is measured again may have become too much.
        used = sum(one.collateral for one in mine if one is not before and not one.held)
        before.cell, before.collateral = cell, collateral
        bound = playbook.bound(step)
        before.held = step.action != "notify" and bound < 1 and used + collateral > bound + _ROUNDING
        held = f"{SECTION}{name}.collateral_max" if before.held else ""
        rule = self._rule(playbook, step, known_as, heard, dimension)
        load = self._load(heard, run.since, tick)
        features: list[tuple[str, int | float | str]] = [
            ("playbook", name), ("run", run.id), ("run_since", run.since), ("step", f"{number} of {len(playbook.steps)}"),
            ("playbook_state", playbook.state), ("condition", condition_text(playbook)),
        ]  # fmt: skip
        if playbook.owner:
            features.append(("playbook_owner", playbook.owner))
        if step.action != "notify":
            features.append(("collateral", round(collateral, 5)))
        if run.left_out:
            features.append(("targets_left_out", run.left_out))
        reason = sentence_of(name, playbook, step, heard.reason if heard.finding else condition.reason, heard, load)
        return Crossing(
            heard.partition, dimension, a, b, value.encode("utf-8", "backslashreplace"), rule, tick, heard.observed,
            heard.requests, 0, False, reason, (*features, *load), held=held,
        )  # fmt: skip

    def _rule(self, playbook: Playbook, step: Step, known_as: str, heard: Heard, dimension: Dimension) -> WindowRule:
        ttl_s = (
            self._longest if step.ttl_s is None else min(max(step.ttl_s, self._shortest), max(self._longest, self._shortest))
        )
        return WindowRule(
            Detector(known_as, VERSION, DetectorSection, _no_rules, _describe), step,
            playbook.state != "armed" and step.action != "notify", dimension, Measure.REQUESTS, heard.window_s, heard.limit,
            step.action, heard.severity, heard.confidence, label=heard.measure, ttl_s=ttl_s, alone=True, exact=True,
        )  # fmt: skip

    def _load(self, heard: Heard, since: int, tick: int) -> Load:
        """What the service is asked for, now or in the last whole minute, beside the hour before the run."""
        known = [one for one in self._minutes.get((heard.partition, heard.service), ()) if 60 * (one[0] + 1) <= tick + 1]
        if not known:
            return ()
        before = [one for one in known if 60 * (one[0] + 1) <= since] or known
        now = known[-1]
        rate = now[1] / 60
        if heard.measure in _OF_REQUESTS:  # a minute that is over may have been before the attack
            rate = max(rate, heard.requests / heard.window_s)
        usual = statistics.median(one[1] for one in before) / 60
        found: list[tuple[str, int | float | str]] = [
            ("load_requests_per_s", round(rate, 1)), ("load_usual_per_s", round(usual, 1)),
            ("load_most_before_per_s", round(max(one[1] for one in before) / 60, 1)),
        ]  # fmt: skip
        if usual:
            found.append(("load_times_usual", round(rate / usual, 2)))
        if any(one[2] for one in known):
            tokens = sorted(one[2] for one in before)
            found += [
                ("load_tokens_per_s", round(now[2] / 60, 1)),
                ("load_tokens_p95_per_s", round(tokens[-(-95 * len(tokens) // 100) - 1] / 60, 1)),
            ]
        return tuple(found)

    def revert(self, run: str, tick: int) -> list[tuple[Dimension, int, int, str, str]]:
        """End a run for as long as its condition lasts, and the cool-down after it.

        Returns:
            (dimension, key, value, step) of what it has published.
        """
        for condition in self._conditions.values():
            if condition.run is not None and condition.run.id == run:
                published, condition.run = condition.run.published, None
                condition.blocked_until = _NEVER
                return [(Dimension(one.dimension), one.key_a, one.key_b, one.value, one.step) for one in published]
        return []

    def save(self) -> dict[str, Any]:
        """Plain data for `load`."""
        return {
            "conditions": [
                [*whom, _digest(self._playbooks[whom[1]]), msgspec.to_builtins(one)] for whom, one in self._conditions.items()
            ],
            "cooling": [[*whom, until] for whom, until in self._cooling.items()],
            "minutes": [[*key, minutes] for key, minutes in self._minutes.items()],
            "refused": self.refused,
        }

    def load(self, data: dict[str, Any]) -> None:
        """Take over what `save` gave; runs of playbooks that are another by now are over."""
        self._conditions = {
            (partition, name, about): msgspec.convert(one, _Condition)
            for partition, name, about, digest, one in data["conditions"]
            if name in self._playbooks and _digest(self._playbooks[name]) == digest
        }
        self._cooling = {(partition, name, about): until for partition, name, about, until in data["cooling"]}
        self._minutes = {(partition, service): minutes for partition, service, minutes in data["minutes"]}
        self.refused = data["refused"]


def _digest(playbook: Playbook) -> str:
    return hashlib.blake2b(msgspec.json.encode(playbook), digest_size=8).hexdigest()


def _note(condition: _Condition, heard: Heard, playbook: Playbook) -> None:
    condition.last = max(condition.last, heard.tick)
    condition.voices[heard.detector] = heard.tick
    if heard.finding:
        condition.finding, condition.reason = heard.finding, heard.reason
    kept = [
        one
        for one in condition.found
        if (one.dimension, one.value) != (heard.dimension, heard.value) and heard.tick - one.tick <= playbook.quiet_s
    ]
    condition.found = [*kept, heard][-2 * playbook.targets_max :]


def _order(one: tuple[int, int, Any]) -> tuple[Any, ...]:
    """Seconds in order; loads first, then what is worst, and what nothing hangs on by its name."""
    tick, kind, what = one
    if kind == 0:
        return tick, kind, tuple(what)
    return (
        tick, kind, what.partition, -what.severity, what.detector, what.dimension, what.value, what.window_s, what.measure,
        what.finding == "", what.observed,
    )  # fmt: skip


def _no_rules(section: DetectorSection, profile: Profile) -> list[WindowRule]:
    """It hears what detectors say, and not the windows."""
    return []


def _describe(rule: WindowRule, target: str, observed: int) -> str:
    return f"{rule.detector.name}: {observed:,} where {rule.told_limit:,} are usual of {target}"
