"""A drill into Kafka: a shipper for each stream, and the clock if it is to happen now."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from broker.connection import Connection
from drills.labels import Truth
from drills.render import lines
from drills.run import Drill
from engine.clock import Clock
from replay.produce import Shipped, Shipper
from schemas.config import Config
from schemas.errors import UsageError

STREAM_ENDS = (".", "-", "_")
"""What may stand between a prefix and the name of a stream in the name of a topic."""


def topics_of(config: Config, streams: Sequence[str]) -> dict[str, str]:
    """Stream -> the raw topic of the configuration that is called so, or ends in it.

    Raises:
        UsageError: there is none, or the workers on these topics would not mark what they decide as a drill.
    """
    if not config.policy.drill:
        raise UsageError(
            "expected --config with `drill = true` under [policy], which the workers on these topics have to run with, "
            "got none: docs/drills.md has one to copy"
        )
    found = {}
    for stream in streams:
        ends = [stream, *(end + stream for end in STREAM_ENDS)]
        fitting = [name for name in config.kafka.topics if name == stream or name.endswith(tuple(ends[1:]))]
        if len(fitting) != 1:
            raise UsageError(f"expected one of kafka.topics to be {stream} or to end in .{stream}, got {len(fitting)}")
        found[stream] = fitting[0]
    return found


def send_drill(
    drill: Drill, config: Config, streams: Sequence[str], access_format: str, *, per_message: int, clock: Clock | None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Truth, dict[str, Shipped]]:  # fmt: skip
    """Send each stream to its topic; what happened, and what went where.

    Args:
        clock: send each second when it is over; none: as quickly as Kafka takes it.

    Raises:
        BrokerError: Kafka cannot be reached, lacks a topic, or refuses. UsageError: as `topics_of`.
    """
    truth, shipped, shippers = Truth(drill), {}, {}
    for stream, topic in topics_of(config, streams).items():
        shipped[topic] = Shipped()
        shippers[stream] = Shipper(Connection(config.kafka), topic, per_message, shipped[topic])
    for block in drill.blocks():
        truth.note(block)
        cuts = [0, len(block)] if clock is None else _seconds(block["time_ms"])
        for first, last in itertools.pairwise(cuts):
            part = block[first:last]
            if clock is not None and len(part):
                clock.wait(max(0.0, (int(part["time_ms"][-1]) // 1000 + 1) - clock.now_ms() / 1000))
            for stream, shipper in shippers.items():
                for line in lines(part, drill.world.actors, stream, access_format):
                    shipper.add(line[:-1])
                if clock is not None:
                    shipper.send()
        if progress is not None:
            progress(len(block))
    for shipper in shippers.values():
        shipper.finish()
    return truth, shipped


def _seconds(times_ms: np.ndarray) -> list[int]:
    """Where each second of a block begins, and the block's end."""
    return [0, *(np.flatnonzero(np.diff(times_ms // 1000)) + 1).tolist(), len(times_ms)]
