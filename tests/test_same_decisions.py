"""The same events give the same set of final ids, however they are cut, spread, shuffled, wrapped or interrupted."""

from __future__ import annotations

import functools
import itertools
import random

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detectors.rate import DEFAULTS as DEFAULT_RULES
from drills.traffic import Traffic, combined_lines
from engine.embedded import Embedded
from tests.engines import Decided, conclude, config_of, decide, feed, nothing_was_bounded
from tests.oracles.rate import address_findings

EVENTS = 40_000


@functools.cache
def traffic() -> Traffic:
    return combined_lines(seed=11, events=EVENTS, attackers=6)


@functools.cache
def bound_ms() -> int:
    return int(traffic().times_ms.max()) + 1000


@functools.cache
def reference() -> Decided:
    return decide(traffic().data, bound_ms())


def check_same(decided: Decided) -> None:
    assert nothing_was_bounded(decided.account), decided.account
    assert decided.final_ids == reference().final_ids
    assert decided.final_finding_ids == reference().final_finding_ids


def test_the_reference_finds_the_attackers_and_nobody_else() -> None:
    assert nothing_was_bounded(reference().account), reference().account
    assert reference().account.records == EVENTS
    assert reference().stopped == set(traffic().labels)


def test_findings_on_addresses_are_those_of_brute_force() -> None:
    rules = DEFAULT_RULES["web"]
    expected = address_findings(traffic().lines(), rules, renew_s=60)
    found = {
        (f.target.value, f.measure, f.window.end - f.window.start, f.tick, f.observed)
        for f in reference().findings
        if f.detector == "rate" and f.target.type == "ip" and ":" not in f.target.value
    }
    assert expected
    assert found == expected


@pytest.mark.parametrize("events", [7, 1_000, 100_000])
def test_chunks(events: int) -> None:
    check_same(decide(traffic().data, bound_ms(), config_of(chunk_events=events)))


def test_one_event_per_chunk() -> None:
    check_same(decide(traffic().data, bound_ms(), config_of(chunk_events=1)))


def test_two_threads() -> None:
    check_same(decide(traffic().data, bound_ms(), config_of(chunk_events=1000), threads=2))


def test_early_records_change_no_final() -> None:
    decided = decide(traffic().data, bound_ms(), early=True, piece=1000)
    check_same(decided)
    early = {m.id for m in decided.mitigations if m.stage == "early"}
    # A share is only final: the rest of its second may bring it down again.
    assert early >= {m.id for m in decided.mitigations if m.stage == "final" and m.detector != "ratio"}


def run_split(parts: list[list[bytes]], piece: int = 500) -> Decided:
    """Source partitions side by side, each at the same share of its lines."""
    engine = Embedded(config_of())
    bases = [0] * len(parts)
    for index in range(len(parts)):
        engine.open(f"part-{index}", bound_ms())
    longest = max(len(part) for part in parts)
    for first in range(0, longest, piece):
        for index, part in enumerate(parts):
            low, high = first * len(part) // longest, (first + piece) * len(part) // longest
            data = b"".join(part[low:high])
            if data:
                bases[index] = feed(engine, f"part-{index}", data, bases[index])
    for index in range(len(parts)):
        engine.close(f"part-{index}")
    return conclude(engine)


@pytest.mark.parametrize("many", [1, 4, 8])
def test_source_partitions(many: int) -> None:
    chance = random.Random(many)
    parts: list[list[bytes]] = [[] for _ in range(many)]
    for line in traffic().lines():
        parts[chance.randrange(many)].append(line)
    check_same(run_split(parts))


def test_shuffled_within_the_lateness() -> None:
    chance = random.Random(5)
    moments = [int(t) // 1000 + chance.uniform(0, 8) for t in traffic().times_ms]
    lines = traffic().lines()
    data = b"".join(lines[k] for k in sorted(range(len(lines)), key=moments.__getitem__))
    check_same(decide(data, bound_ms(), piece=997))


def test_envelopes_and_arrays() -> None:
    wrapped = [
        orjson.dumps({"@timestamp": "2026-11-18T00:00:00Z", "message": line.decode().rstrip()}) for line in traffic().lines()
    ]
    check_same(decide(b"\n".join(wrapped) + b"\n", bound_ms()))
    arrays = [b"[" + b",".join(wrapped[k : k + 50]) + b"]" for k in range(0, len(wrapped), 50)]
    decided = decide(b"\n".join(arrays) + b"\n", bound_ms())
    assert decided.final_ids == reference().final_ids
    assert (decided.account.records, decided.account.events) == (len(arrays), EVENTS)


@pytest.mark.parametrize("share", [0.31, 0.5, 0.62])
def test_restarted_in_the_middle_of_an_attack(share: float) -> None:
    lines = traffic().lines()
    cut = int(len(lines) * share)
    first = Embedded(config_of(chunk_events=777))
    first.open("log", bound_ms())
    base = feed(first, "log", b"".join(lines[:cut]), 0)
    before = first.take()
    saved = first.snapshot()
    second = Embedded.restore(config_of(), saved)
    assert second.positions() == {"log": base}
    second.open("log", bound_ms(), base)
    feed(second, "log", b"".join(lines[cut:]), base)
    second.close("log")
    after = conclude(second)
    assert {m.id for m in before.mitigations}
    assert {m.id for m in after.mitigations}
    both = Decided(before.mitigations + after.mitigations, before.findings + after.findings, after.account)
    check_same(both)
    assert [m.expires_at for m in both.mitigations] == [m.expires_at for m in reference().mitigations]


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    cuts=st.lists(st.integers(0, EVENTS), max_size=12),
    chunk=st.sampled_from([3, 64, 501, 20_000]),
    restart=st.booleans(),
)
def test_any_cut(cuts: list[int], chunk: int, restart: bool) -> None:
    lines = traffic().lines()
    engine = Embedded(config_of(chunk_events=chunk))
    engine.open("log", bound_ms())
    base, decided = 0, Decided([], [], engine.account())
    edges = [0, *sorted(cuts), len(lines)]
    for low, high in itertools.pairwise(edges):
        if low < high:
            base = feed(engine, "log", b"".join(lines[low:high]), base)
        if restart:
            taken = engine.take()
            decided.mitigations += taken.mitigations
            decided.findings += taken.findings
            engine = Embedded.restore(config_of(chunk_events=chunk), engine.snapshot())
    engine.close("log")
    last = conclude(engine)
    check_same(Decided(decided.mitigations + last.mitigations, decided.findings + last.findings, last.account))


def test_wrong_clocks_do_not_make_the_rest_late() -> None:
    lines, chance = traffic().lines(), random.Random(3)
    wrong = 0
    for index in range(500, len(lines), 10_000):
        other = chance.randrange(min(index + 21_000, len(lines) - 1), len(lines))
        moment = lines[other].split(b"[", 1)[1].split(b"]", 1)[0]
        head, tail = lines[index].split(b"[", 1)
        lines[index] = head + b"[" + moment + b"]" + tail.split(b"]", 1)[1]
        wrong += 1
    decided = decide(b"".join(lines), bound_ms(), piece=1000)
    assert wrong == 4
    assert decided.account.late == 0
    assert decided.stopped == set(traffic().labels)


def test_1995_is_not_now() -> None:
    old = combined_lines(seed=11, events=EVENTS, attackers=6, start_s=804_556_800)
    decided = decide(old.data, bound_ms())
    assert decided.account.time_replaced == 0
    assert decided.account.newest_ms < 810_000_000_000
    assert decided.stopped == set(old.labels)


def test_a_clock_ahead_of_the_file_is_replaced() -> None:
    decided = decide(traffic().data, int(traffic().times_ms.min()) + 10_000)
    assert decided.account.time_replaced > EVENTS // 2
    assert decided.account.newest_ms <= int(traffic().times_ms.min()) + 15_000


def test_shippers_eight_seconds_apart() -> None:
    """Two source partitions, one of which arrives eight seconds after the other."""
    lines, times = traffic().lines(), traffic().times_ms // 1000
    chance = random.Random(8)
    engine = Embedded(config_of())
    engine.open("prompt", bound_ms())
    engine.open("tardy", bound_ms())
    bases = {"prompt": 0, "tardy": 0}
    arrivals: dict[int, dict[str, list[bytes]]] = {}
    for line, tick in zip(lines, times.tolist(), strict=True):
        name = chance.choice(["prompt", "tardy"])
        at = tick + (8 if name == "tardy" else 0)
        arrivals.setdefault(at, {"prompt": [], "tardy": []})[name].append(line)
    for at in sorted(arrivals):
        for name, some in arrivals[at].items():
            if some:
                bases[name] = feed(engine, name, b"".join(some), bases[name])
    engine.close("prompt")
    engine.close("tardy")
    check_same(conclude(engine))


def test_a_rebuilt_judge_invents_nothing() -> None:
    engine = Embedded(config_of())
    engine.open("log", bound_ms())
    feed(engine, "log", traffic().data, 0)
    engine.close("log")
    engine.finish()
    engine.take()
    for _ in range(3):
        engine = Embedded.restore(config_of(), engine.snapshot())
        engine.finish()
        assert engine.take().mitigations == []
    other_rules = {"detectors": {"rate": {"rules": [{"dimension": "ip", "window_s": 60, "limit": 901}]}}}
    engine = Embedded.restore(config_of(other_rules), engine.snapshot())
    engine.finish()
    assert engine.take().mitigations == []


def test_a_full_table_accuses_nobody() -> None:
    decided = decide(traffic().data, bound_ms(), config_of(keys_max=1024, rows_max=4096))
    assert decided.account.aged_out > 0
    assert decided.stopped <= set(traffic().labels)
    flagged = [f for f in decided.findings if f.evidence.features.get("aged_out")]
    assert flagged, "what was decided while a bound bit says so"
    exact = {f.id: f.observed for f in reference().findings}
    assert all(f.observed <= max(exact.values()) for f in decided.findings)


def test_ids_do_not_depend_on_the_seed_or_the_number_of_judge_partitions() -> None:
    for engine in ({"seed": "another"}, {"judge_partitions": 1}, {"judge_partitions": 64}):
        assert decide(traffic().data, bound_ms(), config_of({"engine": engine})).final_ids == reference().final_ids
