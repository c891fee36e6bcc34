"""What events add to keys, against plain Python: every measure, the evidence of both profiles, every dimension, routes.

Seen from outside: a rule for each dimension and measure tells every sum over one, and every event comes three times.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.fields import DIMENSIONS, Dimension, Measure
from tests.engines import config_of, decide, only
from tests.oracles import grouping

START = 1_795_000_020
CELL = 10
"""Seconds between two events: a rule tells one sum in each cell."""
TIMES = 3
RULES = [
    {"dimension": dimension.label, "measure": measure.label, "window_s": 1, "limit": 1}
    for dimension in map(Dimension, range(DIMENSIONS))
    for measure in Measure
]
QUIET = {"rules": [{"limit": 2**53}]}
"""``known`` says which agents are listed, and nothing else."""
Sums = dict[tuple[str, str, str, int], int]


def config(profile: str) -> Any:
    policy = {"renew_s": CELL, "ttl_s": 600, "allowlist_core": []}
    detectors = {**only("rate", rules=RULES), "known": QUIET}
    return config_of({"profile": profile, "detectors": detectors, "policy": policy}, judge_partitions=2)


def expected(events: list[dict[str, Any]], profile: str) -> Sums:
    sums: Counter[tuple[str, str, str, int]] = Counter()
    for index, event in enumerate(events):
        measures = grouping.measures_of(event)
        against_address, against_key = grouping.evidence_of(event, profile)
        for dimension, (key, like_address) in grouping.keys_of(event).items():
            evidence = int(against_address if like_address else against_key)
            for measure, value in {**measures, "evidence": evidence}.items():
                sums[dimension, key, measure, START + index * CELL] += value * TIMES
    return {key: value for key, value in sums.items() if value > 1}


def counted(events: list[dict[str, Any]], profile: str) -> Sums:
    lines = [
        orjson.dumps({"time": START + index * CELL, **event}) + b"\n"
        for index, event in enumerate(events)
        for _ in range(TIMES)
    ]
    decided = decide(b"".join(lines), 4_102_444_800_000, config(profile))
    assert (decided.account.counted, decided.account.poison) == (len(lines), {})
    return {(f.target.type, f.target.value, f.measure, f.tick): f.observed for f in decided.findings}


SEGMENT = st.one_of(
    st.sampled_from(["v1", "users", "chat", "0", "12345", "deadbeef", "deadbee1", "a-b-c-d-1", "v1.2", "x" * 23 + "1"]),
    st.text("abcdef0123456789-", max_size=12),
)
PATH = st.builds(
    lambda parts, end: "/" + "/".join(parts) + end,
    st.lists(SEGMENT, max_size=5),
    st.sampled_from(["", "/", ".js", "/logo.PNG", ".woff2", ".json", ".xjs", "?a=1.js", "#x.css", ".js?v=2", "/.css", "."]),
)
AMOUNT = st.integers(0, 1000)
EVENT = st.fixed_dictionaries(
    {"method": st.sampled_from(["GET", "POST"]), "path": PATH,
     "status": st.sampled_from([200, 201, 304, 400, 401, 403, 404, 429, 499, 500, 503])},
    optional={
        "client_ip": st.sampled_from(["198.51.100.7", "203.0.113.9", "2001:db8:1:2::7", "2001:db8:1:3::8", "2001:db8::"]),
        "host": st.sampled_from(["api.example", "www.example"]), "country": st.sampled_from(["DE", "FR"]),
        "asn": st.integers(0, 2**32 - 1), "user_agent": st.sampled_from(["curl/8", "x", "Mozilla/5.0 (NIKTO)", "nikt"]),
        "fingerprint": st.just("t13d"),
        "api_key_hash": st.sampled_from(["k1", "k2"]), "account": st.sampled_from(["a1", "k1"]),
        "email_domain": st.just("example.org"), "event": st.just("registration"), "auth_failed": st.booleans(),
        "denied": st.booleans(), "cancelled": st.booleans(),
        "duration_ms": st.one_of(AMOUNT, st.integers(59_000, 61_000)), "bytes": AMOUNT, "tokens_in": AMOUNT,
        "tokens_out": AMOUNT, "tokens_cached": AMOUNT, "max_tokens": AMOUNT, "cost_micro": AMOUNT,
    },
)  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(events=st.lists(EVENT, min_size=1, max_size=8), profile=st.sampled_from(["web", "api"]))
def test_events_add_up_as_plain_python_says(events: list[dict[str, Any]], profile: str) -> None:
    assert counted(events, profile) == expected(events, profile)


REQUEST = {"method": "GET", "path": "/v1/models", "client_ip": "198.51.100.7", "api_key_hash": "k1", "account": "a1"}


def evidence(profile: str, **changes: Any) -> set[str]:
    """The dimensions that have evidence against someone."""
    sums = counted([{**REQUEST, "status": 200, **changes}], profile)
    return {dimension for dimension, _, measure, _ in sums if measure == "evidence"}


def test_in_the_api_profile_success_with_a_key_says_nothing_about_the_address() -> None:
    assert evidence("api") == {"service", "api_key", "account", "route"}
    assert evidence("web") == {"service", "api_key", "account", "route", "ip", "net"}
    assert evidence("api", status=404) >= {"ip", "net", "api_key"}


def test_nor_about_what_only_says_where_a_client_comes_from_and_what_it_runs() -> None:
    changes = {"country": "DE", "asn": 64500, "user_agent": "curl/8", "fingerprint": "t13d"}
    assert evidence("api", **changes) == {"service", "api_key", "account", "route"}
    assert evidence("web", **changes) == {"service", "api_key", "account", "route", "ip", "net", *changes}


@pytest.mark.parametrize("profile", ["web", "api"])
def test_what_we_denied_ourselves_is_evidence_against_nobody(profile: str) -> None:
    for changes in ({"status": 429}, {"status": 503}, {"denied": True}, {"path": "/logo.png"}):
        assert evidence(profile, **changes) == set()


@pytest.mark.parametrize("profile", ["web", "api"])
def test_a_failed_authentication_is_no_state_for_whom_it_names(profile: str) -> None:
    for changes in ({"status": 401}, {"status": 403}, {"auth_failed": True}):
        sums = counted([{**REQUEST, "status": 200, "email_domain": "example.org", **changes}], profile)
        assert not {"api_key", "account", "email_domain"} & {dimension for dimension, *_ in sums}
        assert sums["ip", "198.51.100.7", "auth_failures", START] == TIMES


@pytest.mark.parametrize(
    ("target", "route"),
    [
        ("/users/12345/orders", "GET /users/{id}/orders"),
        ("/users/12345?limit=1", "GET /users/{id}"),
        ("/f/0f8fad5b-d9cb-469f-a165-70867728950e", "GET /f/{id}"),
        ("/f/deadbeef", "GET /f/deadbeef"),
        ("/f/deadbeef1", "GET /f/{id}"),
        ("/v1/chat/completions", "GET /v1/chat/completions"),
        ("/", "GET /"),
        ("/a//b", "GET /a//b"),
        ("/k/abcdefghijklmnopqrstuvw9", "GET /k/{id}"),
    ],
)
def test_ids_in_routes_are_folded(target: str, route: str) -> None:
    sums = counted([{**REQUEST, "status": 200, "path": target}], "web")
    assert sums["route", route, "requests", START] == TIMES
    assert grouping.route_of("GET", target) == route
