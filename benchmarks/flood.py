"""What a flood looks like: a million events a second of event time, nearly all of it from 250 sources."""

from __future__ import annotations

from drills.traffic import Attack

FLOOD_PER_S, HONEST_PER_S, FLOODERS = 1e6, 2000.0, 250


def flooders(events: int) -> tuple[Attack, ...]:
    """The sources of a flood of so many events at `FLOOD_PER_S`; `HONEST_PER_S` of them are other people's."""
    span_s = events / FLOOD_PER_S
    each = (FLOOD_PER_S - HONEST_PER_S) / FLOODERS
    return tuple(Attack("flood", f"203.0.113.{1 + index}", 0.0, span_s, each) for index in range(FLOODERS))
