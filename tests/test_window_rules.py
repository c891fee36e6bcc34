"""Shares and sets against plain Python, and the words of listed agents against ``in``.

A set's bins follow from the seed, which the oracle has too; so the comparison is exact, and not one of estimates.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from detectors.kernels.listed import Words, holds_word_kernel, make_words
from detectors.registry import window_rules
from detectors.windowed import BINS, DISTINCT_MAX, bins_of, estimate
from engine.embedded import Embedded
from engine.seeds import make_seeds
from schemas.compiled import entry
from schemas.config import Config
from schemas.fields import Dimension
from tests.engines import config_of, feed, only
from tests.oracles.hashing import hash_words, siphash_1_3_128
from tests.oracles.windows import WindowsOracle

START = 1_795_000_020
SECONDS = 30
RATIOS = [
    {"dimension": "ip", "measure": "client_errors", "share": 0.6, "window_s": 5, "limit": 2},
    {"dimension": "ip", "measure": "client_errors", "share": 0.75, "window_s": 1, "limit": 1},
    {"dimension": "account", "measure": "tokens_in", "of": "requests", "share": 20, "window_s": 9, "limit": 50},
]
SETS = [
    {"dimension": "ip", "items": "user_agent", "window_s": 4, "limit": 3},
    {"dimension": "ip", "items": "account", "window_s": 1, "limit": 1},
    {"dimension": "account", "items": "net", "window_s": 12, "limit": 3},
    {"dimension": "ip", "items": "failed_route", "window_s": 7, "limit": 2},
]


def config(**engine: Any) -> Config:
    detectors = {**only("ratio", rules=RATIOS), "distinct": {"rules": SETS}}
    policy = {"renew_s": 10, "ttl_s": 100, "allowlist_core": []}
    return config_of({"detectors": detectors, "policy": policy, "time": {"lateness_s": 60}}, **engine)


Event = tuple[int, int, int, int, bool]
"""(second, client, account and agent, tokens, failed)"""
EVENTS = st.lists(
    st.tuples(st.integers(0, SECONDS), st.integers(0, 3), st.integers(0, 9), st.integers(0, 40), st.booleans()),
    min_size=1, max_size=120,
)  # fmt: skip


def line(event: Event) -> bytes:
    second, client, other, tokens, failed = event
    return (
        b'{"time":%d,"client_ip":"198.51.%d.7","account":"a%d","user_agent":"agent/%d","path":"/p%s","status":%d,"tokens_in":%d}\n'
        % (START + second, client, other % 4, other, bytes([97 + other]), 404 if failed else 200, tokens)
    )


def bin_of(word: int) -> int:
    return word >> 58


def told(events: list[Event]) -> set[tuple[str, str, str, int, int, int]]:
    seeds = make_seeds(config()).hash.tolist()
    text = (seeds[0], seeds[1])
    rules = tuple(window_rules(config()))
    oracle = WindowsOracle(rules, 10)
    for second, client, other, tokens, failed in events:
        measures = {"requests": 1, "client_errors": int(failed), "tokens_in": tokens}
        net = 0xFFFF << 32 | 198 << 24 | 51 << 16 | client << 8
        bins = {
            "user_agent": bin_of(siphash_1_3_128(text, b"agent/%d" % other)[0]),
            "account": bin_of(siphash_1_3_128(text, b"a%d" % (other % 4))[0]),
            "net": bin_of(hash_words(seeds, 0, net, Dimension.NET)),
        }
        if failed:
            bins["failed_route"] = bin_of(siphash_1_3_128(text, b" /p" + bytes([97 + other]))[0])
        oracle.insert(("ip", client), START + second, measures, bins)
        oracle.insert(("account", other % 4), START + second, measures, bins)
    found = set()
    for second in range(SECONDS + 1):
        for (dimension, number), index, observed, tick in oracle.close(START + second):
            value = f"198.51.{number}.7" if dimension == "ip" else f"a{number}"
            found.add((dimension, value, rules[index].measure, rules[index].window_s, observed, tick))
    return found


@settings(max_examples=100, deadline=None)
@given(events=EVENTS, cuts=st.lists(st.integers(0, 200), max_size=4), partitions=st.sampled_from([1, 3]), early=st.booleans())
def test_shares_and_sets_are_what_plain_python_says(events: list[Event], cuts: list[int], partitions: int, early: bool) -> None:
    """In any order within the lateness, in any cut, over any number of judge partitions."""
    engine = Embedded(config(judge_partitions=partitions, keys_max=2048, rows_max=4096), early=early)
    engine.open("log", 4_102_444_800_000)
    data = [line(event) for event in events]
    base = 0
    for low, high in itertools.pairwise(sorted({0, len(data), *(cut % len(data) for cut in cuts)})):
        base = feed(engine, "log", b"".join(data[low:high]), base)
    engine.close("log")
    engine.finish()
    account = engine.account()
    assert (account.late, account.stragglers, account.truncated, account.aged_out) == (0, 0, 0, 0)
    findings = engine.take().findings
    finals = {
        (f.target.type, f.target.value, f.measure, f.window.end - f.window.start, f.observed, f.tick)
        for f in findings
        if f.stage == "final"
    }
    assert finals == told(events)
    assert not any(f.detector == "ratio" for f in findings if f.stage == "early")


def test_a_number_of_items_is_estimated_from_their_bins() -> None:
    chance = np.random.default_rng(1)
    for items in (5, 20, 60, 120):
        taken = [len(set(chance.integers(0, BINS, items).tolist())) for _ in range(400)]
        mean = sum(estimate(bins) for bins in taken) / len(taken)
        assert 0.93 * items < mean < 1.07 * items
    for limit in range(1, DISTINCT_MAX + 1):
        assert estimate(bins_of(limit)) <= limit < estimate(bins_of(limit) + 1)


def test_a_few_requests_that_fill_many_bins_are_not_more_items_than_requests() -> None:
    limit = 40
    words = tuple(make_seeds(config()).hash.tolist()[:2])
    by_bin = {bin_of(siphash_1_3_128(words, b"agent/%d" % number)[0]): number for number in range(2000)}
    agents = [by_bin[place] for place in range(bins_of(limit) + 4)]
    assert len(agents) < limit < estimate(len(agents))

    def observed(requests: int) -> list[int]:
        engine = Embedded(
            config_of({"detectors": only("distinct", rules=[{"dimension": "ip", "items": "user_agent", "limit": limit}])})
        )
        engine.open("log", 4_102_444_800_000)
        asked = [agents[number % len(agents)] for number in range(requests)]
        said = b'{"time":%d,"client_ip":"198.51.100.7","user_agent":"agent/%d","path":"/p","status":200}\n'
        feed(engine, "log", b"".join(said % (START, agent) for agent in asked), 0)
        engine.close("log")
        engine.finish()
        return [finding.observed for finding in engine.take().findings if finding.stage == "final"]

    assert estimate(len(agents)) > limit + 2
    assert observed(limit) == []
    assert observed(limit + 2) == [limit + 2]
    assert observed(10 * limit) == [estimate(len(agents))]


@entry
def _holds(words_parts: Any, text: Any, length: Any) -> Any:
    return holds_word_kernel(Words(*words_parts), text, np.int64(0), length)


WORD = st.text("abz-", min_size=2, max_size=5)


@settings(deadline=None)
@given(st.lists(WORD, max_size=5), st.text("abzABZ-é", max_size=30))
@example(["ab"], "xAB")
@example(["nikto"], "Mozilla/5.00 (Nikto/2.1.6)")
@example(["\u00e9t\u00e9"], "L'ÉTÉ")
def test_a_word_is_found_as_plain_python_finds_it(words: list[str], text: str) -> None:
    data = np.frombuffer(text.encode() + b"ab", np.uint8).copy()
    lowered = "".join(letter.lower() if letter.isascii() else letter for letter in text)
    assert _holds(tuple(make_words(words)), data, len(text.encode())) == any(word in lowered for word in words)
