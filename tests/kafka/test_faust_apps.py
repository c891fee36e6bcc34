"""What Faust's apps do beside ours, without a broker: settings, transports, transactions, what runs when. docs/faust.md has
the table."""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faust
import pytest
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.errors import ProducerFenced
from faust.transport.drivers import confluent

from drills.traffic import combined_lines
from engine.clock import SystemClock
from engine.seeds import make_seeds
from engine.source_post import Bench, Messages, SourcePost
from streams import transport, worker
from streams.failpoints import Failpoints
from streams.producers import PartitionProducer
from tests.engines import config_of
from tests.kafka.faust_consumers import CONFIG, FakeKafka, LeftError, NotingStation, consumer_of, our_app, run, stock_app


def test_faust_takes_a_fenced_producers_commit_for_done_and_ours_hears_of_it() -> None:
    """Why its ``exactly_once`` shows duplicates (issues 323 and 517): errors of a transaction are logged, and it goes on."""

    class Fenced:
        def __getattr__(self, name: str) -> Any:
            async def call(*_: Any, **__: Any) -> None:
                if name == "commit_transaction":
                    raise ProducerFenced

            return call

    async def commit() -> None:
        stock: Any = stock_app(processing_guarantee="exactly_once").producer
        stock._transaction_producers, stock._trn_locks = {"id": Fenced()}, {"id": asyncio.Lock()}
        await stock.commit_transaction("id")
        ours = PartitionProducer(CONFIG.kafka, "group", "requests", 0, Failpoints(None))
        ours._producer = Fenced()
        with pytest.raises(ProducerFenced):
            await ours.ship([], 1, "")
        app = our_app(NotingStation())
        assert not app.in_transaction
        assert not app.boot_strategy.enable_kafka_producer

    run(commit())


def test_faust_reads_uncommitted_and_waits_long_where_ours_does_not() -> None:
    """The consumers as each makes them. The latency that follows (1.3 s against 23 ms under load) takes a quiet machine to
    measure, so what causes it is compared: all three have to be lowered together."""

    async def make() -> None:
        made = []
        for app in (stock_app(), our_app(NotingStation())):
            thread = consumer_of(app, FakeKafka())._thread
            made.append(thread._create_worker_consumer(app.transport))
        stock, ours = made
        assert (stock._isolation_level, ours._isolation_level) == ("read_uncommitted", "read_committed")
        assert (stock._fetch_max_wait_ms, ours._fetch_max_wait_ms) == (1500, transport.FETCH_WAIT_MS)
        assert inspect.signature(Fetcher.__init__).parameters["prefetch_backoff"].default > transport.PREFETCH_BACKOFF_S
        assert (stock._session_timeout_ms, ours._session_timeout_ms) == (60_000, CONFIG.kafka.session_ms)
        assert (stock._group_instance_id, ours._max_poll_interval_ms) == (None, 600_000)

    run(make())


def test_faust_on_confluent_forgets_the_password_and_ours_is_always_the_one_that_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``memory://``, for tests, does not exist. Whatever its address says, our app takes our transport."""
    told: dict[str, Any] = {}
    monkeypatch.setattr(confluent, "AsyncConsumer", lambda settings, logger: told.update(settings))
    monkeypatch.setenv("FLOODWALL_KAFKA_PASSWORD", "secret")
    kafka = {"development": True, "sasl_mechanism": "SCRAM-SHA-512", "username": "worker"}

    async def make() -> None:
        password = faust.SASLCredentials(username="worker", password="secret", mechanism="SCRAM-SHA-512")
        stock = stock_app(broker="confluent://127.0.0.1:1", broker_credentials=password)
        consumer_of(stock, FakeKafka())._thread._create_worker_consumer(stock.transport, asyncio.get_running_loop())
        assert told["bootstrap.servers"] == "127.0.0.1:1"
        assert not [name for name in told if "sasl" in name or "security" in name]
        with pytest.raises(ModuleNotFoundError, match="memory"):
            _ = stock_app(broker="memory://").transport
        ours = our_app(NotingStation(), config_of({"kafka": kafka}))
        client = consumer_of(ours, FakeKafka())._thread._create_worker_consumer(ours.transport)._client
        assert (client._security_protocol, client._sasl_mechanism) == ("SASL_PLAINTEXT", "SCRAM-SHA-512")
        assert client._sasl_plain_password == "secret"

    run(make())


def test_faust_runs_every_module_it_finds_and_ours_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``autodiscover`` imports a whole package, for what its modules do when they are imported."""
    package = tmp_path / "discovered"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "never_asked_for.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    async def discover() -> None:
        for app in (our_app(NotingStation()), stock_app(autodiscover=["discovered"])):
            assert "discovered.never_asked_for" not in sys.modules
            app.discover()
        assert "discovered.never_asked_for" in sys.modules

    run(discover())
    for name in ("discovered", "discovered.never_asked_for"):
        sys.modules.pop(name, None)


def test_a_twin_of_ours_leaves_when_it_is_thrown_out_again_and_again(left: list[BaseException]) -> None:
    """aiokafka joins again for ever, and so does the other (test_faust_on_a_broker.py)."""

    class Coordinator:
        resets = 0

        def reset_generation(self) -> None:
            self.resets += 1

    async def fight() -> None:
        app = our_app(NotingStation())
        app.conf.consumer_group_instance_id = "one"
        coordinator = Coordinator()
        consumer_of(app, FakeKafka())._thread._watch_for_a_twin(coordinator)
        for _ in range(transport.TWIN_RESETS_MAX - 1):
            coordinator.reset_generation()
        with pytest.raises(LeftError):
            coordinator.reset_generation()
        assert coordinator.resets == transport.TWIN_RESETS_MAX - 1

    run(fight())
    assert "--instance one" in str(left[0])


def test_kernels_let_other_threads_run_and_a_call_that_holds_the_gil_does_not() -> None:
    """What a held GIL costs is in test_faust_on_a_broker.py. Python takes the GIL from nobody here: it has to be let go."""
    bench = Bench(CONFIG, make_seeds(CONFIG))
    lines = combined_lines(seed=7, events=20_000).data.splitlines() * 5
    messages = Messages(lines, list(range(len(lines))), [0] * len(lines), 0)
    post = SourcePost("requests-0", 0, "", bench)
    post.ship(Messages(lines[:10], list(range(10)), [0] * 10, 0), 0, 0)  # compiled or loaded
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
        released = turns_during(lambda: post.ship(messages, 0, 0))
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
