"""``--speed``: recorded traffic against the clock, so many seconds of events in one of ours."""

from __future__ import annotations

from collections.abc import Callable

from engine.clock import Clock

SLICE_S = 0.2
"""Waited at a time, so that whoever interrupts is heard."""
CHUNK_BYTES = 1 << 14
"""Read at a time: the events of a chunk come together."""


class Pace:
    """Waits until events are due.

    Args:
        speed: seconds of event time in a second.
        stop: says that nobody wants to wait any longer.
    """

    def __init__(self, speed: float, clock: Clock, stop: Callable[[], bool]) -> None:
        self._speed, self._clock, self._stop = speed, clock, stop
        self._first: tuple[int, int] | None = None
        """(event time, ours) when the first event came."""

    def keep(self, event_ms: int) -> None:
        """Return when events of this time are due. Times before the first are due at once."""
        if self._first is None:
            self._first = event_ms, self._clock.now_ms()
        event_0, clock_0 = self._first
        due_ms = clock_0 + (event_ms - event_0) / self._speed
        while not self._stop() and (left_s := (due_ms - self._clock.now_ms()) / 1000) > 0:
            self._clock.wait(min(left_s, SLICE_S))
