"""Busy routes: who is counted, against plain Python, and what is told of a route whose minute was never so."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.kernels.busy import (
    B_A,
    B_B,
    B_NAME_LENGTH,
    B_PEAK,
    B_TOTAL,
    B_USED,
    BUSY_WORDS,
    NEW,
    NEW_FROM,
    PLACES,
    SERIES,
    count_route_kernel,
)
from engine.embedded import Embedded
from engine.post import JudgePost
from engine.record import decode_record
from engine.seeds import Seeds, make_seeds
from engine.source_post import Bench, Messages, SourcePost
from schemas.compiled import entry
from schemas.config import Config
from schemas.tally import NAME_BYTES_MAX
from tests.engines import Decided, conclude, config_of, decide, feed, nothing_was_bounded, only
from tests.oracles.busy import Key, counted

START_S = 1_795_000_020
BOUND_MS = 1000 * (START_S + 100_000)
MINUTES = 136
LEAST = 60
"""Requests in a minute that make a route busy here."""
ALARM_AT = 2.2
"""In its first hours a series has no more to compare with than to say that a minute is one in a few hundred."""


@entry
def count_kernel(
    busy: Any, busy_names: Any, peak_min: Any, a: Any, b: Any, requests: Any, names: Any, name: Any, name_length: Any
) -> Any:
    return count_route_kernel(busy, busy_names, peak_min, a, b, requests, names, name, name_length)


KEY = st.tuples(st.integers(0, 3), st.integers(0, 3))
SECONDS = st.lists(st.dictionaries(KEY, st.integers(1, 12), max_size=12), min_size=1, max_size=8)


@settings(max_examples=300, deadline=None)
@given(held=st.lists(KEY, max_size=SERIES, unique=True), seconds=SECONDS, peak_min=st.integers(1, 9), chance=st.randoms())
def test_who_is_counted_is_the_same_in_any_order(
    held: list[Key], seconds: list[dict[Key, int]], peak_min: int, chance: random.Random
) -> None:
    busy, names = np.zeros((PLACES, BUSY_WORDS), np.int64), np.zeros(PLACES * NAME_BYTES_MAX, np.uint8)
    for place, key in enumerate(held):
        busy[place, [B_USED, B_A, B_B]] = 1, *key
    for second in seconds:
        rows = list(second.items())
        chance.shuffle(rows)
        for (a, b), requests in rows:
            name = np.frombuffer(f"{a}/{b}".encode(), np.uint8)
            has_place = count_kernel(busy, names, peak_min, a, b, requests, name, 0, len(name))
            assert has_place == any(tuple(route) == (1, a, b) for route in busy[:, [B_USED, B_A, B_B]].tolist())
    totals, peaks = counted(held, seconds, peak_min, NEW)
    assert {(a, b): total for a, b, total in busy[: len(held), [B_A, B_B, B_TOTAL]].tolist()} == totals
    newcomers = [place for place in range(NEW_FROM, PLACES) if busy[place, B_USED]]
    assert {(a, b): peak for a, b, peak in busy[newcomers][:, [B_A, B_B, B_PEAK]].tolist()} == peaks
    for place in newcomers:
        name = names[place * NAME_BYTES_MAX :][: busy[place, B_NAME_LENGTH]].tobytes()
        assert name == b"%d/%d" % (busy[place, B_A], busy[place, B_B])


def config(alarm_at: float = ALARM_AT, measures: tuple[str, ...] = (), **engine: Any) -> Config:
    surge = {"measures": measures, "route_least": LEAST, "least": 30, "alarm_at": alarm_at, "route_warmup_minutes": 120}
    rules = [{"dimension": "route", "window_s": 1, "limit": 1_000_000}]
    detectors = {**only("surge", **surge), "rate": {"rules": rules}}
    return config_of({"detectors": detectors, "policy": {"allowlist_core": []}}, **engine)


def line(at_ms: int, path: str) -> bytes:
    event = {"time": 1000 * START_S + at_ms, "method": "GET", "path": path, "status": 200, "client_ip": "192.0.2.7"}
    return orjson.dumps(event) + b"\n"


def minutes_of(path: str, counts: list[int], seed: int = 1) -> list[tuple[int, bytes]]:
    """(when, line): so many requests in each minute, at moments by chance."""
    chance = random.Random(seed)
    return [
        (at, line(at, path))
        for minute, count in enumerate(counts)
        for at in sorted(60_000 * minute + chance.randrange(60_000) for _ in range(count))
    ]


def usual(mean: int, seed: int, minutes: int = MINUTES) -> list[int]:
    return [int(count) for count in np.random.default_rng(seed).poisson(mean, minutes)]


def traffic() -> list[bytes]:
    """Two routes; one is asked for ten times as often in its last minutes but two. Many others are asked for once or so."""
    chat, models = usual(90, 1), usual(70, 2)
    chat[-4:-2] = [900, 900]
    chance = random.Random(5)
    rare = [(at, line(at, f"/p/{chance.choice('abcdefghij')}x")) for at in range(0, 60_000 * MINUTES, 7_001)]
    return [text for _, text in sorted([*minutes_of("/v1/chat", chat), *minutes_of("/v1/models", models, 3), *rare])]


LINES = traffic()
TOLD = ("GET /v1/chat", "requests", START_S + 60 * (MINUTES - 3) - 1, 900)


def told(decided: Decided) -> list[tuple[str, str, int, int]]:
    return [
        (f.target.value, f.measure, f.tick, f.observed)
        for f in sorted(decided.findings, key=lambda f: f.tick)
        if f.detector == "surge" and f.target.type == "route"
    ]


def test_a_busy_route_that_is_asked_for_as_never_before_is_told_with_its_exact_minute() -> None:
    decided = decide(b"".join(LINES), BOUND_MS, config())
    assert nothing_was_bounded(decided.account)
    assert told(decided) == [TOLD]
    (finding,) = (f for f in decided.findings if f.detector == "surge")
    assert (finding.action, finding.window.end - finding.window.start) == ("notify", 60)
    assert finding.reason.startswith("900 requests in 60 seconds on route GET /v1/chat, where about ")


@pytest.mark.parametrize("piece", [97, 1500, 4000])
def test_no_cut_changes_what_is_told_of_routes(piece: int) -> None:
    assert told(decide(b"".join(LINES), BOUND_MS, config(), piece=piece)) == [TOLD]


@pytest.mark.parametrize("partitions", [1, 3])
def test_nor_does_the_number_of_partitions(partitions: int) -> None:
    assert told(decide(b"".join(LINES), BOUND_MS, config(judge_partitions=partitions))) == [TOLD]


def test_a_measure_that_is_named_twice_has_one_series() -> None:
    twice = config(measures=("requests", "requests"))
    first = Embedded(twice)
    first.open("log", BOUND_MS)
    feed(first, "log", b"".join(LINES[: len(LINES) // 20]), 0)
    second = Embedded.restore(twice, first.snapshot())  # a state that says a series less than there are measures is refused
    assert second.account().events == first.account().events


@pytest.mark.parametrize("after", [0.004, 0.5, 0.975, 0.985])
def test_nor_does_a_restart(after: float) -> None:
    half = int(len(LINES) * after)
    first = Embedded(config())
    first.open("log", BOUND_MS)
    base = feed(first, "log", b"".join(LINES[:half]), 0)
    before = first.take().findings
    second = Embedded.restore(config(), first.snapshot())
    first.stop()
    second.open("log", BOUND_MS, base)
    feed(second, "log", b"".join(LINES[half:]), base)
    second.close("log")
    decided = conclude(second)
    decided.findings[:0] = before
    assert told(decided) == [TOLD]


def shipped(lines: list[bytes], settings: Config, seeds: Seeds) -> list[list[bytes]]:
    """Tallies of each judge partition, as one observer ships them, and silence until all is decided."""
    tallies: list[list[bytes]] = [[] for _ in range(settings.engine.judge_partitions)]
    post = SourcePost("requests-0", 0, "", Bench(settings, seeds))
    shipments = []
    for first in range(0, len(lines), 200):
        some = [text.rstrip(b"\n") for text in lines[first : first + 200]]
        messages = Messages()
        messages.add(some, list(range(first, first + len(some))), [BOUND_MS] * len(some), sum(map(len, some)))
        shipments.append(post.ship(messages, 0, 1000))
    shipments += [silent for second in range(200) if (silent := post.silence(1000 * second)) is not None]
    for shipment in shipments:
        for partition, part in enumerate(shipment.parts):
            tallies[partition] += part
    return tallies


@pytest.mark.parametrize("after", [0.003, 0.4, 0.972, 0.98])
def test_nor_do_workers_that_die_and_go_on_from_a_record(after: float) -> None:
    settings = config(judge_partitions=2)
    seeds = make_seeds(settings)
    findings = []
    for partition, tallies in enumerate(shipped(LINES, settings, seeds)):
        first = JudgePost(settings, seeds, partition, ["requests-0"], early=False)
        for offset in range(int(len(tallies) * after)):
            first.accept(offset, tallies[offset])
        findings += first.take().findings
        record = decode_record(first.record(), settings, seeds, partition)
        second = JudgePost(settings, seeds, partition, ["requests-0"], early=False)
        second.begin(record)
        for offset in range(record.rebuild_from, record.position):
            second.reread(offset, tallies[offset])
        second.end(record)
        for offset in range(record.position, len(tallies)):
            second.accept(offset, tallies[offset])
        findings += second.take().findings
    assert told(Decided([], findings, decide(b"", BOUND_MS, settings).account)) == [TOLD]


def test_silence_is_judged_as_noughts_and_what_comes_after_it_too() -> None:
    chat = usual(90, 1, 150)
    chat[130:142] = [0] * 12
    lines = [text for _, text in minutes_of("/v1/chat", chat)]
    seen = [told(decide(b"".join(lines), BOUND_MS, config(1.5), piece=piece)) for piece in (None, 50, 3000)]
    assert seen[0] == seen[1] == seen[2]
    assert ("GET /v1/chat", "requests", START_S + 60 * 131 - 1, 0) in seen[0]


def test_what_a_route_had_before_is_not_told_again_and_neither_is_a_route_that_is_hardly_known() -> None:
    chat = usual(90, 1)
    chat[60], chat[-4] = 800, 900  # a batch job, and one that is hardly larger
    lines = b"".join(text for _, text in minutes_of("/v1/chat", chat))
    assert told(decide(lines, BOUND_MS, config())) == []
    default = config()
    del default.detectors["surge"]["route_warmup_minutes"]
    assert told(decide(b"".join(LINES), BOUND_MS, default)) == []


def test_two_routes_of_a_partition_keep_their_series_and_a_busier_one_takes_that_of_the_least() -> None:
    engine = Embedded(config(judge_partitions=1))
    engine.open("log", BOUND_MS)
    counts = {"/a": [200] * 8, "/b": [100] * 8, "/c": [0, 0, 0, 150, 150, 150, 150, 150], "/d": [0, 0, 0, 0, 0, 450, 450, 450]}
    made = [event for number, (path, some) in enumerate(counts.items()) for event in minutes_of(path, some, number)]
    feed(engine, "log", b"".join(text for _, text in sorted(made)), 0)
    engine.close("log")
    engine.finish()
    routes = engine._judge.routes
    names = {routes._name(0, place) for place in range(SERIES)}
    engine.stop()
    assert names == {b"GET /a", b"GET /d"}


def test_it_is_off_with_its_section_and_without_rules_about_routes() -> None:
    off = {**only("rate", rules=[{"dimension": "route", "window_s": 1, "limit": 1_000_000}]), "surge": {"enabled": False}}
    assert not told(decide(b"".join(LINES), BOUND_MS, config_of({"detectors": off})))
    alone = only("surge", measures=[], route_least=LEAST)
    assert not told(decide(b"".join(LINES), BOUND_MS, config_of({"detectors": alone})))
