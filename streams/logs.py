"""Logs of workers: one line per event, a constant name and key=value, on standard error.

What came from the wire is escaped and cut before it is written. aiokafka writes thousands of lines a second while a broker
is away (docs/faust.md), so each of its loggers may write a few lines a second and then one that says how
many were left out.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from engine.clock import Clock

LINES_A_SECOND = 5
VALUE_CHARACTERS_MAX = 300
_LOGGER = logging.getLogger("floodwall")


def _shown(value: Any) -> str:
    text = str(value)[:VALUE_CHARACTERS_MAX]
    escaped = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return f'"{escaped}"' if not escaped or " " in escaped or "=" in escaped else escaped


def say(event: str, level: int = logging.INFO, **values: Any) -> None:
    """Log one event, whose name is constant, with its values."""
    _LOGGER.log(level, " ".join([event, *(f"{name}={_shown(value)}" for name, value in values.items())]))


class RateLimit(logging.Filter):
    """Lets a few lines of each logger through in a second."""

    def __init__(self, clock: Clock, lines: int = LINES_A_SECOND) -> None:
        super().__init__()
        self._clock, self._lines = clock, lines
        self._second: dict[str, tuple[int, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this line is written."""
        second = self._clock.now_ms() // 1000
        last, written = self._second.get(record.name, (second, 0))
        if last != second:
            if written > self._lines:
                record.msg = f"{record.msg} (and {written - self._lines} lines left out before)"
            last, written = second, 0
        self._second[record.name] = (last, written + 1)
        return written < self._lines


class _OneLine(logging.Formatter):
    """Time, level and text; what libraries log is escaped, and their stack traces are left out."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.name != _LOGGER.name:
            text = f"library logger={record.name} text={_shown(text)}"
        return f"{self.formatTime(record)} {record.levelname.lower()} {text}"


def set_up_logs(clock: Clock, level: int = logging.INFO) -> None:
    """Write to standard error: our own events from ``level`` on, those of libraries from warnings on, at a bounded rate."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine())
    limit = RateLimit(clock)
    handler.addFilter(lambda record: record.name == _LOGGER.name or limit.filter(record))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    _LOGGER.setLevel(level)
