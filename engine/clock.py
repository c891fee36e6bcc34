"""The only place that reads the wall clock. Whoever needs time is given a `Clock`."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Wall time in, waiting out; tests pass one that they advance by hand."""

    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        ...

    def wait(self, seconds: float) -> None:
        """Return after ``seconds``."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        return time.time_ns() // 1_000_000

    def wait(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)
