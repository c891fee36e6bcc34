"""Who there is in the demo, and how they reach its service: over loopback, or from addresses of their own over a cable."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from typing import Protocol

from drills.cable import Cable, Namespace, cable

HONEST = tuple(f"198.51.100.{last}" for last in range(1, 41))
ATTACKERS = tuple(f"203.0.113.{last}" for last in (7, 66, 99, 142))
SERVICE = "192.0.2.1"
"""Where the service is when it has an address of its own."""
_GONE_AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER, on and 0 seconds: what is closed is reset, and gone. A connection that waited for the answers of a blocked peer
would keep its namespace alive for minutes after the demo."""


class Network(Protocol):
    """What lies between clients and the service."""

    @property
    def proxy_depth(self) -> int:
        """How many trusted proxies the service's log is behind."""
        ...

    def listener(self) -> socket.socket:
        """The service's socket, bound."""
        ...

    def socket_from(self, address: str) -> socket.socket:
        """One that connects as the client with this address."""
        ...

    def headers(self, address: str) -> str:
        """What the way adds to that client's requests."""
        ...


class Loopback:
    """Everybody is on this host and says an address in X-Forwarded-For, as a trusted proxy would."""

    proxy_depth = 1

    def listener(self) -> socket.socket:
        """Any port that is free."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind(("127.0.0.1", 0))
        return listener

    def socket_from(self, address: str) -> socket.socket:
        """All alike."""
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM)

    def headers(self, address: str) -> str:
        """The address."""
        return f"X-Forwarded-For: {address}\r\n"


class Cabled:
    """Clients connect from their addresses over a cable: the service, its log and the kernel see who they are."""

    proxy_depth = 0

    def __init__(self, between: Cable) -> None:
        self._cable = between

    @property
    def namespace(self) -> str:
        """The service's, where its firewall belongs."""
        return self._cable.server.name

    def listener(self) -> socket.socket:
        """In the service's namespace."""
        return self._bound(self._cable.server, SERVICE)

    def socket_from(self, address: str) -> socket.socket:
        """In the clients' namespace, bound to the address."""
        return self._bound(self._cable.client, address)

    def headers(self, address: str) -> str:
        """Nothing: no proxy is in between."""
        return ""

    @staticmethod
    def _bound(end: Namespace, address: str) -> socket.socket:
        made = end.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _GONE_AT_ONCE)  # connections accepted by it inherit this
        made.bind((address, 0))
        return made


@contextlib.contextmanager
def cabled() -> Iterator[Cabled]:
    """The demo's cable with everybody's addresses.

    Raises:
        EdgeError: as `drills.cable.cable`.
    """
    with cable((*HONEST, *ATTACKERS), (SERVICE,)) as between:
        yield Cabled(between)
