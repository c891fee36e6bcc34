"""What would have been: a grid over a limit and a window, every cell a run of its own over the same traffic."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from detectors.registry import settings, window_rules
from engine.clock import Clock
from engine.config_chain import POLICY
from engine.config_edit import edited
from engine.in_force import in_force_of
from engine.standing import standing_of
from replay.collected import MITIGATIONS_MAX
from replay.coverage import NORMAL, SOMEBODY
from replay.diff import covered_by
from replay.runs import RUNS_MAX, Progress, Task, run_all
from replay.truth import Truth
from schemas.config import Config, parse_config
from schemas.errors import UsageError

ALL_MITIGATIONS_MAX = 1_000_000
"""Over all cells, each of 0.8 kB."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A setting and the values that it is to have."""

    path: str
    section: str
    setting: str
    values: tuple[str, ...]
    """As on a command line: JSON, else text"""


def axis_of(words: str) -> Axis:
    """``detectors.rate.rules[0].limit=50,100,200`` as an axis.

    Raises:
        UsageError: it has another form.

    >>> axis_of("detectors.rate.rules[0].limit=50,100")
    Axis(path='detectors.rate.rules[0].limit', section='detectors.rate', setting='rules[0].limit', values=('50', '100'))
    """
    path, sign, text = words.partition("=")
    first, _, rest = path.partition(".")
    name, _, setting = rest.partition(".")
    if first == POLICY:
        section, setting = POLICY, rest
    else:
        section = f"{first}.{name}"
    values = tuple(dict.fromkeys(value.strip() for value in text.split(",")))
    if not sign or not setting or first not in (POLICY, "detectors") or not all(values):
        raise UsageError(
            f"expected detectors.NAME.SETTING=VALUE,VALUE as detectors.rate.rules[0].limit=50,100, got {words[:80]!r}"
        )
    return Axis(path, section, setting, values)


def with_setting(config: Config, axis: Axis, value: str) -> Config:
    """A configuration with one setting changed.

    Raises:
        UsageError, ConfigError: there is no such setting, or it cannot have this value.
    """
    values = edited(standing_of(config), axis.section, [f"{axis.setting}={value}"])
    document: dict[str, Any] = msgspec.to_builtins(config)
    if axis.section == POLICY:
        document["policy"] |= values
    else:
        name = axis.section.removeprefix("detectors.")
        document["detectors"][name] = document["detectors"].get(name, {}) | values
    changed = parse_config(document, f"{axis.path}={value}")
    settings(changed)
    window_rules(changed)
    return changed


@dataclass(slots=True)
class Cell:
    """One run, and what it comes to beside the configuration as it is."""

    values: tuple[str, ...]
    """Of each axis; none: as it is"""
    mitigated: int
    """Targets in force"""
    sources: int
    """Those of them that are somebody: addresses, keys, accounts, signatures"""
    held: int
    """Targets that only a budget kept from being in force"""
    newly: int
    """Targets in force here and not as it is"""
    released: int
    normal_covered: int
    normal_share: float
    other_covered: int
    """Events of attacks, or of who is not taken for normal"""
    attacks: list[str]
    """That something in force names, by labels"""


@dataclass(slots=True)
class Grid:
    """All cells; the first is the configuration as it is."""

    axes: tuple[Axis, ...]
    cells: list[Cell]
    events: int
    normal_events: int
    labelled: bool
    said: list[str]
    is_whole: bool


def what_if(
    config: Config, axes: Sequence[Axis], paths: list[str], clock: Clock, truth: Truth, *,
    between_ms: tuple[int | None, int | None] = (None, None), jobs: int = 1, progress: Progress = None,
) -> Grid:  # fmt: skip
    """Run every cell, then count in one reading what all of them cover.

    Args:
        config: as it is, with a seed.

    Raises:
        UsageError: too many cells; or as `with_setting`.
    """
    places = list(itertools.product(*(axis.values for axis in axes)))
    if len(places) > RUNS_MAX - 1:
        raise UsageError(f"expected at most {RUNS_MAX - 1} cells, each is a run over all of the traffic, got {len(places)}")
    configs = [config]
    for values in places:
        changed = config
        for axis, value in zip(axes, values, strict=True):
            changed = with_setting(changed, axis, value)
        configs.append(changed)
    most = min(MITIGATIONS_MAX, ALL_MITIGATIONS_MAX // len(configs))
    tasks = [Task(config=one, paths=paths, between_ms=between_ms, mitigations_max=most) for one in configs]
    runs = run_all(tasks, clock, jobs)
    forces = [in_force_of(run.mitigations) for run in runs]
    covered = covered_by(
        config, paths, clock, forces, truth, between_ms=between_ms, per_target=False, progress=progress
    )  # fmt: skip
    cells = []
    for number, (values, force, run) in enumerate(zip([(), *places], forces, runs, strict=True)):
        held = {record.target for record in run.mitigations if record.state == "held" and not record.dry_run}
        cells.append(
            Cell(
                values=values, mitigated=len(force.enforced), sources=sum(kind in SOMEBODY for kind, _ in force.enforced),
                held=sum((target.type, target.value) not in force.enforced for target in held),
                newly=len(force.enforced.keys() - forces[0].enforced.keys()),
                released=len(forces[0].enforced.keys() - force.enforced.keys()), normal_covered=covered.normal_covered(number),
                normal_share=covered.normal_share(number), other_covered=int(covered.covered[number, NORMAL + 1 :].sum()),
                attacks=sorted(truth.attacks_of(force, covered)),
            )
        )  # fmt: skip
    said = list(dict.fromkeys([*truth.said, *(text for run in runs for text in run.said)]))
    return Grid(
        tuple(axes), cells, int(covered.events.sum()), covered.normal_events, covered.labelled, said,
        all(run.is_whole for run in runs),
    )  # fmt: skip
