"""Bytes to decisions against loops that only read: `make bench`, or `python -m benchmarks [WHAT...]`.

WHAT: speed, memory, collisions (these three unless told), kafka, surge, nab, crowdsec, lists, planted, replay.
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks.collisions import collisions
from benchmarks.flood import FLOOD_PER_S, flooders
from benchmarks.peak import peak_mb
from benchmarks.steps import Steps
from detectors.registry import registered
from drills.traffic import Traffic, combined_lines, ndjson_lines, spoofed_lines
from engine.embedded import Embedded
from replay.sources import CHUNK_BYTES
from schemas.config import Config, parse_config

MEMORY_MB_MAX, EVERY_MB_MAX = 512, 640
"""With ``rate`` alone, and with every detector: rows and keys hold more then, and long windows and samples come to it."""
WARM_SHARE = 0.25
"""This much is fed before the measurement, so that windows are full and memory is touched."""
ALONE, EVERY = "bytes to decisions, 1 thread", "the same with every detector, 1"
COMBINED = re.compile(
    rb'(\S+) \S+ \S+ \[([^\]]+)\] "(\S+) (\S+) ([^"]+)" (\d{3}) (\S+) "([^"]*)" "([^"]*)"'
)  # fmt: skip
RULES = [
    {"dimension": dimension, "window_s": window, "limit": 1_000_000}
    for dimension in ("ip", "net", "route", "api_key")
    for window in (1, 10, 60)
]
CONFIG: dict[str, Any] = {"detectors": {"rate": {"rules": RULES}}, "engine": {"seed": "benchmark"}}


def pieces_of(data: bytes) -> list[bytes]:
    """Whole lines in chunks."""
    pieces, at = [], 0
    while at < len(data):
        end = min(at + CHUNK_BYTES, len(data))
        end = data.rfind(b"\n", at, end) + 1 or len(data)
        pieces.append(data[at:end])
        at = end
    return pieces


def decide(config: Config, traffic: Traffic, threads: int, steps: Steps | None = None) -> float:
    """Seconds per event from bytes to decisions, in steady state."""
    engine = Embedded(config, threads=threads)
    buffer = np.zeros(2 * CHUNK_BYTES + 16384, np.uint8)
    engine.open("log", int(traffic.times_ms.max()) + 1000)
    base, began, counted = 0, 0.0, 0
    pieces = pieces_of(traffic.data)
    warm = max(1, int(len(pieces) * WARM_SHARE))
    for index, piece in enumerate(pieces):
        if index == warm:
            counted = engine.account().events
            if steps is not None:
                steps.clear()
            began = time.perf_counter()
        buffer[: len(piece)] = np.frombuffer(piece, np.uint8)
        engine.feed("log", buffer, len(piece), base)
        base += len(piece)
    events = engine.account().events - counted  # waits for the other thread
    passed = time.perf_counter() - began
    engine.stop()
    return passed / events


def match_lines(lines: list[bytes]) -> float:
    """Seconds per line of a loop that only runs Python's re."""
    match = COMBINED.match
    began = time.perf_counter()
    for line in lines:
        match(line)
    return (time.perf_counter() - began) / len(lines)


def load_lines(lines: list[bytes]) -> float:
    """Seconds per line of a loop that only calls orjson.loads."""
    loads = orjson.loads
    began = time.perf_counter()
    for line in lines:
        loads(line)
    return (time.perf_counter() - began) / len(lines)


def measure(name: str, runs: int, *candidates: tuple[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Candidates in turn, ``runs`` times; the first is what the others are compared with. Returns their nanoseconds."""
    times: dict[str, list[float]] = {label: [] for label, _ in candidates}
    for _ in range(runs):
        for label, run in candidates:
            gc.collect()
            times[label].append(run() * 1e9)
    first = times[candidates[0][0]]
    print(f"\n{name}")
    for label, values in times.items():
        ratio = statistics.median(a / b for a, b in zip(first, values, strict=True))
        spread = (max(values) - min(values)) / statistics.median(values)
        print(f"  {label:34} {statistics.median(values):8.1f} ns per event   spread {spread:4.0%}   {ratio:5.2f} x")
    return times


def speed(runs: int, events: int) -> None:
    """Combined lines and NDJSON: sparse, dense, and what no table likes: every event from somebody else."""
    everything = parse_config(CONFIG)
    config = parse_config({**CONFIG, "detectors": {**rate_alone(), **CONFIG["detectors"]}})
    for label, rate, attacks in (
        ("sparse, 350 events/s", 350.0, ()),
        ("dense, 1 M events/s from 250 sources", FLOOD_PER_S, flooders(events)),
        ("spread, 1 M events/s from 1 M sources", FLOOD_PER_S, ()),
    ):
        for kind, make, only in (
            ("combined", combined_lines, ("only re.match", match_lines)),
            ("NDJSON", ndjson_lines, ("only orjson.loads", load_lines)),
        ):
            traffic = make(seed=1, events=events, events_per_second=rate, attacks=attacks)
            decide(config, traffic, 1)
            decide(everything, traffic, 1)
            lines = traffic.lines()[: min(events, 300_000)]
            size = len(traffic.data) / traffic.events
            times = measure(
                f"{kind}, {label}: n = {events:,} events of {size:.0f} bytes, {runs} runs",
                runs,
                (only[0], functools.partial(only[1], lines)),
                (ALONE, functools.partial(decide, config, traffic, 1)),
                ("bytes to decisions, 2 threads", functools.partial(decide, config, traffic, 2)),
                (EVERY, functools.partial(decide, everything, traffic, 1)),
            )
            share = statistics.median(alone / every for alone, every in zip(times[ALONE], times[EVERY], strict=True))
            print(f"  every detector has {share:.0%} of the speed of rate alone")
            with Steps() as steps:
                decide(config, traffic, 1, steps)
                counted = int(traffic.events * (1 - WARM_SHARE))
                print("  steps: " + ", ".join(f"{name} {ns / counted:.0f} ns" for name, ns in steps.nanoseconds()))


def memory(sources: int) -> None:
    """Many distinct sources and one attacker, in a process of its own, because the peak is a process's."""
    for every in (False, True):
        code = f"from benchmarks.__main__ import replay_spoofed; replay_spoofed({sources}, {every})"
        subprocess.run([sys.executable, "-c", code], check=True)


def rate_alone() -> dict[str, Any]:
    """The section ``detectors`` with the others off."""
    return {detector.name: {"enabled": False} for detector in registered() if detector.name != "rate"}


def replay_spoofed(sources: int, every: bool) -> None:
    """What `memory` runs. Raises SystemExit when the promise does not hold."""
    attacker, mb_max = "203.0.113.66", EVERY_MB_MAX if every else MEMORY_MB_MAX
    engine = Embedded(parse_config({"engine": {"seed": "benchmark"}, "detectors": {} if every else rate_alone()}))
    buffer = np.zeros(2 * CHUNK_BYTES + 16384, np.uint8)
    base, stopped = 0, set()
    engine.open("log", 4_102_444_800_000)
    began = time.perf_counter()
    for block in spoofed_lines(seed=1, sources=sources, attacker=attacker):
        for piece in pieces_of(block):
            buffer[: len(piece)] = np.frombuffer(piece, np.uint8)
            engine.feed("log", buffer, len(piece), base)
            base += len(piece)
        stopped |= {m.target.value for m in engine.take().mitigations if m.action != "notify"}
    engine.close("log")
    engine.finish()
    stopped |= {m.target.value for m in engine.take().mitigations if m.action != "notify"}
    account = engine.account()
    peak = peak_mb()
    print(f"\n{sources:,} distinct sources, {'every detector' if every else 'rate alone'}: {account.events:,} events, "
          f"peak memory {peak:.0f} MB (bound {mb_max}), "
          f"{time.perf_counter() - began:.0f} s, {account.aged_out:,} keys aged out, "
          f"attacker {attacker}, stopped {sorted(stopped)}")  # fmt: skip
    if peak > mb_max or stopped != {attacker}:
        raise SystemExit(f"expected at most {mb_max} MB and only {attacker} stopped")


WHAT = ("speed", "memory", "collisions", "kafka", "surge", "nab", "crowdsec", "lists", "planted", "sizing", "kernel", "replay")
OF_DATA = ("nab", "crowdsec", "planted")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["speed", "memory", "collisions"], help=", ".join(WHAT))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--events", type=int, default=600_000)
    parser.add_argument("--sources", type=int, default=10_000_000)
    parser.add_argument("--keys", type=int, default=20_000, help="distinct keys of one attack, in collisions")
    parser.add_argument("--data", type=Path, default=None, help="a folder of data: for nab, crowdsec, planted, surge")
    options = parser.parse_args()
    if unknown := set(options.what) - set(WHAT):
        parser.error(f"expected some of {', '.join(WHAT)}, got {', '.join(sorted(unknown))}")
    print(f"command: python -m benchmarks {' '.join(sys.argv[1:])}")
    print(f"machine: {platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}")
    if "speed" in options.what:
        speed(options.runs, options.events)
    if "memory" in options.what:
        memory(options.sources)
    if "collisions" in options.what:
        collisions(options.runs, options.keys)
    if "kafka" in options.what:
        from benchmarks import kafka

        kafka.run(options.runs, options.events)
    if "kernel" in options.what:
        from benchmarks import kernel

        kernel.run(options.runs, options.events)
    if "surge" in options.what:
        from benchmarks import surge

        if options.data is None:
            surge.run(options.runs)
        else:
            surge.run_real(options.data)
    if "lists" in options.what:
        from benchmarks import lists

        lists.run(decide, options.runs, options.events)
    if "replay" in options.what:
        from benchmarks import replay

        replay.run(options.runs, options.events, options.data)
    if "sizing" in options.what:
        from benchmarks import sizing

        sizing.run()
    for what in [what for what in options.what if what in OF_DATA]:
        if options.data is None:
            parser.error(f"{what} needs --data FOLDER")
        importlib.import_module(f"benchmarks.{what}").run(options.data)


if __name__ == "__main__":
    main()
