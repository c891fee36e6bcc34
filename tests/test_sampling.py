"""The sample: whatever the order, the cut and the partitions, the same events are chosen as in plain Python."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.registry import window_rules
from detectors.windowed import lay_out
from engine.observe import Observer, SourceClock
from engine.sampling import merge_samples
from engine.seeds import make_seeds
from schemas.decode import Decoder
from schemas.sample import E_WEIGHT, KEPT, S_LEVEL, S_STRATUM, S_TOTAL, Sample, Stratum, empty_sample
from schemas.tally import Tally
from tests.engines import as_chunk, config_of
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
            "account": f"a{chance.randrange(accounts)}", "api_key_hash": "k1", "event": "registration", "auth_failed": True,
            "denied": True, "cancelled": True,
        }  # fmt: skip
        rare = {"event": 0.2, "auth_failed": 0.05, "denied": 0.05, "cancelled": 0.1, "api_key_hash": 0.2, "host": 0.3}
        events.append(event | {name: value for name, value in optional.items() if chance.random() < rare.get(name, 0.6)})
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
    assert set(sample.cells[:, S_STRATUM].tolist()) <= set(Stratum)


CONFIG = config_of()
PLAN = lay_out(window_rules(CONFIG), CONFIG.policy.renew_s, samples=True)


class Observing:
    """An observer that wants the sample, and what it needs."""

    def __init__(self, **engine: Any) -> None:
        config = config_of(**engine)
        self.decoder = Decoder(config.input, key_seed=SEEDS.key, ahead_ms=3000, events_max=4000)
        self.observer = Observer(config, PLAN, SEEDS.hash, 8000)
        self.rows = self.observer.make_rows()

    def tally(self, events: list[dict[str, Any]]) -> Tally:
        """One tally of all of them."""
        clock = SourceClock()
        data = b"".join(orjson.dumps({"time": event["time_ms"] / 1000, **event}) + b"\n" for event in events)
        chunk = as_chunk(data)
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
