"""What Faust offers that we leave off, drivers and settings among it, and why: no broker is needed to see it."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import faust
import pytest
from aiokafka import codec
from aiokafka.errors import ProducerFenced, UnsupportedCodecError
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from faust.transport.drivers import by_url, confluent
from yarl import URL

from drills.traffic import combined_lines
from engine.clock import SystemClock
from engine.seeds import make_seeds
from engine.source_post import Bench, Messages, SourcePost
from schemas.errors import BrokerError
from streams import producers, transport, worker
from streams.failpoints import Failpoints
from streams.logs import RateLimit
from tests.engines import config_of
from tests.kafka.deployment import PROJECT
from tests.kafka.stubs import NOWHERE, StubStation, our_app, stock_app

CONFIG = config_of({"kafka": {"brokers": [NOWHERE], "development": True}})


def test_our_app_uses_no_tables_none_of_faust_s_transactions_and_no_web_server(tmp_path: Path) -> None:
    """Tables count twice after a crash (596), exactly_once shows duplicates (323, 517), the web server listens everywhere.

    That our app leaves them off is all that is tested here; test_faust_provoked.py shows a table that counts twice.
    """

    async def services(app: Any) -> set[str]:
        return {type(service).__name__ for service in app.BootStrategy(app).server()}

    async def run() -> None:
        stock, ours = stock_app(tmp_path, web_enabled=True), our_app(StubStation({}))
        assert str(stock.conf.web_bind) == "0.0.0.0"
        assert "Web" in await services(stock)
        assert "Web" not in await services(ours)
        assert str(ours.conf.processing_guarantee.value) == "at_least_once"
        assert not cast(Any, ours.consumer).in_transaction
        assert not ours.tables

    asyncio.run(run())


def test_stock_faust_waits_a_second_for_tables_and_we_have_none_to_wait_for(tmp_path: Path) -> None:
    """It is a second of every restart, and so of every recovery after a kill -9."""

    async def waits(app: Any) -> list[float]:
        waited: list[float] = []
        manager = app.tables

        async def sleep(seconds: float) -> None:
            waited.append(seconds)

        manager.sleep = sleep
        manager.recovery.start = partial(asyncio.sleep, 0)
        app.consumer.assignment = set
        app.consumer.pause_partitions = set
        await manager.on_start()
        assert manager._tables_registered.is_set()
        return waited

    async def run() -> None:
        assert await waits(stock_app(tmp_path)) == [1.0]
        assert await waits(our_app(StubStation({}))) == []

    asyncio.run(run())


def test_the_confluent_driver_drops_credentials_and_memory_is_no_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def remember(settings: dict[str, Any], logger: object) -> None:
        given.update(settings)

    monkeypatch.setattr(confluent, "AsyncConsumer", remember)

    async def run() -> None:
        credentials = faust.SASLCredentials(username="user", password="word", mechanism="PLAIN")
        app = stock_app(tmp_path, broker=f"confluent://{NOWHERE}", broker_credentials=credentials)
        thread = confluent.ConfluentConsumerThread(cast(Any, app.consumer))
        thread._create_worker_consumer(cast(Any, app.consumer).transport, asyncio.get_running_loop())

    asyncio.run(run())
    assert given["bootstrap.servers"] == NOWHERE
    assert not [name for name in given if name.startswith(("sasl", "security"))]
    with pytest.raises(ModuleNotFoundError, match="'memory' is not a valid name"):
        by_url(URL("memory://"))

    async def ours() -> list[str]:
        return [url.scheme for url in our_app(StubStation({})).conf.broker]

    assert asyncio.run(ours()) == ["kafka"]


def test_no_app_is_made_by_an_import() -> None:
    code = (
        "import faust\n"
        "def refuse(*args, **options): raise AssertionError('an app at import')\n"
        "faust.App.__init__ = refuse\n"
        "import streams.worker, streams.supervisor\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=PROJECT)
    assert done.returncode == 0, done.stderr


def test_our_producers_are_idempotent_and_stock_faust_s_is_not(tmp_path: Path) -> None:
    """Without idempotence a batch that expires has an unknown outcome."""

    async def run() -> None:
        config = config_of({"kafka": {"brokers": [NOWHERE], "development": True}})
        ours = producers._producer(config.kafka)
        stock = cast(Any, stock_app(tmp_path).producer)._new_producer()
        assert (stock._txn_manager is None, ours._txn_manager is None) == (True, False)

    asyncio.run(run())


@pytest.mark.parametrize("compression", ["lz4", "snappy", "zstd"])
def test_aiokafka_refuses_compressed_batches_without_cramjam_and_we_install_it(
    compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = {"snappy": 2, "lz4": 3, "zstd": 4}[compression]

    def build() -> bytes:
        batch = DefaultRecordBatchBuilder(2, kind, 0, -1, -1, -1, batch_size=4096)
        batch.append(0, 1, b"key", b"value" * 100, [])
        return bytes(batch.build())

    (record,) = DefaultRecordBatch(bytearray(build()))
    assert record.value == b"value" * 100
    monkeypatch.setattr(codec, "cramjam", None)
    with pytest.raises(UnsupportedCodecError, match=compression):
        build()


class _SteppedClock:
    """A clock that stands."""

    now = 5_000

    def now_ms(self) -> int:
        return self.now

    def wait(self, seconds: float) -> None:
        raise AssertionError("nothing waits here")


def test_a_storm_of_log_lines_is_cut_and_counted() -> None:
    """aiokafka was seen to write 36,000 lines in the 12 s that a broker was away."""
    clock = _SteppedClock()
    limit = RateLimit(clock)
    records = [logging.LogRecord("aiokafka", logging.ERROR, "", 0, "connection refused", (), None) for _ in range(101)]
    assert sum(limit.filter(record) for record in records[:100]) == 5
    clock.now = 6_000
    assert limit.filter(records[100])
    assert "95 lines left out" in records[100].getMessage()


def test_stock_faust_takes_a_fenced_producer_s_commit_for_done_and_ours_hears_of_it(tmp_path: Path) -> None:
    """Why its exactly_once shows duplicates (323, 517): errors of a transaction are logged, and it goes on."""

    class Fenced:
        def __getattr__(self, name: str) -> Any:
            async def call(*_: Any, **__: Any) -> None:
                if name == "commit_transaction":
                    raise ProducerFenced

            return call

    async def run() -> None:
        stock = cast(Any, stock_app(tmp_path, processing_guarantee="exactly_once").producer)
        stock._transaction_producers, stock._trn_locks = {"id": Fenced()}, {"id": asyncio.Lock()}
        await stock.commit_transaction("id")
        ours = producers.PartitionProducer(CONFIG.kafka, "group", "requests", 0, Failpoints(None))
        cast(Any, ours)._producer = Fenced()
        with pytest.raises(ProducerFenced):
            await ours.ship([], 1, "")

    asyncio.run(run())


def test_stock_faust_runs_every_module_it_finds_and_ours_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``autodiscover`` imports a whole package, for what its modules do when they are imported."""
    package = tmp_path / "discovered"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "never_asked_for.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    async def run() -> None:
        for app in (our_app(StubStation({})), stock_app(tmp_path, autodiscover=["discovered"])):
            assert "discovered.never_asked_for" not in sys.modules
            app.discover()
        assert "discovered.never_asked_for" in sys.modules

    asyncio.run(run())
    for name in ("discovered", "discovered.never_asked_for"):
        sys.modules.pop(name, None)


def test_a_twin_of_ours_leaves_when_it_is_thrown_out_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiokafka joins again for ever (test_faust_provoked.py)."""

    class Coordinator:
        resets = 0

        def reset_generation(self) -> None:
            self.resets += 1

    def leave(error: BaseException, during: str) -> None:
        raise error

    async def run() -> None:
        app = our_app(StubStation({}))
        app.conf.consumer_group_instance_id = "one"
        coordinator = Coordinator()
        app.chunks.thread._watch_for_a_twin(coordinator)
        for _ in range(transport.TWIN_RESETS_MAX - 1):
            coordinator.reset_generation()
        with pytest.raises(BrokerError, match="--instance one"):
            coordinator.reset_generation()
        assert coordinator.resets == transport.TWIN_RESETS_MAX - 1

    monkeypatch.setattr(transport, "leave", leave)
    asyncio.run(run())


def test_kernels_let_other_threads_run_and_a_call_that_holds_the_gil_does_not() -> None:
    """What a held GIL costs is in test_faust_provoked.py. Python takes it from nobody here: it has to be let go."""
    lines = combined_lines(seed=7, events=20_000).data.splitlines() * 5
    post = SourcePost("requests-0", 0, "", Bench(CONFIG, make_seeds(CONFIG)))
    first, rest = Messages(), Messages()
    first.add(lines[:10], list(range(10)), [0] * 10, 0)
    rest.add(lines, list(range(10, 10 + len(lines))), [0] * len(lines), 0)
    post.ship(first, 0, 0)  # compiled or loaded
    turns, over = [0], threading.Event()

    def take_turns() -> None:
        while not over.wait(0.001):
            turns[0] += 1

    def turns_during(work: Callable[[], object]) -> int:
        before = turns[0]
        work()
        return turns[0] - before

    other, interval = threading.Thread(target=take_turns), sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        other.start()
        held = turns_during(lambda: ctypes.PyDLL(None).usleep(50_000))
        released = turns_during(lambda: post.ship(rest, 0, 0))
    finally:
        sys.setswitchinterval(interval)
        over.set()
        other.join()
    assert held <= 1
    assert released > 1


def test_kernels_are_compiled_before_the_group_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler holds the GIL for longer than any session."""
    order: list[str] = []

    async def join(*_: object) -> None:
        order.append("joined")

    monkeypatch.setattr(worker, "set_up_logs", lambda clock: None)
    monkeypatch.setattr(worker, "check_topics", lambda config, cluster: None)
    monkeypatch.setattr(worker.Connection, "check", lambda connection: None)
    monkeypatch.setattr(worker, "warm_up", lambda config, seeds: order.append("compiled"))
    monkeypatch.setattr(worker, "_run", join)
    worker.run_worker(CONFIG, "observe", SystemClock())
    assert order == ["compiled", "joined"]
