"""From the first hostile packet to the drop in the kernel, and back after feedback: ``python -m benchmarks kernel``, as root.

A real broker, an observer and a judge in a calm hour, and under half of the load that they were just measured to carry. Two
edges: our own for nftables, and, where it is installed, CrowdSec's firewall bouncer at the interval that Debian ships it with.
Attackers are addresses in a network namespace; what their kernel lets through is a request in the log. Broker, workers, load,
edges and attackers share the machine.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import orjson
from confluent_kafka import Consumer, TopicPartition

from benchmarks.bouncer import HOW_TO_GET, PROGRAM, running_bouncer
from benchmarks.kafka import measure_maximum
from benchmarks.kafka_probes import CALM_PER_S
from benchmarks.kafka_workers import config_file, make_topic, running, wait_until
from benchmarks.kernel_traffic import Attacker, Relay, Traffic, now_ms, traffic
from broker.local import LocalBroker
from schemas.mitigation import OPERATOR, decode_mitigation
from schemas.topics import MITIGATIONS

TOPIC = "kernel"
OF_NFT, OF_BOUNCER, OF_FEEDBACK = 50, 25, 20
"""Attackers of each edge, and how many of the first are said to be false positives."""
WARM = 3
"""Attackers before those that count."""
EVERY_S = 0.73
"""One after the other; no part of a second, nor of the bouncer's interval, is preferred."""
INTERVAL = "10s"
"""What Debian's configuration file of the bouncer says."""
POLICY = {"block_from_level": 0, "share_from_keys": 1_000_000}
"""Blocked at the first time, which both edges can do. And all of this traffic is hostile: the budget that is a share of
everybody who is active would hold most of it back."""
Row = tuple[str, list[float]]


@dataclass(slots=True, eq=False)
class Said:
    """What the enforcement topic said of an address."""

    identifier: str
    at_ms: float
    """The brokers' time of the first record."""


class Listener:
    """Follows the enforcement topic."""

    def __init__(self, bootstrap: str) -> None:
        self.said: dict[str, Said] = {}
        self.allowed: dict[str, float] = {}
        """When an operator's allow came."""
        self._stop = threading.Event()
        self._bootstrap = bootstrap

    def _listen(self) -> None:
        consumer = Consumer({"bootstrap.servers": self._bootstrap, "group.id": "none", "fetch.wait.max.ms": 5})
        consumer.assign([TopicPartition(f"{TOPIC}.{MITIGATIONS}", 0, 0)])
        while not self._stop.is_set():
            message = consumer.poll(0.1)
            if message is None or message.error() is not None:
                continue
            record, at_ms = decode_mitigation(message.value() or b""), float(message.timestamp()[1])
            if record.detector == OPERATOR:
                self.allowed.setdefault(record.target.value, at_ms)
            elif record.action == "block" and record.state == "active":
                self.said.setdefault(record.target.value, Said(record.id, at_ms))
        consumer.close()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """While it listens."""
        thread = threading.Thread(target=self._listen)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()


def run(runs: int, events: int) -> None:
    """Print the table, and the one of feedback."""
    with tempfile.TemporaryDirectory(prefix="floodwall-bench") as name:
        folder = Path(name)
        broker = LocalBroker(folder / "broker")
        broker.start()
        try:
            print(_machine(), flush=True)
            most = measure_maximum(broker, folder, runs, events)
            half = int(statistics.median(most) / 2)
            print(f"most that an observer carries: {statistics.median(most):,.0f} events/s ({min(most):,.0f} to "
                  f"{max(most):,.0f}), n = {runs}; half of it: {half:,}; {_load()}", flush=True)  # fmt: skip
            _measure(broker.bootstrap, folder, [CALM_PER_S, half])
        finally:
            broker.kill()


def _measure(bootstrap: str, folder: Path, loads: list[int]) -> None:
    make_topic(bootstrap, TOPIC)
    near_to, far_to = _addresses(len(loads), WARM + OF_NFT, 0), _addresses(len(loads), OF_BOUNCER, 100)
    listener, file = Listener(bootstrap), config_file(folder, TOPIC)
    with contextlib.ExitStack() as stack:
        (observer, _) = stack.enter_context(running(bootstrap, folder, TOPIC, [["observe"], ["judge"]], policy=POLICY))
        near = stack.enter_context(traffic([one for some in near_to for one in some], bootstrap, TOPIC))
        far = stack.enter_context(traffic([one for some in far_to for one in some], bootstrap, TOPIC))
        stack.enter_context(listener.running())
        stack.enter_context(_edge(folder, file, "nft", "--netns", near.cable.server.name))
        if shutil.which(PROGRAM) is None:
            print(f"the bouncer is left out: {PROGRAM} is not here ({HOW_TO_GET})")
        else:
            stack.enter_context(_bouncer(folder, file, far))
        for per_second, here, there in zip(loads, near_to, far_to, strict=True):
            with _load_of(bootstrap, per_second):
                _attack(near, here[:WARM], "the first drops")  # everything is warm
                began, seen = time.perf_counter(), observer.metric("floodwall_events_total")
                goes_on = near.begin(here[WARM], goes_on=True)
                found = [goes_on, *_attack(near, here[WARM + 1 :], "every attacker of nft to be dropped")]
                _show(f"edge nft at {per_second:,} events/s, n = {len(found)}", found, listener)
                _give_feedback(near, found[:OF_FEEDBACK], goes_on, listener, file)
                if shutil.which(PROGRAM) is not None:
                    found = _attack(far, there, "every attacker of the bouncer to be dropped")
                    what = f"edge bouncer-api and Debian's bouncer, which asks every {INTERVAL}"
                    _show(f"{what}, at {per_second:,} events/s, n = {len(found)}", found, listener)
                observed = (observer.metric("floodwall_events_total") - seen) / (time.perf_counter() - began)
                print(f"\n{observed:,.0f} events/s were observed meanwhile; {_load()}")
                _show_return(goes_on, listener)
                for one in [*near.attackers.values(), *far.attackers.values()]:
                    (near if one.address in near.attackers else far).end(one)


def _addresses(loads: int, count: int, first: int) -> list[list[str]]:
    """For each load, each in a network of its own, of those that are kept for benchmarks."""
    return [[f"198.{18 + load}.{first + number}.1" for number in range(count)] for load in range(loads)]


@contextlib.contextmanager
def _load_of(bootstrap: str, per_second: int) -> Iterator[None]:
    words = [sys.executable, "-m", "benchmarks.load", bootstrap, TOPIC, str(per_second), "1"]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL) as load:
        try:
            yield
        finally:
            load.kill()


def _attack(through: Traffic, addresses: list[str], expected: str) -> list[Attacker]:
    """One after the other, until the kernel drops all of them."""
    found = []
    for address in addresses:
        found.append(through.begin(address))
        time.sleep(EVERY_S)
    wait_until(lambda: all(one.dropped_ms() is not None for one in found), expected)
    return found


@contextlib.contextmanager
def _edge(folder: Path, file: Path, *words: str) -> Iterator[Callable[[str], list[dict[str, object]]]]:
    """``floodwall edge`` with these words, ready; what it has said of an event."""
    log = folder / f"edge-{words[0]}.log"

    def told(event: str) -> list[dict[str, object]]:
        lines = [orjson.loads(line) for line in log.read_bytes().splitlines() if line.startswith(b"{")]
        return [one for one in lines if one.get("event") == event]

    command = (sys.executable, "-m", "floodwall", "edge", *words, "--config", str(file), "--json")
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: told("ready") or process.poll() is not None, f"the edge {words[0]} to be ready")
            if process.poll() is not None:
                raise RuntimeError(f"expected the edge {words[0]} to run, it ended: {log.read_text()[-500:]}")
            yield told
        finally:
            process.terminate()
            process.wait(30)


@contextlib.contextmanager
def _bouncer(folder: Path, file: Path, far: Traffic) -> Iterator[None]:
    """The feed, and Debian's bouncer in the namespace, which asks it."""
    keys = folder / "keys.json"
    words = (sys.executable, "-m", "floodwall", "edge", "bouncer-api", "keys", "add", "bench", "--keys", str(keys))
    key = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    with contextlib.ExitStack() as stack:
        told = stack.enter_context(_edge(folder, file, "bouncer-api", "--keys", str(keys), "--listen", "127.0.0.1:0"))
        relay = stack.enter_context(contextlib.closing(Relay(far.cable, int(str(told("listening")[0]["port"])))))
        stack.enter_context(running_bouncer(far.cable.server.name, folder, relay.port, key, every=INTERVAL))
        yield


def _show(title: str, found: list[Attacker], listener: Listener) -> None:
    """Print the times of attackers that were dropped."""
    wait_until(lambda: all(one.address in listener.said for one in found), "every mitigation on the topic")
    dropped = {one.address: one.dropped_ms() or 0.0 for one in found}
    crossed = [one for one in found if one.crossed_ms]  # whom the machine was too busy to send fast crosses another limit
    rows: list[Row] = [
        ("from the first hostile packet to the drop", [dropped[one.address] - one.first_ms for one in found]),
        ("from the request that crosses the limit to the drop", [dropped[one.address] - one.crossed_ms for one in crossed]),
        ("  of it until it is on the topic", [listener.said[one.address].at_ms - one.crossed_ms for one in crossed]),
        ("  and from there", [dropped[one.address] - listener.said[one.address].at_ms for one in found]),
    ]
    print(f"\n{title}; {_load()}")
    _print(rows)
    let = [len([at for at in one.sent_ms if at < dropped[one.address]]) for one in found]
    slipped = [one.slipped() for one in found]
    again = f"as bans were made longer, {sum(slipped)} of {sum(count > 0 for count in slipped)} attackers"
    print(f"  requests let through: median {statistics.median(let):.0f}, at most {max(let)}; later, {again}", flush=True)


def _print(rows: list[Row]) -> None:
    for name, values in rows:
        p50, p99 = np.percentile(values, [50, 99])
        print(f"  {name:54} p50 {p50:6.0f} ms, p99 {p99:6.0f} ms ({min(values):.0f} to {max(values):.0f})", flush=True)


def _give_feedback(through: Traffic, found: list[Attacker], goes_on: Attacker, listener: Listener, file: Path) -> None:
    """Say of one after the other that it was wrong, and wait for it to be let through."""
    for one in [one for one in through.attackers.values() if one not in found]:
        through.end(one)
    whole, after = [], []
    for one in found:
        said = listener.said[one.address].identifier
        words = ("feedback", said, "--false-positive", "--who", "bench", "--reason", "measured", "--config", str(file))
        began = now_ms()
        done = subprocess.run((sys.executable, "-m", "floodwall", *words), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"expected feedback to be taken, got: {done.stderr[-500:]}")
        wait_until(partial(one.passed_ms, began), f"{one.address} to be let through", 0.02)
        passed = one.passed_ms(began) or 0.0
        whole.append(passed - began)
        after.append(passed - listener.allowed[one.address])
        if one is not goes_on:
            through.end(one)
    print(f"\nfeedback --false-positive, n = {len(found)}; {_load()}")
    _print([("from the command's start to the first packet let through", whole), ("  of it from its record on", after)])


def _show_return(goes_on: Attacker, listener: Listener) -> None:
    """What became of the attacker that was said to be wrong and never slowed down."""
    since = listener.allowed[goes_on.address]
    sent, lost = goes_on.share_lost(since + 1000)
    passed_s = (now_ms() - since) / 1000
    print(f"one went on as before after feedback, for {passed_s:.0f} s: {sent:,} packets, of them {lost:,} dropped", flush=True)


def _machine() -> str:
    nft = subprocess.run(("nft", "--version"), capture_output=True, text=True, check=True).stdout.split(" (")[0]
    return f"{nft}, kernel {platform.release()}, {os.cpu_count()} cores; {_load()}"


def _load() -> str:
    return f"load average {os.getloadavg()[0]:.1f}"
