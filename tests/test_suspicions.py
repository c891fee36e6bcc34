"""What other detectors found of a key or a service is not learned: any cut, any death, and the same bytes."""

from __future__ import annotations

import functools
import random
from typing import Any

import orjson
import pytest

from detectors.kernels.windows import NEVER
from engine import suspicions
from engine.crossing import Crossing
from engine.embedded import Embedded
from engine.post import JudgePost
from engine.record import decode_record
from engine.snapshot import pack
from engine.suspicions import KEPT_S, STEP_S, Suspicions
from schemas.config import Config
from schemas.errors import StateError
from schemas.fields import Dimension
from tests import dying_judges
from tests.dying_judges import dealt
from tests.engines import conclude, config_of, feed, only
from tests.test_policy import crossing
from tests.test_posts import SEEDS, Log, bound_ms

SPAN_S = 1500
WINDOW_S, LOUD_S = 300, 15
"""In every other window of what is learned one key asks for more than a rule allows, for so long, half a minute into it."""


def config(*, drill: bool = False, limit: int = 40) -> Config:
    rules = [{"dimension": "api_key", "window_s": 10, "limit": limit}]
    detectors = {**only("keys"), "rate": {"rules": rules}}
    return config_of(
        {"detectors": detectors, "kafka": {"rows_max": 1_000_000}, "policy": {"drill": drill}}, judge_partitions=2
    )  # fmt: skip


@functools.cache
def lines() -> tuple[bytes, ...]:
    """Three keys, one of which is loud now and then."""
    chance, found = random.Random(5), list[tuple[int, bytes]]()
    for key in ("sk-a", "sk-b", "sk-c"):
        for second in range(SPAN_S):
            at_s = bound_ms() // 1000 - SPAN_S - 60 + second
            loud = key == "sk-a" and at_s // WINDOW_S % 2 == 0 and 0 <= at_s % WINDOW_S - 30 < LOUD_S
            for _ in range(6 if loud else chance.random() < 0.3):
                at_ms = 1000 * at_s + chance.randrange(1000)
                event = {
                    "time": at_ms, "method": "POST", "path": "/v1/chat", "status": 200, "api_key_id": key,
                    "client_ip": f"198.51.100.{ord(key[-1])}", "user_agent": "sdk/1", "tokens_in": 800, "tokens_out": 300,
                }  # fmt: skip
                found.append((at_ms, orjson.dumps(event)))
    return tuple(text for _, text in sorted(found))


def windows() -> range:
    """Those that are over in the end, with all of their loud seconds."""
    first, end = bound_ms() // 1000 - SPAN_S - 60, bound_ms() // 1000 - 60
    return range((first - 30) // WINDOW_S + 1, (end - 30 - LOUD_S) // WINDOW_S + 1)


@functools.cache
def embedded(piece: int = 10_000, stop_at: int | None = None, limit: int = 40) -> tuple[set[str], bytes, dict[str, Any]]:
    """(ids of findings, the model's bytes, what it says of itself), of one process that may be restarted."""
    engine, ids, base = Embedded(config(limit=limit)), set[str](), 0
    engine.open("log", bound_ms())
    for number, first in enumerate(range(0, len(lines()), piece)):
        if number == stop_at:
            ids |= {f.id for f in engine.take().findings}
            saved = engine.snapshot()
            engine.stop()
            engine = Embedded.restore(config(limit=limit), saved)
        base = feed(engine, "log", b"".join(line + b"\n" for line in lines()[first : first + piece]), base)
    engine.close("log")
    engine.finish()
    model = engine.models()["keys"]
    return ids | {f.id for f in conclude(engine).findings}, pack(model), model["about"]


def test_what_a_rule_finds_of_a_key_is_not_learned_of_it() -> None:
    ids, _, about = embedded()
    assert ids
    assert about["frozen_keys"] == 1
    assert about["frozen_s"] == WINDOW_S * sum(one % 2 == 0 for one in windows())
    assert embedded(limit=1_000_000)[0] == set()
    assert embedded(limit=1_000_000)[2]["frozen_s"] == 0


@pytest.mark.parametrize(("piece", "stop_at"), [(300, None), (500, 4), (100, 29)])
def test_any_cut_and_a_saved_state_leave_the_same_bytes(piece: int, stop_at: int | None) -> None:
    assert embedded(piece, stop_at) == embedded()


@functools.cache
def log() -> tuple[Log, tuple[str, ...]]:
    return dealt("requests", lines(), config())


def judged(seed: int, dies: float) -> tuple[set[str], list[bytes], int, int]:
    """(ids of findings, bytes of the models of each partition, judges that died, seconds frozen)."""
    ids, models, deaths = dying_judges.judged(log(), config(), "keys", seed, dies)
    return ids, [pack(model) for model in models], deaths, sum(model["about"]["frozen_s"] for model in models)


def test_a_judge_that_takes_over_leaves_out_what_it_would_have_left_out() -> None:
    ids, whole, _, frozen_s = judged(0, 0.0)
    assert ids == embedded()[0]
    assert frozen_s == embedded()[2]["frozen_s"] > 0
    again, models, deaths, _ = judged(1, 0.06)
    assert deaths > 2
    assert again == ids
    assert models == whole


def test_what_is_learned_in_a_drill_is_not_gone_on_from_outside_of_one_nor_the_other_way_round() -> None:
    _, names = log()
    for drill in (False, True):
        post = JudgePost(config(drill=drill), SEEDS, 0, list(names), early=False)
        record = post.record()
        assert decode_record(record, config(drill=drill), SEEDS, 0).position == 0
        with pytest.raises(StateError, match=r"policy\.drill"):
            decode_record(record, config(drill=not drill), SEEDS, 0)
        engine = Embedded(config(drill=drill))
        saved = engine.snapshot()
        engine.stop()
        with pytest.raises(StateError, match="a drill needs a state of its own"):
            Embedded.restore(config(drill=not drill), saved)


def about_key(tick: int, a: int, b: int = 7) -> Crossing:
    return crossing(tick, (a, b), dimension=Dimension.API_KEY)


def test_only_what_is_told_in_time_counts_and_what_is_covered_is_forgotten() -> None:
    some, high = Suspicions(), (1 << 64) - 1
    some.note([about_key(105, high), about_key(99, 2), crossing(105)], ())
    some.note([about_key(106, 3)], {"rate"})
    assert some.keys(90, 110) == {(-1, 7), (2, 7)}
    assert some.keys(100, 110) == {(-1, 7)}
    some.heard(109, NEVER)
    some.note([about_key(109, 5)], ())
    assert some.keys(90, 110) == {(-1, 7), (2, 7)}
    again = Suspicions()
    again.load(some.save())
    assert str(again.save()) == str(some.save())
    again.heard(2000, 90 + KEPT_S + STEP_S)
    assert again.keys(90, 110) == {(-1, 7)}
    for damaged in ([1, 2, 3], [1, 0, some.save()[2] * 1.0], ["x", 0, some.save()[2]]):
        with pytest.raises(StateError, match="suspicions of four numbers"):
            Suspicions().load(damaged)


def test_what_is_found_of_a_service_is_known_by_its_key_and_there_is_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspicions, "ENTRIES_MAX", 3)
    some = Suspicions()
    some.note([crossing(10, dimension=Dimension.SIGNATURE, service=((1 << 64) - 2, 4))], ())
    assert some.has_service((-2, 4), 10, 20)
    assert not some.has_service((-2, 4), 20, 30)
    some.note([about_key(20 + number, number) for number in range(3)], ())
    assert some.lost == 1
    assert not some.has_service((-2, 4), 10, 20)
    assert len(some.keys(20, 30)) == 3
