"""What Faust's consumer does, each fault beside what ours does under the same provocation.

The real classes of both, on a stand-in for aiokafka's consumer. docs/faust.md has the table of all faults. Apps are in
test_faust_apps.py, what needs a broker in test_faust_on_a_broker.py and test_faust_workers.py, and the source text on which it
rests in test_faust_pins.py.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

import faust
import pytest
from aiokafka.consumer import fetcher
from faust.tables.recovery import Recovery
from faust.types import TP

from engine.clock import SystemClock
from engine.seeds import make_seeds
from engine.source_post import Bench, SourcePost
from streams import transport
from streams.failpoints import Failpoints
from streams.metrics import Metrics
from streams.observers import Observers, _Held
from streams.producers import PartitionProducer
from streams.transport import TAKE_OVER_S_MAX, Chunk
from tests.kafka.faust_consumers import (
    CONFIG,
    SOURCE,
    FakeKafka,
    LeftError,
    NotingStation,
    consumer_of,
    drain,
    message,
    our_app,
    run,
    stock_app,
)


def test_faust_handles_each_message_by_itself_and_ours_a_fetch_at_a_time() -> None:
    """Four tasks a message cost it 74 µs; a fetch of 500 is 500 turns of its loop, and one of ours."""

    async def turns() -> None:
        counts = []
        for app in (stock_app(), our_app(NotingStation())):
            consumer = consumer_of(app, FakeKafka(500))
            counts.append([m async for _, m in consumer.getmany(1.0)])
        stock, ours = counts
        assert [m.offset for m in stock] == list(range(500))
        assert [(m.offset, m.value.offsets) for m in ours] == [(0, list(range(500)))]

    run(turns())


def test_faust_commits_past_a_message_in_flight_and_ours_commits_nothing() -> None:
    """Its issue 606: message 0 is still being worked on when 1 and 2 are done."""

    async def acknowledge() -> None:
        stock = consumer_of(stock_app(), FakeKafka(3))
        ours = consumer_of(our_app(NotingStation()), FakeKafka(3))
        for consumer in (stock, ours):
            consumer.ack(message(1))
            consumer.ack(message(2))
            await consumer.commit()
        assert [next(iter(offsets.values())).offset for offsets in stock._thread._consumer.commits] == [3]
        assert ours._thread._consumer.commits == []

    run(acknowledge())


def test_faust_counts_offsets_it_has_not_seen_as_acknowledged_and_ours_keeps_no_account() -> None:
    """Offsets 2 to 499 lie inside a chunk; Faust takes them for a gap in the topic, which needs no acknowledgement."""

    async def skip() -> None:
        stock = consumer_of(stock_app(), FakeKafka())
        ours = consumer_of(our_app(NotingStation()), FakeKafka())
        for consumer in (stock, ours):
            await drain(consumer, 1, 500)
            consumer.ack(message(1))
            consumer.ack(message(500))
        assert stock._filter_committable_offsets([SOURCE]) == {SOURCE: 501}
        assert ours._filter_committable_offsets([SOURCE]) == {}
        assert not ours._gap[SOURCE]

    run(skip())


def test_faust_commits_an_offset_below_one_that_is_committed_and_ours_has_no_commit() -> None:
    """A late commit of Faust's would move back what our transactions have committed, and tallies would be made twice."""

    async def commit() -> None:
        stock = consumer_of(stock_app(), FakeKafka(committed=10))
        ours = consumer_of(our_app(NotingStation()), FakeKafka(committed=10))
        assert await stock._commit_offsets({SOURCE: 3})
        assert [next(iter(offsets.values())).offset for offsets in stock._thread._consumer.commits] == [3]
        assert not await ours._commit_offsets({SOURCE: 3})
        assert ours._thread._consumer.commits == []

    run(commit())


def test_faust_drops_what_is_read_again_after_a_seek_and_ours_hands_it_out() -> None:
    """It remembers the newest offset it has read, and only some of the ways to seek make it forget."""

    async def go_back() -> None:
        for app, expected in ((stock_app(), [1, 900]), (our_app(NotingStation()), [1, 900, 500, 501])):
            seen: list[int] = []

            async def take(came: Any, seen: list[int] = seen) -> None:
                seen.append(came.offset)

            consumer = consumer_of(app, FakeKafka(), take)
            await drain(consumer, 1, 900)
            consumer._thread.seek(SOURCE, 500)
            await drain(consumer, 500, 501)
            assert seen == expected

    run(go_back())


def test_faust_seeks_in_the_wrong_thread_and_ours_in_the_one_that_fetches(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Consumer.seek` moves the position under a fetch that runs in the consumer's thread: KeyError, and the fetcher is dead.
    The race itself takes luck; the thread does not."""
    monkeypatch.setattr(fetcher, "PartitionRecords", fetcher.PartitionRecords)  # ours replaces it when it starts

    async def seek() -> None:
        kafka = FakeKafka()
        consumer = our_app(NotingStation(7)).transport.create_consumer(
            callback=lambda m: None, on_partitions_revoked=None, on_partitions_assigned=None
        )
        thread: Any = consumer._thread
        thread._create_consumer = lambda loop: kafka
        await thread.start()
        try:
            await consumer.seek(SOURCE, 3)  # Faust's own, which we never call
            consumer.app._consumer = consumer
            await consumer.perform_seek()
        finally:
            await thread.stop()
        here = threading.get_ident()
        assert [ident == here for ident in kafka.seeks_in] == [True, False]
        assert kafka.at == 7
        assert kafka._prefetch_backoff == transport.PREFETCH_BACKOFF_S

    run(seek())


def test_faust_returns_after_a_seek_what_was_fetched_before_and_ours_returns_it_to_the_log() -> None:
    """A fetch that began before a revocation ends after it. Its messages belong to nobody, and the position is past them."""

    async def straddle() -> None:
        found = []
        for app in (stock_app(), our_app(NotingStation())):
            kafka = FakeKafka(5)
            consumer = consumer_of(app, kafka)
            kafka.hold = asyncio.Event()
            fetch = asyncio.ensure_future(consumer._getmany({SOURCE}, 1.0))
            await asyncio.sleep(0)
            consumer.stop_flow()
            await consumer.seek_wait({SOURCE: 2})
            kafka.hold.set()
            found.append((await fetch, kafka.at))
        (stock, stock_at), (ours, our_at) = found
        assert [r.offset for r in stock[SOURCE]] == [2, 3, 4]
        assert stock_at == 5
        assert (ours, our_at) == ({}, 2)

    run(straddle())


def test_faust_undoes_a_seek_made_in_a_rebalance_and_ours_is_what_it_does_last() -> None:
    """`perform_seek` comes last and goes to what is committed, for the partitions that stay too."""

    async def rebalance() -> None:
        places = []
        for app in (stock_app(), our_app(NotingStation(7))):
            kafka = FakeKafka(500, committed=3)
            consumer = consumer_of(app, kafka)

            async def seek(sender: faust.App, consumer: Any = consumer, **_: Any) -> None:
                await consumer.seek_wait({SOURCE: 7})

            app.on_rebalance_complete.connect(seek)
            app._fetcher.maybe_start = no_fetcher
            await app.tables.recovery._resume_streams(generation_id=app.consumer_generation_id)
            places.append(kafka.at)
        assert places == [3, 7]

    run(rebalance())


async def no_fetcher() -> None:
    """In place of one that would poll."""


def test_faust_gives_a_slow_take_over_up_without_a_word_and_ours_leaves_before(
    monkeypatch: pytest.MonkeyPatch, left: list[BaseException]
) -> None:
    """Past ``broker_request_timeout`` its recovery task ends like one that was asked to: no error, no flow, alive and idle.
    Ours has one limit for taking over and seeking together."""

    async def take_long(*_: Any) -> Mapping[TP, int]:
        await asyncio.sleep(0.6 * limit_s)
        return {}

    async def stand_still(*_: Any) -> None:
        await asyncio.Event().wait()

    async def hang() -> None:
        app = stock_app()
        consumer = consumer_of(app, FakeKafka())
        app.conf.broker_request_timeout = limit_s
        consumer.perform_seek = stand_still
        recovery = app.tables.recovery
        recovery.signal_recovery_start.set()
        await Recovery._restart_recovery(recovery)
        assert (recovery.completed.is_set(), consumer.can_resume_flow.is_set()) == (False, False)
        assert (app.crashed, recovery.crashed) == (False, False)

        ours = our_app(NotingStation())
        assert ours.conf.broker_request_timeout > TAKE_OVER_S_MAX
        slow = consumer_of(ours, FakeKafka())
        ours.station.take_over = take_long  # type: ignore[method-assign]
        slow.seek_wait = take_long
        with pytest.raises(LeftError, match="taking over"):
            await slow.perform_seek()
        assert [type(error) for error in left] == [TimeoutError]

    limit_s = 0.1
    monkeypatch.setattr(transport, "TAKE_OVER_S_MAX", limit_s)
    run(hang())


def test_faust_sleeps_a_second_when_a_buffer_is_full_and_ours_waits_for_bytes() -> None:
    """With a small ``stream_buffer_maxsize`` partitions go inactive, and 282,000 events a second became 30,000."""

    async def fill() -> None:
        pauses: list[list[float]] = []
        for app in (stock_app(), our_app(NotingStation())):
            consumer = consumer_of(app, FakeKafka(5))
            slept: list[float] = []

            async def sleep(seconds: float, slept: list[float] = slept) -> None:
                slept.append(seconds)

            consumer.sleep = sleep
            consumer.on_buffer_full(SOURCE)
            assert [m async for _, m in consumer.getmany(1.0)] == []
            pauses.append(slept)
        assert pauses == [[1], [transport.EMPTY_S]]
        assert our_app(NotingStation()).conf.stream_buffer_maxsize == transport.BUFFER_CHUNKS_MAX

    run(fill())


def test_a_chunk_of_an_assignment_that_is_over_is_not_worked_on() -> None:
    """Faust clears its queues in a rebalance, but a chunk that is inside the agent goes on: it carries the epoch it is of."""

    async def rebalance() -> None:
        observers = Observers(CONFIG, SystemClock(), make_seeds(CONFIG), Metrics(), Failpoints(None))
        chunks = [Chunk(epoch, [b"x"], [0], [0], 1) for epoch in (1, 2)]
        held = hold(observers, epoch=2)
        assert [observers.expect(SOURCE, chunk) for chunk in chunks] == [False, True]
        for chunk in chunks:
            await observers.work(SOURCE, chunk)
        assert held.messages.values == [b"x"]

    run(rebalance())


def hold(observers: Observers, epoch: int) -> Any:
    """A source partition that is ours since ``epoch``."""
    producer = PartitionProducer(CONFIG.kafka, "group", SOURCE.topic, 0, Failpoints(None))
    held = _Held(SourcePost("requests-0", 0, "", Bench(CONFIG, make_seeds(CONFIG))), producer)
    observers._held = {SOURCE: held}
    observers.begin(epoch)
    return held


def test_the_station_is_told_of_a_revocation_before_faust_waits_for_anything() -> None:
    """Faust waits for its agents first; what they hold then belongs to somebody else."""

    async def revoke() -> None:
        told: list[str] = []
        station = NotingStation()
        station.revoke = lambda: told.append("station")  # type: ignore[method-assign]
        consumer = consumer_of(our_app(station), FakeKafka())

        async def faust_does(revoked: set[TP]) -> None:
            told.append("faust")

        consumer._on_partitions_revoked = faust_does
        await consumer.on_partitions_revoked({SOURCE})
        assert told == ["station", "faust"]

    run(revoke())
