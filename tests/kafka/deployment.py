"""A whole deployment on the tests' broker: its topics, workers as processes, and what came of it all."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from aiokafka.admin import AIOKafkaAdminClient
from confluent_kafka import Consumer, Producer, TopicPartition

from broker.connection import Connection
from broker.topics import create_topics
from detectors.kernels.windows import NEVER
from engine.record import Record, decode_record
from engine.seeds import make_seeds
from engine.shipping import receive_tally
from engine.source_post import Ledger, read_ledger
from schemas.config import Config
from schemas.fields import Dimension, Measure
from schemas.mitigation import Finding, Mitigation, decode_mitigation
from schemas.tally import C_DIMENSION, Tally
from schemas.topics import DEAD_LETTERS, FINDINGS, MITIGATIONS, STATE, tallies_topic
from streams.failpoints import VARIABLE
from tests.engines import config_of

PROJECT = Path(__file__).resolve().parents[2]
JUDGE_PARTITIONS = 4
POLL_S = 0.25
_numbers = itertools.count()


@dataclass
class Message:
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: dict[str, bytes]
    timestamp_ms: int


@dataclass
class Deployment:
    """Topics under a prefix of their own; use `deploy`."""

    bootstrap: str
    folder: Path
    raw: str
    config: Config
    partitions: int
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    log_files: dict[int, Path] = field(default_factory=dict)
    """By process id."""

    @property
    def prefix(self) -> str:
        return self.config.kafka.topic_prefix

    def start(
        self, role: str, *, failpoint: str | None = None, instance: str | None = None, module: str = "floodwall"
    ) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", module, "worker", *role.split(), "--config", str(self.folder / "config.toml")]
        words += [] if instance is None else ["--instance", instance]
        environment = {**os.environ, "FLOODWALL_SEED": str(self.config.engine.seed), "FLOODWALL_DEBUG": "1"}
        environment.pop(VARIABLE, None)
        if failpoint is not None:
            environment[VARIABLE] = failpoint
        path = self.folder / f"{role.split(maxsplit=1)[0]}-{next(_numbers)}.log"
        with path.open("wb") as log:
            worker = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=PROJECT)
        self.workers.append(worker)
        self.log_files[worker.pid] = path
        return worker

    def log_of(self, worker: subprocess.Popen[bytes]) -> str:
        """What it has logged so far."""
        return self.log_files[worker.pid].read_text(errors="replace")

    def stop_all(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGCONT)
                worker.terminate()  # a supervisor ends its children
        for worker in self.workers:
            try:
                worker.wait(30)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()

    def wait_joined(self, limit_s: float = 60.0) -> None:
        """Every worker that lives has been given its partitions."""

        def joined() -> bool:
            logs = [path.read_text(errors="replace") for path in self.folder.glob("*.log")]
            return sum("took_over" in log for log in logs) >= sum(worker.poll() is None for worker in self.workers)

        self.wait(joined, limit_s, "every worker to take over")

    def produce(
        self, parts: Sequence[Sequence[bytes]], *, seconds: float = 0.0, on_share: Callable[[float], None] = lambda share: None
    ) -> None:
        """Each part into its partition, side by side in step with its share, within ``seconds``.

        ``on_share`` is told the share that has been sent, about every 0.25 %.
        """
        # Idempotent: what a producer sends twice, as a plain one does when its broker dies before it answers, are two events.
        producer = Producer(
            {"bootstrap.servers": self.bootstrap, "linger.ms": 5, "log_level": 0, "acks": "all", "enable.idempotence": True}
        )
        longest = max(map(len, parts))
        step = max(1, longest // 400)
        began = time.monotonic()
        for first in range(0, longest, step):
            for partition, part in enumerate(parts):
                low, high = first * len(part) // longest, min(first + step, longest) * len(part) // longest
                for value in part[low:high]:
                    producer.produce(self.raw, value, partition=partition)
            share = min(1.0, (first + step) / longest)
            producer.poll(0)
            on_share(share)
            time.sleep(max(0.0, began + seconds * share - time.monotonic()))
        assert producer.flush(60) == 0

    def read(self, topic: str, *, committed: bool = True) -> list[Message]:
        """Everything that is in a topic now."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap, "group.id": "none", "enable.auto.commit": False, "log_level": 0,
                "isolation.level": "read_committed" if committed else "read_uncommitted", "enable.partition.eof": True,
                "auto.offset.reset": "earliest", "fetch.queue.backoff.ms": 5,
            }
        )  # fmt: skip
        found: list[Message] = []
        try:
            many = len(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
            consumer.assign([TopicPartition(topic, partition, 0) for partition in range(many)])
            left = set(range(many))
            while left:
                for message in consumer.consume(5000, timeout=1.0):
                    error = message.error()
                    if error is not None:
                        assert error.name() == "_PARTITION_EOF", error
                        left.discard(message.partition())  # again whenever more has come
                        continue
                    found.append(
                        Message(
                            message.partition(), message.offset(), message.key(), message.value() or b"",
                            dict(message.headers() or []), message.timestamp()[1],
                        )
                    )  # fmt: skip
        finally:
            consumer.close()
        return found

    def mitigations(self) -> list[Mitigation]:
        return [decode_mitigation(message.value) for message in self.read(self.prefix + MITIGATIONS)]

    def findings(self) -> list[Finding]:
        return [msgspec.json.decode(message.value, type=Finding) for message in self.read(self.prefix + FINDINGS)]

    def dead_letters(self) -> list[Message]:
        return self.read(self.prefix + DEAD_LETTERS)

    def committed(self) -> dict[str, tuple[int, str]]:
        """Offset and note of every source partition."""
        group = f"{self.config.kafka.group_prefix}-observers"

        async def fetch() -> dict[str, tuple[int, str]]:
            # confluent-kafka sometimes returns metadata with bytes behind its end.
            client = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
            await client.start()
            try:
                found = await client.list_consumer_group_offsets(group)
            finally:
                await client.close()
            return {f"{tp.topic}-{tp.partition}": (entry.offset, entry.metadata) for tp, entry in found.items()}

        return asyncio.run(fetch())

    def ledgers(self) -> dict[str, Ledger]:
        return {name: read_ledger(name, note) for name, (_, note) in self.committed().items()}

    def records(self) -> dict[int, Record]:
        """The last record of each judge partition."""
        last = {message.partition: message.value for message in self.read(self.prefix + STATE)}
        seeds = make_seeds(self.config)
        return {partition: decode_record(value, self.config, seeds, partition) for partition, value in last.items()}

    def tallies(self) -> list[tuple[int, Tally]]:
        """Judge partition and tally, as judges get them and in that order."""
        seeds = make_seeds(self.config)
        return [
            (message.partition, receive_tally(message.value, seeds.hash, message.partition, JUDGE_PARTITIONS))
            for message in self.read(tallies_topic(JUDGE_PARTITIONS, self.prefix))
        ]

    def counted(self) -> int:
        """Events in the tallies as judges get them: the service's requests."""
        total = 0
        for _, tally in self.tallies():
            total += int(tally.measures[tally.column(C_DIMENSION) == Dimension.SERVICE, Measure.REQUESTS].sum())
        return total

    def wait(self, done: Callable[[], bool], limit_s: float, what: str) -> None:
        deadline = time.monotonic() + limit_s
        while not done():
            if time.monotonic() > deadline:
                raise AssertionError(f"expected {what} within {limit_s:.0f} s\n{self.logs()}")
            time.sleep(POLL_S)

    def is_judged(self, tick: int) -> bool:
        """Every judge partition has written down that it has closed ``tick``."""
        closed = {partition: record.closed for partition, record in self.records().items()}
        return len(closed) == JUDGE_PARTITIONS and all(at == NEVER or at >= tick for at in closed.values())

    def wait_judged(self, tick: int, limit_s: float = 60.0) -> None:
        self.wait(lambda: self.is_judged(tick), limit_s, f"every judge to close {tick}")

    def logs(self) -> str:
        """The last lines of every worker's log."""
        return "\n".join(
            f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-12:])
            for path in sorted(self.folder.glob("*.log"))
        )


@contextmanager
def deploy(bootstrap: str, folder: Path, name: str, partitions: int, **sections: Any) -> Iterator[Deployment]:
    """Topics made, workers stopped at the end."""
    raw = f"{name}-requests"
    kafka = {
        "brokers": [bootstrap], "development": True, "topics": [raw], "topic_prefix": f"{name}."[:64],
        "group_prefix": name[:100], "rows_max": 1_000_000, "session_ms": 6000, "state_ms": 500, **sections.pop("kafka", {}),
    }  # fmt: skip
    timing = {"lateness_s": 2, "ahead_s": 2, **sections.pop("time", {})}
    document = {"kafka": kafka, "time": timing, **sections}
    config = config_of(document, judge_partitions=JUDGE_PARTITIONS)
    create_topics(config, Connection(config.kafka), raw_partitions=partitions)
    (folder / "config.toml").write_text(_toml({**document, "engine": {"judge_partitions": JUDGE_PARTITIONS}}))
    deployment = Deployment(bootstrap, folder, raw, config, partitions)
    try:
        yield deployment
    finally:
        deployment.stop_all()


def _toml(document: dict[str, Any]) -> str:
    lines = []
    for section, entries in document.items():
        lines.append(f"[{section}]")
        lines += [f"{name} = {msgspec.json.encode(value).decode()}" for name, value in entries.items()]
    return "\n".join(lines) + "\n"
