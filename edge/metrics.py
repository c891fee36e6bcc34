"""Health and metrics that every edge has. Labels are words of fixed lists: nothing comes from a record."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol

import orjson
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge.reader import Reader
from engine.clock import Clock
from schemas.errors import EdgeError

HEALTH_HOST = "127.0.0.1"


class Stales(Protocol):
    """Knows since when it hears nothing new."""

    stale_since_ms: int | None


class Counts(Protocol):
    """Knows what was acknowledged."""

    @property
    def outcomes(self) -> Mapping[str, int]:
        """By outcome."""
        ...

    @property
    def lost(self) -> int:
        """What the brokers did not take."""
        ...


class EdgeMetrics(Collector):
    """What a reader has counted, and what an edge has of its own (``more``): asked whenever somebody asks for the metrics."""

    def __init__(
        self, reader: Reader, topic: Stales, acknowledger: Counts | None, clock: Clock,
        more: Callable[[], Iterable[Metric]] = lambda: (),
    ) -> None:  # fmt: skip
        self._reader = reader
        self._topic = topic
        self._acknowledger = acknowledger
        self._clock = clock
        self._more = more

    def health(self) -> dict[str, object]:
        """``up`` once the topic has been read to its end, and since when nothing new is heard."""
        stale_since_ms = self._topic.stale_since_ms
        return {
            "status": "up" if self._reader.ready else "starting",
            "stale": stale_since_ms is not None,
            "stale_since": None if stale_since_ms is None else stale_since_ms // 1000,
        }

    def collect(self) -> Iterator[Metric]:
        """For a registry."""
        records = CounterMetricFamily(
            "floodwall_edge_records", "Records, by what became of them: refused_… by their signature.", labels=["outcome"]
        )
        for outcome, count in sorted(dict(self._reader.counts).items()):
            records.add_metric([outcome], count)
        yield records
        yield GaugeMetricFamily("floodwall_edge_in_force", "Targets with something in force.", value=len(self._reader.table))
        since_ms = self._topic.stale_since_ms
        stale_s = 0.0 if since_ms is None else max(0, self._clock.now_ms() - since_ms) / 1000
        yield GaugeMetricFamily("floodwall_edge_stale_seconds", "Since when the brokers are away; 0: there.", value=stale_s)
        if self._acknowledger is not None:
            said = CounterMetricFamily("floodwall_edge_acknowledged", "Acknowledgements, by outcome.", labels=["outcome"])
            for outcome, count in sorted(dict(self._acknowledger.outcomes).items()):
                said.add_metric([outcome], count)
            yield said
            yield CounterMetricFamily(
                "floodwall_edge_acknowledgements_lost", "Not taken by the brokers.", value=self._acknowledger.lost
            )
        yield from self._more()


class HealthServer:
    """Answers /health and /metrics on 127.0.0.1, in a thread of its own.

    Args:
        port: 0: any free one.

    Raises:
        EdgeError: the port is taken.
    """

    def __init__(self, port: int, metrics: EdgeMetrics) -> None:
        registry = CollectorRegistry()
        registry.register(metrics)
        pages: dict[str, Callable[[], tuple[int, str, bytes]]] = {
            "/metrics": lambda: (200, "text/plain; version=0.0.4", generate_latest(registry)),
            "/health": lambda: _health(metrics),
        }

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                page = pages.get(self.path)
                status, kind, body = page() if page is not None else (404, "text/plain", b"")
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Nobody needs a line for each scrape."""

        try:
            self._server = ThreadingHTTPServer((HEALTH_HOST, port), Handler)
        except OSError as error:
            raise EdgeError(f"expected port {port} on {HEALTH_HOST} to be free for us, got: {error.strerror}") from None
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def stop(self) -> None:
        """Answer no longer."""
        self._server.shutdown()
        self._server.server_close()


def _health(metrics: EdgeMetrics) -> tuple[int, str, bytes]:
    health = metrics.health()
    return 200 if health["status"] == "up" else 503, "application/json", orjson.dumps(health)
