"""An edge inside a service: asked about every request, answers from the mitigations that it was given.

The rules are those of `edge.reader`; here is only what asks it.
"""

from __future__ import annotations

import threading

from edge.reader import ALLOW, Reader
from edge.subject import Subject, covering
from schemas.config import DEFAULT_ALLOWLIST_CORE, parse_prefixes
from schemas.mitigation import Mitigation
from schemas.prefixes import Prefixes

ACTIONS = {"challenge": 1, "throttle": 2, "block": 3, ALLOW: 4}
"""What this edge can do; the higher number counts where several targets have the address in them."""
LENGTHS = {"ip4": (32, 24), "ip6": (128, 64, 48)}
"""Prefix lengths that it looks an address up with."""


class InProcessEdge:
    """Decides about addresses. Safe to use from several threads."""

    def __init__(self, allowlist_core: tuple[str, ...] = DEFAULT_ALLOWLIST_CORE) -> None:
        self._core = Prefixes(parse_prefixes(allowlist_core, "policy.allowlist_core"))
        self._reader = Reader(self._core, _supports)
        self._reader.begin({})
        self._lock = threading.Lock()

    @property
    def unsupported(self) -> int:
        """Records whose action or target it cannot enforce; never replaced by a harsher one."""
        return self._reader.counts["unsupported"]

    def apply(self, mitigation: Mitigation) -> None:
        """Take in one record."""
        with self._lock:
            self._reader.take_mitigation(mitigation)

    def decide(self, address: str, now_ms: int) -> str | None:
        """The action on an address now; None: let it pass.

        Raises:
            ValueError: ``address`` is none.
        """
        subjects = covering(address, LENGTHS)
        if self._core.touches(subjects[0].low, subjects[0].high):
            return None
        with self._lock:
            self._reader.changes(now_ms)
            standing = [self._reader.table[subject].action for subject in subjects if subject in self._reader.table]
        action = max(standing, key=ACTIONS.__getitem__, default=None)
        return None if action == ALLOW else action


def _supports(subject: Subject, action: str) -> bool:
    return action in ACTIONS and subject.length in LENGTHS.get(subject.kind, ())
