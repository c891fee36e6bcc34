"""How long each step takes, by putting a stopwatch around it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import engine.judge
import engine.judge_windows
import engine.observe
from schemas.decode import Decoder

_STEPS: tuple[tuple[Any, str, str], ...] = (
    (Decoder, "decode_lines", "decode"),
    (engine.observe, "group_kernel", "group"),
    (engine.observe, "finish_rows_kernel", "finish"),
    (engine.observe, "order_kernel", "order"),
    (engine.observe, "finish_sample", "sample"),
    (engine.judge_windows, "all_insert_kernel", "insert"),
    (engine.judge_windows, "all_close_kernel", "close"),
    (engine.judge.Judge, "_tell", "decide"),
)


class Steps:
    """Stopwatches, taken off again at the end of the ``with``."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = {}
        self._originals: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> Steps:
        for owner, name, label in _STEPS:
            original = getattr(owner, name)
            self._originals.append((owner, name, original))
            setattr(owner, name, self._timed(original, label))
        return self

    def __exit__(self, *exception: object) -> None:
        for owner, name, original in self._originals:
            setattr(owner, name, original)

    def _timed(self, original: Callable[..., Any], label: str) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = original(*args, **kwargs)
            self._spent[label] = self._spent.get(label, 0.0) + time.perf_counter() - began
            return result

        return run

    def clear(self) -> None:
        """Start from nothing."""
        self._spent.clear()

    def nanoseconds(self) -> list[tuple[str, float]]:
        """Per step, in the order of the data."""
        return [(label, self._spent[label] * 1e9) for _, _, label in _STEPS if label in self._spent]
