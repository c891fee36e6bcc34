"""Attackers in a network namespace: every datagram of theirs that the kernel lets through is a request in the log.

So it is the real loop: what a firewall drops is not logged, and when it began to drop is seen from outside, to the datagram.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from confluent_kafka import Producer

from benchmarks.load import request_line
from drills.cable import Cable, cable

SERVER = "203.0.113.1"
PORT = 8080
RATE_PER_S = 500
"""Requests of an attacker in its first seconds …"""
RATE_S = 2.0
PROBES_PER_S = 50
"""… and afterwards: enough to see when it is let through, or let through again."""
LIMIT_PER_S = 100
"""Of the default rule on an address in one second."""
SILENT_MS = 300.0
"""Who has sent for so long without being heard is dropped."""
STEP_S = 0.001
_RECEIVE_BYTES = 1 << 20


def now_ms() -> float:
    """Wall time, as the records of the broker carry it."""
    return time.time() * 1000


@dataclass(slots=True, eq=False)
class Attacker:
    """One address, and what became of its datagrams, which are numbered."""

    address: str
    socket: socket.socket
    began_ms: float
    goes_on: bool = False
    """It keeps its rate, whatever happens."""
    sent_ms: list[float] = field(default_factory=list)
    arrived: set[int] = field(default_factory=set)
    first_ms: float = 0.0
    """When the service had its first request …"""
    crossed_ms: float = 0.0
    """… and the one that crosses the limit."""
    _second: int = 0
    _count: int = 0

    def due(self, at_ms: float) -> bool:
        """Whether it is time for the next datagram."""
        passed_s = (at_ms - self.began_ms) / 1000
        fast_s = passed_s if self.goes_on else min(passed_s, RATE_S)
        return len(self.sent_ms) < fast_s * RATE_PER_S + (passed_s - fast_s) * PROBES_PER_S

    def take(self, number: int, at_ms: float) -> None:
        """One has arrived at the service."""
        self.arrived.add(number)
        self.first_ms = self.first_ms or at_ms
        if self._second != int(at_ms / 1000):
            self._second, self._count = int(at_ms / 1000), 0
        self._count += 1
        if self._count > LIMIT_PER_S and not self.crossed_ms:
            self.crossed_ms = at_ms

    def dropped_ms(self) -> float | None:
        """When it sent the first datagram of those in a row that nobody got, for `SILENT_MS`; None: it is let through."""
        before = -1
        for number in [*sorted(self.arrived), len(self.sent_ms)]:
            first = before + 1
            if before >= 0 and first < len(self.sent_ms):
                until = self.sent_ms[number] if number < len(self.sent_ms) else now_ms()
                if until - self.sent_ms[first] >= SILENT_MS:
                    return self.sent_ms[first]
            before = number
        return None

    def slipped(self) -> int:
        """How many arrived after it had been dropped: a bouncer deletes a ban before it adds a longer one."""
        dropped = self.dropped_ms()
        return 0 if dropped is None else sum(self.sent_ms[number] > dropped for number in list(self.arrived))

    def passed_ms(self, after_ms: float) -> float | None:
        """When it sent the first datagram after a moment that was let through."""
        found = [self.sent_ms[number] for number in list(self.arrived) if self.sent_ms[number] > after_ms]
        return min(found, default=None)

    def share_lost(self, after_ms: float) -> tuple[int, int]:
        """(datagrams sent after a moment, those of them that did not arrive), but for the last that may be on the way."""
        numbers = [number for number, at in enumerate(self.sent_ms) if after_ms < at < now_ms() - SILENT_MS]
        return len(numbers), sum(number not in self.arrived for number in numbers)


class Traffic:
    """Attackers at one end of a cable, and at the other a service that writes its log to Kafka."""

    def __init__(self, between: Cable, bootstrap: str, topic: str) -> None:
        self.cable = between
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 2})
        self._topic = topic
        self.attackers: dict[str, Attacker] = {}
        self._stop = threading.Event()
        self._service = between.server.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._service.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        self._service.bind((SERVER, PORT))

    def begin(self, address: str, *, goes_on: bool = False) -> Attacker:
        """Let another one attack."""
        made = self.cable.client.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((address, 0))
        made.setblocking(False)
        self.attackers[address] = found = Attacker(address, made, now_ms(), goes_on)
        return found

    def end(self, attacker: Attacker) -> None:
        """It sends no more."""
        self.attackers.pop(attacker.address, None)
        attacker.socket.close()

    def _send(self) -> None:
        while not self._stop.wait(STEP_S):
            for one in list(self.attackers.values()):
                at = now_ms()
                if one.due(at):
                    one.sent_ms.append(at)
                    with contextlib.suppress(OSError):
                        one.socket.sendto(len(one.sent_ms).to_bytes(4, "big"), (SERVER, PORT))

    def _serve(self) -> None:
        while not self._stop.is_set():
            if not select.select([self._service], [], [], 0.1)[0]:
                continue
            data, (address, _) = self._service.recvfrom(64)
            if (one := self.attackers.get(address)) is not None:
                one.take(int.from_bytes(data, "big") - 1, now_ms())
                self._producer.produce(self._topic, request_line(address), partition=0)
            self._producer.poll(0)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Both ends at work."""
        threads = [threading.Thread(target=work) for work in (self._send, self._serve)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
            for one in list(self.attackers.values()):
                self.end(one)
            self._service.close()
            self._producer.flush(5)


@contextlib.contextmanager
def traffic(addresses: list[str], bootstrap: str, topic: str) -> Iterator[Traffic]:
    """A cable with these attackers' addresses, and a service."""
    with cable(addresses, [SERVER]) as between:
        made = Traffic(between, bootstrap, topic)
        with made.running():
            yield made


class Relay:
    """A port in a namespace that leads to one of the host's loopback, where the feed listens."""

    def __init__(self, between: Cable, to_port: int) -> None:
        self._to_port = to_port
        self._listener = between.server.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to_port))
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=_pass_on, args=(one, other), daemon=True).start()


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
    with contextlib.suppress(OSError):
        other.shutdown(socket.SHUT_WR)
