"""Observers and judges on a real local broker: `python -m benchmarks kafka`. Broker, workers and load share the machine."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import orjson
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from broker.connection import Connection
from broker.local import LocalBroker
from broker.topics import create_topics
from drills.traffic import combined_lines
from schemas.config import parse_config
from schemas.mitigation import decode_mitigation
from schemas.topics import MITIGATIONS

ENVELOPE = 500
JUDGE_PARTITIONS = 4
PROBES = 30
LOAD_MAX = 100_000
"""Events a second that one producer thread in Python can send beside the rest."""
PROBE_LIMIT = 100
"""Of the default rule on an address in one second."""


def _make(bootstrap: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 1)])[topic].result(10)


def _send(bootstrap: str, topic: str, values: Sequence[bytes]) -> None:
    _make(bootstrap, topic)
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "queue.buffering.max.messages": 2_000_000})
    for value in values:
        while True:
            try:
                producer.produce(topic, value, partition=0)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()


def _metric(log: Path, name: str) -> float:
    found = re.search(r"health=(http://\S+)/health", log.read_text())
    if found is None:
        return 0.0
    with urllib.request.urlopen(found.group(1) + "/metrics") as answer:
        text = answer.read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


@contextmanager
def _workers(bootstrap: str, folder: Path, topic: str, roles: Sequence[str]) -> Iterator[list[Path]]:
    """Workers on a deployment of their own; their logs."""
    kafka = {
        "brokers": [bootstrap], "development": True, "topics": [topic], "topic_prefix": f"{topic}.", "group_prefix": topic,
        "rows_max": 1_000_000,
    }  # fmt: skip
    document = {"kafka": kafka, "engine": {"judge_partitions": JUDGE_PARTITIONS}}
    config = parse_config(document)
    create_topics(config, Connection(config.kafka), raw_partitions=1)
    file = folder / f"{topic}.toml"
    sections = [[f"[{name}]", *(f"{key} = {orjson.dumps(value).decode()}" for key, value in section.items())]
                for name, section in document.items()]  # fmt: skip
    file.write_text("\n".join(line for section in sections for line in section))
    workers, logs = [], []
    for role in roles:
        log = folder / f"{topic}-{role}.log"
        with log.open("wb") as out:
            workers.append(
                subprocess.Popen(
                    [sys.executable, "-m", "floodwall", "worker", role, "--config", str(file)], stdout=out, stderr=out,
                    stdin=subprocess.DEVNULL, env={**os.environ, "FLOODWALL_SEED": "benchmark"},
                )
            )  # fmt: skip
        logs.append(log)
    try:
        while not all("took_over" in log.read_text() for log in logs):
            time.sleep(0.05)
        yield logs
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait(30)


def _observe(bootstrap: str, folder: Path, topic: str, events: int) -> float:
    """Events a second of one observer that catches up, between a tenth and nine tenths of the topic."""
    marks: list[tuple[float, float]] = []
    with _workers(bootstrap, folder, topic, ["observe"]) as (log,):
        while not marks or marks[-1][1] < 0.9 * events:
            seen = _metric(log, "floodwall_events_total")
            if seen > 0.1 * events:
                marks.append((time.perf_counter(), seen))
            time.sleep(0.02)
    (first_s, first), (last_s, last) = marks[0], marks[-1]
    return (last - first) / max(last_s - first_s, 1e-9)


def _latency(bootstrap: str, folder: Path, per_second: int, probes: int) -> list[float]:
    """Milliseconds from the event that crosses a limit to the early mitigation on the topic."""
    topic = "latency"
    _make(bootstrap, topic)
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 2, "queue.buffering.max.messages": 2_000_000})
    crossed: dict[str, float] = {}
    found: dict[str, float] = {}
    stop = threading.Event()

    def line(address: str) -> bytes:
        moment = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())
        return f'{address} - - [{moment}] "GET /v1/models HTTP/1.1" 200 512 "-" "bench/1.0"'.encode()

    def load() -> None:
        step, sent, began = max(1, per_second // 100), 0, time.perf_counter()
        while not stop.is_set():
            value = line(f"198.51.100.{sent // step % 250}")
            for _ in range(step):
                producer.produce(topic, value, partition=0)
            sent += step
            producer.poll(0)
            time.sleep(max(0.0, began + sent / per_second - time.perf_counter()))

    def listen() -> None:
        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "fetch.wait.max.ms": 5})
        consumer.assign([TopicPartition(f"{topic}.{MITIGATIONS}", 0, 0)])
        while not stop.is_set():
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                found.setdefault(decode_mitigation(message.value()).target.value, time.perf_counter())
        consumer.close()

    with _workers(bootstrap, folder, topic, ["observe", "judge"]):
        threads = [threading.Thread(target=work) for work in (load, listen)]
        for thread in threads:
            thread.start()
        time.sleep(5)
        for probe in range(probes):
            address = f"203.0.113.{probe + 1}"
            time.sleep(1.02 - time.time() % 1.0)  # at the beginning of a second, so that all of it lies in one
            for _ in range(PROBE_LIMIT + 1):
                producer.produce(topic, line(address), partition=0)
            crossed[address] = time.perf_counter()
            producer.poll(0)
        time.sleep(2)
        stop.set()
        for thread in threads:
            thread.join()
    return sorted(1000 * (found[address] - at) for address, at in crossed.items() if address in found)


def run(runs: int, events: int) -> None:
    """Print throughput beside a plain agent's, and latency at half of it."""
    with tempfile.TemporaryDirectory(prefix="floodwall-bench") as name:
        folder = Path(name)
        broker = LocalBroker(folder / "broker")
        broker.start()
        try:
            _run(broker.bootstrap, folder, runs, events)
        finally:
            broker.kill()


def _run(bootstrap: str, folder: Path, runs: int, events: int) -> None:
    traffic = combined_lines(seed=3, events=events, events_per_second=100_000.0)
    lines = [line.rstrip(b"\n") for line in traffic.lines()]
    envelopes = [b"\n".join(lines[at : at + ENVELOPE]) for at in range(0, events, ENVELOPE)]
    few = min(events, 60_000)
    rates: dict[str, list[float]] = {"plain Faust agent": [], "observer, single events": [], "observer, envelopes of 500": []}
    for index in range(runs):
        _send(bootstrap, f"plain{index}", lines[:few])
        words = [sys.executable, "-m", "benchmarks.plain_faust", bootstrap, f"plain{index}", str(few)]
        rates["plain Faust agent"].append(few / float(subprocess.run(words, capture_output=True, check=True).stdout))
        for kind, values in (("single events", lines), ("envelopes of 500", envelopes)):
            topic = f"{kind.split()[0]}{index}"
            _send(bootstrap, topic, values)
            rates[f"observer, {kind}"].append(_observe(bootstrap, folder, topic, events))
    size = np.mean([len(line) for line in lines])
    print(f"\nKafka: n = {events:,} events of {size:.0f} bytes ({few:,} for the plain agent), {runs} runs; median (spread)")
    base = statistics.median(rates["plain Faust agent"])
    for label, found in rates.items():
        median = statistics.median(found)
        print(f"  {label:28} {median:>12,.0f} events/s ({min(found):,.0f} to {max(found):,.0f}), {median / base:.1f} x plain")
    per_second = min(int(min(rates["observer, single events"]) / 2), LOAD_MAX)
    times = _latency(bootstrap, folder, per_second, PROBES)
    if times:
        p50, worst = times[len(times) // 2], times[-1]
        print(f"  early mitigation at {per_second:,} events/s: p50 {p50:.0f} ms, worst {worst:.0f} ms, n = {len(times)}")
