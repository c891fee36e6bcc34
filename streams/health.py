"""Health that means progress, and metrics, on 127.0.0.1 only.

Healthy: for every partition that is read, the broker has answered lately, and either there is nothing to read or the position
moves. A worker that has not been healthy for too long leaves, so that it is never alive and idle.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from aiohttp import web
from faust.types import TP

from engine.clock import Clock
from schemas.errors import BrokerError
from streams.leaving import leave
from streams.logs import say
from streams.metrics import Metrics
from streams.transport import Place

HOST = "127.0.0.1"
LOOK_S = 1.0
STALL_S = 30.0
"""Neither progress nor the end of a partition for so long: leave, and let the supervisor start again."""
START_S = 90.0
"""As long may it take until the group has said what is ours."""


class Watched(Protocol):
    """What is asked of a station."""

    def place(self, tp: TP) -> Place:
        """Where the consumer stands in a partition."""
        ...

    def held(self) -> dict[TP, bool]:
        """The partitions that are ours, and whether each is being read now."""
        ...

    def settled(self) -> bool:
        """The group has said what is ours, be it nothing, and it has been taken over."""
        ...


class Health:
    """Looks once a second."""

    def __init__(self, role: str, station: Watched, metrics: Metrics, clock: Clock) -> None:
        self._role, self._station, self._metrics, self._clock = role, station, metrics, clock
        self._positions: dict[TP, int | None] = {}
        self._moved_s: dict[TP, float] = {}

    def look(self, now_s: float) -> dict[str, float]:
        """Seconds without progress, of the partitions that have some to make."""
        stalled: dict[str, float] = {}
        held = self._station.held()
        for tp in self._moved_s.keys() - held.keys():
            del self._moved_s[tp], self._positions[tp]
        for tp, is_read in held.items():
            place = self._station.place(tp)
            heard = place.heard_ms is not None and self._clock.now_ms() - place.heard_ms < 1000 * STALL_S / 3
            fine = not is_read or (heard and (place.at_end or place.position != self._positions.get(tp)))
            if fine or tp not in self._moved_s:
                self._moved_s[tp] = now_s
            self._positions[tp] = place.position
            if place.position is not None and place.end is not None:
                self._metrics.lag.labels(tp.topic, str(tp.partition)).set(max(0, place.end - place.position))
            since = now_s - self._moved_s[tp]
            if since >= STALL_S / 3:
                stalled[f"{tp.topic}-{tp.partition}"] = since
        return stalled

    def excuse(self, seconds: float) -> None:
        """Nobody could make progress meanwhile: the loop itself stood still."""
        for tp in self._moved_s:
            self._moved_s[tp] += seconds

    async def watch(self) -> None:
        """Look for ever; leave when there has been no progress for too long."""
        loop = asyncio.get_running_loop()
        settled_s = now_s = loop.time()
        while True:
            await asyncio.sleep(LOOK_S)
            before_s, now_s = now_s, loop.time()
            if now_s - before_s > 2 * LOOK_S:  # a kernel of a detector that is asked for the first time is compiled, say
                self.excuse(now_s - before_s - LOOK_S)
            stalled = self.look(now_s)
            if self._station.settled():
                settled_s = now_s
            if now_s - settled_s > START_S:
                leave(BrokerError(f"expected the consumer group to let us in within {START_S:.0f} s, it did not"), "joining")
            for name, seconds in stalled.items():
                if seconds >= STALL_S:
                    leave(BrokerError(f"expected progress in {name}, there was none for {seconds:.0f} s"), "watching")

    async def serve(self, port: int) -> int:
        """Answer /health and /metrics; returns the port."""
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._text)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, HOST, port)
        try:
            await site.start()
        except OSError as error:
            leave(
                BrokerError(f"expected port {port} on {HOST} (kafka.health_port) to be free, got: {error.strerror}"), "starting"
            )
        address = runner.addresses[0]
        say("listening", role=self._role, health=f"http://{HOST}:{address[1]}/health")
        return int(address[1])

    async def _health(self, request: web.Request) -> web.Response:
        stalled = self.look(asyncio.get_running_loop().time())
        held = [f"{tp.topic}-{tp.partition}" for tp in sorted(self._station.held())]
        joined = self._station.settled()
        healthy = joined and not stalled
        body = {"role": self._role, "healthy": healthy, "joined": joined, "partitions": held, "stalled": stalled}
        if not healthy:
            say("unhealthy", logging.DEBUG, stalled=len(stalled))
        return web.json_response(body, status=200 if healthy else 503)

    async def _text(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), content_type="text/plain")
