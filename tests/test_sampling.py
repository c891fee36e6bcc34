"""The sample: whatever the order, the cut and the partitions, the same events are chosen as in plain Python."""

from __future__ import annotations

import random
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.registry import window_rules
from detectors.windowed import lay_out
from engine.judge import Judge
from engine.observe import Observer, SourceClock
from engine.sampling import merge_samples
from engine.seeds import Seeds, make_seeds
from engine.shipping import receive_tally
from engine.source_post import Bench, Messages, SourcePost
from schemas.decode import Decoder
from schemas.errors import StateError
from schemas.fields import Dimension
from schemas.narrow import Reader
from schemas.sample import (
    E_ATTRIBUTES,
    E_CELL,
    E_IP_LOW,
    E_WEIGHT,
    KEPT,
    S_LEVEL,
    S_SERVICE_A,
    S_STRATUM,
    S_TOTAL,
    VERIFIED,
    Sample,
    Stratum,
    empty_sample,
)
from schemas.sample_wire import decode_sample, encode_sample
from schemas.tally import C_DIMENSION, C_KEY_A, Tally, decode_tally, encode_tally
from tests.engines import as_chunk, config_of, decide
from tests.oracles.sampling import Plain, Sampler, as_arrays, as_plain, merge

SEEDS = make_seeds(config_of())
START_MS = 1_795_000_020_000
STATUSES = [200, 200, 200, 304, 400, 401, 403, 404, 429, 499, 500, 503]
SAMPLER = Sampler(SEEDS.hash.tolist())


def events_of(chance: random.Random, many: int) -> list[dict[str, Any]]:
    """Traffic with a little of everything in few seconds; often many accounts, and the same event twice."""
    accounts = chance.choice([3, 100, 400])
    events: list[dict[str, Any]] = []
    for _ in range(many):
        if events and chance.random() < 0.1:
            events.append(chance.choice(events))
            continue
        event: dict[str, Any] = {
            "time_ms": START_MS + chance.randrange(2000), "method": chance.choice(["GET", "POST"]),
            "path": chance.choice(["/", "/v1/chat", "/logo.png", f"/users/{chance.randrange(10**6)}"]),
            "status": chance.choice(STATUSES),
        }  # fmt: skip
        optional: dict[str, Any] = {
            "client_ip": chance.choice([f"198.51.{chance.randrange(8)}.7", f"2001:db8::{chance.randrange(4)}:1:0:0:1"]),
            "user_agent": chance.choice(["curl/8", "x" * 200, "y" * 300]),
            "host": chance.choice(["api.example", "www.example"]),
            "country": chance.choice(["DE", "FR"]), "fingerprint": "t13d", "email_domain": "example.org",
            "account": f"a{chance.randrange(accounts)}", "api_key_hash": "k1",
            "event": chance.choice(["registration", "verification"]), "auth_failed": True,
            "denied": True, "cancelled": True, "referrer": chance.choice(["https://a.example/", "https://b.example/?x"]),
            "user_name": chance.choice(["anna.meyer84", "q7xk2zzp", "Zoë", "", "j" * 100]), "asn": 64500 + chance.randrange(9),
        }  # fmt: skip
        rare = {"event": 0.2, "auth_failed": 0.05, "denied": 0.05, "cancelled": 0.1, "api_key_hash": 0.2, "host": 0.3}
        event |= {name: value for name, value in optional.items() if chance.random() < rare.get(name, 0.6)}
        events.append({"account": "a0", **event} if event.get("event") == "verification" else event)
    return events


CHANCE = st.integers(0, 2**32).map(random.Random)


def same(one: Sample, other: Sample) -> bool:
    """Are all arrays equal?"""
    names = ("cells", "entries", "words", "text_start", "text")
    return all(getattr(one, name).tolist() == getattr(other, name).tolist() for name in names)


def cut(chance: random.Random, plain: list[dict[str, Any]], parts: int) -> list[Plain]:
    """Samples of the events, each in one of ``parts``."""
    of: list[list[dict[str, Any]]] = [[] for _ in range(parts)]
    for event in plain:
        chance.choice(of).append(event)
    return [SAMPLER.of(events) for events in of]


@settings(max_examples=40, deadline=None)
@given(CHANCE, st.sampled_from([0, 1, 30, 400, 1500]), st.integers(1, 5))
def test_samples_of_parts_in_any_order_are_the_sample_of_the_whole(chance: random.Random, many: int, parts: int) -> None:
    events = events_of(chance, many)
    whole = SAMPLER.of(events)
    some = cut(chance, events, parts)
    assert as_plain(as_arrays(whole)) == whole
    assert merge(some) == whole
    arrays = [as_arrays(plain) for plain in some]
    assert same(merge_samples(arrays), as_arrays(whole))
    merged = empty_sample()
    for sample in chance.sample(arrays, len(arrays)):
        merged = merge_samples([merged, sample])
    assert same(merged, as_arrays(whole))


@settings(max_examples=20, deadline=None)
@given(CHANCE)
def test_weights_add_up_to_all_events_where_nothing_was_left_out(chance: random.Random) -> None:
    sample = as_arrays(SAMPLER.of(events_of(chance, 600)))
    weights = np.bincount(sample.entries[:, 0], sample.entries[:, E_WEIGHT], minlength=len(sample.cells))
    whole = sample.cells[:, S_LEVEL] == 0
    assert (weights[whole] == sample.cells[whole, S_TOTAL]).all()
    assert np.bincount(sample.entries[:, 0]).max() <= KEPT
    assert set(sample.cells[:, S_STRATUM].tolist()) <= {*Stratum, VERIFIED}


CONFIG = config_of()
PLAN = lay_out(window_rules(CONFIG), CONFIG.policy.renew_s, samples=True)


def lines_of(events: list[dict[str, Any]]) -> list[bytes]:
    """As a source has them."""
    return [orjson.dumps({"time": event["time_ms"] / 1000, **event}) + b"\n" for event in events]


class Observing:
    """An observer that wants the sample, and what it needs."""

    def __init__(self, **engine: Any) -> None:
        config = config_of(**{"judge_partitions": 1, **engine})
        self.decoder = Decoder(config.input, key_seed=SEEDS.key, ahead_ms=3000, events_max=4000)
        self.observer = Observer(config, PLAN, SEEDS.hash, 8000)
        self.rows = self.observer.make_rows()
        self.chunk = np.zeros(1 << 23, np.uint8)

    def tally(self, events: list[dict[str, Any]]) -> Tally:
        """One tally of all of them; views, until the next one."""
        clock = SourceClock()
        data = b"".join(lines_of(events))
        chunk = self.chunk  # one buffer for all, as sources have
        chunk[: len(data)] = np.frombuffer(data, np.uint8)
        at = 0
        while at < len(data):
            at = self.decoder.decode_lines(chunk, len(data), at, bound_ms=START_MS * 2, events_max=1000)
            self.observer.add(self.decoder.columns, clock, self.rows)
        observed = self.observer.finish(clock, self.rows, "log", 0, len(data))
        assert (observed.events, observed.late) == (len(events), 0)
        return observed.tally


OBSERVING = Observing()


@settings(max_examples=40, deadline=None)
@given(CHANCE, st.sampled_from([0, 1, 30, 400, 1500]))
def test_what_observe_chooses_is_what_plain_python_chooses(chance: random.Random, many: int) -> None:
    events = events_of(chance, many)
    tally = OBSERVING.tally(events)
    assert tally.truncated == 0
    assert as_plain(tally.sample) == SAMPLER.of(events)
    assert same(tally.sample, as_arrays(SAMPLER.of(events)))


@settings(max_examples=20, deadline=None)
@given(CHANCE, st.integers(1, 6))
def test_wherever_tallies_are_cut_and_parted_they_are_one_sample_again(chance: random.Random, parts: int) -> None:
    events = events_of(chance, 900)
    received: list[Sample] = []
    for part in range(parts):
        tally = FOUR.tally(events[part::parts])
        for partition in range(4):
            got = receive_tally(encode_tally(tally, partition), SEEDS.hash, partition, 4)
            services = got.records[got.column(C_DIMENSION) == Dimension.SERVICE, C_KEY_A]
            assert set(got.sample.cells[:, S_SERVICE_A].tolist()) == set(services.tolist())
            received.append(got.sample)
    assert same(merge_samples(chance.sample(received, len(received))), as_arrays(SAMPLER.of(events)))


FOUR = Observing(judge_partitions=4)


def test_what_goes_to_one_partition_is_refused_by_another() -> None:
    tally = FOUR.tally(events_of(random.Random(1), 200))
    with pytest.raises(StateError, match="partition"):
        receive_tally(encode_tally(tally, 0), SEEDS.hash, 1, 4)
    only_samples = replace(tally.take(np.zeros(0, np.int64)), sample=as_arrays(SAMPLER.of(events_of(random.Random(1), 200))))
    head, blocks = encode_sample(only_samples.sample)
    assert same(decode_sample(head, Reader(b"".join(blocks), 0)), only_samples.sample)


def damaged(data: bytes, chance: random.Random) -> bytes:
    """With a few other bytes, or without some, and a checksum that holds."""
    body = bytearray(data[4:])
    for _ in range(chance.choice([1, 1, 2, 8])):
        at = chance.randrange(len(body))
        body[at] = chance.choice([0, 1, 0x7F, 0xFF, chance.randrange(256)])
    cut = chance.choice([len(body), len(body), chance.randrange(len(body))])
    return zlib.crc32(body[:cut]).to_bytes(4, "little") + bytes(body[:cut])


WHOLE = encode_tally(OBSERVING.tally(events_of(random.Random(7), 60)), 0)


@settings(max_examples=400, deadline=None)
@given(CHANCE)
def test_damaged_samples_are_refused_or_are_samples(chance: random.Random) -> None:
    try:
        sample = decode_tally(damaged(WHOLE, chance)).sample
    except StateError:
        return
    cells, entries = sample.cells, sample.entries
    assert ((cells[:, S_STRATUM] >= 0) & (cells[:, S_STRATUM] <= VERIFIED)).all()
    assert ((cells[:, S_LEVEL] >= 0) & (cells[:, S_LEVEL] <= 64)).all()
    assert ((entries[:, E_CELL] >= 0) & (entries[:, E_CELL] < len(cells))).all()
    merge_samples([sample, sample])


def test_half_of_the_events_are_half_of_the_sample_on_average() -> None:
    """Over many seeds, of traffic that is as regular as can be: one client asks every millisecond, another as often."""
    events = [
        {"time_ms": START_MS + at // 2, "method": "GET", "path": "/", "status": 200, "client_ip": f"192.0.2.{at % 2}"}
        for at in range(1600)
    ]
    chunk = as_chunk(b"".join(lines_of(events)))
    decoder = Decoder(CONFIG.input, key_seed=SEEDS.key, ahead_ms=3000, events_max=4000)
    decoder.decode_lines(chunk, len(chunk) // 2, 0, bound_ms=START_MS * 2, events_max=1600)
    estimates = []
    for number in range(300):
        observer = Observer(CONFIG, PLAN, Seeds(str(number), configured=True).hash, 2000)
        rows, clock = observer.make_rows(), SourceClock()
        observer.add(decoder.columns, clock, rows)
        sample = observer.finish(clock, rows, "log", 0, 1).tally.sample
        ((_, _, _, stratum, level, total),) = sample.cells.tolist()
        assert (stratum, total) == (Stratum.PAGES, len(events))
        first = sample.entries[sample.entries[:, E_IP_LOW] & 1 == 0]
        estimates.append(int(first[:, E_WEIGHT].sum()) << level)
    error = np.std(estimates) / len(estimates) ** 0.5
    assert abs(np.mean(estimates) - 800) < 4 * error
    assert np.std(estimates) < 1.5 * 800 / 24**0.5  # about 24 of each half are kept


def test_who_invents_services_gets_no_cells_for_them_and_that_is_counted() -> None:
    events = [
        {"time_ms": START_MS, "method": "GET", "path": "/", "status": 200, "host": f"{number}.example"}
        for number in range(1000)
    ]
    tally = OBSERVING.tally(events)
    assert len(tally.sample.cells) == 64 * len(Stratum)
    assert tally.truncated == 1000 - 64 * len(Stratum)
    assert OBSERVING.tally(events[:10]).truncated == 0


def test_texts_without_room_are_left_out_and_counted_and_their_words_stay() -> None:
    events = [
        {"time_ms": START_MS + 16 * number, "method": "GET", "path": "/" + "p" * 140 + f"/n{number}x", "status": 200,
         "user_agent": f"{number:0250}", "fingerprint": f"f{number:0250}"}
        for number in range(3990)
    ]  # fmt: skip
    tally = OBSERVING.tally(events)
    sample = tally.sample
    assert len(sample.text) <= 2 << 20 < 3990 * 640
    named = set(sample.entries[:, E_ATTRIBUTES : E_ATTRIBUTES + 3].ravel().tolist())
    assert 0 < len(named - set(sample.words.tolist())) <= tally.truncated
    assert same(receive_tally(encode_tally(tally, 0), SEEDS.hash, 0, 1).sample, sample)
    assert same(merge_samples([sample, sample]), replace(merge_samples([sample]), **doubled(sample)))


def doubled(sample: Sample) -> dict[str, Any]:
    """Cells and entries of the same events counted twice."""
    cells, entries = sample.cells.copy(), sample.entries.copy()
    cells[:, S_TOTAL] *= 2
    entries[:, E_WEIGHT] *= 2
    return {"cells": cells, "entries": entries}


OFF = {"signature": {"enabled": False}, "entropy": {"enabled": False}, "registrations": {"enabled": False}}
"""The detectors that need the sample."""


def test_workers_carry_the_sample_where_a_detector_that_is_on_needs_it() -> None:
    events = events_of(random.Random(3), 700)
    shipped = []
    for detectors in (OFF, {}):
        config = config_of({"detectors": detectors}, judge_partitions=4)
        messages = Messages()
        lines = lines_of(events)
        messages.add(lines, list(range(len(lines))), [START_MS + 5000] * len(lines), sum(map(len, lines)))
        shipment = SourcePost("requests-0", 0, "", Bench(config, SEEDS)).ship(messages, START_MS + 5000, 10)
        tallies = [receive_tally(part[0], SEEDS.hash, index, 4) for index, part in enumerate(shipment.parts)]
        shipped.append(merge_samples([tally.sample for tally in tallies]))
    assert same(shipped[0], empty_sample())
    assert same(shipped[1], as_arrays(SAMPLER.of(events)))


def test_one_process_hands_the_sample_to_its_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    events = events_of(random.Random(4), 700)
    seen: list[Sample] = []
    accept = Judge.accept

    def accept_and_see(judge: Judge, tally: Tally) -> None:
        seen.append(merge_samples([tally.sample]))
        accept(judge, tally)

    monkeypatch.setattr(Judge, "accept", accept_and_see)
    decide(b"".join(lines_of(events)), START_MS + 5000, config_of(chunk_events=100), piece=250)
    assert len(seen) > 7
    assert same(merge_samples(seen), as_arrays(SAMPLER.of(events)))
