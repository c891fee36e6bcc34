"""Times as people give them on the command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from schemas.errors import UsageError

_UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_RELATIVE = re.compile(r"-(\d{1,9})([smhd])")
_UNIX = re.compile(r"(?:[se]?@)(\d{1,10}|\d{12,13})")
"""Unix seconds, or milliseconds as kcat takes them behind ``s@`` and ``e@``."""
_SECONDS_DIGITS = 10


def parse_moment(text: str, now_ms: int) -> int:
    """Unix milliseconds of ``2026-11-18T11:07:00`` (UTC unless it says otherwise), of ``-2h`` before now (s, m, h, d), of
    ``now``, or of ``@1795392000`` (seconds; with 12 or 13 digits milliseconds).

    Raises:
        UsageError: it is none of them.
    """
    if text == "now":
        return now_ms
    relative = _RELATIVE.fullmatch(text)
    if relative is not None:
        return now_ms - int(relative[1]) * _UNITS_MS[relative[2]]
    unix = _UNIX.fullmatch(text)
    if unix is not None:
        return int(unix[1]) * (1000 if len(unix[1]) <= _SECONDS_DIGITS else 1)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            "expected a time like 2026-11-18T11:07:00 (UTC), @1795392000 or -2h (s, m, h or d before now), "
            f"got {ascii(text)[:60]}"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


def parse_span(since: str | None, until: str | None, now_ms: int) -> tuple[int | None, int | None]:
    """From inclusive, to exclusive; None: open.

    Raises:
        UsageError: one is no time, or nothing lies between them.
    """
    from_ms = None if since is None else parse_moment(since, now_ms)
    to_ms = None if until is None else parse_moment(until, now_ms)
    if from_ms is not None and to_ms is not None and from_ms >= to_ms:
        raise UsageError(f"expected --from before --to, got {ascii(since)[:60]} and {ascii(until)[:60]}")
    return from_ms, to_ms


_OFFSETS = re.compile(r"(?P<partition>[A-Za-z0-9._-]{1,249}-\d{1,6})=(?P<first>\d{0,18})\.\.(?P<end>\d{0,18})")
Offsets = dict[str, tuple[int | None, int | None]]
"""By topic-partition: from inclusive, to exclusive; None: open."""


def parse_offsets(texts: list[str]) -> Offsets:
    """Ranges of offsets like ``access-log-0=1000..2000``; either end may be left out.

    Raises:
        UsageError: one has another form, is empty, or names a partition again.
    """
    found: Offsets = {}
    for text in texts:
        match = _OFFSETS.fullmatch(text)
        if match is None:
            raise UsageError(
                f"expected offsets like access-log-0=1000..2000 (either end may be left out), got {ascii(text)[:100]}"
            )
        first, end = (int(match[name]) if match[name] else None for name in ("first", "end"))
        if first is not None and end is not None and first >= end:
            raise UsageError(f"expected the first offset before the end, got {ascii(text)[:100]}")
        if match["partition"] in found:
            raise UsageError(f"expected one range of offsets for {match['partition']}, got two")
        found[match["partition"]] = first, end
    return found
