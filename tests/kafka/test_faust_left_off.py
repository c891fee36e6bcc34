"""What Faust offers that we leave off, drivers and settings among it, and why: no broker is needed to see it."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import faust
import pytest
from aiokafka import codec
from aiokafka.errors import UnsupportedCodecError
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from faust.transport.drivers import by_url, confluent
from yarl import URL

from streams import producers
from streams.logs import RateLimit
from tests.engines import config_of
from tests.kafka.deployment import PROJECT
from tests.kafka.stubs import NOWHERE, StubStation, our_app, stock_app


def test_our_app_uses_no_tables_none_of_faust_s_transactions_and_no_web_server(tmp_path: Path) -> None:
    """Tables count twice after a crash (596), exactly_once shows duplicates (323, 517), the web server listens everywhere.

    That our app leaves them off is all that is tested: each showed itself in runs of minutes with several kill -9.
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
