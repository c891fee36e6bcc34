"""``floodwall demo --kafka``: the same demo, with a real broker and real workers between the log and the edge."""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from broker.connection import Connection
from broker.java import fetch_jars, find_java
from drills.demo_service import Stage
from drills.local_deployment import TOPIC, LocalDeployment, deploy
from edge.acknowledge import Acknowledger
from edge.enforce import Enforcer
from edge.reader import Reader, Record
from edge.topic import EnforcementTopic
from engine.clock import Clock, SystemClock
from floodwall.demo_scene import Scene, count_drops, set_up
from floodwall.demo_screen import Plan, Story, perform, settings_at, warm_up
from floodwall.notices import teller
from replay.produce import Shipped
from replay.ship import ship
from schemas.config import parse_config, parse_prefixes
from schemas.prefixes import Prefixes
from schemas.topics import ENFORCEMENT_ACKS, MITIGATIONS

EDGE = "demo"
TITLE = "floodwall demo --kafka"
TRY_NEXT = "floodwall broker up, and what docs/kafka.md does with it"


class _HeardTopic:
    """The enforcement topic; the story hears every record that the edge takes from it."""

    def __init__(self, topic: EnforcementTopic, story: Story) -> None:
        self._topic = topic
        self._story = story

    def open(self, reader: Reader) -> None:
        """As `EnforcementTopic.open`."""
        self._topic.open(reader)

    def feed(self, reader: Reader, wait_s: float) -> int:
        """As `EnforcementTopic.feed`."""
        return self._topic.feed(reader, wait_s, self._taken)

    def _taken(self, record: Record | None, value: bytes | None) -> None:
        if record is not None:
            self._story.hear(record)


def run(seconds: float, seed: int, as_json: bool, nft: bool | None = None) -> int:
    """Play the demo; 0 when the honest clients were served again while the attack went on, else 1.

    Args:
        nft: nftables has to enforce, must not, or (None) does if it may.

    Raises:
        BrokerError: Java or Maven is missing, or what was started does not work.
        EdgeError: nftables has to enforce, and may not.
    """
    # Whoever ends us with a signal ends what we have started, too.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    # What is missing is said before anything takes long.
    with contextlib.ExitStack() as stack:
        scene, said = set_up(stack, nft, parse_config(settings_at(0)))
        fetch_jars(find_java(), _say)
        if said:
            _say(said)
        warm_up()  # once, and not in both workers at the same time
        clock = SystemClock()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="floodwall-demo-")))
        settings = settings_at(scene.network.proxy_depth)
        deployment = stack.enter_context(deploy(folder, settings, clock, _say))
        log = folder / "access.log"
        log.touch()
        return _play(Plan(seconds, seed, as_json, TITLE, TRY_NEXT, scene.enforced_by), log, scene, deployment, clock)


def _play(plan: Plan, log: Path, scene: Scene, deployment: LocalDeployment, clock: Clock) -> int:
    """The log into its topic, the enforcement topic into what enforces."""
    config, point = deployment.config, scene.point
    core = Prefixes(parse_prefixes(config.policy.allowlist_core, "policy.allowlist_core"))
    story, stage = Story(), Stage(log, scene.network, scene.admit)

    def tell(shipped: Shipped) -> None:
        deployment.check()
        story.count(deployment.events)

    def shipping(stop: Callable[[], bool]) -> None:
        ship(config, log, TOPIC, clock, stop, tell)

    def enforcing(stop: Callable[[], bool]) -> None:
        connection, said = Connection(config.kafka), teller("edge", as_json=False)
        topic = EnforcementTopic(connection, config.kafka.topic_prefix + MITIGATIONS, clock, said)
        acknowledger = Acknowledger(connection, config.kafka.topic_prefix + ENFORCEMENT_ACKS, EDGE, said)
        try:
            reader = Reader(core, point.supports)
            Enforcer(EDGE, _HeardTopic(topic, story), reader, point, acknowledger, clock, said).run(stop)
        finally:
            topic.close()
            acknowledger.close()

    def counting(stop: Callable[[], bool]) -> None:
        count_drops(scene, stage, story, clock, stop)

    return perform(plan, stage, story, shipping, enforcing, counting)


def _say(text: str) -> None:
    print(f"floodwall: {text}", file=sys.stderr, flush=True)
