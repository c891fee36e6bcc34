"""Blocking ourselves: what is never mitigated, and what keeps no mitigation alive, from lines of a log to decisions."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from engine.config_chain import ConfigChain
from schemas.errors import ConfigError
from tests.engines import Decided, config_of, decide, only
from tests.histories import offer
from tests.mitigations import in_force, ready_reader

START = 1_795_000_020
BALANCER, MONITOR, PRIVATE = "192.0.2.10", "2001:db8:10::1", "10.1.2.3"
CORE = ["192.0.2.10/32", "2001:db8:10::/48", "10.0.0.0/8", "127.0.0.0/8"]
HARSH = {"rules": [{"dimension": name, "window_s": 10, "limit": 1} for name in ("ip", "net")]}
DENIED: list[dict[str, Any]] = [{"status": 403, "denied": True}, {"status": 429}, {"status": 503}]


def lines(*events: tuple[int, str, dict[str, Any]], last: int = 400) -> bytes:
    """(second, address, more), and somebody else until the last second, so that every second is decided."""
    rows = [{"time": 1000 * (START + at), "client_ip": who, "path": "/v1", "status": 200, **more} for at, who, more in events]
    rows += [{"time": 1000 * (START + at), "client_ip": "198.51.100.1", "path": "/", "status": 200} for at in range(0, last, 5)]
    return b"".join(orjson.dumps(row) + b"\n" for row in sorted(rows, key=lambda row: row["time"]))


def decided_of(data: bytes, **sections: Any) -> Decided:
    return decide(data, 1000 * (START + 100_000), config_of(sections))


def targets(decided: Decided) -> set[str]:
    return {one.target.value for one in decided.mitigations if one.action != "notify" and one.state == "active"}


@pytest.mark.parametrize("denial", DENIED, ids=["by us", "our limit", "our overload"])
def test_denied_traffic_does_not_renew_its_own_ban(denial: dict[str, Any]) -> None:
    flood = [(at, "203.0.113.7", {}) for at in range(5) for _ in range(150)]
    goes_on = [(at, "203.0.113.7", denial) for at in range(5, 390) for _ in range(20)]
    rules = {"detectors": only("rate", rules=[{"dimension": "ip", "window_s": 10, "limit": 100}])}
    decided = decided_of(lines(*flood, *goes_on), **rules)
    finals = [one for one in decided.mitigations if one.stage == "final" and one.target.value == "203.0.113.7"]
    last = max(one.expires_at for one in finals)
    # What was let through is in windows until its fifteenth second: its cell may renew it once, and no later one does.
    assert {one.tick - START for one in finals} <= set(range(15))
    assert last < START + 390
    reader = ready_reader(*decided.mitigations)
    assert "203.0.113.7" in in_force(reader, START + 20)
    assert in_force(reader, last) == {}
    let_in = [(at, "203.0.113.7", {}) for at in range(5, 390) for _ in range(20)]
    renewed = decided_of(lines(*flood, *let_in), **rules)
    assert max(one.expires_at for one in renewed.mitigations) > START + 390, "the same, let through, does renew it"


def test_the_core_is_never_mitigated_whatever_else_the_configuration_says() -> None:
    events = [(at, who, {}) for at in range(30) for who in (BALANCER, MONITOR, PRIVATE, "203.0.113.7") for _ in range(20)]
    policy = {"allowlist_core": CORE, "block_from_level": 0, "share_max": 1.0}
    sections = {"policy": policy, "detectors": only("rate", **HARSH)}
    decided = decided_of(lines(*events), **sections)
    assert "203.0.113.7" in targets(decided)
    assert not [one for one in targets(decided) if one.startswith(("192.0.2.", "2001:db8:10:", "10."))]
    told = {one.target.value: one.outcome for one in decided.findings if one.target.type == "ip" and one.stage == "final"}
    assert {told[BALANCER], told["2001:db8:10::/64"], told[PRIVATE]} == {"allowlisted"}, "it is still told of"
    chain = ConfigChain(config_of(sections))
    for change in ({"allowlist_core": []}, {"allowlist_core": ["0.0.0.0/32"]}):
        with pytest.raises(ConfigError, match="it stands in the deployment's file alone"):
            offer(chain, "policy", change, START + 10_000, forced=True)


def test_a_batch_client_with_a_key_that_works_is_never_mitigated_by_its_address() -> None:
    batch = {"api_key_hash": "sha256:batch", "account": "acme", "tokens_in": 50, "tokens_out": 20}
    events = [(at, "203.0.113.7", batch) for at in range(30) for _ in range(300)]
    decided = decided_of(lines(*events, last=60), profile="api")
    assert not [one for one in decided.mitigations if one.target.type in ("ip", "net", "asn", "country", "user_agent")]
    assert not targets(decided)
    without = [(at, "203.0.113.7", {}) for at in range(30) for _ in range(300)]
    assert "203.0.113.7" in targets(decided_of(lines(*without, last=60), profile="api")), "who has no key is"
