"""Busy routes of a service that hardly grows: told when they are made otherwise, once, for any cut, partitioning and crash."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detectors.entropy import RouteWindow, routes_of
from detectors.surplus import ADDRESS, ROUTE, ROW_WORDS, WEIGHT
from engine.embedded import Embedded
from schemas.columns import I64
from schemas.config import Config
from schemas.mitigation import Mitigation
from schemas.playbooks import PREFIX
from schemas.sample import Stratum
from tests.engines import Decided, conclude, config_of, decide, feed, nothing_was_bounded, only
from tests.test_posts import judge, observe

START_S = 1_794_999_720
SPAN_S, MORE_S = 220, (155, 195)
BOUND_MS = 1000 * (START_S + SPAN_S) + 1000
ROUTES = ["/", "/docs", "/blog", "/status", "/pricing"]
AGENTS = [f"Browser/{number}" for number in range(12)]
Who = Callable[[random.Random], dict[str, str]]


def person(chance: random.Random, many: int = 40, first: int = 0) -> dict[str, str]:
    number = first + chance.randrange(many)
    return {"client_ip": f"{20 + number}.7.7.7", "user_agent": chance.choice(AGENTS)}


def one_machine(chance: random.Random) -> dict[str, str]:
    return {"client_ip": "198.51.100.9", "user_agent": AGENTS[0]}


def ever_new(chance: random.Random) -> dict[str, str]:
    return {"client_ip": f"2001:{chance.randrange(1 << 16):x}::1", "user_agent": chance.choice(AGENTS)}


def more_people(chance: random.Random) -> dict[str, str]:
    """As many more as come more often, each of whom asks as often as people do."""
    return person(chance, 80, 40)


def one_program(chance: random.Random) -> dict[str, str]:
    return {**ever_new(chance), "user_agent": "Stealth/1"}


@functools.cache
def lines(who: Who, every_ms: int, usual_ms: int) -> tuple[bytes, ...]:
    """Forty people who ask for five pages; then some more for one of them, from somebody."""
    chance = random.Random(7)
    found: list[tuple[int, bytes]] = []

    def put(at_ms: int, path: str, whom: dict[str, str]) -> None:
        event = {"time": 1000 * START_S + at_ms, "method": "GET", "path": path, "status": 200, "country": "DE"}
        found.append((at_ms, orjson.dumps({**event, "host": "www.example.com", **whom}) + b"\n"))

    for at_ms in range(0, 1000 * SPAN_S, usual_ms):
        put(at_ms, chance.choice(ROUTES), person(chance))
    for at_ms in range(1000 * MORE_S[0], 1000 * MORE_S[1], every_ms):
        put(at_ms, "/pricing", who(chance))
    return tuple(text for _, text in sorted(found))


def config(*, signature: bool = True, route_share: float = 0.1, **engine: int) -> Config:
    detectors = {**only("entropy", route_share=route_share), "signature": {"dry_run": False, "enabled": signature}}
    return config_of({"detectors": detectors, "policy": {"allowlist_core": []}}, **engine)


@functools.cache
def decided(who: Who, every_ms: int = 40, usual_ms: int = 16, *, signature: bool = True) -> Decided:
    found = decide(b"".join(lines(who, every_ms, usual_ms)), BOUND_MS, config(signature=signature))
    assert nothing_was_bounded(found.account)
    return found


def told(found: Decided) -> list[tuple[str, str, str, str]]:
    by_detectors = [m for m in found.mitigations if not m.detector.startswith(PREFIX)]
    return sorted({(m.detector, m.target.type, m.target.value, m.action) for m in by_detectors})


def only_record(found: Decided) -> Mitigation:
    [one] = found.mitigations
    return one


LINES = lines(one_machine, 40, 16)
ROUTE_TOLD = [("entropy", "route", "GET /pricing", "notify")]


def test_a_busy_route_of_which_one_machine_suddenly_asks_is_told_once() -> None:
    assert told(decided(one_machine)) == ROUTE_TOLD
    one = only_record(decided(one_machine))
    assert MORE_S[0] + 10 <= one.tick - START_S < MORE_S[0] + 30
    assert one.tick % 10 == 9
    assert one.observed > 1.5 * one.limit
    assert "on route GET /pricing of service www.example.com" in one.reason
    assert "requests of one address" in one.reason
    assert one.evidence.features["service"] == "www.example.com"
    assert one.evidence.features["stratum"] == "pages"


@pytest.mark.parametrize("who", [ever_new, one_program])
def test_a_busy_route_that_ever_new_addresses_ask_for_is_told_once(who: Who) -> None:
    """On a busy service, of which a sample leaves out three of four requests."""
    assert told(decided(who, 25, 10)) == ROUTE_TOLD
    only_record(decided(who, 25, 10))


def test_more_people_who_ask_as_people_do_are_not_told() -> None:
    assert told(decided(more_people)) == []
    assert told(decided(more_people, 25, 10)) == []


def test_a_little_more_than_usual_is_not_looked_at() -> None:
    assert told(decided(one_machine, 80)) == []


def test_where_the_service_itself_is_told_of_its_routes_are_not() -> None:
    assert told(decided(ever_new, 10, signature=False)) == [("entropy", "service", "www.example.com", "notify")]


def test_where_a_signature_explains_it_routes_are_not_told() -> None:
    assert {detector for detector, *_ in told(decided(one_program, 10))} == {"signature"}


def test_a_route_that_is_not_busy_has_no_level_of_its_own() -> None:
    found = decide(b"".join(LINES), BOUND_MS, config(route_share=0.5))
    assert told(found) == []


def check_same(found: Decided) -> None:
    assert found.final_ids == decided(one_machine).final_ids
    assert sorted(set(found.final_finding_ids)) == decided(one_machine).final_finding_ids


@pytest.mark.parametrize("engine", [{"chunk_events": 7}, {"judge_partitions": 1}, {"judge_partitions": 4}])
def test_chunks_and_judge_partitions(engine: dict[str, int]) -> None:
    check_same(decide(b"".join(LINES), BOUND_MS, config(**engine)))


def test_shuffled_within_the_lateness() -> None:
    chance, text = random.Random(5), LINES
    order = sorted(range(len(text)), key=lambda index: orjson.loads(text[index])["time"] + chance.uniform(0, 8000))
    check_same(decide(b"".join(text[index] for index in order), BOUND_MS, config(), piece=97, early=True))


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(cuts=st.lists(st.integers(9000, 13_000), max_size=8), restart=st.booleans())
def test_any_cut_and_any_restart(cuts: list[int], restart: bool) -> None:
    text = LINES
    engine = Embedded(config())
    engine.open("log", BOUND_MS)
    base, so_far = 0, Decided([], [], engine.account())
    for low, high in itertools.pairwise([0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]):
        base = feed(engine, "log", b"".join(text[low:high]), base) if low < high else base
        if restart:
            taken = engine.take()
            so_far.mitigations += taken.mitigations
            so_far.findings += taken.findings
            saved = engine.snapshot()
            engine.stop()
            engine = Embedded.restore(config(), saved)
    engine.close("log")
    last = conclude(engine)
    check_same(Decided(so_far.mitigations + last.mitigations, so_far.findings + last.findings, last.account))


@pytest.mark.parametrize(("seed", "many"), [(1, 1), (2, 3)])
def test_observers_and_judges_that_die_anywhere(seed: int, many: int) -> None:
    chance = random.Random(seed)
    parts: dict[str, list[bytes]] = {f"requests-{index}": [] for index in range(many)}
    for text in LINES:
        parts[f"requests-{chance.randrange(many)}"].append(text.rstrip(b"\n"))
    settled = config(judge_partitions=4)
    log = observe(parts, settled, chance, crashes=True)
    check_same(judge(log, list(parts), settled, chance, crashes=True))


def entries(addresses: list[int], weights: list[int], route: int = 5) -> I64:
    rows = np.zeros((len(addresses), ROW_WORDS), np.int64)
    rows[:, ADDRESS], rows[:, WEIGHT], rows[:, ROUTE] = addresses, weights, route
    return rows


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=30, max_size=120), st.data())
def test_how_often_one_comes_is_counted_exactly_where_the_sample_is_everything(
    addresses: list[int], data: st.DataObject
) -> None:
    weights = data.draw(st.lists(st.integers(1, 40), min_size=len(addresses), max_size=len(addresses)))
    rows = entries(addresses, weights)
    [window] = routes_of(rows, rows[:, WEIGHT].astype(float), 0.1)
    each = [sum(w for a, w in zip(addresses, weights, strict=True) if a == one) for one in set(addresses)]
    assert window.total == sum(each)
    assert window.often == pytest.approx(sum(many * many for many in each) / sum(each))
    assert (window.error, window.often_error) == (0, 0)


def test_estimates_of_a_thinned_sample_are_right_on_average_and_their_errors_are_honest() -> None:
    random_ = np.random.default_rng(3)
    rows = entries(random_.integers(0, 400, 4000).tolist(), random_.integers(1, 4, 4000).tolist())
    [whole] = routes_of(rows, rows[:, WEIGHT].astype(float), 0.1)
    windows: list[RouteWindow] = []
    for _ in range(300):
        kept = rows[random_.random(len(rows)) < 1 / 8]
        windows += routes_of(kept, 8.0 * kept[:, WEIGHT], 0.1)
    for found, errors, true in (
        ([one.total for one in windows], [one.error for one in windows], whole.total),
        ([one.often for one in windows], [one.often_error for one in windows], whole.often),
    ):
        spread = float(np.std(found))
        assert float(np.mean(found)) == pytest.approx(true, abs=4 * spread / np.sqrt(len(found)))
        assert 0.8 * spread < float(np.mean(errors)) < 1.6 * spread


def test_one_heavy_row_of_a_thin_sample_says_nothing_for_certain() -> None:
    rows = entries(list(range(101)), [1] * 100 + [30])
    [window] = routes_of(rows, 8.0 * rows[:, WEIGHT], 0.1)
    assert window.total == 8 * 130
    assert window.surely < 8 * 100
    assert window.repeats_shift(Stratum.PAGES, [0, 50, 100, 0, 50, 100]) is None


def test_routes_with_little_are_left_out_and_no_route_is_none() -> None:
    rows = np.concatenate([entries(list(range(50)), [1] * 50, route) for route in (0, 3)] + [entries([1, 2], [1, 1], 4)])
    assert [one.route for one in routes_of(rows, rows[:, WEIGHT].astype(float), 0.01)] == [3]
    assert routes_of(rows[:0], np.zeros(0), 0.1) == []


def test_few_who_fail_are_told_by_their_own_limits_and_many_new_ones_here() -> None:
    usual = [2000] * 10
    few, many = RouteWindow(5, 500.0, 0.0, 40.0, 0.0), RouteWindow(5, 500.0, 0.0, 1.2, 0.0)
    assert few.repeats_shift(Stratum.PAGES, usual) is not None
    assert few.repeats_shift(Stratum.FAILED, usual) is None
    assert many.repeats_shift(Stratum.FAILED, usual) is not None
    assert many.repeats_shift(Stratum.PAGES, usual[:5]) is None
