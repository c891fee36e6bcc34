"""Addresses that cross a limit, and when the mitigation of each is on the topic: latency, and the silence after a kill -9."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from benchmarks.kafka_workers import JUDGE_PARTITIONS, Worker, make_topic, running, wait_until
from benchmarks.load import request_line
from schemas.mitigation import decode_mitigation
from schemas.tally import decode_tally
from schemas.topics import MITIGATIONS, tallies_topic

PROBES = 30
PROBE_LIMIT = 100
"""Of the default rule on an address in one second."""
PROBE_EVERY_S = 0.5
CALM_PER_S = 2000
STEPS = ("at the broker", "fetched, flushed and decoded", "committed", "judged", "on the topic")
"""From one moment to the next, as `Answer.steps_ms` has them."""


def _now_ms() -> float:
    return time.time() * 1000  # wall time, as the records of the broker carry it


@dataclass(frozen=True, slots=True)
class Answer:
    """One address that crossed its limit."""

    crossed_ms: float
    seen_ms: float
    """Its mitigation was read from the topic."""
    steps_ms: tuple[float, ...] = ()


class Probes:
    """Sends load and one attacker after the other, and listens to tallies and to the enforcement topic."""

    def __init__(self, bootstrap: str, topic: str, per_second: int, envelope: int = 1) -> None:
        self._bootstrap, self._topic, self._load = bootstrap, topic, (str(per_second), str(envelope))
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 2})
        self._crossed: dict[str, float] = {}
        self._arrived: dict[str, tuple[int, float]] = {}
        """Of the event that crosses the limit: its offset, and when the broker had it."""
        self._tallies: list[tuple[int, int, float]] = []
        """(the segment's end, when the observer sent it, when it could be read)."""
        self.found: dict[str, tuple[int, float]] = {}
        """(when the judge sent the mitigation, when it could be read)."""
        self._stop = threading.Event()

    def _attack(self) -> None:
        number = 0
        while not self._stop.wait(PROBE_EVERY_S):
            address = f"198.18.{number % 256}.{1 + number // 256}"  # each in a network of its own, of those kept for benchmarks
            value = request_line(address)
            for _ in range(PROBE_LIMIT):
                self._producer.produce(self._topic, value, partition=0)
            self._crossed[address] = _now_ms()
            self._producer.produce(self._topic, value, partition=0, on_delivery=partial(self._arrive, address))
            self._producer.flush()
            number += 1

    def _arrive(self, address: str, error: object, message: Message) -> None:
        if error is None:
            self._arrived[address] = (message.offset() or 0, _now_ms())

    def _listen(self, topic: str, take: Callable[[Message, float], None]) -> None:
        consumer = Consumer({"bootstrap.servers": self._bootstrap, "group.id": "none", "fetch.wait.max.ms": 5})
        consumer.assign([TopicPartition(f"{self._topic}.{topic}", 0, 0)])
        while not self._stop.is_set():
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                take(message, _now_ms())
        consumer.close()

    def _take_tally(self, message: Message, now_ms: float) -> None:
        self._tallies.append((decode_tally(message.value() or b"").end, message.timestamp()[1], now_ms))

    def _take_mitigation(self, message: Message, now_ms: float) -> None:
        self.found.setdefault(decode_mitigation(message.value() or b"").target.value, (message.timestamp()[1], now_ms))

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Load, attackers and listeners at work."""
        threads = [
            threading.Thread(target=self._attack),
            threading.Thread(target=self._listen, args=(tallies_topic(JUDGE_PARTITIONS), self._take_tally)),
            threading.Thread(target=self._listen, args=(MITIGATIONS, self._take_mitigation)),
        ]
        words = [sys.executable, "-m", "benchmarks.load", self._bootstrap, self._topic, *self._load]
        load = subprocess.Popen(words, stdin=subprocess.DEVNULL)
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            load.kill()
            load.wait()
            for thread in threads:
                thread.join()

    def answers_after(self, moment_ms: float) -> list[Answer]:
        """Of the addresses that crossed their limit after a moment, in order."""
        crossed = [(at, address) for address, at in list(self._crossed.items()) if at > moment_ms and address in self.found]
        return [Answer(at, self.found[address][1], self._steps(at, address)) for at, address in sorted(crossed)]

    def _steps(self, crossed_ms: float, address: str) -> tuple[float, ...]:
        """Nothing when a step was not seen: a worker died between, say."""
        offset, arrived_ms = self._arrived.get(address, (-1, 0.0))
        tally = next(((sent, read) for end, sent, read in list(self._tallies) if end > offset), None)
        if tally is None or offset < 0:
            return ()
        moments = (crossed_ms, arrived_ms, *tally, *self.found[address])
        return tuple(later - earlier for earlier, later in itertools.pairwise(moments))


def measure_latency(bootstrap: str, folder: Path, per_second: int, envelope: int = 1) -> str:
    """From the event that crosses a limit to the mitigation on the topic, and each step of it, as a text."""
    topic = f"latency{per_second}-{envelope}"
    make_topic(bootstrap, topic)
    probes = Probes(bootstrap, topic, per_second, envelope)
    with running(bootstrap, folder, topic, [["observe"], ["judge"]]) as (observer, _), probes.sending():
        wait_until(lambda: len(probes.found) >= 3, "the first mitigations")  # everything is warm
        began_ms, before = _now_ms(), _totals(observer)
        wait_until(lambda: len(probes.answers_after(began_ms)) >= PROBES, f"{PROBES} mitigations")
        answers, took_s = probes.answers_after(began_ms), (_now_ms() - began_ms) / 1000
        events, flushes, decoding_s, transactions_s = (b - a for a, b in zip(before, _totals(observer), strict=True))
    p50, p99 = np.percentile([answer.seen_ms - answer.crossed_ms for answer in answers], [50, 99])
    steps = np.median([answer.steps_ms for answer in answers if answer.steps_ms], axis=0)
    told = ", ".join(f"{name} {ms:.0f}" for name, ms in zip(STEPS, steps, strict=True))
    return (
        f"early mitigation at {per_second:,} events/s in messages of {envelope} ({events / took_s:,.0f} observed): "
        f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, n = {len(answers)}\n"
        f"  median ms of each step: {told}\n  a flush: {1000 * decoding_s / flushes:.0f} ms to decode and "
        f"group, {1000 * transactions_s / flushes:.0f} ms for its transaction, {flushes / took_s:.1f} flushes a second\n "
    )


def _totals(observer: Worker) -> tuple[float, ...]:
    names = ("events_total", "flush_seconds_count", "decode_seconds_sum", "flush_seconds_sum")
    return tuple(observer.metric(f"floodwall_{name}") for name in names)


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
                killed_ms = _now_ms()
                wait_until(partial(probes.answers_after, killed_ms), "a mitigation after a kill")
                seconds.append((min(answer.seen_ms for answer in probes.answers_after(killed_ms)) - killed_ms) / 1000)
    return silences
