"""``distinct``: one key is seen with too many different items within a sliding window.

How it decides: for each key and tick a set of 64 bins is kept for every item that some rule counts: networks, countries,
routes that failed, user agents, accounts. The sets of the last ``window_s`` ticks are united, and the number of bins taken
says how many items there were (linear counting). The item's bin follows from a secret seed, so nobody can choose items that
share one. Sets of tallies are united bit by bit: any cut and any order gives the same number.

One API key used from a hundred networks was leaked or is resold; one address that tries many accounts stuffs credentials;
one that fails on many routes scans; one that changes its user agent with every few requests hides.

Where it fails: a gateway, an office or a carrier's NAT has many accounts behind one address, a fleet of functions has many
networks under one key: the defaults are far above both, and the actions are mild. It counts items, not how often each came:
a slow sharer with five networks is not found. More than 150 items cannot be told apart; the number in a finding is an
estimate (± 10 % at 32, more above), and at most the number of requests, which is counted.

Costs: a word for each item in every row; a set is counted anew only when it can have outgrown its limit since it was
counted last.

Confidence: stated by each rule. Can its evidence be forged? The networks of an authenticated key cannot; accounts that an
address *names* are its own words, and are held against the address only.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from detectors.windowed import (
    DISTINCT_MAX,
    Detector,
    DetectorSection,
    Profile,
    RuleSection,
    WindowRule,
    judged,
    seconds_of,
    whom_of,
)
from schemas.config import DimensionName, ItemName, item_of
from schemas.fields import Item


class DistinctRule(RuleSection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """More than ``limit`` different items with one key within a sliding window."""

    dimension: DimensionName
    """Whom the items are counted for."""
    items: ItemName
    """What is counted. ``failed_route``: routes that answered with a client error or refused the authentication. ``account``:
    accounts, where none is named API keys; also of requests that failed authentication."""
    window_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 60
    """The last so many seconds of event time, this one included."""
    limit: Annotated[int, msgspec.Meta(ge=1, le=DISTINCT_MAX)]
    """Up to so many are allowed."""


class Distinct(DetectorSection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ``distinct`` detector."""

    rules: tuple[DistinctRule, ...] | None = None
    """None: the defaults (docs/detectors.md)."""


DEFAULTS = (
    DistinctRule(dimension="ip", items="failed_route", limit=25, severity=6),
    DistinctRule(dimension="ip", items="user_agent", limit=30, severity=4, action="challenge", confidence=0.6),
    DistinctRule(dimension="api_key", items="net", limit=40, severity=7),
    DistinctRule(dimension="api_key", items="country", limit=20, severity=6, action="notify", confidence=0.6),
)
_NOUNS = {
    Item.NET: "networks", Item.COUNTRY: "countries", Item.FAILED_ROUTE: "routes that failed", Item.USER_AGENT: "user agents",
    Item.ACCOUNT: "accounts",
}  # fmt: skip


def _rules(section: Distinct, profile: Profile) -> list[WindowRule]:
    return [
        judged(
            DETECTOR,
            section,
            rule,
            rule.dimension,
            item_of(rule.items),
            rule.window_s,
            rule.limit,
            label=f"distinct_{rule.items}",
        )
        for rule in (DEFAULTS if section.rules is None else section.rules)
    ]


def _describe(rule: WindowRule, target: str, observed: int) -> str:
    assert isinstance(rule.value, Item)
    return (
        f"about {observed:,} different {_NOUNS[rule.value]} in {seconds_of(rule)} {whom_of(rule, target)}, where "
        f"{rule.told_limit:,} are allowed"
    )


DETECTOR = Detector("distinct", 1, Distinct, _rules, _describe)
