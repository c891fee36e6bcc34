"""The keys detector in the engine: what is gathered, what is learned, what is told, and that a restart changes nothing."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.kernels.key_features import V_MODELS, VALUES
from detectors.kernels.key_rows import (
    C_AGENTS,
    C_COUNTRIES,
    C_DENIALS,
    C_ERRORS,
    C_EVIDENCE,
    C_NETS,
    C_TOKENS_IN,
    C_TOKENS_OUT,
    G_A,
    G_B,
    G_STEP,
    G_VALUES,
    allocate_key_rows,
    gather_keys_kernel,
    index_keys_kernel,
    sum_keys_kernel,
    windows_kernel,
)
from detectors.learning.key_state import WOKEN
from engine.embedded import Embedded
from engine.key_book import NEVER, KeyBook, KeyBooks, Sleepers
from engine.keys import LearnedKeys
from schemas.config import Config
from schemas.errors import StateError
from schemas.fields import Dimension
from schemas.tally import C_DIMENSION, C_HASH, C_KEY_A, C_KEY_B, C_MODELS, C_NAME, C_NAME_LENGTH, C_TICK, RECORD_WORDS
from tests.engines import conclude, config_of, decide, feed, nothing_was_bounded, only
from tests.key_books import take_in
from tests.oracles.key_rows import Row, gathered, model_bin, summed

START_S = 1_795_000_200
BOUND_MS = 1000 * (START_S + 1_000_000)
SETS = (C_NETS, C_COUNTRIES, C_AGENTS, C_MODELS)
SUMS = (C_EVIDENCE, C_ERRORS, C_TOKENS_IN, C_TOKENS_OUT)
ROW = st.tuples(
    st.integers(0, 200), st.integers(0, 2), st.integers(-1, 1), st.tuples(*[st.integers(0, 5)] * 4),
    st.tuples(*[st.sampled_from([0, 1, 2, -(2**63), 7])] * 4), st.integers(0, 1),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(
    tallies=st.lists(st.lists(ROW, max_size=20), max_size=4), closed=st.integers(-1, 100),
    steps=st.tuples(st.integers(0, 7), st.integers(0, 7)),
)  # fmt: skip
def test_what_is_gathered_of_keys_is_what_their_rows_add_up_to(
    tallies: list[list[Row]], closed: int, steps: tuple[int, int]
) -> None:
    rows = allocate_key_rows(128, 128)
    for tally in tallies:
        records = np.zeros((len(tally) + 1, RECORD_WORDS), np.int64)
        for record, (second, a, b, sums, sets, denied) in zip(records, tally, strict=False):
            record[[C_DIMENSION, C_TICK, C_KEY_A, C_KEY_B, C_HASH]] = Dimension.API_KEY, second, a, b, (3 * a + b) << 2
            record[[C_NAME, C_NAME_LENGTH, C_DENIALS]] = 0, 3, denied
            record[list(SUMS)], record[list(SETS)] = sums, sets
        records[-1, [C_DIMENSION, C_EVIDENCE, C_TICK]] = Dimension.IP, 1, 100
        order, starts = np.arange(len(records)), np.array([0, len(records)], np.int64)
        names = np.frombuffer(b"key" + bytes(16), np.uint8)
        gather_keys_kernel(*rows, records, order, starts, names, closed)
        index_keys_kernel(rows.slots, rows.entries, rows.used)
    found = rows.entries[: rows.used[0]]
    expected = gathered([row for tally in tallies for row in tally], closed)
    assert {
        tuple(one[[G_STEP, G_A, G_B]].tolist()): tuple(one[G_VALUES : G_VALUES + VALUES].tolist()) for one in found
    } == expected
    assert rows.used.tolist() == [len(expected), 0]
    windows = np.empty(128, np.int64)
    many = windows_kernel(rows.entries, rows.used, steps[0], 2, windows)
    assert set(windows[:many].tolist()) == {step // 2 for step, _, _ in expected if step < steps[0]}
    first, last = steps
    which, values = np.empty(128, np.int64), np.empty((128, VALUES), np.int64)
    count = sum_keys_kernel(rows.entries, rows.used, first, last, np.zeros(256, np.int32), which, values)
    names_of = [(a, b) for a, b in rows.entries[which[:count], G_A : G_B + 1].tolist()]
    sums_of = [tuple(one) for one in values[:count].tolist()]
    assert dict(zip(names_of, sums_of, strict=True)) == summed(expected, first, last)
    assert len(set(names_of)) == count


def config(**section: Any) -> Config:
    return config_of({"profile": "api", "detectors": only("keys", **section), "policy": {"allowlist_core": []}})


def line(at_ms: int, key: str, address: str, **more: Any) -> bytes:
    event = {
        "time": 1000 * START_S + at_ms, "method": "POST", "path": "/v1/chat", "status": 200, "client_ip": address,
        "api_key_id": key, "user_agent": "sdk-python/1.2", "tokens_in": 800, "tokens_out": 300,
    }  # fmt: skip
    return orjson.dumps({**event, **more}) + b"\n"


MODEL = st.one_of(
    st.just(""),
    st.sampled_from(["gpt-a", "gpt-b", "eightchr", "sixteen-letters-"]),
    st.text("ab-4é", max_size=90).map("m".__add__),
)


@settings(max_examples=60, deadline=None)
@given(
    asked=st.lists(st.tuples(st.sampled_from(["sk-a", "sk-b"]), MODEL, st.sampled_from([200, 200, 404, 401, 429])), max_size=30)
)
def test_of_each_key_the_models_are_kept_that_it_asked_for(asked: list[tuple[str, str, int]]) -> None:
    for looks in (True, False):
        engine = Embedded(config(models=looks))
        engine.open("log", BOUND_MS)
        keys = engine._judge.learned.detectors["keys"]
        assert isinstance(keys, LearnedKeys)
        events = [
            line(1000 * n, key, "198.51.100.4", model=model, status=status) for n, (key, model, status) in enumerate(asked)
        ]
        feed(engine, "log", b"".join(events), 0)
        engine.close("log")
        entries = keys._rows.entries[: keys._rows.used[0]]
        found = {keys._name(index): 0 for index in range(len(entries))}
        for index, entry in enumerate(entries):
            found[keys._name(index)] |= int(np.uint64(entry[G_VALUES + V_MODELS]))
        seeds, expected = engine.seeds.hash.tolist(), dict.fromkeys(found, 0)
        for key, model, status in asked:
            if model and status not in (401, 429) and looks:
                expected[key.encode()] |= model_bin(seeds, model.encode())
        assert found == expected
        engine.stop()


def honest(key: str, address: str, seconds: int, every_s: float, seed: int = 1) -> list[tuple[int, bytes]]:
    chance = random.Random(seed)
    moments = sorted(chance.randrange(1000 * seconds) for _ in range(int(seconds / every_s)))
    return [(at, line(at, key, address)) for at in moments]


def thief(key: str, at_s: int, seconds: int, per_s: float, networks: int, **more: Any) -> list[tuple[int, bytes]]:
    moments = [1000 * at_s + int(1000 * n / per_s) for n in range(int(seconds * per_s))]
    fields = {"user_agent": "curl/8", **more}
    return [(at, line(at, key, f"203.0.{n % networks}.9", **fields)) for n, at in enumerate(moments)]


def joined(*parts: list[tuple[int, bytes]]) -> bytes:
    return b"".join(text for _, text in sorted([one for part in parts for one in part], key=lambda one: one[0]))


QUIET = [
    honest("sk-a", "198.51.100.4", 7800, 8, 1),
    honest("sk-b", "192.0.2.9", 7800, 6, 2),
    honest("sk-c", "192.0.2.8", 7800, 9, 3),
]
LOUD = thief("sk-a", 6030, 120, 100, 20)


def told(decided: Any) -> list[tuple[str, int, str]]:
    return [(f.target.value, f.tick - START_S, f.action) for f in decided.findings if f.detector == "keys"]


def test_a_loud_leak_is_told_of_within_a_minute_and_never_its_addresses() -> None:
    decided = decide(joined(*QUIET, LOUD), BOUND_MS, config())
    assert nothing_was_bounded(decided.account)
    assert told(decided) == [("sk-a", 6059, "notify")]
    (finding,) = (f for f in decided.findings if f.detector == "keys")
    assert finding.target.type == "api_key"
    assert "new networks" in finding.reason
    assert finding.evidence.features["cold"] == "yes"
    assert finding.evidence.features["z new networks"] > 8
    assert finding.dry_run


def test_who_asks_for_models_that_the_key_never_asked_for_is_told_of_with_them() -> None:
    usual = [(at, text.replace(b'"method"', b'"model":"small-1","method"')) for part in QUIET for at, text in part]
    stolen = [*thief("sk-a", 6030, 60, 15, 3, model="large-9"), *thief("sk-a", 6030, 60, 15, 3, model="vision-2")]
    (finding,) = (f for f in decide(joined(usual, stolen), BOUND_MS, config(start=9.0)).findings if f.detector == "keys")
    assert finding.evidence.features["new models"] == 2
    assert finding.evidence.features["z new models"] > 3
    assert "asks for 2 models it never used" in finding.reason


def test_a_request_that_fails_its_authentication_is_no_state_and_no_evidence() -> None:
    framed = thief("sk-a", 6030, 120, 100, 20, status=401)
    engine = Embedded(config())
    engine.open("log", BOUND_MS)
    feed(engine, "log", joined(*QUIET, framed, thief("sk-nobody", 6030, 60, 5, 3, status=401)), 0)
    engine.close("log")
    engine.finish()
    keys = engine._judge.learned.detectors["keys"]
    assert isinstance(keys, LearnedKeys)
    assert sorted(name for part in keys._parts for name in part.book.names) == [b"sk-a", b"sk-b", b"sk-c"]
    assert told(conclude(engine)) == []


def test_our_own_denials_are_no_evidence() -> None:
    assert told(decide(joined(*QUIET, thief("sk-a", 6030, 120, 100, 20, status=429)), BOUND_MS, config())) == []


@pytest.mark.parametrize("after", [0.2, 0.7, 0.93])
def test_a_restart_gives_the_same_findings_and_the_same_bytes_of_the_model(after: float) -> None:
    lines = joined(*QUIET, LOUD).splitlines(keepends=True)
    whole = Embedded(config())
    whole.open("log", BOUND_MS)
    feed(whole, "log", b"".join(lines), 0)
    first = Embedded(config())
    first.open("log", BOUND_MS)
    half = int(len(lines) * after)
    base = feed(first, "log", b"".join(lines[:half]), 0)
    before = first.take().findings
    second = Embedded.restore(config(), first.snapshot())
    first.stop()
    second.open("log", BOUND_MS, base)
    feed(second, "log", b"".join(lines[half:]), base)
    for engine in (whole, second):
        engine.close("log")
        engine.finish()
    assert plain(whole.models()["keys"]) == plain(second.models()["keys"])
    ids = sorted(f.id for f in [*before, *conclude(second).findings])
    assert ids == sorted(f.id for f in conclude(whole).findings)


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return (value.dtype.str, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value


def test_a_model_that_does_not_fit_is_refused_and_begun_anew() -> None:
    keys = LearnedKeys(config(), 16)
    saved = keys.save()
    for broken in ({"parts": saved["parts"][:3]}, {"entries": np.zeros((2, 3), np.int64)}):
        with pytest.raises(StateError, match="saved keys"):
            keys.load({**saved, **broken})


def test_what_people_say_was_honest_stops_alarming_and_the_attack_is_still_found() -> None:
    engine = Embedded(config(quiet_s=300))
    engine.open("log", BOUND_MS)
    keys = engine._judge.learned.detectors["keys"]
    jobs = [
        (1000 * at + n * 333, line(1000 * at + n * 333, "sk-a", "198.51.100.4", tokens_in=20_000))
        for at in range(4500, 12_000, 600)
        for n in range(900)
    ]
    usual = [honest("sk-a", "198.51.100.4", 14_000, 8, 1), honest("sk-b", "192.0.2.9", 14_000, 6, 2)]
    events = sorted([*usual[0], *usual[1], *jobs, *thief("sk-a", 13_230, 120, 100, 20)], key=lambda one: one[0])
    base, found, at = 0, [], 0
    for until in range(4920, 14_400, 600):
        some = [text for ms, text in events if 1000 * at <= ms < 1000 * until]
        base, at = feed(engine, "log", b"".join(some), base), until
        now = [f for f in engine.take().findings if f.detector == "keys"]
        found += [f.tick - START_S for f in now]
        assert all(keys.feedback(f.id, False) for f in now)
    engine.close("log")
    found += [f.tick - START_S for f in conclude(engine).findings if f.detector == "keys"]
    assert 4500 < found[0] < 4800
    assert [tick for tick in found if 6000 < tick < 13_000] == []
    assert [tick for tick in found if tick > 13_000]
    assert not keys.feedback("nobody", False)


def test_the_busiest_and_most_recent_keys_have_places_and_a_flood_of_others_does_not_take_them() -> None:
    book = KeyBook(KeyBooks(1, 4), 0)
    assert take_in(book, 0, [((0, 0), 50), ((1, 0), 40), ((2, 0), 30), ((3, 0), 2)]) == [0, 1, 2, 3]
    assert take_in(book, 1, [((9, 0), 5), ((8, 0), 1)]) == [3]
    assert book.find([(3, 0), (9, 0), (8, 0)]).tolist() == [4, 3, 4]
    assert take_in(book, 2016 * 8, [((7, 0), 1)]) == [3]
    other = KeyBook(KeyBooks(1, 4), 0)
    other.load(book.save())
    assert plain(other.save()) == plain(book.save())
    with pytest.raises(StateError, match="at most 2 keys"):
        KeyBook(KeyBooks(1, 2), 0).load(book.save())


def test_of_keys_that_lost_their_place_it_is_remembered_when_they_were_used_last_within_a_bound() -> None:
    book = KeyBook(KeyBooks(1, 2), 0)
    take_in(book, 0, [((1, 0), 5), ((2, 0), 9)])
    take_in(book, 50, [((2, 0), 9)])
    assert take_in(book, 9000, [((3, 0), 7)]) == [1]
    assert book.sleepers.recall(np.array([(1, 0), (2, 0), (3, 0)])).tolist() == [0, NEVER, NEVER]
    assert take_in(book, 20_000, [((1, 0), 4)]) == [0]
    assert book.sleepers.recall(np.array([(1, 0), (2, 0), (3, 0)])).tolist() == [0, 50, NEVER]
    sleepers, chance = Sleepers(256), random.Random(3)
    lasts = {(chance.getrandbits(62), chance.getrandbits(62)): window for window in range(1000)}
    for key, window in lasts.items():
        sleepers.remember(key, window)
    words, windows = np.array(list(lasts)), np.array(list(lasts.values()))
    known = sleepers.recall(words) == windows
    assert 200 < known.sum() <= 256
    assert windows[known].mean() > 800
    other = Sleepers(256)
    other.load(sleepers.save())
    assert other.recall(words).tolist() == sleepers.recall(words).tolist()
    with pytest.raises(StateError, match="keys that sleep"):
        Sleepers(16).load(sleepers.save())


MONTH = [
    honest("sk-a", "198.51.100.4", 7800, 8, 1),
    honest("sk-b", "192.0.2.9", 7800, 6, 2),
    [(at + 40 * 86_400_000, line(at + 40 * 86_400_000, "sk-b", "192.0.2.9")) for at in range(0, 7_800_000, 6000)],
    thief("sk-a", 40 * 86_400 + 6030, 240, 5, 6),
]


@pytest.mark.parametrize("lost", [False, True])
def test_a_key_that_is_used_again_after_a_month_is_told_of_with_how_long_it_slept(
    lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    others: list[tuple[int, bytes]] = []
    if lost:  # hundreds of others take its place
        monkeypatch.setattr("engine.keys.PLACES_MIN", 1)
        day = 38 * 86_400_000
        others = [(day + n, line(day + n, f"sk-{n % 160}", "192.0.2.7")) for n in range(160 * 60)]
    decided = decide(joined(*MONTH, others), BOUND_MS + 86_400_000 * 50, config(keys_max=64, start=5.0 if lost else 9.0))
    finding = next(f for f in decided.findings if f.detector == "keys" and f.tick - START_S > 40 * 86_400)
    assert finding.target.value == "sk-a"
    assert "used again after 39 days" in finding.reason
    assert finding.evidence.features["z used again"] == WOKEN
    assert finding.evidence.features["days not used"] == 39
    assert ("new networks" in finding.reason) != lost
