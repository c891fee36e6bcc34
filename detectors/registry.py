"""Which detectors there are: every module of this folder that has a ``DETECTOR``, and what a configuration makes of them."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from types import ModuleType

import msgspec

import detectors
from detectors.kernels.long_windows import MINUTE_S, SECONDS_MIN
from detectors.windowed import Detector, DetectorSection, WindowPlan, WindowRule, lay_out
from schemas.config import Config, explain
from schemas.errors import ConfigError
from schemas.playbooks import Playbook, playbooks_of


@functools.cache
def modules() -> Mapping[str, ModuleType]:
    """The detectors' modules by the detectors' names, in alphabetical order. Only this folder is looked at."""
    names = sorted(info.name for info in pkgutil.iter_modules(detectors.__path__) if not info.ispkg)
    found = [importlib.import_module(f"detectors.{name}") for name in names if name != "registry"]
    return {module.DETECTOR.name: module for module in found if isinstance(getattr(module, "DETECTOR", None), Detector)}


def registered() -> tuple[Detector, ...]:
    """The windowed detectors, in alphabetical order."""
    return tuple(module.DETECTOR for module in modules().values())


def settings(config: Config) -> dict[str, DetectorSection]:
    """Each detector's own section, checked.

    Raises:
        ConfigError: a section of no detector, or a value that is refused, with its path, its bound and what came.
    """
    known = {detector.name: detector for detector in registered()}
    playbooks(config)
    for name in config.detectors:
        if name not in known:
            raise ConfigError(f"expected a detector ({', '.join(known)}) at `$.detectors`, got {name!r:.80}")
    found = {}
    for name, detector in known.items():
        section = config.detectors.get(name, {})
        try:
            found[name] = msgspec.convert(section, detector.section)
        except msgspec.ValidationError as error:
            raise ConfigError(explain(str(error), section, f"$.detectors.{name}")) from None
    return found


def playbooks(config: Config) -> dict[str, Playbook]:
    """Each playbook, checked, also for whether there are the detectors that it hears.

    Raises:
        ConfigError: see `schemas.playbooks.playbooks_of`.
    """
    found, known = playbooks_of(config), modules()
    for name, playbook in found.items():
        for detector in playbook.when.detectors:
            if detector not in known:
                path = f"$.playbooks.{name}.when.detectors"
                raise ConfigError(f"expected a detector ({', '.join(known)}) at `{path}`, got {detector!r:.80}")
    return found


def window_rules(config: Config) -> list[WindowRule]:
    """The rules of every detector that is on.

    Raises:
        ConfigError: see `settings`.
    """
    sections = settings(config)
    found = []
    for detector in registered():
        if sections[detector.name].enabled:
            for index, rule in enumerate(detector.rules(sections[detector.name], config.profile)):
                if rule.is_long and rule.window_s % MINUTE_S:
                    raise ConfigError(
                        f"expected at most {SECONDS_MIN} seconds or whole minutes (a multiple of {MINUTE_S}) at "
                        f"`$.detectors.{detector.name}.rules[{index}].window_s`, got {rule.window_s}"
                    )
                found.append(rule)
    return found


def plan_windows(config: Config, rules: Sequence[WindowRule] | None = None, tick: int | None = None) -> WindowPlan:
    """The rules in force, laid out for the kernels.

    Args:
        rules: those of the configuration, with what else is to be judged; none: just those.
        tick: the first second that the plan is for; see `detectors.windowed.lay_out`.

    Raises:
        ConfigError: see `settings`.
    """
    sections = settings(config)
    enabled = [detector for detector in registered() if sections[detector.name].enabled]
    looked_at = tuple(dict.fromkeys(dimension for detector in enabled for dimension in detector.dimensions))
    items = tuple(dict.fromkeys(item for detector in enabled for item in detector.items))
    samples = any(detector.samples for detector in enabled)
    models = any(detector.models is not None and detector.models(sections[detector.name]) for detector in enabled)
    chosen = window_rules(config) if rules is None else rules
    return lay_out(
        chosen, config.policy.renew_s, samples=samples, looked_at=looked_at, items=items, models=models, tick=tick
    )  # fmt: skip
