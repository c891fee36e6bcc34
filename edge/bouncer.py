"""The edge that CrowdSec's bouncers ask, put together: topic, reader, feed and server."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from edge.bouncer_api import BouncerApi, Limits
from edge.bouncer_keys import Keyring
from edge.bouncer_metrics import FeedMetrics
from edge.bouncer_server import BouncerServer, Tls
from edge.enforce import Acknowledges, Done, Enforcer
from edge.feed import Feed
from edge.metrics import EdgeMetrics
from edge.reader import Reader, Verifies
from edge.sightings import Sightings, Topic, WatchedTopic
from edge.subject import Subject
from edge.topic import Tell
from engine.clock import Clock
from schemas.prefixes import Prefixes

LIMITS = Limits()


class StalingTopic(Topic, Protocol):
    """A topic that knows since when its brokers are away."""

    stale_since_ms: int | None


class BouncerEdge:
    """Follows a topic and answers bouncers.

    Args:
        name: of this edge, in its acknowledgements.
        core: the allowlist core.
        keys_file: who may ask.
        drills: serve drills too.
        verifier: whose records are believed; None: everybody's.

    Raises:
        ConfigError: the file of keys cannot be read.
    """

    def __init__(
        self, name: str, topic: StalingTopic, core: Prefixes, keys_file: Path, acknowledger: Acknowledges | None, clock: Clock,
        tell: Tell, *, drills: bool = False, limits: Limits = LIMITS, verifier: Verifies | None = None,
    ) -> None:  # fmt: skip
        self._clock, self._tell, self._limits, self._topic = clock, tell, limits, topic
        self.metrics = FeedMetrics()
        self.keyring, sightings = Keyring(keys_file, tell), Sightings()
        self.feed = Feed(self.keyring, sightings, self._resting)
        self._reader = Reader(core, self.feed.supports, drills=drills, verifier=verifier)
        self.api = BouncerApi(self.feed, self.keyring, self.metrics, clock, limits, lambda: topic.stale_since_ms, tell)
        self.enforcer = Enforcer(
            name,
            WatchedTopic(topic, sightings.taken, self.keyring.look),
            self._reader,
            self.feed,
            acknowledger,
            clock,
            tell,
            later=self._done,
        )
        self.metrics.watch(self.feed.sizes, self._stale_s)
        self.metrics.registry.register(EdgeMetrics(self._reader, topic, None, clock))

    def run(
        self, listen: tuple[str, int] | socket.socket, health_port: int, stop: Callable[[], bool], *, tls: Tls | None = None
    ) -> None:
        """Answer bouncers and follow the topic until told to stop.

        Raises:
            BrokerError: the topic cannot be read at the start, or may not be read any longer.
            EdgeError: a port is taken.
        """
        server = self.serve(listen, health_port, tls=tls)

        def is_over() -> bool:
            server.check()
            return stop()

        try:
            self.enforcer.run(is_over)
        finally:
            server.stop()

    def serve(self, listen: tuple[str, int] | socket.socket, health_port: int, *, tls: Tls | None = None) -> BouncerServer:
        """Begin to answer, in a thread of its own.

        Raises:
            EdgeError: a port is taken.
        """
        server = BouncerServer(
            self.api, self.metrics, self._limits, self._tell, listen=listen, health_port=health_port, tls=tls
        )
        server.start()
        return server

    def _resting(self, now_ms: int) -> list[tuple[Subject, int]]:
        return self._reader.resting(now_ms)

    def _done(self) -> list[Done]:
        found = self.feed.done()
        for one in found:
            self.metrics.acknowledged(one.outcome)
        return found

    def _stale_s(self) -> float:
        since_ms = self._topic.stale_since_ms
        return 0.0 if since_ms is None else max(0, self._clock.now_ms() - since_ms) / 1000
