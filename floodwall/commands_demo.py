"""``floodwall demo``: puts the service, the engine and the edge together in one process."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from drills.demo_network import Loopback
from drills.demo_service import Stage
from edge.in_process import InProcessEdge
from engine.clock import SystemClock
from floodwall.demo_screen import SERVICE, Plan, Story, perform, settings_at, warm_up
from replay.follow import watch
from replay.sink import Sink
from schemas.config import parse_config

if TYPE_CHECKING:
    from engine.outbox import Decisions

TITLE = "floodwall demo"
TRY_NEXT = "floodwall replay /var/log/nginx/access.log"


class _EdgeSink(Sink):
    """Hands every mitigation to the edge as it is made."""

    def __init__(self, edge: InProcessEdge, story: Story) -> None:
        super().__init__()
        self._edge = edge
        self._story = story

    def write(self, decisions: Decisions) -> None:
        super().write(decisions)
        for mitigation in decisions.mitigations:
            self._edge.apply(mitigation)
            self._story.hear(mitigation)


def run(seconds: float, seed: int, as_json: bool) -> int:
    """Play the demo; 0 when the honest clients were served again while the attack went on, else 1."""
    network = Loopback()
    config = parse_config(settings_at(network.proxy_depth))
    warm_up()
    story, edge = Story(), InProcessEdge(config.policy.allowlist_core)
    with tempfile.TemporaryDirectory(prefix="floodwall-demo-") as folder:
        log = Path(folder) / "access.log"
        log.touch()

        def follow(stop: Callable[[], bool]) -> None:
            sink = _EdgeSink(edge, story)
            watch(
                config, str(log), sink, SystemClock(), from_start=True, stop=stop,
                tell=lambda engine: story.count(lambda: engine.account().events),
            )  # fmt: skip

        plan = Plan(seconds, seed, as_json, TITLE, TRY_NEXT, SERVICE)
        return perform(plan, Stage(log, network, edge.decide), story, follow)
