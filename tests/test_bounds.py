"""Bounded by construction: what an attacker can send costs what was declared. Small versions of `make bench`."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from benchmarks.collisions import WITH_SEED, cases, cost_of, lines_of
from engine.embedded import Embedded
from engine.post import JudgePost
from engine.seeds import make_seeds
from tests.engines import config_of

ROOT = Path(__file__).resolve().parent.parent
KEYS = 2000


@pytest.fixture(scope="module")
def attacks() -> dict[str, list[bytes]]:
    return {name: list(lines_of(*keys)) for name, keys in cases(KEYS).items()}


def test_keys_built_to_collide_push_nobody_out(attacks: dict[str, list[bytes]]) -> None:
    """In a table twice as large as it needs to be, keys that met would be given up; those of an attacker do not meet."""
    for name, chunks in attacks.items():
        aged_out = cost_of(chunks, keys_max=1 << 15).aged_out
        assert (aged_out > 1000) == (WITH_SEED in name), (name, aged_out)


def test_hundreds_of_thousands_of_sources_stay_within_the_memory_and_only_the_attacker_is_stopped() -> None:
    words = [sys.executable, "-m", "benchmarks", "memory", "--sources", "300000"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, check=False, timeout=300, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stopped ['203.0.113.66']" in done.stdout


def test_a_peak_is_a_process_s_own_and_not_that_of_whoever_started_it() -> None:
    """`make bench` measures speed first, with 1.7 GB of lines in its hands."""
    child = "from benchmarks.peak import peak_mb; print(round(peak_mb()))"
    parent = f"import subprocess, sys; room = bytearray(300 << 20); subprocess.run([sys.executable, '-c', {child!r}])"
    done = subprocess.run([sys.executable, "-c", parent], cwd=ROOT, capture_output=True, check=True, text=True)
    assert 0 < int(done.stdout) < 150


def test_a_judge_that_nobody_needs_is_gone_at_once() -> None:
    """Its windows are hundreds of megabytes: they must not wait for the collector of cycles, which a worker seldom runs."""
    seeds = make_seeds(config_of())
    gc.collect()
    gc.disable()
    try:
        engine = Embedded(config_of())
        post = JudgePost(config_of(), seeds, 0, ["log"], early=True)
        judges = [weakref.ref(engine._judge), weakref.ref(post.judge)]
        engine.stop()
        del engine, post
        assert [judge() for judge in judges] == [None, None]
    finally:
        gc.enable()
