"""An edge inside a service: asked about every request, answers from the mitigations that it was given.

The rules are those of `edge.reader`; here is only what asks it. `InProcessEdge` is given mitigations of its own process;
`InProcessPoint` is what `edge.enforce.Enforcer` keeps in step with the enforcement topic, as it does a firewall.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from edge.reader import ALLOW, Change, Reader, Standing
from edge.subject import Subject, covering
from schemas.config import DEFAULT_ALLOWLIST_CORE, parse_prefixes
from schemas.mitigation import Mitigation
from schemas.prefixes import Prefixes

ACTIONS = {"challenge": 1, "throttle": 2, "block": 3, ALLOW: 4}
"""What this edge can do; the higher number counts where several targets have the address in them."""
LENGTHS = {"ip4": (32, 24), "ip6": (128, 64, 48)}
"""Prefix lengths that it looks an address up with."""


class InProcessPoint:
    """A table in memory as an enforcement point. One thread changes it, others may decide meanwhile.

    Deciding takes no lock: looking up and setting one entry are each done whole or not at all, and a decision between two
    changes of one batch is as right as one just before or after it.
    """

    def __init__(self, core: Prefixes) -> None:
        self._core = core
        self._table: dict[Subject, Standing] = {}

    @staticmethod
    def supports(subject: Subject, action: str) -> bool:
        """Whether it can do this to such a subject."""
        return action in ACTIONS and subject.length in LENGTHS.get(subject.kind, ())

    def replace(self, standing: Mapping[Subject, Standing], now_ms: int) -> None:
        """Hold exactly this."""
        self._table = dict(standing)

    def change(self, changes: Sequence[Change], now_ms: int) -> None:
        """Take these steps."""
        for change in changes:
            if change.after is None:
                self._table.pop(change.subject, None)
            else:
                self._table[change.subject] = change.after

    def is_intact(self) -> bool:
        """Nobody else can empty it."""
        return True

    def decide(self, address: str, now_ms: int) -> str | None:
        """The action on an address now; None: let it pass.

        Raises:
            ValueError: ``address`` is none.
        """
        subjects = covering(address, LENGTHS)
        if self._core.touches(subjects[0].low, subjects[0].high):
            return None
        found = [standing for subject in subjects if (standing := self._table.get(subject)) is not None]
        actions = [standing.action for standing in found if standing.expires_at_ms > now_ms]
        action = max(actions, key=ACTIONS.__getitem__, default=None)
        return None if action == ALLOW else action


class InProcessEdge:
    """Decides about addresses by the mitigations it was given. Safe to use from several threads."""

    def __init__(self, allowlist_core: tuple[str, ...] = DEFAULT_ALLOWLIST_CORE) -> None:
        core = Prefixes(parse_prefixes(allowlist_core, "policy.allowlist_core"))
        self._point = InProcessPoint(core)
        self._reader = Reader(core, self._point.supports)
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
        with self._lock:
            self._point.change(self._reader.changes(now_ms), now_ms)
        return self._point.decide(address, now_ms)
