"""Observers and judges on a real local broker: `python -m benchmarks kafka`. Broker, workers and load share the machine.

Processor time is told beside every rate: where others share the cores it is what can be compared.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.flood import FLOOD_PER_S, flooders
from benchmarks.kafka_probes import CALM_PER_S, measure_latency, measure_recovery
from benchmarks.kafka_workers import JUDGE_PARTITIONS, fill_topic, processor_s, running, send_values, wait_until
from broker.local import LocalBroker
from drills.traffic import Traffic, combined_lines
from engine.seeds import make_seeds
from engine.source_post import Bench, Messages, SourcePost
from schemas.config import parse_config

ENVELOPE = 500
PLAIN_MAX = 20_000
"""A plain agent takes a few thousand a second."""
IN_PROCESS_EVENTS = 50_000
"""About what one flush of a busy observer holds."""
TWO_TIMES = 5
"""Envelopes for two observers hold so many times the events: one observer is done with two million in a second."""
FIRST_SHARE, LAST_SHARE = 0.1, 0.9
"""Rates are taken between these parts of a topic: neither the first flush, which loads kernels, nor the last."""
SPREAD_PER_S = 1e5
SHORT_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast a topic was read, and the processor time that it took."""

    per_second: float
    observers_ns: tuple[float, ...]
    """Per event of the topic, each observer."""
    broker_ns: float

    def __str__(self) -> str:
        observers = " + ".join(f"{ns:.0f}" for ns in self.observers_ns)
        return f"{self.per_second:,.0f} events/s; processor: observers {observers}, broker {self.broker_ns:.0f} ns an event"


def _flood(events: int) -> Traffic:
    return combined_lines(seed=3, events=events, events_per_second=FLOOD_PER_S, attacks=flooders(events))


def _envelopes(lines: Sequence[bytes]) -> list[bytes]:
    return [b"\n".join(lines[at : at + ENVELOPE]) for at in range(0, len(lines), ENVELOPE)]


def _observe(
    broker: LocalBroker, folder: Path, topic: str, events: int, observers: int = 1, partitions: int = 1,
    values: Sequence[bytes] = (),
) -> Rate:  # fmt: skip
    """Observers that catch up with a topic; with ``values``, these are sent when the partitions have been shared out and while
    the observers are stopped: else the first has read much of them before the second has joined."""
    pid = broker.pid
    assert pid is not None
    share = f"partitions={partitions // observers} "
    marks: list[tuple[float, float, list[float]]] = []
    with running(broker.bootstrap, folder, topic, [["observe"]] * observers, partitions) as workers:
        wait_until(lambda: all(share in worker.log.read_text() for worker in workers), f"{share}for each observer")
        if values:
            with _stopped([worker.process.pid for worker in workers]):
                send_values(broker.bootstrap, topic, values, partitions)
        pids = [worker.process.pid for worker in workers] + [pid]

        def passed() -> bool:
            seen = sum(worker.metric("floodwall_events_total") for worker in workers)
            if seen > FIRST_SHARE * events:
                marks.append((time.perf_counter(), seen, [processor_s(one) for one in pids]))
            return seen >= LAST_SHARE * events

        wait_until(passed, f"{events:,} events to be read", SHORT_LOOK_S)
    if len(marks) < 2:
        raise ValueError(f"expected events for at least two looks of {SHORT_LOOK_S} s, got {events:,}: give more")
    (first_s, first, before), (last_s, last, after) = marks[0], marks[-1]
    used = [1e9 * (late - early) / (last - first) for early, late in zip(before, after, strict=True)]
    return Rate((last - first) / (last_s - first_s), tuple(used[:-1]), used[-1])


@contextmanager
def _stopped(pids: Sequence[int]) -> Iterator[None]:
    """Processes that stand still meanwhile, for less than a session."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _in_process(values: Sequence[bytes], events: int, per_flush: int) -> tuple[float, float]:
    """(events a second, ns of processor time an event) of the same messages to the same tallies, without Kafka."""
    config = parse_config(
        {"engine": {"judge_partitions": JUDGE_PARTITIONS, "seed": "benchmark"}, "kafka": {"rows_max": 1_000_000}}
    )
    bench = Bench(config, make_seeds(config))
    began = used = 0.0
    for _ in range(2):  # the first time loads the kernels
        post = SourcePost("in-process-0", 0, "", bench)
        began, used = time.perf_counter(), time.process_time()
        for at in range(0, len(values), per_flush):
            some = values[at : at + per_flush]
            messages = Messages()
            messages.add(some, range(at, at + len(some)), [0] * len(some), sum(map(len, some)))
            post.ship(messages, 0, 0)
    return events / (time.perf_counter() - began), 1e9 * (time.process_time() - used) / events


def run(runs: int, events: int) -> None:
    """Print throughput beside a plain agent's, two observers beside one, latency, and the silence after a kill."""
    with tempfile.TemporaryDirectory(prefix="floodwall-bench") as name:
        folder = Path(name)
        broker = LocalBroker(folder / "broker")
        broker.start()
        try:
            singles, envelopes = _throughput(broker, folder, runs, events)
            _two_observers(broker, folder, runs, events)
            for per_second, envelope in ((CALM_PER_S, 1), (int(singles / 2), 1), (int(envelopes / 2), ENVELOPE)):
                print(measure_latency(broker.bootstrap, folder, per_second, envelope), _load(), flush=True)
            for role, seconds in measure_recovery(broker.bootstrap, folder, runs).items():
                print(f"kill -9 of {role}: next decision after {statistics.median(seconds):.1f} s ({min(seconds):.1f} to "
                      f"{max(seconds):.1f}), n = {len(seconds)}; {_load()}", flush=True)  # fmt: skip
        finally:
            broker.kill()


def measure_maximum(broker: LocalBroker, folder: Path, runs: int, events: int) -> list[float]:
    """Events a second of a flood as single messages that one observer reads, of each run."""
    flood = [line.rstrip(b"\n") for line in _flood(events).lines()]
    rates = []
    for index in range(runs):
        fill_topic(broker.bootstrap, f"most{index}", flood)
        rates.append(_observe(broker, folder, f"most{index}", events).per_second)
    return rates


def _throughput(broker: LocalBroker, folder: Path, runs: int, events: int) -> tuple[float, float]:
    """Print a plain agent's rate and an observer's; the median rates of a flood as single events and in envelopes."""
    flood = [line.rstrip(b"\n") for line in _flood(events).lines()]
    spread = combined_lines(seed=3, events=events, events_per_second=SPREAD_PER_S)
    kinds = {
        "flood, single events": (flood, 1),
        f"flood, envelopes of {ENVELOPE}": (_envelopes(flood), ENVELOPE),
        f"spread, envelopes of {ENVELOPE}": (_envelopes([line.rstrip(b"\n") for line in spread.lines()]), ENVELOPE),
    }
    print(
        f"\nKafka: n = {events:,} events of {np.mean([len(line) for line in flood]):.0f} bytes, {runs} runs; {_load()}",
        flush=True,
    )
    few = min(events, PLAIN_MAX)
    rates: dict[str, list[float]] = {label: [] for label in kinds}
    for index in range(runs):
        fill_topic(broker.bootstrap, f"plain{index}", flood[:few])
        words = [sys.executable, "-m", "benchmarks.plain_faust", broker.bootstrap, f"plain{index}", str(few)]
        took_s, used_s = map(float, subprocess.run(words, capture_output=True, check=True).stdout.split())
        plain, plain_ns = few / took_s, 1e9 * used_s / few
        print(f"run {index + 1}\n  plain Faust agent, {few:,} events: {plain:,.0f} events/s; processor: {plain_ns:,.0f} ns",
              flush=True)  # fmt: skip
        for number, (label, (values, size)) in enumerate(kinds.items()):
            topic = f"kind{number}-{index}"
            fill_topic(broker.bootstrap, topic, values)
            rate = _observe(broker, folder, topic, events)
            alone, alone_ns = _in_process(values, events, IN_PROCESS_EVENTS // size)
            print(f"  {label}: {rate.per_second / plain:.1f} x plain ({plain_ns / sum(rate.observers_ns):.1f} x by "
                  f"processor time), {rate}; in process {alone:,.0f} events/s, "
                  f"{alone_ns:.0f} ns; {_load()}", flush=True)  # fmt: skip
            rates[label].append(rate.per_second)
    singles, envelopes, _ = (statistics.median(some) for some in rates.values())
    return singles, envelopes


def _two_observers(broker: LocalBroker, folder: Path, runs: int, events: int) -> None:
    """Print two observers beside one, on topics of two partitions."""
    lines = [line.rstrip(b"\n") for line in _flood(events).lines()]
    for kind, values, times in (("single events", lines, 1), (f"envelopes of {ENVELOPE}", _envelopes(lines), TWO_TIMES)):
        for index in range(runs):
            name = f"{'envelopes' if times > 1 else 'singles'}{index}"
            one = _observe(broker, folder, f"one-{name}", times * events, 1, 2, values * times)
            two = _observe(broker, folder, f"two-{name}", times * events, 2, 2, values * times)
            print(f"two observers against one, {kind}: {two.per_second / one.per_second:.2f} x; {_load()}\n  one: {one}\n"
                  f"  two: {two}", flush=True)  # fmt: skip


def _load() -> str:
    return f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
