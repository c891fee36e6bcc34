"""``known``: a client that is on a list: of tools that only attackers run, or of addresses that an operator keeps.

How it decides: an event is *listed* if its user agent holds one of the words of ``agents`` and of the files ``agents_files``,
whatever their case. More than ``limit`` listed requests of one address within a window cross. Each of ``lists`` is a file of
addresses and prefixes with a limit of its own, and what it means: of addresses on it more than ``limit`` of a measure within a
window cross. So known attackers may be throttled at a tenth of what others may do, Tor's exits asked for proof that somebody
sits there, and people told what comes from hosting networks. A file has an address or a prefix a line, IPv4 or IPv6; ``#``
and ``;`` begin comments, and it may be gzipped. Lists are read at start: whoever refreshes one starts the workers again, which
loses nothing. The digest of the list is in the evidence, and a replay under another one shows another.

Where it fails: a user agent is the client's own word. Who changes it is not found by it, and nobody may be let through
because of it; a test by your own people looks like an attack: give them an exception in ``policy.allow``. A list is as good as
who keeps it: addresses change hands within days, and behind a Tor exit or in a hosting network many are honest, so the default
is to challenge and never to block. IPv6 is counted by /64, so that one address on a list brings its /64 into it. Crawlers
that are welcome are no list of this kind: docs/policy.md says how to allow them.

Costs: each user agent that has not been seen lately is looked through once, an addition an event. A list is asked only about
addresses over its limit, once in a cell of ``policy.renew_s``, in twenty steps for a million prefixes, which are 32 MB for all
judges of a process (docs/benchmarks.md).

Confidence: high for agents, for who claims to be a scanner has no reason to lie; that of a list is its keeper's. Can its
evidence be forged? An agent by whom sends it: an address can only bring itself into this, not others. An address as for
``rate``.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from detectors.lists import digest_of, read_addresses, read_words
from detectors.windowed import (
    NOUNS,
    Detector,
    DetectorSection,
    Profile,
    RuleSection,
    WindowRule,
    judged,
    seconds_of,
    whom_of,
)
from schemas.config import Action, Count, DimensionName, MeasureName, measure_of
from schemas.errors import ConfigError
from schemas.fields import Measure

AGENTS = (
    "acunetix", "arachni", "commix", "dirbuster", "dirsearch", "feroxbuster", "ffuf", "fimap", "gobuster", "havij", "hydra",
    "jaeles", "joomscan", "masscan", "metasploit", "nessus", "netsparker", "nikto", "nmap", "nuclei", "openvas", "qualys",
    "sqlmap", "sqlninja", "skipfish", "w3af", "wapiti", "webshag", "wfuzz", "whatweb", "wpscan", "xsser", "zaproxy", "zgrab",
)  # fmt: skip
"""Scanners, fuzzers and password guessers that name themselves."""
_LISTED = "listed_"


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


Path = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


class KnownList(RuleSection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """More than ``limit`` of a measure within a sliding window, for one address on a list."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_]{1,32}$")]
    """In findings (``listed_NAME``) and their evidence."""
    path: Path
    """A file with an address or prefix a line; ``#`` and ``;`` begin comments, and it may be gzipped."""
    measure: MeasureName = "evidence"
    """What is summed; docs/detectors.md says what each is."""
    window_s: Annotated[int, msgspec.Meta(ge=1, le=120)] = 60
    """The last so many seconds of event time, this one included."""
    limit: Count = 30
    """Up to so much is allowed to an address on the list."""
    action: Action = "challenge"
    severity: Annotated[int, msgspec.Meta(ge=1, le=10)] = 4
    confidence: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.6


Word = Annotated[str, msgspec.Meta(min_length=3, max_length=64)]


class Known(DetectorSection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ``known`` detector."""

    agents: tuple[Word, ...] = AGENTS
    """Words of user agents …"""
    agents_files: Annotated[tuple[Path, ...], msgspec.Meta(max_length=16)] = ()
    """… and files with more of them, one a line, of 3 to 64 bytes."""
    rules: tuple[KnownRule, ...] = (KnownRule(),)
    """What of them crosses."""
    lists: Annotated[tuple[KnownList, ...], msgspec.Meta(max_length=16)] = ()
    """Lists of addresses, each with what it means."""


def _rules(section: Known, profile: Profile) -> list[WindowRule]:
    words = section.agents + tuple(word for path in section.agents_files for word in read_words(path))
    digest = (("agents", digest_of(words)),)
    names = [held.name for held in section.lists]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ConfigError(
                f"expected lists of different names, got {name!r} again at `$.detectors.known.lists[{index}].name`"
            )
    return [
        *(
            judged(
                DETECTOR, section, rule, rule.dimension, Measure.LISTED, rule.window_s, rule.limit, words=words,
                evidence=digest,
            )
            for rule in section.rules
        ),
        *(_rule_of(section, held) for held in section.lists),
    ]  # fmt: skip


def _rule_of(section: Known, held: KnownList) -> WindowRule:
    addresses = read_addresses(held.path)
    return judged(
        DETECTOR, section, held, "ip", measure_of(held.measure), held.window_s, held.limit, label=_LISTED + held.name,
        listed=addresses, evidence=(("list", held.name), ("list_digest", addresses.digest)),
    )  # fmt: skip


def _describe(rule: WindowRule, target: str, observed: int) -> str:
    if rule.listed is None:
        what, where = "requests of a scanner's user agent", ""
    else:
        assert isinstance(rule.value, Measure)
        what, where = NOUNS[rule.value], f" on the list {rule.label.removeprefix(_LISTED)}"
    return f"{observed:,} {what} in {seconds_of(rule)} {whom_of(rule, target)}{where}, where {rule.told_limit:,} are allowed"


DETECTOR = Detector("known", 1, Known, _rules, _describe, fixed=("agents", "agents_files", "lists"))
