"""A rule over its limit for one key at one tick, and how that is named: its target, its window, its id."""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from typing import Any

from detectors.windowed import WindowRule
from engine.budgets import Key
from engine.corroborate import Whom
from schemas.fields import Dimension
from schemas.mitigation import Window

ADDRESSES = (Dimension.IP, Dimension.NET)


def unsigned(words: tuple[int, int]) -> tuple[int, int]:
    """A key's words as a `Crossing` has them; records hold them as signed numbers."""
    a, b = (word & (1 << 64) - 1 for word in words)
    return a, b


@dataclass(frozen=True, slots=True)
class Crossing:
    """One rule over its limit for one key at one tick."""

    partition: int
    dimension: Dimension
    key_a: int
    key_b: int
    name: bytes
    rule: WindowRule
    tick: int
    observed: int
    requests: int
    active_keys: int
    aged_out: bool
    """The partition gave up keys within the window: the sum may be too low."""
    reason: str = ""
    """The sentence, where the rule and the number do not make it"""
    features: tuple[tuple[str, int | float | str], ...] = ()
    """More numbers, for the evidence"""
    spans: tuple[tuple[int, int], ...] = ()
    """Addresses that a signature matches now or usually: none of them may be on an allowlist."""
    lifts: bool = False
    """It ends what was said of the target before."""
    held: str = ""
    """The bound of a playbook past which it is; empty: none."""
    goes_on: bool = False
    """Only for playbooks: what was told before goes on, or what nobody acts on by himself. It becomes no finding."""
    service: tuple[int, int] | None = None
    """The key of the service whose traffic it describes, where that is not the target itself and lies in the same partition"""

    def told(self, value: str) -> str:
        """The sentence."""
        return self.reason or self.rule.detector.describe(self.rule, value, self.observed)

    @property
    def whom(self) -> Whom:
        """Whom it is about."""
        return int(self.dimension), self.key_a, self.key_b

    @property
    def key(self) -> Key:
        """Whom it is about, and who says so."""
        return (*self.whom, self.rule.detector.name)


def target_value(dimension: Dimension, a: int, b: int, name: bytes) -> str:
    """How a key is written: an address, a prefix, or its name."""
    if dimension in ADDRESSES:
        if a == 0 and b >> 32 == 0xFFFF:
            text = f"{b >> 24 & 255}.{b >> 16 & 255}.{b >> 8 & 255}.{b & 255}"
            return text if dimension == Dimension.IP else text + "/24"
        return f"{ipaddress.IPv6Address(a << 64)}/{64 if dimension == Dimension.IP else 48}"
    if dimension == Dimension.ASN:
        return str(a)
    return name.decode("utf-8", "backslashreplace")


def address_range(dimension: Dimension, a: int, b: int) -> tuple[int, int]:
    """First and last IPv6 address (IPv4 mapped) of an `ip` or `net` key."""
    if a == 0 and b >> 32 == 0xFFFF:
        return b, b + (0 if dimension == Dimension.IP else 255)
    return a << 64, (a << 64) + (1 << (64 if dimension == Dimension.IP else 80)) - 1


def finding_id(crossing: Crossing, value: str) -> str:
    """Of the finding that a crossing becomes; ``value`` is its target's."""
    rule = crossing.rule
    return identify(
        "finding", rule.detector.name, crossing.dimension, value, rule.measure, rule.window_s, rule.limit, crossing.tick
    )


def window_of(crossing: Crossing) -> Window:
    """The seconds that it is about."""
    return Window(start=crossing.rule.first_tick(crossing.tick), end=crossing.tick + 1)


def identify(*parts: Any) -> str:
    """The id of whatever these words say: the same words, the same id, wherever it is made."""
    words = "|".join(part.label if isinstance(part, Dimension) else str(part) for part in parts)
    return hashlib.blake2b(words.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()
