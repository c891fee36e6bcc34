"""``ratio``: too large a share of one measure in another within a sliding window, once there is enough of it.

How it decides: when a tick closes, a rule looks at the exact sums of ``measure`` and of ``of`` over the last ``window_s``
ticks of one key. It crosses when there is more than ``limit`` of the measure *and* the measure is at least ``share`` of the
other: nine requests in ten fail, nearly every login is refused, half of all requests are cancelled. A share may be larger
than one: 5,000 input tokens for each request. Only whole ticks are judged, so it is never early: the rest of a second may
bring the share down again.

A window of more than 120 seconds is whole minutes and the minute under way, ``window_s`` at most. A key comes into it with its
first event of the measure, and ``of`` is counted from there: what it did before says nothing for it.

Where it fails: an attacker who mixes in as much honest-looking traffic stays below any share, and pays for it; a client
with a broken integration looks like a scanner, which is why a share needs a number beside it and addresses are only
throttled. Below ``limit`` it sees nothing: a scan of ten paths passes.

Costs: two sums a rule, of which rules with the same measure and window share one.

Confidence: stated by each rule. Can its evidence be forged? Not for a key or account: what failed authentication is no
state for whom it names. For an address as for ``rate``.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from detectors.windowed import (
    NOUNS,
    Detector,
    DetectorSection,
    Profile,
    RuleSection,
    WindowRule,
    amount,
    judged,
    seconds_of,
    whom_of,
)
from schemas.config import Count, DimensionName, MeasureName, measure_of
from schemas.fields import Measure


class RatioRule(RuleSection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """More than ``limit`` of a measure, and at least ``share`` of another, within a sliding window."""

    dimension: DimensionName
    """What is counted for: each key of it has its own sums."""
    measure: MeasureName
    """The part."""
    of: MeasureName = "requests"
    """The whole."""
    share: Annotated[float, msgspec.Meta(ge=0.001, le=1_000_000)]
    """The part must be at least so much of the whole. More than 1 for a mean: tokens for each request, say."""
    limit: Count
    """There must be more than so much of the part before the share means anything."""
    window_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 60
    """The last so many seconds of event time, this one included. More than 120: whole minutes, that is a multiple of 60."""


class Ratio(DetectorSection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ``ratio`` detector."""

    rules: tuple[RatioRule, ...] | None = None
    """None: the defaults of the profile (docs/detectors.md)."""


# More than 20 client errors in 60 s hit 1 of 606 honest clients of a real web shop; with eight in ten failing, none. A person
# who mistypes a password fails a few times; a forgotten job with an expired key failed 27 times in a minute in the drills.
#
# Long windows, and the honest who come nearest in the drills (seeds 1 and 2, an hour of 350 events a second with every storm,
# and quiet days): with half failing, 5 client errors in 10 minutes; with three in ten, 8 failed logins in an hour; with half
# of its requests, 3 registrations in 10 minutes; of a network one request in twenty, 6 registrations in an hour (seeds 1 to 4):
# people look at pages first, and a page is dozens of requests. On a space agency's site (1995) it was 6 client errors. Where
# only registrations are read, every share is whole, and a network behind one address had 15: that is why it is challenged and
# not throttled.
_BOTH = (
    RatioRule(dimension="ip", measure="client_errors", share=0.8, limit=30, severity=6),
    RatioRule(dimension="ip", measure="client_errors", share=0.6, limit=15, window_s=600, severity=5),
    RatioRule(dimension="ip", measure="login_failures", share=0.3, limit=12, window_s=3600, severity=6, confidence=0.8),
    RatioRule(
        dimension="ip", measure="registrations", share=0.5, limit=10, window_s=600, severity=5, action="challenge",
        confidence=0.7,
    ),
    RatioRule(
        dimension="net", measure="registrations", share=0.05, limit=8, window_s=3600, severity=5,
        action="restrict_registration", confidence=0.7,
    ),
    RatioRule(dimension="ip", measure="auth_failures", share=0.9, limit=35, severity=7),
    RatioRule(dimension="api_key", measure="wasted_tokens", of="tokens_in", share=0.5, limit=200_000, severity=6),
)  # fmt: skip
# What answers keep in reserve: an honest key asked for 13,000 tokens in a minute where it got one of 200; one whose requests
# take 200 s on average had 1.9 M milliseconds of them in 90 s. Agents that always ask for the most and get a line back have
# one of 400. And what requests cost: honest keys that spend 200,000 millionths a request on average spent less than 5 M a
# minute (seeds 1 to 8); a batch job spends 100 M, in requests of 6,000.
_KEYS = (
    RatioRule(
        dimension="api_key", measure="max_tokens", of="tokens_out", share=500, limit=1_000_000, severity=5, confidence=0.7
    ),
    RatioRule(
        dimension="api_key", measure="duration_ms", share=200_000, limit=2_600_000, window_s=90, severity=5, confidence=0.7
    ),
    RatioRule(dimension="api_key", measure="cost_micro", share=200_000, limit=8_000_000, severity=6, confidence=0.8),
)  # fmt: skip
DEFAULTS: dict[Profile, tuple[RatioRule, ...]] = {"web": _BOTH, "api": (*_BOTH, *_KEYS)}


def _rules(section: Ratio, profile: Profile) -> list[WindowRule]:
    return [
        judged(
            DETECTOR,
            section,
            rule,
            rule.dimension,
            measure_of(rule.measure),
            rule.window_s,
            rule.limit,
            of=measure_of(rule.of),
            share=rule.share,
        )
        for rule in (DEFAULTS[profile] if section.rules is None else section.rules)
    ]


def _describe(rule: WindowRule, target: str, observed: int) -> str:
    assert isinstance(rule.value, Measure)
    assert rule.of is not None
    share = f"{rule.share:.0%} of its" if rule.share <= 1 else f"{amount(rule, rule.share)} for each of its"
    return (
        f"{amount(rule, observed)} {NOUNS[rule.value]} in {seconds_of(rule)} {whom_of(rule, target)}, at least {share} "
        f"{NOUNS[rule.of]}, where {amount(rule, rule.told_limit)} are allowed"
    )


DETECTOR = Detector("ratio", 1, Ratio, _rules, _describe)
