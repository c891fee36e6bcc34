"""The topic ``config`` in a worker that judges: read from its beginning to its end at the start, then followed.

A judge closes a second, and takes in rows of it, only when no change can come any more that holds from it or before. That
costs no waiting: a change names a second that is later than its record by the lateness and `DELAY_S_MIN`. So once the topic
has been read up to a moment, whatever is written afterwards holds from that moment + lateness on at the earliest, even if the
clocks of brokers and judges differ by `CLOCKS_S_MAX`; and no event is further ahead than the lateness.
"""

from __future__ import annotations

import logging
from collections import deque

from engine.clock import Clock
from engine.config_chain import ConfigChain
from engine.post import JudgePost
from schemas.config import Config
from schemas.config_change import CLOCKS_S_MAX, DELAY_S_MIN, ConfigStatus, encode_status
from schemas.errors import ConfigError
from schemas.topics import CONFIG, CONFIG_STATUS
from streams.logs import say
from streams.metrics import Metrics
from streams.producers import Outgoing
from streams.side_topic import SideTopic

NEWS_MAX = 1000


class ConfigTopic:
    """The history of the configuration, one to a process."""

    def __init__(self, config: Config, clock: Clock, metrics: Metrics) -> None:
        self._config, self._metrics = config, metrics
        self._topic = SideTopic(config, config.kafka.topic_prefix + CONFIG, self._take, clock)
        self._status = config.kafka.topic_prefix + CONFIG_STATUS
        self._news: deque[ConfigStatus] = deque(maxlen=NEWS_MAX)
        self.chain = ConfigChain(config)

    @property
    def known_to(self) -> int:
        """The last second that no change can concern which has not been read."""
        return self._topic.known_ms // 1000 + self._config.time.lateness_s + DELAY_S_MIN - CLOCKS_S_MAX - 1

    async def read_to_end(self) -> None:
        """Everything that is there, before anything is judged; what was written before has been told."""
        is_first = not self._topic.is_read
        await self._topic.read_to_end()
        self._news.clear()
        if is_first:
            say("config_read", version=self.chain.last.version, changes=len(self.chain.accepted))

    async def run(self) -> None:
        """Follow it, for ever."""
        await self._topic.run()

    def _take(self, offset: int, value: bytes, at_ms: int) -> None:
        version = self.chain.last.version
        try:
            accepted = self.chain.offer(value, offset=offset, at_ms=at_ms)
        except ConfigError as error:
            self._tell(ConfigStatus(section="", verdict="refused", offset=offset, version=version, why=str(error)))
            return
        change = accepted.change
        self._tell(
            ConfigStatus(
                section=change.section, verdict="accepted", offset=offset, version=accepted.standing.version,
                effective_tick=change.effective_tick, who=change.who,
            )
        )  # fmt: skip

    def _tell(self, status: ConfigStatus) -> None:
        self._news.append(status)
        self._metrics.config_changes.labels(status.verdict).inc()
        if self._topic.is_read:
            say(
                f"config_{status.verdict}", logging.WARNING if status.why else logging.INFO, offset=status.offset,
                version=status.version, section=status.section, tick=status.effective_tick, partition=status.partition,
                why=status.why,
            )  # fmt: skip

    def hear(self, post: JudgePost) -> None:
        """Tell a judge what has come since it was told last."""
        for accepted, since in post.hear(self.known_to):
            tick = accepted.change.effective_tick
            if since != tick:  # the clocks of the brokers or of a judge are wrong: other judges may have held to it
                self._tell(
                    ConfigStatus(
                        section=accepted.change.section, verdict="late", offset=accepted.offset,
                        version=accepted.standing.version, effective_tick=tick, partition=post.partition,
                        why=f"{since - 1} was decided already, it holds from {since} on: see to the clocks",
                    )
                )  # fmt: skip

    def messages(self, post: JudgePost) -> list[Outgoing]:
        """What is to be written about changes: what this judge partition did; and the first one's judge tells what was read."""
        found = []
        for tick, standing in post.take_applied():
            one = next(one for one in self.chain.accepted if one.standing is standing)
            found.append(
                ConfigStatus(
                    section=one.change.section, verdict="applied", offset=one.offset, version=standing.version,
                    effective_tick=tick, partition=post.partition,
                )
            )  # fmt: skip
            self._metrics.config_version.labels(str(post.partition)).set(standing.version)
            say("config_applied", partition=post.partition, version=standing.version, tick=tick)
        found += [news for news in self._news if (news.partition or 0) == post.partition]
        self._news = deque((news for news in self._news if news not in found), NEWS_MAX)
        return [Outgoing(self._status, encode_status(status), status.section.encode()) for status in found]

    async def stop(self) -> None:
        """Leave the brokers."""
        await self._topic.stop()
