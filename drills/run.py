"""A drill: honest traffic and attacks as blocks of events in the order in which they completed.

Memory is bounded by what is under way: requests that began up to `HORIZON_CELLS` ago and have not completed, and one cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from drills.attacks.base import Hostile
from drills.attacks.catalogue import prepared
from drills.attacks.strengths import StrengthName
from drills.columns import CELL_S, Events, concatenated, generator
from drills.honest.sources import Draw, honest_sources
from drills.service.calendar import Storms
from drills.service.world import NORMAL_PER_SECOND, World
from schemas.errors import UsageError

HORIZON_CELLS = 20
"""What begins in one draw completes within so many minutes: a visit lasts up to 8 with its pauses, a stream 11."""
START_S = 1_795_392_000
"""Monday, 2026-11-23, 00:00 UTC."""
PER_SECOND_MIN, PER_SECOND_MAX = 0.01, 20_000
"""Below, there is nobody; above, one cell is more than a gigabyte."""
START_S_MIN, START_S_MAX = 7 * 86_400, 7_226_582_400
SPAN_S_MAX = 366 * 86_400


@dataclass(frozen=True, slots=True)
class Plan:
    """What a drill is to be."""

    seed: int = 1
    start_s: int = START_S
    span_s: int = 3600
    events_per_second: float = NORMAL_PER_SECOND
    """Honest events, on average over a week."""
    attacks: tuple[str, ...] = ()
    strength: StrengthName = "ordinary"
    at_s: tuple[int, ...] = ()
    """Seconds after the start at which each attack begins; none: spread over the time, the last early enough to end in it."""
    storms: Storms = "calendar"
    honest: bool = True
    """False: attacks alone."""
    only: frozenset[str] = field(default_factory=frozenset)
    """Honest sources by name (`drills.honest.sources.NAMES`); none: all."""


class Drill:
    """A plan with its world.

    Raises:
        UsageError: the plan does not fit together.
    """

    def __init__(self, plan: Plan) -> None:
        if not 1 <= plan.span_s <= SPAN_S_MAX:
            raise UsageError(f"expected a drill of 1 s to {SPAN_S_MAX // 86_400} days, got {plan.span_s} s")
        if not START_S_MIN <= plan.start_s <= START_S_MAX:
            raise UsageError(f"expected a drill to begin from 1970 to 2199, got Unix second {plan.start_s}")
        if not PER_SECOND_MIN <= plan.events_per_second <= PER_SECOND_MAX:
            raise UsageError(
                f"expected {PER_SECOND_MIN} to {PER_SECOND_MAX:,} honest events a second, got {plan.events_per_second:g}"
            )
        if not 0 <= plan.seed < 1 << 32:
            raise UsageError(f"expected a seed from 0 to {(1 << 32) - 1}, got {plan.seed}")
        if len(set(plan.attacks)) != len(plan.attacks):
            raise UsageError(f"expected each attack once, got {' '.join(plan.attacks)[:200]}")
        self.plan = plan
        self.stop_s = plan.start_s + plan.span_s
        self.world = World(
            seed=plan.seed, start_s=plan.start_s, stop_s=self.stop_s, events_per_second=plan.events_per_second,
            storms=plan.storms,
        )  # fmt: skip
        self.hostile: list[Hostile] = [
            prepared(self.world, name, plan.strength, plan.start_s, label) for label, name in enumerate(plan.attacks, 1)
        ]
        self._place(plan.at_s)

    def _place(self, at_s: Sequence[int]) -> None:
        """Give each attack its time."""
        if at_s and len(at_s) != len(self.hostile):
            raise UsageError(f"expected as many beginnings as attacks ({len(self.hostile)}), got {len(at_s)}")
        for index, hostile in enumerate(self.hostile):
            length = hostile.stop_s - hostile.start_s
            free = max(0, self.plan.span_s - length)
            # Never at once: what is normal has to be seen first.
            begin = at_s[index] if at_s else int(free * (index + 1) / (len(self.hostile) + 1))
            if not 0 <= begin < self.plan.span_s:
                raise UsageError(f"expected {hostile.name} to begin in the drill's {self.plan.span_s} s, got {begin} s")
            hostile.move(self.plan.start_s + begin)

    def blocks(self, block_s: int = CELL_S) -> Iterator[Events]:
        """All events, in blocks of so many seconds (rounded up to whole minutes): the bytes are the same for any.

        Every block is sorted by time of completion, and all of it is earlier than the next.
        """
        per_block = max(1, -(-block_s // CELL_S))
        ready: list[Events] = []
        for number, events in enumerate(self._cells(), 1):
            ready.append(events)
            if number % per_block == 0:
                yield concatenated(ready)
                ready = []
        if ready:
            yield concatenated(ready)

    def _cells(self) -> Iterator[Events]:
        start_ms, stop_ms = self.plan.start_s * 1000, self.stop_s * 1000
        first, last = self.plan.start_s // CELL_S, (self.stop_s - 1) // CELL_S
        sources = honest_sources(self.world, self.plan.only) if self.plan.honest else {}
        for hostile in self.hostile:
            sources[hostile.number] = hostile.draw
        under_way: list[Events] = []
        # What began before the drill and completes in it belongs to it.
        for cell in range(first - HORIZON_CELLS, last + 1):
            end_ms = min((cell + 1) * CELL_S * 1000, stop_ms)
            drawn = _drawn(self.plan.seed, sources, cell)
            assert not len(drawn) or int(drawn["time_ms"].max()) < (cell + 1 + HORIZON_CELLS) * CELL_S * 1000
            under_way.append(drawn[drawn["time_ms"] >= start_ms])
            if cell < first:
                continue
            together = concatenated(under_way)
            due = together["time_ms"] < end_ms
            under_way = [together[~due]]
            events = together[due]
            yield events[np.lexsort((events["id"], events["time_ms"]))]


def _drawn(seed: int, sources: dict[int, Draw], cell: int) -> Events:
    """What all sources begin in one cell; each event gets the id that is its own whatever else is in the drill."""
    parts = []
    for number, draw in sources.items():
        events = draw(cell, generator(seed, number, cell))
        events["id"] = (number << 52) + (cell << 25) + np.arange(len(events))
        parts.append(events)
    return concatenated(parts)
