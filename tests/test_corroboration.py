"""Weak findings about one target add up, strong ones shorten the way. Each test is one promise of docs/policy.md."""

from __future__ import annotations

from typing import Any

import pytest

from detectors import distinct, rate, ratio
from engine.corroborate import HEARD_MAX, Corroboration
from engine.crossing import Crossing
from engine.policy import Policy
from schemas.config import parse_config
from schemas.fields import Dimension
from schemas.mitigation import Mitigation

NOW = 1_000_020
ATTACKER = 0xFFFF << 32 | 0xCB007107


def policy_of(**policy: Any) -> Policy:
    return Policy(parse_config({"policy": policy, "engine": {"judge_partitions": 1}}), "seed", lambda start, end: {}, 1)


def crossing(rule: Any, tick: int = NOW, dimension: str = "ip", name: bytes = b"") -> Crossing:
    module = {rate.RateRule: rate, ratio.RatioRule: ratio, distinct.DistinctRule: distinct}[type(rule)]
    section = module.DETECTOR.section(rules=(rule,))
    (made,) = module.DETECTOR.rules(section, "web")
    b = ATTACKER if dimension == "ip" else 1
    return Crossing(0, Dimension[dimension.upper()], 0, b, name, made, tick, 150, 20, 1, False)


def rate_rule(dimension: str = "ip", **changes: Any) -> rate.RateRule:
    return rate.RateRule(**{"dimension": dimension, "window_s": 10, "limit": 100, **changes})


def ratio_rule(dimension: str = "ip", **changes: Any) -> ratio.RatioRule:
    return ratio.RatioRule(**{"dimension": dimension, "measure": "auth_failures", "share": 0.9, "limit": 20, **changes})


def final(policy: Policy, what: Crossing) -> Mitigation:
    mitigation = policy.decide(what, "final")[1]
    assert mitigation is not None
    return mitigation


def test_two_weak_findings_about_an_address_throttle_it_and_say_so() -> None:
    policy = policy_of()
    alone = final(policy, crossing(rate_rule(action="notify", confidence=0.6)))
    assert (alone.action, alone.confidence) == ("notify", 0.6)
    both = final(policy, crossing(ratio_rule(action="notify", confidence=0.6), NOW + 5))
    assert (both.action, both.confidence) == ("throttle", 0.84)
    assert both.reason.endswith("; rate agrees")


def test_a_flood_with_failing_logins_is_blocked_at_once() -> None:
    policy = policy_of()
    assert final(policy, crossing(rate_rule(confidence=0.9))).action == "throttle"
    assert final(policy, crossing(ratio_rule(confidence=0.9), NOW + 3)).action == "block"


def test_one_detector_that_repeats_itself_is_one_voice() -> None:
    policy = policy_of()
    for later in range(0, 200, 60):
        said = final(policy, crossing(rate_rule(action="notify", confidence=0.7), NOW + later))
        assert (said.action, said.confidence) == ("notify", 0.7)


def test_what_was_said_too_long_ago_or_of_somebody_else_does_not_count() -> None:
    policy = policy_of(corroborate_s=60)
    final(policy, crossing(rate_rule(action="notify", confidence=0.7)))
    assert final(policy, crossing(ratio_rule(action="notify", confidence=0.7), NOW + 60)).action == "notify"
    other = crossing(ratio_rule("account", action="notify", confidence=0.7), NOW + 61, "account", b"acct_1")
    assert final(policy, other).confidence == 0.7
    assert final(policy_of(corroborate_s=0), crossing(rate_rule(confidence=0.9))).action == "throttle"


def test_a_customer_needs_more_than_an_address() -> None:
    policy = policy_of()
    for weak, expected in ((0.6, "notify"), (0.7, "throttle")):
        name = f"acct_{weak}".encode()
        policy = policy_of()
        final(policy, crossing(rate_rule("account", action="notify", confidence=weak), NOW, "account", name))
        again = crossing(ratio_rule("account", action="notify", confidence=weak), NOW + 1, "account", name)
        assert final(policy, again).action == expected


def test_a_shared_address_is_neither_raised_nor_blocked() -> None:
    policy = policy_of(shared_networks=["203.0.113.0/24"])
    final(policy, crossing(rate_rule(action="notify", confidence=0.9)))
    assert final(policy, crossing(ratio_rule(action="notify", confidence=0.9), NOW + 1)).action == "notify"
    assert (
        final(policy, crossing(distinct.DistinctRule(dimension="ip", items="account", limit=5), NOW + 2)).action == "throttle"
    )


def test_an_early_record_is_not_heard() -> None:
    policy = policy_of()
    policy.decide(crossing(rate_rule(action="notify", confidence=0.9)), "early")
    assert final(policy, crossing(ratio_rule(action="notify", confidence=0.7), NOW + 1)).action == "notify"


def test_saved_and_loaded_it_remembers() -> None:
    policy, other = policy_of(), policy_of()
    final(policy, crossing(rate_rule(action="notify", confidence=0.6)))
    other.load(policy.save())
    assert final(other, crossing(ratio_rule(action="notify", confidence=0.6), NOW + 5)).action == "throttle"


@pytest.mark.parametrize("apart_s", [0, 1000])
def test_what_it_remembers_is_bounded(apart_s: int) -> None:
    heard = Corroboration(parse_config({}).policy)
    for number in range(HEARD_MAX + 5000):
        heard.hear((1, 0, number), "rate", NOW + number * apart_s, 0.9)
    assert len(heard.save()) <= HEARD_MAX
    last = HEARD_MAX + 4999
    assert heard.together((1, 0, last), "ratio", NOW + last * apart_s, 0.9).others == ("rate",)
