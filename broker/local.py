"""A real Kafka broker on this machine, without Docker: for tests, for the demo and for trying things.

It is one node in KRaft mode on 127.0.0.1, made for quick restarts and little memory. Its data are for throwing away: nothing
is replicated, and the operating system decides when bytes reach the disk.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
import zlib
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from broker.java import cache_folder, fetch_jars, find_java
from engine.clock import Clock, SystemClock
from schemas.errors import BrokerError

HOST = "127.0.0.1"
HEAP_MB = 512
"""Kafka needs about 150 MB idle; the rest is room for batches of 16 MB that several clients send at once."""
READY_S_MAX = 60.0
STOP_S_MAX = 20.0
"""A clean stop takes about 2 s; one that takes longer is ended the hard way."""
PORT_MIN, PORTS = 20_000, 10_000
"""Ports are looked for here: below those that the system gives to outgoing connections, which could take one of ours
while the broker is down."""
_WAIT_S = 0.05


class _Running(msgspec.Struct, frozen=True):
    """What is remembered of a broker between processes."""

    pid: int
    port: int
    controller_port: int
    secured_port: int


@dataclass(frozen=True, slots=True)
class Status:
    """What stands in a folder."""

    folder: str
    running: bool
    bootstrap: str | None
    pid: int | None
    bytes: int


def default_folder() -> Path:
    """Where ``floodwall broker`` keeps its broker."""
    return cache_folder() / "broker"


class LocalBroker:
    """One broker in one folder. The same folder finds the same broker again, also from another process.

    Args:
        folder: data, log and the memory of which process it is.
        port: of the plaintext listener; 0: one that is free, kept for later starts.
        secured: also open a second listener with SASL_SSL; ``settings`` must bring its keystore and mechanisms.
        settings: Kafka's own, over those chosen here.
        say: told, in a sentence, what takes long.
    """

    def __init__(
        self,
        folder: Path,
        port: int = 0,
        *,
        secured: bool = False,
        settings: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.folder = folder.absolute()
        self._secured = secured
        self._settings = dict(settings or {})
        self._clock = SystemClock() if clock is None else clock
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        known = self._remembered()
        if known is not None and (port == 0 or self._is_ours(known.pid)):
            port = known.port  # where it runs counts more than where it was asked for
        self._port = port
        self._controller_port = known.controller_port if known else 0
        self._secured_port = known.secured_port if known else 0

    @property
    def bootstrap(self) -> str:
        """``host:port`` of the plaintext listener; known once it was started."""
        return f"{HOST}:{self._port}"

    @property
    def secured_bootstrap(self) -> str:
        """``host:port`` of the listener with SASL_SSL."""
        return f"{HOST}:{self._secured_port}"

    @property
    def log_file(self) -> Path:
        """What the broker prints."""
        return self.folder / "broker.log"

    @property
    def pid(self) -> int | None:
        """The process, if it is alive and really this broker."""
        if self._process is not None:
            return None if self._process.poll() is not None else self._process.pid
        known = self._remembered()
        return known.pid if known is not None and self._is_ours(known.pid) else None

    def start(self) -> None:
        """Format the folder if it is new, start the process, and return when it answers.

        Raises:
            BrokerError: one runs already, Java or Maven is missing, the port is taken, or it does not come up.
        """
        if self.pid is not None:
            raise BrokerError(f"expected no broker in {self.folder}, one runs there as process {self.pid}")
        java = find_java()
        jars = fetch_jars(java, self._say)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._choose_ports()
        self._properties_file.write_text("".join(f"{name}={value}\n" for name, value in self._properties().items()))
        base = [str(java), "-Dlog4j2.level=WARN", "-XX:+UseSerialGC", "-cp", f"{jars}/*"]
        if not (self.folder / "data" / "meta.properties").exists():
            self._format(base)
        # A new session, no standard input and no inherited descriptors: it outlives whoever started it and holds no pipe open.
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*base[:-2], "-Xms64m", f"-Xmx{HEAP_MB}m", *base[-2:], "kafka.Kafka", str(self._properties_file)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=self.folder,
            )  # fmt: skip
        running = _Running(self._process.pid, self._port, self._controller_port, self._secured_port)
        self._state_file.write_bytes(msgspec.json.encode(running))
        self.wait_ready()

    def wait_ready(self, timeout_s: float = READY_S_MAX) -> None:
        """Return when the broker answers.

        Raises:
            BrokerError: the process ended, or the time is over.
        """
        for _ in self._until(timeout_s):
            if self.pid is None:
                raise BrokerError(f"expected the broker to start on {self.bootstrap}, it ended: {self._last_words()}")
            if self._answers():
                return
        raise BrokerError(f"expected the broker to answer on {self.bootstrap} within {timeout_s:.0f} s; see {self.log_file}")

    def stop(self) -> bool:
        """End it cleanly; False: there was none."""
        return self._end(signal.SIGTERM)

    def kill(self) -> bool:
        """End it as a crash would; False: there was none."""
        return self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop, and start again on the same port with the same data."""
        self.stop()
        self.start()

    def reset(self) -> None:
        """Stop it and throw its data away."""
        self.stop()
        for path in (self.folder / "data", self.folder / "tmp"):
            shutil.rmtree(path, ignore_errors=True)
        for path in (self._state_file, self._properties_file, self.log_file):
            path.unlink(missing_ok=True)

    def status(self) -> Status:
        """What stands in the folder."""
        pid = self.pid
        data = self.folder / "data"
        size = 0
        for path in data.rglob("*"):
            with contextlib.suppress(OSError):  # segments go away while we look
                size += path.stat().st_blocks * 512
        return Status(str(self.folder), pid is not None, self.bootstrap if pid is not None else None, pid, size)

    @property
    def _state_file(self) -> Path:
        return self.folder / "broker.json"

    @property
    def _properties_file(self) -> Path:
        return self.folder / "server.properties"

    def _remembered(self) -> _Running | None:
        try:
            return msgspec.json.decode(self._state_file.read_bytes(), type=_Running)
        except (OSError, msgspec.DecodeError):
            return None

    def _is_ours(self, pid: int) -> bool:
        """The process of that number has our configuration on its command line, so it is no other that got the number."""
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except FileNotFoundError:
            if Path("/proc/self").exists():
                return False
            shown = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, check=False)
            words = shown.stdout.split()
        except OSError:
            return False
        return b"kafka.Kafka" in words and os.fsencode(self._properties_file) in words

    def _until(self, timeout_s: float) -> Iterator[None]:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            yield
            self._clock.wait(_WAIT_S)

    def _end(self, number: signal.Signals) -> bool:
        pid = self.pid
        if pid is None:
            return False
        os.kill(pid, number)
        for _ in self._until(STOP_S_MAX):
            if self.pid is None:
                break
        else:
            os.kill(pid, signal.SIGKILL)
            for _ in self._until(STOP_S_MAX):
                if self.pid is None:
                    break
        self._process = None
        return True

    def _answers(self) -> bool:
        """One request that only a broker that serves can answer."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        with contextlib.suppress(OSError):
            socket.create_connection((HOST, self._port), timeout=1).close()
            with contextlib.suppress(KafkaException):
                # log_level 0: librdkafka would print every refused connection on standard error.
                admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
                return bool(admin.list_topics(timeout=5).brokers)
        return False

    def _choose_ports(self) -> None:
        free = _free_ports(zlib.crc32(os.fsencode(self.folder)))
        if self._port == 0:
            self._port = next(free)
        elif not _is_free(self._port):
            raise BrokerError(f"expected port {self._port} on {HOST} to be free for the broker, something listens there")
        if self._controller_port == 0 or not _is_free(self._controller_port):
            self._controller_port = next(port for port in free if port != self._port)
        if self._secured and self._secured_port == 0:
            self._secured_port = next(port for port in free if port not in (self._port, self._controller_port))

    def _properties(self) -> dict[str, str]:
        listeners = {"PLAINTEXT": self._port, "CONTROLLER": self._controller_port}
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"}
        if self._secured:
            listeners["SECURED"], protocols["SECURED"] = self._secured_port, "SASL_SSL"
        names = {name: f"{name}://{HOST}:{port}" for name, port in listeners.items()}
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{HOST}:{self._controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": ",".join(names.values()),
            "advertised.listeners": ",".join(address for name, address in names.items() if name != "CONTROLLER"),
            "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(self.folder / "data"),
            **_SETTINGS,
            **self._settings,
        }

    def _format(self, base: list[str]) -> None:
        # Joined by "=": one id in 64 begins with "-", and would be taken for an option.
        identity = f"--cluster-id={cluster_id(self.folder)}"
        words = [*base, "kafka.tools.StorageTool", "format", identity, "-c", str(self._properties_file)]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd=self.folder)
        if done.returncode != 0:
            lines = (done.stderr + done.stdout).strip().splitlines() or [f"exit {done.returncode}"]
            raise BrokerError(f"expected Kafka to format {self.folder}, it said: {lines[-1][:300]}")

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = self.log_file.read_text(errors="replace").strip().splitlines()
            telling = [line for line in lines[-200:] if "Exception" in line or "ERROR" in line]
            if lines:
                return f"{(telling or lines)[-1][:200]} (see {self.log_file})"
        return f"see {self.log_file}"


def cluster_id(folder: Path) -> str:
    """What Kafka calls the cluster whose data lie in a folder: 22 characters, always the same."""
    return urlsafe_b64encode(uuid.uuid5(uuid.NAMESPACE_URL, folder.as_uri()).bytes).decode().rstrip("=")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _free_ports(start: int) -> Iterator[int]:
    for step in range(PORTS):
        port = PORT_MIN + (start + step) % PORTS
        if _is_free(port):
            yield port
    raise BrokerError(f"expected a free port between {PORT_MIN} and {PORT_MIN + PORTS} on {HOST}, got none")


_SETTINGS = {
    # One node: nothing to replicate to.
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Few partitions of the internal topics, so that it starts and stops quickly.
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.num.partitions": "8",
    # Groups form at once, and sessions may be as short as tests want them.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # As long as `kafka.transaction_ms` may be; abandoned ones are looked for every second, not every ten.
    "transaction.max.timeout.ms": "60000",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # After a kill -9 the broker is let in again when its former self is given up for dead: 4 s, not 9.
    "broker.session.timeout.ms": "4000",
    "broker.heartbeat.interval.ms": "500",
    # A topic that was misspelt is an error, not a new topic.
    "auto.create.topics.enable": "false",
    # A day or 1 GiB for each partition, in files small enough to be deleted by then.
    "log.retention.hours": "24",
    "log.retention.bytes": str(1 << 30),
    "log.segment.bytes": str(64 << 20),
    # The cleaner's default buffer alone would take a quarter of the heap.
    "log.cleaner.dedupe.buffer.size": str(16 << 20),
    "num.network.threads": "2",
    "num.io.threads": "4",
}
