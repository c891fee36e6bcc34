"""What is in force when: the records of a run as spans of time, by the rules of `edge.reader`.

Per key (target and detector) a record replaces what came before it unless its (tick, stage) is lower; it is in force from
its issue until it expires or is replaced, if it is active, no dry run, and asks for more than to tell people. Per target
any record in force is enough to cover it. Marks of a drill are not looked at: what is scored or compared is one, or none.
That edges read records alike is held by a test.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from schemas.mitigation import Mitigation

_STAGES = {"early": 0, "final": 1}
Named = tuple[str, str]
"""A target: (type, value)."""


@dataclass(frozen=True, slots=True)
class Span:
    """A record in force, in Unix milliseconds: ``from_ms`` inclusive, ``until_ms`` exclusive."""

    from_ms: int
    until_ms: int
    record: Mitigation


@dataclass(slots=True)
class InForce:
    """What a run's records come to."""

    enforced: dict[Named, list[Span]] = field(default_factory=dict)
    """By target: what an edge would have enforced, in order of time, from all detectors."""
    told: list[Mitigation] = field(default_factory=list)
    """What is not enforced: notes to people, dry runs, held ones."""


def is_enforced(record: Mitigation, *, held: bool = False) -> bool:
    """Whether an edge that can do everything would act on it; with ``held``, also if no budget had held it."""
    asked_for = record.state == "active" or (held and record.state == "held")
    return asked_for and not record.dry_run and record.action != "notify"


def in_force_of(mitigations: Iterable[Mitigation], *, held: bool = False) -> InForce:
    """The spans of records that may come in any order of keys; with ``held``, of those too that a budget held."""
    found = InForce()
    by_key: dict[tuple[str, str, str], list[Mitigation]] = {}
    for record in mitigations:
        by_key.setdefault((record.target.type, record.target.value, record.detector), []).append(record)
        if not is_enforced(record, held=held):
            found.told.append(record)
    for (kind, value, _), records in by_key.items():
        spans = list(_spans(records, held))
        if spans:
            found.enforced.setdefault((kind, value), []).extend(spans)
    for together in found.enforced.values():
        together.sort(key=lambda span: (span.from_ms, span.until_ms))
    return found


def _spans(records: list[Mitigation], held: bool) -> Iterable[Span]:
    """Of one key: each record until the next one that is not older takes its place."""
    taken: list[Mitigation] = []
    for record in sorted(records, key=lambda record: record.issued_at):  # stable: as published within a second
        if not taken or _order(record) >= _order(taken[-1]):
            taken.append(record)
    for index, record in enumerate(taken):
        until = record.expires_at
        if index + 1 < len(taken):
            until = min(until, taken[index + 1].issued_at)
        if is_enforced(record, held=held) and until > record.issued_at:
            yield Span(record.issued_at * 1000, until * 1000, record)


def _order(record: Mitigation) -> tuple[int, int]:
    return record.tick, _STAGES[record.stage]
