"""``rate``: more than a limit of a measure within a sliding window, for one key of one dimension.

How it decides: at every tick (second of event time) that a key is seen in, each rule compares the sum of its measure over
the last ``window_s`` ticks, this one included, with its limit. Sums are exact integers over exactly those ticks, not
buckets: no burst is split by a boundary, and any order of arrival gives the same sums.

Where it fails: an attack spread over more keys than the limit allows for is invisible to it; honest machines behind one
address can look like one busy client, which is why assets weigh nothing and shared networks are never blocked. A window is
a whole number of seconds, so a limit for one second counts from one full second to the next.

Costs: one row per key and tick that it was seen in, one addition per window and row when its tick closes and one when it
leaves (docs/benchmarks.md).

Why these limits: one page load of a browser is 30 to 56 requests within seconds, nearly all assets. The busiest client of a
space agency's site (1995, 2,365 clients) made 2 requests for other than assets in 1 s, 6 in 10 s and 28 in 60 s; of another
site (2015, its times rewritten: an hour falls in a minute) 4, 10 and 39; of a web shop (2019) 44, 222 and 239 with assets.
On the first two neither profile finds anybody.

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
    """The last so many seconds of event time, this one included."""
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
