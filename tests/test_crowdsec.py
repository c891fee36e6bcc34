"""CrowdSec's buckets as rules of ours: whoever crosses a rule makes the bucket run over."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.crowdsec import SCENARIOS, Scenario, bucket_rules, compare
from detectors.registry import window_rules
from tests.engines import config_of

SUMS = [name for name, scenario in SCENARIOS.items() if "rate" in bucket_rules(scenario)]


def runs_over(scenario: Scenario, times_ms: list[int]) -> bool:
    level, last = Fraction(0), 0
    for at in times_ms:
        level = max(Fraction(0), level - Fraction(at - last, 1000) / Fraction(scenario.leak_s)) + 1
        last = at
        if level > scenario.capacity:
            return True
    return False


def crosses(scenario: Scenario, times_ms: list[int]) -> bool:
    ticks = [at // 1000 for at in times_ms]
    return any(
        sum(tick - rule["window_s"] < other <= tick for other in ticks) > rule["limit"]
        for rule in bucket_rules(scenario)["rate"]["rules"]
        for tick in set(ticks)
    )


@given(name=st.sampled_from(SUMS), gaps_ms=st.lists(st.integers(0, 12_000), max_size=60), faster=st.integers(1, 40))
def test_whoever_crosses_a_rule_makes_the_bucket_run_over(name: str, gaps_ms: list[int], faster: int) -> None:
    times_ms, at = [], 0
    for gap in gaps_ms:
        at += gap // faster
        times_ms.append(at)
    assert not crosses(SCENARIOS[name], times_ms) or runs_over(SCENARIOS[name], times_ms)


@pytest.mark.parametrize("name", SUMS)
def test_a_burst_over_the_capacity_crosses(name: str) -> None:
    scenario = SCENARIOS[name]
    times_ms = [10 * number for number in range(scenario.capacity + 3)]
    assert runs_over(scenario, times_ms)
    assert crosses(scenario, times_ms)


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_is_rules_that_windows_have(name: str) -> None:
    sections = bucket_rules(SCENARIOS[name])
    rules = window_rules(config_of({"detectors": sections}))
    asked = [(rule["window_s"], rule["limit"]) for section in sections.values() for rule in section["rules"]]
    assert set(asked) <= {(rule.window_s, rule.limit) for rule in rules}
    assert len(asked) == len(set(asked))


def test_a_case_is_compared_by_whom_both_raise() -> None:
    line = '203.0.113.{who} - - [04/Jan/2020:08:41:{second:02} +0000] "POST /login HTTP/1.1" 401 5 "-" "curl/8"'
    lines = [line.format(who=7, second=second) for second in range(8)] + [line.format(who=8, second=1)]
    expected = [
        {"scenario": "crowdsecurity/http-generic-bf", "sources": ["203.0.113.7"]},
        {"scenario": "crowdsecurity/of-one-request", "sources": ["203.0.113.8"]},
    ]
    said, payload = compare({"test": "made here", "lines": lines, "expected": expected})
    assert (said.kind, said.equal, said.defaults) == ("rate", len(said.limits), frozenset())
    assert (payload.kind, payload.limits) == ("payload", ())
