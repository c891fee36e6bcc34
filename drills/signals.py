"""Whoever is told to end cleans up first; a second signal must not leave behind what is being cleaned up."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Signals that ask us to end do nothing meanwhile; for the main thread, which is the only one that they interrupt."""
    before = [signal.signal(number, signal.SIG_IGN) for number in _NUMBERS]
    try:
        yield
    finally:
        for number, handler in zip(_NUMBERS, before, strict=True):
            signal.signal(number, handler)
