"""Coverage: what runs cover of traffic, against scoring and against counting event by event."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.kernels.folding import hash_texts_kernel
from drills.scoring.decide import decided
from drills.scoring.exposure import LATER_MS, Exposure, ExposureReader
from drills.scoring.score import Scorer
from engine.in_force import in_force_of
from engine.outbox import Decisions
from engine.seeds import Seeds
from replay.collected import Collected
from replay.coverage import Coverage, Covered
from schemas.config import Config
from schemas.decode import Decoder
from schemas.mitigation import Mitigation
from tests.drills import drill_of, events_of, joined
from tests.oracles.hashing import siphash_1_3_128
from tests.test_score import mitigation

CONFIG = Config(profile="api")
SEEDS = Seeds("coverage", configured=True)
START_S = 1_795_392_000


@functools.cache
def traffic() -> tuple[bytes, Any, Exposure]:
    """Ten minutes with a flood and a scan: lines, labels, and what scoring sees of them."""
    drill = drill_of("flood_one", "scan", strength="ordinary", at_s=(120, 300))
    events = events_of(drill)
    data = joined(drill, events, "events")
    labels = events["attack"].astype(np.int64)
    reader = ExposureReader(CONFIG)
    reader.take(data.splitlines(keepends=True), labels)
    return data, labels, reader.finish()


def covered_of(runs: list[list[Mitigation]], labels: Any = None, **more: Any) -> Covered:
    """By `Coverage`, in batches."""
    data = traffic()[0]
    kinds = 0 if labels is None else int(labels.max()) + 1
    coverage = Coverage([in_force_of(run) for run in runs], CONFIG.input.service, SEEDS.hash, labels=kinds, **more)
    decoder = Decoder(CONFIG.input, key_seed=(1, 2), ahead_ms=0)
    chunk = np.zeros(2 * len(data) + 16_384, np.uint8)
    chunk[: len(data)] = np.frombuffer(data, np.uint8)
    at = before = 0
    while at < len(data):
        at = decoder.decode_lines(chunk, len(data), at, bound_ms=LATER_MS, events_max=997)
        count = decoder.columns.n
        coverage.take(decoder.columns, None if labels is None else labels[before : before + count])
        before += count
    return coverage.finish()


def masks(run: list[Mitigation]) -> dict[tuple[str, str], Any]:
    """By target which events come while it is in force, one span after the other."""
    exposure = traffic()[2]
    found = {}
    for target, spans in in_force_of(run).enforced.items():
        mask = np.zeros(len(exposure), np.bool_)
        for row in exposure.rows_of(target):  # type: ignore[union-attr]
            mask[row] = any(span.from_ms <= exposure.time_ms[row] < span.until_ms for span in spans)
        found[target] = mask
    return found


def test_what_a_run_covers_is_what_a_score_of_it_says() -> None:
    data, labels, exposure = traffic()
    decisions: Decisions = decided(CONFIG, [data])
    attacks = [
        {"kind": "attack", "label": label, "name": str(label), "strength": "ordinary", "trap": False, "start": 0,
         "stops": ["ip", "net"], "victims": {}} for label in (1, 2)
    ]  # fmt: skip
    card = Scorer([exposure], attacks).score(decisions.mitigations)
    found = covered_of([decisions.mitigations], labels)
    assert found.covered[0].tolist() == [card.honest_covered, *(score.events_covered for score in card.attacks)]
    assert found.events.tolist() == [card.honest_events, *(score.events for score in card.attacks)]
    assert card.attacks[0].events_covered > 1000, "there is something to count"


@st.composite
def runs(draw: Any) -> list[Mitigation]:
    """Mitigations of targets that the traffic has, of some that it has not, and of types that events do not name."""
    _, _, exposure = traffic()
    v4 = [address & 0xFFFF_FFFF for address in exposure.addresses[:: max(1, len(exposure.addresses) // 40)]]
    dotted = [".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0)) for address in v4]
    targets = [("ip", text) for text in dotted]
    targets += [("net", text.rpartition(".")[0] + ".0/24") for text in dotted[::4]]
    targets += [("ip", "2001:db8:1:2::/64"), ("ip", "0.0.0.0/0"), ("ip", "::/0"), ("route", "GET /nothing"), ("robot", "x")]
    for kind in ("api_key", "account", "user_agent", "route", "service"):
        targets += [(kind, name) for name in list(exposure.names[kind])[1:8]]
    targets.append(("signature", orjson.dumps({"user_agent": next(filter(None, exposure.names["user_agent"]))}).decode()))
    found = []
    for kind, value in draw(st.lists(st.sampled_from(targets), max_size=8)):
        since = draw(st.integers(0, 600))
        more = draw(
            st.sampled_from([{}, {}, {"state": "held"}, {"action": "notify"}, {"detector": "other"}, {"dry_run": True}])
        )
        found.append(mitigation(kind, value, since, since + draw(st.integers(0, 300)), **more))
    return found


@settings(max_examples=30, deadline=None)
@given(runs(), runs())
def test_two_runs_are_counted_as_event_by_event(one: list[Mitigation], two: list[Mitigation]) -> None:
    _, labels, exposure = traffic()
    found = covered_of([one, two], labels)
    known = [masks_of_known(run) for run in (one, two)]
    any_of = [np.any([np.zeros(len(exposure), np.bool_), *run.values()], axis=0) for run in known]
    for number, mask in enumerate(any_of):
        assert found.covered[number].tolist() == np.bincount(labels[mask], minlength=3).tolist()
    assert found.newly[1].tolist() == np.bincount(labels[any_of[1] & ~any_of[0]], minlength=3).tolist()
    assert found.no_longer[1].tolist() == np.bincount(labels[any_of[0] & ~any_of[1]], minlength=3).tolist()
    for number, run in enumerate(known):
        for target, mask in run.items():
            counted = found.target_covered[number, found.targets[target]].tolist()
            assert counted == [int((mask & (labels == 0)).sum()), int((mask & (labels > 0)).sum())]
            rows = exposure.rows_of(target)
            assert found.of_target[found.targets[target]].tolist() == np.bincount(labels[rows], minlength=3).tolist()


def masks_of_known(run: list[Mitigation]) -> dict[tuple[str, str], Any]:
    return masks([record for record in run if record.target.type != "robot"])


def test_without_labels_whoever_the_first_run_or_an_operator_stops_is_not_taken_for_normal() -> None:
    exposure = traffic()[2]
    _, labels, _ = traffic()
    flooder = exposure.addresses[int(exposure.columns["ip"].codes[labels == 1][0])] & 0xFFFF_FFFF
    text = ".".join(str(flooder >> shift & 255) for shift in (24, 16, 8, 0))
    mine = len(exposure.rows_of(("ip", text)))  # type: ignore[arg-type]
    stops, network = mitigation("ip", text, 200, 210), mitigation("net", "0.0.0.0/0", 0, 600)
    assert covered_of([[stops]]).events.tolist() == [len(labels) - mine, mine]
    assert covered_of([[network]]).events.tolist() == [len(labels), 0], "a network is nobody"
    assert covered_of([[]], confirmed=[("ip", text)]).events.tolist() == [len(labels) - mine, mine]
    assert covered_of([[stops]], false_positives=[("ip", text)]).events.tolist() == [len(labels), 0]


def test_events_outside_the_range_of_time_are_not_counted() -> None:
    _, labels, exposure = traffic()
    first_ms, last_ms = (START_S + 100) * 1000, (START_S + 130) * 1000
    inside = (exposure.time_ms >= first_ms) & (exposure.time_ms < last_ms)
    everything = mitigation("ip", "::/0", 110, 600)
    found = covered_of([[everything]], labels, between_ms=(first_ms, last_ms))
    assert found.events.tolist() == np.bincount(labels[inside], minlength=3).tolist()
    assert found.covered[0].sum() == (inside & (exposure.time_ms >= (START_S + 110) * 1000)).sum()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=120), min_size=1, max_size=6), st.integers(0, 100))
def test_texts_are_hashed_as_the_twin_has_it(texts: list[bytes], most: int) -> None:
    lengths = np.array([len(text) for text in texts], np.int64)
    buffer = np.frombuffer(b"".join(texts) + bytes(16), np.uint8)
    first, second = np.zeros(len(texts), np.uint64), np.zeros(len(texts), np.uint64)
    hash_texts_kernel(SEEDS.hash, np.cumsum(lengths) - lengths, lengths, np.int64(most), buffer, first, second)
    key = int(SEEDS.hash[0]), int(SEEDS.hash[1])
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [siphash_1_3_128(key, text[:most]) for text in texts]


def test_what_is_collected_is_bounded_and_says_so() -> None:
    collected = Collected(mitigations_max=2, findings_max=0, evidence=False)
    records = [mitigation("ip", "192.0.2.1", second, second + 60, tick=second) for second in range(5)]
    early = mitigation("ip", "192.0.2.2", 1, 31, stage="early")
    collected.write(Decisions([early, *records], []))
    assert collected.mitigations == records[:2], "finals, the first of them"
    assert not collected.is_whole
    assert collected.said() == [f"3 mitigations from second {START_S + 2} on are not counted: only the first 2 are kept"]


def test_lifts_are_among_what_was_collected() -> None:
    collected = Collected()
    lifted = mitigation("ip", "192.0.2.1", 9, 60, state="lifted")
    collected.write(Decisions([mitigation("ip", "192.0.2.1", 3, 60), lifted], []))
    assert collected.lifts == [lifted]
    assert collected.is_whole
    assert collected.said() == []


@pytest.mark.parametrize("value", ["203.0.113.0/33", "no address", "", "1" * 50])
def test_a_value_that_is_no_address_covers_nothing_and_is_told(value: str) -> None:
    assert covered_of([[mitigation("ip", value, 0, 600)]]).unknown == {"ip": 1}
