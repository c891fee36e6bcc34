"""When the honest traffic's own storms come: each looks like an attack, and each is somebody's good right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from drills.columns import mixed

Storms = Literal["calendar", "all", "none"]
DAY_S, WEEK_S = 86_400, 7 * 86_400
_MONDAY_S = 4 * DAY_S

BATCH_PER_SECOND = 300.0
"""Of one customer's batch job, all under one key."""
BATCH_SHARE = 0.06
"""Of all events over the days are of batch jobs: with less traffic they are shorter, never slower."""
STORM_S = 900
"""For so long after an outage clients catch up."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One storm, from ``start_s`` to ``stop_s`` (Unix seconds)."""

    name: str
    start_s: int
    stop_s: int


# Name: (second of the week at which it comes, how long it lasts). Batch jobs and crawls come every day.
_WEEKLY = {
    "outage": (2 * DAY_S + 51_600, 600),  # Wednesday 14:20; our own 503s, then the retry storm
    "flash_crowd": (3 * DAY_S + 57_600, 1800),  # Thursday 16:00; one article, everybody
    "marketing": (1 * DAY_S + 32_400, 7200),  # Tuesday 9:00; a campaign brings registrations
    "migration": (4 * DAY_S + 64_800, 3 * DAY_S),  # Friday 18:00; a customer moves to other networks over the weekend
}
_DAILY_BATCHES = (7_500, 33_300, 76_500)
_DAILY_CRAWLS = (14_400, 50_400)
_CRAWL_S = 3600
_ALL_AT_ONCE = (
    ("batch", 60), ("crawl", 300), ("marketing", 600), ("outage", 600), ("batch", 30), ("flash_crowd", 300), ("migration", 600),
)  # fmt: skip
"""What ``all`` puts into whatever time there is: each at its place in it, shortened to fit."""


def episodes(seed: int, start_s: int, stop_s: int, events_per_second: float, storms: Storms) -> tuple[Episode, ...]:
    """The storms that touch [start, stop), in order.

    Args:
        storms: ``calendar``: at their hours of the week. ``all``: each of them once within the time there is, shortened to
            fit. ``none``: a quiet time.
    """
    if storms == "none":
        return ()
    if storms == "all":
        step = (stop_s - start_s) / (len(_ALL_AT_ONCE) + 1)
        found = []
        for place, (name, length) in enumerate(_ALL_AT_ONCE):
            begin = int(start_s + step * (place + 0.5))
            found.append(Episode(name, begin, begin + max(5, min(length, int(step)))))
        return tuple(found)
    batch_s = int(min(max(BATCH_SHARE * events_per_second * DAY_S / len(_DAILY_BATCHES) / BATCH_PER_SECOND, 20), 3600))
    found = []
    for day in range((start_s - _MONDAY_S) // DAY_S - 4, (stop_s - _MONDAY_S) // DAY_S + 1):
        midnight = _MONDAY_S + day * DAY_S
        shift = [int(word) % 1800 for word in mixed(seed, 9100, day, range(8)).tolist()]
        for place, (name, second, length) in enumerate(
            [("batch", second, batch_s) for second in _DAILY_BATCHES]
            + [("crawl", second, _CRAWL_S) for second in _DAILY_CRAWLS]
        ):
            begin = midnight + second + shift[place]
            found.append(Episode(name, begin, begin + length))
        if day % 7 == 0:
            found += [Episode(name, midnight + at, midnight + at + length) for name, (at, length) in _WEEKLY.items()]
    return tuple(sorted((e for e in found if e.stop_s + STORM_S > start_s and e.start_s < stop_s), key=lambda e: e.start_s))
