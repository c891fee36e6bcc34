"""A scorecard as plain data, and as rows of a table."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from drills.scoring.score import AttackScore, Scorecard

COLUMNS = ("attack", "strength", "found", "after", "sources", "events covered", "by", "victims")


def plain(card: Scorecard) -> dict[str, Any]:
    """For JSON."""
    return {
        "attacks": [
            {
                "name": score.name, "label": score.label, "strength": score.strength, "trap": score.trap, "found": score.found,
                "alerted": score.alerted, "seconds": score.seconds, "alert_seconds": score.alert_seconds,
                "sources": score.sources, "sources_mitigated": score.sources_mitigated, "events": score.events,
                "events_covered": score.events_covered, "by": dict(score.by), "alerts": dict(score.alerts),
                "victims": [{"type": kind, "value": value} for kind, value in score.victims],
                "findings": dict(score.findings),
            }
            for score in card.attacks
        ],
        "honest": {
            "events": card.honest_events, "events_covered": card.honest_covered, "source_days": round(card.source_days, 3),
            "sources_mitigated": len(card.honest_sources), "false_blocks": card.false_blocks,
        },
        "wronged": [asdict(one) for one in card.wronged],
        "unknown_targets": dict(card.unknown),
    }  # fmt: skip


def share_text(share: float) -> str:
    """Per cent that is 0 or 100 only if it is.

    >>> [share_text(share) for share in (0, 0.0001, 0.5, 0.994, 0.9996, 1)]
    ['0 %', '0.01 %', '50 %', '99.4 %', '99.9 %', '100 %']
    """
    if share in (0, 1):
        return f"{share:.0%}".replace("%", " %")
    if share >= 0.99:
        return f"{min(100 * share, 99.9):.1f} %"
    return f"{100 * share:.2g} %" if share < 0.01 else f"{100 * share:.0f} %"


def seconds_text(seconds: float) -> str:
    """Seconds as people say them."""
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:,.0f} s"


def found_text(score: AttackScore) -> str:
    """In a word."""
    return "found" if score.found else "alerted" if score.alerted else "missed"


def row(score: AttackScore) -> tuple[str, ...]:
    """One attack under `COLUMNS`."""
    when = score.seconds if score.found else score.alert_seconds
    by = score.by if score.found else score.alerts if score.alerted else {}
    return (
        score.name + (" (trap)" if score.trap else ""), score.strength, found_text(score),
        "" if when is None else seconds_text(when),
        f"{score.sources_mitigated:,} of {score.sources:,}", share_text(score.share_covered),
        ", ".join(name for name, _ in sorted(by.items(), key=lambda item: (-item[1], item[0]))),
        ", ".join(f"{kind} {value}" for kind, value in score.victims),
    )  # fmt: skip


def wronged_lines(card: Scorecard, most: int = 20) -> list[str]:
    """Who was mitigated and should not have been."""
    lines = [
        f"{one.type} {one.value}: {one.action} by {one.detector} ({one.reason}); {one.honest_events:,} honest events"
        for one in card.wronged[:most]
    ]
    return [*lines, f"… and {len(card.wronged) - most:,} more"] if len(card.wronged) > most else lines
