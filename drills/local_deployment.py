"""A whole deployment on this machine for as long as a drill takes: a broker, the topics, an observer and a judge.

Everything lies in one folder and ends with the drill: processes by their numbers, files with the folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from broker.connection import Connection
from broker.local import LocalBroker
from broker.topics import create_topics
from drills.signals import undisturbed
from engine.clock import Clock
from engine.seeds import VARIABLE
from schemas.config import Config, load_config
from schemas.errors import BrokerError

TOPIC = "access-log"
RAW_PARTITIONS = 2
JUDGE_PARTITIONS = 4
READY_S_MAX = 180.0
"""Two workers that compile their kernels at once on a small machine take up to two minutes; later ones 5 s."""
STOP_S_MAX = 10.0
_LOOK_S = 0.2
_ANSWER_S_MAX = 2.0
ROLES = ("observe", "judge")


class Worker:
    """One worker process, and what it says of itself."""

    def __init__(self, role: str, config_file: Path, secret: str) -> None:
        self.role = role
        self._log = config_file.with_name(f"{role}.log")
        words = [sys.executable, "-m", "floodwall", "worker", role, "--config", str(config_file), "--health-port", "0"]
        # A session of its own: an interrupt from the terminal is for whoever started us, who then ends us in order.
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, VARIABLE: secret},
                start_new_session=True,
            )  # fmt: skip

    def check(self) -> None:
        """Raise `BrokerError` if it has ended."""
        code = self._process.poll()
        if code is not None:
            lines = self._log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            raise BrokerError(f"expected the worker to {self.role}, it ended with exit code {code}: {lines[-1][:300]}")

    def is_ready(self) -> bool:
        """It has its partitions and makes progress."""
        try:
            health = orjson.loads(self._ask("health"))
        except OSError:  # not listening yet, or 503
            return False
        return bool(health["healthy"] and health["partitions"])

    def total(self, metric: str) -> int:
        """The sum of a counter over its labels; 0 while it does not answer."""
        try:
            text = self._ask("metrics").decode()
        except OSError:
            return 0
        return sum(int(float(line.rsplit(" ", 1)[1])) for line in text.splitlines() if line.startswith(metric + "{"))

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def end(self) -> None:
        """Wait for that; the hard way after a while, which loses nothing that matters here."""
        try:
            self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, path: str) -> bytes:
        # The port is any that was free: the log's first lines name it.
        found = re.search(r"listening .*health=(http://\S+/)health", self._log.read_text(errors="replace"))
        if found is None:
            raise ConnectionError
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(found[1] + path, timeout=_ANSWER_S_MAX) as answer:
            body: bytes = answer.read()
        return body


class LocalDeployment:
    """What runs; use `deploy`."""

    def __init__(self, bootstrap: str, config: Config, workers: tuple[Worker, ...]) -> None:
        self.bootstrap = bootstrap
        self.config = config
        self._workers = workers

    def check(self) -> None:
        """Raise `BrokerError` if a worker has ended."""
        for worker in self._workers:
            worker.check()

    def wait_ready(self, clock: Clock) -> None:
        """Return when every worker has its partitions.

        Raises:
            BrokerError: one has ended, or it takes too long.
        """
        deadline = time.monotonic() + READY_S_MAX
        while not all(worker.is_ready() for worker in self._workers):
            self.check()
            if time.monotonic() > deadline:
                raise BrokerError(f"expected the workers to be ready within {READY_S_MAX:.0f} s, they are not")
            clock.wait(_LOOK_S)

    def events(self) -> int:
        """Events that the observers have counted."""
        return sum(worker.total("floodwall_events_total") for worker in self._workers)


@contextlib.contextmanager
def deploy(folder: Path, settings: Mapping[str, Any], clock: Clock, say: Callable[[str], None]) -> Iterator[LocalDeployment]:
    """Start all of it in ``folder``, with ``settings`` (sections of the configuration) and a seed that is drawn; end all of it.

    Raises:
        BrokerError: Java or Maven is missing, the broker does not come up, or a worker does not.
    """
    broker = LocalBroker(folder / "broker", clock=clock, say=say)
    workers: list[Worker] = []
    try:
        say("starting a broker")
        broker.start()
        config_file = folder / "floodwall.toml"
        kafka = {"brokers": [broker.bootstrap], "development": True, "topics": [TOPIC]}
        config_file.write_text(to_toml({**settings, "kafka": kafka, "engine": {"judge_partitions": JUDGE_PARTITIONS}}))
        config = load_config(config_file)
        create_topics(config, Connection(config.kafka), raw_partitions=RAW_PARTITIONS)
        say(f"starting an observer and a judge on the broker at {broker.bootstrap}")
        secret = secrets.token_hex(16)
        for role in ROLES:
            workers.append(Worker(role, config_file, secret))
        deployment = LocalDeployment(broker.bootstrap, config, tuple(workers))
        deployment.wait_ready(clock)
        yield deployment
    finally:
        with undisturbed():
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.end()
            broker.kill()  # its data go with the folder


def to_toml(document: Mapping[str, Any]) -> str:
    """Settings and sections of settings as TOML; strings, numbers, booleans and lists of them are written as in JSON."""
    plain = [(name, value) for name, value in document.items() if not isinstance(value, Mapping)]
    lines = [f"{name} = {orjson.dumps(value).decode()}" for name, value in plain]
    for name, section in document.items():
        if isinstance(section, Mapping):
            lines += [f"[{name}]", *(f"{key} = {orjson.dumps(value).decode()}" for key, value in section.items())]
    return "\n".join(lines) + "\n"
