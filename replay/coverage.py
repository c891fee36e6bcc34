"""How much traffic the mitigations of runs touch: events that come while anything is in force on any of their names.

The rules are those of drill scores (docs/drills.md): `engine.in_force` says when a target is in force, and an event falls under
it by any of its names, whether it proved them or not, because that is what an edge would see.

It is fed decoded events, each once, *after* the runs: what was in force at an event's second is known for certain only when
all has been decided. Several runs are counted in one pass. Memory is bounded by the targets and runs, never by the events.

Which events are **normal** follows from what is known:

- *Labels* (of a drill): those whose label is 0.
- Otherwise *taken for normal*: all but those of an address, key, account or signature that the first run (the reference)
  mitigates, or that an operator has confirmed. A target that feedback calls a false positive is normal whatever the reference
  does. A network, route or service is nobody, so what the reference stops with one stays normal.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from engine.in_force import InForce, Named, Span
from replay.target_index import TargetIndex
from schemas.columns import I64, U64, Columns
from schemas.fields import Number

SOMEBODY = ("ip", "api_key", "account", "signature")
"""Types of targets that are one party, or one program; the others are what many have in common."""
NORMAL, OTHER = 0, 1
"""Labels where there are none: taken for normal, and not."""
_TIME_BITS = 42
"""Of Unix milliseconds: until 2109."""
_TIME_MAX = (1 << _TIME_BITS) - 1
TARGETS_MAX = 1 << 21
_NEVER = np.iinfo(np.int64).max


@dataclass(slots=True)
class Covered:
    """What was counted. Labels index the last axis: 0 is normal."""

    targets: dict[Named, int]
    """The number of each target that any run had in force"""
    events: I64
    """i64[labels]: of all"""
    covered: I64
    """i64[runs, labels]: while anything of the run was in force on them"""
    newly: I64
    """i64[runs, labels]: covered by the run and not by the first"""
    no_longer: I64
    """i64[runs, labels]: covered by the first and not by the run"""
    of_target: I64
    """i64[targets, labels]: that fall under it, in force or not"""
    target_covered: I64
    """i64[runs or 0, targets, 2]: while the run had it in force, normal and other; without ``per_target`` no runs"""
    first_ms: I64
    """i64[labels]: the first event of each label; the largest number there is: none"""
    labelled: bool
    unknown: dict[str, int] = field(default_factory=dict)
    """Types of targets that events do not name → how many; they cover nothing here"""

    @property
    def normal_events(self) -> int:
        """All normal ones."""
        return int(self.events[NORMAL])

    def normal_covered(self, run: int = 0) -> int:
        """Normal events that a run covers."""
        return int(self.covered[run, NORMAL])

    def normal_share(self, run: int = 0) -> float:
        """Of all normal ones; 0 where there are none."""
        return self.normal_covered(run) / self.normal_events if self.normal_events else 0.0

    def newly_share(self, run: int = 1) -> float:
        """Of all normal ones, those that the run covers and the first does not."""
        return int(self.newly[run, NORMAL]) / self.normal_events if self.normal_events else 0.0


class Coverage:
    """Counts what each of several runs covers.

    Args:
        runs: what each had in force (`engine.in_force.in_force_of`); the first is what the others are compared with.
        service: what an event without a host is for (``input.service``).
        hash_seeds: u64[HASH_SEED_WORDS], secret (`engine.seeds.Seeds.hash`).
        labels: how many there are, 0 among them; 0: events have none.
        between_ms: only events in this range of time count (from inclusive, to exclusive).
        confirmed: targets that an operator has called rightly mitigated.
        false_positives: targets that an operator has called wrongly mitigated.
        per_target: also count for each target and run.
    """

    def __init__(
        self,
        runs: Sequence[InForce],
        service: str,
        hash_seeds: U64,
        *,
        labels: int = 0,
        between_ms: tuple[int | None, int | None] = (None, None),
        confirmed: Collection[Named] = (),
        false_positives: Collection[Named] = (),
        per_target: bool = True,
    ) -> None:
        named: dict[Named, int] = {}
        for target in (*(target for run in runs for target in run.enforced), *confirmed, *false_positives):
            named.setdefault(target, len(named))
        assert len(named) <= TARGETS_MAX, f"expected at most {TARGETS_MAX} targets, got {len(named)}"
        self._index = TargetIndex(list(named), service, hash_seeds)
        self._runs = [_Times(run, named) for run in runs]
        self._between_ms = between_ms
        self._per_target = per_target
        excluded = {target for target in runs[0].enforced if target[0] in SOMEBODY} | set(confirmed)
        self._excluded = _flags(excluded - set(false_positives), named)
        self._wronged = _flags(false_positives, named)
        kinds = labels or 2
        count = len(runs)
        shape = count, kinds
        self._found = Covered(
            targets=named, events=np.zeros(kinds, np.int64), covered=np.zeros(shape, np.int64), newly=np.zeros(shape, np.int64),
            no_longer=np.zeros(shape, np.int64), of_target=np.zeros((len(named), kinds), np.int64),
            target_covered=np.zeros((count if per_target else 0, len(named), 2), np.int64), first_ms=np.full(kinds, _NEVER),
            labelled=bool(labels),
        )  # fmt: skip
        targets = list(named)
        for number in self._index.unknown:
            kind = targets[number][0]
            self._found.unknown[kind] = self._found.unknown.get(kind, 0) + 1

    def take(self, columns: Columns, labels: I64 | None = None) -> None:
        """Count a batch of decoded events; ``labels``: i64[n], where runs are labelled."""
        found = self._found
        assert (labels is not None) == found.labelled
        count = columns.n
        times = columns.number(Number.TIME_MS)
        rows, targets = self._index.pairs_of(columns)
        if labels is None:
            labels = self._guessed(count, rows, targets)
        counts = np.ones(count, np.bool_)
        first, last = self._between_ms
        if first is not None:
            counts &= times >= first
        if last is not None:
            counts &= times < last
        if not counts.all():
            kept = counts[rows]
            rows, targets = rows[kept], targets[kept]
        kinds = len(found.events)
        found.events += np.bincount(labels[counts], minlength=kinds)
        np.minimum.at(found.first_ms, labels[counts], times[counts])
        if len(rows):
            found.of_target += np.bincount(targets * kinds + labels[rows], minlength=found.of_target.size).reshape(-1, kinds)
        self._count_runs(count, times, labels, rows, targets)

    def finish(self) -> Covered:
        """All that was counted."""
        return self._found

    def _guessed(self, count: int, rows: I64, targets: I64) -> I64:
        """Labels of events that have none."""
        labels = np.full(count, NORMAL, np.int64)
        labels[rows[self._excluded[targets]]] = OTHER
        labels[rows[self._wronged[targets]]] = NORMAL
        return labels

    def _count_runs(self, count: int, times: I64, labels: I64, rows: I64, targets: I64) -> None:
        if not len(rows):
            return
        found, kinds = self._found, len(self._found.events)
        moments = (targets << _TIME_BITS) + np.clip(times[rows], 0, _TIME_MAX)
        reference = np.zeros(count, np.bool_)
        for number, run in enumerate(self._runs):
            now = run.in_force(moments)
            covered = np.zeros(count, np.bool_)
            covered[rows[now]] = True
            if number == 0:
                reference = covered
            for into, which in (
                (found.covered, covered), (found.newly, covered & ~reference), (found.no_longer, reference & ~covered)
            ):  # fmt: skip
                into[number] += np.bincount(labels[which], minlength=kinds)
            if self._per_target:
                code = targets[now] * 2 + (labels[rows[now]] != NORMAL)
                found.target_covered[number] += np.bincount(code, minlength=2 * len(found.targets)).reshape(-1, 2)


class _Times:
    """When a run has which target in force: one sorted array of moments, a target's number before its time."""

    def __init__(self, run: InForce, named: dict[Named, int]) -> None:
        starts: list[int] = []
        ends: list[int] = []
        for number, target in sorted((named[target], target) for target in run.enforced):
            for since, until in merged(run.enforced[target]):
                starts.append((number << _TIME_BITS) + min(max(since, 0), _TIME_MAX))
                ends.append((number << _TIME_BITS) + min(max(until, 0), _TIME_MAX))
        self._starts, self._ends = np.array(starts, np.int64), np.array(ends, np.int64)

    def in_force(self, moments: I64) -> npt.NDArray[np.bool_]:
        """bool[n]: whether the target is in force at each moment."""
        if not len(self._starts):
            return np.zeros(len(moments), np.bool_)
        at = np.searchsorted(self._starts, moments, "right") - 1
        # A span of another target ends before this target's moments begin.
        return (at >= 0) & (moments < self._ends[np.maximum(at, 0)])


def merged(spans: Iterable[Span]) -> list[tuple[int, int]]:
    """Spans of one target, of whichever detectors, as stretches that do not touch, in order (milliseconds)."""
    found: list[tuple[int, int]] = []
    for span in sorted((span.from_ms, span.until_ms) for span in spans):
        if found and span[0] <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], span[1])
        else:
            found.append(span)
    return found


def _flags(targets: Collection[Named], named: dict[Named, int]) -> npt.NDArray[np.bool_]:
    flags = np.zeros(len(named), np.bool_)
    flags[[named[target] for target in targets]] = True
    return flags
