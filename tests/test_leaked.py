"""Leaked keys: what is told of them, what disables them for how long, and that the list is bounded and exact."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.kernels.membership import NOT_LISTED, listed_rows_kernel, words_of_text
from edge.reader import Reader
from engine.embedded import Embedded
from engine.leaked import LeakedList
from engine.policy import FOR_EVER
from engine.post import JudgePost
from engine.record import decode_record
from engine.seeds import make_seeds
from engine.source_post import Bench, Messages, SourcePost
from floodwall.cli import app
from schemas.decoding.fingerprint import keyed_fingerprint
from schemas.errors import ConfigError
from schemas.fields import Dimension
from schemas.leaked import LeakLift, LeakRecord, LeakReport, decode_leak, encode_leak, leak_key, sha256_hex
from schemas.mitigation import Mitigation
from schemas.tally import C_DIMENSION, C_KEY_A, C_KEY_B, C_TICK, RECORD_WORDS
from tests.engines import Decided, conclude, config_of, decide, feed
from tests.mitigations import CORE, everything, in_force, on_topic, ready_reader
from tests.oracles.hashing import siphash_1_3_128
from tests.oracles.membership import listed_rows

SEEDS = make_seeds(config_of())
START = 1_795_000_020
HALF_DAY = 43_200
KEY = b"sk-live-5Kq0pX7vT2mB9zR4"


def report(fingerprint: str, tick: int = 0, **more: Any) -> LeakReport:
    known: dict[str, Any] = {
        "form": "sha256", "provider": "github", "type": "a", "source": "content", "reported_ms": 0, "report": "r1",
    }  # fmt: skip
    return LeakReport(fingerprint=fingerprint, tick=START + tick, **{**known, **more})


def lift(fingerprint: str, tick: int) -> LeakLift:
    return LeakLift(fingerprint=fingerprint, tick=START + tick, owner="ana", reason="ours")


def lines(*events: tuple[float, dict[str, Any]]) -> bytes:
    rows = [{"time": round(1000 * (START + at)), "path": "/v1/chat", "status": 200, **event} for at, event in events]
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def run(folder: Path, data: bytes, records: list[LeakRecord], policy: dict[str, Any] | None = None, **section: Any) -> Decided:
    file = folder / "reports.ndjson"
    file.write_bytes(b"\n".join(map(encode_leak, records)) + b"\n")
    config = config_of({"detectors": {"leaked": {"reports": str(file), **section}}, "policy": policy or {}})
    return decide(data, 1000 * (START + 10_000_000), config)


def of_leaked(decided: Decided) -> list[Mitigation]:
    return sorted((m for m in decided.mitigations if m.detector == "leaked"), key=lambda m: (m.tick, m.stage))


def brief(decided: Decided) -> list[tuple[str, int, str, str]]:
    return [(m.target.value, m.tick - START, m.action, m.state) for m in of_leaked(decided)]


def busy(name: str, first: int, end: int, step: int = 10, **event: Any) -> list[tuple[float, dict[str, Any]]]:
    return [(at, {"api_key_hash": name, **event}) for at in range(first, end, step)]


def test_every_spelling_of_a_key_in_traffic_is_the_one_that_is_reported(tmp_path: Path) -> None:
    hashed = sha256_hex(KEY)
    events = [
        (1, {"metadata": {"user_api_key_hash": hashed}}),
        (2, {"api_key": KEY.decode()}),
        (3, {"request": {"headers": {"authorization": f"Bearer {KEY.decode()}"}}}),
    ]
    data = lines(*events)
    keyed = keyed_fingerprint(SEEDS.key, KEY)
    for name in (hashed, keyed):
        decided = run(tmp_path, data, [report(name)], tell_unseen=False)
        assert {value for value, *_ in brief(decided)} == {name}, name
    assert brief(run(tmp_path, data, [report(sha256_hex(b"another")), report(keyed_fingerprint(SEEDS.key, b"another"))],
                     tell_unseen=False)) == []  # fmt: skip


def test_a_request_that_failed_or_was_denied_is_no_use_of_a_key(tmp_path: Path) -> None:
    statuses = (401, 403, 429, 503, 500, 404)
    events = [event for index, status in enumerate(statuses) for event in busy("k", index, 60, 6, status=status)]
    decided = run(tmp_path, lines(*sorted(events, key=lambda e: e[0]), (99, {})), [report("k")], tell_unseen=False)
    assert brief(decided) == []


def test_a_report_holds_from_its_tick_and_is_told_alone_without_traffic(tmp_path: Path) -> None:
    data = lines(*busy("k", 0, 200), (300, {}))
    told = [("k", 95, "notify", "active"), ("k", 120, "notify", "active")]  # alone, and in use: not both in one cell
    assert brief(run(tmp_path, data, [report("k", 95)])) == told
    assert brief(run(tmp_path, data, [report("k", 95)], tell_unseen=False)) == [("k", 100, "notify", "active")]
    assert brief(run(tmp_path, data, [report("never", 95)])) == [("never", 95, "notify", "active")]
    assert brief(run(tmp_path, data, [report("never", 95, also=True)])) == []
    assert brief(run(tmp_path, data, [report("k", 5000)])) == []


def test_replay_takes_the_reports_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "requests.ndjson").write_bytes(lines(*busy("k", 0, 100, 1)))
    (tmp_path / "reports.ndjson").write_bytes(encode_leak(report("k", 30)) + b"\n")
    words = [str(tmp_path / "requests.ndjson"), "--leaked", str(tmp_path / "reports.ndjson"), "--json"]
    with pytest.raises(SystemExit) as ended:
        app(["replay", *words])
    assert ended.value.code == 0
    assert "is reported as leaked" in capsys.readouterr().out


def test_a_key_that_stays_in_use_is_told_once_in_a_while(tmp_path: Path) -> None:
    decided = run(tmp_path, lines(*busy("k", 0, 8000, 20)), [report("k")], tell_unseen=False)
    assert [tick for _, tick, _, _ in brief(decided)] == [0, 3180, 6780]  # the first uses in each hour


def test_unless_it_is_armed_nothing_is_disabled(tmp_path: Path) -> None:
    decided = run(tmp_path, lines(*busy("k", 0, 90_000, 500)), [report("k")], disable_unseen=True)
    assert {action for _, _, action, _ in brief(decided)} == {"notify"}


def test_a_disabled_key_stays_so_until_an_operator_lifts_it(tmp_path: Path) -> None:
    events = [*busy("k", 0, 60), *busy("k", 60, 3 * HALF_DAY, 600, status=401), (3 * HALF_DAY + 100, {"api_key_hash": "k"})]
    records: list[LeakRecord] = [report("k", 20), lift("k", 3 * HALF_DAY)]
    decided = run(tmp_path, lines(*events, (3 * HALF_DAY + 200, {})), records, disable=True, tell_unseen=False)
    found = brief(decided)
    assert found[0] == ("k", 20, "disable_key", "active")
    assert found[-1] == ("k", 3 * HALF_DAY, "disable_key", "lifted")
    kept = found[1:-1]
    assert {one[2:] for one in kept} == {("disable_key", "active")}
    ticks = [0, *(START + one[1] for one in kept), START + 3 * HALF_DAY]
    assert all(tick % HALF_DAY == 0 for tick in ticks[1:-1])
    assert max(later - tick for tick, later in itertools.pairwise(ticks[1:])) <= HALF_DAY
    assert {m.expires_at for m in of_leaked(decided) if m.state == "active"} == {FOR_EVER}
    assert "lifted" in {f.outcome for f in decided.findings}


def test_feedback_that_it_was_wrong_ends_it_also_after_the_day_for_which_feedback_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, log, reports, out = (tmp_path / name for name in ("f.toml", "log.ndjson", "leaked.ndjson", "out.ndjson"))
    config.write_text(f'[detectors.leaked]\nreports = "{reports}"\ndisable = true\ntell_unseen = false\n')
    log.write_bytes(lines(*busy("k", 0, 60), *busy("k", 60, 5 * HALF_DAY, 600)))
    reports.write_bytes(encode_leak(report("k", 20)) + b"\n")

    def floodwall(*words: str) -> str:
        assert app([*words, "--config", str(config)], standalone_mode=False) == 0
        return capsys.readouterr().out

    def replayed(*words: str) -> list[tuple[int, str]]:
        floodwall("replay", str(log), "--out", str(out), *words)
        found = [orjson.loads(line) for line in out.read_bytes().splitlines()]
        return [(one["tick"] - START, one["state"]) for one in found if one["action"] == "disable_key"]

    first = replayed()
    assert first[0] == (20, "active")
    assert {state for _, state in first} == {"active"}
    said, identifier = tmp_path / "feedback.ndjson", orjson.loads(out.read_bytes().splitlines()[0])["id"]
    at = datetime.fromtimestamp(START + 100, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    words = ("--false-positive", "--decisions", str(out), "--to", str(said), "--who", "ana", "--reason", "ours", "--at", at)
    told = floodwall("feedback", identifier, *words).splitlines()
    assert "Its reports count until this stands in the file of --leaked" in told[0]
    reports.write_text(reports.read_text() + told[1] + "\n")
    assert replayed("--feedback", str(said)) == [(20, "active"), (100, "lifted")]


def test_an_edge_holds_a_disabled_key_for_years_and_lets_go_of_a_lifted_one(tmp_path: Path) -> None:
    events = [*busy("k", 0, 60), *busy("k", 60, 2000, 600, status=401), (2000, {})]
    decided = run(tmp_path, lines(*events), [report("k", 20), lift("k", 1000)], disable=True, tell_unseen=False)
    disabled, lifted = of_leaked(decided)
    reader = ready_reader(disabled)
    assert in_force(reader, START + 30) == {"k": "disable_key"}
    assert in_force(reader, START + 10 * 365 * 86_400) == {"k": "disable_key"}
    reader.take(*on_topic(lifted))
    assert in_force(reader, START + 1100) == {}
    again = Reader(CORE, everything)  # one that starts later, from a topic that was not compacted yet
    again.begin({0: 2})
    for one in (disabled, lifted):
        again.take(*on_topic(one))
    again.reached(0, 2)
    assert in_force(again, START + 1100) == {}


def test_a_report_alone_disables_only_where_that_is_armed_too(tmp_path: Path) -> None:
    data = lines(*busy("other", 0, 100))
    armed = run(tmp_path, data, [report("k", 20)], disable=True, disable_unseen=True)
    assert brief(armed) == [("k", 20, "disable_key", "active")]
    assert brief(run(tmp_path, data, [report("k", 20)], disable=True)) == [("k", 20, "notify", "active")]


def test_a_report_that_comes_after_the_lift_changes_nothing(tmp_path: Path) -> None:
    data = lines(*busy("k", 0, 300))
    for records in ([lift("k", 10), report("k", 20)], [report("k", 20), lift("k", 10)]):
        assert brief(run(tmp_path, data, list(records), disable=True)) == []


def test_a_dry_run_disables_nobody_and_a_budget_holds_the_others(tmp_path: Path) -> None:
    data = lines(*sorted((*busy("k", 0, 100), *busy("m", 0, 100)), key=lambda event: event[0]))
    dry = run(tmp_path, data, [report("k", 20)], disable=True, dry_run=True, tell_unseen=False)
    assert {m.dry_run for m in of_leaked(dry)} == {True}
    bounded = run(
        tmp_path, data, [report("k", 20), report("m", 20)], {"new_per_minute_max": 1, "active_max": 16}, disable=True,
        tell_unseen=False,
    )  # fmt: skip
    assert {m.state for m in of_leaked(bounded)} <= {"active", "held"}
    allowed = {"allow": [{"dimension": "api_key", "value": "k", "owner": "ana", "reason": "a test key"}]}
    assert brief(run(tmp_path, data, [report("k", 20)], allowed, disable=True)) == []
    later = {"allow": [allowed["allow"][0] | {"expires_tick": START + 10_000}]}
    lifted = brief(run(tmp_path, data, [report("k", 20), lift("k", 60)], later, disable=True))
    assert lifted == [("k", 60, "disable_key", "lifted")]  # an exception does not keep a lift away


def test_what_is_disabled_stays_so_however_small_the_budget_of_a_minute(tmp_path: Path) -> None:
    names = [f"k{index}" for index in range(6)]
    events = [(30 + 100 * index, {"api_key_hash": name}) for index, name in enumerate(names)]
    data = lines(*events, (2 * HALF_DAY, {}), (2 * HALF_DAY + 60, {}))
    file = tmp_path / "reports.ndjson"
    file.write_bytes(b"\n".join(encode_leak(report(name)) for name in names))
    section = {"leaked": {"reports": str(file), "disable": True, "tell_unseen": False}}
    policy = {"new_per_minute_max": 1, "active_max": 100}
    decided = decide(data, 1000 * (START + 10_000_000), config_of({"detectors": section, "policy": policy}, judge_partitions=1))
    assert [(m.target.value, m.state) for m in of_leaked(decided)[:6]] == [(name, "active") for name in names]
    kept = of_leaked(decided)[6:]
    assert {m.target.value for m in kept} == set(names)
    assert {m.state for m in kept} == {"active"}


def test_what_others_say_of_a_key_neither_raises_a_notice_nor_is_raised_by_it(tmp_path: Path) -> None:
    rule = {"dimension": "api_key", "measure": "tokens_in", "window_s": 10, "limit": 10}
    events = [(at, {"api_key_hash": "k", "tokens_in": 100}) for at in range(100)]
    file = tmp_path / "reports.ndjson"
    file.write_bytes(encode_leak(report("k")) + b"\n")
    config = config_of({"detectors": {"leaked": {"reports": str(file)}, "spend": {"rules": [rule | {"action": "notify"}]}}})
    decided = decide(lines(*events), 1000 * (START + 10_000), config)
    told = {m.detector for m in decided.mitigations if m.target.value == "k" and not m.dry_run}
    assert told == {"leaked", "spend"}
    assert {m.action for m in decided.mitigations if m.target.value == "k" and not m.dry_run} == {"notify"}
    assert not any("agree" in m.reason for m in decided.mitigations)


def messages_of(data: bytes) -> list[bytes]:
    return data.splitlines()


def judge_on_kafka(records: list[LeakRecord], data: bytes, *, restarts: bool) -> set[tuple[str, str]]:
    """(id, state) of what judges, each with a partition of its own, publish; with a new judge from a record in the middle."""
    config = config_of({"detectors": {"leaked": {"disable": True}}}, judge_partitions=4)
    seeds = make_seeds(config)
    source = SourcePost("requests-0", 0, "", Bench(config, seeds))
    values = messages_of(data)
    tallies: list[list[bytes]] = [[] for _ in range(4)]
    for first in range(0, len(values), 25):
        some = values[first : first + 25]
        messages = Messages()
        messages.add(some, list(range(first, first + len(some))), [0] * len(some), sum(map(len, some)))
        for partition, part in enumerate(source.ship(messages, 0, 0).parts):
            tallies[partition] += part
    listed = listed_of(records, config)
    found = set()
    for partition in range(4):
        post = JudgePost(config, seeds, partition, ["requests-0"], early=True, leaked=listed)
        half = len(tallies[partition]) // 2 if restarts else -1
        for offset, tally in enumerate(tallies[partition]):
            if offset == half:
                found |= taken(post)
                saved = decode_record(post.record(), config, seeds, partition)
                post = JudgePost(config, seeds, partition, ["requests-0"], early=True, leaked=listed_of(records, config))
                post.begin(saved)
                for earlier in range(saved.rebuild_from, saved.position):
                    post.reread(earlier, tallies[partition][earlier])
                post.end(saved)
            post.accept(offset, tally)
        post.judge.finish()
        found |= taken(post)
    return found


def listed_of(records: list[LeakRecord], config: Any) -> LeakedList:
    listed = LeakedList(make_seeds(config).hash, config.engine.judge_partitions)
    for offset, record in enumerate(records):
        listed.take(record, offset)
    return listed


def taken(post: JudgePost) -> set[tuple[str, str]]:
    return {(m.id, m.state) for m in post.take().mitigations if m.detector == "leaked"}


def test_judges_with_a_partition_each_and_one_that_took_over_decide_as_one_process_does(tmp_path: Path) -> None:
    chance = random.Random(3)
    names = [f"key-{index}" for index in range(12)]
    events = [(chance.randrange(50_000), {"api_key_hash": chance.choice(names)}) for _ in range(800)]
    data = lines(*sorted(events, key=lambda event: event[0]))
    records: list[LeakRecord] = [report(name, chance.randrange(40_000)) for name in names[:8]]
    records += [report("unseen", 7_000), lift(names[0], 45_000), lift(names[1], 100)]
    file = tmp_path / "reports.ndjson"
    file.write_bytes(b"\n".join(map(encode_leak, records)))
    embedded = decide(
        data, 1000 * (START + 100_000), config_of({"detectors": {"leaked": {"disable": True, "reports": str(file)}}}), piece=50
    )
    expected = {(m.id, m.state) for m in of_leaked(embedded)}
    assert len(expected) > 10
    assert "lifted" in {state for _, state in expected}
    assert judge_on_kafka(records, data, restarts=False) == expected
    assert judge_on_kafka(records, data, restarts=True) == expected


def test_one_that_saved_its_state_tells_no_report_twice(tmp_path: Path) -> None:
    file = tmp_path / "reports.ndjson"
    file.write_bytes(encode_leak(report("old", 5)) + b"\n")
    config = config_of({"detectors": {"leaked": {"reports": str(file)}}})
    data, bound = lines(*busy("x", 0, 200, 1)), 1000 * (START + 10_000)
    first = Embedded(config)
    first.open("log", bound)
    base = feed(first, "log", data, 0)
    assert [m.target.value for m in first.take().mitigations] == ["old"]
    saved = first.snapshot()
    first.stop()
    with file.open("ab") as more:
        more.write(encode_leak(report("new", 300)) + b"\n")
    second = Embedded.restore(config, saved)
    second.open("log", bound, base)
    feed(second, "log", lines(*busy("x", 200, 400, 1)), base)
    second.close("log")
    assert [m.target.value for m in conclude(second).mitigations] == ["new"]


def test_the_list_is_bounded_grows_and_keeps_the_first_report() -> None:
    listed = LeakedList(SEEDS.hash, 16, entries_max=300)
    outcomes = [listed.take(report(f"k{index}", index), index) for index in range(310)]
    assert outcomes == ["added"] * 300 + ["full"] * 10
    assert listed.refused == 10
    for index in range(300):
        entry = listed.find(words_of_text(SEEDS.hash, f"k{index}".encode()))
        assert (listed.name(entry), int(listed.tick[entry])) == (f"k{index}".encode(), START + index)
    assert listed.find(words_of_text(SEEDS.hash, b"k305")) == NOT_LISTED
    assert listed.take(report("k7", 999), 311) == "known"
    assert int(listed.tick[listed.find(words_of_text(SEEDS.hash, b"k7"))]) == START + 7


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=1, max_size=90))
def test_a_fingerprint_has_the_words_that_grouping_gives_it(text: bytes) -> None:
    a, b = siphash_1_3_128((int(SEEDS.hash[0]), int(SEEDS.hash[1])), text)
    assert tuple(word & (1 << 64) - 1 for word in words_of_text(SEEDS.hash, text)) == (a, b)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(0, 60), st.integers(0, 200))
def test_rows_of_listed_keys_are_found_as_in_plain_python(seed: int, keys: int, rows: int) -> None:
    chance = random.Random(seed)
    listed = LeakedList(SEEDS.hash, 4)
    for index in range(keys):
        listed.take(report(f"k{index}"))
    records = np.zeros((rows, RECORD_WORDS), np.int64)
    for row in records:
        row[C_KEY_A], row[C_KEY_B] = words_of_text(SEEDS.hash, f"k{chance.randrange(2 * keys + 1)}".encode())
        row[C_DIMENSION], row[C_TICK] = chance.choice([Dimension.API_KEY, Dimension.IP]), chance.randrange(10)
    order = np.array(chance.sample(range(rows), rows), np.int64)
    out, entries = np.zeros(rows + 1, np.int64), np.zeros(rows + 1, np.int64)
    found = listed_rows_kernel(records, order, int(Dimension.API_KEY), 4, listed.places, listed.words, out, entries)
    expected = listed_rows(records, order, int(Dimension.API_KEY), 4, listed.words[: listed.count])
    assert list(zip(out[:found].tolist(), entries[:found].tolist(), strict=True)) == expected


@pytest.mark.parametrize("broken", [b"sk-live-secret", b'{"kind":"report","fingerprint":"sk-live-secret"}', b"[" * 9000])
def test_a_line_that_is_no_report_is_named_and_never_repeated(tmp_path: Path, broken: bytes) -> None:
    file = tmp_path / "reports.ndjson"
    file.write_bytes(encode_leak(report("k")) + b"\n\n" + broken)
    with pytest.raises(ConfigError, match=r"line 3 of") as refused:
        Embedded(config_of({"detectors": {"leaked": {"reports": str(file)}}}))
    assert "secret" not in str(refused.value)
    with pytest.raises(ConfigError, match="a file of leaked keys at"):
        Embedded(config_of({"detectors": {"leaked": {"reports": str(tmp_path / "none")}}}))


def test_reports_and_lifts_have_keys_of_their_own_and_survive_the_way() -> None:
    for record in (report("k", 3, url="https://example.com/a"), lift("k", 4)):
        assert decode_leak(encode_leak(record)) == record
    assert leak_key(report("k")) == b"k"
    assert leak_key(lift("k", 1)) == b"operator:k"
