"""``floodwall demo --kafka``: the same demo, with a real broker and real workers between the log and the edge."""

from __future__ import annotations

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
from edge.in_process import InProcessPoint
from edge.reader import Reader, Record
from edge.topic import EnforcementTopic
from engine.clock import Clock, SystemClock
from floodwall.demo_screen import SETTINGS, Plan, Story, perform, warm_up
from floodwall.notices import teller
from replay.produce import Shipped
from replay.ship import ship
from schemas.config import parse_prefixes
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


def run(seconds: float, seed: int, as_json: bool) -> int:
    """Play the demo; 0 when the honest clients were served again while the attack went on, else 1.

    Raises:
        BrokerError: Java or Maven is missing, or what was started does not work.
    """
    # Whoever ends us with a signal ends what we have started, too.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    fetch_jars(find_java(), _say)  # what is missing is said before anything takes long
    warm_up()  # once, and not in both workers at the same time
    clock = SystemClock()
    with tempfile.TemporaryDirectory(prefix="floodwall-demo-") as name:
        folder = Path(name)
        with deploy(folder, SETTINGS, clock, _say) as deployment:
            log = folder / "access.log"
            log.touch()
            return _play(Plan(seconds, seed, as_json, TITLE, TRY_NEXT), log, deployment, clock)


def _play(plan: Plan, log: Path, deployment: LocalDeployment, clock: Clock) -> int:
    """The log into its topic, the enforcement topic into the service."""
    config = deployment.config
    core = Prefixes(parse_prefixes(config.policy.allowlist_core, "policy.allowlist_core"))
    story, point = Story(), InProcessPoint(core)

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

    return perform(plan, Stage(log, point.decide), story, shipping, enforcing)


def _say(text: str) -> None:
    print(f"floodwall: {text}", file=sys.stderr, flush=True)
