"""What `registrations` has learned outlives the judge, wherever it dies: the same findings, and the same bytes."""

from __future__ import annotations

import functools
import random
from typing import Any

import orjson
import pytest

from engine.snapshot import pack
from schemas.config import Config
from tests import dying_judges
from tests.dying_judges import dealt
from tests.engines import config_of, decide, only
from tests.test_posts import Log, bound_ms

NAME, SPAN_S = "registrations", 2700


@functools.cache
def config() -> Config:
    document: dict[str, Any] = {"detectors": only(NAME), "kafka": {"rows_max": 1_000_000}}
    return config_of(document, judge_partitions=4)


@functools.cache
def lines() -> tuple[bytes, ...]:
    """People, and in the last minute a program."""
    chance, begin = random.Random(3), bound_ms() - 1000 * SPAN_S - 60_000

    def line(at_ms: int, **more: object) -> tuple[int, bytes]:
        event = {"time": begin + at_ms, "event": "registration", "host": "www.example.com", "method": "POST", "status": 201}
        return at_ms, orjson.dumps({**event, "path": "/signup", **more})

    found = []
    for number, at_ms in enumerate(range(0, 1000 * SPAN_S, 3000)):
        found.append(line(
            at_ms + chance.randrange(2000), client_ip=f"198.51.{chance.randrange(200)}.{chance.randrange(1, 250)}",
            country="DE", user_agent=f"Browser/{chance.randrange(5)}", email_domain=f"mail{chance.randrange(9)}.example",
            user_name=chance.choice(["anna.meyer", "jan84", "lena_b"]), account=f"a{number}",
        ))  # fmt: skip
        if number % 5:
            found.append(line(min(at_ms + 60_000, 1000 * SPAN_S), event="verification", account=f"a{number}"))
    for number, at_ms in enumerate(range(1000 * (SPAN_S - 60), 1000 * SPAN_S, 300)):
        found.append(line(
            at_ms, client_ip="203.0.113.9", country="NL", user_agent="curl/8", email_domain="mailinator.com",
            user_name=f"q7xk{number}", account=f"b{number}",
        ))  # fmt: skip
    return tuple(text for _, text in sorted(found))


@functools.cache
def log() -> tuple[Log, tuple[str, ...]]:
    return dealt("registrations", lines(), config())


def judged(seed: int, dies: float) -> tuple[set[str], list[bytes], int]:
    """(ids of findings, the models' bytes in each partition, how many judges died)."""
    ids, models, deaths = dying_judges.judged(log(), config(), NAME, seed, dies)
    return ids, [pack(model) for model in models], deaths


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_anywhere_it_finds_the_same_and_knows_the_same(seed: int) -> None:
    expected, whole, _ = judged(0, 0.0)
    ids, models, deaths = judged(seed, 0.05)
    assert deaths > 1
    assert expected
    assert ids == expected
    assert models == whole


def test_one_process_finds_what_separate_judges_find() -> None:
    ids, _, _ = judged(0, 0.0)
    assert set(decide(b"\n".join(lines()) + b"\n", bound_ms(), config()).final_finding_ids) >= ids
