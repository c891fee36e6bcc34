"""Replay of recorded traffic: files, and topics beside a bare consumer loop: `python -m benchmarks replay [--data FOLDER]`.

Each candidate runs in turn, in one process. Processor time is told beside every rate: where others share the cores it is what
can be compared.
"""

from __future__ import annotations

import functools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from benchmarks.kafka_workers import fill_topic
from broker.local import LocalBroker
from drills.files import write_drill
from drills.run import Drill, Plan
from engine.clock import SystemClock
from replay.run import replay
from replay.sink import Sink
from schemas.config import parse_config

PER_SECOND = 5000
"""Honest events of the drill: a platform that is worth attacking."""
ATTACKS = ("flood_fifty", "botnet", "scan", "stuffing_loud")
STREAMS = ("access-log", "events")
ENVELOPE = 100
CONSUMED = 10_000
"""Messages of one call of the bare loop."""
Candidate = tuple[str, Callable[[], int]]
"""Its name, and what runs it and returns the number of events."""


def run(runs: int, events: int, data: Path | None) -> None:
    """Print rates of files, then of topics. ``data``: a folder of logs, measured instead of a drill; topics are left out."""
    if data is not None:
        _measure(f"files of {data}", runs, _files([data]))
        return
    with tempfile.TemporaryDirectory(prefix="floodwall-replay") as name:
        folder = Path(name)
        made = folder / "drill"
        plan = Plan(span_s=max(60, events // PER_SECOND), events_per_second=PER_SECOND, attacks=ATTACKS)
        write_drill(Drill(plan), made, STREAMS, "combined")
        for log in (made / "access.log", made / "events.ndjson"):
            _measure(f"{log.name}: {log.stat().st_size / 1e6:.0f} MB", runs, _files([log]))
        _topics(folder, (made / "access.log").read_bytes().splitlines()[:events], runs)


def _replayed(sources: Sequence[str], threads: int, manifest: bool = False) -> int:
    config = parse_config({"engine": {"seed": "benchmark"}, "kafka": {"development": True}})
    return replay(config, list(sources), Sink(), SystemClock(), threads=threads, manifest=manifest).account.events


def _files(paths: Sequence[Path]) -> list[Candidate]:
    names = [str(path) for path in paths]
    return [
        ("threads = 1", lambda: _replayed(names, 1)),
        ("threads = 2", lambda: _replayed(names, 2)),
        ("threads = 2, with a manifest", lambda: _replayed(names, 2, manifest=True)),
    ]


def _consumed(bootstrap: str, topic: str, messages: int, per_message: int, *, exact: bool = False) -> int:
    """The bare loop: every message's error and value are looked at, and nothing is done with them.

    Its last call waits a second for messages that do not come, unless their number is divided by those of a call; with
    ``exact`` it asks for no more than are left.
    """
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "bare", "enable.auto.commit": False, "queued.min.messages": 1_000_000,
         "fetch.queue.backoff.ms": 5}
    )  # fmt: skip
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(2)])
    seen = size = 0
    while seen < messages:
        for message in consumer.consume(min(CONSUMED, messages - seen) if exact else CONSUMED, 1.0):
            if message.error() is None:
                size += len(message.value() or b"")
                seen += 1
    consumer.close()
    assert size
    return seen * per_message


def _topics(folder: Path, lines: list[bytes], runs: int) -> None:
    broker = LocalBroker(folder / "broker")
    broker.start()
    try:
        whole = len(lines) - len(lines) % ENVELOPE
        envelopes = [b"\n".join(lines[at : at + ENVELOPE]) for at in range(0, whole, ENVELOPE)]
        for topic, values, size in (("singles", lines, 1), (f"envelopes-of-{ENVELOPE}", envelopes, ENVELOPE)):
            fill_topic(broker.bootstrap, topic, values, 2)
            url = f"kafka://{broker.bootstrap}/{topic}"
            loop = functools.partial(_consumed, broker.bootstrap, topic, len(values), size)
            bare: Candidate = ("bare confluent-kafka loop", loop)
            exact: Candidate = ("the same, no wait at its end", functools.partial(loop, exact=True))
            replays: list[Candidate] = [
                (f"replay, threads = {threads}", functools.partial(_replayed, [url], threads)) for threads in (1, 2)
            ]
            _measure(f"topic {topic}, 2 partitions, {len(values):,} messages", runs, [bare, exact, *replays], loops=2)
    finally:
        broker.kill()


def _measure(title: str, runs: int, candidates: list[Candidate], loops: int = 1) -> None:
    """Candidates in turn; ratios are medians of pairs, against each of the first ``loops``; of processor time, the first."""
    candidates[-1][1]()  # loads the kernels, and what is read into the system's memory
    rates: dict[str, list[float]] = {label: [] for label, _ in candidates}
    used: dict[str, list[float]] = {label: [] for label, _ in candidates}
    events = 0
    loads = [os.getloadavg()[0]]
    for _ in range(runs):
        for label, call in candidates:
            began, processor = time.perf_counter(), time.process_time()
            events = call()
            rates[label].append(events / (time.perf_counter() - began))
            used[label].append(1e9 * (time.process_time() - processor) / events)
        loads.append(os.getloadavg()[0])
    print(f"\n{title}: n = {events:,} events, {runs} runs; load average {min(loads):.1f} to {max(loads):.1f} on "
          f"{os.cpu_count()} cores")  # fmt: skip
    first_used = used[candidates[0][0]]
    for label, values in rates.items():
        middle = statistics.median(values)
        spread = (max(values) - min(values)) / middle
        ratios = " / ".join(f"{_ratio(values, rates[loop]):.2f}" for loop, _ in candidates[:loops])
        by_processor = _ratio(first_used, used[label])
        print(f"  {label:28} {middle:12,.0f} events/s   spread {spread:4.0%}   {ratios} x   processor "
              f"{statistics.median(used[label]):6.0f} ns an event, {by_processor:5.2f} x", flush=True)  # fmt: skip


def _ratio(own: list[float], others: list[float]) -> float:
    """The median of pairs."""
    return statistics.median(one / other for one, other in zip(own, others, strict=True))
