"""Mitigations into nftables, in a network namespace made for it: ``python -m benchmarks.edge_nft``, as root.

From the bytes of records as they lie on the enforcement topic to a table that the kernel has taken, in one transaction: at a
start (the whole table), as a burst onto a running edge, and when every one of them is extended. Kafka is not in it.
"""

from __future__ import annotations

import argparse
import ipaddress
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from drills.cable import namespace
from edge.nft import NftTable
from edge.nft_rules import Throttle, supports
from edge.reader import Reader
from schemas.config import DEFAULT_ALLOWLIST_CORE, parse_prefixes
from schemas.mitigation import Evidence, Mitigation, Target, Window, encode_line, topic_key
from schemas.prefixes import Prefixes

FIRST = int(ipaddress.IPv4Address("198.18.0.0"))
NOW = 1_000_000
CORE = parse_prefixes(DEFAULT_ALLOWLIST_CORE, "policy.allowlist_core")
Records = list[tuple[bytes, bytes]]


def records_of(count: int, tick: int) -> Records:
    """Blocks of single addresses as a judge publishes them, about 570 bytes each."""
    return [_record(str(ipaddress.IPv4Address(FIRST + at)), tick, tick + 300 + at % 3000) for at in range(count)]


def _record(address: str, tick: int, expires_at: int) -> tuple[bytes, bytes]:
    mitigation = Mitigation(
        id=f"{tick:08x}{int(ipaddress.IPv4Address(address)):024x}", tick=tick, stage="final", state="active", action="block",
        target=Target(type="ip", value=address), detector="rate", detector_version=1, reason="301 requests in 10 s, limit 300",
        severity=7, confidence=0.9, window=Window(start=tick - 9, end=tick + 1), observed=301, limit=300, issued_at=tick + 11,
        expires_at=expires_at, evidence=Evidence(offsets={"requests-0": (0, 20_000)}, features={"requests": 301}),
    )  # fmt: skip
    return topic_key(mitigation.target, "rate"), encode_line(mitigation).rstrip()


def cpu_seconds() -> float:
    """Of this process and of the nft processes that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Runs:
    """Seconds of each kind of run."""

    def __init__(self) -> None:
        self._found: dict[str, list[tuple[float, float, float, float]]] = {}

    def measure(self, name: str, take: Callable[[], None], enforce: Callable[[], None]) -> None:
        """Reading and enforcing, one after the other."""
        cpu, began = cpu_seconds(), time.perf_counter()
        take()
        taken = time.perf_counter()
        enforce()
        ended = time.perf_counter()
        self._found.setdefault(name, []).append((ended - began, taken - began, ended - taken, cpu_seconds() - cpu))

    def show(self, count: int) -> None:
        """Medians and spreads."""
        for name, found in self._found.items():
            whole, taken, enforced, cpu = (statistics.median(column) for column in zip(*found, strict=True))
            wholes = [one[0] for one in found]
            print(
                f"  {name:32} {whole:5.2f} s ({min(wholes):.2f} to {max(wholes):.2f}), {count / whole:9,.0f} per second; "
                f"reading {taken:.2f} s, enforcing {enforced:.2f} s; CPU {cpu:.2f} s"
            )


def run_once(netns: str, runs: Runs, first: Records, renewed: Records) -> None:
    """One of each kind."""
    table = NftTable("floodwall", CORE, Throttle(), netns=netns)
    now_ms = NOW * 1000

    def reader() -> Reader:
        made = Reader(Prefixes(CORE), supports)
        made.begin({})
        return made

    def taking(into: Reader, records: Records) -> Callable[[], None]:
        def take() -> None:
            for key, value in records:
                into.take(key, value)
            into.reached(0, len(records))

        return take

    starting = Reader(Prefixes(CORE), supports)
    starting.begin({0: len(first)})

    def fill() -> None:
        starting.changes(now_ms)
        table.replace(starting.table, now_ms)

    runs.measure("a start: the whole table", taking(starting, first), fill)
    running = reader()
    table.replace({}, now_ms)
    runs.measure("a burst onto a running edge", taking(running, first), lambda: table.change(running.changes(now_ms), now_ms))
    runs.measure("every one of them extended", taking(running, renewed), lambda: table.change(running.changes(now_ms), now_ms))
    assert len(table.elements()) == len(first)
    table.remove()


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mitigations", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    version = subprocess.run(("nft", "--version"), capture_output=True, text=True, check=True).stdout.split(" (")[0]
    print(f"command: python -m benchmarks.edge_nft {' '.join(sys.argv[1:])}")
    print(f"machine: {platform.machine()}, Python {platform.python_version()}, {version}, kernel {platform.release()}")
    first, renewed = records_of(options.mitigations, NOW - 20), records_of(options.mitigations, NOW - 10)
    print(f"n = {options.mitigations:,} mitigations of {len(first[0][1])} bytes, {options.runs} runs, medians")
    runs = Runs()
    with namespace("bench") as made:
        for _ in range(options.runs):
            run_once(made.name, runs, first, renewed)
    runs.show(options.mitigations)


if __name__ == "__main__":
    main()
