"""The topic ``config`` in a worker that judges: read from its beginning to its end at the start, then followed.

A judge closes a second, and takes in rows of it, only when no change can come any more that holds from it or before. That
costs no waiting: a change names a second that is later than its record by the lateness and `DELAY_S_MIN`. So once the topic
has been read up to a moment, whatever is written afterwards holds from that moment + lateness on at the earliest, even if the
clocks of brokers and judges differ by `CLOCKS_S_MAX`; and no event is further ahead than the lateness.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from aiokafka import AIOKafkaConsumer, TopicPartition

from broker.settings import aiokafka_settings
from engine.clock import Clock
from engine.config_chain import ConfigChain
from engine.post import JudgePost
from schemas.config import Config
from schemas.config_change import CLOCKS_S_MAX, DELAY_S_MIN, ConfigStatus, encode_status
from schemas.errors import ConfigError
from schemas.topics import CONFIG, CONFIG_STATUS
from streams.leaving import leave
from streams.logs import say
from streams.metrics import Metrics
from streams.producers import Outgoing
from streams.transport import FETCH_BYTES_MAX

READ_MS = 500
NEWS_MAX = 1000


class ConfigTopic:
    """The history of the configuration, one to a process."""

    def __init__(self, config: Config, clock: Clock, metrics: Metrics) -> None:
        self._config, self._clock, self._metrics = config, clock, metrics
        self._tp = TopicPartition(config.kafka.topic_prefix + CONFIG, 0)
        self._status = config.kafka.topic_prefix + CONFIG_STATUS
        self._consumer: AIOKafkaConsumer | None = None
        self._is_read = asyncio.Event()
        self._known_ms = 0
        """Everything that was written before has been read."""
        self._news: deque[ConfigStatus] = deque(maxlen=NEWS_MAX)
        self.chain = ConfigChain(config)

    @property
    def known_to(self) -> int:
        """The last second that no change can concern which has not been read."""
        return self._known_ms // 1000 + self._config.time.lateness_s + DELAY_S_MIN - CLOCKS_S_MAX - 1

    async def read_to_end(self) -> None:
        """Everything that is there, before anything is judged; once, later calls return when that is done."""
        if self._consumer is not None:
            await self._is_read.wait()
            self._news.clear()
            return
        self._consumer = AIOKafkaConsumer(
            **aiokafka_settings(self._config.kafka), isolation_level="read_committed", enable_auto_commit=False,
            auto_offset_reset="earliest", max_partition_fetch_bytes=FETCH_BYTES_MAX, fetch_max_wait_ms=READ_MS,
        )  # fmt: skip
        await self._consumer.start()
        self._consumer.assign([self._tp])
        await self._consumer.seek_to_beginning(self._tp)
        await self._read_on()
        self._news.clear()  # what was written before has been told
        say("config_read", version=self.chain.last.version, changes=len(self.chain.accepted))
        self._is_read.set()

    async def run(self) -> None:
        """Follow it, for ever."""
        await self._is_read.wait()
        while True:
            try:
                await self._read()
                await self._read_on()
            except Exception as error:
                leave(error, f"following {self._tp.topic}")

    async def _read_on(self) -> None:
        """Up to where it ends now."""
        assert self._consumer is not None
        now_ms = self._clock.now_ms()
        end = (await self._consumer.end_offsets([self._tp]))[self._tp]
        while await self._consumer.position(self._tp) < end:
            await self._read()
        self._known_ms = now_ms

    async def _read(self) -> None:
        assert self._consumer is not None
        for batches in (await self._consumer.getmany(self._tp, timeout_ms=READ_MS)).values():
            for batch in batches:  # `streams.records.RecordBatch`, as for every consumer of a worker
                for offset, value, at_ms in zip(batch.offsets, batch.values, batch.times_ms, strict=True):
                    self._take(offset, value, at_ms)

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
        if self._is_read.is_set():
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
        if self._consumer is not None:
            await self._consumer.stop()
