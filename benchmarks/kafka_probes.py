"""Addresses that cross a limit, and when the mitigation of each is on the topic: latency, and the silence after a kill -9."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.kafka_workers import make_topic, running, wait_until
from schemas.mitigation import decode_mitigation
from schemas.topics import MITIGATIONS

PROBES = 30
PROBE_LIMIT = 100
"""Of the default rule on an address in one second."""
PROBE_EVERY_S = 0.5
STEPS_PER_S = 100
CALM_PER_S = 2000


def _line(address: str) -> bytes:
    moment = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())
    return f'{address} - - [{moment}] "GET /v1/models HTTP/1.1" 200 512 "-" "bench/1.0"'.encode()


class Probes:
    """Sends honest load and one attacker after the other, and listens to the enforcement topic."""

    def __init__(self, bootstrap: str, topic: str, per_second: int) -> None:
        self._bootstrap, self._topic, self._per_second = bootstrap, topic, per_second
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 2, "queue.buffering.max.messages": 2_000_000})
        self.crossed: dict[str, float] = {}
        self.found: dict[str, float] = {}
        self._stop = threading.Event()

    def _load(self) -> None:
        step, sent, began = max(1, self._per_second // STEPS_PER_S), 0, time.perf_counter()
        while not self._stop.wait(max(0.0, began + sent / self._per_second - time.perf_counter())):
            value = _line(f"198.51.100.{sent // step % 250}")
            for _ in range(step):
                self._producer.produce(self._topic, value, partition=0)
            sent += step
            self._producer.poll(0)

    def _attack(self) -> None:
        number = 0
        while not self._stop.wait(PROBE_EVERY_S):
            address = f"198.18.{number % 256}.{1 + number // 256}"  # each in a network of its own, of those kept for benchmarks
            value = _line(address)
            for _ in range(PROBE_LIMIT + 1):
                self._producer.produce(self._topic, value, partition=0)
            self.crossed[address] = time.perf_counter()
            self._producer.poll(0)
            number += 1

    def _listen(self) -> None:
        consumer = Consumer({"bootstrap.servers": self._bootstrap, "group.id": "none", "fetch.wait.max.ms": 5})
        consumer.assign([TopicPartition(f"{self._topic}.{MITIGATIONS}", 0, 0)])
        while not self._stop.is_set():
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                self.found.setdefault(decode_mitigation(message.value()).target.value, time.perf_counter())
        consumer.close()

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Load, attackers and listener at work."""
        threads = [threading.Thread(target=work) for work in (self._load, self._attack, self._listen)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def answers_after(self, moment_s: float) -> list[tuple[float, float]]:
        """(when an address crossed the limit, when its mitigation was seen) of those that crossed after ``moment_s``."""
        return sorted(
            (at, self.found[address]) for address, at in list(self.crossed.items()) if at > moment_s and address in self.found
        )


def measure_latency(bootstrap: str, folder: Path, per_second: int) -> tuple[list[float], float]:
    """Milliseconds from the event that crosses a limit to the mitigation on the topic, and of a transaction on average."""
    topic = f"latency{per_second}"
    make_topic(bootstrap, topic)
    probes = Probes(bootstrap, topic, per_second)
    with running(bootstrap, folder, topic, [["observe"], ["judge"]]) as (observer, _), probes.sending():
        wait_until(lambda: len(probes.found) >= 3, "the first mitigations")  # everything is warm
        began = time.perf_counter()
        wait_until(lambda: len(probes.answers_after(began)) >= PROBES, f"{PROBES} mitigations")
        answers = probes.answers_after(began)
        mean_s = observer.metric("floodwall_flush_seconds_sum") / max(1.0, observer.metric("floodwall_flush_seconds_count"))
    return sorted(1000 * (seen - at) for at, seen in answers), 1000 * mean_s


def measure_recovery(bootstrap: str, folder: Path, kills: int) -> dict[str, list[float]]:
    """Seconds from kill -9 of a role to the mitigation of an address that crossed its limit afterwards."""
    topic = "recovery"
    make_topic(bootstrap, topic)
    probes = Probes(bootstrap, topic, CALM_PER_S)
    silences: dict[str, list[float]] = {"observe": [], "judge": []}
    with running(bootstrap, folder, topic, [["all", "--supervise", "--instance", "bench"]]) as (supervisor,), probes.sending():
        wait_until(lambda: len(probes.found) >= 3, "the first mitigations")
        for _ in range(kills):
            for role, seconds in silences.items():
                os.kill(supervisor.children()[role], signal.SIGKILL)
                killed = time.perf_counter()
                wait_until(partial(probes.answers_after, killed), "a mitigation after a kill")
                seconds.append(min(seen for _, seen in probes.answers_after(killed)) - killed)
    return silences
