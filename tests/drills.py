"""What tests of drills share: small drills, their lines, and what our own decoder reads in them."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from drills.columns import Events, concatenated
from drills.render import lines
from drills.run import START_S, Drill, Plan
from schemas.config import Input
from schemas.decode import Decoder
from schemas.fields import Number, Text

LATER = 4_102_444_800_000
MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400


def drill_of(*attacks: str, **settings: Any) -> Drill:
    """Weak attacks in ten minutes at 20 events a second, unless it says otherwise."""
    usual = {"seed": 7, "span_s": 600, "events_per_second": 20.0, "storms": "none", "strength": "weak"}
    chosen = {**usual, **settings}
    return Drill(Plan(attacks=attacks, **chosen))


def events_of(drill: Drill, block_s: int = MINUTE_S) -> Events:
    return concatenated(list(drill.blocks(block_s)))


@functools.cache
def honest_hour() -> tuple[Drill, Events]:
    """An hour with every storm in it once."""
    drill = drill_of(span_s=HOUR_S, storms="all", start_s=START_S + 14 * HOUR_S)
    return drill, events_of(drill)


def joined(drill: Drill, events: Events, stream: str, access_format: str = "combined") -> bytes:
    return b"".join(lines(events, drill.world.actors, stream, access_format))


def decoded(data: bytes) -> dict[str, Any]:
    """Columns by name, as our decoder reads the lines; none may be poison."""
    decoder = Decoder(Input(), key_seed=(1, 2), ahead_ms=5000)
    chunk = np.zeros(2 * len(data) + 16384, np.uint8)
    chunk[: len(data)] = np.frombuffer(data, np.uint8)
    found: dict[str, list[Any]] = {name: [] for name in ("time_ms", "status", "ip_low", "ip_high", "flags", "cost", "key")}
    at = 0
    while at < len(data):
        at = decoder.decode_lines(chunk, len(data), at, bound_ms=LATER, events_max=20_000)
        assert decoder.poison == decoder.empty == 0
        columns = decoder.columns
        for name, column in (
            ("time_ms", Number.TIME_MS), ("status", Number.STATUS), ("flags", Number.FLAGS), ("cost", Number.COST_MICRO),
        ):  # fmt: skip
            found[name].append(columns.number(column).copy())
        found["ip_low"].append(columns.ip_low[: columns.n].copy())
        found["ip_high"].append(columns.ip_high[: columns.n].copy())
        found["key"].append([columns.text(Text.API_KEY, row) for row in range(columns.n)])
    return {name: np.concatenate([np.asarray(part) for part in parts]) for name, parts in found.items()}


def busiest(keys: np.ndarray, times_ms: np.ndarray, window_ms: int) -> int:
    """The most events of one key in any window."""
    _, group = np.unique(keys, return_inverse=True)
    place = np.sort(group.astype(np.int64) * 10**10 + (times_ms - times_ms.min()))
    return int((np.searchsorted(place, place + window_ms) - np.arange(len(place))).max())
