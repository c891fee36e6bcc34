"""The strata of services in a judge: the same decisions for any cut, order, partitioning and restart; what ends, ends."""

from __future__ import annotations

import functools
import itertools
import random

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detectors.entropy import EntropySection
from detectors.signature import SignatureSection
from engine.distributed import NEVER, SERVICES_MAX, Distributed, cut_sample
from engine.embedded import Embedded
from engine.snapshot import unpack
from schemas.config import Config
from schemas.sample import Sample
from tests.engines import Decided, conclude, config_of, decide, feed, nothing_was_bounded
from tests.oracles.sampling import Cell, Plain, as_arrays
from tests.test_posts import judge, observe

START_S = 1_794_999_720
SPAN_S, BOTNET_S, CROWD_S = 330, (200, 250), (290, 330)
AGENTS = [f"Browser/{number}" for number in range(12)]
ROUTES = ["/", "/pricing", "/docs", "/blog", "/status"]
ARMED = {"signature": {"dry_run": False}, "surge": {"enabled": False}}


def line(at_ms: int, address: str, path: str, agent: str, **more: object) -> bytes:
    event = {"time": 1000 * START_S + at_ms, "client_ip": address, "method": "GET", "path": path, "status": 200,
             "user_agent": agent, "country": "DE", **more}  # fmt: skip
    return orjson.dumps(event) + b"\n"


@functools.cache
def lines() -> tuple[bytes, ...]:
    """People on two services; a botnet of one program that asks one of them for one page; later ever new addresses."""
    chance = random.Random(4)
    found: list[tuple[int, bytes]] = []

    def put(at_ms: int, address: str, *rest: str, **more: object) -> None:
        found.append((at_ms, line(at_ms, address, *rest, **more)))

    for at_ms in range(0, 1000 * SPAN_S, 80):
        host = chance.choice(["www.example.com", "api.example.com"])
        put(at_ms, f"198.51.100.{chance.randrange(1, 60)}", chance.choice(ROUTES), chance.choice(AGENTS), host=host)
    for at_ms in range(1000 * BOTNET_S[0], 1000 * BOTNET_S[1], 20):
        put(at_ms, f"2001:{chance.randrange(1 << 16):x}::1", "/pricing", "Stealth/1", host="www.example.com")
    for at_ms in range(1000 * CROWD_S[0], 1000 * CROWD_S[1], 20):
        address = f"2001:{chance.randrange(1 << 16):x}::2"
        put(at_ms, address, chance.choice(ROUTES), chance.choice(AGENTS), host="api.example.com")
    return tuple(text for _, text in sorted(found))


BOUND_MS = 1000 * (START_S + SPAN_S) + 1000


def config(**engine: int) -> Config:
    return config_of({"detectors": ARMED, "policy": {"allowlist_core": []}, "kafka": {"rows_max": 1_000_000}}, **engine)


@functools.cache
def reference() -> Decided:
    return decide(b"".join(lines()), BOUND_MS, config())


def check_same(decided: Decided) -> None:
    assert decided.final_ids == reference().final_ids
    assert sorted(set(decided.final_finding_ids)) == reference().final_finding_ids


def test_the_botnet_is_named_and_the_rest_is_told() -> None:
    assert nothing_was_bounded(reference().account)
    finals = [m for m in reference().mitigations if m.detector in ("signature", "entropy")]
    said = {(m.detector, m.target.type, m.target.value, m.action) for m in finals}
    assert said == {
        ("signature", "signature", '{"service":"www.example.com","user_agent":"Stealth/1"}', "challenge"),
        ("entropy", "service", "api.example.com", "notify"),
    }
    first = min(m.tick for m in finals if m.detector == "signature")
    assert first - START_S <= BOTNET_S[0] + 8
    features = next(m for m in finals if m.detector == "signature").evidence.features
    assert features["stratum"] == "pages"
    assert float(features["collateral"]) < 0.01
    assert float(features["explained"]) > 0.9


def test_a_signature_ends_soon_after_the_surplus() -> None:
    last = max(m.expires_at for m in reference().mitigations if m.detector == "signature")
    assert START_S + BOTNET_S[1] < last <= START_S + BOTNET_S[1] + 60 + 10 + 90


@pytest.mark.parametrize("renew_s", [30, 60, 150])
def test_a_signature_holds_until_the_next_cell_can_renew_it(renew_s: int) -> None:
    settings = config_of({"detectors": ARMED, "policy": {"allowlist_core": [], "renew_s": renew_s}})
    signed = [m for m in decide(b"".join(lines()), BOUND_MS, settings).mitigations if m.detector == "signature"]
    assert signed
    assert all(renew_s < m.expires_at - m.issued_at <= renew_s + 30 for m in signed)


def test_by_default_signatures_are_dry() -> None:
    decided = decide(b"".join(lines()), BOUND_MS, config_of({"policy": {"allowlist_core": []}}))
    signed = [m for m in decided.mitigations if m.target.type == "signature"]
    assert signed
    assert all(m.dry_run for m in signed)


def test_early_records_come_first_and_change_no_final() -> None:
    decided = decide(b"".join(lines()), BOUND_MS, config(), early=True, piece=10)
    check_same(decided)
    early = [m for m in decided.mitigations if m.stage == "early" and m.detector == "signature"]
    final = [m for m in decided.mitigations if m.stage == "final" and m.detector == "signature"]
    assert early[0].id == final[0].id
    assert early[0].tick == final[0].tick
    assert early[0].issued_at < final[0].issued_at


@pytest.mark.parametrize("events", [1, 7, 1000])
def test_chunks(events: int) -> None:
    check_same(decide(b"".join(lines()), BOUND_MS, config(chunk_events=events)))


@pytest.mark.parametrize("partitions", [1, 4])
def test_judge_partitions(partitions: int) -> None:
    check_same(decide(b"".join(lines()), BOUND_MS, config(judge_partitions=partitions)))


def test_shuffled_within_the_lateness() -> None:
    chance = random.Random(5)
    order = sorted(range(len(lines())), key=lambda index: orjson.loads(lines()[index])["time"] + chance.uniform(0, 8000))
    check_same(decide(b"".join(lines()[index] for index in order), BOUND_MS, config(), piece=97))


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(cuts=st.lists(st.integers(0, 8000), max_size=8), restart=st.booleans(), early=st.booleans())
def test_any_cut_and_any_restart(cuts: list[int], restart: bool, early: bool) -> None:
    engine = Embedded(config(), early=early)
    engine.open("log", BOUND_MS)
    base, decided = 0, Decided([], [], engine.account())
    for low, high in itertools.pairwise([0, *sorted(min(cut, len(lines())) for cut in cuts), len(lines())]):
        base = feed(engine, "log", b"".join(lines()[low:high]), base) if low < high else base
        if restart:
            taken = engine.take()
            decided.mitigations += taken.mitigations
            decided.findings += taken.findings
            saved = engine.snapshot()
            engine.stop()
            engine = Embedded.restore(config(), saved, early=early)
    engine.close("log")
    last = conclude(engine)
    check_same(Decided(decided.mitigations + last.mitigations, decided.findings + last.findings, last.account))


@pytest.mark.parametrize(("seed", "many"), [(1, 1), (2, 3), (3, 3)])
def test_observers_and_judges_that_die_anywhere(seed: int, many: int) -> None:
    chance = random.Random(seed)
    parts: dict[str, list[bytes]] = {f"requests-{index}": [] for index in range(many)}
    for text in lines():
        parts[f"requests-{chance.randrange(many)}"].append(text.rstrip(b"\n"))
    settled = config(judge_partitions=4)
    log = observe(parts, settled, chance, crashes=True)
    check_same(judge(log, list(parts), settled, chance, crashes=True))


def test_a_saved_state_stays_small() -> None:
    engine = Embedded(config())
    engine.open("log", BOUND_MS)
    feed(engine, "log", b"".join(lines()), 0)
    saved = unpack(engine.snapshot())["judge"]["distributed"]
    engine.stop()
    assert len(saved["services"]) == 2
    for *_, series, _ in saved["services"]:
        assert sum(array.nbytes for one in series for array in one.values() if isinstance(array, np.ndarray)) < 200_000


def test_an_allowlisted_network_among_those_it_matches_stops_nothing() -> None:
    allowed = config_of({"detectors": ARMED, "policy": {"allowlist_core": ["2000::/3"]}})
    decided = decide(b"".join(lines()), BOUND_MS, allowed)
    signed = [f for f in decided.findings if f.detector == "signature"]
    assert {f.outcome for f in signed} == {"allowlisted"}
    assert not [m for m in decided.mitigations if m.target.type == "signature"]


def sample_of(*cells: tuple[int, int, int]) -> Sample:
    """Of (tick, service, total): pages by nobody."""
    plain = Plain({(tick, service, 0, 4): Cell(0, total, {tick + 1: (1, (0,) * 10)}) for tick, service, total in cells})
    plain.text = {service: b"host-%d" % service for _, service, _ in cells}
    return as_arrays(plain)


def test_the_busiest_services_are_kept_and_hosts_that_somebody_invents_are_not() -> None:
    strata = Distributed(SignatureSection(), EntropySection(), 60)
    for step in range(20):
        busy = [(10 * step + second, 1 + number, 50) for second in range(10) for number in range(SERVICES_MAX)]
        invented = [(10 * step + second, 100 + 10 * step + second, 5) for second in range(10)]
        strata.add(sample_of(*busy, *invented))
        strata.close(10 * step + 9, NEVER)
    assert {a for a, *_ in strata.save(cells=False)["services"]} == {1, 2, 3, 4}
    strata.add(sample_of(*((200 + second, 9, 500) for second in range(10))))
    strata.close(215, NEVER)
    assert 9 in {a for a, *_ in strata.save(cells=False)["services"]}


def test_a_silence_of_years_costs_no_more_than_an_hour() -> None:
    strata = Distributed(SignatureSection(), EntropySection(), 60)
    strata.add(sample_of(*((second, 1, 50) for second in range(200))))
    strata.close(199, NEVER)
    strata.close(10**9, NEVER)
    assert strata.save(cells=False)["services"] == []


def test_a_sample_is_cut_by_seconds() -> None:
    sample = sample_of(*((second, 1, 5) for second in range(20)))
    part = cut_sample(sample, 5, 8)
    assert part.cells[:, 0].tolist() == [5, 6, 7]
    assert part.entries[:, 0].tolist() == [0, 1, 2]


def test_what_waits_is_bounded_and_what_found_no_room_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.distributed.ENTRIES_MAX", 100)
    strata = Distributed(SignatureSection(), EntropySection(), 60)
    assert strata.add(sample_of(*((second, 1, 5) for second in range(100)))) == 0
    assert strata.add(sample_of(*((second, 1, 5) for second in range(100, 120)))) == 5 * 70
    strata.close(200, NEVER)
    assert len(strata.save(cells=False)["services"]) == 1
