"""Times as people give them on the command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from schemas.errors import UsageError

_UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_RELATIVE = re.compile(r"-(\d{1,9})([smhd])")


def parse_moment(text: str, now_ms: int) -> int:
    """Unix milliseconds of ``2026-11-18T11:07:00`` (UTC unless it says otherwise), or of ``-2h`` before now (s, m, h, d).

    Raises:
        UsageError: it is neither.
    """
    relative = _RELATIVE.fullmatch(text)
    if relative is not None:
        return now_ms - int(relative[1]) * _UNITS_MS[relative[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"expected a time like 2026-11-18T11:07:00 (UTC) or -2h (s, m, h or d before now), got {ascii(text)[:60]}"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)
