"""The feedback topic in a worker: read to its end at the start, then followed: every judge reads all of it."""

from __future__ import annotations

import logging

from engine.feedback import Admission, FeedbackRecords
from schemas.config import Config
from schemas.feedback import Feedback
from schemas.topics import FEEDBACK
from streams.logs import say
from streams.metrics import Metrics
from streams.side_topic import SideTopic


class FeedbackTopic:
    """The records that count. One to a process."""

    def __init__(self, config: Config, metrics: Metrics) -> None:
        self._admission = Admission(config.policy)
        self._metrics = metrics
        self._topic = SideTopic(
            config, config.kafka.topic_prefix + FEEDBACK, lambda offset, value, _: self._take(offset, value)
        )  # fmt: skip
        self.records: list[tuple[int, Feedback]] = []
        """With their offsets, in that order."""

    async def read_to_end(self) -> None:
        """Before anything is judged: what is said of a second has to be known by then."""
        await self._topic.read_to_end()

    async def run(self) -> None:
        """Follow it, for ever."""
        await self._topic.run()

    async def stop(self) -> None:
        """Leave the brokers."""
        await self._topic.stop()

    def remind(self, feedback: FeedbackRecords) -> None:
        """Tell a judge that takes over whom the records that it has received keep from being mitigated."""
        if feedback.next > (self.records[-1][0] + 1 if self.records else 0):
            say("feedback_topic_is_new", logging.WARNING, expected=feedback.next)
            feedback.next = 0
        for offset, record in self.records:
            if offset < feedback.next:
                feedback.remember(record)

    def _take(self, offset: int, value: bytes) -> None:
        refused = self._admission.refused.copy()
        record = self._admission.read(value)
        outcome = "taken"
        if record is not None:
            self.records.append((offset, record))
        else:
            (outcome,) = self._admission.refused - refused
            say("feedback_refused", logging.WARNING, offset=offset, why=outcome)
        self._metrics.feedback.labels(outcome).inc()
