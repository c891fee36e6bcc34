"""Network namespaces for tests of firewalls: a client with several addresses, a server that greets, a cable between."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from drills.cable import FOLDER, PREFIX, Cable, Namespace, cable, namespace
from schemas.errors import EdgeError

REQUIRED = "FLOODWALL_REQUIRE_NFT"
SERVER = {socket.AF_INET: "198.51.100.1", socket.AF_INET6: "2001:db8:ffff::1"}
PORT = 8080
GREETING = b"served"


@dataclass(frozen=True)
class Pair:
    """A client and a server, each in a namespace of its own."""

    cable: Cable

    @property
    def server(self) -> str:
        """The name of the server's namespace."""
        return self.cable.server.name

    def is_served(self, source: str, timeout_s: float = 0.3) -> bool:
        """Whether a connection from one of the client's addresses is answered."""
        family = socket.AF_INET6 if ":" in source else socket.AF_INET
        with self.cable.client.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            try:
                connection.bind((source, 0))
                connection.connect((SERVER[family], PORT))
                return connection.recv(len(GREETING)) == GREETING
            except TimeoutError:
                return False

    def datagrams_through(self, source: str, count: int) -> int:
        """How many of ``count`` datagrams from an address, sent at once, arrive."""
        with self.cable.server.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            receiver.bind((SERVER[socket.AF_INET], PORT))
            receiver.settimeout(0.3)
            with self.cable.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
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
    need_namespaces()
    with cable(addresses, tuple(SERVER.values())) as between, _greeter(between.server):
        yield Pair(between)


@contextlib.contextmanager
def _greeter(server: Namespace) -> Iterator[None]:
    listener = server.socket(socket.AF_INET6, socket.SOCK_STREAM)
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


def why_not() -> str:
    """What keeps nftables in a namespace from being used here; empty: nothing."""
    if shutil.which("nft") is None:
        return "expected the program nft, found none on the path"
    try:
        with namespace("probe"):
            return ""
    except EdgeError as error:
        return str(error)


def need_namespaces() -> None:
    """Skip without nft or the right to make namespaces, or fail if they are required."""
    why = why_not()
    if why and os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{REQUIRED}=1, but there is no nft and ip netns here: {why}")
    if why:
        pytest.skip(f"needs nft and ip netns: {why}")


def namespaces_of(process: int) -> list[str]:
    """Names of the namespaces that a process has made and not removed."""
    return sorted(entry.name for entry in FOLDER.glob(f"{PREFIX}-*-{process}-*"))
