"""Where decisions go: files of newline-delimited JSON, and a bounded summary for people."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol

from engine.outbox import Decisions
from schemas.errors import SourceError
from schemas.mitigation import Finding, Mitigation, encode_line
from schemas.pseudonyms import Pseudonyms

TARGETS_MAX = 10_000


@dataclass(slots=True)
class TargetSummary:
    """All mitigations of one target by one detector."""

    type: str
    value: str
    action: str
    state: str
    reason: str
    since: int
    until: int
    mitigations: int
    severity: int
    dry_run: bool


def open_output(path: Path | None) -> IO[bytes] | None:
    """A file to write lines to. Raises `SourceError` when it cannot be written."""
    if path is None:
        return None
    try:
        return path.open("wb")
    except OSError as error:
        raise SourceError(f"expected a writable file at {path}, got: {error.strerror or error}") from None


@contextlib.contextmanager
def _refusing(file: IO[bytes]) -> Iterator[None]:
    """What the system says about an output, as an error that names it."""
    try:
        yield
    except OSError as error:
        with contextlib.suppress(OSError):
            file.close()  # else the interpreter tries once more at its end, and prints a trace
        raise SourceError(f"expected to write decisions to {file.name}, got: {error.strerror or error}") from None


class TakesDecisions(Protocol):
    """Where a run's decisions go."""

    def write(self, decisions: Decisions) -> None:
        """Take them, in order."""
        ...


class Sink:
    """Writes down decisions as they come.

    Args:
        pseudonyms: in place of whom they are about; None: as they are.
    """

    def __init__(self, out: Path | None = None, findings: Path | None = None, pseudonyms: Pseudonyms | None = None) -> None:
        self._pseudonyms = pseudonyms
        self._out = open_output(out)
        self._findings = open_output(findings)
        self.mitigations = 0
        self.findings = 0
        self.first_decision_s: float | None = None
        self.targets: dict[tuple[str, str, str], TargetSummary] = {}
        self.more_targets = 0

    def write(self, decisions: Decisions) -> None:
        """Write and summarise. Early records are written too; the summary counts finals only."""
        self._take(self._passed_on(decisions))

    def _take(self, decisions: Decisions) -> None:
        for mitigation in decisions.mitigations:
            self._put(self._out, mitigation)
            if mitigation.stage == "final":
                self.mitigations += 1
                self._summarise(mitigation)
        for finding in decisions.findings:
            self.findings += finding.stage == "final"
            self._put(self._findings, finding)
        if decisions.mitigations or decisions.findings:
            self.flush()

    def _passed_on(self, decisions: Decisions) -> Decisions:
        """The decisions about pseudonyms, where there are some."""
        if self._pseudonyms is None:
            return decisions
        mitigations = [self._pseudonyms.mitigation(one) for one in decisions.mitigations]
        return replace(decisions, mitigations=mitigations, findings=[self._pseudonyms.finding(f) for f in decisions.findings])

    @staticmethod
    def _put(file: IO[bytes] | None, record: Finding | Mitigation) -> None:
        if file is not None:
            with _refusing(file):
                file.write(encode_line(record))

    def flush(self) -> None:
        """Hand what was written to the system. Raises `SourceError` when it takes no more (a full disk, say)."""
        for file in (self._out, self._findings):
            if file is not None:
                with _refusing(file):
                    file.flush()

    def _summarise(self, mitigation: Mitigation) -> None:
        key = (mitigation.target.type, mitigation.target.value, mitigation.detector)
        known = self.targets.get(key)
        if known is None:
            if len(self.targets) >= TARGETS_MAX:
                self.more_targets += 1
                return
            self.targets[key] = TargetSummary(
                mitigation.target.type, mitigation.target.value, mitigation.action, mitigation.state, mitigation.reason,
                mitigation.tick, mitigation.expires_at, 1, mitigation.severity, mitigation.dry_run,
            )  # fmt: skip
            return
        if mitigation.state == "lifted":
            known.state, known.reason, known.until = "lifted", mitigation.reason, mitigation.tick
            return
        known.mitigations += 1
        known.until = max(known.until, mitigation.expires_at)
        if mitigation.action != "notify" or known.action == "notify":
            known.action, known.state = mitigation.action, mitigation.state
            if mitigation.severity >= known.severity:
                known.severity, known.reason = mitigation.severity, mitigation.reason

    def summary(self) -> list[dict[str, Any]]:
        """The targets as plain data, most severe first."""
        ordered = sorted(self.targets.values(), key=lambda t: (t.action == "notify", -t.severity, t.since, t.value))
        return [asdict(target) for target in ordered]

    def close(self) -> None:
        """Close the files. Raises `SourceError` as `flush`."""
        for file in (self._out, self._findings):
            if file is not None:
                with _refusing(file):
                    file.close()
