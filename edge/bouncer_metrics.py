"""Metrics of the feed. Labels are names that an operator gave to keys, and words of lists: none comes from a request."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from schemas.acknowledgement import Outcome

REPORTED = ("active_decisions", "dropped", "processed")
"""What bouncers report that is kept; whatever else they say is counted as ``other``."""
UNITS = ("byte", "ip", "packet", "request")
SUMMED = ("dropped", "processed")
"""Reported for the time since the last report; the others as they stand."""


class _Item(msgspec.Struct, gc=False):
    name: str
    value: float
    unit: str = ""


class _Metrics(msgspec.Struct, gc=False):
    items: list[_Item] = []


class _Component(msgspec.Struct, gc=False):
    metrics: list[_Metrics] = []


class UsageReport(msgspec.Struct, gc=False):
    """What a bouncer posts; everything that is not needed is skipped."""

    remediation_components: list[_Component]


class FeedMetrics:
    """All metrics of one feed, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "floodwall_feed_requests", "Requests, by path and status.", ["path", "status"], registry=self.registry
        )
        self.answers = Counter(
            "floodwall_feed_answers", "Answers to streams: arrived, or lost.", ["bouncer", "outcome"], registry=self.registry
        )
        self.decisions = Counter(
            "floodwall_feed_decisions", "Decisions in answers that arrived.", ["bouncer", "list"], registry=self.registry
        )
        self.refused_keys = Counter("floodwall_feed_refused_keys", "Requests without a key of ours.", registry=self.registry)
        self.refused_connections = Counter(
            "floodwall_feed_refused_connections", "Past the bounds.", ["bound"], registry=self.registry
        )
        self.connections = Gauge("floodwall_feed_connections", "Open now.", registry=self.registry)
        self._acknowledged = Counter("floodwall_feed_acknowledged", "By outcome.", ["outcome"], registry=self.registry)
        self._last_pull = Gauge(
            "floodwall_feed_last_pull_seconds",
            "Unix time of the last answer that arrived.",
            ["bouncer"],
            registry=self.registry,
        )
        self._usage = Gauge(
            "floodwall_bouncer_usage", "As bouncers report it.", ["bouncer", "name", "unit"], registry=self.registry
        )

    def watch(self, sizes: Callable[[], Mapping[str, int]], stale_s: Callable[[], float]) -> None:
        """Ask for these whenever somebody asks for the metrics."""
        offered = Gauge("floodwall_feed_offered", "Places with a decision now.", ["view"], registry=self.registry)
        for view in sizes():
            offered.labels(view).set_function(lambda view=view: sizes()[view])  # type: ignore[misc]
        stale = Gauge(
            "floodwall_feed_stale_seconds", "Since when the brokers are away; 0: they are there.", registry=self.registry
        )
        stale.set_function(stale_s)

    def arrived(self, bouncer: str, new: int, deleted: int, now_ms: int) -> None:
        """An answer has arrived."""
        self.answers.labels(bouncer, "arrived").inc()
        self.decisions.labels(bouncer, "new").inc(new)
        self.decisions.labels(bouncer, "deleted").inc(deleted)
        self._last_pull.labels(bouncer).set(now_ms / 1000)

    def acknowledged(self, outcome: Outcome) -> None:
        """Something became of a mitigation."""
        self._acknowledged.labels(outcome).inc()

    def reported(self, bouncer: str, report: UsageReport) -> None:
        """Take in what a bouncer says of itself."""
        sums: dict[tuple[str, str], float] = {}
        for component in report.remediation_components[:1]:
            for item in (item for metrics in component.metrics for item in metrics.items):
                name = item.name if item.name in REPORTED else "other"
                unit = item.unit if item.unit in UNITS else "other"
                if math.isfinite(item.value) and item.value >= 0:
                    sums[name, unit] = sums.get((name, unit), 0.0) + item.value
        for (name, unit), value in sums.items():
            gauge = self._usage.labels(bouncer, name, unit)
            if name in SUMMED:
                gauge.inc(value)
            else:
                gauge.set(value)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
