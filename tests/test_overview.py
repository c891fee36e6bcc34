"""What is in force and held, how long everything took, and which edges have stopped answering; without a broker."""

from __future__ import annotations

from typing import Any

from prometheus_client import generate_latest

from edge.overview import ANSWER_S_MAX, EDGES_MAX, Overview
from edge.overview_metrics import OverviewMetrics
from schemas.acknowledgement import Acknowledgement, Outcome, encode_acknowledgement
from schemas.mitigation import Evidence, Mitigation, Target
from tests.mitigations import CORE, on_topic, record

NOW = 1000
NOW_MS = 1000 * NOW


def answer(edge: str = "web-1", outcome: Outcome = "applied", at_ms: int = NOW_MS + 700, of: str = "x") -> bytes:
    target = Target(type="ip", value="203.0.113.7")
    return encode_acknowledgement(
        Acknowledgement(edge=edge, id=of, target=target, action="block", outcome=outcome, applied_at_ms=at_ms)
    )


def take(overview: Overview, mitigation: Mitigation, at_ms: int) -> None:
    overview.take(*on_topic(mitigation), at_ms)


def made(*, since_ms: int = 0, **options: Any) -> Overview:
    overview = Overview(CORE, since_ms, **options)
    overview.reader.begin({})
    return overview


def test_the_three_times_of_a_mitigation() -> None:
    heard: list[tuple[str, str, float]] = []
    overview = made(heard=lambda *told: heard.append(told))
    take(overview, record(tick=NOW, stage="early"), NOW_MS + 400)
    overview.take_answer(answer(at_ms=NOW_MS + 650))
    take(overview, record(tick=NOW, stage="final"), NOW_MS + 11_200)
    overview.take_answer(answer(at_ms=NOW_MS + 11_300))  # an edge is measured by its first word
    assert heard == [("detect", "", 0.4), ("enforce", "web-1", 0.25), ("decide", "", 11.2)]
    summary = overview.summary(NOW_MS + 20_000)
    assert summary.detect is not None
    assert (summary.detect.count, summary.detect.median_s, summary.in_force) == (1, 0.4, {"throttle": 1})


def test_an_answer_may_be_read_before_its_record_and_clocks_may_differ() -> None:
    overview = made()
    overview.take_answer(answer(at_ms=NOW_MS + 100))
    take(overview, record(tick=NOW, stage="early"), NOW_MS + 400)
    assert overview.timings.known["x"].enforce_s("web-1") == 0.0


def test_what_came_before_is_not_measured() -> None:
    heard: list[str] = []
    overview = made(since_ms=NOW_MS, heard=lambda stretch, edge, seconds: heard.append(stretch))
    take(overview, record(tick=NOW - 5, expires_at=NOW + 60), NOW_MS - 1)
    overview.take_answer(answer(at_ms=NOW_MS - 1))
    assert heard == []
    assert overview.timings.known == {}
    assert overview.summary(NOW_MS).in_force == {"throttle": 1}


def test_an_edge_that_has_stopped_answering_is_missed() -> None:
    overview = made()
    take(overview, record(tick=NOW, expires_at=NOW + 600), NOW_MS + 400)
    overview.take_answer(answer())
    overview.take_answer(answer("web-2", of="another"))
    take(overview, record(tick=NOW, value="203.0.113.8", id="y", expires_at=NOW + 600), NOW_MS + 400)
    overview.take_answer(answer("web-1", "unsupported", of="y"))
    soon, later = NOW_MS + 10_000, NOW_MS + 1000 * ANSWER_S_MAX + 1000
    assert {one.edge: one.unanswered for one in overview.summary(soon).edges} == {"web-1": 0, "web-2": 0}
    edges = {one.edge: one for one in overview.summary(later).edges}
    assert {name: one.unanswered for name, one in edges.items()} == {"web-1": 0, "web-2": 2}
    assert edges["web-1"].outcomes == {"applied": 1, "unsupported": 1}
    assert edges["web-2"].enforce is None


def test_what_is_held_says_by_which_budget_until_it_expires_or_is_replaced() -> None:
    overview = made()
    because = Evidence(features={"held": "active_max", "requests": 3})
    take(overview, record(state="held", evidence=because, expires_at=NOW + 60), NOW_MS)
    take(overview, record(value="203.0.113.8", state="held", expires_at=NOW + 30), NOW_MS)
    take(overview, record(value="203.0.113.9", dry_run=True, expires_at=NOW + 60), NOW_MS)
    assert overview.summary(NOW_MS).held == {"active_max": 1, "not said": 1}
    assert overview.summary(NOW_MS + 31_000).held == {"active_max": 1}
    assert overview.summary(NOW_MS).dry_run == 1
    take(overview, record(stage="final", expires_at=NOW + 60), NOW_MS)
    assert (overview.summary(NOW_MS).held, overview.summary(NOW_MS).in_force) == ({}, {"throttle": 1})


def test_nonsense_is_skipped_and_edges_are_bounded() -> None:
    overview = made()
    for value in (None, b"", b"{", b"[]", b"null", answer()[:-1]):
        overview.take(b"k", value, NOW_MS)
        overview.take_answer(value)
    for number in range(EDGES_MAX + 5):
        overview.take_answer(answer(f"edge-{number}"))
    assert len(overview.answers) == EDGES_MAX + 1
    assert sum(overview.answers["other"].values()) == 5


def test_metrics_say_the_same() -> None:
    metrics = OverviewMetrics()
    overview = made(heard=metrics.heard)
    take(overview, record(tick=NOW, stage="early", expires_at=NOW + 60), NOW_MS + 400)
    overview.take_answer(answer())
    for _ in range(2):  # shown again, nothing is counted twice
        metrics.show(overview.summary(NOW_MS + 1000), overview, NOW_MS)
    text = generate_latest(metrics.registry).decode()
    for line in (
        'floodwall_time_to_detect_seconds_bucket{le="0.5"} 1.0', "floodwall_time_to_detect_seconds_sum 0.4",
        'floodwall_time_to_enforce_seconds_count{edge="web-1"} 1.0', 'floodwall_in_force{action="throttle"} 1.0',
        'floodwall_edges_answers_total{edge="web-1",outcome="applied"} 1.0', 'floodwall_edges_unanswered{edge="web-1"} 0.0',
        "floodwall_overview_heard_seconds 1000.0",
    ):  # fmt: skip
        assert line in text, text
    metrics.show(overview.summary(NOW_MS + 90_000), overview, NOW_MS)
    assert 'floodwall_in_force{action="throttle"} 0.0' in generate_latest(metrics.registry).decode()
