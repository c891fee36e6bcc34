"""Workers of a deployment of their own on a local broker, and what they say and use while they are measured."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from broker.connection import Connection
from broker.topics import create_topics
from schemas.config import parse_config

JUDGE_PARTITIONS = 4
LOOK_S = 0.1
"""A look at the metrics costs a worker about 2 ms of processor time: more often, it would be a tenth of what is measured."""
WAIT_S_MAX = 180.0
"""A cold compiler on a busy machine takes two minutes."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Worker:
    """One worker, or one supervisor, and where its log lines go."""

    process: subprocess.Popen[bytes]
    log: Path

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels; 0 before the worker serves it."""
        found = re.search(r"health=(http://\S+)/health", self.log.read_text())
        if found is None:
            return 0.0
        with urllib.request.urlopen(found.group(1) + "/metrics") as answer:
            text = answer.read().decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))

    def children(self) -> dict[str, int]:
        """Of a supervisor: the process of each role."""
        pid = self.process.pid
        found = {}
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            found.update({role: int(child) for role in ("observe", "judge") if role.encode() in words})
        return found


def wait_until(condition: Callable[[], object], expected: str, look_s: float = LOOK_S) -> None:
    """Look again and again, every ``look_s``.

    Raises:
        TimeoutError: it did not come.
    """
    ends = time.monotonic() + WAIT_S_MAX
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError(f"expected {expected} within {WAIT_S_MAX:.0f} s")
        time.sleep(look_s)


def processor_s(pid: int) -> float:
    """Processor time that a process has used, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def make_topic(bootstrap: str, topic: str, partitions: int = 1) -> None:
    """Create a topic and wait until it is there."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, partitions)])[topic].result(10)


def fill_topic(bootstrap: str, topic: str, values: Sequence[bytes], partitions: int = 1) -> None:
    """Create a topic and send all values, to its partitions in turn."""
    make_topic(bootstrap, topic, partitions)
    send_values(bootstrap, topic, values, partitions)


def send_values(bootstrap: str, topic: str, values: Sequence[bytes], partitions: int = 1) -> None:
    """Send all values, to the topic's partitions in turn."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "queue.buffering.max.messages": 2_000_000})
    for index, value in enumerate(values):
        while True:
            try:
                producer.produce(topic, value, partition=index % partitions)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()


def config_file(folder: Path, topic: str) -> Path:
    """What `running` wrote, for other commands of the same deployment."""
    return folder / f"{topic}.toml"


@contextmanager
def running(
    bootstrap: str, folder: Path, topic: str, commands: Sequence[Sequence[str]], partitions: int = 1, **sections: dict[str, Any]
) -> Iterator[list[Worker]]:
    """One worker for each of ``commands`` (what follows ``floodwall worker``); it begins when each has taken over.

    Their configuration, with ``sections`` beside what all have, is `config_file`.
    """
    kafka = {
        "brokers": [bootstrap], "development": True, "topics": [topic], "topic_prefix": f"{topic}.", "group_prefix": topic,
        "rows_max": 1_000_000,
    }  # fmt: skip
    document = {"kafka": kafka, "engine": {"judge_partitions": JUDGE_PARTITIONS}, **sections}
    config = parse_config(document)
    create_topics(config, Connection(config.kafka), raw_partitions=partitions)
    file = config_file(folder, topic)
    written = [[f"[{name}]", *(f"{key} = {orjson.dumps(value).decode()}" for key, value in section.items())]
               for name, section in document.items()]  # fmt: skip
    file.write_text("\n".join(line for section in written for line in section) + "\n")
    workers: list[Worker] = []
    try:
        for index, words in enumerate(commands):
            log = folder / f"{topic}-{index}.log"
            with log.open("wb") as out:
                process = subprocess.Popen(
                    [sys.executable, "-m", "floodwall", "worker", *words, "--config", str(file)], stdout=out, stderr=out,
                    stdin=subprocess.DEVNULL, env={**os.environ, "FLOODWALL_SEED": "benchmark"},
                )  # fmt: skip
            workers.append(Worker(process, log))
        wait_until(lambda: all("took_over" in worker.log.read_text() for worker in workers), "every worker to start")
        yield workers
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.wait(30)
