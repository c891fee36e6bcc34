"""The overview as Prometheus metrics: what is in force, what is held, how long everything took, which edges answer.

Labels are words of lists, names of budgets, and the names that operators gave to edges, at most 64 of them.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from edge.overview import Overview, Summary
from edge.timing import Stretch

_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 15.0, 30.0, 60.0, 300.0)


class OverviewMetrics:
    """In a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._detect = Histogram(
            "floodwall_time_to_detect_seconds",
            "From the second in which a limit was crossed to the first record on the enforcement topic.",
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self._decide = Histogram(
            "floodwall_time_to_decide_seconds",
            "From that second to the final record.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._enforce = Histogram(
            "floodwall_time_to_enforce_seconds", "From the first record to the edge's acknowledgement.", ["edge"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self._in_force = Gauge("floodwall_in_force", "Targets with something in force.", ["action"], registry=self.registry)
        self._held = Gauge("floodwall_held", "Mitigations held back, by budget.", ["budget"], registry=self.registry)
        self._reported = Gauge("floodwall_reported_only", "Not to be enforced.", ["why"], registry=self.registry)
        self._unanswered = Gauge(
            "floodwall_edges_unanswered", "In force, and the edge has said nothing for 30 s.", ["edge"], registry=self.registry
        )
        self._last_answer = Gauge(
            "floodwall_edges_last_answer_seconds", "Unix time of its last word.", ["edge"], registry=self.registry
        )
        self._answers = Counter("floodwall_edges_answers", "Acknowledgements.", ["edge", "outcome"], registry=self.registry)
        self._heard = Gauge(
            "floodwall_overview_heard_seconds", "Unix time at which the brokers were last heard of.", registry=self.registry
        )
        self._labels: dict[int, set[str]] = {}
        self._told: dict[tuple[str, str], int] = {}

    def heard(self, stretch: Stretch, edge: str, seconds: float) -> None:
        """A time is known; for `edge.timing.Timings`."""
        if stretch == "enforce":
            self._enforce.labels(edge).observe(seconds)
        else:
            (self._detect if stretch == "detect" else self._decide).observe(seconds)

    def show(self, summary: Summary, overview: Overview, heard_ms: int) -> None:
        """How everything stands now."""
        for gauge, values in (
            (self._in_force, summary.in_force), (self._held, summary.held),
            (self._reported, {"dry_run": summary.dry_run, "drill": summary.drills}),
            (self._unanswered, {one.edge: one.unanswered for one in summary.edges}),
            (self._last_answer, {one.edge: one.last_ms / 1000 for one in summary.edges}),
        ):  # fmt: skip
            known = self._labels.setdefault(id(gauge), set())
            known.update(values)
            for label in known:  # what is not there any more is nought, and never missing for a moment
                gauge.labels(label).set(values.get(label, 0))
        for edge, counts in overview.answers.items():
            for outcome, count in counts.items():
                self._answers.labels(edge, outcome).inc(count - self._told.get((edge, outcome), 0))
                self._told[edge, outcome] = count
        self._heard.set(heard_ms / 1000)
