"""What Faust does to a consumer, shown on its own code without a broker, and what our consumer does under the same.

Each pair: first upstream as it is, then ours. docs/faust.md lists all faults, those among them that need a broker
(test_faust_on_a_broker.py), what is left off (test_faust_left_off.py) and the pins (test_faust_pins.py). A test of upstream
that fails after an upgrade is good news: read streams/transport.py again, there may be less to override.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest
from faust.types import TP

from engine.clock import SystemClock
from engine.seeds import make_seeds
from streams import transport
from streams.failpoints import Failpoints
from streams.metrics import Metrics
from streams.observers import Observers
from streams.transport import Chunk, ChunkThread
from tests.engines import config_of
from tests.kafka.stubs import (
    NOWHERE,
    SOURCE,
    StubFetcher,
    StubStation,
    attach,
    drain,
    message_at,
    our_app,
    our_consumer,
    stock_app,
    stock_consumer,
)

FLOWING = 1
"""The epoch after the first seek."""


class LeftError(Exception):
    """The process would have ended."""


@pytest.fixture
def leaving(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the process left during."""
    left: list[str] = []

    def leave(error: BaseException, during: str) -> NoReturn:
        left.append(during)
        raise LeftError from error

    monkeypatch.setattr(transport, "leave", leave)
    return left


# One event per message costs four tasks each; so the consumer hands out chunks.


def test_stock_faust_hands_out_one_message_per_record_and_we_one_per_fetch(tmp_path: Path) -> None:
    async def hand_out(consumer: Any, fetcher: StubFetcher) -> list[Any]:
        attach(consumer, fetcher)
        fetcher.go_on.set()
        return [message async for _, message in consumer.getmany(timeout=1.0)]

    async def stock() -> list[Any]:
        return await hand_out(stock_consumer(tmp_path), StubFetcher(records=500))

    async def ours() -> list[Any]:
        consumer = our_consumer(StubStation({SOURCE: 10}))
        fetcher = StubFetcher(records=500)
        attach(consumer, fetcher)
        await consumer.perform_seek()
        consumer.resume_flow()
        return await hand_out(consumer, fetcher)

    assert len(asyncio.run(stock())) == 500
    (chunk,) = asyncio.run(ours())
    assert chunk.value.offsets == list(range(10, 510))


# Acknowledging.


def test_stock_faust_commits_past_a_message_in_flight(tmp_path: Path) -> None:
    """Upstream issue 606: message 10 is being worked on, 11 is done, and 12 would be committed."""

    async def offset_to_commit() -> int | None:
        consumer = stock_consumer(tmp_path)
        consumer._committed_offset[SOURCE] = 10
        consumer.ack(message_at(11))
        return consumer._new_offset(SOURCE)

    assert asyncio.run(offset_to_commit()) == 12


def test_stock_faust_counts_what_lies_between_two_chunks_as_done(tmp_path: Path) -> None:
    """The second chunk, 200 to 299, is done; the first, 100 to 199, is not: and everything to 200 would be committed."""

    async def offset_to_commit() -> int | None:
        consumer = stock_consumer(tmp_path)
        first, second = message_at(100), message_at(200)
        assert await drain(consumer, [[first, second]]) == [100, 200]
        consumer.ack(second)
        return consumer._new_offset(SOURCE)

    assert asyncio.run(offset_to_commit()) == 201


def test_our_consumer_commits_nothing_whatever_is_acknowledged() -> None:
    """Offsets travel in our transactions, so nothing that Faust counts may move them."""
    committed: list[Any] = []

    async def run() -> None:
        consumer = our_consumer(StubStation({}))
        attach(consumer, StubFetcher())

        async def commit(offsets: Any) -> bool:
            committed.append(offsets)
            return True

        cast(Any, consumer.thread).commit = commit
        first, second = message_at(100), message_at(200)
        assert await drain(consumer, [[first, second]]) == [100, 200]
        for message in (second, message_at(11)):
            consumer.ack(message)
            assert message.acked
        assert not consumer._gap[SOURCE]
        assert await consumer.commit() is False
        await consumer.commit_and_end_transactions()

    asyncio.run(run())
    assert committed == []


# Seeking.


def test_stock_faust_drops_what_is_read_again_and_we_do_not(tmp_path: Path) -> None:
    """A chunk that ends after a seek sets what Faust has read past what is then read."""
    fetches = [[message_at(100)], [message_at(50)]]

    async def run(consumer: Any) -> list[int]:
        return await drain(consumer, fetches)

    async def stock() -> list[int]:
        return await run(stock_consumer(tmp_path))

    async def ours() -> list[int]:
        return await run(our_consumer(StubStation({})))

    assert asyncio.run(stock()) == [100]
    assert asyncio.run(ours()) == [100, 50]


def test_stock_faust_overwrites_a_seek_made_in_a_rebalance_and_seeks_from_another_thread(tmp_path: Path) -> None:
    async def run() -> None:
        consumer, fetcher = stock_consumer(tmp_path), StubFetcher(committed=10)
        attach(consumer, fetcher)
        await consumer.seek(SOURCE, 50)  # as a listener of on_partitions_assigned would
        assert fetcher.outside == [SOURCE]
        await consumer.perform_seek()
        assert fetcher.positions[SOURCE] == 10

    asyncio.run(run())


def test_our_consumer_goes_on_where_the_station_says_and_seeks_in_its_own_thread() -> None:
    async def run() -> None:
        station, fetcher = StubStation({SOURCE: 50}), StubFetcher(committed=10)
        consumer = our_consumer(station)
        attach(consumer, fetcher)
        await consumer.perform_seek()
        assert fetcher.positions[SOURCE] == 50
        assert fetcher.outside == []
        assert station.told == ["take_over", f"begin {FLOWING}"]

    asyncio.run(run())


async def fetch_across_a_seek(consumer: Any, fetcher: StubFetcher) -> Any:
    """A fetch that has begun; then the partition is taken over at 50; then the fetch ends."""
    attach(consumer, fetcher)
    fetching = asyncio.ensure_future(consumer._thread._fetch_records(fetcher, {SOURCE}, timeout=1.0))
    await asyncio.sleep(0)
    await consumer._thread._seek_wait(fetcher, {SOURCE: 50})
    fetcher.go_on.set()
    return await fetching


def test_stock_faust_returns_what_was_fetched_before_a_seek_after_it(tmp_path: Path) -> None:
    async def run() -> list[int]:
        found = await fetch_across_a_seek(stock_consumer(tmp_path), StubFetcher(committed=10))
        return [record.offset for record in found[SOURCE]]

    assert asyncio.run(run()) == [10, 11, 12]


def test_our_consumer_hands_nothing_out_until_messages_flow_and_reads_it_again() -> None:
    async def run() -> None:
        consumer, fetcher = our_consumer(StubStation({})), StubFetcher(committed=10)
        assert await fetch_across_a_seek(consumer, fetcher) == {}
        assert fetcher.positions[SOURCE] == 10, "nothing has been read"
        await cast(Any, consumer.thread)._seek_wait(fetcher, {SOURCE: 50})
        consumer.resume_flow()
        found = await consumer.thread._fetch_records(fetcher, {SOURCE})
        assert found[SOURCE].offsets == [50, 51, 52]

    asyncio.run(run())


def test_a_chunk_of_another_epoch_is_not_ours_though_the_generation_is_the_same() -> None:
    """A static member that is restarted, or taken over anew, gets the same generation; an epoch is a seek's own."""

    async def run() -> None:
        consumer, fetcher = our_consumer(StubStation({SOURCE: 50})), StubFetcher()
        attach(consumer, fetcher)
        epochs = []
        for _ in range(2):
            await consumer.perform_seek()
            epochs.append(consumer.thread.epoch)
        assert epochs == [1, 2]
        config = config_of({"kafka": {"brokers": [NOWHERE], "development": True}})
        station = Observers(config, SystemClock(), make_seeds(config), Metrics(), Failpoints(None))
        station._held[SOURCE] = cast(Any, type("Held", (), {"epoch": 2, "coming": 0}))
        values: tuple[list[bytes], list[int], list[int], int] = ([b"x"], [7], [0], 1)
        assert [station.expect(SOURCE, Chunk(epoch, *values)) for epoch in epochs] == [False, True]

    asyncio.run(run())


# Taking over.


def test_stock_faust_stands_still_without_a_word_when_seeking_takes_too_long(tmp_path: Path) -> None:
    """The task that would let messages flow ends, nothing is raised, and the worker stays alive and idle."""

    async def run() -> None:
        app = stock_app(tmp_path, broker_request_timeout=0.05, broker_session_timeout=0.05, stream_recovery_delay=0.0)
        consumer, recovery = cast(Any, app.consumer), cast(Any, app.tables.recovery)
        attach(consumer, StubFetcher())
        consumer.perform_seek = asyncio.Event().wait
        consumer.stop_flow()
        recovery.signal_recovery_start.set()
        await asyncio.wait_for(type(recovery)._restart_recovery.fun(recovery), 10)
        assert not recovery.should_stop
        assert not app.should_stop
        assert not consumer.flow_active

    asyncio.run(run())


def test_our_worker_leaves_when_taking_over_takes_too_long(leaving: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "TAKE_OVER_S_MAX", 0.05)

    class Hanging(StubStation):
        async def take_over(self, partitions: set[TP], generation: int) -> Mapping[TP, int]:
            await asyncio.Event().wait()
            return {}

    async def run() -> None:
        consumer = our_consumer(Hanging({}))
        attach(consumer, StubFetcher())
        with pytest.raises(LeftError):
            await consumer.perform_seek()
        assert not consumer.thread.epoch

    asyncio.run(run())
    assert leaving == ["taking over"]
    assert our_request_timeout_s() > 60.0, "Faust would be first"


def test_taking_over_and_seeking_have_one_limit_together(leaving: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With one each they could take longer than Faust waits, which would then stand still without a word."""
    limit_s = 0.1
    monkeypatch.setattr(transport, "TAKE_OVER_S_MAX", limit_s)

    class Slow(StubStation):
        async def take_over(self, partitions: set[TP], generation: int) -> Mapping[TP, int]:
            await asyncio.sleep(0.6 * limit_s)
            return {}

    async def seek(positions: Mapping[TP, int]) -> None:
        await asyncio.sleep(0.6 * limit_s)

    async def run() -> None:
        consumer = our_consumer(Slow({}))
        attach(consumer, StubFetcher())
        cast(Any, consumer).seek_wait = seek
        with pytest.raises(LeftError):
            await consumer.perform_seek()

    asyncio.run(run())
    assert leaving == ["taking over"]


def our_request_timeout_s() -> float:
    async def ask() -> float:
        return float(our_app(StubStation({})).conf.broker_request_timeout)

    return asyncio.run(ask())


def test_what_is_held_is_dead_before_faust_waits_for_its_agents() -> None:
    async def run() -> None:
        station = StubStation({})
        consumer = our_consumer(station)

        async def revoked(partitions: set[TP]) -> None:
            station.told.append("faust")

        cast(Any, consumer)._on_partitions_revoked = revoked
        await consumer.on_partitions_revoked({SOURCE})
        assert station.told == ["revoke", "faust"]

    asyncio.run(run())


# Waiting.


@pytest.mark.parametrize(("ours", "seconds"), [(False, 1.0), (True, transport.EMPTY_S)])
def test_a_consumer_with_every_partition_paused_looks_again_after(tmp_path: Path, ours: bool, seconds: float) -> None:
    """Stock Faust sleeps a second, also when only its buffers are full: 30 k/s instead of 282 k/s."""

    async def run() -> list[float]:
        consumer = cast(Any, our_consumer(StubStation({})) if ours else stock_consumer(tmp_path))
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        consumer.sleep = sleep
        consumer._active_partitions = set()
        assert [message async for _, message in consumer.getmany(timeout=1.0)] == []
        return slept

    assert asyncio.run(run()) == [seconds]


def test_stock_faust_waits_long_reads_what_was_aborted_and_is_missed_late_and_our_consumer_does_not(tmp_path: Path) -> None:
    async def settings(app: Any) -> tuple[str, int, int]:
        made = app.consumer._thread._create_worker_consumer(app.consumer.transport)
        found = made._isolation_level, made._fetch_max_wait_ms, made._session_timeout_ms
        await made.stop()
        return found

    async def run() -> None:
        assert await settings(stock_app(tmp_path)) == ("read_uncommitted", 1500, 60_000)
        assert await settings(our_app(StubStation({}))) == ("read_committed", transport.FETCH_WAIT_MS, 6_000)

    asyncio.run(run())


def test_our_thread_lowers_the_back_off_that_has_no_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    async def started(self: Any) -> None:
        self._consumer = type(
            "Started", (), {"_fetcher": type("Fetcher", (), {"_prefetch_backoff": 0.1}), "_coordinator": None}
        )

    monkeypatch.setattr(transport.driver.AIOKafkaConsumerThread, "on_start", started)
    monkeypatch.setattr(transport.fetcher, "PartitionRecords", transport.fetcher.PartitionRecords)

    async def run() -> float:
        thread: ChunkThread = our_consumer(StubStation({})).thread
        await thread.on_start()
        return float(cast(Any, thread)._consumer._fetcher._prefetch_backoff)

    assert asyncio.run(run()) == transport.PREFETCH_BACKOFF_S
