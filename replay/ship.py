"""A growing log into a topic: the simplest of shippers, for trying things on one machine.

It knows no rotation and remembers nothing between runs; a host of yours has a shipper that does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from broker.connection import Connection
from engine.clock import Clock
from replay.produce import Shipped, Shipper
from replay.sources import LineSource, make_buffer
from schemas.config import Config
from schemas.errors import SourceError

POLL_S = 0.05


def ship(
    config: Config,
    path: Path,
    topic: str,
    clock: Clock,
    stop: Callable[[], bool],
    tell: Callable[[Shipped], None] = lambda shipped: None,
) -> Shipped:
    """Send each line of ``path`` as a message of its own, from the file's beginning on and as it grows, until told to stop.

    ``tell`` is called after each look at the file.

    Raises:
        SourceError: the file cannot be read. BrokerError: Kafka cannot be reached, lacks the topic, or refuses.
    """
    line_max = config.input.record_bytes_max
    shipped = Shipped()
    shipper = Shipper(Connection(config.kafka), topic, 1, shipped)
    buffer = make_buffer(line_max)
    try:
        file = path.open("rb")
    except OSError as error:
        raise SourceError(f"expected a readable file at {path}, got: {error.strerror or error}") from None
    with file:
        source = LineSource(str(path), file, line_max=line_max)
        while not stop():
            length = source.read(buffer, last=False)
            shipped.refused += source.refusal is not None
            for line in buffer[:length].tobytes().split(b"\n"):
                if line:
                    shipper.add(line)
            tell(shipped)
            if not length:
                clock.wait(POLL_S)
    shipper.finish()
    return shipped
