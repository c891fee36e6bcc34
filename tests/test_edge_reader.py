"""The reader of the enforcement topic: its rules, in any order, with anything on the topic, within its bounds."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import nft_rules
from edge.reader import KEYS_MAX, RECORD_BYTES_MAX, Reader
from edge.subject import covering, parse_prefix
from schemas.mitigation import Mitigation
from tests.mitigations import CORE, everything, in_force, on_topic, ready_reader, record

NOW = 1000


def test_nothing_changes_before_the_end_that_the_topic_had_at_the_start() -> None:
    reader = Reader(CORE, everything)
    assert not reader.ready
    reader.begin({0: 2, 1: 1, 2: 0})
    reader.take(*on_topic(record(action="block")))
    reader.reached(0, 1)
    reader.reached(1, 1)
    assert reader.changes(NOW * 1000) == []
    reader.take(*on_topic(record(action="block", state="lifted", stage="final")))
    reader.reached(0, 2)
    assert reader.ready
    assert reader.changes(NOW * 1000) == []


def test_a_change_is_given_once_and_says_what_was_before() -> None:
    reader = ready_reader(record(id="a"))
    [first] = reader.changes(NOW * 1000)
    assert (first.kind, first.subject.text, first.before) == ("apply", "203.0.113.7", None)
    assert reader.changes(NOW * 1000) == []
    reader.take(*on_topic(record(id="a", stage="final", expires_at=1300)))
    [second] = reader.changes(NOW * 1000)
    assert second.kind == "extend"
    assert second.before == first.after
    assert second.after is not None
    assert second.after.expires_at_ms == 1_300_000
    reader.take(*on_topic(record(id="a", stage="final", tick=995, state="lifted")))
    [third] = reader.changes(NOW * 1000)
    assert (third.kind, third.before, third.after) == ("lift", second.after, None)


def test_what_expires_falls_out_by_the_clock_and_leaves_the_weaker_record() -> None:
    reader = ready_reader(record(), record(action="block", detector="other", expires_at=1010))
    assert in_force(reader, NOW) == {"203.0.113.7": "block"}
    [change] = reader.changes(1_010_000)
    assert (change.kind, change.after and change.after.action) == ("apply", "throttle")
    [change] = reader.changes(1_100_000)
    assert change.kind == "expire"
    assert in_force(reader, 1100) == {}


def test_a_lower_tick_or_stage_of_the_same_key_is_ignored() -> None:
    reader = ready_reader(record(stage="final", action="block"), record(), record(tick=980, stage="final"))
    assert in_force(reader, NOW) == {"203.0.113.7": "block"}
    assert reader.counts["older"] == 2


def test_what_was_lifted_does_not_come_back_when_a_judge_says_it_again() -> None:
    said = record(stage="final", expires_at=2000)
    reader = ready_reader(said, record(tick=995, stage="final", state="lifted", expires_at=1001))
    assert in_force(reader, 1500) == {}
    reader.take(*on_topic(said))
    assert in_force(reader, 1500) == {}


@pytest.mark.parametrize("trial", [{"dry_run": True}, {"drill": True}, {"state": "held"}, {"action": "notify"}])
def test_trials_held_and_notices_are_not_enforced_and_replace_what_their_key_said(trial: dict[str, object]) -> None:
    reader = ready_reader(record(), record(tick=995, **trial))
    assert in_force(reader, NOW) == {}
    assert reader.refusals(NOW * 1000) == []


def test_nftables_cannot_do_signatures_and_says_so() -> None:
    value = '{"net":"203.0.113.0/24","route":"GET /pricing","service":"www.example.com"}'
    reader = ready_reader(
        record(value, id="a", kind="signature", action="challenge"),
        record(value, id="b", kind="signature", action="throttle", detector="other"), supports=nft_rules.supports,
    )  # fmt: skip
    assert in_force(reader, NOW) == {}
    assert [refusal.reason for refusal in reader.refusals(NOW * 1000)] == ["unsupported", "unsupported"]


def test_drills_are_enforced_when_told_so() -> None:
    assert in_force(ready_reader(record(drill=True), drills=True), NOW) == {"203.0.113.7": "throttle"}


def test_an_operator_wins_over_every_detector() -> None:
    reader = ready_reader(
        record(action="block"), record(detector="operator", action="allow"),
        record("203.0.113.8", action="throttle", detector="operator"), record("203.0.113.8", action="block"),
    )  # fmt: skip
    assert in_force(reader, NOW) == {"203.0.113.7": "allow", "203.0.113.8": "throttle"}


def test_only_an_operator_allows() -> None:
    reader = ready_reader(record(action="allow"), record(action="throttle", detector="other"))
    assert in_force(reader, NOW) == {"203.0.113.7": "throttle"}


def test_what_the_edge_cannot_do_is_refused_once_and_never_replaced_by_something_harsher() -> None:
    reader = ready_reader(
        record(id="a", action="challenge"), record(id="a", action="challenge", stage="final"),
        record(id="b", action="disable_key", kind="api_key", value="abc"), record(id="c", action="swallow", detector="third"),
        record(id="d", action="throttle", detector="other"), record(id="e", detector="old", action="challenge", expires_at=995),
        supports=lambda subject, action: action in ("throttle", "block") and subject.length == 32,
    )  # fmt: skip
    assert in_force(reader, NOW) == {"203.0.113.7": "throttle"}
    assert [(refusal.record.id, refusal.reason) for refusal in reader.refusals(NOW * 1000)] == [
        ("a", "unsupported"), ("b", "unsupported"), ("c", "unsupported"),
    ]  # fmt: skip
    assert reader.refusals(NOW * 1000) == []


@pytest.mark.parametrize("value", ["10.0.0.7", "127.0.0.0/24", "::ffff:10.0.0.7", "fe80::/64", "0.0.0.0/0", "::/0"])
def test_what_touches_the_core_is_never_acted_on_whoever_says_so(value: str) -> None:
    said = record(value, kind="net", action="block")
    reader = ready_reader(said, record(value, kind="net", detector="operator", action="block"))
    assert in_force(reader, NOW) == {}
    assert [refusal.reason for refusal in reader.refusals(NOW * 1000)] == ["allowlisted", "allowlisted"]


def test_two_spellings_of_an_address_are_one_target() -> None:
    reader = ready_reader(
        record("2001:DB8:0:0::/64", action="throttle"), record("2001:db8::/64", kind="net", detector="other", action="block"),
        record("::ffff:203.0.113.7"), record("203.0.113.7", detector="other", action="block"),
    )  # fmt: skip
    assert in_force(reader, NOW) == {"2001:db8::/64": "block", "203.0.113.7": "block"}


GOOD = on_topic(record())


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (GOOD[0], None, "no_value"),
        (GOOD[0], b"", "no_json"),
        (GOOD[0], GOOD[1][:50], "no_json"),
        (GOOD[0], b"\xff\xfe", "no_json"),
        (GOOD[0], b"[" * 100_000, "wrong_shape"),
        (GOOD[0], b'{"x":' * 100_000, "no_json"),
        (GOOD[0], b"[1]", "wrong_shape"),
        (GOOD[0], GOOD[1].replace(b'"tick":990', b'"tick":"990"'), "wrong_shape"),
        (GOOD[0], GOOD[1].replace(b'"tick":990', b'"tick":' + b"9" * 400), "time"),
        (GOOD[0], GOOD[1].replace(b'"tick":990', b'"tick":-1'), "time"),
        (GOOD[0], GOOD[1].replace(b'"expires_at":1100', b'"expires_at":9007199254740993'), "time"),
        (GOOD[0], b" " * (RECORD_BYTES_MAX + 1), "too_long"),
        (*on_topic(record(reason="x" * 5000)), "wrong_shape"),
        (*on_topic(record(detector="x" * 200)), "wrong_shape"),
        (*on_topic(record("x" * 5000, kind="account")), "target"),
        (b"ip:203.0.113.8:rate", GOOD[1], "wrong_key"),
        (None, GOOD[1], "wrong_key"),
        (*on_topic(record("203.0.113.007")), "target"),
        (*on_topic(record("203.0.113.7/24")), "target"),
        (*on_topic(record("203.0.113.7 }; flush ruleset")), "target"),
        (*on_topic(record("::1%lo")), "target"),
        (*on_topic(record("203.0.113.0/-1", kind="net")), "target"),
    ],
)
def test_what_cannot_be_read_is_counted_and_harms_no_other(key: bytes | None, value: bytes | None, reason: str) -> None:
    reader = ready_reader(record("203.0.113.9", action="block"))
    assert reader.take(key, value) is None
    assert reader.counts[f"malformed_{reason}"] == 1
    assert in_force(reader, NOW) == {"203.0.113.9": "block"}


def test_fields_that_are_not_known_are_ignored() -> None:
    document = orjson.loads(GOOD[1]) | {"schema": 2, "future": {"a": [1]}}
    reader = ready_reader()
    assert reader.take(GOOD[0], orjson.dumps(document)) is not None
    assert in_force(reader, NOW) == {"203.0.113.7": "throttle"}


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_whatever_stop_it(value: bytes) -> None:
    reader = ready_reader()
    reader.take(b"key", value)
    assert in_force(reader, NOW) == {}


def test_starting_over_keeps_what_is_in_force_until_the_end_and_gives_the_difference() -> None:
    reader = ready_reader(record(), record("203.0.113.8"), record("203.0.113.9"))
    assert len(reader.changes(NOW * 1000)) == 3
    reader.begin({0: 20})
    assert reader.changes(NOW * 1000) == []
    assert len(reader.table) == 3
    reader.take(*on_topic(record("203.0.113.8")))
    reader.take(*on_topic(record("203.0.113.9", stage="final", action="block")))
    reader.reached(0, 20)
    found = {change.subject.text: change.kind for change in reader.changes(NOW * 1000)}
    assert found == {"203.0.113.7": "lift", "203.0.113.9": "apply"}


def test_keys_are_bounded_and_an_operator_still_gets_in() -> None:
    reader = ready_reader(keys_max=3)
    for last in range(10):
        reader.take(*on_topic(record(f"203.0.113.{last}")))
    reader.take(*on_topic(record("203.0.113.2", action="allow", detector="operator")))
    assert in_force(reader, NOW) == {"203.0.113.0": "throttle", "203.0.113.1": "throttle", "203.0.113.2": "allow"}
    assert [refusal.reason for refusal in reader.refusals(NOW * 1000)] == ["full"] * 7
    assert in_force(reader, 1100) == {}
    reader.take(*on_topic(record("203.0.113.9", tick=1100, expires_at=1200)))
    assert in_force(reader, 1101) == {"203.0.113.9": "throttle"}


def test_renewals_without_end_do_not_grow_the_memory() -> None:
    reader = ready_reader()
    for step in range(30_000):
        reader.take(*on_topic(record(tick=1000 + step, expires_at=100_000 + step)))
    assert sum(len(due) for due in reader._due.values()) < 5_000
    assert in_force(reader, 129_998) == {"203.0.113.7": "throttle"}
    assert in_force(reader, 129_999) == {}
    assert (reader._kept, reader._due, reader._seconds) == ({}, {}, [])
    assert KEYS_MAX >= 200_000  # the default of policy.active_max


def by_the_rules(records: list[Mitigation], now: int) -> dict[str, str]:
    """The rules in the plainest words, over the whole topic at once."""
    latest: dict[tuple[str, str], Mitigation] = {}
    for one in records:
        key = (one.target.value, one.detector)
        if key in latest and (one.tick, one.stage == "final") < (latest[key].tick, latest[key].stage == "final"):
            continue
        latest[key] = one
    actions = {"notify": 0, "challenge": 1, "throttle": 2, "block": 3}
    found: dict[str, str] = {}
    for (value, detector), one in sorted(latest.items(), key=lambda item: item[0][1] == "operator"):
        if one.state != "active" or one.dry_run or one.expires_at <= now or one.action == "notify":
            continue
        if detector == "operator" or actions[one.action] > actions.get(found.get(value, "notify"), 0):
            found[value] = one.action
    return found


@settings(deadline=None)
@given(
    st.lists(
        st.builds(
            record,
            value=st.sampled_from(["203.0.113.7", "203.0.113.0/24", "2001:db8::/64"]),
            detector=st.sampled_from(["rate", "other", "operator"]),
            tick=st.integers(990, 994),
            stage=st.sampled_from(["early", "final"]),
            state=st.sampled_from(["active", "active", "active", "lifted", "held"]),
            action=st.sampled_from(["notify", "challenge", "throttle", "block"]),
            expires_at=st.integers(995, 1010),
            dry_run=st.sampled_from([False, False, True]),
        ),
        max_size=30,
    ),
    st.lists(st.integers(0, 30), max_size=5),
)
def test_whenever_it_is_asked_it_agrees_with_the_rules_over_the_topic(records: list[Mitigation], asked: list[int]) -> None:
    reader = ready_reader()
    for at, one in enumerate(records):
        if at in asked:
            reader.changes(994_000)
        reader.take(*on_topic(one))
    for now in (994, 1000, 1005, 1010):
        assert in_force(reader, now) == by_the_rules(records, now)


@pytest.mark.parametrize("text", ["", "x", "1.2.3", "1.2.3.4/33", "1.2.3.4/", "::1/129", "1.2.3.4/1a", "::/٣", "::1\n", "\0"])
def test_what_is_no_prefix_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_prefix(text)


def test_an_address_is_looked_up_under_every_length() -> None:
    lengths = {"ip4": (32, 24), "ip6": (128, 64, 48)}
    assert [one.text for one in covering("203.0.113.7", lengths)] == ["203.0.113.7", "203.0.113.0/24"]
    assert [one.text for one in covering("::ffff:203.0.113.7", lengths)] == ["203.0.113.7", "203.0.113.0/24"]
    wider = ["2001:db8:1:2::9", "2001:db8:1:2::/64", "2001:db8:1::/48"]
    assert [one.text for one in covering("2001:db8:1:2::9", lengths)] == wider
    with pytest.raises(ValueError, match="prefix"):
        covering("203.0.113.0/24", lengths)
