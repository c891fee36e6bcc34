"""Two network namespaces joined by a cable: clients with addresses of their own at one end, a service at the other.

Nothing here touches the host's own network: a namespace begins without any interface, and the cable (a veth pair) is made
between the two of ours. A namespace has this process's number in its name and goes when the block that made it is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from drills.signals import undisturbed
from schemas.errors import EdgeError

PREFIX = "fw"
FOLDER = Path("/var/run/netns")
"""Where `ip netns` keeps the namespaces that have names."""
IP_S_MAX = 30
"""A call of ip takes a few milliseconds; one that takes longer than this hangs."""
_DEVICE = "cable"
_CLONE_NEWNET = 0x40000000
_REFUSALS = ("Permission denied", "Operation not permitted")
_numbers = itertools.count()
Result = TypeVar("Result")


class Namespace:
    """A network namespace, and a thread that lives in it; use `namespace`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    def inside(self, work: Callable[[], Result]) -> Result:
        """Run ``work`` in the thread that lives there."""
        return self._thread.submit(work).result()

    def socket(self, family: int, kind: int) -> socket.socket:
        """A new socket: it stays in the namespace that it was made in, whoever uses it."""
        return self.inside(lambda: socket.socket(family, kind))

    def enter(self) -> None:
        """Move the thread there.

        Raises:
            EdgeError: it may not.
        """

        def move() -> None:
            with (FOLDER / self.name).open() as file:
                if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET) != 0:
                    why = os.strerror(ctypes.get_errno())
                    raise EdgeError(f"expected the right to enter the network namespace {self.name}, got: {why}; run as root")

        self.inside(move)

    def leave(self) -> None:
        """End the thread."""
        self._thread.shutdown()


@dataclass(frozen=True, slots=True)
class Cable:
    """Both ends."""

    client: Namespace
    server: Namespace


@contextlib.contextmanager
def namespace(role: str) -> Iterator[Namespace]:
    """A namespace of our own without any network, removed at the end; for the main thread.

    Raises:
        EdgeError: ip is missing, or it may not be made.
    """
    made = Namespace(f"{PREFIX}-{role}-{os.getpid()}-{next(_numbers)}")
    try:
        _ip("netns", "add", made.name)
        made.enter()
        yield made
    finally:
        with undisturbed():
            made.leave()
            if (FOLDER / made.name).exists():
                _ip("netns", "del", made.name)


@contextlib.contextmanager
def cable(client_addresses: Sequence[str], server_addresses: Sequence[str]) -> Iterator[Cable]:
    """Two namespaces that reach each other, with these addresses (IPv4 and IPv6); removed at the end; for the main thread.

    Raises:
        EdgeError: ip is missing, or namespaces may not be made.
    """
    with namespace("client") as client, namespace("server") as server:
        _ip("-n", client.name, "link", "add", _DEVICE, "type", "veth", "peer", "name", _DEVICE, "netns", server.name)
        for end, addresses in ((client, client_addresses), (server, server_addresses)):
            _ip("-n", end.name, "-batch", "-", lines=_layout(addresses))
        yield Cable(client, server)


def _layout(addresses: Sequence[str]) -> list[str]:
    """What one end is told: everything that is not its own lies at the other end."""
    lines = ["link set lo up", f"link set {_DEVICE} up"]
    for address in addresses:
        # nodad: an address is used at once, without waiting for others who may have it.
        length, flags = ("128", " nodad") if ":" in address else ("32", "")
        lines.append(f"addr add {address}/{length} dev {_DEVICE}{flags}")
    lines.append(f"route add 0.0.0.0/0 dev {_DEVICE}")
    if any(":" in address for address in addresses):
        lines.append(f"route add ::/0 dev {_DEVICE}")
    return lines


def _ip(*words: str, lines: Sequence[str] = ()) -> None:
    """Run ip; in a session of its own, so that an interrupt from the terminal does not end it halfway."""
    command = " ".join(("ip", *words))
    try:
        done = subprocess.run(
            ("ip", *words), input="".join(line + "\n" for line in lines), capture_output=True, text=True, check=False,
            timeout=IP_S_MAX, start_new_session=True,
        )  # fmt: skip
    except FileNotFoundError:
        raise EdgeError("expected the program ip, found none on the path: install iproute2") from None
    except subprocess.TimeoutExpired:
        raise EdgeError(f"expected `{command}` to be done within {IP_S_MAX} s, it was not") from None
    if done.returncode != 0:
        said = " ".join(done.stderr.split())[:300] or f"exit code {done.returncode}"
        if any(refusal in said for refusal in _REFUSALS):
            raise EdgeError(f"expected the right to make network namespaces, got: {said}; run as root")
        raise EdgeError(f"expected `{command}` to work, got: {said}")
