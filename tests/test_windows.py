"""The windows against plain Python: exact while nothing was given up, and never above the truth.

Rows go in as a judge gets them: as tallies of source partitions, cut and ordered in any way.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.rate import DETECTOR, Rate, RateRule
from detectors.windowed import WindowRule
from engine.embedded import Embedded
from schemas.config import Config
from schemas.mitigation import Finding
from tests.engines import config_of, feed, only
from tests.oracles.windows import WindowsOracle

START = 1_795_000_020
RENEW_S = 10
SECONDS = 40
CLIENTS = 40
RULES: list[dict[str, Any]] = [
    {"dimension": "ip", "measure": "requests", "window_s": 1, "limit": 3},
    {"dimension": "ip", "measure": "requests", "window_s": 5, "limit": 6},
    {"dimension": "ip", "measure": "bytes", "window_s": 5, "limit": 90},
    {"dimension": "ip", "measure": "requests", "window_s": 17, "limit": 12},
    {"dimension": "account", "measure": "tokens_out", "window_s": 8, "limit": 60},
    {"dimension": "account", "measure": "requests", "window_s": 1, "limit": 2},
]


def rules() -> tuple[WindowRule, ...]:
    return tuple(DETECTOR.rules(Rate(rules=tuple(RateRule(**rule) for rule in RULES)), "web"))


def config(rules: list[dict[str, Any]] = RULES, lateness_s: int = 60, **engine: Any) -> Config:
    time = {"lateness_s": lateness_s, "ahead_s": min(lateness_s, 5)}
    policy = {"renew_s": RENEW_S, "ttl_s": 100, "allowlist_core": []}
    return config_of({"detectors": only("rate", rules=rules), "policy": policy, "time": time}, **engine)


Event = tuple[int, int, int, int]
"""(second, number of the client, bytes, tokens)"""
EVENTS = st.lists(
    st.tuples(st.integers(0, SECONDS), st.integers(0, 5), st.integers(0, 50), st.integers(0, 40)), min_size=1, max_size=150
)


def line(event: Event) -> bytes:
    second, client, size, tokens = event
    return b'{"time":%d,"client_ip":"198.51.%d.%d","account":"a%d","path":"/x","bytes":%d,"tokens_out":%d,"status":200}\n' % (
        START + second,
        client >> 8,
        client & 255,
        client % 3,
        size,
        tokens,
    )


def oracle_findings(events: list[Event]) -> set[tuple[str, str, str, int, int, int]]:
    oracle = WindowsOracle(rules(), RENEW_S)
    for second, client, size, tokens in events:
        measures = {"requests": 1, "bytes": size, "tokens_out": tokens}
        oracle.insert(("ip", client), START + second, measures)
        oracle.insert(("account", client % 3), START + second, measures)
    found = set()
    for second in range(SECONDS + 1):
        for (dimension, number), index, observed, tick in oracle.close(START + second):
            value = f"198.51.{number >> 8}.{number & 255}" if dimension == "ip" else f"a{number}"
            found.add((dimension, value, RULES[index]["measure"], RULES[index]["window_s"], observed, tick))
    return found


def as_plain(findings: list[Finding]) -> set[tuple[str, str, str, int, int, int]]:
    return {
        (f.target.type, f.target.value, f.measure, f.window.end - f.window.start, f.observed, f.tick)
        for f in findings
        if f.stage == "final"
    }


def run(config: Config, events: list[Event], cuts: list[int], *, early: bool = False) -> tuple[list[Finding], int]:
    """(findings, keys given up), with the events fed in pieces that begin at ``cuts``."""
    engine = Embedded(config, early=early)
    engine.open("log", 4_102_444_800_000)
    data = [line(event) for event in events]
    base = 0
    edges = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    for low, high in itertools.pairwise(edges):
        piece = b"".join(data[low:high])
        chunk = np.zeros(2 * len(piece) + 16384, np.uint8)
        chunk[: len(piece)] = np.frombuffer(piece, np.uint8)
        engine.feed("log", chunk, len(piece), base)
        base += len(piece)
    engine.close("log")
    engine.finish()
    account = engine.account()
    assert (account.late, account.stragglers, account.truncated) == (0, 0, 0)
    return engine.take().findings, account.aged_out


@settings(max_examples=120, deadline=None)
@given(events=EVENTS, cuts=st.lists(st.integers(0, 200), max_size=4), partitions=st.sampled_from([1, 3]), early=st.booleans())
def test_windows_say_what_plain_python_says(events: list[Event], cuts: list[int], partitions: int, early: bool) -> None:
    """In any order within the lateness, in any cut, over any number of judge partitions."""
    findings, aged_out = run(config(judge_partitions=partitions, keys_max=2048, rows_max=4096), events, cuts, early=early)
    assert aged_out == 0
    assert as_plain(findings) == oracle_findings(events)


@settings(max_examples=60, deadline=None)
@given(events=EVENTS, cuts=st.lists(st.integers(0, 200), max_size=4))
def test_an_early_finding_never_says_more_than_the_final(events: list[Event], cuts: list[int]) -> None:
    findings, _ = run(config(judge_partitions=1, keys_max=2048, rows_max=4096), events, cuts, early=True)
    truth = WindowsOracle(rules(), RENEW_S)
    for second, client, size, tokens in events:
        measures = {"requests": 1, "bytes": size, "tokens_out": tokens}
        truth.insert(("ip", client), START + second, measures)
        truth.insert(("account", client % 3), START + second, measures)
    for finding in findings:
        if finding.stage == "early":
            _, rule = next(
                (index, rule)
                for index, rule in enumerate(rules())
                if rule.measure == finding.measure
                and rule.dimension.label == finding.target.type
                and rule.window_s == finding.window.end - finding.window.start
            )
            number = (
                int(finding.target.value[1:]) if finding.target.type == "account" else int(finding.target.value.split(".")[3])
            )
            assert (
                finding.limit
                < finding.observed
                <= truth.sum((finding.target.type, number), rule.measure, rule.window_s, finding.tick)
            )


MANY = st.lists(
    st.tuples(st.integers(0, SECONDS), st.integers(0, 400), st.integers(0, 50), st.integers(0, 40)), min_size=300, max_size=900
)


@settings(max_examples=25, deadline=None)
@given(events=MANY, heavy=st.integers(0, 400))
def test_in_full_tables_a_sum_is_never_above_the_truth(events: list[Event], heavy: int) -> None:
    """64 rows for hundreds: keys are given up whole, and what is left is exact or too low."""
    crowd = sorted([*events, *((second, heavy, 10, 5) for second in range(SECONDS) for _ in range(5))])
    addresses = [rule for rule in RULES if rule["dimension"] == "ip"]  # an account would be heavier than the heaviest of them
    tight = config(addresses, judge_partitions=16, keys_max=1024, rows_max=1024)
    findings, _ = run(tight, crowd, [])
    oracle = WindowsOracle(rules(), RENEW_S)
    for second, client, size, _ in crowd:
        oracle.insert(("ip", client), START + second, {"requests": 1, "bytes": size})
    for finding in findings:
        if finding.target.type != "ip":
            continue
        _, _, high, low = finding.target.value.split(".")
        rule = next(
            rule for rule in rules()
            if (rule.dimension.label, rule.measure, rule.window_s)
            == ("ip", finding.measure, finding.window.end - finding.window.start)
        )  # fmt: skip
        assert finding.observed <= oracle.sum(("ip", int(high) << 8 | int(low)), rule.measure, rule.window_s, finding.tick)
    stopped = {f.target.value for f in findings if f.target.type == "ip"}
    assert f"198.51.{heavy >> 8}.{heavy & 255}" in stopped  # the heaviest is the last to be given up


def test_a_gap_of_days_costs_nothing_and_empties_the_windows() -> None:
    day = 86_400
    events = [(0, 1, 0, 0)] * 4 + [(3 * day, 1, 0, 0)] * 3 + [(300 * day, 2, 0, 0)] * 4
    findings, _ = run(config(judge_partitions=1), events, [])
    ones = {(f.target.value, f.tick - START, f.observed) for f in findings if f.target.type == "ip" and f.limit == 3}
    assert ones == {("198.51.0.1", 0, 4), ("198.51.0.2", 300 * day, 4)}


def test_whoever_gets_a_place_is_told_of_as_if_nobody_had_had_it() -> None:
    """Each second has 40 new clients, in tables of 1024 places: a rule fires for all of them, for 400 in one cell. They stay
    for two seconds more, so that a saved state has what is decided of some whose rows would not say so."""
    burst = {"dimension": "ip", "measure": "requests", "window_s": 1, "limit": 3}
    narrow, told = config([burst], lateness_s=0, judge_partitions=16, keys_max=1024), list[set[str]]()
    for restored in (False, True):
        engine, base = Embedded(narrow), 0
        engine.open("log", 4_102_444_800_000)
        told.append(set())
        for second in range(SECONDS):
            if restored and second % 5 == 0:
                engine = Embedded.restore(narrow, engine.snapshot())
            comes = [client for client in range(CLIENTS * second, CLIENTS * (second + 1)) for _ in range(4)]
            stays = range(max(0, CLIENTS * (second - 2)), CLIENTS * second)
            base = feed(engine, "log", b"".join(line((second, client, 0, 0)) for client in (*stays, *comes)), base)
            told[-1] |= {finding.target.value for finding in engine.take().findings}
        engine.close("log")
        engine.finish()
        told[-1] |= {finding.target.value for finding in engine.take().findings}
        assert engine.account().aged_out == 0
    assert len(told[0]) == len(told[1]) == CLIENTS * SECONDS
