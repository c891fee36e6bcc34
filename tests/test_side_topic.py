"""A topic that is followed is read once, whoever asks for it and is called off."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import TopicPartition

from streams import side_topic
from streams.records import RecordBatch
from streams.side_topic import SideTopic
from tests.engines import config_of


class Consumer:
    """Of a topic with two messages, whose brokers answer when they are let."""

    made: list[Consumer]
    answers: asyncio.Event

    def __init__(self, **settings: object) -> None:
        self.made.append(self)
        self._at = 0

    async def start(self) -> None:
        await self.answers.wait()

    async def stop(self) -> None:
        pass

    def assign(self, partitions: list[TopicPartition]) -> None:
        pass

    async def seek_to_beginning(self, tp: TopicPartition) -> None:
        self._at = 0

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 2)

    async def position(self, tp: TopicPartition) -> int:
        return self._at

    async def getmany(self, tp: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[RecordBatch]]:
        self._at = 2
        return {tp: [RecordBatch([b"a", b"b"], [0, 1], [1000, 2000])]}


def test_a_take_over_that_is_called_off_does_not_keep_the_next_one_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[int, bytes, int]] = []

    async def run() -> None:
        monkeypatch.setattr(Consumer, "made", [], raising=False)
        monkeypatch.setattr(Consumer, "answers", asyncio.Event(), raising=False)
        monkeypatch.setattr(side_topic, "AIOKafkaConsumer", Consumer)
        topic = SideTopic(config_of({"kafka": {"development": True}}), "feedback", lambda *message: taken.append(message))
        called_off = asyncio.create_task(topic.read_to_end())
        await asyncio.sleep(0)
        called_off.cancel()
        await asyncio.gather(called_off, return_exceptions=True)
        Consumer.answers.set()
        await asyncio.wait_for(topic.read_to_end(), 30)
        await topic.read_to_end()
        assert topic.is_read
        assert len(Consumer.made) == 1
        await topic.stop()

    asyncio.run(run())
    assert taken == [(0, b"a", 1000), (1, b"b", 2000)]
