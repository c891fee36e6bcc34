"""Events of a drill as columns, and chance that does not depend on how time is cut.

Every source of events draws one cell (a minute) of its own at a time, from a generator seeded with the drill's seed, the
source's number and the cell's. So any minute can be made without those before it, adding an attack changes nothing about
the honest traffic beside it, and the bytes do not depend on the length of the blocks in which they are written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Events = npt.NDArray[Any]
"""Records of `EVENT`."""
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

CELL_S = 60
"""Seconds in which one draw of a source lets its requests begin."""

EVENT = np.dtype(
    [
        ("time_ms", "i8"),  # when it completed
        ("id", "i8"),  # source, cell and number within it: the request id
        ("path", "i8"),  # what stands for the id in the shape's path
        ("number", "i8"),  # of a new account, or of a key that nobody has; see FLAG_NEW_ACCOUNT, FLAG_NO_SUCH_KEY
        ("duration_ms", "i4"),
        ("actor", "i4"),  # index into the table of actors
        ("forged", "i4"),  # the actor whose address stands forged in X-Forwarded-For; -1: none
        ("bytes", "i4"),
        ("tokens_in", "i4"),
        ("tokens_out", "i4"),
        ("tokens_cached", "i4"),
        ("max_tokens", "i4"),
        ("name", "i4"),  # of a registration
        ("domain", "i2"),  # of a registration
        ("shape", "i2"),
        ("status", "i2"),
        ("attack", "u2"),  # the label: 0 is honest
        ("model", "i1"),
        ("flags", "u1"),
    ]
)
"""One event of all streams; 78 bytes."""

FLAG_NEW_ACCOUNT = 1
"""``number`` is an account that a registration made: in a request it also gives the key."""
FLAG_NO_SUCH_KEY = 2
"""``number`` gives a key that nobody has."""
FLAG_AUTH_FAILED = 4
"""The authentication failed, whatever the status says."""
FLAG_REFUSED = 8
"""A registration that made no account."""

ACCESS_LOG, REQUESTS, REGISTRATIONS = 1, 2, 4
"""Bits: the streams that an event is in. Everything is in the access log; the gateway and the sign-up log their own."""
STREAMS = {"requests": REQUESTS, "registrations": REGISTRATIONS, "access-log": ACCESS_LOG}


def no_events(count: int = 0) -> Events:
    """``count`` events with nothing in them."""
    events = np.zeros(count, EVENT)
    events["forged"] = -1
    return events


def concatenated(parts: Sequence[Events]) -> Events:
    """All of them, in order."""
    return np.concatenate(parts) if parts else no_events()


def generator(seed: int, source: int, cell: int) -> np.random.Generator:
    """The chance of one source in one cell."""
    return np.random.default_rng((seed, source, cell))


def mixed(seed: int, *numbers: Any) -> npt.NDArray[np.uint64]:
    """SplitMix64 over all numbers (arrays or scalars): 64 bits that belong to them, whoever asks and whenever."""
    state = np.full(1, seed, np.uint64)
    with np.errstate(over="ignore"):
        for number in numbers:
            state = (state ^ np.asarray(number).astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


def uniform(seed: int, *numbers: Any) -> F64:
    """The same as numbers in [0, 1)."""
    return (mixed(seed, *numbers) >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def slots(seed: int, counts: I64, start_ms: int, stop_ms: int, from_ms: int, to_ms: int) -> tuple[I64, I64, I64]:
    """Of sources that send ``counts`` (i64[sources]) requests each between start and stop: those in [from, to).

    Each source's time is cut into as many equal slots as it has requests, and each slot holds one, anywhere in it: numbers
    are exact, gaps are not regular, and any stretch of time can be asked for alone. Returns (source, slot, time in ms).
    """
    low, high = max(from_ms, start_ms), min(to_ms, stop_ms)
    if low >= high or not len(counts):
        nothing = np.zeros(0, np.int64)
        return nothing, nothing, nothing
    span = stop_ms - start_ms
    first = np.maximum((low - start_ms) * counts // span, 0)
    last = np.minimum((high - start_ms) * counts // span + 1, counts)
    many = np.maximum(last - first, 0)
    source = np.repeat(np.arange(len(counts), dtype=np.int64), many)
    slot = np.arange(len(source)) - np.repeat(np.cumsum(many) - many, many) + np.repeat(first, many)
    place = slot + uniform(seed, source, slot)
    time_ms = start_ms + (place * span / counts[source]).astype(np.int64)
    inside = (time_ms >= low) & (time_ms < high)
    return source[inside], slot[inside], time_ms[inside]


def chosen(random: np.random.Generator, weights: Sequence[float], count: int) -> I64:
    """``count`` indices, as likely as their weights say."""
    return between(random, np.cumsum(np.asarray(weights, float)), count)


def between(random: np.random.Generator, edges: F64, count: int) -> I64:
    """The same for weights that were added up before."""
    found: I64 = np.searchsorted(edges, random.random(count) * edges[-1], side="right")
    return np.minimum(found, len(edges) - 1)


def whole(values: F64, low: int = 0, high: int = 2_000_000_000) -> I64:
    """Rounded and kept within bounds."""
    return np.clip(np.rint(values), low, high).astype(np.int64)
