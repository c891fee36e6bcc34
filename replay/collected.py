"""Where decisions go when they are compared or reported: memory, up to a bound, and it says when the bound bit."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from engine.outbox import Decisions
from schemas.mitigation import Evidence, Finding, Mitigation

MITIGATIONS_MAX = 200_000
"""A botnet of 5,000 addresses that is renewed each minute for half an hour is 150,000. One without evidence is 0.8 kB."""
FINDINGS_MAX = 200_000
NO_EVIDENCE = Evidence()


@dataclass(slots=True)
class Collected:
    """Keeps final records as they come; early ones are each followed by a final under the same id or expire.

    Args:
        mitigations_max: so many are kept, the first ones.
        findings_max: so many are kept, the first ones; 0: none is wanted.
        evidence: keep it; without, a record is a third of its size.
    """

    mitigations_max: int = MITIGATIONS_MAX
    findings_max: int = FINDINGS_MAX
    evidence: bool = True
    mitigations: list[Mitigation] = field(default_factory=list)
    """All states, lifts among them, in the order in which they were decided: what is in force follows from it."""
    findings: list[Finding] = field(default_factory=list)
    mitigations_missed: int = 0
    """That the bound left out …"""
    missed_from: int | None = None
    """… the first of them of this second: what is said of later ones is not whole."""
    findings_missed: int = 0

    @property
    def lifts(self) -> list[Mitigation]:
        """What ended before its time, by an operator's word."""
        return [record for record in self.mitigations if record.state == "lifted"]

    @property
    def is_whole(self) -> bool:
        """No bound bit."""
        return not self.mitigations_missed and not (self.findings_max and self.findings_missed)

    def write(self, decisions: Decisions) -> None:
        """Take in what was decided."""
        for mitigation in decisions.mitigations:
            if mitigation.stage == "final":
                self.add(mitigation)
        for finding in decisions.findings:
            if finding.stage == "final":
                self._add_finding(finding)

    def add(self, mitigation: Mitigation) -> None:
        """Take in one record, of any stage."""
        if len(self.mitigations) >= self.mitigations_max:
            self.mitigations_missed += 1
            if self.missed_from is None:
                self.missed_from = mitigation.tick
            return
        self.mitigations.append(mitigation if self.evidence else msgspec.structs.replace(mitigation, evidence=NO_EVIDENCE))

    def _add_finding(self, finding: Finding) -> None:
        if len(self.findings) >= self.findings_max:
            self.findings_missed += 1
            return
        self.findings.append(finding if self.evidence else msgspec.structs.replace(finding, evidence=NO_EVIDENCE))

    def said(self) -> list[str]:
        """What the bounds left out, a sentence each."""
        found = []
        if self.mitigations_missed:
            found.append(
                f"{self.mitigations_missed:,} mitigations from second {self.missed_from} on are not counted: only the first "
                f"{self.mitigations_max:,} are kept"
            )
        if self.findings_max and self.findings_missed:
            found.append(f"{self.findings_missed:,} findings are not counted: only the first {self.findings_max:,} are kept")
        return found
