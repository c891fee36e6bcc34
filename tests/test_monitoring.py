"""The dashboard and the alerts load, and every metric and label they name is one that the code has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from edge.bouncer_metrics import FeedMetrics
from edge.metrics import EdgeMetrics
from edge.nft import NftTable
from edge.nft_rules import Throttle
from edge.overview_metrics import OverviewMetrics
from edge.webhook import WebhookPoint
from streams.metrics import Metrics
from tests.edge_parts import HandClock
from tests.mitigations import ready_reader

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
RULES = DEPLOY / "prometheus" / "floodwall.rules.yml"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "floodwall.json").read_text())
ALERTS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
NAME = re.compile(r"\bfloodwall_[a-z_]+")


def names_of(registry: CollectorRegistry) -> dict[str, set[str]]:
    """Every name that a scrape may have, with its labels."""
    found: dict[str, set[str]] = {}
    for collector in list(registry._collector_to_names):
        labels = set(getattr(collector, "_labelnames", ()))
        for name in registry._collector_to_names[collector]:
            found[name] = labels | ({"le"} if name.endswith("_bucket") else set())
    return found


def of_edges() -> dict[str, set[str]]:
    """What processes of edges say, which is made when somebody asks; a scrape adds which process it was."""
    nft = NftTable("floodwall", (), Throttle(), show=lambda batch: None)

    def more() -> Iterator[Metric]:
        yield from nft.metrics()
        yield from WebhookPoint.metrics(SimpleNamespace(couriers=[]))  # type: ignore[arg-type]

    there, answered = SimpleNamespace(stale_since_ms=None), SimpleNamespace(outcomes={}, lost=0)
    found: dict[str, set[str]] = {}
    for metric in EdgeMetrics(ready_reader(), there, answered, HandClock(), more).collect():
        assert isinstance(metric, CounterMetricFamily | GaugeMetricFamily)
        found[metric.name + ("_total" if metric.type == "counter" else "")] = {"instance", *metric._labelnames}
    return found


def known() -> dict[str, set[str]]:
    feed = FeedMetrics()
    feed.watch(lambda: {"ip": 0}, lambda: 0.0)
    found = of_edges()
    for registry in (Metrics().registry, feed.registry, OverviewMetrics().registry):
        found |= names_of(registry)
    return found


def expressions() -> list[tuple[str, str]]:
    """(where it stands, expression)."""
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    shown = [(panel["title"], target["expr"]) for panel in panels for target in panel["targets"]]
    return [*shown, *((alert["alert"], alert["expr"]) for alert in ALERTS)]


@pytest.mark.parametrize(("where", "expression"), expressions(), ids=lambda text: re.sub(r"\W+", "_", text)[:50])
def test_every_metric_and_label_of_dashboard_and_alerts_is_one_of_ours(where: str, expression: str) -> None:
    metrics = known()
    named = NAME.findall(expression)
    assert set(named) <= metrics.keys(), where
    labels = {label for name in named for label in metrics[name]}
    grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
    matched = set(re.findall(r"[{,]\s*(\w+)\s*=", expression))
    assert grouped | matched <= labels, where
    assert expression.count("(") == expression.count(")")


def test_legends_and_summaries_name_labels_that_are_left() -> None:
    metrics = known()
    texts = [
        (target["expr"], target["legendFormat"])
        for panel in DASHBOARD["panels"] if panel["type"] != "row" for target in panel["targets"]
    ]  # fmt: skip
    texts += [(alert["expr"], alert["annotations"]["summary"]) for alert in ALERTS]
    for expression, text in texts:
        groups = re.findall(r"by \(([^)]*)\)", expression)
        labels = {label.strip() for group in groups for label in group.split(",")}
        if not groups:
            labels = {label for name in NAME.findall(expression) for label in metrics[name]}
        used = set(re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", text)) - {"value"}
        assert used <= labels, (expression, text)


def test_every_metric_that_somebody_has_to_look_at_is_somewhere() -> None:
    shown = {name for _, expression in expressions() for name in NAME.findall(expression)}
    shown = {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in shown}
    counted = {re.sub(r"_(total|bucket|count|sum|created)$", "", name) for name in known()}
    left_out = {
        "floodwall_position", "floodwall_feed_acknowledged", "floodwall_feed_answers", "floodwall_feed_decisions",
        "floodwall_feed_connections", "floodwall_feed_refused_connections",
    }  # fmt: skip
    assert counted - shown == left_out


def test_somebody_hears_when_alerting_itself_is_dead() -> None:
    watchdog = next(alert for alert in ALERTS if alert["alert"] == "FloodwallWatchdog")
    assert watchdog["expr"] == "vector(1)"
    names = [alert["alert"] for alert in ALERTS]
    assert len(set(names)) == len(names)
    assert {"FloodwallDecidesNothing", "FloodwallJudgesGone", "FloodwallEdgeSilent"} <= set(names)
    for alert in ALERTS:
        assert alert["labels"]["severity"] in ("critical", "warning", "info", "none")
    text = (DEPLOY.parent / "docs" / "monitoring.md").read_text()
    assert [name for name in names if name not in text] == []


def test_panels_do_not_overlap_and_have_words() -> None:
    places = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & places, panel["title"]
        places |= cells
        assert panel["type"] == "row" or panel["description"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_takes_rules_and_configuration() -> None:
    folder = RULES.parent
    for words in (
        ("check", "rules", RULES), ("check", "config", folder / "prometheus.yml"),
        ("test", "rules", folder / "floodwall.tests.yml"),
    ):  # fmt: skip
        done = subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
