"""``rate``: more than a limit of a measure within a sliding window, for one key of one dimension.

How it decides: at every tick (second of event time) that a key is seen in, each rule compares the sum of its measure over
the last ``window_s`` ticks, this one included, with its limit. Sums are exact integers over exactly those ticks, not
buckets: no burst is split by a boundary, and any order of arrival gives the same sums. A window of more than 120 seconds is
whole minutes and the minute under way, ``window_s`` at most: it is compared when something is added to it, and never early.

Where it fails: an attack spread over more keys than the limit allows for is invisible to it; honest machines behind one
address can look like one busy client, which is why assets weigh nothing and shared networks are never blocked. A window is
a whole number of seconds, so a limit for one second counts from one full second to the next. A long window may be up to a
minute shorter than it says, for an attack that is slower by so much.

Costs: one row per key and tick that it was seen in, one addition per window and row when its tick closes and one when it
leaves (docs/benchmarks.md). Long windows hold only keys that have any of what is summed, in buckets of a minute.

Why these limits: one page load of a browser is 30 to 56 requests within seconds, nearly all assets. The busiest client of a
space agency's site (1995, 2,365 clients) made 2 requests for other than assets in 1 s, 6 in 10 s and 28 in 60 s; of another
site (2015, its times rewritten: an hour falls in a minute) 4, 10 and 39; of a web shop (2019) 44, 222 and 239 with assets.
On the first two neither profile finds anybody. In the drills (seeds 1 and 2, an hour of 350 events a second with every
storm, and quiet days) the honest address that fails most logins fails 4 in 10 s, that of a forgotten job 10, and the busiest
network behind one address registers 15 accounts in 10 minutes, on the day of a campaign.

Confidence: stated by each rule. Can its evidence be forged? An address of an established connection cannot; one taken from
a header is as good as the proxy that wrote it (``input.proxy_depth``).
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from detectors.windowed import (
    Detector,
    DetectorSection,
    Profile,
    RuleSection,
    WindowRule,
    describe_sum,
    judged,
)
from schemas.config import Count, DimensionName, MeasureName, measure_of


class RateRule(RuleSection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """More than ``limit`` of a measure within a sliding window, for one key of one dimension."""

    dimension: DimensionName
    """What is counted for: each key of it has its own sum."""
    measure: MeasureName = "evidence"
    """What is summed; docs/detectors.md says what each is."""
    window_s: Annotated[int, msgspec.Meta(ge=1, le=3600)]
    """The last so many seconds of event time, this one included. More than 120: whole minutes, that is a multiple of 60."""
    limit: Count
    """Up to this much is allowed; more crosses it."""


class Rate(DetectorSection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ``rate`` detector."""

    rules: tuple[RateRule, ...] | None = None
    """None: the defaults of the profile (docs/detectors.md)."""


_ADDRESSES = (
    RateRule(dimension="ip", window_s=1, limit=100, severity=8),
    RateRule(dimension="ip", window_s=10, limit=300, severity=7),
    RateRule(dimension="ip", window_s=60, limit=900, severity=6),
    RateRule(dimension="ip", measure="auth_failures", window_s=60, limit=60, severity=7),
    RateRule(dimension="ip", measure="registrations", window_s=600, limit=20, severity=6),
    RateRule(dimension="net", window_s=10, limit=3000, severity=6, action="notify", confidence=0.6),
)
_ROUTES = (RateRule(dimension="route", window_s=10, limit=20000, severity=5, action="notify", confidence=0.5),)
DEFAULTS: dict[Profile, tuple[RateRule, ...]] = {
    "web": (
        *_ADDRESSES,
        RateRule(dimension="api_key", window_s=10, limit=5000, severity=5, action="notify", confidence=0.6),
        *_ROUTES,
    ),
    "api": (
        *_ADDRESSES,
        RateRule(dimension="ip", measure="auth_failures", window_s=10, limit=15, severity=7),
        RateRule(dimension="ip", measure="login_failures", window_s=10, limit=6, severity=7),
        RateRule(dimension="api_key", window_s=10, limit=6000, severity=5, action="notify", confidence=0.6),
        *_ROUTES,
    ),
}


def _rules(section: Rate, profile: Profile) -> list[WindowRule]:
    return [
        judged(DETECTOR, section, rule, rule.dimension, measure_of(rule.measure), rule.window_s, rule.limit)
        for rule in (DEFAULTS[profile] if section.rules is None else section.rules)
    ]


DETECTOR = Detector("rate", 1, Rate, _rules, describe_sum)
