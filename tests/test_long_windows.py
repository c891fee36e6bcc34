"""Windows of minutes to an hour against plain Python, whatever is cut, shuffled, spread over partitions or interrupted."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from detectors.registry import plan_windows, window_rules
from engine.embedded import Embedded
from engine.long_state import save_long
from engine.post import JudgePost
from engine.record import decode_record, encode_record
from engine.seeds import make_seeds
from engine.source_post import Bench, Messages, SourcePost
from schemas.config import Config
from schemas.errors import ConfigError
from schemas.mitigation import Finding
from tests.engines import conclude, config_of, decide, feed, nothing_was_bounded, only
from tests.oracles.windows import WindowsOracle

START = 1_795_000_050
"""In the middle of a minute."""
SUMS: list[dict[str, Any]] = [
    {"dimension": "ip", "measure": "registrations", "window_s": 180, "limit": 3},
    {"dimension": "ip", "measure": "auth_failures", "window_s": 60, "limit": 3},
    {"dimension": "ip", "measure": "auth_failures", "window_s": 1200, "limit": 5},
    {"dimension": "account", "measure": "tokens_out", "window_s": 300, "limit": 90},
]
SHARES: list[dict[str, Any]] = [
    {"dimension": "ip", "measure": "client_errors", "share": 0.6, "window_s": 300, "limit": 2},
    {"dimension": "ip", "measure": "client_errors", "share": 0.5, "window_s": 5, "limit": 1},
    {"dimension": "account", "measure": "tokens_in", "of": "requests", "share": 20, "window_s": 240, "limit": 50},
]
STATUS = (200, 404, 401)


def config(**engine: Any) -> Config:
    detectors = {**only("rate", rules=SUMS), "ratio": {"rules": SHARES}}
    policy = {"renew_s": 50, "ttl_s": 200, "allowlist_core": []}
    return config_of({"detectors": detectors, "policy": policy, "time": {"lateness_s": 120}}, **engine)


Event = tuple[int, int, int, int, bool]
"""(second, client, status, tokens, registers)"""
EVENTS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 400), st.integers(0, 4000)), st.integers(0, 3), st.integers(0, 2), st.integers(0, 60),
        st.booleans(),
    ),
    min_size=1, max_size=120,
)  # fmt: skip


def line(event: Event) -> bytes:
    second, client, status, tokens, registers = event
    what = b',"event":"registration"' if registers else b""
    return (
        b'{"time":%d,"client_ip":"198.51.%d.7","account":"a%d","path":"/x","status":%d,"tokens_in":%d,"tokens_out":%d%s}\n'
        % (START + second, client, client % 2, STATUS[status], tokens, tokens, what)
    )


def measures(event: Event) -> dict[str, int]:
    _, _, status, tokens, registers = event
    return {
        "requests": 1, "client_errors": int(status == 1), "auth_failures": int(status == 2), "registrations": int(registers),
        "tokens_in": tokens, "tokens_out": tokens,
    }  # fmt: skip


def told(events: list[Event]) -> set[tuple[str, str, str, int, int, int, int]]:
    rules = tuple(window_rules(config()))
    oracle = WindowsOracle(rules, 50)
    for event in events:
        oracle.insert(("ip", event[1]), START + event[0], measures(event))
        if event[2] != 2:  # who fails to authenticate is no state for whom it names
            oracle.insert(("account", event[1] % 2), START + event[0], measures(event))
    found = set()
    for second in sorted({event[0] for event in events}):
        for (dimension, number), index, observed, tick in oracle.close(START + second):
            value = f"198.51.{number}.7" if dimension == "ip" else f"a{number}"
            rule = rules[index]
            found.add((dimension, value, rule.measure, rule.limit, rule.first_tick(tick), observed, tick))
    return found


def plain(findings: list[Finding]) -> set[tuple[str, str, str, int, int, int, int]]:
    return {
        (f.target.type, f.target.value, f.measure, f.limit, f.window.start, f.observed, f.tick)
        for f in findings
        if f.stage == "final"
    }


SLOW = [(90 * k, 1, 2, 0, False) for k in range(20)]
"""An attempt every 90 seconds: no row of the last one is left when the next comes."""
KNOWN = [(0, 0, 0, 0, False)] * 9
"""So many that agree make a source's first time known; before, no second closes."""
FORGOTTEN = [(0, 1, 1, 0, False), *((k, 1, 0, 0, False) for k in range(1, 60)), *((1300 + k, 1, 1, 0, False) for k in range(9))]
"""A failure, many requests that do not, and when that is long over, failures again."""


@settings(max_examples=100, deadline=None)
@given(events=EVENTS, cuts=st.lists(st.integers(0, 200), max_size=4), partitions=st.sampled_from([1, 3]), early=st.booleans())
@example(events=SLOW, cuts=[7], partitions=1, early=False)
@example(events=FORGOTTEN, cuts=[], partitions=3, early=True)
def test_long_windows_say_what_plain_python_says(events: list[Event], cuts: list[int], partitions: int, early: bool) -> None:
    """In order but for the lateness, in any cut, over any number of judge partitions, stopped and restored at each cut."""
    events = sorted(events, key=lambda event: event[0] + 37 * event[3] % 100)
    settings_of = config(judge_partitions=partitions, keys_max=2048, rows_max=4096)
    engine = Embedded(settings_of, early=early)
    engine.open("log", 4_102_444_800_000)
    data = [line(event) for event in events]
    base, findings = 0, []
    for low, high in itertools.pairwise(sorted({0, len(data), *(cut % len(data) for cut in cuts)})):
        base = feed(engine, "log", b"".join(data[low:high]), base)
        findings += engine.take().findings
        saved = engine.snapshot()
        engine.stop()
        engine = Embedded.restore(settings_of, saved, early=early)
    engine.close("log")
    decided = conclude(engine)
    assert nothing_was_bounded(decided.account)
    findings += decided.findings
    assert plain(findings) == told(events)
    assert not any(f.stage == "early" and f.window.end - f.window.start > 120 for f in findings)


def shipped(events: list[Event], many: int) -> list[bytes]:
    """Tallies of so many events each, as one observer sends them to the only judge partition."""
    settings_of = config(judge_partitions=1)
    post = SourcePost("requests-0", 0, "", Bench(settings_of, make_seeds(settings_of)))
    values, tallies = [line(event).rstrip() for event in events], []
    for low in range(0, len(values), many):
        messages = Messages()
        some = values[low : low + many]
        messages.add(some, list(range(low, low + len(some))), [0] * len(some), 0)
        tallies += post.ship(messages, 0, 1000).parts[0]
    return tallies


@settings(max_examples=40, deadline=None)
@given(events=EVENTS, dies_at=st.sets(st.integers(0, 40), max_size=5))
@example(events=SLOW, dies_at={3, 4, 6})
@example(events=[(20 * k, k % 2, 1 + k % 2, 9, k % 5 == 0) for k in range(90)], dies_at=set(range(3, 24, 2)))
def test_a_judge_that_takes_over_goes_on_with_the_same_sums(events: list[Event], dies_at: set[int]) -> None:
    """From the record, and only those tallies whose rows are in a window of seconds."""
    settings_of = config(judge_partitions=1)
    seeds = make_seeds(settings_of)
    events = [*KNOWN, *sorted(events)]
    tallies = shipped(events, 4)
    post = JudgePost(settings_of, seeds, 0, ["requests-0"], early=False)
    findings: list[Finding] = []
    for offset, tally in enumerate(tallies):
        post.accept(offset, tally)
        findings += post.take().findings
        if offset not in dies_at:
            continue
        record = decode_record(post.record(), settings_of, seeds, 0)
        other = JudgePost(settings_of, seeds, 0, ["requests-0"], early=False)
        other.begin(record)
        for again in range(record.rebuild_from, record.position):
            other.reread(again, tallies[again])
        other.end(record)
        post = other
    post.judge.finish()
    findings += post.take().findings
    assert plain(findings) == told(events)


def test_a_record_reaches_back_by_windows_of_seconds_only() -> None:
    settings_of = config(judge_partitions=1)
    seeds = make_seeds(settings_of)
    tallies = shipped([*KNOWN, *SLOW], 1)
    post = JudgePost(settings_of, seeds, 0, ["requests-0"], early=False)
    for offset, tally in enumerate(tallies):
        post.accept(offset, tally)
    record = decode_record(post.record(), settings_of, seeds, 0)
    assert record.position == len(tallies)
    assert record.rebuild_from == len(tallies) - 3, "120 s of lateness, and windows of a minute: the last three tallies"


def test_the_evidence_of_a_long_window_names_where_all_of_it_lies() -> None:
    data = [line(event) for event in SLOW]
    findings = decide(b"".join(data), 4_102_444_800_000, config(), piece=1).findings
    assert findings
    for finding in findings:
        low, high = finding.evidence.offsets["log"]
        inside = [k for k, event in enumerate(SLOW) if finding.window.start <= START + event[0] < finding.window.end]
        assert low <= sum(map(len, data[: inside[0]]))
        assert high >= sum(map(len, data[: inside[-1] + 1]))


def test_honest_keys_take_no_room_in_long_windows() -> None:
    engine = Embedded(config())
    engine.open("log", 4_102_444_800_000)
    feed(engine, "log", b"".join(line((k, k % 4, 0, 0, False)) for k in range(300)), 0)
    assert not engine._judge.long.tag.any()


def test_in_a_full_table_the_fewest_parts_give_way_and_that_is_said() -> None:
    """64 entries for hundreds that fail once: who fails again and again stays, and sums are never above the truth."""
    crowd = [(k // 2, 16 + k, 2, 0, False) for k in range(1200)]
    mine = [(9 * k, 1, 2, 0, False) for k in range(66)]
    events = sorted([*crowd, *mine])
    lines = b"".join(
        b'{"time":%d,"client_ip":"10.9.%d.%d","path":"/x","status":401}\n' % (START + second, client >> 8, client & 255)
        for second, client, *_ in events
    )
    decided = decide(lines, 4_102_444_800_000, config(judge_partitions=1, keys_max=2048, rows_max=4096))
    assert decided.account.aged_out > 1000
    found = [f for f in decided.findings if f.window.end - f.window.start > 120]
    assert {f.target.value for f in found} == {"10.9.0.1"}
    assert any(f.evidence.features.get("aged_out") for f in found)
    for finding in found:
        assert finding.observed <= sum(finding.window.start <= START + second < finding.window.end for second, *_ in mine)


def test_a_state_of_other_rules_keeps_what_both_count() -> None:
    first = Embedded(config())
    first.open("log", 4_102_444_800_000)
    data = [line(event) for event in SLOW]
    base = feed(first, "log", b"".join(data[:10]), 0)
    first.take()
    rules = [{"dimension": "ip", "measure": "auth_failures", "window_s": 900, "limit": 9}]
    other = config_of({"detectors": only("rate", rules=rules), "policy": {"allowlist_core": []}, "time": {"lateness_s": 120}})
    second = Embedded.restore(other, first.snapshot())
    assert save_long(second._judge)["buckets"]["value"].sum() == save_long(first._judge)["buckets"]["value"].sum()
    second.open("log", 4_102_444_800_000, base)
    feed(second, "log", b"".join(data[10:]), base)
    second.close("log")
    whole = decide(b"".join(data), 4_102_444_800_000, other)
    assert {f.tick for f in conclude(second).findings} == {f.tick for f in whole.findings}


def test_a_window_of_minutes_is_whole_minutes() -> None:
    rules = [{"dimension": "ip", "window_s": 120, "limit": 1}, {"dimension": "ip", "window_s": 150, "limit": 1}]
    with pytest.raises(ConfigError, match=r"multiple of 60\) at `\$.detectors.rate.rules\[1\].window_s`, got 150"):
        plan_windows(config_of({"detectors": only("rate", rules=rules)}))
    items = [{"dimension": "ip", "items": "user_agent", "window_s": 150, "limit": 5}]
    assert plan_windows(config_of({"detectors": only("distinct", rules=items)})).span_s == 150


def test_a_record_says_little_of_many_keys() -> None:
    """Only buckets with something in them: a thousand addresses that failed in ten minutes each are some ten bytes a bucket."""
    settings_of = config(judge_partitions=1)
    seeds = make_seeds(settings_of)
    post = JudgePost(settings_of, seeds, 0, ["requests-0"], early=False)
    empty = len(encode_record(post.judge, settings_of, seeds, 0, 0, 0, {}))
    for offset, tally in enumerate(shipped([(k, k % 1000, 2, 0, False) for k in range(3000)], 100)):
        post.accept(offset, tally)
    full = len(encode_record(post.judge, settings_of, seeds, 0, 0, 0, {}))
    assert full - empty < 100_000
