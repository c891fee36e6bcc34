"""Which routes have a place, in plain Python: of a whole minute at once, in no order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Key = tuple[int, int]


def counted(
    held: Sequence[Key], seconds: Sequence[Mapping[Key, int]], peak_min: int, most: int
) -> tuple[dict[Key, int], dict[Key, int]]:
    """(of those that have a place the requests of the minute; of newcomers the most in one second).

    Args:
        held: have a place for the minute.
        seconds: of each second the requests of each route.
        most: there is room for so many newcomers.
    """
    totals = {key: sum(second.get(key, 0) for second in seconds) for key in held}
    peaks = {key: max(second.get(key, 0) for second in seconds) for second in seconds for key in second if key not in totals}
    ranked = sorted(((peak, key) for key, peak in peaks.items() if peak >= peak_min), reverse=True)
    return totals, {key: peak for peak, key in ranked[:most]}
