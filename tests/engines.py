"""Running the engine over bytes in tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from detectors.registry import registered
from engine.account import Account
from engine.embedded import Embedded
from schemas.config import Config, parse_config
from schemas.mitigation import Finding, Mitigation

SEED = {"engine": {"seed": "for tests only"}}


@dataclass
class Decided:
    """What a run decided."""

    mitigations: list[Mitigation]
    findings: list[Finding]
    account: Account

    @property
    def final_ids(self) -> list[str]:
        return sorted({m.id for m in self.mitigations if m.stage == "final"})

    @property
    def final_finding_ids(self) -> list[str]:
        return sorted(f.id for f in self.findings if f.stage == "final")

    @property
    def stopped(self) -> set[str]:
        return {m.target.value for m in self.mitigations if m.action != "notify"}


def config_of(document: dict[str, Any] | None = None, **engine: Any) -> Config:
    document = dict(document or {})
    document["engine"] = {**SEED["engine"], **document.get("engine", {}), **engine}
    return parse_config(document)


def only(name: str, **section: Any) -> dict[str, Any]:
    """The section ``detectors`` with one detector on."""
    others = {detector.name: {"enabled": False} for detector in registered() if detector.name != name}
    return {**others, name: section}


def as_chunk(data: bytes) -> np.ndarray:
    chunk = np.zeros(2 * len(data) + 16384, np.uint8)
    chunk[: len(data)] = np.frombuffer(data, np.uint8)
    return chunk


def feed(engine: Embedded, name: str, data: bytes, base: int) -> int:
    engine.feed(name, as_chunk(data), len(data), base)
    return base + len(data)


def conclude(engine: Embedded) -> Decided:
    engine.finish()
    account = engine.account()
    decided = engine.take()
    engine.stop()
    return Decided(decided.mitigations, decided.findings, account)


def decide(data: bytes, bound_ms: int, config: Config | None = None, *, piece: int | None = None, **options: Any) -> Decided:
    """All of one source, in pieces of ``piece`` lines."""
    engine = Embedded(config or config_of(), **options)
    engine.open("log", bound_ms)
    base = 0
    if piece is None:
        base = feed(engine, "log", data, 0)
    else:
        lines = data.splitlines(keepends=True)
        for first in range(0, len(lines), piece):
            base = feed(engine, "log", b"".join(lines[first : first + piece]), base)
    engine.close("log")
    return conclude(engine)


def nothing_was_bounded(account: Account) -> bool:
    """Late = stragglers = truncated = aged out = held = 0, and every record is accounted for."""
    assert account.events == account.counted + account.late + account.outside
    bounds = (account.late, account.stragglers, account.truncated, account.aged_out, account.held, account.left_behind)
    return bounds == (0, 0, 0, 0, 0, 0) and account.gaps == account.duplicates == 0 and not account.poison
