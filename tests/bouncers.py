"""What tests of the CrowdSec-compatible feed share: an edge on a topic of their own, and clients that ask as bouncers do."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from edge.bouncer import BouncerEdge
from edge.bouncer_api import Limits
from edge.bouncer_keys import add_key, make_key
from edge.reader import Reader
from edge.topic import TakesRecords
from engine.clock import SystemClock
from schemas.mitigation import Mitigation
from tests.edge_parts import HandClock, Heard
from tests.mitigations import CORE, on_topic

FIREWALL = "crowdsec-firewall-bouncer/v0.0.25"
PLUGIN = "Crowdsec-Bouncer-Traefik-Plugin/1.X.X"
STREAM = "/v1/decisions/stream"
FIELDS = {"duration", "id", "origin", "scenario", "scope", "type", "uuid", "value"}
LIMITS = Limits()
_draws = iter(range(1, 1 << 30))


class HandTopic:
    """Records as they are put; the end at the start is what was there at the first look."""

    def __init__(self) -> None:
        self.waiting: list[tuple[bytes | None, bytes | None]] = []
        self.position = 0
        self.stale_since_ms: int | None = None
        self._begun = False

    def open(self, reader: Reader) -> None:
        self._begun = True
        reader.begin({0: len(self.waiting)})

    def feed(self, reader: Reader, wait_s: float, taken: TakesRecords | None = None) -> int:
        if not self._begun:
            self.open(reader)
        for key, value in self.waiting:
            record = reader.take(key, value)
            if taken is not None:
                taken(record, value)
        self.position += len(self.waiting)
        self.waiting.clear()
        reader.reached(0, self.position)
        return 0


class Stage:
    """An edge that is moved by hand, and keys that it knows."""

    def __init__(self, folder: Path, *, clock: HandClock | SystemClock | None = None, limits: Limits = LIMITS) -> None:
        self.file = folder / "keys.json"
        self.clock = clock if clock is not None else HandClock()
        self.secrets: dict[str, str] = {}
        self.add("web-1")
        self.limits = limits
        self.told: list[tuple[str, dict[str, object]]] = []
        self.begin()

    def begin(self) -> None:
        """As a process that has just been started."""
        self.topic, self.heard = HandTopic(), Heard()
        self.edge = BouncerEdge(
            "here", self.topic, CORE, self.file, self.heard, self.clock, lambda *said: self.told.append(said),
            limits=self.limits,
        )  # fmt: skip

    def add(self, name: str, types: tuple[str, ...] = ("ban",), scopes: tuple[str, ...] = ()) -> str:
        """A key for another bouncer; its secret."""
        secret, kept = make_key(name, types, scopes, now=0, draw=lambda size: next(_draws).to_bytes(size, "big"))
        add_key(self.file, kept)
        self.secrets[name] = secret
        return secret

    def say(self, *records: Mitigation) -> None:
        """Onto the topic, and let the edge take it."""
        self.topic.waiting += map(on_topic, records)
        self.step()

    def step(self, *, seconds: float = 0) -> None:
        if seconds:
            assert isinstance(self.clock, HandClock)
            self.clock.ms += int(seconds * 1000)
        self.edge.enforcer.step()

    @contextlib.contextmanager
    def served(self, listen: tuple[str, int] | socket.socket = ("127.0.0.1", 0), **more: Any) -> Iterator[int]:
        """Its port, while it answers."""
        server = self.edge.serve(listen, 0, **more)
        self.health_port = server.ports[1]
        try:
            yield server.ports[0]
        finally:
            server.stop()


@dataclass
class Client:
    """A bouncer's connection, which it keeps."""

    port: int
    key: str
    agent: str = FIREWALL
    headers: dict[str, str] = field(default_factory=dict)
    connection: http.client.HTTPConnection | None = None

    def ask(self, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
        """Status and body, as it was before it was packed."""
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        headers = {"X-Api-Key": self.key, "User-Agent": self.agent, "Accept-Encoding": "gzip", **self.headers}
        self.connection.request(method, path, body=body, headers=headers)
        self.response = self.connection.getresponse()
        data = self.response.read()
        return self.response.status, gzip.decompress(data) if self.response.headers["Content-Encoding"] == "gzip" else data

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def startup(self) -> tuple[dict[str, str], list[str]]:
        """As `poll`, of everything."""
        return self.poll("?startup=true")

    def poll(self, query: str = "?") -> tuple[dict[str, str], list[str]]:
        """Durations of what is new by value, and the values of what is gone."""
        status, body = self.ask(STREAM + query)
        assert status == 200, body
        found = orjson.loads(body)
        assert found.keys() == {"new", "deleted"}
        for one in (*found["new"], *found["deleted"]):
            assert one.keys() == FIELDS
        self.last = found
        return {one["value"]: one["duration"] for one in found["new"]}, [one["value"] for one in found["deleted"]]
