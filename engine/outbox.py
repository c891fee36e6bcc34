"""What was decided and not yet taken away.

An object of its own: a judge that published into whoever owns it would be one of a cycle with its owner, and a cycle's windows,
hundreds of megabytes, stay until the collector happens to look.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from schemas.mitigation import Finding, Mitigation


@dataclass(slots=True)
class Decisions:
    """What was decided, in order."""

    mitigations: list[Mitigation] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


class Outbox:
    """Filled by a judge, emptied by its owner, maybe in another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._decided = Decisions()

    def publish(self, mitigations: list[Mitigation], findings: list[Finding]) -> None:
        """Append what was decided."""
        with self._lock:
            self._decided.mitigations += mitigations
            self._decided.findings += findings

    def take(self) -> Decisions:
        """What was decided since the last call."""
        with self._lock:
            taken, self._decided = self._decided, Decisions()
        return taken
