"""Network namespaces for tests of firewalls: a client with several addresses, a server, a cable between them.

Nothing here touches the host's own network. Sockets are made by a thread that enters the namespace; a socket stays in the
namespace that it was made in, whoever uses it.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import pytest

REQUIRED = "FLOODWALL_REQUIRE_NFT"
SERVER = {socket.AF_INET: "198.51.100.1", socket.AF_INET6: "2001:db8:ffff::1"}
PORT = 8080
GREETING = b"served"
_CLONE_NEWNET = 0x40000000
_numbers = itertools.count()
Result = TypeVar("Result")


def inside(namespace: str, work: Callable[[], Result]) -> Result:
    """Run ``work`` in a thread that has entered the namespace."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with open(f"/var/run/netns/{namespace}") as file:
                if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


@dataclass
class Pair:
    """A client and a server, each in a namespace of its own."""

    client: str
    server: str

    def is_served(self, source: str, timeout_s: float = 0.3) -> bool:
        """Whether a connection from one of the client's addresses is answered."""
        family = socket.AF_INET6 if ":" in source else socket.AF_INET
        with inside(self.client, lambda: socket.socket(family, socket.SOCK_STREAM)) as connection:
            connection.settimeout(timeout_s)
            try:
                connection.bind((source, 0))
                connection.connect((SERVER[family], PORT))
                return connection.recv(len(GREETING)) == GREETING
            except TimeoutError:
                return False

    def datagrams_through(self, source: str, count: int) -> int:
        """How many of ``count`` datagrams from an address, sent at once, arrive."""
        with inside(self.server, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as receiver:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            receiver.bind((SERVER[socket.AF_INET], PORT))
            receiver.settimeout(0.3)
            with inside(self.client, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
                sender.bind((source, 0))
                for _ in range(count):
                    sender.sendto(b"x", (SERVER[socket.AF_INET], PORT))
            got = 0
            with contextlib.suppress(TimeoutError):
                while receiver.recv(10):
                    got += 1
        return got


@contextlib.contextmanager
def pair_of_namespaces(addresses: tuple[str, ...]) -> Iterator[Pair]:
    """Two namespaces with a cable; the client has ``addresses``, the server greets whoever connects."""
    _need_tools()
    mark = f"{os.getpid()}-{next(_numbers)}"
    pair = Pair(f"fw-client-{mark}", f"fw-server-{mark}")
    made = []
    try:
        for name in (pair.client, pair.server):
            _ip("netns", "add", name)
            made.append(name)
        _ip("-n", pair.client, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", pair.server)
        for name in (pair.client, pair.server):
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", "cable", "up")
        for address in (*SERVER.values(), *addresses):
            name = pair.server if address in SERVER.values() else pair.client
            # nodad: an address is used at once, without waiting for others who may have it.
            flags = ("nodad",) if ":" in address else ()
            _ip("-n", name, "addr", "add", f"{address}/{'128' if ':' in address else '32'}", "dev", "cable", *flags)
        for name in (pair.client, pair.server):
            _ip("-n", name, "route", "add", "default", "dev", "cable")
            _ip("-n", name, "-6", "route", "add", "default", "dev", "cable")
        with _greeter(pair.server):
            yield pair
    finally:
        for name in made:
            _ip("netns", "del", name)


@contextlib.contextmanager
def _greeter(namespace: str) -> Iterator[None]:
    listener = inside(namespace, lambda: socket.socket(socket.AF_INET6, socket.SOCK_STREAM))
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(("::", PORT))
    listener.listen(64)

    def greet() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.send(GREETING)

    thread = threading.Thread(target=greet, daemon=True)
    thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def _ip(*words: str) -> None:
    done = subprocess.run(("ip", *words), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def _need_tools() -> None:
    """Skip without nft or the right to make namespaces, or fail if they are required."""
    missing = [name for name in ("nft", "ip") if shutil.which(name) is None]
    why = f"missing: {', '.join(missing)}" if missing else ""
    if not missing:
        probe = f"fw-probe-{os.getpid()}"
        try:
            _ip("netns", "add", probe)
            _ip("netns", "del", probe)
        except OSError as error:
            why = str(error)
    if why and os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{REQUIRED}=1, but there is no nft and ip netns here: {why}")
    if why:
        pytest.skip(f"needs nft and ip netns: {why}")
