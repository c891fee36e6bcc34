"""The topic of leaked keys, followed by a worker that judges: one list for all of its judge partitions."""

from __future__ import annotations

import logging

from engine.leaked import LeakedList, reported_keys
from engine.seeds import Seeds
from schemas.config import Config
from schemas.leaked import decode_leak
from schemas.topics import LEAKED_KEYS
from streams.logs import say
from streams.metrics import Metrics
from streams.side_topic import SideTopic


class LeakedTopic:
    """Nothing is followed while the detector is off.

    Raises:
        ConfigError: the detector's file of reports is none.
    """

    def __init__(self, config: Config, seeds: Seeds, metrics: Metrics) -> None:
        self.list: LeakedList | None = reported_keys(config, seeds, ordered=False)
        self._metrics = metrics
        self._topic = SideTopic(
            config, config.kafka.topic_prefix + LEAKED_KEYS, lambda offset, value, _: self._take(offset, value)
        )  # fmt: skip

    async def read_to_end(self) -> None:
        """Before anything is judged."""
        if self.list is not None:
            await self._topic.read_to_end()

    async def run(self) -> None:
        """Follow it, for ever."""
        await self._topic.run()

    async def stop(self) -> None:
        """Leave the brokers."""
        await self._topic.stop()

    def _take(self, offset: int, value: bytes) -> None:
        assert self.list is not None
        try:
            outcome: str = self.list.take(decode_leak(value), offset)
        except ValueError as error:  # one that is broken must not stop the others
            outcome = "malformed"
            say("leaked_key_malformed", logging.WARNING, offset=offset, why=error)
        if outcome == "full":
            say("leaked_keys_full", logging.WARNING, offset=offset, held=self.list.count)
        self._metrics.leaked_records.labels(outcome).inc()
        self._metrics.leaked_keys.set(self.list.count)
