"""A list of a million prefixes: how long it takes to read, what it weighs, and what it costs whoever replays under it."""

from __future__ import annotations

import ipaddress
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peak import peak_mb
from detectors.lists import lay_out_lists, read_addresses
from drills.traffic import Traffic, combined_lines
from schemas.config import Config, parse_config

Decide = Callable[[Config, Traffic, int], float]
PREFIXES = 1_000_000
LIMIT = 3
"""So low that nearly every client is asked for in every cell: more cannot be asked of a list."""


def write_list(path: Path, prefixes: int) -> None:
    """Random addresses and prefixes, nine in ten of IPv4."""
    random = np.random.default_rng(1)
    bits = random.integers(28, 33, prefixes)
    values = random.integers(0, 2**32, prefixes)
    with path.open("w") as file:
        for number, (value, length) in enumerate(zip(values.tolist(), bits.tolist(), strict=True)):
            if number % 10:
                network: Any = ipaddress.IPv4Network((value >> (32 - length) << (32 - length), length))
            else:
                network = ipaddress.IPv6Network((0x2000 << 112 | value << 64 + length % 8, 64))
            file.write(f"{network}\n")


def run(decide: Decide, runs: int, events: int) -> None:
    """Print what was measured; ``decide`` gives the seconds per event from bytes to decisions."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "list.txt"
        write_list(path, PREFIXES)
        print(f"\na list of {PREFIXES:,} prefixes, {path.stat().st_size / 1e6:.0f} MB:", end=" ", flush=True)
        subprocess.run([sys.executable, "-m", "benchmarks.lists", str(path)], check=True)
        traffic = combined_lines(seed=1, events=events, events_per_second=350.0)
        lists = [{"name": "made", "path": str(path), "limit": LIMIT}]
        without = parse_config({"engine": {"seed": "benchmark"}})
        asked = parse_config({"engine": {"seed": "benchmark"}, "detectors": {"known": {"lists": lists}}})
        times: dict[str, list[float]] = {"without": [], "under the list": []}
        for config in (without, asked):
            decide(config, traffic, 1)  # compiles
        for _ in range(runs):
            for label, config in (("without", without), ("under the list", asked)):
                times[label].append(1e9 * decide(config, traffic, 1))
        for label, some in times.items():
            spread = (max(some) - min(some)) / statistics.median(some)
            print(
                f"  {label:16} {statistics.median(some):8.1f} ns per event   spread {spread:4.0%}   n = {events:,}, {runs} runs"
            )


def read(path: str) -> None:
    """Print what reading takes, in a process that has done nothing else."""
    before = peak_mb()
    began = time.perf_counter()
    held = read_addresses(path)
    ranges = lay_out_lists((held,))
    read_s = time.perf_counter() - began
    more_mb = peak_mb() - before
    kept_mb = 2 * (ranges.low.nbytes + ranges.high.nbytes) / 1e6
    print(f"{len(held):,} ranges, read in {read_s:.1f} s, {more_mb:.0f} MB more at the peak, {kept_mb:.0f} MB kept")


if __name__ == "__main__":
    read(sys.argv[1])
