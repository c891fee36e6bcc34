"""What of a change of the configuration counts, and what is refused with which words; the last good one always stays."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from engine.config_chain import ConfigChain
from engine.standing import Standing
from schemas.config import Config
from schemas.config_change import CHANGE_BYTES_MAX, ConfigChange, encode_change
from schemas.errors import ConfigError
from tests.engines import config_of
from tests.histories import change_of, offer

NOW = 1_795_000_000
RULE = {"dimension": "ip", "window_s": 10, "limit": 300}
FILE: dict[str, Any] = {
    "detectors": {"rate": {"rules": [RULE]}, "signature": {"enabled": False}, "known": {"dry_run": True}},
    "policy": {
        "allow": [
            {"dimension": "ip", "value": "203.0.113.7", "owner": "me", "reason": "load test"},
            {"dimension": "account", "value": "acct_1", "owner": "me", "reason": "batch", "expires_tick": NOW + 500},
        ],
        "shared_networks": ["198.51.100.0/24"],
    },
}


def chain_of(document: dict[str, Any] | None = None) -> ConfigChain:
    return ConfigChain(config_of(FILE if document is None else document))


def refused(chain: ConfigChain, section: str, values: dict[str, Any], tick: int = NOW, **more: Any) -> str:
    before = chain.last
    with pytest.raises(ConfigError) as caught:
        offer(chain, section, values, tick, **more)
    assert chain.last is before
    message = str(caught.value)
    assert "\n" not in message
    assert "got" in message
    return message


def test_versions_are_a_chain_and_who_has_not_seen_the_last_change_is_told() -> None:
    chain = chain_of()
    first = offer(chain, "detectors.rate", {"rules": [{**RULE, "limit": 400}]}, NOW, base=1)
    assert (first.standing.version, first.standing.version_of("rate"), first.standing.version_of("known")) == (2, 2, 1)
    message = refused(chain, "policy", {"ttl_s": 100}, base=1)
    assert message == ("expected `$.base` 2, the version in force, got 1: somebody else has changed it meanwhile: look again")
    assert "there is none yet" in refused(chain, "policy", {"ttl_s": 100}, base=9)
    second = offer(chain, "policy", {"ttl_s": 100}, NOW, base=2)
    assert (second.standing.version, second.standing.version_of("rate")) == (3, 2)
    assert [chain.standing_at(tick).version for tick in (0, NOW - 1, NOW, NOW + 9)] == [1, 1, 3, 3]


def test_a_change_is_named_in_time_and_after_the_one_before() -> None:
    chain = chain_of()
    lateness = chain.first.config.time.lateness_s
    assert f"from {NOW} " in refused(chain, "policy", {"ttl_s": 100}, NOW - 1, at_ms=1000 * (NOW - lateness - 3))
    offer(chain, "policy", {"ttl_s": 100}, NOW, at_ms=1000 * (NOW - lateness - 3))
    assert f"from {NOW} " in refused(chain, "policy", {"ttl_s": 90}, NOW - 1)
    assert f"to {NOW + 86_400}" in refused(chain, "policy", {"ttl_s": 90}, NOW + 90_000, at_ms=1000 * NOW)


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("policy", {"allowlist_core": []}, "allowlist_core: it stands in the deployment's file alone"),
        ("policy", {"renew_s": 30}, "renew_s: it stands in the deployment's file alone"),
        ("policy", {"drill": True}, "drill: it stands in the deployment's file alone"),
        ("policy", {"ttl": 30}, "expected a setting (drill, "),
        ("policy", {"ttl_s": 0}, "expected `int` >= 1 at `$.policy.ttl_s`, got 0"),
        ("policy", {"ttl_s": 60}, "expected `$.policy.ttl_s` > renew_s + lateness_s (70), got 60"),
        ("policy", {"ttl_s_max": 7200}, "expected `$.policy.ttl_s_max` <= 3600 as in the deployment's file"),
        ("policy", {"shared_networks": ["10.0.0.1/8"]}, "`$.policy.shared_networks[0]`, got '10.0.0.1/8'"),
        ("policy", {}, "expected something in `$.values` or `$.unset`, got nothing"),
        (
            "detectors.rate",
            {"rules": [{**RULE, "limit": 0}]},
            "expected `int` >= 1 at `$.detectors.rate.rules[0].limit`, got 0",
        ),
        ("detectors.rate", {"rules": [{**RULE, "limit": True}]}, "got `bool` at `$.detectors.rate.rules[0].limit`, got True"),
        ("detectors.rate", {"rules": [{**RULE, "dimension": "fingerprint"}]}, "expected a dimension that observers count"),
        ("detectors.rate", {"rules": [{**RULE, "window_s": 150}]}, "expected at most 120 seconds or whole minutes"),
        ("detectors.nobody", {"enabled": True}, "expected `$.section` to be policy, playbooks.NAME or detectors.NAME"),
        ("detectors.known", {"lists": []}, "lists: it stands in the deployment's file alone"),
        ("engine", {"keys_max": 1 << 20}, "expected `$.section` to be policy, playbooks.NAME or detectors.NAME"),
        ("input", {"proxy_depth": 1}, "expected `$.section` to be policy, playbooks.NAME or detectors.NAME"),
        ("kafka", {"topics": []}, "expected `$.section` to be policy, playbooks.NAME or detectors.NAME"),
    ],
)
def test_what_is_refused_is_told_with_its_path_its_bound_and_what_came(
    section: str, values: dict[str, Any], words: str
) -> None:
    assert words.lower() in refused(chain_of(), section, values, forced=True).lower()


WIDER: list[tuple[str, dict[str, Any]]] = [
    ("detectors.rate", {"rules": [{**RULE, "limit": 299}]}),
    ("detectors.rate", {"rules": [{**RULE, "action": "block"}]}),
    ("detectors.rate", {"rules": [{**RULE, "window_s": 11}]}),
    ("detectors.rate", {"rules": [{**RULE, "confidence": 0.95}]}),
    ("detectors.rate", {"rules": [RULE, {**RULE, "dimension": "net"}]}),
    ("detectors.signature", {"enabled": True, "dry_run": False}),
    ("detectors.known", {"dry_run": False, "rules": [{"limit": 1}]}),
    ("policy", {"ttl_s": 301}),
    ("policy", {"escalation_factor": 5}),
    ("policy", {"allow": []}),
    ("policy", {"allow": FILE["policy"]["allow"][:1]}),
    ("policy", {"allow": [{**entry, "expires_tick": NOW + 499} for entry in FILE["policy"]["allow"]]}),
    ("policy", {"shared_networks": []}),
    ("policy", {"share_max": 0.6}),
    ("policy", {"active_max": 300_000}),
    ("policy", {"block_from_level": 0}),
    ("policy", {"raise_address_at": 0.7}),
]
NARROWER: list[tuple[str, dict[str, Any]]] = [
    ("detectors.rate", {"rules": []}),
    ("detectors.rate", {"rules": [{**RULE, "limit": 301}, {**RULE, "action": "notify"}]}),
    ("detectors.rate", {"dry_run": True}),
    ("detectors.rate", {"enabled": False, "rules": [{**RULE, "limit": 1}]}),
    ("detectors.known", {"rules": [{"limit": 1}]}),
    ("detectors.known", {"dry_run": False}),
    ("detectors.signature", {"enabled": True}),
    ("policy", {"ttl_s": 200, "share_max": 0.2, "active_max": 10}),
    ("policy", {"shared_networks": ["198.51.100.0/24", "203.0.113.0/24"]}),
    ("policy", {"allow": [*FILE["policy"]["allow"], {"dimension": "ip", "value": "192.0.2.1", "owner": "o", "reason": "r"}]}),
]


@pytest.mark.parametrize(("section", "values"), WIDER)
def test_what_may_mitigate_more_has_to_be_tried_or_forced(section: str, values: dict[str, Any]) -> None:
    message = refused(chain_of(), section, values)
    assert "for what may mitigate more (" in message
    observed = chain_of({**FILE, "detectors": {**FILE["detectors"], "entropy": {"enabled": True}}})
    assert offer(observed, section, values, NOW, forced=True).standing.version == 2


@pytest.mark.parametrize(("section", "values"), NARROWER)
def test_what_mitigates_no_more_needs_neither(section: str, values: dict[str, Any]) -> None:
    observed = chain_of({**FILE, "detectors": {**FILE["detectors"], "entropy": {"enabled": True}}})
    assert offer(observed, section, values, NOW).standing.version == 2


def test_an_exception_that_is_over_may_go() -> None:
    chain = chain_of()
    assert offer(chain, "policy", {"allow": FILE["policy"]["allow"][:1]}, NOW + 500).standing.version == 2


def rate_rules(standing: Standing) -> list[tuple[str, int, bool]]:
    rules = [rule for rule in standing.rules if rule.detector.name.startswith("rate")]
    return [(rule.detector.name, rule.limit, rule.dry_run) for rule in rules]


def test_what_was_tried_is_armed_when_its_time_is_over() -> None:
    chain = chain_of()
    lower = {"rules": [{**RULE, "limit": 100}]}
    tried = offer(chain, "detectors.rate", lower, NOW, trial_s=120)
    assert rate_rules(tried.standing) == [("rate", 300, False), ("rate-trial", 100, True)]
    assert tried.standing.version_of("rate") == 1
    assert "what is tried of `$.detectors.rate` (version 2 is), got 1" in refused(chain, "detectors.rate", {}, arms=1)
    assert f">= {NOW + 120}" in refused(chain, "detectors.rate", {}, NOW + 119, arms=2)
    assert "expected nothing beside" in refused(chain, "detectors.rate", lower, NOW + 120, arms=2)
    offer(chain, "policy", {"ttl_s": 200}, NOW + 1)
    armed = offer(chain, "detectors.rate", {}, NOW + 120, arms=2).standing
    assert rate_rules(armed) == [("rate", 100, False)]
    assert (armed.version_of("rate"), armed.trials) == (4, {})
    assert "(nothing is)" in refused(chain, "detectors.rate", {}, NOW + 121, arms=2)


def test_another_change_of_the_section_ends_what_is_tried() -> None:
    chain = chain_of()
    offer(chain, "detectors.rate", {"rules": [{**RULE, "limit": 100}]}, NOW, trial_s=120)
    standing = offer(chain, "detectors.rate", {"rules": [{**RULE, "limit": 400}]}, NOW).standing
    assert standing.trials == {}


def test_dry_run_alone_is_armed_after_ten_minutes_as_it_stands() -> None:
    chain = chain_of()
    offer(chain, "detectors.known", {"rules": [{"limit": 1}]}, NOW)
    assert "dry run for 600 s" in refused(chain, "detectors.known", {"dry_run": False}, NOW + 599)
    assert offer(chain, "detectors.known", {"dry_run": False}, NOW + 600).standing.version == 3


def test_a_setting_can_become_again_what_the_file_says() -> None:
    chain = chain_of()
    offer(chain, "detectors.rate", {"rules": []}, NOW)
    assert chain.last.config.detectors["rate"]["rules"] == []
    offer(chain, "detectors.rate", {}, NOW, unset=("rules",), forced=True)
    assert [rule.limit for rule in chain.last.rules if rule.detector.name == "rate"] == [300]
    offer(chain, "policy", {"ttl_s": 200}, NOW)
    offer(chain, "policy", {}, NOW, unset=("ttl_s",), forced=True)
    assert chain.last.config.policy == chain.first.config.policy
    assert "set or unset, got both" in refused(chain, "policy", {"ttl_s": 100}, unset=("ttl_s",))


def garbage(chance: random.Random, config: Config, base: int) -> bytes:
    """A change that somebody got wrong, in one of many ways; some are right, and some of those narrow."""
    bad = (0, -1, 2**53, 2**64, 1e308, True, None, "x", [], {}, [[]], "∞", 0.1, {"a": {"a": {}}})
    rules = [{**RULE, chance.choice((*RULE, "action", "limt")): chance.choice((*bad, 9, 9, 500, "block", "notify"))}]
    values: dict[str, Any] = chance.choice(
        (
            {"rules": rules}, {"rules": []}, {"enabled": chance.choice(bad)}, {"dry_run": True}, {"allow": []},
            {"allow": [chance.choice(bad)]}, {"allowlist_core": []}, {"share_max": chance.choice(bad)},
            {"ttl_s": chance.choice((*bad, 150, 250, 400))}, {"active_max": chance.choice(bad)}, {chance.choice("abc"): 1},
            {"shared_networks": chance.choice(bad)}, {"block_from_level": chance.randrange(-1, 4)},
        )
    )  # fmt: skip
    section = chance.choice(("policy", "detectors.rate", "detectors.known", "detectors.surge", "detectors.x"))
    change = change_of(config, section, values, NOW + chance.choice((0, 0, 0, 0, -50)), base)
    data = bytearray(encode_change(change))
    kind = chance.randrange(8)
    if kind == 0:
        return chance.randbytes(chance.randrange(60))
    if kind == 1:
        return bytes(data[: chance.randrange(len(data))])
    if kind == 2:
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif kind == 3:
        return msgspec.json.encode({**msgspec.to_builtins(change), chance.choice(("base", "who", "more")): chance.choice(bad)})
    return bytes(data)


def strictness(standing: Standing) -> dict[Any, int]:
    """The least limit of everything that acts."""
    found: dict[Any, int] = {}
    for rule in standing.rules:
        if not rule.dry_run:
            key = rule.dimension, rule.value, rule.of, rule.window_s, rule.action, rule.listed
            found[key] = min(rule.limit, found.get(key, rule.limit))
    return found


def test_of_a_hundred_thousand_garbled_changes_the_last_good_one_stays_and_nothing_widens() -> None:
    chance = random.Random(7)
    chain = chain_of()
    first, count = chain.first, 0
    core, allow = first.config.policy.allowlist_core, set(first.config.policy.allow)
    for n in range(100_000):
        before = chain.last
        data = garbage(chance, first.config, before.version - chance.choice((0, 1, 1, 1, 1, 1, 1, 1, 1, 1)))
        if b'"forced":true' in data:
            continue
        try:
            chain.offer(data, offset=n)
        except ConfigError:
            assert chain.last is before
            continue
        count += 1
        policy = chain.last.config.policy
        assert policy.allowlist_core == core
        assert allow <= set(policy.allow)
        assert policy.ttl_s <= before.config.policy.ttl_s
        assert policy.share_max <= before.config.policy.share_max
        assert policy.active_max <= before.config.policy.active_max
        assert policy.block_from_level >= before.config.policy.block_from_level
        old, new = strictness(before), strictness(chain.last)
        assert all(key in old and limit >= old[key] for key, limit in new.items())
    assert count > 20


def test_a_message_past_the_bound_is_refused_before_it_is_read() -> None:
    with pytest.raises(ConfigError, match="at most"):
        chain_of().offer(b" " * (CHANGE_BYTES_MAX + 1), offset=0)
    with pytest.raises(ConfigError, match="got"):
        chain_of().offer(b'{"values":' + b'{"a":' * 5000, offset=0)
    deep = b'{"a":' * 500 + b"1" + b"}" * 500
    whole = encode_change(change_of(config_of(FILE), "policy", {"ttl_s": 7}, NOW, 1)).replace(b'{"ttl_s":7}', deep)
    with pytest.raises(ConfigError, match="got"):
        chain_of().offer(whole, offset=0)


def test_a_change_survives_being_written_and_read() -> None:
    change = change_of(config_of(FILE), "policy", {"ttl_s": 200}, NOW, 1)
    assert msgspec.json.decode(encode_change(change), type=ConfigChange) == change
