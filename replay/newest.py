"""When recorded traffic ends: the newest event of sources, for spans that count back from there."""

from __future__ import annotations

from engine.clock import Clock
from engine.seeds import make_seeds
from replay.event_pass import pass_over
from schemas.columns import I64, Columns
from schemas.config import Config
from schemas.errors import SourceError
from schemas.fields import Number


class _Newest:
    def __init__(self) -> None:
        self.ms: int | None = None

    def take(self, columns: Columns, labels: I64 | None = None) -> None:
        """See `replay.event_pass.TakesEvents`."""
        here = int(columns.number(Number.TIME_MS).max())
        self.ms = here if self.ms is None else max(self.ms, here)


def newest_ms(config: Config, paths: list[str], clock: Clock) -> int:
    """Unix milliseconds after the newest event.

    Raises:
        SourceError: there is no event.
    """
    newest = _Newest()
    pass_over(config, paths, clock, make_seeds(config), newest)
    if newest.ms is None:
        raise SourceError(f"expected events in {', '.join(paths)[:200]}, got none")
    return newest.ms + 1
