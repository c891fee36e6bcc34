"""Which rules a mitigation was decided by, where they are changed on the way: whose change, why, and what has changed since."""

from __future__ import annotations

import msgspec

from engine.config_chain import Accepted, ConfigChain
from engine.standing import TRIAL_SUFFIX
from replay.advice import OPERATOR, Advice
from schemas.config import Config
from schemas.errors import ConfigError
from schemas.mitigation import Mitigation

SINCE_MAX = 2
"""Later changes that are told of: the last ones."""


class Changed(msgspec.Struct, frozen=True):
    """A change of the configuration, for people."""

    version: int
    section: str
    at: int
    """The first second that it decided about."""
    who: str
    why: str
    tried: bool
    """Only in dry run, beside the rules in force."""


class RulesThen(msgspec.Struct, frozen=True, kw_only=True):
    """What decided."""

    version: int
    """Of the configuration."""
    made_by: Changed | None
    """The last change of the detector's own section; None: it was as in the deployment's file."""
    since: list[Changed]
    """Changes of that section and of the policy from later seconds on, the last ones."""
    is_latest: bool
    """Nothing else has been changed after ``made_by``."""


def rules_then(chain: ConfigChain, own: Mitigation) -> tuple[Config, RulesThen | None]:
    """(the configuration that decided, what there is to tell of it; None: it is the deployment's file, unchanged since)."""
    if own.detector == OPERATOR or not chain.accepted:
        return chain.last.config, None
    try:
        standing = chain.standing_of_version(own.config_version)
    except ConfigError:  # by a judge with another file: the second says what it can
        standing = chain.standing_at(own.tick)
    made = standing.sections.get(own.detector)
    section = f"detectors.{own.detector.removesuffix(TRIAL_SUFFIX)}"
    by = next((_changed(one) for one in chain.accepted if one.standing.version == made), None)
    since = [
        _changed(one)
        for one in chain.accepted
        if one.standing.version > standing.version and one.change.section in (section, "policy")
    ]
    if by is None and not since:
        return standing.config, None
    is_latest = by is not None and by.version == chain.last.version
    return standing.config, RulesThen(version=standing.version, made_by=by, since=since[-SINCE_MAX:], is_latest=is_latest)


def advise_back(rules: RulesThen | None) -> list[Advice]:
    """How to undo the change that decided, where it is the last one."""
    if rules is None or rules.made_by is None or not rules.is_latest or rules.made_by.tried:
        return []
    text = f"Was the change by {rules.made_by.who} the mistake? Go back to what stood before it:"
    return [Advice(text, f'floodwall config rollback {rules.made_by.version - 1} --why "WHY"')]


def _changed(one: Accepted) -> Changed:
    change = one.change
    tried = change.trial_s is not None
    return Changed(one.standing.version, change.section, change.effective_tick, change.who, change.why, tried)
