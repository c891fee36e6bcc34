"""What `signature` and `entropy` have in common: when there is more than usual of a kind of event, and events as tables.

Events come as samples (`schemas.sample`): of each second and stratum the exact total and at most 64 events. Here each is a
row of words; a window is the rows of ten seconds.
"""

from __future__ import annotations

import math
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.windowed import DetectorSection
from schemas.columns import I64, U64
from schemas.sample import E_ATTRIBUTES, E_IP_HIGH, E_IP_LOW, E_PRIORITY, E_WEIGHT, Attribute, Stratum

WINDOW_S = 10
"""What is judged together, and how long a step of what is usual lasts."""
F64 = npt.NDArray[np.float64]
Rate = Annotated[float, msgspec.Meta(gt=0, le=1_000_000)]

PRIORITY, WEIGHT, ADDRESS, ROUTE, USER_AGENT, FINGERPRINT, COUNTRY, EMAIL_DOMAIN, WHO, ROW_WORDS = range(10)
"""Columns of a row. ``ADDRESS`` is the lower half of an IPv4 address (below 2^48), else the upper half of an IPv6 one: what
differs in its lower half is one host."""
assert int(Attribute.EMAIL_DOMAIN) == EMAIL_DOMAIN - ROUTE
NET, NET_WIDE = WHO, WHO + 1
"""Beside ``ROUTE`` … ``EMAIL_DOMAIN`` the attributes that are made of the address: /24 or /48, and /16 or /32."""
_MAPPED = 1 << 48
NOUNS = {
    Stratum.REGISTERED: "registrations", Stratum.FAILED: "failing requests", Stratum.ACCOUNTS: "accounts",
    Stratum.ASSETS: "requests for assets", Stratum.PAGES: "requests",
}  # fmt: skip


LEAST_OF = {stratum: f"least_{stratum.name.lower()}" for stratum in Stratum}


class SurplusSection(DetectorSection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When there is more than usual of something on a service."""

    growth: Annotated[float, msgspec.Meta(ge=1.1, le=100)] = 1.5
    """Ten seconds have to hold so many times what is usual …"""
    least_pages: Rate = 20.0
    """… and so many more a second than on average: of requests that name no account …"""
    least_failed: Rate = 2.0
    """… of those that fail …"""
    least_registered: Rate = 0.5
    """… of registrations …"""
    least_assets: Rate = 20.0
    """… of static assets …"""
    least_accounts: Rate = 5.0
    """… and of accounts that ask for anything: ten times as many in ten seconds."""
    severity: Annotated[int, msgspec.Meta(ge=1, le=10)] = 6
    """10 is the worst."""

    def least(self, stratum: Stratum) -> float:
        """How much more than usual in a window is worth a look."""
        rate: float = getattr(self, LEAST_OF[stratum])
        return rate * WINDOW_S

    def exceeds(self, stratum: Stratum, observed: float, mean: float) -> bool:
        """Whether so much is more than usual, and more than chance makes of little."""
        return observed > max(self.growth * mean, mean + max(self.least(stratum), 4 * math.sqrt(mean)))


def rows_of(entries: I64) -> I64:
    """i64[n, ROW_WORDS] of entries of a sample (i64[n, ENTRY_WORDS]).

    >>> rows_of(np.array([[0, 5, 1, 0, 0xFFFF_CB00_7101, 7, 8, 0, 9, 0, 0, 4, 0]])).tolist()
    [[5, 1, 281474087547137, 7, 8, 0, 9, 0, 4]]
    """
    rows = np.empty((len(entries), ROW_WORDS), np.int64)
    rows[:, PRIORITY], rows[:, WEIGHT] = entries[:, E_PRIORITY], entries[:, E_WEIGHT]
    rows[:, ADDRESS] = np.where(entries[:, E_IP_HIGH] == 0, entries[:, E_IP_LOW], entries[:, E_IP_HIGH])
    rows[:, ROUTE:WHO] = entries[:, E_ATTRIBUTES : E_ATTRIBUTES + WHO - ROUTE]
    rows[:, WHO] = entries[:, E_ATTRIBUTES + Attribute.WHO]
    return rows


def priorities(rows: I64) -> U64:
    """Their priorities as what they are."""
    return np.ascontiguousarray(rows[:, PRIORITY]).view(np.uint64)


def thinned(rows: I64, level: int) -> I64:
    """Those of a sample that are left at a higher level: samples of several seconds are comparable then."""
    return rows if level == 0 else rows[priorities(rows) >> np.uint64(64 - level) == 0]


def networks(addresses: I64, *, wide: bool) -> I64:
    """i64[n]: the /24 or /48 of each address; ``wide``: the /16 or /32."""
    four = (addresses >= 0) & (addresses < _MAPPED)
    low, high = (0xFFFF, 0xFFFF_FFFF) if wide else (0xFF, 0xFFFF)
    return np.where(four, addresses & ~np.int64(low), addresses & ~np.int64(high))


def column(rows: I64, attribute: int) -> I64:
    """i64[n]: an attribute's values."""
    if attribute in (NET, NET_WIDE):
        return networks(rows[:, ADDRESS], wide=attribute == NET_WIDE)
    return rows[:, attribute]


def span_of(address: int) -> tuple[int, int]:
    """First and last address of a host, IPv4 mapped into IPv6.

    >>> [hex(end) for end in span_of(0xFFFF_CB00_7101)]
    ['0xffffcb007101', '0xffffcb007101']
    """
    word = address & (1 << 64) - 1
    return (word, word) if word < _MAPPED else (word << 64, (word << 64) + (1 << 64) - 1)
