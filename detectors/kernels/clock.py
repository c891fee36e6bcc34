"""A source partition's event time: what moves it, and what is late."""

from __future__ import annotations

from typing import Any

from schemas.compiled import inlined
from schemas.tally import UNKNOWN_MS

UNKNOWN = int(UNKNOWN_MS)
CLOCK_NEWEST, CLOCK_CANDIDATE, CLOCK_CONFIRMED = 0, 1, 2
CLOCK_WORDS = 3
CONFIRMATIONS = 8
"""So many records in a row must agree before the newest time jumps by more than the lateness: a clock that is wrong in
one record of many never moves it, and after a real gap it follows at once."""


@inlined
def advance_clock_kernel(clock: Any, time_ms: Any, lateness_ms: Any) -> Any:
    """Let one record move a source partition's newest time; True when the record is late.

    ``clock`` is i64[3]: newest, candidate, confirmations. Lateness is decided against the newest time before it.
    """
    newest = clock[CLOCK_NEWEST]
    if newest != UNKNOWN and time_ms <= newest:
        clock[CLOCK_CONFIRMED] = 0
        return time_ms < newest - lateness_ms
    jump_ms = max(lateness_ms, 1000)
    if newest != UNKNOWN and time_ms - newest <= jump_ms:
        clock[CLOCK_NEWEST] = time_ms
        clock[CLOCK_CONFIRMED] = 0
        return False
    candidate = clock[CLOCK_CANDIDATE]
    if clock[CLOCK_CONFIRMED] > 0 and candidate - jump_ms <= time_ms <= candidate + 16 * jump_ms:
        clock[CLOCK_CONFIRMED] += 1
        clock[CLOCK_CANDIDATE] = min(candidate, time_ms)
        if clock[CLOCK_CONFIRMED] >= CONFIRMATIONS:
            clock[CLOCK_NEWEST] = clock[CLOCK_CANDIDATE]
            clock[CLOCK_CONFIRMED] = 0
        return False
    clock[CLOCK_CANDIDATE] = time_ms
    clock[CLOCK_CONFIRMED] = 1
    return False
