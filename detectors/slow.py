"""``slow``: one client keeps too many requests open at the same time.

How it decides: a log tells of a request when it ends, with how long it took. So over a window, the time that requests took
divided by the window is how many were open on average (Little's law). A request that took longer than a minute counts for a
minute: it is told of at its end only, and no window of a minute can hold more of it. That catches streams that are opened
and left, bodies sent byte by byte, and long generations asked for in parallel, all of which a count of requests never sees.

Where it fails: nothing is known of a request before it ends, so an attack by streams of ten minutes is seen after ten
minutes. Many streams that end in the same minute look like more than were open at once by at most a factor of window and
minute. A busy gateway holds hundreds open, honestly: in profile ``api`` addresses are not judged, keys are.

Costs: one sum. Records without a duration are not seen; `floodwall doctor` says so.

Confidence: stated by each rule. Can its evidence be forged? As for ``rate``; the duration is our own clock's.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from detectors.windowed import Detector, DetectorSection, Profile, RuleSection, WindowRule, judged, seconds_of, whom_of
from schemas.config import DimensionName
from schemas.fields import Measure


class SlowRule(RuleSection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """More than ``open_max`` requests open on average over a window, for one key of one dimension."""

    dimension: DimensionName
    """Whose requests."""
    window_s: Annotated[int, msgspec.Meta(ge=10, le=3600)] = 60
    """The last so many seconds of event time, this one included. More than 120: whole minutes, that is a multiple of 60."""
    open_max: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    """So many may be open at the same time, on average."""
    confidence: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.8


class Slow(DetectorSection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ``slow`` detector."""

    rules: tuple[SlowRule, ...] | None = None
    """None: the defaults of the profile (docs/detectors.md)."""


# A browser opens at most six connections to one host; an office behind one address a few dozen requests at a time.
DEFAULTS: dict[Profile, tuple[SlowRule, ...]] = {
    "web": (SlowRule(dimension="ip", open_max=100, severity=6),),
    "api": (SlowRule(dimension="api_key", open_max=1000, severity=5, action="notify", confidence=0.6),),
}
_MS = 1000


def _rules(section: Slow, profile: Profile) -> list[WindowRule]:
    return [
        judged(
            DETECTOR,
            section,
            rule,
            rule.dimension,
            Measure.BUSY_MS,
            rule.window_s,
            rule.open_max * rule.window_s * _MS,
            label="open_requests",
            scale=rule.window_s * _MS,
        )
        for rule in (DEFAULTS[profile] if section.rules is None else section.rules)
    ]


def _describe(rule: WindowRule, target: str, observed: int) -> str:
    return (
        f"{observed:,} requests open at the same time over {seconds_of(rule)} {whom_of(rule, target)}, where "
        f"{rule.told_limit:,} are allowed"
    )


DETECTOR = Detector("slow", 1, Slow, _rules, _describe)
