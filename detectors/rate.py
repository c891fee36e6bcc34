"""``rate``: more than a limit of a measure within a sliding window, for one key of one dimension.

How it decides: at every tick (second of event time) that a key is seen in, each rule compares the sum of its measure over
the last ``window_s`` ticks, this one included, with its limit. Sums are exact integers over exactly those ticks, not
buckets: no burst is split by a boundary, and any order of arrival gives the same sums.

Where it fails: an attack spread over more keys than the limit allows for is invisible to it; honest machines behind one
address can look like one busy client, which is why assets weigh nothing and shared networks are never blocked. A window is
a whole number of seconds, so a limit for one second counts from one full second to the next.

Costs: one row per key and tick that it was seen in, one addition per window and row when its tick closes and one when it
leaves (docs/benchmarks.md).

Confidence: stated by each rule. Can its evidence be forged? An address of an established connection cannot; one taken from
a header is as good as the proxy that wrote it (``input.proxy_depth``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detectors.kernels.windows import Rules
from schemas.config import DEFAULT_RULES, Config, RateRule, dimension_of, measure_of
from schemas.fields import DIMENSIONS, Dimension, Measure

NAME = "rate"
VERSION = 1


@dataclass(frozen=True, slots=True)
class RatePlan:
    """The rules as the kernels take them, and as configured."""

    arrays: Rules
    rules: tuple[tuple[RateRule, ...], ...]
    """By dimension, in the kernels' numbering."""

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """Those that at least one rule judges."""
        return tuple(Dimension(index) for index, rules in enumerate(self.rules) if rules)

    @property
    def span_s(self) -> int:
        """The longest window, in seconds; 1 without rules."""
        return max((rule.window_s for rules in self.rules for rule in rules), default=1)


def plan_rate(config: Config) -> RatePlan:
    """Lay the configured rules, or else the profile's defaults, out for the kernels."""
    section = config.detectors.rate
    chosen = DEFAULT_RULES[config.profile] if section.rules is None else section.rules
    if not section.enabled:
        chosen = ()
    by_dimension: list[list[RateRule]] = [[] for _ in range(DIMENSIONS)]
    for rule in chosen:
        by_dimension[dimension_of(rule.dimension)].append(rule)
    tracked = [Measure.REQUESTS]
    tracked += sorted({measure_of(rule.measure) for rule in chosen} - set(tracked))
    specs = [
        sorted({(tracked.index(measure_of(rule.measure)), rule.window_s) for rule in rules if rule.window_s > 1})
        for rules in by_dimension
    ]
    most_specs = max(1, *(len(entries) for entries in specs))
    most_rules = max(1, *(len(rules) for rules in by_dimension))
    arrays = Rules(
        tracked=np.array(tracked, np.int64),
        span=np.array([max((rule.window_s for rule in rules), default=0) for rules in by_dimension], np.int64),
        spec_count=np.array([len(entries) for entries in specs], np.int64),
        spec_column=np.zeros((DIMENSIONS, most_specs), np.int64),
        spec_window=np.ones((DIMENSIONS, most_specs), np.int64),
        rule_count=np.array([len(rules) for rules in by_dimension], np.int64),
        rule_column=np.zeros((DIMENSIONS, most_rules), np.int64),
        rule_spec=np.full((DIMENSIONS, most_rules), -1, np.int64),
        rule_window=np.ones((DIMENSIONS, most_rules), np.int64),
        rule_limit=np.zeros((DIMENSIONS, most_rules), np.int64),
        renew_s=np.array([config.policy.renew_s], np.int64),
    )
    for dimension, rules in enumerate(by_dimension):
        for index, (column, window) in enumerate(specs[dimension]):
            arrays.spec_column[dimension, index] = column
            arrays.spec_window[dimension, index] = window
        for index, rule in enumerate(rules):
            column = tracked.index(measure_of(rule.measure))
            arrays.rule_column[dimension, index] = column
            arrays.rule_window[dimension, index] = rule.window_s
            arrays.rule_limit[dimension, index] = rule.limit
            if rule.window_s > 1:
                arrays.rule_spec[dimension, index] = specs[dimension].index((column, rule.window_s))
    return RatePlan(arrays, tuple(tuple(rules) for rules in by_dimension))


_NOUNS = {
    "evidence": "requests", "requests": "requests", "non_asset": "requests for other than assets",
    "client_errors": "failing requests", "auth_failures": "failed authentications", "server_errors": "server errors",
    "own_denials": "requests that we denied", "cancelled": "cancelled requests", "duration_ms": "milliseconds of work",
    "bytes": "bytes", "tokens_in": "input tokens", "tokens_out": "output tokens", "tokens_cached": "cached tokens",
    "max_tokens": "tokens asked for", "cost_micro": "millionths of cost", "registrations": "registrations",
}  # fmt: skip
_SUBJECTS = {
    Dimension.IP: "address", Dimension.NET: "network", Dimension.ASN: "autonomous system", Dimension.API_KEY: "API key",
    Dimension.USER_AGENT: "user agent", Dimension.EMAIL_DOMAIN: "mail domain", Dimension.FINGERPRINT: "TLS fingerprint",
}  # fmt: skip


def describe(rule: RateRule, dimension: Dimension, target: str, observed: int) -> str:
    """The one sentence that says what was observed, by whom, in how long, and what would have been allowed."""
    seconds = "1 second" if rule.window_s == 1 else f"{rule.window_s} seconds"
    whom = f"{_SUBJECTS[dimension]} {target}" if dimension in _SUBJECTS else f"{dimension.label} {target}"
    where = "on" if dimension in (Dimension.ROUTE, Dimension.SERVICE) else "from"
    return f"{observed:,} {_NOUNS[rule.measure]} in {seconds} {where} {whom}, where {rule.limit:,} are allowed"
