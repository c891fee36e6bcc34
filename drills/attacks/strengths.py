"""The table of strengths: every attack at three, committed before the detectors that have to find it.

A rate is stated either as a share of the service's normal rate (of honest events or of registrations), where an attack
hides in or drowns the whole, or for each source, where it is single sources that limits see. A change of a number here
goes into the list of changes in docs/drills.md, with its reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

StrengthName = Literal["weak", "ordinary", "loud"]
STRENGTH_NAMES: tuple[StrengthName, ...] = ("weak", "ordinary", "loud")
HOUR_S, DAY_S = 3600, 86_400


@dataclass(frozen=True, slots=True)
class Strength:
    """How hard: so many sources for so long, together a share of normal, or each so many requests a second."""

    sources: int
    duration_s: int
    share: float | None = None
    """Of the normal rate of honest events, or of honest registrations where the attack registers."""
    per_source: float | None = None
    """Requests a second of each source."""

    def __post_init__(self) -> None:
        assert (self.share is None) != (self.per_source is None)

    def numbers(self, normal_per_second: float) -> tuple[int, int]:
        """(requests altogether, sources) where normal is this many a second; no source comes without a request."""
        per_second = self.share * normal_per_second if self.share is not None else self.sources * (self.per_source or 0)
        total = max(1, round(per_second * self.duration_s))
        return total, min(self.sources, total)


Three = tuple[Strength, Strength, Strength]


def _shares(sources: int, duration_s: int, *shares: float) -> Three:
    weak, ordinary, loud = (Strength(sources, duration_s, share=share) for share in shares)
    return weak, ordinary, loud


def _each(duration_s: int, *strengths: tuple[int, float]) -> Three:
    weak, ordinary, loud = (Strength(sources, duration_s, per_source=rate) for sources, rate in strengths)
    return weak, ordinary, loud


STRENGTHS: dict[str, Three] = {
    # Floods
    "flood_one": _each(120, (1, 25), (1, 200), (1, 2000)),
    "flood_fifty": _each(120, (50, 4), (50, 40), (50, 100)),
    "botnet": _shares(5000, 600, 0.1, 1, 5),
    "botnet_mimic": _shares(5000, 600, 0.3, 1, 5),
    "residential": _each(600, (20_000, 1 / 300), (100_000, 1 / 300), (250_000, 1 / 300)),
    "cache_busting": _shares(200, 300, 0.2, 1, 5),
    "carpet_network": _shares(50_000, 600, 0.3, 1, 5),
    "carpet_routes": _shares(500, 600, 0.3, 1, 5),
    "stock_flood": _each(60, (50, 20), (50, 200), (50, 400)),
    # Looking around, and logging in
    "scan": _each(120, (3, 0.5), (10, 5), (20, 20)),
    "scanner_agents": _each(120, (3, 0.2), (3, 1), (3, 10)),
    "invalid_keys": _each(300, (20, 0.2), (20, 2), (20, 20)),
    "stuffing_loud": _each(300, (20, 0.2), (20, 1), (20, 10)),
    "stuffing_slow": _each(HOUR_S, (100, 1 / 300), (300, 1 / 90), (1000, 1 / 30)),
    "stock_login": _each(HOUR_S, (300, 1 / 120), (300, 1 / 60), (300, 1 / 30)),
    # What answers cost
    "stream_exhaustion": _each(900, (20, 0.02), (50, 0.05), (200, 0.1)),
    "slow_requests": _each(600, (20, 0.05), (100, 0.1), (500, 0.2)),
    "cancelled_prompts": _each(600, (30, 0.1), (30, 0.5), (30, 3)),
    "max_tokens": _each(600, (30, 0.2), (30, 1), (30, 5)),
    "denial_of_wallet": _each(900, (5, 0.05), (20, 0.3), (50, 1)),
    "distillation": _each(HOUR_S, (500, 1 / 60), (500, 1 / 15), (500, 1 / 4)),
    "embedding_scraping": _each(HOUR_S, (500, 1 / 60), (500, 1 / 15), (500, 1 / 4)),
    # Accounts
    "credit_farming": _shares(200, HOUR_S, 0.1, 0.5, 3),
    "registrations_obvious": _shares(20, 600, 0.3, 3, 30),
    "registrations_mimic": _shares(2000, 600, 0.3, 1, 3),
    "registrations_slow": _shares(1000, 3 * DAY_S, 0.03, 0.1, 0.3),
    "stock_registrations": _each(600, (2000, 1 / 60), (2000, 1 / 30), (2000, 1 / 15)),
    # Keys
    "leaked_key_loud": _each(600, (5, 0.5), (20, 5), (20, 20)),
    "leaked_key_quiet": _each(6 * HOUR_S, (1, 0.01), (3, 0.02), (5, 0.1)),
    "key_shared": _each(HOUR_S, (30, 1 / 120), (100, 1 / 60), (300, 1 / 30)),
    "stock_key": _each(600, (200, 1 / 60), (500, 1 / 60), (1000, 1 / 60)),
    # Traps: the attacker wants somebody else to be stopped
    "trap_spoofed": _each(120, (1, 50), (1, 300), (1, 1000)),
    "trap_framed_key": _each(300, (50, 0.2), (50, 2), (50, 10)),
    "trap_framed_domain": _shares(50, 600, 1, 10, 50),
}
"""Weak, ordinary, loud. What begins with ``stock_`` is what the peers' stock rules miss; ordinary is what was measured."""


def strength_of(name: str, strength: StrengthName) -> Strength:
    """One cell of the table."""
    return STRENGTHS[name][STRENGTH_NAMES.index(strength)]
