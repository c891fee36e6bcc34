"""Two runs over the same traffic: who is mitigated by one and not by the other, when, and what each costs normal traffic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.clock import Clock
from engine.in_force import InForce, Named, Span, in_force_of
from engine.seeds import make_seeds
from replay.coverage import NORMAL, Coverage, Covered, merged
from replay.event_pass import pass_over
from replay.runs import Progress, Run
from replay.shown import Shown
from replay.truth import WRONG, Truth
from schemas.config import Config

NEW, RELEASED, CHANGED = "new", "released", "changed"


@dataclass(slots=True)
class Stretch:
    """When and how one run has a target in force."""

    since: int
    """Unix seconds, of the first moment"""
    until: int
    """Of the last"""
    seconds: int
    """In force, without gaps"""
    actions: list[str]
    detectors: list[str]
    reason: str
    """Of its first record"""
    normal_events: int = 0
    """Covered while it is in force"""
    other_events: int = 0
    """Covered, of attacks or of who is not taken for normal"""


@dataclass(slots=True)
class Row:
    """One target that differs."""

    kind: str
    """``new``, ``released`` or ``changed``"""
    type: str
    value: str
    before: Stretch | None
    after: Stretch | None
    verdict: str | None = None
    """``attack``, ``honest``, ``nobody`` by labels; ``confirmed``, ``false positive`` by feedback; none: nothing is known"""
    attacks: list[str] = field(default_factory=list)

    @property
    def later_s(self) -> int | None:
        """By how much later it begins in the second run, negative: earlier."""
        return None if self.before is None or self.after is None else self.after.since - self.before.since


@dataclass(slots=True)
class Side:
    """One run, summed up."""

    name: str
    mitigated: dict[str, int]
    """Type of target → how many were in force"""
    held: int
    """Targets that a budget held and nothing else stopped"""
    dry_run: int
    """Targets that were only decided in dry run"""
    notified: int
    """Targets that only people were told of"""
    events_covered: int
    normal_covered: int
    normal_share: float
    wronged: int | None
    """Targets in force that are honest or called false positives; none: nothing is known"""
    attacks: list[str]
    """Attacks that something in force names"""


@dataclass(slots=True)
class Difference:
    """What a comparison comes to."""

    before: Side
    after: Side
    rows: list[Row]
    same: int
    """Targets that are in force alike in both"""
    events: int
    normal_events: int
    labelled: bool
    newly_normal: int
    """Normal events that the second covers and the first does not"""
    newly_normal_share: float
    newly_other: int
    no_longer_normal: int
    no_longer_other: int
    said: list[str]
    is_whole: bool
    unknown_targets: dict[str, int]

    def of(self, kind: str) -> list[Row]:
        """The rows of a kind, those that touch most normal traffic first."""
        return [row for row in self.rows if row.kind == kind]

    @property
    def newly_wronged(self) -> int:
        """New targets that are honest, or that an operator has called a false positive."""
        return sum(row.verdict in WRONG for row in self.of(NEW))

    def missed(self, shown: Shown) -> list[str]:
        """Attacks that the first stops something of, and the second nothing; and confirmed targets that are released."""
        released = [row for row in self.of(RELEASED) if row.verdict == "confirmed"]
        confirmed = [f"{row.type} {shown.value(row.type, row.value)}" for row in released]
        return sorted(set(self.before.attacks) - set(self.after.attacks)) + confirmed


def covered_by(
    config: Config, paths: list[str], clock: Clock, runs: Sequence[InForce], truth: Truth, *,
    between_ms: tuple[int | None, int | None] = (None, None), per_target: bool = True, progress: Progress = None,
) -> Covered:  # fmt: skip
    """Read the traffic once more and count what the runs touch."""
    seeds = make_seeds(config)
    coverage = Coverage(
        runs, config.input.service, seeds.hash, labels=truth.kinds, between_ms=between_ms, confirmed=truth.confirmed,
        false_positives=truth.false_positives, per_target=per_target,
    )  # fmt: skip
    pass_over(config, paths, clock, seeds, coverage, between_ms=between_ms, labels=truth.labels, progress=progress)
    return coverage.finish()


def difference(
    config: Config, paths: list[str], clock: Clock, runs: tuple[Run, Run], names: tuple[str, str], truth: Truth, *,
    between_ms: tuple[int | None, int | None] = (None, None), held: bool = False, progress: Progress = None,
) -> Difference:  # fmt: skip
    """Compare two runs.

    Args:
        config: how the events are read; the seed is that of the runs.
        held: count what a budget held as if it were in force.
    """
    before, after = (in_force_of(run.mitigations, held=held) for run in runs)
    covered = covered_by(config, paths, clock, (before, after), truth, between_ms=between_ms, progress=progress)
    rows, same = _rows(before, after, covered, truth)
    said = list(truth.said)
    for name, run in zip(names, runs, strict=True):
        said += [f"{name}: {text}" for text in run.said]
    newly, gone = covered.newly[1], covered.no_longer[1]
    return Difference(
        before=_side(names[0], 0, before, covered, truth), after=_side(names[1], 1, after, covered, truth), rows=rows,
        same=same,
        events=int(covered.events.sum()), normal_events=covered.normal_events, labelled=covered.labelled,
        newly_normal=int(newly[NORMAL]), newly_normal_share=covered.newly_share(), newly_other=int(newly[NORMAL + 1 :].sum()),
        no_longer_normal=int(gone[NORMAL]), no_longer_other=int(gone[NORMAL + 1 :].sum()), said=said,
        is_whole=all(run.is_whole for run in runs), unknown_targets=covered.unknown,
    )  # fmt: skip


def _rows(before: InForce, after: InForce, covered: Covered, truth: Truth) -> tuple[list[Row], int]:
    rows, same = [], 0
    for target in dict.fromkeys((*before.enforced, *after.enforced)):
        number = covered.targets[target]
        old, new = (
            _stretch(run.enforced.get(target), covered.target_covered[side, number].tolist())
            for side, run in enumerate((before, after))
        )
        if old is not None and new is not None and _alike(old, new):
            same += 1
            continue
        kind = NEW if old is None else RELEASED if new is None else CHANGED
        until_ms = 1000 * max(one.until for one in (old, new) if one is not None)
        verdict, attacks = truth.verdict(target, number, covered, until_ms)
        rows.append(Row(kind, *target, old, new, verdict, attacks))
    rows.sort(key=_weight)
    return rows, same


def _weight(row: Row) -> tuple[str, int, int, str, str]:
    """Those first that touch most normal traffic, then most of all."""
    sides = [one for one in (row.before, row.after) if one is not None]
    normal, other = max(one.normal_events for one in sides), max(one.other_events for one in sides)
    return row.kind, -normal, -other, row.type, row.value


def _alike(old: Stretch, new: Stretch) -> bool:
    return (old.since, old.until, old.seconds, old.actions) == (new.since, new.until, new.seconds, new.actions)


def _stretch(spans: list[Span] | None, counted: list[int]) -> Stretch | None:
    if not spans:
        return None
    stretches = merged(spans)
    return Stretch(
        since=stretches[0][0] // 1000, until=stretches[-1][1] // 1000,
        seconds=sum(until - since for since, until in stretches) // 1000,
        actions=sorted({span.record.action for span in spans}), detectors=sorted({span.record.detector for span in spans}),
        reason=spans[0].record.reason, normal_events=counted[0], other_events=counted[1],
    )  # fmt: skip


def _side(name: str, number: int, run: InForce, covered: Covered, truth: Truth) -> Side:
    told: dict[str, set[Named]] = {"held": set(), "dry_run": set(), "notified": set()}
    for record in run.told:
        target = record.target.type, record.target.value
        if target not in run.enforced and record.state != "lifted":
            told["dry_run" if record.dry_run else "held" if record.state == "held" else "notified"].add(target)
    wronged = None
    if truth.labels or truth.confirmed or truth.false_positives:
        wronged = sum(
            truth.verdict(target, covered.targets[target], covered, max(span.until_ms for span in spans))[0] in WRONG
            for target, spans in run.enforced.items()
        )
    return Side(
        name, dict(Counter(kind for kind, _ in run.enforced)), **{kind: len(found) for kind, found in told.items()},
        events_covered=int(covered.covered[number].sum()), normal_covered=covered.normal_covered(number),
        normal_share=covered.normal_share(number), wronged=wronged, attacks=sorted(truth.attacks_of(run, covered)),
    )  # fmt: skip
