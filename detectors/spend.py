"""``spend``: one key, account or network uses up tokens or money faster than it may.

How it decides: as ``rate``, over tokens and cost. Input tokens without those that came from a cache are not told apart:
what a provider pays for is in the cost, where the gateway says it. Denial of wallet (OWASP LLM10:2025), long inputs, long
outputs and inflated ``max_tokens`` have a rule each; limits are for the service to set, the defaults are what no customer
of ordinary size needs.

Where it fails: an absolute limit that fits the largest customer is far above the smallest. Who stays just below it, or
spreads over many accounts, is not found here. Records without tokens are not seen; `floodwall doctor` says so.

Costs: one sum per measure and window.

Confidence: stated by each rule. Can its evidence be forged? Only by whom holds the key: what failed authentication is no
state for the key or account it names.
"""

from __future__ import annotations

from typing import Annotated, Literal

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
from schemas.config import Count, measure_of


class SpendRule(RuleSection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """More than ``limit`` tokens or millionths of cost within a sliding window, for one key of one dimension."""

    dimension: Literal["api_key", "account", "net", "asn", "ip", "service"]
    """Who pays, or spends."""
    measure: Literal["tokens_in", "tokens_out", "max_tokens", "cost_micro", "wasted_tokens"]
    """What is used up. ``wasted_tokens``: input tokens of requests that the client cancelled."""
    window_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 60
    """The last so many seconds of event time, this one included. More than 120: whole minutes, that is a multiple of 60."""
    limit: Count
    """Up to this much is allowed."""
    severity: Annotated[int, msgspec.Meta(ge=1, le=10)] = 6
    confidence: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.8


class Spend(DetectorSection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ``spend`` detector."""

    rules: tuple[SpendRule, ...] | None = None
    """None: the defaults (docs/detectors.md)."""


# Tokens a minute, above what providers grant their larger customers and what the busiest honest one of the drills uses (20.4 M
# input tokens, 102 units of cost, over eight seeds: a batch job). `ratio` is closer to those whose single requests are dear.
DEFAULTS = (
    SpendRule(dimension="api_key", measure="tokens_in", limit=30_000_000),
    SpendRule(dimension="api_key", measure="tokens_out", limit=4_000_000),
    SpendRule(dimension="api_key", measure="cost_micro", limit=150_000_000),
)


def _rules(section: Spend, profile: Profile) -> list[WindowRule]:
    return [
        judged(DETECTOR, section, rule, rule.dimension, measure_of(rule.measure), rule.window_s, rule.limit)
        for rule in (DEFAULTS if section.rules is None else section.rules)
    ]


DETECTOR = Detector("spend", 1, Spend, _rules, describe_sum)
