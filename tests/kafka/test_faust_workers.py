"""What whole workers of Faust do on a real broker, each fault beside what ours do. docs/faust.md has the table."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import aiokafka.codec
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import UnsupportedCodecError
from confluent_kafka import Producer

from streams.failpoints import VARIABLE
from tests.kafka.deployment import PROJECT, Deployment, deploy
from tests.kafka.faust_consumers import run
from tests.kafka.test_faust_on_a_broker import make_topic, started
from tests.kafka.test_workers import split

EVENTS = 300
STOCK = """
import os, sys, faust

app = faust.App(
    sys.argv.pop(1), broker="kafka://" + sys.argv.pop(1), web_enabled=False, web_host="127.0.0.1", store="memory://",
    datadir=sys.argv.pop(1), broker_commit_interval=3600, broker_session_timeout=2, broker_heartbeat_interval=0.5,
    topic_partitions=1, topic_replication_factor=1, topic_disable_leader=True,
)
counts = app.Table("counts", default=int, partitions=1)
seen = 0


@app.agent(app.topic(sys.argv.pop(1), value_serializer="raw"))
async def count(stream):
    global seen
    async for _ in stream:
        counts["all"] += 1
        seen += 1
        if seen == 3:
            await app.producer.flush()
            os.write(1, f"counted {counts['all']}".encode())  # and dies before the offset is committed
            os._exit(9)


@app.task
async def speak():
    print("for standard output", flush=True)


app.main()
"""
FAULTY = """
from engine.source_post import SourcePost
from floodwall.cli import main

def ship(*arguments):
    raise ValueError("an agent that fails")

SourcePost.ship = ship
main()
"""


def stock_worker(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Faust as its documentation says to start it."""
    script = folder / "stock.py"
    script.write_text(STOCK)
    return subprocess.Popen(
        [sys.executable, str(script), *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, cwd=folder,
    )  # fmt: skip


def listens_on(pid: int) -> set[str]:
    """The IPv4 addresses that a process listens on, with their ports."""
    own = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        target = os.readlink(entry) if entry.is_symlink() else ""
        own.add(target.removeprefix("socket:[").removesuffix("]"))
    found = set()
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A" and words[9] in own:
            address, port = words[1].split(":")
            found.add(f"{socket.inet_ntoa(bytes.fromhex(address)[::-1])}:{int(port, 16)}")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def counted(deployment: Deployment) -> int:
    return sum(ledger.counted for ledger in deployment.ledgers().values())


def test_a_table_counts_twice_after_a_crash_and_our_tallies_once(
    broker: str, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    """Both die when the output has been sent and the offset has not been committed."""
    topic = make_topic(broker, unique("table"))
    producer = Producer({"bootstrap.servers": broker, "log_level": 0})
    for _ in range(3):
        producer.produce(topic, b"x")
    assert producer.flush(10) == 0
    words = (unique("table-app"), broker, str(tmp_path), topic, "worker", "--without-web")
    said = []
    for _ in range(2):
        worker = stock_worker(tmp_path, *words)
        try:
            said.append(worker.communicate(timeout=60)[0].splitlines()[-1])
        finally:
            worker.kill()
    assert said == ["counted 3", "counted 6"]

    with deploy(broker, tmp_path, unique("once")[-40:], 1) as deployment:
        deployment.produce([split(1)[0][:EVENTS]])
        assert deployment.start("observe", failpoint="observe.offsets:1").wait(60) == -signal.SIGKILL
        assert deployment.committed() == {}
        deployment.start("observe")
        deployment.wait(lambda: counted(deployment) == EVENTS, 60, "every event to be counted")
        assert deployment.counted() == EVENTS


def test_an_agent_of_ours_that_fails_ends_the_process_and_acknowledges_nothing(
    broker: str, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    """What Faust does then is in test_faust_on_a_broker.py. The next worker reads it all; ours listen on 127.0.0.1 only."""
    with deploy(broker, tmp_path, unique("faulty")[-40:], 1) as deployment:
        deployment.produce([split(1)[0][:EVENTS]])
        environment = {**os.environ, "FLOODWALL_SEED": str(deployment.config.engine.seed)}
        environment.pop(VARIABLE, None)
        faulty = subprocess.run(
            [sys.executable, "-c", FAULTY, "worker", "observe", "--config", str(tmp_path / "config.toml")],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, cwd=PROJECT, timeout=60, check=False,
        )  # fmt: skip
        assert faulty.returncode == 70, faulty.stderr
        assert "an agent that fails" in faulty.stderr
        assert "Traceback" not in faulty.stderr
        assert deployment.committed() == {}
        worker = deployment.start("observe")
        deployment.wait(lambda: counted(deployment) == EVENTS, 60, "every event to be counted")
        assert {address.split(":")[0] for address in listens_on(worker.pid)} == {"127.0.0.1"}


def test_fausts_command_listens_to_everybody_and_takes_standard_output_away(
    broker: str, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    """Its code says ``web_enabled=False`` and ``web_host="127.0.0.1"``. Ours starts the app itself, without the command."""
    port = free_port()
    words = (unique("app"), broker, str(tmp_path), make_topic(broker, unique("listens")), "worker", "--web-port", str(port))
    worker = stock_worker(tmp_path, *words)
    try:
        assert worker.stderr is not None
        heard = ""
        for line in worker.stderr:
            heard += line
            if listens_on(worker.pid) and "for standard output" in heard:
                break
        assert listens_on(worker.pid) == {f"0.0.0.0:{port}"}
    finally:
        worker.kill()
        said, _ = worker.communicate()
    assert "for standard output" not in said


def test_every_compression_that_producers_use_is_read(
    broker: str, tmp_path: Path, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiokafka alone reads gzip only; cramjam, which it does not ask for, brings the others."""
    codecs = ("none", "gzip", "snappy", "lz4", "zstd")
    with deploy(broker, tmp_path, unique("codecs")[-40:], 1) as deployment:
        lines = split(1)[0][:EVENTS]
        for index, codec in enumerate(codecs):
            producer = Producer({"bootstrap.servers": broker, "log_level": 0, "compression.type": codec, "linger.ms": 100})
            for line in lines[index :: len(codecs)]:
                producer.produce(deployment.raw, line, partition=0)
            assert producer.flush(10) == 0

        async def read_alone() -> None:
            async with started(AIOKafkaConsumer(bootstrap_servers=broker)) as consumer:
                partition = TopicPartition(deployment.raw, 0)
                consumer.assign([partition])
                await consumer.seek_to_beginning(partition)
                with pytest.raises(UnsupportedCodecError):
                    _ = [await consumer.getmany(timeout_ms=500) for _ in codecs]

        with monkeypatch.context() as without:
            without.setattr(aiokafka.codec, "cramjam", None)
            run(read_alone())
        deployment.start("observe")
        deployment.wait_joined()
        deployment.wait(lambda: counted(deployment) == EVENTS, 60, "every event to be counted")
