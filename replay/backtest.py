"""The gate: a change of the configuration is tried on recorded traffic, and refused if it costs normal traffic too much."""

from __future__ import annotations

import re

from engine.clock import Clock
from replay.diff import Difference, Row, difference
from replay.runs import Progress, Run, Task, made_alike, run_all
from replay.shown import Shown
from replay.truth import Truth
from schemas.config import Config
from schemas.errors import UsageError
from schemas.mitigation import Target

COLLATERAL_MAX = 0.001
"""Of normal traffic, unless it is said otherwise."""
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)\s?(%?)")


def share_of(text: str) -> float:
    """A share, as ``0.1%`` or ``0.001``.

    Raises:
        UsageError: it is none, or more than all.

    >>> share_of("0.1%"), share_of("0.001"), share_of("0 %")
    (0.001, 0.001, 0.0)
    """
    found = _SHARE.fullmatch(text.strip())
    share = None if found is None else float(found[1]) / (100 if found[2] else 1)
    if share is None or share > 1:
        raise UsageError(f"expected a share from 0% to 100%, as 0.1% or 0.001, got {ascii(text)[:40]}")
    return round(share, 12)


def backtest(
    before: Config | None, after: Config, paths: list[str], clock: Clock, truth: Truth, *,
    between_ms: tuple[int | None, int | None] = (None, None), jobs: int = 1, progress: Progress = None,
) -> Difference:  # fmt: skip
    """Decide over recorded traffic by two configurations; without ``before`` all that ``after`` does is new.

    What a budget holds counts as if it were in force: a limit that would stop half of all addresses is not harmless because
    `policy.share_max` happens to hold it.
    """
    alike = made_alike([after] if before is None else [before, after])
    runs = run_all([Task(config=one, paths=paths, between_ms=between_ms) for one in alike.configs], clock, jobs)
    pair = (Run(mitigations=[]), runs[0]) if before is None else (runs[0], runs[1])
    return difference(
        alike.configs[-1], paths, clock, pair, ("before", "after"), truth, between_ms=between_ms, held=True, progress=progress
    )  # fmt: skip


def refusal(found: Difference, share_max: float, shown: Shown) -> str | None:
    """Why a change is refused: the number, the bound and what causes it; none: it passes."""
    if not found.normal_events:
        return (
            "expected traffic to try it on, got no event that counts as normal: name recorded traffic with --source, or a "
            "longer --backtest"
        )
    if not found.is_whole:
        return f"expected a run that was kept whole, got one that was not: {'; '.join(found.said)}"
    if found.newly_normal_share <= share_max:
        return None
    worst = [row for row in found.rows if row.kind != "released" and _added(row) > 0]
    worst.sort(key=lambda row: -_added(row))
    causes = "; ".join(_cause(row, shown) for row in worst[:3])
    more = f"; and {len(worst) - 3:,} more" if len(worst) > 3 else ""
    return (
        f"expected at most {percent(share_max)} of normal traffic to be newly mitigated (--max-collateral), got "
        f"{percent(found.newly_normal_share)}: {found.newly_normal:,} of {found.normal_events:,} events, most by {causes}{more}"
    )


def _added(row: Row) -> int:
    before = 0 if row.before is None else row.before.normal_events
    return (0 if row.after is None else row.after.normal_events) - before


def _cause(row: Row, shown: Shown) -> str:
    assert row.after is not None
    return (
        f"{row.type} {shown.value(row.type, row.value)} ({_added(row):,} events, {'/'.join(row.after.detectors)}: "
        f"{shown.reason(row.after.reason, Target(type=row.type, value=row.value))})"
    )


def percent(share: float) -> str:
    """A share with three digits that count, and 0 only if it is.

    >>> percent(0.0), percent(0.001), percent(0.0231234), percent(0.00000123)
    ('0 %', '0.1 %', '2.31 %', '0.000123 %')
    """
    text = f"{100 * share:.3g}"
    if "e" in text:
        text = f"{100 * share:.9f}".rstrip("0").rstrip(".") or "0"
    return f"{text} %"
