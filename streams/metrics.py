"""Prometheus metrics of a worker. No label comes from traffic: topics and partitions are the deployment's, reasons are a list.

The counters start at zero with the process. What must be exact across crashes is the ledger that is committed with each
source partition's offset (`engine.source_post.Ledger`), which they follow.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from engine.judge import Judge
from engine.source_post import Ledger

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """All metrics of one process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._records = Counter(
            "floodwall_records", "Messages read, by what became of them.", ["topic", "outcome"], registry=self.registry
        )
        self._events = Counter("floodwall_events", "Events, counted or late.", ["topic", "outcome"], registry=self.registry)
        self.poison = Counter("floodwall_poison", "Messages that cannot be read.", ["reason"], registry=self.registry)
        self.dead_letters = Counter(
            "floodwall_dead_letters", "Written, or past the bound.", ["outcome"], registry=self.registry
        )
        self._truncated = Counter("floodwall_rows_truncated", "Rows that the bound left out.", registry=self.registry)
        self._missing = Counter(
            "floodwall_offsets_missing", "Offsets thrown away before they were read.", registry=self.registry
        )
        self.flush_seconds = Histogram(
            "floodwall_flush_seconds", "One transaction of one source partition.", buckets=_SECONDS, registry=self.registry
        )
        self.decode_seconds = Histogram(
            "floodwall_decode_seconds", "Decoding and grouping for one flush.", buckets=_SECONDS, registry=self.registry
        )
        self.take_over_seconds = Histogram(
            "floodwall_take_over_seconds", "From assignment to work.", buckets=_SECONDS, registry=self.registry
        )
        self.position = Gauge("floodwall_position", "The next offset.", ["topic", "partition"], registry=self.registry)
        self.lag = Gauge("floodwall_lag", "Messages behind the end.", ["topic", "partition"], registry=self.registry)
        self.paused = Gauge("floodwall_partitions_paused", "Too far ahead of the slowest.", registry=self.registry)
        self.fenced = Counter("floodwall_fenced", "Flushes refused: another has the partition.", registry=self.registry)
        self.tallies = Counter("floodwall_tallies", "Tallies judged.", registry=self.registry)
        self.decisions = Counter("floodwall_decisions", "Published.", ["kind", "stage"], registry=self.registry)
        self.records_written = Counter("floodwall_state_records", "Where a judge stands, written.", registry=self.registry)
        self.cold_starts = Counter("floodwall_cold_starts", "Judge partitions without a record.", registry=self.registry)
        self.closed_tick = Gauge("floodwall_closed_tick", "The last decided second.", ["partition"], registry=self.registry)
        self.leaked_records = Counter(
            "floodwall_leaked_records", "Of leaked keys, by what became of them.", ["outcome"], registry=self.registry
        )
        self.leaked_keys = Gauge("floodwall_leaked_keys", "Fingerprints on the list.", registry=self.registry)
        self.feedback = Counter(
            "floodwall_feedback", "Records read, by what became of them.", ["outcome"], registry=self.registry
        )
        self._model = Gauge(
            "floodwall_model_cold",
            "1: a learned detector does not know enough yet.",
            ["partition", "model"],
            registry=self.registry,
        )
        self.config_changes = Counter(
            "floodwall_config_changes", "Changes of the configuration, by what became of them.", ["verdict"],
            registry=self.registry,
        )  # fmt: skip
        self.config_version = Gauge(
            "floodwall_config_version", "The version that decides.", ["partition"], registry=self.registry
        )
        self._judged = Gauge("floodwall_judge", "What bounds left out.", ["partition", "what"], registry=self.registry)

    def follow(self, topic: str, before: Ledger, after: Ledger) -> None:
        """Add what a source partition's ledger has gained."""
        usable = (after.records - after.empty - after.poison) - (before.records - before.empty - before.poison)
        self._records.labels(topic, "events").inc(usable)
        self._records.labels(topic, "empty").inc(after.empty - before.empty)
        self._records.labels(topic, "poison").inc(after.poison - before.poison)
        self._events.labels(topic, "counted").inc(after.counted - before.counted)
        self._events.labels(topic, "late").inc(after.late - before.late)
        self._truncated.inc(after.truncated - before.truncated)
        self._missing.inc(after.missing - before.missing)
        self.dead_letters.labels("written").inc(after.dead_letters - before.dead_letters)
        self.dead_letters.labels("dropped").inc(after.dead_letters_dropped - before.dead_letters_dropped)

    def judged(self, partition: int, judge: Judge) -> None:
        """How a judge partition stands."""
        self.closed_tick.labels(str(partition)).set(max(0, judge.closed))
        for what, value in (
            ("stragglers", judge.stragglers), ("aged_out", judge.aged_out), ("truncated", judge.truncated),
            ("held", judge.policy.held), ("left_behind", judge.intake.left_behind), ("gaps", judge.intake.gaps),
            ("duplicates", judge.intake.duplicates), ("leaked_left_out", judge.leaked.left_out),
            ("feedback_late", judge.feedback.late), ("feedback_learned", judge.feedback.learned),
        ):  # fmt: skip
            self._judged.labels(str(partition), what).set(value)
        for name, detector in judge.learned.detectors.items():
            self._model.labels(str(partition), name).set(bool(detector.describe().get("cold")))

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
