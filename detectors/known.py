"""``known``: a client whose user agent names a tool that only attackers, or people who were asked to, run against a service.

How it decides: an event is *listed* if its user agent holds one of the words of ``agents``, whatever their case. More than
``limit`` listed requests of one address within a window cross.

Where it fails: a user agent is the client's own word. Who changes it is not found by it, and nobody may be let through
because of it; a test by your own people looks like an attack: give them an exception in ``policy.allow``.

Costs: each user agent that has not been seen lately is looked through once, an addition an event.

Confidence: high, for who claims to be a scanner has no reason to lie. Can its evidence be forged? By whom sends it: an
address can only bring itself into this, not others.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from detectors.windowed import Detector, DetectorSection, Profile, RuleSection, WindowRule, judged, seconds_of, whom_of
from schemas.config import Action, Count, DimensionName
from schemas.fields import Measure

AGENTS = (
    "acunetix", "arachni", "commix", "dirbuster", "dirsearch", "feroxbuster", "ffuf", "fimap", "gobuster", "havij", "hydra",
    "jaeles", "joomscan", "masscan", "metasploit", "nessus", "netsparker", "nikto", "nmap", "nuclei", "openvas", "qualys",
    "sqlmap", "sqlninja", "skipfish", "w3af", "wapiti", "webshag", "wfuzz", "whatweb", "wpscan", "xsser", "zaproxy", "zgrab",
)  # fmt: skip
"""Scanners, fuzzers and password guessers that name themselves."""


class KnownRule(RuleSection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """More than ``limit`` requests of listed agents within a sliding window, for one key of one dimension."""

    dimension: DimensionName = "ip"
    """Whose requests."""
    window_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 60
    """The last so many seconds of event time, this one included. More than 120: whole minutes, that is a multiple of 60."""
    limit: Count = 3
    """Up to so many are allowed."""
    action: Action = "block"
    severity: Annotated[int, msgspec.Meta(ge=1, le=10)] = 6
    confidence: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.95


Word = Annotated[str, msgspec.Meta(min_length=3, max_length=64)]


class Known(DetectorSection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ``known`` detector."""

    agents: tuple[Word, ...] = AGENTS
    """Words of user agents."""
    rules: tuple[KnownRule, ...] = (KnownRule(),)
    """What of them crosses."""


def _rules(section: Known, profile: Profile) -> list[WindowRule]:
    return [
        judged(DETECTOR, section, rule, rule.dimension, Measure.LISTED, rule.window_s, rule.limit, words=section.agents)
        for rule in section.rules
    ]


def _describe(rule: WindowRule, target: str, observed: int) -> str:
    return (
        f"{observed:,} requests of a scanner's user agent in {seconds_of(rule)} {whom_of(rule, target)}, where "
        f"{rule.told_limit:,} are allowed"
    )


DETECTOR = Detector("known", 1, Known, _rules, _describe)
