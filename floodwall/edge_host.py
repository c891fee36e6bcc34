"""What every edge stands on: the enforcement topic, its acknowledgements, and the signals that end it. Imported late."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from broker.connection import Connection
from edge.acknowledge import Acknowledger
from edge.topic import EnforcementTopic
from engine.clock import SystemClock
from floodwall.guard import EXIT_INTERRUPTED
from floodwall.notices import teller
from schemas.config import Config
from schemas.topics import ENFORCEMENT_ACKS, MITIGATIONS


@dataclass(frozen=True, slots=True)
class EdgeHost:
    """An edge's surroundings, as long as it runs."""

    name: str
    """In acknowledgements"""
    topic: EnforcementTopic
    acknowledger: Acknowledger | None
    clock: SystemClock
    tell: Callable[[str, dict[str, object]], None]
    signals: list[int] = field(default_factory=list)

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
    clock, tell, name = SystemClock(), teller("edge", as_json=as_json), edge_id or socket.gethostname()
    topic = EnforcementTopic(connection, prefix + MITIGATIONS, clock, tell)
    acknowledger = Acknowledger(connection, prefix + ENFORCEMENT_ACKS, name, tell) if acknowledges else None
    host = EdgeHost(name, topic, acknowledger, clock, tell)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda came, _: host.signals.append(came))
    try:
        yield host
    finally:
        topic.close()
        if acknowledger is not None:
            acknowledger.close()
