"""What every edge stands on: the enforcement topic, its acknowledgements, and the signals that end it. Imported late."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from prometheus_client import Metric

from broker.connection import Connection
from broker.signing import Verifier, verifier_of
from edge.acknowledge import Acknowledger
from edge.metrics import HEALTH_HOST, EdgeMetrics, HealthServer
from edge.reader import Reader, Supports
from edge.topic import EnforcementTopic
from engine.clock import SystemClock
from floodwall.guard import EXIT_INTERRUPTED
from floodwall.notices import teller
from schemas.config import Config, parse_prefixes
from schemas.prefixes import Prefixes
from schemas.topics import ENFORCEMENT_ACKS, MITIGATIONS


@dataclass(slots=True)
class EdgeHost:
    """An edge's surroundings, as long as it runs."""

    name: str
    """In acknowledgements"""
    topic: EnforcementTopic
    acknowledger: Acknowledger | None
    clock: SystemClock
    tell: Callable[[str, dict[str, object]], None]
    core: Prefixes
    verifier: Verifier | None
    signals: list[int] = field(default_factory=list)
    health: HealthServer | None = None

    def reader(
        self, supports: Supports, health_port: int, *, drills: bool, more: Callable[[], Iterable[Metric]] = lambda: ()
    ) -> Reader:
        """A reader of the topic that believes whom the configuration trusts; from now on its health and metrics are answered,
        and ``ready`` says where.

        Raises:
            EdgeError: the port is taken.
        """
        reader = Reader(self.core, supports, drills=drills, verifier=self.verifier)
        self.health = health = HealthServer(health_port, EdgeMetrics(reader, self.topic, self.acknowledger, self.clock, more))
        tell = self.tell

        def telling(event: str, fields: dict[str, object]) -> None:
            where: dict[str, object] = {"health": f"http://{HEALTH_HOST}:{health.port}/health"} if event == "ready" else {}
            tell(event, fields | where)

        self.tell = telling
        return reader

    def is_stopping(self) -> bool:
        """Somebody has asked for the end."""
        return bool(self.signals)

    @property
    def exit_code(self) -> int:
        """After the end."""
        return EXIT_INTERRUPTED if signal.SIGINT in self.signals else 0


@contextmanager
def edge_host(config: Config, edge_id: str | None, *, as_json: bool, acknowledges: bool = True) -> Iterator[EdgeHost]:
    """Connect, and listen for signals; close everything at the end.

    Args:
        edge_id: none: the host's name.
    """
    connection, prefix = Connection(config.kafka), config.kafka.topic_prefix
    core = Prefixes(parse_prefixes(config.policy.allowlist_core, "policy.allowlist_core"))
    verifier = verifier_of(config, prefix + MITIGATIONS)
    clock, tell, name = SystemClock(), teller("edge", as_json=as_json), edge_id or socket.gethostname()
    topic = EnforcementTopic(connection, prefix + MITIGATIONS, clock, tell)
    acknowledger = Acknowledger(connection, prefix + ENFORCEMENT_ACKS, name, tell) if acknowledges else None
    host = EdgeHost(name, topic, acknowledger, clock, tell, core, verifier)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda came, _: host.signals.append(came))
    try:
        yield host
    finally:
        if host.health is not None:
            host.health.stop()
        topic.close()
        if acknowledger is not None:
            acknowledger.close()
