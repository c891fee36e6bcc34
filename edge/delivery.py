"""Whether what was sent over a connection was received.

Writing to a socket only hands bytes to the system. It keeps them until the other machine has acknowledged them, and says how
many are left: when none are, the answer is there.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import socket
import sys
import termios
from types import TracebackType

LOOK_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
"""How soon it is looked at again: acknowledgements of the last bytes take one round trip, or 40 ms where they are delayed."""
_CLOSED = 7
"""TCP_CLOSE, of the kernel's states of a connection: it was reset, or is over."""
_STATE_BYTES = 1


class Delivery:
    """Watches one answer on one connection. Keeps the connection's socket open until it is left, to be able to ask."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        found = transport.get_extra_info("socket")
        # The kernel's words are Linux's; elsewhere what could be written counts as received.
        self._socket: socket.socket | None = found.dup() if found is not None and sys.platform == "linux" else None

    def __enter__(self) -> Delivery:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._socket is not None:
            self._socket.close()

    async def arrived(self) -> bool:
        """Wait until everything has been acknowledged; False: the connection ended before."""
        look = 0
        while True:
            waiting = self._transport.get_write_buffer_size()
            is_received = waiting == 0 and self._unacknowledged() == 0
            # In this order: a reset throws away what was left, which then looks as if it had been acknowledged.
            if self._is_over():
                return False
            if is_received:
                return True
            await asyncio.sleep(LOOK_S[min(look, len(LOOK_S) - 1)])
            look += 1
            if waiting and self._transport.is_closing():
                return False  # what had not even been written is thrown away

    def _unacknowledged(self) -> int:
        if self._socket is None:
            return 0
        count = array.array("i", [0])
        fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, count)
        return count[0]

    def _is_over(self) -> bool:
        """Reset. One that the other side has merely closed stays open here as long as we hold it."""
        if self._socket is None:
            return False
        return self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _STATE_BYTES)[0] == _CLOSED
