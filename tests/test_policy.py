"""What becomes of a finding: allowlist, action, cell, escalation, budgets. Each test is one promise of docs/policy.md."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from detectors.rate import DETECTOR, Rate, RateRule
from detectors.ratio import DETECTOR as RATIO
from detectors.ratio import Ratio, RatioRule
from engine.crossing import Crossing
from engine.policy import Policy
from schemas.config import parse_config
from schemas.fields import Dimension
from schemas.mitigation import Finding, Mitigation

NOW = 1_000_020
"""The first second of a cell of 60 s."""
CELL = 60
RULE = RateRule(dimension="ip", window_s=10, limit=100)


def v4(text: str) -> tuple[int, int]:
    value = 0
    for octet in text.split("."):
        value = value << 8 | int(octet)
    return 0, 0xFFFF << 32 | value


ATTACKER = v4("203.0.113.7")


def policy_of(detector: dict[str, Any] | None = None, partitions: int = 1, **policy: Any) -> Policy:
    document = {"policy": policy, "detectors": {"rate": detector or {}}, "engine": {"judge_partitions": partitions}}
    return Policy(parse_config(document), "fingerprint", lambda start, end: {"log": (0, 99)}, partitions)


def crossing(tick: int = NOW, key: tuple[int, int] = ATTACKER, **changes: Any) -> Crossing:
    fields: dict[str, Any] = {
        "partition": 0, "dimension": Dimension.IP, "key_a": key[0], "key_b": key[1], "name": b"", "rule": RULE, "tick": tick,
        "observed": 150, "requests": 20, "active_keys": 1, "aged_out": False,
    }  # fmt: skip
    fields |= changes
    dry_run = fields.pop("dry_run", False)
    (rule,) = DETECTOR.rules(Rate(rules=(fields["rule"],), dry_run=dry_run), "web")
    return Crossing(**{**fields, "rule": rule})


def named(dimension: Dimension, name: bytes, tick: int = NOW, **changes: Any) -> Crossing:
    rule = RateRule(dimension=dimension.label, window_s=10, limit=100, **changes)  # type: ignore[arg-type]  # a label is one of the names
    return crossing(tick, (hash(name) & 0xFFFF, 1), dimension=dimension, name=name, rule=rule)


def final(policy: Policy, what: Crossing) -> tuple[Finding, Mitigation | None]:
    return policy.decide(what, "final")


def mitigated(policy: Policy, what: Crossing) -> Mitigation:
    mitigation = final(policy, what)[1]
    assert mitigation is not None
    return mitigation


def test_a_crossing_becomes_a_mitigation_that_says_whom_why_and_until_when() -> None:
    finding, mitigation = final(policy_of(), crossing())
    assert mitigation is not None
    assert (mitigation.target.type, mitigation.target.value) == ("ip", "203.0.113.7")
    assert (mitigation.action, mitigation.state, mitigation.stage) == ("throttle", "active", "final")
    assert (mitigation.window.start, mitigation.window.end) == (NOW - 9, NOW + 1)
    assert mitigation.issued_at == NOW + 11  # its second and the lateness have passed
    assert mitigation.expires_at == mitigation.issued_at + 300
    assert mitigation.reason == "150 requests in 10 seconds from address 203.0.113.7, where 100 are allowed"
    assert mitigation.evidence.offsets == {"log": (0, 99)}
    assert (finding.outcome, finding.observed, finding.limit) == ("mitigated", 150, 100)


def test_the_core_of_the_allowlist_is_never_mitigated_and_its_finding_still_published() -> None:
    for text in ("127.0.0.1", "10.1.2.3", "192.168.7.7", "169.254.1.1"):
        finding, mitigation = final(policy_of(), crossing(key=v4(text)))
        assert (finding.outcome, mitigation) == ("allowlisted", None)
    assert final(policy_of(), crossing(key=(0xFE80 << 48, 0)))[1] is None


def test_a_network_that_holds_an_allowed_address_is_not_mitigated_either() -> None:
    policy = policy_of(allowlist_core=["203.0.113.200/32"])
    net = crossing(key=v4("203.0.113.0"), dimension=Dimension.NET)
    assert final(policy, net)[0].outcome == "allowlisted"
    assert final(policy, crossing())[0].outcome == "mitigated"


def test_an_operators_exception_holds_until_it_expires() -> None:
    allow = {"dimension": "ip", "value": "203.0.113.7", "owner": "me", "reason": "load test", "expires_tick": NOW + 5}
    policy = policy_of(allow=[allow])
    assert final(policy, crossing(NOW + 4))[0].outcome == "allowlisted"
    assert final(policy, crossing(NOW + 5))[0].outcome == "mitigated"
    for_ever = policy_of(allow=[{**allow, "expires_tick": None}])
    assert final(for_ever, crossing(NOW + 10**6))[0].outcome == "allowlisted"


def test_an_exception_for_an_account_or_a_key_excepts_nobody_else() -> None:
    allow = [
        {"dimension": "account", "value": "acct_1", "owner": "me", "reason": "batch"},
        {"dimension": "api_key", "value": "k2", "owner": "me", "reason": "batch", "expires_tick": NOW},
    ]
    policy = policy_of(allow=allow)
    assert final(policy, named(Dimension.ACCOUNT, b"acct_1"))[0].outcome == "allowlisted"
    assert final(policy, named(Dimension.API_KEY, b"acct_1"))[0].outcome == "mitigated"
    assert final(policy, named(Dimension.ACCOUNT, b"acct_2"))[0].outcome == "mitigated"
    assert final(policy, named(Dimension.API_KEY, b"k2", NOW - 1))[0].outcome == "allowlisted"
    assert final(policy, named(Dimension.API_KEY, b"k2", NOW))[0].outcome == "mitigated"


def test_what_says_its_own_time_to_live_keeps_it_however_often_it_comes_back() -> None:
    policy = policy_of()
    for tick in (NOW, NOW + 3 * CELL, NOW + 6 * CELL):
        rule = replace(crossing(tick).rule, ttl_s=90)
        found = mitigated(policy, replace(crossing(tick), rule=rule, reason="as told", features=(("share", 0.5),)))
        assert found.expires_at - found.issued_at == 90
        assert found.reason == "as told"
        assert found.evidence.features["share"] == 0.5


def test_a_signature_that_matches_an_allowed_address_is_not_mitigated() -> None:
    allow = {"dimension": "ip", "value": "203.0.113.7", "owner": "me", "reason": "ours", "expires_tick": NOW + 5}
    policy = policy_of(allow=[allow])
    _, low = ATTACKER
    spans = (low - 9, low - 9), (low, low)
    signed = replace(crossing(), dimension=Dimension.SIGNATURE, name=b'{"route":"GET /"}', spans=spans)
    finding, mitigation = final(policy, signed)
    assert (finding.outcome, finding.target.type, mitigation) == ("allowlisted", "signature", None)
    assert mitigated(policy, replace(signed, tick=NOW + 5)).target.value == '{"route":"GET /"}'


def test_within_a_cell_there_is_one_mitigation_and_the_next_cell_renews_it() -> None:
    policy = policy_of()
    first = mitigated(policy, crossing(NOW))
    assert final(policy, crossing(NOW + 30))[0].outcome == "merged"
    finding, renewed = final(policy, crossing(NOW + CELL))
    assert renewed is not None
    assert finding.outcome == "renewed"
    assert renewed.id != first.id
    assert (renewed.action, renewed.expires_at - renewed.issued_at) == ("throttle", 300)  # renewed is not returned


def test_a_stronger_action_in_the_same_cell_is_published_under_the_same_id() -> None:
    policy = policy_of()
    weak = mitigated(policy, crossing(rule=RateRule(dimension="ip", window_s=10, limit=100, action="challenge")))
    strong = mitigated(policy, crossing(NOW + 1, rule=RateRule(dimension="ip", window_s=60, limit=100, action="block")))
    assert strong.id == weak.id
    assert (weak.action, strong.action) == ("challenge", "block")


def test_who_comes_back_is_blocked_and_stays_out_longer_each_time_up_to_a_bound() -> None:
    policy = policy_of()
    tick, ttls, actions = NOW, [], []
    for _ in range(4):
        mitigation = mitigated(policy, crossing(tick))
        ttls.append(mitigation.expires_at - mitigation.issued_at)
        actions.append(mitigation.action)
        tick = mitigation.expires_at + 60
    assert ttls == [300, 1200, 3600, 3600]
    assert actions == ["throttle", "block", "block", "block"]


def test_who_stayed_away_for_longer_than_the_memory_comes_for_the_first_time() -> None:
    policy = policy_of(escalation_memory_s=3600)
    first = mitigated(policy, crossing())
    again = mitigated(policy, crossing(first.expires_at + 3600))
    assert (again.action, again.expires_at - again.issued_at) == ("throttle", 300)


def test_the_level_from_which_addresses_are_blocked_can_be_set() -> None:
    assert mitigated(policy_of(block_from_level=0), crossing()).action == "block"
    policy = policy_of(block_from_level=2)
    tick, actions = NOW, []
    for _ in range(3):
        mitigation = mitigated(policy, crossing(tick))
        actions.append(mitigation.action)
        tick = mitigation.expires_at + 60
    assert actions == ["throttle", "throttle", "block"]


def test_shared_networks_are_throttled_at_most() -> None:
    policy = policy_of(shared_networks=["203.0.113.0/24"], block_from_level=0)
    assert mitigated(policy, crossing()).action == "throttle"
    blocking = RateRule(dimension="ip", window_s=10, limit=100, action="block")
    assert mitigated(policy, crossing(key=v4("203.0.113.8"), rule=blocking)).action == "throttle"
    assert mitigated(policy, crossing(key=v4("198.51.100.8"))).action == "block"


def test_only_single_addresses_are_ever_escalated_to_a_block() -> None:
    policy = policy_of(block_from_level=0)
    assert mitigated(policy, crossing(key=v4("203.0.113.0"), dimension=Dimension.NET)).action == "throttle"
    assert mitigated(policy, named(Dimension.API_KEY, b"k1")).action == "throttle"
    assert mitigated(policy, named(Dimension.ACCOUNT, b"a1", action="notify")).action == "notify"


def test_a_dry_run_publishes_and_is_marked_and_takes_nothing_from_the_budgets() -> None:
    policy = policy_of(active_max=1)
    for last in range(5):
        finding, mitigation = final(policy, crossing(key=v4(f"203.0.113.{last}"), dry_run=True))
        assert mitigation is not None
        assert (finding.outcome, finding.dry_run, mitigation.dry_run, mitigation.state) == ("dry_run", True, True, "active")
    assert policy.held == 0


def attack_from(policy: Policy, count: int, tick: int = NOW, **changes: Any) -> list[str]:
    """The states of mitigations of ``count`` addresses."""
    return [mitigated(policy, crossing(tick, v4(f"203.0.113.{last}"), **changes)).state for last in range(count)]


def test_more_than_may_be_active_at_once_is_held_and_room_comes_back_when_some_expire() -> None:
    policy = policy_of(active_max=3)
    assert attack_from(policy, 5) == ["active"] * 3 + ["held"] * 2
    assert policy.held == 2
    assert mitigated(policy, crossing(NOW, v4("198.51.100.77"))).evidence.features["held"] == "active_max"
    later = mitigated(policy, crossing(NOW + 1000, v4("198.51.100.1")))
    assert later.state == "active"


def test_a_renewal_is_never_held() -> None:
    policy = policy_of(active_max=1)
    assert attack_from(policy, 1) == ["active"]
    assert attack_from(policy, 2, NOW + CELL) == ["active", "held"]


def test_more_than_may_begin_in_a_minute_is_held_until_the_next() -> None:
    policy = policy_of(new_per_minute_max=2)
    assert attack_from(policy, 4) == ["active", "active", "held", "held"]
    assert mitigated(policy, crossing(NOW + CELL, v4("198.51.100.1"))).state == "active"


def test_who_is_mitigated_by_several_detectors_is_one_key_of_the_share_and_again_after_a_restart() -> None:
    policy = policy_of(share_max=0.1)
    many = policy_of(share_max=0.1)
    for one in (policy, many):
        assert attack_from(one, 5, active_keys=50) == ["active"] * 5
    (rule,) = RATIO.rules(Ratio(rules=(RatioRule(dimension="ip", measure="client_errors", share=0.5, limit=10),)), "web")
    other = [replace(crossing(key=v4(f"203.0.113.{last}"), active_keys=50), rule=rule) for last in range(6)]
    many.load(policy.save())
    for one in (policy, many):
        assert [mitigated(one, what).state for what in other] == ["active"] * 5 + ["held"]
    later = NOW + 1000  # all have expired
    assert attack_from(policy, 6, later, active_keys=50) == ["active"] * 5 + ["held"]


def test_more_than_a_share_of_the_active_keys_is_held_once_enough_were_seen() -> None:
    assert attack_from(policy_of(share_max=0.1), 8, active_keys=50) == ["active"] * 5 + ["held"] * 3
    assert attack_from(policy_of(share_max=0.1), 8, active_keys=49) == ["active"] * 8


def test_notices_take_nothing_from_the_budgets() -> None:
    policy = policy_of(active_max=1)
    notify = RateRule(dimension="ip", window_s=10, limit=100, action="notify")
    assert attack_from(policy, 5, rule=notify) == ["active"] * 5
    assert attack_from(policy, 1, NOW + CELL) == ["active"]


def test_budgets_are_divided_by_the_judge_partitions() -> None:
    policy = policy_of(partitions=4, active_max=8)
    assert attack_from(policy, 4, partition=0) == ["active", "active", "held", "held"]
    assert attack_from(policy, 2, partition=3, tick=NOW) == ["active", "active"]


def test_an_early_record_and_its_final_have_one_id_and_only_the_final_counts() -> None:
    policy = policy_of(active_max=1)
    early = policy.decide(crossing(NOW), "early")[1]
    assert early is not None
    assert (early.stage, early.issued_at, early.expires_at) == ("early", NOW + 1, NOW + 31)
    assert policy.decide(crossing(NOW + 3), "early")[0].outcome == "merged"
    ended = mitigated(policy, crossing(NOW))
    assert (ended.id, ended.stage, ended.state) == (early.id, "final", "active")
    assert ended.expires_at > early.expires_at
    other = policy.decide(crossing(key=v4("198.51.100.1")), "early")[1]
    assert other is not None
    assert other.state == "held"  # it says what the final will say


def test_early_records_alone_change_nothing() -> None:
    policy = policy_of()
    before = policy.save()
    for last in range(20):
        policy.decide(crossing(key=v4(f"203.0.113.{last}")), "early")
    assert policy.save() == before


def test_an_early_record_of_the_next_minute_gives_back_nothing_of_this_ones_budget() -> None:
    policy = policy_of(new_per_minute_max=2)
    assert attack_from(policy, 2) == ["active", "active"]
    policy.decide(crossing(NOW + CELL, v4("198.51.100.1")), "early")
    assert mitigated(policy, crossing(NOW + 1, v4("198.51.100.2"))).state == "held"


def test_saved_and_loaded_it_decides_the_same() -> None:
    policy = policy_of(active_max=3)
    attack_from(policy, 5)
    restored = policy_of(active_max=3)
    restored.load(policy.save())
    for tick in (NOW + 30, NOW + CELL, NOW + 500, NOW + 2000):
        for last in range(6):
            what = crossing(tick, v4(f"203.0.113.{last}"))
            assert final(restored, what) == final(policy, what)


def test_what_it_remembers_is_bounded_and_what_is_active_is_not_forgotten() -> None:
    policy = policy_of(active_max=100)
    for number in range(3000):
        final(policy, crossing(NOW + number // 10 * CELL, v4(f"198.18.{number >> 8}.{number & 255}")))
    entries, *_ = policy.save()[0]
    assert len(entries) <= 4 * 100 + 1024
    assert final(policy, crossing(NOW + 299 * CELL, v4(f"198.18.{2999 >> 8}.{2999 & 255}")))[0].outcome == "merged"


def test_evidence_says_when_a_table_was_full() -> None:
    assert "aged_out" not in mitigated(policy_of(), crossing()).evidence.features
    assert mitigated(policy_of(), crossing(aged_out=True)).evidence.features["aged_out"] is True
